//! Where `eventsubd events` reads: the store of this host, or the log that all hosts of a cluster share.

use super::args::Args;
#[cfg(feature = "nats")]
use super::shared_log::Log;
use super::target::load_options;
use super::term::Failure;
use crate::config;
use crate::model::event::{Seq, StoredEvent};
use crate::model::time::Timestamp;
use crate::store::{Reader, StoreError};

/// Number of events read at once.
const BATCH: usize = 500;

/// Stored events.
pub(super) enum Source {
    Store(Reader),
    #[cfg(feature = "nats")]
    Log(Box<Log>),
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: StoreError) -> Failure {
    Failure::new("cannot read the event store").caused_by(&error)
}

impl Source {
    /// The number of the newest event.
    pub(super) fn newest(&self) -> Result<Seq, Failure> {
        match self {
            Self::Store(reader) => reader.newest().map_err(broken),
            #[cfg(feature = "nats")]
            Self::Log(log) => log.newest(),
        }
    }

    /// The number of the last event before this time.
    pub(super) fn before(&self, time: Timestamp) -> Result<Seq, Failure> {
        match self {
            Self::Store(reader) => reader.before(time).map_err(broken),
            #[cfg(feature = "nats")]
            Self::Log(log) => log.before(time),
        }
    }

    /// The next events after this one, oldest first, and up to where they were read; `None` at the end.
    pub(super) fn read_after(&self, after: Seq) -> Result<(Vec<StoredEvent>, Option<Seq>), Failure> {
        match self {
            Self::Store(reader) => {
                let events = reader.read_after(after, BATCH).map_err(broken)?;
                let read = events.last().map(|stored| stored.seq);
                Ok((events, read))
            }
            #[cfg(feature = "nats")]
            Self::Log(log) => log.read_after(after, BATCH),
        }
    }

    /// The events before this one, newest first, and down to where they were read; `None` at the beginning.
    pub(super) fn read_before(&self, before: Seq) -> Result<(Vec<StoredEvent>, Option<Seq>), Failure> {
        match self {
            Self::Store(reader) => {
                let events = reader.read_before(before, BATCH).map_err(broken)?;
                let read = events.last().map(|stored| stored.seq);
                Ok((events, read))
            }
            #[cfg(feature = "nats")]
            Self::Log(log) => {
                // Numbers that retention has left are dense.
                let from = Seq(before.0.saturating_sub(BATCH as u64 + 1));
                if before.0 <= 1 {
                    return Ok((Vec::new(), None));
                }
                let (mut events, _) = log.read_after(from, BATCH)?;
                events.retain(|stored| stored.seq < before);
                events.reverse();
                Ok((events, Some(Seq(from.0 + 1))))
            }
        }
    }
}

/// Whether the configuration has a `[cluster]`. One that cannot be read has none.
pub(super) fn is_in_cluster(args: &Args) -> bool {
    config::load(&load_options(args)).is_ok_and(|loaded| loaded.config.cluster.is_some())
}

/// Opens the log that all hosts share.
#[cfg(feature = "nats")]
pub(super) fn open_log(args: &Args) -> Result<Source, Failure> {
    Ok(Source::Log(Box::new(Log::open(args)?)))
}

#[cfg(not(feature = "nats"))]
pub(super) fn open_log(_args: &Args) -> Result<Source, Failure> {
    Err(Failure::new("this build of eventsubd cannot use NATS, and `--all-hosts` needs it"))
}
