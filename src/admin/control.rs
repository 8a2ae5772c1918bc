//! Operations of the daemon that the control socket offers, and their outcomes as JSON.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::filter::SinkFilter;
use crate::model::cluster::LeaderRequest;
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;
use crate::model::status::{ConfigStatus, Status};
use crate::model::subscription::SubscriptionKey;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, DeadLetterFilter, LetterPage};

/// Operations of the daemon that the socket offers.
pub trait Control: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// Returns the names of the parts that hang and that only a restart can repair.
    fn hanging(&self) -> Vec<&'static str>;
    /// Reads the file again and applies it, whole or not at all.
    fn reload(&self) -> ControlFuture<'_, Result<ReloadAccepted, ReloadRefused>>;
    /// Creates a new webhook secret; the old one is accepted until every subscription has moved.
    fn rotate_secret(&self) -> ControlFuture<'_, Result<SecretRotated, Refused>>;
    /// Returns the active configuration and its source.
    fn config(&self) -> ConfigStatus;
    /// Requests a reconcile run; `allow_deletes` lets that one run delete more than `reconcile.max_delete`.
    fn apply(&self, allow_deletes: bool) -> Applied;
    /// Asks the leader of the cluster; returns its answer, which is JSON.
    fn ask_leader(&self, request: LeaderRequest) -> ControlFuture<'_, Result<String, Refused>>;
    /// Forgets what this user has granted, and reads it again.
    fn grants_changed(&self, user_id: &str);
    /// Returns the active filter of log lines.
    ///
    /// # Errors
    /// There is no log.
    fn log_filter(&self) -> Result<LogFilter, Refused>;
    /// Changes the filter of log lines until the next reload or restart.
    ///
    /// # Errors
    /// The filter is not valid, or there is no log.
    fn set_log_filter(&self, filter: &str) -> Result<LogFilter, Refused>;
    /// Returns what decides whether a sink gets an event; `None` if there is no such sink.
    fn sink_filter(&self, sink: &SinkName) -> Option<SinkFilter>;
    /// Returns what names the sinks that get the events of a subscription.
    fn sinks_of(&self) -> SinksOf;
    /// Returns whether the configuration lists a subscription type that matches.
    fn lists_type(&self, like: &dyn Fn(&str) -> bool) -> bool;
    /// Delivers the events stored since then to a sink again.
    fn replay(&self, sink: SinkName, since: Since) -> ControlFuture<'_, Result<Count, Refused>>;
    /// Sends a part of the stored events to a sink again, without a change of its place.
    fn replay_part(
        &self,
        sink: SinkName,
        since: Since,
        until: Option<Timestamp>,
        types: Option<String>,
    ) -> ControlFuture<'_, Result<Count, Refused>>;
    /// Makes a sink retry now.
    fn retry_sink(&self, sink: SinkName) -> ControlFuture<'_, Result<Retried, Refused>>;
    /// Moves the event that blocks a sink to its dead letters.
    fn skip_event(&self, sink: SinkName) -> ControlFuture<'_, Result<SkippedEvent, Refused>>;
    /// Delivers dead letters again.
    fn resend(&self, filter: DeadLetterFilter) -> ControlFuture<'_, Result<Count, Refused>>;
    fn drop_dead_letters(&self, filter: DeadLetterFilter) -> ControlFuture<'_, Result<Count, Refused>>;
    /// Returns a page of the dead letters that the hosts of a cluster share, oldest first; `None` without a cluster.
    fn shared_letters(
        &self,
        filter: DeadLetterFilter,
        after: i64,
        limit: usize,
    ) -> ControlFuture<'_, Result<Option<LetterPage>, Refused>>;
    /// Returns the newest dead letters of a sink with numbers below `before`, newest first.
    fn newest_letters(
        &self,
        sink: SinkName,
        before: i64,
        limit: usize,
    ) -> ControlFuture<'_, Result<Vec<DeadLetter>, Refused>>;
}

/// Names the sinks that get the events of a subscription.
pub type SinksOf = Box<dyn Fn(&SubscriptionKey) -> Vec<SinkName> + Send + Sync>;

/// The future of an operation.
pub type ControlFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Number of events or dead letters affected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub count: u64,
    /// Remark about what is still to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The sink retries now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {}

/// The event that was moved to the dead letters of its sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedEvent {
    /// Number of the event in the store.
    pub seq: Seq,
    #[serde(rename = "type")]
    pub subscription_type: String,
}

/// A requested run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The run has ended once `reconcile.answered` of the status has reached this number.
    pub ticket: u64,
    /// Process id of the daemon. Another process does not know the ticket.
    pub pid: u32,
}

/// The active filter of log lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    pub filter: String,
}

/// A refused operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Reason, as a sentence.
    pub error: String,
}

/// A new webhook secret is active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRotated {
    /// Fingerprint of the secret.
    pub key: String,
    /// Number of secrets that are accepted now, this one included.
    pub accepted: u64,
}

/// An accepted reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAccepted {
    /// Number of the new configuration.
    pub generation: u64,
    /// Differences, one per line; empty if there are none.
    pub changes: Vec<String>,
    /// Warnings, as `check` prints them.
    pub warnings: Vec<String>,
}

/// A refused reload; the old configuration stays active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// All problems, as `check` prints them.
    pub errors: Vec<String>,
}
