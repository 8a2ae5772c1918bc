//! A rolling restart of three hosts under load: the shards move ahead of each, and nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventsubd::sandbox::Sandbox;
use rustix::process::Signal;

use super::common::{WAIT, quick};
use super::host::Host;
use super::servers::{OLDEST, Servers};
use super::{hosts, made_and_deleted};

/// Triggers events until it is stopped; returns their ids.
async fn load(sandbox: Arc<Sandbox>, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let channel = if sent.len() % 2 == 0 { "ann" } else { "bob" };
        sent.insert(sandbox.trigger("stream.online", Some(channel)).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let mut hosts: [Host; 3] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(Arc::clone(&sandbox), Arc::clone(&stop)));
    for host in &mut hosts {
        host.signal(Signal::TERM);
        let begun = Instant::now();
        while host.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < WAIT, "the daemon does not end: {}", host.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        host.start();
        host.until("it is back, and another host leads", |status| {
            status.ready && status.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some())
        })
        .await;
    }
    assert!(hosts[0].log().contains("handed over"), "{}", hosts[0].log());
    stop.store(true, Ordering::Relaxed);
    let (sent, begun) = (load.await.unwrap(), Instant::now());
    loop {
        let all: BTreeSet<String> = hosts.iter().flat_map(Host::events).collect();
        let missing: Vec<&String> = sent.difference(&all).collect();
        if missing.is_empty() {
            break;
        }
        let logs: Vec<String> = hosts.iter().map(Host::log).collect();
        assert!(begun.elapsed() < WAIT, "{missing:?}: {logs:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!sent.is_empty());
    for host in &hosts {
        assert!(!host.log().contains("events may have been missed"), "a gap: {}", host.log());
    }
    assert_eq!(made_and_deleted(&sandbox), before);
}
