//! Backoff: pauses between tries that grow with each failure. ◆

use std::ops::Range;
use std::time::Duration;

/// Pauses that double with each failure in a row, up to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// Returns the pause after this many failures in a row, from 1.
    pub fn pause(self, failures: u32) -> Duration {
        // 31 doublings of a nanosecond are two seconds, so saturation does not cut a real sequence short.
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// Jitter around a pause, as parts of its length: a random pause from nothing to the whole.
pub const FULL: Range<f64> = 0.0..1.0;
/// From a half to the whole of a pause.
pub const UPPER_HALF: Range<f64> = 0.5..1.0;
/// A quarter less or more than a pause.
pub const QUARTER: Range<f64> = 0.75..1.25;

/// Returns a pause between two parts of its length. `dice` is a fresh random number from 0 to 1.
pub fn spread(pause: Duration, parts: &Range<f64>, dice: f64) -> Duration {
    pause.mul_f64(parts.start + (parts.end - parts.start) * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let seconds: Vec<u64> = (0..9).map(|failures| backoff.pause(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.pause(u32::MAX), backoff.longest);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_parts(millis in 1..10_000_000_u64, dice in -1.0..2.0_f64) {
            let pause = Duration::from_millis(millis);
            let nanosecond = Duration::from_nanos(1);
            for parts in [FULL, UPPER_HALF, QUARTER, 1.0..2.0] {
                let spread = spread(pause, &parts, dice);
                prop_assert!(spread + nanosecond >= pause.mul_f64(parts.start));
                prop_assert!(spread <= pause.mul_f64(parts.end) + nanosecond);
            }
        }

        #[test]
        fn a_pause_is_never_shorter_after_more_failures(failures in 0..u32::MAX, first in 1..1_000_000_u64) {
            let backoff = Backoff::new(Duration::from_nanos(first), Duration::from_secs(60));
            prop_assert!(backoff.pause(failures) <= backoff.pause(failures + 1));
            prop_assert!(backoff.pause(failures) >= backoff.first.min(backoff.longest));
        }
    }
}
