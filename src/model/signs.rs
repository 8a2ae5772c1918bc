//! Signs that a connection delivers, for whoever has to say when it did last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::shard::ShardId;

/// Times of the last messages of one connection, in milliseconds of the machine's clock since boot; clones share
/// them. A time that was set never goes back.
#[derive(Clone, Debug, Default)]
pub struct Signs(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    heard: AtomicU64,
    event: AtomicU64,
}

impl Signs {
    /// Records that everything sent up to this time came in, if Twitch delivered to this connection at all.
    pub fn record_heard(&self, at: u64) {
        self.0.heard.fetch_max(at, Ordering::Relaxed);
    }

    /// Records a message at this time that only a connection gets that Twitch delivers to.
    pub fn record_event(&self, at: u64) {
        self.0.event.fetch_max(at, Ordering::Relaxed);
        self.record_heard(at);
    }

    /// Time of the last message of any kind; 0 before the first.
    pub fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Time of the last message that proves delivery; 0 before the first.
    pub fn event(&self) -> u64 {
        self.0.event.load(Ordering::Relaxed)
    }
}

impl PartialEq for Signs {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Signs {}

/// Most shards that Twitch allows, so that addresses cannot fill the memory (Twitch: "Create Conduits").
const SHARDS: usize = 20_000;

/// Times of signed requests to a callback, by the same clock; clones share them.
#[derive(Clone, Debug, Default)]
pub struct CallbackSigns(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    last: AtomicU64,
    /// The first request that was refused since the last one that was not; 0 if there is none.
    refused: AtomicU64,
    shards: Mutex<BTreeMap<ShardId, u64>>,
}

impl CallbackSigns {
    /// Records a request at this time that was refused, so that Twitch sends it again.
    pub fn record_refused(&self, at: u64) {
        let _ = self.0.refused.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Time of the first request that was refused since the last one that was accepted; 0 if there is none.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Records a request at this time that was accepted, for this shard if its address names one.
    pub fn record(&self, shard: Option<ShardId>, at: u64) {
        self.0.refused.store(0, Ordering::Relaxed);
        self.0.last.fetch_max(at, Ordering::Relaxed);
        let Some(shard) = shard else { return };
        let mut shards = self.0.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = shards.get_mut(&shard) {
            *last = at.max(*last);
        } else if shards.len() < SHARDS {
            shards.insert(shard, at);
        }
    }

    /// Time of the last accepted request; 0 before the first.
    pub fn last(&self) -> u64 {
        self.0.last.load(Ordering::Relaxed)
    }

    /// Time of the last accepted request for a shard; 0 before the first.
    pub fn of(&self, shard: ShardId) -> u64 {
        let shards = self.0.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.get(&shard).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_never_go_back_and_an_event_counts_as_heard() {
        let signs = Signs::default();
        signs.record_event(5);
        let same = signs.clone();
        same.record_heard(9);
        signs.record_event(3);
        assert_eq!((signs.heard(), signs.event()), (9, 5));
        assert!(signs == same && signs != Signs::default());
    }

    #[test]
    fn requests_count_for_their_shard_and_for_all() {
        let signs = CallbackSigns::default();
        signs.record(Some(ShardId(1)), 5);
        signs.record(None, 9);
        signs.record(Some(ShardId(1)), 3);
        assert_eq!((signs.last(), signs.of(ShardId(1)), signs.of(ShardId(0))), (9, 5, 0));
    }

    #[test]
    fn a_refusal_counts_from_the_first_one_until_a_request_is_accepted() {
        let signs = CallbackSigns::default();
        signs.record_refused(5);
        signs.record_refused(9);
        assert_eq!((signs.refused(), signs.last()), (5, 0));
        signs.record(None, 12);
        assert_eq!((signs.refused(), signs.last()), (0, 12));
        signs.record_refused(20);
        assert_eq!(signs.refused(), 20);
    }
}
