//! When events may have been missed, and telling it: an event of the type `eventsubd.gap`, stored and handed on like any
//! other, so that programs can read again the state that they follow.
//!
//! Owns the memory of how long everything is known to have delivered, which a restart goes on from. After a crash that
//! memory is up to [`KEEP`] old, so a gap is told as longer than it was, never as shorter. It never asks how things
//! are: it reads what the parts publish, once a second and at every change.

mod event;
mod memory;
mod run;
mod sights;
mod timeline;
mod watcher;

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::lapse::Lapses;
use crate::model::shard::{Lives, ShardBindings, ShardTarget};
use crate::model::signs::CallbackSigns;
use crate::model::status::{GapsStatus, ReconcileStatus, WebhookStatus};
use crate::model::subscriptions::Subscriptions;
use crate::model::webhook::InUse;
use crate::store::Store;

/// How often the time up to which everything is known is stored at most.
const KEEP: Duration = Duration::from_secs(5);
/// How often everything is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often losses by retention are looked for: many small ones become one event.
const LOSSES: Duration = Duration::from_secs(60);

/// What the parts publish.
#[derive(Clone, Debug)]
pub struct GapSources {
    pub lives: watch::Receiver<Lives>,
    pub bindings: watch::Receiver<ShardBindings>,
    pub target: watch::Receiver<Option<ShardTarget>>,
    pub callback: CallbackSigns,
    pub webhook: watch::Receiver<Option<WebhookStatus>>,
    pub in_use: watch::Receiver<Option<InUse>>,
    pub reconcile: watch::Receiver<ReconcileStatus>,
    pub subscriptions: watch::Receiver<Subscriptions>,
    pub lapses: Lapses,
}

/// The task; see [`gaps`].
#[derive(Debug)]
pub struct Gaps {
    store: Store,
    sources: GapSources,
    status: watch::Sender<GapsStatus>,
}

/// Builds the task; nothing happens until it is run.
pub fn gaps(store: Store, sources: GapSources) -> (Gaps, watch::Receiver<GapsStatus>) {
    let (status, published) = watch::channel(GapsStatus::default());
    (Gaps { store, sources, status }, published)
}

impl Gaps {
    /// Runs until cancelled, or until the store is closed.
    pub async fn run(self, cancel: CancellationToken) {
        run::run(self, cancel).await;
    }
}
