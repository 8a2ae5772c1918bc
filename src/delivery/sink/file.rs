//! A file: one line an event, appended and synced per batch, turned over by size.
//!
//! A file that was moved or removed is reopened automatically: lines in a file without a name are lost.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::Lines;
use crate::model::sink::FileOptions;

/// Bytes at the end of a file that are searched for a torn line.
const TAIL: u64 = 1 << 20;
/// First bytes of every line of ours.
const BEGIN: &[u8] = b"{\"metadata\":";

pub(in crate::delivery) struct File {
    options: FileOptions,
    open: Option<Open>,
}

struct Open {
    file: fs::File,
    /// Bytes, all of them whole lines.
    length: u64,
}

impl File {
    pub(in crate::delivery) fn new(options: FileOptions) -> Self {
        Self { options, open: None }
    }

    /// Opens the file for appending, and mends its end: a line of ours that a crash cut off goes, as
    /// its event is written again; anything else gets the line break that it lacks.
    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            if let Some(message) = not_a_file(&self.options.path) {
                return Err(io::Error::other(message));
            }
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o640)
                .open(&self.options.path)?;
            let length = file.metadata()?.len();
            let from = length.saturating_sub(TAIL);
            file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            (&file).take(TAIL).read_to_end(&mut tail)?;
            let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let torn = &tail[whole..];
            let mut length = length;
            if !torn.is_empty() {
                let ours = (whole > 0 || from == 0)
                    && torn.iter().zip(BEGIN).all(|(a, b)| a == b)
                    && serde_json::from_slice::<serde::de::IgnoredAny>(torn).is_err();
                if ours {
                    length -= torn.len() as u64;
                    file.set_len(length)?;
                    info!(path = %self.options.path.display(), "removed a line that had been cut off; its event is written again");
                } else {
                    file.write_all(b"\n")?;
                    length += 1;
                }
            }
            if length == 0 {
                sync_folder(&self.options.path);
            }
            self.open = Some(Open { file, length });
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("the file is not open"))
    }

    /// Closes the open file if its path no longer leads to it.
    fn check(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let held = open.file.metadata()?;
        let same = match fs::metadata(&self.options.path) {
            Ok(there) => (there.dev(), there.ino()) == (held.dev(), held.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if same {
            // The file may have been truncated in place.
            open.length = held.len();
        } else {
            info!(path = %self.options.path.display(), "the file was moved or removed; a new one is begun");
            self.open = None;
        }
        Ok(())
    }

    /// Whether the file still has a name.
    fn has_name(&self) -> io::Result<bool> {
        self.open.as_ref().map_or(Ok(true), |open| Ok(open.file.metadata()?.nlink() > 0))
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.turn_over_for(lines.len() as u64)?;
        let open = self.open()?;
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Part of the lines may be there; they come again, so they must not stay.
                if let Err(cut) = open.file.set_len(open.length) {
                    warn!(path = %self.options.path.display(), error = %cut, "part of a batch may be in the file twice");
                }
                self.open = None;
                Err(error)
            }
        }
    }

    fn turn_over_for(&mut self, bytes: u64) -> io::Result<()> {
        let Some(limit) = self.options.rotate_size else { return Ok(()) };
        let length = self.open()?.length;
        if length == 0 || length.saturating_add(bytes) <= limit {
            return Ok(());
        }
        let path = &self.options.path;
        for number in (1..self.options.rotate_keep).rev() {
            rename_if_there(&numbered(path, number), &numbered(path, number + 1))?;
        }
        rename_if_there(path, &numbered(path, 1))?;
        sync_folder(path);
        self.open = None;
        Ok(())
    }
}

impl Lines for File {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        // Costs about a thousandth of a sync, so every batch is checked.
        self.check()?;
        self.append(lines)?;
        if !self.has_name()? {
            // The file was removed between the check and the sync. The lines went with it, so they are written once more.
            self.open = None;
            self.append(lines)?;
        }
        Ok(())
    }

    fn reopen(&mut self) {
        self.open = None;
    }
}

/// Returns the problem if the path leads to something other than a regular file: it cannot be synced, and may discard what
/// is written.
pub(in crate::delivery) fn not_a_file(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?.file_type();
    let kind = match () {
        () if found.is_file() => return None,
        () if found.is_dir() => "a folder",
        () if found.is_fifo() => "a named pipe",
        () if found.is_socket() => "a socket",
        () => "a device",
    };
    let hint =
        if path.starts_with("/dev") { "; for standard output there is `type = \"stdout\"`" } else { "" };
    Some(format!("{} is {kind}; `path` must be a regular file{hint}", path.display()))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes new names in the folder durable. File systems that cannot do that lose a name, not an event:
/// the cursor moves only after the data is synced.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, rotate_size: Option<u64>) -> (File, PathBuf) {
        let path = folder.path().join("events.jsonl");
        (File::new(FileOptions { path: path.clone(), rotate_size, rotate_keep: 2 }), path)
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        for (path, kind) in [
            (pipe, "a named pipe"),
            (folder.path().join("socket"), "a socket"),
            (folder.path().to_owned(), "a folder"),
            ("/dev/null".into(), "a device"),
        ] {
            let mut file = File::new(FileOptions { path: path.clone(), rotate_size: None, rotate_keep: 1 });
            let error = file.write(b"x\n").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} is {kind}; ", path.display())), "{error}");
        }
        assert_eq!(not_a_file(&folder.path().join("new")), None);
    }

    #[test]
    fn a_file_that_was_moved_or_removed_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut sink, path) = file(&folder, None);
        let moved = folder.path().join("moved");
        sink.write(b"a\n").unwrap();
        sink.write(b"b\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        sink.write(b"c\n").unwrap();
        assert_eq!(fs::read(&moved).unwrap(), b"a\nb\n");
        assert_eq!(fs::read(&path).unwrap(), b"c\n");
        fs::remove_file(&path).unwrap();
        sink.write(b"d\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"d\n");
        // As `mv` to another file system does, and somebody else is quicker to make the new file.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "theirs\n").unwrap();
        sink.write(b"e\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"theirs\ne\n");
        // As `copytruncate` of logrotate does.
        fs::write(&path, "").unwrap();
        sink.write(b"f\n").unwrap();
        sink.reopen();
        sink.write(b"g\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"f\ng\n");
        fs::remove_file(&path).unwrap();
        assert!(!sink.has_name().unwrap(), "what is written now would be lost");
    }

    #[test]
    fn a_truncated_last_line_is_repaired() {
        for (before, after) in [
            ("", "x\n"),
            ("whole\n", "whole\nx\n"),
            ("{\"metadata\":{}}\n{\"metadata\":{\"mess", "{\"metadata\":{}}\nx\n"),
            ("{\"met", "x\n"),
            ("{\"metadata\":{}}", "{\"metadata\":{}}\nx\n"),
            ("a note of somebody", "a note of somebody\nx\n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (mut sink, path) = file(&folder, None);
            fs::write(&path, before).unwrap();
            sink.write(b"x\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }

    #[test]
    fn files_turn_over_by_size_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let (mut sink, path) = file(&folder, Some(10));
        for line in ["1111\n", "2222\n", "3333\n", "a line longer than the limit\n", "5\n"] {
            sink.write(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
        assert_eq!(read("events.jsonl.1"), "a line longer than the limit\n");
        assert_eq!(read("events.jsonl.2"), "3333\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_that_comes_back_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later").join("events.jsonl");
        let mut sink = File::new(FileOptions { path: path.clone(), rotate_size: None, rotate_keep: 1 });
        assert_eq!(sink.write(b"a\n").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(path.parent().unwrap()).unwrap();
        sink.write(b"a\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a\n");
    }
}
