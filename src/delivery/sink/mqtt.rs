//! MQTT 3.1.1: one message an event, acknowledged by the broker.
//!
//! A connection lives until its first error. Every message that waits for its acknowledgement fails with it, and is sent
//! again over the next one, so this file and not the library decides what is sent twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as MqttEvent, EventLoop,
    MqttOptions as LinkOptions, Outgoing, Packet, QoS, StateError, TlsConfiguration, Transport,
};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::info;

use super::super::format::Format;
use super::super::outgoing::Attempt;
use super::super::retry::Outcome;
use super::{Single, printable};
use crate::model::connect::{broke, cannot_connect, silent};
use crate::model::event::{Event, StoredEvent};
use crate::model::masking::Masking;
use crate::model::secret::Secret;
use crate::model::sink::MqttOptions;
use crate::model::template::{EventContext, Makes, Template, TemplateError};

/// Messages that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 256;
/// Messages that the library may hold: more than can ever be under way.
const QUEUE: usize = 4 * IN_FLIGHT;
/// Time limit of an acknowledgement.
const ACK_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The largest message that MQTT knows.
const LARGEST: usize = 256 << 20;
/// The longest topic that MQTT knows.
const LONGEST_TOPIC: usize = 65_535;

pub(in crate::delivery) struct Mqtt {
    options: MqttOptions,
    format: Format,
    topic: Template,
    qos: QoS,
    host: String,
    port: u16,
    login: Option<(Secret, Secret)>,
    masking: Arc<Masking>,
    tls: Option<Arc<rustls::ClientConfig>>,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// The reason for which the sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::delivery) enum MqttError {
    #[error("`url` is not an address of an MQTT broker, such as `mqtt://127.0.0.1:1883`")]
    Url,
    #[error("`topic` is a template with an error: {0}")]
    Topic(TemplateError),
}

type Acknowledged = oneshot::Sender<Result<(), String>>;

/// Messages that wait for their acknowledgement.
#[derive(Default)]
struct Waiting {
    /// Handed to the library, which has given them no packet id yet; it takes them in this order.
    queued: VecDeque<Acknowledged>,
    sent: HashMap<u16, Acknowledged>,
    /// The reason for which the connection ended.
    ended: Option<String>,
}

impl Waiting {
    fn end(&mut self, why: &str) {
        self.ended = Some(why.to_owned());
        let sent = std::mem::take(&mut self.sent).into_values();
        for waiting in std::mem::take(&mut self.queued).into_iter().chain(sent) {
            // One that was given up meanwhile has no receiver.
            let _ = waiting.send(Err(why.to_owned()));
        }
    }
}

struct Link {
    client: AsyncClient,
    waiting: Arc<Mutex<Waiting>>,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    fn locked(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.locked().ended.is_some()
    }

    /// Hands a message to the library. Nothing is awaited between the two steps, so that a cancelled attempt cannot leave
    /// one without the other.
    fn publish(
        &self,
        topic: String,
        qos: QoS,
        retain: bool,
        body: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<(), String>>, String> {
        let (acknowledged, answer) = oneshot::channel();
        let mut waiting = self.locked();
        if let Some(why) = &waiting.ended {
            return Err(why.clone());
        }
        waiting.queued.push_back(acknowledged);
        if self.client.try_publish(topic, qos, retain, body).is_err() {
            waiting.queued.pop_back();
            return Err("the broker takes no more messages at present".to_owned());
        }
        Ok(answer)
    }
}

/// Drives a connection until its first error.
async fn drive(
    mut events: EventLoop,
    waiting: Arc<Mutex<Waiting>>,
    ready: oneshot::Sender<Result<(), String>>,
    address: String,
    masking: Arc<Masking>,
) {
    let locked = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ready = Some(ready);
    loop {
        match events.poll().await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                if let Some(ready) = ready.take() {
                    let _ = ready.send(Ok(()));
                }
            }
            Ok(MqttEvent::Outgoing(Outgoing::Publish(id))) => {
                let mut waiting = locked();
                let next = waiting.queued.pop_front();
                match next {
                    // Without an acknowledgement there is nothing to wait for.
                    Some(next) if id == 0 => drop(next.send(Ok(()))),
                    Some(next) => drop(waiting.sent.insert(id, next)),
                    None => {}
                }
            }
            Ok(MqttEvent::Incoming(Packet::PubAck(ack))) => acknowledge(&mut locked(), ack.pkid),
            Ok(MqttEvent::Incoming(Packet::PubComp(ack))) => acknowledge(&mut locked(), ack.pkid),
            Ok(_) => {}
            Err(error) => {
                let why = explain(&address, &masking, &error, ready.is_none());
                locked().end(&why);
                if let Some(ready) = ready.take() {
                    let _ = ready.send(Err(why));
                }
                return;
            }
        }
    }
}

fn acknowledge(waiting: &mut Waiting, id: u16) {
    if let Some(sent) = waiting.sent.remove(&id) {
        let _ = sent.send(Ok(()));
    }
}

/// The failure in words. A broker or a library may repeat a secret.
fn explain(address: &str, masking: &Masking, error: &ConnectionError, was_connected: bool) -> String {
    let said = |error: &dyn std::fmt::Display| printable(&masking.hide(&error.to_string()));
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let words = if was_connected { broke } else { cannot_connect };
        printable(&masking.hide(&words(address, None, error)))
    };
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => format!("{address} refuses the user name or the password"),
        ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => {
            format!("{address} says that it is unavailable")
        }
        ConnectionError::ConnectionRefused(_) => format!("{address} refuses the connection"),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => failed(error),
        ConnectionError::Tls(error) => failed(error),
        ConnectionError::NetworkTimeout if !was_connected => silent(address, CONNECT_LIMIT),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            format!("no answer from {address} in time")
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            format!("{address} closed the connection")
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => format!("{address} no longer answers"),
        other => format!("{address}: {}", said(other)),
    }
}

impl Mqtt {
    pub(in crate::delivery) fn new(
        options: MqttOptions,
        format: Format,
        tls: rustls::ClientConfig,
    ) -> Result<Self, MqttError> {
        let url = reqwest::Url::parse(options.url.expose()).map_err(|_| MqttError::Url)?;
        let (tls, port) = match url.scheme() {
            "mqtt" => (None, 1883),
            "mqtts" => (Some(Arc::new(tls)), 8883),
            _ => return Err(MqttError::Url),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(MqttError::Url)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let decoded = |text: &str| Secret::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
        let login = match &options.credentials {
            Some(text) => {
                let (user, password) = text.expose().split_once(':').unwrap_or((text.expose(), ""));
                Some((Secret::new(user), Secret::new(password)))
            }
            None if url.username().is_empty() => None,
            None => Some((decoded(url.username()), decoded(url.password().unwrap_or_default()))),
        };
        let mut masking = Masking::default();
        masking.add_url(options.url.expose());
        if let Some((user, password)) = &login {
            masking.add_login(user.expose(), password.expose());
        }
        let topic = Template::new(&options.topic, Makes::Text).map_err(MqttError::Topic)?;
        let qos = match options.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let port = url.port().unwrap_or(port);
        Ok(Self {
            options,
            format,
            topic,
            qos,
            host,
            port,
            login,
            masking: Arc::new(masking),
            tls,
            link: tokio::sync::Mutex::new(None),
        })
    }

    fn topic(&self, event: &Event) -> Result<String, String> {
        let context = EventContext::new(event).map_err(|error| error.message)?;
        let text = self.topic.render(&context).map_err(|error| format!("`topic`: {error}"))?;
        let topic = valid_topic(&text);
        if topic.len() > LONGEST_TOPIC {
            return Err(format!("`topic` is longer than MQTT allows: {} bytes", topic.len()));
        }
        Ok(topic)
    }

    /// The connection; made when there is none.
    async fn link(&self) -> Result<Arc<Link>, String> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.has_ended()) {
            return Ok(Arc::clone(link));
        }
        *slot = None;
        let address = format!("{}:{}", self.host, self.port);
        // With a random id, two daemons do not end each other's connections, which the broker does to equal ones.
        let id = format!("eventsubd-{}", uuid::Uuid::new_v4().simple());
        let mut options = LinkOptions::new(id, self.host.clone(), self.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_inflight(IN_FLIGHT as u16)
            .set_max_packet_size(LARGEST, LARGEST);
        if let Some((user, password)) = &self.login {
            options.set_credentials(user.expose(), password.expose());
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        let (client, events) = AsyncClient::new(options, QUEUE);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (ready, connected) = oneshot::channel();
        let driver = drive(events, Arc::clone(&waiting), ready, address.clone(), Arc::clone(&self.masking));
        let driver = tokio::spawn(driver).abort_handle();
        let link = Arc::new(Link { client, waiting, driver });
        match tokio::time::timeout(CONNECT_LIMIT, connected).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(error),
            Ok(Err(_)) | Err(_) => return Err(silent(&address, CONNECT_LIMIT)),
        }
        info!(address, "connected to the MQTT broker");
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn publish(&self, event: &Event, attempt: &Attempt) -> Outcome {
        let topic = match self.topic(event) {
            Ok(topic) => topic,
            Err(error) => return Outcome::rejected(error),
        };
        let mut body = Vec::new();
        // MQTT 3.1.1 has no headers: the new id of a replayed event stands in the message.
        self.format.line_as(event, attempt.new_id.as_ref(), &mut body);
        body.pop();
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Outcome::unavailable(error),
        };
        let answer = match link.publish(topic, self.qos, self.options.retain, body) {
            Ok(answer) => answer,
            Err(error) => return Outcome::unavailable(error),
        };
        match tokio::time::timeout(ACK_LIMIT, answer).await {
            Ok(Ok(Ok(()))) => Outcome::Done,
            Ok(Ok(Err(error))) => Outcome::unavailable(error),
            Ok(Err(_)) => Outcome::unavailable("the connection to the broker ended"),
            Err(_) => {
                // A broker that stays silent is asked over a new connection.
                link.locked().end("the broker did not acknowledge in time");
                Outcome::unavailable("the broker did not acknowledge in time; is it up?")
            }
        }
    }
}

impl Single for Mqtt {
    fn concurrency(&self) -> usize {
        IN_FLIGHT
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move { self.publish(&event.event, &attempt).await }.boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        let event = &event.event;
        let mut line = Vec::new();
        self.format.line(event, &mut line);
        let retain = if self.options.retain { ", retained" } else { "" };
        Ok(format!(
            "topic {}\nQoS {}{retain}\n\n{}",
            self.topic(event)?,
            self.options.qos,
            String::from_utf8_lossy(&line).trim_end()
        ))
    }
}

/// A topic without what a topic of a message may not have: wildcards and control characters become `_`, and so does an
/// empty level.
fn valid_topic(text: &str) -> String {
    let level = |level: &str| {
        if level.is_empty() {
            return "_".to_owned();
        }
        level.chars().map(|c| if c.is_control() || matches!(c, '+' | '#') { '_' } else { c }).collect()
    };
    text.trim().split('/').map(level).collect::<Vec<String>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_repeats_a_secret_is_quoted_without_it() {
        let options = MqttOptions {
            url: Secret::new("mqtt://me:hunter2hunter2@localhost"),
            topic: "a".into(),
            qos: 1,
            retain: false,
            credentials: Some(Secret::new("other:opensesame99")),
        };
        let tls = crate::delivery::tests::options().tls;
        let sink = Mqtt::new(options, Format::Eventsub, tls).unwrap();
        let error = std::io::Error::other("no hunter2hunter2, no opensesame99, no entry");
        let words = explain("localhost:1883", &sink.masking, &ConnectionError::Io(error), false);
        assert!(
            words.starts_with("cannot connect to localhost:1883: ") && words.ends_with("no entry"),
            "{words}"
        );
        assert!(!words.contains("hunter2") && !words.contains("opensesame"), "{words}");
    }

    #[test]
    fn topics_are_valid_whatever_an_event_holds() {
        for (text, topic) in [
            ("eventsub/stream.online/12", "eventsub/stream.online/12"),
            ("eventsub/eventsubd.gap/", "eventsub/eventsubd.gap/_"),
            ("a/+/#/b\nc", "a/_/_/b_c"),
            ("", "_"),
        ] {
            assert_eq!(valid_topic(text), topic);
        }
    }
}
