//! `config.toml.example`: it loads as it is and with every line in force, names every key, and states
//! the true defaults.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use eventsubd::config::{self, Environment, LoadOptions, Secrets};

const EXAMPLE: &str = include_str!("../config.toml.example");

/// With the lines in force that show a key or a table as a comment.
fn uncommented() -> String {
    let is_toml = |line: &str| {
        let Some(rest) = line.strip_prefix("# ") else { return false };
        let name = rest.split(" = ").next().unwrap_or_default();
        rest.starts_with("[sink.")
            || rest.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    EXAMPLE.lines().map(|line| if is_toml(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
}

fn load(folder: &Path, text: &str) -> config::Loaded {
    let path = folder.join("config.toml");
    fs::write(&path, text).unwrap();
    let env: Environment = [("EVENTSUBD_TWITCH__CLIENT_SECRET", "an-example-secret")].into_iter().collect();
    let options = LoadOptions {
        path,
        state_dir: Some(folder.to_owned()),
        env,
        sandbox: false,
        secrets: Secrets::Required,
    };
    match config::load(&options) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn it_loads_as_it_is_and_with_every_line_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let plain = load(folder.path(), EXAMPLE);
    assert!(plain.warnings.is_empty(), "{:?}", plain.warnings);
    assert_eq!(plain.config.subscriptions.len(), 10);

    fs::write(folder.path().join("channels.txt"), "somebody\n# a remark\n").unwrap();
    for (name, text) in [
        ("client_secret", "an-example-secret"),
        ("web_secret", "another-secret"),
        ("chat_headers", "Authorization: Bearer nobody"),
        ("nats.creds", "nobody"),
        ("mqtt_login", "nobody:nothing"),
        ("webhook_secret", "the-secret-of-webhooks"),
        ("admin_token", "an-example-token-that-is-long"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = uncommented().replace("version = \"1\"", "").replace("from_broadcaster = \"twitch\"", "");
    let full = load(folder.path(), &text);
    assert_eq!(full.config.sinks.len(), 9);
    assert_eq!(full.config.subscriptions.len(), 13);
    assert!(plain.config.admin.is_none() && full.config.admin.is_some_and(|admin| admin.token.is_some()));
    // Values that the example shows as defaults are the defaults.
    assert_eq!(full.config.store, plain.config.store);
    assert_eq!(full.config.reconcile, plain.config.reconcile);
    assert_eq!(full.config.log, plain.config.log);
    assert_eq!(full.config.conduit.keepalive, plain.config.conduit.keepalive);
    assert_eq!(full.config.twitch.auth_url, plain.config.twitch.auth_url);
    assert_eq!(full.config.twitch.api_url, plain.config.twitch.api_url);
    assert_eq!(full.config.twitch.eventsub_url, plain.config.twitch.eventsub_url);
    assert_eq!(full.config.twitch.validate_interval, plain.config.twitch.validate_interval);
}

#[test]
fn it_names_every_key() {
    let text = uncommented();
    let keys = config::keys();
    assert!(keys.len() > 30);
    for key in keys.iter() {
        let name = key.path.rsplit('.').next().unwrap();
        // A secret does not belong into the file, so the example does not suggest it.
        if key.path == "twitch.client_secret" {
            continue;
        }
        let named = text.lines().any(|line| line.trim_start().starts_with(&format!("{name} = ")));
        assert!(named, "{} is not in config.toml.example", key.path);
    }
}
