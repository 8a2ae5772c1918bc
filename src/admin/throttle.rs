//! Delay of responses to wrong tokens. ◆
//!
//! Every token is checked, and the right one never waits for failures of others, who may share its address behind a
//! proxy. Guessing is slow all the same: each guess holds its connection until the response, and connections without
//! the token are few. The table is bounded: when it is full, new addresses share one budget.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Wrong tokens of one address that get their response at once.
const BURST: u32 = 10;
/// Interval at which one more failure is free.
const PAUSE: Duration = Duration::from_secs(6);
/// The longest delay; less than the time limit of a response.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Number of addresses with a budget of their own.
const ADDRESSES: usize = 1_000;

#[derive(Debug)]
pub(super) struct Throttle<K> {
    /// Time at which each address has its whole budget again.
    clear_at: HashMap<K, Instant>,
    /// The same for all addresses without an entry.
    crowd: Option<Instant>,
}

impl<K: Hash + Eq> Throttle<K> {
    pub(super) fn new() -> Self {
        Self { clear_at: HashMap::new(), crowd: None }
    }

    /// Counts a wrong token; returns the delay of its response.
    pub(super) fn failed(&mut self, who: K, now: Instant) -> Duration {
        let is_full = |table: &HashMap<K, Instant>| table.len() >= ADDRESSES;
        if is_full(&self.clear_at) && !self.clear_at.contains_key(&who) {
            self.clear_at.retain(|_, at| *at > now);
        }
        let in_crowd = is_full(&self.clear_at) && !self.clear_at.contains_key(&who);
        let known = if in_crowd { self.crowd } else { self.clear_at.get(&who).copied() };
        let clear_at = known.map_or(now, |at| at.max(now)) + PAUSE;
        let pause = clear_at.saturating_duration_since(now).saturating_sub(PAUSE * BURST);
        // Bounded, so that an address is free again soon after its last failure.
        let clear_at = clear_at.min(now + PAUSE * BURST + MAX_PAUSE);
        if in_crowd {
            self.crowd = Some(clear_at);
        } else {
            self.clear_at.insert(who, clear_at);
        }
        pause.min(MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_tokens_are_free_and_then_one_every_six_seconds() {
        let begun = Instant::now();
        let mut throttle = Throttle::new();
        for _ in 0..BURST {
            assert_eq!(throttle.failed(1, begun), Duration::ZERO);
        }
        assert_eq!(throttle.failed(1, begun), PAUSE);
        assert_eq!(throttle.failed(1, begun), MAX_PAUSE);
        assert_eq!(throttle.failed(2, begun), Duration::ZERO, "others are not concerned");
        for _ in 0..1_000 {
            assert_eq!(throttle.failed(1, begun), MAX_PAUSE);
        }
        let later = begun + MAX_PAUSE + PAUSE;
        assert_eq!(throttle.failed(1, later), Duration::ZERO, "it paid while it waited");
        assert_eq!(throttle.failed(1, later), PAUSE);
    }

    #[test]
    fn addresses_beyond_the_table_share_one_budget() {
        let begun = Instant::now();
        let mut throttle = Throttle::new();
        for who in 0..10_000 {
            throttle.failed(who, begun);
        }
        assert_eq!(throttle.clear_at.len(), ADDRESSES);
        assert_eq!(throttle.failed(20_000, begun), MAX_PAUSE);
        assert_eq!(throttle.failed(1, begun), Duration::ZERO, "who has a place keeps it");
        let later = begun + PAUSE * 100;
        assert_eq!(throttle.failed(20_000, later), Duration::ZERO);
        assert_eq!(throttle.clear_at.len(), 1, "what is over is forgotten");
    }
}
