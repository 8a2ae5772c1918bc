//! `eventsubd init`: a configuration file to begin with. No file is ever overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::args::{Args, InitArgs};
use super::term::{self, Failure};
use crate::config::{self, Environment};
use crate::model::invocation::Invocation;

const BEGIN: &str = include_str!("begin.toml");
/// The file that is written when none is named.
const DEFAULT: &str = "eventsubd.toml";
/// The file of the client secret, beside the configuration.
const SECRET: &str = "client_secret";

/// `eventsubd init`
pub(super) fn run(args: &Args, flags: &InitArgs) -> Result<u8, Failure> {
    let path = match (&flags.file, &args.config) {
        (Some(_), Some(_)) => {
            return Err(Failure::new("both FILE and --config name the file to write")
                .hint("leave one of them out")
                .code(2));
        }
        (Some(path), None) | (None, Some(path)) => path.clone(),
        (None, None) => PathBuf::from(DEFAULT),
    };
    let written = write(&path, BEGIN)?;
    let invocation = invocation(args, &path);
    term::say(
        &invocation,
        &format!(
            "{}\n\n`eventsubd run --sandbox` tries it without an account. For Twitch:\n\n  1. register an application at \
             https://dev.twitch.tv/console/apps\n  2. write its client id into {}, and its secret into {}\n  3. `eventsubd \
             check --online` finds mistakes\n  4. `eventsubd run` starts the daemon",
            written.sentence(&path),
            path.display(),
            written.secret.display()
        ),
    );
    Ok(0)
}

/// How commands find the file: without a flag if it is the one that they take by themselves here.
fn invocation(args: &Args, path: &Path) -> Invocation {
    let usual = config::choose_file(None, &Environment::from_process()).path;
    let is_usual = config::is_same_file(&config::absolute(&usual), &config::absolute(path));
    Invocation::new((!is_usual).then_some(path), args.state_dir.as_deref())
}

/// The files that there are now.
#[derive(Debug)]
struct Written {
    secret: PathBuf,
    /// The secret's file is new, and empty.
    is_secret_new: bool,
}

impl Written {
    fn sentence(&self, path: &Path) -> String {
        if self.is_secret_new {
            format!("wrote {} and {} (empty, mode 0600)", path.display(), self.secret.display())
        } else {
            format!(
                "wrote {}; {} was there already, and stays as it is",
                path.display(),
                self.secret.display()
            )
        }
    }
}

/// Writes a new configuration file, and an empty one for the secret unless there is one; both, or nothing.
fn write(path: &Path, text: &str) -> Result<Written, Failure> {
    create(path, text, 0o644).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{} exists already, and is not overwritten", path.display()))
                .hint("name another file to write: `eventsubd init FILE`")
        }
        io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            Failure::new(format!("there is no folder {} to write into", folder.display()))
        }
        _ => Failure::new(format!("cannot write {}", path.display())).caused_by(&error),
    })?;
    let secret = path.with_file_name(SECRET);
    let is_secret_new = match create(&secret, "", 0o600) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            let _ = fs::remove_file(path);
            return Err(Failure::new(format!("cannot write {}", secret.display())).caused_by(&error));
        }
    };
    Ok(Written { secret, is_secret_new })
}

/// Creates a file that must not exist; one that cannot be written whole is removed again.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, Secrets};

    #[test]
    fn the_file_to_begin_with_lacks_nothing_but_the_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bot.toml");
        write(&path, BEGIN).unwrap();
        let load = |sandbox| {
            config::load(&LoadOptions {
                path: path.clone(),
                state_dir: Some(folder.path().join("state")),
                env: Environment::default(),
                sandbox,
                secrets: Secrets::Required,
            })
        };
        let loaded = load(true).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let errors = load(false).unwrap_err().to_string();
        assert_eq!(errors.matches("error:").count(), 2, "{errors}");
        for expected in ["`twitch.client_id` is missing", "client_secret", "is empty"] {
            assert!(errors.contains(expected), "{errors}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        fs::write(folder.path().join(SECRET), "mine").unwrap();
        assert!(!write(&path, "one").unwrap().is_secret_new);
        let failure = write(&path, "two").unwrap_err();
        assert!(failure.text().contains("exists already"), "{}", failure.text());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_to_string(folder.path().join(SECRET)).unwrap(), "mine");
        // A secret that cannot be written leaves no half of the pair behind.
        fs::create_dir(folder.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", folder.path().join("d").join(SECRET)).unwrap();
        let kept = write(&folder.path().join("d/b.toml"), "x").unwrap();
        assert!(!kept.is_secret_new, "a link counts as a file that is there");
    }
}
