//! The log that a worker delivers: the store of this host, or the shared log of a cluster.

use std::sync::Arc;

use tokio::sync::watch;

use super::log_failure::LogFailure;
use super::shared_sink::SharedSink;
use super::window::Place;
use crate::model::event::{Seq, StoredEvent};
use crate::model::route::SinkName;
use crate::store::{DeadLetter, Follower, GivenUp, Keep, SinkRecord, StartAt, Store};

/// The events of this host.
#[derive(Clone, Debug)]
pub(super) struct LocalLog {
    pub(super) store: Store,
    /// The last event that the worker delivers; `None` if there is no last one.
    pub(super) until: Option<Seq>,
}

impl LocalLog {
    fn clip(&self, newest: Seq) -> Seq {
        self.until.map_or(newest, |until| until.min(newest))
    }
}

/// The log of one worker.
#[derive(Debug)]
pub(super) enum Log {
    Local(LocalLog),
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "no log is shared without NATS"))]
    Shared(Box<SharedSink>),
}

impl Log {
    /// Changes when there are new events.
    pub(super) fn changes(&self) -> watch::Receiver<Seq> {
        match self {
            Self::Local(log) => log.store.last_seq(),
            Self::Shared(log) => log.changes(),
        }
    }

    /// The last event that the worker may deliver, if `newest` is the newest one.
    pub(super) fn clip(&self, newest: Seq) -> Seq {
        match self {
            Self::Local(log) => log.clip(newest),
            Self::Shared(_) => newest,
        }
    }

    /// The last event that the worker may deliver now.
    pub(super) fn newest(&self) -> Seq {
        let newest = *self.changes().borrow();
        self.clip(newest)
    }

    /// Whether the worker has nothing more to do, ever, once everything up to `cursor` is done.
    pub(super) fn is_through(&self, cursor: Seq) -> bool {
        match self {
            Self::Local(log) => log.until.is_some_and(|until| until <= cursor),
            Self::Shared(_) => false,
        }
    }

    /// Whether events may be sent now. Once they may not, the worker has to end.
    pub(super) fn may_send(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Shared(log) => log.may_send(),
        }
    }

    /// The event up to which nothing has to be counted as waiting.
    pub(super) fn removed(&self) -> Seq {
        match self {
            Self::Local(log) => Seq(log.store.status().borrow().first_seq.0.saturating_sub(1)),
            Self::Shared(log) => log.read_to(),
        }
    }

    /// Number of events that retention has ever removed before the sink had them, if the log itself counts them.
    pub(super) fn lost(&self) -> Option<u64> {
        match self {
            Self::Local(_) => None,
            Self::Shared(log) => Some(log.lost()),
        }
    }

    /// The record of the sink, whose worker starts now.
    pub(super) async fn start(
        &self,
        name: &SinkName,
        start: StartAt,
        follower: &Follower,
    ) -> Result<SinkRecord, LogFailure> {
        match self {
            Self::Local(log) => Ok(log.store.start_sink(name, start, follower).await?),
            Self::Shared(log) => log.record().await,
        }
    }

    /// The events after `after`, oldest first: at most `limit`, and no more than about `max_bytes`, but at least one. None
    /// means that there are none up to the newest one.
    pub(super) async fn read_for(
        &self,
        follower: &Follower,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, LogFailure> {
        match self {
            Self::Local(log) => {
                let mut events = log.store.read_for(follower, after, limit, max_bytes).await?;
                if let Some(until) = log.until {
                    events.retain(|event| event.seq <= until);
                }
                Ok(events)
            }
            Self::Shared(log) => log.read(after, limit, max_bytes).await,
        }
    }

    /// Returns which of the next `limit` events after `after` the worker wants, and the last event that was examined.
    pub(super) async fn wanted_after(
        &self,
        follower: &Follower,
        after: Seq,
        limit: usize,
    ) -> Result<(Vec<Seq>, Seq), LogFailure> {
        match self {
            Self::Local(log) => {
                let (mut wanted, looked) = log.store.wanted_after(follower, after, limit).await?;
                let last = log.clip(looked);
                wanted.retain(|seq| *seq <= last);
                Ok((wanted, last))
            }
            Self::Shared(log) => log.wanted_after(after).await,
        }
    }

    /// Has the place stored. If a crash loses it, the sink gets the events since again.
    pub(super) fn keep_place(&self, name: &SinkName, place: Place, keep: Keep) {
        match self {
            Self::Local(log) => log.store.keep_place(name, place.cursor, place.done, keep),
            Self::Shared(log) => log.keep_place(place, keep),
        }
    }

    // Futures for dead letters of a cluster are large, and dead letters are rare: they are boxed.

    /// Copies an event to the dead letters of the sink.
    pub(super) async fn dead_letter(
        &self,
        name: &SinkName,
        event: &StoredEvent,
        why: GivenUp,
    ) -> Result<SinkRecord, LogFailure> {
        match self {
            Self::Local(log) => Ok(log.store.dead_letter(name, event, why).await?),
            Self::Shared(log) => Box::pin(log.letters().dead_letter(event, &why)).await,
        }
    }

    /// The dead letters that wait to be sent again, with ids after `after`, oldest first.
    pub(super) async fn dead_letters_to_replay(
        &self,
        name: &SinkName,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogFailure> {
        match self {
            Self::Local(log) => Ok(log.store.dead_letters_to_replay(name, after, limit).await?),
            Self::Shared(log) => Box::pin(log.letters().to_replay(after, limit)).await,
        }
    }

    /// Stores the outcome of sending a dead letter again.
    pub(super) async fn resent(
        &self,
        name: &SinkName,
        id: i64,
        outcome: Result<(), GivenUp>,
    ) -> Result<SinkRecord, LogFailure> {
        match self {
            Self::Local(log) => Ok(log.store.resent(name, id, outcome).await?),
            Self::Shared(log) => Box::pin(log.letters().resent(id, outcome)).await,
        }
    }
}
