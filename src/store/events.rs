//! Rows of events.

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::age::{Reading, Saved, Tick, Witness};
use super::follower::Follower;
use crate::model::catalog;
use crate::model::event::{Event, MessageId, Seq, StoredEvent};
use crate::model::time::Timestamp;

/// Returns the statement for [`insert`], which a transaction looks up once for all of its events.
pub(super) fn insertion(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO events (seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload,
                             elapsed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
}

/// Inserts an event under `seq`, stored `now` by the wall clock and at `elapsed` by the store's.
pub(super) fn insert(
    insertion: &mut CachedStatement<'_>,
    seq: u64,
    event: &Event,
    now: u64,
    elapsed: u64,
) -> rusqlite::Result<()> {
    insertion.execute(params![
        seq,
        event.message_id.as_str(),
        event.message_timestamp,
        event.subscription_type,
        event.subscription_version,
        event.subscription_id,
        now,
        &event.payload[..],
        elapsed,
    ])?;
    Ok(())
}

/// Calls `take` with the message id of each event stored within `window` milliseconds before `elapsed`, which is the time by the
/// store's clock. Rows of older releases have only the wall clock: of those it counts from the newest. Returns the last
/// event before them.
pub(super) fn message_ids(
    connection: &Connection,
    elapsed: u64,
    window: u64,
    mut take: impl FnMut(&str),
) -> rusqlite::Result<u64> {
    let (newest, start) = (newest(connection)?.0, elapsed.saturating_sub(window));
    let mut after = last_before(connection, newest, start, "elapsed")?;
    let old = last_before(connection, newest, 1, "elapsed")?;
    if old > 0 && start <= 1 {
        let end: u64 =
            connection
                .query_row("SELECT stored_at FROM events WHERE seq = ?1", params![old], |row| row.get(0))?;
        after = last_before(connection, old, end.saturating_sub(window), "stored_at")?;
    }
    let mut statement = connection.prepare("SELECT message_id FROM events WHERE seq > ?1")?;
    let mut rows = statement.query(params![after])?;
    while let Some(row) = rows.next()? {
        take(row.get_ref(0)?.as_str()?);
    }
    Ok(after)
}

/// Hands over the events after `after`, but no more than about the `most` newest.
pub(super) fn payloads(
    connection: &Connection,
    after: u64,
    most: u64,
    mut take: impl FnMut(&Event),
) -> rusqlite::Result<()> {
    let after = after.max(newest(connection)?.0.saturating_sub(most));
    let mut statement = connection.prepare(
        "SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload
         FROM events WHERE seq > ?1 AND payload IS NOT NULL ORDER BY seq",
    )?;
    let mut rows = statement.query(params![after])?;
    while let Some(row) = rows.next()? {
        let kind = row.get_ref(3)?.as_str()?;
        if catalog::identity(kind, row.get_ref(4)?.as_str()?).is_some() {
            take(&stored(row)?.event);
        }
    }
    Ok(())
}

/// Returns the newest message of Twitch, with all its times.
pub(super) fn witness(connection: &Connection) -> rusqlite::Result<Option<Witness>> {
    let found: Option<(u64, u64, String)> = connection
        .query_row(
            "SELECT elapsed, stored_at, message_timestamp FROM events
             WHERE type NOT LIKE 'eventsubd.%' AND message_id NOT LIKE 'catch-up-%'
             ORDER BY seq DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    Ok(found.and_then(|(elapsed, wall, sent)| {
        let sent = Timestamp::parse(&sent)?.unix_millis();
        (elapsed > 0).then_some(Witness { elapsed, wall, sent })
    }))
}

/// Reads the stored state of the store's clock.
pub(super) fn saved_clock(connection: &Connection) -> rusqlite::Result<Option<Saved>> {
    connection
        .query_row("SELECT boot, since_boot, wall, elapsed FROM clock", [], |row| {
            let boot: String = row.get(0)?;
            let tick = Tick { boot: boot.into(), since_boot: row.get(1)? };
            Ok(Saved { reading: Reading { tick, wall: row.get(2)? }, elapsed: row.get(3)? })
        })
        .optional()
}

/// Moves events stored after `last`, and sinks and channels of since `opened`, forward with the store's clock.
pub(super) fn advance_clock(
    connection: &mut Connection,
    last: Seq,
    opened: u64,
    missed: u64,
    saved: &Saved,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction
        .execute("UPDATE events SET elapsed = elapsed + ?2 WHERE seq > ?1", params![last.0, missed])?;
    transaction
        .execute("UPDATE sinks SET gone_at = gone_at + ?2 WHERE gone_at >= ?1", params![opened, missed])?;
    for column in ["stream_at", "digest_at"] {
        let sql = format!("UPDATE last_known SET {column} = {column} + ?2 WHERE {column} >= ?1");
        transaction.execute(&sql, params![opened, missed])?;
    }
    save_clock(&transaction, saved)?;
    transaction.commit()
}

/// Stores the state of the store's clock.
pub(super) fn save_clock(connection: &Connection, saved: &Saved) -> rusqlite::Result<()> {
    let Saved { reading: Reading { tick, wall }, elapsed } = saved;
    connection
        .prepare_cached(
            "INSERT INTO clock (id, boot, since_boot, wall, elapsed) VALUES (1, ?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET boot = ?1, since_boot = ?2, wall = ?3, elapsed = ?4",
        )?
        .execute(params![&*tick.boot, tick.since_boot, wall, elapsed])
        .map(|_| ())
}

/// Returns the events after `after`, oldest first: at most `limit`, and no more than about `max_bytes` of
/// payload, but at least one.
pub(super) fn read_after(
    connection: &Connection,
    after: Seq,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let statement = connection.prepare_cached(
        "SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload
         FROM events WHERE seq > ?1 AND payload IS NOT NULL ORDER BY seq",
    )?;
    bounded(statement, after, limit, max_bytes)
}

/// The events of two types after `after`, oldest first, at most `limit`.
pub(super) fn of_types_after(
    connection: &Connection,
    [one, other]: [&str; 2],
    after: Seq,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    connection
        .prepare_cached(
            "SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload
             FROM events WHERE seq > ?1 AND type IN (?2, ?3) AND payload IS NOT NULL ORDER BY seq LIMIT ?4",
        )?
        .query_map(params![after.0, one, other, limit], stored)?
        .collect()
}

/// The events before `before`, newest first, within the same bounds.
pub(super) fn read_before(
    connection: &Connection,
    before: Seq,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let statement = connection.prepare_cached(
        "SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload
         FROM events WHERE seq < ?1 AND payload IS NOT NULL ORDER BY seq DESC",
    )?;
    bounded(statement, Seq(before.0.min(i64::MAX as u64)), limit, max_bytes)
}

fn bounded(
    mut statement: CachedStatement<'_>,
    from: Seq,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut rows = statement.query(params![from.0])?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while events.len() < limit && bytes < max_bytes {
        let Some(row) = rows.next()? else { break };
        let event = stored(row)?;
        bytes += event.event.payload.len();
        events.push(event);
    }
    Ok(events)
}

/// Converts the first eight columns to an event.
pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let text = |index| row.get_ref(index).and_then(|value| Ok(value.as_str().map(Box::<str>::from)?));
    let message_id = text(1)?;
    let message_id = MessageId::new(&message_id).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e))
    })?;
    Ok(StoredEvent {
        seq: Seq(row.get(0)?),
        stored_at: Timestamp::from_unix_millis(row.get(6)?),
        event: Event {
            message_id,
            message_timestamp: text(2)?,
            subscription_type: text(3)?,
            subscription_version: text(4)?,
            subscription_id: text(5)?,
            payload: Bytes::copy_from_slice(row.get_ref(7)?.as_blob()?),
        },
    })
}

/// Returns the last event stored before `time`, by binary search: times grow with the sequence, apart from clock
/// corrections.
pub(super) fn before(connection: &Connection, time: Timestamp) -> rusqlite::Result<Seq> {
    let newest = newest(connection)?.0;
    last_before(connection, newest, time.unix_millis(), "stored_at").map(Seq)
}

/// Returns the last row up to `last` whose `column`, which grows with the sequence, is below a limit.
fn last_before(
    connection: &Connection,
    last: u64,
    limit: u64,
    column: &'static str,
) -> rusqlite::Result<u64> {
    let mut at_or_after = connection
        .prepare_cached(&format!("SELECT seq, {column} FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1"))?;
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let (seq, value): (u64, u64) =
            at_or_after.query_row(params![middle], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if value < limit {
            low = seq;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// Returns which of the next `limit` events after `after` a worker wants, and the last event that was examined.
pub(super) fn wanted_after(
    connection: &Connection,
    follower: &Follower,
    after: Seq,
    limit: usize,
) -> rusqlite::Result<(Vec<Seq>, Seq)> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, type, version, payload FROM events WHERE seq > ?1 AND payload IS NOT NULL ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after.0, limit])?;
    let (mut wanted, mut looked) = (Vec::new(), after);
    while let Some(row) = rows.next()? {
        looked = Seq(row.get(0)?);
        if follower.wants(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_blob()?) {
            wanted.push(looked);
        }
    }
    Ok((wanted, looked))
}

/// Returns the number of the newest event, 0 if there has never been one.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Seq> {
    connection.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| Ok(Seq(row.get(0)?)))
}
