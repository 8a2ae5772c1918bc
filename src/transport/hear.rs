//! Whom a transport tells what an event says to the daemon itself.

use std::fmt;
use std::sync::Arc;

use crate::model::hint::Hint;

/// Takes what an event tells the daemon itself. It must not block.
#[derive(Clone)]
pub struct Hear(pub Arc<dyn Fn(Hint) + Send + Sync>);

impl fmt::Debug for Hear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hear")
    }
}
