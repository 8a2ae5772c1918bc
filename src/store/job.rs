//! Jobs of the writer, and their results.

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::StoreError;
use super::follower::Follower;
use super::ids::Mark;
use super::{Appended, DeadLetterFilter, GivenUp, ReplayPart, SinkRecord, StartAt, dead_letters, sinks};
use crate::model::event::{Event, Seq, StoredEvent};
use crate::model::last_known::News;
use crate::model::route::SinkName;

/// Channel for the result. A caller that no longer waits is not an error.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Job {
    /// `happening` is the mark of what the event is about, if that has an identity; `news` are what it says of a channel.
    Append {
        event: Event,
        mark: Mark,
        happening: Option<Mark>,
        news: Option<Box<News>>,
        reply: Option<Reply<Appended>>,
        held: bool,
        _bytes: OwnedSemaphorePermit,
    },
    Sink(SinkJob, Reply<SinkRecord>),
    Retire {
        active: Vec<SinkName>,
        reply: Reply<()>,
    },
    DeadLetters {
        filter: DeadLetterFilter,
        drop: bool,
        reply: Reply<u64>,
    },
    Replay {
        name: SinkName,
        part: ReplayPart,
        reply: Reply<(u64, Option<Seq>)>,
    },
    Settings {
        changes: Vec<(String, Option<String>)>,
        reply: Reply<()>,
    },
    Learn {
        news: Vec<News>,
        reply: Reply<()>,
    },
    ForgetChannels {
        /// `None` for all of them.
        channels: Option<Vec<Box<str>>>,
        reply: Reply<()>,
    },
    LimitPages {
        pages: Option<u32>,
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
    /// Wakes the writer: places of sinks have moved, or the limits of retention have changed.
    Wake,
}

/// A write that concerns one sink.
#[derive(Debug)]
pub(super) enum SinkJob {
    Register { name: SinkName, start: StartAt },
    Start { name: SinkName, start: StartAt, follower: Follower },
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

/// The result of a job, sent to the caller after the commit.
pub(super) enum Done {
    Appended(Appended),
    Sink(SinkRecord),
    Count(u64),
    Copied(u64, Option<Seq>),
    Unit,
}

impl Done {
    fn appended(self) -> Result<Appended, StoreError> {
        if let Self::Appended(appended) = self { Ok(appended) } else { Err(mismatch()) }
    }

    fn sink(self) -> Result<SinkRecord, StoreError> {
        if let Self::Sink(record) = self { Ok(record) } else { Err(mismatch()) }
    }

    fn copied(self) -> Result<(u64, Option<Seq>), StoreError> {
        if let Self::Copied(count, looked) = self { Ok((count, looked)) } else { Err(mismatch()) }
    }

    fn count(self) -> Result<u64, StoreError> {
        if let Self::Count(count) = self { Ok(count) } else { Err(mismatch()) }
    }
}

/// Error for a result that does not fit its job, which is a defect of the writer. The caller must get it: a dropped reply
/// would look like a closed store.
fn mismatch() -> StoreError {
    StoreError::Failing("a fault of eventsubd: a job and its outcome do not fit".into())
}

impl Job {
    /// Bytes of payload that are written.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { event, .. } => event.payload.len(),
            Self::Sink(SinkJob::DeadLetter { event, .. }, _) => event.event.payload.len(),
            _ => 0,
        }
    }

    /// Sends the outcome to the caller.
    pub(super) fn answer(self, done: Done) {
        match self {
            Self::Append { reply, .. } => {
                let _ = reply.map(|reply| reply.send(done.appended()));
            }
            Self::Sink(_, reply) => {
                let _ = reply.send(done.sink());
            }
            Self::DeadLetters { reply, .. } => {
                let _ = reply.send(done.count());
            }
            Self::Replay { reply, .. } => {
                let _ = reply.send(done.copied());
            }
            Self::Settings { reply, .. }
            | Self::Learn { reply, .. }
            | Self::ForgetChannels { reply, .. }
            | Self::Retire { reply, .. }
            | Self::LimitPages { reply, .. }
            | Self::Close { reply } => {
                let _ = reply.send(Ok(()));
            }
            Self::Wake => {}
        }
    }

    /// Sends an error to the caller.
    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Self::Append { reply, .. } => {
                let _ = reply.map(|reply| reply.send(Err(error)));
            }
            Self::Sink(_, reply) => {
                let _ = reply.send(Err(error));
            }
            Self::DeadLetters { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Replay { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Settings { reply, .. }
            | Self::Learn { reply, .. }
            | Self::ForgetChannels { reply, .. }
            | Self::Retire { reply, .. }
            | Self::LimitPages { reply, .. }
            | Self::Close { reply } => {
                let _ = reply.send(Err(error));
            }
            Self::Wake => {}
        }
    }
}

/// Returns the place behind which a new sink starts.
fn first(start: StartAt, newest: Seq) -> Seq {
    match start {
        StartAt::Present => newest,
        StartAt::Beginning => Seq(0),
    }
}

/// Carries out a write that concerns one sink.
pub(super) fn about_sink(
    connection: &Connection,
    job: &SinkJob,
    newest: Seq,
    now: u64,
) -> rusqlite::Result<SinkRecord> {
    let name = match job {
        SinkJob::Register { name, start } => {
            return sinks::register(connection, name, first(*start, newest));
        }
        SinkJob::Start { name, start, .. } => return sinks::start(connection, name, first(*start, newest)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_result_that_does_not_fit_its_job_is_an_error_for_the_caller() {
        let outcomes = || [Done::Appended(Appended::Duplicate), Done::Count(3), Done::Unit];
        for done in outcomes() {
            let (reply, answer) = oneshot::channel();
            let fits = matches!(done, Done::Count(_));
            Job::DeadLetters { filter: DeadLetterFilter::default(), drop: true, reply }.answer(done);
            assert_eq!(answer.await.expect("an answer").is_ok(), fits);
        }
        for done in outcomes() {
            let (reply, answer) = oneshot::channel();
            Job::Sink(SinkJob::Rewind { name: SinkName::new("a"), to: Seq(1) }, reply).answer(done);
            assert!(answer.await.expect("an answer").is_err());
        }
    }
}
