//! The last phase of a run: the plan is carried out, and its outcome recorded.

use super::Prepared;
use super::engine::{Engine, RunEnd};
use super::execute::{Costs, End, Job, Outcome, execute};
use super::out::Completed;
use super::tables::Matched;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::decide::action::{Action, DeleteReason};
use crate::reconcile::decide::ledger::Known;
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::plan::Planned;
use crate::reconcile::decide::reason;
use crate::reconcile::error::RunError;

/// Counts of what a run did.
#[derive(Default)]
struct Tally {
    created: u64,
    adopted: u64,
    deleted: u64,
    parked: usize,
    left: u64,
}

impl<A: Api> Engine<A> {
    /// Carries a plan out. Nothing new is begun once `stopped` is ready.
    pub(super) async fn carry_out(
        &mut self,
        desired: &Desired,
        prepared: Prepared,
        stopped: impl Future<Output = ()>,
    ) -> Result<RunEnd, RunError> {
        let Prepared { places, wanted, planned, mut costs, keys, withheld } = prepared;
        let job = Job {
            api: &self.api,
            place: &places.current,
            concurrency: self.options.concurrency,
            drain: self.options.drain,
        };
        let mut tally = Tally { left: withheld as u64, ..Tally::default() };
        // Some were parked by the plan already.
        let before = planned.park.len();
        let (tables, lists, out) = (&mut self.tables, &mut self.lists, &mut self.out);
        let end = execute(&job, &planned.plan.actions, &mut costs, stopped, |action, outcome, costs| {
            let key = action.key();
            let refused = match outcome {
                Outcome::There { row, adopted } => {
                    tracing::debug!(subscription_id = %row.id, subscription = %key, adopted, "subscription is there");
                    tally.adopted += u64::from(adopted);
                    tally.created += u64::from(!adopted);
                    tables.record_created(&row, out);
                    lists.record(Known::There(row));
                    None
                }
                Outcome::Deleted => {
                    tracing::debug!(subscription = %key, "subscription is deleted");
                    tally.deleted += 1;
                    if let Action::Delete { id, .. } = action {
                        lists.record(Known::Gone(id.clone()));
                    }
                    None
                }
                Outcome::Failed => {
                    tally.left += 1;
                    None
                }
                Outcome::Refused(failure) if !action.is_create() => {
                    tally.left += 1;
                    out.warn(format!("{key} could not be deleted: {failure}"));
                    None
                }
                Outcome::Refused(failure) => tables.reason_of(key, &failure),
                Outcome::Conflicted(reason) => Some((Obstacle::Ended, reason)),
                Outcome::NoRoom => Some((Obstacle::Cost, reason::cost_limit())),
            };
            if let Some((obstacle, reason)) = refused {
                tables.park(before + tally.parked, key, obstacle, &reason, out);
                tally.parked += 1;
            }
            out.action_done(costs);
        })
        .await;
        self.out.show_costs(&costs);
        self.lists.record_costs(costs.total(), costs.max);
        if !planned.plan.actions.is_empty() {
            tracing::info!(
                created = tally.created,
                adopted = tally.adopted,
                deleted = tally.deleted,
                parked = before + tally.parked,
                kept = planned.plan.keep,
                planned = planned.plan.actions.len(),
                "reconciled"
            );
        }
        match end {
            End::Stopped => Ok(RunEnd::Cut),
            End::ConduitGone => Err(RunError::Refused("the conduit is gone; another one is made".to_owned())),
            End::Failed(failure) => {
                Err(RunError::api("some subscriptions could not be created or deleted", failure))
            }
            End::Complete => {
                let is_settled = self.complete(desired, &planned, &costs, tally.left);
                self.out.publish_in_use(self.places.in_use(desired, &places, keys));
                if self.out.is_converged() {
                    let (rows, listed) = (self.lists.known().rows.len(), self.lists.begun());
                    let matched = Matched { rows, listed, absent: self.out.absent() };
                    self.tables.remember_compared(desired, &wanted, &places, matched).await;
                }
                Ok(RunEnd::Complete { is_settled })
            }
        }
    }

    /// Records a complete run; returns whether it left no work for one that comes soon.
    fn complete(&mut self, desired: &Desired, planned: &Planned, costs: &Costs, left: u64) -> bool {
        if costs.max > 0 && costs.total().saturating_mul(5) >= costs.max.saturating_mul(4) {
            self.out.warn(format!(
                "the subscriptions cost {} of {}; beyond it Twitch creates none: have broadcasters authorize the \
                 application, or take subscriptions out of the file",
                costs.total(),
                costs.max
            ));
        }
        self.tables.withdraw_permission();
        self.out.complete_run(Completed {
            generation: desired.generation,
            moving: planned.moving,
            is_settled: planned.plan.held_of.is_none()
                && left == 0
                && self.places.shards_are_as_wanted(desired),
        });
        // A place that was just left is looked at once more, so that its shards and its secret can go.
        let left_behind =
            |action: &Action| matches!(action, Action::Delete { reason: DeleteReason::Moved, .. });
        // A later step of a move is decided by a list that shows the one before.
        let is_moving = planned.moving > 0 || planned.plan.actions.iter().any(left_behind);
        if is_moving {
            self.lists.distrust();
        }
        !is_moving && !self.tables.has_unverified()
    }
}
