//! The Redis sink against a real server.

use eventsubd::delivery::{DeliveryOptions, RedisOptions, RedisTarget, SinkKind, SinkOptions};
use eventsubd::model::secret::Secret;

use super::broker::Broker;
use super::certificate::certificate;
use super::{Bench, in_order_for_each_channel, numbers, open, options, sink, trusting};

fn redis(name: &str, url: &str, target: RedisTarget) -> SinkOptions {
    sink(name, SinkKind::Redis(RedisOptions { url: Secret::new(url), target }))
}

fn stream(max_len: Option<u64>) -> RedisTarget {
    RedisTarget::Stream { key: "eventsub:{{type}}".into(), max_len }
}

type Entries = Vec<(String, Vec<(String, String)>)>;

/// The entries of the stream, oldest first: message id and message.
async fn entries(port: u16) -> Vec<(String, serde_json::Value)> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd("XRANGE");
    let entries: Entries =
        command.arg("eventsub:stream.online").arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let field = |fields: &[(String, String)], wanted: &str| {
        fields.iter().find(|(name, _)| name == wanted).unwrap_or_else(|| panic!("{wanted}")).1.clone()
    };
    let read = |(_, fields): (String, Vec<(String, String)>)| {
        assert_eq!(field(&fields, "type"), "stream.online");
        (field(&fields, "message_id"), serde_json::from_str(&field(&fields, "message")).unwrap())
    };
    entries.into_iter().map(read).collect()
}

#[tokio::test]
async fn a_stream_gets_every_event_over_a_killed_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Broker::redis(folder.path(), 0, &[]);
    let port = server.port;
    let url = format!("redis://127.0.0.1:{port}");
    let bench = Bench::start(open(folder.path()), &[redis("bus", &url, stream(None))], options()).await;
    bench.push(0..300, "stream.online").await;
    assert_eq!(bench.caught_up("bus").await.dead_letters, 0);
    let first = entries(port).await;
    assert_eq!(first.len(), 300);
    assert_eq!(first[0].1["metadata"]["message_id"], first[0].0.as_str());

    // The server is killed in the middle of the next ones.
    bench.push(300..900, "stream.online").await;
    bench.status("bus", |status| status.delivered > 350).await;
    drop(server);
    bench.push(900..1000, "stream.online").await;
    let status = bench.status("bus", |status| status.problem.is_some()).await;
    let problem = status.problem.unwrap();
    assert!(problem.contains(&format!("127.0.0.1:{port}")), "{problem}");
    let _server = Broker::redis(folder.path(), port, &[]);
    let status = bench.caught_up("bus").await;
    assert_eq!((status.dead_letters, status.problem), (0, None));
    let ids: Vec<String> = entries(port).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(in_order_for_each_channel(&ids), numbers(0..1000));
    bench.end().await;
}

#[tokio::test]
async fn a_stream_is_kept_short_and_a_channel_reaches_who_listens() {
    use futures_util::StreamExt;
    let folder = tempfile::tempdir().unwrap();
    let server = Broker::redis(folder.path(), 0, &[]);
    let url = format!("redis://127.0.0.1:{}", server.port);
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.subscribe("live:3").await.unwrap();
    let channel = redis("live", &url, RedisTarget::Channel("live:{{ broadcaster_id }}".into()));
    let sinks = [redis("short", &url, stream(Some(100))), channel];
    let bench = Bench::start(open(folder.path()), &sinks, options()).await;
    bench.push(0..700, "stream.online").await;
    bench.caught_up("short").await;
    bench.caught_up("live").await;
    let left = entries(server.port).await;
    // The server removes whole nodes of 100 entries.
    assert!((100..300).contains(&left.len()), "{}", left.len());
    let mut messages = listener.on_message();
    for n in 0..100 {
        let message = tokio::time::timeout(super::WAIT, messages.next()).await.unwrap().unwrap();
        let message: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
        assert_eq!(message["payload"]["event"]["n"], 3 + 7 * n);
    }
    drop(messages);
    bench.end().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_tls_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let more = [
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "p@ss",
    ];
    let server = Broker::redis(folder.path(), 0, &more);
    let of = |name: &str, login: &str| {
        redis(name, &format!("rediss://{login}localhost:{}", server.port), RedisTarget::Channel("c".into()))
    };
    let sinks = [of("good", ":p%40ss@"), of("wrong", ":other@"), of("none", "")];
    let options = DeliveryOptions { tls: trusting(&cert), ..options() };
    let bench = Bench::start(open(folder.path()), &sinks, options).await;
    bench.push(0..10, "stream.online").await;
    assert_eq!(bench.caught_up("good").await.delivered, 10);
    for (name, text) in [("wrong", "refuses the user name or the password"), ("none", "asks for a password")]
    {
        let status = bench.status(name, |status| status.problem.is_some()).await;
        let problem = status.problem.unwrap();
        assert!(problem.contains(text) && !problem.contains("other"), "{problem}");
        assert_eq!(status.delivered, 0);
    }
    bench.end().await;
}
