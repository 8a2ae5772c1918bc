//! Reading a stream a batch of messages at a time (NATS: ADR-31, "batched requests"). Any copy of the stream may answer.

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;

use super::super::nats::{ANSWER_LIMIT, Connection};
use super::publishing::once_known;
use crate::model::event::Seq;
use crate::model::text::chain;
use crate::model::time::Timestamp;

/// About the most bytes of one batch.
const BATCH_BYTES: usize = 4 << 20;
/// Headers with the number of a message, and with how many more there are that match.
const POSITION: &str = "Nats-Sequence";
const LEFT: &str = "Nats-Num-Pending";
/// The server's answer after the last message of a batch, and when there is none.
const END: u16 = 204;
const NONE: u16 = 404;
/// The server's answer if no server that it knows of has the stream.
const NOBODY: u16 = 503;

/// The stream cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("NATS did not answer in time")]
    NoAnswer,
    #[error("NATS answered: {0}")]
    Refused(String),
    #[error("no NATS server has the stream: it was deleted, or those that have it are away")]
    NoStream,
    #[error("NATS does not say what time it is")]
    NoTime,
}

/// A request for the messages from a number or from a time on, or for the last one of each of some subjects.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    multi_last: Vec<String>,
    batch: usize,
    max_bytes: usize,
}

impl Request {
    /// At most `batch` messages after this one, whose subjects match.
    pub(super) fn after(position: Seq, subjects: impl Into<String>, batch: usize) -> Self {
        let seq = Some(position.0.saturating_add(1));
        let next_by_subj = Some(subjects.into());
        Self { seq, start_time: None, next_by_subj, multi_last: Vec::new(), batch, max_bytes: BATCH_BYTES }
    }

    /// The last message of each of these subjects, of which there may be 1,024.
    pub(super) fn last_of(subjects: Vec<String>) -> Self {
        let batch = subjects.len();
        Self {
            seq: None,
            start_time: None,
            next_by_subj: None,
            multi_last: subjects,
            batch,
            max_bytes: BATCH_BYTES,
        }
    }

    /// The first message that came at this time or later.
    pub(super) fn since(time: Timestamp) -> Self {
        let start_time = Some(time.to_string());
        Self { seq: None, start_time, ..Self::after(Seq(0), ">", 1) }
    }
}

/// Messages of a stream.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each with its number, ascending.
    pub(super) messages: Vec<(Seq, Message)>,
    /// Messages that match after the last of these.
    pub(super) left: u64,
}

/// Asks for messages of a stream.
pub(super) async fn ask(
    connection: &Connection,
    stream: &str,
    request: &Request,
) -> Result<Batch, ReadError> {
    let is_unknown = |error: &ReadError| *error == ReadError::NoStream;
    once_known(|| ask_once(connection, stream, request), is_unknown).await
}

async fn ask_once(connection: &Connection, stream: &str, request: &Request) -> Result<Batch, ReadError> {
    let mut answers = send(connection, stream, request).await?;
    let (mut batch, mut bytes, mut last) = (Batch::default(), 0, 0);
    while batch.messages.len() < request.batch && bytes < 2 * BATCH_BYTES {
        let answer = tokio::time::timeout(ANSWER_LIMIT, answers.next()).await;
        let Ok(Some(message)) = answer else { return Err(ReadError::NoAnswer) };
        match message.status.map(|status| status.as_u16()) {
            None => {}
            Some(END | NONE) => break,
            Some(NOBODY) => return Err(ReadError::NoStream),
            Some(status) => {
                let text = message.description.as_deref().unwrap_or("no reason given");
                return Err(refused(connection, &format!("{status} {text}")));
            }
        }
        let number = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
        // A number that does not grow would have the caller read for ever.
        let Some(position) = number(POSITION).filter(|position| *position > last) else {
            return Err(ReadError::Refused("a message without its number".to_owned()));
        };
        batch.left = number(LEFT).unwrap_or(0);
        last = position;
        bytes += message.length;
        batch.messages.push((Seq(position), message));
    }
    Ok(batch)
}

pub(super) fn refused(connection: &Connection, text: &str) -> ReadError {
    ReadError::Refused(connection.said(text))
}

async fn send(connection: &Connection, stream: &str, request: &Request) -> Result<Subscriber, ReadError> {
    let client = connection.client();
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await;
    let answers = answers.map_err(|error| refused(connection, &chain(&error)))?;
    let body = serde_json::to_vec(request).map(Bytes::from).unwrap_or_default();
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let sent = client.publish_with_reply(subject, inbox, body).await;
    sent.map_err(|error| refused(connection, &chain(&error)))?;
    Ok(answers)
}
