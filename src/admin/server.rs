//! The routes of the control socket.

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

use super::socket::ControlSocket;
use crate::model::status::Status;

/// What the daemon does for those who ask over the socket.
pub trait Control: Send + Sync + 'static {
    /// How things are.
    fn status(&self) -> Status;
    /// Reads the file again and puts it in force, whole or not at all.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadAccepted, ReloadRefused>> + Send + '_>>;
    /// Reconciles now; `allow_deletes` lets that one run delete more than `reconcile.max_delete`.
    fn apply(&self, allow_deletes: bool);
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

type Shared = Arc<dyn Control>;

async fn status(State(control): State<Shared>) -> Json<Status> {
    Json(control.status())
}

async fn reload(State(control): State<Shared>) -> Response {
    match control.reload().await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(refused) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response(),
    }
}

async fn apply(State(control): State<Shared>, Query(query): Query<ApplyQuery>) -> StatusCode {
    control.apply(query.allow_deletes);
    StatusCode::ACCEPTED
}

/// Answers on the socket until cancelled; requests in hand get a second to end.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    socket: ControlSocket,
    control: Arc<dyn Control>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/reload", post(reload))
        .route("/apply", post(apply))
        .with_state(control);
    let ControlSocket { listener, file: _file } = socket;
    let ended = cancel.clone();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async move { ended.cancelled().await });
    tokio::select! {
        result = server => result,
        () = async {
            cancel.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        } => Ok(()),
    }
}
