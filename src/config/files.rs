//! Reading the files of a configuration: bounded, and with errors that say what is the matter.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::diagnostic::quote;

/// The largest file that is read.
pub(super) const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Why a file could not be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Whether it does not exist.
    pub(super) missing: bool,
    pub(super) message: String,
}

impl Unreadable {
    pub(super) fn new(path: &Path, error: &std::io::Error) -> Self {
        let shown = quote(&path.display().to_string());
        Self {
            missing: matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
            message: match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => format!("there is no file {shown}"),
                ErrorKind::PermissionDenied => format!("{shown} cannot be read: permission denied"),
                ErrorKind::IsADirectory => format!("{shown} is a directory"),
                _ => format!("{shown} cannot be read: {error}"),
            },
        }
    }
}

/// The bytes of a file and what the system says about it.
pub(super) fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, Metadata), Unreadable> {
    let failed = |error: std::io::Error| Unreadable::new(path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(ErrorKind::IsADirectory.into()));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let message =
            format!("{} is larger than {}", quote(&path.display().to_string()), bytesize::ByteSize(limit));
        return Err(Unreadable { missing: false, message });
    }
    Ok((bytes, metadata))
}

/// The mode of a file that others than its owner can read; `None` when they cannot.
pub(super) fn open_to_others(metadata: &Metadata) -> Option<u32> {
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then_some(mode)
}

/// Text without the mark that some editors put at its beginning.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, (String, usize)> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err((String::from_utf8_lossy(error.as_bytes()).into_owned(), at))
        }
    }
}
