//! One run: conduit, logins, list, plan, execution. Nothing is planned before all of it was read.

mod carry_out;
pub(super) mod engine;
mod execute;
pub(super) mod look;
mod prepare;
mod publish;
mod schedule;
mod settle;
mod users;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::engine::Engine;
use self::execute::Costs;
use self::publish::Change;
use crate::model::subscription::SubscriptionKey;
use crate::reconcile::api::{Api, Failure};
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::reason;
use crate::reconcile::decide::wanted::{self, Wanted};
use crate::reconcile::{Desired, Requests};

/// Parked subscriptions that are logged one by one in a run; the others are counted.
const LOGGED: usize = 10;

/// Why a run ended early, for a person.
#[derive(Debug)]
pub(in crate::reconcile) struct Stop(pub(in crate::reconcile) String);

/// How it ended otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum RunEnd {
    Complete,
    /// Something newer is wanted.
    Cut,
    Cancelled,
}

pub(in crate::reconcile) fn stop(what: &str, failure: &Failure) -> Stop {
    Stop(format!("{what}: {failure}"))
}

impl<A: Api> Engine<A> {
    pub(in crate::reconcile) async fn run_once(
        &mut self,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, Stop> {
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
    pub(in crate::reconcile) fn show(&mut self, desired: &Desired) -> Wanted {
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

    pub(in crate::reconcile) fn show_costs(&mut self, costs: &Costs) {
        let status = &mut self.publisher.status;
        status.total_cost = Some(costs.total());
        status.max_total_cost = (costs.max > 0).then_some(costs.max);
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

pub(in crate::reconcile) fn log_parked(nth: usize, key: &SubscriptionKey, reason: &str) {
    if nth < LOGGED {
        tracing::warn!(subscription = %key, reason, "subscription is parked");
    } else {
        tracing::debug!(subscription = %key, reason, "subscription is parked");
    }
}
