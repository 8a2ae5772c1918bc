//! Which configuration file a state directory belongs to, as its store remembers.
//!
//! Two files on one state directory would each delete the other's subscriptions, and their commands would reach
//! whichever daemon runs. So the first file that is started there has the directory until another one takes it over.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{self, LoadOptions};
use crate::store::{Reader, Store, StoreError};

/// The name of the setting.
const SETTING: &str = "state.owner";

/// Owner of a state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The configuration file, from the root on.
    file: String,
    /// Whether it is the sandbox of that file.
    sandbox: bool,
}

/// The state directory belongs to another file.
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
    /// The file that has the directory.
    pub fn file(&self) -> &str {
        &self.theirs.file
    }

    /// Whether that file is gone, so that it may have been moved.
    pub fn is_moved(&self) -> bool {
        !Path::new(&self.theirs.file).exists()
    }

    /// Advice for starting a daemon on it.
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
    /// The owner that a start with these options is.
    pub fn of(options: &LoadOptions) -> Self {
        let file = config::absolute(&options.path).to_string_lossy().into_owned();
        Self { file, sandbox: options.sandbox }
    }

    /// Whether a store that can be read belongs to somebody else. One that remembers nobody belongs to whoever comes
    /// first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn look(&self, directory: &Path, reader: &Reader) -> Result<Result<(), Owned>, StoreError> {
        Ok(self.compare(directory, reader.settings(SETTING)?))
    }

    /// The same with the store of a start, which remembers this owner from then on; with `take_over` whoever had it.
    pub(super) async fn claim(
        &self,
        directory: &Path,
        store: &Store,
        take_over: bool,
    ) -> Result<Result<(), Owned>, StoreError> {
        let found = store.settings(SETTING).await?;
        let value = serde_json::to_string(self).unwrap_or_default();
        // A disk without room keeps no daemon from starting again.
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
