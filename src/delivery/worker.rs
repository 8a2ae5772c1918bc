//! Parts that all workers share: place, status, stop, commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::SinkOptions;
use super::backlog::Backlog;
use super::log::Log;
use super::log_failure::LogFailure;
use super::retry::{Failure, RetryLimits};
use super::select::Selector;
use super::window::Place;
use crate::model::event::{Seq, StoredEvent};
use crate::model::rate::Rate;
use crate::model::route::{Routes, SinkName};
use crate::model::status::{SinkState, SinkStatus};
use crate::model::text::duration;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, FailureRecord, Follower, GivenUp, Keep, SinkRecord};
use crate::telemetry::{Lasting, Outage};

/// Pause after a failure of the log.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Most events of one count of the backlog, and the least time between two counts.
const COUNT: (usize, Duration) = (50_000, Duration::from_secs(1));
/// Dead letters of one read.
pub(super) const DEAD_LETTERS: usize = 100;

/// The status of every sink.
pub(super) type Statuses = BTreeMap<SinkName, SinkStatus>;

/// The stop of a worker.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    /// Start no new attempt, and finish the current ones.
    pub(super) soon: CancellationToken,
    /// Give the current attempts little time: the daemon ends, or everything is sent again.
    pub(super) now: CancellationToken,
}

impl Stop {
    /// Ends the worker, whose events are another one's by now.
    pub(super) fn end_now(&self) {
        self.soon.cancel();
        self.now.cancel();
    }

    /// Waits for the pause after a failure of the log. Returns `false` if the worker is stopped.
    async fn pause(&self) -> bool {
        tokio::select! {
            () = self.soon.cancelled() => false,
            () = tokio::time::sleep(STORE_PAUSE) => true,
        }
    }

    /// Waits for current work; once it must end now, for at most `limit`.
    pub(super) async fn finish<T>(&self, work: impl Future<Output = T>, limit: Duration) -> Option<T> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = self.now.cancelled() => {}
        }
        tokio::time::timeout(limit, work).await.ok()
    }
}

/// The end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The worker was stopped, or the store is closed.
    Stopped,
    /// Everything up to the last event that the worker was to deliver is done.
    Through,
    /// Another worker may begin where this one was.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "no log is shared without NATS"))]
    Again,
}

/// An event that a person had skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The number of the event in the store.
    pub seq: Seq,
    /// Type of the event.
    pub subscription_type: String,
}

/// Commands to a running worker.
#[derive(Debug)]
pub(super) enum Command {
    /// Retry all waiting events now.
    Retry(oneshot::Sender<()>),
    /// Move the event that holds up the others to the dead letters. The reply is `None` if nothing has failed.
    Skip(oneshot::Sender<Option<Skipped>>),
}

/// End of the pause that a receiver asked for; sinks with the same receiver share it.
pub(super) type SharedPause = Arc<watch::Sender<Option<Instant>>>;

/// The failures of one event so far.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    first: FailureRecord,
    last: Failure,
    count: u32,
}

impl Failures {
    /// Adds a failure to those before.
    pub(super) fn add(failures: &mut Option<Self>, failure: Failure) {
        match failures {
            Some(known) => {
                known.count = known.count.saturating_add(1);
                known.last = failure;
            }
            None => {
                let (error, said) = (failure.message.clone(), failure.said.clone());
                let first = FailureRecord { at: Timestamp(SystemTime::now()), error, said };
                *failures = Some(Self { first, last: failure, count: 1 });
            }
        }
    }

    /// Returns the reason for giving up an event with these failures.
    pub(super) fn given_up(self) -> GivenUp {
        let Failure { message: error, said } = self.last;
        GivenUp { first: (self.count > 1).then_some(self.first), error, said }
    }

    /// Returns the reason of a skipped event with these failures.
    pub(super) fn skipped(self) -> GivenUp {
        let error =
            format!("skipped with `eventsubd sink skip`; the last attempt failed: {}", self.last.message);
        GivenUp { first: Some(self.first), error, said: self.last.said }
    }
}

/// Returns the worker as the store sees it. It applies the current routes.
pub(super) fn follower(selector: &Selector, routes: &watch::Receiver<Option<Arc<Routes>>>) -> Follower {
    let (selector, routes) = (selector.clone(), routes.clone());
    Follower::new(move |kind, version, payload| {
        let routes = routes.borrow().clone().unwrap_or_default();
        selector.wants_parts(kind, version, payload, &routes)
    })
}

/// The events that a sink has not got yet: those that its worker has open, and those that it has not read.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    open: u64,
    backlog: Backlog,
    looked_at: Option<Instant>,
    /// The last time at which the sink had everything.
    idle_at: Option<Instant>,
}

impl Waiting {
    fn events(&self) -> u64 {
        self.open + self.backlog.wanted()
    }
}

/// The shared part of a worker.
pub(super) struct Worker {
    pub(super) options: SinkOptions,
    pub(super) selector: Selector,
    pub(super) log: Log,
    pub(super) routes: watch::Receiver<Option<Arc<Routes>>>,
    pub(super) reopen: watch::Receiver<u64>,
    pub(super) statuses: Arc<watch::Sender<Statuses>>,
    pub(super) stop: Stop,
    pub(super) follower: Follower,
    pub(super) waiting: Waiting,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) pause: SharedPause,
}

impl Worker {
    pub(super) fn name(&self) -> &SinkName {
        &self.options.name
    }

    pub(super) fn limits(&self) -> RetryLimits {
        RetryLimits { retry_max: self.options.retry_max, give_up_after: self.options.give_up_after }
    }

    /// Repeats a request to the log until it succeeds. `None` means that the worker is stopped.
    pub(super) async fn insist<T, F>(&self, what: &'static str, work: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, LogFailure>>,
    {
        let (mut outage, mut shown) = (Outage::default(), None);
        loop {
            match work().await {
                Ok(done) => {
                    if let Some(Lasting { failures, time }) = outage.handle_success(Instant::now().into_std())
                    {
                        info!(failures, lasted = duration(time), "{what} works again");
                    }
                    if let Some(shown) = shown {
                        self.show(
                            |status| status.problem = status.problem.take().filter(|now| *now != shown),
                            Seq(0),
                        );
                    }
                    return Some(done);
                }
                Err(error) if error.is_final() => return None,
                Err(error) => {
                    if let Some(Lasting { failures, .. }) = outage.handle_failure(Instant::now().into_std()) {
                        warn!(%error, failures, "{what} failed; trying again every second");
                    }
                    if let LogFailure::Shared(problem) = error {
                        self.show(|status| status.problem = Some(problem.clone()), Seq(0));
                        shown = Some(problem);
                    }
                    if !self.stop.pause().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Returns the sink's record once the routes are known.
    pub(super) async fn start(&mut self) -> Option<SinkRecord> {
        let (name, start) = (self.options.name.clone(), self.options.start);
        let record =
            self.insist("finding the sink's place", || self.log.start(&name, start, &self.follower)).await?;
        self.waiting.backlog.reset(record.cursor);
        let fresh = SinkStatus {
            name,
            kind: self.options.kind.name().to_owned(),
            receiver: self.options.kind.receiver().into(),
            types: self.options.types.as_slice().into(),
            state: SinkState::Idle,
            cursor: record.cursor,
            lag_events: 0,
            lag_seconds: 0,
            in_flight: 0,
            delivered: 0,
            per_minute: 0,
            rate: Rate::default(),
            last_success: None,
            retries: 0,
            dead_letters: record.dead_letters,
            lost: record.lost,
            problem: None,
            next_try: None,
        };
        self.statuses.send_modify(|statuses| {
            // A changed sink keeps its counts.
            let old = statuses.remove(&self.options.name);
            let fresh = match old {
                Some(SinkStatus { delivered, retries, rate, last_success, .. }) => {
                    SinkStatus { delivered, retries, rate, last_success, ..fresh }
                }
                None => fresh,
            };
            statuses.insert(self.options.name.clone(), fresh);
        });
        tokio::select! {
            () = self.stop.soon.cancelled() => None,
            known = self.routes.wait_for(Option::is_some) => known.is_ok().then_some(record),
        }
    }

    /// Reads the next dead letters to be sent again.
    pub(super) async fn dead_letters(&self, after: i64) -> Option<Vec<DeadLetter>> {
        self.insist("reading dead letters", || {
            self.log.dead_letters_to_replay(self.name(), after, DEAD_LETTERS)
        })
        .await
    }

    /// Moves an event to the dead letters.
    pub(super) async fn to_dead_letters(&self, event: &StoredEvent, why: &GivenUp) -> Option<()> {
        let record = self
            .insist("storing a dead letter", || self.log.dead_letter(self.name(), event, why.clone()))
            .await?;
        self.show_record(&record);
        Some(())
    }

    /// Stores the outcome of sending a dead letter again.
    pub(super) async fn resent(&self, id: i64, outcome: Result<(), &GivenUp>) -> Option<()> {
        let record = self
            .insist("storing the outcome of a dead letter", || {
                self.log.resent(self.name(), id, outcome.map_err(GivenUp::clone))
            })
            .await?;
        self.show_record(&record);
        Some(())
    }

    fn show_record(&self, record: &SinkRecord) {
        let (dead_letters, lost) = (record.dead_letters, record.lost);
        self.show(
            |status| {
                status.dead_letters = dead_letters;
                status.lost = status.lost.max(lost);
            },
            Seq(0),
        );
    }

    /// Records that the worker has read up to `read`, and that `open` of those events are not done.
    pub(super) fn progress(&mut self, read: Seq, open: u64) {
        self.waiting.backlog.forget(read);
        self.waiting.open = open;
        if self.waiting.events() == 0 && self.log.newest() <= self.waiting.backlog.looked() {
            self.waiting.idle_at = Some(Instant::now());
        }
    }

    /// Counts the events for this sink that are stored and not read yet. Each is examined once, a bounded number at a time.
    /// Until a large backlog is counted completely, the published lag is too small.
    pub(super) async fn count_backlog(&mut self) {
        if self.routes.has_changed().unwrap_or(false) {
            self.routes.mark_unchanged();
            self.waiting.backlog.reset(self.log.removed());
        }
        let (limit, pause) = COUNT;
        let from = self.waiting.backlog.looked();
        let is_new = self.log.newest() > from;
        if !is_new || self.waiting.looked_at.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.waiting.looked_at = Some(Instant::now());
        // A failing log is reported by the next read of events.
        if let Ok((wanted, looked)) = self.log.wanted_after(&self.follower, from, limit).await {
            self.waiting.backlog.add(&wanted, looked);
            self.waiting.backlog.forget(self.log.removed());
        }
    }

    /// Returns the age of an event in seconds. It is at most the time since the sink had everything, even if the clock was
    /// set.
    pub(super) fn age(&self, event: &StoredEvent) -> u64 {
        let by_date = Timestamp(SystemTime::now()).since(event.stored_at);
        self.waiting.idle_at.map_or(by_date, |at| by_date.min(at.elapsed())).as_secs()
    }

    /// Has the place stored. If a crash loses it, the sink gets the events since again.
    pub(super) fn keep_place(&self, place: Place, keep: Keep) {
        self.log.keep_place(self.name(), place, keep);
    }

    /// Counts events that the receiver has acknowledged.
    pub(super) fn record_delivered(status: &mut SinkStatus, events: u64) {
        status.record_delivered(events, Timestamp(SystemTime::now()), Instant::now().into_std());
    }

    /// Changes the published status.
    pub(super) fn show(&self, change: impl FnOnce(&mut SinkStatus), cursor: Seq) {
        let waiting = self.waiting.events();
        self.statuses.send_if_modified(|statuses| {
            let Some(status) = statuses.get_mut(&self.options.name) else { return false };
            let before = status.clone();
            change(status);
            status.lost = self.log.lost().unwrap_or(status.lost);
            status.cursor = status.cursor.max(cursor);
            status.lag_events = waiting;
            if status.lag_events == 0 {
                status.lag_seconds = 0;
            }
            *status != before
        });
    }
}
