//! Reading the files of a configuration: bounded, and with errors that say what is the matter.
//!
//! Every path that a key names goes through [`Folder`], so that a check of a text alone touches no disk. A path that
//! leads nowhere may be a secret in the wrong place, and is not shown unless it reads like a path.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::report::diagnostic::{Diagnostic, quote};
use super::report::private::reads_like_a_path;

/// The largest file that is read.
pub(super) const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A file that could not be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) missing: bool,
    pub(super) message: String,
}

impl Unreadable {
    pub(super) fn new(path: &Path, error: &std::io::Error) -> Self {
        let shown = quote(&path.display().to_string());
        let missing = matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
        );
        Self {
            missing,
            message: match error.kind() {
                _ if missing => format!("there is no file {shown}"),
                ErrorKind::PermissionDenied => format!("{shown} cannot be read: permission denied"),
                ErrorKind::IsADirectory => format!("{shown} is a directory"),
                _ => format!("{shown} cannot be read: {error}"),
            },
        }
    }
}

/// Readers of a file, and whether its mode can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: u32,
    /// The user id of the file's owner.
    pub(super) owner: u32,
    /// The file lies on a read-only file system.
    pub(super) read_only: bool,
}

impl Access {
    /// Access to a file that only its owner reads.
    pub(super) const PRIVATE: Self = Self { mode: 0o600, owner: 0, read_only: false };

    fn new(file: &File, metadata: &Metadata) -> Self {
        let flags = rustix::fs::fstatvfs(file).map(|system| system.f_flag);
        Self {
            mode: metadata.permissions().mode() & 0o777,
            owner: metadata.uid(),
            read_only: flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY)),
        }
    }

    /// The mode of a file that is open to others than its owner; `None` if it is not. As with the keys of PostgreSQL,
    /// a file that belongs to root may be read by its group, which is then the group of a service.
    pub(super) fn open_to_others(self) -> Option<u32> {
        let group = self.mode & 0o040 != 0 && self.owner != 0;
        (self.mode & 0o004 != 0 || group).then_some(self.mode)
    }
}

/// The folder of the configuration file, in which the relative paths of keys start.
pub(super) struct Folder {
    path: PathBuf,
    /// Whether files may be read.
    open: bool,
    /// The files that were read.
    used: RefCell<BTreeSet<PathBuf>>,
}

impl Folder {
    /// The folder of this file; absolute, since a bare file name has no folder to join.
    pub(super) fn of(file: &Path) -> Self {
        let parent = file.parent().unwrap_or(Path::new(""));
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let path = std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned());
        Self { path, open: true, used: RefCell::default() }
    }

    /// A folder whose files all seem to be missing.
    pub(super) fn closed() -> Self {
        Self { path: PathBuf::from("/"), open: false, used: RefCell::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path that a key means.
    pub(super) fn join(&self, text: &str) -> PathBuf {
        self.path.join(text)
    }

    /// Returns the files that were read.
    pub(super) fn into_used(self) -> Vec<PathBuf> {
        self.used.into_inner().into_iter().collect()
    }

    /// Returns whether files may be read.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The bytes of a file that a key names, and who may read it.
    pub(super) fn read(&self, text: &str, limit: u64) -> Result<(Vec<u8>, Access), Unreadable> {
        let path = self.join(text);
        let found = if self.open {
            read(&path, limit).inspect(|_| {
                self.used.borrow_mut().insert(path.clone());
            })
        } else {
            Err(Unreadable::new(&path, &ErrorKind::NotFound.into()))
        };
        found.map_err(|unreadable| {
            let known = reads_like_a_path(text) || (text.starts_with('/') && parent_exists(&path));
            if !unreadable.missing || known {
                return unreadable;
            }
            let message = format!(
                "there is no such file in {}; what stands here is not shown, since it may be a secret",
                quote(&self.path.display().to_string())
            );
            Unreadable { missing: true, message }
        })
    }
}

fn parent_exists(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.parent().is_some() && parent.is_dir())
}

/// The bytes of a file, and who may read it.
pub(super) fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, Access), Unreadable> {
    let failed = |error: std::io::Error| Unreadable::new(path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(ErrorKind::IsADirectory.into()));
    }
    let access = Access::new(&file, &metadata);
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let message =
            format!("{} is larger than {}", quote(&path.display().to_string()), bytesize::ByteSize(limit));
        return Err(Unreadable { missing: false, message });
    }
    Ok((bytes, access))
}

/// Adds how a file is made private, or what to do instead if its file system is read-only.
pub(super) fn hint_private(diagnostic: &mut Diagnostic, path: &str, access: Access, instead: &[String]) {
    if access.read_only {
        diagnostic.hint(
            "its file system is read-only: mount the file with mode 0400 (Kubernetes: `defaultMode: 0400`, Docker \
             Compose: `mode: 0400`)",
        );
    } else {
        diagnostic.hint(format!("run `chmod 600 {path}`"));
    }
    for hint in instead {
        diagnostic.hint(format!("or {hint}"));
    }
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

/// The text of a small file, without the mark at its beginning and the line breaks at its end.
///
/// # Errors
/// The encoding, if it is not UTF-8.
pub(super) fn small_text(bytes: Vec<u8>) -> Result<String, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16; save it as UTF-8");
    }
    let mut text = text(bytes).map_err(|_| "it is not UTF-8")?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

/// Returns why a text cannot be a secret. Names positions, never characters that may be part
/// of the secret.
pub(super) fn flaw_of_secret(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".into());
    }
    if text.contains(['\n', '\r']) {
        return Some("it holds more than one line".into());
    }
    if let Some(flaw) = flaw(text) {
        return Some(flaw);
    }
    let at = text.chars().position(char::is_whitespace)?;
    Some(format!("character {} is white space", at + 1))
}

/// The problem of a line that should hold printable text without quotes around it.
pub(super) fn flaw(text: &str) -> Option<String> {
    const QUOTES: [(char, char); 6] = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{201e}', '\u{201c}'),
        ('\u{2018}', '\u{2019}'),
    ];
    let mut chars = text.chars();
    if let (Some(first), Some(last)) = (chars.next(), chars.next_back())
        && QUOTES.contains(&(first, last))
    {
        return Some("it stands in quotes, which would be part of it; leave them out".into());
    }
    let at = text.chars().position(|c| !is_printable(c))?;
    let code = text.chars().nth(at).map_or(0, u32::from);
    Some(format!("character {} is not printable (U+{code:04X})", at + 1))
}

/// Returns whether a character is visible or a blank.
pub(super) fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(u32::from(c),
            // No-break and soft hyphen, zero-width and directional marks, line separators, fillers, tags.
            0xa0 | 0xad | 0x61c | 0x180e | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x3000 | 0xfeff
            | 0xfff9..=0xfffd | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_read_what_belongs_to_root() {
        let open = |mode, owner| Access { mode, owner, read_only: false }.open_to_others();
        for (mode, owner, expected) in [
            (0o600, 0, None),
            (0o600, 1000, None),
            (0o640, 0, None),
            (0o440, 0, None),
            (0o640, 1000, Some(0o640)),
            (0o644, 0, Some(0o644)),
            (0o604, 1000, Some(0o604)),
            (0o622, 1000, None),
        ] {
            assert_eq!(open(mode, owner), expected, "{mode:o} {owner}");
        }
    }

    #[test]
    fn secrets_on_a_read_only_file_system_need_another_way() {
        let mut diagnostic = Diagnostic::new(super::super::Level::Error, "x");
        let access = Access { mode: 0o444, owner: 0, read_only: true };
        hint_private(&mut diagnostic, "/run/secrets/x", access, &["set the variable X".into()]);
        assert_eq!(diagnostic.hints.len(), 2);
        assert!(diagnostic.hints[0].contains("mode 0400") && !diagnostic.hints[0].contains("chmod"));
        assert_eq!(diagnostic.hints[1], "or set the variable X");
    }

    #[test]
    fn small_texts_lose_their_mark_and_line_ends() {
        let text = |bytes: &[u8]| small_text(bytes.to_vec());
        assert_eq!(text(b"\xef\xbb\xbfabc\r\n\r\n").as_deref(), Ok("abc"));
        assert_eq!(text(b"abc").as_deref(), Ok("abc"));
        assert_eq!(text(b"a\nb\n").as_deref(), Ok("a\nb"));
        assert_eq!(text(b"\xff\xfea\0"), Err("it is UTF-16; save it as UTF-8"));
        assert_eq!(text(b"a\xff"), Err("it is not UTF-8"));
    }

    #[test]
    fn flaws_of_secrets_are_told_by_position() {
        for (text, expected) in [
            ("", "it is empty"),
            ("a\nb", "it holds more than one line"),
            ("\"abc\"", "it stands in quotes, which would be part of it; leave them out"),
            ("\u{201c}abc\u{201d}", "it stands in quotes, which would be part of it; leave them out"),
            ("ab\u{200b}c", "character 3 is not printable (U+200B)"),
            ("\u{1b}c", "character 1 is not printable (U+001B)"),
            ("ab c", "character 3 is white space"),
            ("ab\tc", "character 3 is not printable (U+0009)"),
        ] {
            assert_eq!(flaw_of_secret(text).as_deref(), Some(expected), "{text:?}");
        }
        for fine in ["abc", "a\"b", "\"", "pässword"] {
            assert_eq!(flaw_of_secret(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_bare_file_name_has_the_working_directory_as_its_folder() {
        let here = std::env::current_dir().expect("a working directory");
        for file in ["dev.toml", "./dev.toml"] {
            assert_eq!(Folder::of(Path::new(file)).path(), here, "{file}");
        }
        assert_eq!(Folder::of(Path::new("/etc/y/a.toml")).path(), Path::new("/etc/y"));
    }
}
