//! The control socket: its routes, which change things, and its server.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::control::{Control, Count, Refused};
use super::letters::SharedLetterPage;
use super::reading;
use super::socket::ControlSocket;
use super::state::ReadState;
use crate::model::cluster::{DaemonRequest, HostRequest, LeaderRequest};
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;
use crate::model::status::ConfigStatus;
use crate::model::time::Timestamp;
use crate::store::{DeadLetterFilter, Store};

#[derive(Debug, Deserialize)]
struct ApplyQuery {
    #[serde(default)]
    allow_deletes: bool,
}

#[derive(Debug, Deserialize)]
struct HostQuery {
    host: String,
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

#[derive(Debug, Deserialize)]
struct PageQuery {
    sink: Option<String>,
    id: Option<i64>,
    until: Option<Timestamp>,
    #[serde(rename = "type")]
    types: Option<String>,
    after: i64,
    limit: usize,
    payload: bool,
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

async fn ask_leader(control: Shared, request: LeaderRequest) -> Response {
    match control.ask_leader(request).await {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(refused) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response(),
    }
}

async fn apply_on_leader(State(control): State<Shared>, Query(query): Query<ApplyQuery>) -> Response {
    let request = DaemonRequest::Apply { allow_deletes: query.allow_deletes };
    ask_leader(control, LeaderRequest::Daemon(request)).await
}

async fn status_of_leader(State(control): State<Shared>) -> Response {
    ask_leader(control, LeaderRequest::Daemon(DaemonRequest::Status)).await
}

async fn drain(State(control): State<Shared>, Query(HostQuery { host }): Query<HostQuery>) -> Response {
    ask_leader(control, LeaderRequest::Host(HostRequest::Drain { host })).await
}

async fn undrain(State(control): State<Shared>, Query(HostQuery { host }): Query<HostQuery>) -> Response {
    ask_leader(control, LeaderRequest::Host(HostRequest::Undrain { host })).await
}

async fn forget(State(control): State<Shared>, Query(HostQuery { host }): Query<HostQuery>) -> Response {
    ask_leader(control, LeaderRequest::Host(HostRequest::Forget { host })).await
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

/// Most dead letters of one page.
const LETTERS: usize = 500;

async fn shared_letters(State(control): State<Shared>, Query(query): Query<PageQuery>) -> Response {
    let filter = DeadLetterFilter {
        sink: query.sink.map(SinkName::new),
        id: query.id,
        types: query.types,
        until: query.until,
    };
    let limit = query.limit.min(LETTERS);
    let host = control.status().cluster.map(|cluster| cluster.host).unwrap_or_default();
    let found = control.shared_letters(filter, query.after, limit).await;
    answer(found.map(|page| page.map(|page| SharedLetterPage::new(host, page, query.payload))))
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
        .route("/leader/apply", post(apply_on_leader))
        .route("/leader/status", get(status_of_leader))
        .route("/hosts/drain", post(drain))
        .route("/hosts/undrain", post(undrain))
        .route("/hosts/forget", post(forget))
        .route("/grants", post(grants))
        .route("/log-level", get(log_filter).post(set_log_filter))
        .route("/replay", post(replay))
        .route("/sinks/retry", post(retry_sink))
        .route("/sinks/skip", post(skip_event))
        .route("/dead-letters", get(shared_letters))
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
