//! Maps the configuration to the options of each part. No other file does.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::admin::{EndpointError, EndpointOptions, bind_endpoint};
use crate::admission::BoundAddress;
use crate::auth::{Credentials, Outward, TokenOptions};
use crate::config::{Config, ShardTransport};
use crate::delivery::SinkOptions;
use crate::gaps::CatchUpOptions;
use crate::helix::HelixOptions;
use crate::invite::{self, InviteError, InviteOptions};
#[cfg(feature = "nats")]
use crate::model::cluster::ClusterOptions;
use crate::model::secret::Secret;
use crate::model::shard::WebhookTarget;
use crate::model::webhook::{WebhookKey, WebhookKeys};
use crate::reconcile::Desired;
use crate::store::StoreOptions;
use crate::transport::websocket::{PoolOptions, Timings};

/// File name of the database within the state directory.
pub const DATABASE: &str = "events.db";

/// Client secret for the sandbox, which needs none from the file.
pub const SANDBOX_SECRET: &str = "sandbox-secret";
/// Capacity of the store's write queue, in events. At full speed the queue is full, and the daemon keeps its memory.
const QUEUE_EVENTS: usize = 4_096;
/// Capacity of the store's write queue, in bytes of payload.
const QUEUE_BYTES: usize = 8 << 20;

pub(super) fn store(config: &Config) -> StoreOptions {
    StoreOptions::new(
        config.state_directory.join(DATABASE),
        config.store.retain,
        config.store.max_size.as_u64(),
        QUEUE_EVENTS,
        QUEUE_BYTES,
    )
}

/// The credentials of the application; the sandbox's own if the file has no secret.
pub fn credentials(config: &Config) -> Credentials {
    Credentials {
        client_id: config.application.client_id.clone(),
        client_secret: config
            .application
            .client_secret
            .clone()
            .unwrap_or_else(|| Secret::new(SANDBOX_SECRET)),
    }
}

pub(super) fn token(config: &Config) -> TokenOptions {
    TokenOptions {
        auth_url: config.twitch.auth_url.clone(),
        validate_interval: config.twitch.validate_interval,
    }
}

pub(super) fn helix(config: &Config) -> HelixOptions {
    HelixOptions { timeout: config.twitch.timeout, ..HelixOptions::new(config.twitch.api_url.clone()) }
}

pub(super) fn pool(config: &Config, outward: Outward, timings: Timings) -> PoolOptions {
    let mut options = PoolOptions::new(config.twitch.eventsub_url.clone(), config.conduit.keepalive, outward);
    options.timings = timings;
    options
}

/// Returns the desired state. `keys` are required if Twitch calls webhooks.
pub(super) fn desired(config: &Config, keys: Option<&WebhookKeys>, generation: u64) -> Arc<Desired> {
    Arc::new(Desired {
        generation,
        specs: Arc::clone(&config.subscriptions),
        policy: config.reconcile.policy,
        max_delete: config.reconcile.max_delete,
        interval: config.reconcile.interval,
        method: config.transport.method,
        shards: config.conduit.shards,
        shards_call: config.conduit.shard_transport == ShardTransport::Webhook,
        webhook: config.webhook.as_ref().zip(keys).map(|(webhook, keys)| WebhookTarget {
            url: webhook.callback.as_str().into(),
            keys: keys.clone(),
        }),
        conduit_id: config.conduit.id.clone(),
        watch_grants: config.twitch.watch_grants,
        fingerprint: config.cluster.as_ref().map(|_| fingerprint(config)).unwrap_or_default(),
    })
}

/// Returns the admin endpoint's options; keeps the current listener if the address is the same.
pub(super) fn admin(
    config: &Config,
    old: Option<(&Config, BoundAddress)>,
) -> Result<Option<EndpointOptions>, EndpointError> {
    let Some(admin) = &config.admin else { return Ok(None) };
    let same = old.filter(|(old, _)| old.admin.as_ref().is_some_and(|old| old.listen == admin.listen));
    let listener = match same {
        Some((_, listener)) => listener,
        None => bind_endpoint(admin.listen)?,
    };
    Ok(Some(EndpointOptions::new(listener, admin.token.clone(), Arc::clone(&admin.trusted_proxies))))
}

/// Returns the options of the page for invited users; keeps the current listener if the address is the same.
pub(super) fn invites(
    config: &Config,
    old: Option<(&Config, BoundAddress)>,
) -> Result<Option<InviteOptions>, InviteError> {
    let Some(page) = &config.authorize else { return Ok(None) };
    let same = old.filter(|(old, _)| old.authorize.as_ref().is_some_and(|old| old.listen == page.listen));
    let listener = match (page.listen, same) {
        (None, _) => None,
        (Some(_), Some((_, listener))) => Some(listener),
        (Some(listen), None) => Some(invite::bind(listen)?),
    };
    Ok(Some(InviteOptions::new(&page.redirect_uri, &config.twitch.auth_url, credentials(config), listener)))
}

pub(super) fn catch_up(config: &Config) -> CatchUpOptions {
    CatchUpOptions { streams: config.catch_up.streams, channels: config.catch_up.channels }
}

pub(super) fn sinks(config: &Config) -> Arc<[SinkOptions]> {
    config.sinks.values().cloned().collect()
}

/// Where Linux has the name of the machine.
#[cfg(feature = "nats")]
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Returns the options of the cluster; `None` without one.
#[cfg(feature = "nats")]
pub(super) fn cluster(config: &Config) -> Option<ClusterOptions> {
    let cluster = config.cluster.as_ref()?;
    let host = cluster.host.clone().unwrap_or_else(|| {
        let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
        let name = name.trim().trim_matches('.');
        let known = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '-' };
        if name.is_empty() { "host".to_owned() } else { name.chars().map(known).collect() }
    });
    Some(ClusterOptions {
        nats: cluster.nats.clone(),
        credentials: cluster.credentials.clone(),
        name: cluster.name.clone(),
        host,
        replicas: cluster.replicas,
    })
}

/// A hash that is the same on every host, unlike the standard library's.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        u64::from_be_bytes(self.0.clone().finalize().first_chunk().copied().unwrap_or_default())
    }
}

/// Returns a fingerprint of what all hosts of a cluster must have in common: everything that decides what is made and
/// deleted at Twitch, and which events go to which sinks.
pub(super) fn fingerprint(config: &Config) -> String {
    let mut hasher = StableHasher(Sha256::new());
    let Config { application, reconcile, transport, conduit, twitch, webhook, .. } = config;
    application.client_id.hash(&mut hasher);
    (reconcile.policy.name(), reconcile.max_delete.to_bits(), reconcile.interval).hash(&mut hasher);
    (transport.method.name(), conduit.shard_transport.name(), conduit.shards, &conduit.id).hash(&mut hasher);
    twitch.watch_grants.hash(&mut hasher);
    let key = webhook.as_ref().and_then(|webhook| WebhookKey::new(webhook.secret.clone()?).ok());
    (webhook.as_ref().map(|webhook| &webhook.callback), key.map(|key| key.id.to_string())).hash(&mut hasher);
    // The order of subscriptions does not matter.
    let mut subscriptions: Vec<u64> = config
        .subscriptions
        .iter()
        .map(|subscription| {
            let mut hasher = StableHasher(Sha256::new());
            subscription.hash(&mut hasher);
            hasher.finish()
        })
        .collect();
    subscriptions.sort_unstable();
    subscriptions.hash(&mut hasher);
    for (name, sink) in &config.sinks {
        (name.as_str(), sink.kind.name(), &sink.types, sink.format.name(), &sink.host).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
