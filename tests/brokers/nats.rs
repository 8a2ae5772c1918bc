//! The NATS sink against a real server.

use async_nats::jetstream;
use eventsubd::delivery::{DeliveryOptions, NatsOptions, SinkKind, SinkOptions};
use eventsubd::model::event::{Seq, Since};
use eventsubd::model::route::SinkName;
use eventsubd::model::secret::Secret;

use super::certificate::certificate;
use super::server::NatsServer;
use super::{Bench, numbers, open, options, sink, trusting};

/// The messages of a stream, in order.
async fn stored(server: &NatsServer, stream: &str) -> Vec<jetstream::message::StreamMessage> {
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut stream = jetstream::new(client).get_stream(stream).await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut messages = Vec::new();
    for sequence in 1..=last {
        messages.push(stream.get_raw_message(sequence).await.unwrap());
    }
    messages
}

fn nats(port: u16, stream: Option<&str>) -> SinkOptions {
    let options = NatsOptions {
        url: Secret::new(format!("nats://127.0.0.1:{port}")),
        subject: "eventsub.{{type}}.{{broadcaster_id}}".into(),
        stream: stream.map(str::to_owned),
        credentials: None,
        discover: true,
    };
    sink("nats", SinkKind::Nats(options))
}

fn message_id(message: &jetstream::message::StreamMessage) -> String {
    message.headers.get("Nats-Msg-Id").expect("an id").to_string()
}

#[tokio::test]
async fn the_stream_is_made_and_gets_every_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path(), 0);
    let bench = Bench::start(open(folder.path()), &[nats(server.port, Some("EVENTSUB"))], options()).await;
    bench.push(0..300, "stream.online").await;
    let status = bench.caught_up("nats").await;
    assert_eq!((status.delivered, status.dead_letters), (300, 0));
    let messages = stored(&server, "EVENTSUB").await;
    let mut got: Vec<String> = messages.iter().map(message_id).collect();
    got.sort_by_key(|id| id[1..].parse::<usize>().unwrap());
    assert_eq!(got, numbers(0..300));
    assert_eq!(messages.iter().filter(|m| m.subject.as_str() == "eventsub.stream.online.3").count(), 43);
    for channel in 0..7 {
        let subject = format!("eventsub.stream.online.{channel}");
        let of = messages.iter().filter(|message| message.subject.as_str() == subject);
        let numbers: Vec<usize> = of.map(|message| message_id(message)[1..].parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "in order for each broadcaster");
    }
    let body: serde_json::Value = serde_json::from_slice(&messages[0].payload).unwrap();
    assert_eq!(body["metadata"]["subscription_type"], "stream.online");
    // A replayed event is no duplicate: the stream takes it, with the original id beside the new one.
    bench.handle.replay(&SinkName::new("nats"), Since::Seq(Seq(291))).await.unwrap();
    bench.status("nats", |status| status.delivered == 310).await;
    let messages = stored(&server, "EVENTSUB").await;
    let replayed = &messages[300..];
    let original = |message: &jetstream::message::StreamMessage| {
        message.headers.get("Eventsubd-Original-Message-Id").map(ToString::to_string)
    };
    let mut got: Vec<String> = replayed.iter().filter_map(original).collect();
    got.sort();
    assert_eq!(got, numbers(290..300));
    assert!(replayed.iter().all(|message| !message_id(message).starts_with('m')));
    assert!(messages[..300].iter().all(|message| original(message).is_none()));
    bench.end().await;
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path(), 0);
    let bench = Bench::start(
        open(folder.path()),
        &[nats(server.port, Some("EVENTSUB")), sink("out", SinkKind::Stdout)],
        options(),
    )
    .await;
    bench.push(0..100, "stream.online").await;
    bench.caught_up("nats").await;
    let port = server.port;
    drop(server);
    bench.push(100..200, "stream.online").await;
    bench.caught_up("out").await;
    let status = bench.status("nats", |status| status.cursor >= Seq(100)).await;
    assert!(status.cursor < Seq(200), "nobody is there to acknowledge: {status:?}");
    let server = NatsServer::start(folder.path(), port);
    bench.push(200..300, "stream.online").await;
    bench.caught_up("nats").await;
    let mut got: Vec<String> = stored(&server, "EVENTSUB").await.iter().map(message_id).collect();
    got.sort_by_key(|id| id[1..].parse::<usize>().unwrap());
    got.dedup();
    assert_eq!(got, numbers(0..300));
    bench.end().await;
}

#[tokio::test]
async fn without_a_stream_the_person_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(folder.path(), 0);
    let bench = Bench::start(open(folder.path()), &[nats(server.port, None)], options()).await;
    bench.push(0..1, "stream.online").await;
    let status = bench.status("nats", |status| status.problem.is_some()).await;
    assert!(status.problem.as_ref().unwrap().contains("`stream`"), "{status:?}");
    bench.end().await;
}

#[tokio::test]
async fn tls_and_a_password_are_asked_for_and_given() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let server = NatsServer::with(
        folder.path(),
        0,
        &[
            "--tls",
            "--tlscert",
            &file("cert.pem"),
            "--tlskey",
            &file("key.pem"),
            "--user",
            "me",
            "--pass",
            "p@ss",
        ],
    );
    let trusting = trusting(&file("cert.pem"));
    let with_url = |name: &str, url: String| {
        let SinkKind::Nats(nats) = nats(0, Some("EVENTSUB")).kind else { panic!() };
        sink(name, SinkKind::Nats(NatsOptions { url: Secret::new(url), ..nats }))
    };
    let good = with_url("good", format!("tls://me:p%40ss@localhost:{}", server.port));
    let stranger = with_url("stranger", format!("tls://localhost:{}", server.port));
    let bench =
        Bench::start(open(folder.path()), &[good, stranger], DeliveryOptions { tls: trusting, ..options() })
            .await;
    bench.push(0..10, "stream.online").await;
    assert_eq!(bench.caught_up("good").await.delivered, 10);
    let status = bench.status("stranger", |status| status.problem.is_some()).await;
    assert_eq!(status.delivered, 0);
    bench.end().await;
}
