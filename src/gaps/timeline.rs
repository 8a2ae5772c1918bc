//! Places instants of the process's clock, which stands still while the machine sleeps, on the machine's clock, which
//! does not. ◆

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Milliseconds of a clock that goes on while the machine sleeps and cannot be set.
pub(super) type Moment = u64;

/// Sleeps that are remembered.
const SLEEPS: usize = 64;
/// Milliseconds by which the clocks may differ from what is noted: they are read one after the other, and a shorter sleep is
/// not noted.
const WAVER: u64 = 50;

/// A pair of both clocks.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    instant: Instant,
    moment: Moment,
    /// Last instant known to lie before the sleep that ended with this pair.
    awake: Instant,
}

/// Pairs of both clocks: the first, and one after each sleep.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    anchors: VecDeque<Anchor>,
    /// Instant of the last note.
    noted: Instant,
}

impl Timeline {
    pub(super) fn new(instant: Instant, moment: Moment) -> Self {
        Self { anchors: VecDeque::from([Anchor { instant, moment, awake: instant }]), noted: instant }
    }

    /// Takes note of both clocks now.
    pub(super) fn note(&mut self, instant: Instant, moment: Moment) {
        if moment > self.of(instant).saturating_add(WAVER) {
            self.anchors.push_back(Anchor { instant, moment, awake: self.noted });
            if self.anchors.len() > SLEEPS {
                self.anchors.pop_front();
            }
        }
        self.noted = instant;
    }

    /// Returns the earliest moment that an instant may have: if it is unclear whether it was before a sleep or after
    /// it, it counts as before.
    pub(super) fn of(&self, instant: Instant) -> Moment {
        let anchor = self.anchors.iter().rev().find(|anchor| anchor.instant < instant);
        match (anchor, self.anchors.front()) {
            (Some(anchor), _) => anchor.moment.saturating_add(millis(instant - anchor.instant)),
            (None, Some(first)) => first.before(instant),
            (None, None) => 0,
        }
    }

    /// Returns the latest moment that an instant may have: if it is unclear whether it was before a sleep or after it,
    /// it counts as after.
    pub(super) fn latest(&self, instant: Instant) -> Moment {
        let next = self.anchors.iter().find(|anchor| anchor.instant >= instant);
        match next {
            Some(next) if instant > next.awake => next.before(instant),
            _ => self.of(instant).saturating_add(WAVER),
        }
    }
}

impl Anchor {
    /// Returns the moment of an instant that no sleep separates from this later pair.
    fn before(&self, instant: Instant) -> Moment {
        self.moment.saturating_sub(millis(self.instant.saturating_duration_since(instant)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_and_after_a_sleep_have_their_moments() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut line = Timeline::new(at(10), 1_010_000);
        line.note(at(20), 1_020_003);
        // A sleep of 100 s.
        line.note(at(21), 1_121_000);
        line.note(at(30), 1_130_001);
        for (instant, moment) in
            [(5, 1_005_000), (15, 1_015_000), (20, 1_020_000), (22, 1_122_000), (25, 1_125_000)]
        {
            assert_eq!(line.of(at(instant)), moment, "{instant}");
            assert_eq!(line.latest(at(instant)), moment + WAVER, "{instant}");
        }
        let unclear = start + Duration::from_millis(20_500);
        assert_eq!((line.of(unclear), line.of(at(21))), (1_020_500, 1_021_000));
        assert_eq!((line.latest(unclear), line.latest(at(21))), (1_120_500, 1_121_000));
    }

    #[test]
    fn a_sleep_too_short_to_be_noted_lies_before_the_latest_moment() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut line = Timeline::new(at(10), 1_010_000);
        line.note(at(20), 1_020_000 + WAVER);
        assert!(line.of(at(21)) <= 1_021_000 && line.latest(at(21)) >= 1_021_000 + WAVER);
    }
}
