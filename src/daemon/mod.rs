//! Building, starting, watching over, reloading and stopping the parts.
//!
//! Owns the order of things: everything that can fail is built before anything is started, one
//! reload is one publication, and stopping follows the way of an event, from the sockets to the
//! store. It maps the configuration to each part's options and wires their `watch` values together;
//! it makes no decision that belongs to a part. At a crash the store holds all that was accepted.

mod doctor;
mod gap;
mod memory;
mod minutes;
mod options;
mod reach;
mod reload;
mod status;
mod systemd;
mod tasks;
mod trial;
mod watchdog;
mod webhook_secret;
mod webhooks;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use doctor::{CallbackReport, examine_callback};
pub use memory::ReadOnlyMemory;
pub use options::{DATABASE, SANDBOX_SECRET};
pub use reach::Caller;
pub use webhook_secret::SecretFileError;
pub use webhooks::WebhookError;

use self::gap::{GapSources, watch_for_gaps};
use self::reload::{Publishers, Reloader, Request};
use self::status::Sources;
use self::systemd::{Notifier, Vitals};
use self::tasks::Tasks;
use self::webhook_secret::SecretFile;
use self::webhooks::Webhooks;
use crate::admin::{
    self, Answer, Control, ControlSocket, Count, Endpoint, EndpointError, LogFilter, Refused, ReloadAccepted,
    ReloadRefused, SecretRotated, SocketError,
};
use crate::auth::{self, HttpError, Keeper};
use crate::config::{self, Config, ConfigErrors, LoadOptions};
use crate::delivery::{Delivery, DeliveryHandle, DeliveryOptions, ResendError, delivery};
use crate::helix::{Helix, HelixOptions};
use crate::model::event::Since;
use crate::model::hint::Hint;
use crate::model::route::SinkName;
use crate::model::status::{ConfigStatus, Status, TokenState, TokenStatus};
use crate::model::time::Timestamp;
use crate::reconcile::{ReconcileHandle, ReconcileOptions, Reconciler, reconciler};
use crate::store::{LetterFilter, Store, StoreError};
use crate::telemetry::{LogError, LogHandle};
use crate::transport::Hear;
use crate::transport::webhook::{Sockets, Webhook, webhook};
use crate::transport::websocket::{Pool, Timings, pool};

/// What requests to Twitch say of who sends them.
pub const USER_AGENT: &str =
    concat!("eventsubd/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")");

/// How long stopping may take before what is left is cut off; systemd's limit is longer.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long the sockets may take to close, within that.
const INTAKE_LIMIT: Duration = Duration::from_secs(3);

/// Settings that no file has: how fast things go in a test or a benchmark.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// Changes the API client's options.
    pub helix: Option<fn(&mut HelixOptions)>,
    /// Changes the reconciler's options.
    pub reconcile: Option<fn(&mut ReconcileOptions)>,
    /// The time limits of WebSocket sessions.
    pub timings: Timings,
    /// How long a webhook secret that nothing uses any more stays accepted; ten minutes when none.
    pub retire_after: Option<Duration>,
}

/// What a daemon is made from.
#[derive(Clone)]
pub struct DaemonOptions {
    /// Where the configuration is read from, at the start and on every reload.
    pub load: LoadOptions,
    /// The log whose level follows the configuration; none in tests.
    pub log: Option<LogHandle>,
    /// Where `stdout` sinks write; the process's own when none.
    pub stdout: Option<Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>>,
    /// The sockets for webhooks, among them those that systemd passes.
    pub sockets: Arc<Sockets>,
    /// Whether systemd is told how things are.
    pub notify_systemd: bool,
    /// Speeds.
    pub tuning: Tuning,
}

impl std::fmt::Debug for DaemonOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonOptions").field("load", &self.load).finish_non_exhaustive()
    }
}

impl DaemonOptions {
    /// For a daemon that reads this configuration.
    pub fn new(load: LoadOptions) -> Self {
        Self {
            load,
            log: None,
            stdout: None,
            sockets: Arc::new(Sockets::none()),
            notify_systemd: false,
            tuning: Tuning::default(),
        }
    }
}

/// The daemon could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration has errors.
    #[error(transparent)]
    Config(ConfigErrors),
    /// Sinks that cannot work.
    #[error("{}", .0.join("\n"))]
    Sinks(Vec<String>),
    /// The event store cannot be opened.
    #[error("cannot open the event store")]
    Store(#[source] StoreError),
    /// The control socket cannot be made.
    #[error("cannot listen for commands")]
    Socket(#[source] SocketError),
    /// The admin endpoint cannot listen.
    #[error("cannot open the admin endpoint")]
    Admin(#[source] EndpointError),
    /// TLS or the HTTP client cannot be set up.
    #[error("cannot set up connections to Twitch")]
    Http(#[source] HttpError),
    /// The webhook listener cannot be set up.
    #[error("cannot listen for webhooks")]
    Webhook(#[source] WebhookError),
}

/// How a daemon ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// Twitch refused the credentials at the start.
    Refused(String),
    /// An essential part ended by itself.
    Failed(String),
}

/// The file in force for a start, with its warnings logged.
fn load(options: &LoadOptions) -> Result<Config, BuildError> {
    let loaded = config::load(options).map_err(BuildError::Config)?;
    for warning in &loaded.warnings {
        warn!("{}", warning.summary());
    }
    Ok(loaded.config)
}

/// The path of the event store of a configuration.
pub fn database(config: &Config) -> PathBuf {
    config.state_directory.join(options::DATABASE)
}

/// The client for requests to Twitch, and the TLS settings that sockets share with it.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn connections() -> Result<(reqwest::Client, Arc<rustls::ClientConfig>), HttpError> {
    let tls = auth::tls_config()?;
    Ok((auth::http_client(USER_AGENT, tls.clone())?, Arc::new(tls)))
}

/// A token keeper and an API client for one command, which end with the `CancellationToken`.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn one_shot_api(
    config: &Config,
    cancel: &CancellationToken,
) -> Result<(Helix, watch::Receiver<TokenStatus>), HttpError> {
    let (http, _) = connections()?;
    let (_options, token_options) = watch::channel(options::token(config));
    let (_credentials, credentials) = watch::channel(options::credentials(config));
    let (keeper, tokens) = Keeper::new(http.clone(), token_options, credentials);
    tokio::spawn(keeper.run(cancel.clone()));
    let status = tokens.status();
    Ok((Helix::new(http, HelixOptions::new(config.twitch.api_url.clone()), tokens), status))
}

/// What `plan` compares Twitch with. A webhook secret that is not there yet is as good as any.
///
/// # Errors
/// The webhook secrets cannot be read.
pub fn desired(config: &Config) -> Result<Arc<crate::reconcile::Desired>, SecretFileError> {
    let keys = match &config.webhook {
        Some(webhook) => SecretFile::new(&config.state_directory).peek(webhook.secret.as_ref())?,
        None => None,
    };
    let keys = match keys {
        None if config.webhook.is_some() => Some(webhook_secret::unstored(&config.state_directory)?),
        keys => keys,
    };
    Ok(options::desired(config, keys.as_ref(), 1))
}

/// Everything is built, nothing is started.
#[derive(Debug)]
pub struct Daemon {
    keeper: Keeper,
    reconciler: Reconciler,
    pool: Pool,
    delivery: Delivery,
    reloader: Reloader,
    webhook: Webhook,
    reload_requests: mpsc::Receiver<Request>,
    socket: ControlSocket,
    endpoint: Endpoint,
    minutes: watch::Sender<Arc<[u64]>>,
    store: Store,
    handle: DaemonHandle,
    notifier: Notifier,
    vitals: Vitals,
}

/// Asks things of a daemon, from inside the process.
#[derive(Clone, Debug)]
pub struct DaemonHandle {
    sources: Sources,
    requests: mpsc::Sender<Request>,
    reconcile: ReconcileHandle,
    delivery: DeliveryHandle,
    log: Option<LogHandle>,
}

impl DaemonHandle {
    /// What SIGHUP does: reads the file again, and reopens the files that sinks write to.
    pub fn hang_up(&self) {
        self.delivery.reopen();
        // A full queue means that a reload is about to read the file anyway.
        let _ = self.requests.try_send(Request::Reload(None));
    }
}

impl Control for DaemonHandle {
    fn status(&self) -> Status {
        self.sources.snapshot()
    }

    fn reload(&self) -> Answer<'_, Result<ReloadAccepted, ReloadRefused>> {
        Box::pin(async move {
            let stopping = || ReloadRefused { errors: vec!["the daemon is stopping".to_owned()] };
            self.delivery.reopen();
            let (reply, outcome) = oneshot::channel();
            self.requests.send(Request::Reload(Some(reply))).await.map_err(|_| stopping())?;
            outcome.await.map_err(|_| stopping())?
        })
    }

    fn rotate_secret(&self) -> Answer<'_, Result<SecretRotated, Refused>> {
        Box::pin(async move {
            let stopping = || Refused { error: "the daemon is stopping".to_owned() };
            let (reply, outcome) = oneshot::channel();
            self.requests.send(Request::RotateSecret(reply)).await.map_err(|_| stopping())?;
            outcome.await.map_err(|_| stopping())?
        })
    }

    fn apply(&self, allow_deletes: bool) {
        self.reconcile.apply(allow_deletes);
    }

    fn grants_changed(&self, user_id: &str) {
        self.reconcile.hint(Hint::Grants { user_id: user_id.into() });
    }

    fn log_filter(&self) -> Result<LogFilter, Refused> {
        let log = self.log.as_ref().ok_or_else(no_log)?;
        log.filter().map(|filter| LogFilter { filter }).map_err(|error| refused(&error))
    }

    fn set_log_filter(&self, filter: &str) -> Result<LogFilter, Refused> {
        let log = self.log.as_ref().ok_or_else(no_log)?;
        if let Some(problem) = config::filter_problem(filter) {
            return Err(Refused { error: problem });
        }
        log.set_filter(filter).map_err(|error| refused(&error))?;
        info!(filter, "the log filter was changed, until the next reload");
        self.log_filter()
    }

    fn replay(&self, sink: SinkName, since: Since) -> Answer<'_, Result<Count, Refused>> {
        Box::pin(async move { counted(self.delivery.replay(&sink, since).await) })
    }

    fn resend(&self, filter: LetterFilter) -> Answer<'_, Result<Count, Refused>> {
        Box::pin(async move { counted(self.delivery.resend(filter).await) })
    }

    fn drop_letters(&self, filter: LetterFilter) -> Answer<'_, Result<Count, Refused>> {
        Box::pin(async move { counted(self.delivery.drop_letters(filter).await) })
    }
}

/// What events tell is the reconciler's business.
fn hear(reconcile: &ReconcileHandle) -> Hear {
    let reconcile = reconcile.clone();
    Hear(Arc::new(move |hint| reconcile.hint(hint)))
}

fn no_log() -> Refused {
    Refused { error: "the daemon has no log of its own".to_owned() }
}

fn refused(error: &LogError) -> Refused {
    Refused { error: error.to_string() }
}

fn counted(outcome: Result<u64, ResendError>) -> Result<Count, Refused> {
    outcome.map(|count| Count { count }).map_err(|error| Refused { error: error.to_string() })
}

impl Daemon {
    /// Reads the configuration and builds every part. Nothing reaches Twitch before [`Self::run`].
    ///
    /// # Errors
    /// Whatever would keep the daemon from running.
    pub async fn build(options: DaemonOptions) -> Result<Self, BuildError> {
        let config = load(&options.load)?;
        let sinks = options::sinks(&config);
        let (http, tls) = connections().map_err(BuildError::Http)?;
        let mut delivery_options = delivery_options(&tls).map_err(BuildError::Http)?;
        if let Some(stdout) = options.stdout {
            delivery_options.stdout = stdout;
        }
        let failing = trial::problems(&config, &delivery_options);
        if !failing.is_empty() {
            return Err(BuildError::Sinks(failing));
        }
        let (webhook_tx, webhook_options) = watch::channel(None);
        let retire_after = options.tuning.retire_after.unwrap_or(webhooks::RETIRE_AFTER);
        let file = SecretFile::new(&config.state_directory);
        let mut webhooks = Webhooks::new(options.sockets, file, retire_after, webhook_tx);
        let listener = webhooks.build(&config).map_err(BuildError::Webhook)?;
        let store = open_store(&config).await.map_err(BuildError::Store)?;
        webhooks.publish(listener);
        let keys = webhooks.keys();
        let socket = ControlSocket::bind(&config.socket).map_err(BuildError::Socket)?;
        let admin = options::admin(&config, None).map_err(BuildError::Admin)?;

        let (credentials_tx, credentials) = watch::channel(options::credentials(&config));
        let (token_tx, token_options) = watch::channel(options::token(&config));
        let (pool_tx, pool_options) =
            watch::channel(options::pool(&config, tls, options.tuning.timings.clone()));
        let (desired_tx, desired) = watch::channel(options::desired(&config, keys.as_ref(), 1));
        let (sinks_tx, sinks) = watch::channel(sinks);
        let (admin_tx, admin) = watch::channel(admin);
        let (minutes_tx, minutes) = watch::channel(Arc::default());
        let (config_tx, config_status) = watch::channel(config_status(&options.load.path));
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
        let mut reconcile_options = ReconcileOptions::new(config.twitch.client_id.clone());
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
            reconcile.revoked(),
            hear(&reconcile),
        );
        let (webhook, webhook_handle) =
            webhook(webhook_options, store.clone(), reconcile.revoked(), hear(&reconcile));
        let (delivery, delivery_handle) =
            delivery(store.clone(), reconcile.routes.clone(), sinks, delivery_options.clone());

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
            counts: store.intake_counts(),
            minutes,
            store: store.status(),
            sinks: delivery_handle.status.clone(),
            admin: admin.clone(),
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
        let notifier = Notifier::new(options.notify_systemd);
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
            reloader,
            webhook,
            reload_requests,
            socket,
            endpoint: Endpoint { options: admin },
            minutes: minutes_tx,
            store,
            handle: DaemonHandle { sources, requests, reconcile, delivery: delivery_handle, log },
            notifier,
            vitals,
        })
    }

    /// Asks things of this daemon once it runs.
    pub fn handle(&self) -> DaemonHandle {
        self.handle.clone()
    }

    /// Runs until `stop`, or until something essential ends. `at_once` cuts stopping short.
    pub async fn run(self, stop: CancellationToken, at_once: CancellationToken) -> Exit {
        let intake = CancellationToken::new();
        let api = CancellationToken::new();
        let rest = CancellationToken::new();
        let handle = self.handle.clone();

        let mut intake_tasks = Tasks::default();
        let mut api_tasks = Tasks::default();
        let mut rest_tasks = Tasks::default();
        intake_tasks.spawn("WebSocket shards", self.pool.run(intake.clone()));
        intake_tasks.spawn("webhook listener", self.webhook.run(intake.clone()));
        api_tasks.spawn("token keeper", self.keeper.run(api.clone()));
        api_tasks.spawn("reconciler", self.reconciler.run(api.clone()));
        rest_tasks.spawn("delivery", self.delivery.run(rest.clone()));
        let gaps = GapSources {
            shards: handle.sources.shards.clone(),
            hooks: handle.sources.hooks.clone(),
            webhook: handle.sources.webhook.status.clone(),
            in_use: handle.sources.in_use.clone(),
            reconcile: handle.sources.reconcile.clone(),
            subscriptions: handle.sources.subscriptions.clone(),
        };
        rest_tasks.spawn("gap watcher", watch_for_gaps(self.store.clone(), gaps, rest.clone()));
        let counts = self.store.intake_counts();
        rest_tasks.spawn("counter", minutes::count(counts, self.minutes, rest.clone()));
        rest_tasks.spawn("reloader", self.reloader.run(self.reload_requests, rest.clone()));
        rest_tasks
            .spawn("control socket", serve(self.socket, handle.clone(), self.store.clone(), rest.clone()));
        let control: Arc<dyn Control> = Arc::new(handle.clone());
        rest_tasks.spawn("admin endpoint", self.endpoint.run(control, self.store.clone(), rest.clone()));
        let told =
            systemd::keep_told(self.notifier.clone(), self.vitals, handle.sources.clone(), rest.clone());
        rest_tasks.spawn("systemd", told);

        let mut exit = tokio::select! {
            () = stop.cancelled() => Exit::Stopped,
            message = refused_at_start(handle.sources.token.clone()) => Exit::Refused(message),
            error = self.store.failed() => Exit::Failed(format!("the event store ended: {error}")),
            ended = intake_tasks.ended() => failed(ended),
            ended = api_tasks.ended() => failed(ended),
            ended = rest_tasks.ended() => failed(ended),
        };
        if let Exit::Failed(what) = &exit {
            error!(error = what, "an essential part ended by itself; the daemon stops");
        }
        self.notifier.stopping();

        let begun = Instant::now();
        let stopping = async {
            let mut cut = Vec::new();
            let deadline = begun + STOP_LIMIT;
            intake.cancel();
            cut.extend(intake_tasks.join(begun + INTAKE_LIMIT).await);
            api.cancel();
            cut.extend(api_tasks.join(deadline).await);
            rest.cancel();
            cut.extend(rest_tasks.join(deadline).await);
            match tokio::time::timeout_at(deadline + Duration::from_secs(1), self.store.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "the event store did not close cleanly"),
                Err(_) => cut.push("event store"),
            }
            cut
        };
        tokio::select! {
            cut = stopping => {
                if !cut.is_empty() {
                    warn!(parts = cut.join(", "), "cut off while stopping");
                }
                info!(seconds = begun.elapsed().as_secs_f64(), "stopped");
            }
            () = at_once.cancelled() => {
                warn!("stopped at once on a second signal; the store holds what was accepted");
                exit = if exit == Exit::Stopped { Exit::Failed("stopped at once on a second signal".to_owned()) } else { exit };
            }
        }
        exit
    }
}

fn failed(ended: tasks::Ended) -> Exit {
    let how = if ended.panicked { "panicked" } else { "ended by itself" };
    Exit::Failed(format!("the {} {how}", ended.name))
}

async fn serve(socket: ControlSocket, handle: DaemonHandle, store: Store, cancel: CancellationToken) {
    if let Err(error) = admin::serve(socket, Arc::new(handle), store, cancel).await {
        error!(%error, "the control socket failed");
    }
}

async fn open_store(config: &Config) -> Result<Store, StoreError> {
    let options = options::store(config);
    match tokio::task::spawn_blocking(move || Store::open(options)).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn config_status(path: &Path) -> ConfigStatus {
    ConfigStatus {
        path: path.display().to_string(),
        generation: 1,
        loaded_at: Timestamp(SystemTime::now()),
        refused: None,
        reloads_refused: 0,
    }
}

/// Resolves when the credentials are refused before there was ever a token.
async fn refused_at_start(mut token: watch::Receiver<TokenStatus>) -> String {
    let refused = match token.wait_for(|t| t.mints > 0 || t.state == TokenState::Refused).await {
        Ok(status) if status.state == TokenState::Refused && status.mints == 0 => {
            Some(status.problem.clone().unwrap_or_else(|| "no reason given".to_owned()))
        }
        _ => None,
    };
    // The guard of the value is gone by here: it would lock the keeper out.
    match refused {
        Some(message) => message,
        None => std::future::pending().await,
    }
}

/// What sinks connect with. Its connections are not those to Twitch.
fn delivery_options(tls: &rustls::ClientConfig) -> Result<DeliveryOptions, HttpError> {
    Ok(DeliveryOptions::new(auth::http_client(USER_AGENT, tls.clone())?, tls.clone()))
}

/// What would keep the sinks of a configuration from working, a line each.
///
/// # Errors
/// TLS or the client cannot be set up.
pub fn sink_problems(config: &Config) -> Result<Vec<String>, HttpError> {
    Ok(trial::problems(config, &delivery_options(&auth::tls_config()?)?))
}
