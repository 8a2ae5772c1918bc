//! What the API is asked for, and what it answers.

use std::sync::Arc;

use crate::model::grants::Scopes;
use crate::model::secret::Secret;
use crate::model::shard::{SessionId, ShardId};
use crate::model::subscription::SubscriptionRow;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id, which never changes.
    pub id: Box<str>,
    /// The login, which may.
    pub login: Box<str>,
}

/// What a user has granted to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserGrants {
    pub user: User,
    pub scopes: Scopes,
    /// `None` if Twitch does not say. A user may have authorized the client without any scope.
    pub has_authorized: Option<bool>,
}

/// The rows of an answer, and those that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// One text for each row that could not be read: which one, and why.
    pub unread: Vec<Box<str>>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), unread: Vec::new() }
    }
}

/// Which subscriptions to list. Twitch accepts one filter at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of the client.
    All,
    /// Those on a conduit.
    Conduit(String),
    /// Those of a type.
    Type(String),
    /// One, by its id.
    Id(String),
    /// Those whose condition names this user.
    User(String),
    /// Those in a status.
    Status(String),
}

/// A list of subscriptions, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionList {
    /// Oldest first.
    pub rows: Vec<SubscriptionRow>,
    /// One text for each row that could not be read: which one, and why.
    pub unread: Vec<Box<str>>,
    /// What all subscriptions of the client cost, listed or not.
    pub total_cost: u64,
    /// What they may cost.
    pub max_total_cost: u64,
}

/// A subscription that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The new row.
    pub row: SubscriptionRow,
    /// What all subscriptions of the client cost now.
    pub total_cost: u64,
    /// What they may cost.
    pub max_total_cost: u64,
}

/// Where a subscription or a shard is to deliver to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A conduit, by its id.
    Conduit(Arc<str>),
    /// A callback.
    Webhook {
        /// Its URL.
        callback: Arc<str>,
        /// What Twitch signs with.
        secret: Secret,
    },
    /// A WebSocket, by its session.
    Session(SessionId),
}

/// A conduit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conduit {
    /// Twitch's id.
    pub id: String,
    /// Its number of shards, assigned or not.
    pub shard_count: u32,
}

/// A shard that has, or had, a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// Its number.
    pub id: ShardId,
    /// Twitch's text: `enabled`, `websocket_disconnected`, ….
    pub status: Box<str>,
    /// The session that it delivers to, for WebSockets.
    pub session_id: Option<SessionId>,
    /// The URL that it delivers to, for webhooks.
    pub callback: Option<Box<str>>,
}

/// Why Twitch did not assign a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRefused {
    /// For example `invalid_parameter`.
    pub code: Box<str>,
    /// What Twitch says.
    pub message: Box<str>,
}

impl ShardRefused {
    /// Whether the session is gone, so that only a new one helps. The code does not tell, so the text
    /// has to; a wrong guess costs one reconnect.
    pub fn session_gone(&self) -> bool {
        let text = self.message.to_ascii_lowercase();
        text.contains("session") && !text.contains("missing")
    }
}
