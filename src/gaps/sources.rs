//! Values of the other parts, and of the other hosts, that the watch over gaps reads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::catch_up::{CatchUpOptions, LatestEvents};
use crate::model::cluster::Leadership;
use crate::model::lapse::Lapses;
use crate::model::shard::{HandedOver, Lives, ShardBindings, ShardTarget};
use crate::model::signs::CallbackSigns;
use crate::model::status::{ReconcileStatus, WebhookStatus};
use crate::model::subscriptions::Subscriptions;
use crate::model::webhook::InUse;

/// Evidence that the parts publish.
#[derive(Clone, Debug)]
pub struct GapSources {
    pub lives: watch::Receiver<Lives>,
    /// Replaced sessions that were read to their end, by any host.
    pub handed_over: watch::Receiver<HandedOver>,
    pub bindings: watch::Receiver<ShardBindings>,
    pub target: watch::Receiver<Option<ShardTarget>>,
    pub callback: CallbackSigns,
    pub webhook: watch::Receiver<Option<WebhookStatus>>,
    /// Whether connections to the callback are accepted.
    pub listening: watch::Receiver<bool>,
    pub in_use: watch::Receiver<Option<InUse>>,
    pub reconcile: watch::Receiver<ReconcileStatus>,
    pub subscriptions: watch::Receiver<Subscriptions>,
    pub lapses: Lapses,
    pub catch_up: watch::Receiver<CatchUpOptions>,
    /// The other hosts; `None` without a cluster.
    pub hosts: Option<GapHosts>,
}

/// Several hosts: only the one that leads watches, and the next one goes on from what it knew.
#[derive(Clone)]
pub struct GapHosts {
    pub leadership: watch::Receiver<Leadership>,
    pub memory: Arc<dyn SharedText>,
    pub latest: Arc<dyn LatestEvents>,
}

/// A text that all hosts share.
pub trait SharedText: Send + Sync {
    /// Reads it, with the time since a host wrote it, if that is known; `None` if there is none, or it cannot be read.
    fn load(&self) -> BoxFuture<'static, Option<(String, Option<Duration>)>>;

    /// Replaces it; returns whether it is stored.
    fn save(&self, text: String) -> BoxFuture<'static, bool>;
}

impl std::fmt::Debug for GapHosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GapHosts").field("leadership", &self.leadership).finish_non_exhaustive()
    }
}
