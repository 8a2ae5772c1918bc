//! TLS without a proxy in front. Certificate and key come from files, which are read again when they change.
//!
//! A new pair that cannot be used changes nothing: the old one stays active, and the status shows the problem.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use crate::model::webhook::TlsFiles;

/// Certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file lacks its certificate or key.
    #[error("{} has no {what} in PEM format", path.display())]
    Empty { path: PathBuf, what: &'static str },
    /// Certificate and key do not match, or are of an unsupported kind.
    #[error("the certificate in {} cannot be used with the key in {}", files.certificate.display(), files.key.display())]
    Pair {
        files: TlsFiles,
        #[source]
        source: rustls::Error,
    },
}

/// The active certificate and key. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// The files that were read last, whether they could be used or not.
    seen: Option<[Stamp; 2]>,
    problem: Option<String>,
}

/// Metadata that differs if a file has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = stamps(&files);
        let config = Arc::new(read(&files)?);
        Ok(Self(Arc::new(Inner { files, state: Mutex::new(State { config, seen, problem: None }) })))
    }

    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// Reads the files again if they have changed. Returns whether they had. Blocking.
    pub fn refresh(&self) -> bool {
        let files = &self.0.files;
        // Taken before the files are read, so that a change meanwhile leads to another read.
        let found = stamps(files);
        if found == self.state().seen {
            return false;
        }
        let read = read(files);
        let mut state = self.state();
        state.seen = found;
        match read {
            Ok(config) => {
                info!(certificate = %files.certificate.display(), "the changed certificate is now used");
                state.config = Arc::new(config);
                state.problem = None;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or(String::new(), |c| format!(": {c}"));
                let problem = format!("{error}{cause}; the certificate that was read before serves on");
                warn!(error = problem, "the changed certificate cannot be used");
                state.problem = Some(problem);
            }
        }
        true
    }

    /// The TLS configuration for the next connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().config)
    }

    /// Reason if the current files are not active.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: &TlsFiles) -> Option<[Stamp; 2]> {
    let stamp = |path: &Path| {
        fs::metadata(path).ok().map(|found| Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    };
    Some([stamp(&files.certificate)?, stamp(&files.key)?])
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let bytes = |path: &PathBuf| fs::read(path).map_err(|source| TlsError::Io { path: path.clone(), source });
    let empty = |path: &PathBuf, what| TlsError::Empty { path: path.clone(), what };
    let certificates = CertificateDer::pem_slice_iter(&bytes(&files.certificate)?)
        .collect::<Result<Vec<_>, pem::Error>>()
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| empty(&files.certificate, "certificate"))?;
    let key = zeroize::Zeroizing::new(bytes(&files.key)?);
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| empty(&files.key, "private key"))?;
    let pair = |source| TlsError::Pair { files: files.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
