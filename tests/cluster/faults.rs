//! Further faults: a bucket that is deleted, ways that swallow everything, programs that stand still.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventsubd::model::cluster::{HostState, Role};
use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;
use rustix::process::Signal;

use super::common::{WAIT, quick};
use super::host::{Host, role};
use super::servers::{NEWEST, OLDEST, Servers};
use super::swallower::Swallower;
use super::whole::{Before, trickle};
use super::{FILE, arrives, hosts, made_and_deleted};

/// Waits until one of these hosts leads and Twitch matches the file; returns which.
pub(super) async fn leader(hosts: &[&Host]) -> usize {
    let begun = Instant::now();
    loop {
        for (nth, host) in hosts.iter().enumerate() {
            let status = host.status().await;
            if status.is_some_and(|status| role(&status) == Role::Leader && status.converged) {
                return nth;
            }
        }
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "nobody leads: {logs:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_bucket_is_made_again_from_what_the_hosts_remember() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);
    let client = async_nats::connect(servers.urls().split(',').next().unwrap()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let (mut revision, all) = (0, [&first, &second]);
    for round in 1..=2 {
        jetstream.delete_stream("KV_eventsubd").await.unwrap();
        let begun = Instant::now();
        for host in all {
            while host.log().matches("the bucket is made again").count() < round {
                assert!(begun.elapsed() < WAIT, "it does not notice: {}", host.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        arrives(&sandbox, &all).await;
        let leads = leader(&all).await;
        all[1 - leads].stands_by().await;
        arrives(&sandbox, &all).await;
        let stream = jetstream.get_stream("KV_eventsubd").await.unwrap();
        let state = &stream.cached_info().state;
        assert!(state.first_sequence > revision, "{state:?}");
        revision = state.last_sequence;
    }
    assert_eq!(made_and_deleted(&sandbox), before, "{}", first.log());
    // The new bucket has all that a new leader has to know.
    let leads = leader(&all).await;
    let mut all = [first, second];
    all[leads].kill();
    let next = &all[1 - leads];
    next.leads().await;
    arrives(&sandbox, &[next]).await;
    assert_eq!(made_and_deleted(&sandbox), before, "{}", next.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_way_to_nats_is_followed_and_keeps_nothing_bound() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let way = Swallower::start(servers.port(0)).await;
    let first = &mut Host::new(&sandbox, &format!("nats://127.0.0.1:{}", way.port()), "web-1", FILE);
    first.start();
    first.leads().await;
    let mut second = Host::new(&sandbox, &servers.urls(), "web-2", FILE);
    second.start();
    second.stands_by().await;
    let before = made_and_deleted(&sandbox);
    way.swallow(true);
    second.leads().await;
    assert_ne!(role(&first.answer().await), Role::Leader, "two lead");
    arrives(&sandbox, &[&second]).await;
    let status = first.until("it says so", |status| !status.problems.is_empty()).await;
    assert!(status.problems.iter().any(|problem| problem.part == "cluster"), "{:?}", status.problems);
    way.swallow(false);
    first.stands_by().await;
    arrives(&sandbox, &[&second]).await;
    assert_eq!(second.leads().await.cluster.unwrap().takeovers, 1);
    assert_eq!(made_and_deleted(&sandbox), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_leaves_one_leader_and_nothing_is_made_anew() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let (hosts, before) = ([&first, &second], Before::new(&sandbox));
    let stop = trickle(&sandbox);
    for seconds in [2, 5, 20] {
        let leads = leader(&hosts).await;
        hosts[leads].signal(Signal::STOP);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        // The lease lasts for three seconds.
        if seconds > 4 {
            hosts[1 - leads].leads().await;
        }
        hosts[leads].signal(Signal::CONT);
        let next = leader(&hosts).await;
        hosts[1 - next].stands_by().await;
    }
    stop.store(true, Ordering::Relaxed);
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-2", &second)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stands_still_for_long_loses_nothing_that_has_arrived() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let all: [Host; 3] = hosts(&sandbox, &servers.urls()).await;
    let before = Before::new(&sandbox);
    let stop = trickle(&sandbox);
    let leads = leader(&all.each_ref()).await;
    let takeovers = all[leads].answer().await.cluster.unwrap().takeovers;
    for member in (0..all.len()).filter(|nth| *nth != leads) {
        all[member].signal(Signal::STOP);
        tokio::time::sleep(Duration::from_secs(20)).await;
        all[member].signal(Signal::CONT);
        all[member].stands_by().await;
    }
    let status = all[leads].leads().await;
    assert_eq!(status.cluster.unwrap().takeovers, takeovers, "the lead has not changed");
    stop.store(true, Ordering::Relaxed);
    let named: Vec<(&str, &Host)> = ["web-1", "web-2", "web-3"].into_iter().zip(&all).collect();
    before.holds(&sandbox, &servers, &named).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_that_stands_still_takes_no_event() {
    let servers = Servers::start(NEWEST, 3);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let (hosts, before) = ([&first, &second], Before::new(&sandbox));
    let stop = trickle(&sandbox);
    // One of them leads the bucket, and each daemon is connected to one.
    for (index, seconds) in [(0, 2), (1, 2), (2, 2), (0, 5), (1, 5), (2, 20)] {
        servers.signal(index, Signal::STOP);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        servers.signal(index, Signal::CONT);
        let leads = leader(&hosts).await;
        hosts[1 - leads].stands_by().await;
    }
    stop.store(true, Ordering::Relaxed);
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-2", &second)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_with_older_data_changes_nothing() {
    let mut servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = Before::new(&sandbox);
    servers.kill(0);
    servers.save(0);
    servers.run(0);
    // The lease, the claim and the shared values change after the copy.
    first.kill();
    second.leads().await;
    first.start();
    first.stands_by().await;
    servers.kill(0);
    servers.restore(0);
    servers.run(0);
    let hosts = [&first, &second];
    let leads = leader(&hosts).await;
    hosts[1 - leads].stands_by().await;
    arrives(&sandbox, &hosts).await;
    // The others have the newer data; each goes away once.
    for index in 1..servers.count() {
        servers.kill(index);
        leader(&hosts).await;
        servers.run(index);
        let leads = leader(&hosts).await;
        hosts[1 - leads].stands_by().await;
        arrives(&sandbox, &hosts).await;
    }
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-2", &second)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_may_get_another_name_and_may_go_for_good() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut first, mut second] = hosts(&sandbox, &servers.urls()).await;
    let before = Before::new(&sandbox);
    arrives(&sandbox, &[&first, &second]).await;
    let states = |status: &Status| -> Vec<(String, HostState)> {
        let hosts = &status.cluster.as_ref().unwrap().hosts;
        hosts.iter().map(|host| (host.name.clone(), host.state)).collect()
    };
    second.kill();
    second.edit("host = \"web-2\"", "host = \"web-9\"");
    second.start();
    second.stands_by().await;
    let renamed = [
        ("web-1".to_owned(), HostState::Up),
        ("web-2".to_owned(), HostState::Down),
        ("web-9".to_owned(), HostState::Up),
    ];
    first.until("the new name is known, the old one down", |status| states(status) == renamed).await;
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-9", &second)]).await;
    first.kill();
    second.leads().await;
    second.until("the first is down", |status| states(status)[0].1 == HostState::Down).await;
    arrives(&sandbox, &[&second]).await;
    before.holds(&sandbox, &servers, &[("web-9", &second)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_an_hour_apart_change_nothing_and_shorten_no_gap() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut all: Vec<Host> = Vec::new();
    for (nth, clock) in ["+1h", "-1h"].into_iter().enumerate() {
        let mut host = Host::new(&sandbox, &servers.urls(), &format!("web-{}", nth + 1), FILE);
        host.environment = vec![
            ("LD_PRELOAD".to_owned(), faketime()),
            ("FAKETIME".to_owned(), clock.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
        ];
        host.start();
        if nth == 0 {
            host.leads().await
        } else {
            host.stands_by().await
        };
        all.push(host);
    }
    let before = made_and_deleted(&sandbox);
    for killed in [0, 1] {
        let begun = Instant::now();
        all[killed].kill();
        let next = &all[1 - killed];
        next.leads().await;
        let dark = begun.elapsed();
        let status = next.until("the gap is told", |status| !status.gaps.recent.is_empty()).await;
        let gap = &status.gaps.recent[0];
        let told = gap.to.since(gap.from);
        assert!(told > Duration::from_secs(2) && told < dark + WAIT, "{gap:?}, {dark:?}");
        arrives(&sandbox, &[next]).await;
        all[killed].start();
        all[killed].stands_by().await;
    }
    assert_eq!(made_and_deleted(&sandbox), before);
}

/// The library that moves a program's clock.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let path =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    path.expect("libfaketime is installed by tests/run").display().to_string()
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_way_to_twitch_makes_room_for_one_that_has_it() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let port = sandbox.api_url().rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    let way = Swallower::start(port.parse().unwrap()).await;
    let mut first = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    first.edit(&format!(":{port}"), &format!(":{}", way.port()));
    first.start();
    first.leads().await;
    let mut second = Host::new(&sandbox, &servers.urls(), "web-2", FILE);
    second.start();
    second.stands_by().await;
    let before = made_and_deleted(&sandbox);
    way.swallow(true);
    second.leads().await;
    arrives(&sandbox, &[&second]).await;
    let blind = |status: &Status| {
        status.problems.iter().any(|problem| problem.message.contains("could not reach Twitch"))
    };
    first.until("it says why", blind).await;
    way.swallow(false);
    // The first host is not given the lead back at once, but takes it if nobody else is there.
    assert_eq!(role(&second.answer().await), Role::Leader);
    assert_eq!(made_and_deleted(&sandbox), before);
    second.kill();
    first.leads().await;
    arrives(&sandbox, &[&first]).await;
    assert_eq!(made_and_deleted(&sandbox), before);
}
