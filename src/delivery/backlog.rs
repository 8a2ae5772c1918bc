//! The number of events that wait for a sink and are not read by its worker yet. ◆
//!
//! One bit for each stored event that was examined and is not read yet: a million take 125 KB. Each event is examined once,
//! so the count stays exact while the worker reads on and retention removes events.

use std::collections::VecDeque;

use crate::model::event::Seq;

const BITS: u64 = u64::BITS as u64;

/// The examined events, and which of them are for the sink.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog {
    /// The number of the first word.
    first: u64,
    /// Bit `seq % 64` of word `seq / 64` is set if that event is for the sink.
    words: VecDeque<u64>,
    wanted: u64,
    /// The last examined event.
    looked: Seq,
}

impl Backlog {
    /// Number of examined events for the sink.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The event up to which all are examined, or need not be.
    pub(super) fn looked(&self) -> Seq {
        self.looked
    }

    /// Forgets events up to this one, which were read or removed.
    pub(super) fn forget(&mut self, up_to: Seq) {
        self.looked = self.looked.max(up_to);
        let next = up_to.0.saturating_add(1);
        while let Some(word) = self.words.front_mut()
            && self.first * BITS < next
        {
            let gone = next - self.first * BITS;
            let kept = if gone >= BITS { 0 } else { *word & (u64::MAX << gone) };
            self.wanted -= u64::from((*word ^ kept).count_ones());
            *word = kept;
            if gone < BITS {
                break;
            }
            self.words.pop_front();
            self.first += 1;
        }
    }

    /// Adds examined events up to `looked`; `wanted` are those for the sink, ascending.
    pub(super) fn add(&mut self, wanted: &[Seq], looked: Seq) {
        for seq in wanted.iter().filter(|seq| **seq > self.looked) {
            let word = seq.0 / BITS;
            if self.words.is_empty() {
                self.first = word;
            }
            let Ok(index) = usize::try_from(word - self.first) else { continue };
            if index >= self.words.len() {
                self.words.resize(index + 1, 0);
            }
            let bit = 1 << (seq.0 % BITS);
            self.wanted += u64::from(self.words[index] & bit == 0);
            self.words[index] |= bit;
        }
        self.looked = self.looked.max(looked);
    }

    /// Starts again after `up_to`, since other events are for the sink now.
    pub(super) fn reset(&mut self, up_to: Seq) {
        *self = Self { looked: up_to, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_million_events_take_little_room_and_are_counted_exactly() {
        let mut backlog = Backlog::default();
        for chunk in 0..100_u64 {
            let wanted: Vec<Seq> =
                (chunk * 10_000 + 1..=(chunk + 1) * 10_000).filter(|n| n % 5 == 0).map(Seq).collect();
            backlog.add(&wanted, Seq((chunk + 1) * 10_000));
        }
        assert_eq!((backlog.wanted(), backlog.looked()), (200_000, Seq(1_000_000)));
        assert!(backlog.words.len() <= 1_000_000 / 64 + 1);
        backlog.forget(Seq(999_990));
        assert_eq!(backlog.wanted(), 2);
        assert!(backlog.words.len() <= 2, "{}", backlog.words.len());
        backlog.forget(Seq(2_000_000));
        assert_eq!((backlog.wanted(), backlog.looked()), (0, Seq(2_000_000)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Look { count: u64, every: u64 },
        Read(u64),
        Reset,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..300_u64, 1..70_u64).prop_map(|(count, every)| Step::Look { count, every }),
            4 => (0..400_u64).prop_map(Step::Read),
            1 => Just(Step::Reset),
        ]
    }

    proptest! {
        #[test]
        fn the_count_is_that_of_a_set_of_numbers(steps in prop::collection::vec(step(), 0..40)) {
            let mut backlog = Backlog::default();
            let (mut known, mut read): (BTreeSet<u64>, u64) = (BTreeSet::new(), 0);
            for step in steps {
                match step {
                    Step::Look { count, every } => {
                        let from = backlog.looked().0;
                        let wanted: Vec<Seq> = (from + 1..=from + count).filter(|n| n % every == 0).map(Seq).collect();
                        known.extend(wanted.iter().map(|seq| seq.0));
                        backlog.add(&wanted, Seq(from + count));
                    }
                    Step::Read(count) => {
                        read += count;
                        backlog.forget(Seq(read));
                    }
                    Step::Reset => {
                        known.clear();
                        backlog.reset(Seq(read));
                    }
                }
                known.retain(|seq| *seq > read);
                prop_assert_eq!(backlog.wanted(), known.len() as u64);
                prop_assert!(backlog.looked().0 >= read);
            }
        }
    }
}
