//! The identity of what an event is about.
//!
//! Twitch sends some happenings twice, under different message ids: while a subscription is moved from one method or secret
//! to another there are two, and now and then by itself (twitchdev/issues#918). Types whose events have an identity of
//! their own name it in the catalogue; of others nothing is guessed.

use std::borrow::Cow;
use std::iter;

use serde_json::value::RawValue;

use super::catalog;
use super::event::Event;
use super::members::Members;
use super::payload::Payload;
use super::subscription::ConditionFields;

/// Members that make an identity at most.
const MEMBERS: usize = 3;

/// The identity of an event among those of its type. The store keeps a hash only.
///
/// The condition belongs to it: two subscriptions of one type may see the same happening, each for its sinks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Box<[u8]>);

impl Identity {
    /// Puts the length before each part, so that parts do not run together.
    fn new<'t>(parts: impl Iterator<Item = &'t str> + Clone) -> Self {
        let mut text = Vec::with_capacity(parts.clone().map(|part| part.len() + size_of::<u64>()).sum());
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        Self(text.into())
    }
}

/// Returns the identity of an event; `None` if its type has no identity, or the event lacks a part of it.
pub fn identity(event: &Event) -> Option<Identity> {
    catalog::identity(&event.subscription_type, &event.subscription_version)?;
    identity_in(event, &Payload::read(&event.payload).ok()?)
}

/// As [`identity`], with the payload of the event, which was read already.
pub fn identity_in(event: &Event, payload: &Payload<'_>) -> Option<Identity> {
    let wanted = catalog::identity(&event.subscription_type, &event.subscription_version)?;
    let texts = texts(payload.about()?, wanted)?;
    let condition = ConditionFields::read(payload.subscription.condition?)?;
    let texts = texts.iter().flatten().map(|text| &**text);
    let condition = condition.iter().flat_map(|(name, value)| [name, value]);
    Some(Identity::new(iter::once(&*event.subscription_type).chain(texts).chain(condition)))
}

/// Returns the members that are wanted, the first text of each; `None` if there is none of one.
fn texts<'a>(about: &'a RawValue, wanted: &[String]) -> Option<[Option<Cow<'a, str>>; MEMBERS]> {
    let mut texts = [const { None }; MEMBERS];
    let mut left = wanted.len();
    for member in Members::of(about)? {
        let name = member.name()?;
        let place = wanted.iter().position(|wanted| **wanted == *name);
        let text = place.and_then(|place| texts.get_mut(place));
        let Some(text) = text.filter(|text| text.is_none()) else { continue };
        *text = member.text().filter(|text| !text.is_empty());
        left -= usize::from(text.is_some());
        if left == 0 {
            return Some(texts);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::MessageId;

    fn event(kind: &str, payload: &str) -> Event {
        Event {
            message_id: MessageId::new("m").expect("an id"),
            message_timestamp: "t".into(),
            subscription_type: kind.into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: payload.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn the_same_happening_has_one_identity_whatever_brought_it() {
        let webhook = r#"{"subscription":{"id":"a","condition":{"broadcaster_user_id":"1"},"transport":{"method":"webhook"}},
                          "event":{"id":"9001","type":"live"}}"#;
        let conduit = r#"{"event":{"type":"live","id":"900\u0031"},"subscription":{"id":"b","condition":{"x":"","broadcaster_user_id":"1"}}}"#;
        let other = webhook.replace("9001", "9002");
        let events = [webhook, conduit, &other].map(|payload| event("stream.online", payload));
        let [webhook, conduit, other] = events.each_ref().map(|event| identity(event).expect("it has one"));
        assert_eq!(webhook, conduit);
        assert_ne!(webhook, other);
        let offline = event(
            "stream.offline",
            r#"{"event":{"id":"9001"},"subscription":{"condition":{"broadcaster_user_id":"1"}}}"#,
        );
        assert_ne!(identity(&offline).expect("it has one"), webhook);
    }

    #[test]
    fn every_member_counts_and_so_does_the_subscription() {
        let redemption = |status: &str, user: &str| {
            let text = format!(
                r#"{{"subscription":{{"condition":{{"broadcaster_user_id":"{user}"}}}},"event":{{"id":"r","user_input":"{{","status":"{status}"}}}}"#
            );
            event("channel.channel_points_custom_reward_redemption.update", &text)
        };
        let first = redemption("fulfilled", "1");
        let is_same =
            |other: &Event| identity(other).expect("it has one") == identity(&first).expect("it has one");
        assert!(is_same(&redemption("fulfilled", "1")));
        assert!(!is_same(&redemption("canceled", "1")));
        assert!(!is_same(&redemption("fulfilled", "2")));
    }

    #[test]
    fn nothing_is_guessed() {
        let has_one = |kind: &str, payload: &str| identity(&event(kind, payload)).is_some();
        let about = |event: &str| format!(r#"{{"subscription":{{"condition":{{}}}},"event":{event}}}"#);
        assert!(has_one("stream.online", &about(r#"{"id":"1"}"#)));
        assert!(!has_one("channel.update", &about(r#"{"id":"1","title":"a"}"#)), "no identity of its own");
        assert!(!has_one("channel.nonsense", &about(r#"{"id":"1"}"#)));
        for lacking in ["{}", r#"{"id":null}"#, r#"{"id":""}"#, r#"{"id":7}"#, "[]"] {
            assert!(!has_one("stream.online", &about(lacking)), "{lacking}");
        }
        for broken in ["", "{", r#"{"event":{"id":"1"}}"#, r#"{"subscription":{},"event":{"id":"1"}}"#] {
            assert!(!has_one("stream.online", broken), "{broken}");
        }
        let revocation =
            r#"{"subscription":{"condition":{"broadcaster_user_id":"1"},"status":"user_removed"}}"#;
        assert!(!has_one("stream.online", revocation));
    }
}
