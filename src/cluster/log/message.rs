//! An event as a message of the shared log: its subject and its headers. The payload is the stored one. ◆

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::model::broadcaster::Broadcaster;
use crate::model::event::{Event, MessageId, Seq, StoredEvent};
use crate::model::time::Timestamp;

/// Parts into which channels are divided by their id, so that readers can share the work.
const PARTS: u8 = 16;
/// The longest header that is read, and the largest payload: more than intake takes.
const LONGEST: usize = 4_096;
const PAYLOAD: usize = 2 << 20;
/// The longest token of a subject: a line of the protocol of NATS has 4 KiB.
const TOKEN: usize = 200;

pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
const TYPE: &str = "Eventsubd-Type";
const VERSION: &str = "Eventsubd-Version";
const SUBSCRIPTION: &str = "Eventsubd-Subscription-Id";
const TIMESTAMP: &str = "Eventsubd-Message-Timestamp";
const STORED_AT: &str = "Eventsubd-Stored-At";
const HOST: &str = "Eventsubd-Host";

/// Characters that a header cannot have; they are percent-encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The subjects of all events.
pub(super) fn subjects(name: &str) -> String {
    format!("{name}.ev.>")
}

/// `NAME.ev.PART.TYPE.BROADCASTER`, such as `eventsubd.ev.3.channel-follow.1234`.
pub(super) fn subject(name: &str, event: &Event) -> String {
    subject_of(name, &event.subscription_type, &Broadcaster::of(&event.payload).id)
}

/// The subject of the events of one type for one broadcaster.
pub(super) fn subject_of(name: &str, subscription_type: &str, broadcaster: &str) -> String {
    let part = Sha256::digest(broadcaster.as_bytes()).first().copied().unwrap_or(0) % PARTS;
    format!("{name}.ev.{part}.{}.{}", token(subscription_type), token(broadcaster))
}

/// A token of a subject: what it may not have is `-`, and an empty one is `_`.
fn token(text: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    if text.is_empty() { "_".to_owned() } else { text.chars().take(TOKEN).map(known).collect() }
}

/// The headers of an event that `host` has stored. `id` is the one with the id of the message.
pub(super) fn headers(id: &'static str, stored: &StoredEvent, host: &str) -> [(&'static str, String); 7] {
    let event = &stored.event;
    [
        (id, event.message_id.to_string()),
        (TYPE, encoded(&event.subscription_type)),
        (VERSION, encoded(&event.subscription_version)),
        (SUBSCRIPTION, encoded(&event.subscription_id)),
        (TIMESTAMP, encoded(&event.message_timestamp)),
        (STORED_AT, stored.stored_at.to_string()),
        (HOST, encoded(host)),
    ]
}

/// A text as a header can have it.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A message that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the header {0} is missing, or is none that eventsubd writes")]
    Header(&'static str),
    #[error("the payload has {0} bytes")]
    TooLong(usize),
}

/// Reads an event; anybody who may publish in NATS can have written the message.
pub(super) fn read<'a>(
    position: u64,
    id: &'static str,
    header: impl Fn(&'static str) -> Option<&'a str>,
    payload: Bytes,
) -> Result<StoredEvent, Unreadable> {
    if payload.len() > PAYLOAD {
        return Err(Unreadable::TooLong(payload.len()));
    }
    let text = |name: &'static str| {
        let text = header(name).filter(|text| text.len() <= LONGEST);
        let decoded = text.and_then(|text| percent_decode_str(text).decode_utf8().ok());
        decoded.map(Box::<str>::from).ok_or(Unreadable::Header(name))
    };
    let stored_at = text(STORED_AT)?;
    Ok(StoredEvent {
        seq: Seq(position),
        stored_at: Timestamp::parse(&stored_at).ok_or(Unreadable::Header(STORED_AT))?,
        event: Event {
            message_id: header(id)
                .and_then(|text| MessageId::new(text).ok())
                .ok_or(Unreadable::Header(id))?,
            message_timestamp: text(TIMESTAMP)?,
            subscription_type: text(TYPE)?,
            subscription_version: text(VERSION)?,
            subscription_id: text(SUBSCRIPTION)?,
            payload,
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(text: &str, broadcaster: &str) -> StoredEvent {
        let payload = serde_json::json!({
            "subscription": {"condition": {"broadcaster_user_id": broadcaster}},
            "event": {"broadcaster_user_id": broadcaster},
        });
        let event = Event {
            message_id: MessageId::new("m-1").unwrap(),
            message_timestamp: text.into(),
            subscription_type: text.into(),
            subscription_version: text.into(),
            subscription_id: text.into(),
            payload: payload.to_string().into_bytes().into(),
        };
        StoredEvent { seq: Seq(1), stored_at: Timestamp::from_unix_millis(1_000), event }
    }

    #[test]
    fn a_subject_names_part_type_and_channel() {
        let subject = |id: &str| subject("bots", &event("channel.chat.message", id).event);
        assert_eq!(subject("1234"), "bots.ev.3.channel-chat-message.1234");
        let part = |id: &str| subject(id).split('.').nth(2).unwrap().to_owned();
        let parts: std::collections::BTreeSet<String> = (0..500).map(|id| part(&id.to_string())).collect();
        assert_eq!(parts.len(), 16);
    }

    proptest! {
        #[test]
        fn nothing_in_an_event_breaks_a_subject_or_a_header(text in any::<String>(), broadcaster in any::<String>()) {
            let event = event(&text, &broadcaster);
            let subject = subject("a", &event.event);
            prop_assert_eq!(subject.split('.').count(), 5);
            prop_assert!(subject.split('.').all(|token| !token.is_empty()) && subject.len() < 500);
            prop_assert!(subject.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')));
            let headers = headers(MESSAGE_ID, &event, &text);
            for (_, value) in &headers {
                prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()), "{:?}", value);
            }
            let header = |name: &str| {
                headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
            };
            prop_assert_eq!(read(1, MESSAGE_ID, header, event.event.payload.clone()), Ok(event));
        }

        #[test]
        fn whatever_stands_in_the_log_is_an_event_or_an_error(
            headers in prop::collection::vec(prop::option::of(any::<String>()), 7),
            names in prop::sample::subsequence(
                vec![MESSAGE_ID, TYPE, VERSION, SUBSCRIPTION, TIMESTAMP, STORED_AT, HOST], 0..=7,
            ),
            is_dated in any::<bool>(),
        ) {
            let header = |name: &str| {
                if name == STORED_AT && is_dated {
                    return Some("2026-11-02T09:00:01Z");
                }
                let index = names.iter().position(|known| *known == name)?;
                headers[index].as_deref()
            };
            let whole = names.len() == 7;
            let is_read = read(7, MESSAGE_ID, header, b"{".as_slice().into()).is_ok();
            prop_assert!(whole || !is_read || names.contains(&MESSAGE_ID));
        }
    }
}
