//! The shared log: every event that a host has stored is in it once, in order, whatever dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use eventsubd::model::cluster::{ForwardStatus, Role};
use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;
use futures_util::StreamExt;
use rustix::process::Signal;

use super::common::{WAIT, output, quick, text};
use super::host::{Host, role};
use super::servers::{NEWEST, OLDEST, Servers};
use super::{FILE, arrives, hosts, is_stored};

/// An event in the log, or in the file of a sink: the id of the message, and of the broadcaster.
pub(super) type Entry = (String, String);

/// The log, oldest first, each with the host that brought it.
pub(super) async fn log(servers: &Servers) -> Vec<(String, Entry)> {
    let urls = servers.urls();
    let urls: Vec<&str> = urls.split(',').collect();
    let begun = Instant::now();
    let client = loop {
        match async_nats::connect(urls.as_slice()).await {
            Ok(client) => break client,
            Err(error) => assert!(begun.elapsed() < WAIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // The forwarder makes it.
    let Ok(stream) = jetstream::new(client).get_stream("eventsubd-events").await else { return Vec::new() };
    let last = stream.cached_info().state.last_sequence;
    let mut found = Vec::new();
    if stream.cached_info().state.messages == 0 {
        return found;
    }
    let Ok(consumer) = stream.create_consumer(OrderedConfig::default()).await else { return found };
    let Ok(mut messages) = consumer.messages().await else { return found };
    // Servers that choose a leader meanwhile end it: the caller reads again what it lacks.
    while let Ok(Some(Ok(message))) = tokio::time::timeout(WAIT, messages.next()).await {
        let headers = message.headers.clone().unwrap_or_default();
        let header = |name: &str| headers.get(name).expect("a header").to_string();
        let broadcaster = message.subject.rsplit('.').next().unwrap().to_owned();
        let payload: serde_json::Value =
            serde_json::from_slice(&message.payload).expect("the stored payload");
        if let Some(id) = payload["event"]["broadcaster_user_id"].as_str() {
            assert_eq!(id, broadcaster);
        }
        found.push((header("Eventsubd-Host"), (header("Nats-Msg-Id"), broadcaster)));
        if message.info().expect("a message of a stream").stream_sequence >= last {
            break;
        }
    }
    found
}

/// The events that the sink has written, each once.
fn stored(host: &Host) -> Vec<Entry> {
    let text = host.lines();
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or("_").to_owned();
        let id = word(&line["metadata"]["message_id"]);
        if seen.insert(id.clone()) {
            found.push((id, word(&line["payload"]["event"]["broadcaster_user_id"])));
        }
    }
    found
}

fn forward(status: &Status) -> &ForwardStatus {
    &status.cluster.as_ref().expect("a cluster").forward
}

/// Waits until the log has everything that these hosts have stored, and compares.
async fn all_is_in_the_log(servers: &Servers, hosts: &[(&str, &Host)]) {
    for (_, host) in hosts {
        let is_through = |status: &Status| {
            let has_all = status.sinks.iter().all(|sink| sink.lag_events == 0 && sink.in_flight == 0);
            forward(status).lag_events == 0 && has_all
        };
        host.until("the log has everything", is_through).await;
    }
    // The lag is counted about once a second.
    let begun = Instant::now();
    let log = loop {
        let log = log(servers).await;
        let ids: BTreeSet<&str> = log.iter().map(|(_, (id, _))| id.as_str()).collect();
        assert_eq!(ids.len(), log.len(), "an id is in the log twice");
        let all: Vec<Entry> = hosts.iter().flat_map(|(_, host)| stored(host)).collect();
        let missing = all.iter().filter(|(id, _)| !ids.contains(id.as_str())).count();
        // A sink that no host works yet shows no lag.
        let delivered: BTreeSet<&str> = all.iter().map(|(id, _)| id.as_str()).collect();
        let undelivered = ids.difference(&delivered).count();
        if missing == 0 && undelivered == 0 {
            break log;
        }
        let logs: Vec<String> = hosts.iter().map(|(_, host)| host.log()).collect();
        assert!(
            begun.elapsed() < WAIT,
            "{missing} are not in the log, {undelivered} of it not in the sink: {logs:#?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for (name, host) in hosts {
        let mut lanes: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
        for (_, (id, broadcaster)) in log.iter().filter(|(from, _)| from == name) {
            lanes.entry(broadcaster).or_default().0.push(id);
        }
        let stored = stored(host);
        for (id, broadcaster) in &stored {
            lanes.entry(broadcaster).or_default().1.push(id);
        }
        for (broadcaster, (forwarded, stored)) in lanes {
            // The copy of another host may have been first.
            let forwarded: Vec<&str> = forwarded;
            let known: BTreeSet<&str> = forwarded.iter().copied().collect();
            let stored: Vec<&str> = stored.into_iter().filter(|id| known.contains(id)).collect();
            assert_eq!(forwarded, stored, "the order of channel {broadcaster} on {name}");
        }
    }
}

/// Sends events without end, about 600 a second.
fn send(sandbox: Arc<Sandbox>) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(10));
        while !stopped.load(Ordering::Relaxed) {
            beat.tick().await;
            for broadcaster in ["ann", "bob", "ann", "bob", "ann", "bob"] {
                // No shard takes it while the leader changes.
                let _ = sandbox.trigger("stream.online", Some(broadcaster)).await;
            }
        }
    });
    stop
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_log_has_every_event_once_whatever_dies() {
    let mut servers = Servers::start(OLDEST, 3);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let [mut first, second] = hosts(&sandbox, &servers.urls()).await;
    let pause = || tokio::time::sleep(Duration::from_secs(1));
    let stop = send(Arc::clone(&sandbox));
    pause().await;
    // One of them leads the stream.
    for index in 0..servers.count() {
        servers.kill(index);
        pause().await;
        servers.run(index);
        pause().await;
    }
    (0..servers.count()).for_each(|index| servers.signal(index, Signal::STOP));
    tokio::time::sleep(Duration::from_secs(8)).await;
    (0..servers.count()).for_each(|index| servers.signal(index, Signal::CONT));
    pause().await;
    first.kill();
    second.leads().await;
    pause().await;
    first.start();
    pause().await;
    stop.store(true, Ordering::Relaxed);
    pause().await;
    all_is_in_the_log(&servers, &[("web-1", &first), ("web-2", &second)]).await;
    assert!(stored(&first).len() > 1_000, "{}", stored(&first).len());
    assert!(forward(&first.answer().await).tail_lost.is_none(), "{}", first.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_for_nats_and_a_log_that_has_lost_its_tail_gets_it_again() {
    let mut servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut host] = hosts(&sandbox, &servers.urls()).await;
    for _ in 0..20 {
        arrives(&sandbox, &[&host]).await;
    }
    all_is_in_the_log(&servers, &[("web-1", &host)]).await;
    servers.kill(0);
    let copy = servers.copy_stream(0, "eventsubd-events");
    for _ in 0..20 {
        is_stored(&sandbox, &[&host]).await;
    }
    let waits = |status: &Status| forward(status).lag_events == 20;
    host.until("the events wait", waits).await;
    servers.run(0);
    host.leads().await;
    all_is_in_the_log(&servers, &[("web-1", &host)]).await;
    assert_eq!(log(&servers).await.len(), 40);

    for restart in [false, true] {
        servers.kill(0);
        servers.restore_stream(0, "eventsubd-events", &copy);
        if restart {
            // The last acknowledgement is stored each two seconds.
            tokio::time::sleep(Duration::from_secs(3)).await;
            host.kill();
        }
        servers.run(0);
        if restart {
            assert_eq!(log(&servers).await.len(), 20);
            host.start();
        }
        host.until("it leads again", |status| role(status) == Role::Leader && status.ready).await;
        arrives(&sandbox, &[&host]).await;
        let status = host.until("it has noticed", |status| forward(status).tail_lost.is_some()).await;
        let is_told = |status: &Status| {
            status.problems.iter().any(|problem| problem.message.contains("had lost its newest events"))
        };
        assert!(is_told(&status), "{:?}", status.problems);
        all_is_in_the_log(&servers, &[("web-1", &host)]).await;
    }
    assert_eq!(log(&servers).await.len(), 42);
    // A host tells its lag with each sign of life.
    let is_told = |status: &Status| status.cluster.as_ref().unwrap().hosts[0].forward_lag == 0;
    host.until("the list of hosts shows no lag", is_told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_the_cluster_is_not_forwarded() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let mut host = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    let with = host.leave_cluster();
    host.start();
    host.until("it is ready", |status| status.converged && status.cluster.is_none()).await;
    arrives(&sandbox, &[&host]).await;
    host.signal(Signal::TERM);
    host.child.take().unwrap().wait().unwrap();

    fs::write(host.path("config.toml"), with).unwrap();
    host.start();
    host.leads().await;
    let old = stored(&host);
    arrives(&sandbox, &[&host]).await;
    let begun = Instant::now();
    while log(&servers).await.is_empty() {
        assert!(begun.elapsed() < WAIT, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = log(&servers).await;
    let ids: Vec<&str> = log.iter().map(|(_, (id, _))| id.as_str()).collect();
    let new: Vec<Entry> = stored(&host).into_iter().filter(|entry| !old.contains(entry)).collect();
    assert_eq!(ids, new.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_for_nats_is_kept_and_holds_up_nothing() {
    let mut servers = Servers::start(OLDEST, 1);
    servers.kill(0);
    servers.config = "max_payload: 8000\n".to_owned();
    servers.run(0);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [mut host] = hosts(&sandbox, &servers.urls()).await;
    let subscription = sandbox.subscriptions()[0].id.clone();
    assert_eq!(sandbox.flood(&subscription, 1, 20_000).await.len(), 1);
    arrives(&sandbox, &[&host]).await;
    let is_told = |status: &Status| {
        let told = "1 event not in the shared log: too large";
        status.problems.iter().any(|problem| problem.message.contains(told))
    };
    let status = host.until("it is told", is_told).await;
    assert_eq!(forward(&status).too_large, 1);
    host.until("the other is there", |status| forward(status).lag_events == 0).await;
    assert_eq!(log(&servers).await.len(), 1);

    servers.kill(0);
    servers.config = "max_payload: 2MB\n".to_owned();
    servers.run(0);
    host.signal(Signal::TERM);
    host.child.take().unwrap().wait().unwrap();
    host.start();
    host.until("it is sent again", |status| {
        status.cluster.is_some() && forward(status).too_large == 0 && forward(status).forwarded == 1
    })
    .await;
    assert_eq!(log(&servers).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_shows_the_events_of_all_hosts() {
    let servers = Servers::start(NEWEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    for _ in 0..3 {
        arrives(&sandbox, &[&first]).await;
    }
    all_is_in_the_log(&servers, &[("web-1", &first)]).await;
    // Every program that may publish can leave anything there.
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let context = jetstream::new(client);
    let junk = context.publish("eventsubd.ev.0.junk.1", "{".into()).await.unwrap();
    assert_eq!(junk.await.unwrap().sequence, 4);
    arrives(&sandbox, &[&first]).await;
    all_is_there(&servers, 5).await;

    let ids: Vec<String> = stored(&first).into_iter().map(|(id, _)| id).collect();
    for (flags, from) in [(&["--since", "1h"][..], 0), (&["-n", "2"], 2), (&["-n", "9"], 0)] {
        let flags = [&["events", "--all-hosts", "--json"][..], flags].concat();
        let answer = output(second.command(&flags)).await;
        let told = text(&answer.stderr);
        assert!(
            answer.status.success() && told.contains("message 4 of the shared log is no event"),
            "{told}"
        );
        assert_eq!(super::common::ids(&answer.stdout), ids[from..], "{flags:?}");
    }
    let answer = output(second.command(&["events", "--all-hosts", "--until", "1h"])).await;
    assert!(answer.status.success() && answer.stdout.is_empty(), "{}", text(&answer.stderr));
    let answer = output(second.command(&["events", "--all-hosts", "2"])).await;
    assert!(text(&answer.stdout).contains(&ids[1]), "{}", text(&answer.stderr));
}

/// Waits until so many messages are in the log.
async fn all_is_there(servers: &Servers, number: u64) {
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let stream = jetstream::new(client).get_stream("eventsubd-events").await.unwrap();
    let begun = Instant::now();
    while stream.get_info().await.unwrap().state.last_sequence < number {
        assert!(begun.elapsed() < WAIT, "there are not {number} messages");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
