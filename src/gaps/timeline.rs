//! Places instants of the process's clock, which stands still while the machine sleeps, on the machine's clock, which
//! does not. ◆

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::watcher::Moment;

/// Sleeps that are remembered.
const SLEEPS: usize = 64;
/// The two clocks are read one after the other, so they waver by a little.
const WAVER: u64 = 50;

/// Pairs of both clocks: the first, and one after each sleep.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    anchors: VecDeque<(Instant, Moment)>,
}

impl Timeline {
    pub(super) fn new(instant: Instant, moment: Moment) -> Self {
        Self { anchors: VecDeque::from([(instant, moment)]) }
    }

    /// Takes note of both clocks now.
    pub(super) fn note(&mut self, instant: Instant, moment: Moment) {
        if moment > self.of(instant).saturating_add(WAVER) {
            self.anchors.push_back((instant, moment));
            if self.anchors.len() > SLEEPS {
                self.anchors.pop_front();
            }
        }
    }

    /// The moment of an instant. If it is unclear whether it was before a sleep or after it, it counts as before.
    pub(super) fn of(&self, instant: Instant) -> Moment {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let anchor = self.anchors.iter().rev().find(|(anchor, _)| *anchor < instant);
        match (anchor, self.anchors.front()) {
            (Some((anchor, moment)), _) => moment.saturating_add(millis(instant - *anchor)),
            (None, Some((first, moment))) => {
                moment.saturating_sub(millis(first.saturating_duration_since(instant)))
            }
            (None, None) => 0,
        }
    }
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
        }
        let unclear = start + Duration::from_millis(20_500);
        assert_eq!((line.of(unclear), line.of(at(21))), (1_020_500, 1_021_000));
    }
}
