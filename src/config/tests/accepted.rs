//! Accepted files, and the configuration that they make.

use std::sync::Arc;

use super::*;
use crate::model::route::SinkName;
use crate::model::subscription::{FieldValue, SubscriptionSpec};
use expect_test::expect;

fn show(spec: &SubscriptionSpec) -> String {
    let mut text = format!("{} {}", spec.subscription_type, spec.version);
    for (name, value) in &spec.condition {
        match value {
            FieldValue::Literal(id) => text.push_str(&format!(" {name}={id}")),
            FieldValue::Login(login) => text.push_str(&format!(" {name}=@{login}")),
        }
    }
    if let Some(sinks) = &spec.sinks {
        let names: Vec<&str> = sinks.iter().map(SinkName::as_str).collect();
        text.push_str(&format!(" -> {}", names.join(" ")));
    }
    text
}

fn specs(text: &str) -> String {
    let config = Case::new(format!("{HEAD}{text}")).config();
    config.subscriptions.iter().map(|spec| show(spec) + "\n").collect()
}

#[test]
fn defaults() {
    let case = Case::with("");
    assert_eq!(case.report(), "fine\n");
    expect![[r#"
        Config {
            application: Application {
                client_id: "abc",
                client_secret: Some(
                    [secret],
                ),
                client_secret_source: "",
            },
            twitch: Twitch {
                auth_url: "https://id.twitch.tv/oauth2",
                api_url: "https://api.twitch.tv/helix",
                eventsub_url: "wss://eventsub.wss.twitch.tv/ws",
                timeout: 15s,
                validate_interval: 3600s,
                watch_grants: true,
            },
            reconcile: Reconcile {
                interval: 1800s,
                policy: Sync,
                max_delete: 0.5,
            },
            transport: Transport {
                method: Conduit,
            },
            conduit: Conduit {
                shards: Fixed(
                    1,
                ),
                shard_transport: WebSocket,
                id: None,
                keepalive: 30s,
            },
            webhook: None,
            subscriptions: [
                SubscriptionSpec {
                    subscription_type: "stream.online",
                    version: "1",
                    condition: [
                        (
                            "broadcaster_user_id",
                            Login(
                                "ninja",
                            ),
                        ),
                    ],
                    sinks: None,
                },
            ],
            sinks: {
                SinkName(
                    "stdout",
                ): SinkOptions {
                    name: SinkName(
                        "stdout",
                    ),
                    types: [
                        "*",
                    ],
                    format: Eventsub,
                    start: Present,
                    retry_max: 300s,
                    give_up_after: 86400s,
                    host: None,
                    kind: Stdout,
                },
            },
            authorize: None,
            store: Store {
                retain: 604800s,
                max_size: 2.0 GiB (2147483648 bytes),
            },
            state_directory: "/home/me/.local/state/eventsubd",
            socket: "/home/me/.local/state/eventsubd/control.sock",
            catch_up: CatchUp {
                streams: true,
                channels: false,
            },
            cluster: None,
            admin: None,
            log: Log {
                level: "info",
                format: Auto,
            },
        }
    "#]]
    .assert_debug_eq(&{
        let mut config = case.config();
        config.application.client_secret_source.clear();
        config
    });
}

#[test]
fn every_key() {
    let case = Case::new(
        r#"
[twitch]
client_id = "abc"
client_secret_file = "client_secret"
auth_url = "http://127.0.0.1:8080/auth/"
api_url = "http://localhost:8080/mock"
eventsub_url = "ws://[::1]:8080/ws//"
validate_interval = "30m"

[reconcile]
interval = "1h 30m"
policy = "keep"
max_delete = 1

[transport]
method = "conduit"

[transport.conduit]
shards = 0x10
shard_transport = "websocket"
id = "5d2a8a3e"
keepalive = "60s"

[[subscription]]
type = "stream.online"
version = "1"
broadcaster = "ninja"
sinks = ["log", "out-1_x"]
enabled = true

[sink.log]
type = "file"
path = "log/events.jsonl"
types = "stream.*"
format = "eventsub"
retry_max = "1m"
give_up_after = "2d"
rotate_size = "100 MB"
rotate_keep = 3

[sink.out-1_x]
type = "stdout"

[store]
retain = "30d"
max_size = "10GiB"

[state]
directory = "/var/lib/eventsubd"

[admin]
listen = "[::]:9464"
token_file = "admin_token"
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
socket = "/run/eventsubd/control.sock"

[log]
level = "warn,eventsubd::auth=trace"
format = "json"
"#,
    );
    case.file("admin_token", "0123456789abcdef\n", 0o600);
    assert_eq!(case.report(), "fine\n");
    let mut config = case.config();
    config.application.client_secret_source.clear();
    let shown = format!("{config:#?}\n").replace(&case.directory.path().display().to_string(), "BASE");
    expect![[r#"
        Config {
            application: Application {
                client_id: "abc",
                client_secret: Some(
                    [secret],
                ),
                client_secret_source: "",
            },
            twitch: Twitch {
                auth_url: "http://127.0.0.1:8080/auth",
                api_url: "http://localhost:8080/mock",
                eventsub_url: "ws://[::1]:8080/ws",
                timeout: 15s,
                validate_interval: 1800s,
                watch_grants: true,
            },
            reconcile: Reconcile {
                interval: 5400s,
                policy: Keep,
                max_delete: 1.0,
            },
            transport: Transport {
                method: Conduit,
            },
            conduit: Conduit {
                shards: Fixed(
                    16,
                ),
                shard_transport: WebSocket,
                id: Some(
                    "5d2a8a3e",
                ),
                keepalive: 60s,
            },
            webhook: None,
            subscriptions: [
                SubscriptionSpec {
                    subscription_type: "stream.online",
                    version: "1",
                    condition: [
                        (
                            "broadcaster_user_id",
                            Login(
                                "ninja",
                            ),
                        ),
                    ],
                    sinks: Some(
                        [
                            SinkName(
                                "log",
                            ),
                            SinkName(
                                "out-1_x",
                            ),
                        ],
                    ),
                },
            ],
            sinks: {
                SinkName(
                    "log",
                ): SinkOptions {
                    name: SinkName(
                        "log",
                    ),
                    types: [
                        "stream.*",
                    ],
                    format: Eventsub,
                    start: Present,
                    retry_max: 60s,
                    give_up_after: 172800s,
                    host: None,
                    kind: File(
                        FileOptions {
                            path: "BASE/log/events.jsonl",
                            rotate_size: Some(
                                100000000,
                            ),
                            rotate_keep: 3,
                        },
                    ),
                },
                SinkName(
                    "out-1_x",
                ): SinkOptions {
                    name: SinkName(
                        "out-1_x",
                    ),
                    types: [
                        "*",
                    ],
                    format: Eventsub,
                    start: Present,
                    retry_max: 300s,
                    give_up_after: 86400s,
                    host: None,
                    kind: Stdout,
                },
            },
            authorize: None,
            store: Store {
                retain: 2592000s,
                max_size: 10.0 GiB (10737418240 bytes),
            },
            state_directory: "/var/lib/eventsubd",
            socket: "/run/eventsubd/control.sock",
            catch_up: CatchUp {
                streams: true,
                channels: false,
            },
            cluster: None,
            admin: Some(
                Admin {
                    listen: [::]:9464,
                    token: Some(
                        [secret],
                    ),
                    trusted_proxies: [
                        127.0.0.1/32,
                        10.0.0.0/8,
                    ],
                },
            ),
            log: Log {
                level: "warn,eventsubd::auth=trace",
                format: Json,
            },
        }
    "#]]
    .assert_eq(&shown);
}

#[test]
fn lists_multiply() {
    expect![[r#"
        stream.online 1 broadcaster_user_id=@ninja
        stream.online 1 broadcaster_user_id=@shroud
        stream.offline 1 broadcaster_user_id=@ninja
        stream.offline 1 broadcaster_user_id=@shroud
        channel.chat.message 1 broadcaster_user_id=@ninja user_id=@bot1
        channel.chat.message 1 broadcaster_user_id=@ninja user_id=@bot2
        channel.chat.message 1 broadcaster_user_id=@shroud user_id=@bot1
        channel.chat.message 1 broadcaster_user_id=@shroud user_id=@bot2
    "#]]
    .assert_eq(&specs(
        r#"[[subscription]]
type = ["stream.online", "stream.offline", "stream.online"]
broadcaster = ["Ninja", "shroud", "ninja"]

[[subscription]]
type = "channel.chat.message"
broadcaster = ["ninja", "shroud"]
user = ["bot1", "bot2"]
"#,
    ));
}

#[test]
fn fields_that_are_left_out() {
    expect![[r#"
        channel.follow 2 broadcaster_user_id=@ninja moderator_user_id=@ninja
        channel.follow 2 broadcaster_user_id=@shroud moderator_user_id=@shroud
        channel.follow 2 broadcaster_user_id=5 moderator_user_id=5
        channel.follow 2 broadcaster_user_id=@ninja moderator_user_id=@mod1
        channel.follow 2 broadcaster_user_id=@ninja moderator_user_id=@mod2
        channel.follow 2 broadcaster_user_id=@ninja moderator_user_id=7
        user.authorization.revoke 1 client_id=abc
        conduit.shard.disabled 1 client_id=abc
        user.authorization.grant 1 client_id=other
        channel.raid 1 from_broadcaster_user_id=@ninja
        channel.raid 1 to_broadcaster_user_id=@ninja
        drop.entitlement.grant 1 category_id=8 organization_id=9
    "#]]
    .assert_eq(&specs(
        r#"[[subscription]]
type = "channel.follow"
broadcaster = ["ninja", "shroud"]

[[subscription]]
type = "channel.follow"
condition = { broadcaster_user_id = "5" }

[[subscription]]
type = "channel.follow"
broadcaster = "ninja"
moderator = ["mod1", "mod2"]

[[subscription]]
type = "channel.follow"
broadcaster = "ninja"
condition = { moderator_user_id = "7" }

[[subscription]]
type = ["user.authorization.revoke", "conduit.shard.disabled"]

[[subscription]]
type = "user.authorization.grant"
condition = { client_id = "other" }

[[subscription]]
type = "channel.raid"
from_broadcaster = "ninja"

[[subscription]]
type = "channel.raid"
to_broadcaster = "ninja"

[[subscription]]
type = "drop.entitlement.grant"
condition = { organization_id = "9", category_id = "8" }

[[subscription]]
type = "user.update"
user = "ninja"
enabled = false
"#,
    ));
}

#[test]
fn equal_ones_are_joined_with_the_sinks_of_both() {
    let entry =
        |sinks: &str| format!("[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"x\"\n{sinks}\n");
    let sinks = "[sink.a]\ntype = \"stdout\"\n[sink.b]\ntype = \"file\"\npath = \"b\"\n";
    let (a, b) = (entry("sinks = [\"a\"]"), entry("sinks = [\"b\", \"b\"]"));
    assert_eq!(specs(&format!("{a}{b}{sinks}")), "stream.online 1 broadcaster_user_id=@x -> a b\n");
    assert_eq!(specs(&format!("{a}{}{b}{sinks}", entry(""))), "stream.online 1 broadcaster_user_id=@x\n");
    assert_eq!(
        specs(&format!("{a}{}{sinks}", entry("sinks = []"))),
        "stream.online 1 broadcaster_user_id=@x -> a\n"
    );
}

#[test]
fn files_of_logins_join_the_list() {
    let case = Case::new(format!(
        "{HEAD}[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ninja\"\nbroadcaster_file = \"l/x\"\n"
    ));
    fs::create_dir(case.directory.path().join("l")).expect("created");
    case.file("l/x", "\u{feff}Shroud\r\n# no\n\n  NINJA  # twice\nlast", 0o644);
    let shown: Vec<String> = case.config().subscriptions.iter().map(show).collect();
    assert_eq!(
        shown,
        ["ninja", "shroud", "last"].map(|login| format!("stream.online 1 broadcaster_user_id=@{login}"))
    );
}

#[test]
fn a_hundred_thousand_logins() {
    let case = Case::new(format!(
        "{HEAD}[[subscription]]\ntype = [\"stream.online\", \"channel.follow\"]\nbroadcaster_file = \"l\"\n"
    ));
    let logins: String = (0..100_000).map(|n| format!("Login_{n}\n")).collect();
    case.file("l", logins, 0o644);
    let config = case.config();
    assert_eq!(config.subscriptions.len(), 200_000);
    let login = |at: usize| config.subscriptions[at].logins().next().cloned().expect("a login");
    assert!(Arc::ptr_eq(&login(0), &login(100_000)), "each login is in memory once");
}
