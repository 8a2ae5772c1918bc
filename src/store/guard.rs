//! The lock on the state directory, and the notice of a thread that has ended.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use tokio::sync::watch;

use super::error::StoreError;

/// Locks the state directory for this process.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StoreError::io(folder))?;
    let path = folder.join("eventsubd.lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: folder.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(StoreError::io(&path)(error)),
    }
}

/// Publishes the end of a thread, unless it was expected.
pub(super) struct DeathNotice {
    why: StoreError,
    died: Option<watch::Sender<Option<StoreError>>>,
}

impl DeathNotice {
    pub(super) fn new(name: &'static str, died: watch::Sender<Option<StoreError>>) -> Self {
        Self { why: StoreError::Died(name), died: Some(died) }
    }

    pub(super) fn expected(mut self) {
        self.died = None;
    }

    /// Ends with another reason.
    pub(super) fn because(mut self, why: StoreError) {
        self.why = why;
    }
}

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if let Some(died) = &self.died {
            died.send_replace(Some(self.why.clone()));
        }
    }
}
