//! Messages: content, the frame of a WebSocket, and the messages of a session itself (Twitch: "Handling WebSocket
//! Events", "Handling Webhook Events"). ◆

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;

use super::moment::Moment;
use super::subscription::Subscription;

/// The message type, in Twitch's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Notification,
    Revocation,
    Challenge,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::Revocation => "revocation",
            Self::Challenge => "webhook_callback_verification",
        }
    }
}

/// Content of a message, before it has an id.
#[derive(Clone, Debug)]
pub struct Content {
    pub kind: Kind,
    pub made_at: SystemTime,
    /// Type and version of the subscription; `None` for the challenge of a shard.
    pub subscription: Option<(String, String)>,
    /// The `payload` of a frame, which is the whole body of a webhook request: UTF-8.
    pub payload: Bytes,
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("messages have string keys and finite numbers")
}

impl Content {
    fn new(kind: Kind, now: SystemTime, subscription: Option<&Subscription>, payload: String) -> Self {
        let subscription = subscription.map(|s| (s.kind.clone(), s.version.clone()));
        Self { kind, made_at: now, subscription, payload: payload.into() }
    }

    /// An event; for batched types `event` is the whole array.
    pub fn notification(now: SystemTime, subscription: &Subscription, event: &str) -> Self {
        let field = if subscription.is_batched() { "events" } else { "event" };
        let payload = format!(r#"{{"subscription":{},"{field}":{event}}}"#, json(&subscription.in_message()));
        Self::new(Kind::Notification, now, Some(subscription), payload)
    }

    /// The end of a subscription, whose status is the reason.
    pub fn revocation(now: SystemTime, subscription: &Subscription) -> Self {
        let payload = format!(r#"{{"subscription":{}}}"#, json(&subscription.in_message()));
        Self::new(Kind::Revocation, now, Some(subscription), payload)
    }

    /// Asks the callback of a subscription for its consent.
    pub fn challenge(now: SystemTime, subscription: &Subscription, challenge: &str) -> Self {
        let payload = format!(
            r#"{{"challenge":{},"subscription":{}}}"#,
            json(&challenge),
            json(&subscription.in_message())
        );
        Self::new(Kind::Challenge, now, Some(subscription), payload)
    }

    /// Asks the callback of a shard.
    pub fn shard_challenge(now: SystemTime, conduit: &str, shard: u32, challenge: &str) -> Self {
        let payload = format!(
            r#"{{"challenge":{},"conduit_shard":{{"conduit_id":{},"shard":"{shard}"}}}}"#,
            json(&challenge),
            json(&conduit)
        );
        Self::new(Kind::Challenge, now, None, payload)
    }
}

/// A message on its way to a client.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: String,
    pub content: Content,
}

impl Message {
    /// The time when it was made, by a clock that is so many seconds ahead.
    pub fn timestamp(&self, ahead: i64) -> Moment {
        let by = Duration::from_secs(ahead.unsigned_abs());
        Moment(if ahead < 0 { self.content.made_at - by } else { self.content.made_at + by })
    }

    /// The frame of a WebSocket.
    pub fn frame(&self) -> String {
        let payload = std::str::from_utf8(&self.content.payload).unwrap_or("{}");
        let stamp = Stamp { id: self.id.clone(), at: self.timestamp(0) };
        let types = self.content.subscription.as_ref();
        envelope(&stamp, self.content.kind.as_str(), types, payload)
    }
}

/// The id and the time of a message.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub id: String,
    pub at: Moment,
}

fn envelope(stamp: &Stamp, kind: &str, types: Option<&(String, String)>, payload: &str) -> String {
    let mut text = String::with_capacity(payload.len() + 300);
    let _ = write!(
        text,
        r#"{{"metadata":{{"message_id":"{}","message_type":"{kind}","message_timestamp":"{}""#,
        stamp.id, stamp.at
    );
    if let Some((kind, version)) = types {
        let _ =
            write!(text, r#","subscription_type":{},"subscription_version":{}"#, json(kind), json(version));
    }
    let _ = write!(text, r#"}},"payload":{payload}}}"#);
    text
}

/// The first message of a socket.
pub fn welcome(stamp: &Stamp, id: &str, connected_at: Moment, keepalive_timeout_seconds: u32) -> String {
    #[derive(Serialize)]
    struct Session<'a> {
        id: &'a str,
        status: &'a str,
        connected_at: Moment,
        keepalive_timeout_seconds: u32,
        reconnect_url: Option<&'a str>,
        recovery_url: Option<&'a str>,
    }
    let session = Session {
        id,
        status: "connected",
        connected_at,
        keepalive_timeout_seconds,
        reconnect_url: None,
        recovery_url: None,
    };
    envelope(stamp, "session_welcome", None, &format!(r#"{{"session":{}}}"#, json(&session)))
}

/// A sign of life without an event.
pub fn keepalive(stamp: &Stamp) -> String {
    envelope(stamp, "session_keepalive", None, "{}")
}

/// Asks the client to connect to another URL.
pub fn reconnect(stamp: &Stamp, id: &str, connected_at: Moment, url: &str) -> String {
    #[derive(Serialize)]
    struct Session<'a> {
        id: &'a str,
        status: &'a str,
        connected_at: Moment,
        keepalive_timeout_seconds: Option<u32>,
        reconnect_url: &'a str,
    }
    let session = Session {
        id,
        status: "reconnecting",
        connected_at,
        keepalive_timeout_seconds: None,
        reconnect_url: url,
    };
    envelope(stamp, "session_reconnect", None, &format!(r#"{{"session":{}}}"#, json(&session)))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn messages_of_a_session_are_as_the_documentation_shows_them() {
        let at = Moment(UNIX_EPOCH);
        let stamp = Stamp { id: "m".to_owned(), at };
        assert_eq!(
            welcome(&stamp, "Ago", at, 30),
            r#"{"metadata":{"message_id":"m","message_type":"session_welcome","message_timestamp":"1970-01-01T00:00:00Z"},"payload":{"session":{"id":"Ago","status":"connected","connected_at":"1970-01-01T00:00:00Z","keepalive_timeout_seconds":30,"reconnect_url":null,"recovery_url":null}}}"#
        );
        assert!(keepalive(&stamp).ends_with(r#"},"payload":{}}"#));
        assert!(reconnect(&stamp, "Ago", at, "wss://u").ends_with(
            r#""status":"reconnecting","connected_at":"1970-01-01T00:00:00Z","keepalive_timeout_seconds":null,"reconnect_url":"wss://u"}}}"#
        ));
    }
}
