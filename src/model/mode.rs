//! Choices that a person makes once for everything, shared by the configuration and the reconciler.

use serde::Deserialize;

/// Treatment of live subscriptions of ours that the file does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Delete them.
    #[default]
    Sync,
    /// Keep them. Dead rows are cleared even so: they deliver nothing and cannot be revived.
    Keep,
}

impl Policy {
    /// The word for it in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Keep => "keep",
        }
    }
}

/// Transport of the subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Over the shards of a conduit.
    #[default]
    Conduit,
    /// To a callback for each subscription.
    Webhook,
}

impl Method {
    /// The word for it in the file, which is Twitch's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conduit => "conduit",
            Self::Webhook => "webhook",
        }
    }
}
