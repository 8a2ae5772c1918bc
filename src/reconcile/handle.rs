//! The handle to the reconciler: what it publishes, and requests to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::hints::Hints;
use crate::model::hint::Hint;
use crate::model::lapse::Lapses;
use crate::model::pulse::Pulse;
use crate::model::route::Routes;
use crate::model::shard::{Bindings, ShardBindings, ShardId, ShardTarget};
use crate::model::status::{ReconcileStatus, ShardStatus};
use crate::model::subscriptions::Subscriptions;
use crate::model::webhook::InUse;

/// Requests to the reconciler, as counts, so that none is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    pub(super) asked: u64,
    /// Number of `apply` requests seen.
    pub(super) applies: u64,
    /// Number of requests that allow deletes.
    pub(super) allows: u64,
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct ReconcileHandle {
    /// Which shards there shall be; `None` until the conduit is known.
    pub target: watch::Receiver<Option<ShardTarget>>,
    /// Twitch's answer for each session.
    pub bindings: watch::Receiver<Bindings>,
    /// The shards that call; none when they have WebSockets.
    pub hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    /// How long shards are known to have been bound.
    pub tenures: watch::Receiver<ShardBindings>,
    /// Subscriptions that were gone and are back.
    pub lapses: Lapses,
    /// Secrets and callbacks in use; `None` until they are known.
    pub in_use: watch::Receiver<Option<InUse>>,
    /// Which sinks events go to; `None` until what is remembered was read.
    pub routes: watch::Receiver<Option<Arc<Routes>>>,
    pub status: watch::Receiver<ReconcileStatus>,
    /// Every subscription of the file, sorted.
    pub subscriptions: watch::Receiver<Subscriptions>,
    /// The sign of life of the loop: it beats at least once a minute between runs, and in a run as its requests move.
    pub pulse: Pulse,
    /// The sign of life of the task that binds shards: at least every two minutes.
    pub binder_pulse: Pulse,
    pub(super) requests: Arc<watch::Sender<Requests>>,
    pub(super) answered: watch::Receiver<u64>,
    pub(super) hints: Arc<Hints>,
}

impl ReconcileHandle {
    /// Has it run soon.
    pub fn wake(&self) {
        self.requests.send_modify(|requests| requests.asked += 1);
    }

    /// Has it run at once, trying again what is parked; with `allow_deletes` that run, and those
    /// after it until one is complete, may delete more than `max_delete`. The allowance is for the
    /// configuration in force: a reload ends it. Returns a ticket for [`Self::answered`].
    pub fn apply(&self, allow_deletes: bool) -> u64 {
        let mut ticket = 0;
        self.requests.send_modify(|requests| {
            requests.asked += 1;
            requests.applies += 1;
            requests.allows += u64::from(allow_deletes);
            ticket = requests.asked;
        });
        ticket
    }

    /// Returns once a run that began after [`Self::apply`] gave this ticket has ended, complete or
    /// not (the status says which), or the reconciler has.
    pub async fn answered(&self, ticket: u64) {
        // An error is the end of the reconciler: nothing more will be answered.
        let _ = self.answered.clone().wait_for(|answered| *answered >= ticket).await;
    }

    /// Records what an event tells.
    pub fn hint(&self, hint: Hint) {
        self.hints.record(hint);
    }
}
