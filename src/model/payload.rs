//! The payload of a message about a subscription, read once. ◆
//!
//! Every event passes here. So texts are borrowed, and `event` stays as it is until somebody wants a member of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json_text::{JsonText, text_or_number};

/// The members that are read.
#[derive(Clone, Debug)]
pub struct Payload<'a> {
    pub subscription: SubscriptionPart<'a>,
    /// `None` in revocations, and in batches.
    pub event: Option<&'a RawValue>,
    /// Whether there are `events`, which batches have (`drop.entitlement.grant`).
    pub has_events: bool,
    /// Whether `event` or `events` is there twice. Nobody knows which of them counts.
    pub is_ambiguous: bool,
}

/// The fields of `subscription` that are read; a text is empty if its field is missing.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionPart<'a> {
    pub id: Cow<'a, str>,
    pub status: Cow<'a, str>,
    pub subscription_type: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub condition: Option<&'a RawValue>,
}

impl<'a> Payload<'a> {
    /// Reads a whole payload.
    ///
    /// # Errors
    /// The text is not JSON, or has no `subscription` that is an object, or has it twice.
    pub fn read(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Returns what an event is about; `None` if there is nothing, or nobody knows which of two counts.
    pub fn about(&self) -> Option<&'a RawValue> {
        self.event.filter(|_| !self.is_ambiguous)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = Payload<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut subscription, mut event) = (None, None);
        let (mut has_events, mut is_ambiguous) = (false, false);
        while let Some(name) = map.next_key::<JsonText<'de>>()? {
            match &*name {
                "subscription" if subscription.is_some() => {
                    return Err(Error::duplicate_field("subscription"));
                }
                "subscription" => subscription = Some(map.next_value()?),
                "event" => is_ambiguous |= event.replace(map.next_value()?).is_some(),
                "events" => {
                    map.next_value::<IgnoredAny>()?;
                    is_ambiguous |= std::mem::replace(&mut has_events, true);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let subscription = subscription.ok_or_else(|| Error::missing_field("subscription"))?;
        Ok(Payload { subscription, event, has_events, is_ambiguous })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for SubscriptionPart<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SubscriptionVisitor)
    }
}

struct SubscriptionVisitor;

impl<'de> Visitor<'de> for SubscriptionVisitor {
    type Value = SubscriptionPart<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subscription")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const TEXTS: [&str; 4] = ["id", "status", "type", "version"];
        let (mut texts, mut condition) = ([const { None }; TEXTS.len()], None);
        while let Some(name) = map.next_key::<JsonText<'de>>()? {
            if let Some(place) = TEXTS.iter().position(|text| **text == *name) {
                if texts[place].replace(text_or_number(map.next_value()?)).is_some() {
                    return Err(Error::duplicate_field(TEXTS[place]));
                }
            } else if *name == *"condition" {
                condition = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let [id, status, subscription_type, version] = texts.map(Option::unwrap_or_default);
        Ok(SubscriptionPart { id, status, subscription_type, version, condition })
    }
}
