//! Choices that a person makes once for the whole daemon.

use std::fmt;

use super::choice::choice;

/// Shards of a conduit at most (Twitch: "Create Conduits").
pub const MAX_SHARDS: u32 = 20_000;
/// Fewest shards of [`ShardCount::Auto`]: one survives the loss of the other.
const FEWEST: u32 = 2;

/// Number of shards of the conduit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShardCount {
    Fixed(u32),
    /// One for each host of the cluster, at least two.
    Auto,
}

impl ShardCount {
    /// The word for [`Self::Auto`] in the configuration.
    pub const AUTO: &str = "auto";

    /// Returns the number for a cluster of so many hosts; 1 without a cluster.
    pub fn for_hosts(self, hosts: u32) -> u32 {
        match self {
            Self::Fixed(count) => count.clamp(1, MAX_SHARDS),
            Self::Auto => hosts.clamp(FEWEST, MAX_SHARDS),
        }
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(count) => write!(f, "{count}"),
            Self::Auto => f.write_str(Self::AUTO),
        }
    }
}

choice! {
    /// Treatment of live subscriptions of ours that the file does not have.
    #[derive(Default)]
    pub enum Policy {
        /// Delete these subscriptions.
        #[default]
        Sync = "sync",
        /// Keep these subscriptions. Dead rows are cleared even so: they deliver nothing and cannot be revived.
        Keep = "keep",
    }
}

choice! {
    /// Transport of the subscriptions.
    #[derive(Default)]
    pub enum Method {
        /// Over the shards of a conduit.
        #[default]
        Conduit = "conduit",
        /// To a callback for each subscription.
        Webhook = "webhook",
    }
}

choice! {
    /// Transport of the shards of a conduit.
    pub enum ShardTransport {
        /// A WebSocket for each shard.
        WebSocket = "websocket",
        /// A callback for each shard.
        Webhook = "webhook",
    }
}

choice! {
    /// Form of log lines.
    pub enum LogFormat {
        /// The journal's native protocol if stderr is the journal, else text.
        Auto = "auto",
        /// Lines for people; coloured on a terminal unless `NO_COLOR` is set.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
        /// The journal's native protocol, with fields.
        Journald = "journald",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_one_shard_for_each_host_and_two_at_least() {
        let auto = [0, 1, 2, 3, 30_000].map(|hosts| ShardCount::Auto.for_hosts(hosts));
        assert_eq!(auto, [2, 2, 2, 3, MAX_SHARDS]);
        assert_eq!(ShardCount::Fixed(5).for_hosts(3), 5);
    }
}
