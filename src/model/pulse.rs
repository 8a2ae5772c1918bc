//! Signs of life: a part counts the turns of its loop, and somebody else looks whether the count moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The count of one part; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The part has moved.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_count() {
        let pulse = Pulse::default();
        let same = pulse.clone();
        same.beat();
        pulse.beat();
        assert_eq!((pulse.count(), same.count()), (2, 2));
    }
}
