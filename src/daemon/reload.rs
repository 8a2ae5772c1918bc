//! Reading the file again: parse, validate, compare, build what may fail, publish once.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::options;
use crate::admin::{ReloadAccepted, ReloadRefused};
use crate::auth::{Credentials, TokenOptions};
use crate::config::{self, Config, LoadOptions};
use crate::delivery::{DeliveryOptions, SinkOptions};
use crate::model::status::{ConfigStatus, RefusedReload};
use crate::model::time::Timestamp;
use crate::reconcile::Desired;
use crate::store::Store;
use crate::telemetry::LogHandle;
use crate::transport::websocket::PoolOptions;

/// Somebody wants the file read again, and may wait for the outcome.
pub(super) type ReloadRequest = Option<oneshot::Sender<Result<ReloadAccepted, ReloadRefused>>>;

/// Where each part's options are published.
#[derive(Debug)]
pub(super) struct Publishers {
    pub(super) config: watch::Sender<ConfigStatus>,
    pub(super) credentials: watch::Sender<Credentials>,
    pub(super) token: watch::Sender<TokenOptions>,
    pub(super) pool: watch::Sender<PoolOptions>,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    pub(super) sinks: watch::Sender<Arc<[SinkOptions]>>,
}

/// Owns the configuration in force.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) load: LoadOptions,
    pub(super) config: Config,
    pub(super) publish: Publishers,
    pub(super) store: Store,
    pub(super) log: Option<LogHandle>,
    /// What new sinks are tried with.
    pub(super) delivery: DeliveryOptions,
}

impl Reloader {
    /// Answers requests, one after the other, until cancelled.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<ReloadRequest>,
        cancel: CancellationToken,
    ) {
        loop {
            let request = tokio::select! {
                () = cancel.cancelled() => return,
                request = requests.recv() => request,
            };
            let Some(reply) = request else { return };
            let outcome = self.reload().await;
            if let Some(reply) = reply {
                let _ = reply.send(outcome);
            }
        }
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
        if let Some(log) = &self.log
            && std::env::var_os("RUST_LOG").is_none()
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
        publish.desired.send_replace(options::desired(&config, generation));
        self.store.set_retention(config.store.retain, config.store.max_size);
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
            warn!("configuration refused, the old one stays: {error}");
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
    *old = new;
    changed
}
