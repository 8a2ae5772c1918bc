//! The handle of the delivery: replay, retry, skip, dead letters, reopening of files.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::assignment::Part;
use super::log_failure::LogFailure;
use super::shared::SharedWork;
use super::shared_letters::means_local;
use super::worker::{Command, Skipped};
use super::{SinkOptions, make};
use crate::model::event::{Event, Seq, Since};
use crate::model::route::{Routes, SinkName};
use crate::model::status::SinkStatus;
use crate::model::subscription::SubscriptionKey;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, DeadLetterFilter, LetterPage, ReplayPart, Store, StoreError};

/// The reason for which a request cannot be carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResendError {
    #[error("there is no sink {0} in the configuration")]
    Unknown(SinkName),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// The sink has no worker now.
    #[error("sink {0} is just being started; try again in some seconds")]
    NotRunning(SinkName),
    /// The shared log of the cluster cannot be used, or the place of the sink.
    #[error("{0}")]
    Shared(String),
    /// There is nothing to skip.
    #[error("nothing holds up sink {0}: no event of it has failed")]
    NothingFailed(SinkName),
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn shared_failure(failure: LogFailure) -> ResendError {
    ResendError::Shared(failure.to_string())
}

/// Events that are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resent {
    pub count: u64,
    /// The sinks whose workers have to look for them: those of the hosts of a cluster.
    pub sinks: Vec<SinkName>,
}

/// A request to the supervisor.
#[derive(Debug)]
pub(super) enum Request {
    /// Restart a worker from an earlier event.
    Rewind(Rewind),
    /// Restart workers, which then send marked dead letters again.
    Resend { sinks: Vec<SinkName>, reply: oneshot::Sender<()> },
    /// Pass a command to a worker.
    Command { sink: SinkName, command: Command, reply: oneshot::Sender<Result<(), ResendError>> },
    /// Read the numbers of dead letters again.
    Recount { reply: oneshot::Sender<()> },
}

#[derive(Debug)]
pub(super) struct Rewind {
    pub(super) sink: SinkName,
    pub(super) to: Seq,
    pub(super) reply: oneshot::Sender<Result<(), ResendError>>,
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeliveryHandle {
    /// Status of every sink.
    pub status: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    pub(super) reopen: Arc<watch::Sender<u64>>,
    pub(super) store: Store,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) routes: watch::Receiver<Option<Arc<Routes>>>,
    pub(super) sinks: watch::Receiver<Arc<[SinkOptions]>>,
    pub(super) shared: Option<SharedWork>,
}

impl DeliveryHandle {
    /// Returns a function that decides whether a sink gets an event, by the present configuration. `None` if there is no
    /// such sink.
    pub fn filter(&self, sink: &SinkName) -> Option<impl Fn(&Event) -> bool + Send + Sync + use<>> {
        let sinks = Arc::clone(&self.sinks.borrow());
        let selector = make::selector(sinks.iter().find(|options| options.name == *sink)?).ok()?;
        let routes = self.routes.borrow().clone().unwrap_or_default();
        Some(move |event: &Event| selector.wants(event, &routes))
    }

    /// Returns a function that names the sinks which get the events of a subscription, by the present configuration.
    pub fn sinks_of(&self) -> impl Fn(&SubscriptionKey) -> Vec<SinkName> + Send + Sync + use<> {
        let sinks = Arc::clone(&self.sinks.borrow());
        let named = sinks.iter().filter_map(|sink| Some((sink.name.clone(), make::selector(sink).ok()?)));
        let selectors: Vec<_> = named.collect();
        let routes = self.routes.borrow().clone().unwrap_or_default();
        move |key| {
            let taken = selectors.iter().filter(|(_, selector)| selector.takes(key, &routes));
            taken.map(|(name, _)| name.clone()).collect()
        }
    }

    /// Returns whether the file lists a subscription type of this kind. True while that is not known.
    pub fn lists_type(&self, like: impl Fn(&str) -> bool) -> bool {
        self.routes.borrow().as_ref().is_none_or(|routes| routes.lists_any(like))
    }

    /// Makes file sinks reopen their files before the next write, and retries waiting events at once.
    pub fn reopen(&self) {
        self.reopen.send_modify(|count| *count += 1);
    }

    /// Makes a sink get the events since then again. Returns the number of stored events, of all types. Resolves once the
    /// replay is certain to happen.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn replay(&self, sink: &SinkName, since: Since) -> Result<u64, ResendError> {
        if let Some(shared) = &self.shared {
            self.check(sink)?;
            return shared.replay(sink, since).await.map_err(ResendError::Shared);
        }
        let after = match since {
            Since::Seq(seq) => Seq(seq.0.saturating_sub(1)),
            Since::Time(time) => self.store.before(time).await?,
        };
        let sink = sink.clone();
        self.ask(|reply| Request::Rewind(Rewind { sink, to: after, reply })).await??;
        let (newest, oldest) = (*self.store.last_seq().borrow(), self.store.status().borrow().first_seq);
        Ok(newest.0.saturating_sub(after.0.max(oldest.0.saturating_sub(1))))
    }

    /// Sends a sink a part of what is stored once more: what was stored since and until then, of types that match the
    /// glob. Its place stays; tells how many events they are.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn replay_part(
        &self,
        sink: &SinkName,
        since: Since,
        until: Option<Timestamp>,
        types: Option<String>,
    ) -> Result<Resent, ResendError> {
        self.check(sink)?;
        let sinks = vec![sink.clone()];
        if let Some(shared) = &self.shared {
            let wants = self.filter(sink).ok_or_else(|| ResendError::Unknown(sink.clone()))?;
            let part = Part { sink: sink.clone(), since, until, types, wants };
            let count = shared.replay_part(part).await.map_err(shared_failure)?;
            return Ok(Resent { count, sinks });
        }
        let after = match since {
            Since::Seq(seq) => Seq(seq.0.saturating_sub(1)),
            Since::Time(time) => self.store.before(time).await?,
        };
        let last = match until {
            Some(time) => self.store.before(time).await?,
            None => *self.store.last_seq().borrow(),
        };
        let copied = self.store.copy_for_replay(sink, ReplayPart { after, last, types }).await?;
        if copied > 0 {
            self.ask(|reply| Request::Resend { sinks, reply }).await?;
        }
        Ok(Resent { count: copied, sinks: Vec::new() })
    }

    /// Retries a sink's waiting events now, even if its receiver has asked for a pause.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn retry_now(&self, sink: &SinkName) -> Result<(), ResendError> {
        self.command(sink, Command::Retry).await
    }

    /// Moves the event that holds up a sink to its dead letters, and returns it.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn skip(&self, sink: &SinkName) -> Result<Skipped, ResendError> {
        self.command(sink, Command::Skip).await?.ok_or_else(|| ResendError::NothingFailed(sink.clone()))
    }

    async fn command<T>(
        &self,
        sink: &SinkName,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ResendError> {
        let (done, outcome) = oneshot::channel();
        let (sink, command) = (sink.clone(), command(done));
        let name = sink.clone();
        self.ask(|reply| Request::Command { sink, command, reply }).await??;
        outcome.await.map_err(|_| ResendError::NotRunning(name))
    }

    /// Refuses a sink that the configuration does not have.
    fn check(&self, sink: &SinkName) -> Result<(), ResendError> {
        let is_known = self.sinks.borrow().iter().any(|options| options.name == *sink);
        if is_known { Ok(()) } else { Err(ResendError::Unknown(sink.clone())) }
    }

    /// Sends dead letters again: those that the hosts of a cluster share, and those in the store of this host.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn resend(&self, filter: DeadLetterFilter) -> Result<Resent, ResendError> {
        if let Some(sink) = &filter.sink {
            self.check(sink)?;
        }
        let Some(shared) = &self.shared else {
            let count = self.resend_own(filter).await?;
            return Ok(Resent { count, sinks: Vec::new() });
        };
        let own = if means_local(&filter) { self.resend_own(filter.clone()).await? } else { 0 };
        let (count, sinks) = shared.mark_letters(&filter).await.map_err(shared_failure)?;
        Ok(Resent { count: own + count, sinks: sinks.into_iter().collect() })
    }

    async fn resend_own(&self, filter: DeadLetterFilter) -> Result<u64, ResendError> {
        let sinks: Vec<SinkName> = match &filter.sink {
            Some(sink) => vec![sink.clone()],
            // The status of a sink that another host works is not here.
            None if self.shared.is_some() => {
                self.sinks.borrow().iter().map(|options| options.name.clone()).collect()
            }
            None => {
                let all = self.status.borrow();
                let with = all.values().filter(|status| status.dead_letters > 0);
                with.map(|status| status.name.clone()).collect()
            }
        };
        let many = self.store.mark_dead_letters(filter).await?;
        if many > 0 {
            self.ask(|reply| Request::Resend { sinks, reply }).await?;
        }
        Ok(many)
    }

    /// A page of the dead letters that the hosts of a cluster share, oldest first; `None` without a cluster.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn shared_letters(
        &self,
        filter: &DeadLetterFilter,
        after: i64,
        limit: usize,
    ) -> Result<Option<LetterPage>, ResendError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        shared.letters(filter, after, limit).await.map(Some).map_err(shared_failure)
    }

    /// The dead letters of a sink before a number, newest first, at most `limit`: those that hosts share, then those in the
    /// store of this host.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn newest_letters(
        &self,
        sink: &SinkName,
        before: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ResendError> {
        let mut letters = match &self.shared {
            Some(shared) => shared.newest_letters(sink, before, limit).await.map_err(shared_failure)?,
            None => Vec::new(),
        };
        if letters.len() < limit {
            let before = letters.last().map_or(before, |last| last.id);
            letters.extend(self.store.dead_letters(sink, before, limit - letters.len()).await?);
        }
        Ok(letters)
    }

    /// Has the worker of a sink look for dead letters that are to be sent again.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn look_again(&self, sink: &SinkName) -> Result<(), ResendError> {
        let sinks = vec![sink.clone()];
        self.ask(|reply| Request::Resend { sinks, reply }).await
    }

    /// Removes dead letters for good. Returns their number.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn drop_dead_letters(&self, filter: DeadLetterFilter) -> Result<u64, ResendError> {
        let shared = match &self.shared {
            Some(shared) => shared.drop_letters(&filter).await.map_err(shared_failure)?,
            None => 0,
        };
        let many = shared + self.store.drop_dead_letters(filter).await?;
        self.ask(|reply| Request::Recount { reply }).await?;
        Ok(many)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ResendError> {
        let (reply, outcome) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ResendError::Stopping)?;
        outcome.await.map_err(|_| ResendError::Stopping)
    }
}
