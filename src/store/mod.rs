//! The event store: the only room that knows SQL.
//!
//! Owns the database, one file in SQLite with a write-ahead log, and its two threads. The writer takes all requests from
//! its queue, writes them in one transaction with one sync, and answers their callers (group commit). The newest events
//! stay in memory for the workers of sinks; the reader thread serves all other reads. An event that `append` or `push` has
//! confirmed is on disk; a crash loses only events that were not confirmed. Payloads are bytes in here: they are never
//! parsed and never changed. While the disk fails, pushed events are held and tried again, and a full queue makes `push`
//! wait.

mod age;
mod counts;
mod dead_letters;
mod error;
mod events;
mod follower;
mod guard;
mod handle;
mod heap;
mod ids;
mod job;
mod last_known;
mod loss;
mod machine;
mod pending;
mod places;
mod presence;
mod reader;
mod recent;
mod removals;
mod retention;
mod schema;
mod settings;
mod sinks;
mod write_ahead;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::age::Tick;
pub use self::error::StoreError;
pub use self::follower::Follower;
pub use self::handle::{Receipt, Store};
pub use self::loss::Loss;
pub use self::machine::{Clock, Ticks, since_boot, since_start, ticks};
pub use self::reader::Reader;
use self::retention::Retention;
use serde::{Deserialize, Serialize};

use crate::model::event::{Seq, StoredEvent};
use crate::model::route::SinkName;
pub use crate::model::sink::StartAt;
use crate::model::time::Timestamp;

/// The usual [`StoreOptions::recent_bytes`].
const RECENT_BYTES: usize = 6 << 20;

/// Settings of a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// The database file, for example `/var/lib/eventsubd/events.db`.
    pub path: PathBuf,
    /// Age from which events are removed.
    pub retain: Duration,
    /// Size of the database above which the oldest events go, in bytes.
    pub max_size: u64,
    /// Events that may wait to be written.
    pub queue_events: usize,
    /// Bytes of payload that may wait to be written.
    pub queue_bytes: usize,
    /// Bytes of the newest events that are kept in memory for the workers of sinks.
    pub recent_bytes: usize,
    /// The time that events are stamped with.
    pub clock: Clock,
    /// The clock of the ages of events.
    pub ticks: Ticks,
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// With the system's clock.
    pub fn new(
        path: PathBuf,
        retain: Duration,
        max_size: u64,
        queue_events: usize,
        queue_bytes: usize,
    ) -> Self {
        Self {
            path,
            retain,
            max_size,
            queue_events,
            queue_bytes,
            recent_bytes: RECENT_BYTES,
            clock: Arc::new(SystemTime::now),
            ticks: machine::ticks(),
        }
    }

    fn retention(&self) -> Retention {
        retention(self.retain, self.max_size)
    }
}

fn retention(retain: Duration, max_size: u64) -> Retention {
    Retention { age: u64::try_from(retain.as_millis()).unwrap_or(u64::MAX), size: max_size }
}

/// The result of storing an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The event is on disk, under this number.
    Stored(Seq),
    /// The message id had been stored already.
    Duplicate,
    /// The same happening had been stored already, under another message id or by a catch-up.
    Double,
}

/// The state of a sink in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkRecord {
    /// The last event up to which the sink is done with everything.
    pub cursor: Seq,
    /// Events after it that the sink is done with as well, ascending.
    pub done: Vec<Seq>,
    /// Events in its dead letters.
    pub dead_letters: u64,
    /// Number of events that retention has ever removed before the sink had them.
    pub lost: u64,
    /// Number of replays of stored events.
    pub replays: u64,
    /// The last event that the sink was done with before the last replay.
    pub replay_until: Seq,
}

/// Urgency of storing the place of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Within 250 ms: the sink got events, which come again if the place is lost.
    Soon,
    /// With the next event or request to write: the sink wanted none of the events.
    Lazily,
}

/// An event that a sink gave up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number of the dead letter.
    pub id: i64,
    pub sink: SinkName,
    pub event: StoredEvent,
    /// The first failure, if there were several.
    pub first: Option<FailureRecord>,
    /// The failure with which the sink gave up.
    pub last: FailureRecord,
    /// Whether it waits to be sent again.
    pub replay: bool,
    /// Number of requests to send it again.
    pub replays: u64,
}

/// A part of the dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPage {
    /// Oldest first.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins: after this number. `None` at the end.
    pub next: Option<i64>,
    /// Number of messages that are no dead letters.
    pub unreadable: u64,
}

/// A failed attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// The time of the failure.
    pub at: Timestamp,
    /// The failure in words, free of secrets.
    pub error: String,
    /// The receiver's own words, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// The reason for which an event becomes a dead letter, or stays one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The first failure, if there were several.
    pub first: Option<FailureRecord>,
    /// The last failure in words, free of secrets.
    pub error: String,
    /// The receiver's own words about that, masked.
    pub said: Option<String>,
}

impl From<&str> for GivenUp {
    fn from(error: &str) -> Self {
        Self { first: None, error: error.to_owned(), said: None }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only those of this sink. `None` means all sinks.
    pub sink: Option<SinkName>,
    /// Only this one. `None` means all.
    pub id: Option<i64>,
    /// Of types that match this glob only, as SQLite understands it: `*` and `?`.
    pub types: Option<String>,
    /// Only dead letters whose last failure was before this time.
    pub until: Option<Timestamp>,
}

/// Part of the stored events, to be sent to a sink again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPart {
    /// Events behind this one.
    pub after: Seq,
    /// And up to this one.
    pub last: Seq,
    /// Of types that match this glob only, as SQLite understands it: `*` and `?`.
    pub types: Option<String>,
}

/// Number of events of one type in an hour or a minute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeCount {
    /// The hour or the minute, since the epoch.
    pub slot: u64,
    /// The type; empty for the sum of further types.
    pub kind: Box<str>,
    /// Number of events.
    pub events: u64,
}

/// The events of a subscription, also those that retention has removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Number of events.
    pub events: u64,
    /// Number of the last one.
    pub last: Seq,
    /// When the last one was stored.
    pub last_at: Timestamp,
}

/// Counts of events since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeCounts {
    pub stored: u64,
    /// Events whose message id had been stored already.
    pub duplicates: u64,
    /// Events of what had been stored already under another message id.
    pub doubles: u64,
}

#[cfg(test)]
mod tests;
