//! Durable values of the reconciler, by name: the conduit, the ids of logins, a hold on deletes. The daemon keeps
//! them in the store's settings.
//!
//! Nothing in here decides; a value that cannot be read counts as not remembered.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

/// A small durable table of names and values. Names and values are short texts without secrets.
pub trait Memory: Send + Sync + 'static {
    /// All pairs whose name begins with `prefix`.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn load(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, String)>, MemoryError>>;

    /// Sets values, and removes the names that have none, all or nothing; durable once it returns.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn save(&self, changes: Vec<(String, Option<String>)>) -> BoxFuture<'_, Result<(), MemoryError>>;
}

/// A memory for commands that have none.
impl Memory for () {
    fn load(&self, _prefix: &str) -> BoxFuture<'_, Result<Vec<(String, String)>, MemoryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn save(&self, _changes: Vec<(String, Option<String>)>) -> BoxFuture<'_, Result<(), MemoryError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A shared [`Memory`].
#[derive(Clone)]
pub(super) struct MemoryHandle {
    memory: Arc<dyn Memory>,
    is_read_only: bool,
}

impl MemoryHandle {
    pub(super) fn new(memory: Arc<dyn Memory>) -> Self {
        Self { memory, is_read_only: false }
    }

    /// A handle that saves nothing, for looking at what a run would do.
    pub(super) fn read_only(memory: Arc<dyn Memory>) -> Self {
        Self { memory, is_read_only: true }
    }

    /// See [`Memory::load`].
    pub(super) async fn load(&self, prefix: &str) -> Result<Vec<(String, String)>, MemoryError> {
        self.memory.load(prefix).await
    }

    /// The value of one name.
    pub(super) async fn load_one(&self, name: &str) -> Result<Option<String>, MemoryError> {
        let pairs = self.load(name).await?;
        Ok(pairs.into_iter().find(|(found, _)| found == name).map(|(_, value)| value))
    }

    /// See [`Memory::save`].
    pub(super) async fn save(&self, changes: Vec<(String, Option<String>)>) -> Result<(), MemoryError> {
        if self.is_read_only || changes.is_empty() { Ok(()) } else { self.memory.save(changes).await }
    }
}

impl std::fmt::Debug for MemoryHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryHandle").field("is_read_only", &self.is_read_only).finish_non_exhaustive()
    }
}

/// The state could not be read or written. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The state directory of this host.
    #[error("the remembered state cannot be read or written; check the state directory and its disk")]
    Local(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The values that the hosts of a cluster share; the source says what to do.
    #[error("what the hosts of the cluster share cannot be written")]
    Shared(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The prefix of all remembered logins.
pub(super) const LOGIN_PREFIX: &str = "login:";

/// Name of the id of the conduit that was made for this client.
pub(super) fn conduit_name(client_id: &str) -> String {
    format!("conduit_id:{client_id}")
}

/// Name of the [`Intent`] to make a conduit.
pub(super) fn intent_name(client_id: &str) -> String {
    format!("conduit_intent:{client_id}")
}

/// Name of the hold on deletes.
pub(super) fn hold_name(client_id: &str) -> String {
    format!("deletes_held:{client_id}")
}

/// Name of the last complete run.
pub(super) fn compared_name(client_id: &str) -> String {
    format!("compared:{client_id}")
}

/// Name of the public URLs that subscriptions were made with, as a JSON list.
pub(super) fn urls_name(client_id: &str) -> String {
    format!("callback_urls:{client_id}")
}

/// The URLs as they are remembered.
pub(super) fn urls_value(urls: &BTreeSet<Arc<str>>) -> String {
    serde_json::to_string(urls).expect("texts always make JSON")
}

/// The remembered URLs; none when there are none, or they cannot be read.
pub(super) fn parse_urls(value: Option<&str>) -> BTreeSet<Arc<str>> {
    value.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Name of a login's id.
pub(super) fn login_name(login: &str) -> String {
    format!("{LOGIN_PREFIX}{login}")
}

/// The id of a login as it is remembered: `ID MILLISECONDS`.
pub(super) fn login_value(id: &str, looked_up: Timestamp) -> String {
    format!("{id} {}", looked_up.unix_millis())
}

/// The id, and when it was looked up.
pub(super) fn parse_login(value: &str) -> Option<(&str, Timestamp)> {
    let (id, millis) = value.split_once(' ')?;
    let millis = millis.parse().ok().filter(|millis| *millis < 1 << 48)?;
    (!id.is_empty()).then(|| (id, Timestamp::from_unix_millis(millis)))
}

/// Written before a conduit is made, removed once its id is remembered: a conduit whose id was lost
/// with a crash or an answer is found again instead of being left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// When it was written.
    pub(super) at: Timestamp,
    /// The conduits that there were before.
    pub(super) before: Vec<String>,
}

impl Intent {
    pub(super) fn to_value(&self) -> String {
        serde_json::to_string(self).expect("texts and a time always serialise")
    }

    pub(super) fn parse(value: &str) -> Option<Self> {
        serde_json::from_str(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_damaged_ones_are_forgotten() {
        let at = Timestamp::from_unix_millis(1_700_000_000_123);
        assert_eq!(parse_login(&login_value("41001", at)), Some(("41001", at)));
        for damaged in ["", "41001", " 5", "41001 x", "41001 99999999999999999"] {
            assert_eq!(parse_login(damaged), None, "{damaged:?}");
        }
        let intent = Intent { at, before: vec!["a".into()] };
        assert_eq!(Intent::parse(&intent.to_value()), Some(intent));
        assert_eq!(Intent::parse("{"), None);
    }
}
