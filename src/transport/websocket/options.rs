//! Settings of the pool.

use std::time::Duration;

use http::Uri;

use super::session::Timings;
use crate::auth::Outward;

/// Settings of the pool.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// `wss://eventsub.wss.twitch.tv/ws`.
    pub url: String,
    /// The keepalive timeout that is asked for, 10 to 600 s.
    pub keepalive: Duration,
    pub outward: Outward,
    /// Time limits.
    pub timings: Timings,
}

impl PoolOptions {
    /// With the ordinary time limits.
    pub fn new(url: impl Into<String>, keepalive: Duration, outward: Outward) -> Self {
        Self { url: url.into(), keepalive, outward, timings: Timings::default() }
    }

    /// The address with its query.
    pub(super) fn uri(&self) -> Option<Uri> {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}keepalive_timeout_seconds={}", self.url, self.keepalive.as_secs()).parse().ok()
    }
}
