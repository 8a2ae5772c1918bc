//! Decides whether this machine's clock or a message is wrong if a signed message seems too old or from the
//! future. ◆
//!
//! A message on time proves that the clock is right, until somebody sets it. Without such a proof the clock
//! may be wrong. Then Twitch is asked to send the message again, and the status shows a problem until a
//! message comes on time.

use std::time::{Duration, Instant, SystemTime};

use crate::model::text::duration;

/// Largest difference between our clock and Twitch's that still counts as right, in milliseconds.
const SKEW: i64 = 300_000;
/// Least time over which the best skew is taken, since a late message says nothing about a clock. Also the
/// lifetime of the proof that a message on time gives.
const WINDOW: Duration = Duration::from_secs(300);
/// Difference between wall-clock and monotonic time from which the wall clock counts as set.
const SET: Duration = Duration::from_secs(30);

/// Verdict about a signed message whose timestamp is outside of the accepted window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The clock is right: the message is too old.
    TooOld,
    /// The clock may be wrong.
    Doubtful,
}

/// Knowledge about the clocks from messages. A skew is Twitch's clock less ours, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct ClockJudge {
    last: Option<i64>,
    /// The largest skew of this window and of the one before.
    best: [Option<i64>; 2],
    begun: Option<Instant>,
    /// When the last message on time came, by both of our clocks.
    proved: Option<(Instant, SystemTime)>,
    /// No message has come on time since one that was doubtful.
    doubtful: bool,
}

impl ClockJudge {
    /// A message on time.
    pub(super) fn on_time(&mut self, skew: i64, now: Instant, wall: SystemTime) {
        if std::mem::take(&mut self.doubtful) {
            // Skews seen with the wrong clock say nothing any more.
            self.best = [None, None];
        }
        self.proved = Some((now, wall));
        self.see(skew);
    }

    /// A message that is too old, or from the future.
    pub(super) fn off_time(&mut self, skew: i64, now: Instant, wall: SystemTime) -> Verdict {
        let is_proved = self.proved.is_some_and(|(then, then_wall)| {
            now.saturating_duration_since(then) <= WINDOW && !was_set((then, then_wall), (now, wall))
        });
        if is_proved {
            self.see(skew);
            return Verdict::TooOld;
        }
        if !std::mem::replace(&mut self.doubtful, true) {
            // Skews seen before the clock was set say nothing any more.
            self.best = [None, None];
        }
        self.see(skew);
        Verdict::Doubtful
    }

    fn see(&mut self, skew: i64) {
        self.last = Some(skew);
        self.best[0] = Some(self.best[0].map_or(skew, |best| best.max(skew)));
    }

    /// The skew of the last message.
    pub(super) fn last(&self) -> Option<i64> {
        self.last
    }

    /// The clock's problem for the status. Call it now and then, since time changes the result.
    pub(super) fn problem(&mut self, now: Instant) -> Option<String> {
        let begun = *self.begun.get_or_insert(now);
        let best = self.best[0].max(self.best[1]);
        if self.best[0].is_some() && now.saturating_duration_since(begun) >= WINDOW {
            self.begun = Some(now);
            self.best = [None, self.best[0]];
        }
        let best = best.filter(|best| best.saturating_abs() > SKEW)?;
        let direction = if best < 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the clock of this machine is about {} {direction} Twitch's: set it (`timedatectl set-ntp true`); while they \
             differ by more than 10 minutes no event is taken, and Twitch is asked to send each again",
            duration(Duration::from_secs((best.unsigned_abs() + 30_000) / 60_000 * 60))
        ))
    }
}

/// Whether the wall clock was set between two moments.
fn was_set(before: (Instant, SystemTime), after: (Instant, SystemTime)) -> bool {
    let passed = after.0.saturating_duration_since(before.0);
    let expected = before.1 + passed;
    let off = after.1.duration_since(expected).or_else(|_| expected.duration_since(after.1));
    off.unwrap_or_default() > SET
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    struct Machine {
        judge: ClockJudge,
        start: Instant,
        seconds: u64,
        /// Lead of the wall clock, in milliseconds.
        ahead: i64,
    }

    impl Machine {
        fn new() -> Self {
            Self { judge: ClockJudge::default(), start: Instant::now(), seconds: 0, ahead: 0 }
        }

        fn now(&self) -> (Instant, SystemTime) {
            let wall = 1_800_000_000_000 + i64::try_from(self.seconds * 1_000).unwrap() + self.ahead;
            let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(wall).unwrap());
            (self.start + Duration::from_secs(self.seconds), wall)
        }

        /// A message that Twitch made so long ago.
        fn message(&mut self, age_seconds: i64) -> Option<Verdict> {
            let skew = -age_seconds * 1_000 - self.ahead;
            let (now, wall) = self.now();
            if skew.abs() <= 600_000 {
                self.judge.on_time(skew, now, wall);
                return None;
            }
            Some(self.judge.off_time(skew, now, wall))
        }

        fn problem(&mut self) -> Option<String> {
            let now = self.now().0;
            self.judge.problem(now)
        }
    }

    #[test]
    fn an_old_message_is_too_old_while_others_come_on_time() {
        let mut machine = Machine::new();
        assert_eq!(machine.message(1), None);
        machine.seconds += 200;
        assert_eq!(machine.message(1_000), Some(Verdict::TooOld));
        assert_eq!(machine.problem(), None);
        machine.seconds += 101;
        assert_eq!(machine.message(1_000), Some(Verdict::Doubtful), "nothing has proved the clock for long");
        machine.message(1);
        assert_eq!(machine.message(1_000), Some(Verdict::TooOld));
        assert_eq!(machine.problem(), None);
    }

    #[test]
    fn a_clock_that_is_set_is_in_doubt_at_once_and_until_a_message_comes_on_time() {
        for (ahead, direction) in [(HOUR, "ahead of"), (-HOUR, "behind")] {
            let mut machine = Machine::new();
            machine.message(0);
            machine.seconds += 5;
            machine.ahead = ahead;
            for _ in 0..1_000 {
                assert_eq!(machine.message(0), Some(Verdict::Doubtful));
                let problem = machine.problem().expect("it is told at once, and as long as it lasts");
                assert!(problem.contains("about 1 h") && problem.contains(direction), "{problem}");
                machine.seconds += 7;
            }
            machine.ahead = 0;
            assert_eq!(machine.message(2_000), Some(Verdict::Doubtful), "one from before");
            assert_eq!(machine.message(0), None);
            assert_eq!(machine.problem(), None, "and it is over at once");
            assert_eq!(machine.message(2_000), Some(Verdict::TooOld));
        }
    }

    #[test]
    fn a_start_with_a_wrong_clock_drops_nothing() {
        let mut machine = Machine::new();
        machine.ahead = -3 * 24 * HOUR;
        assert_eq!(machine.message(0), Some(Verdict::Doubtful));
        assert!(machine.problem().is_some_and(|problem| problem.contains("about 3 days behind")));
    }

    #[test]
    fn a_small_skew_is_told_after_a_while_and_a_late_message_is_none() {
        let mut machine = Machine::new();
        machine.message(400);
        machine.message(1);
        assert_eq!(machine.problem(), None);
        machine.ahead = 400_000;
        for _ in 0..100 {
            machine.seconds += 7;
            machine.message(0);
            machine.problem();
        }
        assert!(machine.problem().is_some_and(|problem| problem.contains("7 min ahead of")));
    }
}
