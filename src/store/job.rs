//! What the writer is asked to do, and what it answers once that is on disk.

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::StoreError;
use super::{Appended, GivenUp, LetterFilter, SinkRecord, StartAt, dead_letters, sinks};
use crate::model::event::{Event, Seq, StoredEvent};
use crate::model::route::SinkName;

/// Where an answer goes. Somebody who no longer waits for it is no failure.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write.
#[derive(Debug)]
pub(super) enum Job {
    Append { event: Event, reply: Option<Reply<Appended>>, held: bool, _bytes: OwnedSemaphorePermit },
    Sink(SinkJob, Reply<SinkRecord>),
    Retire { active: Vec<SinkName>, reply: Reply<()> },
    Letters { filter: LetterFilter, drop: bool, reply: Reply<u64> },
    Settings { changes: Vec<(String, Option<String>)>, reply: Reply<()> },
    LimitPages { pages: Option<u32>, reply: Reply<()> },
    Close { reply: Reply<()> },
}

/// Something to write about one sink.
#[derive(Debug)]
pub(super) enum SinkJob {
    Register { name: SinkName, start: StartAt },
    Advance { name: SinkName, to: Seq, done: Vec<Seq> },
    Rewind { name: SinkName, to: Seq },
    DeadLetter { name: SinkName, event: Box<StoredEvent>, given_up: Box<GivenUp> },
    Resent { name: SinkName, id: i64, given_up: Option<Box<GivenUp>> },
}

/// A job and its place in the queue.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) job: Job,
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

/// What a job came to, to be told once it is on disk.
pub(super) enum Done {
    Appended(Appended),
    Sink(SinkRecord),
    Count(u64),
    Unit,
}

impl Job {
    /// Tells whoever waits what it came to.
    pub(super) fn answer(self, done: Done) {
        match (self, done) {
            (Self::Append { reply: Some(reply), .. }, Done::Appended(appended)) => {
                let _ = reply.send(Ok(appended));
            }
            (Self::Sink(_, reply), Done::Sink(record)) => {
                let _ = reply.send(Ok(record));
            }
            (Self::Letters { reply, .. }, Done::Count(count)) => {
                let _ = reply.send(Ok(count));
            }
            (
                Self::Settings { reply, .. }
                | Self::Retire { reply, .. }
                | Self::LimitPages { reply, .. }
                | Self::Close { reply },
                _,
            ) => {
                let _ = reply.send(Ok(()));
            }
            _ => {}
        }
    }

    /// Tells whoever waits that nothing came of it.
    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Self::Append { reply, .. } => {
                let _ = reply.map(|reply| reply.send(Err(error)));
            }
            Self::Sink(_, reply) => {
                let _ = reply.send(Err(error));
            }
            Self::Letters { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Settings { reply, .. }
            | Self::Retire { reply, .. }
            | Self::LimitPages { reply, .. }
            | Self::Close { reply } => {
                let _ = reply.send(Err(error));
            }
        }
    }
}

/// Writes something about one sink.
pub(super) fn about_sink(
    connection: &Connection,
    job: &SinkJob,
    newest: Seq,
    now: u64,
) -> rusqlite::Result<SinkRecord> {
    let name = match job {
        SinkJob::Register { name, start } => {
            let start = match start {
                StartAt::Present => newest,
                StartAt::Beginning => Seq(0),
            };
            return sinks::register(connection, name, start);
        }
        SinkJob::Advance { name, to, done } => return sinks::advance(connection, name, *to, done),
        SinkJob::Rewind { name, to } => return sinks::rewind(connection, name, *to),
        SinkJob::DeadLetter { name, event, given_up } => {
            dead_letters::add(connection, name, event, given_up, now)?;
            name
        }
        SinkJob::Resent { name, id, given_up } => {
            match given_up {
                None => dead_letters::delivered(connection, *id)?,
                Some(given_up) => dead_letters::failed_again(connection, *id, given_up, now)?,
            }
            name
        }
    };
    Ok(sinks::get(connection, name)?.unwrap_or_default())
}
