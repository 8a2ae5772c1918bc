//! `/events`: the live tail as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::filter::{Filter, Wanted};
use super::state::{EndStream, ReadState};
use super::tail::{SCAN, SCAN_BYTES, TURN, Tail, UNMATCHED, skipped};
use crate::model::event::{OWN_TYPES, Seq};
use crate::store::Store;

/// Pause between comments that keep the connection alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Parses the query: the events wanted (all if nothing is chosen), and the event to begin after.
fn parse(query: &str) -> Result<(Wanted, Option<Seq>), String> {
    let mut wanted = Wanted::default();
    let mut after = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name == "after" {
            after = Some(Seq(value.parse().map_err(|_| "`after` is not the number of an event")?));
        } else {
            wanted.read(&name, &value)?;
        }
    }
    Ok((wanted, after))
}

/// `GET /events?type=GLOB&broadcaster=LOGIN&sink=NAME&subscription=ID&after=SEQ`
pub(super) async fn events(
    State(state): State<Arc<ReadState>>,
    until: Option<Extension<EndStream>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let parsed =
        parse(uri.query().unwrap_or_default()).and_then(|(wanted, after)| Ok((state.filter(wanted)?, after)));
    let (filter, after) = match parsed {
        Ok(parsed) => parsed,
        Err(message) => return (StatusCode::BAD_REQUEST, message + "\n").into_response(),
    };
    let is_unmatched = !state.control.lists_type(&|kind| filter.takes_type(kind))
        && !OWN_TYPES.iter().any(|kind| filter.takes_type(kind));
    let Ok(place) = Arc::clone(&state.tails).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many clients follow events\n").into_response();
    };
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).map(Seq);
    let mut newest = state.store.last_seq();
    let tail = Tail::new(seen.or(after), *newest.borrow_and_update());
    let client = Client {
        store: state.store.clone(),
        newest,
        tail,
        filter,
        is_unmatched,
        greeted: false,
        next_turn: Instant::now(),
        passed: 0,
        cancel: state.cancel.clone(),
        until: until.map_or_else(Vec::new, |Extension(EndStream(ends))| ends),
        _place: place,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        // Keeps nginx from buffering the stream.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(stream(client))).into_response()
}

struct Client {
    store: Store,
    newest: watch::Receiver<Seq>,
    tail: Tail,
    filter: Filter,
    /// Whether no event that matches can come.
    is_unmatched: bool,
    greeted: bool,
    next_turn: Instant,
    /// Events skipped since the last message to the client.
    passed: u64,
    cancel: CancellationToken,
    until: Vec<CancellationToken>,
    _place: OwnedSemaphorePermit,
}

/// Polled only when the client has taken the previous text.
fn stream(client: Client) -> impl Stream<Item = Result<String, Infallible>> {
    futures_util::stream::unfold(client, |mut client| async move {
        let text = client.next().await?;
        Some((Ok(text), client))
    })
}

async fn any_cancelled(tokens: &[CancellationToken]) {
    if tokens.is_empty() {
        return std::future::pending().await;
    }
    let all = tokens.iter().map(|token| Box::pin(token.cancelled()));
    futures_util::future::select_all(all).await;
}

impl Client {
    /// Returns the next text to send. `None` once the daemon stops or the authorization has ended.
    async fn next(&mut self) -> Option<String> {
        if !self.greeted {
            self.greeted = true;
            let notice = if self.is_unmatched { UNMATCHED } else { "" };
            return Some(format!("retry: 2000\n: events after {}\n\n{notice}", self.tail.cursor()));
        }
        let (cancel, until) = (self.cancel.clone(), self.until.clone());
        tokio::select! {
            () = cancel.cancelled() => None,
            () = any_cancelled(&until) => None,
            text = self.next_text() => text,
            () = tokio::time::sleep(HEARTBEAT) => Some(":\n\n".to_owned()),
        }
    }

    /// Reads until there is something to send.
    async fn next_text(&mut self) -> Option<String> {
        loop {
            let cursor = self.tail.cursor();
            let newest = *self.newest.wait_for(|newest| *newest > cursor).await.ok()?;
            tokio::time::sleep_until(self.next_turn).await;
            self.next_turn = Instant::now() + TURN;
            self.passed += self.tail.catch_up(newest);
            let batch = match self.store.read_after(self.tail.cursor(), SCAN, SCAN_BYTES).await {
                Ok(batch) => batch,
                Err(error) => {
                    debug!(%error, "events cannot be read for a client of the live tail");
                    return None;
                }
            };
            let (text, dropped) = self.tail.take(&batch, |event| self.filter.matches(event));
            if batch.is_empty() {
                // The events up to here were removed meanwhile.
                self.tail = Tail::new(None, newest);
            }
            let passed = std::mem::take(&mut self.passed);
            let notice = |count| if count > 0 { skipped(count) } else { String::new() };
            let text = notice(passed) + &text + &notice(dropped);
            if !text.is_empty() {
                return Some(text);
            }
        }
    }
}
