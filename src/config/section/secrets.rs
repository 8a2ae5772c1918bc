//! Finding the client secret: the environment, systemd's credential, a file, the file itself.
//!
//! The secret must never come into a message; a path that may be the secret itself is not shown either.

use std::path::Path;

use crate::model::secret::Secret;

use crate::config::files::{self, Access, Folder};
use crate::config::keys::environment::Environment;
use crate::config::keys::layers::Layers;
use crate::config::keys::table::SECRET_PATH;
use crate::config::options::Secrets;
use crate::config::report::diagnostic::{Level, quote};
use crate::config::report::problems::{At, Problems};

/// The name of systemd's credential.
const CREDENTIAL: &str = "client_secret";
const VARIABLE: &str = "EVENTSUBD_TWITCH__CLIENT_SECRET";
const FILE_PATH: &str = "twitch.client_secret_file";
/// Twitch's secrets have 30 characters.
const MAX_SECRET: u64 = 4096;
/// Hint about relative paths.
pub(in crate::config) const RELATIVE: &str =
    "the path is relative to the directory of the configuration file";
/// The largest file with secrets of a sink.
const MAX_PRIVATE: u64 = 64 << 10;

/// Everything that the search for the client secret looks at.
pub(in crate::config) struct Search<'a> {
    pub(in crate::config) layers: &'a Layers,
    pub(in crate::config) environment: &'a Environment,
    /// The configuration file.
    pub(in crate::config) path: &'a Path,
    pub(in crate::config) access: Access,
    pub(in crate::config) folder: &'a Folder,
    /// `twitch.client_secret_file`.
    pub(in crate::config) secret_file: Option<&'a str>,
    pub(in crate::config) secrets: Secrets,
}

impl Search<'_> {
    /// The secret, if there is one, and where it comes from.
    pub(in crate::config) fn run(&self, problems: &mut Problems) -> (Option<Secret>, String) {
        self.check_inline(problems);
        if let Some(secret) = self.layers.secret_in_environment() {
            let found = one_line(secret.expose());
            return (report(found, VARIABLE, &At::Variable(VARIABLE.into()), problems), VARIABLE.into());
        }
        if let Some(directory) =
            self.environment.directory("CREDENTIALS_DIRECTORY").filter(|_| self.folder.is_open())
        {
            let path = directory.join(CREDENTIAL);
            match files::read(&path, MAX_SECRET) {
                Err(unreadable) if unreadable.missing => {}
                other => {
                    let name = path.display().to_string();
                    let found = match other {
                        Ok((bytes, _)) => parse(bytes),
                        Err(unreadable) if self.secrets == Secrets::Required => Err(unreadable.message),
                        Err(_) => return (None, name),
                    };
                    return (report(found, &name, &At::Nowhere, problems), name);
                }
            }
        }
        if let Some(text) = self.secret_file {
            return self.in_file(text, problems);
        }
        if let Some((secret, at)) = self.layers.secret_in_file() {
            let found = one_line(secret.expose());
            return (report(found, "`twitch.client_secret`", at, problems), self.path.display().to_string());
        }
        // A key that is there, but wrong, has been reported.
        let is_tried = [SECRET_PATH, FILE_PATH].iter().any(|path| self.layers.seen(path).is_some());
        if self.secrets == Secrets::Required && !is_tried {
            problems
                .error(At::Nowhere, "there is no client secret")
                .hint(format!("set `client_secret_file` in `[twitch]` of {}", self.path.display()))
                .hint(format!("or set the environment variable {VARIABLE}"))
                .hint(format!("or, under systemd, use `LoadCredential={CREDENTIAL}:PATH`"));
        }
        (None, VARIABLE.into())
    }

    /// A secret in the file must be for its owner's eyes only, whether it is used or not.
    fn check_inline(&self, problems: &mut Problems) {
        let Some(at) = self.layers.seen_in_file(SECRET_PATH) else { return };
        if let Some(mode) = self.access.open_to_others() {
            let path = self.path.display().to_string();
            let message =
                format!("{} holds the client secret, and others can read it (mode {mode:04o})", quote(&path));
            let instead = [
                "move the secret into a file of its own: `client_secret_file`".to_owned(),
                format!("take it out, and set the environment variable {VARIABLE}"),
            ];
            files::hint_private(problems.error(at, message), &path, self.access, &instead);
        }
        if let Some(other) = self.layers.seen_in_file(FILE_PATH) {
            problems
                .pair(
                    Level::Error,
                    at,
                    "`client_secret` and `client_secret_file` are both given",
                    (other, "the file"),
                )
                .hint("keep one of them");
        }
    }

    fn in_file(&self, text: &str, problems: &mut Problems) -> (Option<Secret>, String) {
        let path = self.folder.join(text);
        let at = self.layers.place(FILE_PATH);
        let (bytes, access) = match self.folder.read(text, MAX_SECRET) {
            Ok(read) => read,
            Err(_) if self.secrets == Secrets::Optional => return (None, FILE_PATH.into()),
            Err(unreadable) => {
                let diagnostic = problems.error(at, format!("no client secret: {}", unreadable.message));
                if unreadable.missing {
                    diagnostic
                        .hint("write the secret into a file that only its owner can read, and name that file here")
                        .hint(RELATIVE);
                }
                return (None, FILE_PATH.into());
            }
        };
        let name = path.display().to_string();
        let instead = [
            format!("leave the key out, and set the environment variable {VARIABLE}"),
            format!("under systemd, use `LoadCredential={CREDENTIAL}:PATH`"),
        ];
        check_access(&name, access, "the client secret", &at, &instead, problems);
        (report(parse(bytes), &name, &at, problems), name)
    }
}

/// Reads a small file of the configuration that only its owner may read. `what` it holds is named in messages. The
/// text comes without the mark at its beginning and the line breaks at its end.
pub(in crate::config) fn private_file(
    text: &str,
    folder: &Folder,
    at: &At,
    what: &str,
    problems: &mut Problems,
) -> Option<String> {
    let (bytes, access) = folder
        .read(text, MAX_PRIVATE)
        .map_err(|unreadable| {
            let diagnostic = problems.error(at, unreadable.message);
            if unreadable.missing {
                diagnostic.hint(RELATIVE);
            }
        })
        .ok()?;
    let name = folder.join(text).display().to_string();
    let instead =
        ["load it with systemd's `LoadCredential=NAME:PATH`, and name `/run/credentials/UNIT/NAME` here"
            .to_owned()];
    check_access(&name, access, what, at, &instead, problems);
    files::small_text(bytes).map_err(|flaw| problems.error(at, format!("{}: {flaw}", quote(&name)))).ok()
}

/// A file with a secret must be for its owner's eyes only.
pub(in crate::config) fn check_access(
    name: &str,
    access: Access,
    what: &str,
    at: &At,
    instead: &[String],
    problems: &mut Problems,
) {
    if let Some(mode) = access.open_to_others() {
        let message = format!("{} holds {what}, and others can read it (mode {mode:04o})", quote(name));
        files::hint_private(problems.error(at, message), name, access, instead);
    }
}

fn report(found: Result<Secret, String>, name: &str, at: &At, problems: &mut Problems) -> Option<Secret> {
    found
        .map_err(|message| {
            let name = if name.starts_with('`') { name.to_owned() } else { quote(name) };
            problems
                .error(at, format!("no client secret in {name}: {message}"))
                .hint("it is shown once, by \"New Secret\" at https://dev.twitch.tv/console");
        })
        .ok()
}

/// The secret in a file.
fn parse(bytes: Vec<u8>) -> Result<Secret, String> {
    one_line(&files::small_text(bytes)?)
}

fn one_line(text: &str) -> Result<Secret, String> {
    match files::flaw_of_secret(text) {
        Some(flaw) => Err(flaw),
        None => Ok(Secret::new(text)),
    }
}
