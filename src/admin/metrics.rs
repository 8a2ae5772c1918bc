//! `/metrics`, for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};

use super::state::ReadState;
use crate::telemetry::metrics::{Format, render};

/// Responds with the metrics in the format that `Accept` asks for.
pub(super) async fn metrics(State(state): State<Arc<ReadState>>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let text = render(&state.control.status(), format);
    ([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], text).into_response()
}
