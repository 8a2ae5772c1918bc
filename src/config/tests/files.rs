//! Files that cannot be read, and text that is no TOML.

use super::*;
use expect_test::expect;

#[test]
fn no_file() {
    let mut case = Case::with("");
    fs::remove_file(&case.options.path).expect("removed");
    case.expect(&expect![[r#"
        error: there is no file `/etc/eventsubd/config.toml`
         |
         = help: `eventsubd init` writes one to begin with; `--config FILE` or $EVENTSUBD_CONFIG name another one
    "#]]);
    case.options.path = case.directory.path().to_owned();
    case.expect(&expect![[r#"
        error: `/etc/eventsubd` is a directory
    "#]]);
    case.options.path = case.directory.path().join("client_secret/config.toml");
    case.expect(&expect![[r#"
        error: there is no file `/etc/eventsubd/client_secret/config.toml`
         |
         = help: `eventsubd init` writes one to begin with; `--config FILE` or $EVENTSUBD_CONFIG name another one
    "#]]);
}

#[test]
fn permission_denied() {
    let case = Case::with("");
    case.file("config.toml", "", 0o000);
    // The superuser reads everything.
    if !rustix::process::geteuid().is_root() {
        let report = case.report();
        assert!(report.contains("cannot be read: permission denied"), "{report}");
    }
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    expect!["`config.toml` cannot be read: permission denied"].assert_eq(
        &crate::config::files::Unreadable::new(std::path::Path::new("config.toml"), &denied).message,
    );
}

#[test]
fn too_large() {
    let case = Case::with("");
    let file = fs::OpenOptions::new().write(true).open(&case.options.path).expect("opened");
    file.set_len(64 * 1024 * 1024 + 1).expect("a sparse file");
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/config.toml` is larger than 64.0 MiB
    "#]]);
}

#[test]
fn not_utf8() {
    Case::new(b"# caf\xe9\n[twitch]\n").expect(&expect![[r#"
        error: `/etc/eventsubd/config.toml` is not UTF-8
         --> /etc/eventsubd/config.toml:1:6
          |
        1 | # [hidden]
          |   ^^^^^^^^
          |
          = help: save it as UTF-8
    "#]]);
    Case::new(b"[twitch]\nclient_secret = \"hunter\xff\"\n").expect(&expect![[r#"
        error: `/etc/eventsubd/config.toml` is not UTF-8
         --> /etc/eventsubd/config.toml:2:24
          |
        2 | client_secret = [hidden]
          |                 ^^^^^^^^
          |
          = help: save it as UTF-8
    "#]]);
}

#[test]
fn text_that_is_not_toml_is_reported_with_its_place() {
    for (text, expect) in [
        (
            "[twitch\nclient_id = \"abc\"\n",
            expect![[r#"
                error: unclosed table, expected `]`
                 --> /etc/eventsubd/config.toml:1:8
                  |
                1 | [twitch
                  |        ^
            "#]],
        ),
        (
            "[twitch]\nclient_id = abc\n",
            expect![[r#"
                error: the value of `client_id` is not in quotes
                 --> /etc/eventsubd/config.toml:2:13
                  |
                2 | client_id = abc
                  |             ^^^
                  |
                  = help: texts stand in quotes: client_id = "…"
            "#]],
        ),
        (
            "[twitch]\nclient_id = \"abc\nx = 1\n",
            expect![[r#"
                error: invalid basic string, expected `"`
                 --> /etc/eventsubd/config.toml:2:17
                  |
                2 | client_id = "abc
                  |                 ^
            "#]],
        ),
        (
            "[twitch]\nclient_id\n",
            expect![[r#"
                error: key with no value, expected `=`
                 --> /etc/eventsubd/config.toml:2:10
                  |
                2 | client_id
                  |          ^
            "#]],
        ),
        (
            "[twitch]\nclient_id = \"a\"\nclient_id = \"b\"\n",
            expect![[r#"
                error: duplicate key `client_id`
                 --> /etc/eventsubd/config.toml:3:1
                  |
                3 | client_id = "b"
                  | ^^^^^^^^^
            "#]],
        ),
        (
            "[twitch]\na = 1\n[twitch]\n",
            expect![[r#"
                error: duplicate key `twitch`
                 --> /etc/eventsubd/config.toml:3:2
                  |
                3 | [twitch]
                  |  ^^^^^^
            "#]],
        ),
        (
            "a = [1, 2\nb = {\n",
            expect![[r#"
                error: missing comma between array elements, expected `,`
                 --> /etc/eventsubd/config.toml:2:1
                  |
                2 | [hidden]
                  | ^
            "#]],
        ),
        (
            "a = 1 b = 2\n",
            expect![[r#"
                error: unexpected key or value, expected newline, `#`
                 --> /etc/eventsubd/config.toml:1:9
                  |
                1 | a = [hidden] [hidden]
                  |              ^^^^^^^^
            "#]],
        ),
        (
            "\u{0}",
            expect![[r#"
                error: key with no value, expected `=`
                 --> /etc/eventsubd/config.toml:1:2
                  |
                1 | [hidden]
                  |         ^
            "#]],
        ),
    ] {
        Case::new(text).expect(&expect);
    }
}

#[test]
fn marks_tabs_and_line_ends() {
    let text = format!("\u{feff}{HEAD}{ONE}").replace('\n', "\r\n");
    assert_eq!(Case::new(&text).report(), "fine\n");
    let text = text.replace("[twitch]\r\n", "[twitch]\r\n\tné = \"日本\"\r\n\t\t\"日\" = 1\r\n");
    Case::new(text).expect(&expect![[r#"
        error: invalid unquoted key, expected letters, numbers, `-`, `_`
         --> /etc/eventsubd/config.toml:2:3
          |
        2 |     né = [hidden]
          |      ^
    "#]]);
}

#[test]
fn long_lines() {
    let logins: String = (0..500).map(|n| format!("\"login{n}\", ")).collect();
    check_subscriptions(
        &format!(
            "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [{logins}\"nin ja\", {logins}]\n"
        ),
        &expect![[r#"
            error: `nin ja` is not a valid login
             --> /etc/eventsubd/config.toml:7:5906
              |
            7 | …6", "login497", "login498", "login499", "nin ja", "login0", "login1", "login2", "login3", "login4", "login5", "login6", "login7", "login8", …
              |                                          ^^^^^^^^
              |
              = help: a list has each in quotes of its own: ["nin", "ja"]
        "#]],
    );
}
