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
mod options;
mod refusal;
mod serve;
mod server;
mod shared;
mod tls;
pub mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::listen::{ListenError, Listener, Sockets};
pub use self::options::{Guest, GuestFuture, Limits, WebhookOptions};
pub use self::server::Webhook;
use self::shared::Shared;
pub use self::tls::{Tls, TlsError};
use super::HintCallback;
use crate::model::shard::ShardId;
use crate::model::signs::CallbackSigns;
use crate::model::status::{IntakeStatus, WebhookStatus};
pub use crate::model::webhook::{Listen, TlsFiles};
use crate::store::Store;

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
    /// Whether connections are accepted.
    pub listening: watch::Receiver<bool>,
}

/// Builds the listener; nothing happens until it is run.
///
/// `on_hint` gets the hints from events and revocations, and each challenge that was answered. `guest` answers requests
/// for [`WebhookOptions::guest_path`]. Nothing is served while there are no options. New options apply from the next request on, those
/// of TLS from the next connection on. A different listener replaces the old one.
pub fn webhook(
    options: watch::Receiver<Option<WebhookOptions>>,
    store: Store,
    on_hint: HintCallback,
    guest: Option<Guest>,
) -> (Webhook, WebhookHandle) {
    let shared = Arc::new(Shared::new(store, on_hint, guest));
    let (status_in, status) = watch::channel(None);
    let (intake_in, intake) = watch::channel(IntakeStatus::default());
    let (shards_in, shards) = watch::channel(BTreeMap::new());
    let signs = shared.counters.signs();
    let (listening_in, listening) = watch::channel(false);
    let webhook = Webhook {
        options,
        shared,
        status: status_in,
        intake: intake_in,
        shards: shards_in,
        listening: listening_in,
    };
    (webhook, WebhookHandle { status, intake, shards, signs, listening })
}

#[cfg(test)]
mod tests;
