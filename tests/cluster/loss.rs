//! Losses of NATS: events that the shared log has removed before a sink had them, and a bucket with older data.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use eventsubd::model::status::{SinkStatus, Status};
use eventsubd::sandbox::Sandbox;
use serde_json::Value;

use super::common::{WAIT, port, quick};
use super::faults::leader;
use super::host::Host;
use super::servers::{NEWEST, OLDEST, Servers};
use super::sinks::{has_all, is_in_order, send};
use super::whole::Before;
use super::{FILE, hosts, hosts_with};

/// Size of an event, and their number: together nearly twice as large as the log may be.
const SIZE: usize = 20_000;
const EVENTS: usize = 1_500;
/// Events that are sent before the forwarder has to have them.
const PART: usize = 250;

/// Takes events on this port; returns their ids.
async fn receiver(port: u16) -> Arc<Mutex<BTreeSet<String>>> {
    let ids = Arc::new(Mutex::new(BTreeSet::new()));
    // A body that is not read would end the connection.
    let take = |State(ids): State<Arc<Mutex<BTreeSet<String>>>>, headers: HeaderMap, _: Bytes| async move {
        let id = headers["twitch-eventsub-message-id"].to_str().expect("an id").to_owned();
        ids.lock().unwrap().insert(id);
        StatusCode::NO_CONTENT
    };
    let routes = axum::Router::new().fallback(take).with_state(Arc::clone(&ids));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    ids
}

fn sink<'a>(status: &'a Status, name: &str) -> Option<&'a SinkStatus> {
    status.sinks.iter().find(|sink| sink.name.as_str() == name)
}

/// The gaps of the sink that is down, as the other sink was told.
fn gaps(host: &Host) -> Vec<Value> {
    let lines = host.lines();
    let lines =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is a JSON object"));
    let is_gap = |line: &Value| {
        line["metadata"]["subscription_type"] == "eventsubd.gap" && line["payload"]["event"]["sink"] == "down"
    };
    lines.filter(is_gap).map(|line| line["payload"]["event"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_log_removes_before_a_sink_has_them_are_counted_logged_and_told() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let closed = port();
    let file = format!(
        "{FILE}\n[store]\nmax_size = \"16MiB\"\n\n[sink.down]\ntype = \"http\"\nurl = \"http://127.0.0.1:{closed}/\"\n"
    );
    let [first, second] = hosts_with(&sandbox, &servers.urls(), &file).await;
    let subscription = sandbox.subscriptions()[0].id.clone();
    let mut sent = BTreeSet::new();
    while sent.len() < EVENTS {
        sent.extend(sandbox.flood(&subscription, PART, SIZE).await);
        let begun = Instant::now();
        loop {
            let statuses = [first.answer().await, second.answer().await];
            let forward = statuses.iter().map(|status| &status.cluster.as_ref().unwrap().forward);
            let (forwarded, lost) = forward.fold((0, 0), |(forwarded, lost), forward| {
                (forwarded + forward.forwarded, lost + forward.lost)
            });
            assert_eq!(lost, 0, "the store has removed what is not in the log");
            if forwarded >= sent.len() as u64 {
                break;
            }
            let logs = [first.log(), second.log()];
            assert!(begun.elapsed() < WAIT, "{forwarded} of {} are in the log: {logs:#?}", sent.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    let ids = receiver(closed).await;
    let (done, said) = first.says(&["sink", "retry", "down"]).await;
    assert!(done, "{said}");
    let begun = Instant::now();
    let lost = loop {
        let statuses = [first.answer().await, second.answer().await];
        let worker = statuses.iter().find_map(|status| sink(status, "down"));
        let got = ids.lock().unwrap().intersection(&sent).count();
        if let Some(worker) = worker
            && worker.lost > 0
            && got + usize::try_from(worker.lost).unwrap() >= EVENTS
        {
            break worker.lost;
        }
        let logs = [first.log(), second.log()];
        assert!(
            begun.elapsed() < WAIT,
            "{got} of {EVENTS} and {:?} lost: {logs:#?}",
            worker.map(|sink| sink.lost)
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let got = ids.lock().unwrap().intersection(&sent).count();
    assert_eq!(got as u64 + lost, EVENTS as u64, "{}{}", first.log(), second.log());

    let begun = Instant::now();
    let told = loop {
        let gaps = gaps(&first);
        let told: u64 = gaps.iter().filter_map(|gap| gap["events_lost"].as_u64()).sum();
        if told == lost {
            break gaps;
        }
        let logs = [first.log(), second.log()];
        // Losses after the first event about them are told a minute later.
        assert!(begun.elapsed() < 2 * WAIT, "{lost} are lost and {told} told: {gaps:#?} {logs:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for gap in told {
        assert_eq!(
            (&gap["reason"], &gap["scope"], &gap["sink"]),
            (&"retention".into(), &"sink".into(), &"down".into())
        );
    }
    let log = first.log() + &second.log();
    let line =
        log.lines().find(|line| line.contains("the shared log has removed events before the sink had them"));
    let line = line.expect("a line of the log");
    assert!(line.contains("events=") && line.contains("sink") && line.contains("store.retain"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_with_older_data_costs_no_event_and_changes_nothing_at_twitch() {
    let mut servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let (all, before) = ([&first, &second], Before::new(&sandbox));
    let mut sent = send(&sandbox, 50).await;
    has_all(&all, &sent).await;
    servers.kill(0);
    let copy = servers.copy_stream(0, "KV_eventsubd");
    servers.run(0);
    leader(&all).await;

    // The lead, the shards and the sink move, and the sink goes on.
    let begun = Instant::now();
    loop {
        let (done, said) = second.says(&["hosts", "drain", "web-1"]).await;
        if done {
            break;
        }
        // The connection on which the leader takes requests may come back a moment later than the one of its lease.
        assert!(begun.elapsed() < WAIT, "{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second.leads().await;
    second.has_shards().await;
    second.until("it works the sink", |status| sink(status, "log").is_some()).await;
    sent.extend(send(&sandbox, 200).await);
    has_all(&all, &sent).await;

    servers.kill(0);
    sent.extend(send(&sandbox, 20).await);
    servers.restore_stream(0, "KV_eventsubd", &copy);
    servers.run(0);
    sent.extend(send(&sandbox, 50).await);
    leader(&all).await;
    has_all(&all, &sent).await;
    is_in_order(&first, &sent);
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-2", &second)]).await;
    // The worker of the sink goes on, on any host.
    sent.extend(send(&sandbox, 50).await);
    has_all(&all, &sent).await;
}
