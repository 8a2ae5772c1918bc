//! Whether this host may bind its own shards itself, from the task of the cluster to the other parts.

use tokio::sync::watch;

use super::alone::Alone;
use super::gate::Gate;
use super::lease::Moment;
use crate::telemetry::Publish;

/// The end of the other parts; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct SelfBinding {
    /// Whether no leader can be expected to bind the shards of this host.
    pub(super) is_alone: watch::Receiver<bool>,
    /// Open while the host may bind its shards.
    pub(super) gate: Gate,
}

/// The end of the task.
#[derive(Debug)]
pub(super) struct SelfBindingIn {
    alone: Alone,
    is_alone: watch::Sender<bool>,
    gate: Gate,
}

/// Builds both ends.
pub(super) fn self_binding() -> (SelfBindingIn, SelfBinding) {
    let (is_alone_in, is_alone) = watch::channel(false);
    let gate = Gate::default();
    let task = SelfBindingIn { alone: Alone::default(), is_alone: is_alone_in, gate: gate.clone() };
    (task, SelfBinding { is_alone, gate })
}

impl SelfBindingIn {
    /// Records an answer of NATS.
    pub(super) fn handle_answer(&mut self, now: Moment) {
        self.alone.handle_answer(now);
    }

    /// Publishes how things are; `takes_part`: the host has its name for itself, and is not stopping. Comes before the gate
    /// of the leader is opened.
    pub(super) fn publish(&mut self, takes_part: bool, now: Moment) {
        let until = self.alone.poll(now).filter(|_| takes_part);
        self.gate.open_until(until);
        self.is_alone.publish(until.is_some());
    }

    /// Closes the gate for good.
    pub(super) fn end(&self) {
        self.gate.open_until(None);
    }
}
