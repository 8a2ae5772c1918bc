//! What the reconciler says of itself: collected at once, published at most twice a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::status::{ReconcileStatus, SubscriptionEntry, SubscriptionState};
use crate::model::subscription::SubscriptionKey;
use crate::reconcile::clock::timestamp_of;
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::wanted::Wanted;

/// Publishing a table of so many rows takes about a millisecond; the pause between two publications
/// grows with the table, so that they stay a small part of the work.
const ROWS_PER_PAUSE: usize = 10_000;

/// The logins behind the ids of a condition, each once.
fn names(key: &SubscriptionKey, wanted: &Wanted) -> Box<[Arc<str>]> {
    let mut names: Vec<Arc<str>> =
        key.condition.iter().filter_map(|(_, id)| wanted.names.get(id).cloned()).collect();
    names.dedup();
    names.into()
}

/// What becomes of one entry.
#[derive(Clone, Debug)]
pub(in crate::reconcile) enum Change {
    Enabled(Box<str>),
    Pending(Option<Box<str>>),
    Parked { obstacle: Obstacle, reason: Box<str>, retry_at: Option<std::time::Instant> },
}

/// The status in the making.
#[derive(Debug)]
pub(in crate::reconcile) struct Publisher {
    pub(in crate::reconcile) status: ReconcileStatus,
    /// Sorted by key.
    entries: Vec<SubscriptionEntry>,
    entries_changed: bool,
    pause: Duration,
    next_status: Instant,
    next_entries: Instant,
    status_out: watch::Sender<ReconcileStatus>,
    entries_out: watch::Sender<Arc<[SubscriptionEntry]>>,
}

impl Publisher {
    pub(in crate::reconcile) fn new(
        pause: Duration,
        status_out: watch::Sender<ReconcileStatus>,
        entries_out: watch::Sender<Arc<[SubscriptionEntry]>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            status: ReconcileStatus::default(),
            entries: Vec::new(),
            entries_changed: false,
            pause,
            next_status: now,
            next_entries: now,
            status_out,
            entries_out,
        }
    }

    /// Has an entry for each wanted key and no other; what is known of one is kept.
    pub(in crate::reconcile) fn rebase(&mut self, wanted: &Wanted) {
        let all = wanted.keys.iter().chain(wanted.unresolved.iter().map(|(key, _)| key));
        let count = wanted.keys.len() + wanted.unresolved.len();
        let own = |key: &SubscriptionKey| wanted.own.contains(key);
        let same = |key| {
            let known = self.find(key).map(|at| &self.entries[at]);
            known.is_some_and(|entry| entry.own == own(key) && entry.logins == names(key, wanted))
        };
        if self.entries.len() == count && all.clone().all(same) {
            return;
        }
        let mut entries: Vec<SubscriptionEntry> = Vec::with_capacity(count);
        for key in all {
            entries.push(match self.find(key) {
                Some(at) => SubscriptionEntry {
                    own: own(key),
                    logins: names(key, wanted),
                    ..self.entries[at].clone()
                },
                None => SubscriptionEntry {
                    key: key.clone(),
                    state: SubscriptionState::Pending,
                    id: None,
                    reason: None,
                    obstacle: None,
                    retry_at: None,
                    own: own(key),
                    logins: names(key, wanted),
                },
            });
        }
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.entries = entries;
        self.entries_changed = true;
    }

    fn find(&self, key: &SubscriptionKey) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok()
    }

    /// Changes one entry; a key that is not wanted has none.
    pub(in crate::reconcile) fn set(&mut self, key: &SubscriptionKey, change: Change) {
        let Some(at) = self.find(key) else { return };
        let entry = &mut self.entries[at];
        let (state, id, retry_at, obstacle, reason) = match change {
            Change::Enabled(id) => (SubscriptionState::Enabled, Some(id), None, None, None),
            Change::Pending(id) => (SubscriptionState::Pending, id, None, None, None),
            Change::Parked { obstacle, reason, retry_at } => {
                let retry_at = retry_at.map(timestamp_of);
                (SubscriptionState::Parked, None, retry_at, Some(obstacle), Some(reason))
            }
        };
        if entry.state != state
            || entry.id != id
            || entry.reason != reason
            || entry.obstacle != obstacle
            || entry.retry_at.is_some() != retry_at.is_some()
        {
            self.entries_changed = true;
        }
        (entry.state, entry.id, entry.obstacle, entry.reason) = (state, id, obstacle, reason);
        // The time is computed anew each time and wavers by some milliseconds.
        if entry.retry_at.is_none_or(|old| {
            retry_at.is_none_or(|new| old.since(new).max(new.since(old)) > Duration::from_secs(1))
        }) && entry.retry_at != retry_at
        {
            entry.retry_at = retry_at;
            self.entries_changed = true;
        }
    }

    /// Whether Twitch delivers this one.
    pub(in crate::reconcile) fn delivers(&self, key: &SubscriptionKey) -> bool {
        self.find(key).is_some_and(|at| self.entries[at].state == SubscriptionState::Enabled)
    }

    /// One was made that waits for Twitch's challenge; an older one may deliver until then.
    pub(in crate::reconcile) fn begun(&mut self, key: &SubscriptionKey, id: Box<str>) {
        if !self.delivers(key) {
            self.set(key, Change::Pending(Some(id)));
        }
    }

    /// The number of entries that Twitch delivers, and of those that are pending.
    pub(in crate::reconcile) fn pending(&self) -> usize {
        self.entries.iter().filter(|entry| entry.state == SubscriptionState::Pending).count()
    }

    /// Publishes what is new, unless it was done a moment ago.
    pub(in crate::reconcile) fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.next_status {
            self.publish_status(now);
        }
        if self.entries_changed && now >= self.next_entries {
            self.publish_entries(now);
        }
    }

    /// Publishes what is new.
    pub(in crate::reconcile) fn flush(&mut self) {
        let now = Instant::now();
        self.publish_status(now);
        if self.entries_changed {
            self.publish_entries(now);
        }
    }

    fn publish_status(&mut self, now: Instant) {
        self.next_status = now + self.pause;
        self.status_out.send_if_modified(|published| {
            let changed = *published != self.status;
            if changed {
                published.clone_from(&self.status);
            }
            changed
        });
    }

    fn publish_entries(&mut self, now: Instant) {
        let pauses = u32::try_from(self.entries.len() / ROWS_PER_PAUSE).unwrap_or(u32::MAX).saturating_add(1);
        self.next_entries = now + self.pause.saturating_mul(pauses);
        self.entries_changed = false;
        self.entries_out.send_replace(self.entries.as_slice().into());
    }
}
