//! Removal of events that are too old or too many, in small slices between commits.
//!
//! Ages are elapsed time by the store's own clock ([`super::age`]): a wall clock that is set removes nothing. Message ids
//! are kept for [`WINDOW`] at least: a payload that has to go earlier leaves its row behind, which readers do not see, so
//! that a resend is still known as a duplicate after a restart. The newest row always stays: its number is where the
//! sequence goes on.
//!
//! An event that goes counts as lost to each sink that wants it and has not had it. What the worker of a sink has read
//! already is noted as held instead: it is lost only if that worker ends before the sink has it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};

use super::follower::{self, Follower, Followers};
use super::ids::WINDOW;
use super::loss::{LOSS, Loss};
use super::recent::Recent;
use super::removals::Summary;
use super::settings;
use crate::model::event::Seq;
use crate::model::route::SinkName;
use crate::model::time::Timestamp;

/// The latest time that a row can hold.
const FAR: u64 = i64::MAX as u64;

/// Which events to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Events younger than this stay, in milliseconds.
    pub(super) age: u64,
    /// Size of the database, in bytes, free pages not counted.
    pub(super) size: u64,
}

/// The result of one slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Events that readers no longer see.
    pub(super) events: Summary,
    /// Whether there is more to do.
    pub(super) more: bool,
    /// Losses of sinks by the removal.
    pub(super) losses: Vec<SinkLoss>,
    /// Removed dead letters.
    pub(super) dead_letters: Vec<SinkLoss>,
}

/// A sink's loss by one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SinkLoss {
    pub(super) sink: String,
    pub(super) events: u64,
    /// Number of events that the sink has ever lost.
    pub(super) total: u64,
}

/// Bytes in use, free pages not counted.
pub(super) fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

/// Removes up to `rows` rows, in one transaction; for their age only if `by_age`. `now` is the time by the store's clock.
pub(super) fn slice(
    connection: &mut Connection,
    keep: Retention,
    now: u64,
    by_age: bool,
    rows: u64,
    followers: &Followers,
    recent: &Recent,
) -> rusqlite::Result<Removed> {
    let transaction = connection.transaction()?;
    let newest: u64 =
        transaction.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?;
    let oldest = oldest_rows(&transaction, rows, false)?;
    let stale = |elapsed: u64| elapsed.saturating_add(keep.age) < now;
    let forgotten = |elapsed: u64| elapsed.saturating_add(WINDOW.as_millis() as u64) < now;

    // By age: whole rows go, whether their payload is still there or not.
    let mut up_to = 0;
    for row in &oldest {
        let gone = if row.visible { by_age && stale(row.elapsed) } else { forgotten(row.elapsed) };
        if !gone || row.seq == newest {
            break;
        }
        up_to = row.seq;
    }
    let mut removed = Removed::default();
    // Workers do not read until the end, so that no worker has an event that is counted as lost.
    let mut positions = Positions::new();
    if up_to > 0 {
        positions = stop_reading(followers);
        removed.losses = count_losses(&transaction, up_to, &positions)?;
        recent.forget(Seq(up_to));
        let taken: Vec<_> = oldest.iter().filter(|row| row.seq <= up_to).collect();
        removed.events.by_age = taken.iter().filter(|row| row.visible).count() as u64;
        removed.events.until = newest_of(&taken);
        removed.more = taken.len() as u64 == rows;
        transaction.execute("DELETE FROM events WHERE seq <= ?1", params![up_to])?;
    } else if used(&transaction)? > keep.size {
        // By size: the oldest payloads go, and their rows with them once the window is over. Dead letters
        // are as old as their failure.
        let oldest_event = oldest.iter().find(|row| row.visible).map_or(FAR, |row| row.stored_at);
        removed.dead_letters = drop_dead_letters(&transaction, oldest_event, rows)?;
        if !removed.dead_letters.is_empty() {
            transaction.commit()?;
            removed.more = true;
            return Ok(removed);
        }
        let visible = oldest_rows(&transaction, rows, true)?;
        if let Some(last) = visible.iter().rfind(|row| row.seq != newest) {
            positions = stop_reading(followers);
            removed.losses = count_losses(&transaction, last.seq, &positions)?;
            recent.forget(Seq(last.seq));
            let whole = visible.iter().take_while(|row| forgotten(row.elapsed) && row.seq <= last.seq).last();
            if let Some(whole) = whole {
                transaction.execute("DELETE FROM events WHERE seq <= ?1", params![whole.seq])?;
            }
            strip(&transaction, last.seq)?;
            let taken: Vec<_> = visible.iter().filter(|row| row.seq <= last.seq).collect();
            removed.events.by_size = taken.len() as u64;
            removed.events.until = newest_of(&taken);
            removed.more = true;
        } else if let Some(last) = oldest.iter().rfind(|row| row.seq != newest) {
            // Even the bare ids are too much: the limit that a person set wins over the window.
            transaction.execute("DELETE FROM events WHERE seq <= ?1", params![last.seq])?;
            removed.more = true;
        }
    }
    transaction.commit()?;
    drop(positions);
    Ok(removed)
}

fn newest_of(rows: &[&OldRow]) -> u64 {
    rows.iter().filter(|row| row.visible).map(|row| row.stored_at).max().unwrap_or(0)
}

/// A worker that cannot read during the removal.
struct Position<'a> {
    follower: &'a Follower,
    read: follower::Position<'a>,
}

type Positions<'a> = BTreeMap<&'a str, Position<'a>>;

fn stop_reading(followers: &Followers) -> Positions<'_> {
    let position = |follower| Position { follower, read: Follower::read(follower) };
    followers.iter().map(|(name, follower)| (name.as_str(), position(follower))).collect()
}

/// Removes the payloads up to a row. Rows that become shorter in place leave their pages half empty, which frees nothing, so
/// they are deleted and inserted again.
fn strip(connection: &Connection, up_to: u64) -> rusqlite::Result<()> {
    const OF: &str = "FROM events WHERE seq <= ?1 AND payload IS NOT NULL";
    const COLUMNS: &str =
        "seq, message_id, message_timestamp, type, version, subscription_id, stored_at, elapsed";
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS stripped AS SELECT {COLUMNS} FROM main.events LIMIT 0"
    ))?;
    connection.execute(&format!("INSERT INTO stripped SELECT {COLUMNS} {OF}"), params![up_to])?;
    connection.execute(&format!("DELETE {OF}"), params![up_to])?;
    connection.execute_batch(&format!(
        "INSERT INTO events ({COLUMNS}) SELECT {COLUMNS} FROM stripped; DELETE FROM stripped"
    ))
}

struct OldRow {
    seq: u64,
    stored_at: u64,
    elapsed: u64,
    visible: bool,
}

fn oldest_rows(connection: &Connection, rows: u64, only_visible: bool) -> rusqlite::Result<Vec<OldRow>> {
    let sql = if only_visible {
        "SELECT seq, stored_at, elapsed, 1 FROM events WHERE payload IS NOT NULL ORDER BY seq LIMIT ?1"
    } else {
        "SELECT seq, stored_at, elapsed, payload IS NOT NULL FROM events ORDER BY seq LIMIT ?1"
    };
    connection
        .prepare_cached(sql)?
        .query_map(params![rows], |row| {
            Ok(OldRow {
                seq: row.get(0)?,
                stored_at: row.get(1)?,
                elapsed: row.get(2)?,
                visible: row.get(3)?,
            })
        })?
        .collect()
}

/// Counts the events up to `up_to` that each sink wants and has not got.
fn count_losses(
    connection: &Connection,
    up_to: u64,
    positions: &Positions<'_>,
) -> rusqlite::Result<Vec<SinkLoss>> {
    let behind: Vec<(String, u64, String, u64)> = connection
        .prepare_cached("SELECT name, seq, done, lost FROM sinks WHERE seq < ?1 AND gone_at IS NULL")?
        .query_map(params![up_to], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    let mut losses = Vec::new();
    for (sink, cursor, done, before) in behind {
        let position = positions.get(sink.as_str());
        let done: BTreeSet<u64> = serde_json::from_str(&done).unwrap_or_default();
        let mut statement = connection.prepare_cached(
            "SELECT seq, stored_at, type, version, payload FROM events
             WHERE seq > ?1 AND seq <= ?2 AND payload IS NOT NULL ORDER BY seq",
        )?;
        let mut rows = statement.query(params![cursor, up_to])?;
        let (mut lost, mut held) = (Lost::default(), Vec::new());
        while let Some(row) = rows.next()? {
            let (seq, stored_at): (u64, u64) = (row.get(0)?, row.get(1)?);
            if done.contains(&seq) {
                continue;
            }
            let Some(position) = position else {
                // No worker has told yet which events the sink wants.
                lost.add(stored_at);
                continue;
            };
            let (kind, version) = (row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?);
            if !position.follower.wants(kind, version, row.get_ref(4)?.as_blob()?) {
                continue;
            }
            if Seq(seq) <= position.read.get() {
                held.push((seq, stored_at));
            } else {
                lost.add(stored_at);
            }
        }
        if !held.is_empty() {
            hold(connection, &sink, &held)?;
        }
        connection.execute(
            "UPDATE sinks SET lost = lost + ?2, seq = max(seq, ?3) WHERE name = ?1",
            params![sink, lost.events, up_to],
        )?;
        if lost.events > 0 {
            remember_loss(connection, &sink, &up_to.to_string(), &lost)?;
            losses.push(SinkLoss { sink, events: lost.events, total: before + lost.events });
        }
    }
    Ok(losses)
}

/// Events that a sink has lost.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    events: u64,
    /// When the first and the last of them were stored.
    from: u64,
    to: u64,
}

impl Lost {
    fn add(&mut self, stored_at: u64) {
        self.from = if self.events == 0 { stored_at } else { self.from.min(stored_at) };
        self.to = self.to.max(stored_at);
        self.events += 1;
    }
}

/// Records events that were removed while a worker was delivering them: their numbers, and when they were stored.
fn hold(connection: &Connection, sink: &str, held: &[(u64, u64)]) -> rusqlite::Result<()> {
    let mut all = held_by(connection, sink)?;
    all.extend(held);
    set_held(connection, sink, &all)
}

fn held_by(connection: &Connection, sink: &str) -> rusqlite::Result<Vec<(u64, u64)>> {
    let text: String = connection
        .prepare_cached("SELECT held FROM sinks WHERE name = ?1")?
        .query_row(params![sink], |row| row.get(0))?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

fn set_held(connection: &Connection, sink: &str, held: &[(u64, u64)]) -> rusqlite::Result<()> {
    let text = serde_json::to_string(held).unwrap_or_default();
    connection
        .prepare_cached("UPDATE sinks SET held = ?2 WHERE name = ?1")?
        .execute(params![sink, text])
        .map(|_| ())
}

/// Forgets recorded events up to `to`, and those of `done`: the sink is done with them.
pub(super) fn release_held(
    connection: &Connection,
    sink: &str,
    to: Seq,
    done: &[Seq],
) -> rusqlite::Result<()> {
    let held = held_by(connection, sink)?;
    if held.is_empty() {
        return Ok(());
    }
    let open: Vec<_> =
        held.iter().copied().filter(|(seq, _)| *seq > to.0 && !done.contains(&Seq(*seq))).collect();
    if open.len() < held.len() { set_held(connection, sink, &open) } else { Ok(()) }
}

/// Counts the recorded events as lost, since the worker that was delivering them has ended. Returns their number.
pub(super) fn lose_held(connection: &Connection, sink: &str) -> rusqlite::Result<u64> {
    let held = held_by(connection, sink)?;
    let mut lost = Lost::default();
    held.iter().for_each(|(_, stored_at)| lost.add(*stored_at));
    if lost.events > 0 {
        let last = held.last().map_or(0, |(seq, _)| *seq);
        connection.execute(
            "UPDATE sinks SET lost = lost + ?2, held = '[]' WHERE name = ?1",
            params![sink, lost.events],
        )?;
        remember_loss(connection, sink, &format!("{last}.held"), &lost)?;
    }
    Ok(lost.events)
}

/// Records a loss until it is reported: [`super::Store::losses`].
fn remember_loss(connection: &Connection, sink: &str, key: &str, lost: &Lost) -> rusqlite::Result<()> {
    let at = Timestamp::from_unix_millis;
    let loss = Loss { sink: SinkName::new(sink), events: lost.events, from: at(lost.from), to: at(lost.to) };
    let text = serde_json::to_string(&loss).unwrap_or_default();
    settings::save(connection, &[(format!("{LOSS}{sink}.{key}"), Some(text))])
}

/// Removes the dead letters that are older than the oldest event, and counts them as lost to their sinks.
fn drop_dead_letters(connection: &Connection, before: u64, rows: u64) -> rusqlite::Result<Vec<SinkLoss>> {
    let taken: Vec<(i64, String)> = connection
        .prepare_cached("SELECT id, sink FROM dead_letters WHERE failed_at < ?1 ORDER BY id LIMIT ?2")?
        .query_map(params![before, rows], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut sinks: BTreeMap<String, u64> = BTreeMap::new();
    for (id, sink) in taken {
        connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute(params![id])?;
        *sinks.entry(sink).or_default() += 1;
    }
    let mut losses = Vec::new();
    for (sink, events) in sinks {
        let total: Option<u64> = connection
            .prepare_cached(
                "UPDATE sinks SET lost = lost + ?2, dead_letters = max(0, dead_letters - ?2) WHERE name = ?1
                 RETURNING lost",
            )?
            .query_map(params![sink, events], |row| row.get(0))?
            .next()
            .transpose()?;
        losses.push(SinkLoss { sink, events, total: total.unwrap_or(events) });
    }
    Ok(losses)
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
