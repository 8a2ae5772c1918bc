//! The layers on top of each other, later ones win: defaults, the file, the environment.
//!
//! Only values that have passed their check come here, and neither the client secret nor headers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use config::{ConfigError, Map, Source, Value};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::check::Layer;
use super::environment::Environment;
use super::problems::At;
use super::schema::{self, Key};
use super::settings::{LogFormat, Method, Policy, ShardTransport};
use super::value::{self, Plain};

/// The keys of the file, typed. It has no `Debug`: URLs of sinks may hold secrets.
#[derive(Deserialize)]
pub(super) struct Merged {
    pub(super) twitch: Twitch,
    pub(super) reconcile: Reconcile,
    pub(super) transport: Transport,
    #[serde(default)]
    pub(super) sink: BTreeMap<String, Sink>,
    pub(super) store: Store,
    #[serde(default)]
    pub(super) state: State,
    #[serde(default)]
    pub(super) admin: Admin,
    pub(super) log: Log,
}

#[derive(Debug, Deserialize)]
pub(super) struct Twitch {
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<String>,
    pub(super) auth_url: String,
    pub(super) api_url: String,
    pub(super) eventsub_url: String,
    #[serde(deserialize_with = "duration")]
    pub(super) validate_interval: Duration,
    pub(super) watch_grants: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Reconcile {
    #[serde(deserialize_with = "duration")]
    pub(super) interval: Duration,
    pub(super) policy: Policy,
    pub(super) max_delete: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Transport {
    pub(super) method: Method,
    pub(super) conduit: Conduit,
    pub(super) webhook: Webhook,
}

#[derive(Debug, Deserialize)]
pub(super) struct Conduit {
    pub(super) shards: u32,
    pub(super) shard_transport: ShardTransport,
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub(super) keepalive: Duration,
}

#[derive(Debug, Deserialize)]
pub(super) struct Webhook {
    pub(super) callback: Option<String>,
    pub(super) listen: String,
    pub(super) secret_file: Option<String>,
    pub(super) tls_certificate: Option<String>,
    pub(super) tls_key: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Sink {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "texts")]
    pub(super) types: Vec<String>,
    #[serde(deserialize_with = "duration")]
    pub(super) retry_max: Duration,
    #[serde(deserialize_with = "duration")]
    pub(super) give_up_after: Duration,
    pub(super) path: Option<String>,
    #[serde(default, deserialize_with = "optional_size")]
    pub(super) rotate_size: Option<u64>,
    pub(super) rotate_keep: u32,
    pub(super) format: String,
    pub(super) from: String,
    #[serde(default, deserialize_with = "optional_texts")]
    pub(super) command: Option<Vec<String>>,
    #[serde(deserialize_with = "duration")]
    pub(super) timeout: Duration,
    pub(super) concurrency: u32,
    pub(super) url: Option<String>,
    pub(super) method: String,
    pub(super) headers_file: Option<String>,
    pub(super) secret_file: Option<String>,
    pub(super) body: Option<String>,
    pub(super) subject: String,
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) stream: Option<String>,
    pub(super) max_len: Option<u64>,
    pub(super) channel: Option<String>,
    pub(super) credentials: Option<String>,
    pub(super) discover: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Store {
    #[serde(deserialize_with = "duration")]
    pub(super) retain: Duration,
    #[serde(deserialize_with = "size")]
    pub(super) max_size: u64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct State {
    pub(super) directory: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Admin {
    pub(super) listen: Option<String>,
    pub(super) token_file: Option<String>,
    #[serde(default, deserialize_with = "optional_texts")]
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) socket: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Log {
    pub(super) level: String,
    pub(super) format: LogFormat,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size: ByteSize = String::deserialize(deserializer)?.parse().map_err(D::Error::custom)?;
    Ok(size.as_u64())
}

fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    size(deserializer).map(Some)
}

fn optional_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    texts(deserializer).map(Some)
}

/// A list, or text with commas as the environment has it.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of strings")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text.split(',').map(|item| item.trim().to_owned()).collect())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_any(Texts)
}

/// The checked values of the file, as a layer.
#[derive(Clone, Debug)]
struct Checked(Map<String, Value>);

impl Source for Checked {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Puts the layers together.
///
/// # Errors
/// A value that passed its check and cannot be read all the same, which is a defect of the schema.
pub(super) fn merge(
    file: &Layer,
    variables: &Layer,
    environment: &Environment,
) -> Result<Merged, ConfigError> {
    let mut builder = config::Config::builder();
    let sinks = || file.sinks.keys().chain(variables.sinks.keys());
    for (key, plain) in schema::keys().iter().filter_map(|key| Some((key, default(key)?))) {
        match key.path.strip_prefix("sink.*.") {
            Some(name) => {
                for sink in sinks() {
                    builder = builder.set_default(format!("sink.{sink}.{name}"), plain.clone())?;
                }
            }
            None => builder = builder.set_default(key.path, plain)?,
        }
    }
    let checked = file.values.iter().map(|(path, (plain, _))| (path.clone(), into_value(plain)));
    let named = variables.values.values().filter_map(|(_, at)| match at {
        At::Variable(name) => Some((name.clone(), environment.get(name)?.to_owned())),
        _ => None,
    });
    builder
        .add_source(Checked(checked.collect()))
        .add_source(
            config::Environment::with_prefix("EVENTSUBD")
                .prefix_separator("_")
                .separator("__")
                .source(Some(named.collect())),
        )
        .build()?
        .try_deserialize()
}

/// The default of a key, from its text in the schema.
fn default(key: &Key) -> Option<Value> {
    if key.path.starts_with("subscription.") {
        return None;
    }
    let text = format!("x = {}", key.default?);
    let table = toml::de::DeTable::parse(&text).ok()?;
    let plain = value::check(key, key.path, table.get_ref().get("x")?.get_ref()).ok()?;
    Some(into_value(&plain))
}

fn into_value(plain: &Plain) -> Value {
    match plain {
        Plain::Text(text) => text.clone().into(),
        Plain::Integer(number) => (*number).into(),
        Plain::Fraction(number) => (*number).into(),
        Plain::Flag(flag) => (*flag).into(),
        Plain::Texts(texts) => texts.clone().into(),
    }
}
