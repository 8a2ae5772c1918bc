//! Parts of the webhook listener: sockets, TLS, and secrets.
//!
//! All steps that may fail run before anything is published, which allows refusing a reload as a whole.

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

/// Time for which a secret is accepted after its last use: as long as Twitch may resend a message signed with it
/// (Twitch: "Handling Webhook Events").
pub(super) const RETIRE_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    Listen(ListenError),
    #[error(transparent)]
    Tls(TlsError),
    #[error(transparent)]
    Secret(SecretFileError),
}

/// Builds the listener that the configuration asks for. Secrets come last, because loading them may create one.
///
/// # Errors
/// The listener could not work.
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

/// Path of the page for invited users, if the webhook's listener serves it.
fn guest_path(config: &Config) -> Option<Arc<str>> {
    let page = config.authorize.as_ref().filter(|page| page.listen.is_none())?;
    Some(reqwest::Url::parse(&page.redirect_uri).ok()?.path().into())
}

/// State that outlives a reload.
#[derive(Debug)]
pub(super) struct Webhooks {
    sockets: Arc<Sockets>,
    file: SecretFile,
    options: watch::Sender<Option<WebhookOptions>>,
    /// Time for which an unused secret stays accepted.
    retire_after: Duration,
    /// Time at which unused secrets are removed.
    retire_at: Option<Instant>,
    /// Whether the configuration has no callback now; the listener stays until nothing calls it.
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
    /// The listener could not work.
    pub(super) fn build(&self, config: &Config) -> Result<Option<WebhookOptions>, WebhookError> {
        let Some(webhook) = &config.webhook else { return Ok(None) };
        let keys = || self.file.load(webhook.secret.as_ref());
        let mut options = listener(&self.sockets, webhook, keys)?;
        options.guest_path = guest_path(config);
        Ok(Some(options))
    }

    /// Publishes what was built.
    pub(super) fn publish(&mut self, built: Option<WebhookOptions>) {
        self.leaving = built.is_none() && self.options.borrow().is_some();
        if built.is_some() {
            self.options.send_replace(built);
        } else {
            self.options.send_if_modified(|options| {
                options.as_mut().and_then(|options| options.guest_path.take()).is_some()
            });
        }
    }

    /// Returns the accepted secrets.
    pub(super) fn keys(&self) -> Option<WebhookKeys> {
        self.options.borrow().as_ref().map(|options| options.keys.clone())
    }

    /// Makes a new secret the current one.
    ///
    /// # Errors
    /// The secret cannot be stored, or there are too many.
    pub(super) fn rotate(&mut self, keys: &WebhookKeys) -> Result<WebhookKeys, SecretFileError> {
        let new = self.file.rotate(keys)?;
        info!(key = %new.current().id, "a new webhook secret is active; moving everything to it");
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

    /// Returns when [`Self::retire`] is due.
    pub(super) fn retire_at(&self) -> Option<Instant> {
        self.retire_at
    }

    /// Handles a change in what calls us: unused secrets are removed after a while, and so is a listener without
    /// callers.
    pub(super) fn take_use(&mut self, in_use: Option<&InUse>, now: Instant) {
        let Some(in_use) = in_use else { return };
        if self.leaving && !in_use.calls {
            info!("the webhook listener is not needed any more; closing it");
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

    /// Returns old secrets that nothing uses, once the current one is in use or nothing calls.
    fn unused(&self, in_use: &InUse) -> Vec<KeyId> {
        let settled = |keys: &WebhookKeys| !in_use.calls || in_use.keys.contains(&keys.current().id);
        let Some(keys) = self.keys().filter(settled) else {
            return Vec::new();
        };
        keys.all().iter().skip(1).map(|key| key.id).filter(|id| !in_use.keys.contains(id)).collect()
    }

    /// Removes secrets that were unused for long enough. Returns the accepted secrets if they have changed.
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
