//! Record of events that retention removed before a sink had them.

use serde::{Deserialize, Serialize};

use crate::model::route::SinkName;
use crate::model::time::Timestamp;

/// Prefix of the names of settings that record losses.
pub(super) const LOSS: &str = "loss.";

/// Events that retention removed before a sink had them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub sink: SinkName,
    /// Number of lost events.
    pub events: u64,
    /// When the first of them was stored.
    pub from: Timestamp,
    /// When the last of them was stored.
    pub to: Timestamp,
}
