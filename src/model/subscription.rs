//! Subscriptions: what the file asks for, and what Twitch has.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::route::SinkName;

/// A condition in its normal form: fields sorted by name, fields with empty values left out.
///
/// Twitch returns optional fields that were omitted as empty strings, so only normal forms can be
/// compared. All values are strings (Twitch: "Create EventSub Subscription").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Condition(Box<[(Cow<'static, str>, Box<str>)]>);

/// The field names of the catalogue, which need no allocation of their own.
const COMMON_FIELDS: [&str; 13] = [
    "broadcaster_user_id",
    "campaign_id",
    "category_id",
    "client_id",
    "conduit_id",
    "extension_client_id",
    "from_broadcaster_user_id",
    "moderator_user_id",
    "organization_id",
    "reward_id",
    "to_broadcaster_user_id",
    "user_id",
    "broadcaster_id",
];

fn field_name(name: &str) -> Cow<'static, str> {
    COMMON_FIELDS
        .iter()
        .find(|common| **common == name)
        .map_or_else(|| Cow::Owned(name.to_owned()), |common| Cow::Borrowed(*common))
}

impl Condition {
    /// The normal form of these fields. Of a field that is named twice the last value counts.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut fields: Vec<(Cow<'static, str>, Box<str>)> = Vec::new();
        for (name, value) in pairs {
            fields.retain(|(known, _)| known != name);
            if !value.is_empty() {
                fields.push((field_name(name), value.into()));
            }
        }
        fields.sort_unstable();
        Self(fields.into())
    }

    /// The value of a field; `None` when it is absent or was empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The fields in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
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
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Condition {
    /// Values that are null count as empty; other values that are not strings are errors.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Condition;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Condition, A::Error> {
                let mut pairs: Vec<(Cow<'de, str>, Option<Cow<'de, str>>)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Condition::from_pairs(
                    pairs.iter().map(|(name, value)| (&**name, value.as_deref().unwrap_or_default())),
                ))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// What makes two subscriptions on one transport target equal: type, version and condition
/// (Twitch answers 409 to the second one).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubscriptionKey {
    /// For example `channel.follow`.
    #[serde(rename = "type")]
    pub subscription_type: Box<str>,
    /// For example `2`.
    pub version: Box<str>,
    /// In its normal form.
    pub condition: Condition,
}

impl fmt::Display for SubscriptionKey {
    /// `channel.follow v2 broadcaster_user_id=1 moderator_user_id=1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} {}", self.subscription_type, self.version, self.condition)
    }
}

/// The status of a subscription at Twitch ("Get EventSub Subscriptions"). An open list: values that
/// this release does not know are kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Twitch's own")]
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

    /// From Twitch's text.
    pub fn parse(text: &str) -> Self {
        Self::KNOWN
            .iter()
            .find(|(_, known)| *known == text)
            .map_or_else(|| Self::Other(text.into()), |(status, _)| status.clone())
    }

    /// Twitch's text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(text) => text,
            known => Self::KNOWN.iter().find(|(status, _)| status == known).map_or("", |(_, text)| text),
        }
    }

    /// Whether a subscription in this status blocks an equal one with 409 (enabled or pending).
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

/// Where a subscription of Twitch's list points to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransportTarget {
    /// A conduit.
    Conduit {
        /// Its id.
        conduit_id: Arc<str>,
    },
    /// A webhook.
    Webhook {
        /// Its URL.
        callback: Arc<str>,
    },
    /// Something else, by the name of its method.
    Other(Arc<str>),
}

/// A row of Twitch's list of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Twitch's id.
    pub id: Box<str>,
    /// Its status.
    pub status: SubscriptionStatus,
    /// Type, version and condition.
    pub key: SubscriptionKey,
    /// Where it points to.
    pub target: TransportTarget,
    /// What it costs of the client's `max_total_cost`.
    pub cost: u64,
}

/// The value of a condition field as the file gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldValue {
    /// Passed on as it is.
    Literal(Box<str>),
    /// A login in lower case, to be turned into a user id.
    Login(Arc<str>),
}

/// A subscription that the file asks for, after lists were multiplied and defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionSpec {
    /// For example `channel.follow`.
    pub subscription_type: Arc<str>,
    /// For example `2`.
    pub version: Arc<str>,
    /// The condition, sorted by field, each field once.
    pub condition: Box<[(Cow<'static, str>, FieldValue)]>,
    /// The sinks that get its events, sorted; all of them when it names none.
    pub sinks: Option<Arc<[SinkName]>>,
}

impl SubscriptionSpec {
    /// The logins in the condition.
    pub fn logins(&self) -> impl Iterator<Item = &Arc<str>> {
        self.condition.iter().filter_map(|(_, value)| match value {
            FieldValue::Login(login) => Some(login),
            FieldValue::Literal(_) => None,
        })
    }

    /// The key, when every login is known to `id_of`; else the first login that is not.
    ///
    /// # Errors
    /// The login that `id_of` does not know.
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
        Ok(SubscriptionKey {
            subscription_type: self.subscription_type.as_ref().into(),
            version: self.version.as_ref().into(),
            condition: Condition::from_pairs(pairs),
        })
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
