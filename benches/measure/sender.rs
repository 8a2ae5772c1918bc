//! A process that sends signed webhooks, and a bare handler to compare with.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use eventsubd::model::secret::Secret;
use eventsubd::model::signature::Signer;
use eventsubd::model::time::Timestamp;
use eventsubd::model::webhook::WebhookKey;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;

use super::{Account, Helper, part};

/// Bytes of a body.
pub const BODY: usize = 1_000;

/// Task of the sender.
#[derive(Clone)]
pub struct Order {
    pub address: SocketAddr,
    /// The path of the callback.
    pub path: String,
    pub secret: String,
    pub connections: usize,
    pub requests: usize,
    /// Requests a second; 0 is as many as there are answers.
    pub rate: u64,
    /// With signatures of somebody else.
    pub forged: bool,
    /// Makes message ids differ between runs.
    pub run: u64,
}

impl Order {
    fn parse(texts: &[String]) -> Self {
        let number = |index: usize| texts[index].parse::<u64>().unwrap();
        Self {
            address: texts[0].parse().unwrap(),
            path: texts[1].clone(),
            secret: texts[2].clone(),
            connections: number(3) as usize,
            requests: number(4) as usize,
            rate: number(5),
            forged: number(6) == 1,
            run: number(7),
        }
    }

    /// Has a process of its own do it: this program with `send` as its first argument, see [`send`].
    pub async fn run(&self) -> Report {
        let Self { address, path, secret, connections, requests, rate, forged, run } = self.clone();
        let numbers = [connections as u64, requests as u64, rate, u64::from(forged), run];
        let texts = ["send".to_owned(), address.to_string(), path, secret];
        let texts = texts.into_iter().chain(numbers.map(|number| number.to_string()));
        let numbers = Helper::start(texts).output().await;
        Report {
            seconds: numbers[0],
            median: numbers[1],
            high: numbers[2],
            worst: numbers[3],
            busy: numbers[4],
        }
    }
}

/// The outcome; latencies in milliseconds.
pub struct Report {
    pub seconds: f64,
    pub median: f64,
    pub high: f64,
    pub worst: f64,
    /// The part of the time that the sender worked.
    pub busy: f64,
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
        "POST {}?{query} HTTP/1.1\r\nHost: hooks.example.net\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nContent-Type: application/json\r\nTwitch-Eventsub-Message-Id: {id}\r\n\
         Twitch-Eventsub-Message-Retry: 0\r\nTwitch-Eventsub-Message-Type: notification\r\n\
         Twitch-Eventsub-Message-Signature: {signature}\r\nTwitch-Eventsub-Message-Timestamp: {timestamp}\r\n\
         Twitch-Eventsub-Subscription-Type: channel.follow\r\nTwitch-Eventsub-Subscription-Version: 2\r\n\
         Accept-Encoding: gzip\r\n\r\n{body}",
        order.path,
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
/// that are compared as little as can be, and the same. Prints its [`Report`].
#[allow(clippy::print_stdout, reason = "read by the process that started it")]
pub fn send(arguments: &[String]) {
    let order = &Order::parse(arguments);
    let key = WebhookKey::new(Secret::new(order.secret.as_str())).unwrap();
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
    let processor = Account::own().processor_seconds();
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
    let busy = (Account::own().processor_seconds() - processor) / seconds;
    times.sort_by(f64::total_cmp);
    println!("{seconds} {} {} {} {busy}", part(&times, 0.5), part(&times, 0.99), part(&times, 1.0));
}

/// A bare handler that checks the signature and does nothing else, for as long as the runtime runs.
pub async fn bare(path: &str, secret: &str) -> SocketAddr {
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
    let routes = axum::Router::new().route(path, post(check)).with_state(Signer::new(&Secret::new(secret)));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}
