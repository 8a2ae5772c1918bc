//! Reading the file again: parse, validate, compare, build what may fail, publish once.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::options;
use super::systemd::Notifier;
use super::webhooks::Webhooks;
use crate::admin::{EndpointOptions, Refused, ReloadAccepted, ReloadRefused, SecretRotated};
use crate::auth::{Credentials, TokenOptions};
use crate::config::{self, Config, LoadOptions};
use crate::delivery::{DeliveryOptions, SinkOptions};
use crate::model::status::{ConfigStatus, RefusedReload};
use crate::model::text::chain;
use crate::model::time::Timestamp;
use crate::model::webhook::WebhookKeys;
use crate::reconcile::{Desired, InUse};
use crate::store::Store;
use crate::telemetry::LogHandle;
use crate::transport::websocket::PoolOptions;

/// What somebody wants, and may wait for.
#[derive(Debug)]
pub(super) enum Request {
    /// The file is to be read again.
    Reload(Option<oneshot::Sender<Result<ReloadAccepted, ReloadRefused>>>),
    /// A new webhook secret is to be made.
    RotateSecret(oneshot::Sender<Result<SecretRotated, Refused>>),
}

/// Where each part's options are published.
#[derive(Debug)]
pub(super) struct Publishers {
    pub(super) config: watch::Sender<ConfigStatus>,
    pub(super) credentials: watch::Sender<Credentials>,
    pub(super) token: watch::Sender<TokenOptions>,
    pub(super) pool: watch::Sender<PoolOptions>,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    pub(super) sinks: watch::Sender<Arc<[SinkOptions]>>,
    pub(super) admin: watch::Sender<Option<EndpointOptions>>,
}

/// Owns the configuration in force.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) load: LoadOptions,
    pub(super) config: Config,
    pub(super) publish: Publishers,
    pub(super) store: Store,
    pub(super) log: Option<LogHandle>,
    pub(super) webhooks: Webhooks,
    /// What calls us, and with which secrets.
    pub(super) in_use: watch::Receiver<Option<InUse>>,
    /// What new sinks are tried with.
    pub(super) delivery: DeliveryOptions,
    pub(super) notifier: Notifier,
}

impl Reloader {
    /// Answers requests, one after the other, until cancelled.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, cancel: CancellationToken) {
        loop {
            let retire = self.webhooks.retire_at();
            let request = tokio::select! {
                () = cancel.cancelled() => return,
                request = requests.recv() => request,
                Ok(()) = self.in_use.changed() => {
                    let in_use = self.in_use.borrow_and_update().clone();
                    self.webhooks.take_use(in_use.as_ref(), Instant::now());
                    continue;
                }
                () = sleep_until(retire.unwrap_or_else(Instant::now)), if retire.is_some() => {
                    let in_use = self.in_use.borrow().clone();
                    if let Some(keys) = self.webhooks.retire(in_use.as_ref()) {
                        self.publish_keys(&keys);
                    }
                    continue;
                }
            };
            // Whoever asked may have gone.
            match request {
                None => return,
                Some(Request::Reload(reply)) => {
                    self.notifier.reloading();
                    let outcome = self.reload().await;
                    self.notifier.reloaded();
                    if let Some(reply) = reply {
                        let _ = reply.send(outcome);
                    }
                }
                Some(Request::RotateSecret(reply)) => drop(reply.send(self.rotate_secret())),
            }
        }
    }

    fn rotate_secret(&mut self) -> Result<SecretRotated, Refused> {
        let refused = |error: String| Refused { error };
        let Some(webhook) = &self.config.webhook else {
            return Err(refused(
                "there is no webhook secret: the configuration has no `transport.webhook.callback`".into(),
            ));
        };
        if let Some(file) = &webhook.secret_file {
            return Err(refused(format!(
                "the webhook secret is the one in {}: write a new one into that file, then run `eventsubd reload`; the old \
                 one is accepted until everything is moved",
                file.display()
            )));
        }
        let keys = self.webhooks.keys().ok_or_else(|| refused("the webhook listener is not there".into()))?;
        let keys = self.webhooks.rotate(&keys).map_err(|error| refused(chain(&error)))?;
        self.publish_keys(&keys);
        Ok(SecretRotated { key: keys.current().id.to_string(), accepted: keys.all().len() as u64 })
    }

    /// Has the reconciler move everything to the current secret.
    fn publish_keys(&self, keys: &WebhookKeys) {
        let generation = self.publish.config.borrow().generation;
        self.publish.desired.send_replace(options::desired(&self.config, Some(keys), generation));
    }

    async fn reload(&mut self) -> Result<ReloadAccepted, ReloadRefused> {
        let load = self.load.clone();
        let loaded = match tokio::task::spawn_blocking(move || config::load(&load)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(errors)) => {
                return Err(self.refuse(errors.errors.iter().map(|e| e.render(false)).collect()));
            }
            Err(error) => return Err(self.refuse(vec![format!("reading the file failed: {error}")])),
        };
        let changes = config::diff(&self.config, &loaded.config);
        let fixed: Vec<String> = changes
            .iter()
            .filter(|change| change.needs_restart())
            .map(|change| format!("{change}: this cannot change while the daemon runs; restart it instead"))
            .collect();
        if !fixed.is_empty() {
            return Err(self.refuse(fixed));
        }
        let sinks = options::sinks(&loaded.config);
        let failing = super::trial::problems(&loaded.config, &self.delivery);
        if !failing.is_empty() {
            return Err(self.refuse(failing));
        }
        let webhook = match self.webhooks.build(&loaded.config) {
            Ok(webhook) => webhook,
            Err(error) => return Err(self.refuse(vec![format!("the webhook listener: {}", chain(&error))])),
        };
        let listener = self.publish.admin.borrow().as_ref().map(|admin| admin.listener().clone());
        let old = listener.map(|listener| (&self.config, listener));
        let admin = match options::admin(&loaded.config, old) {
            Ok(admin) => admin,
            Err(error) => return Err(self.refuse(vec![chain(&error)])),
        };
        if let Some(log) = &self.log
            && let Err(error) = log.set_level(&loaded.config.log.level)
        {
            return Err(self.refuse(vec![error.to_string()]));
        }

        let generation = self.publish.config.borrow().generation + 1;
        let config = loaded.config;
        let publish = &self.publish;
        publish.credentials.send_if_modified(|v| replace(v, options::credentials(&config)));
        publish.token.send_if_modified(|v| replace(v, options::token(&config)));
        publish.pool.send_modify(|pool| {
            pool.url.clone_from(&config.twitch.eventsub_url);
            pool.keepalive = config.conduit.keepalive;
        });
        publish.sinks.send_if_modified(|v| replace(v, sinks));
        self.webhooks.publish(webhook);
        let keys = self.webhooks.keys();
        publish.admin.send_if_modified(|v| replace(v, admin));
        publish.desired.send_replace(options::desired(&config, keys.as_ref(), generation));
        self.store.set_retention(config.store.retain, config.store.max_size.as_u64());
        publish.config.send_modify(|status| {
            status.generation = generation;
            status.loaded_at = Timestamp(SystemTime::now());
            status.refused = None;
        });
        self.config = config;
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        info!(generation, changes = changes.len(), "configuration reloaded");
        for change in &changes {
            info!(generation, "{change}");
        }
        let warnings = loaded.warnings.iter().map(|w| w.render(false)).collect();
        Ok(ReloadAccepted { generation, changes, warnings })
    }

    fn refuse(&self, errors: Vec<String>) -> ReloadRefused {
        for error in &errors {
            warn!(
                "configuration refused, the old one stays: {}",
                error.lines().map(str::trim).collect::<Vec<_>>().join(" ")
            );
        }
        let refused = RefusedReload { at: Timestamp(SystemTime::now()), errors: errors.clone() };
        self.publish.config.send_modify(|status| {
            status.refused = Some(refused);
            status.reloads_refused += 1;
        });
        ReloadRefused { errors }
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    if changed {
        *old = new;
    }
    changed
}
