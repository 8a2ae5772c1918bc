//! A stand-in for Twitch on this machine: a world (users, grants, conduits, subscriptions, costs, faults on demand)
//! behind `platform`, which has Twitch's side of the protocol.
//!
//! For trying things out without an account, and for tests. It behaves as Twitch's pages and those
//! who use Twitch describe it, down to error texts, limits and time-outs, and it can be made to
//! fail. It keeps nothing: when it ends, everything in it is gone. It must never be reachable from
//! outside: it gives a token to whoever asks.

mod api;
mod auth;
mod authorize;
mod buckets;
mod channels;
mod command;
mod conduits;
mod control;
mod device;
mod edit;
mod eventsub;
mod faults;
mod grants;
mod history;
mod news;
mod pages;
mod passing;
mod send;
mod server;
mod sessions;
mod socket;
mod state;
mod stats;
mod subscriptions;
mod tokens;
mod users;
mod webhook;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::control::{ShardInfo, SubscriptionInfo};
pub use self::faults::{Fault, Route};
pub use self::news::TriggerError;
use self::state::World;
pub use self::stats::Stats;
pub use self::users::Users;
pub use self::webhook::{ChallengeTiming, WebhookOptions};

#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Address to listen on; port 0 lets the system pick one.
    pub listen: SocketAddr,
    /// The application that exists.
    pub client_id: String,
    pub client_secret: String,
    /// Any other application exists as well, with any secret.
    pub accept_any_client: bool,
    /// The redirect URIs that are registered for the application; empty: any will do.
    pub redirect_uris: Vec<String>,
    pub users: Users,
    /// The life of a token: 60 days.
    pub token_life: Duration,
    /// Points of the rate limit: 800.
    pub bucket: u32,
    /// Points that come in within a minute: 800.
    pub refill_per_minute: u32,
    /// Time that a session may stay unbound: 10 s (close code 4003).
    pub unused_timeout: Duration,
    /// Time that a requested reconnect may take: 30 s (4004).
    pub reconnect_grace: Duration,
    /// Whether the session after a reconnect has an id of its own. At Twitch it has not.
    pub reconnect_changes_id: bool,
    /// The length of one second of `keepalive_timeout_seconds`; tests shorten it.
    pub keepalive_unit: Duration,
    /// Time that a pong may take: 10 s (4002).
    pub pong_timeout: Duration,
    /// Limit of the total cost: 10,000.
    pub max_total_cost: u64,
    /// Cost of a subscription whose user granted nothing: 1.
    pub cost_of_strangers: u64,
    /// Rows on one page of a list: 100.
    pub page_size: usize,
    /// Conduits of one application: 5.
    pub max_conduits: usize,
    /// Time until a conduit without an enabled shard is deleted: 72 hours.
    pub conduit_life: Duration,
    /// Time for which the list shows an ended subscription on a WebSocket: a minute.
    pub websocket_listed: Duration,
    /// The same for others: ten days.
    pub ended_listed: Duration,
    /// Latency of each answer of the API.
    pub latency: Duration,
    /// Age of what Get Streams and Get Channel Information show; at Twitch a minute or two.
    pub stream_delay: Duration,
    /// The pause between sample events, which go round all subscriptions; none when unset.
    pub sample_pace: Option<Duration>,
    /// Whether a subscription that needs a scope is refused (403) unless its user granted it. Otherwise
    /// everybody counts as having granted everything.
    pub require_grants: bool,
    /// Lifetime of a device code: 30 minutes.
    pub device_life: Duration,
    /// Seconds between two questions after a device: 5.
    pub device_interval: u64,
    /// HTTP client for webhook deliveries. Must not follow redirects. `None` disables webhooks.
    pub http: Option<reqwest::Client>,
    /// Initial settings of webhook deliveries.
    pub webhook: WebhookOptions,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            client_id: "sandbox".to_owned(),
            client_secret: "sandbox-secret".to_owned(),
            accept_any_client: false,
            redirect_uris: Vec::new(),
            users: Users::Any,
            token_life: Duration::from_secs(60 * 86_400),
            bucket: 800,
            refill_per_minute: 800,
            unused_timeout: Duration::from_secs(10),
            reconnect_grace: Duration::from_secs(30),
            reconnect_changes_id: false,
            keepalive_unit: Duration::from_secs(1),
            pong_timeout: Duration::from_secs(10),
            max_total_cost: 10_000,
            cost_of_strangers: 1,
            page_size: 100,
            max_conduits: 5,
            conduit_life: Duration::from_secs(72 * 3_600),
            websocket_listed: Duration::from_secs(60),
            ended_listed: Duration::from_secs(10 * 86_400),
            latency: Duration::ZERO,
            stream_delay: Duration::ZERO,
            sample_pace: None,
            require_grants: false,
            device_life: Duration::from_secs(1800),
            device_interval: 5,
            http: None,
            webhook: WebhookOptions::default(),
        }
    }
}

/// A running stand-in; cheap to clone. It ends with [`Sandbox::stop`], or when the last clone goes.
#[derive(Clone, Debug)]
pub struct Sandbox {
    world: Arc<World>,
    _stop: Arc<tokio_util::sync::DropGuard>,
}

impl Sandbox {
    /// Starts it.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(options: SandboxOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let pace = options.sample_pace;
        let (world, reports) = World::new(options, address, stop.clone());
        let world = Arc::new(world);
        tokio::spawn(server::serve(listener, Arc::clone(&world)));
        tokio::spawn(passing::run(Arc::clone(&world)));
        tokio::spawn(news::listen(Arc::clone(&world), reports));
        if let Some(pace) = pace {
            tokio::spawn(news::feed(Arc::clone(&world), pace));
        }
        Ok(Self { world, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Ends it: connections break, and everything in it is gone.
    pub fn stop(&self) {
        self.world.stop.cancel();
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.world.address
    }

    /// The value of `twitch.auth_url`.
    pub fn auth_url(&self) -> String {
        format!("http://{}/oauth2", self.world.address)
    }

    /// The value of `twitch.api_url`.
    pub fn api_url(&self) -> String {
        format!("http://{}/helix", self.world.address)
    }

    /// The value of `twitch.eventsub_url`.
    pub fn eventsub_url(&self) -> String {
        format!("ws://{}/ws", self.world.address)
    }

    /// The application that exists.
    pub fn client_id(&self) -> String {
        self.world.options.client_id.clone()
    }

    /// The client secret in force.
    pub fn client_secret(&self) -> String {
        self.world.lock().secret.clone()
    }

    /// The `[twitch]` table of a configuration that uses this stand-in.
    pub fn twitch_block(&self) -> String {
        format!(
            "[twitch]\nclient_id = \"{}\"\nauth_url = \"{}\"\napi_url = \"{}\"\neventsub_url = \"{}\"\n\
             # The secret: EVENTSUBD_TWITCH__CLIENT_SECRET={} in the environment.\n",
            self.world.options.client_id,
            self.auth_url(),
            self.api_url(),
            self.eventsub_url(),
            self.client_secret()
        )
    }
}
