//! The rate limit: a bucket that refills continuously.

use std::time::Instant;

/// The bucket of one application.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: u32,
    per_second: f64,
    level: f64,
    /// The lowest level since [`Self::reset_lowest`].
    lowest: f64,
    as_of: Instant,
}

/// The values of the `Ratelimit-*` headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Seconds until it is full.
    pub(super) full_in: f64,
}

impl Bucket {
    pub(super) fn new(limit: u32, per_minute: u32, now: Instant) -> Self {
        let level = f64::from(limit);
        Self { limit, per_second: f64::from(per_minute) / 60.0, level, lowest: level, as_of: now }
    }

    /// Takes a point; false when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.as_of).as_secs_f64();
        self.as_of = now;
        self.level = (self.level + passed * self.per_second).min(f64::from(self.limit));
        let has = self.level >= 1.0;
        if has {
            self.level -= 1.0;
        }
        self.lowest = self.lowest.min(self.level);
        has
    }

    /// Returns the lowest level since the last call.
    pub(super) fn reset_lowest(&mut self) -> f64 {
        std::mem::replace(&mut self.lowest, self.level)
    }

    /// Empties it, as somebody else with the same client id would.
    pub(super) fn drain(&mut self) {
        self.level = 0.0;
    }

    pub(super) fn level(&self) -> Level {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the limit")]
        let remaining = self.level.max(0.0) as u32;
        let missing = f64::from(self.limit) - self.level;
        Level { limit: self.limit, remaining, full_in: missing / self.per_second.max(0.001) }
    }
}
