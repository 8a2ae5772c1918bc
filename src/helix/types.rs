//! Types of API requests and answers.

use std::sync::Arc;

use crate::model::grants::Scopes;
use crate::model::secret::Secret;
use crate::model::shard::{SessionId, ShardId};
use crate::model::subscription::SubscriptionRow;
use crate::model::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id, which never changes.
    pub id: Box<str>,
    /// The login, which may.
    pub login: Box<str>,
}

/// The grants of a user to this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserGrants {
    pub user: User,
    pub scopes: Scopes,
    /// `None` if Twitch does not say. A user may have authorized the client without any scope.
    pub has_authorized: Option<bool>,
}

/// A live stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub id: Box<str>,
    pub user: User,
    /// The user's display name.
    pub user_name: Box<str>,
    pub started_at: Timestamp,
}

/// Channel information: title, category and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub broadcaster: User,
    /// The broadcaster's display name.
    pub broadcaster_name: Box<str>,
    pub title: Box<str>,
    pub language: Box<str>,
    pub category_id: Box<str>,
    pub category_name: Box<str>,
    pub labels: Vec<Box<str>>,
}

/// The rows of an answer, and the rows that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// One text per row that could not be read: its name and the reason.
    pub unread: Vec<Box<str>>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), unread: Vec::new() }
    }
}

/// Filter of a list of subscriptions. Twitch accepts at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All subscriptions of the client.
    All,
    /// Subscriptions on a conduit.
    Conduit(String),
    /// Subscriptions of a type.
    Type(String),
    /// A single subscription, by its id.
    Id(String),
    /// Subscriptions whose condition names this user.
    User(String),
    /// Subscriptions in a status.
    Status(String),
}

/// A complete list of subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionList {
    /// Rows, oldest first.
    pub rows: Vec<SubscriptionRow>,
    /// One text per row that could not be read: its name and the reason.
    pub unread: Vec<Box<str>>,
    /// Cost of all subscriptions of the client, listed or not.
    pub total_cost: u64,
    /// Limit of the total cost.
    pub max_total_cost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub row: SubscriptionRow,
    /// Cost of all subscriptions of the client after the create.
    pub total_cost: u64,
    /// Limit of the total cost.
    pub max_total_cost: u64,
}

/// Transport of a subscription or a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A conduit, by its id.
    Conduit(Arc<str>),
    Webhook {
        callback: Arc<str>,
        /// Signing key of the messages.
        secret: Secret,
    },
    /// A WebSocket, by its session.
    Session(SessionId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conduit {
    pub id: String,
    /// Number of shards, assigned or not.
    pub shard_count: u32,
}

/// A shard that has, or had, a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    pub id: ShardId,
    /// Twitch's text: `enabled`, `websocket_disconnected`, ….
    pub status: Box<str>,
    /// The session that it delivers to, for WebSockets.
    pub session_id: Option<SessionId>,
    /// The URL that it delivers to, for webhooks.
    pub callback: Option<Box<str>>,
}

/// Reason why Twitch did not assign a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRefused {
    /// For example `invalid_parameter`.
    pub code: Box<str>,
    /// Twitch's message.
    pub message: Box<str>,
}

impl ShardRefused {
    /// Whether the session is gone, so that only a new one helps. The code does not say it, so this reads the
    /// text. A wrong guess costs one reconnect.
    pub fn session_gone(&self) -> bool {
        let text = self.message.to_ascii_lowercase();
        text.contains("session") && !text.contains("missing")
    }
}
