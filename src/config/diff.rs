//! The changes of a reload, as data. ◆
//!
//! Pure. A change says which part is concerned; values that may be secret are not in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::route::SinkName;
use crate::model::subscription::{FieldValue, SubscriptionSpec};
use crate::model::text::duration;

use super::settings::{Admin, Config, LogFormat, Method, Policy, ShardTransport, Webhook};

/// One difference between two configurations.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields of all changes are the old and the new value")]
pub enum Change {
    /// The client id or the client secret.
    Credentials,
    /// The URLs of Twitch.
    Urls,
    /// How often the token is validated.
    ValidateInterval { old: Duration, new: Duration },
    /// Whether the daemon watches grants.
    WatchGrants { old: bool, new: bool },
    /// How often everything is compared with Twitch.
    ReconcileInterval { old: Duration, new: Duration },
    /// Whether subscriptions are deleted.
    Policy { old: Policy, new: Policy },
    /// How much a plan may delete.
    MaxDelete { old: f64, new: f64 },
    /// The number of shards.
    Shards { old: u32, new: u32 },
    /// The conduit to adopt.
    ConduitId { old: Option<String>, new: Option<String> },
    /// How events come in.
    Method { old: Method, new: Method },
    /// How the shards are reached.
    ShardTransport { old: ShardTransport, new: ShardTransport },
    /// Where Twitch calls, where the daemon listens, or with what: the names of the keys.
    Webhook { keys: Vec<&'static str> },
    /// How long a socket may be silent.
    Keepalive { old: Duration, new: Duration },
    /// The subscriptions: by type, version and condition. Those that only go to other sinks are
    /// `rerouted`.
    Subscriptions { added: usize, removed: usize, rerouted: usize },
    /// A new sink.
    SinkAdded(SinkName),
    /// A sink that is gone.
    SinkRemoved(SinkName),
    /// A sink with other settings.
    SinkChanged(SinkName),
    /// How long events are kept.
    Retain { old: Duration, new: Duration },
    /// How large the store may grow, in bytes.
    MaxSize { old: u64, new: u64 },
    /// The address of the admin endpoint.
    AdminListen { old: Option<String>, new: Option<String> },
    /// The token of the admin endpoint.
    AdminToken,
    /// The proxies that the admin endpoint believes.
    AdminProxies,
    /// The filter of log lines.
    LogLevel { old: String, new: String },
    /// The form of log lines; needs a restart.
    LogFormat { old: LogFormat, new: LogFormat },
    /// The state directory; needs a restart.
    StateDirectory { old: PathBuf, new: PathBuf },
    /// The control socket; needs a restart.
    Socket { old: PathBuf, new: PathBuf },
}

impl Change {
    /// Whether the running daemon cannot follow it.
    pub fn needs_restart(&self) -> bool {
        matches!(self, Self::StateDirectory { .. } | Self::Socket { .. } | Self::LogFormat { .. })
    }
}

/// What is different in `new`. Nothing for equal configurations, and for ones that differ only in
/// the order of subscriptions or in where the same secret comes from.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    macro_rules! compare {
        ($change:ident, $($field:ident).+) => {
            if old.$($field).+ != new.$($field).+ {
                changes.push(Change::$change { old: old.$($field).+.clone(), new: new.$($field).+.clone() });
            }
        };
    }
    let (a, b) = (&old.twitch, &new.twitch);
    if (&a.client_id, &a.client_secret) != (&b.client_id, &b.client_secret) {
        changes.push(Change::Credentials);
    }
    if (&a.auth_url, &a.api_url, &a.eventsub_url) != (&b.auth_url, &b.api_url, &b.eventsub_url) {
        changes.push(Change::Urls);
    }
    compare!(ValidateInterval, twitch.validate_interval);
    compare!(WatchGrants, twitch.watch_grants);
    compare!(ReconcileInterval, reconcile.interval);
    compare!(Policy, reconcile.policy);
    compare!(MaxDelete, reconcile.max_delete);
    compare!(Shards, conduit.shards);
    compare!(ConduitId, conduit.id);
    compare!(Keepalive, conduit.keepalive);
    compare!(Method, method);
    compare!(ShardTransport, conduit.shard_transport);
    changes.extend(webhook(old.webhook.as_ref(), new.webhook.as_ref()));
    changes.extend(subscriptions(&old.subscriptions, &new.subscriptions));
    for (name, sink) in &new.sinks {
        match old.sinks.get(name) {
            None => changes.push(Change::SinkAdded(name.clone())),
            Some(known) if known != sink => changes.push(Change::SinkChanged(name.clone())),
            Some(_) => {}
        }
    }
    let gone = old.sinks.keys().filter(|name| !new.sinks.contains_key(*name));
    changes.extend(gone.cloned().map(Change::SinkRemoved));
    compare!(Retain, store.retain);
    compare!(MaxSize, store.max_size);
    changes.extend(admin(old.admin.as_ref(), new.admin.as_ref()));
    compare!(LogLevel, log.level);
    compare!(LogFormat, log.format);
    compare!(StateDirectory, state_directory);
    compare!(Socket, socket);
    changes
}

fn webhook(old: Option<&Webhook>, new: Option<&Webhook>) -> Option<Change> {
    let mut keys = Vec::new();
    if old.map(|webhook| &webhook.callback) != new.map(|webhook| &webhook.callback) {
        keys.push("callback");
    }
    if old.map(|webhook| webhook.listen) != new.map(|webhook| webhook.listen) {
        keys.push("listen");
    }
    if old.map(|webhook| &webhook.secret) != new.map(|webhook| &webhook.secret) {
        keys.push("secret");
    }
    if old.map(|webhook| &webhook.tls) != new.map(|webhook| &webhook.tls) {
        keys.push("tls");
    }
    (!keys.is_empty()).then_some(Change::Webhook { keys })
}

fn admin(old: Option<&Admin>, new: Option<&Admin>) -> impl Iterator<Item = Change> {
    let listen = |admin: Option<&Admin>| admin.map(|admin| admin.listen.to_string());
    let moved =
        (listen(old) != listen(new)).then(|| Change::AdminListen { old: listen(old), new: listen(new) });
    let token = |admin: Option<&Admin>| admin.and_then(|admin| admin.token.clone());
    let proxies =
        |admin: Option<&Admin>| admin.map_or_else(Arc::default, |admin| Arc::clone(&admin.trusted_proxies));
    let token = (token(old) != token(new)).then_some(Change::AdminToken);
    let proxies = (proxies(old) != proxies(new)).then_some(Change::AdminProxies);
    moved.into_iter().chain(token).chain(proxies)
}

fn subscriptions(old: &[SubscriptionSpec], new: &[SubscriptionSpec]) -> Option<Change> {
    type Key<'a> = (&'a str, &'a str, &'a [(Cow<'static, str>, FieldValue)]);
    fn key(spec: &SubscriptionSpec) -> Key<'_> {
        (&spec.subscription_type, &spec.version, &spec.condition)
    }
    if old == new {
        return None;
    }
    let known: HashMap<Key<'_>, &SubscriptionSpec> = old.iter().map(|spec| (key(spec), spec)).collect();
    let (mut added, mut rerouted) = (0, 0);
    for spec in new {
        match known.get(&key(spec)) {
            None => added += 1,
            Some(old) if old.sinks != spec.sinks => rerouted += 1,
            Some(_) => {}
        }
    }
    // Each key is there once.
    let removed = (old.len() + added).saturating_sub(new.len());
    (added + removed + rerouted > 0).then_some(Change::Subscriptions { added, removed, rerouted })
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &Duration| duration(*time);
        match self {
            Self::Credentials => f.write_str("credentials changed"),
            Self::Urls => f.write_str("urls of twitch changed"),
            Self::ValidateInterval { old, new } => {
                write!(f, "validate interval {} -> {}", time(old), time(new))
            }
            Self::WatchGrants { old, new } => write!(f, "watch_grants {old} -> {new}"),
            Self::ReconcileInterval { old, new } => {
                write!(f, "reconcile interval {} -> {}", time(old), time(new))
            }
            Self::Policy { old, new } => write!(f, "policy {} -> {}", old.name(), new.name()),
            Self::MaxDelete { old, new } => write!(f, "max_delete {old} -> {new}"),
            Self::Shards { old, new } => write!(f, "shards {old} -> {new}"),
            Self::ConduitId { old, new } => {
                let show = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
                write!(f, "conduit {} -> {}", show(old), show(new))
            }
            Self::Keepalive { old, new } => write!(f, "keepalive {} -> {}", time(old), time(new)),
            Self::Method { old, new } => write!(f, "method {} -> {}", old.name(), new.name()),
            Self::ShardTransport { old, new } => {
                write!(f, "shard transport {} -> {}", old.name(), new.name())
            }
            Self::Webhook { keys } => write!(f, "webhook: {} changed", keys.join(", ")),
            Self::Subscriptions { added, removed, rerouted } => {
                write!(f, "subscriptions +{added} -{removed}")?;
                if *rerouted > 0 {
                    write!(f, ", {rerouted} to other sinks")?;
                }
                Ok(())
            }
            Self::SinkAdded(name) => write!(f, "sink {name} added"),
            Self::SinkRemoved(name) => write!(f, "sink {name} removed"),
            Self::SinkChanged(name) => write!(f, "sink {name} changed"),
            Self::Retain { old, new } => write!(f, "retention {} -> {}", time(old), time(new)),
            Self::MaxSize { old, new } => {
                write!(f, "store size {} -> {}", bytesize::ByteSize(*old), bytesize::ByteSize(*new))
            }
            Self::AdminListen { old, new } => {
                let show = |at: &Option<String>| at.clone().unwrap_or_else(|| "off".to_owned());
                write!(f, "admin endpoint {} -> {}", show(old), show(new))
            }
            Self::AdminToken => f.write_str("token of the admin endpoint changed"),
            Self::AdminProxies => f.write_str("trusted proxies of the admin endpoint changed"),
            Self::LogLevel { old, new } => write!(f, "log level {old} -> {new}"),
            Self::LogFormat { old, new } => {
                write!(f, "log format {} -> {} (needs a restart)", format(*old), format(*new))
            }
            Self::StateDirectory { old, new } => {
                write!(f, "state directory {} -> {} (needs a restart)", old.display(), new.display())
            }
            Self::Socket { old, new } => {
                write!(f, "control socket {} -> {} (needs a restart)", old.display(), new.display())
            }
        }
    }
}

fn format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
        LogFormat::Journald => "journald",
    }
}
