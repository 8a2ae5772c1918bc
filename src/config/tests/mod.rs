//! Golden texts of every message, what is accepted, and what must hold for any input.

mod accepted;
mod admin;
mod authorize;
mod cluster;
mod diff;
mod environment;
mod files;
mod hints;
mod keys;
mod leaks;
mod properties;
mod secrets;
mod sinks;
mod subscriptions;
mod templates;
mod types;
mod webhook;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use expect_test::Expect;
use tempfile::TempDir;

use super::*;

/// The first four lines of most files.
const HEAD: &str = "[twitch]\nclient_id = \"abc\"\nclient_secret_file = \"client_secret\"\n\n";
/// A subscription, so that its absence is no problem.
const ONE: &str = "\n[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ninja\"\n";

/// A directory with a configuration in it.
struct Case {
    directory: TempDir,
    options: LoadOptions,
}

impl Case {
    /// With this file, which is for its owner only, and a secret.
    fn new(text: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::Builder::new().prefix("config").tempdir().expect("a directory");
        let options = LoadOptions {
            path: directory.path().join("config.toml"),
            state_dir: None,
            env: Environment::from_iter([("HOME", "/home/me")]),
            sandbox: false,
            secrets: Secrets::Required,
        };
        let case = Self { directory, options };
        case.file("config.toml", text, 0o600);
        case.file("client_secret", "s3cr3t\n", 0o600);
        case
    }

    /// With the usual head, a subscription, and more.
    fn with(text: &str) -> Self {
        Self::new(format!("{HEAD}{text}{ONE}"))
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> &Self {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        self
    }

    fn env(mut self, variables: &[(&str, &str)]) -> Self {
        self.options.env =
            [("HOME", "/home/me")].iter().chain(variables).map(|(name, value)| (*name, *value)).collect();
        self
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with(|_| true)
    }

    /// Loads the file as a build with these types of sinks does.
    fn load_with(&self, is_built_in: fn(SinkType) -> bool) -> Result<Loaded, ConfigErrors> {
        load_with(&self.options, is_built_in)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("{errors}")).config
    }

    /// All that is said about the file.
    fn report(&self) -> String {
        self.describe(self.load())
    }

    fn describe(&self, loaded: Result<Loaded, ConfigErrors>) -> String {
        let text = match loaded {
            Ok(loaded) if loaded.warnings.is_empty() => "fine".to_owned(),
            Ok(loaded) => ConfigErrors { errors: Vec::new(), warnings: loaded.warnings }.to_string(),
            Err(errors) => errors.to_string(),
        };
        let directory = self.directory.path().display().to_string();
        format!("{}\n", text.replace(&directory, "/etc/eventsubd"))
    }

    fn expect(&self, expect: &Expect) {
        expect.assert_eq(&self.report());
    }
}

/// Returns the messages about a file with the usual head, a subscription, and this text.
fn check(text: &str, expect: &Expect) {
    Case::with(text).expect(expect);
}

/// Returns the messages about a file with the usual head and these subscriptions.
fn check_subscriptions(text: &str, expect: &Expect) {
    Case::new(format!("{HEAD}{text}")).expect(expect);
}
