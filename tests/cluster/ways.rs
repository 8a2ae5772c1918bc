//! Ways that are cut: from a host to Twitch, and between the NATS servers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;

use super::common::quick;
use super::faults::leader;
use super::host::Host;
use super::servers::{NEWEST, OLDEST, Servers};
use super::swallower::Swallower;
use super::whole::{Before, bound, trickle};
use super::{FILE, hosts, is_stored, started};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_way_to_twitch_leaves_its_shards_to_others() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let port = sandbox.api_url().rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    let (mut ways, mut hosts) = (Vec::new(), Vec::new());
    for nth in 1..=3 {
        let way = Swallower::start(port.parse().unwrap()).await;
        let host = Host::new(&sandbox, &servers.urls(), &format!("web-{nth}"), FILE);
        host.edit(&format!(":{port}"), &format!(":{}", way.port()));
        ways.push(way);
        hosts.push(host);
    }
    let hosts: [Host; 3] = started(hosts.try_into().ok().expect("three")).await;
    let all = hosts.each_ref();
    // The two others get a shard each, and one of them leads.
    let (done, said) = all[1].says(&["hosts", "drain", "web-1"]).await;
    assert!(done, "{said}");
    let delivers = |status: &Status| status.shards.iter().filter(|shard| shard.state.delivers()).count() == 1;
    for host in &all[1..] {
        host.until("it has a shard", delivers).await;
    }
    let leads = leader(&all).await;
    let member = 3 - leads;
    assert_ne!(leads, 0, "a drained host leads: {}", all[0].log());
    let takeovers = all[leads].leads().await.cluster.unwrap().takeovers;
    let before = Before::new(&sandbox);
    let stop = trickle(&sandbox);

    ways[member].swallow(true);
    all[leads].has_shards().await;
    bound(&sandbox, &all).await;
    let status = all[member]
        .until("it says why", |status| {
            status.problems.iter().any(|problem| problem.message.contains("could not reach Twitch"))
        })
        .await;
    assert!(status.shards.is_empty(), "{:?}", status.shards);
    let log = all[member].log();
    assert!(log.contains("it leaves the lead and its shards to another host"), "{log}");

    ways[member].swallow(false);
    stop.store(true, Ordering::Relaxed);
    let named: Vec<(&str, &Host)> = ["web-1", "web-2", "web-3"].into_iter().zip(all).collect();
    before.holds(&sandbox, &servers, &named).await;
    let status = all[leads].leads().await;
    assert_eq!(status.cluster.unwrap().takeovers, takeovers, "the lead has not changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_that_is_cut_off_from_the_others_is_left() {
    let mut servers = Servers::start(NEWEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let (all, before) = ([&first, &second], Before::new(&sandbox));
    // A single server runs for a moment, so that all hosts connect to it.
    (0..servers.count()).for_each(|index| servers.kill(index));
    let is_connected = |status: &Status| status.cluster.as_ref().unwrap().connected;
    for host in all {
        host.until("NATS is away", |status| !is_connected(status)).await;
    }
    servers.run_cut_off(0);
    for host in all {
        host.until("it is connected to the server that is cut off", is_connected).await;
    }
    (1..servers.count()).for_each(|index| servers.run(index));
    is_stored(&sandbox, &all).await;
    leader(&all).await;
    let left = "the NATS server does not answer requests; connecting to another one";
    for host in all {
        host.until("it leaves that server", |_| host.log().contains(left)).await;
    }
    // The log of events is written and read over connections of its own.
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-2", &second)]).await;
}
