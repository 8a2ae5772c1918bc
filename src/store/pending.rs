//! Counts of stored events that are not in the database yet, and those of the last hour by minute. ◆
//!
//! The database gets them with a commit once a minute, so that counting costs no writes of its own. After a crash they
//! are counted again from the events behind the last one that the database has counted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::TypeCount;
use crate::model::event::Seq;

/// Age from which counts go to the database with the next commit.
const PERIOD: Duration = Duration::from_secs(60);
/// Number of subscriptions from which they go earlier. With a whole batch on top, the map has room for them without
/// growing again: half a megabyte.
const FULL: usize = 10_000;
/// Types that are counted by themselves in an hour or a minute; further ones are summed up.
pub(super) const TYPES: usize = 24;
/// Name under which further types are summed up.
pub(super) const OTHERS: &str = "";
/// Number of minutes kept.
const MINUTES: usize = 60;
/// Milliseconds of a minute and of an hour.
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Number of events by type.
type Types = BTreeMap<Box<str>, u64>;

/// The events of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) events: u64,
    pub(super) last: Seq,
    /// Time at which the last one was stored, in milliseconds.
    pub(super) last_at: u64,
}

/// Key of a subscription, made from Twitch's id. It is the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// FNV-1a: ids are random, so that nothing more is needed.
    pub(super) fn of(id: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(id.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// As SQLite has it.
    pub(super) fn stored(self) -> i64 {
        self.0.cast_signed()
    }
}

/// Counts to be written to the database in one transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) hours: Vec<TypeCount>,
    /// Sorted by key, ascending.
    pub(super) subscriptions: Vec<(Key, Events)>,
    /// The last event that is counted.
    pub(super) last: Seq,
}

#[derive(Debug)]
pub(super) struct Pending {
    /// The last event that the database has counted, and the last one that is counted here.
    counted: Seq,
    last: Seq,
    /// Time of the first count that the database does not have.
    since: Option<Instant>,
    hours: BTreeMap<u64, Types>,
    subscriptions: HashMap<Key, Events>,
    /// The last one is the current minute.
    minutes: VecDeque<(u64, Types)>,
}

impl Pending {
    pub(super) fn new(counted: Seq) -> Self {
        Self {
            counted,
            last: counted,
            since: None,
            hours: BTreeMap::new(),
            subscriptions: HashMap::new(),
            minutes: VecDeque::new(),
        }
    }

    /// Counts an event that was stored at this time, in milliseconds since the epoch.
    pub(super) fn add(&mut self, seq: Seq, kind: &str, subscription: &str, at: u64, now: Instant) {
        self.since.get_or_insert(now);
        self.last = self.last.max(seq);
        count(self.hours.entry(at / HOUR).or_default(), kind);
        let events = self.subscriptions.entry(Key::of(subscription)).or_insert(Events {
            events: 0,
            last: seq,
            last_at: at,
        });
        (events.events, events.last, events.last_at) = (events.events + 1, seq, at);
    }

    /// Counts an event for the current minute.
    pub(super) fn add_minute(&mut self, kind: &str, at: u64) {
        let minute = at / MINUTE;
        // If the clock goes back, the current minute goes on.
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            self.minutes.push_back((minute, Types::new()));
            if self.minutes.len() > MINUTES {
                self.minutes.pop_front();
            }
        }
        if let Some((_, types)) = self.minutes.back_mut() {
            count(types, kind);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Whether the next commit is to write the counts.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= PERIOD) || self.is_full()
    }

    pub(super) fn is_full(&self) -> bool {
        self.subscriptions.len() >= FULL
    }

    /// Returns what the database does not have.
    pub(super) fn counts(&self) -> Counts {
        let mut subscriptions: Vec<_> =
            self.subscriptions.iter().map(|(key, events)| (*key, *events)).collect();
        subscriptions.sort_unstable_by_key(|(key, _)| *key);
        Counts { hours: self.hours_from(0), subscriptions, last: self.last }
    }

    /// Records that the database has everything up to this event. Nothing may have been added since [`Self::counts`].
    pub(super) fn written(&mut self, last: Seq) {
        (self.counted, self.since) = (last, None);
        self.hours.clear();
        self.subscriptions.clear();
    }

    /// The last event that the database has counted.
    pub(super) fn counted(&self) -> Seq {
        self.counted
    }

    /// The counts of hours from this one on.
    pub(super) fn hours_from(&self, from: u64) -> Vec<TypeCount> {
        flat(self.hours.range(from..).map(|(hour, types)| (*hour, types)))
    }

    pub(super) fn minutes(&self) -> Vec<TypeCount> {
        flat(self.minutes.iter().map(|(minute, types)| (*minute, types)))
    }

    pub(super) fn events_of(&self, key: Key) -> Option<Events> {
        self.subscriptions.get(&key).copied()
    }
}

fn count(types: &mut Types, kind: &str) {
    if let Some(events) = types.get_mut(kind) {
        *events += 1;
        return;
    }
    let kind = if types.len() < TYPES { kind } else { OTHERS };
    *types.entry(kind.into()).or_default() += 1;
}

fn flat<'a>(slots: impl Iterator<Item = (u64, &'a Types)>) -> Vec<TypeCount> {
    let rows = |(slot, types): (u64, &'a Types)| {
        types.iter().map(move |(kind, events)| TypeCount { slot, kind: kind.clone(), events: *events })
    };
    slots.flat_map(rows).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(slot: u64, kind: &str, events: u64) -> TypeCount {
        TypeCount { slot, kind: kind.into(), events }
    }

    #[test]
    fn counts_are_due_after_a_minute_and_gone_once_written() {
        let (mut pending, start) = (Pending::new(Seq(4)), Instant::now());
        assert!(pending.is_empty() && !pending.is_due(start + 2 * PERIOD));
        pending.add(Seq(5), "stream.online", "a", 3 * HOUR + 1, start);
        pending.add(Seq(6), "stream.online", "a", 4 * HOUR, start + PERIOD / 2);
        pending.add(Seq(7), "channel.raid", "b", 4 * HOUR, start + PERIOD / 2);
        assert!(!pending.is_due(start + PERIOD / 2) && pending.is_due(start + PERIOD));
        let counts = pending.counts();
        assert_eq!(
            counts.hours,
            [row(3, "stream.online", 1), row(4, "channel.raid", 1), row(4, "stream.online", 1)]
        );
        assert_eq!(counts.last, Seq(7));
        let of_a = Events { events: 2, last: Seq(6), last_at: 4 * HOUR };
        assert_eq!(pending.events_of(Key::of("a")), Some(of_a));
        pending.written(counts.last);
        assert_eq!((pending.counted(), pending.is_empty()), (Seq(7), true));
        assert!(pending.counts().hours.is_empty() && pending.events_of(Key::of("a")).is_none());
    }

    #[test]
    fn many_subscriptions_make_counts_due_at_once() {
        let (mut pending, now) = (Pending::new(Seq(0)), Instant::now());
        for seq in 1..=FULL as u64 {
            assert!(!pending.is_due(now));
            pending.add(Seq(seq), "stream.online", &seq.to_string(), 0, now);
        }
        assert!(pending.is_due(now));
        assert_eq!(pending.counts().subscriptions.len(), FULL);
    }

    #[test]
    fn further_types_are_summed_up() {
        let mut pending = Pending::new(Seq(0));
        for seq in 1..=100 {
            pending.add(Seq(seq), &format!("type.{seq:03}"), "a", 0, Instant::now());
        }
        let hours = pending.counts().hours;
        assert_eq!((hours.len(), &hours[0]), (TYPES + 1, &row(0, OTHERS, 100 - TYPES as u64)));
    }

    #[test]
    fn the_last_sixty_minutes_are_kept() {
        let mut pending = Pending::new(Seq(0));
        for minute in 100..170 {
            pending.add_minute("stream.online", minute * MINUTE);
        }
        pending.add_minute("channel.raid", 0);
        let minutes = pending.minutes();
        assert_eq!((minutes.len(), minutes[0].slot), (MINUTES + 1, 110));
        assert_eq!(minutes[59], row(169, "channel.raid", 1), "the clock went back");
    }

    proptest! {
        #[test]
        fn no_event_is_left_out_or_counted_twice(
            events in proptest::collection::vec((0_u64..5, 0_usize..40, 0_u64..9, any::<bool>()), 0..300),
        ) {
            let (mut pending, now) = (Pending::new(Seq(0)), Instant::now());
            let (mut by_type, mut by_subscription, mut last) = (0, 0, Seq(0));
            for (seq, (hour, kind, subscription, write)) in (1..).zip(&events) {
                pending.add(Seq(seq), &format!("t{kind}"), &subscription.to_string(), hour * HOUR, now);
                if *write || seq == events.len() as u64 {
                    let counts = pending.counts();
                    by_type += counts.hours.iter().map(|row| row.events).sum::<u64>();
                    by_subscription += counts.subscriptions.iter().map(|(_, of)| of.events).sum::<u64>();
                    last = counts.last;
                    pending.written(last);
                }
            }
            prop_assert_eq!((by_type, by_subscription), (events.len() as u64, events.len() as u64));
            prop_assert_eq!(last, Seq(events.len() as u64));
        }
    }
}
