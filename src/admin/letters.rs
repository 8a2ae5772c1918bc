//! Dead letters as JSON, for the commands that read them through the daemon.

use serde::{Deserialize, Serialize};

use crate::model::event::{Event, MessageId, Seq, StoredEvent};
use crate::model::route::SinkName;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, FailureRecord, LetterPage};

/// A dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Letter {
    id: i64,
    sink: SinkName,
    seq: Seq,
    stored_at: Timestamp,
    message_id: String,
    message_timestamp: String,
    #[serde(rename = "type")]
    kind: String,
    version: String,
    subscription_id: String,
    /// The event's JSON as text, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<FailureRecord>,
    last: FailureRecord,
    replay: bool,
    replays: u64,
}

/// A page of the dead letters that the hosts of a cluster share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SharedLetterPage {
    /// Name of the host that answers.
    pub host: String,
    letters: Vec<Letter>,
    /// Where the next page begins: after this number. `None` at the end.
    pub next: Option<i64>,
    /// Number of messages that are no dead letters.
    pub unreadable: u64,
}

impl SharedLetterPage {
    /// Payloads are left out unless they are asked for.
    pub(super) fn new(host: String, page: LetterPage, with_payload: bool) -> Self {
        let letters = page.letters.into_iter().map(|letter| Letter::new(letter, with_payload)).collect();
        Self { host, letters, next: page.next, unreadable: page.unreadable }
    }

    /// The letters; without payloads if those were not asked for. `None` if an id of a message is none.
    pub fn into_letters(self) -> Option<Vec<DeadLetter>> {
        self.letters.into_iter().map(Letter::into_dead_letter).collect()
    }
}

impl Letter {
    fn new(letter: DeadLetter, with_payload: bool) -> Self {
        let DeadLetter { id, sink, event: StoredEvent { seq, stored_at, event }, first, last, .. } = letter;
        let payload = || String::from_utf8_lossy(&event.payload).into_owned();
        Self {
            id,
            sink,
            seq,
            stored_at,
            message_id: event.message_id.to_string(),
            message_timestamp: event.message_timestamp.to_string(),
            kind: event.subscription_type.to_string(),
            version: event.subscription_version.to_string(),
            subscription_id: event.subscription_id.to_string(),
            payload: with_payload.then(payload),
            first,
            last,
            replay: letter.replay,
            replays: letter.replays,
        }
    }

    fn into_dead_letter(self) -> Option<DeadLetter> {
        let event = Event {
            message_id: MessageId::new(&self.message_id).ok()?,
            message_timestamp: self.message_timestamp.into(),
            subscription_type: self.kind.into(),
            subscription_version: self.version.into(),
            subscription_id: self.subscription_id.into(),
            payload: self.payload.unwrap_or_default().into_bytes().into(),
        };
        Some(DeadLetter {
            id: self.id,
            sink: self.sink,
            event: StoredEvent { seq: self.seq, stored_at: self.stored_at, event },
            first: self.first,
            last: self.last,
            replay: self.replay,
            replays: self.replays,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_back_as_they_were() {
        let letter = DeadLetter {
            id: 1_800_000_000,
            sink: SinkName::new("web"),
            event: StoredEvent {
                seq: Seq(12),
                stored_at: Timestamp::from_unix_millis(1),
                event: Event {
                    message_id: MessageId::new("m1").unwrap(),
                    message_timestamp: "2026-11-02T09:00:01Z".into(),
                    subscription_type: "stream.online".into(),
                    subscription_version: "1".into(),
                    subscription_id: "s".into(),
                    payload: b"{ \"a\" : 1.0}".as_slice().into(),
                },
            },
            first: None,
            last: FailureRecord { at: Timestamp::from_unix_millis(2), error: "no".to_owned(), said: None },
            replay: true,
            replays: 2,
        };
        for with_payload in [true, false] {
            let page = LetterPage { letters: vec![letter.clone()], next: Some(7), unreadable: 1 };
            let page = SharedLetterPage::new("a".to_owned(), page, with_payload);
            let text = serde_json::to_string(&page).unwrap();
            let back: SharedLetterPage = serde_json::from_str(&text).unwrap();
            assert_eq!((back.next, back.unreadable, back.host.as_str()), (Some(7), 1, "a"));
            let mut expected = letter.clone();
            if !with_payload {
                expected.event.event.payload = bytes::Bytes::new();
            }
            assert_eq!(back.into_letters(), Some(vec![expected]));
        }
    }
}
