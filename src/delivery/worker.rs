//! One sink's worker: read after the cursor, select, format, write, move the cursor.
//!
//! The cursor moves only after the sink has the lines safe, so a crash repeats what was in hand and
//! loses nothing. It is moved by a task of its own, so that the next batch does not wait for that.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::SinkOptions;
use super::format::eventsub_line;
use super::retry::{Decision, RetryLimits, decide};
use super::select::Selector;
use super::sink::Lines;
use crate::model::event::{Seq, StoredEvent};
use crate::model::route::{Routes, SinkName};
use crate::model::status::{SinkState, SinkStatus};
use crate::model::time::Timestamp;
use crate::store::{Store, StoreError};

/// Events in one batch.
const BATCH: usize = 1_000;
/// Bytes of payload in one batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// How long a write may go on after the worker was told to stop; a reader of standard output that
/// does not read must not hold up the end.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// Pauses while the store cannot be read or written.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The status of every sink.
pub(super) type Statuses = BTreeMap<SinkName, SinkStatus>;

/// One sink's worker.
pub(super) struct Worker {
    pub(super) options: SinkOptions,
    pub(super) selector: Selector,
    pub(super) lines: Box<dyn Lines>,
    pub(super) store: Store,
    pub(super) routes: watch::Receiver<Option<Arc<Routes>>>,
    pub(super) reopen: watch::Receiver<u64>,
    pub(super) statuses: Arc<watch::Sender<Statuses>>,
}

/// A batch as the sink gets it.
#[derive(Default)]
struct Batch {
    events: Vec<StoredEvent>,
    lines: Vec<u8>,
    /// Up to here everything is either in `events` or not for this sink.
    last: Seq,
    /// Of the first event.
    oldest: Option<Timestamp>,
}

enum Written {
    Yes,
    No(io::Error),
    /// Told to stop in the middle.
    Stopped,
}

impl Worker {
    /// Runs until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let Some(start) = self.start(&cancel).await else { return };
        let (moved, moves) = watch::channel(start);
        let keeper = tokio::spawn(keep_cursor(
            self.store.clone(),
            self.options.name.clone(),
            moves,
            Arc::clone(&self.statuses),
        ));
        let mut newest = self.store.last_seq();
        let mut cursor = start;
        let mut batch = Batch::default();
        loop {
            if *newest.borrow_and_update() <= cursor {
                self.show(|status| status.state = SinkState::Idle, cursor, None);
                tokio::select! {
                    () = cancel.cancelled() => break,
                    changed = newest.changed() => if changed.is_err() { break } else { continue },
                }
            }
            let read = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                read = self.store.read_after(cursor, BATCH, BATCH_BYTES) => read,
            };
            match read {
                Ok(events) if events.is_empty() => {
                    // Retention was quicker: there is nothing up to the newest that was seen.
                    cursor = *newest.borrow();
                    continue;
                }
                Ok(events) => self.fill(&mut batch, events),
                Err(StoreError::Closed) => break,
                Err(error) => {
                    warn!(sink = %self.options.name, %error, "the event store cannot be read; trying again");
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        () = tokio::time::sleep(STORE_PAUSE) => continue,
                    }
                }
            }
            if !self.deliver(&mut batch, cursor, &cancel).await {
                break;
            }
            cursor = batch.last;
            moved.send_replace(cursor);
        }
        drop(moved);
        let _ = keeper.await;
    }

    /// The cursor to begin at, once the routes are known.
    async fn start(&mut self, cancel: &CancellationToken) -> Option<Seq> {
        let record = loop {
            let record = tokio::select! {
                () = cancel.cancelled() => return None,
                record = self.store.sink(&self.options.name) => record,
            };
            match record {
                Ok(record) => break record,
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    warn!(sink = %self.options.name, %error, "the sink's place in the event store is not known yet");
                    tokio::select! {
                        () = cancel.cancelled() => return None,
                        () = tokio::time::sleep(STORE_PAUSE) => {}
                    }
                }
            }
        };
        let fresh = SinkStatus {
            name: self.options.name.clone(),
            kind: self.options.kind.name().to_owned(),
            state: SinkState::Idle,
            cursor: record.cursor,
            lag_events: 0,
            lag_seconds: 0,
            delivered: 0,
            retries: 0,
            dead_letters: record.dead_letters,
            lost: record.lost,
            problem: None,
        };
        self.statuses.send_modify(|statuses| {
            // A sink that was changed goes on counting.
            let old = statuses.remove(&self.options.name);
            let counted = old.map_or((0, 0), |old| (old.delivered, old.retries));
            let fresh = SinkStatus { delivered: counted.0, retries: counted.1, ..fresh };
            statuses.insert(self.options.name.clone(), fresh);
        });
        tokio::select! {
            () = cancel.cancelled() => None,
            known = self.routes.wait_for(Option::is_some) => known.is_ok().then_some(record.cursor),
        }
    }

    fn fill(&self, batch: &mut Batch, events: Vec<StoredEvent>) {
        let routes = self.routes.borrow().clone().unwrap_or_default();
        batch.last = events.last().map_or(batch.last, |event| event.seq);
        batch.oldest = events.first().map(|event| event.stored_at);
        batch.lines.clear();
        batch.events = events;
        batch.events.retain(|stored| self.selector.wants(&stored.event, &routes));
        for stored in &batch.events {
            eventsub_line(&stored.event, &mut batch.lines);
        }
    }

    /// Writes a batch until it is written or given up; false when told to stop before.
    async fn deliver(&mut self, batch: &mut Batch, cursor: Seq, cancel: &CancellationToken) -> bool {
        if batch.events.is_empty() {
            return true;
        }
        self.show(
            |status| {
                if status.state == SinkState::Idle {
                    status.state = SinkState::Delivering;
                }
            },
            cursor,
            batch.oldest,
        );
        let limits =
            RetryLimits { retry_max: self.options.retry_max, give_up_after: self.options.give_up_after };
        let mut failures = 0_u32;
        let mut failing_since = None;
        loop {
            let error = match self.write(batch, cancel).await {
                Written::Yes => {
                    if failures > 0 {
                        info!(sink = %self.options.name, failures, "sink works again");
                    }
                    let count = batch.events.len() as u64;
                    self.show(
                        |status| {
                            status.delivered += count;
                            status.problem = None;
                            status.state = SinkState::Delivering;
                        },
                        batch.last,
                        None,
                    );
                    return true;
                }
                Written::Stopped => return false,
                Written::No(error) => error,
            };
            failures = failures.saturating_add(1);
            let since = *failing_since.get_or_insert_with(Instant::now);
            if failures == 1 {
                warn!(sink = %self.options.name, %error, events = batch.events.len(), "sink failed; trying again");
            } else {
                debug!(sink = %self.options.name, %error, attempt = failures, "sink failed again");
            }
            let problem = error.to_string();
            self.show(
                |status| {
                    status.retries += 1;
                    status.problem = Some(problem.clone());
                    status.state = SinkState::Retrying;
                },
                cursor,
                batch.oldest,
            );
            match decide(failures, since.elapsed(), limits, fastrand::f64()) {
                Decision::Wait(pause) => {
                    if !self.pause(pause, cursor, batch.oldest, cancel).await {
                        return false;
                    }
                }
                Decision::GiveUp => return self.give_up(batch, &problem, cancel).await,
            }
        }
    }

    async fn pause(
        &mut self,
        pause: Duration,
        cursor: Seq,
        oldest: Option<Timestamp>,
        cancel: &CancellationToken,
    ) -> bool {
        let until = Instant::now() + pause;
        let mut reopen = self.reopen.clone();
        reopen.mark_unchanged();
        while Instant::now() < until {
            tokio::select! {
                () = cancel.cancelled() => return false,
                // A person who has just mended it does not want to wait.
                Ok(()) = reopen.changed() => return true,
                () = tokio::time::sleep_until(until.min(Instant::now() + Duration::from_secs(1))) => {}
            }
            self.show(|_| {}, cursor, oldest);
        }
        true
    }

    async fn give_up(&mut self, batch: &Batch, problem: &str, cancel: &CancellationToken) -> bool {
        error!(
            sink = %self.options.name, error = problem, events = batch.events.len(),
            "gave up on events after give_up_after; they are in the sink's dead letters"
        );
        for event in &batch.events {
            loop {
                match self.store.dead_letter(&self.options.name, event, problem).await {
                    Ok(record) => {
                        self.show(|status| status.dead_letters = record.dead_letters, event.seq, None);
                        break;
                    }
                    Err(StoreError::Closed) => return false,
                    Err(error) => {
                        warn!(sink = %self.options.name, %error, "a dead letter could not be stored; trying again");
                        tokio::select! {
                            () = cancel.cancelled() => return false,
                            () = tokio::time::sleep(STORE_PAUSE) => {}
                        }
                    }
                }
            }
        }
        true
    }

    /// One try, on a thread that may block.
    async fn write(&mut self, batch: &mut Batch, cancel: &CancellationToken) -> Written {
        let reopen = self.reopen.has_changed().unwrap_or(false);
        self.reopen.mark_unchanged();
        let mut lines = std::mem::replace(&mut self.lines, Box::new(Nowhere));
        let bytes = std::mem::take(&mut batch.lines);
        let work = tokio::task::spawn_blocking(move || {
            if reopen {
                lines.reopen();
            }
            let result = lines.write(&bytes);
            (lines, bytes, result)
        });
        let Some(done) = finish(work, cancel).await else {
            warn!(sink = %self.options.name, "stopped while the sink did not take its events; they are sent again at the next start");
            return Written::Stopped;
        };
        match done {
            Ok((lines, bytes, result)) => {
                self.lines = lines;
                batch.lines = bytes;
                result.map_or_else(Written::No, |()| Written::Yes)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn show(&self, change: impl FnOnce(&mut SinkStatus), cursor: Seq, oldest: Option<Timestamp>) {
        let newest = *self.store.last_seq().borrow();
        self.statuses.send_if_modified(|statuses| {
            let Some(status) = statuses.get_mut(&self.options.name) else { return false };
            let before = status.clone();
            change(status);
            status.cursor = status.cursor.max(cursor);
            status.lag_events = newest.0.saturating_sub(status.cursor.0);
            status.lag_seconds =
                oldest.map_or(0, |oldest| Timestamp(SystemTime::now()).since(oldest).as_secs());
            *status != before
        });
    }
}

/// Waits for a write; after the cancel only so long.
async fn finish<T>(
    mut work: JoinHandle<T>,
    cancel: &CancellationToken,
) -> Option<Result<T, tokio::task::JoinError>> {
    tokio::select! {
        biased;
        done = &mut work => return Some(done),
        () = cancel.cancelled() => {}
    }
    tokio::time::timeout(LAST_WRITE, work).await.ok()
}

/// Stands in while the real one is on the thread that writes.
struct Nowhere;

impl Lines for Nowhere {
    fn write(&mut self, _lines: &[u8]) -> io::Result<()> {
        Err(io::Error::other("the sink is busy"))
    }
}

/// Moves the cursor after the batches; what could not be moved at the end is sent again.
async fn keep_cursor(
    store: Store,
    name: SinkName,
    mut moves: watch::Receiver<Seq>,
    statuses: Arc<watch::Sender<Statuses>>,
) {
    let mut kept = *moves.borrow();
    loop {
        // An error means that the worker has ended; its last word may still be unread.
        let ended = moves.changed().await.is_err();
        let to = *moves.borrow_and_update();
        while kept < to {
            match store.advance(&name, to).await {
                Ok(record) => {
                    kept = to;
                    statuses.send_if_modified(|statuses| {
                        let Some(status) = statuses.get_mut(&name) else { return false };
                        let changed = status.lost != record.lost;
                        status.lost = record.lost;
                        changed
                    });
                }
                Err(StoreError::Closed) => return,
                Err(error) if ended => {
                    warn!(sink = %name, %error, "the sink's place could not be stored; its last events are sent again");
                    return;
                }
                Err(error) => {
                    warn!(sink = %name, %error, "the sink's place could not be stored; trying again");
                    tokio::time::sleep(STORE_PAUSE).await;
                    break;
                }
            }
        }
        if ended {
            return;
        }
        if kept < to {
            // The failed move is made up for by the next round.
            moves.mark_changed();
        }
    }
}
