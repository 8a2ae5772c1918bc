//! A dead letter as a message of the shared stream: its subject and its headers. The payload is that of the event. ◆

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::message::{self, Unreadable, encoded};
use crate::model::event::{MessageId, StoredEvent};
use crate::model::hex;
use crate::model::sink::SinkName;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, FailureRecord, GivenUp};

/// The longest header that is read: a receiver's own words are in one.
const LONGEST: usize = 64 << 10;
/// The longest name of a sink that is a part of a subject; longer ones are shown by their digest.
const NAME: usize = 100;

/// The id of the event. Not the header by which a stream knows duplicates: a letter is written again when it changes.
const MESSAGE_ID: &str = "Eventsubd-Message-Id";
const SEQ: &str = "Eventsubd-Seq";
const SINK: &str = "Eventsubd-Sink";
const FAILURES: &str = "Eventsubd-Failures";

/// The subjects of all dead letters.
pub(super) fn subjects(name: &str) -> String {
    format!("{name}.dl.>")
}

/// The subjects of the dead letters of a sink, or of all sinks.
pub(super) fn subjects_of(name: &str, sink: Option<&SinkName>) -> String {
    match sink {
        Some(sink) => format!("{name}.dl.{}.*", token(sink)),
        None => subjects(name),
    }
}

/// `NAME.dl.SINK.EVENT`, such as `eventsubd.dl.log.2f1c…`. The event is named by a digest of its message id: a number of
/// the log means another event once the log had to be made anew.
pub(super) fn subject(name: &str, sink: &SinkName, id: &MessageId) -> String {
    let digest = Sha256::digest(id.as_str().as_bytes());
    format!("{name}.dl.{}.{}", token(sink), hex::encode(&digest[..16]))
}

/// The name of a sink as a token of a subject. Different names have different tokens.
fn token(sink: &SinkName) -> String {
    let name = sink.as_str();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !name.is_empty() && name.len() <= NAME && name.bytes().all(is_plain) {
        return name.to_owned();
    }
    format!("={}", hex::encode(&Sha256::digest(name.as_bytes())[..16]))
}

/// The part of a dead letter that is no event.
#[derive(Debug, Serialize, Deserialize)]
struct Failures {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<FailureRecord>,
    last: FailureRecord,
    replay: bool,
    replays: u64,
}

/// The headers of a dead letter that `host` writes. `has_words` is false for a letter that is too large with the
/// receiver's own words.
pub(super) fn headers(letter: &DeadLetter, host: &str, has_words: bool) -> Vec<(&'static str, String)> {
    let mut failures = Failures {
        first: letter.first.clone(),
        last: letter.last.clone(),
        replay: letter.replay,
        replays: letter.replays,
    };
    if !has_words {
        failures.last.said = None;
        failures.first = None;
    }
    let failures = serde_json::to_string(&failures).expect("texts and numbers always make JSON");
    let mut headers = message::headers(MESSAGE_ID, &letter.event, host).to_vec();
    headers.push((SEQ, letter.event.seq.to_string()));
    headers.push((SINK, encoded(letter.sink.as_str())));
    headers.push((FAILURES, encoded(&failures)));
    headers
}

/// Reads a dead letter of the cluster `name`; anybody who may publish in NATS can have written the message. `position` is the
/// number in the stream.
pub(super) fn read<'a>(
    name: &str,
    of: &str,
    position: u64,
    header: impl Fn(&str) -> Option<&'a str>,
    payload: Bytes,
) -> Result<DeadLetter, Unreadable> {
    let text = |name: &'static str| {
        let text = header(name).filter(|text| text.len() <= LONGEST);
        let decoded = text.and_then(|text| percent_decode_str(text).decode_utf8().ok());
        decoded.ok_or(Unreadable::Header(name))
    };
    let seq: u64 = text(SEQ)?.parse().map_err(|_| Unreadable::Header(SEQ))?;
    let failures = serde_json::from_str(&text(FAILURES)?).map_err(|_| Unreadable::Header(FAILURES))?;
    let Failures { first, last, replay, replays } = failures;
    let (sink, event) = (SinkName::new(&*text(SINK)?), message::read(seq, MESSAGE_ID, &header, payload)?);
    if subject(name, &sink, &event.event.message_id) != of {
        return Err(Unreadable::Header(SINK));
    }
    Ok(DeadLetter {
        id: i64::try_from(position).map_err(|_| Unreadable::Header(SEQ))?,
        sink,
        event,
        first,
        last,
        replay,
        replays,
    })
}

/// A letter with a new failure, not sent again until a person wants it.
pub(super) fn failed_again(letter: DeadLetter, why: &GivenUp, now: Timestamp) -> DeadLetter {
    let DeadLetter { first, last, .. } = letter;
    let GivenUp { error, said, .. } = why.clone();
    let first = first.or(Some(last));
    DeadLetter { first, last: FailureRecord { at: now, error, said }, replay: false, ..letter }
}

/// The first letter about an event.
pub(super) fn new(sink: &SinkName, event: StoredEvent, why: &GivenUp, now: Timestamp) -> DeadLetter {
    let GivenUp { first, error, said } = why.clone();
    let last = FailureRecord { at: now, error, said };
    DeadLetter { id: 0, sink: sink.clone(), event, first, last, replay: false, replays: 0 }
}

/// Whether this letter tells of the same failure already, as after an acknowledgement that was lost.
pub(super) fn tells(letter: &DeadLetter, why: &GivenUp) -> bool {
    let last = &letter.last;
    !letter.replay && (&last.error, &last.said) == (&why.error, &why.said) && letter.first == why.first
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::event::{Event, Seq};

    fn letter(text: &str, payload: &[u8]) -> DeadLetter {
        let event = Event {
            message_id: MessageId::new("m-1").unwrap(),
            message_timestamp: text.into(),
            subscription_type: text.into(),
            subscription_version: text.into(),
            subscription_id: text.into(),
            payload: Bytes::copy_from_slice(payload),
        };
        let event = StoredEvent { seq: Seq(12), stored_at: Timestamp::from_unix_millis(1_000), event };
        let record = |millis| FailureRecord {
            at: Timestamp::from_unix_millis(millis),
            error: text.to_owned(),
            said: Some(text.to_owned()),
        };
        DeadLetter {
            id: 7,
            sink: SinkName::new(text),
            event,
            first: Some(record(2_000)),
            last: record(3_000),
            replay: true,
            replays: 3,
        }
    }

    fn read_back(headers: &[(&'static str, String)], payload: &[u8]) -> Result<DeadLetter, Unreadable> {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, v)| v.as_str());
        let id = MessageId::new("m-1").unwrap();
        let sink = percent_decode_str(header(SINK).unwrap_or_default()).decode_utf8_lossy();
        read("a", &subject("a", &SinkName::new(&*sink), &id), 7, header, Bytes::copy_from_slice(payload))
    }

    #[test]
    fn a_subject_names_sink_and_event_and_different_names_differ() {
        let id = MessageId::new("m-1").unwrap();
        let of = |name: &str| subject("bots", &SinkName::new(name), &id);
        assert_eq!(of("log"), format!("bots.dl.log.{}", &of("log")[12..]));
        let names =
            ["log", "lo.g", "lo g", "lo-g", "", "*", ">", "=", "ärger", &"x".repeat(101), &"x".repeat(102)];
        let subjects: BTreeMap<String, &str> = names.iter().map(|name| (of(name), *name)).collect();
        assert_eq!(subjects.len(), names.len());
        for (subject, name) in subjects {
            let all = subjects_of("bots", Some(&SinkName::new(name)));
            assert_eq!(subject.rsplit_once('.').unwrap().0, all.rsplit_once('.').unwrap().0, "{name}");
        }
    }

    #[test]
    fn a_failure_again_keeps_the_first_one() {
        let why = GivenUp { said: Some("no".to_owned()), ..GivenUp::from("refused") };
        let now = Timestamp::from_unix_millis(9_000);
        let once = DeadLetter { first: None, ..letter("x", b"{}") };
        let again = failed_again(once.clone(), &why, now);
        assert_eq!(again.first, Some(once.last));
        assert_eq!((again.last.at, again.last.error.as_str(), again.replay), (now, "refused", false));
        let thrice = failed_again(again.clone(), &GivenUp::from("x"), now);
        assert_eq!((thrice.first, thrice.replays), (again.first.clone(), 3));
        assert!(
            tells(&again, &GivenUp { first: again.first.clone(), ..why.clone() }) && !tells(&again, &why)
        );
    }

    #[test]
    fn a_letter_without_the_words_is_one_all_the_same() {
        let whole = letter("text", b"{}");
        let short = read_back(&headers(&whole, "a", false), b"{}").unwrap();
        assert_eq!((short.first, short.last.said), (None, None));
        assert_eq!(short.last.error, whole.last.error);
    }

    proptest! {
        #[test]
        fn nothing_in_a_letter_breaks_a_subject_or_a_header(
            text in any::<String>(), payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let letter = letter(&text, &payload);
            let subject = subject("a", &letter.sink, &letter.event.event.message_id);
            prop_assert_eq!(subject.split('.').count(), 4);
            prop_assert!(subject.split('.').all(|token| !token.is_empty()) && subject.len() < 200);
            prop_assert!(subject.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'=')));
            let headers = headers(&letter, &text, true);
            for (_, value) in &headers {
                prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()), "{:?}", value);
            }
            prop_assert_eq!(read_back(&headers, &payload), Ok(letter));
        }

        #[test]
        fn whatever_stands_in_the_stream_is_a_letter_or_an_error(
            changed in any::<prop::sample::Index>(), value in prop::option::of(any::<String>()),
        ) {
            let mut headers = headers(&letter("text", b"{}"), "a", true);
            let index = changed.index(headers.len());
            match value {
                Some(value) => headers[index].1 = value,
                None => drop(headers.remove(index)),
            }
            // The host is for people only.
            if let Ok(letter) = read_back(&headers, b"{}") {
                prop_assert_eq!(letter.id, 7);
            }
        }
    }
}
