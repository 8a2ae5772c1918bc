//! Which file is meant, and whether two paths lead to the same one.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Environment;
use crate::model::hex;

/// The file of the systemd unit.
const SYSTEM: &str = "/etc/eventsubd/config.toml";
/// The file in the current folder.
const HERE: &str = "eventsubd.toml";
/// Characters of a file's name that its mark begins with.
const NAME: usize = 16;

/// The configuration file that a command works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChoice {
    pub path: PathBuf,
    /// Whether a flag or a variable names the file. Other files need not exist.
    pub named: bool,
    /// A file in the current folder that was passed over because it belongs to another user.
    pub passed_over: Option<PathBuf>,
}

impl FileChoice {
    /// Whether this is the default file of every command.
    pub fn is_of_the_system(&self) -> bool {
        self.path == Path::new(SYSTEM)
    }
}

/// The file that `--config` names, else `$EVENTSUBD_CONFIG`, else `./eventsubd.toml` if it belongs to this user or to
/// root, else the one of the systemd unit.
pub fn choose_file(given: Option<&Path>, env: &Environment) -> FileChoice {
    choose_in(Path::new("."), given, env)
}

fn choose_in(folder: &Path, given: Option<&Path>, env: &Environment) -> FileChoice {
    let named = given.map(Path::to_owned).or_else(|| env.get("EVENTSUBD_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        return FileChoice { path, named: true, passed_over: None };
    }
    let here = folder.join(HERE);
    match is_trusted(&here) {
        Some(true) => FileChoice { path: here, named: false, passed_over: None },
        Some(false) => FileChoice { path: SYSTEM.into(), named: false, passed_over: Some(here) },
        None => FileChoice { path: SYSTEM.into(), named: false, passed_over: None },
    }
}

/// Whether nobody but this user and root can have put the file there; `None` without one. A link counts as well as
/// what it leads to.
fn is_trusted(path: &Path) -> Option<bool> {
    let me = rustix::process::geteuid().as_raw();
    let trusts = |owner| owner == me || owner == 0;
    let link = fs::symlink_metadata(path).ok()?;
    // A link that leads nowhere is taken, so that reading it tells.
    Some(trusts(link.uid()) && fs::metadata(path).map_or(true, |target| trusts(target.uid())))
}

/// The path from the root on. Links stay, as what they lead to may change while the path stays the same.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether both paths, which start at the root, lead to the same file: by their spelling, or by what they lead to now.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// A name for the file that no other file has, the same for every spelling of its path.
pub(super) fn mark(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| absolute(path));
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(NAME).collect();
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let digest = hex::encode(&digest[..6]);
    if name.is_empty() { digest } else { format!("{name}-{digest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_looked_for_in_the_order_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Environment::default();
        let variable = Environment::from_iter([("EVENTSUBD_CONFIG", "variable.toml")]);
        let choose = |given: Option<&str>, env| {
            let FileChoice { path, named, passed_over } = choose_in(folder.path(), given.map(Path::new), env);
            assert_eq!(passed_over, None);
            (path, named)
        };
        assert_eq!(choose(None, &nothing), (SYSTEM.into(), false));
        let here = folder.path().join(HERE);
        fs::write(&here, "").unwrap();
        assert_eq!(choose(None, &nothing), (here, false));
        assert_eq!(choose(None, &variable), ("variable.toml".into(), true));
        assert_eq!(choose(Some("given.toml"), &variable), ("given.toml".into(), true));
    }

    #[test]
    fn a_file_of_another_user_is_passed_over() {
        if !rustix::process::geteuid().is_root() {
            // Only root can give a file away.
            assert_eq!(is_trusted(Path::new("/etc/passwd")), Some(true));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join(HERE);
        let chosen = || choose_in(folder.path(), None, &Environment::default());
        let system = FileChoice { path: SYSTEM.into(), named: false, passed_over: Some(here.clone()) };
        fs::write(&here, "").unwrap();
        std::os::unix::fs::chown(&here, Some(12_345), None).unwrap();
        assert_eq!(chosen(), system);
        // Neither does a link of theirs lead to a file of ours.
        fs::remove_file(&here).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &here).unwrap();
        assert_eq!(chosen().path, here);
        std::os::unix::fs::lchown(&here, Some(12_345), None).unwrap();
        assert_eq!(chosen(), system);
    }

    #[test]
    fn a_file_is_the_same_by_every_path_that_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("d")).unwrap();
        for name in ["a.toml", "b.toml"] {
            fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink("a.toml", path("link.toml")).unwrap();
        for name in ["a.toml", "d/../a.toml", "./a.toml", "link.toml"] {
            assert!(is_same_file(&path("a.toml"), &path(name)), "{name}");
            assert_eq!(mark(&path(name)), mark(&path("a.toml")), "{name}");
        }
        assert!(!is_same_file(&path("a.toml"), &path("b.toml")));
        assert_ne!(mark(&path("a.toml")), mark(&path("b.toml")));
        assert!(mark(&path("a.toml")).starts_with("a-"), "{}", mark(&path("a.toml")));
        // A path whose file is replaced, as a link is by a deploy, goes on being the same.
        fs::remove_file(path("link.toml")).unwrap();
        assert!(is_same_file(&path("link.toml"), &path("link.toml")));
        assert!(!is_same_file(&path("link.toml"), &path("gone.toml")));
    }
}
