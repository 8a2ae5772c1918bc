//! Reading the shared log for the workers of this host: one ordered consumer, whose newest events stay in memory.
//!
//! Nothing is read while no worker runs. Workers that are behind, or that begin, read the stream itself. With each connection the
//! newest event that was read is looked up first: if the log has lost its tail, every worker begins again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::header::HeaderName;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{OrderedConfig, OrderedError};
use async_nats::jetstream::message::Message;
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::nats::{ClusterError, Connection};
use super::super::place::Mark;
use super::batches::ReadError;
use super::events::{SharedLog, stream_name};
use super::message;
use super::reading::LogReader;
use super::ring::{Entry, Ring};
use crate::model::event::{Seq, StoredEvent};
use crate::model::text::chain;
use crate::telemetry::LogLimit;

/// Bytes of the newest events that are kept in memory.
const BYTES: usize = 4 << 20;
/// Pause before the log is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// Events that are left to those who are behind when the log is followed again.
const FAR: u64 = 10_000;
/// Messages that are taken together, if so many have come.
const CHUNK: usize = 256;
/// How far a worker goes back when it cannot tell which events the log has lost: what the log knows the ids of.
const BACK: u64 = 30 * 60 * 1_000;

/// The log as this host reads it.
#[derive(Clone, Debug)]
pub struct FeedState {
    /// When the stream was made, in milliseconds since 1970.
    pub made: u64,
    /// Count of times that the stream was another one, or had lost its tail: workers of an earlier one begin again.
    pub era: u64,
    /// The last event that was still there when the log had lost its tail.
    pub intact: Option<Seq>,
    pub reader: Arc<LogReader>,
}

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    newest: watch::Sender<Seq>,
    state: watch::Sender<Option<FeedState>>,
    workers: watch::Sender<usize>,
}

impl Inner {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the log for workers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

/// A worker that reads; the log is followed as long as there is one.
#[derive(Debug)]
pub struct Following(Arc<Inner>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.workers.send_modify(|count| *count -= 1);
    }
}

impl Feed {
    /// Has the log followed.
    pub fn follow(&self) -> Following {
        self.0.workers.send_modify(|count| *count += 1);
        Following(Arc::clone(&self.0))
    }

    /// The number of the newest event.
    pub fn newest(&self) -> watch::Receiver<Seq> {
        self.0.newest.subscribe()
    }

    /// See [`FeedState::era`]; 0 until the log was opened.
    pub fn era(&self) -> u64 {
        self.0.state.borrow().as_ref().map_or(0, |state| state.era)
    }

    /// The log; `None` until it was opened.
    pub fn state(&self) -> watch::Receiver<Option<FeedState>> {
        self.0.state.subscribe()
    }

    /// The events after `after` with a mark at the last one, at least up to what [`Self::newest`] was before. `None` means that
    /// only the log itself has them.
    pub fn recent(
        &self,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Option<(Vec<Arc<StoredEvent>>, Option<Mark>)> {
        self.0.ring().read(after, limit, max_bytes)
    }
}

impl FeedState {
    /// The place to which a worker has to go back that has read up to this event last; `None` if the log still has it.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn lost_since(&self, read: &Mark) -> Result<Option<Seq>, ReadError> {
        let first = self.reader.bounds().await?.0;
        if read.seq < first || self.reader.has(read).await? {
            return Ok(None);
        }
        match self.intact {
            Some(intact) if intact < read.seq => Ok(Some(intact)),
            _ => self.reader.published_before(read.published.saturating_sub(BACK)).await.map(Some),
        }
    }
}

/// The task; see [`feed`].
#[derive(Debug)]
pub struct FeedTask {
    feed: Feed,
    log: SharedLog,
}

/// Builds the task; nothing is connected until it is run and a worker reads.
pub fn feed(log: SharedLog) -> (FeedTask, Feed) {
    let inner = Inner {
        ring: Mutex::new(Ring::new(BYTES)),
        newest: watch::Sender::new(Seq(0)),
        state: watch::Sender::new(None),
        workers: watch::Sender::new(0),
    };
    let feed = Feed(Arc::new(inner));
    (FeedTask { feed: feed.clone(), log }, feed)
}

impl FeedTask {
    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.read() => {}
        }
    }

    async fn read(&self) {
        let mut workers = self.feed.0.workers.subscribe();
        let changed = Arc::new(Notify::new());
        let mut connection = None;
        let log = LogLimit::default();
        loop {
            // The sender lives as long as this task.
            let _ = workers.wait_for(|count| *count > 0).await;
            if let Err(error) = self.follow(&mut connection, &changed, &mut workers).await {
                if let Some(left_out) = log.permit("read", Instant::now()) {
                    warn!(error = chain(&error), left_out, "the shared log cannot be read; trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Follows the log until the connection changes or no worker is left.
    async fn follow(
        &self,
        connection: &mut Option<Connection>,
        changed: &Arc<Notify>,
        workers: &mut watch::Receiver<usize>,
    ) -> Result<(), ClusterError> {
        let options = self.log.options();
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(Connection::start(options, self.log.tls(), Arc::clone(changed)).await?),
        };
        while connection.problem().is_some() {
            changed.notified().await;
        }
        connection.check_version()?;
        let generation = connection.generation();
        let name = stream_name(options);
        let failed = |why: &str| ClusterError::Stream { stream: name.clone(), why: connection.said(why) };
        let opened = self.open(connection).await;
        connection.record(opened.is_ok()).await;
        let (reader, from) = opened?;
        let config = OrderedConfig {
            deliver_subject: connection.client().new_inbox(),
            description: Some(format!("eventsubd {}", options.host)),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.0.saturating_add(1) },
            ..OrderedConfig::default()
        };
        let consumer =
            reader.stream().create_consumer(config).await.map_err(|error| failed(&chain(&error)))?;
        let messages = consumer.messages().await.map_err(|error| failed(&chain(&error)))?;
        let mut messages = messages.ready_chunks(CHUNK);
        loop {
            tokio::select! {
                chunk = messages.next() => match chunk {
                    // The library reads on over another connection, where the log may have lost its tail.
                    _ if connection.generation() != generation => return Ok(()),
                    Some(chunk) => self.push(chunk).map_err(|error| failed(&chain(&error)))?,
                    None => return Ok(()),
                },
                () = changed.notified() => if connection.generation() != generation {
                    return Ok(());
                },
                Ok(()) = workers.changed() => if *workers.borrow_and_update() == 0 {
                    return Ok(());
                },
            }
        }
    }

    /// Opens the log, or makes it. Returns the event to read on after.
    async fn open(&self, connection: &Connection) -> Result<(Arc<LogReader>, Seq), ClusterError> {
        let options = self.log.options();
        let reader = match LogReader::over(connection.clone(), options).await {
            Ok(reader) => reader,
            Err(_) => {
                self.log.make(connection).await?;
                LogReader::over(connection.clone(), options).await?
            }
        };
        let reader = Arc::new(reader);
        let begun = self.begin(&reader).await;
        let from = begun.map_err(|error| ClusterError::Stream {
            stream: stream_name(options),
            why: connection.said(&chain(&error)),
        })?;
        Ok((reader, from))
    }

    /// Compares the stream with what was read of it, and publishes it. Returns the event to read on after.
    async fn begin(&self, reader: &Arc<LogReader>) -> Result<Seq, ReadError> {
        let info = reader.stream().cached_info();
        let made = u64::try_from(info.created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let last = Seq(info.state.last_sequence);
        let before = self.feed.0.state.borrow().clone();
        let newest = self.feed.0.ring().newest();
        let (mut era, mut intact) = before.as_ref().map_or((0, None), |before| (before.era, before.intact));
        let is_same = before.as_ref().is_some_and(|before| before.made == made);
        let mut from = last;
        if before.is_some() && !is_same {
            (era, intact) = (era + 1, None);
            info!("the shared log is another one; sinks begin at its first event");
        } else if let Some(newest) = &newest {
            if newest.seq < Seq(info.state.first_sequence) || reader.has(newest).await? {
                // Events that came while nobody read, or NATS was away, are read by workers that are behind.
                from = if newest.seq.0 + FAR < last.0 { last } else { newest.seq };
            } else {
                era += 1;
                intact = self.intact(reader).await?;
                warn!(
                    position = newest.seq.0,
                    "the shared log has lost its newest events; sinks get again what came after"
                );
            }
        }
        // A worker that reads from memory afterwards sees the era that it belongs to.
        let mut ring = self.feed.0.ring();
        if newest.is_none_or(|newest| newest.seq != from) {
            ring.reset(from);
        }
        let state = FeedState { made, era, intact, reader: Arc::clone(reader) };
        self.feed.0.state.send_replace(Some(state));
        // Newer events are in memory only once they were pushed.
        self.feed.0.newest.send_if_modified(|newest| std::mem::replace(newest, from) != from);
        Ok(from)
    }

    /// The newest event in memory that the log still has: it has lost everything after one event.
    async fn intact(&self, reader: &LogReader) -> Result<Option<Seq>, ReadError> {
        let marks: Vec<Mark> = self.feed.0.ring().marks().collect();
        let (mut low, mut high) = (0, marks.len());
        while low < high {
            let middle = low.midpoint(high);
            if reader.has(&marks[middle]).await? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(marks.get(low).map(|mark| mark.seq))
    }

    /// Takes messages that have come together: workers are woken once for all of them. An error ends the reading.
    fn push(&self, chunk: Vec<Result<Message, OrderedError>>) -> Result<(), OrderedError> {
        let mut newest = None;
        let read = chunk.into_iter().try_for_each(|message| {
            newest = self.push_one(&message?).max(newest);
            Ok(())
        });
        if let Some(position) = newest {
            self.feed.0.newest.send_if_modified(|newest| {
                let is_newer = position > *newest;
                *newest = position.max(*newest);
                is_newer
            });
        }
        read
    }

    fn push_one(&self, message: &Message) -> Option<Seq> {
        let facts = message.info().ok()?;
        let position = Seq(facts.stream_sequence);
        let published = u64::try_from(facts.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let header = |name| Some(message.headers.as_ref()?.get(HeaderName::from_static(name))?.as_str());
        match message::read(position.0, message::MESSAGE_ID, header, message.payload.clone()) {
            Ok(event) => self.feed.0.ring().push(Entry { event: Arc::new(event), published }),
            Err(error) => warn!(position = position.0, %error, "a message of the shared log is no event"),
        }
        Some(position)
    }
}
