//! Subscriptions that were gone for a while, from the reconciler to whoever tells of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::subscription::SubscriptionKey;

/// Time in which a subscription was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// Last time that Twitch's list showed it.
    pub from: Instant,
    /// When it was there again.
    pub to: Instant,
}

/// Lapses that are over and that nobody has taken yet, one a subscription; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Lapses(Arc<Mutex<BTreeMap<SubscriptionKey, Lapse>>>);

impl Lapses {
    /// Adds a lapse. With one of the same subscription that was not taken yet it becomes one.
    pub fn add(&self, key: &SubscriptionKey, lapse: Lapse) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(key.clone()).or_insert(lapse);
        *known = Lapse { from: known.from.min(lapse.from), to: known.to.max(lapse.to) };
    }

    /// Takes all of them.
    pub fn take(&self) -> BTreeMap<SubscriptionKey, Lapse> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
