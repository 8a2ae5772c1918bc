//! `[authorize]`: what is accepted, and every message.

use std::net::SocketAddr;

use expect_test::expect;

use super::*;

const URI: &str = "redirect_uri = \"https://example.org/authorize\"\n";
const WEBHOOK: &str = "[transport.webhook]\ncallback = \"https://example.org/eventsub\"\n";

fn page(text: &str) -> Option<Authorize> {
    Case::with(text).config().authorize
}

#[test]
fn the_page_has_an_address_of_its_own_or_the_webhooks_one() {
    assert_eq!(page(""), None);
    let own = page(&format!("[authorize]\n{URI}listen = \"127.0.0.1:8081\"\n")).expect("a page");
    assert_eq!(own.redirect_uri, "https://example.org/authorize");
    assert_eq!(own.listen, Some(SocketAddr::from(([127, 0, 0, 1], 8081))));
    let shared = [
        format!("{WEBHOOK}[authorize]\n{URI}"),
        format!("{WEBHOOK}listen = \"127.0.0.1:8081\"\n[authorize]\n{URI}listen = \"127.0.0.1:8081\"\n"),
    ];
    for text in shared {
        assert_eq!(page(&text).expect("a page").listen, None, "{text}");
    }
    let local = "[authorize]\nredirect_uri = \"http://localhost:3000/a\"\nlisten = \"127.0.0.1:3000\"\n";
    assert!(page(local).is_some());
}

#[test]
fn what_is_wrong_with_the_address_is_said() {
    let with = |uri: &str| {
        Case::with(&format!("[authorize]\nredirect_uri = \"{uri}\"\nlisten = \"127.0.0.1:8081\"\n"))
    };
    with("http://example.org/authorize").expect(&expect![[r#"
        error: `authorize.redirect_uri` must begin with https://, since `example.org` is not this machine
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = "http://example.org/authorize"
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: Twitch's codes and the visitor's cookie travel there; let a proxy end TLS
    "#]]);
    with("https://example.org").expect(&expect![[r#"
        error: `authorize.redirect_uri` is not in its usual form
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = "https://example.org"
          |                ^^^^^^^^^^^^^^^^^^^^^
          |
          = help: write `https://example.org/`, here and at https://dev.twitch.tv/console/apps
    "#]]);
    with("https://example.org/authorize?from=us").expect(&expect![[r#"
        error: `authorize.redirect_uri` must end with its path
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = [hidden]
          |                ^^^^^^^^
          |
          = help: leave out what begins with `?` or `#`
    "#]]);
    with("https://ann:secret@example.org/authorize").expect(&expect![[r#"
        error: `authorize.redirect_uri` holds a user name or a password
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = [hidden]
          |                ^^^^^^^^
          |
          = help: it is written "https://example.org/authorize", exactly as at https://dev.twitch.tv/console/apps
    "#]]);
    with("ftp://example.org/authorize").expect(&expect![[r#"
        error: `authorize.redirect_uri` must begin with https://
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = "ftp://example.org/authorize"
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: it is written "https://example.org/authorize", exactly as at https://dev.twitch.tv/console/apps
    "#]]);
    with("example.org/authorize").expect(&expect![[r#"
        error: `authorize.redirect_uri` is not a valid URL: relative URL without a base
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = "example.org/authorize"
          |                ^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: it is written "https://example.org/authorize", exactly as at https://dev.twitch.tv/console/apps
    "#]]);
}

#[test]
fn keys_that_go_together_are_checked() {
    Case::with(&format!("[authorize]\n{URI}")).expect(&expect![[r#"
        error: `authorize.redirect_uri` is given, and nothing serves it
         --> /etc/eventsubd/config.toml:6:16
          |
        6 | redirect_uri = "https://example.org/authorize"
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: set `listen` in `[authorize]`, for example "127.0.0.1:8081", and have a proxy forward to it
          = help: with `transport.webhook.callback`, the webhook's listener serves it
    "#]]);
    let same = "[authorize]\nredirect_uri = \"https://example.org/eventsub\"\n";
    Case::with(&format!("{WEBHOOK}{same}")).expect(&expect![[r#"
        error: `authorize.redirect_uri` and `transport.webhook.callback` have the same path
         --> /etc/eventsubd/config.toml:8:16
          |
        8 | redirect_uri = "https://example.org/eventsub"
          |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: one listener serves both: give them different paths, or set `listen` in `[authorize]`
    "#]]);
    Case::with(&format!("{WEBHOOK}[authorize]\n{URI}listen = \"systemd\"\n")).expect(&expect![[r#"
        error: `systemd` of `authorize.listen` is not an address to listen on
         --> /etc/eventsubd/config.toml:9:10
          |
        9 | listen = "systemd"
          |          ^^^^^^^^^
          |
          = help: leave it out: the listener of [transport.webhook] then serves the page, with its TLS and the socket that systemd passes
    "#]]);
    Case::with(&format!("{WEBHOOK}[authorize]\n{URI}listen = \"8081\"\n")).expect(&expect![[r#"
        error: `8081` of `authorize.listen` is not an address to listen on
         --> /etc/eventsubd/config.toml:9:10
          |
        9 | listen = "8081"
          |          ^^^^^^
          |
          = help: it is an IP address and a port, for example "127.0.0.1:8081"; left out, the listener of [transport.webhook] serves the page
    "#]]);
    let taken = "listen = \"127.0.0.1:9464\"\n[admin]\nlisten = \"127.0.0.1:9464\"\n";
    Case::with(&format!("[authorize]\n{URI}{taken}")).expect(&expect![[r#"
        error: `authorize.listen` and `admin.listen` are both 127.0.0.1:9464
         --> /etc/eventsubd/config.toml:7:10
          |
        7 | listen = "127.0.0.1:9464"
          |          ^^^^^^^^^^^^^^^^
          |
          = help: take another port for one of them
    "#]]);
    Case::with("[authorize]\nlisten = \"127.0.0.1:8081\"\n").expect(&expect![[r#"
        warning: `authorize.listen` does nothing without `authorize.redirect_uri`
         --> /etc/eventsubd/config.toml:6:10
          |
        6 | listen = "127.0.0.1:8081"
          |          ^^^^^^^^^^^^^^^^
          |
          = help: it is written "https://example.org/authorize", exactly as at https://dev.twitch.tv/console/apps
    "#]]);
}
