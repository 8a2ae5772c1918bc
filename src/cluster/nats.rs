//! The bucket in NATS JetStream: one connection, and the few operations that the cluster needs.
//!
//! A key is written with a plain publish, as the library's own update of a key drops its time to live.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{Context, GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::kv::{self, Operation, Store, Watch};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, LastRawMessageErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{
    Client, ClientError, ConnectOptions, Event, HeaderMap, ReconnectToServer, Server, ServerAddr,
    ServerError, ServerInfo, header,
};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use super::era::{Look, first_revision};
use super::health::Health;
use super::lease::Answer;
use crate::auth::{NatsServers, NatsServersError, explain_nats, nats_masking};
use crate::model::cluster::ClusterOptions;
use crate::model::masking::Masking;
use crate::model::text::one_line;
use crate::store::since_boot;

/// The oldest server: times to live of single keys, and what later steps need.
const OLDEST: (u32, u32) = (2, 12);
/// A frozen server is noticed after two of these.
const PING: Duration = Duration::from_secs(1);
/// Time limit of connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit of one request.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long the server keeps the marker of a key that has ended.
const MARKERS: Duration = Duration::from_secs(60);
/// The longest text of a server in a message.
const LONGEST: usize = 300;

const KV_OPERATION: &str = "KV-Operation";
const MARKER_REASON: &str = "Nats-Marker-Reason";

/// Why the cluster cannot work with this NATS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The settings cannot be used.
    #[error("`cluster.nats` or `cluster.credentials`: {0}")]
    Settings(NatsServersError),
    #[error("cannot connect to NATS at {servers}: {why}")]
    Away { servers: String, why: String },
    /// The server is too old.
    #[error("the NATS server at {servers} has version {version}, and `[cluster]` needs 2.12 or newer")]
    Old { servers: String, version: String },
    /// Somebody has deleted the bucket.
    #[error("the bucket `{bucket}` was deleted, or made again")]
    Gone { bucket: String },
    /// The bucket cannot be made or used.
    #[error("the bucket `{bucket}` cannot be used: {why}")]
    Bucket { bucket: String, why: String },
    /// The stream of the shared log cannot be made or used.
    #[error("the stream `{stream}` of the shared log cannot be used: {why}")]
    Stream { stream: String, why: String },
}

impl ClusterError {
    /// Advice for the operator.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Settings(_) => "correct it, then restart the daemon",
            Self::Away { .. } => {
                "it connects by itself once NATS is there; look at `systemctl status nats-server` on its hosts"
            }
            Self::Old { .. } => {
                "distributions have older ones (Debian 12: 2.9); take the .deb or the container image of \
                 https://github.com/nats-io/nats-server/releases"
            }
            Self::Gone { .. } => {
                "nothing is lost: the hosts make it again from what they remember, and one leads after a few seconds"
            }
            Self::Bucket { .. } | Self::Stream { .. } => {
                "JetStream must be on (`jetstream {}` in the server's configuration), and the user must be allowed to use \
                 it; docs/several-hosts.md lists the subjects"
            }
        }
    }
}

/// Properties of the NATS server that a cluster would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsReport {
    /// Addresses, for people.
    pub servers: String,
    pub version: String,
    /// Copies of the bucket; `None` if there is no bucket yet.
    pub replicas: Option<usize>,
    /// The server's clock less ours, in milliseconds; `None` if it was not told.
    pub clock_ahead: Option<i64>,
}

/// State of the connection.
#[derive(Debug)]
struct Link {
    masking: Masking,
    problem: Mutex<Option<String>>,
    /// Whether the first attempt to connect is over.
    is_tried: watch::Sender<bool>,
    changed: Arc<Notify>,
    health: Mutex<Health>,
    /// Whether the next attempt to connect goes to another server.
    leaves: AtomicBool,
    /// Servers that were chosen since one has answered.
    chosen: Mutex<Vec<ServerAddr>>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Chooses another server than the one that does not answer; `None` leaves the choice to the library.
    fn choose(&self, servers: &[Server], left: &ServerInfo) -> Option<ReconnectToServer> {
        if !self.leaves.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut chosen = lock(&self.chosen);
        // A server that listens on all addresses does not say which one it is: then its turn comes, and passes.
        let others = servers
            .iter()
            .filter(|server| (server.addr.host(), server.addr.port()) != (left.host.as_str(), left.port));
        let turn = |server: &&Server| {
            let times = chosen.iter().filter(|addr| **addr == server.addr).count();
            (times, server.failed_attempts)
        };
        let addr = others.min_by_key(turn)?.addr.clone();
        chosen.push(addr.clone());
        Some(ReconnectToServer { addr, delay: Some(Duration::ZERO) })
    }

    fn handle(&self, event: &Event) {
        let problem = match event {
            Event::Connected => None,
            Event::Disconnected => Some("the connection is lost".to_owned()),
            Event::ServerError(ServerError::AuthorizationViolation) => {
                Some("it refuses the user, the password or the credentials file".to_owned())
            }
            Event::ServerError(ServerError::Other(text)) => Some(self.said(text)),
            Event::ClientError(ClientError::Other(text)) => Some(self.said(&explain_nats(text))),
            _ => return,
        };
        *lock(&self.problem) = problem;
        self.is_tried.send_replace(true);
        self.changed.notify_one();
    }

    /// A server's words, fit for a message.
    fn said(&self, text: &str) -> String {
        one_line(self.masking.hide(text).trim(), LONGEST)
    }

    fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }
}

/// A connection that keeps itself up.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    client: Client,
    /// Making one starts a task, so there is one for the connection.
    context: Context,
    link: Arc<Link>,
    servers: String,
    count: usize,
}

impl Connection {
    /// Begins to connect. `changed` is notified when the connection comes or goes.
    pub(super) async fn start(
        options: &ClusterOptions,
        tls: rustls::ClientConfig,
        changed: Arc<Notify>,
    ) -> Result<Self, ClusterError> {
        Self::connect(options, tls, changed, ConnectOptions::retry_on_initial_connect).await
    }

    /// Connects; `tune` says whether that is tried again.
    pub(super) async fn connect(
        options: &ClusterOptions,
        tls: rustls::ClientConfig,
        changed: Arc<Notify>,
        tune: fn(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, ClusterError> {
        let credentials = options.credentials.as_ref();
        let servers = NatsServers::new(&options.nats, credentials).map_err(ClusterError::Settings)?;
        let masking = nats_masking(&options.nats, credentials);
        let link = Arc::new(Link {
            masking,
            problem: Mutex::default(),
            is_tried: watch::Sender::new(false),
            changed,
            health: Mutex::default(),
            leaves: AtomicBool::new(false),
            chosen: Mutex::default(),
        });
        let choosing = Arc::clone(&link);
        let events = Arc::clone(&link);
        let connect = ConnectOptions::new()
            .name(format!("eventsubd {}", options.host))
            .ping_interval(PING)
            .connection_timeout(CONNECT_LIMIT)
            .reconnect_delay_callback(|attempts| RECONNECT.mul_f64((attempts as f64 / 10.0).min(1.0)))
            .tls_client_config(tls)
            .reconnect_to_server_callback(move |servers, left| {
                std::future::ready(choosing.choose(&servers, &left))
            })
            .event_callback(move |event| {
                events.handle(&event);
                async {}
            });
        let connect = tune(servers.open(connect).map_err(ClusterError::Settings)?);
        let names = servers.names();
        let client = connect.connect(servers.addresses().to_vec()).await.map_err(|error| {
            ClusterError::Away { servers: names.clone(), why: link.said(&explain_nats(&error.to_string())) }
        })?;
        let mut context = async_nats::jetstream::new(client.clone());
        context.set_timeout(ANSWER_LIMIT);
        Ok(Self { client, context, link, servers: names, count: servers.addresses().len() })
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until the first attempt to connect is over, but not for longer than it may take.
    pub(super) async fn tried(&self) {
        let mut is_tried = self.link.is_tried.subscribe();
        let _ = tokio::time::timeout(CONNECT_LIMIT, is_tried.wait_for(|is_tried| *is_tried)).await;
    }

    /// Why NATS does not answer; `None` while it is connected.
    pub(super) fn problem(&self) -> Option<ClusterError> {
        if self.client.connection_state() == State::Connected {
            return None;
        }
        let why = self.link.problem().unwrap_or_else(|| "no answer yet".to_owned());
        Some(ClusterError::Away { servers: self.servers.clone(), why })
    }

    /// Version of the server, while one is connected.
    pub(super) fn version(&self) -> Option<String> {
        let version = self.client.server_info().version;
        (!version.is_empty()).then_some(version)
    }

    /// Number of this connection; another one after it was lost and is there again.
    pub(super) fn generation(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Takes note of a request that was answered, or not, and connects to another server when it is time for that.
    pub(super) async fn record(&self, is_answered: bool) {
        if is_answered {
            lock(&self.link.chosen).clear();
            return lock(&self.link.health).handle_answer();
        }
        if self.problem().is_some() || self.server_count() < 2 {
            return;
        }
        let now = Duration::from_millis(since_boot());
        if lock(&self.link.health).handle_failure(self.generation(), now) {
            warn!("the NATS server does not answer requests; connecting to another one");
            self.link.leaves.store(true, Ordering::Relaxed);
            // Fails only once the connection has ended for good.
            let _ = self.client.force_reconnect().await;
        }
    }

    /// Number of servers that are known.
    fn server_count(&self) -> usize {
        self.count.max(self.client.server_info().connect_urls.len())
    }

    /// For requests to JetStream.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// A server's words, fit for a message.
    pub(super) fn said(&self, text: &str) -> String {
        self.link.said(text)
    }

    pub(super) fn check_version(&self) -> Result<String, ClusterError> {
        let version = self.version().unwrap_or_default();
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found < OLDEST {
            let version = one_line(&version, LONGEST);
            return Err(ClusterError::Old { servers: self.servers.clone(), version });
        }
        Ok(version)
    }

    /// Copies of what is made.
    pub(super) fn replicas(&self, options: &ClusterOptions) -> usize {
        options.replicas.unwrap_or(if self.server_count() >= 3 { 3 } else { 1 })
    }
}

/// One change of a key.
#[derive(Clone, Debug)]
pub(super) struct KeyChange {
    pub(super) key: String,
    pub(super) revision: u64,
    /// `None` means that the key has ended.
    pub(super) value: Option<Bytes>,
    /// When the servers had it, by their clock: milliseconds since 1970.
    pub(super) date: u64,
    /// Whether all that there was before has been told.
    pub(super) is_current: bool,
}

/// A key as the leader of the stream has it: the revision, and the value while there is one.
pub(super) type KeyState = (u64, Option<Bytes>);

/// The bucket of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    connection: Connection,
    store: Store,
    made: u64,
    age: Duration,
}

/// The stream of a new bucket, as other programs expect one of keys and values.
fn config(options: &ClusterOptions, replicas: usize, newest: u64) -> stream::Config {
    let wall = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    stream::Config {
        name: format!("KV_{}", options.name),
        description: Some("eventsubd: leader, hosts and what a leader remembers".to_owned()),
        subjects: vec![format!("$KV.{}.>", options.name)],
        max_messages_per_subject: 1,
        num_replicas: replicas,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(MARKERS),
        first_sequence: Some(first_revision(newest, wall)),
        ..stream::Config::default()
    }
}

/// When the bucket was made, and the clock of the stream's leader; both in milliseconds since 1970.
async fn times(context: &Context, bucket: &str) -> Option<(u64, u64)> {
    let info: serde_json::Value = context.request(format!("STREAM.INFO.KV_{bucket}"), &()).await.ok()?;
    let time = |name: &str| {
        let time: jiff::Timestamp = info[name].as_str()?.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok()
    };
    Some((time("created")?, time("ts")?))
}

async fn look(context: &Context, bucket: &str) -> Look {
    match context.get_stream(format!("KV_{bucket}")).await {
        Ok(stream) => {
            let made = stream.cached_info().created.unix_timestamp_nanos() / 1_000_000;
            u64::try_from(made).map_or(Look::Unknown, Look::There)
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Look::Gone
            }
            _ => Look::Unknown,
        },
    }
}

impl Bucket {
    /// Opens the bucket, or makes it. The server is checked before. `newest` is the newest revision that is known of an
    /// earlier bucket.
    pub(super) async fn open(
        connection: Connection,
        options: ClusterOptions,
        newest: u64,
    ) -> Result<Self, ClusterError> {
        if let Some(away) = connection.problem() {
            return Err(away);
        }
        connection.check_version()?;
        let opened = Self::open_checked(&connection, &options, newest).await;
        connection.record(opened.is_ok()).await;
        opened
    }

    async fn open_checked(
        connection: &Connection,
        options: &ClusterOptions,
        newest: u64,
    ) -> Result<Self, ClusterError> {
        let context = connection.context();
        let failed = |why: String| ClusterError::Bucket {
            bucket: options.name.clone(),
            why: connection.link.said(&why),
        };
        let mut unmade = None;
        if look(context, &options.name).await == Look::Gone {
            let config = config(options, connection.replicas(options), newest);
            unmade = context.create_stream(config).await.err().map(|error| chain(&error));
        }
        // Another host may have made it meanwhile.
        let store = context.get_key_value(&options.name).await;
        let store = store.map_err(|error| failed(unmade.unwrap_or_else(|| chain(&error))))?;
        let config = &store.stream.cached_info().config;
        if !config.allow_message_ttl || config.subject_delete_marker_ttl.is_none() {
            return Err(failed("it was made by another program; choose another `cluster.name`".to_owned()));
        }
        let times = times(context, &options.name).await;
        let (made, now) = times.ok_or_else(|| failed("it does not say when it was made".to_owned()))?;
        let age = Duration::from_millis(now.saturating_sub(made));
        Ok(Self { connection: connection.clone(), store, made, age })
    }

    /// When it was made, in milliseconds since 1970, and how long ago that was when it was opened; both by the servers'
    /// clock.
    pub(super) fn made(&self) -> (u64, Duration) {
        (self.made, self.age)
    }

    /// Looks whether the bucket is still there.
    pub(super) async fn look(&self) -> Look {
        look(self.connection.context(), &self.store.name).await
    }

    /// Deletes the bucket, if it is still there.
    pub(super) async fn remove(&self) -> Look {
        let found = self.look().await;
        if found != Look::There(self.made) {
            return found;
        }
        match self.connection.context().delete_stream(format!("KV_{}", self.store.name)).await {
            Ok(_) => Look::Gone,
            Err(_) => self.look().await,
        }
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.store.name)
    }

    /// Writes a key if its last revision is the expected one. With a time to live it ends after that.
    pub(super) async fn put(
        &self,
        key: String,
        value: Bytes,
        ttl: Option<Duration>,
        expected: u64,
    ) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", ttl.as_secs()).as_str());
        }
        self.publish(&key, headers, value, expected).await
    }

    /// Writes a key that nobody else writes, with a time to live; returns whether that is acknowledged.
    pub(super) async fn put_own(&self, key: String, value: Bytes, ttl: Duration) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", ttl.as_secs()).as_str());
        matches!(self.send(&key, headers, value).await, Answer::Done(_))
    }

    /// Ends a key if its last revision is the expected one.
    pub(super) async fn purge(&self, key: String, expected: u64) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(KV_OPERATION, "PURGE");
        headers.insert(header::NATS_ROLLUP, "sub");
        headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", MARKERS.as_secs()).as_str());
        self.publish(&key, headers, Bytes::new(), expected).await
    }

    async fn publish(&self, key: &str, mut headers: HeaderMap, value: Bytes, expected: u64) -> Answer {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
        self.send(key, headers, value).await
    }

    async fn send(&self, key: &str, headers: HeaderMap, value: Bytes) -> Answer {
        let context = self.connection.context();
        let sent = async { context.publish_with_headers(self.subject(key), headers, value).await?.await };
        let answer = match tokio::time::timeout(ANSWER_LIMIT, sent).await {
            Ok(Ok(ack)) => Answer::Done(ack.sequence),
            Ok(Err(error)) if is_overtaken(&error) => Answer::Refused,
            Ok(Err(error)) => {
                debug!(key, %error, "a key could not be written");
                Answer::Unknown
            }
            Err(_) => Answer::Unknown,
        };
        self.connection.record(answer != Answer::Unknown).await;
        answer
    }

    /// Reads a key from the leader of the stream; `None` if it does not answer.
    pub(super) async fn read(&self, key: &str) -> Option<KeyState> {
        let subject = self.subject(key);
        let read = self.store.stream.get_last_raw_message_by_subject(&subject);
        match tokio::time::timeout(ANSWER_LIMIT, read).await.ok()? {
            Ok(message) => {
                let is_end = is_end(&message);
                Some((message.sequence, (!is_end).then_some(message.payload)))
            }
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Some((0, None)),
            Err(_) => None,
        }
    }

    /// Every change of a key, beginning with the last one of each.
    pub(super) async fn watch(&self) -> Option<Watch> {
        let watch = self.store.watch_with_history(">");
        tokio::time::timeout(ANSWER_LIMIT, watch).await.ok()?.ok()
    }
}

/// The code of JetStream in an error of a write.
pub(super) fn code_of(error: &PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?.downcast_ref::<jetstream::Error>()?;
    Some(source.error_code())
}

/// Whether a write was refused as the last message of its subject is not the expected one, or as another message is just
/// being written to it.
pub(super) fn is_overtaken(error: &PublishError) -> bool {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => true,
        PublishErrorKind::Other => code_of(error) == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT),
        _ => false,
    }
}

fn is_end(message: &StreamMessage) -> bool {
    let operation = message.headers.get(KV_OPERATION).map(header::HeaderValue::as_str);
    matches!(operation, Some("DEL" | "PURGE")) || message.headers.get(MARKER_REASON).is_some()
}

/// A change as the cluster takes it.
pub(super) fn change(entry: kv::Entry) -> KeyChange {
    KeyChange {
        key: entry.key,
        revision: entry.revision,
        value: (entry.operation == Operation::Put).then_some(entry.value),
        date: u64::try_from(entry.created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
        is_current: entry.seen_current,
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::model::text::chain(error)
}

/// Connects once and looks; makes and changes nothing.
///
/// # Errors
/// No server answers, it is too old, or JetStream cannot be used.
pub async fn examine_nats(
    options: &ClusterOptions,
    tls: rustls::ClientConfig,
) -> Result<NatsReport, ClusterError> {
    let connection = Connection::connect(options, tls, Arc::default(), |options| options).await?;
    let version = connection.check_version()?;
    let failed =
        |why: String| ClusterError::Bucket { bucket: options.name.clone(), why: connection.link.said(&why) };
    let context = connection.context();
    context.query_account().await.map_err(|error| failed(chain(&error)))?;
    let replicas = match context.get_stream(format!("KV_{}", options.name)).await {
        Ok(stream) => Some(stream.cached_info().config.num_replicas),
        Err(_) => None,
    };
    let clock_ahead = clock_ahead(context, &options.name).await;
    Ok(NatsReport { servers: connection.servers.clone(), version, replicas, clock_ahead })
}

/// The servers' clock less ours, in milliseconds, from an answer about the bucket.
async fn clock_ahead(context: &Context, bucket: &str) -> Option<i64> {
    let before = std::time::SystemTime::now();
    let (_, theirs) = times(context, bucket).await?;
    let after = std::time::SystemTime::now();
    let ours = before + after.duration_since(before).ok()? / 2;
    let ours = jiff::Timestamp::try_from(ours).ok()?;
    Some(i64::try_from(theirs).ok()? - ours.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_another_one_precedes_is_refused_and_not_without_answer() {
        let said = |code: u64| {
            let error =
                serde_json::json!({ "code": 400, "err_code": code, "description": "wrong last sequence" });
            let error: jetstream::Error = serde_json::from_value(error).unwrap();
            PublishError::with_source(PublishErrorKind::Other, error)
        };
        assert!(is_overtaken(&PublishErrorKind::WrongLastSequence.into()));
        assert!(is_overtaken(&said(10164)), "another write of that key is under way");
        assert!(!is_overtaken(&said(10077)), "no room");
        assert!(!is_overtaken(&PublishErrorKind::TimedOut.into()));
    }
}
