//! Subscriptions that cannot be created now: why, and when each is tried again. ◆
//!
//! Kept in memory only: after a restart each is tried once more, and Twitch says again why not.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::model::backoff::Backoff;
pub use crate::model::obstacle::Obstacle;
use crate::model::subscription::SubscriptionKey;

/// Pauses between two tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryTimes {
    /// For what a person must change: 5 minutes to 6 hours.
    pub slow: Backoff,
    /// For what ended for no lasting reason: 10 seconds to 1 hour.
    pub soon: Backoff,
    /// For a user or a version that is gone: 1 hour to 24 hours.
    pub rare: Backoff,
}

impl Default for RetryTimes {
    fn default() -> Self {
        Self {
            slow: Backoff::new(Duration::from_secs(300), Duration::from_secs(6 * 3600)),
            soon: Backoff::new(Duration::from_secs(10), Duration::from_secs(3600)),
            rare: Backoff::new(Duration::from_secs(3600), Duration::from_secs(24 * 3600)),
        }
    }
}

impl RetryTimes {
    /// The pause after so many failed tries (from 1). Every obstacle has one: Twitch can take back any ending, and
    /// says so to nobody. A suspended user, for example, comes back with the same id.
    pub(in crate::reconcile) fn pause(&self, obstacle: Obstacle, attempts: u32) -> Duration {
        let backoff = match obstacle {
            Obstacle::Removed => self.rare,
            Obstacle::Ended | Obstacle::Callback => self.soon,
            Obstacle::Grant | Obstacle::Chat | Obstacle::Cost | Obstacle::Invalid | Obstacle::Login => {
                self.slow
            }
            Obstacle::Beta | Obstacle::Quota => {
                Backoff { first: self.slow.first.saturating_mul(6), ..self.slow }
            }
        };
        backoff.pause(attempts)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    obstacle: Obstacle,
    reason: Box<str>,
    attempts: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Parked {
        retry_at: Instant,
    },
    /// Created again; if it ends soon, the pauses go on growing from where they stopped.
    Trial {
        since: Instant,
    },
}

/// State of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Standing<'a> {
    /// Nothing is known against it.
    Free,
    /// Created again not long ago, after it had ended.
    Trial,
    /// Parked, and due for another try.
    Due,
    Waiting {
        obstacle: Obstacle,
        reason: &'a str,
        retry_at: Instant,
    },
}

/// The table of them.
#[derive(Clone, Debug, Default)]
pub(in crate::reconcile) struct ParkTable {
    entries: HashMap<SubscriptionKey, Entry>,
    times: RetryTimes,
}

impl ParkTable {
    pub(in crate::reconcile) fn new(times: RetryTimes) -> Self {
        Self { entries: HashMap::new(), times }
    }

    pub(in crate::reconcile) fn standing(&self, key: &SubscriptionKey, now: Instant) -> Standing<'_> {
        match self.entries.get(key) {
            None => Standing::Free,
            Some(Entry { state: State::Trial { since }, .. }) => {
                if now.saturating_duration_since(*since) > self.times.slow.longest {
                    Standing::Free
                } else {
                    Standing::Trial
                }
            }
            Some(Entry { state: State::Parked { retry_at }, .. }) if *retry_at <= now => Standing::Due,
            Some(Entry { state: State::Parked { retry_at }, obstacle, reason, .. }) => {
                Standing::Waiting { obstacle: *obstacle, reason, retry_at: *retry_at }
            }
        }
    }

    /// The failed tries that count, with one more.
    fn next_attempt(&self, key: &SubscriptionKey, now: Instant) -> u32 {
        let free = self.standing(key, now) == Standing::Free;
        self.entries.get(key).filter(|_| !free).map_or(0, |entry| entry.attempts).saturating_add(1)
    }

    /// The pause that parking it now would lead to.
    pub(in crate::reconcile) fn next_pause(
        &self,
        key: &SubscriptionKey,
        obstacle: Obstacle,
        now: Instant,
    ) -> Duration {
        self.times.pause(obstacle, self.next_attempt(key, now))
    }

    /// Parks it, or parks it again with a longer pause; tells when it is due.
    pub(in crate::reconcile) fn park(
        &mut self,
        key: &SubscriptionKey,
        obstacle: Obstacle,
        reason: &str,
        now: Instant,
    ) -> Instant {
        let attempts = self.next_attempt(key, now);
        let retry_at = now + self.times.pause(obstacle, attempts);
        let entry = Entry { obstacle, reason: reason.into(), attempts, state: State::Parked { retry_at } };
        self.entries.insert(key.clone(), entry);
        retry_at
    }

    /// Records that an ended subscription is created again at once; the next end parks it.
    pub(in crate::reconcile) fn record_trial(&mut self, key: &SubscriptionKey, reason: &str, now: Instant) {
        let entry = Entry {
            obstacle: Obstacle::Ended,
            reason: reason.into(),
            attempts: 1,
            state: State::Trial { since: now },
        };
        self.entries.insert(key.clone(), entry);
    }

    /// Records that it was created or found alive.
    pub(in crate::reconcile) fn record_alive(&mut self, key: &SubscriptionKey, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key)
            && matches!(entry.state, State::Parked { .. })
        {
            entry.state = State::Trial { since: now };
        }
    }

    /// Forgets what is known against it.
    pub(in crate::reconcile) fn forget(&mut self, key: &SubscriptionKey) {
        self.entries.remove(key);
    }

    /// Everything is due now, with short pauses again: a person has asked, or has edited the file.
    pub(in crate::reconcile) fn release(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.attempts = 0;
            if let State::Parked { retry_at } = &mut entry.state {
                *retry_at = now;
            }
        }
    }

    /// Makes due whatever waits for a grant or a role of one of these users; `None` stands for all users.
    pub(in crate::reconcile) fn release_users(&mut self, users: Option<&BTreeSet<Box<str>>>, now: Instant) {
        for (key, entry) in &mut self.entries {
            let waits = matches!(entry.obstacle, Obstacle::Grant | Obstacle::Chat | Obstacle::Cost);
            let named = users.is_none_or(|users| key.condition.iter().any(|(_, id)| users.contains(id)));
            if let State::Parked { retry_at } = &mut entry.state
                && waits
                && named
            {
                entry.attempts = 0;
                *retry_at = now;
            }
        }
    }

    /// Forgets what is not wanted any more, and trials that were passed.
    pub(in crate::reconcile) fn retain(&mut self, wanted: impl Fn(&SubscriptionKey) -> bool, now: Instant) {
        let longest = self.times.slow.longest;
        self.entries.retain(|key, entry| {
            let passed =
                matches!(entry.state, State::Trial { since } if now.saturating_duration_since(since) > longest);
            !passed && wanted(key)
        });
    }

    /// When the next one is due.
    pub(in crate::reconcile) fn next_due(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| match entry.state {
                State::Parked { retry_at } => Some(retry_at),
                State::Trial { .. } => None,
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subscription::Condition;

    fn key() -> SubscriptionKey {
        SubscriptionKey::new("stream.online", "1", Condition::from_pairs([("broadcaster_user_id", "1")]))
    }

    #[test]
    fn pauses_grow_by_obstacle_and_are_bounded() {
        let times = RetryTimes::default();
        let minutes = |obstacle, attempts| times.pause(obstacle, attempts).as_secs() / 60;
        assert_eq!(minutes(Obstacle::Grant, 1), 5);
        assert_eq!(minutes(Obstacle::Grant, 2), 10);
        assert_eq!(minutes(Obstacle::Grant, 99), 360);
        assert_eq!(minutes(Obstacle::Quota, 1), 30);
        assert_eq!([1, 2, 99].map(|tries| minutes(Obstacle::Removed, tries)), [60, 120, 1440]);
        assert_eq!(times.pause(Obstacle::Ended, 1), Duration::from_secs(10));
        assert_eq!(times.pause(Obstacle::Ended, u32::MAX), Duration::from_secs(3600));
    }

    #[test]
    fn what_keeps_ending_waits_longer_each_time_and_is_forgiven_in_the_end() {
        let mut table = ParkTable::default();
        let mut now = Instant::now();
        table.record_trial(&key(), "ended", now);
        assert_eq!(table.standing(&key(), now), Standing::Trial);
        let mut last = Duration::ZERO;
        for _ in 0..5 {
            let due = table.park(&key(), Obstacle::Ended, "ended", now);
            assert!(due - now > last);
            last = due - now;
            assert!(matches!(table.standing(&key(), now), Standing::Waiting { .. }));
            assert_eq!(table.next_due(), Some(due));
            now = due;
            assert_eq!(table.standing(&key(), now), Standing::Due);
            table.record_alive(&key(), now);
        }
        now += Duration::from_secs(6 * 3600 + 1);
        assert_eq!(table.standing(&key(), now), Standing::Free);
        table.retain(|_| true, now);
        assert_eq!(table.entries.len(), 0);
    }

    #[test]
    fn every_obstacle_is_tried_again_by_itself_and_a_release_makes_it_due_at_once() {
        let now = Instant::now();
        for obstacle in Obstacle::ALL {
            let mut table = ParkTable::default();
            let due = table.park(&key(), obstacle, "in the way", now);
            assert!(due - now <= Duration::from_secs(24 * 3600), "{}", obstacle.name());
            assert_eq!(table.next_due(), Some(due));
            assert_eq!(table.standing(&key(), due), Standing::Due);
        }
        let mut table = ParkTable::default();
        table.park(&key(), Obstacle::Removed, "gone", now);
        table.release(now);
        assert_eq!(table.standing(&key(), now), Standing::Due);
        table.retain(|_| false, now);
        assert_eq!(table.standing(&key(), now), Standing::Free);
    }
}
