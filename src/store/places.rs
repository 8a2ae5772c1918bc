//! The places of sinks that have moved and are not stored yet. ◆
//!
//! Storing a place is a sync of the disk, so a place goes with the commit of a later event, or by itself once it has
//! waited for [`LIMIT`]. What a sink got since comes again after a crash.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Keep;
use crate::model::event::Seq;
use crate::model::route::SinkName;

/// The longest that a place waits to be stored.
pub(super) const LIMIT: Duration = Duration::from_millis(250);
/// The least age at which places go with the commit of an event: each sink writes a page of its own.
const RIPE: Duration = Duration::from_millis(100);

/// The place of one sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Everything up to here is done.
    pub(super) cursor: Seq,
    /// Events after the cursor that are done as well, ascending.
    pub(super) done: Vec<Seq>,
}

/// Places to be stored together.
pub(super) type Moved = BTreeMap<SinkName, Place>;

/// The places that wait.
#[derive(Debug, Default)]
pub(super) struct Places {
    moved: Moved,
    /// Time at which the first of them was recorded.
    since: Option<Instant>,
    /// Time at which the first of those was recorded that must be stored within [`LIMIT`].
    soon_since: Option<Instant>,
    /// The writer wakes up by itself before [`LIMIT`] is over.
    is_watched: bool,
    /// A request to wake up is in the writer's queue.
    is_wake_queued: bool,
}

impl Places {
    /// Records the place of a sink, in place of an older one. Returns whether the writer has to be woken.
    pub(super) fn record(&mut self, name: &SinkName, place: Place, keep: Keep, now: Instant) -> bool {
        match self.moved.get_mut(name) {
            Some(known) => *known = place,
            None => drop(self.moved.insert(name.clone(), place)),
        }
        self.since.get_or_insert(now);
        if keep == Keep::Soon {
            self.soon_since.get_or_insert(now);
        }
        keep == Keep::Soon && !self.is_watched
    }

    /// Returns whether a request to wake up must be put into the writer's queue; there is at most one.
    pub(super) fn request_wake(&mut self) -> bool {
        !std::mem::replace(&mut self.is_wake_queued, true)
    }

    /// The writer got the request to wake up.
    pub(super) fn wake_received(&mut self) {
        self.is_wake_queued = false;
    }

    /// Whether the places go with a commit that takes place now anyway.
    pub(super) fn are_ripe(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= RIPE)
    }

    /// Whether a writer that is awake stores the places in a commit of their own: it does so a little early rather than wake
    /// up twice.
    pub(super) fn are_awaited(&self, now: Instant) -> bool {
        self.soon_since.is_some_and(|since| now.saturating_duration_since(since) >= RIPE)
    }

    /// Whether there is nothing to store.
    pub(super) fn is_empty(&self) -> bool {
        self.moved.is_empty()
    }

    /// The writer goes to sleep, until `grace` at the latest if that is given. Returns the time at which it must wake up.
    pub(super) fn wait(&mut self, grace: Option<Instant>) -> Option<Instant> {
        let due = self.soon_since.map(|since| since + LIMIT);
        let until = match (due, grace) {
            (Some(due), Some(grace)) => Some(due.min(grace)),
            (due, grace) => due.or(grace),
        };
        self.is_watched = until.is_some();
        until
    }

    /// Takes all places to store them.
    pub(super) fn take(&mut self) -> Moved {
        (self.since, self.soon_since) = (None, None);
        std::mem::take(&mut self.moved)
    }

    /// Takes back what could not be stored, unless a sink has moved on. It is due again after [`LIMIT`].
    pub(super) fn put_back(&mut self, moved: Moved, now: Instant) {
        if moved.is_empty() {
            return;
        }
        for (name, place) in moved {
            self.moved.entry(name).or_insert(place);
        }
        self.since.get_or_insert(now);
        self.soon_since.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(cursor: u64) -> Place {
        Place { cursor: Seq(cursor), done: vec![] }
    }

    fn name(number: u8) -> SinkName {
        SinkName::new(number.to_string())
    }

    #[test]
    fn a_place_goes_with_a_later_commit_or_by_itself() {
        let (mut places, start) = (Places::default(), Instant::now());
        assert!(
            places.record(&name(1), place(1), Keep::Soon, start) && places.request_wake(),
            "the writer sleeps"
        );
        assert!(
            places.record(&name(2), place(1), Keep::Soon, start) && !places.request_wake(),
            "one request is enough"
        );
        places.wake_received();
        assert!(places.request_wake());
        places.wake_received();
        assert_eq!(places.wait(None), Some(start + LIMIT));
        assert!(!places.record(&name(1), place(2), Keep::Soon, start + RIPE / 2), "it wakes up by itself");
        assert!(!places.are_ripe(start + RIPE / 2));
        assert!(places.are_ripe(start + RIPE));
        assert_eq!(places.take(), Moved::from([(name(1), place(2)), (name(2), place(1))]));
        assert_eq!((places.wait(None), places.are_ripe(start + LIMIT)), (None, false));
    }

    #[test]
    fn a_sink_that_wanted_no_event_does_not_wake_the_writer() {
        let (mut places, start) = (Places::default(), Instant::now());
        assert!(!places.record(&name(1), place(1), Keep::Lazily, start));
        assert_eq!(places.wait(None), None);
        assert!(places.are_ripe(start + RIPE), "it goes with the next event");
        assert!(places.record(&name(1), place(2), Keep::Soon, start + LIMIT));
        assert_eq!(places.wait(None), Some(start + 2 * LIMIT));
    }

    #[test]
    fn a_place_that_could_not_be_stored_is_due_again_unless_the_sink_has_moved_on() {
        let (mut places, start) = (Places::default(), Instant::now());
        places.record(&name(1), place(1), Keep::Soon, start);
        places.record(&name(2), place(1), Keep::Soon, start);
        let taken = places.take();
        places.record(&name(1), place(2), Keep::Lazily, start);
        places.put_back(taken, start);
        assert_eq!(places.wait(None), Some(start + LIMIT));
        assert_eq!(places.take(), Moved::from([(name(1), place(2)), (name(2), place(1))]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Record { sink: u8, soon: bool },
        Pass(u64),
        Commit,
        Fail,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8, any::<bool>()).prop_map(|(sink, soon)| Step::Record { sink, soon }),
            3 => (0..400_u64).prop_map(Step::Pass),
            1 => Just(Step::Commit),
            1 => Just(Step::Fail),
        ]
    }

    proptest! {
        /// The writer sleeps until it is woken or until the time that `wait` has returned: each place that must be stored
        /// soon is stored within [`LIMIT`], and the newest place of each sink is stored in the end.
        #[test]
        fn places_are_stored_in_time(steps in prop::collection::vec(step(), 0..80)) {
            let (mut places, mut now) = (Places::default(), Instant::now());
            let mut wakes_at = places.wait(None);
            let mut newest: BTreeMap<u8, (u64, Option<Instant>)> = BTreeMap::new();
            let (mut stored, mut number) = (BTreeMap::<SinkName, Place>::new(), 0);
            for step in steps {
                match step {
                    Step::Record { sink, soon } => {
                        number += 1;
                        let keep = if soon { Keep::Soon } else { Keep::Lazily };
                        let entry = newest.entry(sink).or_default();
                        entry.0 = number;
                        if soon {
                            entry.1.get_or_insert(now);
                        }
                        if places.record(&name(sink), place(number), keep, now) {
                            places.wake_received();
                            wakes_at = places.wait(None);
                        }
                    }
                    Step::Pass(millis) => {
                        let until = now + Duration::from_millis(millis);
                        if let Some(at) = wakes_at.filter(|at| *at <= until) {
                            now = now.max(at);
                            prop_assert!(places.are_ripe(now) && places.are_awaited(now));
                            stored.extend(places.take());
                            newest.values_mut().for_each(|(_, since)| *since = None);
                            wakes_at = places.wait(None);
                        }
                        now = now.max(until);
                    }
                    Step::Commit => {
                        stored.extend(places.take());
                        newest.values_mut().for_each(|(_, since)| *since = None);
                        wakes_at = places.wait(None);
                    }
                    Step::Fail => {
                        let taken = places.take();
                        for (sink, (_, since)) in &mut newest {
                            *since = taken.contains_key(&name(*sink)).then_some(now);
                        }
                        places.put_back(taken, now);
                        wakes_at = places.wait(None);
                    }
                }
                for (sink, (_, since)) in &newest {
                    let since = since.filter(|_| places.moved.contains_key(&name(*sink)));
                    prop_assert!(since.is_none_or(|since| now <= since + LIMIT), "nothing waits for longer");
                }
            }
            stored.extend(places.take());
            for (sink, (number, _)) in newest {
                prop_assert_eq!(&stored[&name(sink)], &place(number));
            }
        }
    }
}
