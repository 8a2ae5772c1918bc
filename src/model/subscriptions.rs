//! The list of the file's subscriptions with their states, shared by all who show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::entry::LoginNames;
use super::entry::{SubscriptionEntry, SubscriptionState};
use super::obstacle::Obstacle;
use super::subscription::SubscriptionKey;

/// Entries that share one allocation. A change copies as many while a reader holds them.
const CHUNK: usize = 256;

/// Every subscription of the file and the daemon's own, sorted. A clone shares the entries, and a change copies only what
/// is near it, so that a list of 100,000 can be published twice a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions {
    chunks: Arc<Vec<Arc<Vec<SubscriptionEntry>>>>,
    counts: Arc<SubscriptionCounts>,
}

/// Numbers of subscriptions. Those of the daemon's own are in `own` and `own_parked` only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionCounts {
    /// Subscriptions of the file.
    pub total: u64,
    /// Subscriptions that Twitch delivers.
    pub enabled: u64,
    /// Subscriptions that were not compared yet, or are to be created.
    pub pending: u64,
    /// Subscriptions that cannot be created now.
    pub parked: u64,
    /// The parked ones by what is in the way.
    pub obstacles: BTreeMap<Obstacle, u64>,
    /// Subscriptions that the daemon keeps for itself.
    pub own: u64,
    /// Number of them that cannot be created now.
    pub own_parked: u64,
}

impl SubscriptionCounts {
    fn count(&mut self, entry: &SubscriptionEntry, change: impl Fn(&mut u64)) {
        if entry.own {
            change(&mut self.own);
            if entry.state == SubscriptionState::Parked {
                change(&mut self.own_parked);
            }
            return;
        }
        change(&mut self.total);
        match entry.state {
            SubscriptionState::Enabled => change(&mut self.enabled),
            SubscriptionState::Pending => change(&mut self.pending),
            SubscriptionState::Parked => {
                change(&mut self.parked);
                if let Some(obstacle) = entry.obstacle {
                    change(self.obstacles.entry(obstacle).or_default());
                    self.obstacles.retain(|_, count| *count > 0);
                }
            }
        }
    }
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, |chunk| chunk.len());
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn counts(&self) -> &SubscriptionCounts {
        &self.counts
    }

    pub fn get(&self, at: usize) -> Option<&SubscriptionEntry> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub fn iter(&self) -> impl Iterator<Item = &SubscriptionEntry> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The entries from this position on.
    pub fn iter_from(&self, at: usize) -> impl Iterator<Item = &SubscriptionEntry> {
        let chunks = self.chunks.get(at / CHUNK..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(at % CHUNK)
    }

    /// The position of the first entry whose key is not before this one, and whether it is this one.
    pub fn position(&self, key: &SubscriptionKey) -> Result<usize, usize> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last.key < *key));
        let Some(entries) = self.chunks.get(chunk) else { return Err(self.len()) };
        let found = entries.binary_search_by(|entry| entry.key.cmp(key));
        found.map(|at| chunk * CHUNK + at).map_err(|at| chunk * CHUNK + at)
    }

    /// The same, for a key that is probably at `near`.
    pub fn position_near(&self, near: usize, key: &SubscriptionKey) -> Result<usize, usize> {
        match self.get(near) {
            Some(entry) if entry.key == *key => Ok(near),
            _ => self.position(key),
        }
    }

    pub fn find(&self, key: &SubscriptionKey) -> Option<&SubscriptionEntry> {
        self.get(self.position(key).ok()?)
    }

    /// Replaces an entry by one with the same key.
    pub fn replace(&mut self, at: usize, entry: SubscriptionEntry) {
        let Some(chunk) = Arc::make_mut(&mut self.chunks).get_mut(at / CHUNK) else { return };
        let Some(place) = Arc::make_mut(chunk).get_mut(at % CHUNK) else { return };
        let counts = Arc::make_mut(&mut self.counts);
        counts.count(place, |count| *count -= 1);
        counts.count(&entry, |count| *count += 1);
        *place = entry;
    }
}

/// From entries in any order.
impl From<Vec<SubscriptionEntry>> for Subscriptions {
    fn from(mut entries: Vec<SubscriptionEntry>) -> Self {
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        entries.into_iter().collect()
    }
}

/// From entries in order.
impl FromIterator<SubscriptionEntry> for Subscriptions {
    fn from_iter<T: IntoIterator<Item = SubscriptionEntry>>(entries: T) -> Self {
        let mut counts = SubscriptionCounts::default();
        let mut chunks: Vec<Arc<Vec<SubscriptionEntry>>> = Vec::new();
        let mut chunk = Vec::new();
        for entry in entries {
            counts.count(&entry, |count| *count += 1);
            if chunk.is_empty() {
                chunk.reserve_exact(CHUNK);
            }
            chunk.push(entry);
            if chunk.len() == CHUNK {
                chunks.push(Arc::new(std::mem::take(&mut chunk)));
            }
        }
        if !chunk.is_empty() {
            chunk.shrink_to_fit();
            chunks.push(Arc::new(chunk));
        }
        Self { chunks: Arc::new(chunks), counts: Arc::new(counts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example::entry;

    fn many(count: usize) -> Vec<SubscriptionEntry> {
        (0..count).map(|n| entry(&format!("{n:05}"), SubscriptionState::Enabled)).collect()
    }

    fn recounted(subscriptions: &Subscriptions) -> SubscriptionCounts {
        subscriptions.iter().cloned().collect::<Subscriptions>().counts().clone()
    }

    #[test]
    fn entries_are_found_whatever_their_number() {
        for count in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let mut shuffled = many(count);
            fastrand::Rng::with_seed(7).shuffle(&mut shuffled);
            let subscriptions = Subscriptions::from(shuffled);
            assert_eq!((subscriptions.len(), subscriptions.is_empty()), (count, count == 0));
            assert_eq!(subscriptions.counts().enabled, count as u64);
            for (at, expected) in many(count).iter().enumerate() {
                assert_eq!(subscriptions.position(&expected.key), Ok(at));
                assert_eq!(subscriptions.find(&expected.key), Some(expected));
                assert_eq!(subscriptions.position_near(at, &expected.key), Ok(at));
                assert_eq!(subscriptions.position_near(0, &expected.key), Ok(at));
            }
            let absent = entry("00003x", SubscriptionState::Enabled).key;
            assert_eq!(subscriptions.position(&absent), Err(count.min(4)));
            assert_eq!(subscriptions.iter_from(count.min(4)).count(), count.saturating_sub(4));
            assert_eq!(subscriptions.iter_from(count + CHUNK).count(), 0);
        }
    }

    #[test]
    fn a_change_leaves_what_was_published_and_shares_the_rest() {
        let mut subscriptions: Subscriptions = many(3 * CHUNK).into();
        let published = subscriptions.clone();
        let mut parked = entry("00300", SubscriptionState::Parked);
        parked.key = published.get(300).unwrap().key.clone();
        subscriptions.replace(300, parked);
        assert_eq!(published.counts().enabled, 3 * CHUNK as u64);
        assert_eq!(subscriptions.counts().parked, 1);
        assert_eq!(*subscriptions.counts(), recounted(&subscriptions));
        let shared = |at: usize| Arc::ptr_eq(&subscriptions.chunks[at], &published.chunks[at]);
        assert!(shared(0) && !shared(1) && shared(2));
        let mut own = published.get(300).unwrap().clone();
        own.own = true;
        subscriptions.replace(300, own);
        assert_eq!(*subscriptions.counts(), recounted(&subscriptions));
        assert!(subscriptions.counts().obstacles.is_empty());
        subscriptions.replace(9_999, published.get(0).unwrap().clone());
        assert_eq!(subscriptions.len(), 3 * CHUNK);
    }
}
