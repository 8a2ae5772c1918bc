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

fn failed(error: StoreError) -> MemoryError {
    MemoryError(Box::new(error))
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
