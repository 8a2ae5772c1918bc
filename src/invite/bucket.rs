//! A token bucket: how often something may be done. ◆

use std::time::Duration;

/// Times are those since the bucket was made.
#[derive(Debug)]
pub(super) struct Bucket {
    size: u32,
    /// Time for one more.
    every: Duration,
    /// Time at which the bucket is full again.
    full_at: Duration,
}

impl Bucket {
    pub(super) fn new(size: u32, every: Duration) -> Self {
        Self { size, every, full_at: Duration::ZERO }
    }

    /// Takes one out of the bucket, if there is one.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + self.every;
        let fits = full_at - now <= self.every * self.size;
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_its_size_and_what_time_gives(
            pauses in prop::collection::vec(0_u64..3_000, 1..200), size in 1_u32..10, every in 1_u64..2_000,
        ) {
            let mut bucket = Bucket::new(size, Duration::from_millis(every));
            let (mut now, mut taken, mut refused) = (0, 0, 0);
            for pause in pauses {
                now += pause;
                if bucket.take(Duration::from_millis(now)) { taken += 1 } else { refused += 1 }
                prop_assert!(taken <= u64::from(size) + now / every);
            }
            prop_assert!(refused == 0 || taken >= u64::from(size));
        }
    }
}
