//! Parts that messages of both transports have in common: kinds of members, revocations, and the event that is made of a
//! payload. ◆

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::event::{Event, MessageId};
use crate::model::json_text::text_or_number;
use crate::model::payload::SubscriptionPart;

/// The longest excerpt of a foreign text that is kept or repeated, in characters.
const EXCERPT: usize = 100;

/// A text or a number; anything else counts as empty. An event must not be lost for a member that is only shown.
pub(super) fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(text_or_number)
}

/// An object; a list is none, though serde would take its elements for the members.
pub(super) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Object(PhantomData))
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A subscription that Twitch has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The message for the sinks; `None` if it lacks something that every event has.
    pub event: Option<Event>,
    /// The id of the subscription.
    pub subscription_id: Box<str>,
    /// The type of the subscription.
    pub subscription_type: Box<str>,
    /// The status that says why it ended.
    pub status: Box<str>,
}

impl Revocation {
    pub(super) fn new(part: &SubscriptionPart<'_>, event: Option<Event>) -> Self {
        Self {
            event,
            subscription_id: excerpt(&part.id),
            subscription_type: excerpt(&part.subscription_type),
            status: excerpt(&part.status),
        }
    }
}

/// The names of an event.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) message_id: &'a str,
    pub(super) message_timestamp: &'a str,
    pub(super) subscription_type: &'a str,
    pub(super) subscription_version: &'a str,
    pub(super) subscription_id: &'a str,
}

impl Names<'_> {
    /// The event with a copy of this payload.
    ///
    /// An event outlives the buffer that the socket is read into. A slice of it would keep the whole buffer, and have the
    /// next read begin a small new one.
    ///
    /// # Errors
    /// The name of what is unusable.
    pub(super) fn event(self, payload: &[u8]) -> Result<Event, &'static str> {
        Ok(Event {
            message_id: MessageId::new(self.message_id).map_err(|_| "usable message_id")?,
            message_timestamp: excerpt(self.message_timestamp),
            subscription_type: excerpt(self.subscription_type),
            subscription_version: excerpt(self.subscription_version),
            subscription_id: excerpt(self.subscription_id),
            payload: Bytes::copy_from_slice(payload),
        })
    }
}

/// A foreign text, of bounded length.
pub(super) fn excerpt(text: &str) -> Box<str> {
    if text.len() <= EXCERPT { text.into() } else { text.chars().take(EXCERPT).collect::<String>().into() }
}
