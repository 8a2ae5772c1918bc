//! Plans: the actions, and what is left undone and why. ◆
//!
//! `eventsubd plan --json` prints these as they are.

use std::time::Duration;

use serde::Serialize;

use super::park::Obstacle;
use crate::model::subscription::{SubscriptionId, SubscriptionKey};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    Create {
        /// Type, version and condition.
        #[serde(flatten)]
        key: SubscriptionKey,
        /// Whether its type is batched, so that Twitch wants `is_batching_enabled`.
        #[serde(skip)]
        batching: bool,
        /// The cost if no user of the condition has authorized the application, or the cost itself.
        worst_cost: u64,
        /// Whether `worst_cost` is the cost: the catalogue or Twitch has told who has authorized the application.
        exact: bool,
        /// Whether an older one delivers, which goes once this one does.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        moves: bool,
    },
    /// Delete a subscription of ours.
    Delete {
        id: SubscriptionId,
        /// Type, version and condition.
        #[serde(flatten)]
        key: SubscriptionKey,
        reason: DeleteReason,
        /// The cost that deleting it frees.
        cost: u64,
    },
}

impl Action {
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// Type, version and condition.
    pub fn key(&self) -> &SubscriptionKey {
        match self {
            Self::Create { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// Why a row is deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteReason {
    /// Dead, with this status: it delivers nothing, and Twitch never revives it.
    Dead(Box<str>),
    /// An equal one is alive and kept.
    Duplicate,
    /// The file does not have it.
    Unwanted,
    /// On a place that we leave; a successor takes over.
    Moved,
}

/// A wanted subscription that is not created now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// Type, version and condition; logins that are not known stand as `@login`.
    #[serde(flatten)]
    pub key: SubscriptionKey,
    pub obstacle: Obstacle,
    /// Why, and what to do.
    pub reason: String,
    /// When it is tried again; `None`: when the file changes, on `apply`, or when there is room.
    #[serde(rename = "retry_in_seconds", serialize_with = "seconds")]
    pub retry_in: Option<Duration>,
    /// Whether an older one delivers in its stead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delivers: bool,
}

#[allow(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn seconds<S: serde::Serializer>(pause: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    pause.map(|pause| pause.as_secs()).serialize(serializer)
}

/// The actions in order, and what is left undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In order. Where deletes and creates take turns, one group ends before the next begins.
    pub actions: Vec<Action>,
    /// Number of subscriptions that stay as they are.
    pub keep: u64,
    /// Number of subscriptions that a later run moves: one run moves only so many.
    pub deferred: u64,
    /// Wanted, and not created now.
    pub blocked: Vec<Blocked>,
    /// Deletes that wait for `eventsubd apply --allow-deletes`.
    pub held: Vec<Action>,
    /// Of how many live subscriptions of ours the held ones are too large a part, or all.
    pub held_of: Option<u64>,
}
