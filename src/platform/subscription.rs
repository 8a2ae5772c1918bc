//! Subscriptions and shards, and the JSON that Twitch shows of them. Members stand in Twitch's order. ◆

use std::sync::Arc;

use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Serialize, Serializer};

use super::endpoint::Endpoint;
use super::moment::Moment;
use super::status;
use crate::model::catalog;
use crate::model::subscription::{Condition, SubscriptionKey};

/// The fields of a condition in Twitch's order; empty when omitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionFields(pub Vec<(String, String)>);

impl ConditionFields {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Whether some field has this value.
    pub fn names(&self, value: &str) -> bool {
        !value.is_empty() && self.0.iter().any(|(_, known)| known == value)
    }

    /// The ids of the users.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|(name, id)| name.ends_with("user_id") && !id.is_empty())
            .map(|(_, id)| id.as_str())
    }

    /// Without the fields that are empty.
    pub fn to_condition(&self) -> Condition {
        Condition::from_pairs(self.0.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }
}

impl Serialize for ConditionFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The target of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Webhook(Arc<Endpoint>),
    Conduit(String),
    /// A session, with the times when its socket was opened and lost.
    Websocket {
        session_id: String,
        connected_at: Moment,
        disconnected_at: Option<Moment>,
    },
}

impl Transport {
    /// Whether two subscriptions with these targets are equal to Twitch.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Webhook(one), Self::Webhook(other)) => one.callback == other.callback,
            (Self::Conduit(one), Self::Conduit(other)) => one == other,
            (Self::Websocket { session_id: one, .. }, Self::Websocket { session_id: other, .. }) => {
                one == other
            }
            _ => false,
        }
    }
}

/// A transport as lists show it or, shorter, as messages do.
#[derive(Clone, Copy, Debug)]
pub struct TransportInfo<'a> {
    pub transport: &'a Transport,
    pub in_message: bool,
}

impl Serialize for TransportInfo<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.transport {
            Transport::Webhook(endpoint) => {
                map.serialize_entry("method", "webhook")?;
                map.serialize_entry("callback", &endpoint.callback)?;
            }
            Transport::Conduit(id) => {
                map.serialize_entry("method", "conduit")?;
                map.serialize_entry("conduit_id", id)?;
            }
            Transport::Websocket { session_id, connected_at, disconnected_at } => {
                map.serialize_entry("method", "websocket")?;
                map.serialize_entry("session_id", session_id)?;
                if !self.in_message {
                    map.serialize_entry("connected_at", connected_at)?;
                    if let Some(at) = disconnected_at {
                        map.serialize_entry("disconnected_at", at)?;
                    }
                }
            }
        }
        map.end()
    }
}

/// A subscription of a client.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: String,
    pub client_id: String,
    pub status: String,
    pub kind: String,
    pub version: String,
    pub condition: ConditionFields,
    pub transport: Transport,
    pub cost: u64,
    pub created_at: Moment,
    /// The user whose token made it; only with the WebSocket transport.
    pub user: Option<String>,
}

/// A row of the list.
impl Serialize for Subscription {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("Subscription", 8)?;
        row.serialize_field("id", &self.id)?;
        row.serialize_field("status", &self.status)?;
        row.serialize_field("type", &self.kind)?;
        row.serialize_field("version", &self.version)?;
        row.serialize_field("condition", &self.condition)?;
        row.serialize_field("created_at", &self.created_at)?;
        row.serialize_field("transport", &TransportInfo { transport: &self.transport, in_message: false })?;
        row.serialize_field("cost", &self.cost)?;
        row.end()
    }
}

impl Subscription {
    pub fn is_live(&self) -> bool {
        status::is_live(&self.status)
    }

    pub fn is_batched(&self) -> bool {
        catalog::lookup(&self.kind, &self.version).is_some_and(|row| row.batched)
    }

    /// The same for equal subscriptions of a client, whatever their transport.
    pub fn key(&self) -> SubscriptionKey {
        SubscriptionKey::new(&self.kind, &self.version, self.condition.to_condition())
    }

    /// The user whose channel decides on the shard; empty without a channel.
    pub fn channel(&self) -> &str {
        [
            "broadcaster_user_id",
            "broadcaster_id",
            "to_broadcaster_user_id",
            "from_broadcaster_user_id",
            "user_id",
        ]
        .into_iter()
        .find_map(|field| self.condition.get(field))
        .unwrap_or_default()
    }

    /// The subscription as messages show it.
    pub fn in_message(&self) -> impl Serialize + '_ {
        InMessage(self)
    }
}

struct InMessage<'a>(&'a Subscription);

impl Serialize for InMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let subscription = self.0;
        let mut row = serializer.serialize_struct("Subscription", 9)?;
        row.serialize_field("id", &subscription.id)?;
        row.serialize_field("status", &subscription.status)?;
        row.serialize_field("type", &subscription.kind)?;
        row.serialize_field("version", &subscription.version)?;
        if subscription.is_batched() {
            row.serialize_field("is_batching_enabled", &true)?;
        }
        row.serialize_field("cost", &subscription.cost)?;
        row.serialize_field("condition", &subscription.condition)?;
        let transport = &subscription.transport;
        row.serialize_field("transport", &TransportInfo { transport, in_message: true })?;
        row.serialize_field("created_at", &subscription.created_at)?;
        row.end()
    }
}

/// A row of the list of shards.
#[derive(Clone, Debug, Serialize)]
pub struct ShardRow<'a> {
    pub id: String,
    pub status: &'a str,
    pub transport: TransportInfo<'a>,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn members_stand_in_twitchs_order() {
        let at = Moment(UNIX_EPOCH + Duration::new(1, 5));
        let session = Transport::Websocket {
            session_id: "Ago".to_owned(),
            connected_at: at,
            disconnected_at: Some(Moment(UNIX_EPOCH)),
        };
        let mut subscription = Subscription {
            id: "i".to_owned(),
            client_id: "c".to_owned(),
            status: ENABLED.to_owned(),
            kind: "channel.raid".to_owned(),
            version: "1".to_owned(),
            condition: ConditionFields(vec![
                ("from_broadcaster_user_id".to_owned(), String::new()),
                ("to_broadcaster_user_id".to_owned(), "1".to_owned()),
            ]),
            transport: session,
            cost: 1,
            created_at: at,
            user: None,
        };
        let text = |value: &dyn erased::Json| value.text();
        let condition = r#""condition":{"from_broadcaster_user_id":"","to_broadcaster_user_id":"1"}"#;
        assert_eq!(
            text(&subscription),
            format!(
                r#"{{"id":"i","status":"enabled","type":"channel.raid","version":"1",{condition},"created_at":"1970-01-01T00:00:01.000000005Z","transport":{{"method":"websocket","session_id":"Ago","connected_at":"1970-01-01T00:00:01.000000005Z","disconnected_at":"1970-01-01T00:00:00Z"}},"cost":1}}"#
            )
        );
        assert_eq!(
            text(&subscription.in_message()),
            format!(
                r#"{{"id":"i","status":"enabled","type":"channel.raid","version":"1","cost":1,{condition},"transport":{{"method":"websocket","session_id":"Ago"}},"created_at":"1970-01-01T00:00:01.000000005Z"}}"#
            )
        );
        subscription.kind = "drop.entitlement.grant".to_owned();
        assert!(
            text(&subscription.in_message()).contains(r#""version":"1","is_batching_enabled":true,"cost":1"#)
        );
    }

    use crate::platform::status::ENABLED;

    /// So that one closure takes values of different types.
    mod erased {
        pub(super) trait Json {
            fn text(&self) -> String;
        }

        impl<T: serde::Serialize> Json for T {
            fn text(&self) -> String {
                serde_json::to_string(self).expect("JSON")
            }
        }
    }
}
