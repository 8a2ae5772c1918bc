//! Messages about sinks.

use super::*;
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
            7 | path = "x"
              | ^^^^
              |
              = help: it belongs to sinks of type `file`

            error: a sink of type `stdout` has no `url`
             --> /etc/eventsubd/config.toml:8:1
              |
            8 | url = "https://example.org"
              | ^^^
              |
              = help: it belongs to sinks of type `http` and `nats`, which are not supported yet

            error: a sink of type `file` has no `command`
              --> /etc/eventsubd/config.toml:14:1
               |
            14 | command = ["prog"]
               | ^^^^^^^
               |
               = help: it belongs to sinks of type `command`, which are not supported yet

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
fn types_that_are_not_supported_yet() {
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
            error: `command` of `sink.a.type` is not supported yet
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "command"
              |        ^^^^^^^^^
              |
              = help: this release has `stdout`, `file`

            error: `http` of `sink.b.type` is not supported yet
              --> /etc/eventsubd/config.toml:11:8
               |
            11 | type = "http"
               |        ^^^^^^
               |
               = help: this release has `stdout`, `file`

            error: unknown key `methd`
              --> /etc/eventsubd/config.toml:14:1
               |
            14 | methd = "POST"
               | ^^^^^
               |
               = help: did you mean `method`?

            error: `nats` of `sink.c.type` is not supported yet
              --> /etc/eventsubd/config.toml:17:8
               |
            17 | type = "nats"
               |        ^^^^^^
               |
               = help: this release has `stdout`, `file`

            error: `cloudevents` of `sink.d.format` is not supported yet
              --> /etc/eventsubd/config.toml:21:10
               |
            21 | format = "cloudevents"
               |          ^^^^^^^^^^^^^
               |
               = help: this release has `eventsub`
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

            error: `fil` is no value of `sink.c.type`
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
fn names() {
    check(
        r#"[sink.Log]
type = "stdout"

[sink."a.b"]
type = "stdout"

[sink.""]
type = "stdout"
"#,
        &expect![[r#"
            error: `Log` is no name for a sink
             --> /etc/eventsubd/config.toml:5:7
              |
            5 | [sink.Log]
              |       ^^^
              |
              = help: a name has 1 to 64 of the characters a-z, 0-9, `_` and `-`

            error: `a.b` is no name for a sink
             --> /etc/eventsubd/config.toml:8:7
              |
            8 | [sink."a.b"]
              |       ^^^^^
              |
              = help: a name has 1 to 64 of the characters a-z, 0-9, `_` and `-`

            error: `` is no name for a sink
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
fn no_name() {
    check(
        r#"[sink]
type = "stdout"
other = 3
"#,
        &expect![[r#"
            error: `sink.type` must be a table
             --> /etc/eventsubd/config.toml:6:1
              |
            6 | type = "stdout"
              | ^^^^
              |
              = help: sinks have names: `[sink.NAME]`

            error: `sink.other` must be a table
             --> /etc/eventsubd/config.toml:7:1
              |
            7 | other = 3
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
             7 | path = "events.jsonl"
               |        -------------- the other one
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
            error: `channel.[a` is no glob: unclosed character class; missing ']'
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["stream.*", "channel.[a", "stream.onlin", "x.*"]
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: for example "stream.*" or "channel.chat.*"

            error: `sink.c.types` must be a string or a list of strings, not a whole number
              --> /etc/eventsubd/config.toml:17:9
               |
            17 | types = [1]
               |         ^^^
               |
               = help: put it in quotes

            warning: `stream.onlin` matches no known type
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["stream.*", "channel.[a", "stream.onlin", "x.*"]
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: did you mean `stream.online`?

            warning: `x.*` matches no known type
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["stream.*", "channel.[a", "stream.onlin", "x.*"]
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

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
