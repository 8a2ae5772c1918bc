//! Work that is handed to the shared log of a cluster, in builds with it and without.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::SinkOptions;
use super::select::Selector;
use crate::model::event::Since;
use crate::model::route::{Routes, SinkName};
use crate::model::time::Timestamp;
use crate::store::Store;

/// A sink to be worked here, from the shared log or not.
#[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "only a worker of the shared log reads them"))]
pub(super) struct Assignment {
    pub(super) options: SinkOptions,
    pub(super) selector: Selector,
    pub(super) routes: watch::Receiver<Option<Arc<Routes>>>,
    pub(super) store: Store,
    /// When the sink was added to the configuration of this process, or when that began.
    pub(super) since: Instant,
}

/// A part of the shared log that a sink gets again.
#[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "only a cluster reads them"))]
pub(super) struct Part<W> {
    pub(super) sink: SinkName,
    pub(super) since: Since,
    pub(super) until: Option<Timestamp>,
    pub(super) types: Option<String>,
    /// Whether the sink gets an event at all.
    pub(super) wants: W,
}
