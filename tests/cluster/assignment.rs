//! The assignment of shards to hosts, and the commands that change it.

use std::time::{Duration, Instant};

use eventsubd::model::cluster::{HostState, Role};
use eventsubd::sandbox::Sandbox;
use rustix::process::Signal;
use serde_json::Value;

use super::common::{WAIT, output, quick, text};
use super::host::{Host, role};
use super::letters::until;
use super::servers::{NEWEST, OLDEST, Servers};
use super::{FILE, hosts, made_and_deleted};

/// The assignment in the bucket, once it is like this.
async fn assignment(servers: &Servers, what: &str, mut like: impl FnMut(&Value) -> bool) -> Value {
    let begun = Instant::now();
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let bucket = until(async || jetstream.get_key_value("eventsubd").await).await;
    loop {
        let value = bucket.get("assign").await.ok().flatten();
        let value: Value = value.map(|value| serde_json::from_slice(&value).unwrap()).unwrap_or_default();
        if like(&value) {
            return value;
        }
        assert!(begun.elapsed() < WAIT, "never: {what}; {value:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_survives_the_end_and_the_return_of_a_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let urls = servers.urls();
    let [mut first, mut second, mut third] =
        ["web-1", "web-2", "web-3"].map(|name| Host::new(&sandbox, &urls, name, FILE));
    first.start();
    first.leads().await;
    let are_all = |value: &Value, like: fn(&Value) -> bool| {
        let shards = value["shards"].as_object().filter(|shards| shards.len() == 2);
        shards.is_some_and(|shards| shards.values().all(like))
    };
    let before =
        assignment(&servers, "the leader has all at first", |value| are_all(value, |host| host == "web-1"))
            .await;
    for host in [&mut second, &mut third] {
        host.start();
        host.stands_by().await;
    }
    first.kill();
    let moved =
        assignment(&servers, "other hosts have them", |value| are_all(value, |host| host != "web-1")).await;
    assert!(moved["members"]["web-1"]["down_since"].is_string(), "{moved:#}");
    assert!(moved["epoch"].as_u64() > before["epoch"].as_u64(), "another leader has moved them: {moved:#}");
    first.start();
    first.stands_by().await;
    let back = assignment(&servers, "it is known to be back", |value| {
        value["members"]["web-1"]["down_since"].is_null()
    })
    .await;
    assert_eq!(back["shards"], moved["shards"], "nothing moves to a host that has just come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_drained_and_a_host_that_is_down_is_forgotten() {
    let servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second, mut third] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);

    // The leader is drained from another host, and leads no more.
    let (done, said) = second.says(&["hosts", "drain", "web-1"]).await;
    assert!(done && said.contains("web-1 hands its shards, its sinks and the lead over"), "{said}");
    first
        .until("another host leads", |status| {
            role(status) == Role::Standby
                && status.cluster.as_ref().unwrap().leader.as_deref() != Some("web-1")
        })
        .await;
    let value = assignment(&servers, "it has nothing", |value| {
        let all = value["shards"].as_object().into_iter().chain(value["sinks"].as_object());
        value["epoch"].as_u64() > Some(0) && all.flat_map(|of| of.values()).all(|host| host != "web-1")
    })
    .await;
    assert!(value["draining"]["web-1"].is_string(), "{value:#}");
    let drained = |name: &'static str, is_drained: bool| {
        move |status: &eventsubd::model::status::Status| {
            let hosts = &status.cluster.as_ref().unwrap().hosts;
            hosts.iter().any(|host| host.name == name && host.draining == is_drained)
        }
    };
    third.until("every host knows", drained("web-1", true)).await;
    let table = text(&output(third.command(&["hosts"])).await.stdout);
    assert!(table.contains("web-1  drained"), "{table}");

    let (done, said) = first.says(&["hosts", "drain", "--undo"]).await;
    assert!(done && said.contains("web-1 may have shards and sinks and lead again"), "{said}");
    third.until("every host knows", drained("web-1", false)).await;
    let (done, said) = first.says(&["hosts", "drain", "--undo"]).await;
    assert!(!done && said.contains("web-1 is not drained"), "{said}");

    let (done, said) = first.says(&["hosts", "forget", "web-3"]).await;
    assert!(!done && said.contains("web-3 is up"), "{said}");
    let (done, said) = first.says(&["hosts", "forget", "web-9"]).await;
    assert!(!done && said.contains("no host is called web-9"), "{said}");
    third.kill();
    assignment(&servers, "it is dead", |value| value["members"]["web-3"]["down_since"].is_string()).await;
    let (done, said) = first.says(&["hosts", "forget", "web-3"]).await;
    assert!(done && said.contains("web-3 is forgotten"), "{said}");
    for host in [&first, &second] {
        host.until("it is not listed any more", |status| {
            status.cluster.as_ref().unwrap().hosts.iter().all(|host| host.name != "web-3")
        })
        .await;
    }
    let all = second.answer().await.cluster.unwrap().hosts;
    assert!(all.iter().all(|host| host.state == HostState::Up), "{all:?}");
    assert_eq!(made_and_deleted(&sandbox), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_on_a_host_that_stands_by_is_carried_out_by_the_leader() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let (done, said) = second.says(&["apply"]).await;
    assert!(done && said.contains("passed on to web-1, which leads"), "{said}");
    // A leader that does not answer is told.
    first.signal(Signal::STOP);
    let answer = output(second.command(&["apply"])).await;
    let (done, said) = (answer.status.success(), text(&answer.stderr));
    assert!(!done && (said.contains("no answer from web-1") || said.contains("no host leads now")), "{said}");
    first.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_for_a_while_writes_no_assignment() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = assignment(&servers, "there is one", |value| value["epoch"].as_u64() > Some(0)).await;
    first.signal(Signal::STOP);
    let after =
        assignment(&servers, "the next leader has written", |value| value["epoch"] != before["epoch"]).await;
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64());
    second.leads().await;
    first.signal(Signal::CONT);
    first.stands_by().await;
    let now = assignment(&servers, "there is one", |_| true).await;
    assert_eq!(now["epoch"], after["epoch"], "the old leader wrote nothing");
}
