//! As many shards as there shall be.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span};

use super::options::PoolOptions;
use super::shard::{Shard, Statuses};
use super::socket::Shared;
use crate::model::shard::{Bindings, Closed, Lives, Sessions, ShardId, ShardTarget};
use crate::model::status::{IntakeStatus, ShardStatus};
use crate::store::Store;
use crate::telemetry::LogLimit;
use crate::transport::HintCallback;

/// Connections being opened at once, at most. Twitch publishes no limit; clients that open many
/// at once go in batches of ten.
const CONNECTS: usize = 10;

/// State that the pool publishes.
#[derive(Clone, Debug)]
pub struct PoolHandle {
    /// Every shard.
    pub shards: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    /// Counts of messages, duplicates included.
    pub intake: watch::Receiver<IntakeStatus>,
    /// The connection of each shard.
    pub lives: watch::Receiver<Lives>,
    /// The sessions that were closed and read to their end.
    pub closed: watch::Receiver<Closed>,
}

/// The task; see [`pool`].
#[derive(Debug)]
pub struct Pool {
    options: watch::Receiver<PoolOptions>,
    store: Store,
    target: watch::Receiver<Option<ShardTarget>>,
    bindings: watch::Receiver<Bindings>,
    sessions: Arc<watch::Sender<Sessions>>,
    statuses: Arc<watch::Sender<Statuses>>,
    lives: Arc<watch::Sender<Lives>>,
    closed: Arc<watch::Sender<Closed>>,
    intake: Arc<watch::Sender<IntakeStatus>>,
    on_hint: HintCallback,
    log: Arc<LogLimit>,
}

/// Builds the pool; nothing happens until it is run.
///
/// `target` says which shards there shall be, `bindings` which sessions are bound; `sessions` tells
/// which there are. `on_hint` is called for what events and revocations tell the daemon. New options hold for new connections.
pub fn pool(
    options: watch::Receiver<PoolOptions>,
    store: Store,
    target: watch::Receiver<Option<ShardTarget>>,
    bindings: watch::Receiver<Bindings>,
    sessions: watch::Sender<Sessions>,
    on_hint: HintCallback,
) -> (Pool, PoolHandle) {
    let (statuses, shards) = watch::channel(BTreeMap::new());
    let (intake_in, intake) = watch::channel(IntakeStatus::default());
    let (lives_in, lives) = watch::channel(Lives::default());
    let (closed_in, closed) = watch::channel(Closed::default());
    let pool = Pool {
        options,
        store,
        target,
        bindings,
        sessions: Arc::new(sessions),
        statuses: Arc::new(statuses),
        lives: Arc::new(lives_in),
        closed: Arc::new(closed_in),
        intake: Arc::new(intake_in),
        on_hint,
        log: Arc::default(),
    };
    (pool, PoolHandle { shards, intake, lives, closed })
}

impl Pool {
    /// Runs until cancelled; then ends once every socket is closed and read to its end.
    pub async fn run(mut self, cancel: CancellationToken) {
        let connects = Arc::new(Semaphore::new(CONNECTS));
        let mut running: BTreeMap<ShardId, CancellationToken> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let sockets = self.target.borrow_and_update().as_ref().map(|target| Arc::clone(&target.sockets));
            let sockets = sockets.unwrap_or_default();
            for (_, stop) in running.iter().filter(|(id, _)| !sockets.contains(id)) {
                stop.cancel();
            }
            for id in sockets.iter().copied() {
                // One that is wanted again while it still ends starts afterwards: they publish under one number.
                if running.contains_key(&id) {
                    continue;
                }
                let Some(shard) = self.shard(id, &connects) else { break };
                let stop = cancel.child_token();
                running.insert(id, stop.clone());
                let run = shard.run(stop).instrument(error_span!("shard", shard = id.0));
                tasks.spawn(async move {
                    run.await;
                    id
                });
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Ok(()) = self.target.changed() => {}
                Some(ended) = tasks.join_next() => match ended {
                    Ok(id) => drop(running.remove(&id)),
                    // A shard that cannot be trusted any more ends the pool, and that the daemon.
                    Err(panic) => {
                        error!(error = %panic, "a shard's task failed");
                        return;
                    }
                },
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn shard(&mut self, id: ShardId, connects: &Arc<Semaphore>) -> Option<Shard> {
        let options = self.options.borrow().clone();
        let Some(base) = options.uri() else {
            error!(url = options.url, "twitch.eventsub_url is not an address; no shard is opened");
            return None;
        };
        Some(Shard {
            id,
            base,
            shared: Shared {
                store: self.store.clone(),
                outward: options.outward.clone(),
                log: Arc::clone(&self.log),
                intake: Arc::clone(&self.intake),
                on_hint: self.on_hint.clone(),
            },
            timings: options.timings,
            options: self.options.clone(),
            connects: Arc::clone(connects),
            target: self.target.clone(),
            bindings: self.bindings.clone(),
            sessions: Arc::clone(&self.sessions),
            statuses: Arc::clone(&self.statuses),
            lives: Arc::clone(&self.lives),
            closed: Arc::clone(&self.closed),
        })
    }
}
