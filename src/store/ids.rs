//! The message ids of stored events, to recognize duplicates. ◆
//!
//! Message ids are random, so an index on disk would make every event write a page of its own, and cost more than the rest
//! of storing it. The ids of the last [`WINDOW`] are in memory instead, and are read back from the newest events when the
//! store is opened.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Least time for which an id is known. Twitch sends a message again within 10 minutes, and a recorded message is accepted
/// for up to 20: until 10 after its timestamp, which may be 10 ahead ("Handling Webhook Events").
pub(super) const WINDOW: Duration = Duration::from_secs(1_800);

/// Ids are forgotten a generation at a time.
const GENERATION: Duration = Duration::from_secs(600);

/// Size at which the hash set of new ids is merged into the sorted ids, which take less memory: at least this many, and at
/// least this part of those in order. Each merge goes through all of them.
const YOUNG: usize = 32_768;
const YOUNG_PART: usize = 8;

/// Most marks of a range, on average: what one line of the processor's cache holds.
const RANGE: usize = 8;

/// Hash of an id, with a random key of this process. With a million known ids, one new event in 2⁴⁴ is taken for a
/// duplicate; without the key, such ids cannot be searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark(u64);

/// Makes marks; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Marker(RandomState);

impl Marker {
    pub(super) fn mark(&self, id: impl Hash) -> Mark {
        Mark(self.0.hash_one(id))
    }
}

/// Hasher that keeps the mark as it is, since marks are random already.
#[derive(Clone, Copy, Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, mark: u64) {
        self.0 = mark;
    }
}

/// Ids that were stored within a generation.
///
/// Marks are spread evenly over all numbers. So each of many equal ranges of numbers holds a few of them, and looking a mark up
/// reads few lines of the processor's cache.
#[derive(Debug, Default)]
struct Generation {
    ended: Option<Instant>,
    /// Ascending.
    marks: Vec<Mark>,
    /// Where the marks of each range begin, and where those of the last one end.
    ranges: Vec<u32>,
    /// Number of the highest bits of a mark, which number its range.
    bits: u32,
}

impl Generation {
    fn knows(&self, mark: Mark) -> bool {
        let range = self.range(mark);
        let Some(&[begin, end]) = self.ranges.get(range..range + 2) else { return false };
        self.marks.get(begin as usize..end as usize).is_some_and(|marks| marks.binary_search(&mark).is_ok())
    }

    /// Returns the range that a mark belongs to.
    fn range(&self, mark: Mark) -> usize {
        let number = mark.0.checked_shr(u64::BITS - self.bits).unwrap_or(0);
        usize::try_from(number).unwrap_or(0)
    }

    fn add(&mut self, young: Vec<Mark>) {
        self.merge(young);
        let ranges = (self.marks.len() / RANGE).max(1).next_power_of_two();
        self.bits = ranges.trailing_zeros();
        let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        self.ranges = vec![place(self.marks.len()); ranges + 1];
        let (mut found, mut next) = (0, 0);
        for (nth, mark) in self.marks.iter().enumerate() {
            if u128::from(mark.0) >= next {
                let range = self.range(*mark);
                self.ranges[found..=range].fill(place(nth));
                found = range + 1;
                next = (found as u128) << (u64::BITS - self.bits);
            }
        }
    }

    /// Merges from the back, so that it takes no more room than the result.
    fn merge(&mut self, mut young: Vec<Mark>) {
        young.sort_unstable();
        let mut old = self.marks.len();
        self.marks.resize(old + young.len(), Mark(0));
        for (before, mark) in young.iter().enumerate().rev() {
            let greater = self.marks[..old].iter().rev().take_while(|known| *known > mark).count();
            self.marks.copy_within(old - greater..old, old - greater + before + 1);
            old -= greater;
            self.marks[old + before] = *mark;
        }
    }
}

/// The ids of the last half hour: about 9 bytes each, and 11 to 22 for the youngest.
#[derive(Debug)]
pub(super) struct Ids {
    marker: Marker,
    young: HashSet<Mark, BuildHasherDefault<Same>>,
    /// When the present generation began.
    begun: Instant,
    present: Generation,
    /// The youngest first.
    past: VecDeque<Generation>,
}

impl Ids {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            marker: Marker(RandomState::new()),
            young: HashSet::default(),
            begun: now,
            present: Generation::default(),
            past: VecDeque::new(),
        }
    }

    /// The maker of marks of these ids.
    pub(super) fn marker(&self) -> Marker {
        self.marker.clone()
    }

    /// Remembers an id; `false` when it is known already.
    pub(super) fn insert(&mut self, mark: Mark) -> bool {
        let is_old = self.present.knows(mark) || self.past.iter().any(|generation| generation.knows(mark));
        !is_old && self.young.insert(mark)
    }

    /// Forgets an id that was not stored after all. To be called before the next [`Self::compact`].
    pub(super) fn remove(&mut self, mark: Mark) {
        self.young.remove(&mark);
    }

    /// Forgets ids older than the window, and makes the rest compact. To be called regularly.
    pub(super) fn compact(&mut self, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_over = since(self.begun) >= GENERATION;
        let is_large = self.young.len() >= YOUNG.max(self.present.marks.len() / YOUNG_PART);
        if is_large || is_over && !self.young.is_empty() {
            self.present.add(self.young.drain().collect());
        }
        if is_over {
            self.young.shrink_to_fit();
            self.begun = now;
            let present = std::mem::take(&mut self.present);
            if !present.marks.is_empty() {
                self.past.push_front(Generation { ended: Some(now), ..present });
            }
        }
        self.past.retain(|generation| generation.ended.is_some_and(|ended| since(ended) <= WINDOW));
    }

    /// Number of known ids.
    #[cfg(test)]
    fn len(&self) -> usize {
        let past: usize = self.past.iter().map(|generation| generation.marks.len()).sum();
        self.young.len() + self.present.marks.len() + past
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8),
        InsertAndRemove(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Insert),
            1 => any::<u8>().prop_map(Step::InsertAndRemove),
            2 => (0..1_500_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_mark_is_found_wherever_it_lies(
            even in prop::collection::btree_set(any::<u64>(), 0..300),
            crowded in prop::collection::btree_set((any::<u8>(), 0..100_u64), 0..100),
            asked in prop::collection::vec(any::<u64>(), 10),
        ) {
            let crowded = crowded.into_iter().map(|(high, low)| (u64::from(high) << 56) + low);
            let marks: std::collections::BTreeSet<u64> = even.into_iter().chain(crowded).collect();
            let mut generation = Generation::default();
            prop_assert!(!generation.knows(Mark(asked[0])), "nothing is known yet");
            generation.add(marks.iter().copied().map(Mark).collect());
            for mark in marks.iter().flat_map(|mark| [mark.wrapping_sub(1), *mark, mark.wrapping_add(1)]).chain(asked) {
                prop_assert_eq!(generation.knows(Mark(mark)), marks.contains(&mark));
            }
            for mark in [0, u64::MAX] {
                prop_assert_eq!(generation.knows(Mark(mark)), marks.contains(&mark));
            }
        }

        #[test]
        fn sorting_in_keeps_all_of_both(old in prop::collection::btree_set(any::<u64>(), 0..50),
                                        young in prop::collection::btree_set(any::<u64>(), 0..50)) {
            let mut generation = Generation::default();
            generation.add(old.iter().copied().map(Mark).collect());
            generation.add(young.iter().copied().map(Mark).rev().collect());
            let mut all: Vec<_> = old.into_iter().chain(young).map(Mark).collect();
            all.sort_unstable();
            prop_assert_eq!(generation.marks, all);
        }

        #[test]
        fn an_id_is_known_for_the_window_and_not_much_longer(steps in prop::collection::vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut ids = Ids::new(now);
            let mut stored: HashMap<u8, Instant> = HashMap::new();
            for step in steps {
                ids.compact(now);
                match step {
                    Step::Insert(id) | Step::InsertAndRemove(id) => {
                        let mark = ids.marker.mark(id.to_string());
                        let is_new = ids.insert(mark);
                        let age = stored.get(&id).map(|at| now - *at);
                        match age {
                            None => prop_assert!(is_new),
                            Some(age) if age <= WINDOW => prop_assert!(!is_new, "known after {age:?}"),
                            // A generation ends only in `compact`, so the id may still be known.
                            Some(_) => {}
                        }
                        if is_new {
                            stored.insert(id, now);
                        }
                        if is_new && matches!(step, Step::InsertAndRemove(_)) {
                            ids.remove(mark);
                            stored.remove(&id);
                        }
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                }
            }
            // Looked at in time, it forgets everything.
            for _ in 0..5 {
                now += GENERATION;
                ids.compact(now);
            }
            prop_assert_eq!(ids.len(), 0);
        }
    }

    #[test]
    fn an_id_is_new_again_after_the_window() {
        let start = Instant::now();
        let mut ids = Ids::new(start);
        let mark = ids.marker.mark("8f0c2a51-0000-4000-8000-000000000001");
        assert!(ids.insert(mark));
        for minutes in 0..40 {
            ids.compact(start + Duration::from_secs(60 * minutes));
            assert!(!ids.insert(mark), "after {minutes} minutes");
        }
        ids.compact(start + Duration::from_secs(60 * 41));
        assert!(ids.insert(mark));
        assert_ne!(ids.marker.mark("a"), ids.marker.mark("b"));
    }

    #[test]
    fn many_ids_are_known_and_take_little_memory() {
        let mut ids = Ids::new(Instant::now());
        let marks: Vec<_> = (0..3 * YOUNG + 7).map(|id| ids.marker.mark(id.to_string())).collect();
        for mark in &marks {
            assert!(ids.insert(*mark));
            ids.compact(ids.begun);
        }
        assert_eq!((ids.present.marks.len(), ids.young.len()), (3 * YOUNG, 7));
        assert!(ids.present.marks.is_sorted());
        assert!(!marks.iter().any(|mark| ids.insert(*mark)));
        assert_eq!(ids.len(), marks.len());
    }
}
