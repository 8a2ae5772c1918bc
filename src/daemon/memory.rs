//! Memory of the reconciler, stored in the store's settings.

use futures_util::future::BoxFuture;

use crate::reconcile::{Memory, MemoryError};
use crate::store::{Reader, Store, StoreError};

#[derive(Clone, Debug)]
pub(super) struct StoreMemory(pub(super) Store);

impl Memory for StoreMemory {
    fn load(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, String)>, MemoryError>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { self.0.settings(&prefix).await.map_err(failed) })
    }

    fn save(&self, changes: Vec<(String, Option<String>)>) -> BoxFuture<'_, Result<(), MemoryError>> {
        Box::pin(async move { self.0.set_settings(changes).await.map_err(failed) })
    }
}

/// Names, or how they begin, of what is remembered of Twitch beyond users.
const OF_TWITCH: [&str; 7] = [
    "callback_urls:",
    "cluster.assigned",
    "compared:",
    "conduit_id:",
    "conduit_intent:",
    "deletes_held:",
    "gaps.",
];

/// Names, or how they begin, of what the hosts of a cluster share.
#[cfg(feature = "nats")]
pub(super) const OF_HOSTS: [&str; 7] = [
    "callback_urls:",
    "compared:",
    "conduit_id:",
    "conduit_intent:",
    "deletes_held:",
    "gaps.memory",
    "login:",
];

/// Forgets conduit, URLs and gaps: the sandbox inside starts empty each time, and nothing happens in it while it
/// does not run.
pub(super) async fn forget_twitch(store: &Store) -> Result<(), StoreError> {
    let known = store.settings("").await?.into_iter().map(|(name, _)| name);
    let of_twitch = known.filter(|name| OF_TWITCH.iter().any(|prefix| name.starts_with(prefix)));
    store.set_settings(of_twitch.map(|name| (name, None)).collect()).await?;
    store.forget_channels(None).await
}

fn failed(error: StoreError) -> MemoryError {
    MemoryError::Local(Box::new(error))
}

/// A copy of the memory for another process; changes to it are lost.
#[derive(Clone, Debug, Default)]
pub struct ReadOnlyMemory(Vec<(String, String)>);

impl ReadOnlyMemory {
    /// Reads the memory from a store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(reader: &Reader) -> Result<Self, StoreError> {
        reader.settings("").map(Self)
    }
}

impl Memory for ReadOnlyMemory {
    fn load(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, String)>, MemoryError>> {
        let found = self.0.iter().filter(|(name, _)| name.starts_with(prefix)).cloned().collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn save(&self, _changes: Vec<(String, Option<String>)>) -> BoxFuture<'_, Result<(), MemoryError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
