//! The identity of what an event is about.
//!
//! Twitch sends some happenings twice, under different message ids: while a subscription is moved from one method or secret
//! to another there are two, and now and then by itself (twitchdev/issues#918). Types whose events have an identity of
//! their own name it in the catalogue; of others nothing is guessed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::catalog;
use super::event::Event;
use super::json_text::{JsonText, TextOrNothing};
use super::subscription::ConditionFields;

/// Members that make an identity at most.
const MEMBERS: usize = 3;

/// The identity of an event among those of its type. It borrows from the event, since every event passes here and the store
/// keeps a hash only.
///
/// The condition belongs to it: two subscriptions of one type may see the same happening, each for its sinks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity<'a> {
    subscription_type: &'a str,
    condition: ConditionFields<'a>,
    values: [Option<Cow<'a, str>>; MEMBERS],
}

/// Returns the identity of an event; `None` if its type has no identity, or the event lacks a part of it.
pub fn identity(event: &Event) -> Option<Identity<'_>> {
    let members = catalog::identity(&event.subscription_type, &event.subscription_version)?;
    let mut found = Found { members, values: Default::default(), condition: None };
    let mut json = serde_json::Deserializer::from_slice(&event.payload);
    // The rest is not read once everything is found, which ends in an error.
    let _ = Payload(&mut found).deserialize(&mut json);
    let Found { values, condition, .. } = found;
    let is_whole = values.get(..members.len())?.iter().all(Option::is_some);
    let subscription_type = &*event.subscription_type;
    condition.filter(|_| is_whole).map(|condition| Identity { subscription_type, condition, values })
}

struct Found<'a, 'de> {
    members: &'a [String],
    values: [Option<Cow<'de, str>>; MEMBERS],
    condition: Option<ConditionFields<'de>>,
}

/// Reads a payload up to the last member that is wanted.
struct Payload<'f, 'a, 'de>(&'f mut Found<'a, 'de>);
/// The same with `subscription`.
struct Subscription<'f, 'a, 'de>(&'f mut Found<'a, 'de>);
/// The same with `event`.
struct Members<'f, 'a, 'de>(&'f mut Found<'a, 'de>);

impl<'de> DeserializeSeed<'de> for Payload<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Payload<'_, '_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<JsonText<'de>>()? {
            match &*name {
                "subscription" => map.next_value_seed(Subscription(&mut *self.0))?,
                "event" => map.next_value_seed(Members(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Subscription<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Subscription<'_, '_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subscription")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<JsonText<'de>>()? {
            if &*name == "condition" {
                self.0.condition = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut left = self.0.members.len();
        while let Some(name) = map.next_key::<JsonText<'de>>()? {
            let Some(place) = self.0.members.iter().position(|member| *member == *name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.0.values[place] =
                map.next_value::<TextOrNothing<'de>>()?.0.filter(|value| !value.is_empty());
            left -= 1;
            if left == 0 && self.0.condition.is_some() {
                return Err(serde::de::Error::custom("everything is found"));
            }
        }
        Ok(())
    }
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
