//! Shards spread over three hosts: each has its part, a dead host's part goes to the others, and as few as possible move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;

use super::common::{WAIT, output, quick, text};
use super::host::{Host, role};
use super::servers::{NEWEST, OLDEST, Servers};
use super::{FILE, Role, arrives, made_and_deleted};

/// A host with six shards in its file that is started.
fn start(sandbox: &Sandbox, servers: &Servers, name: &str) -> Host {
    let mut host = Host::new(sandbox, &servers.urls(), name, FILE);
    host.edit("shards = 2", "shards = 6");
    host.start();
    host
}

/// A leader and hosts that stand by.
async fn start_all<const N: usize>(sandbox: &Sandbox, servers: &Servers) -> [Host; N] {
    let mut hosts = Vec::new();
    for nth in 1..=N {
        let host = start(sandbox, servers, &format!("web-{nth}"));
        if nth == 1 {
            host.leads().await;
        } else {
            host.stands_by().await;
        }
        hosts.push(host);
    }
    hosts.try_into().ok().expect("so many")
}

/// The session of each shard that Twitch delivers to.
pub(super) fn bound(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let (conduit, _) = sandbox.conduits().pop().expect("a conduit");
    let live: BTreeSet<String> = sandbox.sessions().into_iter().collect();
    let shards = sandbox.shards(&conduit).into_iter();
    let bound = shards.filter(|(_, status, _)| status == "enabled");
    bound
        .filter_map(|(id, _, session)| Some((id.to_string(), session.filter(|id| live.contains(id))?)))
        .collect()
}

/// Waits until these hosts deliver so many shards each, and Twitch delivers to all of them.
pub(super) async fn spread(sandbox: &Sandbox, hosts: &[(&Host, usize)]) {
    for (host, count) in hosts {
        host.until("it has its part of the shards", |status| {
            let delivering = status.shards.iter().filter(|shard| shard.state.delivers()).count();
            (status.shards.len(), delivering) == (*count, *count)
        })
        .await;
    }
    let (begun, all) = (Instant::now(), hosts.iter().map(|(_, count)| count).sum());
    while bound(sandbox).len() < all {
        let logs: Vec<String> = hosts.iter().map(|(host, _)| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "not all are bound: {:?} {logs:#?}", bound(sandbox));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Number of shards whose session is still the same.
fn same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    before.iter().filter(|(shard, session)| after.get(*shard) == Some(session)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_has_its_part_and_a_dead_hosts_part_goes_to_the_others() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = start_all(&sandbox, &servers).await;
    spread(&sandbox, &[(&first, 3), (&second, 3)]).await;
    let (before, all) = (made_and_deleted(&sandbox), bound(&sandbox));

    // A host that comes gets two, and no more move than that.
    let mut third = start(&sandbox, &servers, "web-3");
    spread(&sandbox, &[(&third, 2), (&first, 2), (&second, 2)]).await;
    let three = bound(&sandbox);
    assert_eq!(same(&all, &three), 4, "{all:?} {three:?}");
    arrives(&sandbox, &[&first, &second, &third]).await;
    first
        .until("every host tells of two shards", |status| {
            status.cluster.as_ref().unwrap().hosts.iter().all(|host| host.shards.len() == 2)
        })
        .await;
    let table = text(&output(first.command(&["hosts"])).await.stdout);
    assert!(table.lines().skip(1).all(|line| line.contains(", ")), "{table}");
    let shown = text(&output(second.command(&["status"])).await.stdout);
    assert!(shown.contains(" on web-1; ") && shown.contains(" on web-3\n"), "{shown}");

    third.kill();
    spread(&sandbox, &[(&first, 3), (&second, 3)]).await;
    let two = bound(&sandbox);
    assert_eq!(same(&three, &two), 4, "the others stay: {three:?} {two:?}");
    arrives(&sandbox, &[&first, &second]).await;
    assert_eq!(made_and_deleted(&sandbox), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leaders_part_goes_to_the_others_and_a_drained_host_hands_its_part_over() {
    let servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut first, second, third] = start_all(&sandbox, &servers).await;
    spread(&sandbox, &[(&first, 2), (&second, 2), (&third, 2)]).await;
    let (before, all) = (made_and_deleted(&sandbox), bound(&sandbox));
    first.kill();
    spread(&sandbox, &[(&second, 3), (&third, 3)]).await;
    let two = bound(&sandbox);
    assert_eq!(same(&all, &two), 4, "what the others have stays bound: {all:?} {two:?}");
    let leads = |status: &Status| role(status) == Role::Leader;
    let statuses = [second.answer().await, third.answer().await];
    assert_eq!(statuses.iter().filter(|status| leads(status)).count(), 1);

    let drained = output(second.command(&["hosts", "drain", "web-3"])).await;
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    spread(&sandbox, &[(&second, 6), (&third, 0)]).await;
    assert_eq!(same(&two, &bound(&sandbox)), 3);
    arrives(&sandbox, &[&second, &third]).await;
    let undone = output(second.command(&["hosts", "drain", "--undo", "web-3"])).await;
    assert!(undone.status.success(), "{}", text(&undone.stderr));
    spread(&sandbox, &[(&second, 3), (&third, 3)]).await;
    assert_eq!(made_and_deleted(&sandbox), before);
}
