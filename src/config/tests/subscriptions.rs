//! Messages about the entries of subscriptions: lists, logins, files, sinks.

use super::*;
use expect_test::expect;

#[test]
fn no_subscription_is_a_warning() {
    check_subscriptions(
        r#""#,
        &expect![[r#"
        warning: `/etc/eventsubd/config.toml` asks for no subscription
         |
         = help: add one with `[[subscription]]`, `type` and `broadcaster`
    "#]],
    );
}

#[test]
fn subscription_as_a_single_table_is_explained() {
    check_subscriptions(
        r#"[subscription]
type = "stream.online"
"#,
        &expect![[r#"
            error: `subscription` must be a list of tables, not a table
             --> /etc/eventsubd/config.toml:5:2
              |
            5 | [subscription]
              |  ^^^^^^^^^^^^
              |
              = help: write each one as `[[subscription]]`, with two brackets
        "#]],
    );
}

#[test]
fn an_entry_that_is_no_table() {
    Case::new("subscription = [1, \"x\"]").expect(&expect![[r#"
        error: `subscription` must be a list of tables
         --> /etc/eventsubd/config.toml:1:17
          |
        1 | subscription = [hidden]
          |                ^^^^^^^^
          |
          = help: write each one as `[[subscription]]`

        error: `subscription` must be a list of tables
         --> /etc/eventsubd/config.toml:1:20
          |
        1 | subscription = [hidden]
          |                ^^^^^^^^
          |
          = help: write each one as `[[subscription]]`

        error: `twitch.client_id` is missing
         |
         = help: make an application at https://dev.twitch.tv/console, and set `client_id` in `[twitch]`

        error: there is no client secret
         |
         = help: set `client_secret_file` in `[twitch]` of /etc/eventsubd/config.toml
         = help: or set the environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
         = help: or, under systemd, use `LoadCredential=client_secret:PATH`
    "#]]);
    Case::new("subscription = 1").expect(&expect![[r#"
        error: `subscription` must be a list of tables, not a value
         --> /etc/eventsubd/config.toml:1:1
          |
        1 | subscription = [hidden]
          | ^^^^^^^^^^^^
          |
          = help: write each one as `[[subscription]]`, with two brackets

        error: `twitch.client_id` is missing
         |
         = help: make an application at https://dev.twitch.tv/console, and set `client_id` in `[twitch]`

        error: there is no client secret
         |
         = help: set `client_secret_file` in `[twitch]` of /etc/eventsubd/config.toml
         = help: or set the environment variable EVENTSUBD_TWITCH__CLIENT_SECRET
         = help: or, under systemd, use `LoadCredential=client_secret:PATH`
    "#]]);
}

#[test]
fn unknown_keys() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.online"
brodcaster = "ninja"
broadcaster_user_id = "1"
wombat = 1
"#,
        &expect![[r#"
            error: unknown key `brodcaster`
             --> /etc/eventsubd/config.toml:7:1
              |
            7 | brodcaster = [hidden]
              | ^^^^^^^^^^
              |
              = help: did you mean `broadcaster`?

            error: unknown key `broadcaster_user_id`
             --> /etc/eventsubd/config.toml:8:1
              |
            8 | broadcaster_user_id = [hidden]
              | ^^^^^^^^^^^^^^^^^^^
              |
              = help: ids go into the condition: `condition = { broadcaster_user_id = "…" }`

            error: unknown key `wombat`
             --> /etc/eventsubd/config.toml:9:1
              |
            9 | wombat = [hidden]
              | ^^^^^^
        "#]],
    );
}

#[test]
fn a_missing_type_is_reported() {
    check_subscriptions(
        r#"[[subscription]]
broadcaster = "ninja"
"#,
        &expect![[r#"
            error: this subscription has no `type`
             --> /etc/eventsubd/config.toml:5:1
              |
            5 | [[subscription]]
              | ^^^^^^^^^^^^^^^^
              |
              = help: for example `type = "stream.online"`; `eventsubd types` lists them
        "#]],
    );
}

#[test]
fn wrong_types() {
    check_subscriptions(
        r#"[[subscription]]
type = "channel.follow"
version = 2
broadcaster = 19571641
enabled = "yes"
sinks = { a = 1 }

[[subscription]]
type = ["stream.online", 7]
broadcaster = "ninja"
"#,
        &expect![[r#"
            error: `version` must be a string, not a whole number
             --> /etc/eventsubd/config.toml:7:11
              |
            7 | version = 2
              |           ^
              |
              = help: put it in quotes

            error: `broadcaster` must be a string or a list of strings, not a whole number
             --> /etc/eventsubd/config.toml:8:15
              |
            8 | broadcaster = 19571641
              |               ^^^^^^^^
              |
              = help: these are logins in quotes; ids go into `condition`, in quotes as well

            error: `enabled` must be true or false, not a string
             --> /etc/eventsubd/config.toml:9:11
              |
            9 | enabled = "yes"
              |           ^^^^^
              |
              = help: write `true`, without quotes

            error: `sinks` must be a string or a list of strings, not a table
              --> /etc/eventsubd/config.toml:10:9
               |
            10 | sinks = { a = 1 }
               |         ^^^^^^^^^

            error: `type` must be a string or a list of strings, not a whole number
              --> /etc/eventsubd/config.toml:13:26
               |
            13 | type = ["stream.online", 7]
               |                          ^
               |
               = help: put it in quotes
        "#]],
    );
}

#[test]
fn conditions() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.online"
condition = { broadcaster_user_id = 19571641 }

[[subscription]]
type = "stream.offline"
condition = { broadcaster_user_id = "" }

[[subscription]]
type = "stream.offline"
condition = { broadcaster_user_id = ["1"] }

[[subscription]]
type = "stream.offline"
condition = "1"

[[subscription]]
type = "stream.offline"
condition = { broadcaster_user_id = "ninja" }
"#,
        &expect![[r#"
            error: condition field `broadcaster_user_id` must be a string
             --> /etc/eventsubd/config.toml:7:37
              |
            7 | condition = { broadcaster_user_id = 19571641 }
              |                                     ^^^^^^^^
              |
              = help: put it in quotes: "19571641"

            error: condition field `broadcaster_user_id` is empty
              --> /etc/eventsubd/config.toml:11:37
               |
            11 | condition = { broadcaster_user_id = "" }
               |                                     ^^
               |
               = help: leave it out instead

            error: condition field `broadcaster_user_id` must be a string
              --> /etc/eventsubd/config.toml:15:37
               |
            15 | condition = { broadcaster_user_id = ["1"] }
               |                                     ^^^^^

            error: `condition` must be a table of strings
              --> /etc/eventsubd/config.toml:19:13
               |
            19 | condition = "1"
               |             ^^^
               |
               = help: for example `condition = { broadcaster_user_id = "19571641" }`

            warning: `ninja` is not the id of a user: ids are digits
              --> /etc/eventsubd/config.toml:23:37
               |
            23 | condition = { broadcaster_user_id = "ninja" }
               |                                     ^^^^^^^
               |
               = help: logins go into `broadcaster`, outside of the condition
        "#]],
    );
}

#[test]
fn a_field_and_its_login() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.online"
broadcaster = "ninja"
condition = { broadcaster_user_id = "19571641" }
"#,
        &expect![[r#"
            error: `broadcaster_user_id` is given twice: here and as `broadcaster`
             --> /etc/eventsubd/config.toml:8:15
              |
            8 | condition = { broadcaster_user_id = "19571641" }
              |               ^^^^^^^^^^^^^^^^^^^
              |
             ::: /etc/eventsubd/config.toml:7:1
              |
            7 | broadcaster = "ninja"
              | ----------- the login
              |
              = help: keep one of them: the login, or the id in the condition
        "#]],
    );
}

#[test]
fn logins() {
    check_subscriptions(
        r##"[[subscription]]
type = "stream.online"
broadcaster = [
  "#ninja",
  "@Ninja",
  "https://www.twitch.tv/ninja/videos",
  "ニンジャ",
  "",
]
"##,
        &expect![[r##"
            error: `#ninja` is not a valid login
             --> /etc/eventsubd/config.toml:8:3
              |
            8 |   "#ninja",
              |   ^^^^^^^^
              |
              = help: write the login alone: `ninja`

            error: `@Ninja` is not a valid login
             --> /etc/eventsubd/config.toml:9:3
              |
            9 |   "@Ninja",
              |   ^^^^^^^^
              |
              = help: write the login alone: `ninja`

            error: `https://www.twitch.tv/ninja/videos` is not a valid login
              --> /etc/eventsubd/config.toml:10:3
               |
            10 |   "https://www.twitch.tv/ninja/videos",
               |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: write the login alone: `ninja`

            error: `ニンジャ` is not a valid login
              --> /etc/eventsubd/config.toml:11:3
               |
            11 |   "ニンジャ",
               |   ^^^^^^^^^^
               |
               = help: a login has 1 to 25 of the characters a-z, 0-9 and `_`; a display name may differ from it

            error: `` is not a valid login
              --> /etc/eventsubd/config.toml:12:3
               |
            12 |   "",
               |   ^^
               |
               = help: a login has 1 to 25 of the characters a-z, 0-9 and `_`; a display name may differ from it
        "##]],
    );
}

#[test]
fn empty_lists() {
    check_subscriptions(
        r#"[[subscription]]
type = []
broadcaster = "ninja"

[[subscription]]
type = "stream.online"
broadcaster = []

[[subscription]]
type = "stream.offline"
broadcaster = "ninja"
sinks = []
"#,
        &expect![[r#"
            warning: `type` is an empty list: it makes no subscription
             --> /etc/eventsubd/config.toml:6:1
              |
            6 | type = []
              | ^^^^

            warning: `broadcaster` is an empty list
              --> /etc/eventsubd/config.toml:11:1
               |
            11 | broadcaster = []
               | ^^^^^^^^^^^
               |
               = help: nothing is subscribed for it

            warning: `sinks` is an empty list: events are stored, but go nowhere
              --> /etc/eventsubd/config.toml:16:1
               |
            16 | sinks = []
               | ^^^^^
               |
               = help: leave it out to send them to all sinks
        "#]],
    );
}

#[test]
fn unknown_sinks() {
    check_subscriptions(
        r#"[sink.log]
type = "stdout"

[[subscription]]
type = "stream.online"
broadcaster = "ninja"
sinks = ["lgo", "elsewhere"]
"#,
        &expect![[r#"
            error: there is no sink `lgo`
              --> /etc/eventsubd/config.toml:11:10
               |
            11 | sinks = ["lgo", "elsewhere"]
               |          ^^^^^
               |
               = help: did you mean `log`?

            error: there is no sink `elsewhere`
              --> /etc/eventsubd/config.toml:11:17
               |
            11 | sinks = ["lgo", "elsewhere"]
               |                 ^^^^^^^^^^^
               |
               = help: there is `log`
        "#]],
    );
}

#[test]
fn the_same_subscription_twice() {
    check_subscriptions(
        r#"[[subscription]]
type = ["stream.online", "stream.offline"]
broadcaster = ["ninja", "Ninja", "shroud"]

[[subscription]]
type = "stream.online"
broadcaster = "shroud"
"#,
        &expect![[r#"
            warning: the same subscription is listed twice: `stream.online` broadcaster_user_id=shroud
              --> /etc/eventsubd/config.toml:11:15
               |
            11 | broadcaster = "shroud"
               |               ^^^^^^^^
               |
              ::: /etc/eventsubd/config.toml:7:34
               |
             7 | broadcaster = ["ninja", "Ninja", "shroud"]
               |                                  -------- first here
               |
               = help: it is made once, and its events go to the sinks of both
        "#]],
    );
}

#[test]
fn disabled_entries_are_checked() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.onlin"
broadcaster = "ninja"
enabled = false

[[subscription]]
type = "stream.online"
broadcaster = "nin ja"
enabled = false
"#,
        &expect![[r#"
            error: unknown subscription type `stream.onlin`
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "stream.onlin"
              |        ^^^^^^^^^^^^^^
              |
              = help: did you mean `stream.online`?
              = help: a type that is newer than this release needs `version` and `condition`

            error: `nin ja` is not a valid login
              --> /etc/eventsubd/config.toml:12:15
               |
            12 | broadcaster = "nin ja"
               |               ^^^^^^^^
               |
               = help: a list has each in quotes of its own: ["nin", "ja"]
        "#]],
    );
}

#[test]
fn login_files() {
    let case = Case::new(format!(
        "{HEAD}[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n"
    ));
    case.expect(&expect![[r#"
        error: there is no file `/etc/eventsubd/channels.txt`
         --> /etc/eventsubd/config.toml:7:20
          |
        7 | broadcaster_file = "channels.txt"
          |                    ^^^^^^^^^^^^^^
          |
          = help: the path is relative to the directory of the configuration file
    "#]]);
    case.file(
        "channels.txt",
        "ninja # the first\r\n\r\n# a comment\n\t@shroud\nhttps://twitch.tv/x\n",
        0o644,
    );
    case.expect(&expect![[r#"
        error: `@shroud` is not a valid login
         --> /etc/eventsubd/channels.txt:4:2
          |
        4 |     @shroud
          |     ^^^^^^^
          |
          = help: write the login alone: `shroud`

        error: `https://twitch.tv/x` is not a valid login
         --> /etc/eventsubd/channels.txt:5:1
          |
        5 | https://twitch.tv/x
          | ^^^^^^^^^^^^^^^^^^^
          |
          = help: write the login alone: `x`
    "#]]);
    case.file("channels.txt", "# nobody\n", 0o644);
    case.expect(&expect![[r#"
        warning: `channels.txt` contains no login
         --> /etc/eventsubd/config.toml:7:20
          |
        7 | broadcaster_file = "channels.txt"
          |                    ^^^^^^^^^^^^^^
          |
          = help: nothing is subscribed for it
    "#]]);
    case.file("channels.txt", b"ninja\nshr\xffud\n", 0o644);
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/channels.txt` is not UTF-8
         --> /etc/eventsubd/channels.txt:2:4
          |
        2 | shr�ud
          |    ^
          |
          = help: save it as UTF-8
    "#]]);
    fs::remove_file(case.directory.path().join("channels.txt")).expect("removed");
    fs::create_dir(case.directory.path().join("channels.txt")).expect("created");
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/channels.txt` is a directory
         --> /etc/eventsubd/config.toml:7:20
          |
        7 | broadcaster_file = "channels.txt"
          |                    ^^^^^^^^^^^^^^
    "#]]);
}

#[test]
fn login_files_with_many_errors() {
    let case = Case::new(format!(
        "{HEAD}[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n"
    ));
    case.file("channels.txt", "not one\n".repeat(1000), 0o644);
    let report = case.report();
    assert_eq!(report.matches("is not a valid login").count(), 10);
    assert!(report.contains("error: and 990 more lines that are not valid logins"), "{report}");
}

#[test]
fn a_file_that_is_named_twice() {
    let entry = "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n\n";
    let case = Case::new(format!("{HEAD}{entry}{entry}"));
    case.file("channels.txt", "ninja\n", 0o644);
    case.expect(&expect![[r#"
        warning: the same subscription is listed twice: `stream.online` broadcaster_user_id=ninja
          --> /etc/eventsubd/config.toml:10:8
           |
        10 | type = "stream.online"
           |        ^^^^^^^^^^^^^^^
           |
          ::: /etc/eventsubd/config.toml:6:8
           |
         6 | type = "stream.online"
           |        --------------- first here
           |
           = help: it is made once, and its events go to the sinks of both
    "#]]);
    let many: String = (0..1000).map(|n| format!("login{n}\n")).collect();
    case.file("channels.txt", many, 0o644);
    let report = case.report();
    assert_eq!(report.matches("is listed twice").count(), 10);
    assert!(report.ends_with("warning: and 990 more subscriptions are listed twice\n"), "{report}");
}

#[test]
fn products_that_are_too_large() {
    let logins: String = (0..1100).map(|n| format!("\"login{n}\", ")).collect();
    let report = Case::new(format!(
        "{HEAD}[[subscription]]\ntype = \"channel.follow\"\nbroadcaster = [{logins}]\nmoderator = [{logins}]\n"
    ))
    .report();
    expect![[r#"
        error: the lists multiply to more than 1,000,000 subscriptions
         --> /etc/eventsubd/config.toml:6:8
          |
        6 | type = "channel.follow"
          |        ^^^^^^^^^^^^^^^^
          |
          = help: several lists in one entry make every combination: write an entry for each pair instead
    "#]]
    .assert_eq(&report);
}
