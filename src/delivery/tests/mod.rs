//! Workers and their supervisor on a real store.

#[path = "../../../tests/common/delivery.rs"]
#[allow(unreachable_pub, reason = "the tests against brokers use it too")]
mod bench;
mod dead_letters;
mod http;
mod receiver;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use self::bench::{Bench, WAIT, event, numbers, open, sink};
use super::*;
use crate::model::event::{Event, Seq};
use crate::model::route::SinkName;
use crate::model::secret::Secret;
use crate::model::status::SinkState;
use crate::store::StartAt;

/// TLS that trusts nobody.
pub(super) fn tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// A client as the daemon has it.
pub(super) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.tls_backend_preconfigured(tls()).build().unwrap()
}

pub(in crate::delivery) fn options() -> DeliveryOptions {
    DeliveryOptions::new(client(), tls())
}

/// An address of this machine on which nothing listens.
fn deaf() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_sink_whose_receiver_is_away_says_so_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let address = deaf();
    let url = |scheme: &str| Secret::new(format!("{scheme}://ann:s3cret-of-ann@{address}"));
    let http = HttpOptions {
        url: url("http"),
        method: ::http::Method::POST,
        headers: vec![],
        body: HttpBody::Eventsub(None),
        timeout: Duration::from_secs(10),
        concurrency: 1,
    };
    let kinds = [
        SinkKind::Http(http),
        #[cfg(feature = "nats")]
        SinkKind::Nats(NatsOptions {
            url: url("nats"),
            subject: "events".into(),
            stream: None,
            credentials: None,
            discover: false,
        }),
        #[cfg(feature = "mqtt")]
        SinkKind::Mqtt(MqttOptions {
            url: url("mqtt"),
            topic: "events".into(),
            qos: 1,
            retain: false,
            credentials: None,
        }),
        #[cfg(feature = "redis")]
        SinkKind::Redis(RedisOptions { url: url("redis"), target: RedisTarget::Channel("events".into()) }),
    ];
    let sinks: Vec<SinkOptions> = kinds.into_iter().map(|kind| sink(kind.name(), kind)).collect();
    let bench = Bench::start(open(folder.path()), &sinks, options()).await;
    bench.push(0..1, "stream.online").await;
    let sentence = format!("cannot connect to {address}: connection refused");
    for sink in &sinks {
        let name = sink.name.as_str();
        let status = bench.status(name, |status| status.problem.is_some()).await;
        assert_eq!(status.problem.as_ref(), Some(&sentence), "{name}");
    }
    bench.end().await;
}

/// Standard output of a test, which can be made to fail.
#[derive(Clone, Default)]
struct Tap {
    bytes: Arc<Mutex<Vec<u8>>>,
    broken: Arc<Mutex<bool>>,
}

impl Tap {
    fn options(&self) -> DeliveryOptions {
        let tap = self.clone();
        DeliveryOptions { stdout: Arc::new(move || Box::new(tap.clone())), ..options() }
    }

    /// The message ids, in order.
    fn ids(&self) -> Vec<String> {
        ids(&self.bytes.lock().unwrap())
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if *self.broken.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ids(lines: &[u8]) -> Vec<String> {
    std::str::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("whole lines of JSON");
            line["metadata"]["message_id"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn file(folder: &tempfile::TempDir, name: &str) -> SinkOptions {
    let path = folder.path().join(format!("{name}.jsonl"));
    sink(name, SinkKind::File(FileOptions { path, rotate_size: None, rotate_keep: 1 }))
}

#[tokio::test]
async fn every_sink_gets_its_events_in_order_and_a_restart_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    let mut only = file(&folder, "online");
    only.types = vec!["stream.*".into()];
    let sinks = [sink("out", SinkKind::Stdout), only.clone()];
    let bench = Bench::start(open(folder.path()), &sinks, tap.options()).await;
    bench.push(0..2_500, "stream.online").await;
    bench.push(2_500..2_600, "channel.follow").await;
    bench.caught_up("out").await;
    let status = bench.caught_up("online").await;
    assert_eq!((status.delivered, status.lag_events), (2_500, 0));
    assert_eq!(tap.ids(), numbers(0..2_600));
    let store = bench.end().await;

    let bench = Bench::start(store, &sinks, tap.options()).await;
    bench.push(2_600..2_610, "stream.online").await;
    bench.caught_up("out").await;
    bench.caught_up("online").await;
    assert_eq!(tap.ids(), numbers(0..2_610), "each once");
    let SinkKind::File(FileOptions { path, .. }) = &only.kind else { panic!() };
    assert_eq!(ids(&std::fs::read(path).unwrap()).len(), 2_510);
    bench.end().await;
}

#[tokio::test]
async fn a_sink_that_fails_is_tried_again_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    *tap.broken.lock().unwrap() = true;
    let sinks = [sink("out", SinkKind::Stdout), file(&folder, "file")];
    let bench = Bench::start(open(folder.path()), &sinks, tap.options()).await;
    bench.push(0..10, "stream.online").await;
    bench.caught_up("file").await;
    let status = bench.status("out", |status| status.retries >= 3).await;
    assert_eq!((status.state, status.cursor), (SinkState::Retrying, Seq(0)));
    assert!(status.problem.is_some() && status.lag_events == 10);
    *tap.broken.lock().unwrap() = false;
    let status = bench.caught_up("out").await;
    assert_eq!((status.problem, status.delivered), (None, 10));
    assert_eq!(tap.ids(), numbers(0..10));
    bench.end().await;
}

#[tokio::test]
async fn what_is_given_up_is_in_the_dead_letters_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    *tap.broken.lock().unwrap() = true;
    let out = SinkOptions { give_up_after: Duration::from_millis(200), ..sink("out", SinkKind::Stdout) };
    let bench = Bench::start(open(folder.path()), &[out], tap.options()).await;
    bench.push(0..3, "stream.online").await;
    let status = bench.status("out", |status| status.dead_letters == 3).await;
    assert_eq!(status.delivered, 0);
    *tap.broken.lock().unwrap() = false;
    bench.push(3..5, "stream.online").await;
    bench.caught_up("out").await;
    assert_eq!(tap.ids(), numbers(3..5));
    let store = bench.end().await;
    assert_eq!(store.sink(&SinkName::new("out"), StartAt::Present).await.unwrap().dead_letters, 3);
}

#[tokio::test]
async fn a_change_touches_only_what_it_concerns() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    let (out, first, second) = (sink("out", SinkKind::Stdout), file(&folder, "a"), file(&folder, "b"));
    let bench = Bench::start(open(folder.path()), &[out.clone(), first.clone()], tap.options()).await;
    bench.push(0..10, "stream.online").await;
    bench.caught_up("out").await;
    bench.caught_up("a").await;
    let moved = SinkOptions { kind: second.kind.clone(), ..first.clone() };
    bench.sinks.send_replace(
        [out.clone(), moved.clone(), second.clone()].into_iter().filter(|s| s.name != second.name).collect(),
    );
    bench.push(10..20, "stream.online").await;
    bench.caught_up("a").await;
    bench.caught_up("out").await;
    let read = |sink: &SinkOptions| {
        let SinkKind::File(FileOptions { path, .. }) = &sink.kind else { panic!() };
        ids(&std::fs::read(path).unwrap())
    };
    let (old, new) = (read(&first), read(&moved));
    assert_eq!([old, new].concat(), numbers(0..20), "nothing twice, nothing lost");
    assert_eq!(tap.ids(), numbers(0..20));
    bench.sinks.send_replace(Arc::from([out]));
    let mut status = bench.handle.status.clone();
    tokio::time::timeout(WAIT, status.wait_for(|all| all.len() == 1)).await.expect("it goes").unwrap();
    bench.end().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_does_not_hold_up_the_end() {
    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv_timeout(WAIT);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (release, stuck) = std::sync::mpsc::channel();
    let stuck = Mutex::new(Some(stuck));
    let options = DeliveryOptions {
        stdout: Arc::new(move || Box::new(Stuck(stuck.lock().unwrap().take().expect("opened once")))),
        ..options()
    };
    let bench = Bench::start(open(folder.path()), &[sink("out", SinkKind::Stdout)], options).await;
    bench.push(0..1, "stream.online").await;
    bench.status("out", |status| status.state == SinkState::Delivering).await;
    let begun = std::time::Instant::now();
    bench.end().await;
    assert!(begun.elapsed() < Duration::from_secs(8));
    drop(release);
}

#[test]
fn what_cannot_work_is_found_without_touching_it() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        |path: PathBuf| sink("f", SinkKind::File(FileOptions { path, rotate_size: None, rotate_keep: 1 }));
    let good = path(folder.path().join("new.jsonl"));
    let bad_glob = SinkOptions { types: vec!["[".into()], ..sink("g", SinkKind::Stdout) };
    let sinks = [good, path(folder.path().join("no").join("f")), path(folder.path().to_owned()), bad_glob];
    let errors: Vec<String> = check_sinks(&sinks, &options()).iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(
        errors[0].contains("does not exist")
            && errors[1].contains("is a folder")
            && errors[2].contains("glob")
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn behind_is_what_the_sink_would_get() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    *tap.broken.lock().unwrap() = true;
    let online = vec!["stream.online".to_owned()];
    let out = SinkOptions { types: online.clone(), ..sink("out", SinkKind::Stdout) };
    let command = SinkKind::Command(CommandOptions {
        program: "/bin/false".into(),
        folder: folder.path().to_owned(),
        arguments: vec![],
        timeout: Duration::from_secs(10),
        concurrency: 1,
    });
    let hook = SinkOptions { types: online, retry_max: Duration::from_secs(60), ..sink("hook", command) };
    let bench = Bench::start(open(folder.path()), &[out, hook], tap.options()).await;
    bench.push(0..1, "stream.online").await;
    bench.push(1..201, "channel.follow").await;
    for name in ["out", "hook"] {
        let status = bench.status(name, |status| status.retries >= 1 && status.lag_events > 0).await;
        assert_eq!(status.lag_events, 1, "{name}");
    }
    // More than a worker reads ahead: it is counted bit by bit, and never what is for others.
    for round in 0..8 {
        let first = 1_000 + round * 600;
        bench.push(first..first + 300, "stream.online").await;
        bench.push(first + 300..first + 600, "channel.follow").await;
    }
    for name in ["out", "hook"] {
        bench
            .status(name, |status| {
                assert!(status.lag_events <= 2_401, "{name}: {}", status.lag_events);
                status.lag_events == 2_401
            })
            .await;
    }
    *tap.broken.lock().unwrap() = false;
    let status = bench.status("out", |status| status.delivered == 2_401).await;
    assert_eq!(status.lag_events, 0);
    bench.end().await;
}
