//! `eventsubd init`: a configuration file to begin with. No file is ever overwritten.

mod files;
mod from_twitch;
mod listing;

use std::path::PathBuf;

use self::files::{create_all, invocation};
use super::args::{Args, InitArgs};
use super::term::{self, Failure};

const BEGIN: &str = include_str!("begin.toml");
/// The file that is written when none is named.
const DEFAULT: &str = "eventsubd.toml";

pub(super) fn run(args: &Args, flags: &InitArgs) -> Result<u8, Failure> {
    let path = match (&flags.file, &args.config) {
        // The other file has the credentials.
        (Some(path), Some(_)) if flags.from_twitch => path.clone(),
        (Some(_), Some(_)) => {
            return Err(Failure::new("both FILE and --config name the file to write")
                .hint("leave one of them out")
                .code(2));
        }
        (Some(path), None) | (None, Some(path)) => path.clone(),
        (None, None) => PathBuf::from(DEFAULT),
    };
    if flags.from_twitch {
        return from_twitch::run(args, flags, &path);
    }
    let secret = create_all(&path, BEGIN, &[])?;
    let shown = path.display();
    let wrote = if secret.is_new {
        format!("wrote {shown} and {} (empty, mode 0600)", secret.path.display())
    } else {
        format!("wrote {shown}; {} was there already, and stays as it is", secret.path.display())
    };
    term::say(
        &invocation(args, &path),
        &format!(
            "{wrote}\n\n`eventsubd run --sandbox` tries it without an account. For Twitch:\n\n  1. register an application at \
             https://dev.twitch.tv/console/apps\n  2. write its client id into {shown}, and its secret into {}\n  3. \
             `eventsubd check --online` finds mistakes\n  4. `eventsubd run` starts the daemon",
            secret.path.display()
        ),
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::files::SECRET;
    use super::*;
    use crate::config::{self, Environment, LoadOptions, Secrets};

    #[test]
    fn the_file_to_begin_with_lacks_nothing_but_the_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bot.toml");
        create_all(&path, BEGIN, &[]).unwrap();
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
        assert!(!create_all(&path, "one", &[]).unwrap().is_new);
        let failure = create_all(&path, "two", &[]).unwrap_err();
        assert!(failure.text().contains("exists already"), "{}", failure.text());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_to_string(folder.path().join(SECRET)).unwrap(), "mine");
        // One file that is there keeps all from being written.
        let (other, taken) = (folder.path().join("b.toml"), folder.path().join("taken.txt"));
        fs::write(&taken, "mine").unwrap();
        create_all(&other, "x", &[(folder.path().join("free.txt"), String::new()), (taken, String::new())])
            .unwrap_err();
        assert!(!other.exists() && !folder.path().join("free.txt").exists());
    }
}
