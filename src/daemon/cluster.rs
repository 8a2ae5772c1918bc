//! The cluster, wired to the other parts: which values it shares, what it tells of this host, how it hands over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cluster_work::WorkSources;
use super::memory::{OF_HOSTS, StoreMemory};
use super::options;
use crate::admin::{Control, Retried, SkippedEvent};
use crate::auth::Outward;
use crate::cluster::{
    Asked, Cluster, ClusterError, ClusterHandle, Feed, FeedTask, HostFacts, HostSocket, HostSockets, Inputs,
    LogLimits, LogReader, NatsReport, RememberedShards, ShardLinks, SharedLetters, SharedLog, Work, cluster,
    examine_nats, feed,
};
pub(super) use crate::cluster::{LocalShards, ShardEnds};
use crate::config::Config;
use crate::delivery::{
    ACKNOWLEDGED, BEHIND, DeliveryHandle, Forwarder, SharedWork, SinkOptions, Skipped, forwarder, skip_to,
};
use crate::gaps::{GapHosts, LatestEvents, SharedText};
use crate::helix::MaySend;
use crate::model::cluster::{
    Assigned, ClusterOptions, ClusterStatus, DaemonRequest, ForwardStatus, HostState, HostStatus,
    LeaderRequest, Leadership, SinkRequest,
};
use crate::model::event::{Event, Seq};
use crate::model::hint::Hint;
use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};
use crate::model::route::SinkName;
use crate::model::shard::{HandedOver, LiveSession, Lives, Sessions, ShardBindings, ShardId, ShardTarget};
use crate::model::status::{ProblemKind, ReconcileStatus, ShardStatus, SinkStatus};
use crate::model::text::chain;
use crate::reconcile::{Memory, MemoryError};
use crate::store::{Store, StoreError};
use crate::telemetry::Publish;
use crate::transport::HintCallback;

/// Setting that holds the last event that was stored before this host joined the cluster.
const JOINED: &str = "cluster.joined";
/// Setting that names the state directory.
const INSTANCE: &str = "cluster.instance";
/// Setting that holds the shards that this host was assigned last.
const ASSIGNED: &str = "cluster.assigned";
/// Pause after a store that could not be written.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// Time in which a lease can be given up.
const RESIGN: Duration = Duration::from_secs(1);
/// Time in which the sockets of shards that were handed over close, and the other hosts know.
const CLOSE: Duration = Duration::from_secs(1);
/// Time in which other hosts are expected to have bound the shards of this one, which are read on for two seconds then.
const HANDOVER: Duration = Duration::from_millis(4_500);

/// Time in which the leader is expected to assign the sinks of this host to others.
const SINKS_OVER: Duration = Duration::from_secs(2);

/// Evidence of what this host has.
#[derive(Clone, Debug)]
pub(super) struct FactSources {
    pub(super) fingerprint: watch::Receiver<String>,
    pub(super) shards: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) sinks: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) bindings: watch::Receiver<ShardBindings>,
    pub(super) sink_options: watch::Receiver<Arc<[SinkOptions]>>,
    pub(super) forward: watch::Receiver<ForwardStatus>,
    /// Called with the hints that other hosts tell.
    pub(super) on_hint: HintCallback,
    /// The sockets of this host, and the answers about those of all hosts.
    pub(super) local: LocalShards,
    pub(super) reconcile: watch::Receiver<ReconcileStatus>,
    /// Takes requests to the workers of sinks.
    pub(super) delivery: DeliveryHandle,
}

/// The task of the cluster, with what this host tells of itself.
#[derive(Debug)]
pub(super) struct ClusterTask {
    task: Cluster,
    facts: watch::Sender<HostFacts>,
    work: watch::Sender<Work>,
    hints: mpsc::Receiver<Hint>,
    asked: mpsc::Receiver<Asked<DaemonRequest>>,
    links: ShardLinks,
    feed: FeedTask,
    assigned: Remembering,
}

/// Keeps the shards that this host is assigned in its store, for a start while NATS is away.
#[derive(Debug)]
struct Remembering {
    store: Store,
    assigned: watch::Receiver<Assigned>,
    /// Names of the cluster and of this host.
    names: (String, String),
    /// The text in the store.
    stored: Option<String>,
}

impl Remembering {
    /// Runs until dropped.
    async fn run(mut self) {
        loop {
            let (cluster, host) = &self.names;
            let known = RememberedShards::of(&self.assigned.borrow_and_update(), cluster, host);
            let text = known.map(|known| known.text());
            let mut retry = None;
            if text.is_some() && text != self.stored {
                // A failing disk is reported by the writer.
                match self.store.set_settings(vec![(ASSIGNED.to_owned(), text.clone())]).await {
                    Ok(()) => self.stored = text,
                    Err(_) => retry = Some(STORE_PAUSE),
                }
            }
            tokio::select! {
                Ok(()) = self.assigned.changed() => {}
                () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }
}

/// The task that copies events to the shared log.
pub(super) type ForwardTask = Forwarder;

/// The cluster that this host belongs to; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ClusterLink {
    cluster: ClusterHandle,
    log: SharedLog,
    feed: Feed,
    letters: SharedLetters,
    /// The last event that was stored before this host joined.
    joined: Seq,
    options: ClusterOptions,
    shards: ShardEnds,
}

/// Joins the cluster that the configuration names, once the task runs.
pub(super) async fn join(
    config: &Config,
    store: &Store,
    outward: &Outward,
) -> Result<Option<(ClusterTask, ClusterLink)>, StoreError> {
    let Some(options) = options::cluster(config) else {
        if !store.settings(JOINED).await?.is_empty() {
            // Joining again begins with what is stored then.
            let gone = [JOINED, BEHIND].map(|name| (name.to_owned(), None));
            store.set_settings(gone.to_vec()).await?;
        }
        return Ok(None);
    };
    let mut known = store.settings("").await?;
    let joined = joined(&known, store).await?;
    let instance = known.iter().find(|(name, _)| name == INSTANCE).map(|(_, value)| value.clone());
    let instance = match instance {
        Some(instance) => instance,
        None => {
            let new = uuid::Uuid::new_v4().to_string();
            store.set_settings(vec![(INSTANCE.to_owned(), Some(new.clone()))]).await?;
            new
        }
    };
    let setting = |wanted: &str| known.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.clone());
    let acknowledged = setting(ACKNOWLEDGED).and_then(|text| serde_json::from_str(&text).ok());
    let stored = setting(ASSIGNED);
    let remembered =
        stored.as_ref().and_then(|text| RememberedShards::read(text, &options.name, &options.host));
    let limits = LogLimits { retain: config.store.retain, max_size: config.store.max_size.as_u64() };
    let log = SharedLog::new(options.clone(), (**outward.tls()).clone(), limits, acknowledged);
    known.retain(|(name, _)| OF_HOSTS.iter().any(|prefix| name.starts_with(prefix)));
    let facts = HostFacts { fingerprint: options::fingerprint(config), ..HostFacts::default() };
    let (facts, told) = watch::channel(facts);
    let (work, assigned_work) = watch::channel(Work::default());
    let (daemon, asked) = mpsc::channel(4);
    let inputs = Inputs { facts: told, work: assigned_work, daemon };
    let (task, cluster, hints) = cluster(options.clone(), (**outward.tls()).clone(), instance, inputs, known);
    let (links, shards) = ShardLinks::new(cluster.clone(), remembered);
    let names = (options.name.clone(), options.host.clone());
    let assigned = Remembering { store: store.clone(), assigned: cluster.assigned.clone(), names, stored };
    let (feed_task, feed) = feed(log.clone());
    let letters = SharedLetters::new(log.clone());
    let link = ClusterLink { cluster, log, feed, letters, joined, options, shards };
    Ok(Some((ClusterTask { task, facts, work, hints, asked, links, feed: feed_task, assigned }, link)))
}

/// The last event that was stored before this host joined the cluster.
async fn joined(known: &[(String, String)], store: &Store) -> Result<Seq, StoreError> {
    let remembered = known.iter().find(|(name, _)| name == JOINED).and_then(|(_, seq)| seq.parse().ok());
    if let Some(seq) = remembered {
        return Ok(Seq(seq));
    }
    let last = *store.last_seq().borrow();
    skip_to(store, last).await?;
    store.set_settings(vec![(JOINED.to_owned(), Some(last.0.to_string()))]).await?;
    Ok(last)
}

impl ClusterTask {
    /// Runs until cancelled.
    pub(super) async fn run(
        self,
        sources: FactSources,
        control: Arc<dyn Control>,
        cancel: CancellationToken,
    ) {
        let Self { task, facts, work, mut hints, asked, links, feed, assigned } = self;
        let local = sources.local.clone();
        let handed_over = links.handed_over_here();
        let work_sources = WorkSources {
            target: sources.target.clone(),
            bindings: sources.bindings.clone(),
            sinks: sources.sink_options.clone(),
        };
        let on_hint = sources.on_hint.clone();
        let hear = async {
            while let Some(hint) = hints.recv().await {
                (on_hint.0)(hint);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = hear => {}
            () = task.run(cancel.clone()) => {}
            () = links.run(local, cancel.clone()) => {}
            () = feed.run(cancel) => {}
            () = work_sources.publish(work) => {}
            () = carry_out(asked, control, sources.delivery.clone()) => {}
            () = tell(sources, handed_over, facts) => {}
            () = assigned.run() => {}
        }
    }
}

/// Carries out what is asked of the leader, or of the host that works a sink.
async fn carry_out(
    mut asked: mpsc::Receiver<Asked<DaemonRequest>>,
    control: Arc<dyn Control>,
    delivery: DeliveryHandle,
) {
    while let Some(Asked { request, reply, .. }) = asked.recv().await {
        let text = match request {
            DaemonRequest::Apply { allow_deletes } => json(&control.apply(allow_deletes)),
            DaemonRequest::Status => json(&control.status()),
            DaemonRequest::Sink(request) => carry_out_here(request, &delivery).await,
        };
        // The other host may have given up waiting.
        let _ = reply.send(text);
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

/// Carries out a request to a worker of this host.
async fn carry_out_here(request: SinkRequest, delivery: &DeliveryHandle) -> Result<String, String> {
    let done = match &request {
        SinkRequest::Skip { sink } => delivery
            .skip(sink)
            .await
            .map(|Skipped { seq, subscription_type }| json(&SkippedEvent { seq, subscription_type })),
        SinkRequest::Retry { sink } => delivery.retry_now(sink).await.map(|()| json(&Retried {})),
        SinkRequest::Resend { sink } => delivery.look_again(sink).await.map(|()| json(&())),
    };
    done.map_err(|error| error.to_string())?
}

/// Keeps up to date what this host tells of itself.
async fn tell(
    mut sources: FactSources,
    mut handed_over: watch::Receiver<HandedOver>,
    facts: watch::Sender<HostFacts>,
) {
    loop {
        let shards: BTreeSet<u32> = delivering(&sources.shards.borrow_and_update());
        let hooks: BTreeSet<u32> = delivering(&sources.hooks.borrow_and_update());
        let sinks = sources.sinks.borrow_and_update().keys().map(ToString::to_string).collect();
        let forward_lag = sources.forward.borrow_and_update().lag_events;
        // The next sign of life tells it; it changes too often for one of its own.
        facts.send_if_modified(|facts| {
            facts.forward_lag = forward_lag;
            false
        });
        let sessions = sources.local.sessions.borrow_and_update().clone();
        let lives = sources.local.lives.borrow_and_update().clone();
        let is_failing = shards.is_empty() && hooks.is_empty() && fails(&mut sources);
        let new = HostFacts {
            fingerprint: sources.fingerprint.borrow_and_update().clone(),
            is_failing,
            shards: shards.union(&hooks).copied().collect(),
            sinks,
            forward_lag,
            sockets: Arc::new(sockets(&sessions, &lives)),
            handed_over: handed_over.borrow_and_update().clone(),
        };
        facts.publish(new);
        tokio::select! {
            Ok(()) = sources.fingerprint.changed() => {}
            Ok(()) = sources.shards.changed() => {}
            Ok(()) = sources.hooks.changed() => {}
            Ok(()) = sources.sinks.changed() => {}
            Ok(()) = sources.forward.changed() => {}
            Ok(()) = sources.local.sessions.changed() => {}
            Ok(()) = sources.local.lives.changed() => {}
            Ok(()) = handed_over.changed() => {}
            Ok(()) = sources.reconcile.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Whether sockets or requests fail for want of Twitch.
fn fails(sources: &mut FactSources) -> bool {
    let is_outage = sources.reconcile.borrow_and_update().problem_kind == Some(ProblemKind::Outage);
    is_outage || sources.shards.borrow().values().any(|shard| shard.problem.is_some())
}

fn delivering(shards: &BTreeMap<ShardId, ShardStatus>) -> BTreeSet<u32> {
    shards.values().filter(|shard| shard.state.delivers()).map(|shard| shard.shard.0).collect()
}

/// The sessions of this host with their signs of life.
fn sockets(sessions: &Sessions, lives: &Lives) -> HostSockets {
    let socket = |(shard, live): (&ShardId, &LiveSession)| {
        let life = lives.get(shard).filter(|life| life.session_id == live.session_id)?;
        Some((*shard, HostSocket { live: live.clone(), signs: life.signs.clone() }))
    };
    sessions.iter().filter_map(socket).collect()
}

impl ClusterLink {
    /// Asks the leader; the answer is JSON.
    pub(super) async fn ask(&self, request: LeaderRequest) -> Result<String, String> {
        self.cluster.ask(request).await
    }

    /// The values that pool, reconciler and watch over gaps read in place of each other's.
    pub(super) fn shards(&self) -> ShardEnds {
        self.shards.clone()
    }

    pub(super) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.cluster.leadership.clone()
    }

    pub(super) fn status(&self) -> watch::Receiver<ClusterStatus> {
        self.cluster.status.clone()
    }

    /// Copies the events of this host to the shared log. The last value is that log, for the sinks of this host.
    pub(super) async fn forwarder(
        &self,
        store: Store,
    ) -> Result<(ForwardTask, watch::Receiver<ForwardStatus>, SharedWork), StoreError> {
        let (task, status) = forwarder(store, self.log.clone(), &self.options).await?;
        let shared = SharedWork {
            places: self.cluster.places.clone(),
            feed: self.feed.clone(),
            letters: self.letters.clone(),
            joined: self.joined,
            forwarded: task.forwarded(),
        };
        Ok((task, status, shared))
    }

    /// Tells the other hosts a hint that has reached this one.
    pub(super) fn hint(&self, hint: Hint) {
        self.cluster.hint(hint);
    }

    /// Whether requests may go to Twitch from here.
    pub(super) fn may_send(&self) -> MaySend {
        let gate = self.cluster.gate.clone();
        MaySend(Arc::new(move || gate.is_open()))
    }

    /// Whether this host may bind its own shards itself.
    pub(super) fn may_bind_own(&self) -> MaySend {
        let gate = self.cluster.self_binding_gate();
        MaySend(Arc::new(move || gate.is_open()))
    }

    /// The memory that the hosts share. What is known of it stays in the store of this host, for a start without NATS.
    pub(super) fn memory(&self, store: Store) -> Arc<dyn Memory> {
        Arc::new(SharedMemory { cluster: self.cluster.clone(), local: StoreMemory(store) })
    }

    /// The other hosts, for the watch over gaps.
    pub(super) fn gap_hosts(&self, store: Store) -> GapHosts {
        let memory = Arc::new(SharedMemory { cluster: self.cluster.clone(), local: StoreMemory(store) });
        GapHosts {
            leadership: self.leadership(),
            memory: Arc::new(GapText(memory)),
            latest: Arc::new(Latest(self.log.clone())),
        }
    }

    /// Has other hosts take over the shards and the sinks of this one, if there are any, and waits until they have. The leader
    /// binds the shards meanwhile, also if it is this host.
    pub(super) async fn hand_over(&self) {
        self.cluster.leave().await;
        let (is_alone, shards) = {
            let status = self.cluster.status.borrow();
            let is_other = |host: &HostStatus| host.name != status.host && host.state == HostState::Up;
            let is_alone = !status.connected || status.leader.is_none() || !status.hosts.iter().any(is_other);
            (is_alone, self.shards.target.borrow().as_ref().map_or(0, |target| target.sockets.len()))
        };
        if is_alone {
            return;
        }
        tokio::join!(self.shards_are_over(shards), self.sinks_are_over());
    }

    async fn shards_are_over(&self, shards: usize) {
        if shards == 0 {
            return;
        }
        let mut target = self.shards.target.clone();
        let is_over =
            |target: &Option<ShardTarget>| target.as_ref().is_none_or(|target| target.sockets.is_empty());
        if timeout(HANDOVER, target.wait_for(is_over)).await.is_err() {
            warn!(shards, "other hosts have not bound all shards of this one yet");
            return;
        }
        info!(shards, "handed over");
        let mut is_closing = self.shards.is_closing.clone();
        // Without it a gap is told that may not have been one.
        let _ = timeout(CLOSE, is_closing.wait_for(|is_closing| !is_closing)).await;
    }

    /// Waits until the sinks are assigned to others, but for those that are pinned here. Their workers end then.
    async fn sinks_are_over(&self) {
        let mut assigned = self.cluster.assigned.clone();
        let host = self.options.host.as_str();
        let is_over = |assigned: &Assigned| assigned.sinks.values().all(|of| **of != *host);
        // The next worker waits for the end of this one.
        let _ = timeout(SINKS_OVER, assigned.wait_for(is_over)).await;
    }

    /// Gives the lease up, if this host has it.
    pub(super) async fn resign(&self) {
        if timeout(RESIGN, self.cluster.resign()).await.is_err() {
            warn!("the lease could not be given up; another host leads once it has ended");
        }
    }
}

/// See [`ClusterLink::memory`].
struct SharedMemory {
    cluster: ClusterHandle,
    local: StoreMemory,
}

impl SharedMemory {
    /// Makes the store of this host hold the same values, as far as they differ.
    async fn copy(&self, prefix: &str, values: &[(String, String)]) -> Result<(), MemoryError> {
        let shared: BTreeMap<&str, &str> =
            values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let local = self.local.load(prefix).await?;
        let known: BTreeMap<&str, &str> =
            local.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut changes: Vec<(String, Option<String>)> = Vec::new();
        for (name, value) in &shared {
            if known.get(name) != Some(value) {
                changes.push(((*name).to_owned(), Some((*value).to_owned())));
            }
        }
        let gone = known.keys().filter(|name| !shared.contains_key(*name));
        changes.extend(gone.map(|name| ((*name).to_owned(), None)));
        if changes.is_empty() { Ok(()) } else { self.local.save(changes).await }
    }
}

impl Memory for SharedMemory {
    fn load(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, String)>, MemoryError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            let Some(values) = self.cluster.load(&prefix).await else {
                return self.local.load(&prefix).await;
            };
            if let Err(error) = self.copy(&prefix, &values).await {
                warn!(error = chain(&error), "what the cluster knows could not be stored on this host");
            }
            Ok(values)
        })
    }

    fn save(&self, changes: Vec<(String, Option<String>)>) -> BoxFuture<'_, Result<(), MemoryError>> {
        Box::pin(async move {
            self.cluster.save(changes.clone()).await.map_err(|error| MemoryError::Shared(Box::new(error)))?;
            self.local.save(changes).await
        })
    }
}

/// The memory of the watch over gaps.
struct GapText(Arc<SharedMemory>);

/// Name of the value that the watch over gaps shares.
const GAPS: &str = "gaps.memory";

impl SharedText for GapText {
    fn load(&self) -> BoxFuture<'static, Option<(String, Option<Duration>)>> {
        let memory = Arc::clone(&self.0);
        Box::pin(async move {
            // The age comes first: that of an older text makes a gap longer, that of a newer one would make it shorter.
            let age = memory.cluster.gap_age().await;
            let (_, text) = memory.load(GAPS).await.ok()?.pop()?;
            Some((text, age))
        })
    }

    fn save(&self, text: String) -> BoxFuture<'static, bool> {
        let memory = Arc::clone(&self.0);
        Box::pin(async move { memory.save(vec![(GAPS.to_owned(), Some(text))]).await.is_ok() })
    }
}

/// The newest events of channels, from the shared log.
#[derive(Debug)]
struct Latest(SharedLog);

impl LatestEvents for Latest {
    fn read(&self, channels: Vec<Box<str>>) -> BoxFuture<'static, Result<Vec<Event>, String>> {
        let log = self.0.clone();
        Box::pin(async move {
            log.latest(&[ONLINE, OFFLINE, CHANNEL], &channels).await.map_err(|error| error.to_string())
        })
    }
}

/// Connects to the shared log of the configuration, for reading; `None` without `[cluster]`.
pub async fn open_log(config: &Config, outward: &Outward) -> Option<Result<LogReader, ClusterError>> {
    let options = options::cluster(config)?;
    Some(LogReader::open(&options, (**outward.tls()).clone()).await)
}

/// Connects to the NATS servers of the configuration and looks; `None` without `[cluster]`.
pub async fn try_cluster(config: &Config, outward: &Outward) -> Option<Result<NatsReport, ClusterError>> {
    let options = options::cluster(config)?;
    Some(examine_nats(&options, (**outward.tls()).clone()).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SaveError;

    #[test]
    fn a_write_that_fails_says_what_why_and_what_to_do() {
        let text = |error: SaveError| chain(&MemoryError::Shared(Box::new(error)));
        assert_eq!(
            text(SaveError::NotLeading),
            "what the hosts of the cluster share cannot be written: this host does not lead the cluster any more, and \
             the next leader goes on; `eventsubd hosts` shows who leads"
        );
        assert_eq!(
            text(SaveError::NoAnswer),
            "what the hosts of the cluster share cannot be written: NATS did not answer, and the write is tried again; \
             if this lasts, look at `eventsubd status` here and at `systemctl status nats-server` on the hosts of NATS"
        );
    }
}
