//! The file of webhook secrets: the current one, and older ones until nothing is signed with them.
//!
//! One secret per line, the current one first; mode 0600, in the state directory. The file is replaced as a whole, so
//! a crash leaves either the old or the new one. With `transport.webhook.secret_file` the current secret comes from
//! there, and this file remembers it for later.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::model::secret::Secret;
use crate::model::webhook::{KeyId, WebhookKey, WebhookKeys};

/// Name of the file within the state directory.
const FILE: &str = "webhook_secret";
/// Length of a generated secret: 240 bits.
const LENGTH: usize = 40;
/// Characters of a generated secret: 64, six bits each.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Maximum number of secrets accepted at the same time.
const MOST: usize = 8;
/// Maximum size of the file, in bytes; larger than it can become.
const MAX_FILE: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("the webhook secret {} cannot be {what}", path.display())]
    Io {
        path: PathBuf,
        /// The verb: `read` or `write`.
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// The file was edited.
    #[error(
        "{} is not as the daemon wrote it: line {line} is not a secret; remove the file, and \
         the daemon creates a new secret and moves everything to it",
        path.display()
    )]
    Damaged { path: PathBuf, line: usize },
    /// Secrets were replaced faster than subscriptions move.
    #[error("{MOST} webhook secrets are in use; wait until `eventsubd status` says that everything is moved")]
    TooMany,
}

#[derive(Clone, Debug)]
pub(super) struct SecretFile(PathBuf);

impl SecretFile {
    pub(super) fn new(state_directory: &Path) -> Self {
        Self(state_directory.join(FILE))
    }

    /// Loads the accepted secrets; `given` is the one of the configuration. Creates one if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or is damaged.
    pub(super) fn load(&self, given: Option<&Secret>) -> Result<WebhookKeys, SecretFileError> {
        let stored = self.read()?;
        let keys = combine(stored.clone(), given);
        match keys {
            Some(keys) if stored.as_slice() == keys.all() => Ok(keys),
            Some(keys) => self.write(&keys).map(|()| keys),
            None => {
                let keys = WebhookKeys::new(self.generate(&[])?, []);
                self.write(&keys)?;
                Ok(keys)
            }
        }
    }

    /// Reads the accepted secrets without writing; `None` if there is none yet.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(super) fn peek(&self, given: Option<&Secret>) -> Result<Option<WebhookKeys>, SecretFileError> {
        Ok(combine(self.read()?, given))
    }

    /// Makes a new secret the current one; the others stay accepted.
    ///
    /// # Errors
    /// The file cannot be written, or there are too many.
    pub(super) fn rotate(&self, keys: &WebhookKeys) -> Result<WebhookKeys, SecretFileError> {
        if keys.all().len() >= MOST {
            return Err(SecretFileError::TooMany);
        }
        let new = WebhookKeys::new(self.generate(keys.all())?, keys.all().iter().cloned());
        self.write(&new)?;
        Ok(new)
    }

    /// Removes the named secrets.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn retire(&self, keys: &WebhookKeys, gone: &[KeyId]) -> Result<WebhookKeys, SecretFileError> {
        let older = keys.all().iter().skip(1).filter(|key| !gone.contains(&key.id)).cloned();
        let new = WebhookKeys::new(keys.current().clone(), older);
        self.write(&new)?;
        Ok(new)
    }

    fn generate(&self, others: &[WebhookKey]) -> Result<WebhookKey, SecretFileError> {
        generate(others).map_err(|source| SecretFileError::Io { path: self.0.clone(), what: "made", source })
    }

    fn read(&self) -> Result<Vec<WebhookKey>, SecretFileError> {
        let failed = |source| SecretFileError::Io { path: self.0.clone(), what: "read", source };
        let mut text = zeroize::Zeroizing::new(String::new());
        match File::open(&self.0) {
            Ok(file) => file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let key = |(at, line): (usize, &str)| {
            WebhookKey::new(Secret::new(line))
                .map_err(|_| SecretFileError::Damaged { path: self.0.clone(), line: at + 1 })
        };
        text.lines().enumerate().map(key).collect()
    }

    fn write(&self, keys: &WebhookKeys) -> Result<(), SecretFileError> {
        let write = || {
            let parent = self.0.parent().unwrap_or(Path::new("."));
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            let new = self.0.with_extension("new");
            // Left behind by a crash.
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            for key in keys.all() {
                writeln!(file, "{}", key.secret.expose())?;
            }
            file.sync_all()?;
            fs::rename(&new, &self.0)?;
            File::open(parent)?.sync_all()
        };
        write().map_err(|source| SecretFileError::Io { path: self.0.clone(), what: "written", source })
    }
}

/// Returns a secret that is not stored, for commands that only read.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn unstored(state_directory: &Path) -> Result<WebhookKeys, SecretFileError> {
    Ok(WebhookKeys::new(SecretFile::new(state_directory).generate(&[])?, []))
}

/// Puts the configured secret before the stored ones, which stay accepted.
fn combine(stored: Vec<WebhookKey>, given: Option<&Secret>) -> Option<WebhookKeys> {
    let given = given.and_then(|secret| WebhookKey::new(secret.clone()).ok());
    let mut all = given.into_iter().chain(stored);
    let current = all.next()?;
    Some(WebhookKeys::new(current, all.take(MOST - 1)))
}

/// Generates a random secret whose fingerprint differs from those of `others`.
fn generate(others: &[WebhookKey]) -> io::Result<WebhookKey> {
    loop {
        let mut bytes = [0; LENGTH];
        // A request of this size is always filled completely.
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let text: String = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect();
        if let Ok(key) = WebhookKey::new(Secret::new(text))
            && others.iter().all(|other| other.id != key.id)
        {
            return Ok(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file() -> (tempfile::TempDir, SecretFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = SecretFile::new(folder.path());
        (folder, file)
    }

    #[test]
    fn a_secret_is_generated_once_with_mode_0600() {
        let (_folder, file) = file();
        assert_eq!(file.peek(None).unwrap(), None);
        let keys = file.load(None).unwrap();
        let secret = keys.current().secret.expose();
        assert_eq!((secret.len(), keys.all().len()), (40, 1));
        assert_eq!(fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.load(None).unwrap(), keys);
        assert_eq!(file.peek(None).unwrap(), Some(keys));
    }

    #[test]
    fn rotation_keeps_the_old_secret_until_it_is_retired() {
        let (_folder, file) = file();
        let old = file.load(None).unwrap();
        let both = file.rotate(&old).unwrap();
        assert_eq!(both.all()[1], *old.current());
        assert_eq!(file.load(None).unwrap(), both, "also after a restart");
        let after = file.retire(&both, &[old.current().id, both.current().id]).unwrap();
        assert_eq!(after.all(), [both.current().clone()], "the current one stays whatever is said");
        assert_eq!(file.load(None).unwrap(), after);
        let mut keys = after;
        while keys.all().len() < MOST {
            keys = file.rotate(&keys).unwrap();
        }
        assert!(matches!(file.rotate(&keys), Err(SecretFileError::TooMany)));
    }

    #[test]
    fn a_secret_of_the_configuration_wins_and_is_remembered() {
        let (_folder, file) = file();
        let made = file.load(None).unwrap();
        let given = Secret::new("a-given-secret");
        let keys = file.load(Some(&given)).unwrap();
        assert_eq!(keys.current().secret, given);
        assert_eq!(keys.all()[1], *made.current());
        assert_eq!(file.load(None).unwrap(), keys, "the key of the file is gone, and nothing has to move");
        let other = Secret::new("another-secret");
        assert_eq!(file.load(Some(&other)).unwrap().all().len(), 3);
    }

    #[test]
    fn a_crash_leaves_the_old_file_and_damage_is_reported() {
        let (folder, file) = file();
        fs::write(folder.path().join("webhook_secret.new"), "half").unwrap();
        let keys = file.load(None).unwrap();
        assert_eq!(file.load(None).unwrap(), keys);
        fs::write(&file.0, "good-secret-0\nbad\n").unwrap();
        let error = file.load(None).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("good-secret-0"), "{error}");
    }
}
