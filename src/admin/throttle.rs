//! How often somebody may try a wrong token.
//!
//! Pure. Whoever failed too often is not even looked at for a while, or guessing would cost nothing. Right
//! tokens and cookies cost nothing. The table is bounded: in a crowd of failing addresses the new ones
//! share one budget.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Failures that one address has free.
const BURST: u32 = 10;
/// One more is free after each of these.
const PAUSE: Duration = Duration::from_secs(6);
/// Addresses that are told apart.
const ADDRESSES: usize = 1_000;

/// Failures by address.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    /// When each has all its failures free again.
    clear_at: HashMap<K, Instant>,
    /// The same for those who find no place in the table.
    crowd: Option<Instant>,
}

impl<K: Hash + Eq> Throttle<K> {
    pub(super) fn new() -> Self {
        Self { clear_at: HashMap::new(), crowd: None }
    }

    fn clear_at(&self, who: &K) -> Option<Instant> {
        let is_full = self.clear_at.len() >= ADDRESSES;
        self.clear_at.get(who).copied().or(if is_full { self.crowd } else { None })
    }

    /// Whether a token of theirs is looked at; else how long they have to wait.
    pub(super) fn admits(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let debt = self.clear_at(who).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        match debt.checked_sub(PAUSE * (BURST - 1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// A token of theirs was wrong.
    pub(super) fn failed(&mut self, who: K, now: Instant) {
        if self.clear_at.len() >= ADDRESSES && !self.clear_at.contains_key(&who) {
            self.clear_at.retain(|_, at| *at > now);
        }
        let clear_at = self.clear_at(&who).map_or(now, |at| at.max(now)) + PAUSE;
        if self.clear_at.len() < ADDRESSES || self.clear_at.contains_key(&who) {
            self.clear_at.insert(who, clear_at);
        } else {
            self.crowd = Some(clear_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_are_free_and_then_one_in_six_seconds() {
        let begun = Instant::now();
        let mut throttle = Throttle::new();
        for _ in 0..BURST {
            assert_eq!(throttle.admits(&1, begun), Ok(()));
            throttle.failed(1, begun);
        }
        assert_eq!(throttle.admits(&1, begun), Err(PAUSE));
        assert_eq!(throttle.admits(&2, begun), Ok(()), "others are not concerned");
        let later = begun + PAUSE;
        assert_eq!(throttle.admits(&1, later), Ok(()));
        throttle.failed(1, later);
        assert_eq!(throttle.admits(&1, later), Err(PAUSE));
        assert_eq!(throttle.admits(&1, later + PAUSE * BURST), Ok(()));
    }

    #[test]
    fn a_crowd_shares_one_budget_and_the_table_stays_small() {
        let begun = Instant::now();
        let mut throttle = Throttle::new();
        for who in 0..10_000 {
            if throttle.admits(&who, begun).is_ok() {
                throttle.failed(who, begun);
            }
        }
        assert_eq!(throttle.clear_at.len(), ADDRESSES);
        assert!(throttle.admits(&20_000, begun).is_err());
        assert_eq!(throttle.admits(&1, begun), Ok(()), "who has a place keeps it");
        let later = begun + PAUSE * 100;
        assert_eq!(throttle.admits(&20_000, later), Ok(()));
        throttle.failed(20_000, later);
        assert_eq!(throttle.clear_at.len(), 1, "what is over is forgotten");
    }
}
