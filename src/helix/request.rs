//! Requests: verb, path, query and body of each call. ◆

use serde::Serialize;

use super::types::{Filter, Transport};
use crate::model::shard::ShardId;
use crate::model::subscription::{Condition, SubscriptionKey};

/// Logins or ids in one Get Users request (Twitch: "Get Users").
pub const MAX_USERS: usize = 100;
/// Users in one Get Authorization By User request (Twitch: "Get Authorization By User").
pub const MAX_GRANTS: usize = 10;
/// Shards in one Update Conduit Shards request (Twitch: "Update Conduit Shards").
pub const MAX_SHARDS: usize = 100;

/// Channels in one Get Streams or Get Channel Information request (Twitch: "Get Streams", "Get Channel Information").
pub const MAX_CHANNELS: usize = 100;

/// The verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Patch,
    Delete,
}

/// The API call, for messages and for the reserve of the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    GetUsers,
    GetGrants,
    GetSubscriptions,
    CreateSubscription,
    DeleteSubscription,
    GetConduits,
    CreateConduit,
    UpdateConduit,
    GetShards,
    UpdateShards,
    GetStreams,
    GetChannels,
}

impl Call {
    pub const ALL: [Self; 12] = [
        Self::GetUsers,
        Self::GetGrants,
        Self::GetSubscriptions,
        Self::CreateSubscription,
        Self::DeleteSubscription,
        Self::GetConduits,
        Self::CreateConduit,
        Self::UpdateConduit,
        Self::GetShards,
        Self::UpdateShards,
        Self::GetStreams,
        Self::GetChannels,
    ];

    /// Whether the call may use the reserve: calls that keep events coming must not wait behind ten thousand
    /// creates.
    pub fn is_urgent(self) -> bool {
        matches!(self, Self::UpdateShards | Self::GetShards | Self::DeleteSubscription)
    }

    /// Twitch's name of the call.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetUsers => "Get Users",
            Self::GetGrants => "Get Authorization By User",
            Self::GetSubscriptions => "Get EventSub Subscriptions",
            Self::CreateSubscription => "Create EventSub Subscription",
            Self::DeleteSubscription => "Delete EventSub Subscription",
            Self::GetConduits => "Get Conduits",
            Self::CreateConduit => "Create Conduits",
            Self::UpdateConduit => "Update Conduits",
            Self::GetShards => "Get Conduit Shards",
            Self::UpdateShards => "Update Conduit Shards",
            Self::GetStreams => "Get Streams",
            Self::GetChannels => "Get Channel Information",
        }
    }
}

/// A request, without its host and its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub call: Call,
    pub verb: Verb,
    /// Path below the API's base URL.
    pub path: &'static str,
    /// The query, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// JSON body; empty if there is none.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    /// Leaves out the body, which may hold a webhook's secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("call", &self.call)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Verb and path without the query: `GET /users`.
    pub fn route(&self) -> String {
        let verb = match self.verb {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        };
        format!("{verb} {}", self.path)
    }
}

const SUBSCRIPTIONS: &str = "/eventsub/subscriptions";
const CONDUITS: &str = "/eventsub/conduits";
const SHARDS: &str = "/eventsub/conduits/shards";

fn request(call: Call, verb: Verb, path: &'static str, query: Vec<(&'static str, String)>) -> Request {
    Request { call, verb, path, query, body: Vec::new() }
}

fn with_body(call: Call, verb: Verb, path: &'static str, body: &impl Serialize) -> Request {
    let body = serde_json::to_vec(body).expect("texts and numbers always make JSON");
    Request { call, verb, path, query: Vec::new(), body }
}

/// Get Users by `login` or by `id`, at most [`MAX_USERS`].
pub fn users(field: &'static str, values: &[&str]) -> Request {
    let query = values.iter().map(|value| (field, (*value).to_owned())).collect();
    request(Call::GetUsers, Verb::Get, "/users", query)
}

/// Get Authorization By User, at most [`MAX_GRANTS`].
pub fn grants(ids: &[&str]) -> Request {
    let query = ids.iter().map(|id| ("user_id", (*id).to_owned())).collect();
    request(Call::GetGrants, Verb::Get, "/authorization/users", query)
}

/// One page of Get Streams of at most [`MAX_CHANNELS`] users.
pub fn streams(user_ids: &[&str], after: Option<&str>) -> Request {
    let mut query: Vec<_> = user_ids.iter().map(|id| ("user_id", (*id).to_owned())).collect();
    // A page has 20 rows otherwise.
    query.push(("first", MAX_CHANNELS.to_string()));
    query.extend(after.map(|cursor| ("after", cursor.to_owned())));
    request(Call::GetStreams, Verb::Get, "/streams", query)
}

/// Get Channel Information of at most [`MAX_CHANNELS`] users.
pub fn channels(user_ids: &[&str]) -> Request {
    let query = user_ids.iter().map(|id| ("broadcaster_id", (*id).to_owned())).collect();
    request(Call::GetChannels, Verb::Get, "/channels", query)
}

/// One page of Get EventSub Subscriptions.
pub fn subscriptions(filter: &Filter, after: Option<&str>) -> Request {
    let mut query = match filter {
        Filter::All => vec![],
        Filter::Conduit(id) => vec![("conduit_id", id.clone())],
        Filter::Type(name) => vec![("type", name.clone())],
        Filter::Id(id) => vec![("subscription_id", id.clone())],
        Filter::User(id) => vec![("user_id", id.clone())],
        Filter::Status(status) => vec![("status", status.clone())],
    };
    query.extend(after.map(|cursor| ("after", cursor.to_owned())));
    request(Call::GetSubscriptions, Verb::Get, SUBSCRIPTIONS, query)
}

#[derive(Serialize)]
struct TransportBody<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conduit_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

impl<'a> From<&'a Transport> for TransportBody<'a> {
    fn from(transport: &'a Transport) -> Self {
        let nothing = Self { method: "", conduit_id: None, session_id: None, callback: None, secret: None };
        match transport {
            Transport::Conduit(id) => Self { method: "conduit", conduit_id: Some(id), ..nothing },
            Transport::Webhook { callback, secret } => {
                Self { method: "webhook", callback: Some(callback), secret: Some(secret.expose()), ..nothing }
            }
            Transport::Session(session) => {
                Self { method: "websocket", session_id: Some(session.as_str()), ..nothing }
            }
        }
    }
}

#[derive(Serialize)]
struct CreateBody<'a> {
    #[serde(rename = "type")]
    subscription_type: &'a str,
    version: &'a str,
    condition: &'a Condition,
    transport: TransportBody<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_batching_enabled: bool,
}

pub fn create(key: &SubscriptionKey, transport: &Transport, batching: bool) -> Request {
    let body = CreateBody {
        subscription_type: &key.subscription_type,
        version: &key.version,
        condition: &key.condition,
        transport: transport.into(),
        is_batching_enabled: batching,
    };
    with_body(Call::CreateSubscription, Verb::Post, SUBSCRIPTIONS, &body)
}

pub fn delete(id: &str) -> Request {
    request(Call::DeleteSubscription, Verb::Delete, SUBSCRIPTIONS, vec![("id", id.to_owned())])
}

pub fn conduits() -> Request {
    request(Call::GetConduits, Verb::Get, CONDUITS, vec![])
}

#[derive(Serialize)]
struct ConduitBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    shard_count: u32,
}

pub fn create_conduit(shard_count: u32) -> Request {
    with_body(Call::CreateConduit, Verb::Post, CONDUITS, &ConduitBody { id: None, shard_count })
}

/// Builds Update Conduits.
pub fn resize_conduit(id: &str, shard_count: u32) -> Request {
    with_body(Call::UpdateConduit, Verb::Patch, CONDUITS, &ConduitBody { id: Some(id), shard_count })
}

/// One page of Get Conduit Shards.
pub fn shards(conduit_id: &str, after: Option<&str>) -> Request {
    let mut query = vec![("conduit_id", conduit_id.to_owned())];
    query.extend(after.map(|cursor| ("after", cursor.to_owned())));
    request(Call::GetShards, Verb::Get, SHARDS, query)
}

#[derive(Serialize)]
struct ShardBody<'a> {
    id: String,
    transport: TransportBody<'a>,
}

#[derive(Serialize)]
struct ShardsBody<'a> {
    conduit_id: &'a str,
    shards: Vec<ShardBody<'a>>,
}

/// Update Conduit Shards, at most [`MAX_SHARDS`].
pub fn bind_shards(conduit_id: &str, shards: &[(ShardId, Transport)]) -> Request {
    let shards = shards
        .iter()
        .map(|(id, transport)| ShardBody { id: id.to_string(), transport: transport.into() })
        .collect();
    with_body(Call::UpdateShards, Verb::Patch, SHARDS, &ShardsBody { conduit_id, shards })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::shard::SessionId;

    fn key() -> SubscriptionKey {
        SubscriptionKey::new(
            "channel.follow",
            "2",
            Condition::from_pairs([("moderator_user_id", "1"), ("broadcaster_user_id", "1")]),
        )
    }

    #[test]
    fn a_route_is_verb_and_path() {
        let routes = [users("login", &["a"]), delete("1"), create_conduit(1), resize_conduit("1", 2)]
            .map(|r| r.route());
        let expected = [
            "GET /users",
            "DELETE /eventsub/subscriptions",
            "POST /eventsub/conduits",
            "PATCH /eventsub/conduits",
        ];
        assert_eq!(routes, expected);
    }

    #[test]
    fn bodies_are_what_twitch_documents() {
        let text = |request: Request| String::from_utf8(request.body).unwrap();
        assert_eq!(
            text(create(&key(), &Transport::Conduit("c".into()), false)),
            r#"{"type":"channel.follow","version":"2","condition":{"broadcaster_user_id":"1","moderator_user_id":"1"},"transport":{"method":"conduit","conduit_id":"c"}}"#
        );
        assert!(
            text(create(&key(), &Transport::Conduit("c".into()), true))
                .ends_with(r#","is_batching_enabled":true}"#)
        );
        assert_eq!(text(create_conduit(3)), r#"{"shard_count":3}"#);
        assert_eq!(text(resize_conduit("c", 3)), r#"{"id":"c","shard_count":3}"#);
        assert_eq!(
            text(bind_shards("c", &[(ShardId(0), Transport::Session(SessionId::new("s")))])),
            r#"{"conduit_id":"c","shards":[{"id":"0","transport":{"method":"websocket","session_id":"s"}}]}"#
        );
    }
}
