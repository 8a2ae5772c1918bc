//! Building, starting, watching over, reloading and stopping the parts.
//!
//! Owns the order of things: everything that can fail is built before anything is started, one
//! reload is one publication, and stopping follows the way of an event, from the sockets to the
//! store. It maps the configuration to each part's options and wires their `watch` values together;
//! it makes no decision that belongs to a part. At a crash the store holds all that was accepted.

mod build;
#[cfg(feature = "nats")]
mod cluster;
#[cfg(not(feature = "nats"))]
#[path = "cluster_absent.rs"]
mod cluster;
#[cfg(feature = "nats")]
mod cluster_work;
mod connect;
mod doctor;
mod handle;
mod memory;
mod minutes;
mod one_shot;
mod options;
mod orphans;
mod owner;
mod parts;
mod pinned;
mod reach;
mod reload;
mod run;
mod shutdown;
mod status;
mod systemd;
mod tasks;
mod watchdog;
mod webhook_secret;
mod webhooks;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

#[cfg(feature = "nats")]
pub use cluster::{open_log, try_cluster};
pub use connect::{connections, connections_to_twitch};
pub use doctor::{CallbackReport, examine_callback};
pub use handle::DaemonHandle;
pub use memory::ReadOnlyMemory;
pub use one_shot::{database, desired, one_shot_api, preview_sink, sink_problems, try_sink, try_sinks};
pub use options::{DATABASE, SANDBOX_SECRET, credentials};
pub use owner::{Owned, Owner};
pub use reach::Caller;
pub use webhook_secret::SecretFileError;
pub use webhooks::WebhookError;

use self::cluster::{ClusterLink, ClusterTask, FactSources, ForwardTask};
use self::reload::{Reloader, Request};
use self::systemd::{LivenessCounters, Notifier};
use self::watchdog::Hanging;
use crate::admin::{ControlSocket, Endpoint, EndpointError, SocketError};
use crate::auth::{HttpError, Keeper};
use crate::config::{ConfigErrors, LoadOptions, Loaded};
use crate::delivery::{Children, Delivery};
use crate::gaps::{CatchUpTimings, Gaps, GapsHandle};
use crate::helix::HelixOptions;
use crate::invite::{InviteError, InviteListener};
use crate::model::invocation::Invocation;
use crate::reconcile::{AloneBinder, ReconcileOptions, Reconciler};
use crate::store::{Store, StoreError};
use crate::telemetry::LogHandle;
use crate::transport::webhook::{Sockets, Webhook};
use crate::transport::websocket::{Pool, Timings};

/// `User-Agent` of requests to Twitch.
pub const USER_AGENT: &str =
    concat!("eventsubd/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")");

/// Settings that no file has: how fast things go in a test or a benchmark.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// Changes the API client's options.
    pub helix: Option<fn(&mut HelixOptions)>,
    /// Changes the reconciler's options.
    pub reconcile: Option<fn(&mut ReconcileOptions)>,
    /// When catch-ups ask, and how old Twitch's answers may be.
    pub catch_up: Option<CatchUpTimings>,
    /// The time limits of WebSocket sessions.
    pub timings: Timings,
    /// How long a webhook secret that nothing uses any more stays accepted; ten minutes when none.
    pub retire_after: Option<Duration>,
}

/// Input of a new daemon.
#[derive(Clone)]
pub struct DaemonOptions {
    /// Where the configuration is read from, at the start and on every reload.
    pub load: LoadOptions,
    /// The configuration of the start, if it has been read already.
    pub loaded: Option<Loaded>,
    /// The log whose level follows the configuration; none in tests.
    pub log: Option<LogHandle>,
    /// Where `stdout` sinks write; the process's own when none.
    pub stdout: Option<Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>>,
    /// Print what sinks that reach outside would get, instead of sending it.
    pub print_sinks: bool,
    /// The sockets for webhooks, among them those that systemd passes.
    pub sockets: Arc<Sockets>,
    /// Whether systemd is told how things are.
    pub notify_systemd: bool,
    /// Whether the state directory is taken over from the file that it belongs to.
    pub take_over: bool,
    /// How messages tell people to run commands for this daemon.
    pub invocation: Invocation,
    /// Timings that tests shorten.
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
            loaded: None,
            log: None,
            stdout: None,
            print_sinks: false,
            sockets: Arc::new(Sockets::none()),
            notify_systemd: false,
            take_over: false,
            invocation: Invocation::default(),
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
    /// The state directory belongs to another file.
    #[error(transparent)]
    Owned(Owned),
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
    /// The page for invited users cannot listen.
    #[error("cannot open the page for invited users")]
    Invites(#[source] InviteError),
    /// TLS or the HTTP client cannot be set up.
    #[error("cannot set up connections to Twitch")]
    Http(#[source] HttpError),
    /// The webhook listener cannot be set up.
    #[error("cannot listen for webhooks")]
    Webhook(#[source] WebhookError),
}

impl From<parts::PartError> for BuildError {
    fn from(error: parts::PartError) -> Self {
        match error {
            parts::PartError::Sinks(problems) => Self::Sinks(problems),
            parts::PartError::Webhook(error) => Self::Webhook(error),
            parts::PartError::Admin(error) => Self::Admin(error),
            parts::PartError::Invites(error) => Self::Invites(error),
        }
    }
}

/// How a daemon ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Somebody asked it to stop.
    Stopped,
    /// Twitch refused the credentials at the start.
    Refused(String),
    /// An essential part ended by itself.
    Failed(String),
}

/// Everything is built, nothing is started.
#[derive(Debug)]
pub struct Daemon {
    keeper: Keeper,
    reconciler: Reconciler,
    pool: Pool,
    delivery: Delivery,
    gaps: Gaps,
    gaps_handle: GapsHandle,
    reloader: Reloader,
    webhook: Webhook,
    /// Copies events to the shared log of the cluster.
    forwarder: Option<ForwardTask>,
    /// Binds the shards of this host while no host of the cluster can lead.
    alone: Option<AloneBinder>,
    /// The cluster, if the configuration has one.
    cluster: Option<(ClusterTask, ClusterLink, FactSources)>,
    reload_requests: mpsc::Receiver<Request>,
    socket: ControlSocket,
    endpoint: Endpoint,
    invites: InviteListener,
    minutes: watch::Sender<Arc<[u64]>>,
    store: Store,
    children: Children,
    handle: DaemonHandle,
    notifier: Notifier,
    counters: LivenessCounters,
    hanging: watch::Sender<Hanging>,
}

impl Daemon {
    /// Asks things of this daemon once it runs.
    pub fn handle(&self) -> DaemonHandle {
        self.handle.clone()
    }
}
