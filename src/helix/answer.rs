//! Parsers of Twitch's answers. ◆
//!
//! Unknown members are ignored, and unknown values are kept as text, because Twitch adds both unannounced
//! ("Twitch API Concepts"). If a row cannot be read, the rest of its page is used, and [`Rows::unread`] names
//! the row.

use std::sync::Arc;

use serde_json::Value;

use super::error::HelixError;
use super::request::Call;
use super::status::{excerpt, garbled};
use super::types::{
    Channel, Conduit, Created, Rows, ShardRefused, ShardRow, Stream, SubscriptionList, Transport, User,
    UserGrants,
};
use crate::model::json::Members;
use crate::model::shard::{SessionId, ShardId};
use crate::model::subscription::{
    Condition, SubscriptionKey, SubscriptionRow, SubscriptionStatus, TransportTarget,
};
use crate::model::time::Timestamp;

/// Length of the longest cursor that is sent back.
const MAX_CURSOR: usize = 4 << 10;

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) rows: T,
    /// Start of the next page; `None` on the last one.
    pub(super) cursor: Option<String>,
}

/// The rows of a page.
pub(super) trait PageRows {
    /// Whether the page had no row, readable or not.
    fn is_empty(&self) -> bool;
}

impl<T> PageRows for Rows<T> {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unread.is_empty()
    }
}

impl PageRows for SubscriptionList {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unread.is_empty()
    }
}

/// An answer whose rows have not been read.
struct Answer {
    call: Call,
    body: Value,
}

impl Answer {
    fn parse(call: Call, body: &[u8]) -> Result<Self, HelixError> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| garbled(call, &format!("the answer is not JSON ({error})")))?;
        let answer = Self { call, body };
        let members = answer.members()?;
        if !members.has("data") {
            return Err(garbled(call, "`data` is missing"));
        }
        Ok(answer)
    }

    fn members(&self) -> Result<Members<'_>, HelixError> {
        Members::of(&self.body).map_err(|error| garbled(self.call, &error))
    }

    /// Reads the rows one by one.
    fn rows<T>(&self, read: impl FnMut(Members<'_>) -> Result<T, String>) -> Result<Rows<T>, HelixError> {
        let data = self.members()?.list("data").map_err(|error| garbled(self.call, &error))?;
        Ok(read_rows(data.unwrap_or_default(), read))
    }

    /// Returns the cursor. An unreadable one is an error, since taking the page for the last one would cut off
    /// the list.
    fn cursor(&self) -> Result<Option<String>, HelixError> {
        let cursor = self.members()?.object("pagination").and_then(|pagination| match pagination {
            Some(pagination) => pagination.text("cursor"),
            None => Ok(None),
        });
        let cursor = cursor.map_err(|error| garbled(self.call, &error))?.filter(|cursor| !cursor.is_empty());
        match cursor {
            Some(cursor) if cursor.len() > MAX_CURSOR => Err(garbled(self.call, "`cursor` is too long")),
            cursor => Ok(cursor),
        }
    }

    /// A total beside the rows; 0 if it is missing or unreadable.
    fn sum(&self, name: &str) -> u64 {
        self.members().ok().and_then(|members| members.number(name).ok().flatten()).unwrap_or(0)
    }
}

fn read_rows<T>(data: &[Value], mut read: impl FnMut(Members<'_>) -> Result<T, String>) -> Rows<T> {
    let mut rows = Rows { rows: Vec::with_capacity(data.len()), unread: Vec::new() };
    for (index, value) in data.iter().enumerate() {
        match Members::of(value).and_then(&mut read) {
            Ok(row) => rows.rows.push(row),
            Err(why) => rows.unread.push(excerpt(&format!("{}: {why}", row_name(value, index)))),
        }
    }
    rows
}

/// The name of a row in messages: its number, and its id if that can be read.
fn row_name(value: &Value, index: usize) -> String {
    let id = Members::of(value).ok().and_then(|members| {
        ["id", "user_id"]
            .iter()
            .find_map(|name| members.text(name).ok().flatten().filter(|id| !id.is_empty()))
    });
    id.map_or_else(|| format!("row {}", index + 1), |id| format!("row {} (id {id})", index + 1))
}

fn boxed(row: &Members<'_>, name: &str) -> Result<Box<str>, String> {
    let text = row.needed_text(name)?;
    if text.is_empty() { Err(format!("`{name}` is empty")) } else { Ok(text.into()) }
}

/// The answer of Get Users.
pub(super) fn parse_users(body: &[u8]) -> Result<Rows<User>, HelixError> {
    Answer::parse(Call::GetUsers, body)?
        .rows(|row| Ok(User { id: boxed(&row, "id")?, login: boxed(&row, "login")? }))
}

/// The answer of Get Authorization By User. Users who have granted nothing may be in it, with
/// `has_authorized` false, or left out.
pub(super) fn parse_grants(body: &[u8]) -> Result<Rows<UserGrants>, HelixError> {
    Answer::parse(Call::GetGrants, body)?.rows(|row| {
        let login = row.text("user_login")?.unwrap_or_default().into();
        let has_authorized = match row.get("has_authorized") {
            None => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(_) => return Err("`has_authorized` is neither true nor false".to_owned()),
        };
        Ok(UserGrants {
            user: User { id: boxed(&row, "user_id")?, login },
            scopes: row.texts("scopes")?.into_iter().map(Into::into).collect(),
            has_authorized,
        })
    })
}

/// One page of Get Streams.
pub(super) fn parse_streams(body: &[u8]) -> Result<Page<Rows<Stream>>, HelixError> {
    let answer = Answer::parse(Call::GetStreams, body)?;
    let rows = answer.rows(|row| {
        // Twitch leaves the type empty if it could not find out.
        match row.text("type")?.as_deref() {
            Some("live") => {}
            other => return Err(format!("`type` is `{}`, not `live`", other.unwrap_or_default())),
        }
        Ok(Stream {
            id: boxed(&row, "id")?,
            user: User { id: boxed(&row, "user_id")?, login: boxed(&row, "user_login")? },
            user_name: boxed(&row, "user_name")?,
            started_at: Timestamp::parse(&row.needed_text("started_at")?)
                .ok_or("`started_at` is not a time")?,
        })
    })?;
    Ok(Page { rows, cursor: answer.cursor()? })
}

/// The answer of Get Channel Information.
pub(super) fn parse_channels(body: &[u8]) -> Result<Rows<Channel>, HelixError> {
    Answer::parse(Call::GetChannels, body)?.rows(|row| {
        // Texts may be empty, but a missing one must not look like a change.
        let text = |name: &str| row.needed_text(name).map(Box::from);
        Ok(Channel {
            broadcaster: User {
                id: boxed(&row, "broadcaster_id")?,
                login: boxed(&row, "broadcaster_login")?,
            },
            broadcaster_name: boxed(&row, "broadcaster_name")?,
            title: text("title")?,
            language: text("broadcaster_language")?,
            category_id: text("game_id")?,
            category_name: text("game_name")?,
            labels: row.texts("content_classification_labels")?.into_iter().map(Into::into).collect(),
        })
    })
}

/// Interns conduit ids, since many rows share one.
#[derive(Default)]
struct Targets(Vec<TransportTarget>);

impl Targets {
    fn intern(&mut self, row: Members<'_>) -> Result<TransportTarget, String> {
        let (conduit_id, callback) = (row.text("conduit_id")?, row.text("callback")?);
        let target = match (conduit_id, callback) {
            (Some(id), _) => TransportTarget::Conduit { conduit_id: Arc::from(id) },
            (None, Some(url)) => TransportTarget::Webhook { callback: Arc::from(url) },
            (None, None) => TransportTarget::Other(Arc::from(row.needed_text("method")?)),
        };
        if let Some(known) = self.0.iter().find(|known| **known == target) {
            return Ok(known.clone());
        }
        // Webhooks may each have their own URL; interning those gains nothing.
        if self.0.len() < 16 {
            self.0.push(target.clone());
        }
        Ok(target)
    }

    fn row(&mut self, row: Members<'_>) -> Result<SubscriptionRow, String> {
        let condition =
            row.needed_object("condition")?.all_texts().map_err(|why| format!("condition: {why}"))?;
        let transport = row.needed_object("transport")?;
        Ok(SubscriptionRow {
            id: boxed(&row, "id")?.as_ref().into(),
            status: SubscriptionStatus::parse(&row.needed_text("status")?),
            key: SubscriptionKey::new(
                &boxed(&row, "type")?,
                &boxed(&row, "version")?,
                Condition::from_pairs(condition.iter().map(|(name, value)| (*name, value.as_str()))),
            ),
            target: self.intern(transport).map_err(|why| format!("transport: {why}"))?,
            // The cost is only shown and added up: an unreadable one must not hide the row.
            cost: row.number("cost").ok().flatten().unwrap_or(0),
        })
    }
}

/// One page of Get EventSub Subscriptions.
pub(super) fn parse_subscriptions(body: &[u8]) -> Result<Page<SubscriptionList>, HelixError> {
    let answer = Answer::parse(Call::GetSubscriptions, body)?;
    let mut targets = Targets::default();
    let Rows { rows, unread } = answer.rows(|row| targets.row(row))?;
    let rows = SubscriptionList {
        rows,
        unread,
        total_cost: answer.sum("total_cost"),
        max_total_cost: answer.sum("max_total_cost"),
    };
    Ok(Page { rows, cursor: answer.cursor()? })
}

/// The answer of Create EventSub Subscription.
pub(super) fn parse_created(body: &[u8]) -> Result<Created, HelixError> {
    let answer = Answer::parse(Call::CreateSubscription, body)?;
    let mut targets = Targets::default();
    let row = first(Call::CreateSubscription, answer.rows(|row| targets.row(row))?, "subscription")?;
    Ok(Created { row, total_cost: answer.sum("total_cost"), max_total_cost: answer.sum("max_total_cost") })
}

fn first<T>(call: Call, rows: Rows<T>, what: &str) -> Result<T, HelixError> {
    let unread = rows.unread.first();
    let none = || garbled(call, &unread.map_or_else(|| format!("no {what}"), ToString::to_string));
    rows.rows.into_iter().next().ok_or_else(none)
}

/// Parses the answer of Get, Create or Update Conduits.
///
/// # Errors
/// Any row that cannot be read: it may be our own conduit, and another one would be made in its place.
pub(super) fn parse_conduits(call: Call, body: &[u8]) -> Result<Vec<Conduit>, HelixError> {
    let rows = Answer::parse(call, body)?.rows(|row| {
        let shards = row.number("shard_count")?.ok_or("`shard_count` is missing or null")?;
        let shard_count = u32::try_from(shards).map_err(|_| "`shard_count` is too large")?;
        Ok(Conduit { id: boxed(&row, "id")?.into(), shard_count })
    })?;
    match rows.unread.first() {
        Some(why) => Err(garbled(call, why)),
        None => Ok(rows.rows),
    }
}

fn shard(row: Members<'_>) -> Result<ShardRow, String> {
    let id = row.needed_text("id")?;
    let transport = row.object("transport")?;
    let of = |name: &str| transport.map_or(Ok(None), |transport| transport.text(name));
    Ok(ShardRow {
        id: ShardId(id.parse().map_err(|_| "`id` is not the number of a shard")?),
        status: row.text("status")?.unwrap_or_default().into(),
        session_id: of("session_id")?.map(SessionId::new),
        callback: of("callback")?.map(Into::into),
    })
}

/// One page of Get Conduit Shards.
pub(super) fn parse_shards(body: &[u8]) -> Result<Page<Rows<ShardRow>>, HelixError> {
    let answer = Answer::parse(Call::GetShards, body)?;
    Ok(Page { rows: answer.rows(shard)?, cursor: answer.cursor()? })
}

/// One answer for each shard.
pub(super) type Bound = Vec<(ShardId, Result<(), ShardRefused>)>;

/// Parses the answer of Update Conduit Shards, which may set some shards and refuse others. A shard that is
/// missing in the answer counts as refused.
pub(super) fn parse_bound(asked: &[(ShardId, Transport)], body: &[u8]) -> Result<Bound, HelixError> {
    let answer = Answer::parse(Call::UpdateShards, body)?;
    let set = answer.rows(|row| row.needed_text("id"))?.rows;
    let errors = answer.members()?.list("errors").map_err(|error| garbled(Call::UpdateShards, &error))?;
    let refused = read_rows(errors.unwrap_or_default(), |row| {
        let text = |name: &str| row.text(name).ok().flatten().unwrap_or_default();
        Ok((
            row.needed_text("id")?,
            ShardRefused { code: excerpt(&text("code")), message: excerpt(&text("message")) },
        ))
    });
    let outcome = |id: ShardId| {
        let text = id.to_string();
        match refused.rows.iter().find(|(id, _)| *id == text) {
            Some((_, error)) => Err(error.clone()),
            None if set.contains(&text) => Ok(()),
            None => Err(ShardRefused {
                code: "unnamed".into(),
                message: "Twitch's answer does not name it".into(),
            }),
        }
    };
    Ok(asked.iter().map(|(id, _)| (*id, outcome(*id))).collect())
}

/// Parses an answer of any call and returns the number of its rows, for tests and fuzzing. Never panics: any
/// bytes give a number or an error.
pub(super) fn rows_in(call: Call, body: &[u8]) -> Result<usize, HelixError> {
    Ok(match call {
        Call::GetUsers => parse_users(body)?.rows.len(),
        Call::GetGrants => parse_grants(body)?.rows.len(),
        Call::GetSubscriptions => parse_subscriptions(body)?.rows.rows.len(),
        Call::CreateSubscription => parse_created(body).map(|_| 1)?,
        Call::GetConduits | Call::CreateConduit | Call::UpdateConduit => parse_conduits(call, body)?.len(),
        Call::GetShards => parse_shards(body)?.rows.rows.len(),
        Call::UpdateShards => {
            let asked: Vec<_> =
                (0..3).map(|n| (ShardId(n), Transport::Session(SessionId::new("s")))).collect();
            parse_bound(&asked, body)?.iter().filter(|(_, outcome)| outcome.is_ok()).count()
        }
        Call::GetStreams => parse_streams(body)?.rows.rows.len(),
        Call::GetChannels => parse_channels(body)?.rows.len(),
        Call::DeleteSubscription => 0,
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
