//! Rows of dead letters: events that a sink gave up on.

use rusqlite::{Connection, Row, named_params, params};

use super::events;
use super::{DeadLetter, DeadLetterFilter, FailureRecord, GivenUp, ReplayPart};
use crate::model::event::{Seq, StoredEvent};
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

/// The condition for the letters of a filter, whose values are `:of_sink`, `:of_id`, `:of_types` and `:until`.
const CHOSEN: &str = "(:of_sink IS NULL OR sink = :of_sink) AND (:of_id IS NULL OR id = :of_id)
                      AND (:of_types IS NULL OR type GLOB :of_types) AND (:until IS NULL OR failed_at < :until)";

/// Marks what is to be sent again; tells how many.
pub(super) fn mark(connection: &Connection, filter: &DeadLetterFilter) -> rusqlite::Result<u64> {
    let changed = connection.execute(
        &format!("UPDATE dead_letters SET replay = 1, replays = replays + 1 WHERE replay = 0 AND {CHOSEN}"),
        named_params! {
            ":of_sink": filter.sink.as_ref().map(SinkName::as_str), ":of_id": filter.id, ":of_types": filter.types,
            ":until": filter.until.map(Timestamp::unix_millis),
        },
    )?;
    Ok(changed as u64)
}

/// Removes dead letters for good; tells how many.
pub(super) fn drop(connection: &Connection, filter: &DeadLetterFilter) -> rusqlite::Result<u64> {
    let (sink, until) =
        (filter.sink.as_ref().map(SinkName::as_str), filter.until.map(Timestamp::unix_millis));
    let chosen = named_params! {
        ":of_sink": sink, ":of_id": filter.id, ":of_types": filter.types, ":until": until
    };
    let per_sink: Vec<(String, i64)> = connection
        .prepare_cached(&format!("SELECT sink, count(*) FROM dead_letters WHERE {CHOSEN} GROUP BY sink"))?
        .query_map(chosen, |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (sink, many) in &per_sink {
        count(connection, sink, -many)?;
    }
    let dropped = connection.execute(&format!("DELETE FROM dead_letters WHERE {CHOSEN}"), chosen)?;
    Ok(dropped as u64)
}

/// Copies stored events that a sink wants to its dead letters, as to be sent again: those of the `limit` events after
/// `after` and up to `until` whose type matches the glob. Returns how many, and up to where events were looked at;
/// `None` at the end.
pub(super) fn copy_for_replay(
    connection: &Connection,
    sink: &SinkName,
    part: &ReplayPart,
    wants: &dyn Fn(&str, &str, &[u8]) -> bool,
    now: u64,
) -> rusqlite::Result<(u64, Option<Seq>)> {
    const LIMIT: usize = 1_000;
    let mut statement = connection.prepare_cached(
        "SELECT seq, type, version, payload FROM events WHERE seq > ?1 AND seq <= ?2 AND payload IS NOT NULL
         AND (?3 IS NULL OR type GLOB ?3) ORDER BY seq LIMIT ?4",
    )?;
    let mut rows = statement.query(params![part.after.0, part.last.0, part.types, LIMIT])?;
    let (mut wanted, mut seen, mut looked) = (Vec::new(), 0, part.after);
    while let Some(row) = rows.next()? {
        (seen, looked) = (seen + 1, Seq(row.get(0)?));
        if wants(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_blob()?) {
            wanted.push(looked);
        }
    }
    for seq in &wanted {
        let known: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dead_letters WHERE sink = ?1 AND seq = ?2)")?
            .query_row(params![sink.as_str(), seq.0], |row| row.get(0))?;
        connection
            .prepare_cached(
                "INSERT INTO dead_letters (sink, seq, message_id, message_timestamp, type, version, subscription_id,
                                           stored_at, payload, failed_at, error, replay, replays)
                 SELECT ?1, seq, message_id, message_timestamp, type, version, subscription_id, stored_at, payload, ?3,
                        'not sent again yet', 1, 1
                 FROM events WHERE seq = ?2
                 ON CONFLICT (sink, seq) DO UPDATE SET replay = 1, replays = replays + 1",
            )?
            .execute(params![sink.as_str(), seq.0, now])?;
        if !known {
            count(connection, sink.as_str(), 1)?;
        }
    }
    Ok((wanted.len() as u64, (seen == LIMIT).then_some(looked)))
}

/// The dead letters of a filter with ids after `after`, oldest first: at most `limit`.
pub(super) fn chosen(
    connection: &Connection,
    filter: &DeadLetterFilter,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM dead_letters WHERE id > :after AND {CHOSEN} ORDER BY id LIMIT :limit"
        ))?
        .query_map(
            named_params! {
                ":of_sink": filter.sink.as_ref().map(SinkName::as_str), ":of_id": filter.id,
                ":of_types": filter.types, ":until": filter.until.map(Timestamp::unix_millis),
                ":after": after, ":limit": limit,
            },
            dead_letter,
        )?
        .collect()
}

/// Dead letters after an id, oldest first: at most `limit`.
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
