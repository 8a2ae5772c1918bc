//! Settings of the listener.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};

use super::{Listener, Tls};
use crate::admission;
use crate::model::webhook::WebhookKeys;
use crate::store::Clock;

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

/// The future answer to a request.
pub type GuestFuture = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;

/// A page of another part of the daemon, which the listener serves beside the callback. Its visitors are strangers to
/// the listener, whatever they say.
#[derive(Clone)]
pub struct Guest(pub Arc<dyn Fn(Request<Bytes>) -> GuestFuture + Send + Sync>);

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

#[derive(Clone)]
pub struct WebhookOptions {
    /// The public URL, without a query.
    pub callback: Arc<str>,
    pub listener: Arc<Listener>,
    /// Path of the other page that the listener serves, if it does.
    pub guest_path: Option<Arc<str>>,
    /// TLS. `None` means that a proxy terminates it.
    pub tls: Option<Tls>,
    /// Secrets that are accepted.
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
        Self {
            callback: callback.into(),
            listener,
            guest_path: None,
            tls,
            keys,
            limits: Limits::default(),
            clock,
        }
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
