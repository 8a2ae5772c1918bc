//! The API client.
#![allow(missing_docs, clippy::unused_async, clippy::needless_pass_by_value, reason = "skeleton")]

use std::time::Duration;

use tokio::sync::watch;

use crate::auth::Tokens;
use crate::model::shard::{SessionId, ShardId};
use crate::model::status::ApiStatus;
use crate::model::subscription::{SubscriptionKey, SubscriptionRow, TransportTarget};

#[derive(Clone, Debug)]
pub struct HelixOptions {
    /// `https://api.twitch.tv/helix`, without a slash at the end.
    pub api_url: String,
    /// Requests in flight at most.
    pub in_flight: usize,
    /// Points kept for shard bindings and deletes.
    pub reserve: u32,
    pub timeout: Duration,
}

impl HelixOptions {
    /// The defaults for an API at this URL.
    pub fn new(api_url: impl Into<String>) -> Self {
        Self { api_url: api_url.into(), in_flight: 10, reserve: 20, timeout: Duration::from_secs(15) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: Box<str>,
    pub login: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    All,
    Conduit(String),
    Type(String),
    Id(String),
    User(String),
    Status(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionList {
    pub rows: Vec<SubscriptionRow>,
    pub total_cost: u64,
    pub max_total_cost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub row: SubscriptionRow,
    pub total_cost: u64,
    pub max_total_cost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conduit {
    pub id: String,
    pub shard_count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    pub id: ShardId,
    /// Twitch's text, `enabled` among others.
    pub status: Box<str>,
    pub session_id: Option<SessionId>,
    pub callback: Option<Box<str>>,
}

/// Twitch's answer for one shard of Update Conduit Shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRefused {
    pub code: Box<str>,
    pub message: Box<str>,
}

impl ShardRefused {
    /// Whether the session is gone, so that repeating the call is pointless.
    pub fn session_gone(&self) -> bool {
        todo!()
    }
}

/// Every documented case; see `twitch/helix.md`. The helix room refines this.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HelixError {
    /// 409: an equal one exists; its id when the answer names it.
    #[error("skeleton")]
    Conflict { id: Option<Box<str>> },
    /// 400: permanent for this request.
    #[error("skeleton")]
    Invalid { message: Box<str> },
    /// 403: a grant is missing.
    #[error("skeleton")]
    Forbidden { message: Box<str> },
    /// 404
    #[error("skeleton")]
    NotFound { message: Box<str> },
    /// 410: the type and version were removed.
    #[error("skeleton")]
    Gone { message: Box<str> },
    /// 429 of the second meaning: too many equal ones, too many conduits, cost exceeded.
    #[error("skeleton")]
    Quota { message: Box<str> },
    /// 401 again after a renewal, or a 401 though the token is valid.
    #[error("skeleton")]
    Unauthorized { message: Box<str> },
    /// No token to be had.
    #[error("skeleton")]
    Token(#[source] crate::auth::TokenError),
    /// 429 of the first meaning, 5xx, time-outs, network: passing.
    #[error("skeleton")]
    Unavailable { message: Box<str> },
    /// An answer that cannot be understood (or too large, or a repeated cursor).
    #[error("skeleton")]
    Garbled { message: Box<str> },
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Helix {}

impl Helix {
    pub fn new(_http: reqwest::Client, _options: HelixOptions, _tokens: Tokens) -> Self {
        todo!()
    }
    pub fn status(&self) -> watch::Receiver<ApiStatus> {
        todo!()
    }
    /// At most 100 logins; unknown ones are missing from the answer.
    pub async fn users_by_login(&self, _logins: &[&str]) -> Result<Vec<User>, HelixError> {
        todo!()
    }
    /// At most 100 ids.
    pub async fn users_by_id(&self, _ids: &[&str]) -> Result<Vec<User>, HelixError> {
        todo!()
    }
    /// All pages, or an error: never part of a list.
    pub async fn subscriptions(&self, _filter: &Filter) -> Result<SubscriptionList, HelixError> {
        todo!()
    }
    pub async fn create_subscription(
        &self,
        _key: &SubscriptionKey,
        _target: &TransportTarget,
        _batching: bool,
    ) -> Result<Created, HelixError> {
        todo!()
    }
    /// 404 counts as success.
    pub async fn delete_subscription(&self, _id: &str) -> Result<(), HelixError> {
        todo!()
    }
    pub async fn conduits(&self) -> Result<Vec<Conduit>, HelixError> {
        todo!()
    }
    pub async fn create_conduit(&self, _shards: u32) -> Result<Conduit, HelixError> {
        todo!()
    }
    pub async fn resize_conduit(&self, _id: &str, _shards: u32) -> Result<Conduit, HelixError> {
        todo!()
    }
    /// All pages.
    pub async fn shards(&self, _conduit_id: &str) -> Result<Vec<ShardRow>, HelixError> {
        todo!()
    }
    /// Any number of shards, 100 a call, from the reserve when need be; one answer for each.
    pub async fn bind_shards(
        &self,
        _conduit_id: &str,
        _shards: &[(ShardId, SessionId)],
    ) -> Result<Vec<(ShardId, Result<(), ShardRefused>)>, HelixError> {
        todo!()
    }
}
