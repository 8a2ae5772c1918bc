//! The end of the task that the other parts of this host have.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::super::ask::{self, Asked, Reply};
use super::super::gate::Gate;
use super::super::hints::HintSender;
use super::super::places::Places;
use super::super::saving::SaveError;
use super::super::self_binding::SelfBinding;
use super::super::shared::Shared;
use crate::model::cluster::{Assigned, ClusterStatus, LeaderRequest, Leadership};
use crate::model::hint::Hint;

/// A request of a part of this host.
#[derive(Debug)]
pub(super) enum Request {
    Load {
        prefix: String,
        reply: oneshot::Sender<Option<Vec<(String, String)>>>,
    },
    /// The age of what the watch over gaps knows.
    GapAge {
        reply: oneshot::Sender<Option<Duration>>,
    },
    Save {
        changes: Vec<(String, Option<String>)>,
        reply: oneshot::Sender<Result<(), SaveError>>,
    },
    Leave,
    Resign {
        reply: oneshot::Sender<()>,
    },
}

/// Asks the task; cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    /// Orders for the parts that only the leader runs.
    pub leadership: watch::Receiver<Leadership>,
    pub status: watch::Receiver<ClusterStatus>,
    /// Which host has which work.
    pub assigned: watch::Receiver<Assigned>,
    pub gate: Gate,
    /// The places of sinks.
    pub places: Places,
    pub(super) hints: HintSender,
    pub(in crate::cluster) shards: Shared,
    pub(in crate::cluster) self_binding: SelfBinding,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) asked: mpsc::Sender<Asked<LeaderRequest>>,
}

impl ClusterHandle {
    /// Asks the leader, which may be this host.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub async fn ask(&self, request: LeaderRequest) -> Reply {
        ask::hand_in(&self.asked, request, false).await
    }

    /// The shared values whose names begin with `prefix`; `None` if they are not known, as NATS was never reached.
    pub async fn load(&self, prefix: &str) -> Option<Vec<(String, String)>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Load { prefix: prefix.to_owned(), reply }).await.ok()?;
        answer.await.ok()?
    }

    /// The time since the shared memory of the watch over gaps was written, by the clock of the NATS servers; `None` if
    /// there is none.
    pub async fn gap_age(&self) -> Option<Duration> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::GapAge { reply }).await.ok()?;
        answer.await.ok()?
    }

    /// Open while this host may bind its own shards itself, as no leader can be expected to.
    pub fn self_binding_gate(&self) -> Gate {
        self.self_binding.gate.clone()
    }

    /// Tells the other hosts a hint that has reached this one.
    pub fn hint(&self, hint: Hint) {
        self.hints.send(hint);
    }

    /// Changes shared values, if this host leads; a name without a value is removed.
    ///
    /// # Errors
    /// See [`SaveError`].
    pub async fn save(&self, changes: Vec<(String, Option<String>)>) -> Result<(), SaveError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Save { changes, reply };
        self.requests.send(request).await.map_err(|_| SaveError::Stopping)?;
        answer.await.unwrap_or(Err(SaveError::Stopping))
    }

    /// Says that this host is leaving, so that its work goes to others. The leader goes on leading meanwhile.
    pub async fn leave(&self) {
        // An error is the end of the task, which other hosts notice as well.
        let _ = self.requests.send(Request::Leave).await;
    }

    /// Says that this host is leaving, and gives the lease up if it has it. Returns once it is given up.
    pub async fn resign(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Resign { reply }).await.is_ok() {
            // An error is the end of the task, and with it of the lease.
            let _ = answer.await;
        }
    }
}
