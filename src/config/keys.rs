//! The table of keys: each one is defined here and nowhere else.

use super::schema::Key;
use super::schema::Kind::{
    self, Choice, Duration, Fields, Flag, Fraction, Integer, Path, Size, Text, Texts, Url,
};

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Some(default), doc, required: false, only: &[] }
}

const fn unset(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: None, doc, required: false, only: &[] }
}

const fn required(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: None, doc, required: true, only: &[] }
}

const fn of(key: Key, only: &'static [&'static str]) -> Key {
    Key { only, ..key }
}

const HTTP: Kind = Url { schemes: ["https", "http"] };
const WEBSOCKET: Kind = Url { schemes: ["wss", "ws"] };
const METHODS: Kind = Choice { values: &["conduit", "webhook"] };
const SHARD_TRANSPORTS: Kind = Choice { values: &["websocket", "webhook"] };
const SINK_TYPES: Kind = Choice { values: &["stdout", "file", "command", "http", "nats", "mqtt", "redis"] };
const FORMATS: Kind = Choice { values: &["eventsub", "cloudevents", "template"] };
const STARTS: Kind = Choice { values: &["now", "beginning"] };
const HTTP_METHODS: Kind = Choice { values: &["POST", "PUT", "PATCH"] };
const LOG_FORMATS: Kind = Choice { values: &["auto", "text", "json", "journald"] };
const POLICIES: Kind = Choice { values: &["sync", "keep"] };

const fn time(min: &'static str, max: &'static str) -> Kind {
    Duration { min, max }
}

/// All keys, in the order of the manual.
pub(super) static KEYS: &[Key] = &[
    required("twitch.client_id", Text, "the id of the application, from https://dev.twitch.tv/console"),
    unset(
        "twitch.client_secret_file",
        Path,
        "a file that holds the client secret and that only its owner can read",
    ),
    unset(
        "twitch.client_secret",
        Text,
        "the client secret itself; the file must then be readable by its owner only",
    ),
    key("twitch.auth_url", HTTP, r#""https://id.twitch.tv/oauth2""#, "where tokens are made and validated"),
    key("twitch.api_url", HTTP, r#""https://api.twitch.tv/helix""#, "the API"),
    key("twitch.eventsub_url", WEBSOCKET, r#""wss://eventsub.wss.twitch.tv/ws""#, "where shards connect to"),
    key(
        "twitch.validate_interval",
        time("1m", "1h"),
        r#""1h""#,
        "how often the token is validated; Twitch asks for once an hour",
    ),
    key(
        "twitch.watch_grants",
        Flag,
        "true",
        "whether the daemon keeps subscriptions of its own that tell it of grants and of disabled shards",
    ),
    key(
        "reconcile.interval",
        time("1m", "24h"),
        r#""30m""#,
        "how often everything is compared with Twitch, beside the times that events cause",
    ),
    key(
        "reconcile.policy",
        POLICIES,
        r#""sync""#,
        "`sync` also deletes subscriptions of ours that are no longer in the file, `keep` deletes nothing",
    ),
    key(
        "reconcile.max_delete",
        Fraction,
        "0.5",
        "a plan that deletes more than this part of ours (and more than 10), or all of them, waits for `apply --allow-deletes`",
    ),
    key(
        "transport.method",
        METHODS,
        r#""conduit""#,
        "how events come in: over the shards of a conduit, or as one webhook for each subscription",
    ),
    key(
        "transport.conduit.shards",
        Integer { min: 1, max: 20_000 },
        "1",
        "how many shards share the events; Twitch allows 20,000 a conduit",
    ),
    key(
        "transport.conduit.shard_transport",
        SHARD_TRANSPORTS,
        r#""websocket""#,
        "how the shards are reached; `webhook` uses `[transport.webhook]`",
    ),
    unset(
        "transport.conduit.id",
        Text,
        "adopt this conduit; else one is made, and remembered in the state directory",
    ),
    key(
        "transport.conduit.keepalive",
        time("10s", "10m"),
        r#""30s""#,
        "how long a socket may be silent before it counts as broken",
    ),
    unset(
        "transport.webhook.callback",
        Text,
        "the public URL that Twitch calls: https, port 443; needed wherever webhooks are asked for",
    ),
    key(
        "transport.webhook.listen",
        Text,
        r#""127.0.0.1:8080""#,
        "the address to listen on, or `systemd` for the socket that systemd passes",
    ),
    unset(
        "transport.webhook.secret_file",
        Path,
        "a file with the secret that signs webhooks, 10 to 100 characters; else one is made and kept in the state directory",
    ),
    unset(
        "transport.webhook.tls_certificate",
        Path,
        "a certificate chain in PEM, when no proxy ends TLS; read again when it changes",
    ),
    unset("transport.webhook.tls_key", Path, "the key of the certificate in PEM"),
    required("subscription.type", Texts, "the subscription type, or a list of them"),
    unset("subscription.version", Text, "its version; the newest that is not beta when left out"),
    unset("subscription.broadcaster", Texts, "logins that stand for `broadcaster_user_id`"),
    unset("subscription.broadcaster_file", Path, "a file with one login a line and `#` comments"),
    unset(
        "subscription.moderator",
        Texts,
        "logins that stand for `moderator_user_id`; the broadcaster when left out",
    ),
    unset("subscription.user", Texts, "logins that stand for `user_id`"),
    unset("subscription.from_broadcaster", Texts, "logins that stand for `from_broadcaster_user_id`"),
    unset("subscription.to_broadcaster", Texts, "logins that stand for `to_broadcaster_user_id`"),
    unset("subscription.condition", Fields, "fields of the condition, passed on as they are"),
    unset("subscription.sinks", Texts, "the sinks that get its events; all when left out"),
    key("subscription.enabled", Flag, "true", "`false` leaves the entry out"),
    required("sink.*.type", SINK_TYPES, "what kind of sink it is"),
    key(
        "sink.*.types",
        Texts,
        r#"["*"]"#,
        "globs of the subscription types that it gets, such as `channel.chat.*`",
    ),
    key("sink.*.format", FORMATS, r#""eventsub""#, "how events are written"),
    key(
        "sink.*.from",
        STARTS,
        r#""now""#,
        "where a new sink starts: with the events that come from now on, or with the oldest that is stored",
    ),
    key("sink.*.retry_max", time("1s", "24h"), r#""5m""#, "the longest pause between tries"),
    key(
        "sink.*.give_up_after",
        time("1s", "3650d"),
        r#""24h""#,
        "when an event goes to the dead letters of the sink",
    ),
    of(required("sink.*.path", Path, "the file that events are appended to"), &["file"]),
    of(
        unset(
            "sink.*.rotate_size",
            Size { min: "4KiB" },
            "the size at which a new file is begun; never when left out",
        ),
        &["file"],
    ),
    of(
        key("sink.*.rotate_keep", Integer { min: 1, max: 10_000 }, "5", "how many old files are kept"),
        &["file"],
    ),
    of(
        required(
            "sink.*.command",
            Texts,
            "the program and its arguments; no shell; it runs in the folder of the configuration file, where relative paths start",
        ),
        &["command"],
    ),
    of(
        key("sink.*.timeout", time("1s", "1h"), r#""30s""#, "how long one event may take"),
        &["command", "http"],
    ),
    of(
        key(
            "sink.*.concurrency",
            Integer { min: 1, max: 256 },
            "1",
            "how many events are under way at once; with more than one, order is kept for each broadcaster",
        ),
        &["command", "http"],
    ),
    of(
        required(
            "sink.*.url",
            Text,
            "where events are sent to; may hold a secret, and is never printed; for `http` also a template with a fixed host",
        ),
        &["http", "nats", "mqtt", "redis"],
    ),
    of(key("sink.*.method", HTTP_METHODS, r#""POST""#, "the HTTP method"), &["http"]),
    of(
        unset("sink.*.headers", Fields, "headers of the request; with a `body` they are templates as well"),
        &["http"],
    ),
    of(
        unset(
            "sink.*.headers_file",
            Path,
            "a file with more of them, one `Name: value` a line, that only its owner can read",
        ),
        &["http"],
    ),
    of(
        unset(
            "sink.*.secret_file",
            Path,
            "a file with the secret that signs requests of the format `eventsub`",
        ),
        &["http"],
    ),
    of(unset("sink.*.body", Text, "a template of the request's body"), &["http"]),
    of(
        key("sink.*.subject", Text, r#""eventsub.{{type}}.{{broadcaster_id}}""#, "a template of the subject"),
        &["nats"],
    ),
    of(
        key("sink.*.topic", Text, r#""eventsub/{{type}}/{{broadcaster_id}}""#, "a template of the topic"),
        &["mqtt"],
    ),
    of(
        key(
            "sink.*.qos",
            Integer { min: 0, max: 2 },
            "1",
            "the quality of service; with 0 the broker acknowledges nothing, and events can be lost",
        ),
        &["mqtt"],
    ),
    of(
        key("sink.*.retain", Flag, "false", "whether the broker keeps the last message of each topic"),
        &["mqtt"],
    ),
    of(
        unset(
            "sink.*.stream",
            Text,
            "for `nats`, the JetStream stream, made when it is missing; for `redis`, a template of the key of a stream",
        ),
        &["nats", "redis"],
    ),
    of(
        unset(
            "sink.*.max_len",
            Integer { min: 1, max: i64::MAX },
            "about how many entries the stream keeps; all when left out",
        ),
        &["redis"],
    ),
    of(
        unset(
            "sink.*.channel",
            Text,
            "a template of the channel, instead of `stream`; only those who listen at that moment get the event",
        ),
        &["redis"],
    ),
    of(
        unset(
            "sink.*.credentials",
            Path,
            "for `nats`, a NATS credentials file; for `mqtt`, a file with `user:password`",
        ),
        &["nats", "mqtt"],
    ),
    of(
        unset(
            "sink.*.discover",
            Flag,
            "whether servers that a server advertises get the credentials too; when left out, if `url` has one server",
        ),
        &["nats"],
    ),
    key(
        "store.retain",
        time("1h", "3650d"),
        r#""7d""#,
        "how long events are kept; at least an hour, since Twitch may send a message again within 10 minutes",
    ),
    key(
        "store.max_size",
        Size { min: "16MiB" },
        r#""2GiB""#,
        "how large the store may grow before the oldest events go",
    ),
    unset("state.directory", Path, "where the store and the conduit's id are kept; it belongs to this file"),
    unset(
        "admin.listen",
        Text,
        "the address of the admin endpoint with its page; off when left out, and this machine only without a token",
    ),
    unset(
        "admin.token_file",
        Path,
        "a file with the token that opens the admin endpoint, and that only its owner can read",
    ),
    unset(
        "admin.trusted_proxies",
        Texts,
        "addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed",
    ),
    unset(
        "admin.socket",
        Path,
        "the control socket; `control.sock` in the runtime or the state directory when left out",
    ),
    key("log.level", Text, r#""info""#, "which log lines are written, in the filter syntax of `tracing`"),
    key(
        "log.format",
        LOG_FORMATS,
        r#""auto""#,
        "how log lines are written; `auto` is `journald` when stderr is the journal, else text",
    ),
];
