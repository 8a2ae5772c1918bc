//! Webhooks: callbacks, their secrets, and whom they belong to (Twitch: "Handling Webhook Events").
//!
//! A callback belongs to a subscription or to a shard of a conduit. Nothing here is kept: what still waits
//! for another try when the stand-in ends is gone.

pub(super) mod challenge;
mod control;
pub(super) mod sender;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::state::{State, Target};
use crate::model::secret::Secret;
use crate::model::signature::Signer;
use crate::model::webhook::{KeyId, SECRET_LENGTH, WebhookKey};

pub use self::control::ShardInfo;

/// A callback that waits for its challenge to be answered.
pub(super) const PENDING: &str = "webhook_callback_verification_pending";
/// A challenge that was not answered, or not as it must be.
pub(super) const VERIFICATION_FAILED: &str = "webhook_callback_verification_failed";
/// Too many messages failed one after the other.
pub(super) const FAILURES_EXCEEDED: &str = "notification_failures_exceeded";

/// When a challenge is sent. Twitch promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeTiming {
    /// While the answer to the request is on its way: either may be first.
    Soon,
    /// The request is answered only after the challenge was, or was not in time.
    First,
    /// This long after the request.
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

/// A callback with its secret.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) callback: String,
    secret: Secret,
    signer: Signer,
    /// Messages that failed since the last one that did not.
    failures: AtomicU32,
}

impl Endpoint {
    pub(super) fn new(callback: &str, secret: &str) -> Arc<Self> {
        let secret = Secret::new(secret);
        let signer = Signer::new(&secret);
        Arc::new(Self { callback: callback.to_owned(), secret, signer, failures: AtomicU32::new(0) })
    }

    fn key(&self) -> Option<KeyId> {
        WebhookKey::new(self.secret.clone()).ok().map(|key| key.id)
    }
}

/// Two are equal to Twitch by their callback alone.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.callback == other.callback
    }
}

impl Eq for Endpoint {}

/// Whom a callback belongs to.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    Subscription(String),
    Shard { conduit: String, shard: u32 },
}

impl State {
    /// The present callback of an owner and its status.
    fn endpoint(&mut self, owner: &Owner) -> Option<(Arc<Endpoint>, &mut String)> {
        match owner {
            Owner::Subscription(id) => {
                let subscription = self.subscription_mut(id)?;
                match &subscription.target {
                    Target::Webhook(endpoint) => Some((Arc::clone(endpoint), &mut subscription.status)),
                    Target::Conduit(_) => None,
                }
            }
            Owner::Shard { conduit, shard } => {
                let conduit = self.conduits.iter_mut().find(|known| known.id == *conduit)?;
                let shard = conduit.shards.get_mut(shard)?;
                Some((Arc::clone(shard.webhook.as_ref()?), &mut shard.status))
            }
        }
    }

    /// Gives an owner another status, if it still has this callback and this status.
    fn change(&mut self, owner: &Owner, endpoint: &Arc<Endpoint>, from: &str, to: &str) -> bool {
        match self.endpoint(owner) {
            Some((present, status)) if Arc::ptr_eq(&present, endpoint) && status == from => {
                to.clone_into(status);
                true
            }
            _ => false,
        }
    }
}

/// Checks a callback and its secret as Twitch does.
pub(super) fn check(
    options: &WebhookOptions,
    callback: Option<&str>,
    secret: Option<&str>,
) -> Result<Arc<Endpoint>, &'static str> {
    let callback = callback.filter(|callback| !callback.is_empty());
    let callback = callback.ok_or("callback is required for the webhook transport")?;
    if !is_callback(callback, options.strict) {
        return Err("callback must be an https URL on port 443");
    }
    let secret = secret.unwrap_or_default();
    if !SECRET_LENGTH.contains(&secret.chars().count()) {
        return Err("the length of secret must be between 10 and 100 characters");
    }
    if !secret.is_ascii() {
        return Err("secret must be ASCII");
    }
    Ok(Endpoint::new(callback, secret))
}

fn is_callback(text: &str, strict: bool) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else { return false };
    let Some(host) = url.host_str() else { return false };
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    if !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    match strict {
        true => url.scheme() == "https" && url.port_or_known_default() == Some(443) && address.is_none(),
        false => {
            ["http", "https"].contains(&url.scheme()) && address.is_none_or(|address| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_checked_as_at_twitch_or_for_this_machine() {
        for (text, strict, lenient) in [
            ("https://hooks.example.net/twitch?key=1", true, true),
            ("https://hooks.example.net:443/", true, true),
            ("https://hooks.example.net:8443/", false, true),
            ("http://hooks.example.net/", false, true),
            ("http://127.0.0.1:8080/eventsub", false, true),
            ("https://[::1]:8080/eventsub", false, true),
            ("http://localhost:8080/eventsub", false, true),
            ("https://192.0.2.7/eventsub", false, false),
            ("https://user:word@hooks.example.net/", false, false),
            ("ftp://hooks.example.net/", false, false),
            ("hooks.example.net", false, false),
            ("https://", false, false),
        ] {
            assert_eq!((is_callback(text, true), is_callback(text, false)), (strict, lenient), "{text}");
        }
    }
}
