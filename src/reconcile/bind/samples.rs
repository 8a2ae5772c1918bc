//! Shards and sessions for the tests of this folder.

use std::sync::Arc;
use std::time::Instant;

use crate::helix::ShardRow;
use crate::model::shard::{LiveSession, SessionId, Sessions, ShardId};

/// The sessions of these shards.
pub(super) fn sessions(of: &[(u32, &str)], welcomed_at: Instant) -> Sessions {
    let live = |id: &str| LiveSession::new(SessionId::new(id), welcomed_at);
    Arc::new(of.iter().map(|(shard, id)| (ShardId(*shard), live(id))).collect())
}

/// A shard with a WebSocket, as Twitch lists it.
pub(super) fn row(shard: u32, status: &str, session: Option<&str>) -> ShardRow {
    let session_id = session.map(SessionId::new);
    ShardRow { id: ShardId(shard), status: status.into(), session_id, callback: None }
}
