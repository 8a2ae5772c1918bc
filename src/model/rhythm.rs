//! The rhythm in which tasks look at what tells nothing by itself, so that they wake an idle processor together.
//!
//! Tokio keeps timers in slots of 1, 64 and 4,096 milliseconds since the runtime began, and wakes a thread at the beginning
//! of each slot that has one: up to three times for one timer, and once for one at the beginning of a long slot.

use std::time::Duration;

/// Milliseconds of one beat, a long slot of Tokio's timers.
pub const BEAT: u64 = 4_096;

/// The number of the current beat, at this time since the runtime began.
pub fn beat(since: Duration) -> u128 {
    since.as_millis() / u128::from(BEAT)
}

/// The time to the next multiple of a period in milliseconds, at this time since the runtime began. The period is a multiple
/// of [`BEAT`], or a half, a quarter and so on of it, so that all are in step.
pub fn to_next(period: u64, since: Duration) -> Duration {
    let period = Duration::from_millis(period.max(1)).as_nanos();
    Duration::from_nanos(u64::try_from(period - since.as_nanos() % period).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_end_together() {
        let at = |millis| Duration::from_millis(millis);
        for period in [BEAT / 4, BEAT / 2, BEAT, 3 * BEAT] {
            assert_eq!(to_next(period, at(0)), at(period));
            assert_eq!(to_next(period, at(period - 1)), at(1));
            assert_eq!(to_next(period, at(12 * BEAT)), at(period));
            let since = at(7 * BEAT + 5) + Duration::from_nanos(3);
            assert_eq!(since + to_next(period, since), at((7 * BEAT + 5) / period * period + period));
        }
        assert_eq!(to_next(0, at(7)), at(1), "total");
    }
}
