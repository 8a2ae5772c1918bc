//! What the store knows of each sink: its cursor, its dead letters, what it lost.

use rusqlite::{Connection, OptionalExtension, params};

use super::SinkRecord;
use crate::model::event::{Seq, StoredEvent};
use crate::model::route::SinkName;

/// The record of a sink, if it has one.
pub(super) fn get(connection: &Connection, name: &SinkName) -> rusqlite::Result<Option<SinkRecord>> {
    let mut statement =
        connection.prepare_cached("SELECT seq, dead_letters, lost FROM sinks WHERE name = ?1")?;
    statement
        .query_row(params![name.as_str()], |row| {
            Ok(SinkRecord { cursor: Seq(row.get(0)?), dead_letters: row.get(1)?, lost: row.get(2)? })
        })
        .optional()
}

/// The record of a sink; a new one starts behind `present`.
pub(super) fn register(
    connection: &Connection,
    name: &SinkName,
    present: Seq,
) -> rusqlite::Result<SinkRecord> {
    if let Some(record) = get(connection, name)? {
        return Ok(record);
    }
    connection
        .prepare_cached("INSERT INTO sinks (name, seq) VALUES (?1, ?2)")?
        .execute(params![name.as_str(), present.0])?;
    Ok(SinkRecord { cursor: present, ..SinkRecord::default() })
}

/// Moves a cursor forward, never back.
pub(super) fn advance(connection: &Connection, name: &SinkName, to: Seq) -> rusqlite::Result<SinkRecord> {
    connection
        .prepare_cached(
            "INSERT INTO sinks (name, seq) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET seq = max(seq, ?2)",
        )?
        .execute(params![name.as_str(), to.0])?;
    Ok(get(connection, name)?.unwrap_or_default())
}

/// Copies an event to a sink's dead letters, once, and moves its cursor past it.
pub(super) fn dead_letter(
    connection: &Connection,
    name: &SinkName,
    event: &StoredEvent,
    error: &str,
    now: u64,
) -> rusqlite::Result<SinkRecord> {
    let added = connection
        .prepare_cached(
            "INSERT INTO dead_letters (sink, seq, message_id, message_timestamp, type, version, subscription_id, stored_at,
                                       payload, failed_at, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (sink, seq) DO NOTHING",
        )?
        .execute(params![
            name.as_str(),
            event.seq.0,
            event.event.message_id.as_str(),
            event.event.message_timestamp,
            event.event.subscription_type,
            event.event.subscription_version,
            event.event.subscription_id,
            event.stored_at.unix_millis(),
            &event.event.payload[..],
            now,
            error,
        ])?;
    advance(connection, name, event.seq)?;
    connection
        .prepare_cached("UPDATE sinks SET dead_letters = dead_letters + ?2 WHERE name = ?1")?
        .execute(params![name.as_str(), added])?;
    Ok(get(connection, name)?.unwrap_or_default())
}
