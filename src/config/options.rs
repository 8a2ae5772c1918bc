//! Options of a load, and the paths of a daemon.

use std::path::{Path, PathBuf};

use super::keys::environment::Environment;

/// The name of the control socket in its directory.
pub(super) const SOCKET: &str = "control.sock";

/// The file of a load with everything around it.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub path: PathBuf,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    pub env: Environment,
    /// Twitch is the sandbox: credentials are not needed, and the state is kept apart.
    pub sandbox: bool,
    pub secrets: Secrets,
}

/// Whether the client secret is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// A secret that is missing or cannot be read is an error.
    Required,
    /// Such a secret is left out.
    Optional,
}

/// Paths of a daemon's state and control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub state_directory: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
}

impl Paths {
    /// The paths of a daemon with `--state-dir`, for commands that were given no file.
    pub fn of_state_directory(directory: &Path) -> Self {
        Self { state_directory: directory.to_owned(), socket: directory.join(SOCKET) }
    }
}
