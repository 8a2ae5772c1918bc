//! One run: conduit, logins, list, plan, execution. Nothing is planned before all of it was read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::action::{Action, DeleteReason};
use super::api::{Api, Failure};
use super::engine::Engine;
use super::execute::{Costs, End, Job, Outcome, execute};
use super::look::{list, look_at_grants};
use super::memory::hold_name;
use super::park::Obstacle;
use super::place::{Places, Side};
use super::plan::{Input, Planned, plan};
use super::publish::{Change, wall};
use super::wanted::{self, Wanted};
use super::{Desired, InUse, Requests, reason};
use crate::model::status::{HeldDeletes, Progress};
use crate::model::subscription::{SubscriptionKey, SubscriptionRow, SubscriptionStatus};
use crate::model::text::chain;
use crate::model::webhook::KeyId;

/// Parked subscriptions that are logged one by one in a run; the others are counted.
const LOGGED: usize = 10;

/// Rows on a page of the list.
const PAGE: usize = 100;

/// Why a run ended early, for a person.
#[derive(Debug)]
pub(super) struct Stop(pub(super) String);

/// How it ended otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    Complete,
    /// Something newer is wanted.
    Cut,
    Cancelled,
}

/// Read and planned.
struct Prepared {
    places: Places,
    planned: Planned,
    costs: Costs,
    /// What calls us with which secrets.
    keys: BTreeSet<KeyId>,
}

/// What a run did.
#[derive(Default)]
struct Tally {
    created: u64,
    adopted: u64,
    deleted: u64,
    parked: usize,
    left: u64,
}

pub(super) fn stop(what: &str, failure: &Failure) -> Stop {
    Stop(format!("{what}: {failure}"))
}

impl<A: Api> Engine<A> {
    pub(super) async fn run_once(&mut self, cancel: &CancellationToken) -> Result<RunEnd, Stop> {
        let desired = self.desired.borrow_and_update().clone();
        let requests = *self.requests.borrow_and_update();
        self.begin(&desired, requests);

        // Not cut by an edit: what it makes must be remembered first.
        let places = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            places = self.settle(&desired) => places?,
        };
        let newer = newer(self.desired.clone(), self.requests.clone(), requests.applies);
        tokio::pin!(newer);
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            () = &mut newer => return Ok(RunEnd::Cut),
            prepared = self.prepare(&desired, places) => prepared?,
        };
        let end = {
            let stopped = async {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = &mut newer => {}
                }
            };
            self.carry_out(&desired, prepared, stopped).await?
        };
        match end {
            RunEnd::Cut if cancel.is_cancelled() => Ok(RunEnd::Cancelled),
            end => Ok(end),
        }
    }

    /// Takes in what is asked, and shows the new subscriptions.
    fn begin(&mut self, desired: &Desired, requests: Requests) {
        let now = Instant::now().into_std();
        let (generation, before) = self.seen;
        if generation != desired.generation || before.applies != requests.applies {
            self.parked.release(now);
            self.logins.release(now);
            self.grants.forget_all();
            self.prover.forget();
        }
        if before.allows != requests.allows {
            self.allowed = Some(desired.generation);
        }
        self.seen = (desired.generation, requests);
        self.warnings.clear();
        self.logins.retain(&wanted::logins(&desired.specs));
        self.show(desired);
    }

    /// Resolves what can be resolved, and publishes it.
    fn show(&mut self, desired: &Desired) -> Wanted {
        let wanted = wanted::of(desired, &self.logins, &self.options.client_id);
        self.publish_routes(&wanted);
        self.publisher.rebase(&wanted);
        for (key, login) in &wanted.unresolved {
            if let Some(retry_at) = self.logins.not_found(login) {
                let reason = reason::login_not_found(login).into();
                let obstacle = Obstacle::Login;
                self.publisher.set(key, Change::Parked { obstacle, reason, retry_at });
            }
        }
        self.publisher.tick();
        wanted
    }

    async fn prepare(&mut self, desired: &Desired, places: Places) -> Result<Prepared, Stop> {
        self.find_logins(desired).await?;
        let wanted = self.show(desired);
        let list = list(&self.api, &places.filter()).await?;
        let now = Instant::now();
        let pages = u32::try_from(list.rows.len() / PAGE).unwrap_or(u32::MAX).saturating_add(1);
        self.listed = Some((now, pages));
        self.tend_old_places(desired, &places, &list.rows).await?;
        let overdue = self.track_challenges(&places, &list.rows, now);
        let now = now.into_std();
        self.parked.retain(|key| wanted.keys.binary_search(key).is_ok(), now);
        let input = Input {
            places: &places,
            wanted: &wanted.keys,
            rows: &list.rows,
            parked: &self.parked,
            overdue: &overdue,
            unreachable: None,
            ungranted: &HashMap::new(),
            now,
            policy: desired.policy,
            max_delete: desired.max_delete,
            allow_deletes: self.allowed == Some(desired.generation),
            held_of: self.held_of,
            total_cost: list.total_cost,
            max_total_cost: list.max_total_cost,
        };
        let mut planned = plan(&input);
        let creates = || planned.plan.actions.iter().filter(|action| action.is_create()).map(Action::key);
        let by_id = self.logins.by_id();
        look_at_grants(&self.api, &mut self.grants, creates(), &by_id, now).await;
        let ungranted = self.grants.refusals(creates(), &by_id);
        let unreachable = match desired.webhook.as_ref().filter(|_| places.current.is_webhook()) {
            Some(webhook) if creates().next().is_some() => {
                self.prover.prove(&webhook.url, webhook.keys.current()).await.err()
            }
            _ => None,
        };
        if !ungranted.is_empty() || unreachable.is_some() {
            planned = plan(&Input { ungranted: &ungranted, unreachable: unreachable.as_deref(), ..input });
        }
        if let Some(why) = unreachable {
            tracing::warn!(error = why, "the callback cannot be reached; nothing is created");
            self.warnings.push(format!("the callback cannot be reached, so nothing is created: {why}"));
        }
        let absent = wanted.keys.iter().zip(&planned.live).filter(|(_, live)| live.is_none());
        self.publisher.status.grants = self.grants.status(absent.map(|(key, _)| key), &by_id);
        self.take_plan(&wanted, &planned);
        let costs = Costs::new(list.total_cost, list.max_total_cost);
        self.show_costs(&costs);
        self.remember_hold(&planned).await?;
        let progress = Progress { done: 0, total: planned.plan.actions.len() as u64 };
        self.publisher.status.progress = Some(progress);
        if progress.total > 0 {
            // Whatever the last run has found, there is a difference now.
            self.publisher.status.converged = false;
        }
        self.publisher.flush();
        if planned.plan.actions.iter().any(Action::is_create) && !places.current.is_webhook() {
            self.await_shards().await;
        }
        let keys = places.keys(&list.rows);
        Ok(Prepared { places, planned, costs, keys })
    }

    /// Which subscriptions have waited too long for their challenge.
    fn track_challenges(
        &mut self,
        places: &Places,
        rows: &[SubscriptionRow],
        now: Instant,
    ) -> HashSet<Box<str>> {
        let waits = |row: &&SubscriptionRow| {
            row.status == SubscriptionStatus::WebhookCallbackVerificationPending
                && places.side(&row.target) != Side::Foreign
        };
        let mut unverified = HashMap::new();
        for row in rows.iter().filter(waits) {
            let since = self.unverified.get(&row.id).copied().unwrap_or(now);
            unverified.insert(row.id.clone(), since);
        }
        self.unverified = unverified;
        let challenge = self.options.challenge;
        self.unverified
            .iter()
            .filter(|(_, since)| now >= **since + challenge)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Puts what the plan says into the tables and the status.
    fn take_plan(&mut self, wanted: &Wanted, planned: &Planned) {
        let now = Instant::now().into_std();
        for (key, live) in wanted.keys.iter().zip(&planned.live) {
            match live {
                Some(live) if live.enabled => {
                    // One that delivers from an older place may be parked for its new one.
                    if live.current {
                        self.parked.settled(key, now);
                    }
                    self.publisher.set(key, Change::Enabled(live.id.clone()));
                }
                Some(live) => self.publisher.set(key, Change::Pending(Some(live.id.clone()))),
                None => self.publisher.set(key, Change::Pending(None)),
            }
        }
        for (nth, (key, obstacle, reason)) in planned.park.iter().enumerate() {
            log_parked(nth, key, reason);
            self.parked.park(key, *obstacle, reason, now);
        }
        for (key, reason) in &planned.at_once {
            self.parked.try_at_once(key, reason, now);
        }
        for blocked in &planned.plan.blocked {
            if blocked.obstacle == Obstacle::Cost && blocked.retry_in.is_none() {
                self.parked.forget(&blocked.key);
            }
            if blocked.delivers {
                continue;
            }
            let change = Change::Parked {
                obstacle: blocked.obstacle,
                reason: blocked.reason.as_str().into(),
                retry_at: blocked.retry_in.map(|pause| now + pause),
            };
            self.publisher.set(&blocked.key, change);
        }
        let held =
            planned.plan.held_of.map(|ours| HeldDeletes { deletes: planned.plan.held.len() as u64, ours });
        if let Some(held) = held.filter(|held| self.publisher.status.deletes_held != Some(*held)) {
            tracing::warn!(
                deletes = held.deletes,
                ours = held.ours,
                "too large a part of our subscriptions would be deleted: waiting for `eventsubd apply --allow-deletes`"
            );
        }
        self.publisher.status.deletes_held = held;
    }

    /// A hold outlives a restart: what was created meanwhile must not make it slip.
    async fn remember_hold(&mut self, planned: &Planned) -> Result<(), Stop> {
        let held_of = planned.plan.held_of;
        if held_of != self.held_of {
            let change = (hold_name(&self.options.client_id), held_of.map(|of| of.to_string()));
            self.memory.save(vec![change]).await.map_err(|error| {
                Stop(format!("the hold on deletes cannot be remembered: {}", chain(&error)))
            })?;
            self.held_of = held_of;
        }
        Ok(())
    }

    fn show_costs(&mut self, costs: &Costs) {
        let status = &mut self.publisher.status;
        status.total_cost = Some(costs.total());
        status.max_total_cost = (costs.max > 0).then_some(costs.max);
    }

    /// New subscriptions deliver at once, and what no shard takes is lost: wait for the shards when
    /// they have just been told of.
    async fn await_shards(&mut self) {
        let Some(target) = self.target.borrow().clone() else { return };
        let all = |bound: u32| bound >= target.shards;
        let deadline = self.target_at + self.options.bind_wait;
        let mut report = self.report.clone();
        let waited = timeout_at(
            deadline,
            report.wait_for(|report| {
                report.conduit_id.as_ref() == Some(&target.conduit_id) && all(report.bound)
            }),
        )
        .await
        .is_ok();
        let bound = self.report.borrow().bound;
        if !waited && !all(bound) {
            tracing::warn!(
                bound,
                shards = target.shards,
                "creating subscriptions before all shards are bound: their first events may be lost"
            );
        }
    }

    async fn carry_out(
        &mut self,
        desired: &Desired,
        prepared: Prepared,
        stopped: impl Future<Output = ()>,
    ) -> Result<RunEnd, Stop> {
        let Prepared { places, planned, mut costs, keys } = prepared;
        let job = Job {
            api: &self.api,
            place: &places.current,
            concurrency: self.options.concurrency,
            drain: self.options.drain,
        };
        let mut tally = Tally::default();
        let mut by_id = None;
        let (logins, parked, publisher, warnings, unverified) =
            (&self.logins, &mut self.parked, &mut self.publisher, &mut self.warnings, &mut self.unverified);
        let end = execute(&job, &planned.plan.actions, &mut costs, stopped, |action, outcome, costs| {
            let now = Instant::now().into_std();
            let key = action.key();
            let refused = match outcome {
                Outcome::There { id, adopted, enabled } => {
                    tracing::debug!(subscription_id = &*id, subscription = %key, adopted, "subscription is there");
                    tally.adopted += u64::from(adopted);
                    tally.created += u64::from(!adopted);
                    parked.settled(key, now);
                    if enabled {
                        publisher.set(key, Change::Enabled(id));
                    } else {
                        unverified.insert(id.clone(), Instant::now());
                        publisher.begun(key, id);
                    }
                    None
                }
                Outcome::Deleted => {
                    tracing::debug!(subscription = %key, "subscription is deleted");
                    tally.deleted += 1;
                    None
                }
                Outcome::Failed => {
                    tally.left += 1;
                    None
                }
                Outcome::Refused(failure) if !action.is_create() => {
                    tally.left += 1;
                    warnings.push(format!("{key} could not be deleted: {failure}"));
                    warnings.truncate(20);
                    None
                }
                Outcome::Refused(failure) => {
                    let names = by_id.get_or_insert_with(|| logins.by_id());
                    reason::of_failure(key, &failure, |id| names.get(id).copied())
                }
                Outcome::Conflicted(reason) => Some((Obstacle::Ended, reason)),
                Outcome::NoRoom => Some((Obstacle::Cost, reason::cost_limit())),
            };
            if let Some((obstacle, reason)) = refused {
                log_parked(tally.parked, key, &reason);
                tally.parked += 1;
                let retry_at = parked.park(key, obstacle, &reason, now);
                if !publisher.delivers(key) {
                    publisher.set(key, Change::Parked { obstacle, reason: reason.into(), retry_at });
                }
            }
            if let Some(progress) = &mut publisher.status.progress {
                progress.done += 1;
            }
            publisher.status.total_cost = Some(costs.total());
            publisher.tick();
        })
        .await;
        self.show_costs(&costs);
        if !planned.plan.actions.is_empty() {
            tracing::info!(
                created = tally.created,
                adopted = tally.adopted,
                deleted = tally.deleted,
                parked = tally.parked,
                kept = planned.plan.keep,
                planned = planned.plan.actions.len(),
                "reconciled"
            );
        }
        match end {
            End::Stopped => Ok(RunEnd::Cut),
            End::ConduitGone => Err(Stop("the conduit is gone; another one is made".to_owned())),
            End::Failed(failure) => Err(stop("some subscriptions could not be created or deleted", &failure)),
            End::Complete => {
                self.complete(desired, &planned, &costs, tally.left);
                self.publish_use(desired, &places, keys);
                Ok(RunEnd::Complete)
            }
        }
    }

    /// Says what calls us, and with which secrets. While shards call, or did, their list tells as well; before it
    /// was read, they may have any secret.
    fn publish_use(&self, desired: &Desired, places: &Places, mut keys: BTreeSet<KeyId>) {
        let subscriptions = !keys.is_empty() || places.current.is_webhook();
        let webhook = desired.webhook.as_ref();
        if self.target.borrow().is_some() {
            match (&self.report.borrow().keys, webhook) {
                (Some(of_shards), _) => keys.extend(of_shards),
                (None, Some(webhook)) => keys.extend(webhook.keys.all().iter().map(|key| key.id)),
                (None, None) => {}
            }
        }
        let calls = !keys.is_empty() || desired.shards_call || places.current.is_webhook();
        keys.extend(webhook.map(|webhook| webhook.keys.current().id).filter(|_| calls));
        let new = Some(InUse { keys, calls, subscriptions });
        self.in_use.send_if_modified(|told| {
            let changed = *told != new;
            *told = new;
            changed
        });
    }

    fn complete(&mut self, desired: &Desired, planned: &Planned, costs: &Costs, left: u64) {
        if costs.max > 0 && costs.total().saturating_mul(5) >= costs.max.saturating_mul(4) {
            self.warnings.push(format!(
                "the subscriptions cost {} of {}; beyond it Twitch creates none: have broadcasters authorize the \
                 application, or take subscriptions out of the file",
                costs.total(),
                costs.max
            ));
        }
        self.allowed = None;
        let pending = self.publisher.pending();
        let status = &mut self.publisher.status;
        status.moving = planned.moving;
        status.generation = desired.generation;
        // What was just left is looked at once more, so that its shards and its secret can go.
        let left_behind =
            |action: &Action| matches!(action, Action::Delete { reason: DeleteReason::Moved, .. });
        self.unsettled =
            planned.moving > 0 || !self.unverified.is_empty() || planned.plan.actions.iter().any(left_behind);
        status.converged = planned.plan.held_of.is_none()
            && left == 0
            && pending == 0
            && planned.moving == 0
            && (!desired.shards_call || self.report.borrow().all_call);
        status.finished_at = Some(wall());
        status.problem = None;
    }
}

/// Returns once another configuration or an `apply` is there.
async fn newer(
    mut desired: watch::Receiver<Arc<Desired>>,
    mut requests: watch::Receiver<Requests>,
    applies: u64,
) {
    let applied = async { requests.wait_for(|requests| requests.applies != applies).await.map(|_| ()) };
    tokio::select! {
        Ok(()) = desired.changed() => {}
        Ok(()) = applied => {}
        else => std::future::pending().await,
    }
}

fn log_parked(nth: usize, key: &SubscriptionKey, reason: &str) {
    if nth < LOGGED {
        tracing::warn!(subscription = %key, reason, "subscription is parked");
    } else {
        tracing::debug!(subscription = %key, reason, "subscription is parked");
    }
}
