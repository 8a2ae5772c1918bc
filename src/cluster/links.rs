//! The link between the sockets of all hosts and the reconciler of the leader, in place of the direct one that a host
//! without others has.
//!
//! The pool opens the sockets that this host was given; their sessions go to the leader in the key of this host. The
//! leader's reconciler binds the sessions of all, and its answers go to the hosts in a key of shared values. On the leader
//! itself neither way leads through NATS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::bound::Bound;
use super::clock::now;
use super::handover::{Handover, Share};
use super::lease::Moment;
use super::remembered::own_shards;
use super::run::ClusterHandle;
use super::saving::SaveError;
use super::sessions::{Chosen, Picture};
use crate::model::cluster::{Assigned, Role};
use crate::model::shard::{
    BindOutcome, Binding, Bindings, Closed, HandedOver, Life, Lives, OwnShards, SessionId, Sessions, ShardId,
    ShardSet, ShardTarget,
};
use crate::telemetry::{Lasting, Outage, Publish};

/// Pause after answers that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// The values about shards that the parts of this host publish.
#[derive(Clone, Debug)]
pub struct LocalShards {
    /// The sessions of the pool.
    pub sessions: watch::Receiver<Sessions>,
    /// The connections of the pool.
    pub lives: watch::Receiver<Lives>,
    /// The sessions that the pool has closed and read to their end.
    pub closed: watch::Receiver<Closed>,
    /// The reconciler's answers about the sessions of all hosts.
    pub bindings: watch::Receiver<Bindings>,
    /// The shards that the reconciler wants.
    pub target: watch::Receiver<Option<ShardTarget>>,
    /// Twitch's answers about sessions that this host has bound itself, without a leader.
    pub alone_bindings: watch::Receiver<Bindings>,
    /// Shards of this host that it can bind itself.
    pub alone_free: watch::Receiver<ShardSet>,
}

/// The values about shards that the parts of this host read.
#[derive(Clone, Debug)]
pub struct ShardEnds {
    /// The sessions of all hosts, for the reconciler.
    pub sessions: watch::Receiver<Sessions>,
    /// The connections of all hosts, for the watch over gaps.
    pub lives: watch::Receiver<Lives>,
    /// The sockets of this host, for its pool.
    pub target: watch::Receiver<Option<ShardTarget>>,
    /// The answers about the sessions of this host, for its pool.
    pub bindings: watch::Receiver<Bindings>,
    /// The shards of this host while it has to bind them itself.
    pub own: watch::Receiver<Option<OwnShards>>,
    /// Replaced sessions of all hosts that were read to their end, for the watch over gaps.
    pub handed_over: watch::Receiver<HandedOver>,
    /// Whether a replaced session of this host is not read to its end yet, or the others were not told.
    pub is_closing: watch::Receiver<bool>,
}

/// The task; see [`ShardLinks::new`].
#[derive(Debug)]
pub struct ShardLinks {
    cluster: ClusterHandle,
    sessions: watch::Sender<Sessions>,
    lives: watch::Sender<Lives>,
    target: watch::Sender<Option<ShardTarget>>,
    bindings: watch::Sender<Bindings>,
    own: watch::Sender<Option<OwnShards>>,
    /// The shards that this host was assigned last, as far as it remembers.
    remembered: Option<OwnShards>,
    handed_over: watch::Sender<HandedOver>,
    handed_over_here: watch::Sender<HandedOver>,
    is_closing: watch::Sender<bool>,
}

impl ShardLinks {
    /// Builds the task; nothing happens until it is run. `remembered` are the shards that this host was assigned last.
    pub fn new(cluster: ClusterHandle, remembered: Option<OwnShards>) -> (Self, ShardEnds) {
        let (sessions_in, sessions) = watch::channel(Sessions::default());
        let (lives_in, lives) = watch::channel(Lives::default());
        let (target_in, target) = watch::channel(None);
        let (bindings_in, bindings) = watch::channel(Bindings::default());
        let (own_in, own) = watch::channel(None);
        let (handed_over_in, handed_over) = watch::channel(HandedOver::default());
        let (here_in, _) = watch::channel(HandedOver::default());
        let (closing_in, is_closing) = watch::channel(false);
        let ends = ShardEnds { sessions, lives, target, bindings, own, handed_over, is_closing };
        let task = Self {
            cluster,
            sessions: sessions_in,
            lives: lives_in,
            target: target_in,
            bindings: bindings_in,
            own: own_in,
            remembered,
            handed_over: handed_over_in,
            handed_over_here: here_in,
            is_closing: closing_in,
        };
        (task, ends)
    }

    /// The replaced sessions of this host that were read to their end.
    pub fn handed_over_here(&self) -> watch::Receiver<HandedOver> {
        self.handed_over_here.subscribe()
    }

    /// Runs until cancelled.
    pub async fn run(self, local: LocalShards, cancel: CancellationToken) {
        let mut driver = Driver {
            links: self,
            local,
            handover: Handover::default(),
            written: None,
            next: None,
            outage: Outage::default(),
        };
        let mut saving: OptionFuture<BoxFuture<'static, (Bound, Result<(), SaveError>)>> = None.into();
        let mut is_saving = false;
        let mut retry_at: Option<Moment> = None;
        loop {
            let due = driver.update();
            retry_at = retry_at.filter(|at| *at > now());
            if let Some(due) = due.filter(|_| !is_saving && retry_at.is_none()) {
                saving = Some(driver.save(due)).into();
                is_saving = true;
            }
            let next = [driver.next, retry_at].into_iter().flatten().min();
            tokio::select! {
                () = cancel.cancelled() => return,
                Some((written, outcome)) = &mut saving, if is_saving => {
                    saving = None.into();
                    is_saving = false;
                    retry_at = driver.handle_saved(written, outcome);
                }
                () = driver.changed() => {}
                () = sleep(next.map(|at| at.saturating_sub(now()))) => {}
            }
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Adds the answers about sessions that this host has bound itself to those of the leader, which may not know these sessions
/// yet. A shard that was moved to another host since has the leader's answer.
fn with_alone(bindings: Bindings, by_ourselves: &Bindings, own: &ShardSet) -> Bindings {
    let newer = by_ourselves.iter().filter(|(shard, binding)| {
        own.contains(shard) && !bindings.get(shard).is_some_and(|known| is_bound(known, &binding.session_id))
    });
    let mut newer = newer.peekable();
    if newer.peek().is_none() {
        return bindings;
    }
    let mut all = (*bindings).clone();
    all.extend(newer.map(|(shard, binding)| (*shard, binding.clone())));
    Arc::new(all)
}

fn is_bound(binding: &Binding, session: &SessionId) -> bool {
    binding.session_id == *session && binding.outcome == BindOutcome::Bound
}

struct Driver {
    links: ShardLinks,
    local: LocalShards,
    handover: Handover,
    /// The answers that this host, as the leader, has written last.
    written: Option<Arc<Bound>>,
    /// When sockets have to be looked at again.
    next: Option<Moment>,
    /// Writes that have failed in a row.
    outage: Outage,
}

impl Driver {
    /// Resolves when something has changed.
    async fn changed(&mut self) {
        let (local, cluster) = (&mut self.local, &mut self.links.cluster);
        tokio::select! {
            Ok(()) = local.sessions.changed() => {}
            Ok(()) = local.lives.changed() => {}
            Ok(()) = local.closed.changed() => {}
            Ok(()) = local.bindings.changed() => {}
            Ok(()) = local.target.changed() => {}
            Ok(()) = local.alone_bindings.changed() => {}
            Ok(()) = local.alone_free.changed() => {}
            Ok(()) = cluster.self_binding.is_alone.changed() => {}
            Ok(()) = cluster.leadership.changed() => {}
            Ok(()) = cluster.assigned.changed() => {}
            Ok(()) = cluster.shards.remote.changed() => {}
            Ok(()) = cluster.shards.bound.changed() => {}
            Ok(()) = cluster.shards.handed_over.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Publishes how things are now. Returns the answers that the other hosts have to be told.
    fn update(&mut self) -> Option<Bound> {
        let sessions = self.local.sessions.borrow_and_update().clone();
        let lives = self.local.lives.borrow_and_update().clone();
        let answers = self.local.bindings.borrow_and_update().clone();
        let wanted = self.local.target.borrow_and_update().clone();
        let cluster = &mut self.links.cluster;
        let role = cluster.leadership.borrow_and_update().role;
        let assigned = cluster.assigned.borrow_and_update().clone();
        let remote = cluster.shards.remote.borrow_and_update().clone();
        let told = cluster.shards.bound.borrow_and_update().clone();
        let own = Arc::clone(&cluster.shards.host);
        let is_alone = *cluster.self_binding.is_alone.borrow_and_update();
        let by_ourselves = self.local.alone_bindings.borrow_and_update().clone();
        let free = self.local.alone_free.borrow_and_update().clone();

        let wanted = wanted.filter(|_| role != Role::Standby);
        let bindings = match &wanted {
            Some(wanted) => told.with(&wanted.conduit_id, wanted.shards, &answers).bindings,
            None => Arc::clone(&told.bindings),
        };
        let conduit = wanted.as_ref().map(|wanted| &wanted.conduit_id).or(assigned.conduit_id.as_ref());
        let bound = match (&wanted, conduit) {
            (Some(wanted), _) => told.with(&wanted.conduit_id, wanted.shards, &answers).sessions(),
            (None, conduit) if told.conduit_id.as_ref() == conduit => told.sessions(),
            (None, _) => BTreeMap::new(),
        };
        let picture = Picture {
            own: &own,
            local: &sessions,
            remote: &remote,
            assigned: &assigned.shards,
            bound: &bound,
        };
        // The reconciler of a host that stands by binds nothing.
        if role != Role::Standby {
            self.publish_chosen(picture.choose(), &lives);
        }
        self.open_sockets(&own, &assigned, &sessions, &bindings, &free);
        let own = own_shards(&assigned, &own)
            .or_else(|| self.links.remembered.clone().filter(|_| assigned.epoch == 0));
        let shards = own.as_ref().map(|own| Arc::clone(&own.shards)).unwrap_or_default();
        self.links.bindings.publish(with_alone(bindings, &by_ourselves, &shards));
        self.links.own.publish(own.filter(|_| is_alone && !shards.is_empty()));
        if role != Role::Leader {
            self.written = None;
            return None;
        }
        let wanted = wanted?;
        if told.conduit_id.is_none() {
            // The bucket is new.
            self.written = None;
        }
        let written = self.written.get_or_insert(told);
        let new = written.with(&wanted.conduit_id, wanted.shards, &answers);
        (new != **written).then_some(new)
    }

    /// Publishes the sockets that count, for the reconciler and the watch over gaps.
    fn publish_chosen(&self, chosen: BTreeMap<ShardId, Chosen>, local: &Lives) {
        let life = |(shard, chosen): (&ShardId, &Chosen)| {
            let session_id = chosen.live.session_id.clone();
            let remote = chosen.signs.clone().map(|signs| Life { session_id, signs });
            Some((*shard, remote.or_else(|| local.get(shard).cloned())?))
        };
        self.links.lives.publish(Arc::new(chosen.iter().filter_map(life).collect()));
        let sessions = chosen.into_iter().map(|(shard, chosen)| (shard, chosen.live));
        self.links.sessions.publish(Arc::new(sessions.collect()));
    }

    /// Publishes which sockets this host has.
    fn open_sockets(
        &mut self,
        own: &str,
        assigned: &Assigned,
        sessions: &Sessions,
        bindings: &Bindings,
        free: &ShardSet,
    ) {
        self.next = None;
        let Some(conduit_id) = &assigned.conduit_id else {
            // Before anything is known, sockets stay as they are. A leader of an earlier release has them all.
            if assigned.epoch > 0 {
                self.links.target.publish(None);
            } else {
                self.open_remembered(free);
            }
            return;
        };
        let share = Share { own, conduit_id, assigned: &assigned.shards };
        let opened = self.links.target.borrow().clone();
        let (target, next) = self.handover.poll(share, opened.as_ref(), sessions, bindings, now());
        self.next = next;
        self.publish_handed_over();
        self.links.target.publish(Some(target));
    }

    /// Opens sockets for shards that this host was assigned last and can bind itself, beside those that are open.
    fn open_remembered(&self, free: &ShardSet) {
        let Some(remembered) = self.links.remembered.as_ref().filter(|_| !free.is_empty()) else { return };
        let opened = self.links.target.borrow().clone();
        let mut sockets = opened.map_or_else(ShardSet::default, |opened| opened.sockets);
        Arc::make_mut(&mut sockets).extend(free.iter().copied());
        self.links.target.publish(Some(ShardTarget {
            conduit_id: Arc::clone(&remembered.conduit_id),
            shards: sockets.last().map_or(0, |last| last.0 + 1),
            sockets,
            webhook: None,
        }));
    }

    /// Publishes which replaced sessions were read to their end, here and on all hosts.
    fn publish_handed_over(&mut self) {
        let here = self.handover.poll_done(&self.local.closed.borrow_and_update(), now());
        let told = self.links.cluster.shards.handed_over.borrow_and_update().clone();
        self.links.handed_over_here.publish(Arc::clone(&here));
        let is_closing = self.handover.is_closing() || !here.is_subset(&told);
        self.links.handed_over.publish(Arc::new(here.union(&told).cloned().collect()));
        self.links.is_closing.publish(is_closing);
    }

    /// Takes the outcome of a write. Returns when it is tried again.
    fn handle_saved(&mut self, written: Bound, outcome: Result<(), SaveError>) -> Option<Moment> {
        let at = std::time::Instant::now();
        let Err(error) = outcome else {
            if let Some(Lasting { failures, .. }) = self.outage.handle_success(at) {
                info!(failures, "the other hosts are told again which sessions are bound");
            }
            self.written = Some(Arc::new(written));
            return None;
        };
        if error != SaveError::NotLeading
            && let Some(Lasting { failures, .. }) = self.outage.handle_failure(at)
        {
            warn!(%error, failures, "the other hosts are told later which sessions are bound");
        }
        Some(now() + RETRY)
    }

    fn save(&self, new: Bound) -> BoxFuture<'static, (Bound, Result<(), SaveError>)> {
        let before = self.written.clone().unwrap_or_default();
        let cluster = self.links.cluster.clone();
        Box::pin(async move {
            let outcome = cluster.save(new.changes_from(&before)).await;
            (new, outcome)
        })
    }
}
