//! Table of timers of a state machine. ◆

use std::collections::BTreeMap;
use std::time::Instant;

/// The timers that run, at most one of each kind. Whatever a machine waits for stands here, so that its next deadline is
/// the least of them.
#[derive(Clone, Debug)]
pub struct Timers<K>(BTreeMap<K, Instant>);

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Starts a timer, or moves it.
    pub fn set(&mut self, kind: K, at: Instant) {
        self.0.insert(kind, at);
    }

    /// Starts a timer, or moves it forward: one that is due before stays as it is.
    pub fn set_earlier(&mut self, kind: K, at: Instant) {
        let due = self.0.entry(kind).or_insert(at);
        *due = at.min(*due);
    }

    pub fn stop(&mut self, kind: K) {
        self.0.remove(&kind);
    }

    /// Returns when a timer is due; `None` if it does not run.
    pub fn get(&self, kind: K) -> Option<Instant> {
        self.0.get(&kind).copied()
    }

    /// Returns whether a timer runs and is due.
    pub fn is_due(&self, kind: K, now: Instant) -> bool {
        self.get(kind).is_some_and(|at| at <= now)
    }

    /// Returns when the next timer is due; `None` if none runs.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_next_deadline_is_the_least_of_the_running_timers() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set('a', at(5));
        timers.set('b', at(3));
        assert_eq!((timers.next(), timers.get('a'), timers.get('c')), (Some(at(3)), Some(at(5)), None));
        timers.set_earlier('a', at(9));
        timers.set_earlier('b', at(2));
        assert_eq!((timers.get('a'), timers.get('b')), (Some(at(5)), Some(at(2))));
        assert!(timers.is_due('b', at(2)) && !timers.is_due('a', at(2)) && !timers.is_due('c', at(9)));
        timers.set('b', at(7));
        timers.stop('c');
        assert_eq!(timers.next(), Some(at(5)));
        timers.stop('a');
        assert_eq!(timers.next(), Some(at(7)));
    }
}
