//! One run: conduit, logins, list, plan, execution. Nothing is planned before all of it was read.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Failure};
use super::engine::Engine;
use super::execute::Costs;
use super::park::Obstacle;
use super::publish::Change;
use super::wanted::{self, Wanted};
use super::{Desired, Requests, reason};
use crate::model::subscription::SubscriptionKey;

/// Parked subscriptions that are logged one by one in a run; the others are counted.
const LOGGED: usize = 10;

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
    pub(super) fn show(&mut self, desired: &Desired) -> Wanted {
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

    pub(super) fn show_costs(&mut self, costs: &Costs) {
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

pub(super) fn log_parked(nth: usize, key: &SubscriptionKey, reason: &str) {
    if nth < LOGGED {
        tracing::warn!(subscription = %key, reason, "subscription is parked");
    } else {
        tracing::debug!(subscription = %key, reason, "subscription is parked");
    }
}
