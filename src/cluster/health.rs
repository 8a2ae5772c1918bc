//! Whether the NATS server that this host is connected to answers, or another one should be tried. ◆
//!
//! A server that is cut off from the others keeps its connections, and answers no request for a stream that the others lead.

use std::time::Duration;

use super::lease::Moment;

/// Time without an answer after which another server is tried: servers take up to nine seconds to choose a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same after many attempts in vain; it doubles with each.
const LONGEST: Duration = Duration::from_secs(120);
/// Least number of requests that were not answered.
const FAILURES: u32 = 3;

/// Answers over one connection, which may come back with another server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    /// Number of the connection that the failures are of.
    connection: u64,
    failing_since: Option<Moment>,
    failures: u32,
    patience: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { connection: 0, failing_since: None, failures: 0, patience: PATIENCE }
    }
}

impl Health {
    pub(super) fn handle_answer(&mut self) {
        *self = Self::default();
    }

    /// Takes a request that was not answered over this connection; returns whether another server should be tried now.
    pub(super) fn handle_failure(&mut self, connection: u64, now: Moment) -> bool {
        if self.connection != connection {
            (self.connection, self.failing_since, self.failures) = (connection, None, 0);
        }
        let since = *self.failing_since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        let is_due = self.failures >= FAILURES && now.saturating_sub(since) >= self.patience;
        if is_due {
            (self.failing_since, self.failures) = (None, 0);
            self.patience = (self.patience * 2).min(LONGEST);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn another_server_is_tried_after_failures_that_last_and_later_each_time() {
        let mut health = Health::default();
        let mut tried = Vec::new();
        for second in 0..400 {
            if health.handle_failure(1, SECOND * second) {
                tried.push(second);
            }
        }
        assert_eq!(tried, [10, 31, 72, 153, 274, 395]);
        health.handle_answer();
        let mut later = (400..500).map(|second| health.handle_failure(1, SECOND * second));
        assert_eq!(later.position(|is_due| is_due), Some(10), "an answer makes it patient again");
    }

    #[test]
    fn a_new_connection_gets_its_time() {
        let mut health = Health::default();
        assert!((0..10).all(|second| !health.handle_failure(1, SECOND * second)));
        assert!((10..20).all(|second| !health.handle_failure(2, SECOND * second)));
        assert!(health.handle_failure(2, SECOND * 20));
    }

    proptest! {
        #[test]
        fn few_failures_or_answered_ones_have_no_other_server_tried(
            steps in prop::collection::vec((0_u64..30, any::<bool>()), 1..50),
        ) {
            let (mut health, mut now, mut failures) = (Health::default(), SECOND, 0);
            let mut answered_at = now;
            for (pause, is_answered) in steps {
                now += SECOND * u32::try_from(pause).unwrap_or(0);
                if is_answered {
                    health.handle_answer();
                    (failures, answered_at) = (0, now);
                } else {
                    failures += 1;
                    let is_due = health.handle_failure(1, now);
                    prop_assert!(!is_due || (failures >= FAILURES && now - answered_at >= PATIENCE));
                }
            }
        }
    }
}
