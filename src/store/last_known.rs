//! Table of the last known state of channels, one row each.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::age::Tick;
use super::events;
use crate::model::last_known::{Applied, ChannelDigest, ChannelState, LastKnown, News, StreamState};

/// Returns what is known of each of these broadcasters, in their order, and the time by the store's clock.
pub(super) fn load(
    connection: &Connection,
    broadcasters: &[Box<str>],
    tick: &Tick,
) -> rusqlite::Result<(Vec<LastKnown>, u64)> {
    // The rows must not be younger than the clock.
    let read = connection.unchecked_transaction()?;
    let known = broadcasters.iter().map(|broadcaster| get(&read, broadcaster)).collect::<Result<_, _>>()?;
    Ok((known, now(&read, tick)?))
}

/// Returns broadcasters after one, in order, of whom nothing new was stored for so many milliseconds.
pub(super) fn quiet(
    connection: &Connection,
    after: &str,
    age: u64,
    limit: usize,
    tick: &Tick,
) -> rusqlite::Result<Vec<Box<str>>> {
    let Some(before) = now(connection, tick)?.checked_sub(age) else { return Ok(Vec::new()) };
    connection
        .prepare_cached(
            "SELECT broadcaster FROM last_known
             WHERE broadcaster > ?1 AND coalesce(stream_at, 0) < ?2 AND coalesce(digest_at, 0) < ?2
             ORDER BY broadcaster LIMIT ?3",
        )?
        .query_map(params![after, before, limit], |row| row.get::<_, String>(0).map(Into::into))?
        .collect()
}

/// The time by the store's clock, which the writer saves from time to time.
fn now(connection: &Connection, tick: &Tick) -> rusqlite::Result<u64> {
    Ok(events::saved_clock(connection)?.map_or(0, |saved| saved.elapsed_at(tick)))
}

fn get(connection: &Connection, broadcaster: &str) -> rusqlite::Result<LastKnown> {
    let found = connection
        .prepare_cached(
            "SELECT is_live, stream, stream_started, stream_since, stream_at,
                    digest, digest_since, digest_at, is_caught_up
             FROM last_known WHERE broadcaster = ?1",
        )?
        .query_row(params![broadcaster], row)
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn row(row: &Row<'_>) -> rusqlite::Result<LastKnown> {
    let is_live: Option<bool> = row.get(0)?;
    let digest: Option<i64> = row.get(5)?;
    let stream = is_live.map(|is_live| -> rusqlite::Result<_> {
        let id: Option<String> = row.get(1)?;
        let id = id.map(Into::into);
        Ok(StreamState { is_live, id, started: row.get(2)?, since: row.get(3)?, at: row.get(4)? })
    });
    let channel = digest.map(|digest| -> rusqlite::Result<_> {
        let digest = ChannelDigest(digest.cast_unsigned());
        Ok(ChannelState { digest, since: row.get(6)?, at: row.get(7)?, is_caught_up: row.get(8)? })
    });
    Ok(LastKnown { stream: stream.transpose()?, channel: channel.transpose()? })
}

/// Forgets all of it.
pub(super) fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM last_known", []).map(|_| ())
}

/// Forgets these.
pub(super) fn remove(connection: &Connection, broadcasters: &[Box<str>]) -> rusqlite::Result<()> {
    let mut remove = connection.prepare_cached("DELETE FROM last_known WHERE broadcaster = ?1")?;
    broadcasters.iter().try_for_each(|broadcaster| remove.execute(params![broadcaster]).map(|_| ()))
}

/// Applies news at a time of the store's clock. Returns false if they were told already.
pub(super) fn apply(connection: &Connection, news: &News, now: u64) -> rusqlite::Result<bool> {
    let (new, is_new) = match get(connection, &news.broadcaster)?.apply(news, now) {
        Applied::Changed(new) => (Some(new), true),
        Applied::Unchanged => (None, true),
        Applied::Told(new) => (new, false),
    };
    if let Some(new) = new {
        put(connection, &news.broadcaster, &new)?;
    }
    Ok(is_new)
}

fn put(connection: &Connection, broadcaster: &str, known: &LastKnown) -> rusqlite::Result<()> {
    let LastKnown { stream, channel } = known;
    connection
        .prepare_cached(
            "INSERT INTO last_known (broadcaster, is_live, stream, stream_started, stream_since, stream_at,
                                     digest, digest_since, digest_at, is_caught_up)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (broadcaster) DO UPDATE
             SET is_live = ?2, stream = ?3, stream_started = ?4, stream_since = ?5, stream_at = ?6,
                 digest = ?7, digest_since = ?8, digest_at = ?9, is_caught_up = ?10",
        )?
        .execute(params![
            broadcaster,
            stream.as_ref().map(|stream| stream.is_live),
            stream.as_ref().and_then(|stream| stream.id.as_deref()),
            stream.as_ref().map(|stream| stream.started),
            stream.as_ref().map(|stream| stream.since),
            stream.as_ref().map(|stream| stream.at),
            channel.map(|channel| channel.digest.0.cast_signed()),
            channel.map(|channel| channel.since),
            channel.map(|channel| channel.at),
            channel.map(|channel| channel.is_caught_up),
        ])?;
    Ok(())
}
