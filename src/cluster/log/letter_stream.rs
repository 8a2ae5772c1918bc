//! The stream of dead letters over one connection: single letters, and pages of them.
//!
//! Reads may be answered by a copy that is behind, so each page goes on until the newest letter that the leader of the stream
//! knows was seen.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, LastRawMessageErrorKind, RawMessageError, Stream};
use globset::{Glob, GlobMatcher};
use tracing::warn;

use super::super::nats::{ANSWER_LIMIT, ClusterError, Connection, code_of, is_overtaken};
use super::batches::{self, ReadError, Request};
use super::events::{LogError, LogLimits};
use super::letter;
use super::message::Unreadable;
use super::opening::open_stream;
use super::publishing;
use crate::model::cluster::ClusterOptions;
use crate::model::event::Seq;
use crate::model::sink::SinkName;
use crate::model::text::{chain, size};
use crate::store::{DeadLetter, DeadLetterFilter, LetterPage};

/// Size of the stream: this part of the limit of the store.
const PART: u64 = 4;
/// One part in so many is not for new letters: one that changes needs room for both.
const RESERVE: u64 = 8;
/// Time for which the size of the stream is not asked again while there is much room.
const SIZE_AGE: Duration = Duration::from_secs(1);
/// Bytes of a message beside payload, headers and subject, and of a header beside name and value.
const OVERHEAD: usize = 50;
/// Messages of one batch, and about the most bytes that one page reads.
pub(super) const BATCH: usize = 500;
const PAGE_BYTES: usize = 8 << 20;
/// Time for which a copy of the stream may be behind, and the pause between two looks.
const BEHIND: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// Numbers of letters begin here or later, and those of letters in the store of a host are smaller.
const FIRST: u64 = 1_000_000_000;
/// Numbers between those of an earlier stream, as far as they are known, and of a new one.
const AHEAD: u64 = 1_000;
/// A refusal for want of room, as the servers put it.
const NO_ROOM: &str = "maximum bytes";

/// Dead letters could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LettersError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Refused, and nothing was changed.
    #[error(
        "the dead letters that the hosts share are full ({0}, a quarter of `store.max_size`): look at `eventsubd \
         dead-letters list`, then `eventsubd dead-letters replay` or `eventsubd dead-letters drop`"
    )]
    Full(String),
    #[error(
        "a dead letter is larger than `max_payload` allows; raise it in the configuration of the NATS servers"
    )]
    TooLarge,
    #[error("`{0}` is not a pattern of types")]
    Pattern(String),
}

impl From<ClusterError> for LettersError {
    fn from(error: ClusterError) -> Self {
        Self::Log(LogError::Cluster(error))
    }
}

/// The end of an attempt to write.
pub(super) enum Written {
    Done,
    /// The subject has another message than the expected one.
    Refused,
}

/// Whether this is the number of a letter that all hosts share, not of one in the store of a host.
pub fn is_shared(id: i64) -> bool {
    position(id) >= FIRST
}

/// The letters of a filter.
pub(super) struct Choice<'a> {
    filter: &'a DeadLetterFilter,
    types: Option<GlobMatcher>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(filter: &'a DeadLetterFilter) -> Result<Self, LettersError> {
        let types = filter.types.as_deref().map(|types| {
            let glob = Glob::new(types).map_err(|_| LettersError::Pattern(types.to_owned()))?;
            Ok::<_, LettersError>(glob.compile_matcher())
        });
        Ok(Self { filter, types: types.transpose()? })
    }

    fn has(&self, letter: &DeadLetter) -> bool {
        let DeadLetterFilter { sink, id, until, .. } = self.filter;
        sink.as_ref().is_none_or(|sink| *sink == letter.sink)
            && id.is_none_or(|id| id == letter.id)
            && self.types.as_ref().is_none_or(|types| types.is_match(&*letter.event.event.subscription_type))
            && until.is_none_or(|until| letter.last.at < until)
    }
}

/// Knowledge of the end of the stream, over all connections.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The highest number that was acknowledged.
    newest: AtomicU64,
    /// When the stream was made: another time means another stream.
    made: AtomicU64,
    /// Whether the stream has lost what it has acknowledged.
    is_lost: AtomicBool,
    /// Whether the stream was not there at the last attempt.
    is_gone: AtomicBool,
}

impl End {
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Returns once for each loss that there was one.
    pub(super) fn take_loss(&self) -> bool {
        self.is_lost.swap(false, Ordering::Relaxed)
    }

    fn handle_opened(&self, stream: &Stream) {
        let info = stream.cached_info();
        let made = u64::try_from(info.created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let (before, last) = (self.made.swap(made, Ordering::Relaxed), info.state.last_sequence);
        let newest = self.newest.swap(last, Ordering::Relaxed);
        self.is_gone.store(false, Ordering::Relaxed);
        if before != 0 && (before != made || last < newest) {
            self.is_lost.store(true, Ordering::Relaxed);
        }
    }

    fn handle_acknowledged(&self, position: u64, before: u64) {
        // Numbers grow, so what had this one or a later one before is gone.
        if position <= before {
            self.newest.store(position, Ordering::Relaxed);
            self.is_lost.store(true, Ordering::Relaxed);
        } else {
            self.newest.fetch_max(position, Ordering::Relaxed);
        }
    }
}

/// The stream over one connection.
#[derive(Debug)]
pub(super) struct LetterStream {
    options: ClusterOptions,
    connection: Connection,
    stream: Stream,
    end: Arc<End>,
    /// Bytes of the stream, and when it was asked for them.
    size: Mutex<(u64, Instant)>,
}

pub(super) fn position(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

fn id(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// The letters of a filter that there were at the start, a page at a time.
pub(super) struct Pages<'a> {
    stream: &'a LetterStream,
    choice: Choice<'a>,
    next: Option<i64>,
    to: i64,
}

impl<'a> Pages<'a> {
    pub(super) async fn new(
        stream: &'a LetterStream,
        filter: &'a DeadLetterFilter,
    ) -> Result<Self, LettersError> {
        let to = stream.last(filter.sink.as_ref()).await?;
        Ok(Self { stream, choice: Choice::new(filter)?, next: Some(0), to })
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, LettersError> {
        let Some(after) = self.next else { return Ok(None) };
        let page = self.stream.page(&self.choice, after, self.to, BATCH).await?;
        self.next = page.next;
        Ok(Some(page.letters))
    }
}

fn stream_name(name: &str) -> String {
    format!("{name}-letters")
}

impl LetterStream {
    /// Opens the stream, or makes it.
    pub(super) async fn open(
        connection: &Connection,
        options: &ClusterOptions,
        limits: LogLimits,
        end: Arc<End>,
    ) -> Result<Self, ClusterError> {
        connection.check_version()?;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let wanted = stream::Config {
            name: stream_name(&options.name),
            description: Some("eventsubd: the dead letters of all hosts".to_owned()),
            subjects: vec![letter::subjects(&options.name)],
            max_messages_per_subject: 1,
            max_bytes: i64::try_from(limits.max_size / PART).unwrap_or(i64::MAX),
            discard: DiscardPolicy::New,
            num_replicas: connection.replicas(options),
            allow_direct: true,
            // Above the numbers of an earlier stream, and of letters in the stores of hosts.
            first_sequence: Some(wall.max(FIRST).max(end.newest.load(Ordering::Relaxed) + AHEAD)),
            ..stream::Config::default()
        };
        let stream = open_stream(connection, connection.context(), wanted).await?;
        end.handle_opened(&stream);
        let (options, connection) = (options.clone(), connection.clone());
        let size = Mutex::new((stream.cached_info().state.bytes, Instant::now()));
        Ok(Self { options, connection, stream, end, size })
    }

    fn name(&self) -> &str {
        &self.options.name
    }

    /// Writes a letter if the last message of its subject is the expected one.
    pub(super) async fn publish(&self, letter: &DeadLetter, expected: u64) -> Result<Written, LettersError> {
        match self.publish_once(letter, expected, true).await {
            Err(LettersError::TooLarge) => self.publish_once(letter, expected, false).await,
            outcome => outcome,
        }
    }

    async fn publish_once(
        &self,
        letter: &DeadLetter,
        expected: u64,
        has_words: bool,
    ) -> Result<Written, LettersError> {
        let before = self.end.newest.load(Ordering::Relaxed);
        let subject = letter::subject(self.name(), &letter.sink, &letter.event.event.message_id);
        let (mut headers, mut length) = (HeaderMap::new(), subject.len() + letter.event.event.payload.len());
        for (name, value) in letter::headers(letter, &self.options.host, has_words) {
            length += name.len() + value.len() + OVERHEAD;
            headers.insert(name, value);
        }
        if expected == 0 {
            self.take_room(length as u64).await?;
        }
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
        let payload = letter.event.event.payload.clone();
        let message = || (subject.clone(), headers.clone(), payload.clone());
        let ack = match publishing::publish(self.connection.context(), message).await {
            Ok(Ok(ack)) => ack,
            Ok(Err(error)) => return self.refusal(&error),
            Err(_) => return Err(LogError::NotAcknowledged("no answer in time".to_owned()).into()),
        };
        self.end.handle_acknowledged(ack.sequence, before);
        Ok(Written::Done)
    }

    fn max_bytes(&self) -> u64 {
        u64::try_from(self.stream.cached_info().config.max_bytes).unwrap_or(0)
    }

    fn full(&self) -> LettersError {
        LettersError::Full(size(self.max_bytes()))
    }

    /// Whether there is room for a new letter of this length.
    async fn take_room(&self, length: u64) -> Result<(), LettersError> {
        let most = self.max_bytes() - self.max_bytes() / RESERVE;
        let known = || self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, at) = *known();
        if bytes > most / 2 || at.elapsed() > SIZE_AGE {
            let info = tokio::time::timeout(ANSWER_LIMIT, self.stream.get_info()).await;
            let info = info.map_err(|_| ReadError::NoAnswer)?;
            let info = info.map_err(|error| batches::refused(&self.connection, &chain(&error)))?;
            *known() = (info.state.bytes, Instant::now());
        }
        let mut size = known();
        size.0 += length;
        if size.0 > most { Err(self.full()) } else { Ok(()) }
    }

    /// The meaning of a refusal.
    fn refusal(&self, error: &PublishError) -> Result<Written, LettersError> {
        match error.kind() {
            _ if is_overtaken(error) => return Ok(Written::Refused),
            PublishErrorKind::MaxPayloadExceeded => return Err(LettersError::TooLarge),
            PublishErrorKind::StreamNotFound => self.end.is_gone.store(true, Ordering::Relaxed),
            _ => {}
        }
        let said = self.connection.said(&chain(error));
        if code_of(error) == Some(ErrorCode::STREAM_STORE_FAILED) && said.contains(NO_ROOM) {
            return Err(self.full());
        }
        Err(LogError::NotAcknowledged(said).into())
    }

    /// Removes a message. Returns whether it was there.
    pub(super) async fn delete(&self, id: i64) -> Result<bool, LettersError> {
        let request = serde_json::json!({ "seq": position(id), "no_erase": true });
        let subject = format!("STREAM.MSG.DELETE.{}", stream_name(self.name()));
        let asked = self.connection.context().request::<_, _, serde_json::Value>(subject, &request);
        let answer = match tokio::time::timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(LogError::NotAcknowledged(self.connection.said(&chain(&error))).into());
            }
            Err(_) => return Err(ReadError::NoAnswer.into()),
        };
        if answer["success"] == true {
            return Ok(true);
        }
        if self.read(id).await?.is_none() {
            return Ok(false);
        }
        let said = answer["error"]["description"].as_str().unwrap_or("no reason given");
        Err(LogError::NotAcknowledged(self.connection.said(said)).into())
    }

    /// Reads a letter by its number, from the leader of the stream. `None` if there is none.
    pub(super) async fn read(&self, id: i64) -> Result<Option<Result<DeadLetter, Unreadable>>, LettersError> {
        let read = self.stream.get_raw_message(position(id));
        Ok(self.found(read).await?.map(|message| self.letter_of(message)))
    }

    /// The message about the event of a letter, from the leader of the stream, with its number.
    pub(super) async fn of_event(
        &self,
        letter: &DeadLetter,
    ) -> Result<Option<(u64, Result<DeadLetter, Unreadable>)>, LettersError> {
        let subject = letter::subject(self.name(), &letter.sink, &letter.event.event.message_id);
        let read = self.stream.get_last_raw_message_by_subject(&subject);
        Ok(self.found(read).await?.map(|message| (message.sequence, self.letter_of(message))))
    }

    /// The number of the newest letter of a sink, or of all, as the leader of the stream knows it; 0 if there is none.
    pub(super) async fn last(&self, sink: Option<&SinkName>) -> Result<i64, LettersError> {
        let subjects = letter::subjects_of(self.name(), sink);
        let read = self.stream.get_last_raw_message_by_subject(&subjects);
        Ok(self.found(read).await?.map_or(0, |message| id(message.sequence)))
    }

    /// The number of the oldest letter of a sink.
    pub(super) async fn first(&self, sink: &SinkName) -> Result<i64, LettersError> {
        let batch = self.batch(Some(sink), 0, 1).await?;
        Ok(batch.messages.first().map_or(i64::MAX, |(position, _)| id(position.0)))
    }

    async fn found(
        &self,
        read: impl Future<Output = Result<StreamMessage, RawMessageError>>,
    ) -> Result<Option<StreamMessage>, LettersError> {
        match tokio::time::timeout(ANSWER_LIMIT, read).await {
            Ok(Ok(message)) => Ok(Some(message)),
            Ok(Err(error)) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Ok(Err(error)) => Err(batches::refused(&self.connection, &chain(&error)).into()),
            Err(_) => Err(ReadError::NoAnswer.into()),
        }
    }

    fn letter_of(&self, message: StreamMessage) -> Result<DeadLetter, Unreadable> {
        let StreamMessage { subject, sequence, headers, payload, .. } = message;
        letter::read(
            self.name(),
            &subject,
            sequence,
            |name| headers.get(name).map(async_nats::HeaderValue::as_str),
            payload,
        )
    }

    pub(super) async fn batch(
        &self,
        sink: Option<&SinkName>,
        after: i64,
        limit: usize,
    ) -> Result<batches::Batch, ReadError> {
        let subjects = letter::subjects_of(self.name(), sink);
        let request = Request::after(Seq(position(after)), subjects, limit);
        batches::ask(&self.connection, &stream_name(self.name()), &request).await
    }

    /// The chosen letters after one number and up to another. The search ends after a bounded number of bytes.
    pub(super) async fn page(
        &self,
        choice: &Choice<'_>,
        after: i64,
        mut to: i64,
        limit: usize,
    ) -> Result<LetterPage, LettersError> {
        let sink = choice.filter.sink.as_ref();
        let (mut page, mut read, mut bytes, begun) = (LetterPage::default(), after, 0, Instant::now());
        while read < to {
            if page.letters.len() >= limit || bytes >= PAGE_BYTES {
                page.next = Some(read);
                break;
            }
            let batch = self.batch(sink, read, BATCH).await?;
            if batch.messages.is_empty() {
                // The newest one was removed meanwhile, or the copy that has answered is behind.
                to = to.min(self.last(sink).await?);
                if begun.elapsed() > BEHIND {
                    return Err(ReadError::NoAnswer.into());
                }
                tokio::time::sleep(LOOK).await;
            }
            for (position, message) in batch.messages {
                if id(position.0) > to || page.letters.len() >= limit {
                    read = if id(position.0) > to { to } else { read };
                    break;
                }
                (read, bytes) = (id(position.0), bytes + message.length);
                let headers = message.headers.unwrap_or_default();
                let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
                let subject = header("Nats-Subject").unwrap_or_default();
                match letter::read(self.name(), subject, position.0, header, message.payload) {
                    Ok(letter) if choice.has(&letter) => page.letters.push(letter),
                    Ok(_) => {}
                    Err(error) => {
                        page.unreadable += 1;
                        warn!(position = position.0, %error, "a message among the dead letters is none");
                    }
                }
            }
        }
        Ok(page)
    }
}
