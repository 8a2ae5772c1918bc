//! One file to one validated configuration.
//!
//! Owns the way from text to [`Config`]: layers, checks, expansion, and the messages about problems. It never changes a
//! file, never starts anything, and its messages never contain a secret. A load is one plain call that keeps nothing: a
//! reload compares the result with the running configuration ([`diff()`]), which stays active after errors.
//!
//! The text is parsed once with the place of each key and value. Every check goes on after an
//! error, so that one report shows all problems of the file.

mod diff;
mod files;
mod input;
mod keys;
mod locate;
mod options;
mod report;
mod section;
mod settings;
mod subscription;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

pub use self::diff::{Change, diff};
use self::files::{Access, Folder};
use self::keys::check::{self, Document, Layer};
pub use self::keys::environment::Environment;
use self::keys::layers::{Layers, Sections};
pub use self::keys::log::filter_problem;
pub use self::keys::schema::{Key, Kind};
pub use self::keys::table::keys;
use self::keys::{log, url};
pub use self::locate::{FileChoice, absolute, choose_file, is_same_file};
pub use self::options::{LoadOptions, Paths, Secrets};
use self::report::diagnostic::quote;
pub use self::report::diagnostic::{Diagnostic, Level, Location, Related};
use self::report::problems::{At, Problems};
pub use self::section::directories::{sandbox_folder, unit_directories};
use self::section::{admin, authorize, cluster, directories, pins, secrets, sinks, webhook};
pub use self::settings::{
    Admin, Application, Authorize, CatchUp, Cluster, Conduit, Config, Format, Listen, Log, LogFormat, Method,
    Policy, Reconcile, ShardTransport, SinkKind, SinkOptions, Store, TlsFiles, Transport, Twitch, Webhook,
};
use self::subscription::expand;
use self::subscription::login::Logins;
use crate::model::sink::SinkType;

/// The client id of a sandbox whose file has none.
const SANDBOX_CLIENT_ID: &str = "sandbox";

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Sorted by position.
    pub warnings: Vec<Diagnostic>,
    /// The files that keys name and that were read: secrets and lists.
    pub files: Vec<PathBuf>,
}

/// All problems of a configuration that cannot be used.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    /// Sorted by position; at least one.
    pub errors: Vec<Diagnostic>,
    /// Sorted by position.
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
    let Some((_, sections)) = layers(file.layer, variables, &mut problems) else {
        return Err(fail(problems));
    };
    let mut problems = Problems::new();
    let folder = Folder::of(&options.path);
    let (state_directory, socket) =
        directories::find(options, &sections.state, &sections.admin, &folder, &mut problems);
    if problems.is_clean() { Ok(Paths { state_directory, socket }) } else { Err(fail(problems)) }
}

/// The bytes of the file, and who may read it.
fn read(options: &LoadOptions, problems: &mut Problems) -> Option<(Vec<u8>, Access)> {
    files::read(&options.path, files::MAX_FILE)
        .map_err(|unreadable| {
            let diagnostic = problems.error(At::Nowhere, unreadable.message);
            if unreadable.missing {
                diagnostic.hint(
                    "`eventsubd init` writes one to begin with; `--config FILE` or $EVENTSUBD_CONFIG name another one",
                );
            }
        })
        .ok()
}

/// The layers and the values in force, by section.
fn layers(file: Layer, variables: Layer, problems: &mut Problems) -> Option<(Layers, Sections)> {
    let layers = Layers::new(file, variables).and_then(|layers| Ok((layers.sections()?, layers)));
    layers
        .map(|(sections, layers)| (layers, sections))
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
    load_with(options, SinkType::is_built_in)
}

/// [`load`] for a build that has these types of sinks.
fn load_with(options: &LoadOptions, is_built_in: fn(SinkType) -> bool) -> Result<Loaded, ConfigErrors> {
    let mut problems = Problems::new();
    let folder = Folder::of(&options.path);
    let config = read(options, &mut problems).and_then(|(bytes, access)| {
        build(bytes, &Around { options, access, folder: &folder, is_built_in }, &mut problems)
    });
    finish(config, problems, folder)
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
    let folder = Folder::closed();
    let around =
        Around { options: &options, access: Access::PRIVATE, folder: &folder, is_built_in: |_| true };
    let config = build(text.to_vec(), &around, &mut problems);
    finish(config, problems, folder)
}

/// The configuration if it has no error, with all that was found.
fn finish(config: Option<Config>, problems: Problems, folder: Folder) -> Result<Loaded, ConfigErrors> {
    let config = config.filter(|_| problems.is_clean());
    let (mut errors, warnings) = problems.into_sorted();
    match config {
        Some(config) => Ok(Loaded { config, warnings, files: folder.into_used() }),
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
    is_built_in: fn(SinkType) -> bool,
}

fn build(bytes: Vec<u8>, around: &Around<'_>, problems: &mut Problems) -> Option<Config> {
    let Around { options, access, folder, is_built_in } = *around;
    let path = &options.path;
    let (text, source) = input::add_text(path, bytes, true, problems)?;
    let Document { layer: file, entries } = input::parse(&text, source, problems)?;
    let variables = check::variables(&options.env, problems);
    let (layers, sections) = layers(file, variables, problems)?;

    let client_id = client_id(options, &sections, &layers, problems);
    let search = secrets::Search {
        layers: &layers,
        environment: &options.env,
        path,
        access,
        folder,
        secret_file: sections.application.client_secret_file.as_deref(),
        secrets: options.secrets,
    };
    let (client_secret, client_secret_source) =
        if options.sandbox { (None, "the sandbox".to_owned()) } else { search.run(problems) };
    log::check(&sections.log.level, &layers, problems);
    let (state_directory, socket) =
        directories::find(options, &sections.state, &sections.admin, folder, problems);
    let admin = admin::find(&sections.admin, &layers, folder, problems);

    let webhook_around = webhook::Around {
        layers: &layers,
        folder,
        used_by: match (sections.transport.method, sections.conduit.shard_transport) {
            (Method::Webhook, _) => Some("transport.method"),
            (Method::Conduit, ShardTransport::Webhook) => Some("transport.conduit.shard_transport"),
            (Method::Conduit, ShardTransport::WebSocket) => None,
        },
        local: options.sandbox || url::of_this_machine(&sections.twitch.api_url),
    };
    let webhook = webhook::build(&sections.webhook, &webhook_around, problems);
    let cluster_around = cluster::Around {
        layers: &layers,
        folder,
        webhook: webhook.as_ref(),
        is_built_in: is_built_in(SinkType::Nats),
    };
    let cluster = cluster::find(&sections.cluster, &cluster_around, problems);

    let authorize = authorize::build(
        &sections.authorize,
        &authorize::Around {
            layers: &layers,
            callback: sections.webhook.callback.as_deref(),
            webhook_listen: sections.webhook.listen,
            admin_listen: sections.admin.listen,
        },
        problems,
    );

    let mut logins = Logins::default();
    let login_files = input::read_login_files(&entries, folder, &mut logins, problems);
    let input = expand::Input {
        entries: &entries,
        files: &login_files,
        client_id: client_id.as_deref(),
        method: sections.transport.method,
        sinks: &layers.sinks(),
    };
    let subscriptions = expand::expand(&input, &mut logins, problems);
    if entries.is_empty() && problems.is_clean() {
        problems
            .warning(At::Nowhere, format!("{} asks for no subscription", quote(&path.display().to_string())))
            .hint("add one with `[[subscription]]`, `type` and `broadcaster`");
    }
    let around = sinks::Around {
        layers: &layers,
        folder,
        access,
        path,
        environment: &options.env,
        is_built_in,
        subscriptions: if problems.is_clean() { &subscriptions } else { &[] },
    };
    let is_cluster = sections.cluster.nats.is_some();
    pins::check(&sections.sinks, is_cluster, &layers, problems);
    let sinks = sinks::build(&sections.sinks, &around, problems);

    Some(Config {
        application: Application { client_id: client_id?, client_secret, client_secret_source },
        twitch: sections.twitch,
        reconcile: sections.reconcile,
        transport: sections.transport,
        conduit: sections.conduit,
        webhook,
        subscriptions,
        sinks,
        authorize,
        store: sections.store,
        state_directory,
        socket,
        catch_up: sections.catch_up,
        // The sandbox inside this process has no other hosts.
        cluster: cluster.filter(|_| !options.sandbox),
        admin,
        log: sections.log,
    })
}

fn client_id(
    options: &LoadOptions,
    sections: &Sections,
    layers: &Layers,
    problems: &mut Problems,
) -> Option<String> {
    const PATH: &str = "twitch.client_id";
    match &sections.application.client_id {
        Some(id) if id.bytes().all(|b| b.is_ascii_graphic()) => Some(id.clone()),
        Some(_) => {
            problems
                .error(layers.place(PATH), format!("`{PATH}` may only hold letters, digits and signs"))
                .hint("copy it from https://dev.twitch.tv/console");
            None
        }
        None if options.sandbox => Some(SANDBOX_CLIENT_ID.to_owned()),
        None => {
            // A key that is there, but wrong, has been reported.
            if layers.seen(PATH).is_none() {
                problems.error(layers.place_of_section("twitch"), format!("`{PATH}` is missing")).hint(
                    "make an application at https://dev.twitch.tv/console, and set `client_id` in `[twitch]`",
                );
            }
            None
        }
    }
}
