//! Opening the database: identity, migrations, pragmas.
//!
//! A file that is not ours, is newer, or is damaged is reported and left untouched.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::info;

use super::error::{self, StoreError};

/// Marks a database as ours: "evsb".
const APPLICATION_ID: u32 = 0x6576_7362;

/// One entry a format version, in order; never edited, only added to.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE events (
        seq               INTEGER PRIMARY KEY,
        message_id        TEXT NOT NULL UNIQUE,
        message_timestamp TEXT NOT NULL,
        type              TEXT NOT NULL,
        version           TEXT NOT NULL,
        subscription_id   TEXT NOT NULL,
        stored_at         INTEGER NOT NULL,
        payload           BLOB
    ) STRICT;
    CREATE TABLE sinks (
        name         TEXT PRIMARY KEY,
        seq          INTEGER NOT NULL,
        dead_letters INTEGER NOT NULL DEFAULT 0,
        lost         INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE dead_letters (
        id                INTEGER PRIMARY KEY,
        sink              TEXT NOT NULL,
        seq               INTEGER NOT NULL,
        message_id        TEXT NOT NULL,
        message_timestamp TEXT NOT NULL,
        type              TEXT NOT NULL,
        version           TEXT NOT NULL,
        subscription_id   TEXT NOT NULL,
        stored_at         INTEGER NOT NULL,
        payload           BLOB NOT NULL,
        failed_at         INTEGER NOT NULL,
        error             TEXT NOT NULL,
        UNIQUE (sink, seq)
    ) STRICT;
    CREATE TABLE settings (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE sinks ADD COLUMN done TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE sinks ADD COLUMN gone_at INTEGER;
    ALTER TABLE dead_letters ADD COLUMN replay INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX dead_letters_to_replay ON dead_letters (sink, id) WHERE replay = 1;
",
    // Without the index of random message ids: `ids` knows them.
    "
    CREATE TABLE events_without_index (
        seq               INTEGER PRIMARY KEY,
        message_id        TEXT NOT NULL,
        message_timestamp TEXT NOT NULL,
        type              TEXT NOT NULL,
        version           TEXT NOT NULL,
        subscription_id   TEXT NOT NULL,
        stored_at         INTEGER NOT NULL,
        payload           BLOB
    ) STRICT;
    INSERT INTO events_without_index SELECT * FROM events;
    DROP TABLE events;
    ALTER TABLE events_without_index RENAME TO events;
",
    // The first failure beside the last, the receiver's words apart from ours, and what a person replays. Errors of
    // older releases are `HOST answered 400 Bad Request: WORDS`.
    "
    ALTER TABLE dead_letters ADD COLUMN said TEXT;
    ALTER TABLE dead_letters ADD COLUMN first_failed_at INTEGER;
    ALTER TABLE dead_letters ADD COLUMN first_error TEXT;
    ALTER TABLE dead_letters ADD COLUMN first_said TEXT;
    ALTER TABLE dead_letters ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sinks ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sinks ADD COLUMN replay_until INTEGER NOT NULL DEFAULT 0;
    UPDATE dead_letters SET said = substr(error, instr(error, ': ') + 2), error = substr(error, 1, instr(error, ': ') - 1)
    WHERE instr(error, ' answered ') > 0 AND instr(error, ': ') > instr(error, ' answered ');
",
    // Ages by a clock of the store's own. What is there counts as stored at its beginning, so that nothing grows old by
    // the change. `held` has what retention took while a worker had it in hand.
    "
    ALTER TABLE events ADD COLUMN elapsed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sinks ADD COLUMN held TEXT NOT NULL DEFAULT '[]';
    UPDATE sinks SET gone_at = 0 WHERE gone_at IS NOT NULL;
    CREATE TABLE clock (
        id         INTEGER PRIMARY KEY CHECK (id = 1),
        boot       TEXT NOT NULL,
        since_boot INTEGER NOT NULL,
        wall       INTEGER NOT NULL,
        elapsed    INTEGER NOT NULL
    ) STRICT;
",
    // Counts of events, and the last event that is in them. Events of older releases are counted at the next start.
    "
    CREATE TABLE counts (
        hour   INTEGER NOT NULL,
        type   TEXT NOT NULL,
        events INTEGER NOT NULL,
        PRIMARY KEY (hour, type)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE activity (
        subscription INTEGER PRIMARY KEY,
        events       INTEGER NOT NULL,
        last         INTEGER NOT NULL,
        last_at      INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE counted (
        id  INTEGER PRIMARY KEY CHECK (id = 1),
        seq INTEGER NOT NULL
    ) STRICT;
",
    // Last known state of channels: catch-up after a gap compares it with Twitch's.
    "
    CREATE TABLE last_known (
        broadcaster    TEXT PRIMARY KEY,
        is_live        INTEGER,
        stream         TEXT,
        stream_started INTEGER,
        stream_since   INTEGER,
        stream_at      INTEGER,
        digest         INTEGER,
        digest_since   INTEGER,
        digest_at      INTEGER,
        is_caught_up   INTEGER
    ) STRICT, WITHOUT ROWID;
",
    // Ages of what is known of channels by the store's own clock, like those of events. What is there counts as old.
    "
    UPDATE last_known SET stream_at = 0, digest_at = 0;
",
];

/// The newest format version.
const FORMAT: u32 = MIGRATIONS.len() as u32;

/// Up to this size a database is checked page by page at every start; above it, only after an end
/// that was not clean. About a second for each half GiB.
const ALWAYS_CHECK: u64 = 64 << 20;

/// Pages that a connection for reading keeps, in KiB.
const READ_CACHE: i32 = 500;

/// Bytes of a page, which is SQLite's default.
pub(super) const PAGE_SIZE: u64 = 4_096;

/// Opens the database for writing, making or migrating it.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StoreError::io(folder))?;
    // SQLite would make the file with the process's umask; events are nobody else's business.
    let made = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let size = made.and_then(|file| file.metadata()).map_err(StoreError::io(path))?.len();
    let wal = path.with_extension("db-wal");
    let unclean = fs::metadata(wal).is_ok_and(|wal| wal.len() > 0);

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|e| classify(path, e))?;
    identify(&connection, path)?;
    if size > 0 && (unclean || size <= ALWAYS_CHECK) {
        if size > ALWAYS_CHECK {
            info!(path = %path.display(), bytes = size, "the last shutdown was not clean; checking the event store");
        }
        check(&connection, path)?;
    }
    pragmas(&connection).map_err(|e| classify(path, e))?;
    migrate(&mut connection).map_err(|e| classify(path, e))?;
    Ok(connection)
}

/// Opens the database for reading only, from this process or another.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, StoreError> {
    readable(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| classify(path, e))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(|e| classify(path, e))?;
    connection.set_prepared_statement_cache_capacity(16);
    // Events are read in order, each page once.
    connection.pragma_update(None, "cache_size", -READ_CACHE).map_err(|e| classify(path, e))?;
    let format = identify(&connection, path)?;
    if format == 0 {
        return Err(StoreError::Missing { path: path.to_owned() });
    }
    Ok(connection)
}

/// Tells a store that is not there from one that this user may not read: SQLite has the same error for both.
fn readable(path: &Path) -> Result<(), StoreError> {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let Err(error) = fs::File::open(path) else { return Ok(()) };
    match error.kind() {
        NotFound | NotADirectory => Err(StoreError::Missing { path: path.to_owned() }),
        PermissionDenied => {
            let hidden = fs::metadata(path).is_err();
            let denied = if hidden { path.parent().unwrap_or(path) } else { path };
            Err(StoreError::Denied { path: denied.to_owned() })
        }
        _ => Err(StoreError::io(path)(error)),
    }
}

/// The format version; an error when the file is not ours, or newer.
fn identify(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let application = pragma("application_id").map_err(|e| classify(path, e))?;
    let format = pragma("user_version").map_err(|e| classify(path, e))?;
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| classify(path, e))?;
    if application != APPLICATION_ID && (application != 0 || format != 0 || tables != 0) {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    if format > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    Ok(format)
}

fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| classify(path, e))?;
    if verdict == "ok" {
        return Ok(());
    }
    let source = rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(verdict),
    );
    Err(classify(path, source))
}

fn pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let format: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (1..FORMAT).contains(&format) {
        info!(
            from = format,
            to = FORMAT,
            "upgrading the event store to a newer format; this takes some seconds per GiB"
        );
    }
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(format as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", index as u32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Tells a damaged file from one that cannot be used for another reason.
fn classify(path: &Path, source: rusqlite::Error) -> StoreError {
    let source = Arc::new(source);
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), source }
        }
        Some(ErrorCode::DiskFull) => StoreError::Failing(error::problem(path, &source).into()),
        _ => StoreError::Sql { action: "open its database", source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_the_old_format_stays_and_the_error_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let mut old = Connection::open(&path).unwrap();
        old.execute_batch(&MIGRATIONS[..2].concat()).unwrap();
        old.pragma_update(None, "user_version", 2).unwrap();
        old.execute_batch(
            "INSERT INTO events VALUES (1, 'id', 't', 'stream.online', '1', 's', 1, zeroblob(100000))",
        )
        .unwrap();
        let pages: u32 = old.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        old.pragma_update(None, "max_page_count", pages).unwrap();
        let error = classify(&path, migrate(&mut old).expect_err("there is no room"));
        assert!(error.to_string().starts_with("no space left for "), "{error}");
        let format: u32 = old.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let events: u32 = old.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
        assert_eq!((format, events), (2, 1));
    }

    #[test]
    fn a_database_of_every_older_format_is_brought_up_to_date() {
        for format in 1..MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.db");
            let old = Connection::open(&path).unwrap();
            old.execute_batch(&MIGRATIONS[..format].concat()).unwrap();
            old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
            old.pragma_update(None, "user_version", format as u32).unwrap();
            old.execute_batch(
                "INSERT INTO events (seq, message_id, message_timestamp, type, version, subscription_id, stored_at,
                                     payload)
                 VALUES (7, 'id7', 't', 'stream.online', '1', 's', 70, x'7b7d'),
                        (8, 'id8', 't', 'stream.online', '1', 's', 80, NULL);
                 INSERT INTO sinks (name, seq, dead_letters) VALUES ('log', 6, 1);
                 INSERT INTO dead_letters (sink, seq, message_id, message_timestamp, type, version, subscription_id,
                                           stored_at, payload, failed_at, error)
                 VALUES ('log', 5, 'id5', 't', 'stream.online', '1', 's', 50, x'7b7d', 60,
                         'host answered 410 Gone: no: such');
                 INSERT INTO settings VALUES ('a', 'b')",
            )
            .unwrap();
            drop(old);

            let new = open(&path).unwrap();
            let fresh = open(&folder.path().join("fresh.db")).unwrap();
            let columns = |connection: &Connection| -> Vec<String> {
                connection
                    .prepare(
                        "SELECT m.name || '.' || p.name || ' ' || p.type || ' ' || p.\"notnull\"
                         FROM sqlite_schema m JOIN pragma_table_info(m.name) p WHERE m.type = 'table' ORDER BY 1",
                    )
                    .unwrap()
                    .query_map([], |row| row.get(0))
                    .unwrap()
                    .collect::<Result<_, _>>()
                    .unwrap()
            };
            assert_eq!(columns(&new), columns(&fresh), "from format {format}");
            let rows = |sql| new.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
            assert_eq!(
                rows("SELECT group_concat(seq || message_id || stored_at) FROM events"),
                "7id770,8id880"
            );
            assert_eq!(rows("SELECT hex(payload) FROM events WHERE seq = 7"), "7B7D");
            assert_eq!(rows("SELECT name || seq || dead_letters || lost FROM sinks"), "log610");
            let words = if format < 4 {
                "host answered 410 Gone|no: such"
            } else {
                "host answered 410 Gone: no: such|"
            };
            assert_eq!(
                rows("SELECT message_id || error || '|' || coalesce(said, '') FROM dead_letters"),
                format!("id5{words}")
            );
            assert_eq!(rows("SELECT value FROM settings"), "b");
            assert_eq!(identify(&new, &path).unwrap(), FORMAT);
        }
    }
}
