//! Counts of events in the database: by hour and type, and by subscription.

use std::cmp::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;

use super::pending::{Counts, Events, Key, OTHERS, Pending, TYPES};
use super::{Activity, TypeCount};
use crate::model::event::Seq;
use crate::model::time::Timestamp;

/// Number of hours whose counts are kept, if there were events in each: three weeks.
const HOURS: u64 = 21 * 24;
/// Number of subscriptions whose counts are kept; those whose last event is the oldest go first.
const SUBSCRIPTIONS: u64 = 200_000;

/// Adds counts, and records up to which event the database has counted.
pub(super) fn write(connection: &Connection, counts: &Counts) -> rusqlite::Result<()> {
    // A type that is new to an hour with enough of them joins the others.
    let mut add = connection.prepare_cached(
        "INSERT INTO counts (hour, type, events)
         SELECT ?1, iif((SELECT count(*) FROM counts WHERE hour = ?1) < ?4
                        OR EXISTS (SELECT 1 FROM counts WHERE hour = ?1 AND type = ?2), ?2, ?5), ?3 WHERE true
         ON CONFLICT (hour, type) DO UPDATE SET events = events + excluded.events",
    )?;
    for TypeCount { slot, kind, events } in &counts.hours {
        add.execute(params![slot, kind, events, TYPES, OTHERS])?;
    }
    let mut add = connection.prepare_cached(
        "INSERT INTO activity (subscription, events, last, last_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (subscription) DO UPDATE SET events = events + excluded.events, last = excluded.last,
                                                  last_at = excluded.last_at",
    )?;
    for (key, Events { events, last, last_at }) in &counts.subscriptions {
        add.execute(params![key.stored(), events, last.0, last_at])?;
    }
    connection
        .prepare_cached(
            "INSERT INTO counted (id, seq) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET seq = ?1",
        )?
        .execute(params![counts.last.0])?;
    Ok(())
}

/// Removes counts beyond the bounds, by their number and not by their age: a wrong clock does no harm then.
pub(super) fn prune(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM counts
             WHERE hour <= (SELECT DISTINCT hour FROM counts ORDER BY hour DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute(params![HOURS])?;
    let many: u64 = connection.query_row("SELECT count(*) FROM activity", [], |row| row.get(0))?;
    if many > SUBSCRIPTIONS {
        connection
            .prepare_cached(
                "DELETE FROM activity
                 WHERE last <= (SELECT last FROM activity ORDER BY last DESC LIMIT 1 OFFSET ?1)",
            )?
            .execute(params![SUBSCRIPTIONS])?;
    }
    Ok(())
}

/// Returns the last event that the database has counted.
fn counted(connection: &Connection) -> rusqlite::Result<Seq> {
    let found = connection
        .prepare_cached("SELECT seq FROM counted")?
        .query_row([], |row| Ok(Seq(row.get(0)?)))
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Counts the events that the database has not counted: those before a crash, or all of an older release.
pub(super) fn recount(connection: &mut Connection, now: Instant) -> rusqlite::Result<Pending> {
    let mut pending = Pending::new(counted(connection)?);
    loop {
        fill(connection, &mut pending, now)?;
        if !pending.is_full() {
            return Ok(pending);
        }
        let counts = pending.counts();
        let written = connection.transaction().and_then(|transaction| {
            write(&transaction, &counts)?;
            transaction.commit()
        });
        if let Err(error) = written {
            // A full disk must not keep the daemon from starting.
            warn!(%error, "not all events of earlier runs could be counted for the page");
            return Ok(pending);
        }
        pending.written(counts.last);
    }
}

/// Counts events until there are enough for one transaction.
fn fill(connection: &Connection, pending: &mut Pending, now: Instant) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare("SELECT seq, type, subscription_id, stored_at FROM events WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query(params![pending.counted().0])?;
    while let Some(row) = rows.next()?
        && !pending.is_full()
    {
        let (kind, subscription) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        pending.add(Seq(row.get(0)?), kind, subscription, row.get(3)?, now);
    }
    Ok(())
}

/// Reads from the database, and adds what is not in it yet.
///
/// The writer adds to `pending` and to the database one after the other, so what was read is compared by the last
/// event that it has counted.
fn whole<T>(
    connection: &Connection,
    pending: &Mutex<Pending>,
    read: impl Fn(&Connection) -> rusqlite::Result<T>,
    add: impl Fn(&mut T, &Pending),
) -> rusqlite::Result<T> {
    loop {
        let snapshot = connection.unchecked_transaction()?;
        let counted = counted(&snapshot)?;
        let mut found = read(&snapshot)?;
        drop(snapshot);
        let pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.cmp(&pending.counted()) {
            Ordering::Equal => add(&mut found, &pending),
            // The commit that wrote the counts is not noted yet: everything is in the database.
            Ordering::Greater => {}
            // The counts were written meanwhile.
            Ordering::Less => continue,
        }
        return Ok(found);
    }
}

/// Returns the counts from an hour on, sorted; an hour and a type may come twice.
pub(super) fn hours(
    connection: &Connection,
    pending: &Mutex<Pending>,
    from: u64,
) -> rusqlite::Result<Vec<TypeCount>> {
    let from = from.min(i64::MAX as u64);
    let read = |connection: &Connection| {
        connection
            .prepare_cached("SELECT hour, type, events FROM counts WHERE hour >= ?1 ORDER BY hour")?
            .query_map(params![from], |row| {
                Ok(TypeCount { slot: row.get(0)?, kind: row.get(1)?, events: row.get(2)? })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    whole(connection, pending, read, |found, pending| {
        found.extend(pending.hours_from(from));
        found.sort_unstable();
    })
}

/// Returns the activity of subscriptions, in the order of their ids.
pub(super) fn activity(
    connection: &Connection,
    pending: &Mutex<Pending>,
    ids: &[Box<str>],
) -> rusqlite::Result<Vec<Option<Activity>>> {
    let keys: Vec<Key> = ids.iter().map(|id| Key::of(id)).collect();
    let read = |connection: &Connection| {
        let mut find = connection
            .prepare_cached("SELECT events, last, last_at FROM activity WHERE subscription = ?1")?;
        let mut events = |key: &Key| {
            find.query_row(params![key.stored()], |row| {
                Ok(Events { events: row.get(0)?, last: Seq(row.get(1)?), last_at: row.get(2)? })
            })
            .optional()
        };
        keys.iter().map(&mut events).collect::<rusqlite::Result<Vec<_>>>()
    };
    let found = whole(connection, pending, read, |found, pending| {
        for (events, key) in found.iter_mut().zip(&keys) {
            if let Some(new) = pending.events_of(*key) {
                let old = events.map_or(0, |old| old.events);
                *events = Some(Events { events: old + new.events, ..new });
            }
        }
    })?;
    let activity = |Events { events, last, last_at }| Activity {
        events,
        last,
        last_at: Timestamp::from_unix_millis(last_at),
    };
    Ok(found.into_iter().map(|events| events.map(activity)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn of_hour(hour: u64, kinds: std::ops::Range<u64>) -> Counts {
        let row = |nth| TypeCount { slot: hour, kind: format!("type.{nth:02}").into(), events: 1 };
        let of = |nth: u64| (Key::of(&nth.to_string()), Events { events: 1, last: Seq(hour), last_at: hour });
        Counts {
            hours: kinds.clone().map(row).collect(),
            subscriptions: kinds.map(of).collect(),
            last: Seq(hour),
        }
    }

    #[test]
    fn rows_are_bounded_by_hour_and_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let database = schema::open(&folder.path().join("events.db")).unwrap();
        for hour in 1..=HOURS + 10 {
            write(&database, &of_hour(hour, 0..2)).unwrap();
        }
        write(&database, &of_hour(HOURS + 10, 1..60)).unwrap();
        prune(&database).unwrap();
        let pending = Mutex::new(Pending::new(Seq(HOURS + 10)));
        let rows = hours(&database, &pending, 0).unwrap();
        assert_eq!(rows.first().map(|row| row.slot), Some(11), "the oldest hours are removed");
        let newest: Vec<_> = rows.iter().filter(|row| row.slot == HOURS + 10).collect();
        assert_eq!(newest.len(), TYPES + 1);
        assert_eq!(newest.iter().map(|row| row.events).sum::<u64>(), 2 + 59);
        assert_eq!((&*newest[0].kind, newest[0].events), (OTHERS, 60 - TYPES as u64));
    }

    #[test]
    fn reads_neither_miss_nor_double_counts_that_are_just_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let database = schema::open(&folder.path().join("events.db")).unwrap();
        let pending = Mutex::new(Pending::new(Seq(0)));
        pending.lock().unwrap().add(Seq(1), "stream.online", "a", 0, Instant::now());
        let total = || hours(&database, &pending, 0).unwrap().iter().map(|row| row.events).sum::<u64>();
        let of_a = || activity(&database, &pending, &["a".into()]).unwrap()[0].unwrap().events;
        assert_eq!((total(), of_a()), (1, 1));
        let counts = pending.lock().unwrap().counts();
        write(&database, &counts).unwrap();
        assert_eq!((total(), of_a()), (1, 1), "written, and not noted yet");
        pending.lock().unwrap().written(counts.last);
        assert_eq!((total(), of_a()), (1, 1));
        pending.lock().unwrap().add(Seq(2), "stream.online", "a", 0, Instant::now());
        assert_eq!((total(), of_a()), (2, 2));
    }
}
