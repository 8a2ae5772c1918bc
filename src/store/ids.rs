//! Which message ids are stored already. ◆
//!
//! They are random, so an index of them on disk would have every event touch a page of its own, and cost more than
//! all else that storing it takes. They lie in memory instead, for [`WINDOW`], and come back from the newest events
//! when the store is opened.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::{Duration, Instant};

/// How long an id is known at least. Twitch sends a message again within 10 minutes, and whoever has recorded one can
/// have it listened to for 20: until 10 after its timestamp, which may lie 10 ahead ("Handling Webhook Events").
pub(super) const WINDOW: Duration = Duration::from_secs(1_800);

/// Ids are forgotten a generation at a time.
const GENERATION: Duration = Duration::from_secs(600);

/// An id, made short with a key of this process: 128 bits, so that two ids never have the same one, and nobody can
/// look for two that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark(u128);

/// The marks are as good as random already.
#[derive(Clone, Copy, Debug, Default)]
struct Low(u64);

impl Hasher for Low {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, mark: u128) {
        self.0 = mark as u64;
    }
}

/// Ids that were stored within a generation.
#[derive(Debug)]
struct Generation {
    ended: Option<Instant>,
    marks: HashSet<Mark, BuildHasherDefault<Low>>,
}

impl Generation {
    fn new() -> Self {
        Self { ended: None, marks: HashSet::default() }
    }
}

/// The ids of the last half hour. About 30 bytes each.
#[derive(Debug)]
pub(super) struct Ids {
    keys: [RandomState; 2],
    /// When the youngest generation began.
    begun: Instant,
    youngest: Generation,
    /// The youngest first.
    older: VecDeque<Generation>,
}

impl Ids {
    pub(super) fn new(now: Instant) -> Self {
        let keys = [RandomState::new(), RandomState::new()];
        Self { keys, begun: now, youngest: Generation::new(), older: VecDeque::new() }
    }

    pub(super) fn mark(&self, id: &str) -> Mark {
        let [high, low] = [&self.keys[0], &self.keys[1]].map(|key| u128::from(key.hash_one(id)));
        Mark(high << 64 | low)
    }

    /// Remembers an id; `false` when it is known already.
    pub(super) fn insert(&mut self, mark: Mark) -> bool {
        !self.older.iter().any(|generation| generation.marks.contains(&mark))
            && self.youngest.marks.insert(mark)
    }

    /// Forgets an id that was not stored after all.
    pub(super) fn remove(&mut self, mark: Mark) {
        self.youngest.marks.remove(&mark);
    }

    /// Forgets what is older than the window. To be called now and then, between an [`Self::insert`] and its
    /// [`Self::remove`] never.
    pub(super) fn expire(&mut self, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then);
        if since(self.begun) >= GENERATION {
            self.begun = now;
            if !self.youngest.marks.is_empty() {
                let mut full = std::mem::replace(&mut self.youngest, Generation::new());
                full.ended = Some(now);
                self.older.push_front(full);
            }
        }
        self.older.retain(|generation| generation.ended.is_some_and(|ended| since(ended) <= WINDOW));
    }

    /// How many are known.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.youngest.marks.len() + self.older.iter().map(|generation| generation.marks.len()).sum::<usize>()
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
        fn an_id_is_known_for_the_window_and_not_much_longer(steps in prop::collection::vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut ids = Ids::new(now);
            let mut stored: HashMap<u8, Instant> = HashMap::new();
            for step in steps {
                ids.expire(now);
                match step {
                    Step::Insert(id) | Step::InsertAndRemove(id) => {
                        let mark = ids.mark(&id.to_string());
                        let is_new = ids.insert(mark);
                        let age = stored.get(&id).map(|at| now - *at);
                        match age {
                            None => prop_assert!(is_new),
                            Some(age) if age <= WINDOW => prop_assert!(!is_new, "known after {age:?}"),
                            // A generation ends when somebody looks, so nothing more can be said of the time since.
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
                ids.expire(now);
            }
            prop_assert_eq!(ids.len(), 0);
        }
    }

    #[test]
    fn what_is_forgotten_is_new_again() {
        let start = Instant::now();
        let mut ids = Ids::new(start);
        let mark = ids.mark("8f0c2a51-0000-4000-8000-000000000001");
        assert!(ids.insert(mark));
        for minutes in 0..40 {
            ids.expire(start + Duration::from_secs(60 * minutes));
            assert!(!ids.insert(mark), "after {minutes} minutes");
        }
        ids.expire(start + Duration::from_secs(60 * 41));
        assert!(ids.insert(mark));
        assert_ne!(ids.mark("a"), ids.mark("b"));
    }
}
