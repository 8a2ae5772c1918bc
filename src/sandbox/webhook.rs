//! Calls callbacks: sends challenges and messages, tries again, and disables what fails for too long. Nothing here is
//! kept: what still waits for another try when the stand-in ends is gone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::state::{Report, Shared, World};
use crate::platform::{
    self, Content, ENABLED, Endpoint, FAILURES_EXCEEDED, Kind, Message, PENDING, Reply, Retries,
    Subscription, VERIFICATION_FAILED, is_accepted,
};

/// Requests under way at a time.
const REQUESTS: usize = 256;
/// Messages that wait to be tried again; what comes beyond that fails at once.
const WAITING: usize = 50_000;

/// When a challenge is sent. Twitch promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeTiming {
    /// While the answer to the request is on its way: either may be first.
    Soon,
    /// The request is answered only after the challenge was, or was not in time.
    First,
    /// After this time since the request.
    Later(Duration),
    /// Not by itself: [`super::Sandbox::send_challenges`] does it.
    Never,
}

/// Settings of webhook deliveries. Twitch documents none of the figures.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// When a challenge is sent: [`ChallengeTiming::Soon`].
    pub challenge: ChallengeTiming,
    /// Time that a callback may take to answer: 10 s.
    pub answer_limit: Duration,
    /// The pauses before a message is tried again: 1 s, 5 s, 30 s, 60 s.
    pub retries: Vec<Duration>,
    /// Messages in a row that may fail, with all their retries, before the subscription or shard is disabled: 10.
    pub most_failures: u32,
    /// Whether callbacks must be `https://` on port 443 of a host name, as at Twitch. Otherwise any port and
    /// `http://` will do, for host names and addresses of this machine.
    pub strict: bool,
    /// Seconds that the mock's clock is ahead when it calls; negative if it is behind: 0.
    pub clock_ahead: i64,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            challenge: ChallengeTiming::Soon,
            answer_limit: Duration::from_secs(10),
            retries: [1, 5, 30, 60].map(Duration::from_secs).to_vec(),
            most_failures: 10,
            strict: false,
            clock_ahead: 0,
        }
    }
}

/// Whom a callback belongs to.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    Subscription(String),
    Shard { conduit: String, shard: u32 },
}

/// Limits of the sender.
#[derive(Debug)]
pub(super) struct Slots {
    requests: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Slots {
    fn default() -> Self {
        Self { requests: Arc::new(Semaphore::new(REQUESTS)), waiting: Semaphore::new(WAITING) }
    }
}

/// A place for one request. `None` once the stand-in stops.
async fn slot(world: &World) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = world.stop.cancelled() => None,
        slot = Arc::clone(&world.slots.requests).acquire_owned() => slot.ok(),
    }
}

/// The id of a message to a callback.
pub(super) fn message_id() -> String {
    platform::webhook_message_id([fastrand::u128(..), fastrand::u128(..)])
}

/// Sends one request. `None` when there is no answer in time.
async fn call(world: &World, endpoint: &Endpoint, message: &Message, retry: usize) -> Option<Reply> {
    let http = world.options.http.as_ref()?;
    let (limit, ahead) = {
        let state = world.lock();
        (state.webhook.answer_limit, state.webhook.clock_ahead)
    };
    tokio::select! {
        () = world.stop.cancelled() => None,
        reply = platform::post(http, endpoint, message, retry, limit, ahead) => reply,
    }
}

/// Sends a notification or revocation once, and counts the answer.
pub(super) async fn attempt(
    world: &World,
    endpoint: &Endpoint,
    message: &Message,
    retry: usize,
) -> Option<u16> {
    world.count(|stats| stats.posts += 1);
    let status = call(world, endpoint, message, retry).await.map(|reply| reply.status);
    if is_accepted(status) {
        endpoint.record_success();
    }
    world.lock().history.record_answer(&message.id, status);
    world.count(|stats| stats.accepted += u64::from(is_accepted(status)));
    status
}

/// Takes a message over; returns once its first try begins.
pub(super) async fn deliver(world: &Shared, message: Message, owner: Owner, endpoint: Arc<Endpoint>) {
    if let Some(slot) = slot(world).await {
        let world = Arc::clone(world);
        tokio::spawn(async move { try_all(&world, &message, &owner, endpoint, slot).await });
    }
}

async fn try_all(
    world: &World,
    message: &Message,
    owner: &Owner,
    mut endpoint: Arc<Endpoint>,
    first: OwnedSemaphorePermit,
) {
    if is_accepted(attempt(world, &endpoint, message, 0).await) {
        return;
    }
    drop(first);
    // Twitch sends a revocation once.
    if message.content.kind == Kind::Revocation {
        world.count(|stats| stats.undeliverable += 1);
        return;
    }
    let mut retries = Retries::new(world.lock().webhook.retries.clone());
    let waiting = world.slots.waiting.try_acquire();
    while let Some((pause, retry)) = retries.next().filter(|_| waiting.is_ok()) {
        tokio::select! {
            () = world.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(slot) = slot(world).await else { return };
        match present(world, owner) {
            Present::Enabled(present) => endpoint = present,
            // A shard is perhaps just being given another callback.
            Present::Disabled => continue,
            Present::Gone => {
                world.count(|stats| stats.undeliverable += 1);
                return;
            }
        }
        if is_accepted(attempt(world, &endpoint, message, retry).await) {
            return;
        }
        drop(slot);
    }
    drop(waiting);
    if !world.stop.is_cancelled() {
        failed(world, owner, &endpoint).await;
    }
    world.count(|stats| stats.undeliverable += 1);
}

/// The current receiver of a message that failed: its owner may have another callback by now.
enum Present {
    Enabled(Arc<Endpoint>),
    Disabled,
    Gone,
}

fn present(world: &World, owner: &Owner) -> Present {
    match (world.lock().endpoint(owner), owner) {
        (Some((endpoint, ENABLED)), _) => Present::Enabled(endpoint),
        (Some(_), Owner::Shard { .. }) => Present::Disabled,
        (Some(_), Owner::Subscription(_)) | (None, _) => Present::Gone,
    }
}

/// A message failed for good. Too many of them, and its owner is disabled.
async fn failed(world: &World, owner: &Owner, endpoint: &Arc<Endpoint>) {
    let failures = endpoint.record_failure();
    {
        let mut state = world.lock();
        let most = state.webhook.most_failures;
        if failures < most || !state.change(owner, endpoint, ENABLED, FAILURES_EXCEEDED) {
            return;
        }
    }
    warn!(callback = endpoint.callback, failures, "too many messages failed; nothing is sent there any more");
    world.report(Report::Disabled(owner.clone())).await;
}

/// A challenge that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    owner: Owner,
    endpoint: Arc<Endpoint>,
    text: String,
    message: Message,
}

impl Challenge {
    pub(super) fn of_subscription(subscription: &Subscription, endpoint: &Arc<Endpoint>) -> Self {
        let owner = Owner::Subscription(subscription.id.clone());
        Self::new(owner, endpoint, |now, text| Content::challenge(now, subscription, text))
    }

    pub(super) fn of_shard(conduit: &str, shard: u32, endpoint: &Arc<Endpoint>) -> Self {
        let owner = Owner::Shard { conduit: conduit.to_owned(), shard };
        Self::new(owner, endpoint, |now, text| Content::shard_challenge(now, conduit, shard, text))
    }

    fn new(
        owner: Owner,
        endpoint: &Arc<Endpoint>,
        content: impl FnOnce(SystemTime, &str) -> Content,
    ) -> Self {
        let text = platform::challenge_text(std::array::from_fn(|_| fastrand::u128(..)));
        let message = Message { id: message_id(), content: content(SystemTime::now(), &text) };
        Self { owner, endpoint: Arc::clone(endpoint), text, message }
    }
}

/// Sends challenges when the settings have it; returns when the request that caused them may be answered.
pub(super) async fn challenge(world: &Shared, challenges: Vec<Challenge>) {
    if challenges.is_empty() {
        return;
    }
    let timing = world.lock().webhook.challenge;
    match timing {
        ChallengeTiming::Soon => start(world, challenges, Duration::ZERO),
        ChallengeTiming::Later(pause) => start(world, challenges, pause),
        ChallengeTiming::First => challenge_now(world, challenges).await,
        ChallengeTiming::Never => {}
    }
}

fn start(world: &Shared, challenges: Vec<Challenge>, pause: Duration) {
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::select! {
            () = world.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => challenge_now(&world, challenges).await,
        }
    });
}

/// Sends challenges side by side, and waits for the outcomes.
pub(super) async fn challenge_now(world: &Shared, challenges: Vec<Challenge>) {
    futures_util::future::join_all(challenges.iter().map(|challenge| verify(world, challenge))).await;
}

async fn verify(world: &World, challenge: &Challenge) {
    let Some(_slot) = slot(world).await else { return };
    world.count(|stats| stats.challenges += 1);
    let reply = call(world, &challenge.endpoint, &challenge.message, 0).await;
    if world.stop.is_cancelled() {
        return;
    }
    let callback = &challenge.endpoint.callback;
    let outcome = match platform::judge(reply.as_ref(), &challenge.text) {
        Ok(()) => {
            debug!(callback, "the challenge is answered");
            world.count(|stats| stats.challenges_passed += 1);
            ENABLED
        }
        Err(reason) => {
            warn!(callback, reason, "the challenge is not answered as it must be");
            VERIFICATION_FAILED
        }
    };
    world.lock().change(&challenge.owner, &challenge.endpoint, PENDING, outcome);
    world.count(|stats| stats.challenges_judged += 1);
}
