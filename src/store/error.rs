//! Errors of the event store, and what to do about each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

/// The event store cannot do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has the state directory.
    #[error("another daemon uses {}; stop it, or give this one another --state-dir", path.display())]
    Locked { path: PathBuf },
    /// The file is damaged. It is never overwritten.
    #[error(
        "the event store {} is damaged; it was left as it is: restore it from a backup, or move it (with its -wal and \
         -shm files) away to start with an empty one",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A database of another program.
    #[error("{} is not an event store of eventsubd; it was left as it is: choose another --state-dir", path.display())]
    Foreign { path: PathBuf },
    /// Written by a newer release.
    #[error(
        "the event store {} has format {found}, this release knows up to {known}: run the newer eventsubd again",
        path.display()
    )]
    Newer {
        path: PathBuf,
        /// Format of the file.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// There is no database.
    #[error("there is no event store at {}; has the daemon run with this --config and --state-dir?", path.display())]
    Missing { path: PathBuf },
    /// The database belongs to another user.
    #[error("no permission to read {}", path.display())]
    Denied {
        /// The file, or its directory.
        path: PathBuf,
    },
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("the event store failed to {action}")]
    Sql {
        /// The action that failed, as an infinitive.
        action: &'static str,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Nothing can be stored at present.
    #[error("{0}")]
    Failing(Arc<str>),
    /// More waits to be stored than there is room for.
    #[error("the event store is behind: its queue is full")]
    Full,
    /// The store was closed.
    #[error("the event store is closed")]
    Closed,
    /// The database was removed or replaced while it was open.
    #[error(
        "{} was removed or replaced while the daemon ran; what it held is lost unless it is put back before the next start",
        path.display()
    )]
    Gone { path: PathBuf },
    /// A thread of the store ended by itself.
    #[error("the {0} thread of the event store ended by itself")]
    Died(&'static str),
}

impl StoreError {
    pub(super) fn sql(action: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Sql { action, source: Arc::new(source) }
    }

    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source: Arc::new(source) }
    }
}

/// In one sentence, why the database cannot be written and what to do.
pub(super) fn problem(path: &Path, error: &rusqlite::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            format!("no space left for {}: free some in {folder}, or lower store.max_size", path.display())
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!(
            "{} is damaged: stop the daemon, then restore the file from a backup or move it (with its -wal and -shm \
             files) away",
            path.display()
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            format!("{} cannot be written ({error}): check the owner and mode of {folder}", path.display())
        }
        _ => format!("{} cannot be written ({error}): check the disk of {folder}", path.display()),
    }
}
