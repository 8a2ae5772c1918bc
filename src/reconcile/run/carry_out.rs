//! The last phase of a run: the plan is carried out, and what came of it is told.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::engine::Engine;
use super::execute::{Costs, End, Job, Outcome, execute};
use super::prepare::Prepared;
use super::publish::Change;
use super::{RunEnd, Stop, log_parked, stop};
use crate::model::webhook::KeyId;
use crate::reconcile::api::Api;
use crate::reconcile::clock::wall;
use crate::reconcile::decide::action::{Action, DeleteReason};
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::place::Places;
use crate::reconcile::decide::plan::Planned;
use crate::reconcile::decide::reason;
use crate::reconcile::{Desired, InUse};

/// What a run did.
#[derive(Default)]
struct Tally {
    created: u64,
    adopted: u64,
    deleted: u64,
    parked: usize,
    left: u64,
}

impl<A: Api> Engine<A> {
    pub(in crate::reconcile) async fn carry_out(
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
