//! The newest events of the shared log, for workers that keep up. ◆

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::place::Mark;
use crate::model::event::{Seq, StoredEvent};

/// Bytes that an event takes besides its payload, about.
const OVERHEAD: usize = 400;

/// An event with the time at which the log got it, in milliseconds since 1970 by the servers' clock.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) event: Arc<StoredEvent>,
    pub(super) published: u64,
}

impl Entry {
    fn size(&self) -> usize {
        self.event.event.payload.len() + OVERHEAD
    }

    pub(super) fn mark(&self) -> Mark {
        let message_id = self.event.event.message_id.to_string();
        Mark { seq: self.event.seq, message_id, published: self.published }
    }
}

/// The newest events, without a gap but for messages that are none.
#[derive(Debug)]
pub(super) struct Ring {
    /// Sorted by number, ascending.
    entries: VecDeque<Entry>,
    /// `entries` has every event after this one.
    after: Seq,
    bytes: usize,
    limit: usize,
}

impl Ring {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), after: Seq(u64::MAX), bytes: 0, limit }
    }

    /// Begins anew after this number.
    pub(super) fn reset(&mut self, after: Seq) {
        (self.after, self.bytes) = (after, 0);
        self.entries.clear();
    }

    /// Adds the next event.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.size();
        self.entries.push_back(entry);
        while self.bytes > self.limit
            && let Some(first) = self.entries.pop_front()
        {
            self.bytes -= first.size();
            self.after = first.event.seq;
        }
    }

    /// Returns the events after `after` with a mark at the last. `None` means that only the log has them.
    pub(super) fn read(
        &self,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Option<(Vec<Arc<StoredEvent>>, Option<Mark>)> {
        if after < self.after {
            return None;
        }
        let start = self.entries.partition_point(|entry| entry.event.seq <= after);
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, None);
        for entry in self.entries.range(start..) {
            if events.len() >= limit || bytes >= max_bytes {
                break;
            }
            bytes += entry.event.event.payload.len();
            events.push(Arc::clone(&entry.event));
            last = Some(entry);
        }
        Some((events, last.map(Entry::mark)))
    }

    /// Marks at all events, the newest first.
    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.entries.iter().rev().map(Entry::mark)
    }

    /// The newest event.
    pub(super) fn newest(&self) -> Option<Mark> {
        self.entries.back().map(Entry::mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::event::{Event, MessageId};
    use crate::model::time::Timestamp;

    fn entry(seq: u64, size: usize) -> Entry {
        let event = Event {
            message_id: MessageId::new(&format!("m-{seq}")).unwrap(),
            message_timestamp: "t".into(),
            subscription_type: "stream.online".into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: vec![b'x'; size].into(),
        };
        let stored_at = Timestamp::from_unix_millis(seq);
        Entry { event: Arc::new(StoredEvent { seq: Seq(seq), stored_at, event }), published: seq }
    }

    proptest! {
        /// For any sizes and gaps, a read gives all events after a number up to a limit, or says that it cannot.
        #[test]
        fn a_read_is_complete_or_refused(
            steps in prop::collection::vec((1_u64..4, 0_usize..600), 1..60),
            limit in 1_000_usize..9_000,
            after in 0_u64..150,
            most in 1_usize..9,
        ) {
            let mut ring = Ring::new(limit);
            prop_assert!(ring.read(Seq(after), most, 1 << 20).is_none(), "nothing is known yet");
            ring.reset(Seq(0));
            let (mut all, mut seq) = (Vec::new(), 0);
            for (step, size) in steps {
                seq += step;
                all.push(seq);
                ring.push(entry(seq, size));
                prop_assert!(ring.bytes <= limit.max(1_000));
            }
            let expected: Vec<u64> = all.iter().copied().filter(|seq| *seq > after).take(most).collect();
            match ring.read(Seq(after), most, 1 << 20) {
                Some((events, mark)) => {
                    let found: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
                    prop_assert_eq!(mark.map(|mark| mark.seq.0), found.last().copied());
                    prop_assert_eq!(found, expected);
                }
                None => prop_assert!(after < ring.after.0),
            }
            prop_assert_eq!(ring.newest().map(|mark| mark.seq), ring.marks().next().map(|mark| mark.seq));
        }
    }
}
