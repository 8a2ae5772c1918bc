//! The worker of a sink that takes many events at once: reads after the cursor, selects, formats, writes, and moves the
//! cursor.
//!
//! The cursor moves only after the sink has stored the lines, so a crash repeats events and loses none. The store writes the
//! cursor a little later, and the next batch does not wait for that.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Span, debug, error, info, warn};

use super::retry::{Decision, Failure, decide};
use super::sink::Lines;
use super::worker::{Command, End, Failures, Skipped, Worker};
use crate::model::event::{Seq, StoredEvent};
use crate::model::status::SinkState;
use crate::model::time::Timestamp;
use crate::store::{GivenUp, Keep};

/// Most events of a batch.
const BATCH: usize = 1_000;
/// Size from which a batch is followed by a pause, and the length of the pause: events that come in such numbers share the
/// next sync, instead of having one for each few.
const GATHER_FROM: usize = 16;
const GATHER: Duration = Duration::from_millis(5);
/// Approximate limit of the payload bytes of a batch.
const BATCH_BYTES: usize = 1 << 20;
/// Time for the current write after a stop of the daemon: a stalled reader of standard output must not hold up the end.
const LAST_WRITE: Duration = Duration::from_secs(2);

pub(super) struct BatchWorker {
    pub(super) worker: Worker,
    pub(super) lines: Box<dyn Lines>,
}

/// The events and the lines of a batch.
#[derive(Default)]
struct Batch {
    events: Vec<Arc<StoredEvent>>,
    lines: Vec<u8>,
    /// The last event that was read; those up to it are either in `events` or not for this sink.
    last: Seq,
}

enum Written {
    Yes,
    No(io::Error),
    /// The worker was stopped meanwhile.
    Stopped,
}

enum Delivered {
    Yes,
    GivenUp(GivenUp),
    /// A person skipped the first event; the others are still to be delivered.
    Skipped(GivenUp),
    /// The worker was stopped before.
    Stopped,
}

/// Reason why the pause before another try ends.
enum Paused {
    /// The pause is over, or a person wants the next try now.
    Over,
    /// A person skips the first event.
    Skip(oneshot::Sender<Option<Skipped>>),
    Stopped,
}

impl BatchWorker {
    /// Runs until it is stopped, or has delivered all that it was to deliver.
    pub(super) async fn run(mut self) -> End {
        let Some(record) = self.worker.start().await else { return End::Stopped };
        if self.resend_dead_letters(record.cursor).await.is_none() {
            return End::Stopped;
        }
        self.follow(record.cursor).await.unwrap_or(End::Stopped)
    }

    /// Delivers the events after the cursor. Returns `None` when it is stopped.
    async fn follow(&mut self, mut cursor: Seq) -> Option<End> {
        let mut newest = self.worker.log.changes();
        let mut batch = Batch::default();
        let stop = self.worker.stop.clone();
        loop {
            let to = self.worker.log.clip(*newest.borrow_and_update());
            if to <= cursor {
                if self.worker.log.is_through(cursor) {
                    return Some(End::Through);
                }
                self.worker.progress(cursor, 0);
                self.worker.show(|status| status.state = SinkState::Idle, cursor);
                tokio::select! {
                    () = stop.soon.cancelled() => return None,
                    changed = newest.changed() => changed.ok()?,
                    Some(command) = self.worker.commands.recv() => match command {
                        Command::Retry(reply) => drop(reply.send(())),
                        Command::Skip(reply) => drop(reply.send(None)),
                    },
                }
                continue;
            }
            let events = tokio::select! {
                biased;
                () = stop.soon.cancelled() => return None,
                events = self.worker.insist("reading events", || {
                    self.worker.log.read_for(&self.worker.follower, cursor, BATCH, BATCH_BYTES)
                }) => events?,
            };
            if events.is_empty() {
                // Nothing is left up to the newest event.
                cursor = to;
                continue;
            }
            self.fill(&mut batch, events);
            self.worker.progress(batch.last, batch.events.len() as u64);
            self.worker.count_backlog().await;
            loop {
                match self.deliver(&mut batch, cursor).await {
                    Delivered::Yes => break,
                    Delivered::Stopped => return None,
                    Delivered::GivenUp(why) => {
                        for event in &batch.events {
                            self.worker.to_dead_letters(event, &why).await?;
                        }
                        break;
                    }
                    Delivered::Skipped(why) => {
                        let skipped = batch.events.remove(0);
                        self.worker.progress(batch.last, batch.events.len() as u64);
                        self.worker.to_dead_letters(&skipped, &why).await?;
                        self.write_lines(&mut batch);
                    }
                }
            }
            cursor = batch.last;
            let keep = if batch.events.is_empty() { Keep::Lazily } else { Keep::Soon };
            self.worker.keep_place(cursor.into(), keep);
            if (GATHER_FROM..BATCH).contains(&batch.events.len()) {
                tokio::select! {
                    () = stop.soon.cancelled() => return None,
                    () = tokio::time::sleep(GATHER) => {}
                }
            }
        }
    }

    /// Delivers the dead letters to be sent again. Returns `None` when it is stopped.
    async fn resend_dead_letters(&mut self, cursor: Seq) -> Option<()> {
        let mut after = 0;
        loop {
            let letters = self.worker.dead_letters(after).await?;
            let Some(last) = letters.last() else { return Some(()) };
            after = last.id;
            let events = letters.iter().map(|letter| Arc::new(letter.event.clone())).collect();
            let mut batch = Batch { events, ..Batch::default() };
            let mut ids: VecDeque<i64> = letters.iter().map(|letter| letter.id).collect();
            self.write_lines(&mut batch);
            let outcome = loop {
                match self.deliver(&mut batch, cursor).await {
                    Delivered::Yes => break Ok(()),
                    Delivered::GivenUp(why) => break Err(why),
                    Delivered::Stopped => return None,
                    Delivered::Skipped(why) => {
                        batch.events.remove(0);
                        if let Some(id) = ids.pop_front() {
                            self.worker.resent(id, Err(&why)).await?;
                        }
                        self.write_lines(&mut batch);
                    }
                }
            };
            for id in ids {
                self.worker.resent(id, outcome.as_ref().copied()).await?;
            }
        }
    }

    fn fill(&self, batch: &mut Batch, events: Vec<Arc<StoredEvent>>) {
        let routes = self.worker.routes.borrow().clone().unwrap_or_default();
        batch.last = events.last().map_or(batch.last, |event| event.seq);
        batch.events = events;
        batch.events.retain(|stored| self.worker.selector.wants(&stored.event, &routes));
        self.write_lines(batch);
    }

    fn write_lines(&self, batch: &mut Batch) {
        batch.lines.clear();
        for stored in &batch.events {
            self.worker.options.format.line(&stored.event, &mut batch.lines);
        }
    }

    /// Tries to write a batch until it is written or given up.
    async fn deliver(&mut self, batch: &mut Batch, cursor: Seq) -> Delivered {
        let Some(oldest) = batch.events.first().cloned() else { return Delivered::Yes };
        let lag = self.worker.age(&oldest);
        self.worker.show(
            |status| {
                if status.state == SinkState::Idle {
                    status.state = SinkState::Delivering;
                }
                status.in_flight = batch.events.len() as u64;
                status.lag_seconds = lag;
            },
            cursor,
        );
        let mut failures = 0_u32;
        let mut failing_since = None;
        let mut history = None;
        loop {
            let error = match self.write(batch).await {
                Written::Yes => {
                    if failures > 0 {
                        info!(failures, "sink works again");
                    }
                    let count = batch.events.len() as u64;
                    self.worker.progress(batch.last, 0);
                    self.worker.show(
                        |status| {
                            Worker::record_delivered(status, count);
                            status.in_flight = 0;
                            status.problem = None;
                            status.next_try = None;
                            status.state = SinkState::Delivering;
                        },
                        batch.last,
                    );
                    return Delivered::Yes;
                }
                Written::Stopped => return Delivered::Stopped,
                Written::No(error) => error,
            };
            failures = failures.saturating_add(1);
            let since = *failing_since.get_or_insert_with(Instant::now);
            if failures == 1 {
                warn!(%error, events = batch.events.len(), "sink failed; trying again");
            } else {
                debug!(%error, attempt = failures, "sink failed again");
            }
            let problem = error.to_string();
            self.worker.show(
                |status| {
                    status.retries += 1;
                    status.in_flight = 0;
                    status.problem = Some(problem.clone());
                    status.state = SinkState::Retrying;
                },
                cursor,
            );
            Failures::add(&mut history, Failure::new(problem.clone()));
            match decide(failures, since.elapsed(), self.worker.limits(), fastrand::f64()) {
                Decision::Wait(pause) => match self.pause(pause, cursor, &oldest).await {
                    Paused::Over => {}
                    Paused::Stopped => return Delivered::Stopped,
                    Paused::Skip(reply) => {
                        let Some(why) = history.map(Failures::skipped) else { return Delivered::Stopped };
                        let id = &oldest.event.message_id;
                        warn!(
                            message_id = %id, seq = oldest.seq.0,
                            "an event was skipped by hand; it is in the sink's dead letters"
                        );
                        self.worker.show(|status| (status.problem, status.next_try) = (None, None), cursor);
                        let subscription_type = oldest.event.subscription_type.to_string();
                        let _ = reply.send(Some(Skipped { seq: oldest.seq, subscription_type }));
                        return Delivered::Skipped(why);
                    }
                },
                Decision::GiveUp => {
                    error!(
                        error = problem,
                        events = batch.events.len(),
                        "gave up on events after give_up_after; they are in the sink's dead letters"
                    );
                    self.worker.show(|status| status.next_try = None, cursor);
                    return history
                        .map_or(Delivered::Stopped, |failures| Delivered::GivenUp(failures.given_up()));
                }
            }
        }
    }

    async fn pause(&mut self, pause: Duration, cursor: Seq, oldest: &StoredEvent) -> Paused {
        let until = Instant::now() + pause;
        let next_try = Timestamp(SystemTime::now() + pause);
        self.worker.show(|status| status.next_try = Some(next_try), cursor);
        let mut reopen = self.worker.reopen.clone();
        reopen.mark_unchanged();
        while Instant::now() < until {
            tokio::select! {
                () = self.worker.stop.soon.cancelled() => return Paused::Stopped,
                // A person who has just fixed the sink does not want to wait.
                Ok(()) = reopen.changed() => return Paused::Over,
                Some(command) = self.worker.commands.recv() => match command {
                    Command::Retry(reply) => {
                        let _ = reply.send(());
                        return Paused::Over;
                    }
                    Command::Skip(reply) => return Paused::Skip(reply),
                },
                () = tokio::time::sleep_until(until.min(Instant::now() + Duration::from_secs(1))) => {}
            }
            self.worker.count_backlog().await;
            let lag = self.worker.age(oldest);
            self.worker.show(|status| status.lag_seconds = lag, cursor);
        }
        Paused::Over
    }

    /// Makes one attempt, on a thread that may block.
    async fn write(&mut self, batch: &mut Batch) -> Written {
        if !self.worker.log.may_send() {
            self.worker.stop.end_now();
            return Written::Stopped;
        }
        let reopen = self.worker.reopen.has_changed().unwrap_or(false);
        self.worker.reopen.mark_unchanged();
        let mut lines = std::mem::replace(&mut self.lines, Box::new(Nowhere));
        let bytes = std::mem::take(&mut batch.lines);
        let span = Span::current();
        let work = tokio::task::spawn_blocking(move || {
            let _entered = span.enter();
            if reopen {
                lines.reopen();
            }
            let result = lines.write(&bytes);
            (lines, bytes, result)
        });
        match self.worker.stop.finish(work, LAST_WRITE).await {
            Some(Ok((lines, bytes, result))) => {
                self.lines = lines;
                batch.lines = bytes;
                result.map_or_else(Written::No, |()| Written::Yes)
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => {
                warn!(
                    "stopped while the sink did not take its events; they are sent again at the next start"
                );
                Written::Stopped
            }
        }
    }
}

/// Placeholder while the sink is on the writing thread.
struct Nowhere;

impl Lines for Nowhere {
    fn write(&mut self, _lines: &[u8]) -> io::Result<()> {
        Err(io::Error::other("the sink is busy"))
    }
}
