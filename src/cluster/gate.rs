//! Whether this host may write to Twitch, looked at right before each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lease::Moment;
use crate::store::since_boot;

/// Open while this host leads for sure. The end is a time, so that a process which was stopped finds it closed, whichever
/// task runs first. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicU64>);

impl Gate {
    /// Whether this host leads now.
    pub fn is_open(&self) -> bool {
        since_boot() < self.0.load(Ordering::Acquire)
    }

    /// Opens it until then; `None` closes it.
    pub(super) fn open_until(&self, end: Option<Moment>) {
        let millis = end.map_or(0, |end| u64::try_from(end.as_millis()).unwrap_or(0));
        self.0.store(millis, Ordering::Release);
    }
}
