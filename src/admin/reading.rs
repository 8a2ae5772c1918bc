//! What can be asked without changing anything: the same over the control socket and over TCP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::events::events;
use super::page;
use super::server::Control;
use crate::store::Store;
use crate::telemetry::LogLimit;

/// How long the store may take for the smallest question before the daemon counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Clients that may follow events at once.
const TAILS: usize = 16;

/// Whether whoever asks may see more than whether the daemon lives. Set by the endpoint on TCP; absent where
/// everybody may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger;

/// Ends what a request has begun and would never end, when what let it in does. Set by the endpoint on TCP.
#[derive(Clone, Debug)]
pub(super) struct Until(pub(super) Vec<CancellationToken>);

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) control: Arc<dyn Control>,
    pub(super) store: Store,
    /// A permit for each client that follows events.
    pub(super) tails: Arc<Semaphore>,
    /// Ends answers that would never end.
    pub(super) cancel: CancellationToken,
    /// Probes may come as often as they like.
    log: Arc<LogLimit>,
}

impl Facts {
    pub(super) fn new(control: Arc<dyn Control>, store: Store, cancel: CancellationToken) -> Self {
        Self { control, store, tails: Arc::new(Semaphore::new(TAILS)), cancel, log: Arc::default() }
    }
}

/// The routes that only read.
pub(super) fn routes(facts: Facts) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(super::metrics::metrics))
        .route("/events", get(events))
        .merge(page::routes())
        .with_state(Arc::new(facts))
}

const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// Alive is a daemon that answers this, whose store answers it, and of which no part hangs. What Twitch does is no
/// reason to restart a daemon, and neither is a full disk.
async fn livez(State(facts): State<Arc<Facts>>, stranger: Option<Extension<Stranger>>) -> Response {
    let Err(reason) = alive(&facts).await else { return (TEXT, "ok\n").into_response() };
    let reason = if stranger.is_some() { "not alive\n".to_owned() } else { reason };
    (StatusCode::SERVICE_UNAVAILABLE, TEXT, reason).into_response()
}

/// What is not alive, a line each.
async fn alive(facts: &Facts) -> Result<(), String> {
    let hanging = facts.control.hanging();
    if !hanging.is_empty() {
        return Err(hanging.iter().map(|part| format!("{part} hangs\n")).collect());
    }
    let asked = tokio::time::timeout(STUCK_AFTER, facts.store.settings("livez")).await;
    match asked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            if let Some(left_out) = facts.log.permit("store", Instant::now()) {
                tracing::warn!(%error, left_out, "the event store does not answer");
            }
            Err("the event store fails\n".to_owned())
        }
        Err(_) => Err("the event store is stuck\n".to_owned()),
    }
}

/// Ready, or a line for each reason why not.
async fn readyz(State(facts): State<Arc<Facts>>, stranger: Option<Extension<Stranger>>) -> Response {
    let status = facts.control.status();
    if status.ready {
        return (TEXT, "ready\n").into_response();
    }
    let reasons = match stranger {
        Some(_) => "not ready\n".to_owned(),
        None => status.not_ready.iter().map(|reason| format!("{reason}\n")).collect(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons).into_response()
}

async fn status(State(facts): State<Arc<Facts>>) -> Response {
    Json(facts.control.status()).into_response()
}
