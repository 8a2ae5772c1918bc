//! The rate limit: a bucket that refills continuously.

use std::collections::HashMap;
use std::time::Instant;

/// The buckets of all applications: one for app access tokens, one for each user.
#[derive(Debug)]
pub(super) struct Buckets {
    limit: u32,
    per_minute: u32,
    buckets: HashMap<(String, Option<String>), Bucket>,
}

impl Buckets {
    pub(super) fn new(limit: u32, per_minute: u32) -> Self {
        Self { limit, per_minute, buckets: HashMap::new() }
    }

    /// Changes the rate limit, which is full again.
    pub(super) fn reset(&mut self, limit: u32, per_minute: u32) {
        *self = Self::new(limit, per_minute);
    }

    /// The fewest points that the application's bucket has had since the last call.
    pub(super) fn reset_lowest(&mut self, client_id: &str) -> f64 {
        let bucket = self.buckets.get_mut(&(client_id.to_owned(), None));
        bucket.map_or(f64::INFINITY, |bucket| std::mem::replace(&mut bucket.lowest, bucket.level))
    }

    pub(super) fn of(&mut self, client_id: &str, user_id: Option<&str>, now: Instant) -> &mut Bucket {
        let key = (client_id.to_owned(), user_id.map(str::to_owned));
        let (limit, per_minute) = (self.limit, self.per_minute);
        self.buckets.entry(key).or_insert_with(|| Bucket::new(limit, per_minute, now))
    }
}

/// The bucket of one application.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: u32,
    per_second: f64,
    level: f64,
    /// The lowest level since [`Buckets::reset_lowest`].
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
    fn new(limit: u32, per_minute: u32, now: Instant) -> Self {
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
