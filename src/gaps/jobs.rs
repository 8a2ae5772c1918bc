//! Tasks for the store, one at a time. The driver goes on meanwhile: a disk that hangs must not look like a gap in delivery.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::catch_up::Due;
use super::event::{Told, ToldScope};
use super::memory::{NAME, Row};
use super::sources::SharedText;
use crate::model::event::Event;
use crate::model::route::SinkName;
use crate::model::status::GapReason;
use crate::store::{Store, StoreError};

/// A task for the store, or for the memory that all hosts share.
pub(super) enum Job {
    /// Stores the event of a gap, and has it mended.
    Tell(Event, Option<Due>),
    Keep(Row),
    /// Reads what the leader before this host knew.
    Recall,
    FindLosses,
    /// Forgets losses that were told.
    ForgetLosses(Vec<String>),
    /// Answers a request once everything before it is done.
    Answer(oneshot::Sender<()>),
}

/// The end of a [`Job`].
pub(super) enum Done {
    Told,
    Kept(Result<Row, StoreError>),
    /// The other hosts may not have it: this one does not lead now, or NATS does not answer.
    NotShared,
    /// The row, and the time since a host wrote it, if that is known.
    Recalled(Option<(Row, Option<Duration>)>),
    /// The losses, and their names.
    Losses(Vec<Told>, Vec<String>),
    /// The losses could not be read.
    NoLosses,
    Closed,
}

/// The tasks that wait, and the one that is carried out.
pub(super) struct Jobs {
    store: Store,
    /// The memory that all hosts share; `None` without a cluster.
    shared: Option<Arc<dyn SharedText>>,
    to_mend: mpsc::Sender<Due>,
    waiting: VecDeque<Job>,
    running: Option<BoxFuture<'static, Done>>,
}

impl Jobs {
    pub(super) fn new(store: Store, shared: Option<Arc<dyn SharedText>>, to_mend: mpsc::Sender<Due>) -> Self {
        Self { store, shared, to_mend, waiting: VecDeque::new(), running: None }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Has this carried out before everything that waits.
    pub(super) fn push_front(&mut self, job: Job) {
        self.waiting.push_front(job);
    }

    /// Whether a memory waits to be stored.
    pub(super) fn has_memory(&self) -> bool {
        self.waiting.iter().any(|job| matches!(job, Job::Keep(_)))
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Carries out the next task, and returns its end; never returns while there is none. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Done {
        let started = if self.running.is_none() { self.waiting.pop_front() } else { None };
        if let Some(job) = started {
            self.running = Some(self.start(job));
        }
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let done = running.await;
        self.running = None;
        done
    }

    fn start(&self, job: Job) -> BoxFuture<'static, Done> {
        let (store, to_mend, shared) = (self.store.clone(), self.to_mend.clone(), self.shared.clone());
        Box::pin(async move {
            match job {
                Job::Recall => {
                    let text = match shared {
                        Some(shared) => shared.load().await,
                        None => None,
                    };
                    Done::Recalled(
                        text.and_then(|(text, age)| Some((serde_json::from_str(&text).ok()?, age))),
                    )
                }
                Job::Keep(row) if shared.is_some() => {
                    let text = serde_json::to_string(&row).unwrap_or_default();
                    let is_saved = match shared {
                        Some(shared) => shared.save(text).await,
                        None => false,
                    };
                    if is_saved { Done::Kept(Ok(row)) } else { Done::NotShared }
                }
                Job::Tell(event, due) => tell(&store, event, due, &to_mend).await,
                Job::Keep(row) => match keep(&store, &row).await {
                    Err(StoreError::Closed) => Done::Closed,
                    kept => Done::Kept(kept.map(|()| row)),
                },
                Job::FindLosses => find_losses(&store).await,
                Job::Answer(reply) => {
                    // The other side may have given up waiting.
                    let _ = reply.send(());
                    Done::Told
                }
                Job::ForgetLosses(names) => {
                    if let Err(error) = store.losses_told(names).await {
                        warn!(%error, "lost events may be reported a second time");
                    }
                    Done::Told
                }
            }
        })
    }
}

/// The gap stands before what mends it.
async fn tell(store: &Store, event: Event, due: Option<Due>, to_mend: &mpsc::Sender<Due>) -> Done {
    let Ok(receipt) = store.push(event).await else { return Done::Closed };
    if receipt.stored().await.is_err() {
        return Done::Closed;
    }
    if let Some(due) = due {
        // At the end nobody mends any more: the next start has a gap of its own.
        let _ = to_mend.send(due).await;
    }
    Done::Told
}

/// Stores the memory for the next start.
pub(super) async fn keep(store: &Store, row: &Row) -> Result<(), StoreError> {
    let text = serde_json::to_string(row).unwrap_or_default();
    store.set_settings(vec![(NAME.to_owned(), Some(text))]).await
}

/// One gap a sink for what retention took from it.
async fn find_losses(store: &Store) -> Done {
    let losses = match store.losses().await {
        Ok(losses) => losses,
        Err(StoreError::Closed) => return Done::Closed,
        Err(error) => {
            warn!(%error, "losses cannot be read; trying again");
            return Done::NoLosses;
        }
    };
    let mut sinks: BTreeMap<&SinkName, (Told, u64)> = BTreeMap::new();
    for (_, loss) in &losses {
        let scope = ToldScope::Sink(loss.sink.clone(), 0);
        let told = Told { from: loss.from, to: loss.to, reason: GapReason::Retention, scope };
        let (sum, events) = sinks.entry(&loss.sink).or_insert((told, 0));
        sum.from = sum.from.min(loss.from);
        sum.to = sum.to.max(loss.to);
        *events += loss.events;
    }
    let told = sinks
        .into_iter()
        .map(|(sink, (told, events))| Told { scope: ToldScope::Sink(sink.clone(), events), ..told })
        .collect();
    Done::Losses(told, losses.into_iter().map(|(name, _)| name).collect())
}
