//! The task that binds sessions to their shards within the 10 seconds, and watches that they stay
//! bound. Creates never hold it up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::hooks::Hooks;
use super::reach::Prover;
use super::schedule::Schedule;
use super::shards::{BindTimes, Mismatch, Shards};
use crate::helix::{HelixError, ShardRow, Transport};
use crate::model::pulse::Pulse;
use crate::model::shard::{
    Bindings, Sessions, ShardBinding, ShardBindings, ShardId, ShardTarget, WebhookTarget,
};
use crate::model::status::ShardStatus;
use crate::model::text::chain;
use crate::model::webhook::KeyId;
use crate::reconcile::ReconcileOptions;
use crate::reconcile::api::{Api, BindAnswers, Refused};
use crate::reconcile::clock::timestamp_of;
use crate::reconcile::hints::Hints;
use crate::telemetry::Publish;

/// Calls in hand at most; what comes due meanwhile goes together into the next one.
const CALLS: usize = 4;

/// Time that a stop leaves to the look that the end of the sessions has caused.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Time for which the status shows that a shard was taken.
const TAKEN_SHOWN: Duration = Duration::from_secs(3600);

/// Pause between two log lines about a conduit without any bound shard.
const UNBOUND_REPEATED: Duration = Duration::from_secs(3600);

/// State of the shards, for the loop and the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::reconcile) struct ShardReport {
    pub(in crate::reconcile) conduit_id: Option<Arc<str>>,
    /// Shards that deliver to us.
    pub(in crate::reconcile) bound: u32,
    /// For people, each with what to do.
    pub(in crate::reconcile) warnings: Vec<String>,
    /// The secrets of the callbacks that Twitch lists; `None` before it was asked.
    pub(in crate::reconcile) keys: Option<BTreeSet<KeyId>>,
    /// Whether the only shard needs another one while it is moved to a callback.
    pub(in crate::reconcile) wants_stand_in: bool,
    /// Whether all shards are to call, and do.
    pub(in crate::reconcile) all_call: bool,
}

/// The channel ends that [`Binder::run`] owns.
#[derive(Debug)]
pub(in crate::reconcile) struct Binder<A> {
    pub(in crate::reconcile) api: A,
    pub(in crate::reconcile) options: ReconcileOptions,
    pub(in crate::reconcile) target: watch::Receiver<Option<ShardTarget>>,
    pub(in crate::reconcile) sessions: watch::Receiver<Sessions>,
    pub(in crate::reconcile) bindings: watch::Sender<Bindings>,
    /// The shards that call.
    pub(in crate::reconcile) hooks: watch::Sender<BTreeMap<ShardId, ShardStatus>>,
    /// How long shards are known to have been bound.
    pub(in crate::reconcile) tenures: watch::Sender<ShardBindings>,
    pub(in crate::reconcile) prover: Prover,
    pub(in crate::reconcile) report: watch::Sender<ShardReport>,
    /// Told when Twitch does not know the conduit.
    pub(in crate::reconcile) trouble: Arc<Notify>,
    /// Tells when a look at the shards is due before its time.
    pub(in crate::reconcile) hints: Arc<Hints>,
    pub(in crate::reconcile) pulse: Pulse,
}

/// Reasons why a call to bind shards has no answers.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("the callback cannot be reached: {0}")]
    Callback(String),
    #[error(transparent)]
    Api(HelixError),
}

impl BindError {
    /// Whether nothing was sent, as this host does not lead.
    fn stands_by(&self) -> bool {
        matches!(self, Self::Api(HelixError::StandingBy))
    }
}

type Asked = Vec<(ShardId, Transport)>;
type Call = (Arc<str>, Asked, Result<BindAnswers, BindError>);
type Look = (Arc<str>, Instant, Result<Vec<ShardRow>, HelixError>);

impl<A: Api> Binder<A> {
    /// Runs until cancelled.
    pub(in crate::reconcile) async fn run(mut self, cancel: CancellationToken) {
        let times = BindTimes {
            window: self.options.bind_window,
            retry: self.options.bind_retry,
            late_retry: self.options.bind_retry * 5,
        };
        let mut state = State {
            shards: Shards::new(times),
            hooks: Hooks::new(self.options.retry),
            unbound_since: None,
            unbound_logged: None,
            stands_by: false,
            taken: Vec::new(),
        };
        let mut calls: FuturesUnordered<BoxFuture<'static, Call>> = FuturesUnordered::new();
        let mut look: OptionFuture<BoxFuture<'static, Look>> = None.into();
        let mut schedule = Schedule::new(self.poll_pause(), self.options.shard_poll.1, now());
        self.handle_target(&mut state, &mut schedule);
        loop {
            self.pulse.beat();
            while calls.len() < CALLS {
                let asked = state.poll_due();
                let Some(target) = state.shards.target().filter(|_| !asked.is_empty()) else { break };
                let prove = target.webhook.clone().map(|webhook| (self.prover.clone(), webhook));
                calls.push(Box::pin(bind(self.api.clone(), target.conduit_id.clone(), asked, prove)));
            }
            if schedule.poll_publish(state.shards.len(), now()) {
                self.publish(&mut state);
            }
            if let Some(at) = state.hooks.poll_timeout() {
                schedule.expect_callbacks(at);
            }
            if schedule.poll_look(self.poll_pause(), now())
                && let Some(target) = state.shards.target()
            {
                let list = list(self.api.clone(), target.conduit_id.clone());
                look = Some(Box::pin(list) as BoxFuture<'_, _>).into();
                schedule.start_look();
            }
            schedule.set_retry(state.shards.poll_timeout().filter(|_| calls.len() < CALLS));
            schedule.set_warning(state.unbound_warning_at(self.options.unbound_warning));
            tokio::select! {
                () = cancel.cancelled() => {
                    if schedule.is_looking() && let Ok(Some(rows)) = timeout(LAST_LOOK, &mut look).await {
                        self.handle_list(&mut state, rows);
                        self.publish(&mut state);
                    }
                    return;
                }
                Ok(()) = self.target.changed() => self.handle_target(&mut state, &mut schedule),
                Ok(()) = self.sessions.changed() => self.handle_target(&mut state, &mut schedule),
                Some(call) = calls.next() => self.handle_answers(&mut state, call),
                Some(rows) = &mut look, if schedule.is_looking() => {
                    schedule.handle_look_end();
                    look = None.into();
                    self.handle_list(&mut state, rows);
                }
                () = self.hints.shards_changed() => schedule.handle_hint(now()),
                () = sleep_until(Instant::from_std(schedule.poll_timeout(now()))) => {}
            }
        }
    }

    fn poll_pause(&self) -> Duration {
        let (least, most) = self.options.shard_poll;
        least + most.saturating_sub(least).mul_f64(fastrand::f64())
    }

    /// Handles the newest target and sessions.
    fn handle_target(&mut self, state: &mut State, schedule: &mut Schedule) {
        let target = self.target.borrow_and_update().clone();
        let sessions = self.sessions.borrow_and_update().clone();
        state.hooks.handle_target(target.as_ref(), now());
        let changes = state.shards.handle_target(target.as_ref(), &sessions, now());
        if changes.is_lost {
            schedule.handle_lost_session(now());
        }
        if changes.is_moving {
            schedule.handle_moving_session(now());
        }
        if changes.is_adopted {
            schedule.handle_adopted_session(now());
        }
    }

    fn handle_answers(&self, state: &mut State, (conduit, asked, answers): Call) {
        let now = Instant::now().into_std();
        state.stands_by = answers.as_ref().is_err_and(BindError::stands_by);
        match answers {
            Ok(answers) => {
                let mut answers: std::collections::BTreeMap<_, _> = answers.into_iter().collect();
                for (shard, transport) in asked {
                    match answers.remove(&shard) {
                        Some(answer) => {
                            match &answer {
                                Ok(()) if matches!(transport, Transport::Session(_)) => {
                                    tracing::info!(shard = shard.0, conduit_id = &*conduit, "shard is bound");
                                }
                                Ok(()) => {
                                    tracing::debug!(
                                        shard = shard.0,
                                        conduit_id = &*conduit,
                                        "shard has its callback"
                                    );
                                }
                                Err(why) => {
                                    tracing::warn!(
                                        shard = shard.0,
                                        error = why.message(),
                                        "shard is not bound"
                                    );
                                }
                            }
                            state.handle_answer(&conduit, shard, &transport, answer.as_ref().copied(), now);
                        }
                        None => {
                            let refused = Refused::Other("twitch's answer does not name this shard".into());
                            state.handle_answer(&conduit, shard, &transport, Err(&refused), now);
                        }
                    }
                }
            }
            Err(failure) => {
                let text = chain(&failure);
                if failure.stands_by() {
                    tracing::debug!(shards = asked.len(), "shards are left to the host that may bind them");
                } else {
                    tracing::warn!(
                        error = text,
                        conduit_id = &*conduit,
                        shards = asked.len(),
                        "shards could not be bound"
                    );
                }
                let refused = Refused::Other(text.into());
                for (shard, transport) in &asked {
                    state.handle_answer(&conduit, *shard, transport, Err(&refused), now);
                }
                if let BindError::Api(error) = &failure {
                    self.suspect(error);
                }
            }
        }
    }

    fn handle_list(&self, state: &mut State, (conduit, asked_at, rows): Look) {
        state.stands_by = matches!(rows, Err(HelixError::StandingBy));
        let rows = match rows {
            Ok(rows) => rows,
            Err(HelixError::StandingBy) => return,
            Err(failure) => {
                tracing::info!(
                    error = chain(&failure),
                    conduit_id = &*conduit,
                    "the shards could not be listed"
                );
                self.suspect(&failure);
                return;
            }
        };
        for shard in state.hooks.handle_list(&conduit, &rows, asked_at.into_std(), Instant::now().into_std())
        {
            tracing::info!(
                shard = shard.0,
                conduit_id = &*conduit,
                "Twitch calls the callback for the shard"
            );
        }
        if state.hooks.is_active() {
            return;
        }
        for mismatch in state.shards.handle_list(&conduit, &rows, asked_at.into_std()) {
            match mismatch {
                Mismatch::Taken(shard) => {
                    tracing::warn!(
                        shard = shard.0,
                        conduit_id = &*conduit,
                        "shard was bound to another session: is another process using this conduit? binding it again"
                    );
                    state.taken.push((shard, Instant::now()));
                }
                Mismatch::Lost(shard) => {
                    tracing::warn!(
                        shard = shard.0,
                        "Twitch shows the shard without our session; binding it again"
                    );
                }
                Mismatch::Disconnected(shard, status) => {
                    tracing::warn!(
                        shard = shard.0,
                        status = &*status,
                        "Twitch says that the shard's session has ended"
                    );
                }
            }
        }
    }

    fn suspect(&self, failure: &HelixError) {
        if matches!(failure, HelixError::NotFound { .. }) {
            self.trouble.notify_one();
        }
    }

    fn publish(&self, state: &mut State) {
        self.bindings.publish(state.shards.bindings());
        self.tenures.publish(Arc::new(state.tenures()));
        self.hooks.publish(state.hook_statuses());
        let report = state.report(self.options.unbound_warning);
        self.report.send_if_modified(|published| {
            let changed = *published != report;
            // The loop acts on these.
            let secrets = |report: &ShardReport| report.keys.clone().unwrap_or_default();
            if (published.wants_stand_in, published.all_call) != (report.wants_stand_in, report.all_call)
                || secrets(published) != secrets(&report)
            {
                self.trouble.notify_one();
            }
            *published = report;
            changed
        });
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Proves a callback before Twitch is told of it, and binds.
async fn bind<A: Api>(
    api: A,
    conduit: Arc<str>,
    asked: Asked,
    prove: Option<(Prover, WebhookTarget)>,
) -> Call {
    if let Some((mut prover, webhook)) = prove
        && let Err(why) = prover.prove(&webhook.url, webhook.keys.current()).await
    {
        return (conduit, asked, Err(BindError::Callback(why)));
    }
    let answers = api.bind_shards(&conduit, &asked).await.map_err(BindError::Api);
    (conduit, asked, answers)
}

async fn list<A: Api>(api: A, conduit: Arc<str>) -> Look {
    let asked_at = Instant::now();
    let rows = api.shards(&conduit).await.map(|shards| shards.rows);
    (conduit, asked_at, rows)
}

struct State {
    shards: Shards,
    hooks: Hooks,
    unbound_since: Option<Instant>,
    unbound_logged: Option<Instant>,
    /// Whether the last request was not sent, as this host does not lead: another one may bind the shards, or this one does
    /// so by itself.
    stands_by: bool,
    taken: Vec<(ShardId, Instant)>,
}

impl State {
    /// Shards that must be bound now.
    fn poll_due(&mut self) -> Asked {
        let now = now();
        if self.hooks.is_active() {
            return self.hooks.poll_due(now);
        }
        let due = self.shards.poll_due(now).into_iter();
        due.map(|(shard, session)| (shard, Transport::Session(session))).collect()
    }

    fn handle_answer(
        &mut self,
        conduit: &str,
        shard: ShardId,
        transport: &Transport,
        answer: Result<(), &Refused>,
        now: std::time::Instant,
    ) {
        if let Transport::Session(session) = transport {
            return self.shards.handle_answer(conduit, shard, session, answer, now);
        }
        self.hooks.handle_answer(shard, transport, answer.map_err(Refused::message), now);
    }

    /// A shard that calls may still have its socket while it is moved.
    fn tenures(&self) -> BTreeMap<ShardId, ShardBinding> {
        let mut all: BTreeMap<ShardId, ShardBinding> = self.shards.tenures().collect();
        for (shard, hook) in self.hooks.tenures() {
            let known = all.entry(shard).or_default();
            known.present = hook.present.or_else(|| known.present.take());
            if hook.past.is_some() {
                (known.past, known.unbound) = (hook.past, hook.unbound);
            }
        }
        all
    }

    fn hook_statuses(&self) -> BTreeMap<ShardId, ShardStatus> {
        let status = |(shard, state, since, problem): (ShardId, _, _, Option<&str>)| {
            let status = ShardStatus {
                shard,
                state,
                since: timestamp_of(since),
                session_id: None,
                losses: 0,
                reconnects: 0,
                events: 0,
                problem: problem.map(str::to_owned),
            };
            (shard, status)
        };
        self.hooks.states().map(status).collect()
    }

    /// When the warning about unbound shards is due next.
    fn unbound_warning_at(&self, warning: Duration) -> Option<std::time::Instant> {
        let next = self.unbound_since? + warning;
        Some(self.unbound_logged.map_or(next, |logged| logged + UNBOUND_REPEATED).into_std())
    }

    fn report(&mut self, warning: Duration) -> ShardReport {
        let now = Instant::now();
        let bound = if self.hooks.is_active() { self.hooks.delivering() } else { self.shards.bound() };
        let is_unbound = self.shards.target().is_some() && bound == 0 && !self.stands_by;
        if !is_unbound {
            self.unbound_since = None;
            self.unbound_logged = None;
        }
        let mut warnings = Vec::new();
        if is_unbound {
            let since = *self.unbound_since.get_or_insert(now);
            if now >= since + warning {
                let text = format!(
                    "no shard has been bound since {} or longer: nothing is delivered, and after 72 hours Twitch \
                     deletes the conduit; see the state of the shards",
                    timestamp_of(since.into_std())
                );
                if self.unbound_logged.is_none_or(|logged| now >= logged + UNBOUND_REPEATED) {
                    self.unbound_logged = Some(now);
                    tracing::warn!("{text}");
                }
                warnings.push(text);
            }
        }
        self.taken.retain(|(_, at)| now < *at + TAKEN_SHOWN);
        if let Some((shard, _)) = self.taken.last() {
            warnings.push(format!(
                "shard {shard} was bound to another session ({} times in the last hour): stop the other process \
                 that uses this conduit",
                self.taken.len()
            ));
        }
        ShardReport {
            conduit_id: self.shards.target().map(|target| target.conduit_id.clone()),
            bound,
            warnings,
            keys: self.hooks.keys().cloned(),
            wants_stand_in: self.hooks.wants_stand_in(),
            all_call: self.hooks.is_active() && self.hooks.all_enabled(),
        }
    }
}
