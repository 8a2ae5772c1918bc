//! The MQTT sink against a real broker.

use std::time::Duration;

use eventsubd::delivery::{DeliveryOptions, MqttOptions, SinkKind, SinkOptions};
use eventsubd::model::event::{Seq, Since};
use eventsubd::model::route::SinkName;
use eventsubd::model::secret::Secret;
use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};

use super::broker::Broker;
use super::certificate::certificate;
use super::{Bench, in_order_for_each_channel, numbers, open, options, sink, trusting};

fn mqtt(name: &str, url: &str, qos: u8) -> SinkOptions {
    let options = MqttOptions {
        url: Secret::new(url),
        topic: "eventsub/{{type}}/{{broadcaster_id}}".into(),
        qos,
        retain: false,
        credentials: None,
    };
    sink(name, SinkKind::Mqtt(options))
}

/// A subscriber whose session outlives its connections.
struct Subscriber {
    client: AsyncClient,
    events: EventLoop,
    topic: String,
}

impl Subscriber {
    async fn start(port: u16, topic: &str) -> Self {
        let mut options = rumqttc::MqttOptions::new(topic.replace(['/', '#'], ""), "127.0.0.1", port);
        options.set_clean_session(false).set_max_packet_size(1 << 20, 1 << 20);
        let (client, events) = AsyncClient::new(options, 16);
        let mut subscriber = Self { client, events, topic: topic.to_owned() };
        subscriber.subscribe().await;
        subscriber
    }

    async fn subscribe(&mut self) {
        self.client.subscribe(&*self.topic, QoS::AtLeastOnce).await.unwrap();
        while !matches!(self.next().await, Packet::SubAck(_)) {}
    }

    /// The next packet; a connection that broke is made again.
    async fn next(&mut self) -> Packet {
        let packet = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) => return packet,
                    Ok(Event::Outgoing(_)) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(super::WAIT, packet).await.expect("a packet")
    }

    /// Topic and message of the next `count` messages.
    async fn messages(&mut self, count: usize) -> Vec<(String, serde_json::Value)> {
        let mut messages = Vec::new();
        while messages.len() < count {
            if let Packet::Publish(publish) = self.next().await {
                messages.push((publish.topic, serde_json::from_slice(&publish.payload).unwrap()));
            }
        }
        messages
    }
}

fn ids(messages: &[(String, serde_json::Value)]) -> Vec<String> {
    messages
        .iter()
        .map(|(_, message)| message["metadata"]["message_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn every_event_arrives_over_a_killed_broker() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::mosquitto(folder.path(), 0, "allow_anonymous true");
    let port = broker.port;
    let url = format!("mqtt://127.0.0.1:{port}");
    let mut subscriber = Subscriber::start(port, "eventsub/#").await;
    let bench = Bench::start(open(folder.path()), &[mqtt("home", &url, 1)], options()).await;
    bench.push(0..300, "stream.online").await;
    let first = subscriber.messages(300).await;
    assert_eq!(bench.caught_up("home").await.dead_letters, 0);
    assert_eq!(in_order_for_each_channel(&ids(&first)), numbers(0..300));
    assert!(first.iter().all(|(topic, message)| {
        *topic == format!("eventsub/stream.online/{}", message["payload"]["event"]["n"].as_u64().unwrap() % 7)
    }));

    drop(broker);
    bench.push(300..400, "stream.online").await;
    let problem = bench.status("home", |status| status.problem.is_some()).await.problem.unwrap();
    assert!(problem.contains(&format!("127.0.0.1:{port}")), "{problem}");
    let broker = Broker::mosquitto(folder.path(), port, "allow_anonymous true");
    let mut got = Vec::new();
    // The broker sends the subscriber again what it had not acknowledged yet.
    while in_order_for_each_channel(&got).len() < 100 {
        let new = ids(&subscriber.messages(1).await);
        got.extend(new.into_iter().filter(|id| id[1..].parse::<usize>().unwrap() >= 300));
    }
    let status = bench.caught_up("home").await;
    assert_eq!((status.dead_letters, status.problem), (0, None));
    assert_eq!(in_order_for_each_channel(&got), numbers(300..400));
    drop(broker);
    bench.end().await;
}

#[tokio::test]
async fn other_qualities_of_service_work_too() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::mosquitto(folder.path(), 0, "allow_anonymous true");
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut subscriber = Subscriber::start(broker.port, "eventsub/#").await;
    let bench =
        Bench::start(open(folder.path()), &[mqtt("zero", &url, 0), mqtt("two", &url, 2)], options()).await;
    bench.push(0..50, "stream.online").await;
    assert_eq!(bench.caught_up("zero").await.delivered, 50);
    assert_eq!(bench.caught_up("two").await.delivered, 50);
    let mut got = ids(&subscriber.messages(100).await);
    got.sort();
    let mut twice: Vec<String> = numbers(0..50).into_iter().flat_map(|id| [id.clone(), id]).collect();
    twice.sort();
    assert_eq!(got, twice);
    // A program that drops ids which it has seen takes a replayed event.
    bench.handle.replay(&SinkName::new("two"), Since::Seq(Seq(46))).await.unwrap();
    let replayed = subscriber.messages(5).await;
    let original = |(_, message): &(String, serde_json::Value)| {
        message["metadata"]["original_message_id"].as_str().map(str::to_owned)
    };
    let mut originals: Vec<String> = replayed.iter().filter_map(original).collect();
    originals.sort();
    assert_eq!(originals, numbers(45..50));
    assert!(ids(&replayed).iter().all(|id| !id.starts_with('m')));
    bench.end().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_tls_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c", &file("passwords"), "me", "p@ss"])
        .status()
        .expect("mosquitto is installed by tests/run");
    assert!(made.success());
    let more = format!(
        "allow_anonymous false\npassword_file {}\ncertfile {}\nkeyfile {}",
        file("passwords"),
        file("cert.pem"),
        file("key.pem")
    );
    let broker = Broker::mosquitto(folder.path(), 0, &more);
    let of = |name: &str, login: &str| mqtt(name, &format!("mqtts://{login}localhost:{}", broker.port), 1);
    let mut other = of("file", "");
    if let SinkKind::Mqtt(options) = &mut other.kind {
        options.credentials = Some(Secret::new("me:p@ss"));
    }
    let sinks = [of("good", "me:p%40ss@"), other, of("wrong", "me:hunter2@"), of("none", "")];
    let options = DeliveryOptions { tls: trusting(&file("cert.pem")), ..options() };
    let bench = Bench::start(open(folder.path()), &sinks, options).await;
    bench.push(0..10, "stream.online").await;
    assert_eq!(bench.caught_up("good").await.delivered, 10);
    assert_eq!(bench.caught_up("file").await.delivered, 10);
    for name in ["wrong", "none"] {
        let status = bench.status(name, |status| status.problem.is_some()).await;
        let problem = status.problem.unwrap();
        assert!(
            problem.contains("refuses the user name or the password") && !problem.contains("hunter2"),
            "{problem}"
        );
        assert_eq!(status.delivered, 0);
    }
    bench.end().await;
}
