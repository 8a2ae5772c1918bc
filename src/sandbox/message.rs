//! Messages: what they say, as the frame of a WebSocket and as the body of a webhook request.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::state::Subscription;
use super::subscriptions::{condition, transport};
use crate::model::catalog;

/// The message type, in Twitch's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Notification,
    Revocation,
    Challenge,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::Revocation => "revocation",
            Self::Challenge => "webhook_callback_verification",
        }
    }
}

/// A message on its way to a client.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) made_at: SystemTime,
    /// Type and version of the subscription; what concerns a shard has none.
    pub(super) subscription: Option<(String, String)>,
    /// The `payload` of a frame, which is the whole body of a webhook request.
    pub(super) payload: Utf8Bytes,
}

impl Message {
    fn new(id: String, kind: Kind, subscription: Option<&Subscription>, payload: String) -> Self {
        Self {
            id,
            kind,
            made_at: SystemTime::now(),
            subscription: subscription.map(|s| (s.kind.clone(), s.version.clone())),
            payload: payload.into(),
        }
    }

    /// An event; of batched types `event` is the whole array.
    pub(super) fn notification(id: String, subscription: &Subscription, event: &str) -> Self {
        let field = if is_batched(subscription) { "events" } else { "event" };
        let payload = format!(r#"{{"subscription":{},"{field}":{event}}}"#, shown(subscription));
        Self::new(id, Kind::Notification, Some(subscription), payload)
    }

    /// The end of a subscription, whose status is the reason.
    pub(super) fn revocation(id: String, subscription: &Subscription) -> Self {
        let payload = format!(r#"{{"subscription":{}}}"#, shown(subscription));
        Self::new(id, Kind::Revocation, Some(subscription), payload)
    }

    /// Asks the callback of a subscription for its consent.
    pub(super) fn challenge(id: String, subscription: &Subscription, challenge: &str) -> Self {
        let payload =
            format!(r#"{{"challenge":{},"subscription":{}}}"#, Value::from(challenge), shown(subscription));
        Self::new(id, Kind::Challenge, Some(subscription), payload)
    }

    /// Asks the callback of a shard.
    pub(super) fn shard_challenge(id: String, conduit: &str, shard: u32, challenge: &str) -> Self {
        let payload = format!(
            r#"{{"challenge":{},"conduit_shard":{{"conduit_id":{},"shard":"{shard}"}}}}"#,
            Value::from(challenge),
            Value::from(conduit)
        );
        Self::new(id, Kind::Challenge, None, payload)
    }

    /// Another message that says the same.
    pub(super) fn again(&self, id: String) -> Self {
        Self { id, made_at: SystemTime::now(), ..self.clone() }
    }

    /// When it was made by a clock that is so many seconds ahead: RFC 3339 with nanoseconds.
    pub(super) fn timestamp(&self, ahead: i64) -> String {
        let by = Duration::from_secs(ahead.unsigned_abs());
        let at = if ahead < 0 { self.made_at - by } else { self.made_at + by };
        humantime::format_rfc3339_nanos(at).to_string()
    }

    /// The frame of a WebSocket.
    pub(super) fn frame(&self) -> Utf8Bytes {
        let mut text = String::with_capacity(self.payload.len() + 300);
        let _ = write!(
            text,
            r#"{{"metadata":{{"message_id":"{}","message_type":"{}","message_timestamp":"{}""#,
            self.id,
            self.kind.as_str(),
            self.timestamp(0)
        );
        if let Some((kind, version)) = &self.subscription {
            let _ = write!(text, r#","subscription_type":"{kind}","subscription_version":"{version}""#);
        }
        let _ = write!(text, r#"}},"payload":{}}}"#, self.payload.as_str());
        text.into()
    }
}

fn is_batched(subscription: &Subscription) -> bool {
    catalog::lookup(&subscription.kind, &subscription.version).is_some_and(|row| row.batched)
}

/// The subscription as messages show it.
fn shown(subscription: &Subscription) -> String {
    // The order of fields is that of Twitch's notifications, which a map would not keep.
    let text = |value: &str| Value::from(value).to_string();
    format!(
        r#"{{"id":{},"status":{},"type":{},"version":{},{}"cost":{},"condition":{},"transport":{},"created_at":{}}}"#,
        text(&subscription.id),
        text(&subscription.status),
        text(&subscription.kind),
        text(&subscription.version),
        if is_batched(subscription) { r#""is_batching_enabled":true,"# } else { "" },
        subscription.cost,
        condition(subscription),
        transport(subscription),
        json!(subscription.created_at),
    )
}
