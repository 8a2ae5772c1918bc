//! Hosts of an old release beside new ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::Store;
use async_nats::{HeaderMap, header};
use eventsubd::model::cluster::HostState;
use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::common::{WAIT, output, quick, text};
use super::host::Host;
use super::servers::{OLDEST, Servers};
use super::whole::{Before, trickle};
use super::{faults, hosts};

/// A host as the first release told itself: it stands by, knows no formats, and works its own sinks.
fn old_host(client: async_nats::Client, fingerprint: &Value) -> JoinHandle<()> {
    let value = json!({
        "instance": "an-old-instance", "run": "an-old-run", "version": "0.0.9", "fingerprint": fingerprint,
        "since": "2026-01-01T00:00:00Z", "leaving": false, "shards": [], "sinks": ["log"],
    });
    tokio::spawn(async move {
        let context = async_nats::jetstream::new(client);
        let mut beat = tokio::time::interval(Duration::from_millis(500));
        loop {
            beat.tick().await;
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_TTL, "3s");
            let text = value.to_string();
            // One that is lost is followed by the next.
            if let Ok(sent) =
                context.publish_with_headers("$KV.eventsubd.host.web-0", headers, text.into()).await
            {
                let _ = sent.await;
            }
        }
    })
}

async fn read(bucket: &Store, key: &str) -> Value {
    let value = bucket.get(key).await.unwrap().expect("the key");
    serde_json::from_slice(&value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_an_old_release_gets_no_work_and_disturbs_nothing() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let mut all: [Host; 2] = hosts(&sandbox, &servers.urls()).await;
    let before = Before::new(&sandbox);
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let bucket = async_nats::jetstream::new(client.clone()).get_key_value("eventsubd").await.unwrap();
    let fingerprint = read(&bucket, "host.web-1").await["fingerprint"].clone();
    let old = old_host(client, &fingerprint);
    let stop = trickle(&sandbox);
    let is = |state: HostState| {
        move |status: &Status| {
            let hosts = &status.cluster.as_ref().unwrap().hosts;
            hosts.iter().any(|host| host.name == "web-0" && host.version == "0.0.9" && host.state == state)
        }
    };
    for host in &all {
        host.until("the old host is listed", is(HostState::Up)).await;
    }
    let answer = output(all[0].command(&["hosts", "drain", "web-0"])).await;
    let said = text(&answer.stderr);
    assert!(!answer.status.success() && said.contains("runs a release that cannot be drained"), "{said}");
    // The leader gives it nothing, also after a change.
    for _ in 0..2 {
        let leads = faults::leader(&all.each_ref()).await;
        let begun = Instant::now();
        let assigned = loop {
            let assigned = read(&bucket, "assign").await;
            if assigned["members"]["web-0"].is_object() {
                break assigned;
            }
            assert!(begun.elapsed() < WAIT, "the old host is no member: {assigned:#}{}", all[leads].log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        for work in ["shards", "sinks"] {
            let hosts = assigned[work].as_object().expect("work");
            assert!(hosts.values().all(|host| *host != json!("web-0")), "{assigned:#}");
        }
        all[leads].kill();
        all[1 - leads].leads().await;
        all[leads].start();
        all[leads].until("it is back", is(HostState::Up)).await;
    }
    old.abort();
    for host in &all {
        host.until("the old host is down", is(HostState::Down)).await;
    }
    stop.store(true, Ordering::Relaxed);
    before.holds(&sandbox, &servers, &[("web-1", &all[0]), ("web-2", &all[1])]).await;
}
