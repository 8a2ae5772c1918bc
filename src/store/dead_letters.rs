//! Rows of dead letters: events that a sink gave up on.

use rusqlite::{Connection, Row, named_params, params};

use super::events;
use super::{DeadLetter, DeadLetterFilter, FailureRecord, GivenUp};
use crate::model::event::StoredEvent;
use crate::model::route::SinkName;
use crate::model::time::Timestamp;

const COLUMNS: &str = "seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload, id, sink, \
                       failed_at, error, said, first_failed_at, first_error, first_said, replay, replays";

/// Sets the last failure of an existing dead letter. If it has no first failure, the former last one becomes it.
const FAIL_AGAIN: &str = "replay = 0, first_failed_at = coalesce(first_failed_at, failed_at),
                          first_said = CASE WHEN first_error IS NULL THEN said ELSE first_said END,
                          first_error = coalesce(first_error, error), failed_at = :now, error = :error, said = :said";

/// Copies an event to a sink's dead letters. One that exists already gets the new failure.
pub(super) fn add(
    connection: &Connection,
    name: &SinkName,
    event: &StoredEvent,
    given_up: &GivenUp,
    now: u64,
) -> rusqlite::Result<()> {
    let known: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM dead_letters WHERE sink = ?1 AND seq = ?2)")?
        .query_row(params![name.as_str(), event.seq.0], |row| row.get(0))?;
    connection
        .prepare_cached(&format!(
            "INSERT INTO dead_letters (sink, seq, message_id, message_timestamp, type, version, subscription_id, stored_at,
                                       payload, failed_at, error, said, first_failed_at, first_error, first_said)
             VALUES (:sink, :seq, :message_id, :message_timestamp, :type, :version, :subscription_id, :stored_at,
                     :payload, :now, :error, :said, :first_failed_at, :first_error, :first_said)
             ON CONFLICT (sink, seq) DO UPDATE SET {FAIL_AGAIN}"
        ))?
        .execute(named_params! {
            ":sink": name.as_str(),
            ":seq": event.seq.0,
            ":message_id": event.event.message_id.as_str(),
            ":message_timestamp": event.event.message_timestamp,
            ":type": event.event.subscription_type,
            ":version": event.event.subscription_version,
            ":subscription_id": event.event.subscription_id,
            ":stored_at": event.stored_at.unix_millis(),
            ":payload": &event.event.payload[..],
            ":now": now,
            ":error": given_up.error,
            ":said": given_up.said,
            ":first_failed_at": given_up.first.as_ref().map(|first| first.at.unix_millis()),
            ":first_error": given_up.first.as_ref().map(|first| &first.error),
            ":first_said": given_up.first.as_ref().and_then(|first| first.said.as_ref()),
        })?;
    if !known {
        count(connection, name.as_str(), 1)?;
    }
    Ok(())
}

/// Deletes a dead letter that was delivered after all.
pub(super) fn delivered(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let sink: Option<String> = connection
        .prepare_cached("DELETE FROM dead_letters WHERE id = ?1 RETURNING sink")?
        .query_map(params![id], |row| row.get(0))?
        .next()
        .transpose()?;
    sink.map_or(Ok(()), |sink| count(connection, &sink, -1))
}

/// Records the failure of a dead letter that was sent again.
pub(super) fn failed_again(
    connection: &Connection,
    id: i64,
    given_up: &GivenUp,
    now: u64,
) -> rusqlite::Result<()> {
    connection.prepare_cached(&format!("UPDATE dead_letters SET {FAIL_AGAIN} WHERE id = :id"))?.execute(
        named_params! {
            ":id": id, ":now": now, ":error": given_up.error, ":said": given_up.said
        },
    )?;
    Ok(())
}

/// Marks dead letters to be sent again. Returns their number.
pub(super) fn mark(connection: &Connection, filter: &DeadLetterFilter) -> rusqlite::Result<u64> {
    let changed = connection.execute(
        "UPDATE dead_letters SET replay = 1, replays = replays + 1
         WHERE replay = 0 AND (?1 IS NULL OR sink = ?1) AND (?2 IS NULL OR id = ?2)",
        params![filter.sink.as_ref().map(SinkName::as_str), filter.id],
    )?;
    Ok(changed as u64)
}

/// Removes dead letters for good. Returns their number.
pub(super) fn drop(connection: &Connection, filter: &DeadLetterFilter) -> rusqlite::Result<u64> {
    let per_sink: Vec<(String, i64)> = connection
        .prepare_cached(
            "SELECT sink, count(*) FROM dead_letters
             WHERE (?1 IS NULL OR sink = ?1) AND (?2 IS NULL OR id = ?2) GROUP BY sink",
        )?
        .query_map(params![filter.sink.as_ref().map(SinkName::as_str), filter.id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (sink, many) in &per_sink {
        count(connection, sink, -many)?;
    }
    let dropped = connection.execute(
        "DELETE FROM dead_letters WHERE (?1 IS NULL OR sink = ?1) AND (?2 IS NULL OR id = ?2)",
        params![filter.sink.as_ref().map(SinkName::as_str), filter.id],
    )?;
    Ok(dropped as u64)
}

/// Returns dead letters after an id, oldest first: at most `limit`.
pub(super) fn list(
    connection: &Connection,
    sink: Option<&SinkName>,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM dead_letters WHERE id > ?1 AND (?2 IS NULL OR sink = ?2) ORDER BY id LIMIT ?3"
        ))?
        .query_map(params![after, sink.map(SinkName::as_str), limit], dead_letter)?
        .collect()
}

/// A sink's dead letters before an id, newest first: at most `limit`.
pub(super) fn newest(
    connection: &Connection,
    sink: &SinkName,
    before: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM dead_letters WHERE id < ?1 AND sink = ?2 ORDER BY id DESC LIMIT ?3"
        ))?
        .query_map(params![before, sink.as_str(), limit], dead_letter)?
        .collect()
}

/// Returns a sink's dead letters that wait to be sent again, after an id, oldest first.
pub(super) fn to_replay(
    connection: &Connection,
    sink: &SinkName,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM dead_letters WHERE replay = 1 AND sink = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
        ))?
        .query_map(params![sink.as_str(), after, limit], dead_letter)?
        .collect()
}

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        event: events::stored(row)?,
        id: row.get(8)?,
        sink: SinkName::new(row.get::<_, String>(9)?),
        first: match row.get::<_, Option<String>>(14)? {
            Some(error) => Some(FailureRecord {
                at: Timestamp::from_unix_millis(row.get::<_, Option<u64>>(13)?.unwrap_or_default()),
                error,
                said: row.get(15)?,
            }),
            None => None,
        },
        last: FailureRecord {
            at: Timestamp::from_unix_millis(row.get(10)?),
            error: row.get(11)?,
            said: row.get(12)?,
        },
        replay: row.get(16)?,
        replays: row.get(17)?,
    })
}

/// Changes the number of dead letters in the sink's row, which spares counting rows.
fn count(connection: &Connection, sink: &str, change: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE sinks SET dead_letters = max(0, dead_letters + ?2) WHERE name = ?1")?
        .execute(params![sink, change])?;
    Ok(())
}
