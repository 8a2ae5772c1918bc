//! The files that `init` writes: new ones only, all or none.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::args::Args;
use crate::cli::term::Failure;
use crate::config::{self, Environment};
use crate::model::invocation::Invocation;

/// The file of the client secret, beside the configuration.
pub(super) const SECRET: &str = "client_secret";

/// How commands find the file: without a flag if it is the one that they take by themselves here.
pub(super) fn invocation(args: &Args, path: &Path) -> Invocation {
    let usual = config::choose_file(None, &Environment::from_process()).path;
    let is_usual = config::is_same_file(&config::absolute(&usual), &config::absolute(path));
    Invocation::new((!is_usual).then_some(path), args.state_dir.as_deref())
}

/// The file for the client secret.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) path: PathBuf,
    pub(super) is_new: bool,
}

impl Secret {
    pub(super) fn is_empty(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() == 0)
    }
}

pub(super) fn exists(path: &Path) -> Failure {
    Failure::new(format!("{} exists already, and is not overwritten", path.display()))
        .hint("name another file to write: `eventsubd init FILE`")
}

/// Writes a new configuration file, files that belong to it, and an empty one for the secret unless there is one: all,
/// or none.
pub(super) fn create_all(path: &Path, text: &str, others: &[(PathBuf, String)]) -> Result<Secret, Failure> {
    let failed = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        io::ErrorKind::NotFound => Failure::new(format!(
            "there is no folder {} to write into",
            path.parent().unwrap_or(path).display()
        )),
        _ => Failure::new(format!("cannot write {}", path.display())).caused_by(error),
    };
    let mut made: Vec<&Path> = Vec::new();
    let undo = |made: &[&Path], failure: Failure| {
        for path in made {
            let _ = fs::remove_file(path);
        }
        failure
    };
    let others = others.iter().map(|(path, text)| (path.as_path(), text.as_str()));
    for (path, text) in std::iter::once((path, text)).chain(others) {
        create(path, text, 0o644).map_err(|error| undo(&made, failed(path, &error)))?;
        made.push(path);
    }
    let secret = path.with_file_name(SECRET);
    match create(&secret, "", 0o600) {
        Ok(()) => Ok(Secret { path: secret, is_new: true }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(Secret { path: secret, is_new: false })
        }
        Err(error) => Err(undo(&made, failed(&secret, &error))),
    }
}

/// Creates a file that must not exist; one that cannot be written whole is removed again.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}
