//! The table of keys. A key has one row, which makes its path, its type, its default, its help and its field.
//!
//! A row is `help`, `name: type = what it accepts`. The sections of the file are structs of these fields; the man page,
//! `docs/keys.md`, the messages and the variables of the environment come from [`keys`].

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use config::ConfigError;

use super::schema::{
    ADDRESS, ADDRESS_OR_SYSTEMD, FIELDS, FLAG, FRACTION, HTTP, Key, PATH, TEXT, TEXTS, WEBSOCKET, choice,
    integer, integer_or_auto, size, time, words,
};
use super::typed::{Apart, KeyValue, Section, SinkFormat, Values};
use crate::model::mode::{LogFormat, Method, Policy, ShardCount, ShardTransport};
use crate::model::secret::Secret;
use crate::model::sink::SinkType::{self, Command, File, Http, Mqtt, Nats, Redis};
use crate::model::sink::StartAt;
use crate::model::webhook::Listen;

/// The key of the client secret, which goes no further than needed.
pub(in crate::config) const SECRET_PATH: &str = "twitch.client_secret";

/// Makes [`KEYS`] of all rows, and a struct of each section that has a name. A key whose name is a word of Rust has its
/// name in parentheses.
macro_rules! keys {
    ($(
        $(#[derive($($derive:ident),+)])?
        $section:literal $(=> $vis:vis $name:ident)? {
            $( $(#[doc = $doc:literal])+ $key:ident $(($word:literal))? : $type:ty = $row:expr; )+
        }
    )+) => {
        static KEYS: &[Key] = &[$($(
            Key {
                path: concat!($section, ".", keys!(@name $key $($word)?)),
                doc: concat!($($doc),+).trim_ascii(),
                ..$row
            },
        )+)+];
        $( keys! {
            @section $(#[derive($($derive),+)])? $section $(=> $vis $name)? {
                $( $(#[doc = $doc])+ $key $(($word))? : $type; )+
            }
        } )+
    };
    (@name $key:ident) => { stringify!($key) };
    (@name $key:ident $word:literal) => { $word };
    (@section $section:literal { $($rows:tt)+ }) => {};
    (@section $(#[derive($($derive:ident),+)])? $section:literal => $vis:vis $name:ident {
        $( $(#[doc = $doc:literal])+ $key:ident $(($word:literal))? : $type:ty; )+
    }) => {
        #[doc = concat!("`[", $section, "]`.")]
        #[allow(rustdoc::bare_urls, reason = "terminals show the texts too")]
        $(#[derive($($derive),+)])?
        $vis struct $name {
            $( $(#[doc = $doc])+ $vis $key: $type, )+
        }

        impl Section for $name {
            const PATH: &'static str = $section;

            fn read(values: &Values, path: &str) -> Result<Self, ConfigError> {
                Ok(Self { $( $key: values.get(path, keys!(@name $key $($word)?))?, )+ })
            }

            fn changes(&self, new: &Self) -> Vec<(&'static Key, String, String)> {
                let mut changes = Vec::new();
                $( if self.$key != new.$key
                    && let Some(key) = find(concat!($section, ".", keys!(@name $key $($word)?)))
                {
                    changes.push((key, self.$key.show(), new.$key.show()));
                } )+
                changes
            }
        }
    };
}

keys! {
    "twitch" => pub(in crate::config) Application {
        /// the id of the application, from https://dev.twitch.tv/console
        client_id: Option<String> = TEXT.required().needs_restart();
        /// a file that holds the client secret and that only its owner can read
        client_secret_file: Option<String> = PATH;
        /// the client secret itself; the file must then be readable by its owner only
        client_secret: Apart = TEXT;
    }

    #[derive(Clone, Debug, PartialEq)]
    "twitch" => pub Twitch {
        /// where tokens are made and validated
        auth_url: String = HTTP.or(r#""https://id.twitch.tv/oauth2""#);
        /// the API
        api_url: String = HTTP.or(r#""https://api.twitch.tv/helix""#).needs_restart();
        /// where shards connect to
        eventsub_url: String = WEBSOCKET.or(r#""wss://eventsub.wss.twitch.tv/ws""#);
        /// how long Twitch's API may take to answer one request; longer where the way to it is slow
        timeout: Duration = time("1s", "5m").or(r#""15s""#).needs_restart();
        /// how often the token is validated; Twitch asks for once an hour
        validate_interval: Duration = time("1m", "1h").or(r#""1h""#);
        /// whether the daemon keeps subscriptions of its own that tell it of grants and of disabled shards
        watch_grants: bool = FLAG.or("true");
    }

    #[derive(Clone, Debug, PartialEq)]
    "reconcile" => pub Reconcile {
        /// how often everything is compared with Twitch, beside the times that events cause
        interval: Duration = time("1m", "24h").or(r#""30m""#);
        /// `sync` also deletes subscriptions of ours that are no longer in the file, `keep` deletes nothing
        policy: Policy = choice::<Policy>().or(r#""sync""#);
        /// a plan that deletes more than this part of ours (and more than 10), or all of them, waits for
        /// `apply --allow-deletes`
        max_delete: f64 = FRACTION.or("0.5");
    }

    #[derive(Clone, Debug, PartialEq)]
    "transport" => pub Transport {
        /// how events come in: over the shards of a conduit, or as one webhook for each subscription
        method: Method = choice::<Method>().or(r#""conduit""#);
    }

    #[derive(Clone, Debug, PartialEq)]
    "transport.conduit" => pub Conduit {
        /// how many shards share the events; Twitch allows 20,000 a conduit. `auto` is one for each host of `[cluster]`, at
        /// least 2
        shards: ShardCount = integer_or_auto(1, 20_000).or("1");
        /// how the shards are reached; `webhook` uses `[transport.webhook]`
        shard_transport: ShardTransport = choice::<ShardTransport>().or(r#""websocket""#);
        /// adopt this conduit; else one is made, and remembered in the state directory
        id: Option<String> = TEXT;
        /// how long a socket may be silent before it counts as broken
        keepalive: Duration = time("10s", "10m").or(r#""30s""#);
    }

    "transport.webhook" => pub(in crate::config) Webhook {
        /// the public URL that Twitch calls: https, port 443; needed wherever webhooks are asked for
        callback: Option<String> = TEXT;
        /// the address to listen on, or `systemd` for the socket that systemd passes
        listen: Listen = ADDRESS_OR_SYSTEMD.or(r#""127.0.0.1:8080""#);
        /// a file with the secret that signs webhooks, 10 to 100 characters; else one is made and kept in the state
        /// directory
        secret_file: Option<String> = PATH;
        /// a certificate chain in PEM, when no proxy ends TLS; read again when it changes
        tls_certificate: Option<String> = PATH;
        /// the key of the certificate in PEM
        tls_key: Option<String> = PATH;
    }

    "subscription" {
        /// the subscription type, or a list of them
        types("type"): Vec<String> = TEXTS.required();
        /// its version; the newest that is not beta when left out
        version: Option<String> = TEXT;
        /// logins that stand for `broadcaster_user_id`
        broadcaster: Vec<String> = TEXTS;
        /// a file with one login a line and `#` comments
        broadcaster_file: Option<String> = PATH;
        /// logins that stand for `moderator_user_id`; the broadcaster when left out
        moderator: Vec<String> = TEXTS;
        /// logins that stand for `user_id`
        user: Vec<String> = TEXTS;
        /// logins that stand for `from_broadcaster_user_id`
        from_broadcaster: Vec<String> = TEXTS;
        /// logins that stand for `to_broadcaster_user_id`
        to_broadcaster: Vec<String> = TEXTS;
        /// fields of the condition, passed on as they are
        condition: Vec<(String, String)> = FIELDS;
        /// the sinks that get its events; all when left out
        sinks: Option<Vec<String>> = TEXTS;
        /// `false` leaves the entry out
        enabled: bool = FLAG.or("true");
    }

    "sink.*" => pub(in crate::config) Sink {
        /// what kind of sink it is
        sink_type("type"): Option<SinkType> = choice::<SinkType>().required();
        /// globs of the subscription types that it gets, such as `channel.chat.*`
        types: Vec<String> = TEXTS.or(r#"["*"]"#);
        /// the host of `[cluster]` that works it, by its `cluster.host`; when left out, the leader chooses one
        host: Option<String> = TEXT;
        /// how events are written
        format: SinkFormat = choice::<SinkFormat>().or(r#""eventsub""#);
        /// where a new sink starts: with the events that come from now on, or with the oldest that is stored
        from: StartAt = choice::<StartAt>().or(r#""now""#);
        /// the longest pause between tries
        retry_max: Duration = time("1s", "24h").or(r#""5m""#);
        /// when an event goes to the dead letters of the sink
        give_up_after: Duration = time("1s", "3650d").or(r#""24h""#);
        /// the file that events are appended to
        path: Option<String> = PATH.required().only(&[File]);
        /// the size at which a new file is begun; never when left out
        rotate_size: Option<ByteSize> = size("4KiB").only(&[File]);
        /// how many old files are kept
        rotate_keep: u32 = integer(1, 10_000).or("5").only(&[File]);
        /// the program and its arguments; no shell; it runs in the folder of the configuration file, where relative
        /// paths start
        command: Option<Vec<String>> = TEXTS.required().only(&[Command]);
        /// how long one event may take
        timeout: Duration = time("1s", "1h").or(r#""30s""#).only(&[Command, Http]);
        /// how many events are under way at once; with more than one, order is kept for each broadcaster
        concurrency: usize = integer(1, 256).or("1").only(&[Command, Http]);
        /// where events are sent to; may hold a secret, and is never printed; for `http` also a template with a fixed
        /// host
        url: Option<Secret> = TEXT.required().only(&[Http, Nats, Mqtt, Redis]);
        /// the HTTP method
        method: http::Method = words(&["POST", "PUT", "PATCH"]).or(r#""POST""#).only(&[Http]);
        /// headers of the request; with a `body` they are templates as well
        headers: Apart = FIELDS.only(&[Http]);
        /// a file with more of them, one `Name: value` a line, that only its owner can read
        headers_file: Option<String> = PATH.only(&[Http]);
        /// a file with the secret that signs requests of the format `eventsub`
        secret_file: Option<String> = PATH.only(&[Http]);
        /// a template of the request's body
        body: Option<Secret> = TEXT.only(&[Http]);
        /// a template of the subject
        subject: String = TEXT.or(r#""eventsub.{{type}}.{{broadcaster_id}}""#).only(&[Nats]);
        /// a template of the topic
        topic: String = TEXT.or(r#""eventsub/{{type}}/{{broadcaster_id}}""#).only(&[Mqtt]);
        /// the quality of service; with 0 the broker acknowledges nothing, and events can be lost
        qos: u8 = integer(0, 2).or("1").only(&[Mqtt]);
        /// whether the broker keeps the last message of each topic
        retain: bool = FLAG.or("false").only(&[Mqtt]);
        /// for `nats`, the JetStream stream, made when it is missing; for `redis`, a template of the key of a stream
        stream: Option<String> = TEXT.only(&[Nats, Redis]);
        /// about how many entries the stream keeps; all when left out
        max_len: Option<u64> = integer(1, i64::MAX).only(&[Redis]);
        /// a template of the channel, instead of `stream`; only those who listen at that moment get the event
        channel: Option<String> = TEXT.only(&[Redis]);
        /// for `nats`, a NATS credentials file; for `mqtt`, a file with `user:password`
        credentials: Option<String> = PATH.only(&[Nats, Mqtt]);
        /// whether servers that a server advertises get the credentials too; when left out, if `url` has one server
        discover: Option<bool> = FLAG.only(&[Nats]);
    }

    "authorize" => pub(in crate::config) Authorize {
        /// the public URL of the page for invited users, as it is registered at https://dev.twitch.tv/console; no page when
        /// left out
        redirect_uri: Option<String> = TEXT;
        /// the address that the page is served on; when left out, the listener of `[transport.webhook]` serves it, with its TLS
        /// and its socket from systemd
        listen: Option<SocketAddr> = ADDRESS;
    }

    #[derive(Clone, Debug, PartialEq)]
    "store" => pub Store {
        /// how long events are kept; at least an hour, since Twitch may send a message again within 10 minutes
        retain: Duration = time("1h", "3650d").or(r#""7d""#);
        /// how large the store may grow before the oldest events go
        max_size: ByteSize = size("16MiB").or(r#""2GiB""#);
    }

    "state" => pub(in crate::config) State {
        /// where the store and the conduit's id are kept; it belongs to this file
        directory: Option<String> = PATH.needs_restart();
    }

    #[derive(Clone, Debug, PartialEq)]
    "catch_up" => pub CatchUp {
        /// after a gap, Get Streams is asked which streams began or ended meanwhile, and `stream.online` and
        /// `stream.offline` are stored for them
        streams: bool = FLAG.or("true");
        /// the same with Get Channel Information for `channel.update`
        channels: bool = FLAG.or("false");
    }

    "cluster" => pub(in crate::config) Cluster {
        /// addresses of NATS servers, with commas between them, that join hosts with the same file; off when left out
        nats: Option<Secret> = TEXT.needs_restart();
        /// a NATS credentials file
        credentials: Option<String> = PATH.needs_restart();
        /// the name of the bucket in NATS, with which the names of streams and subjects begin; clusters that share one NATS need
        /// different ones
        name: String = TEXT.or(r#""eventsubd""#).needs_restart();
        /// the name of this host, which no other host has; the host's own name when left out
        host: Option<String> = TEXT.needs_restart();
        /// how many NATS servers keep a copy of the bucket and of the shared log; 3 with three servers or more, else 1, when left out
        replicas: Option<usize> = integer(1, 5).needs_restart();
    }

    "admin" => pub(in crate::config) Admin {
        /// the address of the admin endpoint with its page; off when left out, and this machine only without a token
        listen: Option<SocketAddr> = ADDRESS;
        /// a file with the token that opens the admin endpoint, and that only its owner can read
        token_file: Option<String> = PATH;
        /// addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed
        trusted_proxies: Option<Vec<String>> = TEXTS;
        /// the control socket; `control.sock` in the runtime or the state directory when left out
        socket: Option<String> = PATH.needs_restart();
    }

    #[derive(Clone, Debug, PartialEq)]
    "log" => pub Log {
        /// which log lines are written, in the filter syntax of `tracing`
        level: String = TEXT.or(r#""info""#);
        /// how log lines are written; `auto` is `journald` when stderr is the journal, else text
        format: LogFormat = choice::<LogFormat>().or(r#""auto""#).needs_restart();
    }
}

/// All keys that a file may have, in the order of the manual.
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The key with this path, with `*` for the name of a sink.
pub(in crate::config) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Returns whether the path is a section.
pub(in crate::config) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| below(key.path, path).is_some())
}

/// The names that may stand directly in a section; in the file itself for the empty path.
pub(in crate::config) fn children(path: &str) -> impl Iterator<Item = &'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::schema::Kind;
    use crate::config::keys::value;

    #[test]
    fn the_table_is_consistent() {
        let mut seen = std::collections::HashSet::new();
        for key in keys() {
            assert!(seen.insert(key.path), "{} twice", key.path);
            assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.path);
            assert!(key.default.is_none() || !key.required, "{}", key.path);
            if let Some(default) = key.default {
                let table = format!("x = {default}");
                let table = toml::de::DeTable::parse(&table).expect(key.path);
                let checked = value::check(key, key.path, table.get_ref()["x"].get_ref());
                assert!(checked.is_ok(), "{}: {checked:?}", key.path);
            }
            match key.kind {
                Kind::Duration { min, max } => {
                    let parse = |text| humantime::parse_duration(text).expect("a bound");
                    assert!(parse(min) < parse(max), "{}", key.path);
                }
                Kind::Size { min } => assert!(min.parse::<bytesize::ByteSize>().is_ok(), "{}", key.path),
                _ => {}
            }
        }
        assert!(seen.len() > 50);
    }

    #[test]
    fn sections_and_their_children() {
        assert!(is_section("transport") && is_section("transport.conduit") && is_section("sink.*"));
        assert!(!is_section("transport.method") && !is_section("trans") && !is_section("sink.log"));
        assert_eq!(children("transport").collect::<Vec<_>>(), ["method", "conduit", "webhook"]);
        assert_eq!(
            children("").collect::<Vec<_>>(),
            [
                "twitch",
                "reconcile",
                "transport",
                "subscription",
                "sink",
                "authorize",
                "store",
                "state",
                "catch_up",
                "cluster",
                "admin",
                "log"
            ]
        );
    }
}
