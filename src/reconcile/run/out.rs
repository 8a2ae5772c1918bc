//! Owner of what the reconciler publishes: status, entries, routes, warnings. Collected at once, published at most
//! twice a second.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::execute::Costs;
use crate::model::invocation::Invocation;
use crate::model::lapse::{Lapse, Lapses};
use crate::model::route::{Routes, SinkName};
use crate::model::status::{
    ConduitStatus, GrantStatus, HeldDeletes, ProblemKind, Progress, ReconcileStatus, SubscriptionEntry,
    SubscriptionState,
};
use crate::model::subscription::{SubscriptionId, SubscriptionKey};
use crate::model::subscriptions::{LoginNames, Subscriptions};
use crate::model::time::Timestamp;
use crate::reconcile::InUse;
use crate::reconcile::clock::{timestamp_of, wall};
use crate::reconcile::decide::compared::{Absent, Compared};
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::error::ErrorKind;
use crate::telemetry::Publish;

/// Publishing a table of so many rows takes about a millisecond; the pause between two publications
/// grows with the table, so that they stay a small part of the work.
const ROWS_PER_PAUSE: usize = 10_000;

/// Warnings of one run at most.
const MAX_WARNINGS: usize = 20;

/// The sending ends of the values that [`Out`] publishes.
#[derive(Debug)]
pub(in crate::reconcile) struct Senders {
    pub(in crate::reconcile) status: watch::Sender<ReconcileStatus>,
    pub(in crate::reconcile) entries: watch::Sender<Subscriptions>,
    pub(in crate::reconcile) routes: watch::Sender<Option<Arc<Routes>>>,
    pub(in crate::reconcile) in_use: watch::Sender<Option<InUse>>,
    /// The number of requests that have been answered by a run.
    pub(in crate::reconcile) answered: watch::Sender<u64>,
    /// Subscriptions that were gone and are back.
    pub(in crate::reconcile) lapses: Lapses,
}

/// All subscriptions of the file but these delivered at a time before this process began.
#[derive(Debug)]
struct Expected {
    at: std::time::Instant,
    absent: Absent,
}

/// The outcome of a complete run.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct Completed {
    pub(in crate::reconcile) generation: u64,
    /// Subscriptions that a later run goes on moving.
    pub(in crate::reconcile) moving: u64,
    /// Whether Twitch matches the file, as far as the run's own steps tell.
    pub(in crate::reconcile) is_settled: bool,
}

/// A new state of one entry.
#[derive(Clone, Debug)]
pub(in crate::reconcile) enum Change {
    Enabled { id: SubscriptionId, cost: u64 },
    Pending(Option<SubscriptionId>),
    Parked { obstacle: Obstacle, reason: Box<str>, retry_at: Option<std::time::Instant> },
}

/// The values in the making, and the channels that they are published in.
#[derive(Debug)]
pub(in crate::reconcile) struct Out {
    status: ReconcileStatus,
    /// The subscriptions that have entries and routes.
    shown: Option<Arc<Wanted>>,
    entries: Subscriptions,
    /// The position behind the last entry that was set.
    next: usize,
    entries_changed: bool,
    /// Also of subscriptions that were taken out of the file, until the process ends: their events
    /// may still be on their way to the sinks.
    routes: HashMap<SubscriptionKey, Arc<[SinkName]>>,
    /// Types that the file has listed since the start: events of a type that a reload removed are still on their way.
    types: Arc<BTreeSet<Box<str>>>,
    /// Warnings of the last run.
    warnings: Vec<String>,
    /// Warnings beyond [`MAX_WARNINGS`].
    more_warnings: usize,
    /// Least pause between two publications.
    pause: Duration,
    next_status: Instant,
    next_entries: Instant,
    /// When the reading of the last list that a plan was made from began.
    listed_at: Option<std::time::Instant>,
    /// Subscriptions that delivered and do not any more, each with the last list that showed it.
    gone: HashMap<SubscriptionKey, std::time::Instant>,
    /// Subscriptions that delivered before this process began; until it has a list.
    expected: Option<Expected>,
    /// How the log tells people to run commands.
    invocation: Invocation,
    senders: Senders,
}

impl Out {
    pub(in crate::reconcile) fn new(pause: Duration, invocation: Invocation, senders: Senders) -> Self {
        let now = Instant::now();
        Self {
            status: ReconcileStatus::default(),
            shown: None,
            entries: Subscriptions::default(),
            next: 0,
            entries_changed: false,
            routes: HashMap::new(),
            types: Arc::default(),
            warnings: Vec::new(),
            more_warnings: 0,
            pause,
            next_status: now,
            next_entries: now,
            listed_at: None,
            gone: HashMap::new(),
            expected: None,
            invocation,
            senders,
        }
    }

    /// Forgets how things were when this host last led, or what it never knew.
    pub(in crate::reconcile) fn begin_term(&mut self) {
        let status = &mut self.status;
        (status.generation, status.remembered, status.converged) = (0, None, false);
        (status.conduit, status.problem, status.problem_kind) = (None, None, None);
        (status.deletes_held, status.warnings) = (None, Vec::new());
        self.shown = None;
        self.expected = None;
    }

    /// Forgets the warnings of the run before.
    pub(in crate::reconcile) fn begin_run(&mut self) {
        self.warnings.clear();
        self.more_warnings = 0;
    }

    /// Adds a warning of this run.
    pub(in crate::reconcile) fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(text);
        } else {
            tracing::warn!("{text}");
            self.more_warnings += 1;
        }
    }

    /// Shows the warnings of the run together with those of the shards and of the logins.
    pub(in crate::reconcile) fn show_warnings(&mut self, shards: &[String], logins: Vec<String>) {
        let more = (self.more_warnings > 0)
            .then(|| format!("{} more warnings like these; the log has them", self.more_warnings));
        let warnings = shards.iter().chain(&self.warnings).cloned().chain(more).chain(logins);
        self.status.warnings = warnings.collect();
    }

    /// Shows these subscriptions and no others, and publishes where their events go.
    pub(in crate::reconcile) fn show_wanted(&mut self, wanted: &Arc<Wanted>) {
        if self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, wanted)) {
            return;
        }
        self.publish_routes(wanted);
        self.rebase(wanted);
        self.shown = Some(Arc::clone(wanted));
    }

    /// Shows that an earlier process has left Twitch as the file is.
    pub(in crate::reconcile) fn show_remembered(&mut self, at: Timestamp) {
        self.status.remembered = Some(at);
    }

    /// Shows the conduit. Another one than before has no subscriptions yet.
    pub(in crate::reconcile) fn show_conduit(&mut self, conduit: Option<ConduitStatus>) {
        if let (Some(old), Some(new)) = (&self.status.conduit, &conduit)
            && old.id != new.id
        {
            self.status.converged = false;
        }
        self.status.conduit = conduit;
    }

    pub(in crate::reconcile) fn show_costs(&mut self, costs: &Costs) {
        self.status.total_cost = Some(costs.total());
        self.status.max_total_cost = (costs.max > 0).then_some(costs.max);
    }

    pub(in crate::reconcile) fn show_grants(&mut self, grants: Vec<GrantStatus>) {
        self.status.grants = grants;
    }

    /// Shows which deletes of the plan for this generation wait for a person, and logs them when they are news.
    pub(in crate::reconcile) fn show_held(&mut self, held: Option<HeldDeletes>, generation: u64) {
        if let Some(held) = held.filter(|held| self.status.deletes_held != Some(*held)) {
            tracing::warn!(
                deletes = held.deletes,
                ours = held.ours,
                "{}, so this waits for {}",
                held.sentence(),
                self.invocation.complete("`eventsubd apply --allow-deletes`")
            );
        }
        self.status.deletes_held = held;
        self.status.planned = generation;
    }

    /// Shows that so many actions begin; if there are any, Twitch does not match the file.
    pub(in crate::reconcile) fn begin_actions(&mut self, total: usize) {
        self.status.progress = Some(Progress { done: 0, total: total as u64 });
        if total > 0 {
            self.status.converged = false;
        }
        self.flush();
    }

    /// Shows that one more action is done.
    pub(in crate::reconcile) fn action_done(&mut self, costs: &Costs) {
        if let Some(progress) = &mut self.status.progress {
            progress.done += 1;
        }
        self.status.total_cost = Some(costs.total());
        self.tick();
    }

    /// Shows that a run is complete.
    pub(in crate::reconcile) fn complete_run(&mut self, run: Completed) {
        let is_pending = self.entries.iter().any(|entry| entry.state == SubscriptionState::Pending);
        self.status.moving = run.moving;
        self.status.generation = run.generation;
        self.status.converged = run.is_settled && !is_pending && run.moving == 0;
        self.status.finished_at = Some(wall());
        (self.status.problem, self.status.problem_kind) = (None, None);
    }

    /// Whether Twitch matches the file.
    pub(in crate::reconcile) fn is_converged(&self) -> bool {
        self.status.converged
    }

    /// Shows that nothing has to be done for this generation as far as is known.
    pub(in crate::reconcile) fn show_planned(&mut self, generation: u64) {
        self.status.planned = generation;
    }

    /// Shows that a run ended early, and why.
    pub(in crate::reconcile) fn fail_run(&mut self, problem: String, kind: ErrorKind) {
        self.status.problem = Some(problem);
        self.status.problem_kind = Some(match kind {
            ErrorKind::Credentials => ProblemKind::Credentials,
            ErrorKind::Unavailable => ProblemKind::Outage,
            ErrorKind::State | ErrorKind::Refused => ProblemKind::Other,
        });
    }

    /// Shows that no action is under way.
    pub(in crate::reconcile) fn end_run(&mut self) {
        self.status.progress = None;
    }

    /// Publishes what Twitch calls us with.
    pub(in crate::reconcile) fn publish_in_use(&self, in_use: InUse) {
        self.senders.in_use.publish(Some(in_use));
    }

    /// Publishes that the requests up to this number have had their run.
    pub(in crate::reconcile) fn publish_answered(&mut self, asked: u64) {
        self.status.answered = asked;
        self.flush();
        self.senders.answered.send_replace(asked);
    }

    fn publish_routes(&mut self, wanted: &Wanted) {
        let mut changed = self.senders.routes.borrow().is_none();
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
        for key in wanted.keys.iter().chain(wanted.unresolved.iter().map(|(key, _)| key)) {
            if !self.types.contains(&*key.subscription_type) {
                Arc::make_mut(&mut self.types).insert((*key.subscription_type).into());
                changed = true;
            }
        }
        if changed {
            let routes = Routes::new(self.routes.clone(), Arc::clone(&self.types));
            self.senders.routes.send_replace(Some(Arc::new(routes)));
        }
    }

    /// Makes an entry for each wanted key and no other; entries that exist keep their state.
    fn rebase(&mut self, wanted: &Wanted) {
        let known = wanted.keys.iter().zip(&wanted.logins).map(|(key, logins)| (key, logins.clone()));
        let unknown = wanted.unresolved.iter().map(|(key, _)| (key, LoginNames::None));
        let mut next = 0;
        let entry = |(key, logins): (&SubscriptionKey, LoginNames)| {
            let own = wanted.own.contains(key);
            let known = self.entries.position_near(next, key);
            next = known.map_or_else(|at| at, |at| at + 1);
            match known.ok().and_then(|at| self.entries.get(at)) {
                Some(entry) => SubscriptionEntry { key: key.clone(), own, logins, ..entry.clone() },
                None => SubscriptionEntry {
                    key: key.clone(),
                    state: SubscriptionState::Pending,
                    id: None,
                    reason: None,
                    obstacle: None,
                    retry_at: None,
                    cost: None,
                    own,
                    logins,
                },
            }
        };
        let entries = if wanted.unresolved.is_empty() {
            known.map(entry).collect()
        } else {
            known.chain(unknown).map(entry).collect::<Vec<_>>().into()
        };
        self.entries_changed |= entries != self.entries;
        self.entries = entries;
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|key, _| self.entries.find(key).is_some());
        self.gone = gone;
    }

    /// Records when the list was asked for that all entries have their state from.
    pub(in crate::reconcile) fn record_list(&mut self, asked_at: Option<std::time::Instant>) {
        self.listed_at = asked_at;
    }

    /// Expects in the next list what an earlier process found: what is missing there has vanished since.
    pub(in crate::reconcile) fn expect(&mut self, compared: &Compared) {
        let now = Instant::now().into_std();
        let at = now.checked_sub(wall().since(compared.listed.unwrap_or(compared.at))).unwrap_or(now);
        self.expected = compared.absent.clone().map(|absent| Expected { at, absent });
    }

    /// Takes note that all entries have their state from a list of this process.
    pub(in crate::reconcile) fn end_expectation(&mut self) {
        self.expected = None;
    }

    /// Subscriptions that do not deliver. `None` for too many of them.
    pub(in crate::reconcile) fn absent(&self) -> Option<Absent> {
        let absent = self.entries.iter().filter(|entry| entry.state != SubscriptionState::Enabled);
        Absent::new(absent.map(|entry| &entry.key))
    }

    /// Records what a new state of an entry says of the time in which it does not deliver.
    fn record_delivery(&mut self, at: usize, state: SubscriptionState) {
        let Some(entry) = self.entries.get(at) else { return };
        let (before, key) = (entry.state, &entry.key);
        if state == SubscriptionState::Enabled {
            if let Some(from) = self.gone.remove(key) {
                let lapse = Lapse { from, to: Instant::now().into_std() };
                self.senders.lapses.add(key, lapse);
            }
        } else if before == SubscriptionState::Enabled {
            let seen = self.listed_at.unwrap_or_else(|| Instant::now().into_std());
            self.gone.insert(key.clone(), seen);
        } else if let Some(expected) = self.expected.as_ref().filter(|expected| !expected.absent.has(key)) {
            self.gone.entry(key.clone()).or_insert(expected.at);
        }
    }

    /// Changes one entry; a key that is not wanted has none.
    pub(in crate::reconcile) fn set(&mut self, key: &SubscriptionKey, change: Change) {
        // Many keys are set one after the other, in the order of the list.
        let Ok(at) = self.entries.position_near(self.next, key) else { return };
        self.next = at + 1;
        let mut cost = None;
        let (state, id, retry_at, obstacle, reason) = match change {
            Change::Enabled { id, cost: of_row } => {
                cost = u8::try_from(of_row).ok();
                (SubscriptionState::Enabled, Some(id), None, None, None)
            }
            Change::Pending(id) => (SubscriptionState::Pending, id, None, None, None),
            Change::Parked { obstacle, reason, retry_at } => {
                let retry_at = retry_at.map(timestamp_of);
                (SubscriptionState::Parked, None, retry_at, Some(obstacle), Some(reason))
            }
        };
        self.record_delivery(at, state);
        let Some(entry) = self.entries.get(at) else { return };
        // The time is computed anew each time and wavers by some milliseconds.
        let is_same_time = match (entry.retry_at, retry_at) {
            (Some(old), Some(new)) => old.since(new).max(new.since(old)) <= Duration::from_secs(1),
            (old, new) => old == new,
        };
        if entry.state == state
            && entry.id == id
            && entry.cost == cost
            && entry.reason == reason
            && entry.obstacle == obstacle
            && is_same_time
        {
            return;
        }
        let entry = SubscriptionEntry { state, id, retry_at, cost, obstacle, reason, ..entry.clone() };
        self.entries.replace(at, entry);
        self.entries_changed = true;
    }

    /// Whether Twitch delivers this subscription.
    pub(in crate::reconcile) fn delivers(&self, key: &SubscriptionKey) -> bool {
        self.entries.find(key).is_some_and(|entry| entry.state == SubscriptionState::Enabled)
    }

    /// Records a new subscription that waits for its challenge; an older one may deliver until then.
    pub(in crate::reconcile) fn begun(&mut self, key: &SubscriptionKey, id: SubscriptionId) {
        if !self.delivers(key) {
            self.set(key, Change::Pending(Some(id)));
        }
    }

    /// Publishes what has changed, unless something was published a moment ago.
    pub(in crate::reconcile) fn tick(&mut self) {
        let now = Instant::now();
        let is_status_due = now >= self.next_status;
        // A reader that sees the end of a run must find its list: the list goes first.
        let ends = is_status_due && self.status.converged && !self.senders.status.borrow().converged;
        if self.entries_changed && (ends || now >= self.next_entries) {
            self.publish_entries(now);
        }
        if is_status_due {
            self.publish_status(now);
        }
    }

    /// Publishes what has changed.
    pub(in crate::reconcile) fn flush(&mut self) {
        let now = Instant::now();
        if self.entries_changed {
            self.publish_entries(now);
        }
        self.publish_status(now);
    }

    fn publish_status(&mut self, now: Instant) {
        self.next_status = now + self.pause;
        self.senders.status.publish_copy(&self.status);
    }

    fn publish_entries(&mut self, now: Instant) {
        let pauses = u32::try_from(self.entries.len() / ROWS_PER_PAUSE).unwrap_or(u32::MAX).saturating_add(1);
        self.next_entries = now + self.pause.saturating_mul(pauses);
        self.entries_changed = false;
        self.senders.entries.send_replace(self.entries.clone());
    }
}
