//! Messages about sinks.

use super::*;
use crate::model::route::SinkName;
use crate::model::secret::Secret;
use crate::model::sink::{CommandOptions, HttpBody, HttpOptions, NatsOptions, SinkType, StartAt};
use expect_test::expect;

#[test]
fn keys_belong_to_types() {
    check(
        r#"[sink.a]
type = "stdout"
path = "x"
url = "https://example.org"

[sink.b]
type = "file"
path = "x"
rotate_keep = 3
command = ["prog"]
"#,
        &expect![[r#"
            error: a sink of type `stdout` has no `path`
             --> /etc/eventsubd/config.toml:7:1
              |
            7 | path = [hidden]
              | ^^^^
              |
              = help: it belongs to sinks of type `file`

            error: a sink of type `stdout` has no `url`
             --> /etc/eventsubd/config.toml:8:1
              |
            8 | url = [hidden]
              | ^^^
              |
              = help: it belongs to sinks of type `http`, `nats`, `mqtt` and `redis`

            error: a sink of type `file` has no `command`
              --> /etc/eventsubd/config.toml:14:1
               |
            14 | command = [hidden]
               | ^^^^^^^
               |
               = help: it belongs to sinks of type `command`

            warning: `rotate_keep` does nothing without `rotate_size`
              --> /etc/eventsubd/config.toml:13:1
               |
            13 | rotate_keep = 3
               | ^^^^^^^^^^^
               |
               = help: for example `rotate_size = "100MiB"`
        "#]],
    );
}

#[test]
fn a_build_without_a_type_of_sink_refuses_it() {
    let case = Case::with("[sink.bus]\ntype = \"nats\"\nurl = \"nats://127.0.0.1\"\nsubject = \"x\"\n");
    let report = case.describe(case.load_with(|sink_type| sink_type != SinkType::Nats));
    expect![[r#"
        error: this build of eventsubd has no sinks of type `nats`
         --> /etc/eventsubd/config.toml:6:8
          |
        6 | type = "nats"
          |        ^^^^^^
          |
          = help: install a build with it, or build with `cargo build --release --features nats`
    "#]]
    .assert_eq(&report);
    assert_eq!(case.describe(case.load_with(|sink_type| sink_type != SinkType::Redis)), "fine\n");
}

#[test]
fn each_type_of_sink_has_required_keys() {
    check(
        r#"[sink.a]
type = "command"
command = ["prog", "arg"]
timeout = "10s"

[sink.b]
type = "http"
url = "https://example.org"
headers = { a = "b" }
methd = "POST"

[sink.c]
type = "nats"

[sink.d]
type = "stdout"
format = "cloudevents"
"#,
        &expect![[r#"
            error: there is no program `prog` in /usr/local/bin:/usr/bin:/bin
             --> /etc/eventsubd/config.toml:7:11
              |
            7 | command = [hidden]
              |           ^^^^^^^^
              |
              = help: a bare name is looked for in $PATH; a path with `/` starts at the file's folder, in which the program also runs

            error: unknown key `methd`
              --> /etc/eventsubd/config.toml:14:1
               |
            14 | methd = [hidden]
               | ^^^^^
               |
               = help: did you mean `method`?

            error: sink `c` has no `url`
              --> /etc/eventsubd/config.toml:16:7
               |
            16 | [sink.c]
               |       ^
               |
               = help: the server, or several with commas between them: `url = "nats://127.0.0.1:4222"`
        "#]],
    );
}

#[test]
fn what_is_missing() {
    check(
        r#"[sink.a]
types = "stream.*"

[sink.b]
type = "file"

[sink.c]
type = "fil"
"#,
        &expect![[r#"
            error: sink `a` has no `type`
             --> /etc/eventsubd/config.toml:5:7
              |
            5 | [sink.a]
              |       ^
              |
              = help: for example `type = "stdout"` or `type = "file"`

            error: sink `b` has no `path`
             --> /etc/eventsubd/config.toml:8:7
              |
            8 | [sink.b]
              |       ^
              |
              = help: the file that events are appended to: `path = "events.jsonl"`

            error: `fil` is not valid for `sink.c.type`
              --> /etc/eventsubd/config.toml:12:8
               |
            12 | type = "fil"
               |        ^^^^^
               |
               = help: did you mean `file`?
        "#]],
    );
}

#[test]
fn names_of_sinks_are_checked() {
    check(
        r#"[sink.Log]
type = "stdout"

[sink."a.b"]
type = "stdout"

[sink.""]
type = "stdout"
"#,
        &expect![[r#"
            error: `Log` is not a valid name for a sink
             --> /etc/eventsubd/config.toml:5:7
              |
            5 | [sink.Log]
              |       ^^^
              |
              = help: a name has 1 to 64 of the characters a-z, 0-9, `_` and `-`

            error: `a.b` is not a valid name for a sink
             --> /etc/eventsubd/config.toml:8:7
              |
            8 | [sink."a.b"]
              |       ^^^^^
              |
              = help: a name has 1 to 64 of the characters a-z, 0-9, `_` and `-`

            error: `` is not a valid name for a sink
              --> /etc/eventsubd/config.toml:11:7
               |
            11 | [sink.""]
               |       ^^
               |
               = help: a name has 1 to 64 of the characters a-z, 0-9, `_` and `-`
        "#]],
    );
}

#[test]
fn a_sink_table_without_a_name_is_explained() {
    check(
        r#"[sink]
type = "stdout"
other = 3
"#,
        &expect![[r#"
            error: `sink.type` must be a table
             --> /etc/eventsubd/config.toml:6:1
              |
            6 | type = [hidden]
              | ^^^^
              |
              = help: sinks have names: `[sink.NAME]`

            error: `sink.other` must be a table
             --> /etc/eventsubd/config.toml:7:1
              |
            7 | other = [hidden]
              | ^^^^^
              |
              = help: write it as `[sink.other]`
        "#]],
    );
}

#[test]
fn two_sinks_with_one_target() {
    check(
        r#"[sink.b]
type = "file"
path = "events.jsonl"

[sink.a]
type = "file"
path = "./x/../events.jsonl"

[sink.c]
type = "stdout"

[sink.d]
type = "stdout"
"#,
        &expect![[r#"
            error: sinks `a` and `b` write to the same file
              --> /etc/eventsubd/config.toml:11:8
               |
            11 | path = "./x/../events.jsonl"
               |        ^^^^^^^^^^^^^^^^^^^^^
               |
              ::: /etc/eventsubd/config.toml:7:8
               |
             7 | path = [hidden]
               |        -------- the other one
               |
               = help: one sink can take all events: `sinks` and `types` choose among them

            error: sinks `c` and `d` are both of type `stdout`
              --> /etc/eventsubd/config.toml:16:7
               |
            16 | [sink.d]
               |       ^
               |
              ::: /etc/eventsubd/config.toml:13:7
               |
            13 | [sink.c]
               |       - the other one
               |
               = help: one sink can take all events: `sinks` and `types` choose among them
        "#]],
    );
}

#[test]
fn globs() {
    check(
        r#"[sink.a]
type = "stdout"
types = ["stream.*", "channel.[a", "stream.onlin", "x.*"]

[sink.b]
type = "file"
path = "x"
types = []

[sink.c]
type = "file"
path = "y"
types = [1]
"#,
        &expect![[r#"
            error: `channel.[a` is not a valid glob: unclosed character class; missing ']'
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = [hidden]
              |         ^^^^^^^^
              |
              = help: for example "stream.*" or "channel.chat.*"

            error: `sink.c.types` must be a string or a list of strings, not a whole number
              --> /etc/eventsubd/config.toml:17:9
               |
            17 | types = [hidden]
               |         ^^^^^^^^
               |
               = help: put it in quotes

            warning: `stream.onlin` matches no known type
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = [hidden]
              |         ^^^^^^^^
              |
              = help: did you mean `stream.online`?

            warning: item 4 of `types` matches no known type
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = [hidden]
              |         ^^^^^^^^

            warning: `types` of sink `b` is an empty list: it gets no events
              --> /etc/eventsubd/config.toml:12:9
               |
            12 | types = []
               |         ^^
               |
               = help: leave it out to send it all events
        "#]],
    );
}

#[test]
fn programs() {
    let case = Case::with(
        r#"[sink.a]
type = "command"
command = []

[sink.b]
type = "command"
command = "sh -c true"

[sink.c]
type = "command"
command = ["./client_secret"]

[sink.d]
type = "command"
command = ["./nothing", "x"]

[sink.e]
type = "command"
command = ["sh", "-c", "true"]
timeout = "2h"
concurrency = 0
format = "template"
"#,
    );
    case.expect(&expect![[r#"
        error: `command` names no program
         --> /etc/eventsubd/config.toml:7:11
          |
        7 | command = [hidden]
          |           ^^^^^^^^
          |
          = help: the program and its arguments: `command = ["./on-event", "--quiet"]`

        error: there is no such program in /usr/local/bin:/usr/bin:/bin
          --> /etc/eventsubd/config.toml:11:11
           |
        11 | command = [hidden]
           |           ^^^^^^^^
           |
           = help: the program and each argument are parts of their own: ["prog", "arg"]

        error: the program `/etc/eventsubd/client_secret` is not executable
          --> /etc/eventsubd/config.toml:15:11
           |
        15 | command = [hidden]
           |           ^^^^^^^^
           |
           = help: run `chmod +x /etc/eventsubd/client_secret`

        error: there is no program `/etc/eventsubd/nothing`
          --> /etc/eventsubd/config.toml:19:11
           |
        19 | command = [hidden]
           |           ^^^^^^^^
           |
           = help: a bare name is looked for in $PATH; a path with `/` starts at the file's folder, in which the program also runs

        error: `sink.e.timeout` must be from 1s to 1h, not `2h`
          --> /etc/eventsubd/config.toml:24:11
           |
        24 | timeout = "2h"
           |           ^^^^
           |
           = help: how long one event may take

        error: `sink.e.concurrency` must be a whole number from 1 to 256, not `0`
          --> /etc/eventsubd/config.toml:25:15
           |
        25 | concurrency = 0
           |               ^
           |
           = help: how many events are under way at once; with more than one, order is kept for each broadcaster

        error: a sink of type `command` cannot have the format `template`
          --> /etc/eventsubd/config.toml:26:1
           |
        26 | format = "template"
           | ^^^^^^
           |
           = help: templates are for the `body` of sinks of type `http`
    "#]]);
}

#[test]
fn addresses_and_formats() {
    check(
        r#"[sink.a]
type = "http"
url = "ftp://example.org"

[sink.b]
type = "http"
url = "example.org/hook"
method = "GET"

[sink.c]
type = "http"
url = "https://example.org"
format = "template"

[sink.d]
type = "http"
url = "https://example.org"
format = "cloudevents"
body = "{{ type }}"
secret_file = "client_secret"

[sink.e]
type = "http"
url = "https://example.org"
headers = { "not a name" = "x", Content-Length = "3", X-Number = 3 }
secret_file = "client_secret"

[sink.f]
type = "nats"
url = "http://example.org"
stream = "a.b"
credentials = "missing.creds"

[sink.g]
type = "nats"
"#,
        &expect![[r#"
            error: `url` of sink `a` must begin with https:// or http://
             --> /etc/eventsubd/config.toml:7:7
              |
            7 | url = [hidden]
              |       ^^^^^^^^
              |
              = help: it is written "https://host", with a port and a path as needed

            error: `url` of sink `b` is not a valid URL: relative URL without a base
              --> /etc/eventsubd/config.toml:11:7
               |
            11 | url = [hidden]
               |       ^^^^^^^^
               |
               = help: it is written "https://host", with a port and a path as needed

            error: the value is not valid for `sink.b.method`
              --> /etc/eventsubd/config.toml:12:10
               |
            12 | method = [hidden]
               |          ^^^^^^^^
               |
               = help: it is one of `POST`, `PUT`, `PATCH`

            error: sink `c` has the format `template`, and no `body`
              --> /etc/eventsubd/config.toml:14:7
               |
            14 | [sink.c]
               |       ^
               |
               = help: for example body = '{ "content": {{ event.broadcaster_user_name | tojson }} }'

            error: `body` does not go with `format = "cloudevents"`
              --> /etc/eventsubd/config.toml:23:1
               |
            23 | body = [hidden]
               | ^^^^
               |
               = help: leave `format` out: a sink with a `body` sends that

            error: no secret in `client_secret`: it must have 10 to 100 ASCII characters
              --> /etc/eventsubd/config.toml:24:15
               |
            24 | secret_file = "client_secret"
               |               ^^^^^^^^^^^^^^^
               |
               = help: make one with `openssl rand -hex 20 > client_secret`, and give it to the receiver

            error: a name in `sink.e.headers` is not the name of a header
              --> /etc/eventsubd/config.toml:29:13
               |
            29 | headers = [hidden]
               |           ^^^^^^^^
               |
               = help: for example `headers = { Authorization = "…" }`

            error: the header `content-length` belongs to the connection, and cannot be set
              --> /etc/eventsubd/config.toml:29:33
               |
            29 | headers = [hidden]
               |           ^^^^^^^^
               |
               = help: leave it out

            error: `x-number` in `sink.e.headers` must be a string
              --> /etc/eventsubd/config.toml:29:55
               |
            29 | headers = [hidden]
               |           ^^^^^^^^
               |
               = help: put it in quotes

            error: no secret in `client_secret`: it must have 10 to 100 ASCII characters
              --> /etc/eventsubd/config.toml:30:15
               |
            30 | secret_file = "client_secret"
               |               ^^^^^^^^^^^^^^^
               |
               = help: make one with `openssl rand -hex 20 > client_secret`, and give it to the receiver

            error: `url` of sink `f` must begin with tls:// or nats://
              --> /etc/eventsubd/config.toml:34:7
               |
            34 | url = [hidden]
               |       ^^^^^^^^
               |
               = help: it is written "tls://host", with a port and a path as needed

            error: `stream` of sink `f` is not a valid name
              --> /etc/eventsubd/config.toml:35:10
               |
            35 | stream = [hidden]
               |          ^^^^^^^^
               |
               = help: letters, digits, `_` and `-`, for example "EVENTSUB"

            error: there is no file `/etc/eventsubd/missing.creds`
              --> /etc/eventsubd/config.toml:36:15
               |
            36 | credentials = "missing.creds"
               |               ^^^^^^^^^^^^^^^
               |
               = help: the path is relative to the directory of the configuration file

            error: sink `g` has no `url`
              --> /etc/eventsubd/config.toml:38:7
               |
            38 | [sink.g]
               |       ^
               |
               = help: the server, or several with commas between them: `url = "nats://127.0.0.1:4222"`

            warning: `secret_file` does nothing here: only requests of the format `eventsub` are signed
              --> /etc/eventsubd/config.toml:24:1
               |
            24 | secret_file = "client_secret"
               | ^^^^^^^^^^^
               |
               = help: put a token for the receiver into `headers_file`
        "#]],
    );
}

#[test]
fn secrets_of_sinks_are_for_their_owner_only() {
    const TEXT: &str = r#"[sink.discord]
type = "http"
url = "https://discord.com/api/webhooks/112233445566/hunter2hunter2hunter2hunter2"
body = "x"

[sink.home]
type = "http"
url = "https://me:hunter2@home.example/"
headers = { Authorization = "Bearer hunter2", X-Fine = "fine", X-Type = "{{ type }}" }
headers_file = "headers"
secret_file = "webhook_secret"

[sink.nats]
type = "nats"
url = "tls://me:hunter2@nats.example,tls://nats.example"
credentials = "nats.creds"
"#;
    let case = Case::with(TEXT);
    case.file("headers", "# more\nX-Token: hunter2\n\nX-More : a: b\n", 0o600);
    case.file("webhook_secret", "hunter2hunter2\n", 0o600);
    case.file("nats.creds", "hunter2", 0o400);
    case.expect(&expect!["fine\n"]);
    let config = case.config();
    assert!(!format!("{config:?}").contains("hunter2"));
    let SinkKind::Http(HttpOptions { headers, body, .. }) = &config.sinks[&SinkName::new("home")].kind else {
        panic!()
    };
    let HttpBody::Eventsub(secret) = body else { panic!() };
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(
        headers,
        [
            ("authorization", "Bearer hunter2"),
            ("x-fine", "fine"),
            ("x-type", "{{ type }}"),
            ("x-token", "hunter2"),
            ("x-more", "a: b")
        ]
    );
    assert_eq!(secret.as_ref().map(Secret::expose), Some("hunter2hunter2"));

    case.file("config.toml", format!("{HEAD}{TEXT}{ONE}"), 0o644);
    case.file("headers", "no header\n", 0o644);
    case.file("webhook_secret", "short\n", 0o604);
    case.file("nats.creds", "hunter2", 0o644);
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/config.toml` holds what looks like a secret in `url` of sink `discord`, and others can read it (mode 0644)
         --> /etc/eventsubd/config.toml:7:7
          |
        7 | url = [hidden]
          |       ^^^^^^^^
          |
          = help: run `chmod 600 /etc/eventsubd/config.toml`
          = help: or take the URL out, and set the environment variable EVENTSUBD_SINK__DISCORD__URL

        error: `/etc/eventsubd/config.toml` holds a user or a password in `url` of sink `home`, and others can read it (mode 0644)
          --> /etc/eventsubd/config.toml:12:7
           |
        12 | url = [hidden]
           |       ^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/config.toml`
           = help: or take the URL out, and set the environment variable EVENTSUBD_SINK__HOME__URL

        error: `/etc/eventsubd/config.toml` holds the header `authorization` of sink `home`, and others can read it (mode 0644)
          --> /etc/eventsubd/config.toml:13:13
           |
        13 | headers = [hidden]
           |           ^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/config.toml`
           = help: or move the header into a file of its own: `headers_file`

        error: `/etc/eventsubd/config.toml` holds the header `x-fine` of sink `home`, and others can read it (mode 0644)
          --> /etc/eventsubd/config.toml:13:47
           |
        13 | headers = [hidden]
           |           ^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/config.toml`
           = help: or move the header into a file of its own: `headers_file`

        error: `/etc/eventsubd/headers` holds headers, and others can read it (mode 0644)
          --> /etc/eventsubd/config.toml:14:16
           |
        14 | headers_file = "headers"
           |                ^^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/headers`
           = help: or load it with systemd's `LoadCredential=NAME:PATH`, and name `/run/credentials/UNIT/NAME` here

        error: line 1 of `headers` is not a header
          --> /etc/eventsubd/config.toml:14:16
           |
        14 | headers_file = "headers"
           |                ^^^^^^^^^
           |
           = help: each line is `Name: value`, such as `Authorization: Bearer …`, without quotes around it

        error: `/etc/eventsubd/webhook_secret` holds the secret of a sink, and others can read it (mode 0604)
          --> /etc/eventsubd/config.toml:15:15
           |
        15 | secret_file = "webhook_secret"
           |               ^^^^^^^^^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/webhook_secret`
           = help: or load it with systemd's `LoadCredential=NAME:PATH`, and name `/run/credentials/UNIT/NAME` here

        error: no secret in `webhook_secret`: it must have 10 to 100 ASCII characters
          --> /etc/eventsubd/config.toml:15:15
           |
        15 | secret_file = "webhook_secret"
           |               ^^^^^^^^^^^^^^^^
           |
           = help: make one with `openssl rand -hex 20 > webhook_secret`, and give it to the receiver

        error: `/etc/eventsubd/config.toml` holds a user or a password in `url` of sink `nats`, and others can read it (mode 0644)
          --> /etc/eventsubd/config.toml:19:7
           |
        19 | url = [hidden]
           |       ^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/config.toml`
           = help: or take the URL out, and set the environment variable EVENTSUBD_SINK__NATS__URL

        error: `/etc/eventsubd/nats.creds` holds NATS credentials, and others can read it (mode 0644)
          --> /etc/eventsubd/config.toml:20:15
           |
        20 | credentials = "nats.creds"
           |               ^^^^^^^^^^^^
           |
           = help: run `chmod 600 /etc/eventsubd/nats.creds`
           = help: or load it with systemd's `LoadCredential=NAME:PATH`, and name `/run/credentials/UNIT/NAME` here
    "#]]);
    assert!(!case.report().contains("hunter2"));
}

#[test]
fn a_body_is_a_template_and_a_bare_program_is_found() {
    let case = Case::with(
        r#"[sink.a]
type = "http"
url = "http://localhost:1/x"
method = "PUT"
body = "{{ type }}"
concurrency = 4
from = "beginning"

[sink.b]
type = "command"
command = "sh"
types = ["eventsubd.gap"]

[sink.c]
type = "nats"
url = "nats://127.0.0.1:4222, nats://127.0.0.1:4223"

[sink.d]
type = "nats"
url = "nats://127.0.0.1:4222,nats://127.0.0.1:4223"
discover = true

[sink.e]
type = "nats"
url = "nats://127.0.0.1:4222"
"#,
    );
    case.expect(&expect!["fine\n"]);
    let sinks = case.config().sinks;
    let sink = |name: &str| &sinks[&SinkName::new(name)];
    assert_eq!(sink("a").start, StartAt::Beginning);
    let SinkKind::Http(HttpOptions { concurrency: 4, method, body, .. }) = &sink("a").kind else { panic!() };
    assert!(method == "PUT" && matches!(body, HttpBody::Template(_)));
    let SinkKind::Command(CommandOptions { program, arguments, timeout, concurrency, folder }) =
        &sink("b").kind
    else {
        panic!()
    };
    assert!(program.is_absolute() && program.ends_with("sh") && arguments.is_empty());
    assert_eq!((timeout.as_secs(), *concurrency), (30, 1));
    assert_eq!(folder, case.directory.path());
    let SinkKind::Nats(NatsOptions { subject, discover, .. }) = &sink("c").kind else { panic!() };
    assert_eq!(&**subject, "eventsub.{{type}}.{{broadcaster_id}}");
    assert!(!discover, "credentials go to the listed servers alone");
    let SinkKind::Nats(NatsOptions { discover, .. }) = &sink("d").kind else { panic!() };
    assert!(discover, "the file says so");
    let SinkKind::Nats(NatsOptions { discover, .. }) = &sink("e").kind else { panic!() };
    assert!(discover, "one server stands for its cluster");
}
