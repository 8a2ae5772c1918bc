//! Several daemons as programs, on real NATS servers, against one stand-in for Twitch: whoever dies, one leads, and nothing
//! is made anew or deleted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod assignment;
mod away;
#[path = "../common/mod.rs"]
mod common;
mod dead_letters;
mod disk;
mod faults;
mod host;
mod latest;
mod letters;
mod log;
mod logins;
mod loss;
mod mixed;
mod restart;
mod servers;
mod sinks;
mod spread;
mod swallower;
mod ways;
mod webhooks;
mod whole;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{WAIT, output, quick, text};
use eventsubd::model::cluster::{HostState, Role};
use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;
use host::{Host, role};
use rustix::process::Signal;
use servers::{NEWEST, OLDEST, Servers};
use spread::{bound, spread};

const FILE: &str =
    "[[subscription]]\ntype = [\"stream.online\", \"stream.offline\"]\nbroadcaster = [\"ann\", \"bob\"]\n";

/// The counts that a change of leader must not raise.
fn made_and_deleted(sandbox: &Sandbox) -> (u64, u64, usize) {
    let stats = sandbox.stats();
    (stats.creates, stats.deletes, sandbox.conduits().len())
}

/// Sends an event, and waits until the sink of these hosts has it.
async fn arrives(sandbox: &Sandbox, hosts: &[&Host]) {
    let begun = Instant::now();
    let id = sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    while !hosts[0].events().contains(&id) {
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "the event never arrives: {logs:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends an event, and waits until one of these hosts has stored it.
async fn is_stored(sandbox: &Sandbox, hosts: &[&Host]) {
    let stored = async || {
        let mut sum = 0;
        for host in hosts {
            sum += host.answer().await.store.last_seq.0;
        }
        sum
    };
    let (before, begun) = (stored().await, Instant::now());
    sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    while stored().await == before {
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "the event is not stored: {logs:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A leader, and hosts that stand by.
async fn hosts<const N: usize>(sandbox: &Sandbox, nats: &str) -> [Host; N] {
    hosts_with(sandbox, nats, FILE).await
}

/// The same with another file.
async fn hosts_with<const N: usize>(sandbox: &Sandbox, nats: &str, file: &str) -> [Host; N] {
    started(std::array::from_fn(|n| Host::new(sandbox, nats, &format!("web-{}", n + 1), file))).await
}

/// Starts hosts one after the other, so that the first one leads.
async fn started<const N: usize>(mut hosts: [Host; N]) -> [Host; N] {
    for (n, host) in hosts.iter_mut().enumerate() {
        host.start();
        if n == 0 {
            host.leads().await
        } else {
            host.stands_by().await
        };
    }
    hosts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_followed_and_nothing_is_made_anew() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut first, mut second, third] = hosts(&sandbox, &servers.urls()).await;
    arrives(&sandbox, &[&first]).await;
    let before = made_and_deleted(&sandbox);
    assert_eq!(before.0, 4);
    for host in [&first, &second, &third] {
        assert!(!host.log().contains("cannot connect to NATS"), "a start is no failure: {}", host.log());
    }

    let answer = output(third.command(&["hosts"])).await;
    let table = text(&answer.stdout);
    assert!(table.contains("web-1  leads") && table.contains("web-3  stands by"), "{table}");

    first.kill();
    let begun = Instant::now();
    let (next, other) = loop {
        let roles = [second.status().await, third.status().await].map(|status| status.map(|s| role(&s)));
        match roles {
            [Some(Role::Leader), _] => break (&second, &third),
            [_, Some(Role::Leader)] => break (&third, &second),
            _ => assert!(begun.elapsed() < WAIT, "nobody leads: {}{}", second.log(), third.log()),
        }
    };
    next.leads().await;
    next.until("all shards deliver", |status| status.delivering_shards() == 2).await;
    let status = next.until("the gap is told", |status| !status.gaps.recent.is_empty()).await;
    let gap = &status.gaps.recent[0];
    assert!(gap.to.since(gap.from) < Duration::from_secs(60), "{gap:?}");
    arrives(&sandbox, &[next, other]).await;
    let status = other.stands_by().await;
    assert!(status.gaps.recent.is_empty() && status.gaps.open.is_none(), "{:?}", status.gaps);
    assert_eq!(made_and_deleted(&sandbox), before, "{}", next.log());

    // The old one comes back, and stands by.
    first.start();
    first.stands_by().await;
    let status = next.leads().await;
    let cluster = status.cluster.unwrap();
    assert_eq!(cluster.takeovers, 1);
    assert!(cluster.hosts.iter().all(|host| host.state == HostState::Up), "{:?}", cluster.hosts);
    arrives(&sandbox, &[&first, next, other]).await;
    assert_eq!(made_and_deleted(&sandbox), before);
    second.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_for_a_while_does_not_lead_any_more() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);
    first.signal(Signal::STOP);
    second.leads().await;
    second.has_shards().await;
    arrives(&sandbox, &[&second]).await;
    first.signal(Signal::CONT);
    first.stands_by().await;
    arrives(&sandbox, &[&second]).await;
    let status = second.leads().await;
    assert_eq!(status.cluster.unwrap().takeovers, 1, "it went on leading");
    assert_eq!(made_and_deleted(&sandbox), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_without_losing_an_event() {
    let servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);
    first.signal(Signal::TERM);
    let (mut sent, begun) = (0, Instant::now());
    while first.child.as_mut().unwrap().try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < WAIT, "the daemon does not end: {}", first.log());
        sandbox.trigger("stream.online", Some("bob")).await.unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.leads().await;
    // A sink gets after the restart the events that it lacked when the daemon ended.
    first.start();
    let begun = Instant::now();
    loop {
        let mut all = first.events();
        all.sort();
        all.dedup();
        if all.len() == sent {
            break;
        }
        assert!(begun.elapsed() < WAIT, "{} of {sent}: {}{}", all.len(), first.log(), second.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sent > 0 && first.log().contains("handed over"), "{}", first.log());
    assert_eq!(made_and_deleted(&sandbox), before);
}

/// The sessions of the sockets of a host.
async fn sessions(host: &Host) -> Vec<String> {
    let shards = host.answer().await.shards;
    shards.iter().filter_map(|shard| Some(shard.session_id.as_ref()?.to_string())).collect()
}

/// Kills all servers while one of these hosts leads, and waits until that one is cut off; returns it with its takeovers.
///
/// On a busy machine the lease may change hands right before the servers are killed, and then nobody leads without NATS: they
/// are run again.
async fn cut_off<'a>(servers: &mut Servers, hosts: [&'a Host; 2]) -> (&'a Host, u64) {
    let begun = Instant::now();
    loop {
        let leader = hosts[faults::leader(&hosts).await];
        let takeovers = leader.answer().await.cluster.unwrap().takeovers;
        (0..servers.count()).for_each(|index| servers.kill(index));
        let status = leader
            .until("it does not lead without NATS", |status| {
                !status.cluster.as_ref().unwrap().connected && role(status) != Role::Leader
            })
            .await;
        if role(&status) == Role::CutOff {
            assert!(status.ready, "{:?}", status.not_ready);
            assert!(status.problems.iter().any(|problem| problem.part == "cluster"), "{:?}", status.problems);
            return (leader, takeovers);
        }
        assert!(begun.elapsed() < WAIT, "no leader is cut off: {}", leader.log());
        (0..servers.count()).for_each(|index| servers.run(index));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_may_lose_a_server_and_may_be_away() {
    let mut servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);
    // One of them led the bucket.
    for index in 0..servers.count() {
        servers.kill(index);
        arrives(&sandbox, &[&first, &second]).await;
        servers.run(index);
        let begun = Instant::now();
        loop {
            let all = [first.answer().await, second.answer().await];
            let leaders =
                all.iter().filter(|status| role(status) == Role::Leader && status.converged).count();
            let connected = all.iter().all(|status| status.cluster.as_ref().unwrap().connected);
            if leaders == 1 && connected {
                break;
            }
            assert!(begun.elapsed() < WAIT, "nobody leads: {}{}", first.log(), second.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(made_and_deleted(&sandbox), before);

    // Half a minute after the other host has come, a shard moves to it.
    spread(&sandbox, &[(&first, 1), (&second, 1)]).await;
    let (leader, takeovers) = cut_off(&mut servers, [&first, &second]).await;
    let own = sessions(leader).await;
    let (all, binds) = (bound(&sandbox), sandbox.stats().binds);
    is_stored(&sandbox, &[&first, &second]).await;
    (0..servers.count()).for_each(|index| servers.run(index));
    let begun = Instant::now();
    let next = loop {
        let all = [first.answer().await, second.answer().await];
        match all.map(|status| role(&status)) {
            [Role::Leader, _] => break &first,
            [_, Role::Leader] => break &second,
            _ => assert!(begun.elapsed() < WAIT, "nobody leads: {}{}", first.log(), second.log()),
        }
    };
    let status = next.leads().await;
    arrives(&sandbox, &[&first, &second]).await;
    if std::ptr::eq(next, leader) {
        assert_eq!(status.cluster.unwrap().takeovers, takeovers, "its term went on");
        let now = bound(&sandbox);
        let logs = || [first.log(), second.log()];
        assert!(
            own.iter().all(|session| now.values().any(|bound| bound == session)),
            "its sockets stayed bound: {all:?} {now:?} {:#?}",
            logs()
        );
        // The shards of the other host may have moved, if that one came back late.
        if now == all {
            assert_eq!(sandbox.stats().binds, binds, "nothing was bound again: {:#?}", logs());
        }
    }
    assert_eq!(made_and_deleted(&sandbox), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_deleted_while_files_differ() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let shorter = FILE.replace(", \"bob\"", "");
    first.configure(&sandbox, &servers.urls(), "web-1", &shorter);
    assert!(output(first.command(&["reload"])).await.status.success());
    let held = |status: &Status| {
        status
            .problems
            .iter()
            .any(|problem| problem.message.contains("would be deleted, and nothing is deleted"))
    };
    let status = first.until("deletes wait", held).await;
    assert!(!status.converged && status.cluster.unwrap().no_deletes.unwrap().contains("web-2"));
    second.until("it says so too", |status| status.cluster.as_ref().unwrap().no_deletes.is_some()).await;
    assert_eq!(sandbox.stats().deletes, 0);

    second.configure(&sandbox, &servers.urls(), "web-2", &shorter);
    assert!(output(second.command(&["reload"])).await.status.success());
    first.leads().await;
    assert_eq!(sandbox.stats().deletes, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_another_file_than_the_one_before_deletes_nothing_at_first() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut first = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    first.start();
    first.leads().await;
    first.kill();
    let mut second = Host::new(&sandbox, &servers.urls(), "web-2", &FILE.replace(", \"bob\"", ""));
    second.start();
    let held = |status: &Status| {
        role(status) == Role::Leader
            && status
                .problems
                .iter()
                .any(|problem| problem.message.contains("the leader before had another file"))
    };
    second.until("it waits", held).await;
    assert_eq!(sandbox.stats().deletes, 0);
    // A person who has this file loaded here wants it.
    second.configure(&sandbox, &servers.urls(), "web-2", &FILE.replace("\"ann\", ", ""));
    assert!(output(second.command(&["reload"])).await.status.success());
    second.leads().await;
    assert_eq!(sandbox.stats().deletes, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_host_of_one_name_takes_no_part() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut first] = hosts(&sandbox, &servers.urls()).await;
    let mut double = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    double.start();
    let refused = |status: &Status| {
        status.problems.iter().any(|problem| problem.message.contains("another host is called web-1 too"))
    };
    double.until("it is refused", refused).await;
    assert_eq!(role(&first.leads().await), Role::Leader);
    // Once the first has gone, the name is free.
    first.kill();
    double.leads().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_is_refused() {
    let old = ["/usr/sbin/nats-server", "/usr/bin/nats-server"].map(PathBuf::from);
    let old =
        old.into_iter().find(|path| path.exists()).expect("Debian's nats-server is installed by tests/run");
    let servers = Servers::start_program(old, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut host = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    host.start();
    let refused = |status: &Status| {
        status.problems.iter().any(|problem| {
            problem.message.contains("and `[cluster]` needs 2.12 or newer")
                && problem.hint.contains("https://github.com/nats-io/nats-server/releases")
        })
    };
    let status = host.until("it is refused", refused).await;
    assert!(!status.ready && role(&status) == Role::Standby);
    let answer = output(host.command(&["check", "--online"])).await;
    assert!(text(&answer.stdout).contains("needs 2.12 or newer"), "{}", text(&answer.stdout));
    assert_eq!(made_and_deleted(&sandbox), (0, 0, 0));
}
