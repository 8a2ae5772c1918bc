//! Sinks as a person configures them: where events go, in which form, and how long they are tried.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};

use super::choice::choice;
use super::secret::Secret;

/// The name of a sink: the `NAME` of `[sink.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SinkName(Arc<str>);

impl SinkName {
    /// Wraps a name; the configuration has checked it.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

choice! {
    /// The `type` of a sink.
    pub enum SinkType {
        Stdout = "stdout",
        File = "file",
        Command = "command",
        Http = "http",
        Nats = "nats",
        Mqtt = "mqtt",
        Redis = "redis",
    }
}

impl SinkType {
    /// Returns whether this build has sinks of this type. Those that need a client library of their own are features of
    /// Cargo with the name of the type.
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Stdout | Self::File | Self::Command | Self::Http => true,
            Self::Nats => cfg!(feature = "nats"),
            Self::Mqtt => cfg!(feature = "mqtt"),
            Self::Redis => cfg!(feature = "redis"),
        }
    }
}

choice! {
    /// The form of an event.
    #[derive(Default)]
    pub enum Format {
        /// Twitch's own message.
        #[default]
        Eventsub = "eventsub",
        /// CloudEvents 1.0, structured mode.
        Cloudevents = "cloudevents",
    }
}

choice! {
    /// Where a sink starts that the store does not know.
    #[derive(Default)]
    pub enum StartAt {
        /// With what is stored from now on.
        #[default]
        Present = "now",
        /// With the oldest event that is kept.
        Beginning = "beginning",
    }
}

/// Settings of a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkOptions {
    /// The name that the place in the store goes by.
    pub name: SinkName,
    /// Globs of the types that it gets.
    pub types: Vec<String>,
    /// The form of events. `http` has a body of its own.
    pub format: Format,
    /// Where it starts when the store does not know it.
    pub start: StartAt,
    /// The longest pause between tries.
    pub retry_max: Duration,
    /// How long an event is tried before it goes to the dead letters.
    pub give_up_after: Duration,
    /// The host of a cluster that works it. `None` leaves the choice to the leader.
    pub host: Option<Arc<str>>,
    pub kind: SinkKind,
}

/// The type of a sink with the settings of that type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Stdout,
    File(FileOptions),
    Command(CommandOptions),
    Http(HttpOptions),
    Nats(NatsOptions),
    Mqtt(MqttOptions),
    Redis(RedisOptions),
}

impl SinkKind {
    pub fn sink_type(&self) -> SinkType {
        match self {
            Self::Stdout => SinkType::Stdout,
            Self::File(_) => SinkType::File,
            Self::Command(_) => SinkType::Command,
            Self::Http(_) => SinkType::Http,
            Self::Nats(_) => SinkType::Nats,
            Self::Mqtt(_) => SinkType::Mqtt,
            Self::Redis(_) => SinkType::Redis,
        }
    }

    /// The `type` in the configuration.
    pub fn name(&self) -> &'static str {
        self.sink_type().name()
    }

    /// The receiver for people. Of a URL only what cannot hold a secret is left, and arguments of a command are left out.
    pub fn receiver(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::File(file) => file.path.display().to_string(),
            Self::Command(command) => {
                let more = if command.arguments.is_empty() { "" } else { " …" };
                format!("{}{more}", command.program.display())
            }
            Self::Http(http) => masked_url(http.url.expose()),
            Self::Nats(nats) => {
                let servers: Vec<String> = nats.url.expose().split(',').map(masked_url).collect();
                format!("{}, subject {}", servers.join(", "), nats.subject)
            }
            Self::Mqtt(mqtt) => format!("{}, topic {}", masked_url(mqtt.url.expose()), mqtt.topic),
            Self::Redis(redis) => {
                let target = match &redis.target {
                    RedisTarget::Stream { key, .. } => format!("stream {key}"),
                    RedisTarget::Channel(channel) => format!("channel {channel}"),
                };
                format!("{}, {target}", masked_url(redis.url.expose()))
            }
        }
    }
}

/// Returns scheme, host and port of a URL.
fn masked_url(url: &str) -> String {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let more = if rest.len() > 1 { "/…" } else { "" };
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}{more}") }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The file; made with mode 0640 when missing. No two sinks have the same.
    pub path: PathBuf,
    /// Size in bytes beyond which a new file is begun. `None` means never.
    pub rotate_size: Option<u64>,
    /// Number of old files that are kept, as `path.1` (the newest) to `path.N`.
    pub rotate_keep: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOptions {
    /// The path of the program.
    pub program: PathBuf,
    /// The folder that it runs in: that of the configuration file.
    pub folder: PathBuf,
    pub arguments: Vec<String>,
    /// How long one run may take; then its whole process group is ended.
    pub timeout: Duration,
    /// How many run at once, at least 1.
    pub concurrency: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The address, or a template of one with a fixed host; may hold secrets.
    pub url: Secret,
    pub method: Method,
    /// Names and values of headers, which win over those of the format; values may hold secrets. With a
    /// template as body they are templates too.
    pub headers: Vec<(HeaderName, Secret)>,
    pub body: HttpBody,
    /// How long one request may take, answer and all.
    pub timeout: Duration,
    /// How many requests are under way at once, at least 1.
    pub concurrency: usize,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpBody {
    /// Twitch's own webhook request, signed with this secret if there is one.
    Eventsub(Option<Secret>),
    /// CloudEvents 1.0, structured mode.
    Cloudevents,
    Template(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsOptions {
    /// The servers, with commas between them; may hold a password.
    pub url: Secret,
    /// A template of the subject.
    pub subject: Arc<str>,
    /// The stream that takes the messages; made when it is missing. `None` means whichever takes them.
    pub stream: Option<String>,
    /// The text of a credentials file.
    pub credentials: Option<Secret>,
    /// Whether servers that a server advertises are connected to as well, with the same credentials.
    pub discover: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttOptions {
    /// `mqtt://` or `mqtts://`; may hold a password.
    pub url: Secret,
    /// A template of the topic.
    pub topic: Arc<str>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps the last message of each topic for those who subscribe later.
    pub retain: bool,
    /// User name and password with a colon between them; they win over those of the URL.
    pub credentials: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    /// `redis://` or `rediss://`; may hold a password.
    pub url: Secret,
    pub target: RedisTarget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTarget {
    /// An entry of a stream for each event.
    Stream {
        /// A template of the key.
        key: Arc<str>,
        /// The server removes the oldest entries beyond about this many. `None` keeps all.
        max_len: Option<u64>,
    },
    /// A message on a channel for each event; the text is a template of the channel.
    Channel(Arc<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_shows_no_secret() {
        let redis = |url: &str| {
            let target = RedisTarget::Stream { key: "events".into(), max_len: None };
            SinkKind::Redis(RedisOptions { url: Secret::new(url.to_owned()), target })
        };
        let http = |url: &str| {
            SinkKind::Http(HttpOptions {
                url: Secret::new(url.to_owned()),
                method: Method::POST,
                headers: vec![],
                body: HttpBody::Eventsub(None),
                timeout: Duration::from_secs(1),
                concurrency: 1,
            })
        };
        let nats = |url: &str| {
            SinkKind::Nats(NatsOptions {
                url: Secret::new(url.to_owned()),
                subject: "eventsub.{{type}}".into(),
                stream: None,
                credentials: None,
                discover: false,
            })
        };
        let command = |arguments: &[&str]| {
            SinkKind::Command(CommandOptions {
                program: "/usr/bin/hook".into(),
                folder: "/etc".into(),
                arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
                timeout: Duration::from_secs(1),
                concurrency: 1,
            })
        };
        for (kind, receiver) in [
            (http("http://127.0.0.1:8080"), "http://127.0.0.1:8080"),
            (http("https://example.org/"), "https://example.org"),
            (http("https://discord.com/api/webhooks/1/s3cret"), "https://discord.com/…"),
            (http("https://example.org?key=s3cret"), "https://example.org/…"),
            (http("https://example.org\\s3cret"), "https://example.org/…"),
            (http("https://ann:s3cret@[::1]:8443/x"), "https://[::1]:8443/…"),
            (http("https://ann:s3c@ret@example.org"), "https://example.org"),
            (redis("redis://:s3cret@127.0.0.1:6379/1"), "redis://127.0.0.1:6379/…, stream events"),
            (nats("nats://s3cret@n1:4222,n2:4222"), "nats://n1:4222, n2:4222, subject eventsub.{{type}}"),
            (command(&[]), "/usr/bin/hook"),
            (command(&["--token", "s3cret"]), "/usr/bin/hook …"),
            (SinkKind::Stdout, "standard output"),
        ] {
            assert_eq!(kind.receiver(), receiver);
        }
    }
}
