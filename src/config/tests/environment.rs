//! The layer of the environment, and where state and socket are.

use super::*;
use crate::model::route::SinkName;
use crate::model::sink::FileOptions;
use expect_test::expect;
use std::path::PathBuf;

#[test]
fn messages() {
    Case::with("")
        .env(&[
            ("EVENTSUBD_LOG__LEVL", "info"),
            ("EVENTSUBD_LOG_LEVEL", "info"),
            ("EVENTSUBD_WOMBAT", "info"),
            ("EVENTSUBD_log__format", "text"),
            ("EVENTSUBD_CONFIG", "elsewhere"),
            ("EVENTSUBD_RECONCILE__INTERVAL", "5"),
            ("EVENTSUBD_RECONCILE__MAX_DELETE", "2"),
            ("EVENTSUBD_SUBSCRIPTION__TYPE", "stream.online"),
            ("EVENTSUBD_TRANSPORT__CONDUIT__SHARDS", "many"),
            ("EVENTSUBD_TRANSPORT__WEBHOOK__LISTEN", "127.0.0.1:1"),
            ("EVENTSUBD_SINK__A[0]__PATH", "x"),
            ("EVENTSUBD_SINK__OUT__TYPE", "fiel"),
            ("EVENTSUBD_SINK__OTHER__TYPES", "x"),
        ])
        .expect(&expect![[r#"
            error: unknown key `log.levl`
            --> environment variable EVENTSUBD_LOG__LEVL
             = help: did you mean `EVENTSUBD_LOG__LEVEL`?

            error: `reconcile.interval` has no unit: `5`
            --> environment variable EVENTSUBD_RECONCILE__INTERVAL
             = help: a duration has a unit: "5s", "5m" or "5h"

            error: `reconcile.max_delete` must be a number from 0 to 1, not `2`
            --> environment variable EVENTSUBD_RECONCILE__MAX_DELETE
             = help: a plan that deletes more than this part of ours (and more than 10), or all of them, waits for `apply --allow-deletes`

            error: unknown key `sink.a[0].path`
            --> environment variable EVENTSUBD_SINK__A[0]__PATH
             = help: did you mean `EVENTSUBD_SINK__NAME__PATH`?

            error: sink `other` has no `type`
            --> environment variable EVENTSUBD_SINK__OTHER__TYPES
             = help: for example `type = "stdout"` or `type = "file"`

            error: `fiel` is not valid for `sink.out.type`
            --> environment variable EVENTSUBD_SINK__OUT__TYPE
             = help: did you mean `file`?

            error: subscriptions cannot come from the environment
            --> environment variable EVENTSUBD_SUBSCRIPTION__TYPE
             = help: put them into the file

            error: `transport.conduit.shards` must be a whole number from 1 to 20000 or "auto"
            --> environment variable EVENTSUBD_TRANSPORT__CONDUIT__SHARDS
             = help: how many shards share the events; Twitch allows 20,000 a conduit. `auto` is one for each host of `[cluster]`, at least 2

            error: unknown key `log.format`
            --> environment variable EVENTSUBD_log__format
             = help: did you mean `EVENTSUBD_LOG__FORMAT`?

            warning: unknown variable, ignored
            --> environment variable EVENTSUBD_LOG_LEVEL
             = help: did you mean `EVENTSUBD_LOG__LEVEL`?

            warning: item 1 of `types` matches no known type
            --> environment variable EVENTSUBD_SINK__OTHER__TYPES

            warning: unknown variable, ignored
            --> environment variable EVENTSUBD_WOMBAT
        "#]]);
}

#[test]
fn sinks_of_both_layers() {
    Case::with("[sink.out]\ntype = \"stdout\"\nrotate_keep = 3\n")
        .env(&[("EVENTSUBD_SINK__MORE__TYPE", "stdout"), ("EVENTSUBD_SINK__MORE__URL", "x")])
        .expect(&expect![[r#"
            error: sinks `more` and `out` are both of type `stdout`
             --> /etc/eventsubd/config.toml:5:7
              |
            5 | [sink.out]
              |       ^^^
              |
              = help: the other one: environment variable EVENTSUBD_SINK__MORE__TYPE
              = help: one sink can take all events: `sinks` and `types` choose among them

            error: a sink of type `stdout` has no `rotate_keep`
             --> /etc/eventsubd/config.toml:7:1
              |
            7 | rotate_keep = 3
              | ^^^^^^^^^^^
              |
              = help: it belongs to sinks of type `file`

            error: a sink of type `stdout` has no `url`
            --> environment variable EVENTSUBD_SINK__MORE__URL
             = help: it belongs to sinks of type `http`, `nats`, `mqtt` and `redis`
        "#]]);
}

#[test]
fn later_layers_win() {
    let case = Case::with(
        "[transport.conduit]\nshards = 2\nkeepalive = \"20s\"\n[sink.log]\ntype = \"file\"\npath = \"a\"\n",
    )
    .env(&[
        ("EVENTSUBD_TRANSPORT__CONDUIT__SHARDS", "3"),
        ("EVENTSUBD_TWITCH__CLIENT_ID", "00123"),
        ("EVENTSUBD_RECONCILE__MAX_DELETE", "0.25"),
        ("EVENTSUBD_STORE__MAX_SIZE", "1GiB"),
        ("EVENTSUBD_LOG__LEVEL", ""),
        ("EVENTSUBD_SINK__LOG__PATH", "/var/log/b"),
        ("EVENTSUBD_SINK__LOG__TYPES", "stream.*, channel.*"),
        ("EVENTSUBD_SINK__LOG__ROTATE_SIZE", "1MiB"),
        ("EVENTSUBD_SINK__OUT__TYPE", "stdout"),
    ]);
    let config = case.config();
    assert_eq!(config.conduit.shards.for_hosts(1), 3);
    assert_eq!(config.conduit.keepalive.as_secs(), 20);
    assert_eq!(config.application.client_id, "00123");
    assert!((config.reconcile.max_delete - 0.25).abs() < 1e-9);
    assert_eq!(config.store.max_size.as_u64(), 1 << 30);
    assert_eq!(config.log.level, "info", "empty is unset");
    let log = &config.sinks[&SinkName::new("log")];
    assert_eq!(log.types, ["stream.*", "channel.*"]);
    assert_eq!(
        log.kind,
        SinkKind::File(FileOptions { path: "/var/log/b".into(), rotate_size: Some(1 << 20), rotate_keep: 5 })
    );
    assert_eq!(config.sinks[&SinkName::new("out")].kind, SinkKind::Stdout);
}

#[test]
fn directories() {
    let paths = |case: &Case| {
        let config = case.config();
        let base = case.directory.path().display().to_string();
        let show = |path: PathBuf| path.display().to_string().replace(&base, "BASE");
        (show(config.state_directory), show(config.socket))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let home = "/home/me/.local/state/eventsubd";
    assert_eq!(paths(&Case::with("")), pair(home, &format!("{home}/control.sock")));
    let case = Case::with("").env(&[("XDG_STATE_HOME", "/xdg")]);
    assert_eq!(paths(&case), pair("/xdg/eventsubd", "/xdg/eventsubd/control.sock"));
    let case = case.env(&[("XDG_STATE_HOME", "relative")]);
    assert_eq!(paths(&case).0, home);
    let systemd = [
        ("XDG_STATE_HOME", "/xdg"),
        ("STATE_DIRECTORY", "/var/lib/eventsubd:/var/lib/other"),
        ("RUNTIME_DIRECTORY", "/run/eventsubd:/run/other"),
    ];
    let case = case.env(&systemd);
    assert_eq!(paths(&case), pair("/var/lib/eventsubd", "/run/eventsubd/control.sock"));
    let mut case = Case::with("[state]\ndirectory = \"state\"\n[admin]\nsocket = \"s\"\n").env(&systemd);
    assert_eq!(paths(&case), pair("BASE/state", "BASE/s"));
    case.options.sandbox = true;
    let (directory, socket) = paths(&case);
    assert!(directory.starts_with("/var/lib/eventsubd/eventsubd-sandbox/config-"), "{directory}");
    assert_eq!(socket, format!("{directory}/control.sock"), "apart from the daemon of the same file");
    case.options.sandbox = false;
    case.options.state_dir = Some("/mine".into());
    assert_eq!(paths(&case), pair("/mine", "BASE/s"));
    case.options.env = Environment::default();
    case.file("config.toml", format!("{HEAD}{ONE}"), 0o600);
    assert_eq!(paths(&case), pair("/mine", "/mine/control.sock"));
}

#[test]
fn no_directory() {
    let mut case = Case::with("");
    case.options.env = Environment::default();
    case.expect(&expect![[r#"
        error: there is no state directory
         |
         = help: give one with `--state-dir DIR`, or set `directory` in `[state]`
    "#]]);
    case.options.state_dir = Some(format!("/{}", "x".repeat(100)).into());
    case.expect(&expect![[r#"
        error: the path of the control socket is too long: 114 of 107 bytes
         |
         = help: set `socket` in `[admin]` to a shorter path
    "#]]);
}

#[test]
fn paths_are_found_in_a_file_with_errors_elsewhere() {
    let paths = |case: &Case| {
        let Paths { state_directory, socket } = paths(&case.options).expect("paths");
        (state_directory.display().to_string(), socket.display().to_string())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let text = "[state]\ndirectory = \"/state\"\n[admin]\nsocket = \"/socket\"\n";
    let case = Case::with(text);
    let config = case.config();
    assert_eq!(paths(&case), pair("/state", "/socket"));
    assert_eq!((config.state_directory, config.socket), ("/state".into(), "/socket".into()));
    case.file("config.toml", format!("{text}listen = 5\n[x]\ny = 1\n[log]\nlevel = 5\nleve = 1\n"), 0o600);
    assert_eq!(paths(&case), pair("/state", "/socket"));
    let case = case.env(&[("EVENTSUBD_STATE__DIRECTORY", "/other"), ("EVENTSUBD_LOG__LEVL", "x")]);
    assert_eq!(paths(&case), pair("/other", "/socket"));
}

#[test]
fn paths_are_never_guessed() {
    let refused = |case: &Case| {
        let errors = paths(&case.options).expect_err("which daemon is meant is not known");
        assert!(!errors.errors.is_empty() && errors.warnings.is_empty(), "{errors}");
        errors.to_string()
    };
    for (text, expected) in [
        ("[state", "unclosed table"),
        ("[state]\ndirectory = 5\n", "`state.directory`"),
        ("[state]\ndirectroy = \"/state\"\n", "did you mean `directory`?"),
        ("[sate]\ndirectory = \"/state\"\n", "did you mean `state`?"),
        ("state = \"/state\"\n", "write it as `[state]`"),
        ("directory = \"/state\"\n", "belongs in `[state]`"),
        ("[store]\ndirectory = \"/state\"\n", "belongs in `[state]`"),
        ("[admin]\nsocket = []\n", "`admin.socket`"),
        ("[admin]\nsokcet = \"/socket\"\n", "did you mean `socket`?"),
        ("[state]\ndirectory = \"/a\"\n[state]\ndirectory = \"/b\"\n", "duplicate key"),
    ] {
        let said = refused(&Case::new(text));
        assert!(said.contains(expected), "{text}: {said}");
    }
    assert!(refused(&Case::new(b"# caf\xe9\n")).contains("is not UTF-8"));
    for (name, expected) in [
        ("EVENTSUBD_STATE__DIRECTROY", "did you mean `EVENTSUBD_STATE__DIRECTORY`?"),
        ("EVENTSUBD_STAET__DIRECTORY", "did you mean `EVENTSUBD_STATE__DIRECTORY`?"),
        ("EVENTSUBD_ADMIN__SOCKT", "did you mean `EVENTSUBD_ADMIN__SOCKET`?"),
    ] {
        let said = refused(&Case::with("").env(&[(name, "/state")]));
        assert!(said.contains(expected), "{name}: {said}");
    }
    let case = Case::with("");
    fs::remove_file(&case.options.path).expect("removed");
    assert!(refused(&case).contains("there is no file"));
    let mut case = Case::with("");
    case.options.env = Environment::default();
    assert!(refused(&case).contains("there is no state directory"));
}

#[test]
fn each_file_has_a_sandbox_of_its_own() {
    let place = |case: &Case| {
        let mut options = case.options.clone();
        options.sandbox = true;
        let found = paths(&options).expect("paths");
        assert_eq!(found.socket, found.state_directory.join("control.sock"));
        found.state_directory.display().to_string()
    };
    let text = "[state]\ndirectory = \"/state\"\n[admin]\nsocket = \"/socket\"\n";
    let (one, two) = (Case::with(text), Case::with(text));
    assert!(place(&one).starts_with("/home/me/.local/state/eventsubd-sandbox/config-"), "{}", place(&one));
    assert_ne!(place(&one), place(&two));
    let mut link = Case::with("");
    let target = link.directory.path().join("link.toml");
    std::os::unix::fs::symlink(&one.options.path, &target).expect("a link");
    link.options.path = target;
    assert_eq!(place(&link), place(&one));
    let xdg = one.env(&[("XDG_STATE_HOME", "/xdg")]);
    assert!(place(&xdg).starts_with("/xdg/eventsubd-sandbox/config-"), "{}", place(&xdg));
    // A named file is used unchanged.
    let mut named = two;
    named.options.state_dir = Some("/mine".into());
    assert_eq!(place(&named), "/mine");
}
