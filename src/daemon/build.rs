//! Building every part, and wiring their `watch` values together. All that can fail fails here, before anything is
//! started.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::cluster::{self, LocalShards};
use super::connect::{connections_to_twitch, delivery_options};
use super::handle::DaemonHandle;
use super::parts::{self, Listeners, PartOptions, Publishers};
use super::reach::Caller;
use super::reload::Reloader;
use super::status::Sources;
use super::systemd::{LivenessCounters, Notifier};
use super::webhook_secret::SecretFile;
use super::webhooks::{self, Webhooks};
use super::{BuildError, ClusterLink, Daemon, DaemonOptions, FactSources, Owner, memory, options};
use crate::admin::{ControlSocket, Endpoint};
use crate::auth::{Keeper, Outward};
use crate::config::{self, Config};
use crate::delivery::{DeliveryOptions, delivery};
use crate::gaps::{GapSources, gaps};
use crate::helix::Helix;
use crate::invite::{InviteListener, Invites, OnGrant};
use crate::model::hint::Hint;
use crate::model::shard::Sessions;
use crate::model::status::ConfigStatus;
use crate::model::time::Timestamp;
use crate::reconcile::{
    AloneBinder, AloneEnds, AloneInputs, ReconcileHandle, ReconcileOptions, alone_binder, reconciler,
};
use crate::store::{Reader, Store, StoreError};
use crate::transport::HintCallback;
use crate::transport::webhook::{Guest, webhook};
use crate::transport::websocket::pool;

impl Daemon {
    /// Reads the configuration and builds every part. Nothing reaches Twitch before [`Self::run`].
    ///
    /// # Errors
    /// Anything that would keep the daemon from running.
    pub async fn build(mut options: DaemonOptions) -> Result<Self, BuildError> {
        let config = take_config(&mut options)?;
        let http = connections_to_twitch(&config).map_err(BuildError::Http)?;
        let mut delivery_options = options_for_delivery(&options, &http)?;
        parts::check_sinks(&config, &delivery_options)?;
        let notifier = Notifier::new(options.notify_systemd);
        let store = own_store(&options, &config, &notifier).await?;
        // Nothing in the state directory is touched before it is ours.
        if options.load.sandbox {
            memory::forget_twitch(&store).await.map_err(BuildError::Store)?;
        }
        let joined = cluster::join(&config, &store, &http).await.map_err(BuildError::Store)?;
        let log = match &joined {
            Some((_, link)) => Some(link.forwarder(store.clone()).await.map_err(BuildError::Store)?),
            None => None,
        };
        delivery_options.shared = log.as_ref().map(|(_, _, shared)| shared.clone());
        let (forwarder, forward) = log.map(|(forwarder, status, _)| (forwarder, status)).unzip();
        let (webhook_tx, webhook_options) = watch::channel(None);
        let retire_after = options.tuning.retire_after.unwrap_or(webhooks::RETIRE_AFTER);
        let file = SecretFile::new(&config.state_directory);
        let mut webhooks = Webhooks::new(Arc::clone(&options.sockets), file, retire_after, webhook_tx);
        let listeners = Listeners::build(&config, &webhooks, None)?;
        let socket = ControlSocket::bind(&config.socket).map_err(BuildError::Socket)?;
        let basis = (http.clone(), options.tuning.timings.clone());
        let part_options = PartOptions::new(&config, 1, listeners, &mut webhooks, basis);
        let (publish, inputs) = Publishers::new(config_status(&options, &config), part_options);

        let (endpoint, admin_counts) = Endpoint::new(inputs.admin.clone());
        let (minutes_tx, minutes) = watch::channel(Arc::default());
        let (hanging_tx, hanging) = watch::channel(Arc::default());
        let (requests, reload_requests) = mpsc::channel(4);

        let (keeper, tokens) = Keeper::new(http.clone(), inputs.token, inputs.credentials);
        let token = tokens.status();
        let keeper_tokens = tokens.clone();
        let mut helix_options = options::helix(&config);
        helix_options.may_send = joined.as_ref().map(|(_, link)| link.may_send());
        if let Some(tune) = options.tuning.helix {
            tune(&mut helix_options);
        }
        let reach = Arc::new(Caller::new(http.clone()));
        let outward = http.clone();
        let helix = Helix::new(http, helix_options, tokens);
        let api = helix.status();
        let mut reconcile_options = ReconcileOptions::new(config.application.client_id.clone());
        reconcile_options.invocation = options.invocation.clone();
        reconcile_options.leadership = joined.as_ref().map(|(_, link)| link.leadership());
        if let Some(tune) = options.tuning.reconcile {
            tune(&mut reconcile_options);
        }
        // The pool needs the reconciler's values and the reconciler the pool's: this one is handed on. In a cluster the
        // links between all hosts lie between them.
        let (sessions_tx, sessions) = watch::channel(Default::default());
        let links = joined.as_ref().map(|(_, link)| link.shards());
        let all_sessions = links.as_ref().map_or_else(|| sessions.clone(), |links| links.sessions.clone());
        let memory = match &joined {
            Some((_, link)) => link.memory(store.clone()),
            None => Arc::new(memory::StoreMemory(store.clone())),
        };
        let (reconciler, reconcile) =
            reconciler(&helix, memory, reach, inputs.desired, all_sessions, reconcile_options);
        let on_hint = hint_callback(&reconcile, joined.as_ref().map(|(_, link)| link));
        let (pool, pool_handle) = pool(
            inputs.pool,
            store.clone(),
            links.as_ref().map_or_else(|| reconcile.target.clone(), |links| links.target.clone()),
            links.as_ref().map_or_else(|| reconcile.bindings.clone(), |links| links.bindings.clone()),
            sessions_tx,
            on_hint.clone(),
        );
        let alone = joined.as_ref().map(|(_, link)| bind_alone(&helix, link, sessions.clone()));
        let (alone, alone_ends) = alone.unzip();
        let on_grant = on_grant(on_hint.clone());
        let invites = Invites::new(inputs.invites, outward, reconcile.subscriptions.clone(), on_grant);
        let (invite_listener, invite_counts) = InviteListener::new(invites.clone());
        let (webhook, webhook_handle) =
            webhook(webhook_options, store.clone(), on_hint.clone(), Some(guest(&invites)));
        let (delivery, delivery_handle) =
            delivery(store.clone(), reconcile.routes.clone(), inputs.sinks.clone(), delivery_options.clone());

        let handed_over = links.as_ref().map(|links| links.handed_over.clone());
        let gap_sources = GapSources {
            handed_over: handed_over.unwrap_or_else(|| watch::channel(Default::default()).1),
            lives: links.map_or_else(|| pool_handle.lives.clone(), |links| links.lives),
            bindings: reconcile.tenures.clone(),
            target: reconcile.target.clone(),
            callback: webhook_handle.signs.clone(),
            webhook: webhook_handle.status.clone(),
            listening: webhook_handle.listening.clone(),
            in_use: reconcile.in_use.clone(),
            reconcile: reconcile.status.clone(),
            subscriptions: reconcile.subscriptions.clone(),
            lapses: reconcile.lapses.clone(),
            hosts: joined.as_ref().map(|(_, link)| link.gap_hosts(store.clone())),
            catch_up: inputs.catch_up,
        };
        let catch_up = options.tuning.catch_up.unwrap_or_default();
        let (gaps, gaps_handle, gaps_status) = gaps(store.clone(), &helix, gap_sources, catch_up);

        let sink_options = inputs.sinks.clone();
        let cluster_status = joined.as_ref().map(|(_, link)| link.status());
        let cluster_link = joined.as_ref().map(|(_, link)| link.clone());
        let cluster = joined.zip(forward.clone()).zip(alone_ends).map(|(((task, link), forward), alone)| {
            let sources = FactSources {
                fingerprint: inputs.fingerprint,
                shards: pool_handle.shards.clone(),
                hooks: reconcile.hooks.clone(),
                sinks: delivery_handle.status.clone(),
                target: reconcile.target.clone(),
                bindings: reconcile.tenures.clone(),
                sink_options: inputs.sinks,
                forward,
                on_hint: hint_callback(&reconcile, None),
                local: LocalShards {
                    sessions,
                    lives: pool_handle.lives,
                    closed: pool_handle.closed,
                    bindings: reconcile.bindings.clone(),
                    target: reconcile.target.clone(),
                    alone_bindings: alone.bindings,
                    alone_free: alone.free,
                },
                reconcile: reconcile.status.clone(),
                delivery: delivery_handle.clone(),
            };
            (task, link, sources)
        });
        let sources = Sources {
            started_at: Timestamp(SystemTime::now()),
            config: inputs.config,
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
            sink_options,
            admin: inputs.admin,
            admin_counts,
            invites,
            invite_counts,
            hanging,
            cluster: cluster_status,
            forward,
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
        let counters = LivenessCounters::new(&store, keeper_tokens, &reconcile);
        Ok(Self {
            keeper,
            reconciler,
            pool,
            delivery,
            forwarder,
            gaps,
            gaps_handle,
            reloader,
            webhook,
            cluster,
            alone,
            reload_requests,
            socket,
            endpoint,
            invites: invite_listener,
            minutes: minutes_tx,
            store,
            children,
            handle: DaemonHandle {
                sources,
                requests,
                reconcile,
                on_hint,
                delivery: delivery_handle,
                log,
                cluster: cluster_link,
            },
            notifier,
            counters,
            hanging: hanging_tx,
        })
    }
}

/// The task that binds this host's own shards while no host can lead.
fn bind_alone(
    helix: &Helix,
    link: &ClusterLink,
    sessions: watch::Receiver<Sessions>,
) -> (AloneBinder, AloneEnds) {
    let ends = link.shards();
    let inputs = AloneInputs { own: ends.own, sessions, bindings: ends.bindings, target: ends.target };
    alone_binder(helix, link.may_bind_own(), inputs)
}

/// Passes hints on to the reconciler, and to that of the other hosts: one of them leads.
fn hint_callback(reconcile: &ReconcileHandle, cluster: Option<&ClusterLink>) -> HintCallback {
    let (reconcile, cluster) = (reconcile.clone(), cluster.cloned());
    HintCallback(Arc::new(move |hint| {
        if let Some(cluster) = &cluster {
            cluster.hint(hint.clone());
        }
        reconcile.hint(hint);
    }))
}

/// A grant is the reconciler's business as well.
fn on_grant(on_hint: HintCallback) -> OnGrant {
    OnGrant(Arc::new(move |user_id| (on_hint.0)(Hint::Grants { user_id: user_id.into() })))
}

/// The page for invited users, as the webhook's listener serves it.
fn guest(invites: &Invites) -> Guest {
    let invites = invites.clone();
    Guest(Arc::new(move |request| {
        let invites = invites.clone();
        Box::pin(async move { invites.answer(&request).await })
    }))
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
        Owner::of(&options.load).check(&config.state_directory, &reader).ok()?.err()
    };
    match error {
        StoreError::Locked { .. } if !options.take_over => {
            owned().map_or(BuildError::Store(error), BuildError::Owned)
        }
        error => BuildError::Store(error),
    }
}

/// The options of sinks for this process.
fn options_for_delivery(options: &DaemonOptions, http: &Outward) -> Result<DeliveryOptions, BuildError> {
    let mut delivery_options = delivery_options(http).map_err(BuildError::Http)?;
    if let Some(stdout) = options.stdout.clone() {
        delivery_options.stdout = stdout;
    }
    delivery_options.print = options.print_sinks;
    Ok(delivery_options)
}

/// Opens the store, and makes sure that its state directory belongs to this configuration's file. A large database is
/// checked after a crash, or changed by a new release, so systemd is told meanwhile.
async fn own_store(
    options: &DaemonOptions,
    config: &Config,
    notifier: &Notifier,
) -> Result<Store, BuildError> {
    let opening = notifier.during("opening the event store", open_store(config));
    let store = opening.await.map_err(|error| locked(error, options, config))?;
    Owner::of(&options.load)
        .claim(&config.state_directory, &store, options.take_over)
        .await
        .map_err(BuildError::Store)?
        .map_err(BuildError::Owned)?;
    Ok(store)
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
