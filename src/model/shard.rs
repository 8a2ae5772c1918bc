//! State shared between the reconciler and the shards, as `watch` values.
//!
//! The reconciler publishes which shards should exist ([`ShardTarget`]); the shards publish their sessions
//! ([`Sessions`]); the reconciler publishes which of those sessions Twitch has accepted ([`Bindings`]).

use std::collections::{BTreeMap, BTreeSet};
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
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The shards that should exist. Without a target no socket is opened: Twitch closes a session with 4003 unless it is
/// bound within 10 seconds, so everything that binding needs comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardTarget {
    /// Id of the conduit that the shards belong to.
    pub conduit_id: Arc<str>,
    /// Number of shards: `0..shards`.
    pub shards: u32,
    /// Shards whose WebSockets are opened here. On one host these are the first ones: all, or those not yet moved to a
    /// callback.
    pub sockets: ShardSet,
    /// Webhook of the shards without a WebSocket. `None` means that all use WebSockets.
    pub webhook: Option<WebhookTarget>,
}

/// Numbers of shards.
pub type ShardSet = Arc<BTreeSet<ShardId>>;

/// The shards of one host of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnShards {
    pub conduit_id: Arc<str>,
    pub shards: ShardSet,
}

/// Returns the first `count` shards.
pub fn first_shards(count: u32) -> ShardSet {
    Arc::new((0..count).map(ShardId).collect())
}

/// The webhook that Twitch calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTarget {
    pub url: Arc<str>,
    /// Secrets that Twitch signs with.
    pub keys: WebhookKeys,
}

/// A session that is bound or waits to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    pub session_id: SessionId,
    /// Arrival of the welcome message, from which Twitch counts 10 seconds.
    pub welcomed_at: Instant,
    /// Whether Twitch delivers to it already: an earlier leader of the cluster has bound it.
    pub is_bound: bool,
    /// The session that it is to replace while that one is still read, by another host of the cluster.
    pub replaces: Option<SessionId>,
}

impl LiveSession {
    /// A session that is not bound yet.
    pub fn new(session_id: SessionId, welcomed_at: Instant) -> Self {
        Self { session_id, welcomed_at, is_bound: false, replaces: None }
    }
}

/// The live session of each shard that has one.
pub type Sessions = Arc<BTreeMap<ShardId, LiveSession>>;

/// Twitch's reply about a session offered for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub session_id: SessionId,
    pub outcome: BindOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    /// The shard delivers to this session.
    Bound,
    /// Twitch no longer knows the session: the socket must be replaced.
    SessionGone,
    /// The attempt failed for another reason; the reconciler repeats it.
    Failed(Box<str>),
}

/// Twitch's last reply for each shard.
pub type Bindings = Arc<BTreeMap<ShardId, Binding>>;

/// The connection that a shard reads, for the watch over gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub session_id: SessionId,
    /// Signs of life of the socket. During a handover each of the two sockets of one session has its own.
    pub signs: Signs,
}

/// The last session of each shard that we closed and read to Twitch's answer.
pub type Closed = Arc<BTreeMap<ShardId, SessionId>>;

/// Sessions that were replaced by others, and then closed by us and read to Twitch's answer: everything that Twitch sent to
/// them came in.
pub type HandedOver = Arc<BTreeSet<SessionId>>;

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
    /// Whether an earlier leader of the cluster has bound it, and it was not bound anew since.
    pub is_adopted: bool,
    /// The session that Twitch delivered to until then, as a look right before the binding has shown. `None` if nobody
    /// looked, or it did not.
    pub succeeds: Option<SessionId>,
}

/// Why a shard is not bound to us any more, as far as Twitch's list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// Bound to another session or callback, or to nothing.
    Taken,
    /// Twitch has disabled it.
    Disabled,
}

/// Known bindings of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardBinding {
    /// The present one, while there is one.
    pub present: Option<Tenure>,
    /// The tenure before the present one.
    pub past: Option<Tenure>,
    /// Why that one ended; `None` if its connection did.
    pub unbound: Option<Unbound>,
}

/// Known bindings of each shard that ever had one.
pub type ShardBindings = Arc<BTreeMap<ShardId, ShardBinding>>;
