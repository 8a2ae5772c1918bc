//! The store's clock: the age of an event is elapsed time, independent of the wall clock. ◆
//!
//! The clock counts milliseconds, never goes back, and cannot be set. It follows the
//! machine's clock since boot, suspended time included, and goes on over restarts of the daemon. The time during which
//! the machine itself was off counts once the wall clock and the timestamps of Twitch's messages agree on it: either of
//! them alone may be days wrong, as on a board without a battery.

use std::sync::Arc;

/// First value of the store's clock. Rows of older releases count as stored at 0.
const START: u64 = 1;

/// Longest delay of a message from Twitch, in milliseconds. It is subtracted from the time that the machine seems to have
/// been off.
const LATE: u64 = 600_000;

/// A wall clock that moved by this much more or less than time has passed was set, in milliseconds. What keeps clocks
/// right by small steps stays far below.
const JUMP: i64 = 10_000;

/// The machine's clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Names the boot of the machine; since when `since_boot` counts.
    pub boot: Arc<str>,
    /// Time since that boot, in milliseconds; cannot be set.
    pub since_boot: u64,
}

/// A tick and the wall clock, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) tick: Tick,
    pub(super) wall: u64,
}

/// The stored state of the clock, to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) reading: Reading,
    pub(super) elapsed: u64,
}

impl Saved {
    /// The time by the store's clock at a tick; after a boot that is not saved yet, the last one before it.
    pub(super) fn elapsed_at(&self, tick: &Tick) -> u64 {
        if self.reading.tick.boot != tick.boot {
            return self.elapsed;
        }
        self.elapsed.saturating_add(tick.since_boot.saturating_sub(self.reading.tick.since_boot))
    }
}

/// The newest message of Twitch that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    /// When it was stored, by the store's clock.
    pub(super) elapsed: u64,
    /// When it was stored, by the wall clock.
    pub(super) wall: u64,
    /// Timestamp of the message, by Twitch's clock.
    pub(super) sent: u64,
}

/// The store's clock.
#[derive(Clone, Debug)]
pub(super) struct AgeClock {
    /// At this time since boot, `elapsed` had passed.
    since_boot: u64,
    elapsed: u64,
    opened: u64,
    /// Tells of the time that the machine was off, if it was.
    before: Option<Witness>,
    /// The wall clock, and the time since boot, when they were last compared.
    compared: (u64, u64),
}

impl AgeClock {
    /// Goes on from what is stored. `newest` is the greatest age that a row has.
    pub(super) fn open(saved: Option<&Saved>, newest: u64, witness: Option<Witness>, now: &Reading) -> Self {
        let same_boot = saved.filter(|saved| {
            saved.reading.tick.boot == now.tick.boot && saved.reading.tick.since_boot <= now.tick.since_boot
        });
        let least = newest.max(START);
        match same_boot {
            Some(Saved { reading, elapsed }) => {
                let passed = now.tick.since_boot - reading.tick.since_boot;
                let elapsed = elapsed.saturating_add(passed).max(least);
                // As it would be if the daemon had run all the time.
                let compared = (reading.wall, reading.tick.since_boot);
                Self { since_boot: now.tick.since_boot, elapsed, opened: elapsed, before: None, compared }
            }
            None => {
                let known = saved.map_or(0, |saved| saved.elapsed);
                // A clock that is behind what was there before has lost the time; one that is ahead may be right.
                let wall = saved.map_or(now.wall, |saved| saved.reading.wall).max(now.wall);
                let elapsed = known.max(least);
                Self {
                    since_boot: now.tick.since_boot,
                    elapsed,
                    opened: elapsed,
                    before: witness,
                    compared: (wall, now.tick.since_boot),
                }
            }
        }
    }

    /// The time by this clock.
    pub(super) fn elapsed(&self, now: &Reading) -> u64 {
        self.elapsed.saturating_add(now.tick.since_boot.saturating_sub(self.since_boot))
    }

    /// Whether [`Self::missed`] can find missed time.
    pub(super) fn awaits_witness(&self) -> bool {
        self.before.is_some()
    }

    /// Returns the time that this clock has missed, judged by the timestamp of a message that arrived now.
    pub(super) fn missed(&self, sent: u64, now: &Reading) -> u64 {
        let Some(before) = self.before else { return 0 };
        let by_twitch = sent.saturating_sub(before.sent);
        let by_wall = now.wall.saturating_sub(before.wall);
        let proved = before.elapsed.saturating_add(by_twitch.min(by_wall).saturating_sub(LATE));
        proved.saturating_sub(self.elapsed(now))
    }

    /// Goes forward by time that was missed while the machine was off. It had passed before this clock was opened, so
    /// whatever was stored since goes forward with it.
    pub(super) fn advance(&mut self, missed: u64, now: &Reading) {
        (self.since_boot, self.elapsed) = (now.tick.since_boot, self.elapsed(now).saturating_add(missed));
    }

    /// Takes no more witnesses: too much was stored since to go forward with it.
    pub(super) fn dismiss_witness(&mut self) {
        self.before = None;
    }

    /// The time by this clock when it was opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// By how much the wall clock was set since the last look, in milliseconds; `None` if it was not.
    pub(super) fn jump(&mut self, now: &Reading) -> Option<i64> {
        let (wall, since_boot) = self.compared;
        self.compared = (now.wall, now.tick.since_boot);
        let moved = signed(now.wall) - signed(wall);
        let passed = signed(now.tick.since_boot.saturating_sub(since_boot));
        let jump = moved - passed;
        (jump.abs() >= JUMP).then_some(jump)
    }

    /// The state to store.
    pub(super) fn saved(&self, now: &Reading) -> Saved {
        Saved { reading: now.clone(), elapsed: self.elapsed(now) }
    }
}

/// Far from overflow: differences of two of them fit.
fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn reading(boot: &str, since_boot: u64, wall: u64) -> Reading {
        Reading { tick: Tick { boot: boot.into(), since_boot }, wall }
    }

    fn missed(clock: &mut AgeClock, sent: u64, now: &Reading) -> u64 {
        let missed = clock.missed(sent, now);
        clock.advance(missed, now);
        missed
    }

    #[test]
    fn restarts_of_the_daemon_lose_no_time_and_believe_no_wall_clock() {
        let clock = AgeClock::open(None, 0, None, &reading("a", 5_000, 1_000 * HOUR));
        let saved = clock.saved(&reading("a", 6_000, 9_000 * HOUR));
        assert_eq!(saved.elapsed, START + 1_000);
        for wall in [0, 1_000 * HOUR, 9_000 * HOUR] {
            let again = AgeClock::open(Some(&saved), 0, None, &reading("a", 6_000 + 8 * HOUR, wall));
            assert_eq!(again.elapsed(&reading("a", 6_001 + 8 * HOUR, wall)), START + 1_001 + 8 * HOUR);
            assert!(!again.awaits_witness());
        }
    }

    #[test]
    fn time_that_the_machine_was_off_counts_once_wall_clock_and_twitch_agree() {
        let witness = Witness { elapsed: 50 * HOUR, wall: 1_000 * HOUR, sent: 1_000 * HOUR };
        let saved = Saved { reading: reading("a", 7, 1_001 * HOUR), elapsed: 51 * HOUR };
        let open = |wall| AgeClock::open(Some(&saved), 50 * HOUR, Some(witness), &reading("b", 0, wall));
        // The board was off for 99 hours, and starts with the time at which it was switched off.
        let mut clock = open(1_001 * HOUR);
        assert_eq!(clock.elapsed(&reading("b", 0, 1_001 * HOUR)), 51 * HOUR);
        assert_eq!(
            missed(&mut clock, 1_100 * HOUR, &reading("b", 0, 1_001 * HOUR)),
            0,
            "the wall clock does not agree"
        );
        assert_eq!(missed(&mut clock, 1_100 * HOUR, &reading("b", 0, 1_100 * HOUR)), 99 * HOUR - LATE);
        assert_eq!(clock.elapsed(&reading("b", 5, 0)), 150 * HOUR - LATE + 5);
        // The machine's clock is years ahead: Twitch does not agree.
        let mut clock = open(90_000 * HOUR);
        assert_eq!(missed(&mut clock, 1_002 * HOUR, &reading("b", 0, 90_000 * HOUR)), HOUR - LATE);
        // Without messages of before nothing is known.
        let mut clock = AgeClock::open(Some(&saved), 0, None, &reading("b", 0, 1_100 * HOUR));
        assert_eq!(missed(&mut clock, 1_100 * HOUR, &reading("b", 0, 1_100 * HOUR)), 0);
    }

    #[test]
    fn a_jump_is_noticed_once_also_over_a_restart() {
        let mut clock = AgeClock::open(None, 0, None, &reading("a", 0, 1_000 * HOUR));
        assert_eq!(clock.jump(&reading("a", HOUR, 1_001 * HOUR + 900)), None, "a small step");
        assert_eq!(clock.jump(&reading("a", HOUR + 1_000, 1_073 * HOUR)), Some(72 * HOUR as i64 - 1_900));
        assert_eq!(clock.jump(&reading("a", HOUR + 2_000, 1_073 * HOUR + 1_000)), None);
        assert_eq!(clock.jump(&reading("a", HOUR + 3_000, 1_001 * HOUR)), Some(-(72 * HOUR as i64) - 2_000));
        let saved = clock.saved(&reading("a", 2 * HOUR, 1_002 * HOUR));
        let mut same = AgeClock::open(Some(&saved), 0, None, &reading("a", 3 * HOUR, 1_004 * HOUR));
        assert_eq!(same.jump(&reading("a", 3 * HOUR, 1_004 * HOUR)), Some(HOUR as i64));
        let mut behind = AgeClock::open(Some(&saved), 0, None, &reading("b", 9, 1_000 * HOUR));
        assert_eq!(behind.jump(&reading("b", 9, 1_000 * HOUR)), Some(-2 * HOUR as i64));
        let mut off = AgeClock::open(Some(&saved), 0, None, &reading("b", 9, 1_500 * HOUR));
        assert_eq!(off.jump(&reading("b", 9, 1_500 * HOUR)), None, "it was off");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        SetWall(u64),
        Restart,
        Crash,
        Reboot { off: u64 },
        Message { late: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..200 * HOUR).prop_map(Step::Pass),
            3 => (0..100_000 * HOUR).prop_map(Step::SetWall),
            2 => Just(Step::Restart),
            1 => Just(Step::Crash),
            2 => (0..400 * HOUR).prop_map(|off| Step::Reboot { off }),
            3 => (0..LATE).prop_map(|late| Step::Message { late }),
        ]
    }

    proptest! {
        /// For all changes of clocks, restarts and boots: never more time than has really passed, and all of it while the
        /// machine is up and the daemon ends in an orderly way.
        #[test]
        fn no_event_grows_old_too_early(steps in prop::collection::vec(step(), 0..60)) {
            let (mut truth, mut wall_ahead, mut boots) = (0_u64, 0_i64, 0_u32);
            let mut booted_at = 0;
            let now = |truth: u64, ahead: i64, boots: u32, booted_at: u64| {
                let wall = u64::try_from(i64::try_from(5_000 * HOUR + truth).unwrap() + ahead).unwrap_or(0);
                reading(&boots.to_string(), truth - booted_at, wall)
            };
            let mut here = now(truth, wall_ahead, boots, booted_at);
            let mut clock = AgeClock::open(None, 0, None, &here);
            let mut saved = clock.saved(&here);
            // When each message was really stored, and what the clock said.
            let mut stored: Vec<(u64, Witness)> = Vec::new();
            let (mut last, mut exact, mut since_start) = (0, true, 0);
            for step in steps {
                match step {
                    Step::Pass(millis) => truth += millis,
                    Step::SetWall(wall) => {
                        wall_ahead = i64::try_from(wall).unwrap() - i64::try_from(5_000 * HOUR + truth).unwrap();
                    }
                    Step::Restart | Step::Crash | Step::Reboot { .. } => {
                        if !matches!(step, Step::Crash) {
                            saved = clock.saved(&here);
                        }
                        if let Step::Reboot { off } = step {
                            truth += off;
                            boots += 1;
                            booted_at = truth;
                            exact &= off == 0;
                        }
                        here = now(truth, wall_ahead, boots, booted_at);
                        let witness = stored.last().map(|(_, witness)| *witness);
                        let newest = witness.map_or(0, |witness| witness.elapsed);
                        clock = AgeClock::open(Some(&saved), newest, witness, &here);
                        saved = clock.saved(&here);
                        since_start = stored.len();
                    }
                    Step::Message { late } => {
                        let sent = (5_000 * HOUR + truth).saturating_sub(late);
                        let missed = missed(&mut clock, sent, &here);
                        if missed > 0 {
                            saved = clock.saved(&here);
                        }
                        // Events stored since the start go forward with it.
                        stored[since_start..].iter_mut().for_each(|(_, witness)| witness.elapsed += missed);
                        let elapsed = clock.elapsed(&here);
                        stored.push((truth, Witness { elapsed, wall: here.wall, sent }));
                    }
                }
                here = now(truth, wall_ahead, boots, booted_at);
                clock.jump(&here);
                let elapsed = clock.elapsed(&here);
                prop_assert!(elapsed >= last, "it never goes back");
                last = elapsed;
                prop_assert!(elapsed <= START + truth, "{elapsed} of {truth}");
                if exact {
                    prop_assert_eq!(elapsed, START + truth);
                }
                for (at, witness) in &stored {
                    prop_assert!(elapsed - witness.elapsed <= truth - at, "an event is not older than it is");
                }
            }
        }
    }
}
