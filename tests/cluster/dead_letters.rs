//! Dead letters, replay, skip and retry on any host of a cluster.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use eventsubd::model::status::{SinkStatus, Status};
use eventsubd::sandbox::Sandbox;
use rustix::process::Signal;
use serde_json::Value;

use super::common::{WAIT, output, quick, text};
use super::host::Host;
use super::servers::{OLDEST, Servers};
use super::{FILE, hosts_with};

/// A receiver that answers what it is told to, and remembers the ids of the events that it has accepted.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    answer: Arc<AtomicU16>,
    accepted: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, answer: Arc::new(AtomicU16::new(200)), accepted: Arc::default() };
        let shared = receiver.clone();
        let handle = async move |headers: HeaderMap| {
            let code = StatusCode::from_u16(shared.answer.load(Ordering::Relaxed)).unwrap();
            // A replayed event has a new id, and the original one beside it.
            let names = ["eventsubd-original-message-id", "twitch-eventsub-message-id"];
            let id = names.iter().find_map(|name| headers.get(*name)).expect("an id");
            if code.is_success() {
                shared.accepted.lock().unwrap().push(id.to_str().unwrap().to_owned());
            }
            code
        };
        tokio::spawn(async move {
            let _ = axum::serve(listener, Router::new().route("/", post(handle))).await;
        });
        receiver
    }

    fn answers(&self, code: u16) {
        self.answer.store(code, Ordering::Relaxed);
    }

    fn accepted(&self) -> Vec<String> {
        self.accepted.lock().unwrap().clone()
    }

    /// The file of the hosts, with this as a sink.
    fn file(&self) -> String {
        format!(
            "{FILE}\n[sink.web]\ntype = \"http\"\nurl = \"http://{}/\"\nretry_max = \"20s\"\n",
            self.address
        )
    }

    async fn has(&self, number: usize) {
        let begun = Instant::now();
        while self.accepted().len() < number {
            assert!(begun.elapsed() < WAIT, "{:?}", self.accepted());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The sink, as each host shows it that works it.
async fn sinks(hosts: &[&Host]) -> Vec<(usize, SinkStatus)> {
    let mut found = Vec::new();
    for (n, host) in hosts.iter().enumerate() {
        let Some(status) = host.status().await else { continue };
        found.extend(
            status.sinks.into_iter().filter(|sink| sink.name.as_str() == "web").map(|sink| (n, sink)),
        );
    }
    found
}

/// Waits until exactly one host shows the sink so; returns that one and another one.
async fn worked<'a>(hosts: &[&'a Host], like: impl Fn(&SinkStatus) -> bool) -> (&'a Host, &'a Host) {
    let begun = Instant::now();
    loop {
        let found = sinks(hosts).await;
        if let [(n, sink)] = found.as_slice()
            && like(sink)
        {
            return (hosts[*n], hosts[(n + 1) % hosts.len()]);
        }
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "{found:#?}{logs:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs a command, which succeeds; returns what it printed and said.
async fn run(host: &Host, arguments: &[&str]) -> (String, String) {
    let answer = output(host.command(arguments)).await;
    let (printed, said) = (text(&answer.stdout), text(&answer.stderr));
    assert!(answer.status.success(), "{arguments:?}: {said}");
    (printed, said)
}

async fn letters(host: &Host) -> Vec<Value> {
    let (printed, _) = run(host, &["dead-letters", "list", "--json"]).await;
    serde_json::from_str(&printed).expect(&printed)
}

/// Sends so many events, one after the other.
async fn trigger(sandbox: &Sandbox, number: usize) {
    for _ in 0..number {
        sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_replayed_and_dropped_on_any_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(400);
    let [mut first, mut second] = hosts_with(&sandbox, &servers.urls(), &receiver.file()).await;
    trigger(&sandbox, 4).await;
    let (worker, other) = worked(&[&first, &second], |sink| sink.dead_letters == 4).await;

    let all = letters(other).await;
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(all, letters(worker).await);
    let id = |nth: usize| all[nth]["id"].to_string();
    let message = |nth: usize| all[nth]["message"]["metadata"]["message_id"].as_str().unwrap().to_owned();
    let (printed, _) = run(other, &["dead-letters", "list", "--sink", "web"]).await;
    assert!(printed.lines().count() == 4 && printed.contains("web stream.online (event "), "{printed}");
    assert!(!printed.contains("in the store of"), "{printed}");
    let (_, said) = run(other, &["dead-letters", "drop", "--type", "stream.off*", "--yes"]).await;
    assert!(said.contains("there are no such dead letters"), "{said}");
    let (printed, said) = run(other, &["dead-letters", "drop", "--sink", "web", "--dry-run"]).await;
    assert!(printed.lines().count() == 4 && said.contains("4 dead letters"), "{printed}{said}");

    // The event is refused once more, and accepted at last.
    run(other, &["dead-letters", "replay", "--id", &id(0), "--yes"]).await;
    let begun = Instant::now();
    while !letters(other).await.iter().any(|letter| letter["first_error"].is_string()) {
        assert!(begun.elapsed() < WAIT, "{:?}{}", letters(other).await, worker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    receiver.answers(200);
    let (_, said) = run(other, &["dead-letters", "replay", "--id", &id(1), "--yes"]).await;
    assert!(said.contains("1 dead letter is sent again") && !said.contains("warning"), "{said}");
    receiver.has(1).await;
    assert_eq!(receiver.accepted(), [message(1)]);
    run(other, &["dead-letters", "drop", "--id", &id(2), "--yes"]).await;
    worked(&[&first, &second], |sink| sink.dead_letters == 2).await;

    // The host that works the sink dies, and the letters are there.
    let is_first = std::ptr::eq(worker, &raw const first);
    if is_first {
        first.kill();
    } else {
        second.kill();
    }
    let rest = if is_first { &second } else { &first };
    assert_eq!(letters(rest).await.len(), 2);
    worked(&[rest], |sink| sink.dead_letters == 2).await;
    run(rest, &["dead-letters", "replay", "--yes"]).await;
    receiver.has(3).await;
    let mut accepted = receiver.accepted().split_off(1);
    accepted.sort();
    let mut expected = vec![message(0), message(3)];
    expected.sort();
    assert_eq!(accepted, expected);
    worked(&[rest], |sink| sink.dead_letters == 0).await;
    assert_eq!(letters(rest).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_skipped_and_a_part_is_replayed_from_any_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let receiver = Receiver::start().await;
    let [first, second] = hosts_with(&sandbox, &servers.urls(), &receiver.file()).await;
    trigger(&sandbox, 2).await;
    receiver.has(2).await;
    receiver.answers(500);
    trigger(&sandbox, 1).await;
    let (_, other) = worked(&[&first, &second], |sink| sink.problem.is_some()).await;
    let (_, said) = run(other, &["sink", "skip", "web"]).await;
    assert!(said.contains("stream.online"), "{said}");
    let skipped = letters(other).await;
    assert!(skipped.len() == 1 && skipped[0]["error"].as_str().unwrap().contains("skip"), "{skipped:?}");

    trigger(&sandbox, 1).await;
    worked(&[&first, &second], |sink| sink.problem.is_some() && sink.next_try.is_some()).await;
    receiver.answers(200);
    run(other, &["sink", "retry", "web"]).await;
    receiver.has(3).await;

    let (_, said) =
        run(other, &["replay", "--sink", "web", "--since", "1h", "--type", "stream.onl*", "--dry-run"]).await;
    assert!(said.contains("4 events"), "{said}");
    let (_, said) =
        run(other, &["replay", "--sink", "web", "--since", "1h", "--type", "stream.onl*", "--yes"]).await;
    assert!(said.contains("sink web gets 4 events again"), "{said}");
    receiver.has(7).await;
    worked(&[&first, &second], |sink| sink.dead_letters == 0).await;
    let (_, said) =
        run(other, &["replay", "--sink", "web", "--since", "1h", "--type", "channel.*", "--yes"]).await;
    assert!(said.contains("0 events"), "{said}");
    let answer =
        output(other.command(&["replay", "--sink", "none", "--since", "1h", "--type", "*", "--yes"])).await;
    assert!(text(&answer.stderr).contains("there is no sink none"), "{}", text(&answer.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_from_before_the_cluster_stay_with_their_host() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(400);
    let mut host = Host::new(&sandbox, &servers.urls(), "web-1", &receiver.file());
    let with = host.leave_cluster();
    host.start();
    host.until("it is ready", |status| status.converged && status.cluster.is_none()).await;
    trigger(&sandbox, 2).await;
    let has_two = |status: &Status| status.sinks.iter().any(|sink| sink.dead_letters == 2);
    host.until("they are refused", has_two).await;
    host.signal(Signal::TERM);
    host.child.take().unwrap().wait().unwrap();
    // Without a daemon they are read from the store.
    assert_eq!(letters(&host).await.len(), 2);

    fs::write(host.path("config.toml"), &with).unwrap();
    let answer = output(host.command(&["dead-letters", "list"])).await;
    let said = text(&answer.stderr);
    assert!(said.contains("the dead letters that the hosts share are not shown"), "{said}");
    assert_eq!(text(&answer.stdout).lines().count(), 2);
    host.start();
    host.leads().await;
    let mut second = Host::new(&sandbox, &servers.urls(), "web-2", &receiver.file());
    second.start();
    second.stands_by().await;
    trigger(&sandbox, 1).await;
    let begun = Instant::now();
    while letters(&second).await.len() != 1 {
        assert!(begun.elapsed() < WAIT, "{}{}", host.log(), second.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = letters(&host).await;
    let of: Vec<Option<&str>> = all.iter().map(|letter| letter["host"].as_str()).collect();
    assert_eq!(of, [Some("web-1"), Some("web-1"), None]);
    let (printed, _) = run(&host, &["dead-letters", "list"]).await;
    assert!(printed.lines().next().unwrap().contains("in the store of web-1"), "{printed}");
    receiver.answers(200);
    run(&host, &["dead-letters", "replay", "--id", &all[0]["id"].to_string(), "--yes"]).await;
    receiver.has(1).await;
    run(&host, &["dead-letters", "replay", "--yes"]).await;
    receiver.has(3).await;
    let begun = Instant::now();
    while !letters(&host).await.is_empty() {
        assert!(begun.elapsed() < WAIT, "{}{}", host.log(), second.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_waits_while_the_dead_letters_are_full() {
    let servers = Servers::start(OLDEST, 1);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(400);
    let file = format!("[store]\nmax_size = \"16MiB\"\n\n{}", receiver.file());
    let [first, second] = hosts_with(&sandbox, &servers.urls(), &file).await;
    let subscription = sandbox.subscriptions()[0].id.clone();
    // A quarter of 16 MiB is theirs.
    let sent = sandbox.flood(&subscription, 60, 100_000).await.len();
    assert_eq!(sent, 60);
    let is_full = |sink: &SinkStatus| {
        sink.problem
            .as_deref()
            .is_some_and(|problem| problem.contains("the dead letters that the hosts share are full"))
    };
    let (_, other) = worked(&[&first, &second], is_full).await;
    let before = letters(other).await.len();
    assert!((10..60).contains(&before), "{before}");
    // Nothing is lost, also as half of them is removed.
    receiver.answers(200);
    run(other, &["dead-letters", "drop", "--id", &letters(other).await[0]["id"].to_string(), "--yes"]).await;
    let begun = Instant::now();
    while receiver.accepted().len() < sent - 1 {
        // An event that was refused before may become a letter only now.
        output(other.command(&["dead-letters", "replay", "--yes"])).await;
        assert!(begun.elapsed() < WAIT, "{:?}", receiver.accepted());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut accepted = receiver.accepted();
    accepted.sort();
    accepted.dedup();
    assert!(accepted.len() >= sent - 1, "{}", accepted.len());
}
