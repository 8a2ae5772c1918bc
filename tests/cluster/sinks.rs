//! Sinks are worked from the shared log, each by one host: nothing is lost whoever dies, and nothing comes twice if nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;
use rustix::process::Signal;

use super::common::{WAIT, quick};
use super::host::Host;
use super::servers::{NEWEST, OLDEST, Servers};
use super::{FILE, arrives, hosts, started};

/// Sends events; returns their ids with the channels.
pub(super) async fn send(sandbox: &Sandbox, number: usize) -> Vec<(String, &'static str)> {
    let mut sent = Vec::new();
    for nth in 0..number {
        let channel = if nth % 2 == 0 { "ann" } else { "bob" };
        sent.push((sandbox.trigger("stream.online", Some(channel)).await.unwrap(), channel));
    }
    sent
}

/// Waits until the sink has all of these; returns how often it got each.
pub(super) async fn has_all(hosts: &[&Host], sent: &[(String, &str)]) -> BTreeMap<String, usize> {
    let begun = Instant::now();
    loop {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        hosts[0].events().into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
        let missing: Vec<&str> =
            sent.iter().map(|(id, _)| id.as_str()).filter(|id| !counts.contains_key(*id)).collect();
        if missing.is_empty() {
            return counts;
        }
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "{} of {} never come: {logs:#?}", missing.len(), sent.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The first time that the sink got each event is in the order of sending, for each channel.
pub(super) fn is_in_order(host: &Host, sent: &[(String, &str)]) {
    let (mut seen, all) = (BTreeSet::new(), host.events());
    let first: Vec<String> = all.into_iter().filter(|id| seen.insert(id.clone())).collect();
    for channel in ["ann", "bob"] {
        let expected: Vec<&str> =
            sent.iter().filter(|(_, of)| *of == channel).map(|(id, _)| id.as_str()).collect();
        let known: BTreeSet<&str> = expected.iter().copied().collect();
        let found: Vec<&str> = first.iter().map(String::as_str).filter(|id| known.contains(id)).collect();
        assert_eq!(found, expected, "the order of {channel}");
    }
}

/// Whether a host works the sink of the file.
fn works(status: &Status) -> bool {
    status.sinks.iter().any(|sink| sink.name.as_str() == "log")
}

/// The host that works the sink.
async fn worker(hosts: &[&Host]) -> usize {
    let begun = Instant::now();
    loop {
        for (nth, host) in hosts.iter().enumerate() {
            if host.status().await.is_some_and(|status| works(&status)) {
                return nth;
            }
        }
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "no host works the sink: {logs:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_comes_once_and_a_drained_host_hands_its_sinks_over() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second, third] = hosts(&sandbox, &servers.urls()).await;
    let all = [&first, &second, &third];
    assert_eq!(worker(&all).await, 0, "the first host has had it from the start");
    let mut sent = send(&sandbox, 200).await;
    has_all(&all, &sent).await;

    // Events come while the sink and the shards move.
    let (done, said) = second.says(&["hosts", "drain", "web-1"]).await;
    assert!(done, "{said}");
    let begun = Instant::now();
    while first.status().await.is_none_or(|status| works(&status)) {
        sent.extend(send(&sandbox, 5).await);
        assert!(begun.elapsed() < WAIT, "the sink stays: {}", first.log());
    }
    sent.extend(send(&sandbox, 100).await);
    let counts = has_all(&all, &sent).await;
    assert_ne!(worker(&all).await, 0);
    let twice: Vec<_> =
        sent.iter().filter(|(id, _)| counts[id] > 1).map(|(id, _)| (id, counts[id])).collect();
    assert!(twice.is_empty(), "{twice:?}: {}{}{}", first.log(), second.log(), third.log());
    is_in_order(&first, &sent);
}

/// A leader, and hosts that stand by, with one shard for all.
async fn one_shard<const N: usize>(sandbox: &Sandbox, nats: &str) -> [Host; N] {
    let hosts = std::array::from_fn(|n| Host::new(sandbox, nats, &format!("web-{}", n + 1), FILE));
    hosts.iter().for_each(|host| host.edit("shards = 2", "shards = 1"));
    started(hosts).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_is_followed_at_the_place_of_its_sink() {
    let servers = Servers::start(NEWEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut all = one_shard::<3>(&sandbox, &servers.urls()).await;
    // The shard and the sink go to different hosts.
    let (done, said) = all[0].says(&["hosts", "drain", "web-1"]).await;
    assert!(done, "{said}");
    let begun = Instant::now();
    let (killed, shards) = loop {
        let at = worker(&[&all[0], &all[1], &all[2]]).await;
        let status = [all[1].status().await, all[2].status().await];
        let shards = status.iter().position(|status| {
            let bound = |status: &Status| status.shards.iter().filter(|shard| shard.state.delivers()).count();
            status.as_ref().is_some_and(|status| bound(status) == 1)
        });
        match shards.map(|nth| nth + 1) {
            Some(shards) if at != 0 && at != shards => break (at, shards),
            _ => assert!(begun.elapsed() < WAIT, "{}{}", all[1].log(), all[2].log()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    all[shards].until("it has taken the shards over", |status| status.ready).await;
    let mut sent = send(&sandbox, 100).await;
    has_all(&[&all[0], &all[1], &all[2]], &sent).await;
    let load = send(&sandbox, 100);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        all[killed].kill();
    };
    sent.extend(tokio::join!(load, kill).0);
    let begun = Instant::now();
    let counts = has_all(&[&all[0], &all[1], &all[2]], &sent).await;
    assert!(begun.elapsed() < WAIT);
    let again: usize = counts.values().map(|count| count - 1).sum();
    assert!(again <= 300, "{again} events came again");
    is_in_order(&all[0], &sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_nats_leaves_its_sinks_to_others_and_delivers_later() {
    let mut servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let all = [&first, &second];
    let mut sent = send(&sandbox, 10).await;
    has_all(&all, &sent).await;
    servers.kill(0);
    for host in all {
        host.until("its sinks pause", |status| !works(status)).await;
    }
    sent.extend(send(&sandbox, 10).await);
    servers.run(0);
    let counts = has_all(&all, &sent).await;
    assert!(sent.iter().all(|(id, _)| counts[id] == 1), "{counts:?}");
    is_in_order(&first, &sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_bucket_and_a_deleted_log_lose_no_event() {
    let servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let all = [&first, &second];
    let mut sent = send(&sandbox, 10).await;
    has_all(&all, &sent).await;
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for stream in ["KV_eventsubd", "eventsubd-events"] {
        jetstream.delete_stream(stream).await.unwrap();
        sent.extend(send(&sandbox, 10).await);
        has_all(&all, &sent).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skip_retry_and_replay_work_on_any_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let closed = super::common::port();
    let file = format!("{FILE}\n[sink.down]\ntype = \"http\"\nurl = \"http://127.0.0.1:{closed}/\"\n");
    let mut all: Vec<Host> = Vec::new();
    for nth in 1..=2 {
        let mut host = Host::new(&sandbox, &servers.urls(), &format!("web-{nth}"), &file);
        host.start();
        if nth == 1 {
            host.leads().await
        } else {
            host.stands_by().await
        };
        all.push(host);
    }
    let [first, second] = [&all[0], &all[1]];
    let sent = send(&sandbox, 4).await;
    has_all(&[first, second], &sent).await;
    let down = |status: &Status| {
        status.sinks.iter().any(|sink| sink.name.as_str() == "down" && sink.problem.is_some())
    };
    first.until("the other sink fails", down).await;

    let (done, said) = second.says(&["sink", "retry", "down"]).await;
    assert!(done, "{said}");
    let (done, said) = second.says(&["sink", "skip", "down"]).await;
    assert!(done && said.contains("stream.online"), "{said}");
    let has_letter = |status: &Status| {
        status.sinks.iter().any(|sink| sink.name.as_str() == "down" && sink.dead_letters == 1)
    };
    first.until("it is a dead letter", has_letter).await;
    let (done, said) = second.says(&["sink", "skip", "log"]).await;
    assert!(!done && said.contains("nothing holds up sink log"), "{said}");

    let (done, said) = second.says(&["replay", "--sink", "log", "--since", "1h", "--yes"]).await;
    assert!(done && said.contains('4'), "{said}");
    let begun = Instant::now();
    loop {
        let counts = has_all(&[first, second], &sent).await;
        if sent.iter().all(|(id, _)| counts[id] == 2) {
            break;
        }
        assert!(begun.elapsed() < WAIT, "{counts:?}: {}", first.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    arrives(&sandbox, &[first]).await;

    // The other sink still waits: its events would be missed without the cluster.
    first.leave_cluster();
    let begun = Instant::now();
    loop {
        let (done, said) = first.says(&["check"]).await;
        if !done && said.contains("these sinks miss events that are still in the shared log: down.") {
            break;
        }
        assert!(begun.elapsed() < WAIT, "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_a_cluster_and_leaves_it_without_a_loss() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut host = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    let with = host.leave_cluster();
    let without = fs::read_to_string(host.path("config.toml")).unwrap();
    let mut sent = Vec::new();
    for (nth, config) in [&without, &with, &without, &with].into_iter().enumerate() {
        fs::write(host.path("config.toml"), config).unwrap();
        host.start();
        let is_ready = |status: &Status| status.converged && status.cluster.is_some() == (nth % 2 == 1);
        host.until("it is ready", is_ready).await;
        sent.extend(send(&sandbox, 10).await);
        host.until("it has stored them", |status| status.store.last_seq.0 >= sent.len() as u64).await;
        // Some are stored and not delivered.
        host.signal(Signal::TERM);
        host.child.take().unwrap().wait().unwrap();
    }
    host.start();
    has_all(&[&host], &sent).await;
    is_in_order(&host, &sent);
}
