//! The control socket: its routes, which change things, and its server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::filter::SinkFilter;
use super::reading::{self, ReadState};
use super::socket::ControlSocket;
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;
use crate::model::status::{ConfigStatus, Status};
use crate::model::subscription::SubscriptionKey;
use crate::model::time::Timestamp;
use crate::store::{DeadLetterFilter, Store};

/// Operations of the daemon that the socket offers.
pub trait Control: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// Returns the names of the parts that hang and that only a restart can repair.
    fn hanging(&self) -> Vec<&'static str>;
    /// Reads the file again and applies it, whole or not at all.
    fn reload(&self) -> ControlFuture<'_, Result<ReloadAccepted, ReloadRefused>>;
    /// Creates a new webhook secret; the old one is accepted until every subscription has moved.
    fn rotate_secret(&self) -> ControlFuture<'_, Result<SecretRotated, Refused>>;
    /// Returns the active configuration and its source.
    fn config(&self) -> ConfigStatus;
    /// Requests a reconcile run; `allow_deletes` lets that one run delete more than `reconcile.max_delete`.
    fn apply(&self, allow_deletes: bool) -> Applied;
    /// Forgets what this user has granted, and reads it again.
    fn grants_changed(&self, user_id: &str);
    /// Returns the active filter of log lines.
    ///
    /// # Errors
    /// There is no log.
    fn log_filter(&self) -> Result<LogFilter, Refused>;
    /// Changes the filter of log lines until the next reload or restart.
    ///
    /// # Errors
    /// The filter is not valid, or there is no log.
    fn set_log_filter(&self, filter: &str) -> Result<LogFilter, Refused>;
    /// Returns what decides whether a sink gets an event; `None` if there is no such sink.
    fn sink_filter(&self, sink: &SinkName) -> Option<SinkFilter>;
    /// Returns what names the sinks that get the events of a subscription.
    fn sinks_of(&self) -> SinksOf;
    /// Returns whether the configuration lists a subscription type that matches.
    fn lists_type(&self, like: &dyn Fn(&str) -> bool) -> bool;
    /// Delivers the events stored since then to a sink again.
    fn replay(&self, sink: SinkName, since: Since) -> ControlFuture<'_, Result<Count, Refused>>;
    /// Sends a part of the stored events to a sink again, without a change of its place.
    fn replay_part(
        &self,
        sink: SinkName,
        since: Since,
        until: Option<Timestamp>,
        types: Option<String>,
    ) -> ControlFuture<'_, Result<Count, Refused>>;
    /// Makes a sink retry now.
    fn retry_sink(&self, sink: SinkName) -> ControlFuture<'_, Result<Retried, Refused>>;
    /// Moves the event that blocks a sink to its dead letters.
    fn skip_event(&self, sink: SinkName) -> ControlFuture<'_, Result<SkippedEvent, Refused>>;
    /// Delivers dead letters again.
    fn resend(&self, filter: DeadLetterFilter) -> ControlFuture<'_, Result<Count, Refused>>;
    fn drop_dead_letters(&self, filter: DeadLetterFilter) -> ControlFuture<'_, Result<Count, Refused>>;
}

/// Names the sinks that get the events of a subscription.
pub type SinksOf = Box<dyn Fn(&SubscriptionKey) -> Vec<SinkName> + Send + Sync>;

/// The future of an operation.
pub type ControlFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Number of events or dead letters affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub count: u64,
}

/// The sink retries now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {}

/// The event that was moved to the dead letters of its sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedEvent {
    /// Number of the event in the store.
    pub seq: Seq,
    #[serde(rename = "type")]
    pub subscription_type: String,
}

/// A requested run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The run has ended once `reconcile.answered` of the status has reached this number.
    pub ticket: u64,
    /// Process id of the daemon. Another process does not know the ticket.
    pub pid: u32,
}

/// The active filter of log lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    pub filter: String,
}

/// A refused operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Reason, as a sentence.
    pub error: String,
}

/// A new webhook secret is active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRotated {
    /// Fingerprint of the secret.
    pub key: String,
    /// Number of secrets that are accepted now, this one included.
    pub accepted: u64,
}

/// An accepted reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAccepted {
    /// Number of the new configuration.
    pub generation: u64,
    /// Differences, one per line; empty if there are none.
    pub changes: Vec<String>,
    /// Warnings, as `check` prints them.
    pub warnings: Vec<String>,
}

/// A refused reload; the old configuration stays active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// All problems, as `check` prints them.
    pub errors: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct ApplyQuery {
    #[serde(default)]
    allow_deletes: bool,
}

#[derive(Debug, Deserialize)]
struct ReplayQuery {
    sink: String,
    seq: Option<u64>,
    time: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(rename = "type")]
    types: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SinkQuery {
    sink: String,
}

#[derive(Debug, Deserialize)]
struct LettersQuery {
    sink: Option<String>,
    id: Option<i64>,
    until: Option<Timestamp>,
    #[serde(rename = "type")]
    types: Option<String>,
}

impl From<LettersQuery> for DeadLetterFilter {
    fn from(query: LettersQuery) -> Self {
        let LettersQuery { sink, id, until, types } = query;
        Self { sink: sink.map(SinkName::new), id, types, until }
    }
}

/// The daemon, as the handlers share it.
pub(super) type Shared = Arc<dyn Control>;

async fn reload(State(control): State<Shared>) -> Response {
    match control.reload().await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(refused) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response(),
    }
}

async fn rotate_secret(State(control): State<Shared>) -> Response {
    answer(control.rotate_secret().await)
}

async fn config(State(control): State<Shared>) -> Json<ConfigStatus> {
    Json(control.config())
}

async fn apply(State(control): State<Shared>, Query(query): Query<ApplyQuery>) -> Response {
    (StatusCode::ACCEPTED, Json(control.apply(query.allow_deletes))).into_response()
}

fn answer<T: Serialize>(outcome: Result<T, Refused>) -> Response {
    match outcome {
        Ok(done) => Json(done).into_response(),
        Err(refused) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct GrantsQuery {
    user_id: String,
}

async fn grants(State(control): State<Shared>, Query(query): Query<GrantsQuery>) -> StatusCode {
    control.grants_changed(&query.user_id);
    StatusCode::ACCEPTED
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    filter: String,
}

async fn log_filter(State(control): State<Shared>) -> Response {
    answer(control.log_filter())
}

async fn set_log_filter(State(control): State<Shared>, Query(query): Query<LogQuery>) -> Response {
    answer(control.set_log_filter(&query.filter))
}

async fn replay(State(control): State<Shared>, Query(query): Query<ReplayQuery>) -> Response {
    let since = match (query.seq, query.time) {
        (Some(seq), None) => Since::Seq(Seq(seq)),
        (None, Some(time)) => Since::Time(time),
        _ => {
            return answer::<Count>(Err(Refused { error: "give either `seq` or `time`".to_owned() }));
        }
    };
    let sink = SinkName::new(query.sink);
    answer(match (query.until, query.types) {
        (None, None) => control.replay(sink, since).await,
        (until, types) => control.replay_part(sink, since, until, types).await,
    })
}

async fn retry_sink(State(control): State<Shared>, Query(query): Query<SinkQuery>) -> Response {
    answer(control.retry_sink(SinkName::new(query.sink)).await)
}

async fn skip_event(State(control): State<Shared>, Query(query): Query<SinkQuery>) -> Response {
    answer(control.skip_event(SinkName::new(query.sink)).await)
}

async fn resend(State(control): State<Shared>, Query(query): Query<LettersQuery>) -> Response {
    answer(control.resend(query.into()).await)
}

async fn drop_dead_letters(State(control): State<Shared>, Query(query): Query<LettersQuery>) -> Response {
    answer(control.drop_dead_letters(query.into()).await)
}

/// Serves the socket until cancelled; requests in progress get one more second.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    socket: ControlSocket,
    control: Arc<dyn Control>,
    store: Store,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let state = ReadState::new(Arc::clone(&control), store, cancel.clone());
    let routes = Router::new()
        .route("/config", get(config))
        .route("/reload", post(reload))
        .route("/rotate-secret", post(rotate_secret))
        .route("/apply", post(apply))
        .route("/grants", post(grants))
        .route("/log-level", get(log_filter).post(set_log_filter))
        .route("/replay", post(replay))
        .route("/sinks/retry", post(retry_sink))
        .route("/sinks/skip", post(skip_event))
        .route("/dead-letters/replay", post(resend))
        .route("/dead-letters/drop", post(drop_dead_letters))
        .with_state(control)
        .merge(reading::routes(state));
    let mut socket = socket;
    loop {
        let ControlSocket { listener, file } = socket;
        let ended = cancel.clone();
        let server = axum::serve(listener, routes.clone())
            .with_graceful_shutdown(async move { ended.cancelled().await });
        tokio::select! {
            result = server => return result,
            () = async {
                cancel.cancelled().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            } => return Ok(()),
            () = file.removed() => {}
        }
        tracing::warn!(path = %file.path().display(), "the control socket was removed; creating it again");
        socket = ControlSocket::bind(file.path()).map_err(std::io::Error::other)?;
    }
}
