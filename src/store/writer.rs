//! The writer thread: group commit, retention, and retries while the disk fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::age::{AgeClock, Reading};
use super::error::{self, StoreError};
use super::follower::Followers;
use super::guard::DeathNotice;
use super::ids::{Ids, Mark, Marker, WINDOW};
use super::job::{Command, Done, Job, Reply, SinkJob, about_sink};
use super::pending::{Counts, Pending};
use super::places::{self, Moved, Places};
use super::presence::Presence;
use super::recent::Recent;
use super::removals::{Removals, Summary};
use super::retention::{self, Removed, Retention, SinkLoss};
use super::write_ahead::WriteAhead;
use super::{
    Appended, Clock, IntakeCounts, StoreOptions, Ticks, counts, dead_letters, events, heap, last_known,
    settings, sinks,
};
use crate::model::event::{Event, OWN, Seq, StoredEvent};
use crate::model::happening;
use crate::model::last_known::News;
use crate::model::pulse::Pulse;
use crate::model::route::SinkName;
use crate::model::status::{ClockSet, StoreStatus};
use crate::model::time::Timestamp;

/// Commands in one transaction, and the bytes of payload above which it gets no more.
const BATCH: usize = 4_096;
const BATCH_BYTES: usize = 1 << 20;
/// Pages that the connection keeps, in KiB: those of a full transaction have to fit, as what does not is written to the log
/// early, and again.
const CACHE: i32 = 3_000;
/// Most events between two looks that are no burst.
const BURST: u64 = 1_000;
/// Rows of one slice of retention while there is other work.
const SLICE: u64 = 500;
/// Period of retention while events are written, and of all checks while something is wrong.
const BUSY: Duration = Duration::from_secs(1);
/// Longest time from a commit to the checks that follow it: the database file, events that are too old, memory to give back.
const IDLE: Duration = Duration::from_secs(5);
/// Period of the checks while nothing is written.
const QUIET: Duration = Duration::from_secs(15);
/// The first and the longest pause between tries while the disk fails.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Least time between two publications of the status while nothing is wrong.
const STATUS_PERIOD: Duration = Duration::from_millis(100);

/// Most rows that are moved forward with the store's clock once it is known for how long the machine was off.
const MOVED: u64 = 10_000;
/// Period of saving the store's clock. After a crash and a boot, up to this much time is not counted.
const SAVE: Duration = Duration::from_secs(3_600);
/// Time for which retention waits at a start for the workers of known sinks: only they know which events a sink would
/// lose.
const WORKERS: Duration = Duration::from_secs(10);
/// Time for which a wall clock that was set is shown as a problem, and the least time between two log lines about it.
const CLOCK_SHOWN: Duration = Duration::from_secs(3_600);
const CLOCK_LOGGED: Duration = Duration::from_secs(60);

/// The newest events whose identities are known again after a start: reading all of half an hour would take too long.
const HAPPENINGS: u64 = 50_000;

/// The channels between the writer and the handles of the store.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) last_seq: watch::Receiver<Seq>,
    pub(super) status: watch::Receiver<StoreStatus>,
    /// The problem for which `append` is refused without asking the writer.
    pub(super) refusing: watch::Receiver<Option<Arc<str>>>,
    pub(super) counts: watch::Receiver<IntakeCounts>,
    /// Losses of sinks since the database was made.
    pub(super) lost: watch::Receiver<Arc<BTreeMap<SinkName, u64>>>,
    pub(super) retention: watch::Sender<Retention>,
    /// Beats with every turn of the writer, also while the disk fails; rests while there is nothing to do.
    pub(super) pulse: Pulse,
}

/// Owns the connection that writes.
pub(super) struct Writer {
    connection: Connection,
    log: WriteAhead,
    path: PathBuf,
    clock: Clock,
    ticks: Ticks,
    age: AgeClock,
    saved_at: Option<Instant>,
    /// Time at which a change of the wall clock was noticed, and at which it was last logged.
    set_at: Option<Instant>,
    set_logged_at: Option<Instant>,
    followers: Followers,
    /// Sinks whose workers have not started yet, and the time until which retention waits for them.
    awaited: (BTreeSet<String>, Instant),
    removals: Removals,
    ids: Ids,
    /// The newest event when the store was opened.
    opened_at: Seq,
    next: u64,
    counts: IntakeCounts,
    status: StoreStatus,
    published_at: Option<Instant>,
    last_seq_tx: watch::Sender<Seq>,
    status_tx: watch::Sender<StoreStatus>,
    refusing_tx: watch::Sender<Option<Arc<str>>>,
    counts_tx: watch::Sender<IntakeCounts>,
    lost_tx: watch::Sender<Arc<BTreeMap<SinkName, u64>>>,
    retention: watch::Receiver<Retention>,
    retained_at: Option<Instant>,
    measured_at: Option<Instant>,
    pulse: Pulse,
    presence: Presence,
    places: Arc<Mutex<Places>>,
    /// Counts that are not in the database yet.
    pending: Arc<Mutex<Pending>>,
    /// The hour for which old counts were removed.
    pruned: Option<u64>,
    is_closing: bool,
    recent: Recent,
    /// End of the time in which sinks are expected to move because of the last commit.
    grace: Option<Instant>,
    /// Time of the last commit, and of the next check without a request.
    written_at: Instant,
    idle_at: Instant,
    /// The newest event at the last look for memory to give back, and whether a burst came since some was.
    looked_at: Seq,
    is_swollen: bool,
    _lock: File,
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        options: &StoreOptions,
        lock: File,
    ) -> Result<(Self, Published), StoreError> {
        let read = StoreError::sql("read its counters");
        let newest = events::newest(&connection).map_err(&read)?;
        let (count, first): (u64, u64) = connection
            .query_row(
                "SELECT count(*), coalesce(min(seq), 0) FROM events WHERE payload IS NOT NULL",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(&read)?;
        let keep = options.retention();
        let status = StoreStatus {
            last_seq: newest,
            first_seq: Seq(first),
            events: count,
            size: retention::used(&connection).map_err(&read)?,
            max_size: keep.size,
            ..StoreStatus::default()
        };
        let opened = Instant::now();
        let mut ids = Ids::new(opened);
        let marker = ids.marker();
        let now = reading(&options.clock, &options.ticks);
        let newest_age = connection
            .query_row("SELECT elapsed FROM events ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(&read)?;
        let saved = events::saved_clock(&connection).map_err(&read)?;
        let witness = events::witness(&connection).map_err(&read)?;
        let age = AgeClock::open(saved.as_ref(), newest_age.unwrap_or(0), witness, &now);
        let awaited = connection
            .prepare("SELECT name FROM sinks WHERE gone_at IS NULL")
            .and_then(|mut known| known.query_map([], |row| row.get(0))?.collect())
            .map_err(&read)?;
        let window = WINDOW.as_millis() as u64;
        let known = |id: &str| {
            ids.insert(marker.mark(id));
            ids.compact(opened);
        };
        let stored = events::message_ids(&connection, age.elapsed(&now), window, known).map_err(&read)?;
        let known = |event: &Event| {
            if let Some(identity) = happening::identity(event) {
                ids.insert(marker.mark(identity));
                ids.compact(opened);
            }
        };
        events::payloads(&connection, stored, HAPPENINGS, known).map_err(&read)?;
        let pending = counts::recount(&mut connection, opened).map_err(&read)?;
        // Now that everything was read once.
        connection.pragma_update(None, "cache_size", -CACHE).map_err(&read)?;
        let log = WriteAhead::of(&mut connection, &options.path, options.max_size).map_err(&read)?;
        let (last_seq_tx, last_seq) = watch::channel(newest);
        let (status_tx, status_rx) = watch::channel(status.clone());
        let (refusing_tx, refusing) = watch::channel(None);
        let (counts_tx, counts) = watch::channel(IntakeCounts::default());
        let (lost_tx, lost) = watch::channel(Arc::default());
        let (retention_tx, retention) = watch::channel(keep);
        let writer = Self {
            connection,
            log,
            path: options.path.clone(),
            clock: Arc::clone(&options.clock),
            ticks: Arc::clone(&options.ticks),
            age,
            saved_at: None,
            set_at: None,
            set_logged_at: None,
            followers: Followers::new(),
            awaited: (awaited, opened + WORKERS),
            removals: Removals::default(),
            ids,
            opened_at: newest,
            next: newest.0 + 1,
            counts: IntakeCounts::default(),
            status,
            published_at: None,
            last_seq_tx,
            status_tx,
            refusing_tx,
            counts_tx,
            lost_tx,
            retention,
            retained_at: None,
            measured_at: None,
            pulse: Pulse::default(),
            presence: Presence::new(&options.path).map_err(StoreError::io(&options.path))?,
            places: Arc::default(),
            pending: Arc::new(Mutex::new(pending)),
            pruned: None,
            is_closing: false,
            recent: Recent::new(newest, options.recent_bytes),
            grace: None,
            written_at: opened,
            idle_at: opened + BUSY,
            looked_at: newest,
            is_swollen: false,
            _lock: lock,
        };
        let pulse = writer.pulse.clone();
        let published =
            Published { last_seq, status: status_rx, refusing, counts, lost, retention: retention_tx, pulse };
        Ok((writer, published))
    }

    /// The places that wait to be stored.
    pub(super) fn places(&self) -> Arc<Mutex<Places>> {
        Arc::clone(&self.places)
    }

    /// The counts that are not in the database yet.
    pub(super) fn pending(&self) -> Arc<Mutex<Pending>> {
        Arc::clone(&self.pending)
    }

    /// The maker of marks of message ids and happenings.
    pub(super) fn marker(&self) -> Marker {
        self.ids.marker()
    }

    /// The newest events in memory.
    pub(super) fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// Runs the thread until the store is closed, or its handles are gone.
    pub(super) fn start(
        mut self,
        queue: Receiver<Command>,
        died: watch::Sender<Option<StoreError>>,
    ) -> io::Result<()> {
        thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let guard = DeathNotice::new("writer", died);
            self.save_clock();
            let close = self.run(&queue);
            self.is_closing = true;
            self.store_last_state();
            self.save_clock();
            if let Some(summary) = self.removals.rest() {
                log_summary(summary);
            }
            let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            let lost = self.presence.is_lost(Instant::now()).then(|| self.path.clone());
            drop(self);
            // The caller of `close` may open the database again at once.
            match lost {
                Some(path) => guard.because(StoreError::Gone { path }),
                None => guard.expected(),
            }
            if let Some(reply) = close {
                let _ = reply.send(Ok(()));
            }
        })?;
        Ok(())
    }

    fn run(&mut self, queue: &Receiver<Command>) -> Option<Reply<()>> {
        let mut batch = Vec::new();
        loop {
            if batch.is_empty() {
                let pause = self.pause();
                self.pulse.rest();
                match queue.recv_timeout(pause) {
                    Ok(command) => batch.push(command),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            }
            self.pulse.beat();
            fill(&mut batch, queue);
            batch.retain(|command| !self.is_wake(command));
            if batch.is_empty() {
                self.handle_wakeup();
                if self.presence.is_lost(Instant::now()) {
                    return None;
                }
                continue;
            }
            let close = batch.iter().position(|c| matches!(c.job, Job::Close { .. }));
            if let Some(Command { job: closing, .. }) = close.map(|index| batch.remove(index)) {
                // Only requests that were queued before the close are left.
                batch.extend(queue.try_iter().filter(|c| !matches!(c.job, Job::Close { .. } | Job::Wake)));
                if let Err(problem) = self.commit_once(&mut batch) {
                    self.enter_failing(problem);
                    closing.refuse(self.failing());
                    return None;
                }
                self.publish(true);
                return match closing {
                    Job::Close { reply } => Some(reply),
                    _ => None,
                };
            }
            self.commit(&mut batch, queue);
            if self.presence.is_lost(Instant::now()) {
                return None;
            }
            self.retain(SLICE.max(2 * batch.len() as u64));
            batch.clear();
            self.publish(false);
            batch.extend(queue.try_recv());
            self.log.copy(&self.connection, batch.is_empty());
        }
    }

    fn lock_places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long the writer may sleep.
    fn pause(&self) -> Duration {
        let until = self.lock_places().wait(self.grace);
        let until = until.map_or(self.idle_at, |until| until.min(self.idle_at));
        until.saturating_duration_since(Instant::now())
    }

    fn is_wake(&self, command: &Command) -> bool {
        let is_wake = matches!(command.job, Job::Wake);
        if is_wake {
            self.lock_places().wake_received();
        }
        is_wake
    }

    /// Does what is due without a request.
    fn handle_wakeup(&mut self) {
        let now = Instant::now();
        let is_due = self.lock_places().are_awaited(now);
        if is_due {
            self.store_places();
        }
        if now >= self.idle_at {
            self.idle();
        } else if self.retention.has_changed().unwrap_or(false) {
            self.retained_at = None;
            self.retain(SLICE);
        }
        if self.grace.take_if(|grace| *grace <= now).is_some() {
            self.publish(true);
        }
        self.log.copy(&self.connection, true);
    }

    fn store_places(&mut self) {
        match self.commit_once(&mut Vec::new()) {
            Ok(()) => self.leave_failing(),
            Err(problem) => self.enter_failing(problem),
        }
    }

    /// Stores places and counts at the end. If that fails, sinks get their last events again.
    fn store_last_state(&mut self) {
        if self.lock_places().is_empty() && self.lock_pending().is_empty() {
            return;
        }
        if let Err(problem) = self.commit_once(&mut Vec::new()) {
            warn!(
                error = problem,
                "the places of sinks could not be stored; they get their last events again"
            );
        }
    }

    /// Commits the batch; while that fails, refuses what can be refused and holds the rest.
    fn commit(&mut self, batch: &mut Vec<Command>, queue: &Receiver<Command>) {
        let mut pause = RETRY.0;
        loop {
            match self.commit_once(batch) {
                Ok(()) => {
                    self.leave_failing();
                    return;
                }
                Err(problem) => self.enter_failing(problem),
            }
            if self.presence.is_lost(Instant::now()) {
                return;
            }
            self.pulse.beat();
            // Room on the disk may help: retention removes what it can.
            self.retained_at = None;
            self.retain(SLICE);
            self.refuse(batch);
            let until = Instant::now() + pause;
            pause = (pause * 2).min(RETRY.1);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                match queue.recv_timeout(left) {
                    Ok(Command { job: Job::LimitPages { pages, reply }, .. }) => {
                        self.limit_pages(pages);
                        let _ = reply.send(Ok(()));
                    }
                    Ok(command) if self.is_wake(&command) => {}
                    Ok(command) => {
                        let closing = matches!(command.job, Job::Close { .. });
                        batch.push(command);
                        self.refuse(batch);
                        if closing {
                            return;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if batch.is_empty() {
                return;
            }
        }
    }

    /// Refuses every request but pushed events, whose senders cannot send them again.
    fn refuse(&self, batch: &mut Vec<Command>) {
        let (failing, mut held) = (self.failing(), Vec::new());
        for command in batch.drain(..) {
            match command.job {
                Job::Append { held: true, .. } => held.push(command),
                job => job.refuse(failing.clone()),
            }
        }
        *batch = held;
    }

    fn failing(&self) -> StoreError {
        StoreError::Failing(self.status.problem.as_deref().unwrap_or("the event store fails").into())
    }

    /// Writes the batch in one transaction. On success all callers get their results.
    fn commit_once(&mut self, batch: &mut Vec<Command>) -> Result<(), String> {
        self.presence.check(Instant::now())?;
        let now = self.read_clocks();
        let first = self.next;
        let mut done = Vec::with_capacity(batch.len());
        let begun = Instant::now();
        self.ids.compact(begun);
        let mut marks = Vec::with_capacity(batch.len());
        // Other jobs than events may ask for a place, or change it.
        let all = batch.is_empty() || batch.iter().any(|command| !matches!(command.job, Job::Append { .. }));
        let moved = {
            let mut places = self.lock_places();
            if all || places.are_ripe(begun) { places.take() } else { Moved::new() }
        };
        let counted = {
            let pending = self.lock_pending();
            let is_due = pending.is_due(begun) || (self.is_closing && !pending.is_empty());
            is_due.then(|| pending.counts())
        };
        let written = self.write(batch, &now, &moved, counted.as_ref(), &mut done, &mut marks);
        if let Err(problem) = written {
            self.lock_places().put_back(moved, begun);
            self.next = first;
            marks.into_iter().for_each(|mark| self.ids.remove(mark));
            self.status.commit_failures += 1;
            return Err(error::problem(&self.path, &problem));
        }
        if let Some(counts) = counted {
            self.lock_pending().written(counts.last);
        }
        self.status.commits.add(begun.elapsed());
        self.written_at = begun;
        self.idle_at = self.idle_at.min(begun + IDLE);
        let stored = self.next - first;
        self.counts.stored += stored;
        if stored > 0 {
            self.use_witness(batch, &now);
            self.status.last_seq = Seq(self.next - 1);
            self.status.events += stored;
            if self.status.first_seq == Seq(0) {
                self.status.first_seq = Seq(first);
            }
            self.grace = Some(Instant::now() + places::LIMIT);
        }
        self.confirm(batch, done, Timestamp::from_unix_millis(now.wall));
        Ok(())
    }

    /// Publishes committed events to the workers of sinks, and sends the results to the callers.
    fn confirm(&mut self, batch: &mut Vec<Command>, done: Vec<Done>, stored_at: Timestamp) {
        let (mut fresh, mut others) = (Vec::with_capacity(batch.len()), Vec::new());
        let mut appended = Vec::with_capacity(batch.len());
        for (command, outcome) in batch.drain(..).zip(done) {
            match (command.job, outcome) {
                (Job::Append { event, reply, .. }, Done::Appended(outcome)) => {
                    match outcome {
                        Appended::Stored(seq) => fresh.push(Arc::new(StoredEvent { seq, stored_at, event })),
                        Appended::Duplicate => self.counts.duplicates += 1,
                        Appended::Double => self.counts.doubles += 1,
                    }
                    appended.extend(reply.map(|reply| (reply, outcome)));
                }
                other => others.push(other),
            }
        }
        if !fresh.is_empty() {
            self.count(&fresh);
            self.recent.push(fresh);
            self.last_seq_tx.send_replace(self.status.last_seq);
        }
        for (reply, outcome) in appended {
            // A caller that no longer waits is not an error.
            let _ = reply.send(Ok(outcome));
        }
        others.into_iter().for_each(|(job, outcome)| job.answer(outcome));
        self.counts_tx.send_replace(self.counts);
    }

    fn count(&self, stored: &[Arc<StoredEvent>]) {
        let (now, mut pending) = (Instant::now(), self.lock_pending());
        for stored in stored {
            let StoredEvent { seq, stored_at, event } = &**stored;
            let at = stored_at.unix_millis();
            pending.add(*seq, &event.subscription_type, &event.subscription_id, at, now);
            pending.add_minute(&event.subscription_type, at);
        }
    }

    /// Writes places, counts and the batch. Adds the marks of new message ids to `marks`.
    fn write(
        &mut self,
        batch: &[Command],
        now: &Reading,
        moved: &Moved,
        counted: Option<&Counts>,
        done: &mut Vec<Done>,
        marks: &mut Vec<Mark>,
    ) -> rusqlite::Result<()> {
        let elapsed = self.age.elapsed(now);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (name, place) in moved {
            sinks::advance(&transaction, name, place.cursor, &place.done)?;
        }
        if let Some(counts) = counted {
            counts::write(&transaction, counts)?;
            let hour = now.wall / 3_600_000;
            if self.pruned.replace(hour) != Some(hour) {
                counts::prune(&transaction)?;
            }
        }
        let mut insertion = events::insertion(&transaction)?;
        for command in batch {
            done.push(match &command.job {
                Job::Append { event, mark, happening, news, .. } => {
                    let is_new = is_new(&mut self.ids, *mark, *happening, marks);
                    let outcome = match is_new {
                        Ok(()) if is_told(&transaction, news.as_deref(), elapsed)? => Appended::Double,
                        Ok(()) => {
                            events::insert(&mut insertion, self.next, event, now.wall, elapsed)?;
                            self.next += 1;
                            Appended::Stored(Seq(self.next - 1))
                        }
                        Err(outcome) => outcome,
                    };
                    Done::Appended(outcome)
                }
                Job::Sink(job, _) => {
                    if let SinkJob::Start { name, follower, .. } = job {
                        self.awaited.0.remove(name.as_str());
                        self.followers.insert(name.as_str().to_owned(), follower.clone());
                        self.recent.follow(follower);
                    }
                    Done::Sink(about_sink(&transaction, job, Seq(self.next - 1), now.wall)?)
                }
                Job::Retire { active, .. } => {
                    let is_active = |name: &str| active.iter().any(|sink| sink.as_str() == name);
                    self.followers.retain(|name, _| is_active(name));
                    self.awaited.0.retain(|name| is_active(name));
                    sinks::retire(&transaction, active, elapsed)?;
                    Done::Unit
                }
                Job::DeadLetters { filter, drop: false, .. } => {
                    Done::Count(dead_letters::mark(&transaction, filter)?)
                }
                Job::DeadLetters { filter, drop: true, .. } => {
                    Done::Count(dead_letters::drop(&transaction, filter)?)
                }
                Job::Replay { name, part, .. } => {
                    let follower = self.followers.get(name.as_str());
                    let wants = |kind: &str, version: &str, payload: &[u8]| {
                        follower.is_some_and(|follower| follower.wants(kind, version, payload))
                    };
                    let (count, looked) =
                        dead_letters::copy_for_replay(&transaction, name, part, &wants, now.wall)?;
                    Done::Copied(count, looked)
                }
                Job::Settings { changes, .. } => {
                    settings::save(&transaction, changes)?;
                    Done::Unit
                }
                Job::Learn { news, .. } => {
                    for news in news {
                        last_known::apply(&transaction, news, elapsed)?;
                    }
                    Done::Unit
                }
                Job::ForgetChannels { channels, .. } => {
                    match channels {
                        Some(channels) => last_known::remove(&transaction, channels)?,
                        None => last_known::clear(&transaction)?,
                    }
                    Done::Unit
                }
                Job::LimitPages { pages, .. } => {
                    transaction.pragma_update(None, "max_page_count", pages.unwrap_or(u32::MAX - 1))?;
                    Done::Unit
                }
                Job::Close { .. } | Job::Wake => Done::Unit,
            });
        }
        drop(insertion);
        transaction.commit()
    }

    fn limit_pages(&self, pages: Option<u32>) {
        let _ = self.connection.pragma_update(None, "max_page_count", pages.unwrap_or(u32::MAX - 1));
    }

    fn enter_failing(&mut self, text: String) {
        if self.status.problem.is_none() {
            error!(error = text, "events cannot be stored; intake waits");
        }
        self.refusing_tx.send_replace(Some(text.as_str().into()));
        self.status.problem = Some(text);
        self.idle_at = self.idle_at.min(Instant::now() + BUSY);
        self.publish(true);
    }

    fn leave_failing(&mut self) {
        if self.status.problem.take().is_some() {
            info!(path = %self.path.display(), "events can be stored again");
            self.refusing_tx.send_replace(None);
            self.publish(true);
        }
    }

    fn idle(&mut self) {
        self.check();
        self.give_memory_back();
        let is_quiet = self.status.problem.is_none()
            && !self.is_swollen
            && self.retained_at.is_some_and(|at| at > self.written_at);
        self.idle_at = Instant::now() + if is_quiet { QUIET } else { BUSY };
    }

    /// Gives the memory back that a burst of events has left, once it is over: pages of the database, and free blocks
    /// between others.
    fn give_memory_back(&mut self) {
        if self.grace.is_some() {
            return;
        }
        let came = self.next - 1 - self.looked_at.0;
        self.looked_at = Seq(self.next - 1);
        if came > BURST {
            self.is_swollen = true;
        } else if std::mem::take(&mut self.is_swollen) {
            let _ = self.connection.execute_batch("PRAGMA shrink_memory");
            heap::trim();
        }
    }

    fn check(&mut self) {
        let was_gone = self.presence.is_gone();
        if let Err(problem) = self.presence.check(Instant::now()) {
            return self.enter_failing(problem);
        }
        if was_gone {
            self.leave_failing();
        }
        // With nothing held, only a new event can show whether the disk works again.
        self.refusing_tx.send_if_modified(|refusing| refusing.take().is_some());
        self.retain(4 * SLICE);
        self.publish(true);
    }

    fn retain(&mut self, rows: u64) {
        let keep = *self.retention.borrow_and_update();
        self.status.max_size = keep.size;
        let due = self.retained_at.is_none_or(|at| at.elapsed() >= BUSY);
        if !due {
            // The size costs about as much as writing an event does.
            if self.measured_at.is_some_and(|at| at.elapsed() < STATUS_PERIOD) {
                return;
            }
            self.measured_at = Some(Instant::now());
            if !retention::used(&self.connection).is_ok_and(|used| used > keep.size) {
                return;
            }
        }
        let now = self.read_clocks();
        let elapsed = self.age.elapsed(&now);
        // Removal by age can wait until the workers tell which events their sinks would lose; removal by size cannot.
        let by_age = self.awaited.0.is_empty() || Instant::now() >= self.awaited.1;
        match retention::slice(
            &mut self.connection,
            keep,
            elapsed,
            by_age,
            rows,
            &self.followers,
            &self.recent,
        ) {
            Ok(removed) => {
                let Removed { events: summary, more, .. } = removed;
                let events = summary.by_age + summary.by_size;
                self.retained_at = (!more).then(Instant::now);
                self.report_removed(&removed);
                if events > 0 {
                    self.status.events = self.status.events.saturating_sub(events);
                    self.status.removed += events;
                    let first = self.connection.query_row(
                        "SELECT seq FROM events WHERE payload IS NOT NULL ORDER BY seq LIMIT 1",
                        [],
                        |row| row.get(0),
                    );
                    self.status.first_seq = Seq(first.unwrap_or(0));
                }
            }
            // The next commit reports a failing disk, with what to do.
            Err(problem) => {
                self.retained_at = Some(Instant::now());
                tracing::debug!(error = %problem, "retention could not work");
            }
        }
    }

    /// Reads the clocks. Reports a wall clock that was set, which affects nothing but the dates of events.
    fn read_clocks(&mut self) -> Reading {
        let now = reading(&self.clock, &self.ticks);
        let here = Instant::now();
        if let Some(jump) = self.age.jump(&now) {
            let (at, by_seconds) = (Timestamp::from_unix_millis(now.wall), jump / 1_000);
            self.status.clock_set = Some(ClockSet { at, by_seconds });
            self.set_at = Some(here);
            if self.set_logged_at.is_none_or(|at| here.duration_since(at) >= CLOCK_LOGGED) {
                self.set_logged_at = Some(here);
                warn!(
                    by_seconds,
                    "the clock of this machine was set; events keep their age, and none is removed for it"
                );
            }
        } else if self.set_at.is_some_and(|at| here.duration_since(at) >= CLOCK_SHOWN) {
            self.set_at = None;
            self.status.clock_set = None;
        }
        if self.saved_at.is_none_or(|at| here.duration_since(at) >= SAVE) {
            self.save_clock();
        }
        now
    }

    /// Saves the store's clock. The next commit reports a failing disk, and the next call tries again.
    fn save_clock(&mut self) {
        let saved = self.age.saved(&reading(&self.clock, &self.ticks));
        self.saved_at = events::save_clock(&self.connection, &saved).is_ok().then(Instant::now);
    }

    /// After a boot, uses the timestamps of Twitch's messages to find out how long the machine was off.
    fn use_witness(&mut self, stored: &[Command], now: &Reading) {
        if !self.age.awaits_witness() {
            return;
        }
        let sent = stored.iter().rev().find_map(|command| match &command.job {
            // Events of ours have the time of this machine.
            Job::Append { event, .. }
                if !event.subscription_type.starts_with(OWN) && !event.is_caught_up() =>
            {
                Timestamp::parse(&event.message_timestamp)
            }
            _ => None,
        });
        let missed = sent.map_or(0, |sent| self.age.missed(sent.unix_millis(), now));
        if self.next - self.opened_at.0 > MOVED {
            self.age.dismiss_witness();
        } else if missed > 0 {
            let mut age = self.age.clone();
            age.advance(missed, now);
            let (last, opened) = (self.opened_at, age.opened());
            // If that fails, the next message gives the same result.
            if events::advance_clock(&mut self.connection, last, opened, missed, &age.saved(now)).is_ok() {
                self.age = age;
            }
        }
    }

    /// Counts and logs what retention removed.
    fn report_removed(&mut self, removed: &Removed) {
        let now = Instant::now();
        self.removals.add(removed.events, now);
        let why =
            if removed.events.by_age > 0 { "older than store.retain" } else { "more than store.max_size" };
        for SinkLoss { sink, events, .. } in &removed.losses {
            if let Some(events) = self.removals.lost(sink, *events, now) {
                warn!(sink, events, why, "events were removed before the sink had them");
            }
        }
        for SinkLoss { sink, events, .. } in &removed.dead_letters {
            warn!(sink, events, why = "more than store.max_size", "dead letters were removed");
        }
        for (sink, events) in self.removals.due_losses(now) {
            warn!(sink, events, "more events were removed before the sink had them");
        }
        if !removed.losses.is_empty() || !removed.dead_letters.is_empty() {
            self.lost_tx.send_modify(|lost| {
                let lost = Arc::make_mut(lost);
                for loss in removed.losses.iter().chain(&removed.dead_letters) {
                    lost.insert(SinkName::new(loss.sink.as_str()), loss.total);
                }
            });
        }
        if let Some(summary) = self.removals.due(removed.more, now) {
            log_summary(summary);
        }
    }

    fn publish(&mut self, now: bool) {
        if !now && self.published_at.is_some_and(|at| at.elapsed() < STATUS_PERIOD) {
            return;
        }
        self.published_at = Some(Instant::now());
        if let Ok(used) = retention::used(&self.connection) {
            self.status.size = used;
        }
        let status = &self.status;
        self.status_tx.send_if_modified(|published| {
            let changed = published != status;
            published.clone_from(status);
            changed
        });
    }
}

/// Adds what lies in the queue, as far as one transaction takes it.
fn fill(batch: &mut Vec<Command>, queue: &Receiver<Command>) {
    let mut bytes: usize = batch.iter().map(|command| command.job.bytes()).sum();
    while batch.len() < BATCH
        && bytes < BATCH_BYTES
        && let Ok(command) = queue.try_recv()
    {
        bytes += command.job.bytes();
        batch.push(command);
    }
}

/// Adds the marks of an event to those that are known, and new ones to `marks`. An error says as what the event is known.
fn is_new(ids: &mut Ids, mark: Mark, happening: Option<Mark>, marks: &mut Vec<Mark>) -> Result<(), Appended> {
    if !ids.insert(mark) {
        return Err(Appended::Duplicate);
    }
    marks.push(mark);
    if let Some(happening) = happening {
        if !ids.insert(happening) {
            return Err(Appended::Double);
        }
        marks.push(happening);
    }
    Ok(())
}

fn is_told(connection: &Connection, news: Option<&News>, now: u64) -> rusqlite::Result<bool> {
    news.map_or(Ok(false), |news| Ok(!last_known::apply(connection, news, now)?))
}

fn reading(clock: &Clock, ticks: &Ticks) -> Reading {
    Reading { tick: ticks(), wall: Timestamp(clock()).unix_millis() }
}

fn log_summary(summary: Summary) {
    let Summary { by_age, by_size, until } = summary;
    info!(
        events = by_age + by_size,
        too_old = by_age,
        too_much = by_size,
        until = %Timestamp::from_unix_millis(until),
        "retention removed events since the last summary"
    );
}
