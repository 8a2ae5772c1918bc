//! How far another machine's clock is from ours, from values that it dates itself. ◆
//!
//! A value arrives later than it was written, by an unknown time. The one that was quickest tells best, so the least
//! difference of the last ones counts. Clocks drift apart, so older ones do not.

/// Values of one block; the last whole block and the present one count. A host writes two a second.
const BLOCK: u32 = 64;
/// Values that must have come before the difference is believed: the first one may have lain in the bucket for seconds.
const FEWEST: u32 = 4;

/// The difference between two clocks in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offset {
    /// Count and least difference of the present block.
    present: Option<(u32, i64)>,
    /// Least difference of the block before.
    before: Option<i64>,
}

impl Offset {
    /// Records a value that was written at `written` by the other clock, and arrived at `now` by ours.
    pub(super) fn handle_value(&mut self, written: u64, now: u64) {
        let difference = signed(now).saturating_sub(signed(written));
        let (count, least) = match self.present {
            Some((count, least)) if count < BLOCK => (count + 1, least.min(difference)),
            Some((_, least)) => {
                self.before = Some(least);
                (1, difference)
            }
            None => (1, difference),
        };
        self.present = Some((count, least));
    }

    /// Returns a time of the other clock by ours, too late by as much as the most punctual value was; `None` while too few
    /// values have come.
    pub(super) fn here(&self, there: u64) -> Option<u64> {
        let (count, least) = self.present?;
        if count < FEWEST && self.before.is_none() {
            return None;
        }
        let least = self.before.map_or(least, |before| before.min(least));
        u64::try_from(signed(there).saturating_add(least)).ok()
    }
}

fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Values arrive in order, late by any time, also many at once after a break. A time is never taken for later than
        /// the quickest of the last values was late, and never for earlier than it was.
        #[test]
        fn a_time_is_right_but_for_the_way_of_the_quickest_value(
            values in prop::collection::vec((0_u64..3_000, 0_u64..5_000), 1..300),
            ahead in 0_u64..10_000_000,
        ) {
            let (mut offset, mut written, mut arrived) = (Offset::default(), 10_000_000, 0);
            let mut late = Vec::new();
            for (pause, way) in values {
                written += pause;
                arrived = arrived.max(written + way);
                late.push(arrived - written);
                offset.handle_value(written, arrived + ahead);
            }
            let found = offset.here(written);
            prop_assert_eq!(found.is_some(), late.len() >= FEWEST as usize);
            if let Some(found) = found {
                let last = &late[late.len().saturating_sub(BLOCK as usize)..];
                let quickest = last.iter().min().copied().unwrap_or_default();
                prop_assert!(found >= written + ahead);
                prop_assert!(found <= written + ahead + quickest);
            }
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let mut offset = Offset::default();
        for second in 0..1_000_u64 {
            // Ours loses a tenth.
            offset.handle_value(second * 1_000, second * 900 + 50);
        }
        let found = offset.here(999_000).expect("enough values");
        assert!(found.abs_diff(999 * 900) <= 50, "{found}");
    }
}
