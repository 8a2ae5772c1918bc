//! Unknown keys, wrong types, ranges, and what is not supported yet.

use super::*;
use expect_test::expect;

#[test]
fn unknown_keys_and_sections() {
    check(
        r#"[store]
retian = "7d"
shards = 3
colour = "red"

[stroe]
retain = "7d"

[sinks.log]
type = "stdout"
"#,
        &expect![[r#"
            error: unknown key `retian`
             --> /etc/eventsubd/config.toml:6:1
              |
            6 | retian = [hidden]
              | ^^^^^^
              |
              = help: did you mean `retain`?

            error: unknown key `shards`
             --> /etc/eventsubd/config.toml:7:1
              |
            7 | shards = [hidden]
              | ^^^^^^
              |
              = help: `shards` belongs in `[transport.conduit]`

            error: unknown key `colour`
             --> /etc/eventsubd/config.toml:8:1
              |
            8 | colour = [hidden]
              | ^^^^^^

            error: unknown section `stroe`
              --> /etc/eventsubd/config.toml:10:2
               |
            10 | [stroe]
               |  ^^^^^
               |
               = help: did you mean `store`?

            error: unknown section `sinks`
              --> /etc/eventsubd/config.toml:13:2
               |
            13 | [sinks.log]
               |  ^^^^^
               |
               = help: did you mean `sink`?
        "#]],
    );
}

#[test]
fn several_problems_come_by_position() {
    check(
        r#"[store]
retain = "1m"
max_size = 5

[log]
level = "inof"
formt = "text"

[reconcile]
interval = "soon"
"#,
        &expect![[r#"
            error: `store.retain` must be from 1h to 3650d, not `1m`
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | retain = "1m"
              |          ^^^^
              |
              = help: how long events are kept; at least an hour, since Twitch may send a message again within 10 minutes

            error: `store.max_size` must be a size such as "1GiB", not a whole number
             --> /etc/eventsubd/config.toml:7:12
              |
            7 | max_size = 5
              |            ^
              |
              = help: a size has a unit: "5B", "5KiB" or "5MiB"

            error: `inof` is not a level of log lines
              --> /etc/eventsubd/config.toml:10:9
               |
            10 | level = "inof"
               |         ^^^^^^
               |
               = help: did you mean `info`?

            error: unknown key `formt`
              --> /etc/eventsubd/config.toml:11:1
               |
            11 | formt = [hidden]
               | ^^^^^
               |
               = help: did you mean `format`?

            error: `reconcile.interval` must be a duration such as "30s", not `soon`
              --> /etc/eventsubd/config.toml:14:12
               |
            14 | interval = "soon"
               |            ^^^^^^
               |
               = help: durations are written "30s", "10m" or "7d"
        "#]],
    );
}

#[test]
fn durations() {
    check(
        r#"[reconcile]
interval = 30

[store]
retain = "30"

[transport.conduit]
keepalive = "30 bananas"

[sink.a]
type = "stdout"
retry_max = ""
give_up_after = "99999999999999999999d"
"#,
        &expect![[r#"
            error: `reconcile.interval` must be a duration such as "30s", not a whole number
             --> /etc/eventsubd/config.toml:6:12
              |
            6 | interval = 30
              |            ^^
              |
              = help: a duration has a unit: "30s", "30m" or "30h"

            error: `store.retain` has no unit: `30`
             --> /etc/eventsubd/config.toml:9:10
              |
            9 | retain = "30"
              |          ^^^^
              |
              = help: a duration has a unit: "30s", "30m" or "30h"

            error: `transport.conduit.keepalive` must be a duration such as "30s", not `30 bananas`
              --> /etc/eventsubd/config.toml:12:13
               |
            12 | keepalive = "30 bananas"
               |             ^^^^^^^^^^^^
               |
               = help: the units are ms, s, m, h, d and w

            error: `sink.a.retry_max` is empty
              --> /etc/eventsubd/config.toml:16:13
               |
            16 | retry_max = ""
               |             ^^
               |
               = help: leave the key out instead

            error: `sink.a.give_up_after` must be a duration such as "30s"
              --> /etc/eventsubd/config.toml:17:17
               |
            17 | give_up_after = [hidden]
               |                 ^^^^^^^^
               |
               = help: that is more than can be counted
        "#]],
    );
}

#[test]
fn durations_out_of_range() {
    check(
        r#"[twitch.x]

[reconcile]
interval = "25h"

[store]
retain = "10m"

[transport.conduit]
keepalive = "9s"
"#,
        &expect![[r#"
            error: unknown section `x`
             --> /etc/eventsubd/config.toml:5:9
              |
            5 | [twitch.x]
              |         ^

            error: `reconcile.interval` must be from 1m to 24h, not `25h`
             --> /etc/eventsubd/config.toml:8:12
              |
            8 | interval = "25h"
              |            ^^^^^
              |
              = help: how often everything is compared with Twitch, beside the times that events cause

            error: `store.retain` must be from 1h to 3650d, not `10m`
              --> /etc/eventsubd/config.toml:11:10
               |
            11 | retain = "10m"
               |          ^^^^^
               |
               = help: how long events are kept; at least an hour, since Twitch may send a message again within 10 minutes

            error: `transport.conduit.keepalive` must be from 10s to 10m, not `9s`
              --> /etc/eventsubd/config.toml:14:13
               |
            14 | keepalive = "9s"
               |             ^^^^
               |
               = help: how long a socket may be silent before it counts as broken
        "#]],
    );
}

#[test]
fn the_token_is_validated_once_an_hour_at_least() {
    Case::new(format!("{HEAD}validate_interval = \"2h\"{ONE}")).expect(&expect![[r#"
        error: `twitch.validate_interval` must be from 1m to 1h, not `2h`
         --> /etc/eventsubd/config.toml:5:21
          |
        5 | validate_interval = "2h"
          |                     ^^^^
          |
          = help: how often the token is validated; Twitch asks for once an hour
    "#]]);
}

#[test]
fn sizes() {
    check(
        r#"[store]
max_size = "1MiB"

[sink.a]
type = "file"
path = "a"
rotate_size = 100

[sink.b]
type = "file"
path = "b"
rotate_size = "1 potato"

[sink.c]
type = "file"
path = "c"
rotate_size = "100"

[sink.d]
type = "file"
path = "d"
rotate_size = "1KiB"

[sink.e]
type = "file"
path = "e"
rotate_size = "99999999EiB"
"#,
        &expect![[r#"
            error: `store.max_size` must be at least 16MiB, not `1MiB`
             --> /etc/eventsubd/config.toml:6:12
              |
            6 | max_size = "1MiB"
              |            ^^^^^^
              |
              = help: how large the store may grow before the oldest events go

            error: `sink.a.rotate_size` must be a size such as "1GiB", not a whole number
              --> /etc/eventsubd/config.toml:11:15
               |
            11 | rotate_size = 100
               |               ^^^
               |
               = help: a size has a unit: "100B", "100KiB" or "100MiB"

            error: `sink.b.rotate_size` must be a size such as "1GiB"
              --> /etc/eventsubd/config.toml:16:15
               |
            16 | rotate_size = [hidden]
               |               ^^^^^^^^
               |
               = help: the units are B, KiB, MiB, GiB and TiB

            error: `sink.c.rotate_size` has no unit: `100`
              --> /etc/eventsubd/config.toml:21:15
               |
            21 | rotate_size = "100"
               |               ^^^^^
               |
               = help: a size has a unit: "100B", "100KiB" or "100MiB"

            error: `sink.d.rotate_size` must be at least 4KiB, not `1KiB`
              --> /etc/eventsubd/config.toml:26:15
               |
            26 | rotate_size = "1KiB"
               |               ^^^^^^
               |
               = help: the size at which a new file is begun; never when left out

            error: `sink.e.rotate_size` is too large: `99999999EiB`
              --> /etc/eventsubd/config.toml:31:15
               |
            31 | rotate_size = "99999999EiB"
               |               ^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn numbers() {
    check(
        r#"[transport.conduit]
shards = 0

[reconcile]
max_delete = 1.5

[sink.a]
type = "file"
path = "a"
rotate_keep = "3"
rotate_size = "1MiB"

[sink.b]
type = "file"
path = "b"
rotate_keep = 99999999999999999999999999
rotate_size = "1MiB"

[sink.c]
type = "file"
path = "c"
rotate_keep = 3.0
rotate_size = "1MiB"
"#,
        &expect![[r#"
            error: `transport.conduit.shards` must be a whole number from 1 to 20000 or "auto", not `0`
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | shards = 0
              |          ^
              |
              = help: how many shards share the events; Twitch allows 20,000 a conduit. `auto` is one for each host of `[cluster]`, at least 2

            error: `reconcile.max_delete` must be a number from 0 to 1, not `1.5`
             --> /etc/eventsubd/config.toml:9:14
              |
            9 | max_delete = 1.5
              |              ^^^
              |
              = help: a plan that deletes more than this part of ours (and more than 10), or all of them, waits for `apply --allow-deletes`

            error: `sink.a.rotate_keep` must be a whole number, not a string
              --> /etc/eventsubd/config.toml:14:15
               |
            14 | rotate_keep = "3"
               |               ^^^
               |
               = help: write it without quotes

            error: `sink.b.rotate_keep` must be a whole number from 1 to 10000, not `99999999999999999999999999`
              --> /etc/eventsubd/config.toml:20:15
               |
            20 | rotate_keep = [hidden]
               |               ^^^^^^^^
               |
               = help: how many old files are kept

            error: `sink.c.rotate_keep` must be a whole number, not a decimal number
              --> /etc/eventsubd/config.toml:26:15
               |
            26 | rotate_keep = 3.0
               |               ^^^
        "#]],
    );
}

#[test]
fn non_numbers_where_numbers_belong_are_reported() {
    check(
        r#"[transport.conduit]
shards = 20001

[reconcile]
max_delete = nan
policy = true
"#,
        &expect![[r#"
            error: `transport.conduit.shards` must be a whole number from 1 to 20000 or "auto", not `20001`
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | shards = 20001
              |          ^^^^^
              |
              = help: how many shards share the events; Twitch allows 20,000 a conduit. `auto` is one for each host of `[cluster]`, at least 2

            error: `reconcile.max_delete` must be a number from 0 to 1, not `nan`
             --> /etc/eventsubd/config.toml:9:14
              |
            9 | max_delete = nan
              |              ^^^
              |
              = help: a plan that deletes more than this part of ours (and more than 10), or all of them, waits for `apply --allow-deletes`

            error: `reconcile.policy` must be a string, not a boolean
              --> /etc/eventsubd/config.toml:10:10
               |
            10 | policy = true
               |          ^^^^
        "#]],
    );
}

#[test]
fn choices() {
    check(
        r#"[reconcile]
policy = "snyc"

[log]
format = "xml"
"#,
        &expect![[r#"
            error: `snyc` is not valid for `reconcile.policy`
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | policy = "snyc"
              |          ^^^^^^
              |
              = help: did you mean `sync`?

            error: `xml` is not valid for `log.format`
             --> /etc/eventsubd/config.toml:9:10
              |
            9 | format = "xml"
              |          ^^^^^
              |
              = help: it is one of `auto`, `text`, `json`, `journald`
        "#]],
    );
}

#[test]
fn sections_that_are_no_tables() {
    Case::new(
        r#"store = 1
[[log]]
level = "info"
[transport]
conduit = "x"
"#,
    )
    .expect(&expect![[r#"
        error: `store` must be a table
         --> /etc/eventsubd/config.toml:1:1
          |
        1 | store = [hidden]
          | ^^^^^
          |
          = help: write it as `[store]`

        error: `log` must be a table
         --> /etc/eventsubd/config.toml:2:3
          |
        2 | [[log]]
          |   ^^^
          |
          = help: write it as `[log]`

        error: `transport.conduit` must be a table
         --> /etc/eventsubd/config.toml:5:1
          |
        5 | conduit = [hidden]
          | ^^^^^^^
          |
          = help: write it as `[transport.conduit]`

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
fn wrong_types() {
    check(
        r#"[log]
level = 3
format = ["text"]

[state]
directory = 1979-05-27

[transport.conduit]
id = 17
keepalive = { x = 1 }
"#,
        &expect![[r#"
            error: `log.level` must be a string, not a whole number
             --> /etc/eventsubd/config.toml:6:9
              |
            6 | level = 3
              |         ^
              |
              = help: put it in quotes

            error: `log.format` must be a string, not a list
             --> /etc/eventsubd/config.toml:7:10
              |
            7 | format = ["text"]
              |          ^^^^^^^^

            error: `state.directory` must be a path in quotes, not a date
              --> /etc/eventsubd/config.toml:10:13
               |
            10 | directory = [hidden]
               |             ^^^^^^^^

            error: `transport.conduit.id` must be a string, not a whole number
              --> /etc/eventsubd/config.toml:13:6
               |
            13 | id = 17
               |      ^^
               |
               = help: put it in quotes

            error: `transport.conduit.keepalive` must be a duration such as "30s", not a table
              --> /etc/eventsubd/config.toml:14:13
               |
            14 | keepalive = { x = 1 }
               |             ^^^^^^^^^
        "#]],
    );
}

#[test]
fn empty_texts() {
    check(
        r#"[state]
directory = ""

[transport.conduit]
id = " "
"#,
        &expect![[r#"
            error: `state.directory` is empty
             --> /etc/eventsubd/config.toml:6:13
              |
            6 | directory = [hidden]
              |             ^^^^^^^^
              |
              = help: leave the key out instead

            error: `transport.conduit.id` is empty
             --> /etc/eventsubd/config.toml:9:6
              |
            9 | id = " "
              |      ^^^
              |
              = help: leave the key out instead
        "#]],
    );
}

#[test]
fn urls() {
    let text = r#"auth_url = "id.twitch.tv"
api_url = "http://api.twitch.tv/helix"
eventsub_url = "https://eventsub.wss.twitch.tv/ws"
"#;
    Case::new(format!("{HEAD}{text}{ONE}")).expect(&expect![[r#"
        error: `twitch.auth_url` is not a valid URL: relative URL without a base
         --> /etc/eventsubd/config.toml:5:12
          |
        5 | auth_url = "id.twitch.tv"
          |            ^^^^^^^^^^^^^^
          |
          = help: it is written "https://host/path"

        error: `twitch.api_url` must begin with https://, since `api.twitch.tv` is not this machine
         --> /etc/eventsubd/config.toml:6:11
          |
        6 | api_url = "http://api.twitch.tv/helix"
          |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: the client secret and tokens travel there, and must be encrypted

        error: `twitch.eventsub_url` must begin with wss://, not `https:`
         --> /etc/eventsubd/config.toml:7:16
          |
        7 | eventsub_url = "https://eventsub.wss.twitch.tv/ws"
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: plain ws:// is for this machine only: localhost, 127.0.0.0/8 and [::1]
    "#]]);
    let text = r#"auth_url = "https://me:hunter2@id.twitch.tv"
api_url = "https://api.twitch.tv/helix?x=1"
eventsub_url = "ws://192.0.2.1/ws"
"#;
    Case::new(format!("{HEAD}{text}{ONE}")).expect(&expect![[r#"
        error: `twitch.auth_url` holds a user name or a password
         --> /etc/eventsubd/config.toml:5:12
          |
        5 | auth_url = [hidden]
          |            ^^^^^^^^
          |
          = help: the client secret has keys of its own

        error: `twitch.api_url` must end with its path
         --> /etc/eventsubd/config.toml:6:11
          |
        6 | api_url = [hidden]
          |           ^^^^^^^^
          |
          = help: leave out what begins with `?` or `#`

        error: `twitch.eventsub_url` must begin with wss://, since `192.0.2.1` is not this machine
         --> /etc/eventsubd/config.toml:7:16
          |
        7 | eventsub_url = "ws://192.0.2.1/ws"
          |                ^^^^^^^^^^^^^^^^^^^
          |
          = help: the client secret and tokens travel there, and must be encrypted
    "#]]);
}

#[test]
fn log_levels() {
    check(
        r#"[log]
level = "info,eventsubd=loud"
"#,
        &expect![[r#"
            error: `loud` is not a level of log lines
             --> /etc/eventsubd/config.toml:6:9
              |
            6 | level = "info,eventsubd=loud"
              |         ^^^^^^^^^^^^^^^^^^^^^
              |
              = help: the levels are `error`, `warn`, `info`, `debug`, `trace` and `off`
        "#]],
    );
}

#[test]
fn client_id() {
    Case::new(format!("[twitch]\nclient_secret_file = \"client_secret\"\n{ONE}")).expect(&expect![[r#"
        error: `twitch.client_id` is missing
         --> /etc/eventsubd/config.toml:1:2
          |
        1 | [twitch]
          |  ^^^^^^
          |
          = help: make an application at https://dev.twitch.tv/console, and set `client_id` in `[twitch]`
    "#]]);
    Case::new(format!("[store]{ONE}")).env(&[("EVENTSUBD_TWITCH__CLIENT_SECRET", "x")]).expect(&expect![[
        r#"
        error: `twitch.client_id` is missing
         |
         = help: make an application at https://dev.twitch.tv/console, and set `client_id` in `[twitch]`
    "#
    ]]);
    Case::new(format!("[twitch]\nclient_secret_file = \"client_secret\"\nclient_id = \"a b\"{ONE}")).expect(
        &expect![[r#"
            error: `twitch.client_id` may only hold letters, digits and signs
             --> /etc/eventsubd/config.toml:3:13
              |
            3 | client_id = "a b"
              |             ^^^^^
              |
              = help: copy it from https://dev.twitch.tv/console
        "#]],
    );
    Case::new(format!("[twitch]\nclient_secret_file = \"client_secret\"\nclient_id = 5{ONE}")).expect(
        &expect![[r#"
            error: `twitch.client_id` must be a string, not a whole number
             --> /etc/eventsubd/config.toml:3:13
              |
            3 | client_id = 5
              |             ^
              |
              = help: put it in quotes
        "#]],
    );
}

#[test]
fn names_of_the_user_cannot_drive_a_terminal() {
    Case::new(format!("\"a\\u001b[31mb\" = 1\n{HEAD}{ONE}")).expect(&expect![[r#"
        error: unknown key `a\x1b[31mb`
         --> /etc/eventsubd/config.toml:1:1
          |
        1 | "a\u001b[31mb" = [hidden]
          | ^^^^^^^^^^^^^^
    "#]]);
}

#[test]
fn a_flood_of_problems_is_cut() {
    let text: String = (0..1000).map(|n| format!("unknown{n} = 1\n")).collect();
    let report = Case::new(format!("{text}{HEAD}{ONE}")).report();
    assert_eq!(report.matches("unknown key").count(), 100);
    assert!(report.ends_with("error: and 900 more errors\n"), "{report}");
}
