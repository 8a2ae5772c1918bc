//! A limit on how often the same line is logged. ◆
//!
//! Every line that a client or a server can trigger at will is logged through a [`LogLimit`]: the first line of a
//! kind at once, then one per period with the number of lines left out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Counts the lines of each kind. Kinds are `'static` names from the code, which bounds their number.
#[derive(Debug)]
pub struct LogLimit {
    every: Duration,
    kinds: Mutex<BTreeMap<&'static str, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    until: Instant,
    left_out: u64,
}

impl Default for LogLimit {
    /// Permits one line of each kind per minute.
    fn default() -> Self {
        Self::new(MINUTE)
    }
}

impl LogLimit {
    pub const fn new(every: Duration) -> Self {
        Self { every, kinds: Mutex::new(BTreeMap::new()) }
    }

    /// Returns `Some` if a line of this kind may be logged now, with the number of lines left out since the last one.
    pub fn permit(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = match kinds.get_mut(kind) {
            Some(window) if now < window.until => {
                window.left_out = window.left_out.saturating_add(1);
                return None;
            }
            Some(window) => window.left_out,
            None => 0,
        };
        kinds.insert(kind, Window { until: now + self.every, left_out: 0 });
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_kind_and_minute_with_the_count_of_the_others() {
        let limit = LogLimit::default();
        let start = Instant::now();
        assert_eq!(limit.permit("frame", start), Some(0), "the first at once");
        for _ in 0..1_000 {
            assert_eq!(limit.permit("frame", start + Duration::from_secs(59)), None);
        }
        assert_eq!(limit.permit("ping", start), Some(0), "kinds do not wait for each other");
        assert_eq!(limit.permit("frame", start + MINUTE), Some(1_000));
        assert_eq!(limit.permit("frame", start + MINUTE), None);
        assert_eq!(limit.permit("frame", start + 2 * MINUTE), Some(1), "each line is counted once");
    }
}
