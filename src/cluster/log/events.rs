//! The stream of events: making it, publishing to it, and noticing when it has lost its newest messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, IntoHeaderValue, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OnceCell};

use super::super::nats::{ANSWER_LIMIT, ClusterError, Connection};
use super::message;
use super::opening::open_stream;
use super::publishing::publish;
use crate::model::cluster::ClusterOptions;
use crate::model::event::{Seq, StoredEvent};
use crate::model::text::chain;
use crate::model::time::Timestamp;

/// Time for which the first event waits for the connection.
const CONNECTING: Duration = Duration::from_secs(3);
/// Time for which the stream knows message ids.
const DUPLICATES: Duration = Duration::from_secs(30 * 60);
/// Value of `checked` while no connection has been checked against the stream.
const NOT_CHECKED: u64 = u64::MAX;

/// Limits of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Age from which messages are removed.
    pub retain: Duration,
    /// Size above which the oldest go, in bytes.
    pub max_size: u64,
}

/// An event that the log has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Number in the store of this host.
    pub seq: Seq,
    pub stored_at: Timestamp,
    pub message_id: String,
    /// Number in the stream.
    pub position: u64,
}

/// An event was not published, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// NATS is away, or the stream cannot be used.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the event is larger than `max_payload` of the NATS servers allows")]
    TooLarge,
    #[error("NATS did not acknowledge the event: {0}")]
    NotAcknowledged(String),
    /// Events that were acknowledged before are missing; see [`SharedLog::lost_tail`].
    #[error("the shared log has lost its newest events")]
    LostTail,
}

/// The shared log; cheap to clone. It connects with the first use.
#[derive(Clone, Debug)]
pub struct SharedLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ClusterOptions,
    tls: rustls::ClientConfig,
    limits: LogLimits,
    connection: OnceCell<Connection>,
    /// Number of the connection over which the stream was looked at.
    checked: AtomicU64,
    /// Held while it is looked at.
    checking: tokio::sync::Mutex<()>,
    tail: Mutex<Tail>,
    lost: Notify,
}

/// The end of the log, as far as this host has written it.
#[derive(Debug, Default)]
struct Tail {
    last: Option<Acknowledged>,
    is_lost: bool,
}

/// The name of the stream.
pub(super) fn stream_name(options: &ClusterOptions) -> String {
    format!("{}-events", options.name)
}

impl SharedLog {
    /// A log of which `last` is the last event that was acknowledged to this host.
    pub fn new(
        options: ClusterOptions,
        tls: rustls::ClientConfig,
        limits: LogLimits,
        last: Option<Acknowledged>,
    ) -> Self {
        let inner = Inner {
            options,
            tls,
            limits,
            connection: OnceCell::new(),
            checked: AtomicU64::new(NOT_CHECKED),
            checking: tokio::sync::Mutex::default(),
            tail: Mutex::new(Tail { last, is_lost: false }),
            lost: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Publishes an event; returns once the log has it.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn publish(&self, event: &StoredEvent) -> Result<(), LogError> {
        let published = self.publish_once(event).await;
        if let Some(connection) = self.inner.connection.get() {
            let is_answered = !matches!(published, Err(LogError::Cluster(_) | LogError::NotAcknowledged(_)));
            connection.record(is_answered).await;
        }
        published
    }

    async fn publish_once(&self, event: &StoredEvent) -> Result<(), LogError> {
        let context = self.context().await?;
        let before = self.tail().last.as_ref().map_or(0, |last| last.position);
        let message = || {
            let headers = message::headers(message::MESSAGE_ID, event, &self.inner.options.host);
            let headers =
                headers.map(|(name, value)| (HeaderName::from_static(name), value.into_header_value()));
            (self.subject(event), HeaderMap::from_iter(headers), event.event.payload.clone())
        };
        let ack = match publish(context, message).await {
            Ok(Ok(ack)) => ack,
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                return Err(LogError::TooLarge);
            }
            Ok(Err(error)) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.inner.checked.store(NOT_CHECKED, Ordering::Relaxed);
                }
                return Err(LogError::NotAcknowledged(self.said(&chain(&error)).await));
            }
            Err(_) => return Err(LogError::NotAcknowledged("no answer in time".to_owned())),
        };
        let mut tail = self.tail();
        // Numbers grow, so what had this one or a later one before the event was sent is gone.
        if !ack.duplicate && ack.sequence <= before {
            self.lose(&mut tail);
            return Err(LogError::LostTail);
        }
        if tail.last.as_ref().is_none_or(|last| last.position < ack.sequence) {
            tail.last = Some(Acknowledged {
                seq: event.seq,
                stored_at: event.stored_at,
                message_id: event.event.message_id.to_string(),
                position: ack.sequence,
            });
        }
        Ok(())
    }

    /// The subject of an event.
    pub fn subject(&self, event: &StoredEvent) -> String {
        message::subject(&self.inner.options.name, &event.event)
    }

    /// The last event that was acknowledged to this host.
    pub fn acknowledged(&self) -> Option<Acknowledged> {
        self.tail().last.clone()
    }

    /// Returns the last event that was acknowledged once it, or a part of those before it, is not in the log any more although
    /// it is not too old. Nothing is published until [`Self::went_back`].
    pub async fn lost_tail(&self) -> Acknowledged {
        loop {
            let lost = self.inner.lost.notified();
            {
                let tail = self.tail();
                if let (true, Some(last)) = (tail.is_lost, &tail.last) {
                    return last.clone();
                }
            }
            lost.await;
        }
    }

    /// The events before are about to be published again.
    pub fn went_back(&self) {
        *self.tail() = Tail::default();
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.inner.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, tail: &mut Tail) {
        tail.is_lost = true;
        self.inner.lost.notify_waiters();
    }

    /// A server's words, fit for a message.
    async fn said(&self, text: &str) -> String {
        match self.connection().await {
            Ok(connection) => connection.said(text),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn options(&self) -> &ClusterOptions {
        &self.inner.options
    }

    pub(super) fn tls(&self) -> rustls::ClientConfig {
        self.inner.tls.clone()
    }

    /// Makes the stream if there is none, over another connection.
    pub(super) async fn make(&self, connection: &Connection) -> Result<(), ClusterError> {
        self.open(connection, connection.context()).await.map(drop)
    }

    pub(super) fn limits(&self) -> LogLimits {
        self.inner.limits
    }

    /// The connection of the log, which comes up within a few seconds.
    pub(super) async fn connection(&self) -> Result<&Connection, ClusterError> {
        let Inner { options, tls, connection, .. } = &*self.inner;
        let start = async || {
            let connection = Connection::start(options, tls.clone(), Arc::default()).await?;
            let begun = Instant::now();
            while connection.problem().is_some() && begun.elapsed() < CONNECTING {
                tokio::time::sleep(CONNECTING / 60).await;
            }
            Ok(connection)
        };
        connection.get_or_try_init(start).await
    }

    /// The connection, once the stream was looked at over it.
    async fn context(&self) -> Result<&Context, LogError> {
        let connection = self.connection().await?;
        if let Some(away) = connection.problem() {
            return Err(away.into());
        }
        let context = connection.context();
        if self.inner.checked.load(Ordering::Relaxed) != connection.generation() {
            let _turn = self.inner.checking.lock().await;
            let generation = connection.generation();
            if self.inner.checked.load(Ordering::Relaxed) != generation {
                connection.check_version()?;
                let stream = self.open(connection, context).await?;
                self.check_tail(&stream).await?;
                self.inner.checked.store(generation, Ordering::Relaxed);
            }
        }
        if self.tail().is_lost { Err(LogError::LostTail) } else { Ok(context) }
    }

    /// Opens the stream, or makes it.
    async fn open(&self, connection: &Connection, context: &Context) -> Result<Stream, ClusterError> {
        let Inner { options, limits, .. } = &*self.inner;
        let wanted = stream::Config {
            name: stream_name(options),
            description: Some("eventsubd: the events of all hosts".to_owned()),
            subjects: vec![message::subjects(&options.name)],
            duplicate_window: DUPLICATES.min(limits.retain),
            max_age: limits.retain,
            max_bytes: i64::try_from(limits.max_size).unwrap_or(i64::MAX),
            num_replicas: connection.replicas(options),
            allow_direct: true,
            ..stream::Config::default()
        };
        open_stream(connection, context, wanted).await
    }

    /// Looks whether the log still has what it has acknowledged last.
    async fn check_tail(&self, stream: &Stream) -> Result<(), LogError> {
        let Some(last) = self.acknowledged() else { return Ok(()) };
        // Events older than the log keeps are not lost.
        if last.position < stream.cached_info().state.first_sequence {
            return Ok(());
        }
        let read = stream.get_raw_message(last.position);
        let is_there = match tokio::time::timeout(ANSWER_LIMIT, read).await {
            Ok(Ok(message)) => {
                message.headers.get(NATS_MESSAGE_ID).is_some_and(|id| id.as_str() == last.message_id)
            }
            Ok(Err(error)) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => false,
            Ok(Err(error)) => return Err(LogError::NotAcknowledged(self.said(&chain(&error)).await)),
            Err(_) => return Err(LogError::NotAcknowledged("no answer in time".to_owned())),
        };
        if !is_there {
            self.lose(&mut self.tail());
        }
        Ok(())
    }
}
