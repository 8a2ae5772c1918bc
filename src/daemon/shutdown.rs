//! Stopping, which follows the way of an event: from the sockets to the store. A host of a cluster hands over first.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cluster::ClusterLink;
use super::tasks::Tasks;
use crate::gaps::GapsHandle;
use crate::store::Store;

/// How long stopping may take before what is left is cut off; systemd's limit is longer.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long the sockets may take to close, within that.
const INTAKE_LIMIT: Duration = Duration::from_secs(3);
/// How long what is known of gaps may take to be shared, within that.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// How long the reconciler of a cluster may take for its requests in hand, within that.
const API_LIMIT: Duration = Duration::from_secs(2);

/// Parts to stop, in this order.
pub(super) struct Stopping {
    pub(super) intake: CancellationToken,
    pub(super) intake_tasks: Tasks,
    pub(super) api: CancellationToken,
    pub(super) api_tasks: Tasks,
    /// The cluster, if there is one.
    pub(super) cluster: Option<ClusterLink>,
    pub(super) gaps: GapsHandle,
    pub(super) cluster_end: CancellationToken,
    pub(super) cluster_tasks: Tasks,
    pub(super) rest: CancellationToken,
    pub(super) rest_tasks: Tasks,
    pub(super) store: Store,
}

impl Stopping {
    /// Stops everything, and says what had to be cut off. False when `at_once` has cut it short.
    pub(super) async fn stop(mut self, at_once: CancellationToken) -> bool {
        let begun = Instant::now();
        tokio::select! {
            cut = self.in_order(begun) => {
                if !cut.is_empty() {
                    warn!(parts = cut.join(", "), "these parts did not stop in time and were cut off");
                }
                info!(milliseconds = begun.elapsed().as_millis(), "stopped");
                true
            }
            () = at_once.cancelled() => {
                warn!("stopped at once on a second signal; the store holds what was accepted");
                false
            }
        }
    }

    /// The names of what did not end in time.
    async fn in_order(&mut self, begun: Instant) -> Vec<&'static str> {
        let mut cut = Vec::new();
        let deadline = begun + STOP_LIMIT;
        let mut intake_end = begun + INTAKE_LIMIT;
        if let Some(cluster) = &self.cluster {
            // Other hosts take the shards from the open sockets, so that nothing is missed. If this host leads, it has to
            // bind them.
            cluster.hand_over().await;
            // The next leader goes on from it. What it does not know makes a gap longer.
            let _ = tokio::time::timeout(FLUSH_LIMIT, self.gaps.flush()).await;
            self.api.cancel();
            cut.extend(self.api_tasks.join(Instant::now() + API_LIMIT).await);
            cluster.resign().await;
            intake_end = Instant::now() + INTAKE_LIMIT;
        }
        self.intake.cancel();
        cut.extend(self.intake_tasks.join(intake_end.min(deadline)).await);
        self.api.cancel();
        cut.extend(self.api_tasks.join(deadline).await);
        self.cluster_end.cancel();
        cut.extend(self.cluster_tasks.join(deadline).await);
        self.rest.cancel();
        cut.extend(self.rest_tasks.join(deadline).await);
        match tokio::time::timeout_at(deadline + Duration::from_secs(1), self.store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the event store did not close cleanly"),
            Err(_) => cut.push("event store"),
        }
        cut
    }
}
