//! An event as a message of the shared log: its subject and its headers. The payload is the stored one. ◆

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::model::broadcaster::Broadcaster;
use crate::model::event::{Event, StoredEvent};

/// Parts into which channels are divided by their id, so that readers can share the work.
const PARTS: u8 = 16;
/// The longest token of a subject: a line of the protocol of NATS has 4 KiB.
const TOKEN: usize = 200;

const MESSAGE_ID: &str = "Nats-Msg-Id";
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
    let broadcaster = Broadcaster::of(&event.payload).id;
    let part = Sha256::digest(broadcaster.as_bytes()).first().copied().unwrap_or(0) % PARTS;
    format!("{name}.ev.{part}.{}.{}", token(&event.subscription_type), token(&broadcaster))
}

/// A token of a subject: what it may not have is `-`, and an empty one is `_`.
fn token(text: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    if text.is_empty() { "_".to_owned() } else { text.chars().take(TOKEN).map(known).collect() }
}

/// The headers of an event that `host` has stored.
pub(super) fn headers(stored: &StoredEvent, host: &str) -> [(&'static str, String); 7] {
    let event = &stored.event;
    let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    [
        (MESSAGE_ID, event.message_id.to_string()),
        (TYPE, encoded(&event.subscription_type)),
        (VERSION, encoded(&event.subscription_version)),
        (SUBSCRIPTION, encoded(&event.subscription_id)),
        (TIMESTAMP, encoded(&event.message_timestamp)),
        (STORED_AT, stored.stored_at.to_string()),
        (HOST, encoded(host)),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::event::{MessageId, Seq};
    use crate::model::time::Timestamp;

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
            for (_, value) in headers(&event, &text) {
                prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()), "{:?}", value);
            }
        }
    }
}
