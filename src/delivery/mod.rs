//! Delivery of events: one worker per sink, each at its own pace.
//!
//! Owns the sinks and their places in the store. A sink gets every event that it wants at least once, in the order of
//! storing, or the event ends in its dead letters. A slow or failing sink does not hold up the others. After a crash each
//! sink continues at its stored place, so that the last events come again.

mod assignment;
mod backlog;
mod batch;
mod check;
mod children;
pub mod format;
#[cfg(feature = "nats")]
mod forwarder;
pub mod gate;
mod handle;
mod log;
mod log_failure;
mod make;
mod options;
pub mod outgoing;
mod preview;
mod printer;
mod receiver;
pub mod retry;
#[cfg(feature = "nats")]
mod returning;
pub mod select;
mod sending;
#[cfg(feature = "nats")]
mod shared;
#[cfg(not(feature = "nats"))]
#[path = "shared_absent.rs"]
mod shared;
#[cfg(feature = "nats")]
mod shared_letters;
#[cfg(not(feature = "nats"))]
#[path = "shared_letters_absent.rs"]
mod shared_letters;
#[cfg(feature = "nats")]
mod shared_sink;
#[cfg(not(feature = "nats"))]
#[path = "shared_sink_absent.rs"]
mod shared_sink;
mod single;
mod sink;
#[cfg(feature = "nats")]
mod sink_letters;
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
#[cfg(feature = "nats")]
pub use self::forwarder::{ACKNOWLEDGED, Forwarder, forwarder, skip_to};
pub use self::handle::{DeliveryHandle, ResendError, Resent};
pub use self::make::SinkError;
pub use self::options::DeliveryOptions;
pub use self::preview::{preview, try_out};
pub use self::shared::SharedWork;
pub use self::sink::OpenStdout;
pub use self::supervisor::{BEHIND, Delivery};
pub use self::worker::Skipped;
use self::worker::Statuses;
use crate::model::route::Routes;
pub use crate::model::sink::{
    CommandOptions, FileOptions, HttpBody, HttpOptions, MqttOptions, NatsOptions, RedisOptions, RedisTarget,
    SinkKind, SinkOptions,
};
use crate::store::Store;

/// Name of the place of the forwarder, which copies events to the shared log of a cluster. No sink can be called so.
const FORWARDER: &str = "cluster.forwarder";

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
        shared: options.shared.clone(),
    };
    (Delivery { store, routes, sinks, options, reopen, statuses: Arc::new(statuses), requests }, handle)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
