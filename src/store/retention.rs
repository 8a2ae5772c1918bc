//! Removing what is too old, or too much, in small slices between commits.
//!
//! Message ids are kept for [`WINDOW`] at least: a payload that has to go earlier leaves its row behind,
//! which readers do not see, so that a resend is still known as a duplicate after a restart. The newest
//! row always stays: its number is where the sequence goes on.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use tracing::{info, warn};

use super::ids::WINDOW;
use super::{LOSS, Loss, settings};
use crate::model::route::SinkName;
use crate::model::time::Timestamp;

/// Which events to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Events younger than this stay, in milliseconds.
    pub(super) age: u64,
    /// Size of the database, in bytes, free pages not counted.
    pub(super) size: u64,
}

/// What one slice did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Events that readers see no more.
    pub(super) events: u64,
    /// Whether there is more to do.
    pub(super) more: bool,
}

/// Bytes in use, free pages not counted.
pub(super) fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

/// Removes up to `rows` rows, in one transaction.
pub(super) fn slice(
    connection: &mut Connection,
    keep: Retention,
    now: u64,
    rows: u64,
) -> rusqlite::Result<Removed> {
    let transaction = connection.transaction()?;
    let newest: u64 =
        transaction.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?;
    let oldest = oldest_rows(&transaction, rows, false)?;
    let stale = |stored_at: u64| stored_at.saturating_add(keep.age) < now;
    let forgotten = |stored_at: u64| stored_at.saturating_add(WINDOW.as_millis() as u64) < now;

    // By age: whole rows go, whether their payload is still there or not.
    let mut up_to = 0;
    for row in &oldest {
        let gone = if row.visible { stale(row.stored_at) } else { forgotten(row.stored_at) };
        if !gone || row.seq == newest {
            break;
        }
        up_to = row.seq;
    }
    let mut removed = Removed::default();
    if up_to > 0 {
        count_losses(&transaction, up_to, "older than store.retain")?;
        let taken: Vec<_> = oldest.iter().filter(|row| row.seq <= up_to).collect();
        removed.events = taken.iter().filter(|row| row.visible).count() as u64;
        removed.more = taken.len() as u64 == rows;
        transaction.execute("DELETE FROM events WHERE seq <= ?1", params![up_to])?;
    } else if used(&transaction)? > keep.size {
        // By size: the oldest payloads go, and their rows with them once the window is over. Dead letters
        // are as old as their failure.
        let oldest_event = oldest.iter().find(|row| row.visible).map_or(u64::MAX, |row| row.stored_at);
        if drop_letters(&transaction, oldest_event, rows)? {
            transaction.commit()?;
            return Ok(Removed { events: 0, more: true });
        }
        let visible = oldest_rows(&transaction, rows, true)?;
        if let Some(last) = visible.iter().rfind(|row| row.seq != newest) {
            count_losses(&transaction, last.seq, "more than store.max_size")?;
            let whole =
                visible.iter().take_while(|row| forgotten(row.stored_at) && row.seq <= last.seq).last();
            if let Some(whole) = whole {
                transaction.execute("DELETE FROM events WHERE seq <= ?1", params![whole.seq])?;
            }
            strip(&transaction, last.seq)?;
            removed.events = visible.iter().filter(|row| row.seq <= last.seq).count() as u64;
            removed.more = true;
        } else if let Some(last) = oldest.iter().rfind(|row| row.seq != newest) {
            // Even the bare ids are too much: the limit that a person set wins over the window.
            transaction.execute("DELETE FROM events WHERE seq <= ?1", params![last.seq])?;
            removed.more = true;
        }
    }
    transaction.commit()?;
    Ok(removed)
}

/// Takes the payloads away up to a row. Rows that are made shorter in place leave their pages half
/// empty, which frees nothing: they go, and come back short.
fn strip(connection: &Connection, up_to: u64) -> rusqlite::Result<()> {
    const OF: &str = "FROM events WHERE seq <= ?1 AND payload IS NOT NULL";
    connection.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS stripped AS
         SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at
         FROM main.events LIMIT 0",
    )?;
    connection.execute(
        &format!(
            "INSERT INTO stripped
             SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at {OF}"
        ),
        params![up_to],
    )?;
    connection.execute(&format!("DELETE {OF}"), params![up_to])?;
    connection.execute_batch(
        "INSERT INTO events (seq, message_id, message_timestamp, type, version, subscription_id, stored_at)
         SELECT seq, message_id, message_timestamp, type, version, subscription_id, stored_at FROM stripped;
         DELETE FROM stripped",
    )
}

struct OldRow {
    seq: u64,
    stored_at: u64,
    visible: bool,
}

fn oldest_rows(connection: &Connection, rows: u64, only_visible: bool) -> rusqlite::Result<Vec<OldRow>> {
    let sql = if only_visible {
        "SELECT seq, stored_at, 1 FROM events WHERE payload IS NOT NULL ORDER BY seq LIMIT ?1"
    } else {
        "SELECT seq, stored_at, payload IS NOT NULL FROM events ORDER BY seq LIMIT ?1"
    };
    connection
        .prepare_cached(sql)?
        .query_map(params![rows], |row| {
            Ok(OldRow { seq: row.get(0)?, stored_at: row.get(1)?, visible: row.get(2)? })
        })?
        .collect()
}

/// Adds to each sink's losses what it has not passed yet and is about to go.
fn count_losses(connection: &Connection, up_to: u64, why: &'static str) -> rusqlite::Result<()> {
    let behind: Vec<(String, u64, String)> = connection
        .prepare_cached("SELECT name, seq, done FROM sinks WHERE seq < ?1 AND gone_at IS NULL")?
        .query_map(params![up_to], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (name, cursor, done) in behind {
        let (gone, from, to): (u64, u64, u64) = connection.query_row(
            "SELECT count(*), coalesce(min(stored_at), 0), coalesce(max(stored_at), 0) FROM events
             WHERE seq > ?1 AND seq <= ?2 AND payload IS NOT NULL",
            params![cursor, up_to],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let done: Vec<u64> = serde_json::from_str(&done).unwrap_or_default();
        let lost = gone.saturating_sub(done.iter().filter(|seq| **seq <= up_to).count() as u64);
        if lost == 0 {
            continue;
        }
        connection.execute(
            "UPDATE sinks SET lost = lost + ?2, seq = max(seq, ?3) WHERE name = ?1",
            params![name, lost, up_to],
        )?;
        remember_loss(connection, &name, up_to, lost, from, to)?;
        warn!(sink = name, events = lost, why, "events were removed before the sink had them");
    }
    Ok(())
}

/// Notes a loss until it has been told: [`super::Store::losses`].
fn remember_loss(
    connection: &Connection,
    sink: &str,
    up_to: u64,
    events: u64,
    from: u64,
    to: u64,
) -> rusqlite::Result<()> {
    let at = Timestamp::from_unix_millis;
    let loss = Loss { sink: SinkName::new(sink), events, from: at(from), to: at(to) };
    let text = serde_json::to_string(&loss).unwrap_or_default();
    settings::save(connection, &[(format!("{LOSS}{sink}.{up_to}"), Some(text))])
}

/// Removes the dead letters that are older than the oldest event, and counts them as lost to their sinks.
fn drop_letters(connection: &Connection, before: u64, rows: u64) -> rusqlite::Result<bool> {
    let taken: Vec<(i64, String)> = connection
        .prepare_cached("SELECT id, sink FROM dead_letters WHERE failed_at < ?1 ORDER BY id LIMIT ?2")?
        .query_map(params![before, rows], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut sinks: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, sink) in &taken {
        connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute(params![id])?;
        *sinks.entry(sink).or_default() += 1;
    }
    for (sink, many) in sinks {
        connection.execute(
            "UPDATE sinks SET lost = lost + ?2, dead_letters = max(0, dead_letters - ?2) WHERE name = ?1",
            params![sink, many],
        )?;
        warn!(sink, events = many, why = "more than store.max_size", "dead letters were removed");
    }
    Ok(!taken.is_empty())
}

/// Logs what was removed, once in a while.
pub(super) fn report(events: u64, now: u64) {
    info!(events, until = %Timestamp::from_unix_millis(now), "retention removed events");
}
