//! Rows of events: writing them, reading them back.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::event::{Event, MessageId, Seq, StoredEvent};
use crate::model::time::Timestamp;

/// Inserts an event under `seq`.
pub(super) fn insert(connection: &Connection, seq: u64, event: &Event, now: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO events (seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    statement.execute(params![
        seq,
        event.message_id.as_str(),
        event.message_timestamp,
        event.subscription_type,
        event.subscription_version,
        event.subscription_id,
        now,
        &event.payload[..],
    ])?;
    Ok(())
}

/// Hands over the message ids of what was stored within `window` milliseconds before `now`. Counts from the newest
/// event when that is older: the clock may have been set since.
pub(super) fn message_ids(
    connection: &Connection,
    now: u64,
    window: u64,
    mut take: impl FnMut(&str),
) -> rusqlite::Result<()> {
    let newest = connection
        .query_row("SELECT stored_at FROM events ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let end = newest.map_or(now, |newest: u64| newest.min(now));
    let after = before(connection, Timestamp::from_unix_millis(end.saturating_sub(window)))?;
    let mut statement = connection.prepare("SELECT message_id FROM events WHERE seq > ?1")?;
    let mut rows = statement.query(params![after.0])?;
    while let Some(row) = rows.next()? {
        take(row.get_ref(0)?.as_str()?);
    }
    Ok(())
}

/// The events after `after`, oldest first: at most `limit`, and no more than about `max_bytes` of
/// payload, but one at least.
pub(super) fn read_after(
    connection: &Connection,
    after: Seq,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload
         FROM events WHERE seq > ?1 AND payload IS NOT NULL ORDER BY seq",
    )?;
    let mut rows = statement.query(params![after.0])?;
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

/// The event in the first eight columns.
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

/// The last event stored before `time`. Times grow with the sequence but for clock corrections, so
/// this halves the range instead of reading all rows.
pub(super) fn before(connection: &Connection, time: Timestamp) -> rusqlite::Result<Seq> {
    let mut at_or_after = connection
        .prepare_cached("SELECT seq, stored_at FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    let (mut low, mut high) = (0, newest(connection)?.0);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let (seq, stored_at): (u64, u64) =
            at_or_after.query_row(params![middle], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if stored_at < time.unix_millis() {
            low = seq;
        } else {
            high = middle - 1;
        }
    }
    Ok(Seq(low))
}

/// The number of the newest event, 0 when there has never been one.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Seq> {
    connection.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| Ok(Seq(row.get(0)?)))
}
