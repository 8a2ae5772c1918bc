//! From the configuration to the options of each part. Nobody else maps one to the other.

use std::sync::Arc;

use crate::admin::{EndpointError, EndpointListener, EndpointOptions};
use crate::auth::{Credentials, Outward, TokenOptions};
use crate::config::{self, Config};
use crate::delivery::format::Format;
use crate::delivery::{
    CommandOptions, FileOptions, HttpBody, HttpOptions, MqttOptions, NatsOptions, RedisOptions, RedisTarget,
    SinkKind, SinkOptions,
};
use crate::model::secret::Secret;
use crate::model::shard::WebhookTarget;
use crate::model::webhook::WebhookKeys;
use crate::reconcile::Desired;
use crate::store::{StartAt, StoreOptions};
use crate::transport::websocket::{PoolOptions, Timings};

/// The database within the state directory.
pub const DATABASE: &str = "events.db";

/// The sandbox needs no secret from the file; this is the one that it takes.
pub const SANDBOX_SECRET: &str = "sandbox-secret";
/// Events that may wait for the writer of the store.
const QUEUE_EVENTS: usize = 8_192;
/// Bytes of payload that may wait for the writer of the store.
const QUEUE_BYTES: usize = 16 << 20;

pub(super) fn store(config: &Config) -> StoreOptions {
    StoreOptions::new(
        config.state_directory.join(DATABASE),
        config.store.retain,
        config.store.max_size,
        QUEUE_EVENTS,
        QUEUE_BYTES,
    )
}

pub(super) fn credentials(config: &Config) -> Credentials {
    Credentials {
        client_id: config.twitch.client_id.clone(),
        client_secret: config.twitch.client_secret.clone().unwrap_or_else(|| Secret::new(SANDBOX_SECRET)),
    }
}

pub(super) fn token(config: &Config) -> TokenOptions {
    TokenOptions {
        auth_url: config.twitch.auth_url.clone(),
        validate_interval: config.twitch.validate_interval,
    }
}

pub(super) fn pool(config: &Config, outward: Outward, timings: Timings) -> PoolOptions {
    let mut options = PoolOptions::new(config.twitch.eventsub_url.clone(), config.conduit.keepalive, outward);
    options.timings = timings;
    options
}

/// `keys` are needed where something calls.
pub(super) fn desired(config: &Config, keys: Option<&WebhookKeys>, generation: u64) -> Arc<Desired> {
    Arc::new(Desired {
        generation,
        specs: Arc::clone(&config.subscriptions),
        policy: config.reconcile.policy,
        max_delete: config.reconcile.max_delete,
        interval: config.reconcile.interval,
        method: config.method,
        shards: config.conduit.shards,
        shards_call: config.conduit.shard_transport == config::ShardTransport::Webhook,
        webhook: config.webhook.as_ref().zip(keys).map(|(webhook, keys)| WebhookTarget {
            url: webhook.callback.as_str().into(),
            keys: keys.clone(),
        }),
        conduit_id: config.conduit.id.clone(),
        watch_grants: config.twitch.watch_grants,
    })
}

/// The admin endpoint; a listener that there is stays when the address is the same.
pub(super) fn admin(
    config: &Config,
    old: Option<(&Config, EndpointListener)>,
) -> Result<Option<EndpointOptions>, EndpointError> {
    let Some(admin) = &config.admin else { return Ok(None) };
    let same = old.filter(|(old, _)| old.admin.as_ref().is_some_and(|old| old.listen == admin.listen));
    let listener = match same {
        Some((_, listener)) => listener,
        None => EndpointListener::bind(admin.listen)?,
    };
    Ok(Some(EndpointOptions::new(listener, admin.token.clone(), Arc::clone(&admin.trusted_proxies))))
}

pub(super) fn sinks(config: &Config) -> Arc<[SinkOptions]> {
    config
        .sinks
        .iter()
        .map(|(name, sink)| SinkOptions {
            name: name.clone(),
            types: sink.types.clone(),
            format: match sink.format {
                config::Format::Cloudevents => Format::Cloudevents,
                config::Format::Eventsub | config::Format::Template => Format::Eventsub,
            },
            start: if sink.from_beginning { StartAt::Beginning } else { StartAt::Present },
            retry_max: sink.retry_max,
            give_up_after: sink.give_up_after,
            kind: match &sink.kind {
                config::SinkKind::Stdout => SinkKind::Stdout,
                config::SinkKind::File { path, rotate_size, rotate_keep } => SinkKind::File(FileOptions {
                    path: path.clone(),
                    rotate_size: *rotate_size,
                    rotate_keep: *rotate_keep,
                }),
                config::SinkKind::Command { program, folder, arguments, timeout, concurrency } => {
                    SinkKind::Command(CommandOptions {
                        program: program.clone(),
                        folder: folder.clone(),
                        arguments: arguments.clone(),
                        timeout: *timeout,
                        concurrency: *concurrency,
                    })
                }
                config::SinkKind::Http { url, method, headers, secret, body, timeout, concurrency } => {
                    SinkKind::Http(HttpOptions {
                        url: url.clone(),
                        method: method.clone(),
                        headers: headers.clone(),
                        body: match (body, sink.format) {
                            (Some(body), _) => HttpBody::Template(body.as_str().into()),
                            (None, config::Format::Cloudevents) => HttpBody::Cloudevents,
                            (None, _) => HttpBody::Eventsub(secret.clone()),
                        },
                        timeout: *timeout,
                        concurrency: *concurrency,
                    })
                }
                config::SinkKind::Nats { url, subject, stream, credentials, discover } => {
                    SinkKind::Nats(NatsOptions {
                        url: url.clone(),
                        subject: subject.as_str().into(),
                        stream: stream.clone(),
                        credentials: credentials.clone(),
                        discover: *discover,
                    })
                }
                config::SinkKind::Mqtt { url, topic, qos, retain, credentials } => {
                    SinkKind::Mqtt(MqttOptions {
                        url: url.clone(),
                        topic: topic.as_str().into(),
                        qos: *qos,
                        retain: *retain,
                        credentials: credentials.clone(),
                    })
                }
                config::SinkKind::RedisStream { url, stream, max_len } => SinkKind::Redis(RedisOptions {
                    url: url.clone(),
                    target: RedisTarget::Stream { key: stream.as_str().into(), max_len: *max_len },
                }),
                config::SinkKind::RedisChannel { url, channel } => SinkKind::Redis(RedisOptions {
                    url: url.clone(),
                    target: RedisTarget::Channel(channel.as_str().into()),
                }),
            },
        })
        .collect()
}
