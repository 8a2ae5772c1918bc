//! Callback for the hints that events give to the daemon itself.

use std::fmt;
use std::sync::Arc;

use crate::model::hint::Hint;

/// Called with each hint that an event gives to the daemon. Must not block.
#[derive(Clone)]
pub struct HintCallback(pub Arc<dyn Fn(Hint) + Send + Sync>);

impl fmt::Debug for HintCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HintCallback")
    }
}
