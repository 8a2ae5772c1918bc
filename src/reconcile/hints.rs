//! Owner of the hints that events give: bounded sets, and a notification of each kind.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::hint::Hint;
use crate::model::subscription::{SubscriptionId, SubscriptionStatus};

/// Users whose grants changed, and subscriptions that Twitch ended, that are remembered one by one; beyond that all are
/// looked at.
const MAX_HINTS: usize = 10_000;

/// Hints from events. Losing one costs time only.
#[derive(Debug, Default)]
pub(super) struct Hints {
    users: Mutex<ChangedUsers>,
    ended: Mutex<EndedSubscriptions>,
    grants: Notify,
    revoked: Notify,
    shards: Notify,
    verified: Notify,
}

impl Hints {
    /// Records what an event tells.
    pub(super) fn record(&self, hint: Hint) {
        match hint {
            Hint::Grants { user_id } => {
                lock(&self.users).add(user_id);
                self.grants.notify_one();
            }
            Hint::Ended { id, status } => {
                lock(&self.ended).add(id, SubscriptionStatus::parse(&status));
                self.revoked.notify_one();
            }
            Hint::Shards => self.look_at_shards(),
            Hint::Verified => self.verified.notify_one(),
        }
    }

    /// Has the binder look at Twitch's list of shards.
    pub(super) fn look_at_shards(&self) {
        self.shards.notify_one();
    }

    /// Takes the users whose grants have changed since the last call. `None` means all users.
    pub(super) fn take_users(&self) -> Option<BTreeSet<Box<str>>> {
        let changed = std::mem::take(&mut *lock(&self.users));
        (!changed.all).then_some(changed.ids)
    }

    /// Takes the subscriptions that Twitch has ended since the last call; the flag says that there were too many to
    /// remember each.
    pub(super) fn take_ended(&self) -> (Vec<(SubscriptionId, SubscriptionStatus)>, bool) {
        let ended = std::mem::take(&mut *lock(&self.ended));
        (ended.rows, ended.too_many)
    }

    /// Resolves once grants of users have changed.
    pub(super) async fn grants_changed(&self) {
        self.grants.notified().await;
    }

    /// Resolves once Twitch has ended a subscription.
    pub(super) async fn subscription_ended(&self) {
        self.revoked.notified().await;
    }

    /// Resolves once there is a reason to look at Twitch's list of shards.
    pub(super) async fn shards_changed(&self) {
        self.shards.notified().await;
    }

    /// Resolves once a challenge has been answered.
    pub(super) async fn challenge_answered(&self) {
        self.verified.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Subscriptions that Twitch has ended.
#[derive(Debug, Default)]
struct EndedSubscriptions {
    rows: Vec<(SubscriptionId, SubscriptionStatus)>,
    /// There were too many to remember each.
    too_many: bool,
}

impl EndedSubscriptions {
    fn add(&mut self, id: SubscriptionId, status: SubscriptionStatus) {
        if self.rows.len() < MAX_HINTS {
            self.rows.push((id, status));
        } else {
            self.too_many = true;
        }
    }
}

/// Users whose grants have changed.
#[derive(Debug, Default)]
struct ChangedUsers {
    ids: BTreeSet<Box<str>>,
    /// Too many users to name: all count as changed.
    all: bool,
}

impl ChangedUsers {
    fn add(&mut self, user_id: Box<str>) {
        if self.ids.len() >= MAX_HINTS {
            self.ids.clear();
            self.all = true;
        }
        if !self.all {
            self.ids.insert(user_id);
        }
    }
}
