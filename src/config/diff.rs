//! The changes of a reload, as data. ◆
//!
//! A change says which part is concerned; values that may be secret are not in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::model::route::SinkName;
use crate::model::subscription::{FieldValue, SubscriptionSpec};

use super::keys::schema::Key;
use super::keys::table;
use super::keys::typed::Section;
use super::settings::{Admin, Authorize, Cluster, Config, Webhook};

/// One difference between two configurations.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A key has another value. Both are as people read them.
    Key {
        key: &'static Key,
        old: String,
        new: String,
    },
    ClientSecret,
    /// These keys of `[transport.webhook]`.
    Webhook {
        keys: Vec<&'static str>,
    },
    /// The subscriptions: by type, version and condition. Those that only go to other sinks are `rerouted`.
    Subscriptions {
        added: usize,
        removed: usize,
        rerouted: usize,
    },
    SinkAdded(SinkName),
    SinkRemoved(SinkName),
    /// A sink with other settings.
    SinkChanged(SinkName),
    AdminToken,
    AdminProxies,
}

impl Change {
    /// Returns whether the change is refused while the daemon runs.
    pub fn needs_restart(&self) -> bool {
        matches!(self, Self::Key { key, .. } if key.needs_restart)
    }

    /// A change of a key that the configuration holds in another form than the file.
    fn of(path: &str, old: impl Into<String>, new: impl Into<String>) -> Option<Self> {
        let (old, new) = (old.into(), new.into());
        let key = table::find(path)?;
        (old != new).then_some(Self::Key { key, old, new })
    }
}

/// The differences in `new`. Empty for equal configurations, and for ones that differ only in the order of subscriptions
/// or in where the same secret comes from.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    fn keys<S: Section>(old: &S, new: &S) -> impl Iterator<Item = Change> {
        old.changes(new).into_iter().map(|(key, old, new)| Change::Key { key, old, new })
    }
    let mut changes = Vec::new();
    changes.extend(Change::of("twitch.client_id", &old.application.client_id, &new.application.client_id));
    if old.application.client_secret != new.application.client_secret {
        changes.push(Change::ClientSecret);
    }
    changes.extend(keys(&old.twitch, &new.twitch));
    changes.extend(keys(&old.reconcile, &new.reconcile));
    changes.extend(keys(&old.transport, &new.transport));
    changes.extend(keys(&old.conduit, &new.conduit));
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
    changes.extend(authorize(old.authorize.as_ref(), new.authorize.as_ref()));
    changes.extend(keys(&old.store, &new.store));
    let path = |path: &Path| path.display().to_string();
    changes.extend(Change::of("state.directory", path(&old.state_directory), path(&new.state_directory)));
    changes.extend(keys(&old.catch_up, &new.catch_up));
    changes.extend(cluster(old.cluster.as_ref(), new.cluster.as_ref()));
    changes.extend(admin(old.admin.as_ref(), new.admin.as_ref()));
    changes.extend(Change::of("admin.socket", path(&old.socket), path(&new.socket)));
    changes.extend(keys(&old.log, &new.log));
    changes
}

fn authorize(old: Option<&Authorize>, new: Option<&Authorize>) -> Vec<Change> {
    let uri = |page: Option<&Authorize>| page.map_or("(none)".to_owned(), |page| page.redirect_uri.clone());
    let listen = |page: Option<&Authorize>| {
        page.and_then(|page| page.listen).map_or("(none)".to_owned(), |listen| listen.to_string())
    };
    let uri = Change::of("authorize.redirect_uri", uri(old), uri(new));
    uri.into_iter().chain(Change::of("authorize.listen", listen(old), listen(new))).collect()
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

fn cluster(old: Option<&Cluster>, new: Option<&Cluster>) -> Vec<Change> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (old, new) => {
            let word = |cluster: Option<&Cluster>| if cluster.is_some() { "set" } else { "unset" };
            return Change::of("cluster.nats", word(old), word(new)).into_iter().collect();
        }
    };
    // Servers may be written with a login.
    let another = |changed: bool| if changed { "another one" } else { "one" };
    let secret = |path, changed| Change::of(path, another(false), another(changed));
    let or_unset = |text: Option<String>| text.unwrap_or_else(|| "unset".to_owned());
    let replicas = |cluster: &Cluster| or_unset(cluster.replicas.map(|replicas| replicas.to_string()));
    let changes = [
        secret("cluster.nats", old.nats != new.nats),
        secret("cluster.credentials", old.credentials != new.credentials),
        Change::of("cluster.name", &*old.name, &*new.name),
        Change::of("cluster.host", or_unset(old.host.clone()), or_unset(new.host.clone())),
        Change::of("cluster.replicas", replicas(old), replicas(new)),
    ];
    changes.into_iter().flatten().collect()
}

fn admin(old: Option<&Admin>, new: Option<&Admin>) -> impl Iterator<Item = Change> {
    let listen =
        |admin: Option<&Admin>| admin.map_or_else(|| "off".to_owned(), |admin| admin.listen.to_string());
    let moved = Change::of("admin.listen", listen(old), listen(new));
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
        match self {
            Self::Key { key, old, new } => {
                let restart = if key.needs_restart { " (needs a restart)" } else { "" };
                write!(f, "{} {old} -> {new}{restart}", key.path)
            }
            Self::ClientSecret => f.write_str("client secret changed"),
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
            Self::AdminToken => f.write_str("token of the admin endpoint changed"),
            Self::AdminProxies => f.write_str("trusted proxies of the admin endpoint changed"),
        }
    }
}
