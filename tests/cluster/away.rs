//! NATS away for all hosts: nobody leads, intake goes on, and hosts bind their own shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventsubd::model::cluster::Role;
use eventsubd::sandbox::Sandbox;
use rustix::process::Signal;

use super::common::{WAIT, quick};
use super::faults::leader;
use super::host::{Host, role};
use super::hosts;
use super::servers::{NEWEST, OLDEST, Servers};
use super::whole::{Before, bound, trickle};

/// The host that has sockets, of those that do.
async fn with_shards(hosts: &[Host]) -> usize {
    let begun = Instant::now();
    loop {
        for (nth, host) in hosts.iter().enumerate() {
            if host.status().await.is_some_and(|status| !status.shards.is_empty()) {
                return nth;
            }
        }
        assert!(begun.elapsed() < WAIT, "no host has a socket");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The session of the first shard.
fn first_session(sandbox: &Sandbox) -> String {
    sandbox.shards(&sandbox.conduits()[0].0)[0].2.clone().expect("a session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_without_nats_leaves_no_shard_dark_and_loses_nothing_that_was_stored() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let mut hosts: [Host; 3] = hosts(&sandbox, &servers.urls()).await;
    let before = Before::new(&sandbox);
    let stop = trickle(&sandbox);
    let began = Instant::now();
    (0..servers.count()).for_each(|index| servers.signal(index, Signal::STOP));
    for host in &hosts {
        host.until("nobody leads", |status| {
            role(status) != Role::Leader && !status.cluster.as_ref().unwrap().connected
        })
        .await;
    }
    // A socket breaks.
    let session = first_session(&sandbox);
    sandbox.kill_session(&session);
    let begun = Instant::now();
    while sandbox.sessions().contains(&session) {
        assert!(begun.elapsed() < WAIT, "the session stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bound(&sandbox, &hosts.each_ref()).await;
    assert_ne!(first_session(&sandbox), session);
    // A host starts anew, and knows what it was assigned.
    let holder = with_shards(&hosts).await;
    hosts[holder].kill();
    hosts[holder].start();
    bound(&sandbox, &hosts.each_ref()).await;
    let log = hosts[holder].log();
    assert!(log.contains("this host has bound its shard itself"), "{log}");
    for host in &hosts {
        let status = host.answer().await;
        assert_ne!(role(&status), Role::Leader, "somebody leads without NATS");
    }
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(began.elapsed())).await;
    (0..servers.count()).for_each(|index| servers.signal(index, Signal::CONT));
    let named = ["web-1", "web-2", "web-3"].into_iter().zip(&hosts).collect::<Vec<_>>();
    leader(&hosts.each_ref()).await;
    stop.store(true, Ordering::Relaxed);
    before.holds(&sandbox, &servers, &named).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_starts_without_nats_takes_no_shard_from_another_one() {
    let mut servers = Servers::start(NEWEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let mut hosts: [Host; 2] = hosts(&sandbox, &servers.urls()).await;
    let before = Before::new(&sandbox);
    // The second host takes over what the first one remembers as its own.
    let first = with_shards(&hosts).await;
    hosts[first].kill();
    let other = 1 - first;
    hosts[other].leads().await;
    bound(&sandbox, &[&hosts[other]]).await;
    let session = first_session(&sandbox);
    servers.kill(0);
    hosts[other].until("it is cut off", |status| role(status) == Role::CutOff).await;
    hosts[first].start();
    // The host looks at once when it is alone, and again after fifteen seconds.
    let looks = sandbox.stats().shards;
    let begun = Instant::now();
    while sandbox.stats().shards < looks + 2 {
        assert!(begun.elapsed() < WAIT, "it does not look: {}", hosts[first].log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(first_session(&sandbox), session);
    let status = hosts[first].answer().await;
    assert!(status.shards.is_empty(), "{:?}", status.shards);
    // The other host ends: its shards are free.
    hosts[other].kill();
    bound(&sandbox, &[&hosts[first]]).await;
    let stop = trickle(&sandbox);
    servers.run(0);
    hosts[other].start();
    let named = [("web-1", &hosts[0]), ("web-2", &hosts[1])];
    leader(&hosts.each_ref()).await;
    stop.store(true, Ordering::Relaxed);
    before.holds(&sandbox, &servers, &named).await;
}
