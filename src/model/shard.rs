//! What the reconciler and the WebSocket shards tell each other, through `watch` values.
//!
//! Three values run between them: the reconciler says which shards there shall be
//! ([`ShardTarget`]); the shards say which sessions they have ([`Sessions`]); the reconciler says
//! which of those sessions Twitch has accepted for their shard ([`Bindings`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use super::shard_id::ShardId;
use super::signs::Signs;
use super::webhook::WebhookKeys;

/// The id of a WebSocket session, from its welcome message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Wraps Twitch's text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Twitch's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which shards there shall be. While there is none, no socket is opened: a session that is not
/// bound within 10 seconds is closed by Twitch with 4003, so everything that binding needs comes
/// first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardTarget {
    /// The conduit whose shards these are.
    pub conduit_id: Arc<str>,
    /// How many: shards `0..shards`.
    pub shards: u32,
    /// How many of them have a WebSocket: those at the beginning. All of them, or those that have not been
    /// moved to a callback yet.
    pub sockets: u32,
    /// What the shards are to call, when it is no socket.
    pub webhook: Option<WebhookTarget>,
}

/// What Twitch is to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The public URL.
    pub url: Arc<str>,
    /// What it signs with.
    pub keys: WebhookKeys,
}

/// A session that waits to be bound, or is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// From the welcome.
    pub session_id: SessionId,
    /// When the welcome came: Twitch counts 10 seconds from here.
    pub welcomed_at: Instant,
}

/// The live session of each shard that has one.
pub type Sessions = Arc<BTreeMap<ShardId, LiveSession>>;

/// What Twitch said of a session that was offered for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The session that was offered.
    pub session_id: SessionId,
    /// Accepted, or why not.
    pub outcome: BindOutcome,
}

/// Accepted, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    /// The shard delivers to this session.
    Bound,
    /// Twitch does not know the session any more: the socket must be replaced.
    SessionGone,
    /// The attempt failed for another reason, and will be repeated by the reconciler.
    Failed(Box<str>),
}

/// The last answer of Twitch for each shard.
pub type Bindings = Arc<BTreeMap<ShardId, Binding>>;

/// The connection that a shard reads, for the watch over gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub session_id: SessionId,
    /// Its signs of life. During a handover each of the two sockets of one session has its own.
    pub signs: Signs,
}

/// The connection of each shard that has one.
pub type Lives = Arc<BTreeMap<ShardId, Life>>;

/// How long a shard is known to have been bound to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The session; `None` for a callback.
    pub session_id: Option<SessionId>,
    /// When Twitch accepted the binding, or was first seen to have it.
    pub bound_at: Instant,
    /// The last look at Twitch's list that showed it.
    pub seen_at: Option<Instant>,
    /// Whether Twitch was found to have it, instead of being asked for it: then it never ended.
    pub found: bool,
}

/// Why a shard is not bound to us any more, as far as Twitch's list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// Bound to another session or callback, or to nothing.
    Taken,
    /// Twitch has disabled it.
    Disabled,
}

/// What is known of a shard's bindings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardBinding {
    /// The present one, while there is one.
    pub present: Option<Tenure>,
    /// The one before.
    pub past: Option<Tenure>,
    /// Why that one ended; `None` if its connection did.
    pub unbound: Option<Unbound>,
}

/// What is known of the bindings of each shard that ever had one.
pub type ShardBindings = Arc<BTreeMap<ShardId, ShardBinding>>;
