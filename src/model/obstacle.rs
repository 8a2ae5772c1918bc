//! Reasons why a subscription cannot be created now.

use serde::{Deserialize, Serialize};

/// Kind of obstacle, which decides when another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// Twitch ended it for a temporary reason: created again at once, then with growing pauses if it keeps ending.
    Ended,
    /// A grant, or the role of a moderator, is missing.
    Grant,
    /// The chatting user cannot join the channel.
    Chat,
    /// A beta type is under maintenance.
    Beta,
    /// Too many equal subscriptions.
    Quota,
    /// Too little of `max_total_cost` is left; retried as soon as there is enough.
    Cost,
    /// Twitch refuses it as invalid.
    Invalid,
    /// A user or the version of the type is gone; retried at least daily.
    Removed,
    /// Twitch does not know a login.
    Login,
    /// The callback is unreachable from outside, and Twitch could not verify a subscription.
    Callback,
}

impl Obstacle {
    pub const ALL: [Self; 10] = [
        Self::Ended,
        Self::Grant,
        Self::Chat,
        Self::Beta,
        Self::Quota,
        Self::Cost,
        Self::Invalid,
        Self::Removed,
        Self::Login,
        Self::Callback,
    ];

    /// Returns its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Grant => "grant",
            Self::Chat => "chat",
            Self::Beta => "beta",
            Self::Quota => "quota",
            Self::Cost => "cost",
            Self::Invalid => "invalid",
            Self::Removed => "removed",
            Self::Login => "login",
            Self::Callback => "callback",
        }
    }
}
