//! Counters of requests and messages.

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests of any kind.
    pub requests: u64,
    pub mints: u64,
    /// Requests for a token that were refused.
    pub mints_refused: u64,
    pub validations: u64,
    /// Requests to Get Users.
    pub users: u64,
    /// Pages of Get Streams.
    pub streams: u64,
    /// Requests to Get Channel Information.
    pub channels: u64,
    /// Pages of subscriptions.
    pub lists: u64,
    /// Attempts to create a subscription.
    pub creates: u64,
    pub created: u64,
    /// Attempts to delete one.
    pub deletes: u64,
    /// Calls on conduits, other than on shards.
    pub conduits: u64,
    /// Lists of shards.
    pub shards: u64,
    /// Updates of shards.
    pub binds: u64,
    /// Answers of 429 because the bucket was empty.
    pub rate_limited: u64,
    /// Answers of 401.
    pub unauthorized: u64,
    /// WebSockets opened.
    pub connects: u64,
    /// WebSockets ended, however.
    pub disconnects: u64,
    /// Events handed to a socket.
    pub sent: u64,
    /// Events that no shard took, or a callback in none of its tries.
    pub undeliverable: u64,
    /// Sockets closed because the client sent something.
    pub inbound_traffic: u64,
    /// Challenges sent to callbacks.
    pub challenges: u64,
    /// Challenges that were answered as they must be.
    pub challenges_passed: u64,
    /// Challenges whose outcome is known, good or bad.
    pub challenges_judged: u64,
    /// Notifications and revocations sent to callbacks, each try counted.
    pub posts: u64,
    /// Deliveries answered with 2xx.
    pub accepted: u64,
}
