//! `/events`: the live tail as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::reading::{Facts, Until};
use super::tail::{SCAN, SCAN_BYTES, TURN, Tail, skipped};
use crate::model::event::Seq;
use crate::store::Store;

/// How often a comment tells that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Types that one client may ask for, and how long each may be.
const MAX_GLOBS: usize = 32;
const MAX_GLOB: usize = 128;

/// What a client asks for: types, all when it names none, and after which event it begins.
fn parse(query: &str) -> Result<(GlobSet, Option<Seq>), String> {
    let mut set = GlobSetBuilder::new();
    let mut count = 0;
    let mut after = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => {
                after = Some(Seq(value.parse().map_err(|_| "after is no number of an event")?));
                continue;
            }
            "type" if !value.is_empty() => {}
            _ => continue,
        }
        count += 1;
        if count > MAX_GLOBS || value.len() > MAX_GLOB {
            return Err(format!("at most {MAX_GLOBS} types of {MAX_GLOB} bytes"));
        }
        set.add(Glob::new(&value).map_err(|error| format!("type is no glob: {error}"))?);
    }
    if count == 0 {
        set.add(Glob::new("*").map_err(|error| error.to_string())?);
    }
    Ok((set.build().map_err(|error| error.to_string())?, after))
}

/// `GET /events?type=GLOB&after=SEQ`
pub(super) async fn events(
    State(facts): State<Arc<Facts>>,
    until: Option<Extension<Until>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (wanted, after) = match parse(uri.query().unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(message) => return (StatusCode::BAD_REQUEST, message + "\n").into_response(),
    };
    let Ok(place) = Arc::clone(&facts.tails).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many clients follow events\n").into_response();
    };
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).map(Seq);
    let mut newest = facts.store.last_seq();
    let tail = Tail::new(seen.or(after), *newest.borrow_and_update());
    let client = Client {
        store: facts.store.clone(),
        newest,
        tail,
        wanted,
        greeted: false,
        next_turn: Instant::now(),
        passed: 0,
        cancel: facts.cancel.clone(),
        until: until.map_or_else(Vec::new, |Extension(Until(ends))| ends),
        _place: place,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        // Proxies that would wait for the end of it know this one.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(stream(client))).into_response()
}

struct Client {
    store: Store,
    newest: watch::Receiver<Seq>,
    tail: Tail,
    wanted: GlobSet,
    greeted: bool,
    next_turn: Instant,
    /// Events that were passed over, and nobody was told yet.
    passed: u64,
    cancel: CancellationToken,
    until: Vec<CancellationToken>,
    _place: OwnedSemaphorePermit,
}

/// Polled only while the client takes what was written before.
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
    /// What is sent next; nothing once the daemon stops, or whoever asked may not see more.
    async fn next(&mut self) -> Option<String> {
        if !self.greeted {
            self.greeted = true;
            return Some(format!("retry: 2000\n: events after {}\n\n", self.tail.cursor()));
        }
        let (cancel, until) = (self.cancel.clone(), self.until.clone());
        tokio::select! {
            () = cancel.cancelled() => None,
            () = any_cancelled(&until) => None,
            text = self.turns() => text,
            () = tokio::time::sleep(HEARTBEAT) => Some(":\n\n".to_owned()),
        }
    }

    /// Goes on until there is something to send.
    async fn turns(&mut self) -> Option<String> {
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
            let (text, dropped) = self.tail.take(&batch, |kind| self.wanted.is_match(kind));
            if batch.is_empty() {
                // What was there has been removed meanwhile.
                self.tail = Tail::new(None, newest);
            }
            let passed = std::mem::take(&mut self.passed);
            let told = |count| if count > 0 { skipped(count) } else { String::new() };
            let text = told(passed) + &text + &told(dropped);
            if !text.is_empty() {
                return Some(text);
            }
        }
    }
}
