//! The admin endpoint: messages, and what is accepted.

use super::*;
use expect_test::expect;

const TOKEN: &str = "0123456789abcdef\n";

fn case(text: &str) -> Case {
    Case::with(&format!("[admin]\n{text}\n"))
}

#[test]
fn the_admin_endpoint_is_off_without_an_address() {
    assert_eq!(case("").config().admin, None);
    let case = case("token_file = \"token\"");
    case.file("token", TOKEN, 0o600);
    case.expect(&expect![[r#"
        warning: `admin.token_file` does nothing without `admin.listen`
         --> /etc/eventsubd/config.toml:6:14
          |
        6 | token_file = "token"
          |              ^^^^^^^
          |
          = help: for example `listen = "127.0.0.1:9464"`
    "#]]);
}

#[test]
fn loopback_needs_no_token() {
    for listen in ["127.0.0.1:9464", "127.8.9.1:0", "[::1]:9464", "[::ffff:127.0.0.1]:1"] {
        let admin = case(&format!("listen = \"{listen}\"")).config().admin.expect("an endpoint");
        assert_eq!((admin.listen.to_string().as_str(), admin.token), (listen, None));
    }
    let case = Case::with("").env(&[("EVENTSUBD_ADMIN__LISTEN", "[::1]:9464")]);
    assert!(case.config().admin.is_some());
}

#[test]
fn other_addresses_need_a_token() {
    case("listen = \"0.0.0.0:9464\"").expect(&expect![[r#"
        error: 0.0.0.0:9464 can be reached from other machines, and there is no token
         --> /etc/eventsubd/config.toml:6:10
          |
        6 | listen = "0.0.0.0:9464"
          |          ^^^^^^^^^^^^^^
          |
          = help: set `token_file` in `[admin]` to a file with a token in it; make one with `openssl rand -hex 24`
          = help: or listen on this machine only: "127.0.0.1:9464"
    "#]]);
    for listen in ["192.0.2.7:1", "[::]:9464", "[::ffff:192.0.2.7]:1", "126.255.255.255:1"] {
        assert!(case(&format!("listen = \"{listen}\"")).load().is_err(), "{listen}");
    }
    let case = case("listen = \"0.0.0.0:9464\"\ntoken_file = \"token\"");
    case.file("token", "0123456789abcdef\r\n", 0o600);
    let token = case.config().admin.expect("an endpoint").token.expect("a token");
    assert_eq!(token.expose(), "0123456789abcdef");
}

#[test]
fn what_is_no_address() {
    case("listen = \"localhost:9464\"").expect(&expect![[r#"
        error: `localhost:9464` of `admin.listen` is not an address to listen on
         --> /etc/eventsubd/config.toml:6:10
          |
        6 | listen = "localhost:9464"
          |          ^^^^^^^^^^^^^^^^
          |
          = help: it is an IP address and a port, for example "127.0.0.1:9464" or "[::1]:9464"
    "#]]);
    for listen in ["9464", ":9464", "127.0.0.1", "::1:9464", "127.0.0.1:65536", "systemd"] {
        assert!(case(&format!("listen = \"{listen}\"")).load().is_err(), "{listen}");
    }
}

#[test]
fn what_a_token_may_be() {
    let case = case("listen = \"127.0.0.1:9464\"\ntoken_file = \"token\"");
    case.expect(&expect![[r#"
        error: there is no file `/etc/eventsubd/token`
         --> /etc/eventsubd/config.toml:7:14
          |
        7 | token_file = "token"
          |              ^^^^^^^
          |
          = help: the path is relative to the directory of the configuration file
    "#]]);
    case.file("token", TOKEN, 0o644);
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/token` holds the token of the admin endpoint, and others can read it (mode 0644)
         --> /etc/eventsubd/config.toml:7:14
          |
        7 | token_file = "token"
          |              ^^^^^^^
          |
          = help: run `chmod 600 /etc/eventsubd/token`
          = help: or load it with systemd's `LoadCredential=NAME:PATH`, and name `/run/credentials/UNIT/NAME` here
    "#]]);
    case.file("token", "hunter2", 0o600);
    case.expect(&expect![[r#"
        error: no token in `/etc/eventsubd/token`: it has 7 characters, and needs 16 or more
         --> /etc/eventsubd/config.toml:7:14
          |
        7 | token_file = "token"
          |              ^^^^^^^
          |
          = help: make one with `openssl rand -hex 24`
    "#]]);
    for wrong in ["", "0123456789abcdef\nx", "0123456789 abcdef", "0123456789abcdéf", &"a".repeat(1025)] {
        case.file("token", wrong, 0o600);
        let errors = case.load().expect_err(wrong).to_string();
        assert!(errors.contains("no token in") && !errors.contains("0123456789"), "{errors}");
    }
    // Of two mistakes the one of the token is enough.
    case.file("config.toml", format!("{HEAD}[admin]\nlisten = \"0.0.0.0:1\"\ntoken_file = 1\n{ONE}"), 0o600);
    assert_eq!(case.load().expect_err("a number").errors.len(), 1);
}

#[test]
fn trusted_proxies_are_addresses_or_networks() {
    let proxies = |text: &str| {
        let admin = case(&format!("listen = \"127.0.0.1:1\"\ntrusted_proxies = {text}")).config().admin;
        admin.expect("an endpoint").trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(proxies("[]").is_empty());
    assert_eq!(proxies("\"127.0.0.1\""), ["127.0.0.1/32"]);
    assert_eq!(
        proxies("[\"10.0.0.0/8\", \"::1\", \"2001:db8::/32\", \"::ffff:192.0.2.1\"]"),
        ["10.0.0.0/8", "::1/128", "2001:db8::/32", "192.0.2.1/32"]
    );
    let variable = Case::with("[admin]\nlisten = \"127.0.0.1:1\"\n")
        .env(&[("EVENTSUBD_ADMIN__TRUSTED_PROXIES", "127.0.0.1, ::1")]);
    assert_eq!(variable.config().admin.expect("an endpoint").trusted_proxies.len(), 2);
    case("listen = \"127.0.0.1:1\"\ntrusted_proxies = [\"proxy.example.org\"]").expect(&expect![[r#"
        error: `proxy.example.org` in `admin.trusted_proxies` is not an address or a network
         --> /etc/eventsubd/config.toml:7:19
          |
        7 | trusted_proxies = ["proxy.example.org"]
          |                   ^^^^^^^^^^^^^^^^^^^^^
          |
          = help: write for example "127.0.0.1", "10.0.0.0/8" or "2001:db8::/32"
    "#]]);
}
