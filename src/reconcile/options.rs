//! Settings of the reconciler.

use std::time::Duration;

use tokio::sync::watch;

use super::decide::park::RetryTimes;
use crate::model::backoff::Backoff;
use crate::model::cluster::Leadership;
use crate::model::invocation::Invocation;

/// Settings; tests shorten the times.
#[derive(Clone, Debug)]
pub struct ReconcileOptions {
    /// The client id whose conduit is remembered.
    pub client_id: String,
    /// Least and greatest pause between two looks at Twitch's list of shards: 60 to 120 s.
    pub shard_poll: (Duration, Duration),
    /// Time after its welcome in which a session may be bound (Twitch: "Handling WebSocket Events", 4003): 10 s.
    pub bind_window: Duration,
    /// Pause between attempts to bind within that time: 1 s. Later ones take five times as long.
    pub bind_retry: Duration,
    /// Time that new subscriptions wait for the shards to be bound at the start: 15 s.
    pub bind_wait: Duration,
    /// Time that all shards may be unbound before that is a warning: 60 s.
    pub unbound_warning: Duration,
    /// Pauses between tries of what is parked.
    pub retry: RetryTimes,
    /// First and longest pause after a run that failed: 1 s and 60 s.
    pub backoff: Backoff,
    /// Age at which the id of a login is confirmed again: 24 h.
    pub login_refresh: Duration,
    /// Pause between two such looks, of 100 logins each: 10 s.
    pub login_refresh_pause: Duration,
    /// Time that Twitch may take with the challenge of a new webhook: 2 min.
    pub challenge: Duration,
    /// Lifetime of a proof that the callback can be reached: 60 s.
    pub reach_life: Duration,
    /// Least pause between two publications of the status during a run: 500 ms.
    pub publish_pause: Duration,
    /// Creates and deletes handed to the API client at a time, at least: 16. The client bounds the requests itself.
    pub concurrency: usize,
    /// Pages of a list that is read whole by every run: 2. Longer lists are remembered between two comparisons.
    pub small_list: usize,
    /// Time that a stopped run waits for the requests in hand: 3 s.
    pub drain: Duration,
    /// How the log tells people to run commands.
    pub invocation: Invocation,
    /// Whether this host leads its cluster. `None` means that there are no other hosts.
    pub leadership: Option<watch::Receiver<Leadership>>,
}

impl ReconcileOptions {
    /// The defaults for this client.
    pub fn new(client_id: impl Into<String>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            client_id: client_id.into(),
            shard_poll: (seconds(60), seconds(120)),
            bind_window: seconds(10),
            bind_retry: seconds(1),
            bind_wait: seconds(15),
            unbound_warning: seconds(60),
            retry: RetryTimes::default(),
            backoff: Backoff::new(seconds(1), seconds(60)),
            login_refresh: seconds(24 * 3600),
            login_refresh_pause: seconds(10),
            challenge: seconds(120),
            reach_life: seconds(60),
            publish_pause: Duration::from_millis(500),
            concurrency: 16,
            small_list: 2,
            drain: seconds(3),
            invocation: Invocation::default(),
            leadership: None,
        }
    }
}
