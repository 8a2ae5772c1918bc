//! Read-only routes, served by the control socket and by the endpoint on TCP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};

use super::events::events;
use super::state::{Anonymous, ReadState};
use super::{page, subscriptions};

/// Time limit for a query of the store, after which it counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

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
