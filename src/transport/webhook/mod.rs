//! Webhooks: the callback that Twitch posts to, for plain subscriptions and for shards of a conduit.
//!
//! Owns the listening socket in use and the connections. A request without a valid signature has no effect. An
//! event is answered 2xx once it is on disk, and 503 if it cannot be stored now, so that Twitch sends it
//! again. The listener never calls the API. After a crash Twitch sends again what was not answered.

mod accept;
mod answer;
mod body;
mod clock;
mod counters;
mod listen;
mod serve;
mod server;
mod shared;
mod tls;
pub mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

pub use self::listen::{ListenError, Listener, Sockets};
pub use self::server::Webhook;
use self::shared::Shared;
pub use self::tls::{Tls, TlsError};
use super::Hear;
use crate::admission;
use crate::model::shard::ShardId;
use crate::model::signs::CallbackSigns;
use crate::model::status::{IntakeStatus, WebhookStatus};
use crate::model::webhook::WebhookKeys;
pub use crate::model::webhook::{Listen, TlsFiles};
use crate::store::{Clock, Store};

/// Limits for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: admission::Limits,
    /// Largest body, in bytes.
    pub body_size: usize,
    /// Time limit for storing an event; after that the answer is 503. Twitch waits for "a few seconds".
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: admission::Limits {
                // Several times what Twitch, or a proxy in front, opens at once.
                places: 1_024,
                per_address: 256,
                reserve: 0,
                bodies: 32 << 20,
                head: Duration::from_secs(10),
                body: Duration::from_secs(10),
                handshake: Duration::from_secs(10),
                // Longer than proxies keep connections (nginx 60 s, Caddy 120 s): the proxy then closes first,
                // and no request meets a connection that we are closing.
                idle: Duration::from_secs(180),
                scarce: Duration::from_secs(3),
            },
            // Twice the largest body that Twitch sends: a batch has at most 250 KB (Twitch: "Batched notifications").
            body_size: 500 << 10,
            answer: Duration::from_secs(3),
        }
    }
}

#[derive(Clone)]
pub struct WebhookOptions {
    /// The public URL, without a query.
    pub callback: Arc<str>,
    /// Where to listen.
    pub listener: Arc<Listener>,
    /// TLS. `None` means that a proxy terminates it.
    pub tls: Option<Tls>,
    /// Accepted secrets.
    pub keys: WebhookKeys,
    pub limits: Limits,
    /// The time that messages are compared with.
    pub clock: Clock,
}

impl WebhookOptions {
    /// Options with the default limits and the system's clock.
    pub fn new(
        callback: impl Into<Arc<str>>,
        listener: Arc<Listener>,
        tls: Option<Tls>,
        keys: WebhookKeys,
    ) -> Self {
        let clock: Clock = Arc::new(SystemTime::now);
        Self { callback: callback.into(), listener, tls, keys, limits: Limits::default(), clock }
    }
}

impl std::fmt::Debug for WebhookOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookOptions")
            .field("callback", &self.callback)
            .field("listener", &self.listener)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// State that the listener publishes.
#[derive(Clone, Debug)]
pub struct WebhookHandle {
    /// Status of the listener. `None` while there are no options.
    pub status: watch::Receiver<Option<WebhookStatus>>,
    /// Counts of received messages, including duplicates.
    pub intake: watch::Receiver<IntakeStatus>,
    /// Notifications received since the start, by the shard that their address names.
    pub shards: watch::Receiver<BTreeMap<ShardId, u64>>,
    /// When signed requests came.
    pub signs: CallbackSigns,
}

/// Builds the listener; nothing happens until it is run.
///
/// `hear` gets the hints from events and revocations, and each challenge that was answered. Nothing is served while there are no options. New options apply from the next request on, those
/// of TLS from the next connection on. A different listener replaces the old one.
pub fn webhook(
    options: watch::Receiver<Option<WebhookOptions>>,
    store: Store,
    hear: Hear,
) -> (Webhook, WebhookHandle) {
    let shared = Arc::new(Shared::new(store, hear));
    let (status_in, status) = watch::channel(None);
    let (intake_in, intake) = watch::channel(IntakeStatus::default());
    let (shards_in, shards) = watch::channel(BTreeMap::new());
    let signs = shared.counters.signs();
    let webhook = Webhook { options, shared, status: status_in, intake: intake_in, shards: shards_in };
    (webhook, WebhookHandle { status, intake, shards, signs })
}

#[cfg(test)]
mod tests;
