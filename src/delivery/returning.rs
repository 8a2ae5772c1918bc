//! Where a sink would go on in the store of this host if it left the cluster. ◆
//!
//! The shared log numbers the events of all hosts. Now and then it is noted up to which event it has the store of this host, and the
//! highest number that it has given to one of them: a sink that has everything up to that number has all of those.

use std::collections::VecDeque;

use crate::model::event::Seq;

/// Notes that are kept at most.
const NOTES: usize = 256;

/// How much of the store of this host the shared log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The log has every event up to this one.
    pub cursor: Seq,
    /// The highest number that the log has given to one of them.
    pub position: Seq,
}

/// The notes, both numbers ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Returning {
    notes: VecDeque<Forwarded>,
}

impl Returning {
    /// Takes how much the log has by now. Less than before means that it gets a part again, with other numbers.
    pub(super) fn note(&mut self, forwarded: Forwarded) {
        match self.notes.back() {
            Some(last) if *last == forwarded => return,
            Some(last) if last.cursor > forwarded.cursor || last.position > forwarded.position => {
                self.notes.clear();
            }
            Some(_) | None => {}
        }
        self.notes.push_back(forwarded);
        if self.notes.len() > NOTES {
            // Every other of the older ones is enough: sinks are further.
            let mut nth = 0;
            self.notes.retain(|_| {
                nth += 1;
                nth % 2 == 0 || nth > NOTES
            });
        }
    }

    /// The event of the store up to which a sink has everything, if it is done up to `cursor` in the shared log.
    pub(super) fn local_cursor(&self, cursor: Seq) -> Option<Seq> {
        let after = self.notes.partition_point(|note| note.position <= cursor);
        Some(self.notes.get(after.checked_sub(1)?)?.cursor)
    }

    /// Forgets what no sink needs, as all are done up to `cursor` in the shared log.
    pub(super) fn forget(&mut self, cursor: Seq) {
        let after = self.notes.partition_point(|note| note.position <= cursor);
        self.notes.drain(..after.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Events are forwarded in any order among events of other hosts, and noted at any time: whatever the place of a sink
        /// is, every event of the store up to the answer has a number up to that place.
        #[test]
        fn a_sink_that_goes_on_in_the_store_misses_nothing(
            steps in prop::collection::vec((0_u64..4, 1_u64..5, any::<bool>()), 1..400),
            place in 0_u64..2_000,
            forget in 0_u64..2_000,
        ) {
            let mut returning = Returning::default();
            let (mut position, mut next, mut numbers) = (0, 1, BTreeMap::new());
            let mut open: Vec<u64> = Vec::new();
            for (late, others, is_noted) in steps {
                open.push(next);
                next += 1;
                position += others;
                // One of the last few is acknowledged.
                let index = usize::try_from(late).unwrap().min(open.len() - 1);
                numbers.insert(open.remove(index), position);
                if is_noted {
                    let cursor = open.first().map_or(next - 1, |first| first - 1);
                    returning.note(Forwarded { cursor: Seq(cursor), position: Seq(position) });
                }
            }
            returning.forget(Seq(place.min(forget)));
            prop_assert!(returning.notes.len() <= NOTES);
            if let Some(cursor) = returning.local_cursor(Seq(place)) {
                for seq in 1..=cursor.0 {
                    prop_assert!(numbers.get(&seq).is_some_and(|number| *number <= place), "{seq} of {cursor}");
                }
            }
        }
    }

    #[test]
    fn a_log_that_gets_events_again_gives_them_other_numbers() {
        let mut returning = Returning::default();
        let forwarded = |cursor, position| Forwarded { cursor: Seq(cursor), position: Seq(position) };
        returning.note(forwarded(100, 110));
        assert_eq!(returning.local_cursor(Seq(110)), Some(Seq(100)));
        assert_eq!(returning.local_cursor(Seq(109)), None);
        returning.note(forwarded(40, 50));
        assert_eq!(returning.local_cursor(Seq(110)), Some(Seq(40)));
    }
}
