//! Verification and parsing of a request that claims to be Twitch's (Twitch: "Handling Webhook Events"). ◆
//!
//! The signature is looked at before anything else, and covers the message id, the timestamp and the body, as
//! they came. What it does not cover is never believed: the type of the subscription is read from the body, and
//! the type of the message has to fit it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;

pub use crate::transport::notification::Revocation;

use crate::model::arrival::Arrival;
use crate::model::payload::{Payload, SubscriptionPart};
use crate::model::shard::ShardId;
use crate::model::time::Timestamp;
use crate::model::webhook::{KeyId, WebhookKeys, parse_query};
use crate::transport::notification::{Names, excerpt, text_or_nothing};

/// A message that is older is not listened to (Twitch: "Handling Webhook Events", guarding against replays).
/// The same holds for one from the future, which only a wrong clock can bring.
pub const WINDOW: Duration = Duration::from_secs(600);

/// Twitch's name of the message.
pub const MESSAGE_ID: HeaderName = HeaderName::from_static("twitch-eventsub-message-id");
/// When it was made.
pub const MESSAGE_TIMESTAMP: HeaderName = HeaderName::from_static("twitch-eventsub-message-timestamp");
/// Proof that Twitch made the request.
pub const MESSAGE_SIGNATURE: HeaderName = HeaderName::from_static("twitch-eventsub-message-signature");
/// The kind of the message.
pub const MESSAGE_TYPE: HeaderName = HeaderName::from_static("twitch-eventsub-message-type");

/// A message that somebody made who has one of our secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The secret that it was signed with.
    pub key: KeyId,
    /// The shard that the address named.
    pub shard: Option<ShardId>,
    /// The sender's clock less ours, in milliseconds; the message's way here counts as ours being ahead.
    pub skew_millis: i64,
    /// The content of the message.
    pub message: Message,
}

/// Content of a signed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The text has to be sent back.
    Challenge {
        text: Box<str>,
        /// The subscription that is challenged.
        about: Challenged,
    },
    Notification(Arrival),
    /// A subscription has ended.
    Revocation(Revocation),
    /// A type that this release does not know.
    Unknown {
        /// The name of the type, shortened.
        message_type: Box<str>,
    },
    /// Older than [`WINDOW`], or as far in the future: the message is ignored.
    Stale,
}

/// Subscription or shard that a challenge is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenged {
    Subscription(Box<str>),
    /// A shard of a conduit.
    Shard {
        conduit_id: Box<str>,
        /// The shard's number, if the text is one.
        shard: Option<ShardId>,
    },
    /// Nothing that Twitch has: somebody who has the secret wants to know whether we can be reached.
    Nothing,
}

/// Why a request is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A header that every message has is missing, or there several times.
    #[error("the header {0} is missing or repeated")]
    Headers(&'static str),
    /// None of our secrets has made the signature.
    #[error("the signature is wrong")]
    Signature,
    /// Signed, but not what we understand.
    #[error("a signed message has no {0}")]
    Unreadable(&'static str),
}

/// The headers that every message has.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    message_id: &'a [u8],
    timestamp: &'a [u8],
    signature: &'a [u8],
    message_type: &'a [u8],
}

impl<'a> Head<'a> {
    /// Looks for them, each once.
    ///
    /// # Errors
    /// [`Rejection::Headers`].
    pub fn read(headers: &'a HeaderMap) -> Result<Self, Rejection> {
        let one = |name: &HeaderName, shown| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(value), None) => Ok(value.as_bytes()),
                _ => Err(Rejection::Headers(shown)),
            }
        };
        Ok(Self {
            message_id: one(&MESSAGE_ID, "Twitch-Eventsub-Message-Id")?,
            timestamp: one(&MESSAGE_TIMESTAMP, "Twitch-Eventsub-Message-Timestamp")?,
            signature: one(&MESSAGE_SIGNATURE, "Twitch-Eventsub-Message-Signature")?,
            message_type: one(&MESSAGE_TYPE, "Twitch-Eventsub-Message-Type")?,
        })
    }

    /// Verifies and reads the message. The secret that the query names is tried first, then the others.
    ///
    /// # Errors
    /// [`Rejection::Signature`], [`Rejection::Unreadable`].
    pub fn verify(
        &self,
        query: Option<&str>,
        body: &[u8],
        keys: &WebhookKeys,
        now: SystemTime,
    ) -> Result<Signed, Rejection> {
        let named = query.and_then(|query| parse_query(query).ok());
        let (first, shard) = named.map_or((None, None), |(id, shard)| (Some(id), shard));
        let matching = keys.all().iter().filter(|key| Some(key.id) == first);
        let others = keys.all().iter().filter(|key| Some(key.id) != first);
        let key = matching
            .chain(others)
            .find(|key| key.signer.verify(self.message_id, self.timestamp, body, self.signature))
            .ok_or(Rejection::Signature)?;

        let timestamp = text(self.timestamp, "readable timestamp")?;
        let at = Timestamp::parse(timestamp).ok_or(Rejection::Unreadable("readable timestamp"))?.0;
        let message = if age(at, now) > WINDOW || age(now, at) > WINDOW {
            Message::Stale
        } else {
            self.message(timestamp, body)?
        };
        Ok(Signed { key: key.id, shard, skew_millis: skew_millis(at, now), message })
    }

    fn message(&self, timestamp: &str, body: &[u8]) -> Result<Message, Rejection> {
        let json = text(body, "JSON")?;
        match self.message_type {
            b"notification" => {
                let payload: Payload<'_> = parse(json, "subscription and event")?;
                if payload.is_ambiguous || payload.event.is_none() && !payload.has_events {
                    return Err(Rejection::Unreadable("event"));
                }
                let subscription = &payload.subscription;
                if subscription.id.is_empty() {
                    return Err(Rejection::Unreadable("subscription id"));
                }
                if subscription.subscription_type.is_empty() || subscription.version.is_empty() {
                    return Err(Rejection::Unreadable("subscription type and version"));
                }
                let names = Names {
                    message_id: text(self.message_id, "usable message_id")?,
                    message_timestamp: timestamp,
                    subscription_type: &subscription.subscription_type,
                    subscription_version: &subscription.version,
                    subscription_id: &subscription.id,
                };
                names
                    .event(json.trim_ascii().as_bytes())
                    .map(|event| Message::Notification(Arrival::new(event, &payload)))
                    .map_err(Rejection::Unreadable)
            }
            b"webhook_callback_verification" => {
                let challenge: Challenge<'_> = parse(json, "challenge")?;
                if challenge.challenge.is_empty() {
                    return Err(Rejection::Unreadable("challenge"));
                }
                Ok(Message::Challenge {
                    about: challenge.about(),
                    text: challenge.challenge.into_owned().into(),
                })
            }
            b"revocation" => {
                let Payload { subscription, .. } = parse(json, "subscription")?;
                let event = text(self.message_id, "usable message_id").and_then(|message_id| {
                    let names = Names {
                        message_id,
                        message_timestamp: timestamp,
                        subscription_type: &subscription.subscription_type,
                        subscription_version: &subscription.version,
                        subscription_id: &subscription.id,
                    };
                    names.event(json.trim_ascii().as_bytes()).map_err(Rejection::Unreadable)
                });
                // The reconciler has to look all the same when the sinks cannot be told.
                let event = event.ok();
                Ok(Message::Revocation(Revocation::new(&subscription, event)))
            }
            other => Ok(Message::Unknown { message_type: excerpt(&String::from_utf8_lossy(other)) }),
        }
    }
}

/// [`Head::read`] and [`Head::verify`] in one.
///
/// # Errors
/// [`Rejection`].
pub fn verify(
    headers: &HeaderMap,
    query: Option<&str>,
    body: &[u8],
    keys: &WebhookKeys,
    now: SystemTime,
) -> Result<Signed, Rejection> {
    Head::read(headers)?.verify(query, body, keys, now)
}

#[derive(Deserialize)]
struct Challenge<'a> {
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    challenge: Cow<'a, str>,
    #[serde(borrow, default)]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, default)]
    conduit_shard: Option<&'a RawValue>,
}

impl Challenge<'_> {
    /// The thing that is challenged. A challenge is answered whatever is said of it.
    fn about(&self) -> Challenged {
        let subscription = self.subscription.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let shard = self.conduit_shard.and_then(|raw| serde_json::from_str(raw.get()).ok());
        match (subscription, shard) {
            (Some(SubscriptionPart { id, .. }), _) if !id.is_empty() => {
                Challenged::Subscription(excerpt(&id))
            }
            (_, Some(ConduitShard { conduit_id, shard })) if !conduit_id.is_empty() => {
                Challenged::Shard { conduit_id: excerpt(&conduit_id), shard: shard.parse().ok().map(ShardId) }
            }
            _ => Challenged::Nothing,
        }
    }
}

#[derive(Deserialize)]
struct ConduitShard<'a> {
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    conduit_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    shard: Cow<'a, str>,
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, Rejection> {
    std::str::from_utf8(bytes).map_err(|_| Rejection::Unreadable(what))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str, what: &'static str) -> Result<T, Rejection> {
    serde_json::from_str(json).map_err(|_| Rejection::Unreadable(what))
}

/// How long `at` lies back; zero when it lies ahead.
fn age(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}

fn skew_millis(at: SystemTime, now: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    millis(age(now, at)) - millis(age(at, now))
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
