//! Reading the shared log.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};

use super::super::nats::{ANSWER_LIMIT, ClusterError, Connection};
use super::super::place::Mark;
use super::batches::{self, ReadError, Request};
use super::events::stream_name;
use super::message::{self, Unreadable};
use crate::model::cluster::ClusterOptions;
use crate::model::event::{Seq, StoredEvent};
use crate::model::text::chain;
use crate::model::time::Timestamp;

/// Header with the time at which the log got a message.
const PUBLISHED: &str = "Nats-Time-Stamp";

/// A time of the servers in milliseconds since 1970.
fn millis(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// Events of the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// Oldest first; their numbers are those of the log.
    pub events: Vec<StoredEvent>,
    /// The last message that was read, whether it is an event or not.
    pub read: Option<Seq>,
    /// Messages that are no events.
    pub unreadable: Vec<(Seq, Unreadable)>,
    /// When the log got each event, in milliseconds since 1970 by the servers' clock.
    pub published: Vec<u64>,
}

/// The shared log, for reading.
#[derive(Debug)]
pub struct LogReader {
    connection: Connection,
    stream: Stream,
    name: String,
}

impl LogReader {
    /// Connects once; makes nothing.
    ///
    /// # Errors
    /// No server answers, it is too old, or there is no log.
    pub async fn open(options: &ClusterOptions, tls: rustls::ClientConfig) -> Result<Self, ClusterError> {
        let connection = Connection::connect(options, tls, Arc::default(), |options| options).await?;
        connection.check_version()?;
        Self::over(connection, options).await
    }

    /// Reads over a connection that exists.
    pub(super) async fn over(connection: Connection, options: &ClusterOptions) -> Result<Self, ClusterError> {
        let name = stream_name(options);
        let stream = connection.context().get_stream(&name).await.map_err(|error| ClusterError::Stream {
            stream: name.clone(),
            why: connection.said(&chain(&error)),
        })?;
        Ok(Self { connection, stream, name })
    }

    /// The stream as it was when this was made.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The number of the newest event.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn newest(&self) -> Result<Seq, ReadError> {
        self.bounds().await.map(|(_, last)| last)
    }

    /// The numbers of the oldest and of the newest event.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn bounds(&self) -> Result<(Seq, Seq), ReadError> {
        match tokio::time::timeout(ANSWER_LIMIT, self.stream.get_info()).await {
            Ok(Ok(info)) => Ok((Seq(info.state.first_sequence), Seq(info.state.last_sequence))),
            Ok(Err(error)) => Err(self.refused(&chain(&error))),
            Err(_) => Err(ReadError::NoAnswer),
        }
    }

    /// Whether the log still has this event.
    ///
    /// # Errors
    /// NATS does not answer.
    pub(super) async fn has(&self, mark: &Mark) -> Result<bool, ReadError> {
        match tokio::time::timeout(ANSWER_LIMIT, self.stream.get_raw_message(mark.seq.0)).await {
            Ok(Ok(message)) => {
                Ok(message.headers.get(NATS_MESSAGE_ID).is_some_and(|id| id.as_str() == mark.message_id))
            }
            Ok(Err(error)) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(false),
            Ok(Err(error)) => Err(self.refused(&chain(&error))),
            Err(_) => Err(ReadError::NoAnswer),
        }
    }

    /// The events after this one, at most `limit`.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn read_after(&self, after: Seq, limit: usize) -> Result<LogBatch, ReadError> {
        let mut batch = LogBatch::default();
        for (position, message) in self.ask(&Request::after(after, ">", limit)).await? {
            let headers = message.headers.unwrap_or_default();
            let header =
                |name| headers.get(HeaderName::from_static(name)).map(async_nats::HeaderValue::as_str);
            batch.read = Some(position);
            match message::read(position.0, message::MESSAGE_ID, header, message.payload) {
                Ok(event) => {
                    batch.published.push(header(PUBLISHED).and_then(millis).unwrap_or(0));
                    batch.events.push(event);
                }
                Err(error) => batch.unreadable.push((position, error)),
            }
        }
        Ok(batch)
    }

    /// The number of the last event that came before this time.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn before(&self, time: Timestamp) -> Result<Seq, ReadError> {
        match self.ask(&Request::since(time)).await?.first() {
            Some((first, _)) => Ok(Seq(first.0.saturating_sub(1))),
            None => self.newest().await,
        }
    }

    /// Like [`Self::before`], for a time by the servers' clock in milliseconds since 1970.
    pub(super) async fn published_before(&self, millis: u64) -> Result<Seq, ReadError> {
        self.before(Timestamp::from_unix_millis(millis)).await
    }

    /// The number of the last event that came `age` ago or earlier, by the servers' clock.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn before_age(&self, age: Duration) -> Result<Seq, ReadError> {
        let info: serde_json::Value = self
            .connection
            .context()
            .request(format!("STREAM.INFO.{}", self.name), &())
            .await
            .map_err(|error| self.refused(&chain(&error)))?;
        let now = info["ts"].as_str().and_then(millis).ok_or(ReadError::NoTime)?;
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.published_before(now.saturating_sub(age)).await
    }

    fn refused(&self, text: &str) -> ReadError {
        batches::refused(&self.connection, text)
    }

    async fn ask(&self, request: &Request) -> Result<Vec<(Seq, async_nats::Message)>, ReadError> {
        Ok(batches::ask(&self.connection, &self.name, request).await?.messages)
    }
}
