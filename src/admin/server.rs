//! The control socket's own routes: what changes things.

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

use super::reading::{self, Facts};
use super::socket::ControlSocket;
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;
use crate::model::status::{ConfigStatus, Status};
use crate::model::time::Timestamp;
use crate::store::{LetterFilter, Store};

/// What the daemon does for those who ask over the socket.
pub trait Control: Send + Sync + 'static {
    /// How things are.
    fn status(&self) -> Status;
    /// The parts whose standstill only a restart can mend, by name.
    fn hanging(&self) -> Vec<&'static str>;
    /// Reads the file again and puts it in force, whole or not at all.
    fn reload(&self) -> Answer<'_, Result<ReloadAccepted, ReloadRefused>>;
    /// Makes a new webhook secret; the old one is accepted until everything is moved.
    fn rotate_secret(&self) -> Answer<'_, Result<SecretRotated, Refused>>;
    /// The configuration in force, and where it is from.
    fn config(&self) -> ConfigStatus;
    /// Reconciles now; `allow_deletes` lets that one run delete more than `reconcile.max_delete`.
    fn apply(&self, allow_deletes: bool) -> Applied;
    /// What this user has granted is not what it was.
    fn grants_changed(&self, user_id: &str);
    /// Which log lines are kept.
    ///
    /// # Errors
    /// There is no log.
    fn log_filter(&self) -> Result<LogFilter, Refused>;
    /// Changes which log lines are kept, until the next reload or restart.
    ///
    /// # Errors
    /// It is no filter, or there is no log.
    fn set_log_filter(&self, filter: &str) -> Result<LogFilter, Refused>;
    /// Sends a sink again what was stored since.
    fn replay(&self, sink: SinkName, since: Since) -> Answer<'_, Result<Count, Refused>>;
    /// Has a sink try now what waits.
    fn retry_sink(&self, sink: SinkName) -> Answer<'_, Result<Retried, Refused>>;
    /// Puts the event that holds up a sink into its dead letters.
    fn skip_event(&self, sink: SinkName) -> Answer<'_, Result<SkippedEvent, Refused>>;
    /// Sends dead letters again.
    fn resend(&self, filter: LetterFilter) -> Answer<'_, Result<Count, Refused>>;
    /// Removes dead letters for good.
    fn drop_letters(&self, filter: LetterFilter) -> Answer<'_, Result<Count, Refused>>;
}

/// What somebody is waiting for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How many events or dead letters it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// So many.
    pub count: u64,
}

/// The sink tries now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {}

/// The event that is now in the dead letters of its sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedEvent {
    /// The number of the event in the store.
    pub seq: Seq,
    /// Its type.
    #[serde(rename = "type")]
    pub subscription_type: String,
}

/// A run that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The run has ended once `reconcile.answered` of the status has come to this number.
    pub ticket: u64,
    /// The process that was asked; another one knows nothing of the ticket.
    pub pid: u32,
}

/// The filter of log lines in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// Its directives.
    pub filter: String,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong.
    pub error: String,
}

/// A new webhook secret is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRotated {
    /// Its fingerprint.
    pub key: String,
    /// How many secrets are accepted now, with this one.
    pub accepted: u64,
}

/// A reload that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAccepted {
    /// The new generation of the configuration.
    pub generation: u64,
    /// What is different, a line each; empty when nothing is.
    pub changes: Vec<String>,
    /// What the file's author should look at, as `check` prints it.
    pub warnings: Vec<String>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// Every problem, as `check` prints it.
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
}

#[derive(Debug, Deserialize)]
struct SinkQuery {
    sink: String,
}

#[derive(Debug, Deserialize)]
struct LettersQuery {
    sink: Option<String>,
    id: Option<i64>,
}

impl From<LettersQuery> for LetterFilter {
    fn from(query: LettersQuery) -> Self {
        Self { sink: query.sink.map(SinkName::new), id: query.id }
    }
}

/// The daemon, for the handlers of every listener.
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
            return answer::<Count>(Err(Refused {
                error: "either `seq` or `time` has to be given".to_owned(),
            }));
        }
    };
    answer(control.replay(SinkName::new(query.sink), since).await)
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

async fn drop_letters(State(control): State<Shared>, Query(query): Query<LettersQuery>) -> Response {
    answer(control.drop_letters(query.into()).await)
}

/// Answers on the socket until cancelled; requests in hand get a second to end.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    socket: ControlSocket,
    control: Arc<dyn Control>,
    store: Store,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let facts = Facts::new(Arc::clone(&control), store, cancel.clone());
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
        .route("/dead-letters/drop", post(drop_letters))
        .with_state(control)
        .merge(reading::routes(facts));
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
        tracing::warn!(path = %file.path().display(), "the control socket was removed; it is made again");
        socket = ControlSocket::bind(file.path()).map_err(std::io::Error::other)?;
    }
}
