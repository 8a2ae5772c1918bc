//! Speed of the webhook listener on this machine, with its sender on the same processors. Run by hand:
//!
//! ```sh
//! cargo bench --bench webhook                  # everything, some minutes
//! cargo bench --bench webhook -- throughput    # one part: throughput, latency, flood
//! ```
//!
//! The sender is a process of its own. What it asks for is compared with a bare handler, asked by the same
//! sender in the same run, that checks the signature and does nothing else. Nothing is asserted about time.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a report for people"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use eventsubd::model::secret::Secret;
use eventsubd::model::signature::Signer;
use eventsubd::model::time::Timestamp;
use eventsubd::model::webhook::{WebhookKey, WebhookKeys};
use eventsubd::store::{Store, StoreOptions};
use eventsubd::transport::Hear;
use eventsubd::transport::webhook::{Listen, Sockets, WebhookHandle, WebhookOptions, webhook};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "a-secret-of-the-benchmark";
const PATH: &str = "/twitch/main";
const BODY: usize = 1_000;
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "send") {
        let order = Order::parse(&arguments[1..]);
        return send(&order);
    }
    let wants = |part: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if wants("throughput") {
            for connections in [64, 256] {
                throughput(connections).await;
            }
        }
        if wants("latency") {
            latency().await;
        }
        if wants("flood") {
            flood().await;
        }
    });
    runtime.shutdown_background();
}

/// What the sender shall do.
#[derive(Clone, Copy)]
struct Order {
    address: SocketAddr,
    connections: usize,
    requests: usize,
    /// Requests a second; 0 is as many as there are answers.
    rate: u64,
    /// With signatures of somebody else.
    forged: bool,
    /// Makes message ids differ between runs.
    run: u64,
}

impl Order {
    fn parse(texts: &[String]) -> Self {
        let number = |index: usize| texts[index].parse::<u64>().unwrap();
        Self {
            address: texts[0].parse().unwrap(),
            connections: number(1) as usize,
            requests: number(2) as usize,
            rate: number(3),
            forged: number(4) == 1,
            run: number(5),
        }
    }

    /// Has a process of its own do it.
    async fn run(self) -> Report {
        let Self { address, connections, requests, rate, forged, run } = self;
        let texts = [address.to_string()].into_iter().chain(
            [connections as u64, requests as u64, rate, u64::from(forged), run].map(|n| n.to_string()),
        );
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("send").args(texts).stderr(Stdio::inherit());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success());
        let numbers: Vec<f64> = String::from_utf8(output.stdout)
            .unwrap()
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect();
        Report {
            seconds: numbers[0],
            median: numbers[1],
            high: numbers[2],
            worst: numbers[3],
            busy: numbers[4],
        }
    }
}

/// What came of it; latencies in milliseconds.
struct Report {
    seconds: f64,
    median: f64,
    high: f64,
    worst: f64,
    /// The part of the time that the sender worked.
    busy: f64,
}

fn filler(id: &str) -> String {
    let start = format!(
        r#"{{"subscription":{{"id":"0d9e4a52-0000-4000-8000-6f21c5b70002","status":"enabled","type":"channel.follow","version":"2","cost":0,"condition":{{"broadcaster_user_id":"41001","moderator_user_id":"41001"}},"transport":{{"method":"webhook","callback":"https://hooks.example.net/twitch/main"}},"created_at":"2026-11-02T08:15:27.441930118Z"}},"event":{{"id":"{id}","text":""#
    );
    let rest = BODY - start.len() - 3;
    format!("{start}{}\"}}}}", "x".repeat(rest))
}

fn request(order: &Order, signer: &Signer, query: &str, number: usize, into: &mut Vec<u8>) {
    // Spread over the index as the ids of Twitch are.
    let spread = (number as u64 + (order.run << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = format!("{:08x}-{:04x}-4000-8000-{number:012x}", spread >> 32, spread >> 16 & 0xffff);
    let timestamp = Timestamp(SystemTime::now()).to_string();
    let body = filler(&id);
    let signature = signer.sign(id.as_bytes(), timestamp.as_bytes(), body.as_bytes());
    write!(
        into,
        "POST {PATH}?{query} HTTP/1.1\r\nHost: hooks.example.net\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nContent-Type: application/json\r\nTwitch-Eventsub-Message-Id: {id}\r\n\
         Twitch-Eventsub-Message-Retry: 0\r\nTwitch-Eventsub-Message-Type: notification\r\n\
         Twitch-Eventsub-Message-Signature: {signature}\r\nTwitch-Eventsub-Message-Timestamp: {timestamp}\r\n\
         Twitch-Eventsub-Subscription-Type: channel.follow\r\nTwitch-Eventsub-Subscription-Version: 2\r\n\
         Accept-Encoding: gzip\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

/// One connection of the sender's.
struct Line {
    stream: TcpStream,
    /// The next request over it.
    number: usize,
    /// When the one was due that has no answer yet.
    asked: Option<Instant>,
}

/// The sender's process: one thread, which has all requests ready before the clock runs, so that it costs both
/// that are compared as little as can be, and the same.
fn send(order: &Order) {
    let key = WebhookKey::new(Secret::new(SECRET)).unwrap();
    let query = format!("key={}", key.id);
    let signer = if order.forged { Signer::new(&Secret::new("somebody-else")) } else { key.signer };
    let expected: &[u8] = if order.forged { b"HTTP/1.1 403" } else { b"HTTP/1.1 204" };
    let (mut bytes, mut ends) = (Vec::with_capacity(order.requests * 2 * BODY), vec![0]);
    for number in 0..order.requests {
        request(order, &signer, &query, number, &mut bytes);
        ends.push(bytes.len());
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut lines: Vec<Line> = (0..order.connections)
        .map(|number| {
            let stream = TcpStream::connect(order.address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            epoll::add(&epoll, &stream, EventData::new_u64(number as u64), EventFlags::IN).unwrap();
            Line { stream, number, asked: None }
        })
        .collect();
    let (mut times, mut answer) = (Vec::with_capacity(order.requests), [0; 1_024]);
    let mut events = Vec::with_capacity(order.connections);
    let processor = processor_seconds();
    let begun = Instant::now();
    let due =
        |number: usize| (number as u64 * 1_000_000_000).checked_div(order.rate).map(Duration::from_nanos);
    let ask = |line: &mut Line| {
        if line.asked.is_some() || line.number >= order.requests {
            return;
        }
        let now = Instant::now();
        let due = due(line.number).map_or(now, |after| begun + after);
        if due <= now {
            let request = &bytes[ends[line.number]..ends[line.number + 1]];
            assert_eq!(
                line.stream.write(request).unwrap(),
                request.len(),
                "the socket has room for a request"
            );
            line.asked = Some(due);
            line.number += order.connections;
        }
    };
    lines.iter_mut().for_each(&ask);
    while times.len() < order.requests {
        let pause = (order.rate > 0).then_some(Timespec { tv_sec: 0, tv_nsec: 100_000 });
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), pause.as_ref()).unwrap();
        for event in &events {
            let line = &mut lines[event.data.u64() as usize];
            // The server writes an answer at once, and the loopback keeps it in one piece.
            let read = line.stream.read(&mut answer).unwrap();
            let got = &answer[..read];
            assert!(
                got.ends_with(b"\r\n\r\n") && got.starts_with(expected),
                "{}",
                String::from_utf8_lossy(got)
            );
            times.push(line.asked.take().expect("one answer a request").elapsed().as_secs_f64() * 1e3);
            ask(line);
        }
        if order.rate > 0 {
            lines.iter_mut().for_each(&ask);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let busy = (processor_seconds() - processor) / seconds;
    times.sort_by(f64::total_cmp);
    let part = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{seconds} {} {} {} {busy}", part(0.5), part(0.99), part(1.0));
}

async fn bare() -> (SocketAddr, CancellationToken) {
    async fn check(State(signer): State<Signer>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let header = |name: &str| headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        let holds = signer.verify(
            header("twitch-eventsub-message-id"),
            header("twitch-eventsub-message-timestamp"),
            &body,
            header("twitch-eventsub-message-signature"),
        );
        if holds { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN }
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    let routes = axum::Router::new().route(PATH, post(check)).with_state(Signer::new(&Secret::new(SECRET)));
    let cancel = CancellationToken::new();
    let ended = cancel.clone();
    tokio::spawn(async move {
        axum::serve(listener, routes)
            .with_graceful_shutdown(async move { ended.cancelled().await })
            .await
            .unwrap();
    });
    (address, cancel)
}

struct Ours {
    address: SocketAddr,
    cancel: CancellationToken,
    store: Store,
    handle: WebhookHandle,
    _options: watch::Sender<Option<WebhookOptions>>,
    _folder: tempfile::TempDir,
}

fn ours() -> Ours {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    // The bounds of the daemon.
    let options = StoreOptions::new(path, Duration::from_secs(7 * 86_400), 2 << 30, 10_000, 32 << 20);
    let store = Store::open(options).unwrap();
    let listener = Sockets::none().bind(&Listen::Address("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = listener.local_addr().unwrap();
    let keys = WebhookKeys::new(WebhookKey::new(Secret::new(SECRET)).unwrap(), []);
    let options = WebhookOptions::new(format!("https://hooks.example.net{PATH}"), listener, None, keys);
    let (sender, receiver) = watch::channel(Some(options));
    let hear = Hear(Arc::new(|_| {}));
    let (webhook, handle) = webhook(receiver, store.clone(), hear);
    let cancel = CancellationToken::new();
    tokio::spawn(webhook.run(cancel.clone()));
    Ours { address, cancel, store, handle, _options: sender, _folder: folder }
}

fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, in ticks of 10 ms.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

async fn throughput(connections: usize) {
    let requests = 60_000;
    let order = |address, run| Order { address, connections, requests, rate: 0, forged: false, run };
    let timed = async |order: Order| {
        let processor = processor_seconds();
        let report = order.run().await;
        let cost = (processor_seconds() - processor) / requests as f64 * 1e6;
        (requests as f64 / report.seconds, cost, report.busy)
    };
    let (mut rates, mut bares, mut ratios) = (vec![], vec![], vec![]);
    let (mut costs, mut bare_costs, mut busy, mut bare_busy) = (vec![], vec![], vec![], vec![]);
    let (address, cancel) = bare().await;
    let ours = ours();
    for run in 0..ROUNDS as u64 {
        let bare = timed(order(address, run)).await;
        let own = timed(order(ours.address, run)).await;
        assert_eq!(ours.store.last_seq().borrow().0, (run + 1) * requests as u64, "all of them are stored");
        rates.push(own.0);
        bares.push(bare.0);
        ratios.push(own.0 / bare.0);
        costs.push(own.1);
        bare_costs.push(bare.1);
        busy.push(own.2);
        bare_busy.push(bare.2);
    }
    cancel.cancel();
    ours.cancel.cancel();
    ours.store.close().await.unwrap();
    let status = ours.store.status().borrow().clone();
    println!(
        "throughput, {connections} connections: {:.0} notifications/s answered after a synced commit, a bare handler \
         {:.0}/s: ratio {:.2} (rounds: {})",
        median(rates),
        median(bares),
        median(ratios.clone()),
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
    );
    println!(
        "throughput, {connections} connections: {:.1} processor seconds a million, a bare handler {:.1}; rows a \
         commit {:.1}, a commit {:.2} ms; the sender works {:.0} % of the time, and {:.0} % with the bare handler",
        median(costs),
        median(bare_costs),
        status.last_seq.0 as f64 / status.commits.count as f64,
        status.commits.total_micros as f64 / status.commits.count as f64 / 1e3,
        median(busy) * 100.0,
        median(bare_busy) * 100.0,
    );
}

async fn latency() {
    let ours = ours();
    let order = Order {
        address: ours.address,
        connections: 64,
        requests: 20_000,
        rate: 2_000,
        forged: false,
        run: 0,
    };
    let report = order.run().await;
    ours.cancel.cancel();
    println!(
        "latency at 2,000 a second: median {:.2} ms, 99th percentile {:.2} ms, worst {:.2} ms (wanted: 99th below 20)",
        report.median, report.high, report.worst
    );
}

async fn flood() {
    let ours = ours();
    let forged =
        Order { address: ours.address, connections: 64, requests: 50_000, rate: 0, forged: true, run: 0 };
    let good =
        Order { address: ours.address, connections: 8, requests: 50, rate: 100, forged: false, run: 1 };
    // Connections and threads have their memory before it begins.
    Order { requests: 1_000, ..forged }.run().await;
    let before = resident_kib();
    let begun = Instant::now();
    let flooding = tokio::spawn(forged.run());
    let report = good.run().await;
    let in_time = !flooding.is_finished();
    let flood = flooding.await.unwrap();
    let grown = resident_kib().saturating_sub(before);
    let mut status = ours.handle.status.clone();
    let status = status.wait_for(|s| s.as_ref().is_some_and(|s| s.requests == 51_050)).await.unwrap().clone();
    ours.cancel.cancel();
    println!(
        "flood: 50,000 forged requests in {:.2} s, memory grew by {grown} KiB; refused: {:?}",
        flood.seconds,
        status.unwrap().rejected
    );
    println!(
        "flood: good requests among them: median {:.2} ms, 99th percentile {:.2} ms, worst {:.2} ms (wanted: below \
         100); the flood lasted longer than they did: {in_time} ({:.2} s)",
        report.median,
        report.high,
        report.worst,
        begun.elapsed().as_secs_f64()
    );
}
