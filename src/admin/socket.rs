//! Binding the control socket, which is private from the first moment.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::model::rhythm::{BEAT, to_next};
use crate::store::since_start;

/// Milliseconds between two checks that the socket's file still exists.
const LOOK: u64 = 3 * BEAT;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error(
        "another daemon answers on the control socket {}; stop it, or set another admin.socket or --state-dir",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("cannot create the control socket {}; check that its directory exists and is writable", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A bound control socket; its file is removed on drop.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// The file of a bound socket, removed on drop unless another socket has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode of the socket.
    file: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(path)? })
    }

    /// Completes once the file is gone but its directory exists, for example after a clean-up of old files.
    pub(super) async fn removed(&self) {
        loop {
            tokio::time::sleep(to_next(LOOK, since_start())).await;
            let gone = identity(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if gone && self.path.parent().is_some_and(Path::is_dir) {
                return;
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl ControlSocket {
    /// Binds `path` with mode 0600, replacing the stale socket of a daemon that crashed.
    ///
    /// # Errors
    /// Another daemon answers there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        if UnixStream::connect(path).is_ok() {
            return Err(SocketError::InUse { path: path.to_owned() });
        }
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        let listener = Self::bind_privately(path).map_err(failed)?;
        let file = SocketFile::new(path).map_err(failed)?;
        Ok(Self { listener, file })
    }

    /// Creates the socket in a private directory and renames it once its mode is right.
    fn bind_privately(path: &Path) -> io::Result<UnixListener> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        // No longer than `control.sock`, as the system limits the length of the path.
        let private = parent.join(format!(".{:08x}", uuid::Uuid::new_v4().as_fields().0));
        fs::DirBuilder::new().mode(0o700).create(&private)?;
        let made = (|| {
            let inside = private.join("s");
            let listener = UnixListener::bind(&inside)?;
            fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
            fs::rename(&inside, path)?;
            Ok(listener)
        })();
        let _ = fs::remove_dir_all(&private);
        made
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale socket stays behind");

        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::InUse { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");

        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_path_may_be_as_long_as_the_system_accepts() {
        let folder = tempfile::tempdir().unwrap();
        let room = 107 - "/control.sock".len() - folder.path().as_os_str().len() - 1;
        let path = folder.path().join("x".repeat(room)).join("control.sock");
        assert_eq!(path.as_os_str().len(), 107);
        drop(ControlSocket::bind(&path).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn removal_of_the_socket_file_is_noticed_and_another_daemons_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let limit = Duration::from_millis(LOOK * 3);
        assert!(tokio::time::timeout(limit, socket.file.removed()).await.is_err(), "it is there");
        fs::remove_file(&path).unwrap();
        tokio::time::timeout(limit, socket.file.removed()).await.expect("it is missed");
        let other = ControlSocket::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
        assert!(!path.exists());
    }
}
