//! Rows of sinks: the place, the losses, and since when a sink is not configured any more.

use rusqlite::{Connection, OptionalExtension, params};
use tracing::{info, warn};

use super::{SinkRecord, retention};
use crate::model::event::Seq;
use crate::model::route::SinkName;

/// Time for which the place of a removed sink is kept, in milliseconds by the store's clock.
const KEEP_GONE: u64 = 7 * 86_400_000;

/// The record of a sink, if it has one.
pub(super) fn get(connection: &Connection, name: &SinkName) -> rusqlite::Result<Option<SinkRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, dead_letters, lost, done, replays, replay_until FROM sinks WHERE name = ?1",
    )?;
    statement
        .query_row(params![name.as_str()], |row| {
            let done: Vec<Seq> = serde_json::from_str(row.get_ref(3)?.as_str()?).unwrap_or_default();
            Ok(SinkRecord {
                cursor: Seq(row.get(0)?),
                done,
                dead_letters: row.get(1)?,
                lost: row.get(2)?,
                replays: row.get(4)?,
                replay_until: Seq(row.get(5)?),
            })
        })
        .optional()
}

/// Returns the record of a sink. A new sink starts behind `start`.
pub(super) fn register(connection: &Connection, name: &SinkName, start: Seq) -> rusqlite::Result<SinkRecord> {
    if let Some(record) = get(connection, name)? {
        return Ok(record);
    }
    // Dead letters stay when the place of a removed sink is deleted.
    connection
        .prepare_cached(
            "INSERT INTO sinks (name, seq, dead_letters)
             VALUES (?1, ?2, (SELECT count(*) FROM dead_letters WHERE sink = ?1))",
        )?
        .execute(params![name.as_str(), start.0])?;
    Ok(get(connection, name)?.unwrap_or_default())
}

/// Returns the record of a sink whose worker starts now. Events that were removed while an earlier worker was delivering
/// them, and that it did not deliver, are lost.
pub(super) fn start(connection: &Connection, name: &SinkName, start: Seq) -> rusqlite::Result<SinkRecord> {
    register(connection, name, start)?;
    let lost = retention::lose_held(connection, name.as_str())?;
    if lost > 0 {
        warn!(
            sink = %name, events = lost,
            "events that were removed while they were being delivered are lost: their worker ended before"
        );
    }
    Ok(get(connection, name)?.unwrap_or_default())
}

/// Moves a cursor forward, never back; `done` are the events after it that are done as well.
pub(super) fn advance(
    connection: &Connection,
    name: &SinkName,
    to: Seq,
    done: &[Seq],
) -> rusqlite::Result<()> {
    let text =
        if done.is_empty() { "[]".to_owned() } else { serde_json::to_string(done).unwrap_or_default() };
    connection
        .prepare_cached(
            "INSERT INTO sinks (name, seq, done) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET seq = max(seq, ?2), done = ?3",
        )?
        .execute(params![name.as_str(), to.0, text])?;
    retention::release_held(connection, name.as_str(), to, done)
}

/// Moves a cursor back to `to`, so that the sink gets the events after it again.
pub(super) fn rewind(connection: &Connection, name: &SinkName, to: Seq) -> rusqlite::Result<SinkRecord> {
    connection
        .prepare_cached(
            "UPDATE sinks SET replays = replays + 1,
                 replay_until = max(replay_until, seq, coalesce((SELECT max(value) FROM json_each(done)), 0)),
                 seq = min(seq, ?2), done = '[]'
             WHERE name = ?1",
        )?
        .execute(params![name.as_str(), to.0])?;
    Ok(get(connection, name)?.unwrap_or_default())
}

/// Marks sinks that are not among `active` as removed, and deletes those that were removed a week ago. `now` is the time
/// by the store's clock.
pub(super) fn retire(connection: &Connection, active: &[SinkName], now: u64) -> rusqlite::Result<()> {
    let all: Vec<(String, Option<u64>)> = connection
        .prepare_cached("SELECT name, gone_at FROM sinks")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, gone_at) in all {
        let is_active = active.iter().any(|sink| sink.as_str() == name);
        match gone_at {
            Some(_) if is_active => {
                connection.execute("UPDATE sinks SET gone_at = NULL WHERE name = ?1", params![name])?;
            }
            None if !is_active => {
                connection.execute("UPDATE sinks SET gone_at = ?2 WHERE name = ?1", params![name, now])?;
            }
            Some(gone_at) if gone_at.saturating_add(KEEP_GONE) < now => {
                connection.execute("DELETE FROM sinks WHERE name = ?1", params![name])?;
                info!(sink = name, "the place of a sink was forgotten: it has been gone for a week");
            }
            _ => {}
        }
    }
    Ok(())
}
