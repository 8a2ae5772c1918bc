//! Owner of the reasons to run: what was asked, what has changed, and when the next run is due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::model::backoff::{Backoff, QUARTER, spread};
use crate::model::subscription::{SubscriptionId, SubscriptionStatus};
use crate::reconcile::bind::binder::ShardReport;
use crate::reconcile::handle::Requests;
use crate::reconcile::hints::Hints;
use crate::reconcile::{Desired, ReconcileOptions};

/// Time that one page of the list takes of a rate limit of 800 requests a minute.
const PAGE_TIME: Duration = Duration::from_millis(75);

/// Longer than any daemon runs.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Runs that only retry parked subscriptions take at most a tenth of the rate limit.
const RETRY_SHARE: u32 = 10;

/// Runs after revocations take at most a quarter of it.
const REVOKED_SHARE: u32 = 4;

/// Least pause between two runs of the same cause.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Grants that come within this time lead to one run.
const GRANT_PAUSE: Duration = Duration::from_millis(200);

/// Challenges that are answered within this time lead to one run.
const VERIFIED_PAUSE: Duration = Duration::from_millis(300);

/// Pause between two runs while subscriptions wait for their challenge, or are moved.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(3);

/// Longest pause between two turns of the loop: the watchdog has to see that it lives.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pause after a look at logins that failed.
const REFRESH_FAILED: Duration = Duration::from_secs(60);

/// The ends that wake the loop.
#[derive(Debug)]
pub(in crate::reconcile) struct Sources {
    pub(in crate::reconcile) desired: watch::Receiver<Arc<Desired>>,
    pub(in crate::reconcile) requests: watch::Receiver<Requests>,
    pub(in crate::reconcile) report: watch::Receiver<ShardReport>,
    pub(in crate::reconcile) hints: Arc<Hints>,
    /// Notified when the binder finds that Twitch does not know the conduit.
    pub(in crate::reconcile) trouble: Arc<Notify>,
}

/// The state of requests as a run begins.
#[derive(Clone, Debug)]
pub(in crate::reconcile) struct Order {
    pub(in crate::reconcile) desired: Arc<Desired>,
    /// Whether the file has changed or a person has asked: everything that waits is tried at once.
    pub(in crate::reconcile) is_requested: bool,
    /// Whether a person has asked for a comparison.
    pub(in crate::reconcile) is_applied: bool,
    /// Whether a person has just allowed held deletes.
    pub(in crate::reconcile) allows_deletes: bool,
}

/// Why the loop wakes between two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Wake {
    Cancelled,
    /// A run is due.
    Run,
    /// A comparison with the whole list is due.
    Compare,
    /// Grants of these users have changed; `None` stands for too many to name.
    Grants(Option<BTreeSet<Box<str>>>),
    /// The shards' warnings may have changed.
    Shards,
    /// Logins may be looked at again.
    RefreshLogins,
}

/// When the loop wakes, and why.
#[derive(Debug)]
pub(in crate::reconcile) struct WakeUps {
    sources: Sources,
    /// Generation and requests that the last run has seen.
    seen: (u64, Requests),
    /// When the list was last read, and how many pages it had.
    listed: Option<(Instant, u32)>,
    /// Whether the next run plans from the list that is known.
    is_short: bool,
    /// When the last run began.
    run_at: Instant,
    next_run: Instant,
    /// When the whole list is read again.
    next_compare: Instant,
    next_refresh: Instant,
    /// Failed runs in a row.
    failures: u32,
    backoff: Backoff,
    refresh_pause: Duration,
}

impl WakeUps {
    pub(in crate::reconcile) fn new(sources: Sources, options: &ReconcileOptions) -> Self {
        let now = Instant::now();
        Self {
            sources,
            seen: (0, Requests::default()),
            listed: None,
            is_short: false,
            run_at: now,
            next_run: now,
            next_compare: now + FAR,
            next_refresh: now + options.login_refresh_pause,
            failures: 0,
            backoff: options.backoff,
            refresh_pause: options.login_refresh_pause,
        }
    }

    /// The configuration that is wanted now.
    pub(in crate::reconcile) fn desired(&self) -> Arc<Desired> {
        self.sources.desired.borrow().clone()
    }

    pub(in crate::reconcile) fn shard_warnings(&mut self) -> Vec<String> {
        self.sources.report.borrow_and_update().warnings.clone()
    }

    /// Notified when a run should come soon.
    pub(in crate::reconcile) fn trouble(&self) -> Arc<Notify> {
        Arc::clone(&self.sources.trouble)
    }

    /// Has a run follow at once: this host leads now. The shards are looked at too, as another host may have had them.
    pub(in crate::reconcile) fn begin_term(&mut self) {
        self.failures = 0;
        self.listed = None;
        self.next_run = Instant::now();
        self.sources.hints.look_at_shards();
    }

    /// Takes all requests without a run: another host leads. Returns the number of the last one.
    pub(in crate::reconcile) fn take_requests(&mut self) -> u64 {
        self.seen.1 = *self.sources.requests.borrow_and_update();
        self.seen.1.asked
    }

    /// Resolves once the configuration has changed, or something is asked.
    pub(in crate::reconcile) async fn asked_or_edited(&mut self) {
        tokio::select! {
            Ok(()) = self.sources.desired.changed() => {}
            Ok(()) = self.sources.requests.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Begins a run: takes what is asked now.
    pub(in crate::reconcile) fn begin_run(&mut self) -> Order {
        let desired = self.sources.desired.borrow_and_update().clone();
        let requests = *self.sources.requests.borrow_and_update();
        self.run_at = Instant::now();
        let (generation, before) = self.seen;
        self.seen = (desired.generation, requests);
        Order {
            is_requested: generation != desired.generation || before.applies != requests.applies,
            is_applied: before.applies != requests.applies,
            allows_deletes: before.allows != requests.allows,
            desired,
        }
    }

    /// Resolves once another configuration, or an `apply`, has come since the run began.
    pub(in crate::reconcile) fn newer(&self) -> impl Future<Output = ()> + use<> {
        let mut desired = self.sources.desired.clone();
        let mut requests = self.sources.requests.clone();
        let applies = self.seen.1.applies;
        async move {
            let applied =
                async { requests.wait_for(|requests| requests.applies != applies).await.map(|_| ()) };
            tokio::select! {
                Ok(()) = desired.changed() => {}
                Ok(()) = applied => {}
                else => std::future::pending().await,
            }
        }
    }

    /// The number of the last request that the run in hand answers.
    pub(in crate::reconcile) fn asked(&self) -> u64 {
        self.seen.1.asked
    }

    /// Records that the whole list was read, or is being read in the background; the next comparison follows after the
    /// interval.
    pub(in crate::reconcile) fn record_list(&mut self, pages: usize) {
        let now = Instant::now();
        self.listed = Some((now, u32::try_from(pages).unwrap_or(u32::MAX).saturating_add(1)));
        self.next_compare = now + self.sources.desired.borrow().interval;
    }

    /// Has the whole list read after this pause: another host has read it not long ago.
    pub(in crate::reconcile) fn postpone_list(&mut self, pause: Duration) {
        self.next_compare = Instant::now() + pause;
    }

    /// Records whether the next run plans from the list that is known: then it needs no pause for a list.
    pub(in crate::reconcile) fn record_short(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// Schedules the run after a complete one. `due` is when something parked may be tried; a run that left work
    /// for the next one is not settled.
    pub(in crate::reconcile) fn record_success(&mut self, due: Option<Instant>, is_settled: bool) {
        let now = Instant::now();
        self.failures = 0;
        let due = due.map(|due| due.max(self.spaced(RETRY_SHARE, 5 * LEAST_PAUSE)));
        let soon = (!is_settled).then(|| self.spaced(2, UNSETTLED_PAUSE));
        self.next_run = [due, soon].into_iter().flatten().fold(now + FAR, Instant::min).max(now);
        // The interval may be a shorter one by now.
        self.next_compare = self.next_compare.min(now + self.sources.desired.borrow().interval);
    }

    /// Schedules the next comparison after one in the background that failed, and returns the pause.
    pub(in crate::reconcile) fn record_failed_list(&mut self) -> Duration {
        let next_run = self.next_run;
        let pause = self.record_failure();
        self.next_compare = Instant::now() + pause;
        self.next_run = next_run;
        pause
    }

    /// Schedules the run after one that failed, and returns the pause. It grows with each failure up to the
    /// longest, a quarter more or less.
    pub(in crate::reconcile) fn record_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = spread(self.backoff.pause(self.failures), &QUARTER, fastrand::f64());
        self.next_run = Instant::now() + pause;
        pause
    }

    /// Forgets failures of what came before the first run.
    pub(in crate::reconcile) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// Schedules the next look at logins.
    pub(in crate::reconcile) fn record_refresh(&mut self, succeeded: bool) {
        let pause = if succeeded { self.refresh_pause } else { self.refresh_pause.max(REFRESH_FAILED) };
        self.next_refresh = Instant::now() + pause;
    }

    /// Takes the subscriptions that Twitch has ended since the last call; the flag says that there were too many to
    /// remember each.
    pub(in crate::reconcile) fn take_ended(&self) -> (Vec<(SubscriptionId, SubscriptionStatus)>, bool) {
        self.sources.hints.take_ended()
    }

    /// Waits for a reason to do something. `has_unverified`: whether subscriptions wait for their challenge; else
    /// an answered one is no news. `stale_at`: from when on logins are to be looked at again.
    pub(in crate::reconcile) async fn wait(
        &mut self,
        cancel: &CancellationToken,
        has_unverified: bool,
        stale_at: Option<Instant>,
    ) -> Wake {
        let asked_before = self.seen.1.asked;
        // While runs fail, the next one comes soon anyway, and must not come sooner.
        let is_failing = self.failures > 0;
        let longest = Instant::now() + LONGEST_PAUSE;
        let refresh_at = stale_at.map_or(longest, |at| at.max(self.next_refresh).min(longest));
        loop {
            let sources = &mut self.sources;
            let (share, least) = tokio::select! {
                biased;
                () = cancel.cancelled() => return Wake::Cancelled,
                Ok(()) = sources.desired.changed() => return Wake::Run,
                () = asked(&mut sources.requests, asked_before) => return Wake::Run,
                () = sources.hints.subscription_ended() => (REVOKED_SHARE, LEAST_PAUSE),
                () = sources.trouble.notified() => (1, LEAST_PAUSE),
                () = sources.hints.grants_changed() => {
                    let changed = sources.hints.take_users();
                    if !is_failing {
                        self.hasten(1, GRANT_PAUSE);
                    }
                    return Wake::Grants(changed);
                }
                () = sources.hints.challenge_answered() => {
                    if !has_unverified {
                        continue;
                    }
                    (1, VERIFIED_PAUSE)
                }
                Ok(()) = sources.report.changed() => return Wake::Shards,
                () = sleep_until(self.next_run) => return Wake::Run,
                () = sleep_until(self.next_compare) => return Wake::Compare,
                () = sleep_until(refresh_at) => return Wake::RefreshLogins,
            };
            if !is_failing {
                self.hasten(share, least);
            }
        }
    }

    fn hasten(&mut self, share: u32, least: Duration) {
        self.next_run = self.next_run.min(self.spaced(share, least));
    }

    /// The earliest time for a run whose cause may come again and again: the list that it reads takes at most one
    /// part in `share` of the rate limit.
    fn spaced(&self, share: u32, least: Duration) -> Instant {
        let now = Instant::now();
        let Some((at, pages)) = self.listed else { return now };
        let (since, list) = match self.is_short {
            true => (self.run_at, Duration::ZERO),
            false => (at, PAGE_TIME * pages * share),
        };
        (since + list.max(least)).max(now)
    }
}

/// Resolves once more was asked than before.
async fn asked(requests: &mut watch::Receiver<Requests>, before: u64) {
    if requests.wait_for(|requests| requests.asked != before).await.is_err() {
        std::future::pending::<()>().await;
    }
}
