//! Checks that the database file is still the one that was opened.
//!
//! A file that was removed or replaced can still be written, but its content is lost. So nothing is confirmed from then on,
//! and the store ends unless the file comes back.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time for which the file may be missing.
const LIMIT: Duration = Duration::from_secs(5);

/// The file that was opened, and since when it has been missing.
#[derive(Debug)]
pub(super) struct Presence {
    path: PathBuf,
    file: (u64, u64),
    gone_since: Option<Instant>,
}

impl Presence {
    /// Watches a file that was just opened.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(&fs::metadata(path)?), gone_since: None })
    }

    /// Checks for the file. A disk error does not prove that the file is missing.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), String> {
        let there = match fs::metadata(&self.path) {
            Ok(found) => identity(&found) == self.file,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        if there {
            self.gone_since = None;
            return Ok(());
        }
        self.gone_since.get_or_insert(now);
        Err(format!(
            "{} was removed or replaced while the daemon runs: nothing is stored from now on, and the daemon ends unless \
             the file comes back within {} seconds",
            self.path.display(),
            LIMIT.as_secs()
        ))
    }

    /// Whether the file was missing at the last check.
    pub(super) fn is_gone(&self) -> bool {
        self.gone_since.is_some()
    }

    /// Whether the file has been missing for too long.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        self.gone_since.is_some_and(|since| now.duration_since(since) >= LIMIT)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_removed_or_replaced_is_missed_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("events.db"), folder.path().join("aside"));
        fs::write(&path, "").unwrap();
        let mut presence = Presence::new(&path).unwrap();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(presence.check(begin), Ok(()));
        fs::rename(&path, &aside).unwrap();
        assert!(presence.check(after(1)).unwrap_err().contains("events.db was removed or replaced"));
        fs::write(&path, "").unwrap();
        assert!(presence.check(after(3)).is_err(), "another file is not the one that was opened");
        assert!(!presence.is_lost(after(5)) && presence.is_lost(after(6)));
        fs::rename(&aside, &path).unwrap();
        assert_eq!(presence.check(after(6)), Ok(()));
        assert!(!presence.is_lost(after(100)));
        fs::remove_file(&path).unwrap();
        fs::remove_dir(folder.path()).unwrap();
        fs::write(folder.path(), "").unwrap();
        assert!(presence.check(after(7)).is_err());
        assert!(presence.is_lost(after(12)));
        fs::remove_file(folder.path()).unwrap();
    }
}
