//! Id and date of an outgoing event. ◆
//!
//! Programs written for Twitch's webhooks drop a message that is older than ten minutes, and one whose id they have seen.
//! So a late message gets a new date, and a replayed event a new id. The originals are sent along.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::model::event::{Event, MessageId};
use crate::model::route::SinkName;
use crate::model::time::Timestamp;

/// Age from which a message is dated anew: half of what receivers accept (Twitch: "Handling Webhook Events", guarding
/// against replay attacks).
const LATE: Duration = Duration::from_secs(5 * 60);

/// Carries Twitch's own time of a message that was dated anew.
pub const ORIGINAL_TIMESTAMP: &str = "eventsubd-original-timestamp";
/// Carries Twitch's own id of a message that a person replays.
pub const ORIGINAL_MESSAGE_ID: &str = "eventsubd-original-message-id";
/// Marks an event that a catch-up made.
pub const CATCH_UP: &str = "eventsubd-catch-up";

/// One attempt to hand an event to its receiver.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Number of failed attempts with this event since the start of the sink.
    pub failures: u32,
    /// The new id of a replayed event.
    pub new_id: Option<MessageId>,
    /// The time of the attempt.
    pub now: SystemTime,
}

impl Attempt {
    /// The first attempt with an event that nobody replays.
    pub fn first(now: SystemTime) -> Self {
        Self { failures: 0, new_id: None, now }
    }
}

/// Id and date of a message as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub message_id: &'a str,
    pub timestamp: Cow<'a, str>,
    /// Twitch's id, if the message goes out under another one.
    pub original_message_id: Option<&'a str>,
    /// Twitch's time, if the message is dated anew.
    pub original_timestamp: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// The envelope of an event at an attempt.
    pub fn new(event: &'a Event, attempt: &'a Attempt) -> Self {
        let original = event.message_id.as_str();
        let now = Timestamp(attempt.now);
        // A time that cannot be read cannot be accepted by a receiver either.
        let is_late = Timestamp::parse(&event.message_timestamp).is_none_or(|made| now.since(made) > LATE);
        Self {
            message_id: attempt.new_id.as_ref().map_or(original, MessageId::as_str),
            timestamp: if is_late { now.to_string().into() } else { (&*event.message_timestamp).into() },
            original_message_id: attempt.new_id.as_ref().map(|_| original),
            original_timestamp: is_late.then_some(&*event.message_timestamp),
        }
    }
}

/// Replays that a person has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Stored events; the number of the replay.
    Stored(u64),
    /// A dead letter; how often it was asked for.
    DeadLetter(u64),
}

/// The id of a replayed event. Another attempt of the same replay has the same id, also after a crash, so that the
/// receiver can tell it from the next replay.
pub fn replayed_id(sink: &SinkName, replay: Replay, original: &MessageId) -> MessageId {
    let (kind, number) = match replay {
        Replay::Stored(number) => ("stored", number),
        Replay::DeadLetter(number) => ("dead letter", number),
    };
    let digest = Sha256::digest(format!("{sink}\n{kind}\n{number}\n{original}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    MessageId::new(&id.to_string()).expect("a UUID is a message id")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = "2026-11-02T09:00:01.512634234Z";

    fn event(timestamp: &str) -> Event {
        Event {
            message_id: MessageId::new("m1").unwrap(),
            message_timestamp: timestamp.into(),
            subscription_type: "stream.online".into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: b"{}".as_slice().into(),
        }
    }

    fn after(seconds: u64) -> Attempt {
        Attempt::first(Timestamp::parse(MADE).unwrap().0 + Duration::from_secs(seconds))
    }

    #[test]
    fn late_events_are_dated_with_the_time_of_the_attempt() {
        let event = event(MADE);
        let attempt = after(300);
        let envelope = Envelope::new(&event, &attempt);
        assert_eq!((&*envelope.timestamp, envelope.original_timestamp), (MADE, None));
        let attempt = after(301);
        let envelope = Envelope::new(&event, &attempt);
        assert_eq!(&*envelope.timestamp, "2026-11-02T09:05:02.512Z");
        assert_eq!((envelope.original_timestamp, envelope.message_id), (Some(MADE), "m1"));
        assert_eq!(envelope.original_message_id, None);
    }

    #[test]
    fn a_date_that_cannot_be_read_is_replaced() {
        let (event, attempt) = (event("yesterday"), after(0));
        let envelope = Envelope::new(&event, &attempt);
        assert_eq!(envelope.original_timestamp, Some("yesterday"));
        assert!(Timestamp::parse(&envelope.timestamp).is_some());
    }

    #[test]
    fn replayed_events_have_an_id_for_each_replay() {
        let event = event(MADE);
        let id = |sink: &str, replay| replayed_id(&SinkName::new(sink), replay, &event.message_id);
        let first = id("web", Replay::Stored(1));
        assert_eq!(first, id("web", Replay::Stored(1)));
        for other in
            [id("web", Replay::Stored(2)), id("web", Replay::DeadLetter(1)), id("other", Replay::Stored(1))]
        {
            assert_ne!(first, other);
        }
        let attempt = Attempt { new_id: Some(first.clone()), ..after(0) };
        let envelope = Envelope::new(&event, &attempt);
        assert_eq!((envelope.message_id, envelope.original_message_id), (first.as_str(), Some("m1")));
        assert_eq!(envelope.original_timestamp, None);
    }
}
