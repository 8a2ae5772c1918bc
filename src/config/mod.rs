//! One file to one validated configuration.
//!
//! Owns the way from text to [`Config`]: layers, checks, expansion, and what is said about
//! problems. It never changes a file, never starts anything, and its messages never hold the text
//! of a secret. A load is one plain call that keeps nothing: whoever reloads compares the result
//! with what runs ([`diff()`]) and goes on with the old one after errors.
//!
//! The text is parsed once with the place of each key and value. Every check goes on after an
//! error, so that one report shows all problems of the file.

mod admin;
mod check;
mod diagnostic;
mod diff;
mod directories;
mod entry;
mod environment;
mod expand;
mod fields;
mod files;
mod input;
mod keys;
mod locate;
mod log;
mod login;
mod mask;
mod merge;
mod private;
mod problems;
mod schema;
mod secrets;
mod settings;
mod sinks;
mod source;
mod template;
mod types;
mod url;
mod value;
mod webhook;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::diagnostic::{Diagnostic, Level, Location, Related};
pub use self::diff::{Change, diff};
pub use self::directories::unit_directories;
pub use self::environment::Environment;
pub use self::locate::{FileChoice, absolute, choose_file, is_same_file};
pub use self::log::filter_problem;
pub use self::schema::{Key, Kind, keys};
pub use self::settings::{
    Admin, Conduit, Config, Format, Listen, Log, LogFormat, Method, Policy, Reconcile, ShardTransport, Sink,
    SinkKind, Store, TlsFiles, Twitch, Webhook,
};

use self::check::{Document, Layer};
use self::diagnostic::quote;
use self::files::{Access, Folder};
use self::login::Logins;
use self::merge::Merged;
use self::problems::{At, Problems};

/// The client id of a sandbox whose file has none.
const SANDBOX_CLIENT_ID: &str = "sandbox";

/// What is loaded, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The file.
    pub path: PathBuf,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// The variables that matter.
    pub env: Environment,
    /// Twitch is the sandbox: credentials are not needed, and the state is kept apart.
    pub sandbox: bool,
    /// Whether the client secret is needed.
    pub secrets: Secrets,
}

/// Whether the client secret is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// A secret that is missing or cannot be read is an error.
    Required,
    /// It is not.
    Optional,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What may not be as it was meant, by position.
    pub warnings: Vec<Diagnostic>,
}

/// Why a configuration cannot be used: all its problems.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    /// By position; at least one.
    pub errors: Vec<Diagnostic>,
    /// By position.
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for ConfigErrors {
    /// All problems, the errors first, each with its line and a caret, without colour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.errors.iter().chain(&self.warnings).enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where a daemon keeps its state and listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The state directory.
    pub state_directory: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
}

impl Paths {
    /// The paths of a daemon with `--state-dir`, for commands that were given no file.
    pub fn of_state_directory(directory: &Path) -> Self {
        Self { state_directory: directory.to_owned(), socket: directory.join(directories::SOCKET) }
    }
}

/// The paths that a daemon with this configuration has, for commands that talk to it or read its store. A file with
/// errors elsewhere has them all the same: a daemon runs on when its file is broken.
///
/// # Errors
/// The file cannot be read well enough to know which daemon is meant; there is no state directory; the path of the
/// socket is too long.
pub fn paths(options: &LoadOptions) -> Result<Paths, ConfigErrors> {
    let fail = |problems: Problems| {
        let (errors, _) = problems.into_sorted();
        ConfigErrors { errors, warnings: Vec::new() }
    };
    let mut problems = Problems::new();
    let document = read(options, &mut problems)
        .and_then(|(bytes, _)| input::add_text(&options.path, bytes, true, &mut problems))
        .and_then(|(text, source)| input::parse(&text, source, &mut problems));
    let Some(file) = document else { return Err(fail(problems)) };
    let variables = check::variables(&options.env, &mut problems);
    if file.layer.place_unknown || variables.place_unknown {
        return Err(fail(problems));
    }
    let Some(merged) = merge(&file.layer, &variables, options, &mut problems) else {
        return Err(fail(problems));
    };
    let mut problems = Problems::new();
    let (state_directory, socket) =
        directories::find(options, &merged, &Folder::of(&options.path), &mut problems);
    if problems.is_clean() { Ok(Paths { state_directory, socket }) } else { Err(fail(problems)) }
}

/// The bytes of the file, and who may read it.
fn read(options: &LoadOptions, problems: &mut Problems) -> Option<(Vec<u8>, Access)> {
    files::read(&options.path, files::MAX_FILE)
        .map_err(|unreadable| {
            let diagnostic = problems.error(At::Nowhere, unreadable.message);
            if unreadable.missing {
                diagnostic.hint("name another one with `--config FILE` or in $EVENTSUBD_CONFIG");
            }
        })
        .ok()
}

fn merge(file: &Layer, variables: &Layer, options: &LoadOptions, problems: &mut Problems) -> Option<Merged> {
    merge::merge(file, variables, &options.env)
        .map_err(|error| {
            problems.error(At::Nowhere, format!("the layers do not fit together: {error}"));
        })
        .ok()
}

/// Reads and checks a configuration with all the files that it names. Blocks on the disk.
///
/// # Errors
/// All problems of the file, of the files that it names, and of the environment.
pub fn load(options: &LoadOptions) -> Result<Loaded, ConfigErrors> {
    let mut problems = Problems::new();
    let config = read(options, &mut problems).and_then(|(bytes, access)| {
        let folder = Folder::of(&options.path);
        build(bytes, &Around { options, access, folder: &folder }, &mut problems)
    });
    finish(config, problems)
}

/// Checks the text of a configuration alone: no file that it names and no variable is looked at, so that files which
/// it needs count as missing. For fuzzing.
///
/// # Errors
/// All problems of the text.
pub fn check_text(text: &[u8]) -> Result<Loaded, ConfigErrors> {
    let options = LoadOptions {
        path: "config.toml".into(),
        state_dir: Some("/state".into()),
        env: Environment::default(),
        sandbox: false,
        secrets: Secrets::Optional,
    };
    let mut problems = Problems::new();
    let around = Around { options: &options, access: Access::PRIVATE, folder: &Folder::closed() };
    let config = build(text.to_vec(), &around, &mut problems);
    finish(config, problems)
}

/// The configuration if it has no error, with all that was found.
fn finish(config: Option<Config>, problems: Problems) -> Result<Loaded, ConfigErrors> {
    let config = config.filter(|_| problems.is_clean());
    let (mut errors, warnings) = problems.into_sorted();
    match config {
        Some(config) => Ok(Loaded { config, warnings }),
        None => {
            if errors.is_empty() {
                errors.push(Diagnostic::new(Level::Error, "the configuration could not be read"));
            }
            Err(ConfigErrors { errors, warnings })
        }
    }
}

/// The file that a configuration is built from, apart from its text.
struct Around<'a> {
    options: &'a LoadOptions,
    access: Access,
    folder: &'a Folder,
}

fn build(bytes: Vec<u8>, around: &Around<'_>, problems: &mut Problems) -> Option<Config> {
    let Around { options, access, folder } = *around;
    let path = &options.path;
    let (text, source) = input::add_text(path, bytes, true, problems)?;
    let Document { layer: file, entries } = input::parse(&text, source, problems)?;
    let variables = check::variables(&options.env, problems);
    let merged = merge(&file, &variables, options, problems)?;

    let client_id = client_id(options, &merged, &file, &variables, problems);
    let search = secrets::Search {
        file: &file,
        variables: &variables,
        environment: &options.env,
        path,
        access,
        folder,
        secret_file: merged.twitch.client_secret_file.as_deref(),
        secrets: options.secrets,
    };
    let (client_secret, client_secret_source) =
        if options.sandbox { (None, "the sandbox".to_owned()) } else { search.run(problems) };
    check_log_level(&merged.log.level, &file, &variables, problems);
    let (state_directory, socket) = directories::find(options, &merged, folder, problems);
    let admin = admin::find(&merged.admin, &file, &variables, folder, problems);

    let method = merged.transport.method;
    let shard_transport = merged.transport.conduit.shard_transport;
    let webhook_around = webhook::Around {
        file: &file,
        variables: &variables,
        folder,
        used_by: match (method, shard_transport) {
            (Method::Webhook, _) => Some("transport.method"),
            (Method::Conduit, ShardTransport::Webhook) => Some("transport.conduit.shard_transport"),
            (Method::Conduit, ShardTransport::WebSocket) => None,
        },
        local: options.sandbox || url::of_this_machine(&merged.twitch.api_url),
    };
    let webhook = webhook::build(&merged.transport.webhook, &webhook_around, problems);

    let mut logins = Logins::default();
    let login_files = input::read_login_files(&entries, folder, &mut logins, problems);
    let names = sinks::names(&file, &variables);
    let input = expand::Input {
        entries: &entries,
        files: &login_files,
        client_id: client_id.as_deref(),
        method,
        sinks: &names,
    };
    let subscriptions = expand::expand(&input, &mut logins, problems);
    if entries.is_empty() && problems.is_clean() {
        problems
            .warning(At::Nowhere, format!("{} asks for no subscription", quote(&path.display().to_string())))
            .hint("add one with `[[subscription]]`, `type` and `broadcaster`");
    }
    let around = sinks::Around {
        file: &file,
        variables: &variables,
        folder,
        access,
        path,
        environment: &options.env,
        subscriptions: if problems.is_clean() { &subscriptions } else { &[] },
    };
    let sinks = sinks::build(merged.sink, &around, problems);

    Some(Config {
        twitch: Twitch {
            client_id: client_id?,
            client_secret,
            client_secret_source,
            auth_url: without_slash(merged.twitch.auth_url),
            api_url: without_slash(merged.twitch.api_url),
            eventsub_url: without_slash(merged.twitch.eventsub_url),
            validate_interval: merged.twitch.validate_interval,
            watch_grants: merged.twitch.watch_grants,
        },
        reconcile: Reconcile {
            interval: merged.reconcile.interval,
            policy: merged.reconcile.policy,
            max_delete: merged.reconcile.max_delete,
        },
        method,
        webhook,
        conduit: Conduit {
            shards: merged.transport.conduit.shards,
            shard_transport,
            id: merged.transport.conduit.id,
            keepalive: merged.transport.conduit.keepalive,
        },
        subscriptions,
        sinks,
        store: Store { retain: merged.store.retain, max_size: merged.store.max_size },
        state_directory,
        socket,
        admin,
        log: Log { level: merged.log.level, format: merged.log.format },
    })
}

fn client_id(
    options: &LoadOptions,
    merged: &Merged,
    file: &Layer,
    variables: &Layer,
    problems: &mut Problems,
) -> Option<String> {
    const PATH: &str = "twitch.client_id";
    match &merged.twitch.client_id {
        Some(id) if id.bytes().all(|b| b.is_ascii_graphic()) => Some(id.clone()),
        Some(_) => {
            let value = variables.values.get(PATH).or_else(|| file.values.get(PATH));
            problems
                .error(
                    value.map_or(At::Nowhere, |(_, at)| at.clone()),
                    format!("`{PATH}` may only hold letters, digits and signs"),
                )
                .hint("copy it from https://dev.twitch.tv/console");
            None
        }
        None if options.sandbox => Some(SANDBOX_CLIENT_ID.to_owned()),
        None => {
            // A key that is there, but wrong, has been reported.
            if !file.seen.contains_key(PATH) && !variables.seen.contains_key(PATH) {
                let at = file.sections.get("twitch").cloned().unwrap_or(At::Nowhere);
                problems.error(at, format!("`{PATH}` is missing")).hint(
                    "make an application at https://dev.twitch.tv/console, and set `client_id` in `[twitch]`",
                );
            }
            None
        }
    }
}

/// What is wrong with the filter of log lines, and where; the filter of `RUST_LOG` has its own check.
fn check_log_level(level: &str, file: &Layer, variables: &Layer, problems: &mut Problems) {
    const PATH: &str = "log.level";
    let value = variables.values.get(PATH).or_else(|| file.values.get(PATH));
    let at = value.map_or(At::Nowhere, |(_, at)| at.clone());
    for complaint in log::complaints(level) {
        let diagnostic = problems.error(&at, complaint.message);
        diagnostic.hints.extend(complaint.hint);
    }
    if problems.is_clean()
        && let Some(remark) = log::remark(level)
    {
        problems.warning(&at, remark.message).hints.extend(remark.hint);
    }
}

fn without_slash(mut url: String) -> String {
    url.truncate(url.trim_end_matches('/').len());
    url
}
