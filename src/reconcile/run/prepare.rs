//! The phase of a run that follows once the places are settled: everything is read, then planned, and the plan is
//! put into our own tables.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio::time::{Instant, timeout_at};

use super::engine::Engine;
use super::execute::Costs;
use super::look::{list, look_at_grants};
use super::publish::Change;
use super::{Stop, log_parked};
use crate::model::status::{HeldDeletes, Progress};
use crate::model::subscription::{SubscriptionRow, SubscriptionStatus};
use crate::model::text::chain;
use crate::model::webhook::KeyId;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::decide::action::Action;
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::place::{Places, Side};
use crate::reconcile::decide::plan::{Input, Planned, plan};
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::memory::hold_name;

/// Rows on a page of the list.
const PAGE: usize = 100;

/// Read and planned.
pub(in crate::reconcile) struct Prepared {
    pub(in crate::reconcile) places: Places,
    pub(in crate::reconcile) planned: Planned,
    pub(in crate::reconcile) costs: Costs,
    /// What calls us with which secrets.
    pub(in crate::reconcile) keys: BTreeSet<KeyId>,
}

impl<A: Api> Engine<A> {
    /// Reads everything, and plans.
    pub(in crate::reconcile) async fn prepare(
        &mut self,
        desired: &Desired,
        places: Places,
    ) -> Result<Prepared, Stop> {
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
        // What could not be read is in the log.
        let _remarks = look_at_grants(&self.api, &mut self.grants, creates(), &by_id, now).await;
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
}
