//! Messages about the client secret, and where it is taken from.

use super::*;
use expect_test::expect;

const INLINE: &str = "[twitch]\nclient_id = \"abc\"\nclient_secret = \"hunter2\"\n";

fn secret(case: &Case) -> (String, String) {
    let application = case.config().application;
    let directory = case.directory.path().display().to_string();
    (
        application.client_secret.expect("a secret").expose().to_owned(),
        application.client_secret_source.replace(&directory, "/etc/eventsubd"),
    )
}

#[test]
fn no_secret_at_all() {
    Case::new(format!("[twitch]\nclient_id = \"abc\"\n{ONE}")).expect(&expect![[r#"
        error: there is no client secret
         |
         = help: set `client_secret_file` in `[twitch]` of /etc/eventsubd/config.toml
         = help: or set the environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
         = help: or, under systemd, use `LoadCredential=client_secret:PATH`
    "#]]);
}

#[test]
fn a_secret_file_that_others_can_read_is_an_error() {
    let case = Case::with("");
    case.file("client_secret", "hunter2", 0o644);
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/client_secret` holds the client secret, and others can read it (mode 0644)
         --> /etc/eventsubd/config.toml:3:22
          |
        3 | client_secret_file = "client_secret"
          |                      ^^^^^^^^^^^^^^^
          |
          = help: run `chmod 600 /etc/eventsubd/client_secret`
          = help: or leave the key out, and set the environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
          = help: or under systemd, use `LoadCredential=client_secret:PATH`
    "#]]);
    let case = Case::new(format!("{INLINE}{ONE}"));
    case.file("config.toml", format!("{INLINE}{ONE}"), 0o644);
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/config.toml` holds the client secret, and others can read it (mode 0644)
         --> /etc/eventsubd/config.toml:3:1
          |
        3 | client_secret = [hidden]
          | ^^^^^^^^^^^^^
          |
          = help: run `chmod 600 /etc/eventsubd/config.toml`
          = help: or move the secret into a file of its own: `client_secret_file`
          = help: or take it out, and set the environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
    "#]]);
}

#[test]
fn client_secret_and_client_secret_file_exclude_each_other() {
    Case::new(format!("{INLINE}client_secret_file = \"client_secret\"\n{ONE}")).expect(&expect![[r#"
        error: `client_secret` and `client_secret_file` are both given
         --> /etc/eventsubd/config.toml:3:1
          |
        3 | client_secret = [hidden]
          | ^^^^^^^^^^^^^
          |
         ::: /etc/eventsubd/config.toml:4:1
          |
        4 | client_secret_file = "client_secret"
          | ------------------ the file
          |
          = help: keep one of them
    "#]]);
}

#[test]
fn what_a_file_may_hold() {
    let case = Case::with("");
    for (text, expect) in [
        (
            &b""[..],
            expect![[r#"
                error: no client secret in `/etc/eventsubd/client_secret`: it is empty
                 --> /etc/eventsubd/config.toml:3:22
                  |
                3 | client_secret_file = "client_secret"
                  |                      ^^^^^^^^^^^^^^^
                  |
                  = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
            "#]],
        ),
        (
            b"\n",
            expect![[r#"
                error: no client secret in `/etc/eventsubd/client_secret`: it is empty
                 --> /etc/eventsubd/config.toml:3:22
                  |
                3 | client_secret_file = "client_secret"
                  |                      ^^^^^^^^^^^^^^^
                  |
                  = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
            "#]],
        ),
        (
            b"hunter2\nhunter2\n",
            expect![[r#"
                error: no client secret in `/etc/eventsubd/client_secret`: it holds more than one line
                 --> /etc/eventsubd/config.toml:3:22
                  |
                3 | client_secret_file = "client_secret"
                  |                      ^^^^^^^^^^^^^^^
                  |
                  = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
            "#]],
        ),
        (
            b"hunter 2",
            expect![[r#"
                error: no client secret in `/etc/eventsubd/client_secret`: character 7 is white space
                 --> /etc/eventsubd/config.toml:3:22
                  |
                3 | client_secret_file = "client_secret"
                  |                      ^^^^^^^^^^^^^^^
                  |
                  = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
            "#]],
        ),
        (
            b"hunter\xff",
            expect![[r#"
                error: no client secret in `/etc/eventsubd/client_secret`: it is not UTF-8
                 --> /etc/eventsubd/config.toml:3:22
                  |
                3 | client_secret_file = "client_secret"
                  |                      ^^^^^^^^^^^^^^^
                  |
                  = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
            "#]],
        ),
    ] {
        case.file("client_secret", text, 0o600);
        case.expect(&expect);
    }
    case.file("client_secret", [b'a'; 4097], 0o600);
    case.expect(&expect![[r#"
        error: no client secret: `/etc/eventsubd/client_secret` is larger than 4.0 KiB
         --> /etc/eventsubd/config.toml:3:22
          |
        3 | client_secret_file = "client_secret"
          |                      ^^^^^^^^^^^^^^^
    "#]]);
}

#[test]
fn a_file_that_is_not_there() {
    let case = Case::with("");
    fs::remove_file(case.directory.path().join("client_secret")).expect("removed");
    case.expect(&expect![[r#"
        error: no client secret: there is no file `/etc/eventsubd/client_secret`
         --> /etc/eventsubd/config.toml:3:22
          |
        3 | client_secret_file = "client_secret"
          |                      ^^^^^^^^^^^^^^^
          |
          = help: write the secret into a file that only its owner can read, and name that file here
          = help: the path is relative to the directory of the configuration file
    "#]]);
    fs::create_dir(case.directory.path().join("client_secret")).expect("created");
    case.expect(&expect![[r#"
        error: no client secret: `/etc/eventsubd/client_secret` is a directory
         --> /etc/eventsubd/config.toml:3:22
          |
        3 | client_secret_file = "client_secret"
          |                      ^^^^^^^^^^^^^^^
    "#]]);
}

#[test]
fn a_secret_in_the_place_of_its_path() {
    let text = "[twitch]\nclient_id = \"abc\"\nclient_secret_file = \"abcdefghijklmnopqrstuvwxyz0123\"\n";
    Case::new(format!("{text}{ONE}")).expect(&expect![[r#"
        error: no client secret: there is no such file in `/etc/eventsubd`; what stands here is not shown, since it may be a secret
         --> /etc/eventsubd/config.toml:3:22
          |
        3 | client_secret_file = [hidden]
          |                      ^^^^^^^^
          |
          = help: write the secret into a file that only its owner can read, and name that file here
          = help: the path is relative to the directory of the configuration file
    "#]]);
}

#[test]
fn a_secret_that_is_no_string() {
    Case::new(format!("[twitch]\nclient_id = \"abc\"\nclient_secret = 4242\n{ONE}")).expect(&expect![[r#"
        error: `twitch.client_secret` must be a string, not a whole number
         --> /etc/eventsubd/config.toml:3:17
          |
        3 | client_secret = [hidden]
          |                 ^^^^^^^^
    "#]]);
    let text = "[twitch]\nclient_id = \"abc\"\nclient_secert = \"hunter2\"\n";
    Case::new(format!("{text}{ONE}")).expect(&expect![[r#"
        error: unknown key `client_secert`
         --> /etc/eventsubd/config.toml:3:1
          |
        3 | client_secert = [hidden]
          | ^^^^^^^^^^^^^
          |
          = help: did you mean `client_secret`?

        error: there is no client secret
         |
         = help: set `client_secret_file` in `[twitch]` of /etc/eventsubd/config.toml
         = help: or set the environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
         = help: or, under systemd, use `LoadCredential=client_secret:PATH`
    "#]]);
    Case::new("[twitch]\nclient_secret = \"hunter2\n").expect(&expect![[r#"
        error: invalid basic string, expected `"`
         --> /etc/eventsubd/config.toml:2:25
          |
        2 | client_secret = [hidden]
          |                         ^
    "#]]);
    Case::new(format!("{INLINE}{ONE}").replace("hunter2", "")).expect(&expect![[r#"
        error: `twitch.client_secret` is empty
         --> /etc/eventsubd/config.toml:3:17
          |
        3 | client_secret = [hidden]
          |                 ^^^^^^^^
          |
          = help: leave the key out instead
    "#]]);
}

#[test]
fn a_wrong_variable() {
    Case::with("").env(&[("EVENTSUBD_TWITCH__CLIENT_SECRET", "hunter 2")]).expect(&expect![[r#"
        error: no client secret in `EVENTSUBD_TWITCH__CLIENT_SECRET`: character 7 is white space
        --> environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
         = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
    "#]]);
}

#[test]
fn precedence() {
    let case = Case::new(format!("{INLINE}{ONE}"));
    assert_eq!(secret(&case), ("hunter2".into(), "/etc/eventsubd/config.toml".into()));
    let case = Case::with("");
    assert_eq!(secret(&case), ("s3cr3t".into(), "/etc/eventsubd/client_secret".into()));
    let credentials = tempfile::tempdir().expect("a directory");
    let path = credentials.path().join("client_secret");
    let directory = credentials.path().display().to_string();
    let case = case.env(&[("CREDENTIALS_DIRECTORY", &directory)]);
    assert_eq!(secret(&case).0, "s3cr3t", "a service without that credential");
    // systemd guards its own directory, so the file's mode does not matter.
    fs::write(&path, "cr3d3nti4l\r\n").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
    assert_eq!(secret(&case), ("cr3d3nti4l".into(), path.display().to_string()));
    let case =
        case.env(&[("CREDENTIALS_DIRECTORY", &directory), ("EVENTSUBD_TWITCH__CLIENT_SECRET", "v4ri4bl3")]);
    assert_eq!(secret(&case), ("v4ri4bl3".into(), "EVENTSUBD_TWITCH__CLIENT_SECRET".into()));
}

#[test]
fn an_empty_credential() {
    let case = Case::with("");
    case.file("x", "", 0o600);
    fs::create_dir(case.directory.path().join("credentials")).expect("created");
    case.file("credentials/client_secret", "", 0o600);
    let directory = case.directory.path().join("credentials").display().to_string();
    case.env(&[("CREDENTIALS_DIRECTORY", &directory)]).expect(&expect![[r#"
        error: no client secret in `/etc/eventsubd/credentials/client_secret`: it is empty
         |
         = help: it is shown once, by "New Secret" at https://dev.twitch.tv/console
    "#]]);
}

#[test]
fn secrets_that_are_not_needed() {
    let mut case = Case::with("");
    fs::remove_file(case.directory.path().join("client_secret")).expect("removed");
    case.options.secrets = Secrets::Optional;
    assert_eq!(case.config().application.client_secret, None);
    case.file("client_secret", "s3cr3t", 0o600);
    assert!(case.config().application.client_secret.is_some());
    case.options.secrets = Secrets::Required;
    case.options.sandbox = true;
    case.file("client_secret", "", 0o666);
    assert_eq!(case.config().application.client_secret, None);
    case.file("config.toml", ONE, 0o644);
    assert_eq!(case.config().application.client_id, "sandbox");
}

#[test]
fn no_message_shows_the_secret() {
    let case = Case::new(format!("{INLINE}{ONE}"));
    let config = case.config();
    assert!(!format!("{config:?}").contains("hunter2"));
    let mut other = config.clone();
    other.application.client_secret = None;
    assert!(!format!("{:?}", diff(&config, &other)).contains("hunter2"));
    let mut loads = 0;
    for text in [
        "client_secret = \"\"\"\nhunter2\nx\"\"\"",
        "client_secret = [\"hunter2\"]",
        "client_secret = { x = \"hunter2\" }",
        "clientsecret = \"hunter2\"",
        "client_secret: hunter2",
        "client_secret\n= \"hunter2\"",
        "client_secret = hunter2",
        "client_secret = \"\"\"\nhunter2",
        "client_secret = 'hunter2' 'hunter2'",
    ] {
        let errors = Case::new(format!("[twitch]\n{text}\n{ONE}")).load().expect_err(text);
        let json = serde_json::to_string(&errors.errors).expect("json");
        assert!(!format!("{errors} {errors:?} {json}").contains("hunter2"), "{text}: {errors}");
        loads += 1;
    }
    assert_eq!(loads, 9);
}
