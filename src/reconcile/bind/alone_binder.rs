//! The task that binds this host's own shards while no host can lead; see [`super::alone`].

use std::sync::Arc;

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::alone::AloneShards;
use crate::helix::{Helix, HelixError, MaySend, Rows, ShardRow, Transport};
use crate::model::shard::{Bindings, OwnShards, SessionId, Sessions, ShardId, ShardSet, ShardTarget};
use crate::model::text::chain;
use crate::reconcile::api::{Api, Refused};
use crate::telemetry::{Lasting, Outage, Publish};

/// The values that the task reads.
#[derive(Clone, Debug)]
pub struct AloneInputs {
    /// The shards of this host while it is alone.
    pub own: watch::Receiver<Option<OwnShards>>,
    /// The sessions of this host.
    pub sessions: watch::Receiver<Sessions>,
    /// Known bindings of those sessions.
    pub bindings: watch::Receiver<Bindings>,
    /// The sockets of this host.
    pub target: watch::Receiver<Option<ShardTarget>>,
}

/// The values that the task publishes.
#[derive(Clone, Debug)]
pub struct AloneEnds {
    /// Twitch's answers about sessions of this host.
    pub bindings: watch::Receiver<Bindings>,
    /// Shards of this host that can be bound: a host that starts opens sockets for them.
    pub free: watch::Receiver<ShardSet>,
}

/// The task; see [`alone_binder`].
#[derive(Debug)]
pub struct AloneBinder {
    api: Helix,
    inputs: AloneInputs,
    bindings: watch::Sender<Bindings>,
    free: watch::Sender<ShardSet>,
}

/// Builds the task; nothing happens until it is run. `may_send` is asked right before each request.
pub fn alone_binder(helix: &Helix, may_send: MaySend, inputs: AloneInputs) -> (AloneBinder, AloneEnds) {
    let (bindings, bindings_out) = watch::channel(Bindings::default());
    let (free, free_out) = watch::channel(ShardSet::default());
    let task = AloneBinder { api: helix.with_may_send(may_send), inputs, bindings, free };
    (task, AloneEnds { bindings: bindings_out, free: free_out })
}

/// The answer about one session; `None` if there was none.
type Answered = (ShardId, SessionId, Option<Result<(), Refused>>);

/// The end of a request.
enum Done {
    Listed(Arc<str>, Result<Rows<ShardRow>, HelixError>),
    Bound(Vec<Answered>, Option<HelixError>),
}

impl AloneBinder {
    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let (mut core, mut outage) = (AloneShards::default(), Outage::default());
        let mut work: OptionFuture<BoxFuture<'static, Done>> = None.into();
        let mut is_working = false;
        loop {
            let opened = self.update(&mut core);
            let now = Instant::now();
            if !is_working && let Some(conduit_id) = core.poll_look(&opened, now.into_std()) {
                work = Some(list(self.api.clone(), conduit_id)).into();
                is_working = true;
            }
            let next = core.poll_timeout(&opened, now.into_std()).filter(|_| !is_working);
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(done) = &mut work, if is_working => {
                    let next = self.handle(&mut core, &mut outage, done);
                    is_working = next.is_some();
                    work = next.into();
                }
                Ok(()) = self.inputs.own.changed() => {}
                Ok(()) = self.inputs.sessions.changed() => {}
                Ok(()) = self.inputs.bindings.changed() => {}
                Ok(()) = self.inputs.target.changed() => {}
                () = sleep_until(next.map_or(now, Instant::from_std)), if next.is_some() => {}
            }
        }
    }

    /// Takes how things are, and publishes. Returns the shards that have a socket.
    fn update(&mut self, core: &mut AloneShards) -> ShardSet {
        let own = self.inputs.own.borrow_and_update().clone();
        let sessions = self.inputs.sessions.borrow_and_update().clone();
        let bindings = self.inputs.bindings.borrow_and_update().clone();
        let target = self.inputs.target.borrow_and_update().clone();
        core.handle_state(own.as_ref(), &sessions, &bindings);
        self.bindings.publish(core.bindings());
        self.free.publish(core.free());
        target.map_or_else(ShardSet::default, |target| target.sockets)
    }

    /// Takes the end of a request; returns the next one that it leads to.
    fn handle(
        &self,
        core: &mut AloneShards,
        outage: &mut Outage,
        done: Done,
    ) -> Option<BoxFuture<'static, Done>> {
        let now = Instant::now().into_std();
        match done {
            Done::Listed(conduit_id, rows) => {
                log(outage, rows.as_ref().err(), now);
                let rows = rows.ok();
                let is_whole = rows.as_ref().is_some_and(|rows| rows.unread.is_empty());
                let rows = rows.as_ref().map(|rows| &*rows.rows);
                let due = core.handle_list(&conduit_id, rows, is_whole, now);
                (!due.is_empty()).then(|| bind(self.api.clone(), conduit_id, due))
            }
            Done::Bound(answers, failure) => {
                log(outage, failure.as_ref(), now);
                for (shard, session, answer) in answers {
                    if answer == Some(Ok(())) {
                        info!(shard = shard.0, "without a leader, this host has bound its shard itself");
                    }
                    core.handle_answer(shard, session, answer.as_ref());
                }
                None
            }
        }
    }
}

fn log(outage: &mut Outage, failure: Option<&HelixError>, now: std::time::Instant) {
    match failure {
        // NATS answers again.
        Some(HelixError::StandingBy) => {}
        Some(failure) => {
            if let Some(Lasting { failures, .. }) = outage.handle_failure(now) {
                warn!(error = chain(failure), failures, "this host cannot bind its own shards; trying again");
            }
        }
        None => drop(outage.handle_success(now)),
    }
}

fn list(api: Helix, conduit_id: Arc<str>) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let rows = api.shards(&conduit_id).await;
        Done::Listed(conduit_id, rows)
    })
}

fn bind(api: Helix, conduit_id: Arc<str>, due: Vec<(ShardId, SessionId)>) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let asked: Vec<(ShardId, Transport)> =
            due.iter().map(|(shard, session)| (*shard, Transport::Session(session.clone()))).collect();
        let (answers, failure) = match Api::bind_shards(&api, &conduit_id, &asked).await {
            Ok(answers) => (answers, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        let mut answers: std::collections::BTreeMap<_, _> = answers.into_iter().collect();
        let answered = due.into_iter().map(|(shard, session)| (shard, session, answers.remove(&shard)));
        Done::Bound(answered.collect(), failure)
    })
}
