//! Building requests, reading answers, telling failures apart.
//!
//! Unknown fields are ignored, unknown values are kept as text: Twitch adds both unannounced
//! ("Twitch API Concepts").

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::HelixError;
use super::types::{
    Conduit, Created, Filter, ShardRefused, ShardRow, SubscriptionList, Transport, User, UserGrants,
};
use crate::model::grants::Scopes;
use crate::model::shard::{SessionId, ShardId};
use crate::model::subscription::{
    Condition, SubscriptionKey, SubscriptionRow, SubscriptionStatus, TransportTarget,
};

/// The longest part of a foreign text that is repeated to a person, in characters.
const EXCERPT: usize = 300;
/// Logins or ids in one Get Users request (Twitch: "Get Users").
pub const MAX_USERS: usize = 100;
/// Users in one Get Authorization By User request (Twitch: "Get Authorization By User").
pub const MAX_GRANTS: usize = 10;
/// Shards in one Update Conduit Shards request (Twitch: "Update Conduit Shards").
pub const MAX_SHARDS: usize = 100;

/// The verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are HTTP's own")]
pub enum Verb {
    Get,
    Post,
    Patch,
    Delete,
}

/// Which call it is, for messages and for what may use the reserve of the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Twitch's own")]
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
}

impl Call {
    /// Whether it may use the reserve: what keeps events coming must not wait behind ten thousand creates.
    pub fn is_urgent(self) -> bool {
        matches!(self, Self::UpdateShards | Self::GetShards | Self::DeleteSubscription)
    }

    /// Twitch's name of it.
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
        }
    }
}

/// A request, without its host and its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Which call.
    pub call: Call,
    /// Its verb.
    pub verb: Verb,
    /// Below the API's base URL.
    pub path: &'static str,
    /// The query, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// The JSON body, empty for none.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    /// Without the body, which may hold a webhook's secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("call", &self.call)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Verb and path, without what the query holds: `GET /users`.
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

/// Stands for the status of a request that was not answered, or not to its end.
pub const NO_ANSWER: &str = "none";

/// The statuses that Twitch documents, and those of proxies on the way; `other` for the rest, so that answers
/// are counted under few names.
pub fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        202 => "202",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        410 => "410",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
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

/// Create EventSub Subscription.
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

/// Delete EventSub Subscription.
pub fn delete(id: &str) -> Request {
    request(Call::DeleteSubscription, Verb::Delete, SUBSCRIPTIONS, vec![("id", id.to_owned())])
}

/// Get Conduits.
pub fn conduits() -> Request {
    request(Call::GetConduits, Verb::Get, CONDUITS, vec![])
}

#[derive(Serialize)]
struct ConduitBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    shard_count: u32,
}

/// Create Conduits.
pub fn create_conduit(shard_count: u32) -> Request {
    with_body(Call::CreateConduit, Verb::Post, CONDUITS, &ConduitBody { id: None, shard_count })
}

/// Update Conduits.
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

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: T,
    /// Where the next page begins; none on the last one.
    pub cursor: Option<String>,
}

#[derive(Deserialize, Default)]
struct Pagination {
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Vec<T>,
    #[serde(default)]
    pagination: Option<Pagination>,
    #[serde(default)]
    total_cost: Option<u64>,
    #[serde(default)]
    max_total_cost: Option<u64>,
    #[serde(default = "Vec::new")]
    errors: Vec<ShardError>,
}

impl<T> Answer<T> {
    fn cursor(&mut self) -> Option<String> {
        self.pagination.take().and_then(|p| p.cursor).filter(|cursor| !cursor.is_empty())
    }
}

fn parse<'a, T: Deserialize<'a>>(call: Call, body: &'a [u8]) -> Result<Answer<T>, HelixError> {
    serde_json::from_slice(body).map_err(|error| garbled(call, &error.to_string()))
}

fn garbled(call: Call, what: &str) -> HelixError {
    HelixError::Garbled { message: format!("{}: {what}", call.name()).into() }
}

#[derive(Deserialize)]
struct UserRow {
    id: Box<str>,
    login: Box<str>,
}

/// The answer of Get Users.
///
/// # Errors
/// It is something else.
pub fn parse_users(body: &[u8]) -> Result<Vec<User>, HelixError> {
    let answer = parse::<UserRow>(Call::GetUsers, body)?;
    Ok(answer.data.into_iter().map(|row| User { id: row.id, login: row.login }).collect())
}

#[derive(Deserialize)]
struct GrantRow {
    user_id: Box<str>,
    #[serde(default)]
    user_login: Box<str>,
    #[serde(default)]
    scopes: Scopes,
}

/// The answer of Get Authorization By User. Users who have granted nothing are not in it.
///
/// # Errors
/// It is something else.
pub fn parse_grants(body: &[u8]) -> Result<Vec<UserGrants>, HelixError> {
    let answer = parse::<GrantRow>(Call::GetGrants, body)?;
    let row = |row: GrantRow| UserGrants {
        user: User { id: row.user_id, login: row.user_login },
        scopes: row.scopes,
    };
    Ok(answer.data.into_iter().map(row).collect())
}

#[derive(Deserialize)]
struct TransportRow<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    conduit_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    callback: Option<Cow<'a, str>>,
    #[serde(default)]
    session_id: Option<String>,
}

#[derive(Deserialize)]
struct Row<'a> {
    id: Box<str>,
    status: SubscriptionStatus,
    #[serde(rename = "type")]
    subscription_type: Box<str>,
    version: Box<str>,
    condition: Condition,
    #[serde(borrow)]
    transport: TransportRow<'a>,
    #[serde(default)]
    cost: u64,
}

/// Many rows point to one conduit: they share its id.
#[derive(Default)]
struct Targets(Vec<TransportTarget>);

impl Targets {
    fn take(&mut self, row: &TransportRow<'_>) -> TransportTarget {
        let same = |known: &&TransportTarget| match (known, &row.conduit_id, &row.callback) {
            (TransportTarget::Conduit { conduit_id }, Some(id), _) => **conduit_id == **id,
            (TransportTarget::Webhook { callback }, None, Some(url)) => **callback == **url,
            (TransportTarget::Other(method), None, None) => **method == *row.method,
            _ => false,
        };
        if let Some(known) = self.0.iter().find(same) {
            return known.clone();
        }
        let target = match (&row.conduit_id, &row.callback) {
            (Some(id), _) => TransportTarget::Conduit { conduit_id: Arc::from(&**id) },
            (None, Some(url)) => TransportTarget::Webhook { callback: Arc::from(&**url) },
            (None, None) => TransportTarget::Other(Arc::from(&*row.method)),
        };
        // Webhooks may have a URL each; there is no use in remembering those.
        if self.0.len() < 16 {
            self.0.push(target.clone());
        }
        target
    }

    fn row(&mut self, row: Row<'_>) -> SubscriptionRow {
        SubscriptionRow {
            target: self.take(&row.transport),
            id: row.id,
            status: row.status,
            key: SubscriptionKey {
                subscription_type: row.subscription_type,
                version: row.version,
                condition: row.condition,
            },
            cost: row.cost,
        }
    }
}

/// One page of Get EventSub Subscriptions.
///
/// # Errors
/// It is something else.
pub fn parse_subscriptions(body: &[u8]) -> Result<Page<SubscriptionList>, HelixError> {
    let mut answer = parse::<Row<'_>>(Call::GetSubscriptions, body)?;
    let cursor = answer.cursor();
    let mut targets = Targets::default();
    Ok(Page {
        rows: SubscriptionList {
            rows: answer.data.into_iter().map(|row| targets.row(row)).collect(),
            total_cost: answer.total_cost.unwrap_or(0),
            max_total_cost: answer.max_total_cost.unwrap_or(0),
        },
        cursor,
    })
}

/// The answer of Create EventSub Subscription.
///
/// # Errors
/// It is something else.
pub fn parse_created(body: &[u8]) -> Result<Created, HelixError> {
    let answer = parse::<Row<'_>>(Call::CreateSubscription, body)?;
    let (total_cost, max_total_cost) = (answer.total_cost.unwrap_or(0), answer.max_total_cost.unwrap_or(0));
    let row = answer.data.into_iter().next().ok_or_else(|| garbled(Call::CreateSubscription, "no row"))?;
    Ok(Created { row: Targets::default().row(row), total_cost, max_total_cost })
}

#[derive(Deserialize)]
struct ConduitRow {
    id: String,
    shard_count: u32,
}

/// The answer of Get, Create or Update Conduits.
///
/// # Errors
/// It is something else.
pub fn parse_conduits(call: Call, body: &[u8]) -> Result<Vec<Conduit>, HelixError> {
    let answer = parse::<ConduitRow>(call, body)?;
    Ok(answer.data.into_iter().map(|c| Conduit { id: c.id, shard_count: c.shard_count }).collect())
}

#[derive(Deserialize)]
struct ShardAnswer<'a> {
    id: Box<str>,
    #[serde(default)]
    status: Box<str>,
    #[serde(borrow, default)]
    transport: Option<TransportRow<'a>>,
}

/// One page of Get Conduit Shards. Rows whose id is no number are none of ours.
///
/// # Errors
/// It is something else.
pub fn parse_shards(body: &[u8]) -> Result<Page<Vec<ShardRow>>, HelixError> {
    let mut answer = parse::<ShardAnswer<'_>>(Call::GetShards, body)?;
    let cursor = answer.cursor();
    let row = |row: ShardAnswer<'_>| {
        let (session_id, callback) = row.transport.map(|t| (t.session_id, t.callback)).unwrap_or_default();
        Some(ShardRow {
            id: ShardId(row.id.parse().ok()?),
            status: row.status,
            session_id: session_id.map(SessionId::new),
            callback: callback.map(Into::into),
        })
    };
    Ok(Page { rows: answer.data.into_iter().filter_map(row).collect(), cursor })
}

#[derive(Deserialize)]
struct ShardError {
    #[serde(default)]
    id: Box<str>,
    #[serde(default)]
    message: Box<str>,
    #[serde(default)]
    code: Box<str>,
}

/// One answer for each shard.
pub type Bound = Vec<(ShardId, Result<(), ShardRefused>)>;

/// The answer of Update Conduit Shards: some may be set and others refused. A shard that the answer
/// does not name at all counts as refused.
///
/// # Errors
/// It is something else.
pub fn parse_bound(asked: &[(ShardId, Transport)], body: &[u8]) -> Result<Bound, HelixError> {
    let answer = parse::<ShardAnswer<'_>>(Call::UpdateShards, body)?;
    Ok(asked
        .iter()
        .map(|(id, _)| {
            let text = id.to_string();
            let refused = answer.errors.iter().find(|e| *e.id == *text);
            let outcome = match refused {
                Some(error) => {
                    Err(ShardRefused { code: error.code.clone(), message: excerpt(&error.message) })
                }
                None if answer.data.iter().any(|row| *row.id == *text) => Ok(()),
                None => Err(ShardRefused {
                    code: "unnamed".into(),
                    message: "Twitch's answer does not name it".into(),
                }),
            };
            (*id, outcome)
        })
        .collect())
}

#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    id: Option<String>,
}

fn excerpt(text: &str) -> Box<str> {
    text.chars().filter(|c| !c.is_control()).take(EXCERPT).collect::<String>().into()
}

/// What an answer outside of 2xx means. `remaining` is the `Ratelimit-Remaining` header: a 429 with 0
/// left is the rate limit; with points left it is a quota.
pub fn classify(call: Call, status: u16, remaining: Option<u32>, body: &[u8]) -> HelixError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let message = excerpt(&refusal.message);
    match status {
        400 | 405 | 413 | 414 | 415 | 422 => HelixError::Invalid { message },
        401 => HelixError::Unauthorized { message },
        403 => HelixError::Forbidden { message },
        404 => HelixError::NotFound { message },
        409 => HelixError::Conflict {
            id: refusal.id.filter(|id| is_uuid(id)).map(Into::into).or_else(|| find_uuid(&message)),
        },
        410 => HelixError::Gone { message },
        429 if is_quota(call, remaining, &message) => HelixError::Quota { message },
        429 => HelixError::RateLimited,
        500..=599 => HelixError::Outage { status, message },
        _ => garbled(call, &format!("unexpected status {status}")),
    }
}

/// By the header first, by the text second.
fn is_quota(call: Call, remaining: Option<u32>, message: &str) -> bool {
    let text = message.to_ascii_lowercase();
    let names_quota = ["exceeded", "maximum", "limit reached", "conduit limit", "total cost"]
        .iter()
        .any(|p| text.contains(p))
        && !text.contains("rate limit");
    match remaining {
        Some(0) => false,
        Some(_) => names_quota || matches!(call, Call::CreateSubscription | Call::CreateConduit),
        None => names_quota,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn find_uuid(text: &str) -> Option<Box<str>> {
    (0..text.len()).find_map(|start| text.get(start..start + 36).filter(|part| is_uuid(part))).map(Into::into)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SubscriptionKey {
        SubscriptionKey {
            subscription_type: "channel.follow".into(),
            version: "2".into(),
            condition: Condition::from_pairs([("moderator_user_id", "1"), ("broadcaster_user_id", "1")]),
        }
    }

    #[test]
    fn answers_are_counted_under_few_names() {
        let names: std::collections::BTreeSet<&str> = (0..=u16::MAX).map(status_label).collect();
        assert_eq!(names.len(), 15, "{names:?}");
        assert_eq!((status_label(418), status_label(202)), ("other", "202"));
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

    #[test]
    fn a_list_is_read_and_unknown_values_stay() {
        let body = br#"{"total":3,"data":[
            {"id":"a","status":"enabled","type":"t","version":"1","cost":1,"created_at":"x","new":{},
             "condition":{"broadcaster_user_id":"1","x":""},"transport":{"method":"conduit","conduit_id":"c"}},
            {"id":"b","status":"new_status","type":"t","version":"1","condition":{},
             "transport":{"method":"webhook","callback":"https://x"}}],
            "total_cost":1,"max_total_cost":10000,"pagination":{"cursor":"next"}}"#;
        let page = parse_subscriptions(body).unwrap();
        assert_eq!(page.cursor.as_deref(), Some("next"));
        assert_eq!(page.rows.rows.len(), 2);
        assert_eq!(page.rows.rows[0].target, TransportTarget::Conduit { conduit_id: "c".into() });
        assert_eq!(page.rows.rows[1].status.as_str(), "new_status");
        assert_eq!((page.rows.total_cost, page.rows.max_total_cost), (1, 10_000));
        for last in
            [r#"{"data":[],"pagination":{}}"#, r#"{"data":[]}"#, r#"{"data":[],"pagination":{"cursor":""}}"#]
        {
            assert_eq!(parse_subscriptions(last.as_bytes()).unwrap().cursor, None, "{last}");
        }
    }

    #[test]
    fn partial_answers_are_read_shard_by_shard() {
        let session = || Transport::Session(SessionId::new("s"));
        let asked: Vec<_> = (0..3).map(|n| (ShardId(n), session())).collect();
        let body = br#"{"data":[{"id":"0","status":"enabled","transport":{"method":"websocket","session_id":"s"}}],
            "errors":[{"id":"1","message":"The websocket session is not connected","code":"invalid_parameter"}]}"#;
        let bound = parse_bound(&asked, body).unwrap();
        assert_eq!(bound[0], (ShardId(0), Ok(())));
        assert!(bound[1].1.as_ref().unwrap_err().session_gone());
        assert_eq!(&*bound[2].1.as_ref().unwrap_err().code, "unnamed");
    }

    #[test]
    fn failures_are_told_apart() {
        let name = |status, remaining, message: &str| {
            let body = format!(r#"{{"message":"{message}"}}"#);
            let error = classify(Call::CreateSubscription, status, remaining, body.as_bytes());
            format!("{error:?}").split([' ', '{']).next().unwrap().to_owned()
        };
        for (status, remaining, message, expected) in [
            (400, Some(5), "bad", "Invalid"),
            (401, None, "Invalid OAuth token", "Unauthorized"),
            (403, None, "subscription missing proper authorization", "Forbidden"),
            (404, None, "", "NotFound"),
            (409, None, "subscription already exists", "Conflict"),
            (410, None, "", "Gone"),
            (429, Some(0), "maximum subscriptions with type and condition exceeded", "RateLimited"),
            (429, Some(7), "maximum subscriptions with type and condition exceeded", "Quota"),
            (429, None, "websocket transport subscriptions total cost exceeded", "Quota"),
            (429, None, "Too Many Requests", "RateLimited"),
            (500, None, "", "Outage"),
            (302, None, "", "Garbled"),
        ] {
            assert_eq!(name(status, remaining, message), expected, "{status} {remaining:?} {message}");
        }
    }

    #[test]
    fn the_id_of_a_conflict_is_found_in_either_place() {
        let uuid = "0d9e4a52-0000-4000-8000-6f21c5b70002";
        for body in [
            format!(
                r#"{{"error":"Conflict","status":409,"message":"subscription already exists; id={uuid}"}}"#
            ),
            format!(r#"{{"message":"subscription already exists","id":"{uuid}"}}"#),
        ] {
            let error = classify(Call::CreateSubscription, 409, None, body.as_bytes());
            assert!(matches!(error, HelixError::Conflict { id: Some(id) } if *id == *uuid), "{body}");
        }
        let error = classify(Call::CreateSubscription, 409, None, b"{\"message\":\"\xc3\xa9 exists\"}");
        assert!(matches!(error, HelixError::Conflict { id: None }));
    }

    proptest! {
        #[test]
        fn any_answer_is_understood_somehow(
            status in 300..600_u16, remaining in prop::option::of(any::<u32>()), body in prop::collection::vec(any::<u8>(), 0..120)
        ) {
            classify(Call::CreateSubscription, status, remaining, &body);
            let _ = parse_subscriptions(&body);
            let _ = parse_created(&body);
            let _ = parse_shards(&body);
            let _ = parse_bound(&[(ShardId(0), Transport::Session(SessionId::new("s")))], &body);
        }
    }
}
