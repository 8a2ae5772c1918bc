//! What the webhook listener is made from: the sockets, TLS, and the secrets.
//!
//! All that may fail is built before anything is published, so that a reload can be refused whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::webhook_secret::{SecretFile, SecretFileError};
use crate::config::{self, Config};
use crate::model::webhook::{KeyId, WebhookKeys};
use crate::reconcile::InUse;
use crate::transport::webhook::{ListenError, Sockets, Tls, TlsError, WebhookOptions};

/// How long a secret is accepted after the last subscription was moved away from it: as long as Twitch may send
/// again what was signed with it (Twitch: "Handling Webhook Events").
pub(super) const RETIRE_AFTER: Duration = Duration::from_secs(600);

/// The listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(ListenError),
    /// Its certificate or key cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// The secrets cannot be read or written.
    #[error(transparent)]
    Secret(SecretFileError),
}

/// Builds the listener that the configuration asks for. The secrets come last, as asking for them may make one.
///
/// # Errors
/// Whatever would keep it from working.
pub(super) fn listener(
    sockets: &Sockets,
    webhook: &config::Webhook,
    keys: impl FnOnce() -> Result<WebhookKeys, SecretFileError>,
) -> Result<WebhookOptions, WebhookError> {
    let listener = sockets.bind(&webhook.listen).map_err(WebhookError::Listen)?;
    let tls = webhook.tls.clone().map(Tls::load).transpose().map_err(WebhookError::Tls)?;
    let keys = keys().map_err(WebhookError::Secret)?;
    Ok(WebhookOptions::new(webhook.callback.as_str(), listener, tls, keys))
}

/// What outlives a reload.
#[derive(Debug)]
pub(super) struct Webhooks {
    sockets: Arc<Sockets>,
    file: SecretFile,
    options: watch::Sender<Option<WebhookOptions>>,
    /// How long an unused secret stays accepted.
    retire_after: Duration,
    /// When the secrets that are not in use go.
    retire_at: Option<Instant>,
    /// The configuration has no callback any more; the listener stays until nothing calls it.
    leaving: bool,
}

impl Webhooks {
    pub(super) fn new(
        sockets: Arc<Sockets>,
        file: SecretFile,
        retire_after: Duration,
        options: watch::Sender<Option<WebhookOptions>>,
    ) -> Self {
        Self { sockets, file, options, retire_after, retire_at: None, leaving: false }
    }

    /// Builds the listener of a configuration, which may have none.
    ///
    /// # Errors
    /// Whatever would keep it from working.
    pub(super) fn build(&self, config: &Config) -> Result<Option<WebhookOptions>, WebhookError> {
        let Some(webhook) = &config.webhook else { return Ok(None) };
        let keys = || self.file.load(webhook.secret.as_ref());
        listener(&self.sockets, webhook, keys).map(Some)
    }

    /// Puts what was built in force.
    pub(super) fn publish(&mut self, built: Option<WebhookOptions>) {
        self.leaving = built.is_none() && self.options.borrow().is_some();
        if built.is_some() {
            self.options.send_replace(built);
        }
    }

    /// The secrets in force.
    pub(super) fn keys(&self) -> Option<WebhookKeys> {
        self.options.borrow().as_ref().map(|options| options.keys.clone())
    }

    /// Makes a new secret the current one.
    ///
    /// # Errors
    /// It cannot be stored, or there are too many.
    pub(super) fn rotate(&mut self, keys: &WebhookKeys) -> Result<WebhookKeys, SecretFileError> {
        let new = self.file.rotate(keys)?;
        info!(key = %new.current().id, "a new webhook secret is in force; everything is moved to it");
        self.put(&new);
        Ok(new)
    }

    fn put(&mut self, keys: &WebhookKeys) {
        self.retire_at = None;
        self.options.send_modify(|options| {
            if let Some(options) = options {
                options.keys = keys.clone();
            }
        });
    }

    /// When [`Self::retire`] has something to do.
    pub(super) fn retire_at(&self) -> Option<Instant> {
        self.retire_at
    }

    /// Takes what calls us: secrets that nothing uses go after a while, and so does a listener that nobody
    /// calls.
    pub(super) fn take_use(&mut self, in_use: Option<&InUse>, now: Instant) {
        let Some(in_use) = in_use else { return };
        if self.leaving && !in_use.calls {
            info!("nothing calls the webhook listener any more; it ends");
            self.leaving = false;
            self.options.send_replace(None);
        }
        let unused = !self.unused(in_use).is_empty();
        self.retire_at = match self.retire_at {
            _ if !unused => None,
            None => Some(now + self.retire_after),
            at => at,
        };
    }

    /// Old secrets that nothing uses, once the current one is in use, or nothing calls.
    fn unused(&self, in_use: &InUse) -> Vec<KeyId> {
        let settled = |keys: &WebhookKeys| !in_use.calls || in_use.keys.contains(&keys.current().id);
        let Some(keys) = self.keys().filter(settled) else {
            return Vec::new();
        };
        keys.all().iter().skip(1).map(|key| key.id).filter(|id| !in_use.keys.contains(id)).collect()
    }

    /// Lets secrets go that nothing has used for a while. Returns the secrets in force when that has changed.
    pub(super) fn retire(&mut self, in_use: Option<&InUse>) -> Option<WebhookKeys> {
        self.retire_at = None;
        let gone = self.unused(in_use?);
        let keys = self.keys().filter(|_| !gone.is_empty())?;
        match self.file.retire(&keys, &gone) {
            Ok(new) => {
                info!(secrets = gone.len(), "old webhook secrets are not accepted any more");
                self.put(&new);
                Some(new)
            }
            Err(error) => {
                warn!(%error, "old webhook secrets stay accepted for now");
                self.retire_at = Some(Instant::now() + self.retire_after);
                None
            }
        }
    }
}
