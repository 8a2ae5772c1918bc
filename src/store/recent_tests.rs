//! The tail against the database: whichever of the two a worker reads from, it gets the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use rusqlite::Connection;

use super::super::follower::Followers;
use super::super::retention::{self, Retention};
use super::super::{events, schema};
use super::*;
use crate::model::event::{Event, MessageId};
use crate::model::time::Timestamp;

const LIMIT: usize = 6_000;

fn event(seq: u64, size: usize) -> Arc<StoredEvent> {
    Arc::new(StoredEvent {
        seq: Seq(seq),
        stored_at: Timestamp::from_unix_millis(1_000 + seq),
        event: Event {
            message_id: MessageId::new(&seq.to_string()).unwrap(),
            message_timestamp: "2026-11-02T09:00:01.512Z".into(),
            subscription_type: "stream.online".into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: Bytes::from(vec![b'x'; size]),
        },
    })
}

fn seqs(events: &[Arc<StoredEvent>]) -> Vec<u64> {
    events.iter().map(|event| event.seq.0).collect()
}

#[test]
fn only_what_a_worker_still_needs_stays() {
    let recent = Recent::new(Seq(0), LIMIT);
    recent.push([event(1, 100)]);
    assert_eq!(recent.bytes(), 0, "nobody reads");
    let (fast, slow) = (Follower::new(|_, _, _| true), Follower::new(|_, _, _| true));
    for follower in [&fast, &slow] {
        recent.follow(follower);
        assert_eq!(recent.read(follower, Seq(0), 10, 1_000), None, "1 is in the database only");
        assert!(recent.read(follower, Seq(1), 10, 1_000).unwrap().is_empty());
    }
    recent.push((2..=4).map(|seq| event(seq, 100)));
    assert_eq!(seqs(&recent.read(&fast, Seq(1), 10, 1_000).unwrap()), [2, 3, 4]);
    assert_eq!(seqs(&recent.read(&slow, Seq(1), 2, 1_000).unwrap()), [2, 3]);
    assert_eq!(recent.bytes(), 100 + OVERHEAD);
    // A worker that has ended is not waited for.
    drop(slow);
    recent.push([event(5, 100)]);
    assert_eq!(seqs(&recent.read(&fast, Seq(4), 10, 1_000).unwrap()), [5]);
    assert_eq!(recent.bytes(), 0);
}

#[test]
fn the_room_is_bounded_and_a_worker_that_hangs_finds_the_rest_in_the_database() {
    let recent = Recent::new(Seq(0), LIMIT);
    let follower = Follower::new(|_, _, _| true);
    recent.follow(&follower);
    for seq in 1..=100 {
        recent.push([event(seq, 1_000)]);
        assert!(recent.bytes() <= LIMIT);
    }
    assert_eq!(recent.read(&follower, Seq(0), 10, 1_000), None);
    assert_eq!(recent.bytes(), 0, "nobody comes for these");
    follower.read().set(Seq(100));
    recent.push([event(101, 1_000), event(102, 1_000)]);
    assert_eq!(seqs(&recent.read(&follower, Seq(100), 10, 10_000).unwrap()), [101, 102]);
    recent.push([event(103, 2 * LIMIT)]);
    assert_eq!(recent.read(&follower, Seq(102), 1, 1), None, "too large for all of it");
}

#[test]
fn while_retention_works_only_the_database_is_read() {
    let recent = Recent::new(Seq(0), LIMIT);
    let follower = Follower::new(|_, _, _| true);
    recent.follow(&follower);
    recent.push([event(1, 10)]);
    let turn = follower.read();
    assert_eq!(recent.read(&follower, Seq(0), 10, 1_000), None);
    drop(turn);
    assert!(recent.read(&follower, Seq(0), 10, 1_000).is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Store(Vec<usize>),
    Read {
        reader: usize,
        limit: usize,
        bytes: usize,
    },
    /// Retention removes rows for their age, or takes their payloads for the size.
    Remove {
        rows: u64,
        by_age: bool,
    },
    /// A person replays: another worker begins further back.
    Replay {
        reader: usize,
        back: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(0..2_500_usize, 1..5).prop_map(Step::Store),
        6 => (0..3_usize, 1..8_usize, 1..6_000_usize)
            .prop_map(|(reader, limit, bytes)| Step::Read { reader, limit, bytes }),
        1 => (1..6_u64, any::<bool>()).prop_map(|(rows, by_age)| Step::Remove { rows, by_age }),
        1 => (0..3_usize, 0..20_u64).prop_map(|(reader, back)| Step::Replay { reader, back }),
        1 => Just(Step::Restart),
    ]
}

/// A worker, and up to where it has read.
struct Reader {
    follower: Follower,
    at: Seq,
}

impl Reader {
    fn new(recent: &Recent, at: Seq) -> Self {
        let follower = Follower::new(|_, _, _| true);
        recent.follow(&follower);
        Self { follower, at }
    }

    /// Reads as [`super::super::Store::read_for`] does.
    fn read(
        &mut self,
        recent: &Recent,
        connection: &Connection,
        limit: usize,
        bytes: usize,
    ) -> (Vec<Arc<StoredEvent>>, bool) {
        let from_database = || events::read_after(connection, self.at, limit, bytes).unwrap();
        let (read, is_recent) = match recent.read(&self.follower, self.at, limit, bytes) {
            Some(read) => (read, true),
            None => {
                let read: Vec<_> = from_database().into_iter().map(Arc::new).collect();
                if let Some(last) = read.last() {
                    self.follower.read().set(last.seq);
                }
                (read, false)
            }
        };
        self.at = read.last().map_or(self.at, |last| last.seq);
        (read, is_recent)
    }
}

proptest! {
    // Each case opens a database on disk.
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn a_worker_misses_nothing_wherever_it_reads(steps in prop::collection::vec(step(), 1..80)) {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&folder.path().join("events.db")).unwrap();
        let mut recent = Recent::new(Seq(0), LIMIT);
        let mut readers: Vec<Reader> = (0..3).map(|_| Reader::new(&recent, Seq(0))).collect();
        let (mut newest, mut visible) = (0, BTreeSet::new());
        for step in steps {
            match step {
                Step::Store(sizes) => {
                    let mut fresh = Vec::new();
                    for size in sizes {
                        newest += 1;
                        let stored = event(newest, size);
                        let mut insertion = events::insertion(&connection).unwrap();
                        events::insert(&mut insertion, newest, &stored.event, 1_000 + newest, newest).unwrap();
                        visible.insert(newest);
                        fresh.push(stored);
                    }
                    recent.push(fresh);
                }
                Step::Read { reader, limit, bytes } => {
                    let reader = &mut readers[reader];
                    let after = reader.at;
                    let expected = events::read_after(&connection, after, limit, bytes).unwrap();
                    let (read, _) = reader.read(&recent, &connection, limit, bytes);
                    prop_assert_eq!(read.iter().map(|event| (**event).clone()).collect::<Vec<_>>(), expected);
                    let seqs = seqs(&read);
                    let wanted: Vec<u64> = visible.range(after.0 + 1..).copied().take(seqs.len()).collect();
                    prop_assert_eq!(&seqs, &wanted);
                    prop_assert!(!seqs.is_empty() || visible.range(after.0 + 1..).next().is_none());
                }
                Step::Remove { rows, by_age } => {
                    let followers: Followers = readers
                        .iter()
                        .enumerate()
                        .map(|(name, reader)| (name.to_string(), reader.follower.clone()))
                        .collect();
                    let (keep, now) = if by_age {
                        let oldest = visible.first().copied().unwrap_or(0);
                        (Retention { age: 1_000, size: u64::MAX }, oldest + rows + 1_000)
                    } else {
                        (Retention { age: u64::MAX, size: 0 }, newest)
                    };
                    retention::slice(&mut connection, keep, now, true, rows, &followers, &recent).unwrap();
                    visible = events::read_after(&connection, Seq(0), usize::MAX, usize::MAX)
                        .unwrap()
                        .iter()
                        .map(|event| event.seq.0)
                        .collect();
                }
                Step::Replay { reader, back } => {
                    let at = Seq(readers[reader].at.0.saturating_sub(back));
                    readers[reader] = Reader::new(&recent, at);
                }
                Step::Restart => {
                    recent = Recent::new(Seq(newest), LIMIT);
                    readers = readers.iter().map(|reader| Reader::new(&recent, reader.at)).collect();
                }
            }
            prop_assert!(recent.bytes() <= LIMIT);
        }
        // Workers that keep up need the database no more.
        for reader in &mut readers {
            while !reader.read(&recent, &connection, 100, usize::MAX).0.is_empty() {}
        }
        recent.push([event(newest + 1, 10)]);
        for reader in &mut readers {
            let (read, is_recent) = reader.read(&recent, &connection, 100, usize::MAX);
            prop_assert!(is_recent && seqs(&read) == [newest + 1]);
        }
        prop_assert_eq!(recent.bytes(), 0);
    }
}
