//! Calls callbacks: signs, sends, tries again, and disables what fails for too long.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::super::message::{Kind, Message};
use super::super::state::{Inner, Shared};
use super::super::{dispatch, tell};
use super::{Endpoint, FAILURES_EXCEEDED, Owner};

/// Requests under way at a time.
const REQUESTS: usize = 256;
/// Messages that wait to be tried again; what comes beyond that fails at once.
const WAITING: usize = 50_000;
/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 1 << 16;

/// Limits of the sender.
#[derive(Debug)]
pub(in super::super) struct Slots {
    requests: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Slots {
    fn default() -> Self {
        Self { requests: Arc::new(Semaphore::new(REQUESTS)), waiting: Semaphore::new(WAITING) }
    }
}

impl Slots {
    /// For one request. None once the stand-in stops.
    pub(super) async fn request(&self, inner: &Inner) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = inner.stop.cancelled() => None,
            slot = Arc::clone(&self.requests).acquire_owned() => slot.ok(),
        }
    }
}

/// A callback's answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    /// As the header has it.
    pub(super) content_length: String,
    /// None when it is longer than anything that is an answer.
    pub(super) body: Option<Bytes>,
}

/// Sends one request. None when there is no answer in time.
pub(super) async fn call(
    inner: &Inner,
    endpoint: &Endpoint,
    message: &Message,
    retry: usize,
) -> Option<Reply> {
    let http = inner.options.http.as_ref()?;
    let (limit, ahead) = {
        let state = inner.lock();
        (state.webhook.answer_limit, state.webhook.clock_ahead)
    };
    let body = Bytes::from(message.payload.clone());
    let timestamp = message.timestamp(ahead);
    let signature = endpoint.signer.sign(message.id.as_bytes(), timestamp.as_bytes(), &body);
    let mut request = http
        .post(&endpoint.callback)
        .timeout(limit)
        .header(CONTENT_TYPE, "application/json")
        .header("Twitch-Eventsub-Message-Id", &message.id)
        .header("Twitch-Eventsub-Message-Retry", retry.to_string())
        .header("Twitch-Eventsub-Message-Type", message.kind.as_str())
        .header("Twitch-Eventsub-Message-Signature", signature)
        .header("Twitch-Eventsub-Message-Timestamp", timestamp);
    if let Some((kind, version)) = &message.subscription {
        request = request
            .header("Twitch-Eventsub-Subscription-Type", kind)
            .header("Twitch-Eventsub-Subscription-Version", version);
    }
    let exchange = async {
        let mut answer = request.body(body).send().await?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let mut reply = Reply {
            status: answer.status().as_u16(),
            content_type: header(CONTENT_TYPE).unwrap_or_default().to_owned(),
            content_length: header(CONTENT_LENGTH).unwrap_or_default().to_owned(),
            body: None,
        };
        let mut whole = Vec::new();
        while let Some(part) = answer.chunk().await? {
            if whole.len() + part.len() > MAX_ANSWER {
                return Ok(reply);
            }
            whole.extend_from_slice(&part);
        }
        reply.body = Some(whole.into());
        Ok::<_, reqwest::Error>(reply)
    };
    let outcome = tokio::select! {
        () = inner.stop.cancelled() => return None,
        outcome = exchange => outcome,
    };
    let message_id = &message.id;
    match outcome {
        Ok(reply) => {
            debug!(message_id, callback = endpoint.callback, status = reply.status, "a callback answered");
            Some(reply)
        }
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error.without_url();
            debug!(message_id, callback = endpoint.callback, error, "a callback did not answer");
            None
        }
    }
}

/// Sends a notification or revocation once, and counts the answer.
pub(super) async fn attempt(
    inner: &Inner,
    endpoint: &Endpoint,
    message: &Message,
    retry: usize,
) -> Option<u16> {
    inner.count(|stats| stats.posts += 1);
    let status = call(inner, endpoint, message, retry).await.map(|reply| reply.status);
    let good = status.is_some_and(is_good);
    if good {
        endpoint.failures.store(0, Relaxed);
    }
    inner.lock().note_answer(&message.id, status);
    inner.count(|stats| stats.accepted += u64::from(good));
    status
}

fn is_good(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Takes a message over; comes back once its first try begins.
pub(in super::super) async fn post(inner: &Shared, message: Message, owner: Owner, endpoint: Arc<Endpoint>) {
    if let Some(slot) = inner.slots.request(inner).await {
        start(Arc::clone(inner), message, owner, endpoint, slot);
    }
}

/// A function of its own, and not asynchronous: a delivery that fails for good may send messages itself.
fn start(inner: Shared, message: Message, owner: Owner, endpoint: Arc<Endpoint>, slot: OwnedSemaphorePermit) {
    tokio::spawn(async move { deliver(&inner, &message, &owner, endpoint, slot).await });
}

async fn deliver(
    inner: &Shared,
    message: &Message,
    owner: &Owner,
    mut endpoint: Arc<Endpoint>,
    slot: OwnedSemaphorePermit,
) {
    if attempt(inner, &endpoint, message, 0).await.is_some_and(is_good) {
        return;
    }
    drop(slot);
    // Twitch sends a revocation once.
    if message.kind == Kind::Revocation {
        inner.count(|stats| stats.undeliverable += 1);
        return;
    }
    let pauses = inner.lock().webhook.retries.clone();
    let waiting = inner.slots.waiting.try_acquire();
    for (pause, retry) in pauses.into_iter().zip(1..) {
        if waiting.is_err() {
            break;
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(slot) = inner.slots.request(inner).await else { return };
        match present(inner, owner) {
            Present::Enabled(present) => endpoint = present,
            // A shard is perhaps just being given another callback.
            Present::Disabled => continue,
            Present::Gone => {
                inner.count(|stats| stats.undeliverable += 1);
                return;
            }
        }
        if attempt(inner, &endpoint, message, retry).await.is_some_and(is_good) {
            return;
        }
        drop(slot);
    }
    drop(waiting);
    if !inner.stop.is_cancelled() {
        failed(inner, owner, &endpoint).await;
    }
    inner.count(|stats| stats.undeliverable += 1);
}

/// The current receiver of a message that failed: its owner may have another callback by now.
enum Present {
    Enabled(Arc<Endpoint>),
    Disabled,
    Gone,
}

fn present(inner: &Inner, owner: &Owner) -> Present {
    match (inner.lock().endpoint(owner), owner) {
        (Some((endpoint, status)), _) if status == "enabled" => Present::Enabled(endpoint),
        (Some(_), Owner::Shard { .. }) => Present::Disabled,
        (Some(_), Owner::Subscription(_)) | (None, _) => Present::Gone,
    }
}

/// A message failed for good. Too many of them, and its owner is disabled.
async fn failed(inner: &Shared, owner: &Owner, endpoint: &Arc<Endpoint>) {
    let failures = endpoint.failures.fetch_add(1, Relaxed).saturating_add(1);
    {
        let mut state = inner.lock();
        let most = state.webhook.most_failures;
        if failures < most || !state.change(owner, endpoint, "enabled", FAILURES_EXCEEDED) {
            return;
        }
    }
    warn!(callback = endpoint.callback, failures, "too many messages failed; nothing is sent there any more");
    match owner {
        Owner::Subscription(id) => dispatch::revoke(inner, id, FAILURES_EXCEEDED).await,
        Owner::Shard { conduit, shard } => {
            tell::shard_disabled(inner, conduit, *shard, FAILURES_EXCEEDED).await;
        }
    }
}
