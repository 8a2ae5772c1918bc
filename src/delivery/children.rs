//! The programs that sinks wait for: whoever reaps orphans has to leave their exit status alone.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::process::{Child, Command};

/// The process ids of programs that a sink waits for; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Children {
    waited: Arc<Mutex<BTreeSet<u32>>>,
}

/// A program that is waited for until this is dropped.
#[derive(Debug)]
pub(super) struct Waited {
    children: Children,
    id: Option<u32>,
}

impl Children {
    /// Starts a program that is waited for.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Waited)> {
        // The lock is held meanwhile: a program may end before its id is noted.
        let mut waited = self.lock();
        let child = command.spawn()?;
        let id = child.id();
        waited.extend(id);
        drop(waited);
        Ok((child, Waited { children: self.clone(), id }))
    }

    /// Calls `work` with the programs that are waited for. None is started or given up meanwhile.
    pub fn with_waited<T>(&self, work: impl FnOnce(&BTreeSet<u32>) -> T) -> T {
        work(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.children.lock().remove(id);
        }
    }
}
