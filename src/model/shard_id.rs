//! The number of a shard.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a shard within its conduit, 0 to `shard_count - 1`. Twitch writes it as a decimal
/// string (Twitch: "Update Conduit Shards").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
