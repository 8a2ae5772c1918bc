//! Delivery of events: one worker per sink, each at its own pace.
//!
//! Owns the sinks and their places in the store. A sink gets every event that it wants at least once, in the order of
//! storing, or the event ends in its dead letters. A slow or failing sink does not hold up the others. After a crash each
//! sink continues at its stored place, so that the last events come again.

mod backlog;
mod batch;
mod check;
mod children;
pub mod format;
pub mod gate;
mod handle;
mod make;
pub mod outgoing;
mod preview;
mod receiver;
pub mod retry;
pub mod select;
mod sending;
mod single;
mod sink;
mod supervisor;
pub mod verdict;
pub mod window;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use self::check::{check_sinks, try_connections};
pub use self::children::Children;
pub use self::handle::{DeliveryHandle, ResendError, Skipped};
pub use self::make::SinkError;
pub use self::preview::{preview, try_out};
pub use self::sink::OpenStdout;
pub use self::supervisor::Delivery;
use self::worker::Statuses;
use crate::auth::Proxies;
use crate::model::route::Routes;
pub use crate::model::sink::{
    CommandOptions, FileOptions, HttpBody, HttpOptions, MqttOptions, NatsOptions, RedisOptions, RedisTarget,
    SinkKind, SinkOptions,
};
use crate::store::Store;

/// Settings that all sinks share.
#[derive(Clone)]
pub struct DeliveryOptions {
    /// Output of `stdout` sinks.
    pub stdout: OpenStdout,
    /// HTTP client of `http` sinks. Must not follow redirects.
    pub http: reqwest::Client,
    /// TLS settings of sinks that connect to a broker.
    pub tls: rustls::ClientConfig,
    /// The running programs of `command` sinks.
    pub children: Children,
    /// Print what sinks that reach outside would get, instead of sending it.
    pub print: bool,
    /// The proxies that HTTP sinks go through, for messages; NATS sinks connect directly.
    pub proxies: Proxies,
}

impl DeliveryOptions {
    /// With the process's own standard output.
    pub fn new(http: reqwest::Client, tls: rustls::ClientConfig) -> Self {
        let stdout: OpenStdout = Arc::new(|| Box::new(std::io::stdout()));
        let (children, proxies) = (Children::default(), Proxies::default());
        Self { stdout, http, tls, children, print: false, proxies }
    }
}

impl std::fmt::Debug for DeliveryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeliveryOptions")
    }
}

/// Builds the delivery; nothing happens until it is run.
///
/// A change of `sinks` affects only the sinks that differ.
pub fn delivery(
    store: Store,
    routes: watch::Receiver<Option<Arc<Routes>>>,
    sinks: watch::Receiver<Arc<[SinkOptions]>>,
    options: DeliveryOptions,
) -> (Delivery, DeliveryHandle) {
    let (statuses, status) = watch::channel(Statuses::new());
    let (reopen_in, reopen) = watch::channel(0);
    let (asks, requests) = mpsc::channel(4);
    let handle = DeliveryHandle {
        status,
        reopen: Arc::new(reopen_in),
        store: store.clone(),
        requests: asks,
        routes: routes.clone(),
        sinks: sinks.clone(),
    };
    (Delivery { store, routes, sinks, options, reopen, statuses: Arc::new(statuses), requests }, handle)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
