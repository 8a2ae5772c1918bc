//! The task that binds sessions to their shards within the 10 seconds, and watches that they stay
//! bound. It never waits behind creates.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::{Api, BindAnswers, Failure};
use super::publish::timestamp_of;
use super::shards::{BindTimes, Mismatch, Shards};
use super::{Hints, ReconcileOptions};
use crate::helix::ShardRow;
use crate::model::shard::{Bindings, SessionId, Sessions, ShardId, ShardTarget};

/// Calls in hand at most; what comes due meanwhile goes together into the next one.
const CALLS: usize = 4;

/// From a hint to the look that it leads to.
const HINT_PAUSE: Duration = Duration::from_secs(1);

/// How long a theft is shown.
const THEFT_SHOWN: Duration = Duration::from_secs(3600);

/// How often the warning about a dark conduit is repeated in the log.
const DARK_REPEATED: Duration = Duration::from_secs(3600);

/// What the loop and the status know of the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardReport {
    /// Of this conduit.
    pub(super) conduit_id: Option<Arc<str>>,
    /// So many shards deliver to our sessions.
    pub(super) bound: u32,
    /// Each with what to do.
    pub(super) warnings: Vec<String>,
}

/// Its ends.
#[derive(Debug)]
pub(super) struct Binder<A> {
    pub(super) api: A,
    pub(super) options: ReconcileOptions,
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) sessions: watch::Receiver<Sessions>,
    pub(super) bindings: watch::Sender<Bindings>,
    pub(super) report: watch::Sender<ShardReport>,
    /// Told when Twitch does not know the conduit.
    pub(super) trouble: Arc<Notify>,
    /// Tells when a look at the shards is due before its time.
    pub(super) hints: Arc<Hints>,
}

type Asked = Vec<(ShardId, SessionId)>;
type Call = (Arc<str>, Asked, Result<BindAnswers, Failure>);
type Look = (Arc<str>, Instant, Result<Vec<ShardRow>, Failure>);

impl<A: Api> Binder<A> {
    /// Runs until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let times = BindTimes {
            window: self.options.bind_window,
            retry: self.options.bind_retry,
            late_retry: self.options.bind_retry * 5,
        };
        let mut state =
            State { shards: Shards::new(times), dark_since: None, dark_logged: None, thefts: Vec::new() };
        let mut calls: FuturesUnordered<BoxFuture<'static, Call>> = FuturesUnordered::new();
        let mut look: OptionFuture<BoxFuture<'static, Look>> = None.into();
        let mut looking = false;
        let mut next_look = Instant::now() + self.poll_pause();
        self.update(&mut state.shards);
        loop {
            while calls.len() < CALLS {
                let asked = state.shards.due(Instant::now().into_std());
                let Some(target) = state.shards.target().filter(|_| !asked.is_empty()) else { break };
                calls.push(Box::pin(bind(self.api.clone(), target.conduit_id.clone(), asked)));
            }
            self.publish(&mut state);
            let now = Instant::now();
            if !looking && now >= next_look {
                if let Some(target) = state.shards.target() {
                    look =
                        Some(Box::pin(list(self.api.clone(), target.conduit_id.clone())) as BoxFuture<'_, _>)
                            .into();
                    looking = true;
                }
                next_look = now + self.poll_pause();
            }
            let retry =
                if calls.len() < CALLS { state.shards.next_due().map(Instant::from_std) } else { None };
            let wake = [retry, Some(next_look), state.dark_at(self.options.unbound_warning)];
            let wake = wake.into_iter().flatten().min().unwrap_or(next_look);
            tokio::select! {
                () = cancel.cancelled() => return,
                Ok(()) = self.target.changed() => self.update(&mut state.shards),
                Ok(()) = self.sessions.changed() => self.update(&mut state.shards),
                Some(call) = calls.next() => self.take_answers(&mut state.shards, call),
                Some(rows) = &mut look, if looking => {
                    looking = false;
                    look = None.into();
                    self.take_list(&mut state, rows);
                }
                // Only a hint: what it says is looked up, a moment later and not at every one.
                () = self.hints.shards.notified() => next_look = next_look.min(Instant::now() + HINT_PAUSE),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn poll_pause(&self) -> Duration {
        let (least, most) = self.options.shard_poll;
        least + most.saturating_sub(least).mul_f64(fastrand::f64())
    }

    fn update(&mut self, shards: &mut Shards) {
        let target = self.target.borrow_and_update().clone();
        let sessions = self.sessions.borrow_and_update().clone();
        shards.update(target.as_ref(), &sessions);
    }

    fn take_answers(&self, shards: &mut Shards, (conduit, asked, answers): Call) {
        let now = Instant::now().into_std();
        match answers {
            Ok(answers) => {
                let mut answers: std::collections::BTreeMap<_, _> = answers.into_iter().collect();
                for (shard, session) in asked {
                    match answers.remove(&shard) {
                        Some(answer) => {
                            match &answer {
                                Ok(()) => {
                                    tracing::info!(shard = shard.0, conduit_id = &*conduit, "shard is bound");
                                }
                                Err(why) => {
                                    tracing::warn!(shard = shard.0, error = ?why, "shard is not bound");
                                }
                            }
                            shards.answered(&conduit, shard, &session, answer.as_ref().copied(), now);
                        }
                        None => shards.call_failed(
                            &conduit,
                            &[(shard, session)],
                            "twitch's answer does not name this shard",
                            now,
                        ),
                    }
                }
            }
            Err(failure) => {
                tracing::warn!(error = %failure, conduit_id = &*conduit, shards = asked.len(), "shards could not be bound");
                shards.call_failed(&conduit, &asked, &failure.to_string(), now);
                self.suspect(&failure);
            }
        }
    }

    fn take_list(&self, state: &mut State, (conduit, asked_at, rows): Look) {
        let rows = match rows {
            Ok(rows) => rows,
            Err(failure) => {
                tracing::info!(error = %failure, conduit_id = &*conduit, "the shards could not be listed");
                self.suspect(&failure);
                return;
            }
        };
        for mismatch in state.shards.compare(&conduit, &rows, asked_at.into_std()) {
            match mismatch {
                Mismatch::Taken(shard) => {
                    tracing::warn!(
                        shard = shard.0,
                        conduit_id = &*conduit,
                        "shard was bound to another session: is another process using this conduit? binding it again"
                    );
                    state.thefts.push((shard, Instant::now()));
                }
                Mismatch::Lost(shard) => {
                    tracing::warn!(
                        shard = shard.0,
                        "twitch shows the shard without our session: binding it again"
                    );
                }
                Mismatch::Disconnected(shard, status) => {
                    tracing::warn!(
                        shard = shard.0,
                        status = &*status,
                        "twitch says that the session is over"
                    );
                }
            }
        }
    }

    fn suspect(&self, failure: &Failure) {
        if matches!(failure, Failure::NotFound { .. }) {
            self.trouble.notify_one();
        }
    }

    fn publish(&self, state: &mut State) {
        let bindings = state.shards.bindings();
        self.bindings.send_if_modified(|published| {
            let changed = *published != bindings;
            *published = bindings;
            changed
        });
        let report = state.report(self.options.unbound_warning);
        self.report.send_if_modified(|published| {
            let changed = *published != report;
            *published = report;
            changed
        });
    }
}

async fn bind<A: Api>(api: A, conduit: Arc<str>, asked: Asked) -> Call {
    let answers = api.bind_shards(&conduit, &asked).await;
    (conduit, asked, answers)
}

async fn list<A: Api>(api: A, conduit: Arc<str>) -> Look {
    let asked_at = Instant::now();
    let rows = api.shards(&conduit).await;
    (conduit, asked_at, rows)
}

struct State {
    shards: Shards,
    dark_since: Option<Instant>,
    dark_logged: Option<Instant>,
    thefts: Vec<(ShardId, Instant)>,
}

impl State {
    /// When the darkness has to be told of next.
    fn dark_at(&self, warning: Duration) -> Option<Instant> {
        let next = self.dark_since? + warning;
        Some(self.dark_logged.map_or(next, |logged| logged + DARK_REPEATED))
    }

    fn report(&mut self, warning: Duration) -> ShardReport {
        let now = Instant::now();
        let bound = self.shards.bound();
        let dark = self.shards.target().is_some() && bound == 0;
        if !dark {
            self.dark_since = None;
            self.dark_logged = None;
        }
        let mut warnings = Vec::new();
        if dark {
            let since = *self.dark_since.get_or_insert(now);
            if now >= since + warning {
                let text = format!(
                    "no shard has been bound since {} or longer: nothing is delivered, and after 72 hours Twitch \
                     deletes the conduit; see the state of the shards",
                    timestamp_of(since.into_std())
                );
                if self.dark_logged.is_none_or(|logged| now >= logged + DARK_REPEATED) {
                    self.dark_logged = Some(now);
                    tracing::warn!("{text}");
                }
                warnings.push(text);
            }
        }
        self.thefts.retain(|(_, at)| now < *at + THEFT_SHOWN);
        if let Some((shard, _)) = self.thefts.last() {
            warnings.push(format!(
                "shard {shard} was bound to another session ({} times in the last hour): stop the other process \
                 that uses this conduit",
                self.thefts.len()
            ));
        }
        ShardReport {
            conduit_id: self.shards.target().map(|target| target.conduit_id.clone()),
            bound,
            warnings,
        }
    }
}
