//! The validated configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

pub use super::keys::table::{CatchUp, Conduit, Log, Reconcile, Store, Transport, Twitch};
pub use crate::model::mode::{LogFormat, Method, Policy, ShardTransport};
use crate::model::route::SinkName;
use crate::model::secret::Secret;
pub use crate::model::sink::{Format, SinkKind, SinkOptions};
use crate::model::subscription::SubscriptionSpec;
pub use crate::model::webhook::{Listen, TlsFiles};

/// Everything that a file, the environment and the defaults say, checked and with paths resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub application: Application,
    pub twitch: Twitch,
    pub reconcile: Reconcile,
    pub transport: Transport,
    pub conduit: Conduit,
    /// Set if webhooks are asked for.
    pub webhook: Option<Webhook>,
    /// Every `[[subscription]]` that is enabled, expanded; each key once, in the order of the file.
    pub subscriptions: Arc<[SubscriptionSpec]>,
    /// `[sink.*]`; at least one.
    pub sinks: BTreeMap<SinkName, SinkOptions>,
    /// The page for invited users, if there is one.
    pub authorize: Option<Authorize>,
    pub store: Store,
    pub state_directory: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    pub catch_up: CatchUp,
    /// Set if several hosts work together.
    pub cluster: Option<Cluster>,
    /// The admin endpoint, if it is on.
    pub admin: Option<Admin>,
    pub log: Log,
}

/// The application's credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// `sandbox` when the sandbox is asked for and the file has none.
    pub client_id: String,
    /// `None` only when it was not required.
    pub client_secret: Option<Secret>,
    /// Source of the secret, found or not: a path, or the name of a variable.
    pub client_secret_source: String,
}

/// `[transport.webhook]`: where Twitch calls, and where the daemon listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The public URL: no query, no fragment.
    pub callback: String,
    pub listen: Listen,
    /// The secret of `secret_file`, valid for Twitch. `None` means that the daemon makes one.
    pub secret: Option<Secret>,
    pub secret_file: Option<PathBuf>,
    /// `None` means that TLS ends elsewhere.
    pub tls: Option<TlsFiles>,
}

/// `[authorize]`: the page for invited users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorize {
    /// The public URL: https, or http on this machine; no query, no fragment.
    pub redirect_uri: String,
    /// `None` means that the webhook's listener serves it.
    pub listen: Option<SocketAddr>,
}

/// `[cluster]`: several hosts with the same file.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// URLs of NATS servers, separated by commas.
    pub nats: Secret,
    /// Text of the credentials file.
    pub credentials: Option<Secret>,
    pub name: String,
    /// `None` means the name of the machine.
    pub host: Option<String>,
    pub replicas: Option<usize>,
}

/// `[admin]`: the admin endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// A loopback address unless there is a token.
    pub listen: SocketAddr,
    /// The token that opens it, 16 characters at least.
    pub token: Option<Secret>,
    /// Proxies whose headers about their clients are believed.
    pub trusted_proxies: Arc<[IpNet]>,
}
