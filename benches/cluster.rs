//! Several hosts: how long a change of leader takes, what it asks of Twitch, what a cluster costs when nothing happens, how soon
//! events are in the shared log and how many it takes.
//! Three daemons, three NATS servers and the stand-in, all on this machine. Run by hand; `tests/run --test cluster` installs
//! the NATS servers.
//!
//! ```sh
//! cargo bench --bench cluster                          # everything, about twenty minutes
//! cargo bench --bench cluster -- kills --kills=30      # one part: kills, large, rolling, idle, lag, sustained
//! ```
//!
//! Each part prints figures; nothing is asserted about time.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a report for people"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/cluster/host.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod host;
#[path = "cluster/log.rs"]
mod log;
mod measure;
#[path = "../tests/cluster/servers.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod servers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{WAIT, quick};
use eventsubd::model::cluster::Role;
use eventsubd::sandbox::{Sandbox, SandboxOptions};
use host::{Host, role};
use measure::Account;
use rustix::process::Signal;
use servers::{OLDEST, Servers};

/// Kills of the leader, unless `--kills=N` says otherwise.
const KILLS: usize = 100;
/// Channels of the large part; each has two subscriptions.
const CHANNELS: usize = 65_000;
/// Answer time of the API, as from a server in Europe.
const LATENCY: Duration = Duration::from_millis(40);
/// Longest wait for the first comparison of a long list.
const PATIENCE: Duration = Duration::from_secs(240);
/// From one event to the next in the rolling restart.
const PACE: Duration = Duration::from_millis(2);
/// Time for which idle daemons are watched.
const IDLE: Duration = Duration::from_secs(20);
/// Time after a change of leader in which requests are counted: looks at the shards come up to 5 s after it.
const AFTER: Duration = Duration::from_secs(15);

fn main() {
    let kills = measure::arguments()
        .iter()
        .find_map(|argument| argument.strip_prefix("--kills=")?.parse().ok())
        .unwrap_or(KILLS);
    let wants = measure::wanted_parts();
    let runtime = measure::runtime();
    runtime.block_on(async {
        if wants("kills") {
            self::kills(kills).await;
        }
        if wants("large") {
            large().await;
        }
        if wants("rolling") {
            rolling().await;
        }
        if wants("idle") {
            idle().await;
        }
        if wants("lag") {
            log::lag().await;
        }
        if wants("sustained") {
            log::sustained().await;
        }
    });
    runtime.shutdown_background();
}

fn login(nth: usize) -> String {
    format!("channel_{nth}")
}

/// The part of the file that names these channels; the list is written beside each host's file.
fn listed(channels: usize) -> (String, String) {
    let logins = (0..channels).map(|nth| format!("{}\n", login(nth))).collect();
    let file = "[[subscription]]\ntype = [\"stream.online\", \"stream.offline\"]\nbroadcaster_file = \"channels.txt\"\n";
    (file.to_owned(), logins)
}

/// Three hosts; the first one leads.
async fn hosts(sandbox: &Sandbox, nats: &str, channels: usize, conduit: Option<&str>) -> Vec<Host> {
    let (file, logins) = listed(channels);
    let mut hosts = Vec::new();
    for nth in 1..=3 {
        let mut host = Host::new(sandbox, nats, &format!("web-{nth}"), &file);
        fs::write(host.path("channels.txt"), &logins).unwrap();
        if let Some(id) = conduit {
            host.edit("[transport.conduit]\n", &format!("[transport.conduit]\nid = \"{id}\"\n"));
        }
        host.start();
        if nth == 1 {
            // A long list takes its time.
            let begun = Instant::now();
            while !host.status().await.is_some_and(|status| role(&status) == Role::Leader && status.converged)
            {
                assert!(begun.elapsed() < PATIENCE, "the first host does not lead: {}", host.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        } else {
            host.stands_by().await;
        }
        hosts.push(host);
    }
    hosts
}

async fn leader(hosts: &[Host]) -> usize {
    let begun = Instant::now();
    loop {
        for (nth, host) in hosts.iter().enumerate() {
            if host.status().await.is_some_and(|status| role(&status) == Role::Leader) {
                return nth;
            }
        }
        assert!(begun.elapsed() < WAIT, "nobody leads");
    }
}

/// Whether every shard is bound to a session that lives.
fn all_bound(sandbox: &Sandbox) -> bool {
    let conduits = sandbox.conduits();
    let Some((conduit, shards)) = conduits.first() else { return false };
    let live = sandbox.sessions();
    let is_live = |session: &Option<String>| session.as_ref().is_some_and(|id| live.contains(id));
    let bound = sandbox.shards(conduit);
    bound.iter().filter(|(_, status, session)| status == "enabled" && is_live(session)).count()
        == *shards as usize
}

/// Kills the leader; returns which it was, and the seconds until all shards are bound again.
async fn kill_leader(sandbox: &Sandbox, hosts: &mut [Host]) -> (usize, f64) {
    let killed = leader(hosts).await;
    let begun = Instant::now();
    hosts[killed].kill();
    // The stand-in notices the ends of the sockets a moment later.
    while all_bound(sandbox) {
        assert!(begun.elapsed() < WAIT, "the sockets of the killed host stay");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while !all_bound(sandbox) {
        assert!(begun.elapsed() < WAIT, "the shards are not bound again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (killed, begun.elapsed().as_secs_f64())
}

async fn kills(kills: usize) {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut hosts = hosts(&sandbox, &servers.urls(), 2, None).await;
    let (mut times, mut requests) = (Vec::new(), Vec::new());
    let created = sandbox.stats().creates;
    for _ in 0..kills {
        let before = sandbox.stats().requests;
        let (killed, seconds) = kill_leader(&sandbox, &mut hosts).await;
        times.push(seconds);
        requests.push((sandbox.stats().requests - before) as f64);
        hosts[killed].start();
        hosts[killed].stands_by().await;
    }
    let stats = sandbox.stats();
    assert_eq!((stats.creates, stats.deletes), (created, 0), "nothing is made anew or deleted");
    times.sort_by(f64::total_cmp);
    let within = times.iter().filter(|seconds| **seconds <= 5.0).count();
    println!(
        "\n{kills} kills of the leader: all shards bound again after {:.2} s (median), {:.2} s (9 of 10), {:.2} s \
         (99 of 100), {:.2} s at most; {within} within 5 s; {:.0} requests until then (median)",
        measure::part(&times, 0.5),
        measure::part(&times, 0.9),
        measure::part(&times, 0.99),
        measure::part(&times, 1.0),
        measure::median(requests),
    );
}

async fn large() {
    let ample = SandboxOptions {
        bucket: 1_000_000,
        refill_per_minute: 1_000_000,
        max_total_cost: 1_000_000,
        keepalive_unit: Duration::from_secs(1),
        ..quick()
    };
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(ample).await.unwrap();
    let conduit = sandbox.create_conduit(2);
    for nth in 0..CHANNELS {
        let id = sandbox.user_id(&login(nth)).unwrap();
        for name in ["stream.online", "stream.offline"] {
            sandbox.add_subscription(name, "1", &[("broadcaster_user_id", &*id)], Some(&conduit));
        }
    }
    let mut hosts = hosts(&sandbox, &servers.urls(), CHANNELS, Some(&conduit)).await;
    sandbox.set_pace(800, 800, LATENCY);
    for _ in 0..2 {
        let before = sandbox.stats();
        let (killed, seconds) = kill_leader(&sandbox, &mut hosts).await;
        let bound = sandbox.stats();
        tokio::time::sleep(AFTER).await;
        let after = sandbox.stats();
        println!(
            "\n{} subscriptions, the leader killed: all shards bound again after {seconds:.2} s and {} requests; {} \
             requests within {AFTER:?} after that: {} conduits, {} looks at shards, {} bindings, {} pages of the list, {} \
             logins, {} validations",
            2 * CHANNELS,
            bound.requests - before.requests,
            after.requests - before.requests,
            after.conduits - before.conduits,
            after.shards - before.shards,
            after.binds - before.binds,
            after.lists - before.lists,
            after.users - before.users,
            after.validations - before.validations,
        );
        hosts[killed].start();
        hosts[killed].stands_by().await;
    }
    for host in &hosts {
        let account = Account::of(host.child.as_ref().unwrap());
        println!("resident {:.1} MiB, peak {:.1}", account.resident_mib(), account.peak_mib());
    }
}

/// Triggers 500 events a second until it is stopped; returns their ids.
async fn load(sandbox: Arc<Sandbox>, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let (mut sent, mut pace) = (BTreeSet::new(), tokio::time::interval(PACE));
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let channel = login(sent.len() % 2);
        sent.insert(sandbox.trigger("stream.online", Some(&channel)).await.unwrap());
    }
    sent
}

/// Restarts one host after the other under load.
async fn rolling() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let mut hosts = hosts(&sandbox, &servers.urls(), 2, None).await;
    let (before, stop) = (sandbox.stats(), Arc::new(AtomicBool::new(false)));
    let load = tokio::spawn(load(Arc::clone(&sandbox), Arc::clone(&stop)));
    let begun = Instant::now();
    for host in &mut hosts {
        host.signal(Signal::TERM);
        let stopped = Instant::now();
        while host.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(stopped.elapsed() < WAIT, "the daemon does not end: {}", host.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        host.start();
        host.until("it is back, and a host leads", |status| {
            status.ready && status.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, took) = (load.await.unwrap(), begun.elapsed());
    let ended = Instant::now();
    let missing = loop {
        let arrived: BTreeSet<String> = hosts.iter().flat_map(Host::events).collect();
        let missing = sent.difference(&arrived).count();
        if missing == 0 || ended.elapsed() > WAIT {
            break missing;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let gaps =
        hosts.iter().map(|host| host.log().matches("events may have been missed").count()).sum::<usize>();
    let after = sandbox.stats();
    println!(
        "\nrolling restart of 3 hosts in {:.1} s under {:.0} events a second: {} sent, {missing} lost, {} undeliverable, {gaps} \
         gaps told, {} subscriptions made or deleted",
        took.as_secs_f64(),
        sent.len() as f64 / took.as_secs_f64(),
        sent.len(),
        after.undeliverable - before.undeliverable,
        after.creates - before.creates + after.deletes - before.deletes,
    );
}

/// The number of a process's TCP connections to these ports.
fn connections(process: u32, ports: &[u16]) -> usize {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(Path::new("/proc/net/tcp")).unwrap();
    let is_ours = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = fields[2].rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        port.is_some_and(|port| ports.contains(&port)) && sockets.iter().any(|inode| inode == fields[9])
    };
    table.lines().skip(1).filter(is_ours).count()
}

async fn written(servers: &Servers) -> u64 {
    let client = async_nats::connect(servers.urls().split(',').next().unwrap()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("KV_eventsubd").await.unwrap();
    stream.cached_info().state.last_sequence
}

async fn idle() {
    let servers = Servers::start(OLDEST, 3);
    let ports: Vec<u16> =
        servers.urls().split(',').map(|url| url.rsplit_once(':').unwrap().1.parse().unwrap()).collect();
    // A keepalive each 10 s, as Twitch sends them.
    let twitch = || SandboxOptions { keepalive_unit: Duration::from_secs(1), ..quick() };
    let sandbox = Sandbox::start(twitch()).await.unwrap();
    let hosts = hosts(&sandbox, &servers.urls(), 2, None).await;
    let other = Sandbox::start(twitch()).await.unwrap();
    let (file, logins) = listed(2);
    let mut alone = Host::new(&other, "", "alone", &file);
    fs::write(alone.path("channels.txt"), &logins).unwrap();
    alone.edit("[cluster]\nnats = \"\"\nhost = \"alone\"\n", "");
    alone.start();
    alone.until("it is ready", |status| status.converged).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let all: Vec<(String, &Host)> = hosts
        .iter()
        .enumerate()
        .map(|(nth, host)| (if nth == 0 { "leads" } else { "stands by" }.to_owned(), host))
        .chain([("without `[cluster]`".to_owned(), &alone)])
        .collect();
    let accounts: Vec<Account> =
        all.iter().map(|(_, host)| Account::of(host.child.as_ref().unwrap())).collect();
    let before: Vec<f64> = accounts.iter().map(|account| account.processor_seconds()).collect();
    let (writes, begun) = (written(&servers).await, Instant::now());
    tokio::time::sleep(IDLE).await;
    let (took, writes) = (begun.elapsed().as_secs_f64(), written(&servers).await - writes);
    println!("\nidle for {took:.0} s, 3 hosts: {:.1} writes a second to NATS", writes as f64 / took);
    for (((what, host), account), before) in all.iter().zip(&accounts).zip(before) {
        println!(
            "{what}: {:.2} % of a processor, {:.1} MiB resident, peak {:.1}, {} connections to NATS",
            (account.processor_seconds() - before) / took * 100.0,
            account.resident_mib(),
            account.peak_mib(),
            connections(host.child.as_ref().unwrap().id(), &ports)
        );
    }
}
