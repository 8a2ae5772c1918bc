//! The validated configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use serde::Deserialize;

pub use crate::model::mode::{Method, Policy};
use crate::model::route::SinkName;
use crate::model::secret::Secret;
use crate::model::subscription::SubscriptionSpec;

/// Everything that a file, the environment and the defaults say, checked and with paths resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[twitch]`.
    pub twitch: Twitch,
    /// `[reconcile]`.
    pub reconcile: Reconcile,
    /// How events come in.
    pub method: Method,
    /// `[transport.conduit]`.
    pub conduit: Conduit,
    /// `[transport.webhook]`; there is one wherever webhooks are asked for.
    pub webhook: Option<Webhook>,
    /// Every `[[subscription]]` that is enabled, expanded; each key once, in the order of the file.
    pub subscriptions: Arc<[SubscriptionSpec]>,
    /// `[sink.*]`; at least one.
    pub sinks: BTreeMap<SinkName, Sink>,
    /// `[store]`.
    pub store: Store,
    /// Where the store and the conduit's id are kept.
    pub state_directory: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The admin endpoint, when there is one.
    pub admin: Option<Admin>,
    /// `[log]`.
    pub log: Log,
}

/// The application, and where Twitch is.
#[derive(Clone, Debug, PartialEq)]
pub struct Twitch {
    /// The application's id; `sandbox` when the sandbox is asked for and the file has none.
    pub client_id: String,
    /// The application's secret; `None` only when it was not required.
    pub client_secret: Option<Secret>,
    /// Where the secret comes from, or would: a path, or the name of a variable.
    pub client_secret_source: String,
    /// `https://id.twitch.tv/oauth2`; no slash at the end.
    pub auth_url: String,
    /// `https://api.twitch.tv/helix`; no slash at the end.
    pub api_url: String,
    /// `wss://eventsub.wss.twitch.tv/ws`; no slash at the end.
    pub eventsub_url: String,
    /// From 1 minute to 1 hour.
    pub validate_interval: Duration,
    /// Whether the daemon keeps subscriptions of its own that tell of grants and of shards.
    pub watch_grants: bool,
}

/// How Twitch is made to match the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconcile {
    /// From 1 minute to 24 hours.
    pub interval: Duration,
    /// Whether it deletes.
    pub policy: Policy,
    /// The part of our subscriptions that a plan may delete unasked, from 0 to 1.
    pub max_delete: f64,
}

/// How the shards of the conduit are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardTransport {
    /// A WebSocket each.
    WebSocket,
    /// They call.
    Webhook,
}

impl ShardTransport {
    /// Its word in the file, which is Twitch's.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Webhook => "webhook",
        }
    }
}

/// Where Twitch calls, and where the daemon listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The public URL: no query, no fragment.
    pub callback: String,
    /// Where the daemon listens.
    pub listen: Listen,
    /// The secret of `secret_file`, which Twitch would take; one is made when `None`.
    pub secret: Option<Secret>,
    /// Where that secret is.
    pub secret_file: Option<PathBuf>,
    /// Without it TLS ends elsewhere.
    pub tls: Option<TlsFiles>,
}

/// Where the daemon listens for webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On this address.
    Address(SocketAddr),
    /// On the socket that systemd passes.
    Systemd,
}

/// What TLS is ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// A chain of certificates in PEM.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
}

/// The conduit and its shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Conduit {
    /// From 1 to 20,000.
    pub shards: u32,
    /// How they are reached.
    pub shard_transport: ShardTransport,
    /// The conduit to adopt.
    pub id: Option<String>,
    /// How long a socket may be silent, from 10 seconds to 10 minutes.
    pub keepalive: Duration,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Globs of the subscription types that it gets: valid for `globset`; `*` is all.
    pub types: Vec<String>,
    /// How events are written.
    pub format: Format,
    /// Whether it begins with the oldest event that is stored when it is new.
    pub from_beginning: bool,
    /// The longest pause between tries.
    pub retry_max: Duration,
    /// When an event goes to the dead letters.
    pub give_up_after: Duration,
    /// What it is.
    pub kind: SinkKind,
}

/// The kinds of sinks.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// Standard output; at most one sink.
    Stdout,
    /// A file that is appended to.
    File {
        /// No other sink has it.
        path: PathBuf,
        /// The bytes at which a new file is begun, at least 4 KiB; never when `None`.
        rotate_size: Option<u64>,
        /// How many old files are kept, at least 1.
        rotate_keep: u32,
    },
    /// A program that is run for each event.
    Command {
        /// Its path.
        program: PathBuf,
        /// The folder that it runs in: that of the configuration file.
        folder: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// How long one run may take.
        timeout: Duration,
        /// How many run at once, at least 1.
        concurrency: usize,
    },
    /// HTTP requests.
    Http {
        /// An absolute URL; may hold secrets.
        url: Secret,
        /// `POST`, `PUT` or `PATCH`.
        method: http::Method,
        /// Headers; values may be secret.
        headers: Vec<(http::HeaderName, Secret)>,
        /// The secret that signs requests of the format `eventsub`.
        secret: Option<Secret>,
        /// The template of the body, with the format `template`.
        body: Option<String>,
        /// How long one request may take.
        timeout: Duration,
        /// How many are under way at once, at least 1.
        concurrency: usize,
    },
    /// NATS JetStream.
    Nats {
        /// Addresses of servers with commas between them; may hold a password.
        url: Secret,
        /// The template of the subject.
        subject: String,
        /// The stream, made when it is missing.
        stream: Option<String>,
        /// The text of a credentials file.
        credentials: Option<Secret>,
        /// Whether servers that a server advertises are connected to as well.
        discover: bool,
    },
    /// MQTT.
    Mqtt {
        /// The address of the broker; may hold a password.
        url: Secret,
        /// The template of the topic.
        topic: String,
        /// 0, 1 or 2.
        qos: u8,
        /// Whether the broker keeps the last message of each topic.
        retain: bool,
        /// User name and password, with a colon between them.
        credentials: Option<Secret>,
    },
    /// An entry of a Redis stream for each event.
    RedisStream {
        /// The address of the server; may hold a password.
        url: Secret,
        /// The template of the key.
        stream: String,
        /// About how many entries the stream keeps; all when `None`.
        max_len: Option<u64>,
    },
    /// A message on a Redis channel for each event.
    RedisChannel {
        /// The address of the server; may hold a password.
        url: Secret,
        /// The template of the channel.
        channel: String,
    },
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As Twitch writes them.
    Eventsub,
    /// CloudEvents 1.0.
    Cloudevents,
    /// As a template says.
    Template,
}

/// What is kept, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// At least 1 hour.
    pub retain: Duration,
    /// In bytes, at least 16 MiB.
    pub max_size: u64,
}

/// The admin endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// A loopback address unless there is a token.
    pub listen: SocketAddr,
    /// What opens it, 16 characters at least.
    pub token: Option<Secret>,
    /// Proxies that are believed what they say of their clients.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A valid filter of `tracing`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// With fields into the journal when stderr is the journal; else text.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Into the journal, with fields.
    Journald,
}
