//! Decides when to log what retention has removed. ◆
//!
//! A full store removes a few events with every commit, for months. So removals are summed up once an hour; losses of a
//! sink are logged at once, then at most once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time between two summaries.
const SUMMARY: Duration = Duration::from_secs(3_600);
/// A removal that takes longer is logged before it is over.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two lines about the losses of a sink.
const LOSSES: Duration = Duration::from_secs(60);

/// Events removed since the last summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Events that were older than `store.retain`.
    pub(super) by_age: u64,
    /// Events that were too many for `store.max_size`.
    pub(super) by_size: u64,
    /// Time at which the newest of them was stored, in milliseconds since the Unix epoch.
    pub(super) until: u64,
}

/// Removals that are not logged yet.
#[derive(Debug, Default)]
pub(super) struct Removals {
    summary: Summary,
    /// Time of the first removal since the last summary.
    begun: Option<Instant>,
    logged_at: Option<Instant>,
    losses: HashMap<String, Losses>,
}

#[derive(Debug, Default)]
struct Losses {
    events: u64,
    logged_at: Option<Instant>,
}

impl Removals {
    /// Adds the result of one slice.
    pub(super) fn add(&mut self, removed: Summary, now: Instant) {
        self.summary.by_age += removed.by_age;
        self.summary.by_size += removed.by_size;
        self.summary.until = self.summary.until.max(removed.until);
        if removed.by_age + removed.by_size > 0 {
            self.begun.get_or_insert(now);
        }
    }

    /// Returns the summary if it is due. `more` says that retention has not finished.
    pub(super) fn due(&mut self, more: bool, now: Instant) -> Option<Summary> {
        let begun = self.begun?;
        let since = |then: Instant| now.saturating_duration_since(then);
        let waits = self.logged_at.is_some_and(|at| since(at) < SUMMARY);
        if waits || (more && since(begun) < PATIENCE) {
            return None;
        }
        self.logged_at = Some(now);
        self.rest()
    }

    /// Returns the summary of everything that is not logged yet.
    pub(super) fn rest(&mut self) -> Option<Summary> {
        self.begun.take().map(|_| std::mem::take(&mut self.summary))
    }

    /// Adds events that a sink has lost. Returns the number to log if a line is due.
    pub(super) fn lost(&mut self, sink: &str, events: u64, now: Instant) -> Option<u64> {
        let losses = self.losses.entry(sink.to_owned()).or_default();
        losses.events += events;
        if losses.logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOSSES) {
            return None;
        }
        losses.logged_at = Some(now);
        Some(std::mem::take(&mut losses.events))
    }

    /// Returns the sinks whose losses are due to be logged, with the number of events.
    pub(super) fn due_losses(&mut self, now: Instant) -> Vec<(String, u64)> {
        let due = |losses: &Losses| {
            losses.events > 0 && losses.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOSSES)
        };
        let logged = self.losses.iter_mut().filter(|(_, losses)| due(losses)).map(|(sink, losses)| {
            losses.logged_at = Some(now);
            (sink.clone(), std::mem::take(&mut losses.events))
        });
        logged.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(by_age: u64, by_size: u64, until: u64) -> Summary {
        Summary { by_age, by_size, until }
    }

    #[test]
    fn removals_are_logged_when_they_are_over_and_then_once_an_hour() {
        let (mut removals, start) = (Removals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(removals.due(false, start), None);
        removals.add(removed(0, 0, 0), at(0));
        assert_eq!(removals.due(false, at(0)), None, "nothing was removed");
        removals.add(removed(3, 0, 10), at(1));
        assert_eq!(removals.due(true, at(1)), None, "more is to come");
        removals.add(removed(0, 4, 20), at(2));
        assert_eq!(removals.due(false, at(2)), Some(removed(3, 4, 20)), "the first at once");
        let mut logged = Vec::new();
        for second in 3..9_000 {
            removals.add(removed(1, 0, second), at(second));
            logged.extend(removals.due(second % 2 == 0, at(second)));
        }
        assert_eq!(logged, [removed(3_600, 0, 3_602), removed(3_600, 0, 7_202)]);
        assert_eq!(removals.rest(), Some(removed(1_797, 0, 8_999)));
        assert_eq!(removals.rest(), None);
        // One that does not end is logged as well.
        let mut removals = Removals::default();
        removals.add(removed(0, 1, 1), at(0));
        assert_eq!(removals.due(true, at(9)), None);
        assert_eq!(removals.due(true, at(10)), Some(removed(0, 1, 1)));
    }

    #[test]
    fn losses_are_logged_at_once_and_then_once_a_minute_for_each_sink() {
        let (mut removals, start) = (Removals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(removals.lost("a", 5, at(0)), Some(5));
        assert_eq!(removals.lost("b", 7, at(1)), Some(7));
        assert_eq!(removals.lost("a", 2, at(2)), None);
        assert_eq!(removals.lost("a", 3, at(59)), None);
        assert_eq!(removals.due_losses(at(59)), []);
        assert_eq!(removals.due_losses(at(60)), [("a".to_owned(), 5)]);
        assert_eq!(removals.due_losses(at(600)), []);
        assert_eq!(removals.lost("a", 1, at(600)), Some(1));
    }
}
