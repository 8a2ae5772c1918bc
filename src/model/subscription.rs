//! Subscriptions of the file, and of Twitch.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::catalog;
use super::json_text::JsonText;
use super::members::{Member, Members};
use super::sink::SinkName;

/// A condition in its normal form: fields sorted by name, fields with empty values left out.
///
/// Twitch returns optional fields that were omitted as empty strings, so only normal forms can be
/// compared. All values are strings (Twitch: "Create EventSub Subscription").
///
/// There may be hundreds of thousands: it is one text, names and values each with `END` behind it. U+0000 sorts before
/// everything else, so texts are in the order of their fields.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Condition(Box<str>);

/// Ends a name or a value of a [`Condition`]. One in a name or a value is replaced; Twitch has none.
const END: char = '\0';

impl Condition {
    /// Normalizes fields. If a field occurs twice, its last value counts.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self::from(&ConditionFields::new(pairs))
    }

    /// Returns the value of a field; `None` if it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Returns the fields, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

impl From<&ConditionFields<'_>> for Condition {
    fn from(ConditionFields(fields): &ConditionFields<'_>) -> Self {
        let parts = || fields.iter().flat_map(|(name, value)| [name, value]);
        let mut text = String::with_capacity(parts().map(|part| part.len() + 1).sum());
        for part in parts() {
            if part.contains(END) {
                text.push_str(&part.replace(END, "\u{FFFD}"));
            } else {
                text.push_str(part);
            }
            text.push(END);
        }
        Self(text.into())
    }
}

/// The fields of a [`Condition`] in their normal form, borrowed from the JSON that they were read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConditionFields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> ConditionFields<'a> {
    fn new(pairs: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Self {
        let mut fields: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in pairs {
            fields.retain(|(known, _)| *known != name);
            if !value.is_empty() {
                fields.push((name, value));
            }
        }
        fields.sort_unstable();
        Self(fields)
    }

    /// Reads an object of strings. Treats null as empty; `None` if there are other values.
    pub fn read(raw: &'a RawValue) -> Option<Self> {
        let field = |member: Member<'a>| {
            let value = if member.is_null() { Cow::default() } else { member.text()? };
            Some((member.name()?, value))
        };
        let mut are_strings = true;
        let fields = Members::of(raw)?.map(field).map_while(|field| {
            are_strings = field.is_some();
            field
        });
        let fields = Self::new(fields);
        are_strings.then_some(fields)
    }

    /// Returns the fields, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ConditionFields<'a> {
    /// Treats null as empty; other values that are not strings are errors.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = ConditionFields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<JsonText<'de>, Option<JsonText<'de>>>()? {
                    pairs.push((name.0, value.unwrap_or_default().0));
                }
                Ok(ConditionFields::new(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Condition {
    /// `broadcaster_user_id=1 moderator_user_id=2`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ConditionFields::deserialize(deserializer).map(|fields| Self::from(&fields))
    }
}

/// Identity of a subscription on one transport target: type, version and condition
/// (Twitch answers 409 to the second one). Copies share one value.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionKey(Arc<KeyParts>);

/// The parts of a [`SubscriptionKey`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyParts {
    /// For example `channel.follow`. Names of the catalogue are borrowed from it.
    #[serde(rename = "type")]
    pub subscription_type: Cow<'static, str>,
    /// For example `2`.
    pub version: Cow<'static, str>,
    /// In its normal form.
    pub condition: Condition,
}

impl SubscriptionKey {
    pub fn new(subscription_type: &str, version: &str, condition: Condition) -> Self {
        let (subscription_type, version) = match catalog::lookup(subscription_type, version) {
            Some(row) => (Cow::Borrowed(row.name.as_str()), Cow::Borrowed(row.version.as_str())),
            None => (Cow::Owned(subscription_type.to_owned()), Cow::Owned(version.to_owned())),
        };
        Self(Arc::new(KeyParts { subscription_type, version, condition }))
    }
}

impl Deref for SubscriptionKey {
    type Target = KeyParts;

    fn deref(&self) -> &KeyParts {
        &self.0
    }
}

impl fmt::Debug for SubscriptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Twitch's id of a subscription. Those in the form of a UUID, which Twitch's have, take 16 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(IdForm);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum IdForm {
    Uuid([u8; 16]),
    Other(Box<str>),
}

impl From<&str> for SubscriptionId {
    fn from(text: &str) -> Self {
        let uuid = Uuid::try_parse(text).ok().filter(|uuid| {
            let mut buffer = Uuid::encode_buffer();
            *uuid.hyphenated().encode_lower(&mut buffer) == *text
        });
        Self(uuid.map_or_else(|| IdForm::Other(text.into()), |uuid| IdForm::Uuid(uuid.into_bytes())))
    }
}

impl From<String> for SubscriptionId {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl PartialEq<str> for SubscriptionId {
    fn eq(&self, text: &str) -> bool {
        match &self.0 {
            IdForm::Uuid(bytes) => {
                let mut buffer = Uuid::encode_buffer();
                *Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut buffer) == *text
            }
            IdForm::Other(own) => **own == *text,
        }
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            IdForm::Uuid(bytes) => Uuid::from_bytes(*bytes).hyphenated().fmt(f),
            IdForm::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for SubscriptionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SubscriptionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*Cow::<'de, str>::deserialize(deserializer)?))
    }
}

impl fmt::Display for SubscriptionKey {
    /// `channel.follow v2 broadcaster_user_id=1 moderator_user_id=1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} {}", self.subscription_type, self.version, self.condition)
    }
}

/// Status of a subscription at Twitch ("Get EventSub Subscriptions"). An open list: unknown values are kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionStatus {
    Enabled,
    WebhookCallbackVerificationPending,
    WebhookCallbackVerificationFailed,
    NotificationFailuresExceeded,
    AuthorizationRevoked,
    ModeratorRemoved,
    UserRemoved,
    ChatUserBanned,
    VersionRemoved,
    BetaMaintenance,
    ConduitDeleted,
    /// Another value, among them the `websocket_*` ones of a transport that we do not use.
    Other(Box<str>),
}

impl SubscriptionStatus {
    const KNOWN: [(Self, &'static str); 11] = [
        (Self::Enabled, "enabled"),
        (Self::WebhookCallbackVerificationPending, "webhook_callback_verification_pending"),
        (Self::WebhookCallbackVerificationFailed, "webhook_callback_verification_failed"),
        (Self::NotificationFailuresExceeded, "notification_failures_exceeded"),
        (Self::AuthorizationRevoked, "authorization_revoked"),
        (Self::ModeratorRemoved, "moderator_removed"),
        (Self::UserRemoved, "user_removed"),
        (Self::ChatUserBanned, "chat_user_banned"),
        (Self::VersionRemoved, "version_removed"),
        (Self::BetaMaintenance, "beta_maintenance"),
        (Self::ConduitDeleted, "conduit_deleted"),
    ];

    /// Parses Twitch's text.
    pub fn parse(text: &str) -> Self {
        Self::KNOWN
            .iter()
            .find(|(_, known)| *known == text)
            .map_or_else(|| Self::Other(text.into()), |(status, _)| status.clone())
    }

    /// Returns Twitch's text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(text) => text,
            known => Self::KNOWN.iter().find(|(status, _)| status == known).map_or("", |(_, text)| text),
        }
    }

    /// Returns whether a subscription in this status blocks an equal one with 409 (enabled or pending).
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Enabled | Self::WebhookCallbackVerificationPending)
    }
}

impl fmt::Display for SubscriptionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SubscriptionStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SubscriptionStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&Cow::<'de, str>::deserialize(deserializer)?))
    }
}

/// Transport target of a subscription in Twitch's list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransportTarget {
    Conduit {
        conduit_id: Arc<str>,
    },
    Webhook {
        callback: Arc<str>,
    },
    /// Another target, by the name of its method.
    Other(Arc<str>),
}

/// One subscription of Twitch's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    pub id: SubscriptionId,
    pub status: SubscriptionStatus,
    pub key: SubscriptionKey,
    pub target: TransportTarget,
    /// Cost against the client's `max_total_cost`.
    pub cost: u64,
}

/// Value of a condition field in the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldValue {
    /// Used as it is.
    Literal(Box<str>),
    /// Login in lower case, to be resolved to a user id.
    Login(Arc<str>),
}

/// A subscription of the file, with lists expanded and defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionSpec {
    /// For example `channel.follow`.
    pub subscription_type: Arc<str>,
    /// For example `2`.
    pub version: Arc<str>,
    /// Condition, sorted by field, each field once.
    pub condition: Box<[(Cow<'static, str>, FieldValue)]>,
    /// Sinks that get its events, sorted. `None` means all.
    pub sinks: Option<Arc<[SinkName]>>,
}

impl SubscriptionSpec {
    /// Returns the logins in the condition.
    pub fn logins(&self) -> impl Iterator<Item = &Arc<str>> {
        self.condition.iter().filter_map(|(_, value)| match value {
            FieldValue::Login(login) => Some(login),
            FieldValue::Literal(_) => None,
        })
    }

    /// Resolves the logins with `id_of`.
    ///
    /// # Errors
    /// The first login that `id_of` does not know.
    pub fn resolve<'a>(
        &'a self,
        id_of: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<SubscriptionKey, Arc<str>> {
        let mut pairs = Vec::with_capacity(self.condition.len());
        for (name, value) in &self.condition {
            let value = match value {
                FieldValue::Literal(text) => text,
                FieldValue::Login(login) => id_of(login).ok_or_else(|| login.clone())?,
            };
            pairs.push((name.as_ref(), value));
        }
        Ok(SubscriptionKey::new(&self.subscription_type, &self.version, Condition::from_pairs(pairs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_in_normal_form() {
        let sent = Condition::from_pairs([("to_broadcaster_user_id", "41001")]);
        let returned: Condition = serde_json::from_str(
            r#"{"to_broadcaster_user_id":"41001","from_broadcaster_user_id":"","x":null}"#,
        )
        .expect("valid");
        assert_eq!(sent, returned);
        assert_eq!(serde_json::to_string(&returned).expect("json"), r#"{"to_broadcaster_user_id":"41001"}"#);
        assert_eq!(returned.get("from_broadcaster_user_id"), None);
        assert!(serde_json::from_str::<Condition>(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn the_order_of_conditions_is_that_of_their_fields() {
        let of = |pairs: &[(&str, &str)]| Condition::from_pairs(pairs.iter().copied());
        let sorted = [
            of(&[]),
            of(&[("a", "1")]),
            of(&[("a", "1"), ("b", "0")]),
            of(&[("a", "10")]),
            of(&[("a", "2")]),
            of(&[("aa", "0")]),
        ];
        assert!(sorted.is_sorted());
        let strange = of(&[("a", "x\0y"), ("b", "z")]);
        assert_eq!(strange.iter().collect::<Vec<_>>(), [("a", "x\u{FFFD}y"), ("b", "z")]);
        assert_eq!(format!("{strange:?}"), r#"{"a": "x�y", "b": "z"}"#);
    }

    #[test]
    fn ids_keep_their_text() {
        for text in
            ["f1c2a387-161a-49f9-a165-0f21d7a4e1c4", "F1C2A387-161A-49F9-A165-0F21D7A4E1C4", "sub-1", ""]
        {
            let id = SubscriptionId::from(text);
            assert_eq!(id.to_string(), text);
            assert!(id == *text && id != *"other");
            let json = serde_json::to_string(&id).expect("a text");
            assert_eq!(serde_json::from_str::<SubscriptionId>(&json).expect("the same"), id);
        }
        assert!(size_of::<Option<SubscriptionId>>() <= 24);
    }

    #[test]
    fn keys_of_the_catalogue_share_its_names() {
        let key = SubscriptionKey::new("channel.follow", "2", Condition::default());
        assert!(matches!(key.subscription_type, Cow::Borrowed(_)));
        let unknown = SubscriptionKey::new("channel.new", "7", Condition::default());
        assert_eq!(unknown.to_string(), "channel.new v7 ");
        let json = serde_json::to_string(&unknown).expect("an object");
        assert_eq!(json, r#"{"type":"channel.new","version":"7","condition":{}}"#);
        assert_eq!(serde_json::from_str::<SubscriptionKey>(&json).expect("the same"), unknown);
    }

    #[test]
    fn statuses_round_trip_and_stay_open() {
        for (status, text) in SubscriptionStatus::KNOWN {
            assert_eq!(SubscriptionStatus::parse(text), status);
            assert_eq!(status.as_str(), text);
        }
        assert_eq!(SubscriptionStatus::parse("new_in_2027").as_str(), "new_in_2027");
        assert!(!SubscriptionStatus::parse("new_in_2027").is_live());
    }

    #[test]
    fn specs_resolve_once_every_login_is_known() {
        let spec = SubscriptionSpec {
            subscription_type: "channel.follow".into(),
            version: "2".into(),
            condition: Box::new([
                ("broadcaster_user_id".into(), FieldValue::Login("ninja".into())),
                ("moderator_user_id".into(), FieldValue::Literal("7".into())),
            ]),
            sinks: None,
        };
        assert_eq!(spec.resolve(|_| None).expect_err("unknown").as_ref(), "ninja");
        let key = spec.resolve(|_| Some("1")).expect("known");
        assert_eq!(key.to_string(), "channel.follow v2 broadcaster_user_id=1 moderator_user_id=7");
    }
}
