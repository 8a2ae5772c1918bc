//! One request, one answer.
//!
//! Checks that cost nothing come first, then the signature; nothing else happens before that holds. A
//! notification is answered with 204 once it is on disk, and with 503 at once when the store cannot take it:
//! then Twitch sends it again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tracing::{Instrument, debug, warn};

use super::body;
use super::counters::Reason;
use super::refusal::Refusal;
use super::shared::{Live, Shared};
use super::verify::{Challenged, Head, Message, Revocation, Signed};
use crate::admission::{Connection, Phase};
use crate::model::arrival::Arrival;
use crate::model::hint::{self, Hint};

/// When to come again, in seconds, as told with a 503.
const RETRY: HeaderValue = HeaderValue::from_static("5");

/// Largest body of a request to the guest's page, in bytes: a form.
const GUEST_BODY: usize = 4 << 10;

type Answer = Response<Full<Bytes>>;

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn unavailable() -> Answer {
    let mut answer = empty(StatusCode::SERVICE_UNAVAILABLE);
    answer.headers_mut().insert(RETRY_AFTER, RETRY);
    answer
}

/// Answers; only a connection that breaks has no answer.
pub(super) async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    connection.enter(Phase::Body);
    let answer = match shared.live() {
        Some(live) => handle(&shared, &live, &connection, request).await,
        // The transport was switched off by a reload; whoever takes over is told of soon.
        None => Ok(unavailable()),
    };
    let answer = answer.unwrap_or_else(|refusal| {
        let _entered = shared.span.enter();
        shared.counters.log(refusal.reason, &refusal.error, connection.peer(), Instant::now());
        shared.counters.reject(refusal.reason, 1);
        let mut answer = empty(refusal.status);
        if refusal.reason == Reason::Method {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        answer
    });
    shared.counters.requests.add(1);
    shared.counters.touch();
    connection.enter(Phase::Idle);
    Ok(answer)
}

async fn handle(
    shared: &Shared,
    live: &Live,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    if let Some(guest) = shared.guest(live, parts.uri.path()) {
        let body = body::read(body, GUEST_BODY, connection).await?;
        connection.enter(Phase::Answer);
        let answer = (guest.0)(Request::from_parts(parts, body)).instrument(shared.span.clone());
        return Ok(answer.await.map(Full::new));
    }
    if *parts.uri.path() != *live.path {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Reason::Path, "it is not for the callback's path"));
    }
    if parts.method != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Reason::Method, "it is no POST"));
    }
    let head = Head::read(&parts.headers)?;
    let body = body::read(body, live.options.limits.body_size, connection).await?;
    connection.enter(Phase::Answer);
    let now = (live.options.clock)();
    let signed = head.verify(parts.uri.query(), &body, &live.options.keys, now)?;
    drop(body);
    connection.prove();
    let here = Instant::now();
    // The daemon's own challenge tells nothing of Twitch.
    let is_own = matches!(signed.message, Message::Challenge { about: Challenged::Nothing, .. });
    let is_on_time = !is_own && !matches!(signed.message, Message::Stale);
    if is_on_time {
        shared.counters.on_time(signed.skew_millis, here, now);
    }
    let shard = signed.shard;
    let answer = act_on(shared, live, signed, here).await;
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        shared.counters.record_refused();
    } else if is_on_time {
        shared.counters.record_signed(shard);
    }
    Ok(answer)
}

/// Does what a signed message says, and answers it.
async fn act_on(shared: &Shared, live: &Live, signed: Signed, here: Instant) -> Answer {
    match signed.message {
        Message::Notification(event) => {
            shared.counters.received.add(1);
            if let Some(shard) = signed.shard {
                shared.counters.event_of_shard(shard);
            }
            store(shared, live, event).await
        }
        Message::Challenge { text, about } => shared.span.in_scope(|| challenge(shared, text, &about)),
        Message::Revocation(Revocation { subscription_id, subscription_type, status, event }) => {
            shared.counters.revocations.add(1);
            shared.span.in_scope(|| {
                warn!(%subscription_id, subscription_type, status, "Twitch has ended a subscription");
                (shared.on_hint.0)(Hint::Ended { id: (*subscription_id).into(), status });
            });
            match event {
                Some(event) => store(shared, live, event.into()).await,
                None => empty(StatusCode::NO_CONTENT),
            }
        }
        Message::Unknown { message_type } => {
            shared.counters.unknown.add(1);
            if shared.is_new(&message_type) {
                shared.span.in_scope(|| warn!(message_type, "ignored a message of an unknown type"));
            }
            empty(StatusCode::NO_CONTENT)
        }
        Message::Stale => {
            let now = (live.options.clock)();
            let off_time = || shared.counters.off_time(signed.skew_millis, here, now);
            if shared.span.in_scope(off_time) { empty(StatusCode::NO_CONTENT) } else { unavailable() }
        }
    }
}

/// Stores an event, in time or not at all as far as Twitch is told.
async fn store(shared: &Shared, live: &Live, event: Arrival) -> Answer {
    let hint = hint::of(&event);
    match tokio::time::timeout(live.options.limits.answer, shared.store.append(event)).await {
        Ok(Ok(_)) => {
            if let Some(hint) = hint {
                shared.span.in_scope(|| (shared.on_hint.0)(hint));
            }
            empty(StatusCode::NO_CONTENT)
        }
        // The store says itself what is wrong with it.
        Ok(Err(_)) | Err(_) => {
            shared.counters.unavailable.add(1);
            unavailable()
        }
    }
}

fn challenge(shared: &Shared, text: Box<str>, about: &Challenged) -> Answer {
    shared.counters.challenges.add(1);
    match about {
        Challenged::Subscription(subscription_id) => {
            debug!(%subscription_id, "a challenge was answered");
            (shared.on_hint.0)(Hint::Verified);
        }
        Challenged::Shard { conduit_id, shard } => {
            debug!(conduit_id, shard = shard.map(|shard| shard.0), "a challenge for a shard was answered");
            (shared.on_hint.0)(Hint::Shards);
        }
        Challenged::Nothing => {}
    }
    let text = Bytes::from(text.into_string());
    let length = HeaderValue::from(text.len());
    let mut answer = Response::new(Full::new(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer
}
