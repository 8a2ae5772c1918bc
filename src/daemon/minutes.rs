//! Events per minute over the last hour.
//!
//! The counting is pure: it is given the minute and the total. If the clock goes back, the current minute goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::time::Timestamp;
use crate::store::IntakeCounts;

/// Number of minutes kept.
const KEPT: usize = 60;
/// The least time from one count to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// A ring of counts; the last one is that of the current minute.
#[derive(Debug)]
struct Minutes {
    counts: VecDeque<u64>,
    /// Minutes since the epoch.
    minute: u64,
    total: u64,
}

impl Minutes {
    fn new(minute: u64) -> Self {
        Self { counts: VecDeque::from([0]), minute, total: 0 }
    }

    /// Records the total number of events up to this minute.
    fn observe(&mut self, minute: u64, total: u64) {
        let passed = minute.saturating_sub(self.minute);
        for _ in 0..passed.min(KEPT as u64) {
            self.counts.push_back(0);
            if self.counts.len() > KEPT {
                self.counts.pop_front();
            }
        }
        self.minute = self.minute.max(minute);
        if let Some(last) = self.counts.back_mut() {
            *last += total.saturating_sub(self.total);
        }
        self.total = total;
    }
}

/// The minute since the epoch, and the rest of it.
fn minute() -> (u64, Duration) {
    let now = Timestamp(SystemTime::now()).unix_millis();
    (now / 60_000, Duration::from_millis(60_000 - now % 60_000))
}

/// Publishes the counts until cancelled.
pub(super) async fn count(
    mut counts: watch::Receiver<IntakeCounts>,
    publish: watch::Sender<Arc<[u64]>>,
    cancel: CancellationToken,
) {
    let mut minutes = Minutes::new(minute().0);
    while !cancel.is_cancelled() {
        let stored = counts.borrow_and_update().stored;
        let (minute, rest) = minute();
        minutes.observe(minute, stored);
        publish.send_if_modified(|published| {
            let changed = !published.iter().eq(&minutes.counts);
            if changed {
                *published = minutes.counts.iter().copied().collect();
            }
            changed
        });
        // Events of the same second are counted together.
        let next = async {
            match counts.changed().await {
                Ok(()) => tokio::time::sleep(PERIOD).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(rest) => {}
            () = next => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_the_last_hour_are_kept_per_minute() {
        let mut minutes = Minutes::new(100);
        minutes.observe(100, 3);
        minutes.observe(100, 5);
        minutes.observe(102, 6);
        assert_eq!(minutes.counts, [5, 0, 1]);
        minutes.observe(99, 8);
        assert_eq!(minutes.counts, [5, 0, 3], "the clock went back");
        minutes.observe(103, 8);
        assert_eq!(minutes.counts, [5, 0, 3, 0]);
        minutes.observe(159, 9);
        assert_eq!((minutes.counts.len(), minutes.counts[0], minutes.counts[59]), (60, 5, 1));
        minutes.observe(160, 9);
        assert_eq!((minutes.counts[0], minutes.counts[1]), (0, 3));
        minutes.observe(u64::MAX, 10);
        assert_eq!(minutes.counts.iter().sum::<u64>(), 1, "long ago is forgotten");
        assert_eq!(minutes.counts.len(), KEPT);
    }
}
