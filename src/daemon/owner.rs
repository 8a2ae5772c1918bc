//! The configuration file that owns a state directory, as recorded in its store.
//!
//! Two files with one state directory would delete each other's subscriptions, and their commands would reach either
//! daemon. Therefore the first file that is started with a directory owns it until another one takes it over.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{self, LoadOptions};
use crate::store::{Reader, Store, StoreError};

const SETTING: &str = "state.owner";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Absolute path of the configuration file.
    file: String,
    /// Whether it is the sandbox of that file.
    sandbox: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    directory: PathBuf,
    theirs: Owner,
    ours: Owner,
}

impl std::error::Error for Owned {}

impl std::fmt::Display for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the state directory {} belongs to {}", self.directory.display(), self.theirs)?;
        if self.is_moved() {
            write!(f, ", which is not there any more")?;
        }
        write!(f, "; this is {}", self.ours)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.sandbox { write!(f, "the sandbox of {}", self.file) } else { f.write_str(&self.file) }
    }
}

impl Owned {
    /// Returns the file that owns the directory.
    pub fn file(&self) -> &str {
        &self.theirs.file
    }

    /// Returns whether that file is gone, for example because it was moved.
    pub fn is_moved(&self) -> bool {
        !Path::new(&self.theirs.file).exists()
    }

    /// Returns advice for starting a daemon with this directory.
    pub fn advice(&self) -> String {
        let own = "give it a state directory of its own (`directory` in `[state]`, or --state-dir)";
        if self.is_moved() {
            return format!("if the file was moved, start it once with --take-over; else {own}");
        }
        if self.theirs.sandbox != self.ours.sandbox {
            return format!("a sandbox and a daemon do not share their state: {own}");
        }
        format!(
            "{own}, or start it once with --take-over if it is to replace {}: subscriptions that it does not list are \
             deleted then",
            self.theirs.file
        )
    }
}

impl Owner {
    /// Returns the owner for a start with these options.
    pub fn of(options: &LoadOptions) -> Self {
        let file = config::absolute(&options.path).to_string_lossy().into_owned();
        Self { file, sandbox: options.sandbox }
    }

    /// Returns the other owner of a store, if it has one. A store without an owner belongs to the first file.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn check(&self, directory: &Path, reader: &Reader) -> Result<Result<(), Owned>, StoreError> {
        Ok(self.compare(directory, reader.settings(SETTING)?))
    }

    /// Records this owner in the store, unless there is another one; `take_over` replaces it.
    pub(super) async fn claim(
        &self,
        directory: &Path,
        store: &Store,
        take_over: bool,
    ) -> Result<Result<(), Owned>, StoreError> {
        let found = store.settings(SETTING).await?;
        let value = serde_json::to_string(self).unwrap_or_default();
        // A full disk must not prevent a restart with the same owner.
        if found.contains(&(SETTING.to_owned(), value.clone())) {
            return Ok(Ok(()));
        }
        if !take_over && let Err(owned) = self.compare(directory, found) {
            return Ok(Err(owned));
        }
        store.set_settings(vec![(SETTING.to_owned(), Some(value))]).await?;
        Ok(Ok(()))
    }

    fn compare(&self, directory: &Path, found: Vec<(String, String)>) -> Result<(), Owned> {
        let value = found.into_iter().find(|(name, _)| name == SETTING).map(|(_, value)| value);
        let Some(theirs) = value.and_then(|value| serde_json::from_str::<Self>(&value).ok()) else {
            return Ok(());
        };
        let same_file = config::is_same_file(Path::new(&theirs.file), Path::new(&self.file));
        if same_file && theirs.sandbox == self.sandbox {
            return Ok(());
        }
        Err(Owned { directory: directory.to_owned(), theirs, ours: self.clone() })
    }
}
