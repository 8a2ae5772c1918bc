//! The handle of the store: puts requests into the queues of its two threads, and waits for the results.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::error::StoreError;
use super::follower::Follower;
use super::ids::Marker;
use super::job::{Command, Job, Reply, SinkJob};
use super::loss::LOSS;
use super::pending::Pending;
use super::places::{Place, Places};
use super::reader::{self, ReadRequest, ReaderThread};
use super::recent::Recent;
use super::writer::{Published, Writer};
use super::{
    Activity, Appended, DeadLetter, DeadLetterFilter, GivenUp, IntakeCounts, Keep, Loss, ReplayPart,
    SinkRecord, StartAt, StoreOptions, TypeCount, guard, retention, schema,
};
use crate::model::arrival::Arrival;
use crate::model::event::{Event, Seq, StoredEvent};
use crate::model::last_known::{LastKnown, News};
use crate::model::pulse::Pulse;
use crate::model::route::SinkName;
use crate::model::status::StoreStatus;
use crate::model::time::Timestamp;

/// Bytes of payload per permit.
const BYTES_A_PERMIT: usize = 256;
/// Places in the queue for commands without a permit, which must reach the writer at any time: one `Wake` and a `Close`.
const WITHOUT_PERMIT: usize = 2;

/// Resolves once a pushed event is on disk.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Appended, StoreError>>);

impl Receipt {
    /// Waits until the event is on disk.
    ///
    /// # Errors
    /// The store was closed or died before.
    pub async fn stored(self) -> Result<Appended, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// The store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: std::sync::mpsc::SyncSender<Command>,
    reads: std::sync::mpsc::SyncSender<ReadRequest>,
    /// One permit for each place in the queue of commands.
    places: Arc<Semaphore>,
    /// One permit for each [`BYTES_A_PERMIT`] of payload in the queue.
    bytes: Arc<Semaphore>,
    byte_permits: u32,
    read_places: Arc<Semaphore>,
    /// The places of sinks that are not stored yet.
    moved: Arc<Mutex<Places>>,
    /// Counts that are not in the database yet.
    pending: Arc<Mutex<Pending>>,
    recent: Recent,
    marker: Marker,
    published: Published,
    /// Has a permit once a loss was noted by a caller.
    loss_noted: Notify,
    reader_pulse: Pulse,
    died: watch::Receiver<Option<StoreError>>,
}

impl Store {
    /// Opens or makes the database, and starts the threads. Blocking.
    ///
    /// # Errors
    /// Another daemon has the directory; the file is damaged, foreign or newer; the system refuses.
    #[allow(clippy::needless_pass_by_value, reason = "the store owns its settings")]
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let folder = options.path.parent().unwrap_or(Path::new(".")).to_owned();
        let lock = guard::lock(&folder)?;
        let connection = schema::open(&options.path)?;
        let read_connection = schema::open_read_only(&options.path)?;

        let places = options.queue_events.clamp(1, 1 << 20);
        let byte_permits =
            u32::try_from((options.queue_bytes / BYTES_A_PERMIT).max(1)).unwrap_or(u32::MAX >> 3);
        let (commands, queue) = std::sync::mpsc::sync_channel(places + WITHOUT_PERMIT);
        let (reads, read_queue) = std::sync::mpsc::sync_channel(reader::QUEUE);
        let (died_tx, died) = watch::channel(None);
        let (writer, published) = Writer::new(connection, &options, lock)?;
        let (moved, pending, recent) = (writer.places(), writer.pending(), writer.recent());
        let marker = writer.marker();
        writer.start(queue, died_tx.clone()).map_err(StoreError::io(&options.path))?;
        let reader_pulse = Pulse::default();
        let counts = Arc::clone(&pending);
        let ticks = Arc::clone(&options.ticks);
        ReaderThread::start(read_connection, read_queue, counts, ticks, died_tx, reader_pulse.clone())
            .map_err(StoreError::io(&options.path))?;
        Ok(Self {
            inner: Arc::new(Inner {
                commands,
                reads,
                places: Arc::new(Semaphore::new(places)),
                bytes: Arc::new(Semaphore::new(byte_permits as usize)),
                byte_permits,
                read_places: Arc::new(Semaphore::new(reader::QUEUE)),
                moved,
                pending,
                recent,
                marker,
                published,
                loss_noted: Notify::new(),
                reader_pulse,
                died,
            }),
        })
    }

    /// Stores an event whose sender can send it again: returns once it is on disk, or with an error at once if the store is
    /// full or failing.
    ///
    /// # Errors
    /// [`StoreError::Failing`], [`StoreError::Full`], [`StoreError::Closed`].
    pub async fn append(&self, event: impl Into<Arrival>) -> Result<Appended, StoreError> {
        let event = event.into();
        if let Some(problem) = &*self.inner.published.refusing.borrow() {
            return Err(StoreError::Failing(Arc::clone(problem)));
        }
        let permits = self.byte_permits(&event);
        let bytes = Arc::clone(&self.inner.bytes).try_acquire_many_owned(permits);
        let place = Arc::clone(&self.inner.places).try_acquire_owned();
        let (Ok(bytes), Ok(place)) = (bytes, place) else {
            return Err(if self.inner.places.is_closed() { StoreError::Closed } else { StoreError::Full });
        };
        let (reply, answer) = oneshot::channel();
        self.send(self.append_job(event, Some(reply), false, bytes), place)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Accepts an event whose sender cannot send it again. Waits for room. Once it returns, the store tries to write the event
    /// until it succeeds, no matter how long the disk fails.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn push(&self, event: impl Into<Arrival>) -> Result<Receipt, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(event.into(), Some(reply)).await?;
        Ok(Receipt(answer))
    }

    /// Like [`Self::push`], without a receipt. The result is counted in [`Self::intake_counts`].
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn push_detached(&self, event: impl Into<Arrival>) -> Result<(), StoreError> {
        self.enqueue(event.into(), None).await
    }

    async fn enqueue(
        &self,
        event: Arrival,
        reply: Option<oneshot::Sender<Result<Appended, StoreError>>>,
    ) -> Result<(), StoreError> {
        let permits = self.byte_permits(&event);
        let bytes = Arc::clone(&self.inner.bytes)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| StoreError::Closed)?;
        let place = self.place().await?;
        self.send(self.append_job(event, reply, true, bytes), place)
    }

    fn append_job(
        &self,
        arrival: Arrival,
        reply: Option<Reply<Appended>>,
        held: bool,
        bytes: OwnedSemaphorePermit,
    ) -> Job {
        let (event, identity, news) = arrival.into_parts();
        let marker = &self.inner.marker;
        let mark = marker.mark(event.message_id.as_str());
        let happening = identity.map(|identity| marker.mark(identity));
        Job::Append { event, mark, happening, news, reply, held, _bytes: bytes }
    }

    fn byte_permits(&self, event: &Event) -> u32 {
        let permits = event.payload.len() / BYTES_A_PERMIT + 1;
        u32::try_from(permits).unwrap_or(u32::MAX).min(self.inner.byte_permits)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        Arc::clone(&self.inner.places).acquire_owned().await.map_err(|_| StoreError::Closed)
    }

    fn send(&self, job: Job, place: OwnedSemaphorePermit) -> Result<(), StoreError> {
        // The permit is a place in the queue, so this fails only when the writer has gone.
        self.inner.commands.try_send(Command { job, _place: Some(place) }).map_err(|_| StoreError::Closed)
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let place = self.place().await?;
        let (reply, answer) = oneshot::channel();
        self.send(job(reply), place)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn read<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> ReadRequest,
    ) -> Result<T, StoreError> {
        let _place = self.inner.read_places.acquire().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.inner.reads.try_send(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Returns the events after `after`, oldest first: at most `limit`, and no more than about `max_bytes` of
    /// payload, but at least one.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn read_after(
        &self,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(|reply| ReadRequest::After { after, limit, max_bytes, follower: None, reply }).await
    }

    /// The events before `before`, newest first: at most `limit`, and no more than about `max_bytes` of payload, but one
    /// at least.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn read_before(
        &self,
        before: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(|reply| ReadRequest::Back { before, limit, max_bytes, reply }).await
    }

    /// The dead letters of a sink with ids below `before`, newest first: at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn dead_letters(
        &self,
        sink: &SinkName,
        before: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let sink = sink.clone();
        self.read(|reply| ReadRequest::Letters { sink, before, limit, reply }).await
    }

    /// The number of the newest event on disk.
    pub fn last_seq(&self) -> watch::Receiver<Seq> {
        self.inner.published.last_seq.clone()
    }

    /// Returns the record of a sink whose worker starts now. A new sink begins at `start`. From then on retention asks
    /// `follower` which events the sink would lose.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn start_sink(
        &self,
        name: &SinkName,
        start: StartAt,
        follower: &Follower,
    ) -> Result<SinkRecord, StoreError> {
        let (name, follower) = (name.clone(), follower.clone());
        self.ask(|reply| Job::Sink(SinkJob::Start { name, start, follower }, reply)).await
    }

    /// Like [`Self::read_after`], for a worker. Events that it got are not lost when retention removes them.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn read_for(
        &self,
        follower: &Follower,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        if let Some(events) = self.inner.recent.read(follower, after, limit, max_bytes) {
            return Ok(events);
        }
        let follower = Some(follower.clone());
        let read = self.read(|reply| ReadRequest::After { after, limit, max_bytes, follower, reply }).await?;
        Ok(read.into_iter().map(Arc::new).collect())
    }

    /// Returns which of the next `limit` events after `after` a worker wants, and the last event that was examined.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn wanted_after(
        &self,
        follower: &Follower,
        after: Seq,
        limit: usize,
    ) -> Result<(Vec<Seq>, Seq), StoreError> {
        let follower = follower.clone();
        self.read(|reply| ReadRequest::Wanted { follower, after, limit, reply }).await
    }

    /// Number of events that each sink has ever lost by retention. Sinks that have lost nothing since the start are left out.
    pub fn lost(&self) -> watch::Receiver<Arc<BTreeMap<SinkName, u64>>> {
        self.inner.published.lost.clone()
    }

    /// Returns the record of a sink. A new sink begins at `start`.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn sink(&self, name: &SinkName, start: StartAt) -> Result<SinkRecord, StoreError> {
        let name = name.clone();
        self.ask(|reply| Job::Sink(SinkJob::Register { name, start }, reply)).await
    }

    /// Records that a sink's cursor has moved forward. `done` are events after it that the sink is done with as well. The place
    /// is stored with a later event, or by itself: within 250 ms if `keep` asks for that.
    pub fn keep_place(&self, name: &SinkName, cursor: Seq, done: Vec<Seq>, keep: Keep) {
        let mut places = self.places();
        if places.record(name, Place { cursor, done }, keep, Instant::now()) {
            self.wake_writer(&mut places);
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.inner.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the writer, unless it is being woken already.
    fn wake_writer(&self, places: &mut Places) {
        if places.request_wake() {
            // Without a writer there is nothing to wake.
            let _ = self.inner.commands.try_send(Command { job: Job::Wake, _place: None });
        }
    }

    /// Moves a sink's cursor back to `to`, so that it gets the events after it again.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn rewind(&self, name: &SinkName, to: Seq) -> Result<SinkRecord, StoreError> {
        let name = name.clone();
        self.ask(|reply| Job::Sink(SinkJob::Rewind { name, to }, reply)).await
    }

    /// Copies an event to a sink's dead letters. Its cursor stays.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn dead_letter(
        &self,
        name: &SinkName,
        event: &StoredEvent,
        given_up: impl Into<GivenUp>,
    ) -> Result<SinkRecord, StoreError> {
        let (name, event, given_up) = (name.clone(), Box::new(event.clone()), Box::new(given_up.into()));
        self.ask(|reply| Job::Sink(SinkJob::DeadLetter { name, event, given_up }, reply)).await
    }

    /// Stores the outcome of sending a dead letter again.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn resent(
        &self,
        name: &SinkName,
        id: i64,
        outcome: Result<(), GivenUp>,
    ) -> Result<SinkRecord, StoreError> {
        let (name, given_up) = (name.clone(), outcome.err().map(Box::new));
        self.ask(|reply| Job::Sink(SinkJob::Resent { name, id, given_up }, reply)).await
    }

    /// Stores which sinks there are. The place of a removed sink is kept for a week.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn retire_sinks(&self, active: Vec<SinkName>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Retire { active, reply }).await
    }

    /// Marks dead letters to be sent again. Returns their number.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn mark_dead_letters(&self, filter: DeadLetterFilter) -> Result<u64, StoreError> {
        self.ask(|reply| Job::DeadLetters { filter, drop: false, reply }).await
    }

    /// Removes dead letters for good. Returns their number.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn drop_dead_letters(&self, filter: DeadLetterFilter) -> Result<u64, StoreError> {
        self.ask(|reply| Job::DeadLetters { filter, drop: true, reply }).await
    }

    /// Copies a part of the stored events to the dead letters of a sink whose worker runs, as to be sent again, if that
    /// worker wants them; tells how many. Other writes go on between batches.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn copy_for_replay(&self, name: &SinkName, mut part: ReplayPart) -> Result<u64, StoreError> {
        let mut copied = 0;
        loop {
            let (sink, batch) = (name.clone(), part.clone());
            let (count, looked) = self.ask(|reply| Job::Replay { name: sink, part: batch, reply }).await?;
            copied += count;
            let Some(looked) = looked else { return Ok(copied) };
            part.after = looked;
        }
    }

    /// Returns a sink's dead letters that wait to be sent again, with ids after `after`, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn dead_letters_to_replay(
        &self,
        sink: &SinkName,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let sink = sink.clone();
        self.read(|reply| ReadRequest::ToReplay { sink, after, limit, reply }).await
    }

    /// The number of the last event stored before `time`.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn before(&self, time: Timestamp) -> Result<Seq, StoreError> {
        self.read(|reply| ReadRequest::Before { time, reply }).await
    }

    /// Returns what is known of each of these broadcasters, in their order, with the time by the store's clock.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn last_known(&self, broadcasters: Vec<Box<str>>) -> Result<(Vec<LastKnown>, u64), StoreError> {
        self.read(|reply| ReadRequest::LastKnown { broadcasters, reply }).await
    }

    /// Returns broadcasters after one, in order, of whom nothing new was stored for `age`: at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn quiet_channels(
        &self,
        after: &str,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<Box<str>>, StoreError> {
        let (after, age) = (after.into(), u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        self.read(|reply| ReadRequest::QuietChannels { after, age, limit, reply }).await
    }

    /// Stores what channels are, for which there is no event.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn learn(&self, news: Vec<News>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Learn { news, reply }).await
    }

    /// Forgets these channels, or all of them.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn forget_channels(&self, channels: Option<Vec<Box<str>>>) -> Result<(), StoreError> {
        self.ask(|reply| Job::ForgetChannels { channels, reply }).await
    }

    /// Returns the losses that were not reported yet, each with the name that [`Self::losses_told`] takes.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn losses(&self) -> Result<Vec<(String, Loss)>, StoreError> {
        let found = self.settings(LOSS).await?;
        let read = |(name, text): (String, String)| Some((name, serde_json::from_str(&text).ok()?));
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Records a loss that the store has not caused, until it is reported. `seq` is the first event that was left.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn remember_loss(&self, loss: &Loss, seq: Seq) -> Result<(), StoreError> {
        let text = serde_json::to_string(loss).unwrap_or_default();
        self.set_settings(vec![(format!("{LOSS}{}.shared.{seq}", loss.sink), Some(text))]).await?;
        self.inner.loss_noted.notify_one();
        Ok(())
    }

    /// Resolves once [`Self::remember_loss`] has noted a loss since the last time. For one caller.
    pub async fn loss_noted(&self) {
        self.inner.loss_noted.notified().await;
    }

    /// Deletes losses that were reported.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn losses_told(&self, names: Vec<String>) -> Result<(), StoreError> {
        self.set_settings(names.into_iter().map(|name| (name, None)).collect()).await
    }

    /// Number of events by type in each of the last 60 minutes with events since the start.
    pub fn minute_counts(&self) -> Vec<TypeCount> {
        self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner).minutes()
    }

    /// Number of events by type in each hour from this one on, since the epoch; at most three weeks. An hour and a type
    /// may come twice.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn hour_counts(&self, from: u64) -> Result<Vec<TypeCount>, StoreError> {
        self.read(|reply| ReadRequest::Hours { from, reply }).await
    }

    /// The activity of subscriptions with these ids, in their order; `None` if a subscription had no event.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn activity(&self, ids: Vec<Box<str>>) -> Result<Vec<Option<Activity>>, StoreError> {
        self.read(|reply| ReadRequest::Activity { ids, reply }).await
    }

    /// The settings whose names start with `prefix`, sorted by name.
    ///
    /// # Errors
    /// The database cannot be read, or the store was closed.
    pub async fn settings(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.read(|reply| ReadRequest::Settings { prefix: prefix.to_owned(), reply }).await
    }

    /// Sets (`Some`) or removes (`None`) settings, all or none.
    ///
    /// # Errors
    /// The database cannot be written at present, or the store was closed.
    pub async fn set_settings(&self, changes: Vec<(String, Option<String>)>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Settings { changes, reply }).await
    }

    /// Changes the limits of retention.
    pub fn set_retention(&self, retain: Duration, max_size: u64) {
        self.inner.published.retention.send_replace(retention(retain, max_size));
        self.wake_writer(&mut self.places());
    }

    /// Keeps the database from growing beyond this many pages, as a full disk does; for tests.
    #[doc(hidden)]
    pub async fn limit_pages(&self, pages: Option<u32>) -> Result<(), StoreError> {
        self.ask(|reply| Job::LimitPages { pages, reply }).await
    }

    /// The status of the store.
    pub fn status(&self) -> watch::Receiver<StoreStatus> {
        self.inner.published.status.clone()
    }

    /// Counts of events since the store was opened.
    pub fn intake_counts(&self) -> watch::Receiver<IntakeCounts> {
        self.inner.published.counts.clone()
    }

    /// The signs of life of the writer and of the reader: each rests while there is nothing to do, and beats at least every
    /// few seconds otherwise, also while the disk fails. While its thread hangs it does neither.
    pub fn pulses(&self) -> (Pulse, Pulse) {
        (self.inner.published.pulse.clone(), self.inner.reader_pulse.clone())
    }

    /// Resolves when a thread of the store has ended although the store was not closed.
    pub async fn failed(&self) -> StoreError {
        let mut died = self.inner.died.clone();
        let why = died.wait_for(Option::is_some).await.map(|why| why.clone());
        match why {
            Ok(why) => why.unwrap_or(StoreError::Died("writer")),
            Err(_) => std::future::pending().await,
        }
    }

    /// Writes what is queued, checkpoints, ends the threads and unlocks the directory. Later calls
    /// fail; a second close does nothing.
    ///
    /// # Errors
    /// The queued requests cannot be written at present.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.bytes.close();
        self.inner.places.close();
        self.inner.read_places.close();
        let (reply, answer) = oneshot::channel();
        if self.inner.commands.try_send(Command { job: Job::Close { reply }, _place: None }).is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }
}
