//! Checks of the callback from outside, for `check --online`, whether the daemon runs or not.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::webhook_secret::{self, SecretFile};
use super::webhooks::{self, WebhookError};
use super::{Caller, connections};
use crate::config::{Config, Webhook};
use crate::model::text::chain;
use crate::model::webhook::{Callback, WebhookKeys};
use crate::reconcile::Reach;
use crate::store::{Store, StoreOptions};
use crate::transport::HintCallback;
use crate::transport::webhook::{self as transport, ListenError, Sockets, WebhookOptions};

/// Result of checking a callback.
#[derive(Clone, Debug)]
pub struct CallbackReport {
    /// Addresses of the host, or why there are none.
    pub addresses: Result<Vec<IpAddr>, String>,
    /// Duration of the challenge, or what is in its way.
    pub challenge: Result<Duration, String>,
}

/// Resolves a callback and sends it a challenge by its public name. If no daemon listens, a temporary listener does.
pub async fn examine_callback(config: &Config, webhook: &Webhook) -> CallbackReport {
    CallbackReport {
        addresses: addresses(&webhook.callback).await,
        challenge: challenge(config, webhook).await,
    }
}

async fn addresses(callback: &str) -> Result<Vec<IpAddr>, String> {
    let url = reqwest::Url::parse(callback).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("it names no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found: Vec<IpAddr> = found
        .map_err(|error| format!("{host} cannot be looked up ({error}): check its DNS record"))?
        .map(|address| address.ip())
        .collect();
    found.sort_unstable();
    found.dedup();
    if !found.iter().any(IpAddr::is_ipv4) {
        return Err(format!("{host} has no IPv4 address, and Twitch calls IPv4 only: add an A record"));
    }
    Ok(found)
}

async fn challenge(config: &Config, webhook: &Webhook) -> Result<Duration, String> {
    let said =
        |error: &dyn std::error::Error| format!("{error}; run this as root or as the daemon's own user");
    let stored = SecretFile::new(&config.state_directory)
        .peek(webhook.secret.as_ref())
        .map_err(|error| said(&error))?;
    let keys = match stored {
        Some(keys) => keys,
        None => webhook_secret::unstored(&config.state_directory).map_err(|error| said(&error))?,
    };
    let http = connections().map_err(|error| error.to_string())?;
    let stand_in = StandIn::listen(webhook, &keys).await?;
    let key = keys.current();
    let callback = Callback { url: webhook.callback.as_str().into(), key: key.id, shard: None };
    let begun = Instant::now();
    let proved = Caller::new(http).prove(&callback, key).await;
    let took = begun.elapsed();
    if let Some(stand_in) = stand_in {
        stand_in.end().await;
    }
    proved.map(|()| took)
}

/// A temporary listener at the daemon's address.
struct StandIn {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    store: Store,
    folder: PathBuf,
    /// Kept, because the listener ends without its options.
    _options: watch::Sender<Option<WebhookOptions>>,
}

impl StandIn {
    /// Returns `None` if a daemon listens already, or systemd does.
    async fn listen(webhook: &Webhook, keys: &WebhookKeys) -> Result<Option<Self>, String> {
        let options = match webhooks::listener(&Sockets::none(), webhook, || Ok(keys.clone())) {
            Ok(options) => options,
            Err(WebhookError::Listen(ListenError::Taken { .. } | ListenError::NonePassed)) => {
                return Ok(None);
            }
            Err(error) => return Err(chain(&error)),
        };
        // Only challenges can come, because Twitch knows of no subscription with this secret, but the listener needs
        // a store.
        let folder = std::env::temp_dir().join(format!("eventsubd-check-{}", uuid::Uuid::new_v4().simple()));
        let failed = |error: &dyn std::error::Error| format!("{} cannot be used: {error}", folder.display());
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| failed(&error))?;
        let store =
            StoreOptions::new(folder.join("events.db"), Duration::from_secs(3600), 16 << 20, 16, 1 << 20);
        let store = Store::open(store).map_err(|error| failed(&error))?;
        let (options, watched) = watch::channel(Some(options));
        let on_hint = HintCallback(Arc::new(|_hint| {}));
        let (listener, _handle) = transport::webhook(watched, store.clone(), on_hint, None);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(listener.run(cancel.clone()));
        Ok(Some(Self { cancel, task, store, folder, _options: options }))
    }

    async fn end(self) {
        self.cancel.cancel();
        // The remains are in a directory of their own, and the process ends soon.
        let _ = self.task.await;
        let _ = self.store.close().await;
        let _ = std::fs::remove_dir_all(self.folder);
    }
}
