//! Liveness of a task: it counts the turns of its loop, and a watchdog checks that the count moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counter of one task; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: AtomicU64,
    is_resting: AtomicBool,
}

impl Pulse {
    /// Counts one turn.
    pub fn beat(&self) {
        self.0.is_resting.store(false, Ordering::Relaxed);
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The part has nothing to do until its next beat.
    pub fn rest(&self) {
        self.0.is_resting.store(true, Ordering::Relaxed);
    }

    /// Number of beats so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Whether the part has nothing to do.
    pub fn is_resting(&self) -> bool {
        self.0.is_resting.load(Ordering::Relaxed)
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

    #[test]
    fn a_beat_ends_the_rest() {
        let pulse = Pulse::default();
        assert!(!pulse.is_resting());
        let same = pulse.clone();
        pulse.rest();
        assert!(same.is_resting());
        same.beat();
        assert!(!pulse.is_resting());
    }
}
