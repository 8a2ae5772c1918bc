//! Whether NATS has been silent for so long that no leader can be expected to bind this host's shards. ◆
//!
//! Then the host may bind its own shards itself, but only those that Twitch does not list as enabled. The lease of a leader
//! has long run out by then, on this host and everywhere, if NATS is away for all; if it is away for this host only, the
//! others have had the time to take its shards over.

use std::time::Duration;

use super::lease::Moment;

/// Time without an answer after which the host is alone: another host needs 3 s to count this one as dead, and has bound its
/// shards 5 s after the failure.
const SILENCE: Duration = Duration::from_secs(6);
/// Longest time between two looks that counts as observed. A process that was stopped has not observed anything, and gets
/// the answers of that time first.
const STEP: Duration = Duration::from_millis(1_500);
/// Time for which a look holds: a process that was stopped meanwhile must look again.
const HOLDS: Duration = Duration::from_millis(2_500);

/// The silence of NATS, as far as it was observed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alone {
    silence: Duration,
    looked_at: Option<Moment>,
}

impl Alone {
    /// Records an answer of NATS to a write of this host, good or bad.
    pub(super) fn handle_answer(&mut self, now: Moment) {
        (self.silence, self.looked_at) = (Duration::ZERO, Some(now));
    }

    /// Returns until when this host counts as alone; `None` if it does not.
    pub(super) fn poll(&mut self, now: Moment) -> Option<Moment> {
        let before = self.looked_at.replace(now).unwrap_or(now);
        self.silence = self.silence.saturating_add(now.saturating_sub(before).min(STEP));
        (self.silence >= SILENCE).then(|| now + HOLDS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lease::{Answer, Holder, Lease, Seen, Times};
    use super::*;

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_host_is_alone_after_six_seconds_of_silence_and_not_after_a_pause_of_its_own() {
        let mut alone = Alone::default();
        assert!((100..106).all(|second| alone.poll(at(second)).is_none()));
        assert_eq!(alone.poll(at(106)), Some(at(106) + HOLDS));
        alone.handle_answer(at(107));
        assert_eq!(alone.poll(at(107)), None);
        // The process was stopped for a minute.
        assert_eq!(alone.poll(at(167)), None);
        assert!((168..172).all(|second| alone.poll(at(second)).is_none()));
        assert!(alone.poll(at(172)).is_some());
    }

    /// One step: a pause, and whether the write that is under way is answered then.
    fn steps() -> impl Strategy<Value = Vec<(u64, Option<bool>)>> {
        let pause = prop_oneof![4 => 0_u64..1_200, 1 => 1_200_u64..30_000];
        prop::collection::vec((pause, prop::option::of(any::<bool>())), 1..120)
    }

    proptest! {
        /// For any answers of NATS, however late, and any stops of the process: a host never counts as alone while it holds
        /// the lease of the leader, nor within six seconds after an answer.
        #[test]
        fn a_host_that_may_lead_is_not_alone(steps in steps()) {
            let holder = Holder { instance: "i".into(), run: "r".into() };
            let mut now = at(1_000);
            let mut lease = Lease::new(holder, Times::DEFAULT, now);
            lease.handle_read(Seen { revision: 0, holder: None }, now);
            let (mut alone, mut answered, mut revision, mut open_until) = (Alone::default(), now, 0, None);
            for (pause, answer) in steps {
                now += Duration::from_millis(pause);
                // The decision before the pause holds until the next look.
                let is_open = |until: Option<Moment>| until.is_some_and(|until| now < until);
                prop_assert!(!(is_open(open_until) && lease.epoch(now).is_some()));
                let is_asked = lease.next_poll().is_none();
                if let Some(is_good) = answer.filter(|_| is_asked) {
                    revision += 1;
                    lease.handle_answer(if is_good { Answer::Done(revision) } else { Answer::Unknown }, now);
                    if is_good {
                        alone.handle_answer(now);
                        answered = now;
                    }
                }
                let _ = lease.poll(now);
                open_until = alone.poll(now);
                prop_assert!(open_until.is_none() || lease.epoch(now).is_none());
                prop_assert!(open_until.is_none() || now >= answered + SILENCE);
            }
        }

        /// A silence that is observed is noticed.
        #[test]
        fn silence_is_noticed(pauses in prop::collection::vec(1_u64..1_500, 20..60)) {
            let (mut alone, mut now, mut silent) = (Alone::default(), at(50), Duration::ZERO);
            alone.handle_answer(now);
            for pause in pauses {
                let pause = Duration::from_millis(pause);
                now += pause;
                silent += pause;
                prop_assert_eq!(alone.poll(now).is_some(), silent >= SILENCE);
            }
        }
    }
}
