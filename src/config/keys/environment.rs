//! The variables that matter, taken once, so that tests and reloads bring their own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Prefix of our own variables.
pub(in crate::config) const PREFIX: &str = "EVENTSUBD_";
/// The variables of others that are read.
const TAKEN: [&str; 6] =
    ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "XDG_STATE_HOME", "HOME", "PATH"];

/// The environment of one load.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process: `EVENTSUBD_*`, the directories of systemd and of the user, and `PATH`.
    pub fn from_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| name.starts_with(PREFIX) || TAKEN.contains(&name.as_str()))
            .collect()
    }

    /// Returns a variable; `None` if it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Adds a variable, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The first directory of a variable in which systemd lists directories with colons.
    pub(in crate::config) fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name)?.split(':').find(|part| !part.is_empty()).map(PathBuf::from)
    }

    /// The variables with our prefix.
    pub(in crate::config) fn own(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(name, _)| name.starts_with(PREFIX)).map(|(name, value)| (&**name, &**value))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    /// The names alone: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
