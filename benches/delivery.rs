//! How fast events leave the store, on this machine. Run by hand:
//!
//! ```sh
//! cargo bench --bench delivery             # everything, about a minute
//! cargo bench --bench delivery -- http     # one part: file, http, backlog
//! ```
//!
//! Each part prints figures and a ratio within the same run; nothing is asserted about time.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a report for people"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod measure;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Home, Process, Receiver, WAIT, caught_up, converged, quick};
use eventsubd::auth::{http_client, tls_config};
use eventsubd::delivery::format::{Format, eventsub_line};
use eventsubd::delivery::{
    DeliveryOptions, FileOptions, HttpBody, HttpOptions, SinkKind, SinkOptions, delivery,
};
use eventsubd::model::event::{Event, MessageId, Seq};
use eventsubd::model::route::{Routes, SinkName};
use eventsubd::model::secret::Secret;
use eventsubd::store::{Reader, StartAt, Store, StoreOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const EVENT_SIZE: usize = 1_000;
const FILE_EVENTS: usize = 500_000;
const HTTP_EVENTS: usize = 50_000;
const CONCURRENCY: usize = 16;
const BACKLOG: usize = 1_000_000;
/// Broadcasters that the events are about.
const CHANNELS: usize = 1_000;

fn main() {
    let wants = measure::wanted_parts();
    let runtime = measure::runtime();
    runtime.block_on(async {
        if wants("file") {
            file().await;
        }
        if wants("http") {
            http().await;
        }
        if wants("backlog") {
            backlog().await;
        }
    });
    runtime.shutdown_background();
}

fn event(nth: usize) -> Event {
    let head = format!(
        r#"{{"subscription":{{"type":"stream.online","condition":{{"broadcaster_user_id":"{}"}}}},"event":{{"filler":""#,
        nth % CHANNELS
    );
    let filler = "x".repeat(EVENT_SIZE - head.len() - 3);
    Event {
        message_id: MessageId::new(&format!("{nth:08x}-0000-4000-8000-{nth:012x}")).unwrap(),
        message_timestamp: "2026-11-02T09:00:01.512Z".into(),
        subscription_type: "stream.online".into(),
        subscription_version: "1".into(),
        subscription_id: "8a40b7de-0000-4000-8000-12ce99310007".into(),
        payload: Bytes::from(format!("{head}{filler}\"}}}}")),
    }
}

/// A store with this many events.
async fn filled(folder: &Path, events: usize) -> Store {
    let keep = Duration::from_secs(86_400);
    let options = StoreOptions::new(folder.join("events.db"), keep, 8 << 30, 8_192, 16 << 20);
    let store = tokio::task::spawn_blocking(move || Store::open(options)).await.unwrap().unwrap();
    for nth in 0..events {
        store.push_detached(event(nth)).await.unwrap();
    }
    store.last_seq().wait_for(|seq| seq.0 == events as u64).await.unwrap();
    store
}

fn sink(kind: SinkKind) -> SinkOptions {
    SinkOptions {
        name: SinkName::new("bench"),
        types: vec!["*".to_owned()],
        format: Format::Eventsub,
        start: StartAt::Beginning,
        retry_max: Duration::from_secs(1),
        give_up_after: Duration::from_secs(3600),
        host: None,
        kind,
    }
}

/// Delivers everything that a store has; tells the seconds.
async fn drain(store: &Store, sink: SinkOptions) -> f64 {
    let tls = tls_config().unwrap();
    let options = DeliveryOptions::new(http_client("bench", tls.clone()).unwrap(), tls);
    let (_sinks, sinks) = watch::channel(Arc::from([sink]));
    let (_routes, routes) = watch::channel(Some(Arc::new(Routes::default())));
    let begun = Instant::now();
    let (delivery, mut handle) = delivery(store.clone(), routes, sinks, options);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(delivery.run(cancel.clone()));
    let newest = *store.last_seq().borrow();
    let done = handle.status.wait_for(|all| all.values().next().is_some_and(|sink| sink.cursor == newest));
    drop(done.await.unwrap());
    let took = begun.elapsed().as_secs_f64();
    cancel.cancel();
    task.await.unwrap();
    took
}

async fn file() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), FILE_EVENTS).await;
    let path = folder.path().join("events.jsonl");
    let options = FileOptions { path: path.clone(), rotate_size: None, rotate_keep: 1 };
    let rate = FILE_EVENTS as f64 / drain(&store, sink(SinkKind::File(options))).await;
    let lines = fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, FILE_EVENTS);
    store.close().await.unwrap();
    let bare = FILE_EVENTS as f64 / bare_file(folder.path());
    println!(
        "file: {rate:.0} events/s of {EVENT_SIZE} bytes from the store to a synced file (wanted: 50000)"
    );
    println!(
        "file: a loop that only reads and writes the same: {bare:.0} events/s: ratio {:.2}",
        rate / bare
    );
}

/// Reads the store and appends to a file, 1,000 events a sync, on one thread.
fn bare_file(folder: &Path) -> f64 {
    let reader = Reader::open(&folder.join("events.db")).unwrap();
    let mut file = fs::File::create(folder.join("bare.jsonl")).unwrap();
    let begun = Instant::now();
    let (mut cursor, mut lines) = (Seq(0), Vec::new());
    loop {
        let events = reader.read_after(cursor, 1_000).unwrap();
        let Some(last) = events.last() else { break };
        cursor = last.seq;
        lines.clear();
        for stored in &events {
            eventsub_line(&stored.event, &mut lines);
        }
        file.write_all(&lines).unwrap();
        file.sync_data().unwrap();
    }
    begun.elapsed().as_secs_f64()
}

async fn http() {
    let receiver = Counter::start();
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), HTTP_EVENTS).await;
    let url = format!("http://{}/hook", receiver.address);
    let options = HttpOptions {
        url: Secret::new(url.clone()),
        method: ::http::Method::POST,
        headers: vec![],
        body: HttpBody::Eventsub(Some(Secret::new("a secret of the bench"))),
        timeout: Duration::from_secs(10),
        concurrency: CONCURRENCY,
    };
    let rate = HTTP_EVENTS as f64 / drain(&store, sink(SinkKind::Http(options))).await;
    assert_eq!(receiver.count(), HTTP_EVENTS);
    let bare = HTTP_EVENTS as f64 / bare_http(&url).await;
    println!(
        "http: {rate:.0} events/s of {EVENT_SIZE} bytes from the store to a receiver on these cores, {CONCURRENCY} at \
         once (wanted: 8000)"
    );
    println!(
        "http: the client alone, without store, order and signature: {bare:.0} requests/s: ratio {:.2}",
        rate / bare
    );
}

/// Sends the same number of requests with the same client, as many at once.
async fn bare_http(url: &str) -> f64 {
    let client = http_client("bench", tls_config().unwrap()).unwrap();
    let body = event(0).payload;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (client, url, body) = (client.clone(), url.to_owned(), body.clone());
        tasks.spawn(async move {
            for _ in 0..HTTP_EVENTS / CONCURRENCY {
                let answer = client.post(&url).body(body.clone()).send().await.unwrap();
                assert!(answer.status().is_success());
                answer.bytes().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    begun.elapsed().as_secs_f64()
}

/// A receiver on a thread of its own that does as little as it can.
struct Counter {
    address: std::net::SocketAddr,
    count: Arc<std::sync::atomic::AtomicUsize>,
}

impl Counter {
    fn start() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let routes = axum::Router::new().fallback(async move |_body: Bytes| {
                    counted.fetch_add(1, Ordering::Relaxed);
                });
                axum::serve(listener, routes).await
            })
        });
        Self { address, count }
    }

    fn count(&self) -> usize {
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The most memory that the program had, in MiB, for a backlog of so many events.
async fn peak(events: usize, sink: &str) -> f64 {
    let home = Home::new(quick()).await;
    fs::create_dir(home.path("state")).unwrap();
    filled(&home.path("state"), events).await.close().await.unwrap();
    let receiver = Receiver::start().await;
    let sink =
        sink.replace("PATH", &home.path("out").display().to_string()).replace("HOST", &receiver.address);
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[store]\nmax_size = \"8GiB\"\n\n\
         [sink.bench]\nfrom = \"beginning\"\n{sink}\n"
    ));
    let program = Process::start(&home, "warn");
    converged(&home).await;
    caught_up(&home, 10 * WAIT).await;
    measure::Account::of(&program.child).peak_mib()
}

async fn backlog() {
    for (name, events, sink) in [
        ("file", BACKLOG, "type = \"file\"\npath = \"PATH\""),
        ("http", BACKLOG / 10, "type = \"http\"\nurl = \"http://HOST/\"\nconcurrency = 16"),
    ] {
        let (few, many) = (peak(10, sink).await, peak(events, sink).await);
        println!(
            "backlog: {name}: peak of {many:.1} MiB while {events} events drain, {few:.1} MiB with 10: {:.1} MiB more \
             (wanted: at most 20)",
            many - few
        );
    }
}
