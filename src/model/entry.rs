//! One subscription of the file, with its state. ◆

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::obstacle::Obstacle;
use super::subscription::{SubscriptionId, SubscriptionKey};
use super::time::Timestamp;

/// State of one subscription of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Twitch delivers its events.
    Enabled,
    /// Not examined yet, or to be created in this run or the next.
    Pending,
    /// Cannot be created now; retried slowly and on reload.
    Parked,
}

/// One subscription of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionEntry {
    /// Type, version and condition; unresolved logins are written as `@login`.
    #[serde(flatten)]
    pub key: SubscriptionKey,
    /// Whether it is enabled, pending or parked.
    pub state: SubscriptionState,
    /// Twitch's id, when there is one.
    pub id: Option<SubscriptionId>,
    /// Why it is not enabled, and what to do.
    pub reason: Option<Box<str>>,
    /// Kind of obstacle, while it is parked.
    #[serde(default)]
    pub obstacle: Option<Obstacle>,
    /// Time of the next attempt.
    pub retry_at: Option<Timestamp>,
    /// Cost against the client's limit, while it is enabled.
    #[serde(default)]
    pub cost: Option<u8>,
    /// Whether the daemon uses it itself, for news of grants and shards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// The logins that the file names it by, where the condition has ids.
    #[serde(default, skip_serializing_if = "LoginNames::is_empty")]
    pub logins: LoginNames,
}

/// The logins that the file names a subscription by, mostly one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LoginNames {
    #[default]
    None,
    One(Arc<str>),
    Many(Box<[Arc<str>]>),
}

impl LoginNames {
    pub fn as_slice(&self) -> &[Arc<str>] {
        match self {
            Self::None => &[],
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl From<Vec<Arc<str>>> for LoginNames {
    fn from(mut names: Vec<Arc<str>>) -> Self {
        match names.len() {
            1 => names.pop().map_or(Self::None, Self::One),
            0 => Self::None,
            _ => Self::Many(names.into()),
        }
    }
}

impl Serialize for LoginNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LoginNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Arc<str>>::deserialize(deserializer)?.into())
    }
}
