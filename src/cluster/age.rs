//! Age of a shared value, by the clock of the NATS servers, which date every change. ◆
//!
//! The clocks of the hosts do not matter: they may be hours apart.

use std::time::Duration;

use super::lease::Moment;

/// The dates of one key's last change, and of the newest change of any key. All keys of a bucket are dated by one server
/// at a time, and each host writes its presence every half second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Age {
    /// Milliseconds since 1970, and the moment at which the change arrived here.
    newest: Option<(u64, Moment)>,
    /// Milliseconds since 1970.
    changed: Option<u64>,
}

impl Age {
    /// Records a change that the servers have dated `date`, in milliseconds since 1970; `is_of_key` if it is of the key.
    pub(super) fn handle_change(&mut self, is_of_key: bool, date: u64, at: Moment) {
        let is_newer = self.at(at).is_none_or(|known| known <= date);
        if is_newer {
            self.newest = Some((date, at));
        }
        if is_of_key {
            self.changed = Some(date);
        }
    }

    /// Returns the time since the key's last change, too long if in doubt; `None` if the key was never seen.
    pub(super) fn of_key(&self, now: Moment) -> Option<Duration> {
        Some(Duration::from_millis(self.at(now)?.saturating_sub(self.changed?)))
    }

    /// The clock of the servers.
    fn at(&self, now: Moment) -> Option<u64> {
        let (date, at) = self.newest?;
        let since = u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
        Some(date.saturating_add(since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Changes arrive in order and late by any time, also all at once after a break. The age is too
        /// short by as much as the most punctual one was late, and never too long.
        #[test]
        fn an_age_is_right_but_for_the_way_of_the_most_punctual_change(
            changes in prop::collection::vec((0_u64..3_000, any::<bool>(), 0_u64..5_000), 1..50),
            later in 0_u64..10_000,
            ahead in 0_u64..10_000_000,
        ) {
            let (mut age, mut written, mut arrived, mut last) = (Age::default(), 0, 0, None);
            let mut least_late = u64::MAX;
            for (pause, is_of_key, late) in changes {
                written += pause;
                arrived = arrived.max(written + late);
                age.handle_change(is_of_key, ahead + written, Duration::from_millis(arrived));
                least_late = least_late.min(arrived - written);
                if is_of_key {
                    last = Some(written);
                }
            }
            let now = arrived + later;
            let found = age.of_key(Duration::from_millis(now)).map(|age| u64::try_from(age.as_millis()).unwrap());
            prop_assert_eq!(found.is_some(), last.is_some());
            if let (Some(found), Some(last)) = (found, last) {
                prop_assert!(found <= now - last);
                prop_assert_eq!(found, now - last - least_late);
            }
        }
    }

    #[test]
    fn a_server_whose_clock_is_behind_makes_an_age_longer_and_not_shorter() {
        let mut age = Age::default();
        age.handle_change(false, 100_000, Duration::from_secs(1));
        // Another server dates from now on; its clock is 40 s behind.
        age.handle_change(true, 61_000, Duration::from_secs(2));
        age.handle_change(false, 64_000, Duration::from_secs(5));
        assert_eq!(age.of_key(Duration::from_secs(6)), Some(Duration::from_secs(44)));
        assert_eq!(Age::default().of_key(Duration::from_secs(6)), None);
    }
}
