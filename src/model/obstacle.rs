//! Why a subscription cannot be created now.

use serde::{Deserialize, Serialize};

/// What kind of obstacle it is; it decides how soon another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// It ended for no lasting reason: created again at once, and with growing pauses when it keeps
    /// ending.
    Ended,
    /// A grant, or a moderator's role, is missing.
    Grant,
    /// The chatting user cannot join the channel.
    Chat,
    /// A beta type is under maintenance.
    Beta,
    /// Too many equal subscriptions.
    Quota,
    /// There is no room left under `max_total_cost`; tried as soon as there is.
    Cost,
    /// Twitch refuses it as invalid.
    Invalid,
    /// A user, or the version of the type, is gone: tried again once a day at the least.
    Removed,
    /// A login is not known to Twitch.
    Login,
    /// The callback cannot be reached from outside: nothing is created that Twitch could not verify.
    Callback,
}

impl Obstacle {
    /// Each of them.
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

    /// Its name, as the JSON has it.
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
