//! Gaps, as the watch tells them. ◆

use super::timeline::Moment;
use crate::model::status::GapReason;
use crate::model::subscription::SubscriptionKey;

/// The subscriptions that a gap concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All subscriptions on the conduit: Twitch does not say which channel comes over which shard.
    Shards(Vec<u32>),
    /// Subscriptions that deliver to a callback.
    Callback,
    /// All subscriptions.
    All,
    Subscriptions(Vec<SubscriptionKey>),
}

/// A time in which events may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: Moment,
    pub(super) to: Moment,
    pub(super) reason: GapReason,
    pub(super) scope: Scope,
}
