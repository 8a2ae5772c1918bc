//! The worker of a sink that takes events one by one, several at a time: reads after the cursor, keeps a window of open
//! events, sends those that may go, and has the place stored.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::format::Broadcaster;
use super::outgoing::{Attempt, Replay, replayed_id};
use super::retry::{Decision, Failure, Outcome};
use super::sending::{AttemptId, Sending};
use super::sink::Single;
use super::sleep_until;
use super::window::{Cause, Origin, Place, Ticket, Window};
use super::worker::{Command, DEAD_LETTERS, End, Failures, Skipped, Worker};
use crate::model::event::{MessageId, Seq, StoredEvent};
use crate::model::status::SinkState;
use crate::model::time::Timestamp;
use crate::store::{GivenUp, Keep, SinkRecord};
use crate::telemetry::LogLimit;

/// Most events that are open at once.
const WINDOW: usize = 1_024;
/// Approximate limit of the payload bytes of open events.
const WINDOW_BYTES: usize = 4 << 20;
/// Events of one read.
const READ: usize = 256;
/// Time for the current attempts after a stop of the daemon.
const LAST_SEND: Duration = Duration::from_secs(4);
/// Period of publishing the lag while nothing happens.
const SHOW: Duration = Duration::from_secs(1);

pub(super) struct SingleWorker {
    pub(super) worker: Worker,
    pub(super) sink: Arc<dyn Single>,
}

/// An open event.
struct Held {
    event: Arc<StoredEvent>,
    /// The new id of a replayed event.
    new_id: Option<MessageId>,
    failures: Option<Failures>,
    sending: Option<AttemptId>,
}

/// The state of a running worker.
struct Run {
    window: Window,
    events: BTreeMap<Ticket, Held>,
    bytes: usize,
    sending: Sending<(Ticket, Outcome)>,
    /// Events after the cursor that were done before the start.
    already: BTreeSet<Seq>,
    /// The last dead letter that was opened, and whether there may be more.
    dead_letters: (i64, bool),
    /// The last place that the store got, and whether an event was done since.
    kept: Place,
    is_progress: bool,
    /// The sink's record at the start.
    record: SinkRecord,
    begun: Instant,
    /// Whether attempts have failed since the sink last worked, and whether that was logged.
    is_failing: bool,
    is_failure_logged: bool,
    log: LogLimit,
    news: News,
}

/// Changes that the status does not show yet.
#[derive(Default)]
struct News {
    delivered: u64,
    retries: u64,
    problem: Option<String>,
    works_again: bool,
}

/// The end of an event in this worker.
enum Close {
    Delivered,
    GivenUp(GivenUp),
}

impl SingleWorker {
    /// Runs until it is stopped, or has delivered all that it was to deliver.
    pub(super) async fn run(mut self) -> End {
        let Some(record) = self.worker.start().await else { return End::Stopped };
        let place = Place { cursor: record.cursor, done: record.done.clone() };
        let mut run = Run {
            kept: place.clone(),
            is_progress: false,
            window: Window::new(self.sink.concurrency(), place.cursor),
            events: BTreeMap::new(),
            bytes: 0,
            sending: Sending::new(),
            already: place.done.into_iter().collect(),
            dead_letters: (0, true),
            record,
            begun: Instant::now(),
            is_failing: false,
            is_failure_logged: false,
            log: LogLimit::default(),
            news: News::default(),
        };
        let Some(end) = self.work(&mut run).await else { return End::Stopped };
        let stop = self.worker.stop.clone();
        if !run.sending.is_empty() && stop.finish(self.finish(&mut run), LAST_SEND).await.is_none() {
            warn!(
                events = run.sending.len(),
                "stopped while events were being sent; they are sent again at the next start"
            );
        }
        self.keep_place(&mut run);
        end
    }

    /// Sends until it is stopped or through. `None` means that the store is closed.
    async fn work(&mut self, run: &mut Run) -> Option<End> {
        let mut newest = self.worker.log.changes();
        let mut reopen = self.worker.reopen.clone();
        let mut pause = self.worker.pause.subscribe();
        pause.mark_changed();
        let stop = self.worker.stop.clone();
        let mut shown = Instant::now();
        loop {
            if stop.soon.is_cancelled() {
                return Some(End::Stopped);
            }
            let to = self.worker.log.clip(*newest.borrow_and_update());
            self.refill(run, to).await?;
            if run.window.is_empty() && !run.dead_letters.1 && self.worker.log.is_through(run.window.read()) {
                return Some(End::Through);
            }
            self.send(run);
            self.worker.progress(run.window.read(), run.window.open());
            run.sending.during(self.worker.count_backlog()).await;
            self.show(run);
            self.keep_place(run);
            let due = run.window.poll_timeout(run.begun.elapsed()).map(|due| run.begun + due);
            tokio::select! {
                biased;
                () = stop.soon.cancelled() => return Some(End::Stopped),
                Some(command) = self.worker.commands.recv() => self.carry_out(run, command).await?,
                Some((ticket, outcome)) = run.sending.next(), if !run.sending.is_empty() => {
                    self.act_on(run, ticket, outcome).await?;
                    // Events that have ended meanwhile go with it.
                    while let Some((ticket, outcome)) = run.sending.try_next() {
                        self.act_on(run, ticket, outcome).await?;
                    }
                }
                Ok(()) = reopen.changed() => run.window.retry_now(false),
                Ok(()) = pause.changed() => {
                    if let Some(until) = *pause.borrow_and_update() {
                        run.window.pause_until(until.saturating_duration_since(run.begun));
                    }
                }
                () = sleep_until(due) => {}
                changed = newest.changed(), if run.window.len() < WINDOW => changed.ok()?,
                () = tokio::time::sleep_until(shown + SHOW), if !run.window.is_empty() => shown = Instant::now(),
            }
        }
    }

    /// Has the place stored if it has moved.
    fn keep_place(&self, run: &mut Run) {
        let place = run.window.place();
        if place != run.kept {
            let keep = if std::mem::take(&mut run.is_progress) { Keep::Soon } else { Keep::Lazily };
            run.kept = place.clone();
            self.worker.keep_place(place, keep);
        }
    }

    /// Waits for the current attempts.
    async fn finish(&self, run: &mut Run) -> Option<()> {
        while let Some((ticket, outcome)) = run.sending.next().await {
            self.act_on(run, ticket, outcome).await?;
            self.keep_place(run);
        }
        self.show(run);
        Some(())
    }

    /// Opens further events while there is room, dead letters to be sent again first.
    async fn refill(&self, run: &mut Run, newest: Seq) -> Option<()> {
        let sink = self.worker.name();
        if run.dead_letters.1 && run.window.len() + DEAD_LETTERS <= WINDOW {
            let letters = run.sending.during(self.worker.dead_letters(run.dead_letters.0)).await?;
            run.dead_letters =
                (letters.last().map_or(run.dead_letters.0, |last| last.id), letters.len() == DEAD_LETTERS);
            for letter in letters {
                let id = &letter.event.event.message_id;
                let new_id = Some(replayed_id(sink, Replay::DeadLetter(letter.replays), id));
                run.open(Origin::DeadLetter(letter.id), Arc::new(letter.event), new_id);
            }
        }
        while run.window.read() < newest && run.window.len() + READ <= WINDOW && run.bytes < WINDOW_BYTES {
            let from = run.window.read();
            let read =
                || self.worker.log.read_for(&self.worker.follower, from, READ, WINDOW_BYTES - run.bytes);
            let events = run.sending.during(self.worker.insist("reading events", read)).await?;
            let Some(last) = events.last().map(|event| event.seq) else {
                // Nothing is left up to the newest event.
                run.window.read_to(newest);
                break;
            };
            let routes = self.worker.routes.borrow().clone().unwrap_or_default();
            for event in events {
                if run.already.remove(&event.seq) {
                    run.window.add_done(event.seq);
                } else if self.worker.selector.wants(&event.event, &routes) {
                    let is_replay = event.seq <= run.record.replay_until;
                    let replay = Replay::Stored(run.record.replays);
                    let new_id = is_replay.then(|| replayed_id(sink, replay, &event.event.message_id));
                    run.open(Origin::Stored(event.seq), event, new_id);
                }
            }
            run.window.read_to(last);
        }
        Some(())
    }

    fn send(&self, run: &mut Run) {
        if !self.worker.log.may_send() {
            return self.worker.stop.end_now();
        }
        while let Some(ticket) = run.window.poll_next(run.begun.elapsed()) {
            let failures = run.window.failures(ticket);
            let Some(held) = run.events.get_mut(&ticket) else { continue };
            let attempt = Attempt { failures, new_id: held.new_id.clone(), now: SystemTime::now() };
            let work = Arc::clone(&self.sink).send(Arc::clone(&held.event), attempt);
            held.sending = Some(run.sending.start(async move {
                // An event that makes the sink panic must not hold up the others.
                let outcome = AssertUnwindSafe(work).catch_unwind().await;
                let outcome =
                    outcome.unwrap_or_else(|_| Outcome::rejected("sending this event made the sink panic"));
                (ticket, outcome)
            }));
        }
    }

    /// Acts on the outcome of an attempt.
    async fn act_on(&self, run: &mut Run, ticket: Ticket, outcome: Outcome) -> Option<()> {
        let now = run.begun.elapsed();
        let end = match outcome {
            Outcome::Done => {
                run.window.handle_proof(ticket);
                Some(Close::Delivered)
            }
            Outcome::DoneWithin(allowance) => {
                run.window.handle_proof(ticket);
                run.window.handle_allowance(allowance, now);
                Some(Close::Delivered)
            }
            Outcome::Rejected(failure) => {
                run.window.handle_proof(ticket);
                self.log(
                    run,
                    ticket,
                    &failure,
                    "the event was refused for good; it is in the sink's dead letters",
                );
                run.give_up(ticket, failure)
            }
            Outcome::Failed(failure) => self.failed(run, ticket, Cause::Event, failure),
            Outcome::Unavailable(failure) => self.failed(run, ticket, Cause::Receiver, failure),
            Outcome::Throttled { failure, wait } => {
                let end = self.failed(run, ticket, Cause::Wish(wait), failure);
                if let Some(until) = run.window.asked_until(now) {
                    self.share_pause(run.begun + until);
                }
                end
            }
        };
        match end {
            Some(end) => self.close(run, ticket, end).await,
            None => Some(()),
        }
    }

    /// Shares the pause with other sinks of this receiver.
    fn share_pause(&self, until: Instant) {
        self.worker.pause.send_if_modified(|known| {
            let is_later = known.is_none_or(|known| known < until);
            *known = Some(until).max(*known);
            is_later
        });
    }

    /// Handles a failed attempt. Returns `None` if the event is tried again.
    fn failed(&self, run: &mut Run, ticket: Ticket, cause: Cause, failure: Failure) -> Option<Close> {
        let held = run.events.get(&ticket)?;
        let id = &held.event.event.message_id;
        let error = &failure.message;
        let clock = std::time::Instant::now();
        let is_first = !std::mem::replace(&mut run.is_failing, true);
        if let Cause::Wish(wait) = cause {
            // Needs no action, and may happen every other second.
            if let Some(left_out) = run.log.permit("pause", clock) {
                info!(
                    answer = error,
                    seconds = wait.as_secs_f64(),
                    left_out,
                    "the receiver asks for a pause"
                );
            }
        } else if is_first && let Some(left_out) = run.log.permit("failed", clock) {
            warn!(error, message_id = %id, left_out, "sink failed; trying again");
            run.is_failure_logged = true;
        } else {
            let attempt = run.window.failures(ticket) + 1;
            debug!(error, message_id = %id, attempt, "sink failed again");
        }
        run.news.retries += 1;
        run.news.problem = Some(error.clone());
        run.news.works_again = false;
        let now = run.begun.elapsed();
        let decision = run.window.handle_failure(ticket, cause, now, self.worker.limits(), fastrand::f64());
        if matches!(decision, Decision::Wait(_)) {
            Failures::add(&mut run.events.get_mut(&ticket)?.failures, failure);
            return None;
        }
        self.log(
            run,
            ticket,
            &failure,
            "gave up on an event after give_up_after; it is in the sink's dead letters",
        );
        run.give_up(ticket, failure)
    }

    fn log(&self, run: &Run, ticket: Ticket, failure: &Failure, what: &'static str) {
        let Some(Held { event, .. }) = run.events.get(&ticket) else { return };
        let id = &event.event.message_id;
        // Dead letters are counted and listed, so a receiver that refuses everything does not have to fill the log.
        if let Some(left_out) = run.log.permit(what, std::time::Instant::now()) {
            warn!(error = failure.message, message_id = %id, seq = event.seq.0, left_out, "{what}");
        }
    }

    /// Stores the end of an event, and forgets it.
    async fn close(&self, run: &mut Run, ticket: Ticket, end: Close) -> Option<()> {
        let (Some(origin), Some(held)) = (run.window.origin(ticket), run.events.get(&ticket)) else {
            return Some(());
        };
        let event = Arc::clone(&held.event);
        let sending = &mut run.sending;
        match (origin, &end) {
            (Origin::Stored(_), Close::Delivered) => {}
            (Origin::Stored(_), Close::GivenUp(why)) => {
                sending.during(self.worker.to_dead_letters(&event, why)).await?;
            }
            (Origin::DeadLetter(id), Close::Delivered) => {
                sending.during(self.worker.resent(id, Ok(()))).await?;
            }
            (Origin::DeadLetter(id), Close::GivenUp(why)) => {
                sending.during(self.worker.resent(id, Err(why))).await?;
            }
        }
        run.window.handle_done(ticket);
        run.close(ticket);
        run.is_progress = true;
        let is_delivered = matches!(end, Close::Delivered);
        run.news.delivered += u64::from(is_delivered);
        if run.is_failing && !run.window.failing() {
            run.is_failing = false;
            (run.news.works_again, run.news.problem) = (true, None);
            if std::mem::take(&mut run.is_failure_logged) && is_delivered {
                info!("sink works again");
            }
        }
        Some(())
    }

    /// Carries out a command.
    async fn carry_out(&self, run: &mut Run, command: Command) -> Option<()> {
        // A caller that no longer waits is not an error.
        match command {
            Command::Retry(reply) => {
                self.worker.pause.send_replace(None);
                run.window.retry_now(true);
                let _ = reply.send(());
            }
            Command::Skip(reply) => {
                let skipped = run.window.held_up_by().and_then(|ticket| {
                    let held = run.events.get_mut(&ticket)?;
                    if let Some(attempt) = held.sending.take() {
                        run.sending.abort(attempt);
                    }
                    Some((ticket, Arc::clone(&held.event), held.failures.take()?.skipped()))
                });
                let Some((ticket, event, why)) = skipped else {
                    let _ = reply.send(None);
                    return Some(());
                };
                let id = &event.event.message_id;
                warn!(
                    message_id = %id, seq = event.seq.0,
                    "an event was skipped by hand; it is in the sink's dead letters"
                );
                self.close(run, ticket, Close::GivenUp(why)).await?;
                run.window.retry_now(false);
                let subscription_type = event.event.subscription_type.to_string();
                let _ = reply.send(Some(Skipped { seq: event.seq, subscription_type }));
            }
        }
        Some(())
    }

    fn show(&self, run: &mut Run) {
        let is_stored = |ticket: &Ticket| matches!(run.window.origin(*ticket), Some(Origin::Stored(_)));
        let oldest = run.events.iter().find(|(ticket, _)| is_stored(ticket));
        let oldest = oldest.map(|(_, held)| self.worker.age(&held.event));
        let now = run.begun.elapsed();
        let state = match () {
            () if run.window.is_paused(now) && run.window.out() == 0 => SinkState::Paused,
            () if run.window.is_empty() => SinkState::Idle,
            () if run.window.failing() && run.window.out() == 0 => SinkState::Retrying,
            () => SinkState::Delivering,
        };
        let next_try = run.window.next_try(now).map(|due| Timestamp(SystemTime::now() + (due - now)));
        let news = std::mem::take(&mut run.news);
        let window = &run.window;
        self.worker.show(
            |status| {
                status.state = state;
                status.in_flight = window.out() as u64;
                status.lag_seconds = oldest.unwrap_or(0);
                Worker::record_delivered(status, news.delivered);
                status.retries += news.retries;
                if news.works_again {
                    status.problem = None;
                }
                if news.problem.is_some() {
                    status.problem = news.problem;
                }
                // The same time, computed again, differs a little.
                let is_same = status.next_try.zip(next_try).is_some_and(|(old, new)| {
                    old.since(new).max(new.since(old)) < Duration::from_millis(100)
                });
                if !is_same {
                    status.next_try = next_try;
                }
            },
            window.cursor(),
        );
    }
}

impl Run {
    fn open(&mut self, origin: Origin, event: Arc<StoredEvent>, new_id: Option<MessageId>) {
        let mut hasher = DefaultHasher::new();
        Broadcaster::of(&event.event.payload).id.hash(&mut hasher);
        let ticket = self.window.add(origin, hasher.finish());
        self.bytes += event.event.payload.len();
        self.events.insert(ticket, Held { event, new_id, failures: None, sending: None });
    }

    /// Returns the end of an event that is given up, with its failures so far.
    fn give_up(&mut self, ticket: Ticket, failure: Failure) -> Option<Close> {
        let mut failures = self.events.get_mut(&ticket)?.failures.take();
        Failures::add(&mut failures, failure);
        failures.map(|failures| Close::GivenUp(failures.given_up()))
    }

    fn close(&mut self, ticket: Ticket) {
        if let Some(held) = self.events.remove(&ticket) {
            self.bytes -= held.event.event.payload.len();
        }
    }
}
