//! Reading answers.
//!
//! Unknown fields are ignored, unknown values are kept as text: Twitch adds both unannounced
//! ("Twitch API Concepts").

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use super::error::HelixError;
use super::request::Call;
use super::status::{excerpt, garbled};
use super::types::{Conduit, Created, ShardRefused, ShardRow, SubscriptionList, Transport, User, UserGrants};
use crate::model::grants::Scopes;
use crate::model::shard::{SessionId, ShardId};
use crate::model::subscription::{
    Condition, SubscriptionKey, SubscriptionRow, SubscriptionStatus, TransportTarget,
};

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    /// The rows.
    pub(super) rows: T,
    /// Where the next page begins; none on the last one.
    pub(super) cursor: Option<String>,
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

#[derive(Deserialize)]
struct UserRow {
    id: Box<str>,
    login: Box<str>,
}

/// The answer of Get Users.
///
/// # Errors
/// It is something else.
pub(super) fn parse_users(body: &[u8]) -> Result<Vec<User>, HelixError> {
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
pub(super) fn parse_grants(body: &[u8]) -> Result<Vec<UserGrants>, HelixError> {
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
pub(super) fn parse_subscriptions(body: &[u8]) -> Result<Page<SubscriptionList>, HelixError> {
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
pub(super) fn parse_created(body: &[u8]) -> Result<Created, HelixError> {
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
pub(super) fn parse_conduits(call: Call, body: &[u8]) -> Result<Vec<Conduit>, HelixError> {
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
pub(super) fn parse_shards(body: &[u8]) -> Result<Page<Vec<ShardRow>>, HelixError> {
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
pub(super) type Bound = Vec<(ShardId, Result<(), ShardRefused>)>;

/// The answer of Update Conduit Shards: some may be set and others refused. A shard that the answer
/// does not name at all counts as refused.
///
/// # Errors
/// It is something else.
pub(super) fn parse_bound(asked: &[(ShardId, Transport)], body: &[u8]) -> Result<Bound, HelixError> {
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

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
