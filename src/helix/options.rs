//! Settings of the client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the client.
#[derive(Clone, Debug)]
pub struct HelixOptions {
    /// `https://api.twitch.tv/helix`, without a slash at the end.
    pub api_url: String,
    /// Requests in flight that are always allowed: 10.
    pub in_flight: usize,
    /// Requests in flight at most, if the bucket refills so fast: 64. Bursts of more than a hundred have been
    /// answered 400.
    pub most_in_flight: usize,
    /// Points of the rate limit kept for shards and deletes: 20.
    pub reserve: u32,
    /// Longest wait for one answer, its body included: 15 s.
    pub timeout: Duration,
    /// Time in which an empty rate limit bucket is full again: 60 s ("Twitch API Concepts").
    pub refill_window: Duration,
    /// Looked at right before each request; `None` means that all may be sent.
    pub may_send: Option<MaySend>,
}

/// Whether this process may send requests now.
#[derive(Clone)]
pub struct MaySend(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for MaySend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaySend")
    }
}

impl HelixOptions {
    /// The defaults for an API at this URL.
    pub fn new(api_url: impl Into<String>) -> Self {
        Self {
            api_url: api_url.into(),
            in_flight: 10,
            most_in_flight: 64,
            reserve: 20,
            timeout: Duration::from_secs(15),
            refill_window: Duration::from_secs(60),
            may_send: None,
        }
    }
}
