//! `[transport.webhook]`: what is accepted, and every message.

use std::net::SocketAddr;

use expect_test::expect;

use super::*;

fn webhook(text: &str) -> Webhook {
    Case::with(&format!("[transport]\nmethod = \"webhook\"\n[transport.webhook]\n{text}\n"))
        .config()
        .webhook
        .expect("a webhook")
}

#[test]
fn a_callback_is_enough() {
    let found = webhook("callback = \"https://example.org\"");
    assert_eq!(found.callback, "https://example.org/");
    assert_eq!(found.listen, Listen::Address(SocketAddr::from(([127, 0, 0, 1], 8080))));
    assert_eq!((found.secret, found.tls), (None, None));
    let found = webhook("callback = \"https://example.org:443/eventsub\"\nlisten = \"systemd\"");
    assert_eq!((&*found.callback, found.listen), ("https://example.org/eventsub", Listen::Systemd));
    let found = webhook(
        "callback = \"https://example.org/e\"\nlisten = \"[::]:443\"\ntls_certificate = \"c.pem\"\ntls_key = \"/k.pem\"",
    );
    let tls = found.tls.expect("both files");
    assert!(tls.certificate.is_absolute() && tls.certificate.ends_with("c.pem"));
    assert_eq!(tls.key, std::path::Path::new("/k.pem"));
}

#[test]
fn plain_http_and_ports_are_for_a_twitch_on_this_machine() {
    let case = Case::new(
        "[twitch]\nclient_id = \"abc\"\nclient_secret_file = \"client_secret\"\napi_url = \"http://127.0.0.1:1/helix\"\n\
         [transport.webhook]\ncallback = \"http://localhost:8080/e\"\n",
    );
    assert_eq!(case.config().webhook.expect("a webhook").callback, "http://localhost:8080/e");
}

#[test]
fn a_secret_file_is_read_and_checked() {
    let text = "[transport.webhook]\ncallback = \"https://example.org/e\"\nsecret_file = \"hook\"\n";
    let case = Case::with(text);
    case.file("hook", "a-good-secret\n", 0o600);
    let found = case.config().webhook.expect("a webhook");
    assert_eq!(found.secret.expect("a secret").expose(), "a-good-secret");
    case.file("hook", "short\n", 0o644);
    case.expect(&expect![[r#"
        error: `/etc/eventsubd/hook` holds the webhook secret, and others can read it (mode 0644)
         --> /etc/eventsubd/config.toml:7:15
          |
        7 | secret_file = [hidden]
          |               ^^^^^^^^
          |
          = help: run `chmod 600 /etc/eventsubd/hook`
          = help: or load it with systemd's `LoadCredential=NAME:PATH`, and name `/run/credentials/UNIT/NAME` here

        error: `/etc/eventsubd/hook` holds no webhook secret: a webhook secret has 10 to 100 visible ASCII characters
         --> /etc/eventsubd/config.toml:7:15
          |
        7 | secret_file = [hidden]
          |               ^^^^^^^^
          |
          = help: leave `secret_file` out to have one made
    "#]]);
}

#[test]
fn messages() {
    check(
        r#"[transport]
method = "webhook"
"#,
        &expect![[r#"
            error: `transport.method` asks for webhooks, and `transport.webhook.callback` is missing
             --> /etc/eventsubd/config.toml:6:10
              |
            6 | method = "webhook"
              |          ^^^^^^^^^
              |
              = help: set it to the public URL of this daemon: callback = "https://example.org/eventsub" in `[transport.webhook]`
        "#]],
    );
    check(
        r#"[transport.conduit]
shard_transport = "webhook"

[transport.webhook]
listen = "localhost:8080"
tls_key = "key.pem"
"#,
        &expect![[r#"
            error: `transport.conduit.shard_transport` asks for webhooks, and `transport.webhook.callback` is missing
             --> /etc/eventsubd/config.toml:6:19
              |
            6 | shard_transport = "webhook"
              |                   ^^^^^^^^^
              |
              = help: set it to the public URL of this daemon: callback = "https://example.org/eventsub" in `[transport.webhook]`

            error: `localhost:8080` of `transport.webhook.listen` is not an address to listen on
             --> /etc/eventsubd/config.toml:9:10
              |
            9 | listen = "localhost:8080"
              |          ^^^^^^^^^^^^^^^^
              |
              = help: write an IP address and a port, such as "127.0.0.1:8080" or "[::]:443", or "systemd" for the socket that systemd passes

            error: `transport.webhook.tls_key` is given, and `transport.webhook.tls_certificate` is missing
              --> /etc/eventsubd/config.toml:10:11
               |
            10 | tls_key = "key.pem"
               |           ^^^^^^^^^
               |
               = help: set both, or neither and let a proxy end TLS
        "#]],
    );
    for callback in [
        "example.org/eventsub",
        "http://example.org/eventsub",
        "https://example.org:8443/eventsub",
        "https://me@example.org/eventsub",
        "https://example.org/eventsub?x=1",
        "https://localhost/eventsub",
    ] {
        let report = Case::with(&format!("[transport.webhook]\ncallback = \"{callback}\"\n")).report();
        assert!(report.contains("error: ") && report.contains("= help: "), "{callback}: {report}");
        assert!(report.contains("config.toml:6:"), "{callback}: {report}");
    }
}

#[test]
fn a_reload_names_what_is_different_and_no_secret() {
    let text = |more: &str| {
        Case::with(&format!("[transport.webhook]\ncallback = \"https://example.org/e\"\n{more}"))
    };
    let old = text("secret_file = \"hook\"\n");
    old.file("hook", "a-good-secret\n", 0o600);
    let new = text("listen = \"systemd\"\n\n[transport]\nmethod = \"webhook\"\n");
    let changes = diff(&old.config(), &new.config());
    let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["transport.method conduit -> webhook", "webhook: listen, secret changed"]);
}
