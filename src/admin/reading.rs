//! Read-only routes, served by the control socket and by the endpoint on TCP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::events::events;
use super::filter::{Filter, Wanted};
use super::server::Control;
use super::{page, subscriptions};
use crate::model::route::SinkName;
use crate::store::Store;
use crate::telemetry::LogLimit;

/// Time limit for a query of the store, after which it counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Number of clients that may follow events at once.
const TAILS: usize = 16;

/// Marks a request without credentials, which learns only whether the daemon lives and is ready. Set by the endpoint
/// on TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anonymous;

/// Tokens that end a stream when its authorization ends. Set by the endpoint on TCP.
#[derive(Clone, Debug)]
pub(super) struct EndStream(pub(super) Vec<CancellationToken>);

/// State of the read-only handlers.
#[derive(Clone)]
pub(super) struct ReadState {
    pub(super) control: Arc<dyn Control>,
    pub(super) store: Store,
    /// One permit for each client that follows events.
    pub(super) tails: Arc<Semaphore>,
    /// Ends streams when the daemon stops.
    pub(super) cancel: CancellationToken,
    /// Limits the log lines that probes can cause.
    log: Arc<LogLimit>,
}

impl ReadState {
    pub(super) fn new(control: Arc<dyn Control>, store: Store, cancel: CancellationToken) -> Self {
        Self { control, store, tails: Arc::new(Semaphore::new(TAILS)), cancel, log: Arc::default() }
    }

    /// Builds the filter for a choice of events.
    ///
    /// # Errors
    /// As [`Wanted::filter`].
    pub(super) fn filter(&self, wanted: Wanted) -> Result<Filter, String> {
        let sink = wanted.sink.as_deref().and_then(|sink| self.control.sink_filter(&SinkName::new(sink)));
        wanted.filter(sink)
    }
}

pub(super) fn routes(state: ReadState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/subscriptions", get(list))
        .route("/metrics", get(super::metrics::metrics))
        .route("/events", get(events))
        .merge(page::routes())
        .with_state(Arc::new(state))
}

const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// Responds 200 if the store answers and no part hangs. Failures at Twitch and a full disk do not count: restarting
/// the daemon would not help.
async fn livez(State(state): State<Arc<ReadState>>, anonymous: Option<Extension<Anonymous>>) -> Response {
    let Err(reason) = alive(&state).await else { return (TEXT, "ok\n").into_response() };
    let reason = if anonymous.is_some() { "not alive\n".to_owned() } else { reason };
    (StatusCode::SERVICE_UNAVAILABLE, TEXT, reason).into_response()
}

/// Fails with one line for each problem.
async fn alive(state: &ReadState) -> Result<(), String> {
    let hanging = state.control.hanging();
    if !hanging.is_empty() {
        return Err(hanging.iter().map(|part| format!("{part} hangs\n")).collect());
    }
    let asked = tokio::time::timeout(STUCK_AFTER, state.store.settings("livez")).await;
    match asked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            if let Some(left_out) = state.log.permit("store", Instant::now()) {
                tracing::warn!(%error, left_out, "the event store does not answer");
            }
            Err("the event store fails\n".to_owned())
        }
        Err(_) => Err("the event store is stuck\n".to_owned()),
    }
}

/// Responds 200 if ready, else with one line for each reason.
async fn readyz(State(state): State<Arc<ReadState>>, anonymous: Option<Extension<Anonymous>>) -> Response {
    let status = state.control.status();
    if status.ready {
        return (TEXT, "ready\n").into_response();
    }
    let reasons = match anonymous {
        Some(_) => "not ready\n".to_owned(),
        None => status.not_ready.iter().map(|reason| format!("{reason}\n")).collect(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons).into_response()
}

async fn status(State(state): State<Arc<ReadState>>) -> Response {
    Json(state.control.status()).into_response()
}

async fn list(State(state): State<Arc<ReadState>>, Query(query): Query<subscriptions::Query>) -> Response {
    let entries = state.control.status().subscriptions;
    match subscriptions::page(&entries, &query) {
        Ok(page) => Json(page).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")).into_response(),
    }
}
