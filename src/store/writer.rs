//! The writer thread: group commit, retention, and what to do while the disk fails.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::watch;
use tracing::{error, info};

use super::error::{self, StoreError};
use super::guard::DeathNotice;
use super::ids::{Ids, Mark, WINDOW};
use super::job::{Command, Done, Job, Reply, about_sink};
use super::retention::{self, Removed, Retention};
use super::{Appended, Clock, IntakeCounts, StoreOptions, dead_letters, events, settings, sinks};
use crate::model::event::Seq;
use crate::model::pulse::Pulse;
use crate::model::status::StoreStatus;
use crate::model::time::Timestamp;

/// Commands in one transaction.
const BATCH: usize = 4_096;
/// Rows that retention looks at in one slice while there is other work.
const SLICE: u64 = 500;
/// How often retention looks while nothing is written, and how often an idle thread shows that it lives.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// The first and the longest pause between tries while the disk fails.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the status is published while nothing is wrong.
const STATUS_PERIOD: Duration = Duration::from_millis(100);

/// What the writer publishes, and what it is told by value.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) last_seq: watch::Receiver<Seq>,
    pub(super) status: watch::Receiver<StoreStatus>,
    /// Why those who can come again need not even ask.
    pub(super) refusing: watch::Receiver<Option<Arc<str>>>,
    pub(super) counts: watch::Receiver<IntakeCounts>,
    pub(super) retention: watch::Sender<Retention>,
    /// Beats with every turn of the writer, also while the disk fails.
    pub(super) pulse: Pulse,
}

/// Owns the connection that writes.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    clock: Clock,
    ids: Ids,
    next: u64,
    counts: IntakeCounts,
    status: StoreStatus,
    published_at: Option<Instant>,
    last_seq_tx: watch::Sender<Seq>,
    status_tx: watch::Sender<StoreStatus>,
    refusing_tx: watch::Sender<Option<Arc<str>>>,
    counts_tx: watch::Sender<IntakeCounts>,
    retention: watch::Receiver<Retention>,
    retained_at: Option<Instant>,
    measured_at: Option<Instant>,
    pulse: Pulse,
    _lock: File,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
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
        let now = Timestamp((options.clock)()).unix_millis();
        let window = WINDOW.as_millis() as u64;
        let known = |id: &str| {
            ids.insert(ids.mark(id));
            ids.settle(opened);
        };
        events::message_ids(&connection, now, window, known).map_err(&read)?;
        // Now that everything was read once: a full batch of events has to fit, as what does not is written to the
        // log early, and again.
        connection.pragma_update(None, "cache_size", -8_000).map_err(&read)?;
        let (last_seq_tx, last_seq) = watch::channel(newest);
        let (status_tx, status_rx) = watch::channel(status.clone());
        let (refusing_tx, refusing) = watch::channel(None);
        let (counts_tx, counts) = watch::channel(IntakeCounts::default());
        let (retention_tx, retention) = watch::channel(keep);
        let writer = Self {
            connection,
            path: options.path.clone(),
            clock: Arc::clone(&options.clock),
            ids,
            next: newest.0 + 1,
            counts: IntakeCounts::default(),
            status,
            published_at: None,
            last_seq_tx,
            status_tx,
            refusing_tx,
            counts_tx,
            retention,
            retained_at: None,
            measured_at: None,
            pulse: Pulse::default(),
            _lock: lock,
        };
        let pulse = writer.pulse.clone();
        let published =
            Published { last_seq, status: status_rx, refusing, counts, retention: retention_tx, pulse };
        Ok((writer, published))
    }

    /// Runs the thread until the store is closed, or its handles are gone.
    pub(super) fn start(
        mut self,
        queue: Receiver<Command>,
        died: watch::Sender<Option<&'static str>>,
    ) -> io::Result<()> {
        thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let guard = DeathNotice::new("writer", died);
            let close = self.run(&queue);
            let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            drop(self);
            // Whoever waits for the close may open the database again at once.
            guard.expected();
            if let Some(reply) = close {
                let _ = reply.send(Ok(()));
            }
        })?;
        Ok(())
    }

    fn run(&mut self, queue: &Receiver<Command>) -> Option<Reply<()>> {
        let mut batch = Vec::new();
        loop {
            self.pulse.beat();
            match queue.recv_timeout(IDLE) {
                Ok(command) => batch.push(command),
                Err(RecvTimeoutError::Timeout) => {
                    self.idle();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            while batch.len() < BATCH
                && let Ok(command) = queue.try_recv()
            {
                batch.push(command);
            }
            let close = batch.iter().position(|c| matches!(c.job, Job::Close { .. }));
            if let Some(Command { job: closing, .. }) = close.map(|index| batch.remove(index)) {
                // Nothing follows a close but what was queued before it by others.
                batch.extend(queue.try_iter().filter(|c| !matches!(c.job, Job::Close { .. })));
                if let Err(problem) = self.commit_once(&mut batch) {
                    self.enter_failing(&problem);
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
            self.retain(SLICE.max(2 * batch.len() as u64));
            batch.clear();
            self.publish(false);
        }
    }

    /// Commits the batch; while that fails, refuses what can be refused and holds the rest.
    fn commit(&mut self, batch: &mut Vec<Command>, queue: &Receiver<Command>) {
        let mut pause = RETRY.0;
        loop {
            match self.commit_once(batch) {
                Ok(()) => {
                    if self.status.problem.take().is_some() {
                        info!(path = %self.path.display(), "events can be stored again");
                        self.refusing_tx.send_replace(None);
                        self.publish(true);
                    }
                    return;
                }
                Err(problem) => self.enter_failing(&problem),
            }
            self.pulse.beat();
            // While nothing else helps, room may: retention works on what is there.
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

    /// Answers everybody who can come again, and keeps the events of those who cannot.
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

    /// One transaction with everything; on success everybody is answered.
    fn commit_once(&mut self, batch: &mut Vec<Command>) -> rusqlite::Result<()> {
        let now = Timestamp((self.clock)()).unix_millis();
        let first = self.next;
        let mut done = Vec::with_capacity(batch.len());
        let begun = Instant::now();
        self.ids.settle(begun);
        let mut marks = Vec::with_capacity(batch.len());
        let written = self.write(batch, now, &mut done, &mut marks);
        if let Err(problem) = written {
            self.next = first;
            marks.into_iter().for_each(|mark| self.ids.remove(mark));
            self.status.commit_failures += 1;
            return Err(problem);
        }
        self.status.commits.add(begun.elapsed());
        let stored = self.next - first;
        self.counts.stored += stored;
        if stored > 0 {
            self.status.last_seq = Seq(self.next - 1);
            self.status.events += stored;
            if self.status.first_seq == Seq(0) {
                self.status.first_seq = Seq(first);
            }
            self.last_seq_tx.send_replace(self.status.last_seq);
        }
        for (command, outcome) in batch.drain(..).zip(done) {
            self.counts.duplicates += u64::from(matches!(outcome, Done::Appended(Appended::Duplicate)));
            command.job.answer(outcome);
        }
        self.counts_tx.send_replace(self.counts);
        Ok(())
    }

    /// Writes it all; `marks` gets those of the message ids that are new.
    fn write(
        &mut self,
        batch: &[Command],
        now: u64,
        done: &mut Vec<Done>,
        marks: &mut Vec<Mark>,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for command in batch {
            done.push(match &command.job {
                Job::Append { event, .. } => {
                    let mark = self.ids.mark(event.message_id.as_str());
                    if self.ids.insert(mark) {
                        marks.push(mark);
                        events::insert(&transaction, self.next, event, now)?;
                        self.next += 1;
                        Done::Appended(Appended::Stored(Seq(self.next - 1)))
                    } else {
                        Done::Appended(Appended::Duplicate)
                    }
                }
                Job::Sink(job, _) => Done::Sink(about_sink(&transaction, job, Seq(self.next - 1), now)?),
                Job::Retire { active, .. } => {
                    sinks::retire(&transaction, active, now)?;
                    Done::Unit
                }
                Job::Letters { filter, drop: false, .. } => {
                    Done::Count(dead_letters::mark(&transaction, filter)?)
                }
                Job::Letters { filter, drop: true, .. } => {
                    Done::Count(dead_letters::drop(&transaction, filter)?)
                }
                Job::Settings { changes, .. } => {
                    settings::save(&transaction, changes)?;
                    Done::Unit
                }
                Job::LimitPages { pages, .. } => {
                    transaction.pragma_update(None, "max_page_count", pages.unwrap_or(u32::MAX - 1))?;
                    Done::Unit
                }
                Job::Close { .. } => Done::Unit,
            });
        }
        transaction.commit()
    }

    fn limit_pages(&self, pages: Option<u32>) {
        let _ = self.connection.pragma_update(None, "max_page_count", pages.unwrap_or(u32::MAX - 1));
    }

    fn enter_failing(&mut self, problem: &rusqlite::Error) {
        let text = error::problem(&self.path, problem);
        if self.status.problem.is_none() {
            error!(error = text, "events cannot be stored; intake waits");
        }
        self.refusing_tx.send_replace(Some(text.as_str().into()));
        self.status.problem = Some(text);
        self.publish(true);
    }

    fn idle(&mut self) {
        // With nothing held, only a new event can show whether the disk works again.
        self.refusing_tx.send_if_modified(|refusing| refusing.take().is_some());
        self.retain(4 * SLICE);
        self.publish(true);
    }

    fn retain(&mut self, rows: u64) {
        let keep = *self.retention.borrow_and_update();
        self.status.max_size = keep.size;
        let due = self.retained_at.is_none_or(|at| at.elapsed() >= IDLE);
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
        let now = Timestamp((self.clock)()).unix_millis();
        match retention::slice(&mut self.connection, keep, now, rows) {
            Ok(Removed { events, more }) => {
                self.retained_at = (!more).then(Instant::now);
                if events > 0 {
                    self.status.events = self.status.events.saturating_sub(events);
                    self.status.removed += events;
                    if !more {
                        retention::report(self.status.removed, now);
                    }
                    let first = self.connection.query_row(
                        "SELECT seq FROM events WHERE payload IS NOT NULL ORDER BY seq LIMIT 1",
                        [],
                        |row| row.get(0),
                    );
                    self.status.first_seq = Seq(first.unwrap_or(0));
                }
            }
            // A disk that fails shows in the next commit, with what to do.
            Err(problem) => {
                self.retained_at = Some(Instant::now());
                tracing::debug!(error = %problem, "retention could not work");
            }
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
