//! Detection of parts that hang, from their liveness counters. ◆
//!
//! An idle part keeps counting, and a part may wait for a disk with room or for Twitch. A part hangs if its counter
//! stops without such a reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Parts that hang, each with the time since its last movement.
pub(super) type Hanging = Arc<[(Part, Duration)]>;

/// Maximum time that one pause between two checks counts for: the watchdog may have been stopped itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(12);

/// A part that only a restart can repair when it hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    StoreWriter,
    StoreReader,
    Keeper,
    Reconciler,
    Binder,
}

impl Part {
    /// Returns its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StoreWriter => "the writer of the store",
            Self::StoreReader => "the reader of the store",
            Self::Keeper => "the token keeper",
            Self::Reconciler => "the reconciler",
            Self::Binder => "the task that binds shards",
        }
    }

    /// Returns how long its counter may stand still: several times its longest step.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            // A turn is one batch; the longest pause in between, while the disk fails, is 5 s.
            Self::StoreWriter | Self::StoreReader => 60,
            // The keeper compares the clocks once a minute.
            Self::Keeper => 150,
            // A request takes up to 15 s, a closed rate limit 61 s, and the shards are read at least every 120 s.
            Self::Reconciler | Self::Binder => 300,
        })
    }
}

/// Liveness of a part at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    pub(super) part: Part,
    /// Value of its counter.
    pub(super) beats: u64,
    /// Whether it may be waiting for something outside, for any time.
    pub(super) waits: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    part: Part,
    beats: u64,
    still: Duration,
}

/// Remembers when each counter last moved.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    seen: Vec<Seen>,
    checked_at: Option<Instant>,
}

impl Watchdog {
    /// Checks the counters; returns the parts that hang, each with the time since its last movement.
    pub(super) fn check(&mut self, parts: &[Liveness], now: Instant) -> Vec<(Part, Duration)> {
        let pause = self.checked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let pause = pause.min(LONGEST_PAUSE);
        self.checked_at = Some(now);
        let mut hanging = Vec::new();
        for liveness in parts {
            let at = self.seen.iter().position(|seen| seen.part == liveness.part).unwrap_or_else(|| {
                self.seen.push(Seen { part: liveness.part, beats: liveness.beats, still: Duration::ZERO });
                self.seen.len() - 1
            });
            let seen = &mut self.seen[at];
            let moved = seen.beats != liveness.beats || liveness.waits;
            seen.still = if moved { Duration::ZERO } else { seen.still + pause };
            seen.beats = liveness.beats;
            if seen.still > liveness.part.limit() {
                hanging.push((liveness.part, seen.still));
            }
        }
        hanging
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Part; 5] =
        [Part::StoreWriter, Part::StoreReader, Part::Keeper, Part::Reconciler, Part::Binder];

    fn liveness(beats: u64) -> [Liveness; 5] {
        ALL.map(|part| Liveness { part, beats, waits: false })
    }

    /// Returns the first second at which the watchdog finds a part hanging whose liveness `at` returns.
    fn hangs_at(part: Part, seconds: u64, at: impl Fn(u64) -> Liveness) -> Option<u64> {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        (0..seconds).find(|&second| {
            let mut parts = liveness(second);
            for each in parts.iter_mut().filter(|each| each.part == part) {
                *each = at(second);
            }
            let hanging = watchdog.check(&parts, start + Duration::from_secs(second));
            assert!(hanging.iter().all(|(hangs, _)| *hangs == part), "the others move");
            !hanging.is_empty()
        })
    }

    #[test]
    fn a_counter_that_stands_still_for_too_long_hangs() {
        for (part, limit) in ALL.into_iter().zip([60, 60, 150, 300, 300]) {
            let still = |_| Liveness { part, beats: 7, waits: false };
            assert_eq!(hangs_at(part, 1000, still), Some(limit + 1), "{part:?}");
            let seldom = |second: u64| Liveness { part, beats: second / (limit - 1), waits: false };
            assert_eq!(hangs_at(part, 4000, seldom), None, "{part:?} moves, if seldom");
        }
    }

    #[test]
    fn waiting_is_not_hanging_and_restarts_the_limit() {
        let part = Part::Reconciler;
        let waits = |second| Liveness { part, beats: 7, waits: second < 5000 };
        assert_eq!(hangs_at(part, 10_000, waits), Some(5300));
    }

    #[test]
    fn a_part_that_moves_again_no_longer_hangs() {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        let mut check =
            |second: u64, beats| watchdog.check(&liveness(beats), start + Duration::from_secs(second)).len();
        assert_eq!((0..400).map(|second| check(second, 1)).max(), Some(5));
        assert_eq!(check(400, 2), 0);
        assert_eq!(check(401, 2), 0);
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        assert!(watchdog.check(&liveness(1), start).is_empty());
        assert!(watchdog.check(&liveness(1), start + Duration::from_secs(3600)).is_empty());
    }

    proptest! {
        /// For any pauses between checks and movements, a part that moves within its limit never hangs.
        #[test]
        fn a_part_that_moves_in_time_never_hangs(pauses in prop::collection::vec((0_u64..20_000, 0_usize..5), 1..400)) {
            let start = Instant::now();
            let (mut watchdog, mut at) = (Watchdog::default(), Duration::ZERO);
            let mut beats = [0_u64; 5];
            let mut moved = [Duration::ZERO; 5];
            for (pause, who) in pauses {
                at += Duration::from_millis(pause);
                beats[who] += 1;
                for (index, part) in ALL.into_iter().enumerate() {
                    if index == who || at - moved[index] > part.limit() - Duration::from_secs(21) {
                        beats[index] += 1;
                        moved[index] = at;
                    }
                }
                let liveness = [0, 1, 2, 3, 4].map(|i| Liveness { part: ALL[i], beats: beats[i], waits: false });
                prop_assert!(watchdog.check(&liveness, start + at).is_empty());
            }
        }
    }
}
