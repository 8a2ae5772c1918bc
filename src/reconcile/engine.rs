//! The loop: when to run, and what is kept between runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::binder::{Binder, ShardReport};
use super::grants::Grants;
use super::logins::Logins;
use super::memory::{
    Intent, LOGIN_PREFIX, Memory, MemoryError, conduit_name, hold_name, intent_name, parse_urls, urls_name,
};
use super::park::ParkTable;
use super::publish::{Publisher, wall};
use super::reach::{Prover, Reach};
use super::run::RunEnd;
use super::wanted::{self, Wanted};
use super::{Desired, Hints, InUse, ReconcileHandle, ReconcileOptions, Requests};
use crate::helix::User;
use crate::model::pulse::Pulse;
use crate::model::route::{Routes, SinkName};
use crate::model::shard::{Sessions, ShardTarget};
use crate::model::status::{ReconcileStatus, SubscriptionEntry};
use crate::model::subscription::SubscriptionKey;
use crate::model::text::chain;

/// A page of the list takes so long of a rate limit of 800 requests a minute.
const PAGE_TIME: Duration = Duration::from_millis(75);

/// Runs that only retry what is parked take at most a tenth of the rate limit.
const RETRY_SHARE: u32 = 10;

/// Runs after revocations take at most a quarter of it.
const REVOKED_SHARE: u32 = 4;

/// Grants that come in a row lead to one run.
const GRANT_PAUSE: Duration = Duration::from_millis(200);

/// Challenges that are answered in a row lead to one run.
const VERIFIED_PAUSE: Duration = Duration::from_millis(300);

/// From one run to the next while subscriptions wait for their challenge, or are moved.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(3);

/// Pause after a look at logins that failed.
const REFRESH_FAILED: Duration = Duration::from_secs(60);

/// Everything that lives as long as the reconciler.
#[derive(Debug)]
pub(super) struct Engine<A> {
    pub(super) api: A,
    pub(super) memory: MemoryHandle,
    pub(super) options: ReconcileOptions,
    pub(super) desired: watch::Receiver<Arc<Desired>>,
    pub(super) requests: watch::Receiver<Requests>,
    pub(super) report: watch::Receiver<ShardReport>,
    pub(super) target: watch::Sender<Option<ShardTarget>>,
    /// When the target last changed.
    pub(super) target_at: Instant,
    pub(super) publisher: Publisher,
    /// Of the last run.
    pub(super) warnings: Vec<String>,
    pub(super) logins: Logins,
    pub(super) parked: ParkTable,
    pub(super) grants: Grants,
    /// The conduit that we made, and the intent to make one.
    pub(super) remembered: Option<String>,
    pub(super) intent: Option<Intent>,
    /// The public URLs that subscriptions of ours may point to.
    pub(super) urls: BTreeSet<Arc<str>>,
    pub(super) prover: Prover,
    /// Since when subscriptions, by id, have waited for their challenge.
    pub(super) unverified: HashMap<Box<str>, Instant>,
    /// Whether the last run left something that another one has to look after soon.
    pub(super) unsettled: bool,
    pub(super) in_use: watch::Sender<Option<InUse>>,
    /// While deletes are held: of how many.
    pub(super) held_of: Option<u64>,
    /// The generation for which held deletes are allowed.
    pub(super) allowed: Option<u64>,
    /// What the last run that began had seen.
    pub(super) seen: (u64, Requests),
    /// When the list was last asked for, and how many pages it had.
    pub(super) listed: Option<(Instant, u32)>,
    routes_out: watch::Sender<Option<Arc<Routes>>>,
    /// Also of subscriptions that were taken out of the file, until the process ends: their events
    /// may still be on their way to the sinks.
    routes: HashMap<SubscriptionKey, Arc<[SinkName]>>,
    answered: watch::Sender<u64>,
    revoked: Arc<Notify>,
    hints: Arc<Hints>,
    trouble: Arc<Notify>,
    binder: Option<Binder<A>>,
    next_refresh: Instant,
    pub(super) pulse: Pulse,
}

/// [`Memory`] with a name in `Debug` texts.
#[derive(Clone)]
pub(super) struct MemoryHandle(Arc<dyn Memory>);

impl std::ops::Deref for MemoryHandle {
    type Target = dyn Memory;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Debug for MemoryHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

/// Builds it, with its binder and the handle.
pub(super) fn build<A: Api>(
    api: &A,
    memory: Arc<dyn Memory>,
    reach: Arc<dyn Reach>,
    desired: watch::Receiver<Arc<Desired>>,
    sessions: watch::Receiver<Sessions>,
    options: ReconcileOptions,
) -> (Engine<A>, ReconcileHandle) {
    let (target, target_out) = watch::channel(None);
    let (bindings, bindings_out) = watch::channel(Arc::default());
    let (report_in, report) = watch::channel(ShardReport::default());
    let (hooks_in, hooks) = watch::channel(Default::default());
    let (in_use, in_use_out) = watch::channel(None);
    let (routes_out, routes) = watch::channel(None);
    let (status_out, status) = watch::channel(ReconcileStatus::default());
    let (entries_out, subscriptions) = watch::channel::<Arc<[SubscriptionEntry]>>(Arc::new([]));
    let (requests_in, requests) = watch::channel(Requests::default());
    let (answered, answered_out) = watch::channel(0);
    let (revoked, trouble) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hints = Arc::new(Hints::default());
    let now = Instant::now();
    let (pulse, binder_pulse) = (Pulse::default(), Pulse::default());
    let handle = ReconcileHandle {
        target: target_out.clone(),
        bindings: bindings_out,
        hooks,
        in_use: in_use_out,
        routes,
        status,
        subscriptions,
        requests: Arc::new(requests_in),
        answered: answered_out,
        revoked: revoked.clone(),
        hints: hints.clone(),
        pulse: pulse.clone(),
        binder_pulse: binder_pulse.clone(),
    };
    let binder = Binder {
        api: api.with_pulse(&binder_pulse),
        pulse: binder_pulse,
        options: options.clone(),
        target: target_out,
        sessions,
        bindings,
        hooks: hooks_in,
        prover: Prover::new(reach.clone(), options.reach_life),
        report: report_in,
        trouble: trouble.clone(),
        hints: hints.clone(),
    };
    let engine = Engine {
        api: api.with_pulse(&pulse),
        memory: MemoryHandle(memory),
        desired,
        requests,
        report,
        target,
        target_at: now,
        publisher: Publisher::new(options.publish_pause, status_out, entries_out),
        warnings: Vec::new(),
        logins: Logins::new(options.login_refresh, options.retry),
        parked: ParkTable::new(options.retry),
        grants: Grants::default(),
        remembered: None,
        intent: None,
        urls: BTreeSet::new(),
        prover: Prover::new(reach, options.reach_life),
        unverified: HashMap::new(),
        unsettled: false,
        in_use,
        held_of: None,
        allowed: None,
        seen: (0, Requests::default()),
        listed: None,
        routes_out,
        routes: HashMap::new(),
        answered,
        revoked,
        hints,
        trouble,
        binder: Some(binder),
        next_refresh: now + options.login_refresh_pause,
        options,
        pulse,
    };
    (engine, handle)
}

impl<A: Api> Engine<A> {
    /// Runs until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let Some(binder) = self.binder.take() else { return };
        // Shards stay watched until the last request of a stopped run is answered.
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut binder = tokio::spawn(binder.run(stop));
        tokio::select! {
            () = self.main(&cancel) => {}
            ended = &mut binder => {
                tracing::error!(error = ?ended.err(), "the task that binds shards ended");
                return;
            }
        }
        drop(guard);
        if let Err(error) = binder.await {
            tracing::error!(%error, "the task that binds shards failed");
        }
    }

    async fn main(&mut self, cancel: &CancellationToken) {
        let mut failures = 0;
        while let Err(error) = self.recall().await {
            self.pulse.beat();
            let pause = self.backoff(&mut failures);
            tracing::warn!(error = chain(&error), "what is remembered could not be read");
            self.publisher.status.problem = Some(chain(&error));
            self.publisher.flush();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
        let desired = self.desired.borrow().clone();
        let wanted = wanted::of(&desired, &self.logins, &self.options.client_id);
        self.publish_routes(&wanted);
        self.publisher.rebase(&wanted);
        self.publisher.flush();

        failures = 0;
        loop {
            self.pulse.beat();
            let end = Box::pin(self.run_once(cancel)).await;
            self.publisher.status.progress = None;
            let now = Instant::now();
            let next = match end {
                Ok(RunEnd::Cancelled) => {
                    self.publisher.flush();
                    return;
                }
                Ok(RunEnd::Cut) => None,
                Ok(RunEnd::Complete) => {
                    failures = 0;
                    Some(self.next_run(now))
                }
                Err(stop) => {
                    let pause = self.backoff(&mut failures);
                    tracing::warn!(
                        error = stop.0,
                        retry_in_ms = pause.as_millis(),
                        "reconciling ended early"
                    );
                    self.publisher.status.problem = Some(stop.0);
                    Some(now + pause)
                }
            };
            self.compose_warnings();
            self.publisher.flush();
            if let Some(next) = next {
                self.answered.send_replace(self.seen.1.asked);
                if !self.idle(cancel, next, failures > 0).await {
                    return;
                }
            }
        }
    }

    /// Grows with each failure, up to the longest; a quarter more or less.
    fn backoff(&self, failures: &mut u32) -> Duration {
        let (first, longest) = self.options.backoff;
        let pause = first.saturating_mul(1 << (*failures).min(20)).min(longest);
        *failures = failures.saturating_add(1);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// When to run next after a complete run.
    fn next_run(&self, now: Instant) -> Instant {
        let interval = now + self.desired.borrow().interval;
        let due = [self.parked.next_due(), self.logins.next_due()].into_iter().flatten().min();
        let due = due.map(|due| Instant::from_std(due).max(self.spaced(RETRY_SHARE, Duration::from_secs(5))));
        let soon = self.unsettled.then(|| self.spaced(2, UNSETTLED_PAUSE));
        [due, soon].into_iter().flatten().fold(interval, Instant::min).max(now)
    }

    /// The earliest time for a run whose cause may come again and again.
    fn spaced(&self, share: u32, least: Duration) -> Instant {
        let now = Instant::now();
        self.listed.map_or(now, |(at, pages)| at + (PAGE_TIME * pages * share).max(least)).max(now)
    }

    /// Waits for a reason to run; false when cancelled.
    async fn idle(&mut self, cancel: &CancellationToken, mut next: Instant, failing: bool) -> bool {
        let seen = self.seen.1.asked;
        loop {
            self.pulse.beat();
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                Ok(()) = self.desired.changed() => return true,
                () = asked(&mut self.requests, seen) => return true,
                () = self.revoked.notified() => Event::Revoked,
                () = self.trouble.notified() => Event::Trouble,
                () = self.hints.grants.notified() => Event::Grants,
                () = self.hints.verified.notified() => Event::Verified,
                Ok(()) = self.report.changed() => Event::Report,
                () = sleep_until(next) => return true,
                () = sleep_until(self.next_refresh) => Event::Refresh,
            };
            match event {
                // While runs fail, the next one comes soon anyway, and not sooner.
                Event::Revoked | Event::Trouble | Event::Verified if failing => {}
                Event::Grants => {
                    self.take_hints();
                    if !failing {
                        next = next.min(self.spaced(1, GRANT_PAUSE));
                    }
                }
                // A proof of ours that the callback is there brings challenges too.
                Event::Verified if self.unverified.is_empty() => {}
                Event::Verified => next = next.min(self.spaced(1, VERIFIED_PAUSE)),
                Event::Revoked => next = next.min(self.spaced(REVOKED_SHARE, Duration::from_secs(1))),
                Event::Trouble => next = next.min(self.spaced(1, Duration::from_secs(1))),
                Event::Report => {
                    self.compose_warnings();
                    self.publisher.flush();
                }
                Event::Refresh => {
                    tokio::select! {
                        () = cancel.cancelled() => return false,
                        () = self.refresh_logins() => {}
                    }
                }
            }
        }
    }

    /// What is known of users whose grants have changed is looked up again, and what waits for them is due.
    fn take_hints(&mut self) {
        let changed = std::mem::take(&mut *self.hints.lock());
        if changed.all {
            self.grants.forget_all();
        }
        for user in &changed.ids {
            self.grants.forget(user);
        }
        let users = (!changed.all).then_some(&changed.ids);
        self.parked.release_users(users, Instant::now().into_std());
    }

    async fn recall(&mut self) -> Result<(), MemoryError> {
        let client = self.options.client_id.clone();
        let logins = self.memory.load(LOGIN_PREFIX).await?;
        self.remembered = recall_one(&*self.memory, &conduit_name(&client)).await?;
        self.intent =
            recall_one(&*self.memory, &intent_name(&client)).await?.as_deref().and_then(Intent::parse);
        self.held_of =
            recall_one(&*self.memory, &hold_name(&client)).await?.and_then(|text| text.parse().ok());
        let urls = recall_one(&*self.memory, &urls_name(&client)).await?;
        self.urls = parse_urls(urls.as_deref());
        self.logins.remember(&logins, Instant::now().into_std(), wall());
        Ok(())
    }

    /// Looks at some ids that were not looked at for long. Never changes an id.
    async fn refresh_logins(&mut self) {
        let now = Instant::now();
        self.next_refresh = now + self.options.login_refresh_pause;
        if !self.logins.any_stale(now.into_std()) {
            return;
        }
        let specs = self.desired.borrow().specs.clone();
        let (asked, forgotten) = self.logins.stale(&wanted::logins(&specs), now.into_std());
        self.remember_logins(forgotten).await;
        if asked.is_empty() {
            return;
        }
        let ids: Vec<&str> = asked.iter().map(|(_, id)| &**id).collect();
        let users: Vec<User> = match self.api.users_by_id(&ids).await {
            Ok(users) => users,
            Err(failure) => {
                tracing::debug!(error = %failure, "logins could not be looked at again");
                self.next_refresh = now + REFRESH_FAILED.max(self.options.login_refresh_pause);
                return;
            }
        };
        let (changes, news) = self.logins.refreshed(&asked, &users, Instant::now().into_std(), wall());
        for text in news {
            tracing::warn!("{text}");
        }
        self.remember_logins(changes).await;
        self.compose_warnings();
        self.publisher.flush();
    }

    /// What is not remembered is looked up again: a failure is told and does no harm.
    pub(super) async fn remember_logins(&self, changes: Vec<(String, Option<String>)>) {
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.memory.save(changes).await {
            tracing::warn!(error = chain(&error), "the ids of logins could not be remembered");
        }
    }

    /// Publishes where events go, when that has changed.
    pub(super) fn publish_routes(&mut self, wanted: &Wanted) {
        let mut changed = self.routes_out.borrow().is_none();
        for key in &wanted.keys {
            match wanted.restricted.get(key) {
                Some(sinks) if self.routes.get(key) != Some(sinks) => {
                    self.routes.insert(key.clone(), sinks.clone());
                    changed = true;
                }
                Some(_) => {}
                None => changed |= self.routes.remove(key).is_some(),
            }
        }
        if changed {
            self.routes_out.send_replace(Some(Arc::new(Routes::new(self.routes.clone()))));
        }
    }

    /// Puts the warnings of all parts together.
    pub(super) fn compose_warnings(&mut self) {
        let mut warnings = self.report.borrow_and_update().warnings.clone();
        warnings.extend(self.warnings.iter().cloned());
        warnings.extend(self.logins.warnings());
        self.publisher.status.warnings = warnings;
    }
}

/// Why the loop stirs between runs.
enum Event {
    Revoked,
    Grants,
    Verified,
    Trouble,
    Report,
    Refresh,
}

/// Returns once more was asked than had been seen.
async fn asked(requests: &mut watch::Receiver<Requests>, seen: u64) {
    if requests.wait_for(|requests| requests.asked != seen).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One remembered value.
pub(super) async fn recall_one(memory: &dyn Memory, name: &str) -> Result<Option<String>, MemoryError> {
    let pairs = memory.load(name).await?;
    Ok(pairs.into_iter().find(|(found, _)| found == name).map(|(_, value)| value))
}
