//! The newest events in memory, so that workers that keep up do not read the database.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::follower::{Follower, Reading};
use crate::model::event::{Seq, StoredEvent};

/// Bytes that an event takes besides its payload, about.
const OVERHEAD: usize = 400;

/// The newest events, without a gap.
#[derive(Debug)]
struct Tail {
    /// Sorted by number, ascending.
    events: VecDeque<Arc<StoredEvent>>,
    /// `events` has every visible event after this one.
    after: Seq,
    bytes: usize,
    limit: usize,
}

fn size(event: &StoredEvent) -> usize {
    event.event.payload.len() + OVERHEAD
}

impl Tail {
    fn push(&mut self, event: Arc<StoredEvent>) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.bytes > self.limit && self.pop() {}
    }

    fn pop(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        self.bytes -= size(&event);
        self.after = event.seq;
        true
    }

    /// Drops what is up to this event.
    fn forget(&mut self, up_to: Seq) {
        while self.events.front().is_some_and(|event| event.seq <= up_to) {
            self.pop();
        }
        self.after = self.after.max(up_to);
    }

    /// Returns what the database would. `None` means that only the database has these events.
    fn read(&self, after: Seq, limit: usize, max_bytes: usize) -> Option<Vec<Arc<StoredEvent>>> {
        if after < self.after {
            return None;
        }
        let start = self.events.partition_point(|event| event.seq <= after);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for event in self.events.range(start..) {
            if events.len() >= limit || bytes >= max_bytes {
                break;
            }
            bytes += event.event.payload.len();
            events.push(Arc::clone(event));
        }
        Some(events)
    }
}

#[derive(Debug)]
struct Inner {
    tail: Tail,
    readers: Vec<Reading>,
}

impl Inner {
    /// Drops what all readers have that keep up. A reader that is behind needs the database first.
    fn trim(&mut self) {
        self.readers.retain(Reading::is_alive);
        let after = self.tail.after;
        let slowest = self.readers.iter().map(Reading::position).filter(|position| *position >= after).min();
        let newest = self.tail.events.back().map_or(after, |event| event.seq);
        self.tail.forget(slowest.unwrap_or(newest).min(newest));
    }
}

/// The newest events and their readers; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Recent(Arc<Mutex<Inner>>);

impl Recent {
    /// Begins after `newest`, and keeps at most `limit` bytes.
    pub(super) fn new(newest: Seq, limit: usize) -> Self {
        let tail = Tail { events: VecDeque::new(), after: newest, bytes: 0, limit };
        Self(Arc::new(Mutex::new(Inner { tail, readers: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker as a reader.
    pub(super) fn follow(&self, follower: &Follower) {
        self.lock().readers.push(follower.reading());
    }

    /// Adds committed events, in order. To be called before their numbers are published.
    pub(super) fn push(&self, events: impl IntoIterator<Item = Arc<StoredEvent>>) {
        let mut inner = self.lock();
        events.into_iter().for_each(|event| inner.tail.push(event));
        inner.trim();
    }

    /// Drops events that are removed from the database. To be called while no worker reads.
    pub(super) fn forget(&self, up_to: Seq) {
        self.lock().tail.forget(up_to);
    }

    /// Returns the events after `after` for a worker, as the database would. `None` means that only the database has them, or
    /// that retention is at work. Never waits for the disk.
    pub(super) fn read(
        &self,
        follower: &Follower,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Option<Vec<Arc<StoredEvent>>> {
        let mut position = follower.try_read()?;
        let mut inner = self.lock();
        let events = inner.tail.read(after, limit, max_bytes)?;
        position.set(events.last().map_or(after, |last| last.seq));
        inner.trim();
        Some(events)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().tail.bytes
    }
}

#[cfg(test)]
#[path = "recent_tests.rs"]
mod tests;
