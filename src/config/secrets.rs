//! Finding the client secret: the environment, systemd's credential, a file, the file itself.
//!
//! Its text must never come into a message; a path that looks like a secret is not shown either.

use std::fs::Metadata;
use std::path::Path;

use crate::model::secret::Secret;

use super::check::{Layer, SECRET_PATH};
use super::environment::Environment;
use super::files::{self, open_to_others};
use super::mask::looks_like_secret;
use super::problems::{At, Problems};
use super::{Secrets, diagnostic::quote};

/// The name of systemd's credential.
const CREDENTIAL: &str = "client_secret";
const VARIABLE: &str = "EVENTSUBD_TWITCH__CLIENT_SECRET";
const FILE_PATH: &str = "twitch.client_secret_file";
/// Twitch's secrets have 30 characters.
const MAX_SECRET: u64 = 4096;
/// The largest file with secrets of a sink.
const MAX_PRIVATE: u64 = 64 << 10;

/// What the layers say about the secret.
pub(super) struct Search<'a> {
    pub(super) file: &'a Layer,
    pub(super) variables: &'a Layer,
    pub(super) environment: &'a Environment,
    /// The configuration file.
    pub(super) path: &'a Path,
    pub(super) metadata: &'a Metadata,
    /// `twitch.client_secret_file`.
    pub(super) secret_file: Option<&'a str>,
    pub(super) secrets: Secrets,
}

impl Search<'_> {
    /// The secret, if there is one, and where it comes from.
    pub(super) fn run(&self, problems: &mut Problems) -> (Option<Secret>, String) {
        self.check_inline(problems);
        if let Some((secret, _)) = &self.variables.secret {
            let found = one_line(secret.expose()).map(|()| secret.clone());
            return (report(found, VARIABLE, &At::Variable(VARIABLE.into()), problems), VARIABLE.into());
        }
        if let Some(directory) = self.environment.directory("CREDENTIALS_DIRECTORY") {
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
        if let Some((secret, at)) = &self.file.secret {
            let found = one_line(secret.expose()).map(|()| secret.clone());
            return (report(found, "`twitch.client_secret`", at, problems), self.path.display().to_string());
        }
        // A key that is there, but wrong, has been reported.
        let tried =
            |layer: &Layer| layer.seen.contains_key(SECRET_PATH) || layer.seen.contains_key(FILE_PATH);
        if self.secrets == Secrets::Required && !tried(self.file) && !tried(self.variables) {
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
        let Some(at) = self.file.seen.get(SECRET_PATH) else { return };
        if let Some(mode) = open_to_others(self.metadata) {
            let path = self.path.display().to_string();
            problems
                .error(
                    at,
                    format!(
                        "{} holds the client secret, and others can read it (mode {mode:04o})",
                        quote(&path)
                    ),
                )
                .hint(format!("run `chmod 600 {path}`"))
                .hint("or move the secret into a file of its own: `client_secret_file`");
        }
        if let Some(other) = self.file.seen.get(FILE_PATH) {
            problems
                .pair(
                    super::Level::Error,
                    at,
                    "`client_secret` and `client_secret_file` are both given",
                    (other, "the file"),
                )
                .hint("keep one of them");
        }
    }

    fn in_file(&self, text: &str, problems: &mut Problems) -> (Option<Secret>, String) {
        let path = self.path.parent().unwrap_or(Path::new("")).join(text);
        let at = self.variables.values.get(FILE_PATH).or_else(|| self.file.values.get(FILE_PATH));
        let at = at.map_or(At::Nowhere, |(_, at)| at.clone());
        let (bytes, metadata) = match files::read(&path, MAX_SECRET) {
            Ok(read) => read,
            Err(_) if self.secrets == Secrets::Optional => return (None, path.display().to_string()),
            Err(_) if looks_like_secret(text) => {
                problems
                    .error(at, "`twitch.client_secret_file` looks like the secret itself, and must be a path")
                    .hint(
                        "write the secret into a file that only its owner can read, and name that file here",
                    );
                return (None, FILE_PATH.into());
            }
            Err(unreadable) => {
                let diagnostic = problems.error(at, format!("no client secret: {}", unreadable.message));
                if unreadable.missing {
                    diagnostic.hint("the path is relative to the directory of the configuration file");
                }
                return (None, path.display().to_string());
            }
        };
        let name = path.display().to_string();
        check_mode(&name, &metadata, "the client secret", &at, problems);
        (report(parse(bytes), &name, &at, problems), name)
    }
}

/// Reads a file of the configuration that only its owner may read. `what` it holds is named in messages.
pub(super) fn private_file(
    text: &str,
    base: &Path,
    at: &At,
    what: &str,
    problems: &mut Problems,
) -> Option<String> {
    let path = base.join(text);
    let (bytes, metadata) = files::read(&path, MAX_PRIVATE)
        .map_err(|unreadable| {
            let diagnostic = problems.error(at, unreadable.message);
            if unreadable.missing {
                diagnostic.hint("the path is relative to the directory of the configuration file");
            }
        })
        .ok()?;
    let name = path.display().to_string();
    check_mode(&name, &metadata, what, at, problems);
    let text = files::text(bytes).ok();
    if text.is_none() {
        problems.error(at, format!("{} is not UTF-8", quote(&name)));
    }
    text
}

/// A file with a secret must be for its owner's eyes only.
fn check_mode(name: &str, metadata: &Metadata, what: &str, at: &At, problems: &mut Problems) {
    if let Some(mode) = open_to_others(metadata) {
        problems
            .error(at, format!("{} holds {what}, and others can read it (mode {mode:04o})", quote(name)))
            .hint(format!("run `chmod 600 {name}`"));
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

/// The secret in a file; its line may have an end.
fn parse(bytes: Vec<u8>) -> Result<Secret, String> {
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    one_line(line)?;
    Ok(Secret::new(line))
}

fn one_line(text: &str) -> Result<(), String> {
    match text {
        "" => Err("it is empty".into()),
        _ if text.contains('\n') => Err("it holds more than one line".into()),
        _ if text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Err("it holds white space or control characters".into())
        }
        _ => Ok(()),
    }
}
