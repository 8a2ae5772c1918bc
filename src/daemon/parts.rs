//! From a configuration to what runs, in the same steps at the start and at a reload: check the sinks, build the
//! listeners, publish every part's options.
//!
//! All that may fail comes before anything is published, so that a reload can be refused whole.

use std::sync::Arc;

use tokio::sync::watch;

use super::options;
use super::webhooks::{WebhookError, Webhooks};
use crate::admin::{EndpointError, EndpointOptions};
use crate::admission::BoundAddress;
use crate::auth::{Credentials, Outward, TokenOptions};
use crate::config::Config;
use crate::delivery::{self, DeliveryOptions, SinkOptions};
use crate::gaps::CatchUpOptions;
use crate::invite::{InviteError, InviteOptions};
use crate::model::status::ConfigStatus;
use crate::model::text::chain;
use crate::model::webhook::WebhookKeys;
use crate::reconcile::Desired;
use crate::telemetry::Publish;
use crate::transport::webhook::WebhookOptions;
use crate::transport::websocket::{PoolOptions, Timings};

/// A configuration that cannot be put in force.
#[derive(Debug)]
pub(super) enum PartError {
    /// Sinks that cannot work, one line each.
    Sinks(Vec<String>),
    Webhook(WebhookError),
    Admin(EndpointError),
    Invites(InviteError),
}

impl PartError {
    /// The problems for a refused reload.
    pub(super) fn lines(self) -> Vec<String> {
        match self {
            Self::Sinks(lines) => lines,
            Self::Webhook(error) => vec![format!("the webhook listener: {}", chain(&error))],
            Self::Admin(error) => vec![chain(&error)],
            Self::Invites(error) => vec![chain(&error)],
        }
    }
}

/// Finds what only a look at this machine tells of the sinks, one line for each problem. Touches nothing.
pub(super) fn sink_problems(config: &Config, options: &DeliveryOptions) -> Vec<String> {
    let found = delivery::check_sinks(&options::sinks(config), options);
    found.iter().map(ToString::to_string).collect()
}

/// First step: fails if a sink cannot work.
///
/// # Errors
/// [`PartError::Sinks`].
pub(super) fn check_sinks(config: &Config, options: &DeliveryOptions) -> Result<(), PartError> {
    let problems = sink_problems(config, options);
    if problems.is_empty() { Ok(()) } else { Err(PartError::Sinks(problems)) }
}

/// The listeners of a configuration, bound and not in use yet.
pub(super) struct Listeners {
    webhook: Option<WebhookOptions>,
    admin: Option<EndpointOptions>,
    invites: Option<InviteOptions>,
}

/// The running configuration with the addresses that it has bound.
#[derive(Debug)]
pub(super) struct Old<'a> {
    pub(super) config: &'a Config,
    pub(super) admin: Option<BoundAddress>,
    pub(super) invites: Option<BoundAddress>,
}

impl Listeners {
    /// Second step: binds what is not bound yet.
    ///
    /// # Errors
    /// An address, a certificate or a secret cannot be used.
    pub(super) fn build(
        config: &Config,
        webhooks: &Webhooks,
        old: Option<Old<'_>>,
    ) -> Result<Self, PartError> {
        let (old, admin, invites) =
            old.map_or((None, None, None), |old| (Some(old.config), old.admin, old.invites));
        let webhook = webhooks.build(config).map_err(PartError::Webhook)?;
        let admin = options::admin(config, old.zip(admin)).map_err(PartError::Admin)?;
        let invites = options::invites(config, old.zip(invites)).map_err(PartError::Invites)?;
        Ok(Self { webhook, admin, invites })
    }
}

/// The options of every part.
pub(super) struct PartOptions {
    credentials: Credentials,
    token: TokenOptions,
    pool: PoolOptions,
    desired: Arc<Desired>,
    sinks: Arc<[SinkOptions]>,
    admin: Option<EndpointOptions>,
    invites: Option<InviteOptions>,
    fingerprint: String,
    catch_up: CatchUpOptions,
}

impl PartOptions {
    /// Third step: puts the webhook listener in use, and makes the options of every part from the configuration. Cannot
    /// fail.
    pub(super) fn new(
        config: &Config,
        generation: u64,
        listeners: Listeners,
        webhooks: &mut Webhooks,
        (outward, timings): (Outward, Timings),
    ) -> Self {
        let Listeners { webhook, admin, invites } = listeners;
        webhooks.publish(webhook);
        Self {
            credentials: options::credentials(config),
            token: options::token(config),
            pool: options::pool(config, outward, timings),
            desired: options::desired(config, webhooks.keys().as_ref(), generation),
            sinks: options::sinks(config),
            admin,
            invites,
            fingerprint: options::fingerprint(config),
            catch_up: options::catch_up(config),
        }
    }
}

/// Where each part's options are published.
#[derive(Debug)]
pub(super) struct Publishers {
    pub(super) config: watch::Sender<ConfigStatus>,
    credentials: watch::Sender<Credentials>,
    token: watch::Sender<TokenOptions>,
    pool: watch::Sender<PoolOptions>,
    desired: watch::Sender<Arc<Desired>>,
    sinks: watch::Sender<Arc<[SinkOptions]>>,
    admin: watch::Sender<Option<EndpointOptions>>,
    invites: watch::Sender<Option<InviteOptions>>,
    fingerprint: watch::Sender<String>,
    catch_up: watch::Sender<CatchUpOptions>,
}

/// The options as each part receives them.
pub(super) struct Inputs {
    pub(super) config: watch::Receiver<ConfigStatus>,
    pub(super) credentials: watch::Receiver<Credentials>,
    pub(super) token: watch::Receiver<TokenOptions>,
    pub(super) pool: watch::Receiver<PoolOptions>,
    pub(super) desired: watch::Receiver<Arc<Desired>>,
    pub(super) sinks: watch::Receiver<Arc<[SinkOptions]>>,
    pub(super) admin: watch::Receiver<Option<EndpointOptions>>,
    pub(super) invites: watch::Receiver<Option<InviteOptions>>,
    /// See [`options::fingerprint`].
    pub(super) fingerprint: watch::Receiver<String>,
    pub(super) catch_up: watch::Receiver<CatchUpOptions>,
}

impl Publishers {
    /// Publishes the options of the first configuration.
    pub(super) fn new(status: ConfigStatus, options: PartOptions) -> (Self, Inputs) {
        let PartOptions { credentials, token, pool, desired, sinks, admin, invites, fingerprint, catch_up } =
            options;
        let (config_in, config) = watch::channel(status);
        let (credentials_in, credentials) = watch::channel(credentials);
        let (token_in, token) = watch::channel(token);
        let (pool_in, pool) = watch::channel(pool);
        let (desired_in, desired) = watch::channel(desired);
        let (sinks_in, sinks) = watch::channel(sinks);
        let (admin_in, admin) = watch::channel(admin);
        let (invites_in, invites) = watch::channel(invites);
        let (fingerprint_in, fingerprint) = watch::channel(fingerprint);
        let (catch_up_in, catch_up) = watch::channel(catch_up);
        let publishers = Self {
            config: config_in,
            credentials: credentials_in,
            token: token_in,
            pool: pool_in,
            desired: desired_in,
            sinks: sinks_in,
            admin: admin_in,
            invites: invites_in,
            fingerprint: fingerprint_in,
            catch_up: catch_up_in,
        };
        let inputs = Inputs {
            config,
            credentials,
            token,
            pool,
            desired,
            sinks,
            admin,
            invites,
            fingerprint,
            catch_up,
        };
        (publishers, inputs)
    }

    /// Publishes the options of another configuration; parts whose options are the same are not notified.
    pub(super) fn publish(&self, options: PartOptions) {
        let PartOptions { credentials, token, pool, desired, sinks, admin, invites, fingerprint, catch_up } =
            options;
        self.credentials.publish(credentials);
        self.token.publish(token);
        self.pool.send_replace(pool);
        self.sinks.publish(sinks);
        self.admin.publish(admin);
        self.invites.publish(invites);
        self.fingerprint.publish(fingerprint);
        self.catch_up.publish(catch_up);
        self.desired.send_replace(desired);
    }

    /// Has the reconciler move everything to the current webhook secret.
    pub(super) fn publish_keys(&self, config: &Config, keys: &WebhookKeys) {
        self.desired.send_replace(options::desired(config, Some(keys), self.generation()));
    }

    /// The number of the configuration in force.
    pub(super) fn generation(&self) -> u64 {
        self.config.borrow().generation
    }

    /// The addresses that are bound for this configuration, which is the running one.
    pub(super) fn bound<'a>(&self, config: &'a Config) -> Old<'a> {
        Old {
            config,
            admin: self.admin.borrow().as_ref().map(|admin| admin.listener().clone()),
            invites: self.invites.borrow().as_ref().and_then(InviteOptions::listener).cloned(),
        }
    }

    /// Settings of the pool that a reload does not change.
    pub(super) fn pool_basis(&self) -> (Outward, Timings) {
        let pool = self.pool.borrow();
        (pool.outward.clone(), pool.timings.clone())
    }
}
