//! Whether the daemon does its work, judged from the signs of life of its parts. ◆
//!
//! A part that is idle shows that it lives, and so does one that waits for a disk with room or for Twitch. What
//! hangs is one whose count stands still though it has no reason to.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Parts that hang, each with how long it has stood still.
pub(super) type Hanging = Arc<[(Part, Duration)]>;

/// The most that one pause between two looks counts for: whoever looks may have been stopped as well.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A part whose standstill only a restart can mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    StoreWriter,
    StoreReader,
    Keeper,
    Reconciler,
    Binder,
}

impl Part {
    /// Its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StoreWriter => "the writer of the store",
            Self::StoreReader => "the reader of the store",
            Self::Keeper => "the token keeper",
            Self::Reconciler => "the reconciler",
            Self::Binder => "the task that binds shards",
        }
    }

    /// How long it may stand still: several times what its longest step takes.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            // A turn is one batch; the longest pause in between, while the disk fails, is 5 s.
            Self::StoreWriter | Self::StoreReader => 60,
            // It looks at the clocks once a minute.
            Self::Keeper => 150,
            // A request takes 15 s at most, a closed rate limit 61 s, a look at the shards comes within 120 s.
            Self::Reconciler | Self::Binder => 300,
        })
    }
}

/// What is seen of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    pub(super) part: Part,
    /// How often it has moved so far.
    pub(super) beats: u64,
    /// It may be waiting for something outside that can take any time.
    pub(super) waits: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    part: Part,
    beats: u64,
    still: Duration,
}

/// Remembers since when each part has stood still.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    seen: Vec<Seen>,
    looked_at: Option<Instant>,
}

impl Watchdog {
    /// Takes a look; the parts that hang, each with how long it has stood still.
    pub(super) fn look(&mut self, signs: &[Sign], now: Instant) -> Vec<(Part, Duration)> {
        let pause = self.looked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let pause = pause.min(LONGEST_PAUSE);
        self.looked_at = Some(now);
        let mut hanging = Vec::new();
        for sign in signs {
            let at = self.seen.iter().position(|seen| seen.part == sign.part).unwrap_or_else(|| {
                self.seen.push(Seen { part: sign.part, beats: sign.beats, still: Duration::ZERO });
                self.seen.len() - 1
            });
            let seen = &mut self.seen[at];
            let moved = seen.beats != sign.beats || sign.waits;
            seen.still = if moved { Duration::ZERO } else { seen.still + pause };
            seen.beats = sign.beats;
            if seen.still > sign.part.limit() {
                hanging.push((sign.part, seen.still));
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

    fn signs(beats: u64) -> [Sign; 5] {
        ALL.map(|part| Sign { part, beats, waits: false })
    }

    /// The first second at which a look finds a part hanging, when it beats as `sign` says.
    fn hangs_at(part: Part, seconds: u64, sign: impl Fn(u64) -> Sign) -> Option<u64> {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        (0..seconds).find(|&second| {
            let mut signs = signs(second);
            for each in signs.iter_mut().filter(|each| each.part == part) {
                *each = sign(second);
            }
            let hanging = watchdog.look(&signs, start + Duration::from_secs(second));
            assert!(hanging.iter().all(|(hangs, _)| *hangs == part), "the others move");
            !hanging.is_empty()
        })
    }

    #[test]
    fn whoever_stands_still_for_too_long_hangs_and_nobody_else() {
        for (part, limit) in ALL.into_iter().zip([60, 60, 150, 300, 300]) {
            let still = |_| Sign { part, beats: 7, waits: false };
            assert_eq!(hangs_at(part, 1000, still), Some(limit + 1), "{part:?}");
            let seldom = |second: u64| Sign { part, beats: second / (limit - 1), waits: false };
            assert_eq!(hangs_at(part, 4000, seldom), None, "{part:?} moves, if seldom");
        }
    }

    #[test]
    fn waiting_for_the_world_is_no_standstill_and_its_end_starts_the_time_anew() {
        let part = Part::Reconciler;
        let waits = |second| Sign { part, beats: 7, waits: second < 5000 };
        assert_eq!(hangs_at(part, 10_000, waits), Some(5300));
    }

    #[test]
    fn a_part_that_moves_again_is_well_again() {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        let mut look =
            |second: u64, beats| watchdog.look(&signs(beats), start + Duration::from_secs(second)).len();
        assert_eq!((0..400).map(|second| look(second, 1)).max(), Some(5));
        assert_eq!(look(400, 2), 0);
        assert_eq!(look(401, 2), 0);
    }

    #[test]
    fn a_process_that_was_stopped_has_not_hung() {
        let start = Instant::now();
        let mut watchdog = Watchdog::default();
        assert!(watchdog.look(&signs(1), start).is_empty());
        assert!(watchdog.look(&signs(1), start + Duration::from_secs(3600)).is_empty());
    }

    proptest! {
        /// However looks and beats fall: who moves within its limit never hangs.
        #[test]
        fn who_moves_in_time_never_hangs(pauses in prop::collection::vec((0_u64..20_000, 0_usize..5), 1..400)) {
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
                let signs = [0, 1, 2, 3, 4].map(|i| Sign { part: ALL[i], beats: beats[i], waits: false });
                prop_assert!(watchdog.look(&signs, start + at).is_empty());
            }
        }
    }
}
