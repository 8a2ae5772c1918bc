//! The promises that hold after every fault: one leader, each event that a host has stored once in the shared log and in
//! order, and in the sink, no fault of ours at Twitch, and nothing made anew or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventsubd::model::cluster::HostState;
use eventsubd::sandbox::Sandbox;

use super::common::{WAIT, output, text};
use super::faults::leader;
use super::host::Host;
use super::log::{Entry, log};
use super::made_and_deleted;
use super::servers::Servers;

/// Counts at the stand-in before a fault.
pub(super) struct Before {
    made: (u64, u64, usize),
    faults: (u64, u64),
}

/// Counts of what a client must not do.
fn faults(sandbox: &Sandbox) -> (u64, u64) {
    let stats = sandbox.stats();
    (stats.inbound_traffic, stats.rate_limited)
}

impl Before {
    pub(super) fn new(sandbox: &Sandbox) -> Self {
        Self { made: made_and_deleted(sandbox), faults: faults(sandbox) }
    }

    /// Waits until all is as it shall be after a fault: these hosts are up, one leads, and all shards are bound. Then
    /// compares what the hosts have stored with the shared log.
    pub(super) async fn holds(&self, sandbox: &Sandbox, servers: &Servers, hosts: &[(&str, &Host)]) {
        let all: Vec<&Host> = hosts.iter().map(|(_, host)| *host).collect();
        let leads = leader(&all).await;
        for host in &all {
            host.until("it knows the leader and the other hosts", |status| {
                let cluster = status.cluster.as_ref().unwrap();
                let up = cluster.hosts.iter().filter(|host| host.state == HostState::Up).count();
                cluster.leader.as_deref() == Some(hosts[leads].0) && up == all.len()
            })
            .await;
        }
        bound(sandbox, &all).await;
        for host in &all {
            host.until("everything is forwarded", |status| {
                status.cluster.as_ref().unwrap().forward.lag_events == 0
            })
            .await;
        }
        is_in_the_log(servers, hosts).await;
        let logs: Vec<String> = all.iter().map(|host| host.log()).collect();
        assert_eq!(made_and_deleted(sandbox), self.made, "{logs:#?}");
        assert_eq!(faults(sandbox), self.faults, "{logs:#?}");
    }
}

/// Whether every shard is bound to a session that lives.
pub(super) fn all_bound(sandbox: &Sandbox) -> bool {
    let conduits = sandbox.conduits();
    let Some((conduit, shards)) = conduits.first() else { return false };
    let live = sandbox.sessions();
    let is_live = |session: &Option<String>| session.as_ref().is_some_and(|id| live.contains(id));
    let bound = sandbox.shards(conduit);
    bound.iter().filter(|(_, status, session)| status == "enabled" && is_live(session)).count()
        == *shards as usize
}

/// Waits until every shard is bound to a session that lives.
pub(super) async fn bound(sandbox: &Sandbox, hosts: &[&Host]) {
    let begun = Instant::now();
    while !all_bound(sandbox) {
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        let shards = sandbox.shards(&sandbox.conduits()[0].0);
        assert!(begun.elapsed() < WAIT, "shards stay dark: {shards:?} {logs:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The events that a host has stored, oldest first.
async fn stored(host: &Host) -> Vec<Entry> {
    let answer = output(host.command(&["events", "--json", "--since", "1h"])).await;
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("_").to_owned();
    let entry = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let broadcaster = word(&line["payload"]["event"]["broadcaster_user_id"]);
        (word(&line["metadata"]["message_id"]), broadcaster)
    };
    text(&answer.stdout).lines().map(entry).collect()
}

/// Waits until the log has each event that these hosts have stored, once, and each channel's in the order of the host that
/// brought it; and until the sink has them.
async fn is_in_the_log(servers: &Servers, hosts: &[(&str, &Host)]) {
    let begun = Instant::now();
    let mut all = BTreeMap::new();
    for (name, host) in hosts {
        all.insert((*name).to_owned(), stored(host).await);
    }
    assert!(all.values().any(|of| !of.is_empty()), "nothing was stored");
    let log = loop {
        let log = log(servers).await;
        let ids: BTreeSet<&str> = log.iter().map(|(_, (id, _))| id.as_str()).collect();
        assert_eq!(ids.len(), log.len(), "an id is in the log twice");
        let delivered: BTreeSet<String> = hosts[0].1.events().into_iter().collect();
        let has = |id: &str| ids.contains(id) && delivered.contains(id);
        let missing = all.values().flatten().filter(|(id, _)| !has(id)).count();
        if missing == 0 {
            break log;
        }
        assert!(begun.elapsed() < WAIT, "{missing} events never come");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for (name, of) in &all {
        let lanes = |entries: &mut dyn Iterator<Item = &Entry>| {
            let mut lanes: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (id, broadcaster) in entries {
                lanes.entry(broadcaster.clone()).or_default().push(id.clone());
            }
            lanes
        };
        let brought: Vec<&Entry> =
            log.iter().filter(|(from, _)| from == name).map(|(_, entry)| entry).collect();
        let known: BTreeSet<&str> = brought.iter().map(|(id, _)| id.as_str()).collect();
        // The copy of another host may have been first.
        let mut stored = of.iter().filter(|(id, _)| known.contains(id.as_str()));
        assert_eq!(lanes(&mut brought.into_iter()), lanes(&mut stored), "the order on {name}");
    }
}

/// Sends about a hundred events a second until stopped; returns the switch.
pub(super) fn trickle(sandbox: &Arc<Sandbox>) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, sandbox) = (Arc::clone(&stop), Arc::clone(sandbox));
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(10));
        for broadcaster in ["ann", "bob", "ann"].into_iter().cycle() {
            beat.tick().await;
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            // No shard takes it while none is bound.
            let _ = sandbox.trigger("stream.online", Some(broadcaster)).await;
        }
    });
    stop
}
