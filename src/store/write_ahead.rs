//! The write-ahead log: room in its file, and the moments at which it is copied into the database.
//!
//! A commit that makes the file longer has to write the file's inode as well, which is one more write for the disk and a
//! third of the commit's work. So the log has room from the start, and is copied before that is full, in a moment in which
//! no request waits; SQLite then begins at its start again.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;
use tracing::debug;

use super::schema::PAGE_SIZE;

/// Bytes of the file when the store is opened, and bytes of the disk that are free then: on a disk that is nearly full, the
/// room is for events.
const ROOM: u64 = 4 << 20;
const FREE: u64 = 64 << 20;
/// Pages after which the log is copied in a quiet moment: about half of the room.
const FEW: u32 = 500;
/// Pages after which it is copied while requests wait; each copy takes a page once, however often it was written since, and
/// makes them wait. A small store has a small log.
const MANY: (u64, u64) = (1_000, 14_000);

/// The log of the connection that writes.
#[derive(Debug)]
pub(super) struct WriteAhead {
    /// Pages in the log at the last commit.
    pages: Arc<AtomicU32>,
    /// Pages in it at the last copy, unless it began at the start since.
    copied: u32,
    many: u32,
}

impl WriteAhead {
    /// Takes over the copying of the log, which SQLite would do in the middle of a commit, and makes room in it. The
    /// database is to have `max_size` bytes at most.
    pub(super) fn of(connection: &mut Connection, path: &Path, max_size: u64) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let log = path.with_extension("db-wal");
        if let Err(error) = make_room(&log) {
            // Commits work without; if the disk is full they tell.
            debug!(path = %log.display(), %error, "the log of the event store has no room in advance");
        }
        let many = (max_size / 4 / PAGE_SIZE).clamp(MANY.0, MANY.1);
        Ok(Self { pages, copied: 0, many: u32::try_from(many).unwrap_or(u32::MAX) })
    }

    /// Copies the log into the database if it is long enough. To be called between commits.
    pub(super) fn copy(&mut self, connection: &Connection, is_quiet: bool) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.copied {
            self.copied = 0;
        }
        if pages - self.copied < if is_quiet { FEW } else { self.many } {
            return;
        }
        // The next copy takes the rest: a reader may be at work, and the next commit reports a bad disk.
        self.copied = pages;
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            debug!(%error, "the log of the event store could not be copied");
        }
    }
}

/// Fills the file with zeros, which SQLite takes for the end of the log.
fn make_room(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    let mut left = ROOM.saturating_sub(file.metadata()?.len());
    let disk = rustix::fs::fstatvfs(&file)?;
    if left == 0 || disk.f_bavail.saturating_mul(disk.f_frsize) < FREE {
        return Ok(());
    }
    // Page by page: the kernel keeps a file in pieces of the size in which it was written, and handles each as a whole.
    let zeros = [0; PAGE_SIZE as usize];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::super::schema;
    use super::*;

    const GIB: u64 = 1 << 30;

    struct Fixture {
        folder: TempDir,
        connection: Connection,
        log: WriteAhead,
    }

    impl Fixture {
        fn new(max_size: u64) -> Self {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("events.db");
            let mut connection = schema::open(&path).unwrap();
            let log = WriteAhead::of(&mut connection, &path, max_size).unwrap();
            connection.execute_batch("CREATE TABLE test (text TEXT)").unwrap();
            Self { folder, connection, log }
        }

        /// A commit of about this many pages.
        fn commit(&self, pages: usize) {
            self.connection.execute("INSERT INTO test VALUES (?1)", ["x".repeat(pages * 4_096)]).unwrap();
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn length(&self, name: &str) -> u64 {
            fs::metadata(self.file(name)).unwrap().len()
        }
    }

    #[test]
    fn commits_one_by_one_never_make_the_log_longer() {
        let mut fixture = Fixture::new(GIB);
        assert_eq!(fixture.length("events.db-wal"), ROOM);
        for _ in 0..3 * FEW {
            fixture.commit(1);
            fixture.log.copy(&fixture.connection, true);
        }
        assert_eq!(fixture.length("events.db-wal"), ROOM);
        assert!(fixture.length("events.db") > u64::from(2 * FEW) * PAGE_SIZE, "it was copied");
    }

    #[test]
    fn while_requests_wait_a_longer_log_is_copied() {
        let mut fixture = Fixture::new(GIB);
        let before = fixture.length("events.db");
        fixture.commit(2 * FEW as usize);
        fixture.log.copy(&fixture.connection, false);
        assert_eq!(fixture.length("events.db"), before);
        fixture.commit(MANY.1 as usize);
        fixture.log.copy(&fixture.connection, false);
        assert!(fixture.length("events.db") > MANY.1 * PAGE_SIZE);

        let mut small = Fixture::new(1 << 20);
        small.commit(MANY.0 as usize);
        small.log.copy(&small.connection, false);
        assert!(small.length("events.db") > MANY.0 * PAGE_SIZE, "a small store has a small log");
    }

    #[test]
    fn a_reader_that_holds_the_log_back_does_not_have_it_copied_with_every_commit() {
        let mut fixture = Fixture::new(GIB);
        let reader = Connection::open(fixture.file("events.db")).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        let _: u32 = reading.query_row("SELECT count(*) FROM test", [], |row| row.get(0)).unwrap();
        fixture.commit(FEW as usize);
        fixture.log.copy(&fixture.connection, true);
        let copied = fixture.log.copied;
        assert!(copied >= FEW);
        fixture.commit(1);
        fixture.log.copy(&fixture.connection, true);
        assert_eq!(fixture.log.copied, copied);
        drop(reading);
        fixture.commit(FEW as usize);
        fixture.log.copy(&fixture.connection, true);
        fixture.commit(1);
        fixture.log.copy(&fixture.connection, true);
        assert_eq!(fixture.log.copied, 0, "it began at the start again");
    }

    #[test]
    fn after_a_crash_the_empty_room_is_the_end_of_the_log() {
        let fixture = Fixture::new(GIB);
        (0..5).for_each(|_| fixture.commit(1));
        let (crashed, count) = (TempDir::new().unwrap(), "SELECT count(*) FROM test");
        for name in ["events.db", "events.db-wal"] {
            fs::copy(fixture.file(name), crashed.path().join(name)).unwrap();
        }
        let path = crashed.path().join("events.db");
        let mut connection = schema::open(&path).unwrap();
        WriteAhead::of(&mut connection, &path, GIB).unwrap();
        connection.execute("INSERT INTO test VALUES ('after')", []).unwrap();
        assert_eq!(connection.query_row(count, [], |row| row.get(0)), Ok(6));
    }
}
