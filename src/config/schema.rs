//! The file as it may be typed: every key, its type, its range, its default and one line about it.
//!
//! Pure data, and the one place where a key is defined: the checks, the defaults and the manual all
//! read this table.

use Kind::{Choice, Duration, Fields, Flag, Fraction, Integer, Path, Size, Text, Texts, Url};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A string.
    Text,
    /// A path; relative ones are relative to the directory of the file.
    Path,
    /// An absolute URL of one of these schemes. The first one is meant for use, the second one,
    /// which is not encrypted, for loopback addresses only.
    Url {
        /// The encrypted scheme, then the other one.
        schemes: [&'static str; 2],
    },
    /// A string such as `"30s"`, within these bounds.
    Duration {
        /// The shortest.
        min: &'static str,
        /// The longest.
        max: &'static str,
    },
    /// A string such as `"1GiB"`, at least this much.
    Size {
        /// The smallest.
        min: &'static str,
    },
    /// A whole number within these bounds.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A number from 0 to 1.
    Fraction,
    /// `true` or `false`.
    Flag,
    /// A string or a list of strings.
    Texts,
    /// A table of strings.
    Fields,
    /// One of some words.
    Choice {
        /// The ones that work.
        values: &'static [&'static str],
        /// The ones that are known, but not supported yet.
        later: &'static [&'static str],
    },
}

/// One key of the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path, such as `twitch.client_id`; `sink.*.type` stands for every sink, and
    /// `subscription.type` for every `[[subscription]]`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as TOML text; `None` when it has to be given, or is off or found elsewhere.
    pub default: Option<&'static str>,
    /// One line about it.
    pub doc: &'static str,
    /// Whether this release can do it.
    pub supported: bool,
    /// Whether it has to be given.
    pub required: bool,
    /// Of keys of sinks: the types of sinks that have it; all when empty.
    pub only: &'static [&'static str],
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Some(default), doc, supported: true, required: false, only: &[] }
}

const fn unset(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: None, doc, supported: true, required: false, only: &[] }
}

const fn required(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: None, doc, supported: true, required: true, only: &[] }
}

const fn later(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: None, doc, supported: false, required: false, only: &[] }
}

const fn of(key: Key, only: &'static [&'static str]) -> Key {
    Key { only, ..key }
}

const HTTP: Kind = Url { schemes: ["https", "http"] };
const WEBSOCKET: Kind = Url { schemes: ["wss", "ws"] };
const METHODS: Kind = Choice { values: &["conduit"], later: &["webhook"] };
const SHARD_TRANSPORTS: Kind = Choice { values: &["websocket"], later: &["webhook"] };
const SINK_TYPES: Kind = Choice { values: &["stdout", "file"], later: &["command", "http", "nats"] };
const FORMATS: Kind = Choice { values: &["eventsub"], later: &["cloudevents", "template"] };
const LOG_FORMATS: Kind = Choice { values: &["auto", "text", "json"], later: &["journald"] };
const POLICIES: Kind = Choice { values: &["sync", "keep"], later: &[] };

const fn time(min: &'static str, max: &'static str) -> Kind {
    Duration { min, max }
}

/// All keys, in the order of the manual.
static KEYS: &[Key] = &[
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
        "a plan that deletes more than this part of ours (and more than 10) waits for `apply --allow-deletes`",
    ),
    key("transport.method", METHODS, r#""conduit""#, "how events come in"),
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
        "how the shards are reached",
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
    later("transport.webhook.callback", Text, "the public URL that Twitch calls"),
    later("transport.webhook.listen", Text, "the address to listen on, or `systemd`"),
    later("transport.webhook.secret_file", Path, "a file with the secret that signs webhooks"),
    later("transport.webhook.tls_certificate", Path, "a certificate chain in PEM"),
    later("transport.webhook.tls_key", Path, "the key of the certificate in PEM"),
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
    of(later("sink.*.command", Texts, "the program and its arguments"), &["command"]),
    of(later("sink.*.timeout", Text, "how long one event may take"), &["command", "http"]),
    of(later("sink.*.concurrency", Text, "how many events are under way at once"), &["command", "http"]),
    of(later("sink.*.url", Text, "where events are sent to"), &["http", "nats"]),
    of(later("sink.*.method", Text, "the HTTP method"), &["http"]),
    of(later("sink.*.headers", Fields, "headers of the request"), &["http"]),
    of(later("sink.*.secret_file", Path, "a file with the secret that signs requests"), &["http"]),
    of(later("sink.*.body", Text, "a template of the request's body"), &["http"]),
    of(later("sink.*.subject", Text, "a template of the subject"), &["nats"]),
    of(later("sink.*.stream", Text, "the JetStream stream"), &["nats"]),
    of(later("sink.*.credentials", Path, "a NATS credentials file"), &["nats"]),
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
    unset("state.directory", Path, "where the store and the conduit's id are kept"),
    later("admin.listen", Text, "the address of the admin endpoint"),
    unset(
        "admin.socket",
        Path,
        "the control socket; `control.sock` in the runtime or the state directory when left out",
    ),
    key("log.level", Text, r#""info""#, "which log lines are written, in the filter syntax of `tracing`"),
    key("log.format", LOG_FORMATS, r#""auto""#, "how log lines are written; `auto` is text on a terminal"),
];

/// All keys that a file may have, also those that are not supported yet.
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The key with this path, with `*` for the name of a sink.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys stand below this path.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| below(key.path, path).is_some())
}

/// Whether some key of this section is supported.
pub(super) fn is_supported_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.supported && below(key.path, path).is_some())
}

/// The names that may stand directly in a section; in the file itself for the empty path.
pub(super) fn children(path: &str) -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let rest = if path.is_empty() { key.path } else { below(key.path, path)? };
        let name = rest.split('.').next().unwrap_or(rest);
        let new = name != last;
        last = name;
        new.then_some(name)
    })
}

fn below(path: &'static str, section: &str) -> Option<&'static str> {
    path.strip_prefix(section)?.strip_prefix('.')
}

impl Key {
    /// Its last name: `client_id` of `twitch.client_id`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

impl Kind {
    /// With its article, for messages.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Text | Choice { .. } => "a string",
            Path => "a path in quotes",
            Url { .. } => "a URL in quotes",
            Duration { .. } => "a duration such as \"30s\"",
            Size { .. } => "a size such as \"1GiB\"",
            Integer { .. } => "a whole number",
            Fraction => "a number",
            Flag => "true or false",
            Texts => "a string or a list of strings",
            Fields => "a table of strings",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value;

    #[test]
    fn the_table_is_consistent() {
        let mut seen = std::collections::HashSet::new();
        for key in keys() {
            assert!(seen.insert(key.path), "{} twice", key.path);
            assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.path);
            assert!(key.default.is_none() || (key.supported && !key.required), "{}", key.path);
            if let Some(default) = key.default {
                let table = format!("x = {default}");
                let table = toml::de::DeTable::parse(&table).expect(key.path);
                let checked = value::check(key, key.path, table.get_ref()["x"].get_ref());
                assert!(checked.is_ok(), "{}: {checked:?}", key.path);
            }
            match key.kind {
                Duration { min, max } => {
                    let parse = |text| humantime::parse_duration(text).expect("a bound");
                    assert!(parse(min) < parse(max), "{}", key.path);
                }
                Size { min } => assert!(min.parse::<bytesize::ByteSize>().is_ok(), "{}", key.path),
                _ => {}
            }
        }
        assert!(seen.len() > 50);
    }

    #[test]
    fn sections_and_their_children() {
        assert!(is_section("transport") && is_section("transport.conduit") && is_section("sink.*"));
        assert!(!is_section("transport.method") && !is_section("trans") && !is_section("sink.log"));
        assert!(is_supported_section("transport") && !is_supported_section("transport.webhook"));
        assert_eq!(children("transport").collect::<Vec<_>>(), ["method", "conduit", "webhook"]);
        assert_eq!(
            children("").collect::<Vec<_>>(),
            ["twitch", "reconcile", "transport", "subscription", "sink", "store", "state", "admin", "log"]
        );
    }
}
