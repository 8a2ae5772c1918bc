//! Log lines about a failure that lasts: its beginning, now and then that it goes on, and its end. ◆

use std::time::{Duration, Instant};

/// Pause before the second line about one outage; each one after that is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause between two lines.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Failures in a row of one piece of work that is tried again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    failures: u64,
    /// The first failure, the time of the next line, and the pause after that.
    lasting: Option<(Instant, Instant, Duration)>,
}

/// An outage so far, or as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// Attempts that failed.
    pub failures: u64,
    /// Time since the first of them.
    pub time: Duration,
}

impl Outage {
    /// Records a failure. Returns `Some` if it is to be logged.
    pub fn handle_failure(&mut self, now: Instant) -> Option<Lasting> {
        self.failures = self.failures.saturating_add(1);
        let Some((since, next, pause)) = self.lasting else {
            self.lasting = Some((now, now + FIRST_PAUSE, FIRST_PAUSE));
            return Some(Lasting { failures: self.failures, time: Duration::ZERO });
        };
        if now < next {
            return None;
        }
        let pause = (pause * 2).min(LONGEST_PAUSE);
        self.lasting = Some((since, now + pause, pause));
        Some(Lasting { failures: self.failures, time: now.saturating_duration_since(since) })
    }

    /// Records a success. Returns the outage that it ends, if there was one: its end is to be logged.
    pub fn handle_success(&mut self, now: Instant) -> Option<Lasting> {
        let Self { failures, lasting } = std::mem::take(self);
        let (since, ..) = lasting?;
        Some(Lasting { failures, time: now.saturating_duration_since(since) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_outage_is_told_at_its_beginning_then_seldom_and_at_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert_eq!(outage.handle_success(start), None);
        let lines: Vec<(u64, u64)> = (0..3_600)
            .filter_map(|second| Some((second, outage.handle_failure(at(second))?.failures)))
            .collect();
        assert_eq!(lines, [(0, 1), (60, 61), (180, 181), (420, 421), (900, 901), (1_860, 1_861)]);
        let whole = Lasting { failures: 3_600, time: Duration::from_secs(3_600) };
        assert_eq!(outage.handle_success(at(3_600)), Some(whole));
        assert_eq!(outage.handle_success(at(3_601)), None);
        assert_eq!(outage.handle_failure(at(3_602)), Some(Lasting { failures: 1, time: Duration::ZERO }));
    }

    proptest! {
        /// For any pauses, each outage has a first line and an end with all its failures, and few lines between.
        #[test]
        fn every_failure_is_counted_once(steps in prop::collection::vec((any::<bool>(), 0_u64..200_000), 1..200)) {
            let (mut now, mut outage, mut failures) = (Instant::now(), Outage::default(), 0);
            let (mut lines, mut begun) = (0, now);
            for (fails, pause) in steps {
                now += Duration::from_millis(pause);
                if fails {
                    let is_first = failures == 0;
                    failures += 1;
                    let line = outage.handle_failure(now);
                    prop_assert!(!is_first || line.is_some());
                    (lines, begun) = if is_first { (0, now) } else { (lines + u64::from(line.is_some()), begun) };
                    prop_assert!(line.is_none_or(|line| line.failures == failures));
                    prop_assert!(lines <= (now - begun).as_secs() / 60);
                } else {
                    let whole = outage.handle_success(now).map_or(0, |whole| whole.failures);
                    prop_assert_eq!(whole, std::mem::take(&mut failures));
                }
            }
        }
    }
}
