//! The loop and its runs. A run reads everything, plans, and carries the plan out.

mod carry_out;
pub(super) mod engine;
mod execute;
pub(super) mod observe;
pub(super) mod out;
mod places;
pub(super) mod tables;
mod wakeups;

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use self::engine::Engine;
use self::execute::Costs;
use self::observe::observe;
use self::tables::{Observed, Tables};
use crate::model::status::HeldDeletes;
use crate::model::webhook::KeyId;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::decide::action::Action;
use crate::reconcile::decide::place::Places;
use crate::reconcile::decide::plan::Planned;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::error::RunError;

/// The end of a run that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum RunEnd {
    /// Every action was carried out or refused. A run that is not settled leaves work that another one has to look
    /// after soon.
    Complete {
        is_settled: bool,
    },
    /// Something newer is wanted.
    Cut,
    Cancelled,
}

/// A plan that is ready to be carried out.
#[derive(Debug)]
struct Prepared {
    places: Places,
    planned: Planned,
    costs: Costs,
    /// The secrets that subscriptions call us with.
    keys: BTreeSet<KeyId>,
}

impl<A: Api> Engine<A> {
    pub(super) async fn run_once(&mut self, cancel: &CancellationToken) -> Result<RunEnd, RunError> {
        let order = self.wake_ups.begin_run();
        let desired = order.desired;
        if order.is_requested {
            self.tables.release();
            self.places.forget_proofs();
        }
        if order.allows_deletes {
            self.tables.allow_deletes(desired.generation);
        }
        self.out.begin_run();
        self.tables.retain_logins(&desired);
        let wanted = self.tables.wanted(&desired);
        self.tables.show(&wanted, &mut self.out);

        // An edit does not cut this step: a conduit that it makes must be remembered first.
        let places = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            places = self.places.prepare(&self.api, &desired, &mut self.out) => places?,
        };
        let newer = self.wake_ups.newer();
        tokio::pin!(newer);
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            () = &mut newer => return Ok(RunEnd::Cut),
            prepared = self.prepare(&desired, places) => prepared?,
        };
        let stopped = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = &mut newer => {}
            }
        };
        match self.carry_out(&desired, prepared, stopped).await? {
            RunEnd::Cut if cancel.is_cancelled() => Ok(RunEnd::Cancelled),
            end => Ok(end),
        }
    }

    /// Reads everything, plans, and takes the plan into our own tables.
    async fn prepare(&mut self, desired: &Desired, places: Places) -> Result<Prepared, RunError> {
        let out = &mut self.out;
        let show = |tables: &Tables, wanted: &Wanted| tables.show(wanted, out);
        let observed = observe(&self.api, &mut self.tables, desired, &places, show).await?;
        let rows = &observed.list.rows;
        self.wake_ups.record_list(rows.len());
        self.places.tend_old(&self.api, desired, &places, rows, &mut self.out).await?;
        let overdue = self.tables.track_challenges(&places, rows);
        let registry = &mut self.places;
        let unreachable = async {
            match &desired.webhook {
                Some(webhook) => registry.unreachable(webhook).await,
                None => None,
            }
        };
        let decided = self.tables.decide(&self.api, desired, &places, &observed, &overdue, unreachable).await;
        decided.remarks.into_iter().for_each(|remark| self.out.warn(remark));
        if let Some(why) = decided.unreachable {
            tracing::warn!(error = why, "the callback cannot be reached; nothing is created");
            self.out.warn(format!("the callback cannot be reached, so nothing is created: {why}"));
        }
        let Observed { wanted, list } = observed;
        let planned = decided.planned;
        self.out.show_grants(self.tables.grants_of_absent(&wanted, &planned));
        self.tables.apply_plan(&wanted, &planned, &mut self.out);
        let deletes = planned.plan.held.len() as u64;
        let held = planned.plan.held_of.map(|ours| HeldDeletes { deletes, ours });
        self.out.show_held(held, desired.generation);
        let costs = Costs::new(list.total_cost, list.max_total_cost);
        self.out.show_costs(&costs);
        self.tables.remember_hold(&planned).await?;
        self.out.begin_actions(planned.plan.actions.len());
        if planned.plan.actions.iter().any(Action::is_create) && !places.current.is_webhook() {
            self.places.await_shards().await;
        }
        let keys = places.keys(&list.rows);
        Ok(Prepared { places, planned, costs, keys })
    }
}
