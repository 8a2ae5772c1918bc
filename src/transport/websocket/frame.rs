//! Parser of text frames (Twitch: "Handling WebSocket Events", "WebSocket message reference"). ◆
//!
//! The payload of a notification is copied from the frame byte for byte, never written anew.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::arrival::Arrival;
use crate::model::json_text::text_of;
use crate::model::payload::Payload;
use crate::model::shard::SessionId;
use crate::transport::notification::{Names, Revocation, excerpt, object, text_or_nothing};

/// Keepalive timeout of a welcome that names none: Twitch's default.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(10);
/// The longest keepalive timeout that Twitch offers.
const MAX_KEEPALIVE: Duration = Duration::from_secs(600);
/// The longest address for a reconnect.
const MAX_URL: usize = 8 << 10;

/// A message of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The session has begun.
    Welcome {
        session_id: SessionId,
        /// Silence longer than this means that the connection is dead.
        keepalive: Duration,
    },
    /// Nothing happened, and the connection is alive.
    Keepalive,
    Notification(Arrival),
    /// Twitch wants us on another host.
    Reconnect {
        /// Where, exactly as given.
        url: Option<Box<str>>,
    },
    /// A subscription has ended.
    Revocation(Revocation),
    /// A type that this release does not know.
    Unknown {
        /// The name of the type, shortened.
        message_type: Box<str>,
    },
}

/// A frame that is no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not JSON, or without what every message has.
    #[error("a message from Twitch cannot be read")]
    Json(#[source] serde_json::Error),
    /// Without what its type must have.
    #[error("a {message_type} message from Twitch has no {field}")]
    Incomplete {
        /// The type of the message.
        message_type: &'static str,
        /// The field that is missing or unusable.
        field: &'static str,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, deserialize_with = "object")]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    message_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    message_type: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    message_timestamp: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    subscription_type: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    subscription_version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct SessionPayload<'a> {
    #[serde(borrow, deserialize_with = "object")]
    session: SessionPart<'a>,
}

#[derive(Deserialize)]
struct SessionPart<'a> {
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    keepalive_timeout_seconds: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reconnect_url: Option<&'a RawValue>,
}

impl SessionPart<'_> {
    /// The keepalive timeout, within what Twitch offers; its default if the welcome does not say.
    fn keepalive(&self) -> Duration {
        let seconds = self.keepalive_timeout_seconds.and_then(|raw| match text_of(raw) {
            Some(text) => text.trim().parse().ok(),
            None => raw.get().parse().ok(),
        });
        seconds
            .filter(|seconds| *seconds > 0)
            .map_or(DEFAULT_KEEPALIVE, |seconds| Duration::from_secs(seconds).min(MAX_KEEPALIVE))
    }
}

/// The beginning of a frame as Twitch writes it, up to the payload.
#[derive(Deserialize)]
struct Head<'a>(#[serde(borrow, deserialize_with = "object")] Metadata<'a>);

/// Reads one text frame.
///
/// # Errors
/// The frame is not a message. Unknown types and fields are no errors.
pub fn parse(frame: &[u8]) -> Result<Message, FrameError> {
    let text = str::from_utf8(frame).map_err(|error| FrameError::Json(serde::de::Error::custom(error)))?;
    parse_dated(text, |_| ())
}

/// As [`parse`]; `date` gets the time at which Twitch sent it, as Twitch wrote it.
pub(super) fn parse_dated(frame: &str, date: impl FnOnce(&str)) -> Result<Message, FrameError> {
    if let Some((metadata, json)) = split(frame)
        && metadata.message_type == "notification"
        && let Ok(payload) = serde_json::from_str(json)
    {
        date(&metadata.message_timestamp);
        return notification(&metadata, json, &payload);
    }
    let envelope: Envelope<'_> = serde_json::from_str(frame).map_err(FrameError::Json)?;
    let metadata = &envelope.metadata;
    date(&metadata.message_timestamp);
    match &*metadata.message_type {
        "session_keepalive" => Ok(Message::Keepalive),
        "notification" => {
            let (json, payload) = payload(envelope.payload, "notification")?;
            notification(metadata, json, &payload)
        }
        "session_welcome" => {
            let session = session(envelope.payload, "session_welcome")?;
            let keepalive = session.keepalive();
            if session.id.is_empty() || session.id.len() > 1024 {
                return Err(FrameError::Incomplete { message_type: "session_welcome", field: "session id" });
            }
            Ok(Message::Welcome { session_id: SessionId::new(&*session.id), keepalive })
        }
        "session_reconnect" => {
            let session = session(envelope.payload, "session_reconnect")?;
            let url = session.reconnect_url.and_then(text_of).filter(|url| url.len() <= MAX_URL);
            Ok(Message::Reconnect { url: url.map(|url| url.into_owned().into()) })
        }
        "revocation" => {
            let (json, Payload { subscription: part, .. }) = payload(envelope.payload, "revocation")?;
            let names = Names {
                message_id: &metadata.message_id,
                message_timestamp: &metadata.message_timestamp,
                subscription_type: &part.subscription_type,
                subscription_version: &part.version,
                subscription_id: &part.id,
            };
            Ok(Message::Revocation(Revocation::new(&part, names.event(json.as_bytes()).ok())))
        }
        "" => Err(FrameError::Incomplete { message_type: "text", field: "message_type" }),
        other => Ok(Message::Unknown { message_type: excerpt(other) }),
    }
}

/// Finds the payload of a frame that is written as Twitch writes it. The payload is JSON only if it can be read; then the
/// frame is whole, too. Reading the frame first and the payload then would be twice the work.
fn split(frame: &str) -> Option<(Metadata<'_>, &str)> {
    let rest = frame.strip_prefix(r#"{"metadata":"#)?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Head<'_>>();
    let Head(metadata) = values.next()?.ok()?;
    let rest = rest.get(values.byte_offset()..)?;
    let json = rest.strip_prefix(r#","payload":"#)?.strip_suffix('}')?;
    Some((metadata, json.trim_matches([' ', '\t', '\r', '\n'])))
}

fn notification(metadata: &Metadata<'_>, json: &str, payload: &Payload<'_>) -> Result<Message, FrameError> {
    let incomplete = |field| FrameError::Incomplete { message_type: "notification", field };
    for (value, field) in [
        (&metadata.message_timestamp, "message_timestamp"),
        (&metadata.subscription_type, "subscription_type"),
        (&metadata.subscription_version, "subscription_version"),
        (&payload.subscription.id, "subscription id"),
    ] {
        if value.is_empty() {
            return Err(incomplete(field));
        }
    }
    let names = Names {
        message_id: &metadata.message_id,
        message_timestamp: &metadata.message_timestamp,
        subscription_type: &metadata.subscription_type,
        subscription_version: &metadata.subscription_version,
        subscription_id: &payload.subscription.id,
    };
    let event = names.event(json.as_bytes()).map_err(incomplete)?;
    Ok(Message::Notification(Arrival::new(event, payload)))
}

fn session<'a>(
    payload: Option<&'a RawValue>,
    message_type: &'static str,
) -> Result<SessionPart<'a>, FrameError> {
    let payload = payload.ok_or(FrameError::Incomplete { message_type, field: "payload" })?;
    let payload: SessionPayload<'a> = serde_json::from_str(payload.get()).map_err(FrameError::Json)?;
    Ok(payload.session)
}

/// The payload as it stands there, and what is read of it.
fn payload<'a>(
    raw: Option<&'a RawValue>,
    message_type: &'static str,
) -> Result<(&'a str, Payload<'a>), FrameError> {
    let json = raw.ok_or(FrameError::Incomplete { message_type, field: "payload" })?.get();
    let payload = serde_json::from_str(json).map_err(FrameError::Json)?;
    Ok((json, payload))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::model::json::testing::changes;

    fn message(kind: &str, payload: &str) -> Bytes {
        format!(
            r#"{{"metadata":{{"message_id":"m-1","message_type":"{kind}","message_timestamp":"2026-11-02T09:00:01.512Z","subscription_type":"stream.online","subscription_version":"1"}},"payload":{payload}}}"#
        )
        .into()
    }

    #[test]
    fn a_payload_is_copied_byte_for_byte() {
        let payload =
            r#"{"subscription": {"id":"s-1","type":"stream.online"},  "event":{"n":1.50,"é":"\u0041"}}"#;
        let frame = message("notification", payload);
        let Message::Notification(event) = parse(&frame).unwrap() else { panic!("a notification") };
        assert_eq!(event.payload, payload.as_bytes());
        assert!(
            !frame.as_ptr_range().contains(&event.payload.as_ptr()),
            "the buffer of the socket is free again"
        );
        assert_eq!(event.message_id.as_str(), "m-1");
        assert_eq!((&*event.subscription_type, &*event.subscription_version), ("stream.online", "1"));
        assert_eq!(&*event.subscription_id, "s-1");
        assert_eq!(&*event.message_timestamp, "2026-11-02T09:00:01.512Z");
    }

    #[test]
    fn each_type_is_read() {
        let welcome = message(
            "session_welcome",
            r#"{"session":{"id":"abc","status":"connected","keepalive_timeout_seconds":30,"reconnect_url":null,"recovery_url":null}}"#,
        );
        let expected =
            Message::Welcome { session_id: SessionId::new("abc"), keepalive: Duration::from_secs(30) };
        assert_eq!(parse(&welcome).unwrap(), expected);
        let reconnect = message(
            "session_reconnect",
            r#"{"session":{"id":"abc","keepalive_timeout_seconds":null,"reconnect_url":"wss://x/ws?a=b"}}"#,
        );
        assert_eq!(parse(&reconnect).unwrap(), Message::Reconnect { url: Some("wss://x/ws?a=b".into()) });
        assert_eq!(parse(&message("session_keepalive", "{}")).unwrap(), Message::Keepalive);
        let revocation = message(
            "revocation",
            r#"{"subscription":{"id":"s","status":"user_removed","type":"channel.follow","version":"2"}}"#,
        );
        let Message::Revocation(revocation) = parse(&revocation).unwrap() else { panic!("a revocation") };
        assert_eq!(
            (&*revocation.subscription_id, &*revocation.subscription_type, &*revocation.status),
            ("s", "channel.follow", "user_removed")
        );
        let event = revocation.event.unwrap();
        assert!(event.is_revocation());
        assert_eq!((event.message_id.as_str(), &*event.subscription_version), ("m-1", "2"));
        assert_eq!(parse(&message("new", "[]")).unwrap(), Message::Unknown { message_type: "new".into() });
    }

    #[test]
    fn a_member_of_another_kind_loses_no_event_and_no_session() {
        for subscription in [
            r#"{"id":"s-1","type":"stream.online","status":null,"version":null}"#,
            r#"{"id":"s-1","type":null,"status":7,"version":[]}"#,
            r#"{"id":"s-1","cost":"x","condition":null,"transport":[]}"#,
        ] {
            let frame =
                message("notification", &format!(r#"{{"subscription":{subscription},"event":{{}}}}"#));
            assert!(matches!(parse(&frame), Ok(Message::Notification(_))), "{subscription}");
        }
        for (keepalive, seconds) in [
            ("30", 30),
            (r#""45""#, 45),
            ("null", 10),
            ("0", 10),
            ("-3", 10),
            ("[]", 10),
            ("86400", 600),
            ("1e400", 10),
        ] {
            let payload = format!(r#"{{"session":{{"id":"abc","keepalive_timeout_seconds":{keepalive}}}}}"#);
            let Ok(Message::Welcome { keepalive: found, .. }) = parse(&message("session_welcome", &payload))
            else {
                panic!("{keepalive}")
            };
            assert_eq!(found, Duration::from_secs(seconds), "{keepalive}");
        }
        let long = format!(r#""wss://x/{}""#, "a".repeat(MAX_URL));
        for url in ["7", "null", "{}", &long] {
            let payload = format!(r#"{{"session":{{"id":"abc","reconnect_url":{url}}}}}"#);
            assert_eq!(
                parse(&message("session_reconnect", &payload)).unwrap(),
                Message::Reconnect { url: None }
            );
        }
    }

    #[test]
    fn a_message_with_a_changed_member_is_read_or_its_member_is_named() {
        let metadata = |kind: &str| {
            serde_json::json!({"message_id": "m-1", "message_type": kind, "message_timestamp": "2026-11-02T09:00:01.512Z",
                "subscription_type": "stream.online", "subscription_version": "1"})
        };
        let session = serde_json::json!({"session": {"id": "abc", "status": "connected", "keepalive_timeout_seconds": 30,
            "reconnect_url": "wss://x/ws", "connected_at": "2026-11-02T09:00:01.512Z"}});
        let subscription = serde_json::json!({"subscription": {"id": "s-1", "status": "enabled", "type": "stream.online",
            "version": "1", "cost": 1, "condition": {"broadcaster_user_id": "1"}, "created_at": "2026-11-02T09:00:01Z",
            "transport": {"method": "websocket", "session_id": "abc"}}, "event": {"id": "9", "type": "live"}});
        // The members without which a message of this type cannot be used.
        let needed: [(&str, &serde_json::Value, &[&str]); 5] = [
            ("session_welcome", &session, &["session", "id", "payload"]),
            ("session_keepalive", &serde_json::json!({}), &[]),
            ("session_reconnect", &session, &["session", "payload"]),
            (
                "notification",
                &subscription,
                &[
                    "message_id",
                    "message_timestamp",
                    "subscription_type",
                    "subscription_version",
                    "subscription",
                    "id",
                    "payload",
                ],
            ),
            ("revocation", &subscription, &["subscription", "payload"]),
        ];
        let (mut read, mut named) = (0, 0);
        for (kind, payload, needed) in needed {
            let good = serde_json::json!({"metadata": metadata(kind), "payload": payload});
            assert!(parse(good.to_string().as_bytes()).is_ok(), "{kind}");
            for changed in changes(&good) {
                let case = format!("{kind} {} {}", changed.path, changed.how);
                match parse(changed.row.to_string().as_bytes()) {
                    Ok(_) => read += 1,
                    Err(error) => {
                        let is_needed = needed.contains(&changed.name())
                            || ["metadata", "message_type"].contains(&changed.name());
                        assert!(is_needed, "{case}: {error}");
                        let text = crate::model::text::chain(&error);
                        assert!(
                            text.contains(changed.name())
                                || (changed.name() == "metadata" && text.contains("message_type"))
                                || text.contains("message from Twitch cannot be read: "),
                            "{case}: {text}"
                        );
                        named += 1;
                    }
                }
            }
        }
        assert!(read > 200 && named > 60, "{read} {named}");
    }

    #[test]
    fn what_is_incomplete_is_an_error_and_no_panic() {
        for (kind, payload) in [
            ("session_welcome", "{}"),
            ("session_welcome", r#"{"session":{"id":""}}"#),
            ("notification", r#"{"event":{}}"#),
            ("notification", "null"),
            ("revocation", "{}"),
            ("session_reconnect", "[]"),
        ] {
            assert!(parse(&message(kind, payload)).is_err(), "{kind} {payload}");
        }
        assert!(parse(&Bytes::from_static(b"{}")).is_err());
        assert!(parse(&Bytes::from(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)))).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), kind in "[a-z_]{0,20}", payload in ".{0,60}"
        ) {
            let _ = parse(&Bytes::from(bytes));
            let _ = parse(&message(&kind, &payload));
            let _ = parse(&message("notification", &payload));
        }
    }
}
