//! Slips that many people make, and what is said of them.

use super::*;
use expect_test::expect;

#[test]
fn common_mistakes_in_the_syntax_get_hints() {
    for (text, expect) in [
        (
            "[[subscription]]\nbroadcaster = ninja\n",
            expect![[r#"
            error: the value of `broadcaster` is not in quotes
             --> /etc/eventsubd/config.toml:2:15
              |
            2 | broadcaster = ninja
              |               ^^^^^
              |
              = help: texts stand in quotes: broadcaster = "…"
        "#]],
        ),
        (
            "[twitch]\nclient_id = \u{201c}abc\u{201d}\n",
            expect![[r#"
            error: the value of `client_id` stands in typographic quotes
             --> /etc/eventsubd/config.toml:2:13
              |
            2 | client_id = “abc”
              |             ^^^^^
              |
              = help: write straight quotes: client_id = "…"
        "#]],
        ),
        (
            "[[subscription]]\ntype: \"stream.online\"\n",
            expect![[r#"
            error: key with no value, expected `=`
             --> /etc/eventsubd/config.toml:2:7
              |
            2 | type: [hidden]
              |       ^
              |
              = help: a key and its value have `=` between them: type = "…"
        "#]],
        ),
        (
            "[[subscription]]\nenabled = yes\n",
            expect![[r#"
            error: the value of `enabled` is not one of TOML's
             --> /etc/eventsubd/config.toml:2:11
              |
            2 | enabled = yes
              |           ^^^
              |
              = help: write `true` or `false`, in small letters
        "#]],
        ),
    ] {
        Case::new(text).expect(&expect);
    }
}

#[test]
fn common_mistakes_in_values_get_hints() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.online"
broadcaster = "ninja, shroud"
enabled = "yes"

[[subscription]]
type = "channel.chat"
broadcaster = "ninja"

[[subscription]]
type = "stream.online, stream.offline"
broadcaster = "ninja"

[[sink]]
type = "stdout"
"#,
        &expect![[r#"
            error: `ninja, shroud` is not a valid login
             --> /etc/eventsubd/config.toml:7:15
              |
            7 | broadcaster = "ninja, shroud"
              |               ^^^^^^^^^^^^^^^
              |
              = help: a list has each in quotes of its own: ["ninja", "shroud"]

            error: `enabled` must be true or false, not a string
             --> /etc/eventsubd/config.toml:8:11
              |
            8 | enabled = "yes"
              |           ^^^^^
              |
              = help: write `true`, without quotes

            error: unknown subscription type `channel.chat`
              --> /etc/eventsubd/config.toml:11:8
               |
            11 | type = "channel.chat"
               |        ^^^^^^^^^^^^^^
               |
               = help: there is `channel.chat.clear`, `channel.chat.clear_user_messages`, `channel.chat.message`, `channel.chat.message_delete`, `channel.chat.notification`, `channel.chat.user_message_hold`, … (`eventsubd types` lists them all)
               = help: a type that is newer than this release needs `version` and `condition`

            error: `stream.online, stream.offline` is not a subscription type
              --> /etc/eventsubd/config.toml:15:8
               |
            15 | type = "stream.online, stream.offline"
               |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: a list has each in quotes of its own: type = ["stream.online", "stream.offline"]

            error: `sink` must be a table with a table for each sink
              --> /etc/eventsubd/config.toml:18:3
               |
            18 | [[sink]]
               |   ^^^^
               |
               = help: sinks have names: write `[sink.NAME]` in place of `[[sink]]`, such as `[sink.log]`
        "#]],
    );
    check(
        "[sink.log]\ntype = \"stdout\"\ntypes = [\"channel.chat\"]\n",
        &expect![[r#"
        warning: `channel.chat` matches no known type
         --> /etc/eventsubd/config.toml:7:9
          |
        7 | types = ["channel.chat"]
          |         ^^^^^^^^^^^^^^^^
          |
          = help: did you mean `channel.chat.*`?
    "#]],
    );
}

#[test]
fn tokens_of_users_are_not_needed() {
    Case::new(format!("{HEAD}access_token = \"abc\"{ONE}")).expect(&expect![[r#"
        error: unknown key `access_token`
         --> /etc/eventsubd/config.toml:5:1
          |
        5 | access_token = [hidden]
          | ^^^^^^^^^^^^
          |
          = help: leave it out: the daemon gets app access tokens by itself, with the client id and the client secret
          = help: EventSub over conduits and webhooks refuses the tokens of users; `eventsubd authorize` asks users for what is needed
    "#]]);
    for name in ["oauth_token", "refresh_token", "user_token", "id_token"] {
        let report = Case::new(format!("{HEAD}{name} = \"abc\"{ONE}")).report();
        assert!(report.contains("the daemon gets app access tokens by itself"), "{name}: {report}");
    }
}

#[test]
fn sinks_that_nothing_reaches() {
    check(
        r#"[sink.a]
type = "stdout"
types = ["channel.chat.*", "stream.offline"]

[sink.b]
type = "file"
path = "b.jsonl"
types = ["stream.*", "channel.follow", "eventsubd.gap"]

[sink.c]
type = "file"
path = "c.jsonl"
types = ["eventsubd.gap"]
"#,
        &expect![[r#"
            warning: nothing that is subscribed fits the `types` of sink `a`: it gets none
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["channel.chat.*", "stream.offline"]
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: subscribed for it: `stream.online`

            warning: nothing that is subscribed fits `channel.follow` of sink `b`
              --> /etc/eventsubd/config.toml:12:9
               |
            12 | types = ["stream.*", "channel.follow", "eventsubd.gap"]
               |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: subscribed for it: `stream.online`
        "#]],
    );
    check_subscriptions(
        r#"[[subscription]]
type = "stream.online"
broadcaster = "ninja"
sinks = ["a"]

[sink.a]
type = "stdout"

[sink.b]
type = "file"
path = "b.jsonl"
"#,
        &expect![[r#"
            warning: no subscription names sink `b` in its `sinks`: it gets none
              --> /etc/eventsubd/config.toml:13:7
               |
            13 | [sink.b]
               |       ^
               |
               = help: add "b" to the `sinks` of a subscription, or leave `sinks` out there
        "#]],
    );
}

#[test]
fn globs_are_bounded() {
    let braces = |depth| format!("{}a{}", "{".repeat(depth), "}".repeat(depth));
    check(
        &format!(
            "[sink.a]\ntype = \"stdout\"\ntypes = [\"{}\", \"{}\", \"{}\"]\n",
            braces(250),
            braces(17),
            braces(16)
        ),
        &expect![[r#"
            error: `{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{…` is not a valid glob: it has more than 256 characters
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{…
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: for example "stream.*" or "channel.chat.*"

            error: `{{{{{{{{{{{{{{{{{a}}}}}}}}}}}}}}}}}` is not a valid glob: it has more than 16 pairs of braces
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{…
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: for example "stream.*" or "channel.chat.*"

            warning: `{{{{{{{{{{{{{{{{a}}}}}}}}}}}}}}}}` matches no known type
             --> /etc/eventsubd/config.toml:7:9
              |
            7 | types = ["{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{…
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn programs_that_the_system_would_refuse() {
    let case = Case::with(
        r#"[sink.a]
type = "command"
command = ["./windows.sh"]

[sink.b]
type = "command"
command = ["./bare.sh"]

[sink.c]
type = "command"
command = ["./lost.sh"]

[sink.d]
type = "command"
command = ["./fine.sh"]

[sink.e]
type = "command"
command = ["curl https://x.example/Zq7hunter2Kx"]
"#,
    );
    case.file("windows.sh", "#!/bin/sh\r\necho\r\n", 0o755);
    case.file("bare.sh", "echo\n", 0o755);
    case.file("lost.sh", "#!/nowhere/sh\n", 0o755);
    case.file("fine.sh", "#!/bin/sh\n", 0o755);
    case.expect(&expect![[r#"
        error: the first line of `/etc/eventsubd/windows.sh` ends with a carriage return, which becomes part of the interpreter's name
         --> /etc/eventsubd/config.toml:7:11
          |
        7 | command = [hidden]
          |           ^^^^^^^^
          |
          = help: run `sed -i 's/\r$//' /etc/eventsubd/windows.sh`

        error: the program `/etc/eventsubd/bare.sh` has no `#!` line
          --> /etc/eventsubd/config.toml:11:11
           |
        11 | command = [hidden]
           |           ^^^^^^^^
           |
           = help: start it with a line such as `#!/bin/sh` that names its interpreter

        error: the `#!` line of `/etc/eventsubd/lost.sh` names the interpreter `/nowhere/sh`, which does not exist
          --> /etc/eventsubd/config.toml:15:11
           |
        15 | command = [hidden]
           |           ^^^^^^^^
           |
           = help: install it, or correct the line

        error: there is no such program
          --> /etc/eventsubd/config.toml:23:11
           |
        23 | command = [hidden]
           |           ^^^^^^^^
           |
           = help: the program and each argument are parts of their own: ["prog", "arg"]
    "#]]);
}
