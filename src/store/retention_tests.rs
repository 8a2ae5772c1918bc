//! Retention and the store's clock together, against a model that knows the true age of every event.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::age::{AgeClock, Reading, Tick, Witness};
use super::super::{dead_letters, events, schema, sinks};
use super::*;
use crate::model::event::{Event, MessageId, StoredEvent};

const HOUR: u64 = 3_600_000;
const KEEP: Retention = Retention { age: 24 * HOUR, size: u64::MAX };

fn event(id: u64, kind: &str) -> Event {
    Event {
        message_id: MessageId::new(&id.to_string()).unwrap(),
        message_timestamp: "2026-11-02T09:00:01.512Z".into(),
        subscription_type: kind.into(),
        subscription_version: "1".into(),
        subscription_id: "s".into(),
        payload: b"{}".as_slice().into(),
    }
}

/// Slices until nothing is left to do.
fn retain(connection: &mut Connection, keep: Retention, now: u64, followers: &Followers) -> Vec<Removed> {
    let mut all = Vec::new();
    loop {
        let recent = Recent::new(Seq(0), 0);
        let removed = slice(connection, keep, now, true, 7, followers, &recent).unwrap();
        let more = removed.more;
        all.push(removed);
        if !more {
            return all;
        }
    }
}

fn visible(connection: &Connection) -> Vec<u64> {
    events::read_after(connection, Seq(0), usize::MAX, usize::MAX)
        .unwrap()
        .iter()
        .map(|event| event.seq.0)
        .collect()
}

fn follower(kind: &'static str, read: u64) -> Follower {
    let follower = Follower::new(move |subscription_type, _, _| subscription_type == kind);
    follower.read().set(Seq(read));
    follower
}

#[test]
fn lost_is_what_the_sink_wanted_and_neither_had_nor_has_in_hand() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = schema::open(&folder.path().join("events.db")).unwrap();
    for seq in 1..=20 {
        let kind = if seq % 2 == 0 { "even" } else { "odd" };
        let mut insertion = events::insertion(&connection).unwrap();
        events::insert(&mut insertion, seq, &event(seq, kind), 1_000 + seq, 100).unwrap();
    }
    let sink = SinkName::new("log");
    sinks::register(&connection, &sink, Seq(0)).unwrap();
    sinks::advance(&connection, &sink, Seq(4), &[Seq(6)]).unwrap();
    // The worker has read up to 12: 8, 10 and 12 are undecided; 14, 16 and 18 are lost.
    let followers = Followers::from([("log".to_owned(), follower("even", 12))]);
    let removed = retain(&mut connection, KEEP, 25 * HOUR, &followers);
    assert_eq!(visible(&connection), [20]);
    let losses: u64 = removed.iter().flat_map(|removed| &removed.losses).map(|loss| loss.events).sum();
    assert_eq!((losses, sinks::get(&connection, &sink).unwrap().unwrap().lost), (3, 3));
    let events: u64 = removed.iter().map(|removed| removed.events.by_age).sum();
    assert_eq!((events, removed.iter().map(|removed| removed.events.until).max()), (19, Some(1_019)));
    // The worker delivers 8 and 12, and ends.
    sinks::advance(&connection, &sink, Seq(9), &[Seq(12)]).unwrap();
    let record = sinks::start(&connection, &sink, Seq(0)).unwrap();
    assert_eq!((record.lost, record.cursor), (4, Seq(19)));
    assert_eq!(sinks::start(&connection, &sink, Seq(0)).unwrap().lost, 4, "once");
    let losses = settings::load(&connection, LOSS).unwrap();
    let losses: Vec<Loss> = losses.iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(losses.iter().map(|loss| loss.events).sum::<u64>(), 4);
    let held = losses.iter().find(|loss| loss.from.unix_millis() == 1_010).expect("10 was in hand");
    assert_eq!((held.events, held.to.unix_millis()), (1, 1_010));
}

#[derive(Clone, Debug)]
enum Step {
    Store { matching: bool },
    Pass(u64),
    SetWall(u64),
    RestartDaemon,
    Reboot { off: u64 },
    Read(u64),
    Deliver(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|matching| Step::Store { matching }),
        4 => (0..20 * HOUR).prop_map(Step::Pass),
        3 => (0..90_000 * HOUR).prop_map(Step::SetWall),
        1 => Just(Step::RestartDaemon),
        1 => (0..100 * HOUR).prop_map(|off| Step::Reboot { off }),
        3 => (1..6_u64).prop_map(Step::Read),
        3 => (1..6_u64).prop_map(Step::Deliver),
    ]
}

/// The world as it really is.
struct World {
    truth: u64,
    ahead: i64,
    boot: u32,
    booted_at: u64,
}

impl World {
    fn wall_without_faults(&self) -> u64 {
        5_000 * HOUR + self.truth
    }

    fn reading(&self) -> Reading {
        let wall = i64::try_from(self.wall_without_faults()).unwrap() + self.ahead;
        let tick = Tick { boot: self.boot.to_string().into(), since_boot: self.truth - self.booted_at };
        Reading { tick, wall: u64::try_from(wall).unwrap_or(0) }
    }
}

proptest! {
    // Each case opens a database on disk.
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    /// For every change of the wall clock: events younger than `retain` stay, and lost events are counted exactly.
    #[test]
    fn no_jump_and_no_restart_removes_what_is_young(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&folder.path().join("events.db")).unwrap();
        let mut world = World { truth: 0, ahead: 0, boot: 0, booted_at: 0 };
        let mut clock = AgeClock::open(None, 0, None, &world.reading());
        let mut witness = None;
        let sink = SinkName::new("log");
        sinks::start(&connection, &sink, Seq(0)).unwrap();
        let mut worker = follower("even", 0);
        let mut followers = Followers::from([("log".to_owned(), worker.clone())]);
        // When each event was really stored, and whether it is for the sink.
        let mut stored: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        let (mut in_hand, mut had, mut certain, mut opened_at) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
        for step in steps {
            match step {
                Step::Store { matching } => {
                    let seq = stored.len() as u64 + 1;
                    let now = world.reading();
                    let missed = clock.missed(world.wall_without_faults(), &now);
                    if missed > 0 {
                        clock.advance(missed, &now);
                        let saved = clock.saved(&now);
                        events::advance_clock(&mut connection, Seq(opened_at), clock.opened(), missed, &saved).unwrap();
                    }
                    let elapsed = clock.elapsed(&now);
                    let kind = if matching { "even" } else { "odd" };
                    let mut insertion = events::insertion(&connection).unwrap();
                    events::insert(&mut insertion, seq, &event(seq, kind), now.wall, elapsed).unwrap();
                    stored.insert(seq, (world.truth, matching));
                    witness = Some(Witness { elapsed, wall: now.wall, sent: world.wall_without_faults() });
                }
                Step::Pass(millis) => world.truth += millis,
                Step::SetWall(wall) => {
                    world.ahead =
                        i64::try_from(wall).unwrap() - i64::try_from(world.wall_without_faults()).unwrap();
                }
                Step::RestartDaemon | Step::Reboot { .. } => {
                    let saved = clock.saved(&world.reading());
                    if let Step::Reboot { off } = step {
                        world.truth += off;
                        world.boot += 1;
                        world.booted_at = world.truth;
                    }
                    clock = AgeClock::open(Some(&saved), witness.map_or(0, |w| w.elapsed), witness, &world.reading());
                    sinks::start(&connection, &sink, Seq(0)).unwrap();
                    worker = follower("even", 0);
                    followers = Followers::from([("log".to_owned(), worker.clone())]);
                    in_hand.clear();
                    opened_at = stored.len() as u64;
                }
                Step::Read(count) => {
                    let mut read = worker.read();
                    let after = read.get().max(sinks::get(&connection, &sink).unwrap().unwrap().cursor);
                    let events =
                        events::read_after(&connection, after, usize::try_from(count).unwrap(), usize::MAX).unwrap();
                    read.set(events.last().map_or(after, |last| last.seq));
                    in_hand.extend(events.iter().map(|event| event.seq.0).filter(|seq| stored[seq].1));
                }
                Step::Deliver(count) => {
                    for _ in 0..count {
                        had.extend(in_hand.pop_first());
                    }
                    let read = worker.read().get().0;
                    let cursor = in_hand.first().map_or(read, |first| first - 1);
                    sinks::advance(&connection, &sink, Seq(cursor), &[]).unwrap();
                }
            }
            clock.jump(&world.reading());
            retain(&mut connection, KEEP, clock.elapsed(&world.reading()), &followers);
            let kept: BTreeSet<u64> = visible(&connection).into_iter().collect();
            for (seq, (at, _)) in &stored {
                let young = world.truth - at <= KEEP.age;
                prop_assert!(!young || kept.contains(seq), "{seq} is {} ms old", world.truth - at);
            }
            let cursor = sinks::get(&connection, &sink).unwrap().unwrap().cursor.0;
            let lost = stored.iter().filter(|(seq, (_, matching))| {
                *matching && !kept.contains(seq) && !had.contains(*seq) && !in_hand.contains(*seq)
            });
            let lost: Vec<u64> = lost.map(|(seq, _)| *seq).collect();
            prop_assert!(lost.iter().all(|seq| *seq <= cursor));
            let counted = sinks::get(&connection, &sink).unwrap().unwrap().lost;
            prop_assert_eq!(counted, lost.len() as u64, "{:?} of {:?}", lost, kept);
            prop_assert!(counted >= certain);
            certain = counted;
        }
    }
}

#[test]
fn dead_letters_go_for_the_size_also_if_there_are_no_events() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = schema::open(&folder.path().join("events.db")).unwrap();
    let sink = SinkName::new("log");
    sinks::register(&connection, &sink, Seq(0)).unwrap();
    let event =
        StoredEvent { seq: Seq(1), stored_at: Timestamp::from_unix_millis(1), event: event(1, "even") };
    dead_letters::add(&connection, &sink, &event, &"gone".into(), 5).unwrap();
    let keep = Retention { age: 24 * HOUR, size: 0 };
    let removed = retain(&mut connection, keep, HOUR, &Followers::new());
    let letters: u64 = removed.iter().flat_map(|removed| &removed.dead_letters).map(|loss| loss.events).sum();
    assert_eq!((letters, sinks::get(&connection, &sink).unwrap().unwrap().dead_letters), (1, 0));
}
