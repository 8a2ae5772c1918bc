//! The desired state.

use std::sync::Arc;
use std::time::Duration;

use crate::model::mode::{Method, Policy, ShardCount};
use crate::model::shard::WebhookTarget;
use crate::model::subscription::SubscriptionSpec;

/// Desired state derived from one accepted configuration.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Number of the configuration, from 1; each reload has a higher one.
    pub generation: u64,
    pub specs: Arc<[SubscriptionSpec]>,
    pub policy: Policy,
    /// A plan that deletes more than this part of our live subscriptions, and more than 10, or all of them, holds
    /// its deletes until [`super::ReconcileHandle::apply`] allows them. 0 to 1.
    pub max_delete: f64,
    /// Longest pause between two runs.
    pub interval: Duration,
    pub method: Method,
    /// Shards of the conduit.
    pub shards: ShardCount,
    /// Whether the shards call, instead of having a WebSocket each.
    pub shards_call: bool,
    /// The callback for webhooks; needed if subscriptions or shards use them.
    pub webhook: Option<WebhookTarget>,
    /// The conduit that the configuration names; else one is made and remembered.
    pub conduit_id: Option<String>,
    /// Whether the daemon keeps subscriptions of its own that tell of grants and of shards.
    pub watch_grants: bool,
    /// Fingerprint of what the files of all hosts of a cluster must have in common; empty without a cluster.
    pub fingerprint: String,
}
