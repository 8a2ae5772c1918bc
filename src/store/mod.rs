//! The event store: the only room that knows SQL.
#![allow(missing_docs, clippy::unused_async, clippy::needless_pass_by_value, reason = "skeleton")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::event::{Event, Seq, StoredEvent};
use crate::model::route::SinkName;
use crate::model::status::StoreStatus;
use crate::model::time::Timestamp;

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The database file, for example `/var/lib/eventsubd/events.db`.
    pub path: PathBuf,
    pub retain: Duration,
    pub max_size: u64,
    /// Bounds of the queue in front of the writer.
    pub queue_events: usize,
    pub queue_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    Stored(Seq),
    Duplicate,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("skeleton")]
    Skeleton,
}

/// What the store knows of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkRecord {
    pub cursor: Seq,
    pub dead_letters: u64,
    pub lost: u64,
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

/// Resolves once the event is on disk.
#[derive(Debug)]
pub struct Receipt {}

impl Receipt {
    pub async fn stored(self) -> Result<Appended, StoreError> {
        todo!()
    }
}

impl Store {
    /// Opens or makes the database and starts the threads. Blocking: call it before the runtime is busy.
    pub fn open(_options: StoreOptions) -> Result<Self, StoreError> {
        todo!()
    }
    /// For webhooks: stored and synced, or an error at once while the store is full or failing.
    pub async fn append(&self, _event: Event) -> Result<Appended, StoreError> {
        todo!()
    }
    /// For sockets: waits for room in the queue; once it returns, the event is retried until it is
    /// stored, however long the disk fails. Err only when the store is closed.
    pub async fn push(&self, _event: Event) -> Result<Receipt, StoreError> {
        todo!()
    }
    /// Up to `limit` events after `after`, at most about `max_bytes` of payload (but at least one).
    pub async fn read_after(
        &self,
        _after: Seq,
        _limit: usize,
        _max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        todo!()
    }
    pub fn last_seq(&self) -> watch::Receiver<Seq> {
        todo!()
    }
    /// The record of a sink; a new sink starts at the present.
    pub async fn sink(&self, _name: &SinkName) -> Result<SinkRecord, StoreError> {
        todo!()
    }
    pub async fn advance(&self, _name: &SinkName, _to: Seq) -> Result<SinkRecord, StoreError> {
        todo!()
    }
    /// Copies the event to the sink's dead letters and advances its cursor past it, in one transaction.
    pub async fn dead_letter(
        &self,
        _name: &SinkName,
        _event: &StoredEvent,
        _error: &str,
    ) -> Result<SinkRecord, StoreError> {
        todo!()
    }
    /// Settings whose names start with `prefix`, sorted by name.
    pub async fn settings(&self, _prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        todo!()
    }
    /// Sets (`Some`) or removes (`None`) settings, all or none.
    pub async fn set_settings(&self, _changes: Vec<(String, Option<String>)>) -> Result<(), StoreError> {
        todo!()
    }
    pub fn set_retention(&self, _retain: Duration, _max_size: u64) {
        todo!()
    }
    pub fn status(&self) -> watch::Receiver<StoreStatus> {
        todo!()
    }
    /// Resolves when a store thread has ended though nobody closed the store.
    pub async fn failed(&self) -> StoreError {
        todo!()
    }
    /// Commits what is queued, checkpoints, ends the threads. Later calls fail.
    pub async fn close(&self) -> Result<(), StoreError> {
        todo!()
    }
}

/// Read-only access from another process (`events`, `plan`). Blocking.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    pub fn open(_path: &Path) -> Result<Self, StoreError> {
        todo!()
    }
    pub fn read_after(&self, _after: Seq, _limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        todo!()
    }
    /// The number of the last event stored before `time`.
    pub fn before(&self, _time: Timestamp) -> Result<Seq, StoreError> {
        todo!()
    }
    pub fn settings(&self, _prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        todo!()
    }
}
