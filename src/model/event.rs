//! Events as Twitch sent them, and as the store keeps them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// The longest accepted message id, in bytes. Twitch's are UUIDs or 44 characters of base64; the bound keeps a
/// hostile sender from filling the store.
pub const MAX_MESSAGE_ID: usize = 255;

/// Type of the daemon's own event about a gap, a time in which events may have been missed.
pub const GAP: &str = "eventsubd.gap";

/// Types of the daemon's own events.
pub const OWN_TYPES: [&str; 2] = [GAP, CAUGHT_UP];

/// Prefix of the types of the daemon's own events; Twitch has no such type.
pub const OWN: &str = "eventsubd.";

/// Type of the daemon's own event about what a catch-up has mended.
pub const CAUGHT_UP: &str = "eventsubd.catch_up";

/// Prefix of the message ids of events that a catch-up made. Twitch's are UUIDs or base64.
pub const CATCH_UP_ID: &str = "catch-up-";

/// Message type of a revocation, and the name of all revocations in a sink's `types` (Twitch: "Handling Webhook
/// Events").
pub const REVOCATION: &str = "revocation";

/// Twitch's id of a message; the same when it is sent again, which allows deduplication (Twitch: "Handling WebSocket
/// Events", "Handling Webhook Events").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MessageId(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id is 1 to {MAX_MESSAGE_ID} visible ASCII characters")]
pub struct InvalidMessageId;

impl MessageId {
    /// Accepts 1 to [`MAX_MESSAGE_ID`] visible ASCII characters.
    ///
    /// # Errors
    /// Any other text.
    pub fn new(text: &str) -> Result<Self, InvalidMessageId> {
        if (1..=MAX_MESSAGE_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidMessageId)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The store's sequence number of an event: the first event has 1; numbers grow and are never reused. 0 is the
/// position before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A notification or a revocation as received, over any transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub message_id: MessageId,
    /// Twitch's time of the message, verbatim.
    pub message_timestamp: Box<str>,
    /// For example `channel.follow`.
    pub subscription_type: Box<str>,
    /// For example `2`.
    pub subscription_version: Box<str>,
    pub subscription_id: Box<str>,
    /// The JSON object `{"subscription":{…},"event":{…}}`, byte for byte as received: the `payload` of a WebSocket
    /// message, or the body of a webhook request. A revocation has no `event`.
    pub payload: Bytes,
}

/// Returns whether this is the payload of a revocation.
pub fn is_revocation(payload: &[u8]) -> bool {
    // The payload distinguishes the two, so the store needs no column for it. Every sink asks this of every event:
    // searching is much cheaper than parsing, and a notification has its `event` right behind the subscription.
    memchr::memmem::find(payload, b"\"event").is_none()
        && memchr::memmem::find(payload, b"\"subscription\"").is_some()
}

impl Event {
    /// Returns whether Twitch has ended the subscription with this message.
    pub fn is_revocation(&self) -> bool {
        is_revocation(&self.payload)
    }

    /// Returns whether a catch-up made the event from what Twitch's API shows.
    pub fn is_caught_up(&self) -> bool {
        self.message_id.as_str().starts_with(CATCH_UP_ID)
    }

    /// Returns Twitch's `message_type`.
    pub fn message_type(&self) -> &'static str {
        if self.is_revocation() { REVOCATION } else { "notification" }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Position in the order of storing.
    pub seq: Seq,
    pub stored_at: Timestamp,
    pub event: Event,
}

/// First stored event to deliver again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The event with this number.
    Seq(Seq),
    /// The first event stored at or after this time.
    Time(Timestamp),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_without_event_is_a_revocation() {
        let of = |payload: &str| {
            let event = Event {
                message_id: MessageId::new("m").unwrap(),
                message_timestamp: "t".into(),
                subscription_type: "channel.follow".into(),
                subscription_version: "2".into(),
                subscription_id: "s".into(),
                payload: payload.as_bytes().to_vec().into(),
            };
            event.message_type()
        };
        assert_eq!(of(r#"{"subscription":{"status":"authorization_revoked"}}"#), "revocation");
        for notification in
            [r#"{"subscription":{},"event":{}}"#, r#"{"subscription":{}, "events" : []}"#, "{}", "garbage"]
        {
            assert_eq!(of(notification), "notification", "{notification}");
        }
    }

    #[test]
    fn message_ids_are_bounded_visible_ascii() {
        assert!(MessageId::new("2f6f0c1e-0000-4000-8000-70a1c2de0101").is_ok());
        assert!(MessageId::new(&"x".repeat(MAX_MESSAGE_ID)).is_ok());
        for bad in ["", "a b", "a\n", "é", &"x".repeat(MAX_MESSAGE_ID + 1)] {
            assert_eq!(MessageId::new(bad), Err(InvalidMessageId), "{bad:?}");
        }
    }
}
