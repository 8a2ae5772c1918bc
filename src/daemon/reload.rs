//! Reading the file again: parse, validate, compare, build what may fail, publish once.

use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::parts::{self, Listeners, PartError, PartOptions, Publishers};
use super::systemd::Notifier;
use super::webhooks::Webhooks;
use crate::admin::{Refused, ReloadAccepted, ReloadRefused, SecretRotated};
use crate::config::{self, Config, LoadOptions};
use crate::delivery::DeliveryOptions;
use crate::model::status::RefusedReload;
use crate::model::text::chain;
use crate::model::time::Timestamp;
use crate::reconcile::InUse;
use crate::store::Store;
use crate::telemetry::LogHandle;

/// A request to the reloader, and the channel for its answer.
#[derive(Debug)]
pub(super) enum Request {
    /// The file is to be read again.
    Reload(Option<oneshot::Sender<Result<ReloadAccepted, ReloadRefused>>>),
    /// A new webhook secret is to be made.
    RotateSecret(oneshot::Sender<Result<SecretRotated, Refused>>),
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
    /// The callbacks in use, and their secrets.
    pub(super) in_use: watch::Receiver<Option<InUse>>,
    /// Environment in which new sinks are tested.
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
                        self.publish.publish_keys(&self.config, &keys);
                    }
                    continue;
                }
            };
            // The caller may have gone.
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
        let keys =
            self.webhooks.keys().ok_or_else(|| refused("the webhook listener is not running".into()))?;
        let keys = self.webhooks.rotate(&keys).map_err(|error| refused(chain(&error)))?;
        self.publish.publish_keys(&self.config, &keys);
        Ok(SecretRotated { key: keys.current().id.to_string(), accepted: keys.all().len() as u64 })
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
        let listeners = match self.build(&loaded.config) {
            Ok(listeners) => listeners,
            Err(error) => return Err(self.refuse(error.lines())),
        };
        if let Some(log) = &self.log
            && let Err(error) = log.set_level(&loaded.config.log.level)
        {
            return Err(self.refuse(vec![error.to_string()]));
        }

        let config = loaded.config;
        let generation = self.publish.generation() + 1;
        let basis = self.publish.pool_basis();
        let options = PartOptions::new(&config, generation, listeners, &mut self.webhooks, basis);
        self.publish.publish(options);
        self.store.set_retention(config.store.retain, config.store.max_size.as_u64());
        self.publish.config.send_modify(|status| {
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

    /// Builds what may fail, as a start does.
    fn build(&self, config: &Config) -> Result<Listeners, PartError> {
        parts::check_sinks(config, &self.delivery)?;
        Listeners::build(config, &self.webhooks, Some(self.publish.bound(&self.config)))
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
