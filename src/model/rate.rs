//! Number of things within the last minute.

use std::time::{Duration, Instant};

/// Length of a slot. The sum covers the last eleven to twelve of them.
const SLOT: Duration = Duration::from_secs(5);
const SLOTS: usize = 12;

/// Counts of the last minute, in slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Time of the first count.
    origin: Option<Instant>,
    /// Number of the newest slot since then.
    newest: u64,
    slots: [u64; SLOTS],
}

impl Rate {
    /// Counts things that happened now.
    pub fn add(&mut self, things: u64, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let slot = number(origin, now).max(self.newest);
        let passed = slot - self.newest;
        for old in 1..=passed.min(SLOTS as u64) {
            self.slots[place(self.newest + old)] = 0;
        }
        if passed >= SLOTS as u64 {
            self.slots = [0; SLOTS];
        }
        self.newest = slot;
        self.slots[place(slot)] += things;
    }

    /// Returns the number of things within the last minute.
    pub fn per_minute(&self, now: Instant) -> u64 {
        let Some(origin) = self.origin else { return 0 };
        let oldest = (number(origin, now) + 1).saturating_sub(SLOTS as u64);
        let first = (self.newest + 1).saturating_sub(SLOTS as u64);
        (oldest.max(first)..=self.newest).map(|slot| self.slots[place(slot)]).sum()
    }
}

fn number(origin: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(origin).as_secs() / SLOT.as_secs()
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn things_count_for_a_minute() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.per_minute(start), 0);
        rate.add(3, start);
        rate.add(4, at(30));
        assert_eq!((rate.per_minute(at(30)), rate.per_minute(at(59))), (7, 7));
        assert_eq!((rate.per_minute(at(60)), rate.per_minute(at(90))), (4, 0));
        rate.add(1, at(100_000));
        assert_eq!(rate.per_minute(at(100_000)), 1);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_last_minute(steps in proptest::collection::vec((0_u64..40, 0_u64..9), 1..80)) {
            let (mut rate, start) = (Rate::default(), Instant::now());
            let (mut now, mut all) = (0, Vec::new());
            for (pause, things) in steps {
                // The first count begins the first slot.
                now += if all.is_empty() { 0 } else { pause };
                rate.add(things, start + Duration::from_secs(now));
                all.push((now, things));
                let within = |(at, _): &&(u64, u64)| now / 5 - at / 5 < 12;
                let expected: u64 = all.iter().filter(within).map(|(_, things)| things).sum();
                prop_assert_eq!(rate.per_minute(start + Duration::from_secs(now)), expected);
            }
        }
    }
}
