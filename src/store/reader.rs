//! The reader thread of the daemon, and read-only access for other processes.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::error::StoreError;
use super::follower::Follower;
use super::pending::Pending;
use super::{
    Activity, DeadLetter, DeadLetterFilter, Ticks, TypeCount, counts, dead_letters, events, last_known,
    schema, settings,
};
use crate::model::event::{Seq, StoredEvent};
use crate::model::last_known::LastKnown;
use crate::model::pulse::Pulse;
use crate::model::route::SinkName;
use crate::model::time::Timestamp;

/// Pause after a request after which the thread gives the memory of its pages back.
const IDLE: Duration = Duration::from_secs(20);
/// Pause after which it shows that it lives, a part of what the watchdog grants it.
const QUIET: Duration = Duration::from_secs(40);
/// Requests that may wait for the reader thread.
pub(super) const QUEUE: usize = 64;

/// A request to the reader thread.
#[derive(Debug)]
pub(super) enum ReadRequest {
    /// Events after a cursor.
    After {
        after: Seq,
        limit: usize,
        max_bytes: usize,
        /// The worker that reads, if it is one.
        follower: Option<Follower>,
        reply: oneshot::Sender<Result<Vec<StoredEvent>, StoreError>>,
    },
    /// Events before a number, newest first.
    Back {
        before: Seq,
        limit: usize,
        max_bytes: usize,
        reply: oneshot::Sender<Result<Vec<StoredEvent>, StoreError>>,
    },
    /// The newest dead letters of a sink, before an id.
    Letters {
        sink: SinkName,
        before: i64,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<DeadLetter>, StoreError>>,
    },
    /// Events after a cursor that a worker wants.
    Wanted {
        follower: Follower,
        after: Seq,
        limit: usize,
        reply: oneshot::Sender<Result<(Vec<Seq>, Seq), StoreError>>,
    },
    /// Dead letters that wait to be sent again.
    ToReplay {
        sink: SinkName,
        after: i64,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<DeadLetter>, StoreError>>,
    },
    /// The last event before a time.
    Before { time: Timestamp, reply: oneshot::Sender<Result<Seq, StoreError>> },
    /// Counts by type from an hour on.
    Hours { from: u64, reply: oneshot::Sender<Result<Vec<TypeCount>, StoreError>> },
    /// Activity of subscriptions, by their ids.
    Activity { ids: Vec<Box<str>>, reply: oneshot::Sender<Result<Vec<Option<Activity>>, StoreError>> },
    /// Last known state of broadcasters, with the time by the store's clock.
    LastKnown {
        broadcasters: Vec<Box<str>>,
        reply: oneshot::Sender<Result<(Vec<LastKnown>, u64), StoreError>>,
    },
    /// Broadcasters of whom nothing new was stored for a while.
    QuietChannels {
        after: Box<str>,
        age: u64,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<Box<str>>, StoreError>>,
    },
    /// Settings by prefix.
    Settings { prefix: String, reply: oneshot::Sender<Result<Vec<(String, String)>, StoreError>> },
}

/// The daemon's thread for reads.
pub(super) struct ReaderThread;

impl ReaderThread {
    /// Runs until the store's handles are gone; `pulse` beats with every request and now and then, and rests in between.
    pub(super) fn start(
        connection: Connection,
        requests: Receiver<ReadRequest>,
        pending: Arc<Mutex<Pending>>,
        ticks: Ticks,
        died: watch::Sender<Option<StoreError>>,
        pulse: Pulse,
    ) -> io::Result<()> {
        thread::Builder::new().name("store-reader".to_owned()).spawn(move || {
            let guard = super::guard::DeathNotice::new("reader", died);
            let mut has_read = false;
            loop {
                pulse.rest();
                let request = requests.recv_timeout(if has_read { IDLE } else { QUIET });
                pulse.beat();
                match request {
                    Ok(request) => {
                        answer(&connection, &pending, &ticks, request);
                        has_read = true;
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if std::mem::take(&mut has_read) {
                            // If that fails, the pages only stay in memory.
                            let _ = connection.execute_batch("PRAGMA shrink_memory");
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            guard.expected();
        })?;
        Ok(())
    }
}

fn answer(connection: &Connection, pending: &Mutex<Pending>, ticks: &Ticks, request: ReadRequest) {
    // A caller that no longer waits is not an error.
    match request {
        ReadRequest::After { after, limit, max_bytes, follower, reply } => {
            // Retention waits, so that it does not count these events as lost.
            let mut position = follower.as_ref().map(Follower::read);
            let read = events::read_after(connection, after, limit, max_bytes);
            if let (Some(position), Ok(Some(last))) =
                (&mut position, read.as_ref().map(|events| events.last()))
            {
                position.set(last.seq);
            }
            drop(position);
            let _ = reply.send(read.map_err(StoreError::sql("read events")));
        }
        ReadRequest::Back { before, limit, max_bytes, reply } => {
            let read = events::read_before(connection, before, limit, max_bytes);
            let _ = reply.send(read.map_err(StoreError::sql("read events")));
        }
        ReadRequest::Letters { sink, before, limit, reply } => {
            let read = dead_letters::newest(connection, &sink, before, limit);
            let _ = reply.send(read.map_err(StoreError::sql("read dead letters")));
        }
        ReadRequest::Wanted { follower, after, limit, reply } => {
            let read = events::wanted_after(connection, &follower, after, limit);
            let _ = reply.send(read.map_err(StoreError::sql("count events")));
        }
        ReadRequest::ToReplay { sink, after, limit, reply } => {
            let read = dead_letters::to_replay(connection, &sink, after, limit);
            let _ = reply.send(read.map_err(StoreError::sql("read dead letters")));
        }
        ReadRequest::Before { time, reply } => {
            let found = events::before(connection, time);
            let _ = reply.send(found.map_err(StoreError::sql("search events")));
        }
        ReadRequest::Hours { from, reply } => {
            let read = counts::hours(connection, pending, from);
            let _ = reply.send(read.map_err(StoreError::sql("read counts")));
        }
        ReadRequest::Activity { ids, reply } => {
            let read = counts::activity(connection, pending, &ids);
            let _ = reply.send(read.map_err(StoreError::sql("read counts")));
        }
        ReadRequest::LastKnown { broadcasters, reply } => {
            let read = last_known::load(connection, &broadcasters, &ticks());
            let _ = reply.send(read.map_err(StoreError::sql("read what is known of channels")));
        }
        ReadRequest::QuietChannels { after, age, limit, reply } => {
            let read = last_known::quiet(connection, &after, age, limit, &ticks());
            let _ = reply.send(read.map_err(StoreError::sql("read what is known of channels")));
        }
        ReadRequest::Settings { prefix, reply } => {
            let read = settings::load(connection, &prefix);
            let _ = reply.send(read.map_err(StoreError::sql("read settings")));
        }
    }
}

/// Read-only access to a store, whether its daemon runs or not. Blocking.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens the store's database.
    ///
    /// # Errors
    /// The database is missing, foreign, or unreadable.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: schema::open_read_only(path)? })
    }

    /// The events after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read_after(&self, after: Seq, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        events::read_after(&self.connection, after, limit, 16 << 20).map_err(StoreError::sql("read events"))
    }

    /// The events of these two types after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn of_types_after(
        &self,
        types: [&str; 2],
        after: Seq,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        events::of_types_after(&self.connection, types, after, limit).map_err(StoreError::sql("read events"))
    }

    /// The events before `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read_before(&self, before: Seq, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        events::read_before(&self.connection, before, limit, 16 << 20).map_err(StoreError::sql("read events"))
    }

    /// The dead letters of a filter with ids after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn chosen_letters(
        &self,
        filter: &DeadLetterFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        dead_letters::chosen(&self.connection, filter, after, limit)
            .map_err(StoreError::sql("read dead letters"))
    }

    /// The number of the last event stored before `time`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn before(&self, time: Timestamp) -> Result<Seq, StoreError> {
        events::before(&self.connection, time).map_err(StoreError::sql("search events"))
    }

    /// The number of the newest event.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(&self) -> Result<Seq, StoreError> {
        events::newest(&self.connection).map_err(StoreError::sql("read events"))
    }

    /// Dead letters with ids after `after`, oldest first, at most `limit`; of one sink or of all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters(
        &self,
        sink: Option<&SinkName>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        dead_letters::list(&self.connection, sink, after, limit).map_err(StoreError::sql("read dead letters"))
    }

    /// The settings whose names start with `prefix`, sorted by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn settings(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        settings::load(&self.connection, prefix).map_err(StoreError::sql("read settings"))
    }
}
