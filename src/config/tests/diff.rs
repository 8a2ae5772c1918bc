//! Changes that a reload makes.

use super::*;
use crate::model::secret::Secret;
use expect_test::expect;

fn config(text: &str) -> Config {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).expect("written");
    let mut config = load(&LoadOptions {
        path,
        state_dir: None,
        env: Environment::from_iter([("HOME", "/home/me"), ("EVENTSUBD_TWITCH__CLIENT_ID", "abc")]),
        sandbox: false,
        secrets: Secrets::Optional,
    })
    .unwrap_or_else(|errors| panic!("{errors}"))
    .config;
    config.application.client_secret = Some(Secret::new("s3cr3t"));
    config
}

#[test]
fn each_change_in_one_line() {
    let old = config(
        r#"
        [[subscription]]
        type = ["stream.online", "stream.offline"]
        broadcaster = "ninja"
        [sink.a]
        type = "stdout"
        "#,
    );
    let mut new = config(
        r#"
        twitch = { api_url = "http://localhost:1", validate_interval = "30m" }
        reconcile = { interval = "1h", policy = "keep", max_delete = 1.0 }
        transport.conduit = { shards = 3, id = "x", keepalive = "1m" }
        store = { retain = "1d", max_size = "1GiB" }
        state.directory = "/var/lib/other"
        admin.listen = "127.0.0.1:9464"
        log = { level = "debug", format = "json" }
        [[subscription]]
        type = ["stream.online", "channel.update"]
        broadcaster = "ninja"
        sinks = ["a"]
        [sink.a]
        type = "stdout"
        types = "stream.*"
        [sink.b]
        type = "file"
        path = "/tmp/b"
        "#,
    );
    new.application.client_secret = Some(Secret::new("oth3r"));
    new.admin.as_mut().expect("an endpoint").token = Some(Secret::new("0123456789abcdef"));
    let show = |old: &Config, new: &Config| -> String {
        diff(old, new).iter().map(|change| format!("{change}\n")).collect()
    };
    expect![[r#"
        client secret changed
        twitch.api_url https://api.twitch.tv/helix -> http://localhost:1 (needs a restart)
        twitch.validate_interval 1 h -> 30 min
        reconcile.interval 30 min -> 1 h
        reconcile.policy sync -> keep
        reconcile.max_delete 0.5 -> 1
        transport.conduit.shards 1 -> 3
        transport.conduit.id none -> x
        transport.conduit.keepalive 30 s -> 1 min
        subscriptions +1 -1, 1 to other sinks
        sink a changed
        sink b added
        store.retain 7 days -> 1 day
        store.max_size 2.0 GiB -> 1.0 GiB
        state.directory /home/me/.local/state/eventsubd -> /var/lib/other (needs a restart)
        admin.listen off -> 127.0.0.1:9464
        token of the admin endpoint changed
        admin.socket /home/me/.local/state/eventsubd/control.sock -> /var/lib/other/control.sock (needs a restart)
        log.level info -> debug
        log.format auto -> json (needs a restart)
    "#]].assert_eq(&show(&old, &new));
    expect![[r#"
        client secret changed
        twitch.api_url http://localhost:1 -> https://api.twitch.tv/helix (needs a restart)
        twitch.validate_interval 30 min -> 1 h
        reconcile.interval 1 h -> 30 min
        reconcile.policy keep -> sync
        reconcile.max_delete 1 -> 0.5
        transport.conduit.shards 3 -> 1
        transport.conduit.id x -> none
        transport.conduit.keepalive 1 min -> 30 s
        subscriptions +1 -1, 1 to other sinks
        sink a changed
        sink b removed
        store.retain 1 day -> 7 days
        store.max_size 1.0 GiB -> 2.0 GiB
        state.directory /var/lib/other -> /home/me/.local/state/eventsubd (needs a restart)
        admin.listen 127.0.0.1:9464 -> off
        token of the admin endpoint changed
        admin.socket /var/lib/other/control.sock -> /home/me/.local/state/eventsubd/control.sock (needs a restart)
        log.level debug -> info
        log.format json -> auto (needs a restart)
    "#]].assert_eq(&show(&new, &old));
    assert_eq!(diff(&old, &new).iter().filter(|change| change.needs_restart()).count(), 4);
    assert_eq!(diff(&old, &old), []);
}

#[test]
fn order_and_source_are_no_change() {
    let text = r#"
        [[subscription]]
        type = ["stream.online", "stream.offline"]
        broadcaster = "ninja"
        "#;
    let old = config(text);
    let mut new = old.clone();
    new.subscriptions = old.subscriptions.iter().rev().cloned().collect();
    new.application.client_secret_source = "elsewhere".into();
    assert_ne!(old, new);
    assert_eq!(diff(&old, &new), []);
}
