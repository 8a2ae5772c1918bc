//! Building every part, and wiring their `watch` values together. All that can fail fails here, before anything is
//! started.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::handle::DaemonHandle;
use super::one_shot::connections_to_twitch;
use super::reach::Caller;
use super::reload::{Publishers, Reloader};
use super::status::Sources;
use super::systemd::{Notifier, Vitals};
use super::webhook_secret::SecretFile;
use super::webhooks::{self, Webhooks};
use super::{BuildError, Daemon, DaemonOptions, Owner, memory, options, trial};
use crate::admin::{ControlSocket, Endpoint};
use crate::auth::{HttpError, Keeper, Outward};
use crate::config::{self, Config};
use crate::delivery::{DeliveryOptions, delivery};
use crate::gaps::{GapSources, gaps};
use crate::helix::{Helix, HelixOptions};
use crate::model::status::ConfigStatus;
use crate::model::time::Timestamp;
use crate::reconcile::{ReconcileHandle, ReconcileOptions, reconciler};
use crate::store::{Reader, Store, StoreError};
use crate::transport::Hear;
use crate::transport::webhook::webhook;
use crate::transport::websocket::pool;

impl Daemon {
    /// Reads the configuration and builds every part. Nothing reaches Twitch before [`Self::run`].
    ///
    /// # Errors
    /// Whatever would keep the daemon from running.
    pub async fn build(mut options: DaemonOptions) -> Result<Self, BuildError> {
        let config = take_config(&mut options)?;
        let sinks = options::sinks(&config);
        let http = connections_to_twitch(&config).map_err(BuildError::Http)?;
        let mut delivery_options = delivery_options(&http).map_err(BuildError::Http)?;
        if let Some(stdout) = options.stdout.clone() {
            delivery_options.stdout = stdout;
        }
        delivery_options.print = options.print_sinks;
        let failing = trial::problems(&config, &delivery_options);
        if !failing.is_empty() {
            return Err(BuildError::Sinks(failing));
        }
        let config_status = config_status(&options, &config);
        let notifier = Notifier::new(options.notify_systemd);
        // A large database is checked after a crash, or changed by a new release.
        let opening = notifier.during("opening the event store", open_store(&config));
        let store = opening.await.map_err(|error| locked(error, &options, &config))?;
        // Nothing in the state directory is touched before that.
        Owner::of(&options.load)
            .claim(&config.state_directory, &store, options.take_over)
            .await
            .map_err(BuildError::Store)?
            .map_err(BuildError::Owned)?;
        let (webhook_tx, webhook_options) = watch::channel(None);
        let retire_after = options.tuning.retire_after.unwrap_or(webhooks::RETIRE_AFTER);
        let file = SecretFile::new(&config.state_directory);
        let mut webhooks = Webhooks::new(options.sockets, file, retire_after, webhook_tx);
        let listener = webhooks.build(&config).map_err(BuildError::Webhook)?;
        webhooks.publish(listener);
        let keys = webhooks.keys();
        let socket = ControlSocket::bind(&config.socket).map_err(BuildError::Socket)?;
        let admin = options::admin(&config, None).map_err(BuildError::Admin)?;

        let (credentials_tx, credentials) = watch::channel(options::credentials(&config));
        let (token_tx, token_options) = watch::channel(options::token(&config));
        let (pool_tx, pool_options) =
            watch::channel(options::pool(&config, http.clone(), options.tuning.timings.clone()));
        let (desired_tx, desired) = watch::channel(options::desired(&config, keys.as_ref(), 1));
        let (sinks_tx, sinks) = watch::channel(sinks);
        let (admin_tx, admin) = watch::channel(admin);
        let (endpoint, admin_counts) = Endpoint::new(admin.clone());
        let (minutes_tx, minutes) = watch::channel(Arc::default());
        let (hanging_tx, hanging) = watch::channel(Arc::default());
        let (config_tx, config_status) = watch::channel(config_status);
        let (requests, reload_requests) = mpsc::channel(4);

        let (keeper, tokens) = Keeper::new(http.clone(), token_options, credentials);
        let token = tokens.status();
        let keeper_tokens = tokens.clone();
        let mut helix_options = HelixOptions::new(config.twitch.api_url.clone());
        if let Some(tune) = options.tuning.helix {
            tune(&mut helix_options);
        }
        let reach = Arc::new(Caller::new(http.clone()));
        let helix = Helix::new(http, helix_options, tokens);
        let api = helix.status();
        let mut reconcile_options = ReconcileOptions::new(config.application.client_id.clone());
        reconcile_options.invocation = options.invocation.clone();
        if let Some(tune) = options.tuning.reconcile {
            tune(&mut reconcile_options);
        }
        // The pool needs the reconciler's values and the reconciler the pool's: this one is handed on.
        let (sessions_tx, sessions) = watch::channel(Default::default());
        let memory = Arc::new(memory::StoreMemory(store.clone()));
        let (reconciler, reconcile) = reconciler(&helix, memory, reach, desired, sessions, reconcile_options);
        let (pool, pool_handle) = pool(
            pool_options,
            store.clone(),
            reconcile.target.clone(),
            reconcile.bindings.clone(),
            sessions_tx,
            hear(&reconcile),
        );
        let (webhook, webhook_handle) = webhook(webhook_options, store.clone(), hear(&reconcile));
        let (delivery, delivery_handle) =
            delivery(store.clone(), reconcile.routes.clone(), sinks, delivery_options.clone());

        let gap_sources = GapSources {
            lives: pool_handle.lives,
            bindings: reconcile.tenures.clone(),
            target: reconcile.target.clone(),
            callback: webhook_handle.signs.clone(),
            webhook: webhook_handle.status.clone(),
            in_use: reconcile.in_use.clone(),
            reconcile: reconcile.status.clone(),
            subscriptions: reconcile.subscriptions.clone(),
            lapses: reconcile.lapses.clone(),
        };
        let (gaps, gaps_status) = gaps(store.clone(), gap_sources);

        let sources = Sources {
            started_at: Timestamp(SystemTime::now()),
            config: config_status,
            token,
            api,
            reconcile: reconcile.status.clone(),
            subscriptions: reconcile.subscriptions.clone(),
            shards: pool_handle.shards,
            hooks: reconcile.hooks.clone(),
            intake: pool_handle.intake,
            webhook: webhook_handle,
            in_use: reconcile.in_use.clone(),
            gaps: gaps_status,
            counts: store.intake_counts(),
            minutes,
            store: store.status(),
            sinks: delivery_handle.status.clone(),
            admin,
            admin_counts,
            hanging,
        };
        let publish = Publishers {
            config: config_tx,
            credentials: credentials_tx,
            token: token_tx,
            pool: pool_tx,
            desired: desired_tx,
            sinks: sinks_tx,
            admin: admin_tx,
        };
        let log = options.log.clone();
        let children = delivery_options.children.clone();
        let reloader = Reloader {
            load: options.load,
            config,
            publish,
            store: store.clone(),
            log: options.log,
            webhooks,
            in_use: reconcile.in_use.clone(),
            delivery: delivery_options,
            notifier: notifier.clone(),
        };
        let vitals = Vitals::new(&store, keeper_tokens, &reconcile);
        Ok(Self {
            keeper,
            reconciler,
            pool,
            delivery,
            gaps,
            reloader,
            webhook,
            reload_requests,
            socket,
            endpoint,
            minutes: minutes_tx,
            store,
            children,
            handle: DaemonHandle { sources, requests, reconcile, delivery: delivery_handle, log },
            notifier,
            vitals,
            hanging: hanging_tx,
        })
    }
}

/// What events tell is the reconciler's business.
fn hear(reconcile: &ReconcileHandle) -> Hear {
    let reconcile = reconcile.clone();
    Hear(Arc::new(move |hint| reconcile.hint(hint)))
}

/// The file in force for a start, with its warnings logged.
fn take_config(options: &mut DaemonOptions) -> Result<Config, BuildError> {
    let loaded = match options.loaded.take() {
        Some(loaded) => loaded,
        None => config::load(&options.load).map_err(BuildError::Config)?,
    };
    for warning in &loaded.warnings {
        warn!("{}", warning.summary());
    }
    Ok(loaded.config)
}

/// A state directory that the daemon of another file uses is told with that file.
fn locked(error: StoreError, options: &DaemonOptions, config: &Config) -> BuildError {
    let owned = || {
        let reader = Reader::open(&config.state_directory.join(options::DATABASE)).ok()?;
        Owner::of(&options.load).look(&config.state_directory, &reader).ok()?.err()
    };
    match error {
        StoreError::Locked { .. } if !options.take_over => {
            owned().map_or(BuildError::Store(error), BuildError::Owned)
        }
        error => BuildError::Store(error),
    }
}

async fn open_store(config: &Config) -> Result<Store, StoreError> {
    let options = options::store(config);
    match tokio::task::spawn_blocking(move || Store::open(options)).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn config_status(options: &DaemonOptions, config: &Config) -> ConfigStatus {
    let absolute = |path: &Path| config::absolute(path).display().to_string();
    ConfigStatus {
        path: absolute(&options.load.path),
        state_directory: absolute(&config.state_directory),
        sandbox: options.load.sandbox,
        flags: options.invocation.flags().to_owned(),
        generation: 1,
        loaded_at: Timestamp(SystemTime::now()),
        refused: None,
        reloads_refused: 0,
    }
}

/// How sinks connect: the same way as everything else, over connections of their own.
pub(super) fn delivery_options(outward: &Outward) -> Result<DeliveryOptions, HttpError> {
    let mut options = DeliveryOptions::new(outward.separate_client()?, (**outward.tls()).clone());
    options.proxies = outward.proxies().clone();
    Ok(options)
}
