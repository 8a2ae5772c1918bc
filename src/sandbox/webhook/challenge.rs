//! Challenges: whether a callback wants what is subscribed to (Twitch: "Handling Webhook Events", responding
//! to a challenge request).

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::super::message::Message;
use super::super::state::{Inner, Shared, State, Subscription};
use super::sender::{self, Reply};
use super::{ChallengeTiming, Endpoint, Owner, PENDING, VERIFICATION_FAILED};

/// Characters of a challenge. It is any text, not only letters and digits.
const LENGTH: usize = 43;

/// A challenge that is to be sent.
#[derive(Clone, Debug)]
pub(in super::super) struct Challenge {
    owner: Owner,
    endpoint: Arc<Endpoint>,
    text: String,
    message: Message,
}

impl Challenge {
    pub(in super::super) fn of_subscription(
        inner: &Inner,
        state: &mut State,
        subscription: &Subscription,
        endpoint: &Arc<Endpoint>,
    ) -> Self {
        let text = text();
        let message = Message::challenge(inner.uuid(state), subscription, &text);
        let owner = Owner::Subscription(subscription.id.clone());
        Self { owner, endpoint: Arc::clone(endpoint), text, message }
    }

    pub(in super::super) fn of_shard(
        inner: &Inner,
        state: &mut State,
        (conduit, shard): (&str, u32),
        endpoint: &Arc<Endpoint>,
    ) -> Self {
        let text = text();
        let message = Message::shard_challenge(inner.uuid(state), conduit, shard, &text);
        let owner = Owner::Shard { conduit: conduit.to_owned(), shard };
        Self { owner, endpoint: Arc::clone(endpoint), text, message }
    }
}

fn text() -> String {
    const CHARACTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~+/=";
    std::iter::repeat_with(|| char::from(CHARACTERS[fastrand::usize(..CHARACTERS.len())]))
        .take(LENGTH)
        .collect()
}

/// Sends challenges when the settings have it; comes back when the request that caused them may be answered.
pub(in super::super) async fn send(inner: &Shared, challenges: Vec<Challenge>) {
    if challenges.is_empty() {
        return;
    }
    let timing = inner.lock().webhook.challenge;
    match timing {
        ChallengeTiming::Soon => start(inner, challenges, Duration::ZERO),
        ChallengeTiming::Later(pause) => start(inner, challenges, pause),
        ChallengeTiming::First => send_now(inner, challenges).await,
        ChallengeTiming::Never => {}
    }
}

fn start(inner: &Shared, challenges: Vec<Challenge>, pause: Duration) {
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => send_now(&inner, challenges).await,
        }
    });
}

/// Sends challenges side by side, and waits for what becomes of them.
pub(super) async fn send_now(inner: &Shared, challenges: Vec<Challenge>) {
    futures_util::future::join_all(challenges.iter().map(|challenge| verify(inner, challenge))).await;
}

async fn verify(inner: &Inner, challenge: &Challenge) {
    let Some(_slot) = inner.slots.request(inner).await else { return };
    inner.count(|stats| stats.challenges += 1);
    let reply = sender::call(inner, &challenge.endpoint, &challenge.message, 0).await;
    if inner.stop.is_cancelled() {
        return;
    }
    let callback = &challenge.endpoint.callback;
    let outcome = match judge(reply.as_ref(), &challenge.text) {
        Ok(()) => {
            debug!(callback, "the challenge is answered");
            inner.count(|stats| stats.challenges_passed += 1);
            "enabled"
        }
        Err(reason) => {
            warn!(callback, reason, "the challenge is not answered as it must be");
            VERIFICATION_FAILED
        }
    };
    inner.lock().change(&challenge.owner, &challenge.endpoint, PENDING, outcome);
    inner.count(|stats| stats.challenges_judged += 1);
}

/// Whether this is the answer that a challenge needs.
fn judge(reply: Option<&Reply>, challenge: &str) -> Result<(), &'static str> {
    let reply = reply.ok_or("there is no answer in time")?;
    if reply.status != 200 {
        return Err("the status is not 200");
    }
    if reply.body.as_deref() != Some(challenge.as_bytes()) {
        return Err("the body is not the challenge and nothing else");
    }
    if reply.content_length != challenge.len().to_string() {
        return Err("the header Content-Length is not that of the challenge");
    }
    let media_type = reply.content_type.split(';').next().unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("text/plain") {
        return Err("the content type is not text/plain");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_challenge_is_an_answer() {
        let good = Reply {
            status: 200,
            content_type: "text/plain; charset=utf-8".to_owned(),
            content_length: "3".to_owned(),
            body: Some("a~b".into()),
        };
        assert_eq!(judge(Some(&good), "a~b"), Ok(()));
        let bad = |change: fn(&mut Reply)| {
            let mut reply = good.clone();
            change(&mut reply);
            judge(Some(&reply), "a~b").expect_err("refused")
        };
        assert!(bad(|reply| reply.status = 204).contains("status"));
        assert!(bad(|reply| reply.body = Some("a~b\n".into())).contains("body"));
        assert!(bad(|reply| reply.body = None).contains("body"));
        assert!(bad(|reply| reply.content_length.clear()).contains("Content-Length"));
        assert!(bad(|reply| reply.content_type = "text/plainish".to_owned()).contains("type"));
        assert!(bad(|reply| reply.content_type = "application/json".to_owned()).contains("type"));
        assert!(judge(None, "a~b").expect_err("refused").contains("in time"));
    }
}
