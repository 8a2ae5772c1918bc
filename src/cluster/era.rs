//! Which bucket it is: one that was deleted and made again is another one. ◆
//!
//! A lease in a deleted bucket may still be held by a host that has not noticed. So nobody contends for the lease of a new
//! bucket before every lease of an earlier one has run out. The revisions of a new bucket begin above those of the
//! earlier one, so that a write which was meant for that one fails.

use std::time::Duration;

use super::lease::{Moment, Times};

/// Least pause between two looks at the bucket.
const PAUSE: Duration = Duration::from_secs(1);
/// A host that led before contends first: its sockets are bound.
const PRECEDENCE: Duration = Duration::from_secs(1);
/// Revisions that a new bucket begins above the newest known one: those that were not seen yet.
const AHEAD: u64 = 1_000_000;

/// The first revision of a new bucket. `wall` is the time in milliseconds since 1970: as there are fewer than a
/// thousand writes a second, it is above the revisions of any earlier bucket.
pub(super) fn first_revision(newest: u64, wall: u64) -> u64 {
    wall.max(newest.saturating_add(AHEAD))
}

/// A look at the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The bucket exists; created at this time, in milliseconds since 1970.
    There(u64),
    Gone,
    /// No answer.
    Unknown,
}

/// The bucket in use, over its replacements.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Era {
    /// Count of buckets that were used: answers about an earlier one do not count.
    number: u64,
    made: Option<u64>,
    lead_after: Moment,
    is_looking: bool,
    next_look: Moment,
    newest: u64,
}

impl Era {
    pub(super) fn number(self) -> u64 {
        self.number
    }

    /// The newest revision that was seen, over all buckets.
    pub(super) fn newest(self) -> u64 {
        self.newest
    }

    pub(super) fn record_revision(&mut self, revision: u64) {
        self.newest = self.newest.max(revision);
    }

    /// When this host may contend for the lease of the leader.
    pub(super) fn lead_after(self) -> Moment {
        self.lead_after
    }

    /// Records a bucket that was opened: when it was made, and how long ago that was by the servers' clock.
    pub(super) fn handle_opened(&mut self, made: u64, age: Duration, has_led: bool, now: Moment) {
        let is_other = self.made.is_some_and(|known| known != made);
        let wait = if is_other { Times::DEFAULT.ttl } else { Times::DEFAULT.ttl.saturating_sub(age) };
        self.number += u64::from(self.made != Some(made));
        self.made = Some(made);
        self.is_looking = false;
        if !wait.is_zero() {
            let precedence = if has_led || !is_other { Duration::ZERO } else { PRECEDENCE };
            self.lead_after = now + wait + precedence;
        }
    }

    /// Whether the bucket has to be looked at, after a write that was refused or not answered. Counts as begun.
    pub(super) fn begin_look(&mut self, now: Moment) -> bool {
        let is_due = !self.is_looking && now >= self.next_look;
        self.is_looking |= is_due;
        is_due
    }

    /// Takes a look; returns whether the bucket in use is gone.
    pub(super) fn handle_look(&mut self, look: Look, now: Moment) -> bool {
        (self.is_looking, self.next_look) = (false, now + PAUSE);
        match look {
            Look::There(made) => self.made.is_some_and(|known| known != made),
            Look::Gone => true,
            Look::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Duration::from_secs(1_000);

    #[test]
    fn nobody_contends_in_a_new_bucket_before_the_leases_of_the_old_one_have_run_out() {
        let mut era = Era::default();
        era.handle_opened(5_000, Duration::from_secs(60), false, NOW);
        assert_eq!((era.number(), era.lead_after()), (1, Duration::ZERO), "an old bucket needs no wait");
        assert!(!era.handle_look(Look::There(5_000), NOW) && !era.handle_look(Look::Unknown, NOW));
        assert!(era.handle_look(Look::There(9_000), NOW) && era.handle_look(Look::Gone, NOW));
        // Another host may have made it long ago, by a clock that is wrong.
        era.handle_opened(9_000, Duration::from_secs(60), true, NOW);
        assert_eq!((era.number(), era.lead_after()), (2, NOW + Times::DEFAULT.ttl));
        assert!(Times::DEFAULT.ttl > Times::DEFAULT.hold);
        era.handle_opened(9_000, Duration::from_secs(60), true, NOW + PAUSE);
        assert_eq!(era.number(), 2, "the same bucket");
        let mut other = Era::default();
        other.handle_opened(5_000, Duration::from_secs(60), false, NOW);
        other.handle_opened(9_000, Duration::ZERO, false, NOW);
        assert_eq!(other.lead_after(), NOW + Times::DEFAULT.ttl + PRECEDENCE);
        let mut new = Era::default();
        new.handle_opened(9_000, Duration::from_secs(1), false, NOW);
        assert_eq!(new.lead_after(), NOW + Duration::from_secs(2), "a process that starts meanwhile");
    }

    #[test]
    fn one_look_at_a_time_and_not_too_often() {
        let mut era = Era::default();
        assert!(era.begin_look(NOW) && !era.begin_look(NOW + PAUSE));
        era.handle_look(Look::Unknown, NOW);
        assert!(!era.begin_look(NOW) && era.begin_look(NOW + PAUSE));
    }

    proptest! {
        /// Buckets are deleted at any time and made again by whichever host; each host notices some time later, or
        /// starts anew. No host's new lease begins before the end of the last lease of the bucket before.
        #[test]
        fn a_new_lease_begins_after_the_last_of_the_old_bucket_has_ended(
            acknowledged in 0_u64..5_000,
            deleted in 0_u64..3_000,
            made in 0_u64..3_000,
            noticed in 0_u64..10_000,
            clock in 0_u64..500,
            is_new in any::<bool>(),
        ) {
            let ms = Duration::from_millis;
            // The last write that counts was sent before the bucket was deleted.
            let ends = NOW + ms(acknowledged) + Times::DEFAULT.hold;
            let made = NOW + ms(acknowledged + deleted + made);
            let noticed = made + ms(noticed);
            let mut era = Era::default();
            if !is_new {
                era.handle_opened(1, ms(100_000), false, NOW);
            }
            // The servers' clocks agree to half a second.
            era.handle_opened(7, noticed - made + ms(clock), false, noticed);
            prop_assert!(noticed.max(era.lead_after()) > ends);
        }

        #[test]
        fn the_revisions_of_a_new_bucket_are_above_those_of_the_old_one(newest in 0_u64..1 << 53, wall in 0_u64..1 << 42) {
            prop_assert!(first_revision(newest, wall) >= newest + AHEAD);
        }
    }
}
