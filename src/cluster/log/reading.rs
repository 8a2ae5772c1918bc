//! Reading the shared log, a batch at a time (NATS: ADR-31, "batched requests").

use std::sync::Arc;

use async_nats::jetstream::stream::Stream;
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;

use super::super::nats::{ANSWER_LIMIT, ClusterError, Connection};
use super::events::stream_name;
use super::message::{self, Unreadable};
use crate::model::cluster::ClusterOptions;
use crate::model::event::{Seq, StoredEvent};
use crate::model::text::chain;
use crate::model::time::Timestamp;

/// About the most bytes of one batch.
const BATCH_BYTES: usize = 4 << 20;
/// Header with the number of a message.
const POSITION: &str = "Nats-Sequence";
/// The server's answer after the last message of a batch, and when there is none.
const END: u16 = 204;
const NONE: u16 = 404;

/// The log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("NATS did not answer in time")]
    NoAnswer,
    #[error("NATS answered: {0}")]
    Refused(String),
}

/// A request for the messages from a number or from a time on.
#[derive(Debug, Serialize)]
struct Request {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    next_by_subj: &'static str,
    batch: usize,
    max_bytes: usize,
}

impl Request {
    fn after(position: Seq, batch: usize) -> Self {
        let seq = Some(position.0.saturating_add(1));
        Self { seq, start_time: None, next_by_subj: ">", batch, max_bytes: BATCH_BYTES }
    }
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
        let name = stream_name(options);
        let stream = connection.context().get_stream(&name).await.map_err(|error| ClusterError::Stream {
            stream: name.clone(),
            why: connection.said(&chain(&error)),
        })?;
        Ok(Self { connection, stream, name })
    }

    /// The number of the newest event.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn newest(&self) -> Result<Seq, ReadError> {
        let info = self.stream.get_info().await;
        info.map(|info| Seq(info.state.last_sequence)).map_err(|error| self.refused(&chain(&error)))
    }

    /// The events after this one, at most `limit`.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn read_after(&self, after: Seq, limit: usize) -> Result<LogBatch, ReadError> {
        let mut batch = LogBatch::default();
        for (position, message) in self.ask(&Request::after(after, limit)).await? {
            let headers = message.headers.unwrap_or_default();
            let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
            batch.read = Some(position);
            match message::read(position.0, header, message.payload) {
                Ok(event) => batch.events.push(event),
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
        let start_time = Some(time.to_string());
        let request = Request { seq: None, start_time, ..Request::after(Seq(0), 1) };
        match self.ask(&request).await?.first() {
            Some((first, _)) => Ok(Seq(first.0.saturating_sub(1))),
            None => self.newest().await,
        }
    }

    fn refused(&self, text: &str) -> ReadError {
        ReadError::Refused(self.connection.said(text))
    }

    /// Asks for messages; each comes with its number, ascending.
    async fn ask(&self, request: &Request) -> Result<Vec<(Seq, Message)>, ReadError> {
        let client = self.connection.client();
        let mut answers = self.send(&client, request).await?;
        let (mut found, mut bytes, mut last) = (Vec::new(), 0, 0);
        while found.len() < request.batch && bytes < 2 * BATCH_BYTES {
            let answer = tokio::time::timeout(ANSWER_LIMIT, answers.next()).await;
            let Ok(Some(message)) = answer else { return Err(ReadError::NoAnswer) };
            match message.status.map(|status| status.as_u16()) {
                None => {}
                Some(END | NONE) => break,
                Some(status) => {
                    let text = message.description.as_deref().unwrap_or("no reason given");
                    return Err(self.refused(&format!("{status} {text}")));
                }
            }
            let position = message.headers.as_ref().and_then(|headers| headers.get(POSITION));
            let position = position.and_then(|position| position.as_str().parse().ok());
            // A number that does not grow would have the caller read for ever.
            let Some(position) = position.filter(|position| *position > last) else {
                return Err(ReadError::Refused("a message without its number".to_owned()));
            };
            last = position;
            bytes += message.length;
            found.push((Seq(position), message));
        }
        Ok(found)
    }

    async fn send(&self, client: &Client, request: &Request) -> Result<Subscriber, ReadError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await;
        let answers = answers.map_err(|error| self.refused(&chain(&error)))?;
        let body = serde_json::to_vec(request).map(Bytes::from).unwrap_or_default();
        let subject = format!("$JS.API.DIRECT.GET.{}", self.name);
        let sent = client.publish_with_reply(subject, inbox, body).await;
        sent.map_err(|error| self.refused(&chain(&error)))?;
        Ok(answers)
    }
}
