//! The configuration of `run --sandbox` without a file.
//!
//! The configuration is written to a file in the folder of the sandboxes' state, so that other commands find this sandbox by
//! the same rules as any other.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::args::{Args, Command};
use super::term::Failure;
use crate::config::{self, Environment, FileChoice, LoadOptions, Secrets};

const TEXT: &str = include_str!("built_in.toml");
const NAME: &str = "built-in.toml";

/// The path of the file: in the state directory that was named, else beside the sandboxes' own. `None` if there is no
/// place for state at all.
pub(super) fn path(state_dir: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    state_dir
        .map(Path::to_owned)
        .or_else(|| config::sandbox_folder(environment))
        .map(|folder| folder.join(NAME))
}

/// The built-in file, if the command is to use it in place of the choice, which nobody has named and which cannot be
/// opened.
pub(super) fn in_place_of(args: &Args, choice: &FileChoice, environment: &Environment) -> Option<PathBuf> {
    if choice.named {
        return None;
    }
    let missing = match File::open(&choice.path) {
        Ok(_) => return None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
        Err(_) => true,
    };
    let path = path(args.state_dir.as_deref(), environment)?;
    let is_used = match &args.command {
        Command::Run(run) => run.sandbox,
        Command::Init(_) | Command::Check(_) | Command::Plan(_) | Command::Authorize(_) => false,
        // A file that this user may not read is meant, unless this user runs the built-in one.
        _ => path.exists() && (missing || is_running(args, &path, environment)),
    };
    is_used.then_some(path)
}

fn is_running(args: &Args, path: &Path, environment: &Environment) -> bool {
    let options = LoadOptions {
        path: path.to_owned(),
        state_dir: args.state_dir.clone(),
        env: environment.clone(),
        sandbox: true,
        secrets: Secrets::Optional,
    };
    config::paths(&options).is_ok_and(|paths| UnixStream::connect(paths.socket).is_ok())
}

/// Writes the file, if this `run --sandbox` uses it.
pub(super) fn write(args: &Args) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let choice = config::choose_file(args.config.as_deref(), &environment);
    let Some(path) = in_place_of(args, &choice, &environment) else { return Ok(()) };
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, TEXT));
    written.map_err(|error| Failure::new(format!("cannot write {}", path.display())).caused_by(&error))?;
    args.say(&format!(
        "there is no {} that you can read, so the built-in configuration serves: {}; `eventsubd init` writes one of your own",
        choice.path.display(),
        path.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lies_where_the_state_is() {
        let environment = Environment::from_iter([("XDG_STATE_HOME", "/state")]);
        let expected = PathBuf::from("/state/eventsubd-sandbox/built-in.toml");
        assert_eq!(path(None, &environment), Some(expected));
        assert_eq!(path(Some("/mine".as_ref()), &environment), Some("/mine/built-in.toml".into()));
        assert_eq!(path(None, &Environment::default()), None);
    }

    #[test]
    fn the_text_is_a_valid_configuration_without_warnings() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), TEXT).unwrap();
        let options = LoadOptions {
            path: folder.path().join(NAME),
            state_dir: Some(folder.path().to_owned()),
            env: Environment::default(),
            sandbox: true,
            secrets: Secrets::Required,
        };
        let loaded = config::load(&options).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(loaded.config.subscriptions.len(), 15);
    }
}
