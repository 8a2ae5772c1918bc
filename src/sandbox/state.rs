//! Everything that the stand-in knows, as a sum of owners, each with private fields. One lock, held for bookkeeping
//! only, never over an await.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::SandboxOptions;
use super::authorize::Codes;
use super::buckets::Buckets;
use super::channels::Channels;
use super::conduits::Conduits;
use super::device::Devices;
use super::faults::Faults;
use super::grants::Grants;
use super::history::History;
use super::sessions::SessionTable;
use super::stats::Stats;
use super::subscriptions::Subscriptions;
use super::tokens::Tokens;
use super::users::Directory;
use super::webhook::{Owner, Slots, WebhookOptions};
use crate::model::catalog;
use crate::platform::{self, ENABLED, Moment, Subscription, Transport};
use crate::samples::Happenings;

/// Reports that wait to be told to the client.
const REPORTS: usize = 1_024;

/// Something that the client has to be told of, and that nobody asked for.
#[derive(Clone, Debug)]
pub(super) enum Report {
    /// Too many messages failed: the callback's owner was disabled.
    Disabled(Owner),
}

/// The mock's mutable state.
pub(super) struct State {
    pub(super) secret: String,
    pub(super) users: Directory,
    pub(super) grants: Grants,
    pub(super) tokens: Tokens,
    pub(super) codes: Codes,
    pub(super) devices: Devices,
    pub(super) buckets: Buckets,
    pub(super) faults: Faults,
    pub(super) conduits: Conduits,
    pub(super) subscriptions: Subscriptions,
    pub(super) sessions: SessionTable,
    pub(super) history: History,
    pub(super) webhook: WebhookOptions,
    pub(super) channels: Channels,
    /// Latency of the API.
    pub(super) latency: Duration,
    /// Happenings that the samples sent so far have begun, such as a poll.
    pub(super) happenings: Happenings,
}

/// Shared by all tasks of the mock.
pub(super) struct World {
    pub(super) options: SandboxOptions,
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) stats: watch::Sender<Stats>,
    pub(super) slots: Slots,
    reports: mpsc::Sender<Report>,
    state: Mutex<State>,
    /// Counter that makes samples differ.
    serial: AtomicU64,
}

pub(super) type Shared = Arc<World>;

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Now, as Twitch writes it.
pub(super) fn now() -> Moment {
    Moment(SystemTime::now())
}

pub(super) fn uuid() -> String {
    platform::uuid(fastrand::u128(..))
}

/// A text of this many letters and digits that nobody can guess.
pub(super) fn random_text(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

impl World {
    pub(super) fn new(
        options: SandboxOptions,
        address: SocketAddr,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Report>) {
        let (reports, reported) = mpsc::channel(REPORTS);
        let state = State {
            secret: options.client_secret.clone(),
            users: Directory::new(options.users.clone()),
            grants: Grants::default(),
            tokens: Tokens::default(),
            codes: Codes::default(),
            devices: Devices::default(),
            buckets: Buckets::new(options.bucket, options.refill_per_minute),
            faults: Faults::default(),
            conduits: Conduits::default(),
            subscriptions: Subscriptions::default(),
            sessions: SessionTable::default(),
            history: History::default(),
            webhook: options.webhook.clone(),
            channels: Channels::new(options.stream_delay),
            latency: options.latency,
            happenings: Happenings::default(),
        };
        let world = Self {
            options,
            address,
            stop,
            stats: watch::Sender::default(),
            slots: Slots::default(),
            reports,
            state: Mutex::new(state),
            serial: AtomicU64::new(0),
        };
        (world, reported)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        self.stats.send_modify(change);
    }

    /// Whether there is an application with this client id.
    pub(super) fn is_client(&self, client_id: &str) -> bool {
        client_id == self.options.client_id || self.options.accept_any_client
    }

    /// The id of a login, if there is such a user.
    pub(super) fn id_of(&self, login: &str) -> Option<String> {
        self.lock().users.id_of(login)
    }

    /// A number that grows with each call.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) async fn report(&self, report: Report) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.reports.send(report) => {}
        }
    }
}

impl State {
    /// Takes a conduit away; what pointed to it is dead.
    pub(super) fn delete_conduit(&mut self, id: &str) {
        if self.conduits.remove(id) {
            self.subscriptions.end_conduit(id);
        }
    }

    /// A session has ended: its shards are disabled. Returns which: by conduit and number.
    pub(super) fn end_session(&mut self, id: &str, status: &str) -> Vec<(String, u32)> {
        self.subscriptions.end_session(id, status, now());
        self.conduits.end_session(id, status, now())
    }

    /// Whether a session has a subscription or backs a shard.
    pub(super) fn is_used(&self, session: &str) -> bool {
        self.conduits.uses_session(session) || self.subscriptions.uses_session(session)
    }

    /// Returns the present cost of a subscription. `stranger` is the cost of one whose user granted nothing.
    pub(super) fn cost(&self, subscription: &Subscription, stranger: u64) -> u64 {
        let Some(row) = catalog::lookup(&subscription.kind, &subscription.version) else { return stranger };
        let has_authorized =
            |id: &str| self.grants.has_authorized(id) || subscription.user.as_deref() == Some(id);
        platform::cost(row, &subscription.condition, has_authorized) * stranger
    }

    /// The present callback of an owner and its status.
    pub(super) fn endpoint(&self, owner: &Owner) -> Option<(Arc<platform::Endpoint>, &str)> {
        match owner {
            Owner::Subscription(id) => {
                let subscription = self.subscriptions.get(id)?;
                match &subscription.transport {
                    Transport::Webhook(endpoint) => Some((Arc::clone(endpoint), &subscription.status)),
                    _ => None,
                }
            }
            Owner::Shard { conduit, shard } => {
                let shard = self.conduits.get(conduit)?.shard(*shard)?;
                Some((Arc::clone(shard.endpoint()?), shard.status()))
            }
        }
    }

    /// Gives an owner another status, if it still has this callback and this status.
    pub(super) fn change(
        &mut self,
        owner: &Owner,
        endpoint: &Arc<platform::Endpoint>,
        from: &str,
        to: &str,
    ) -> bool {
        let is_same = self
            .endpoint(owner)
            .is_some_and(|(present, status)| Arc::ptr_eq(&present, endpoint) && status == from);
        is_same
            && match owner {
                Owner::Subscription(id) => self.subscriptions.set_status(id, to).is_some(),
                Owner::Shard { conduit, shard } => self.conduits.set_status(conduit, *shard, to),
            }
    }

    /// The enabled subscriptions of a type, that name this user if given.
    pub(super) fn fitting<'a>(
        &'a self,
        kind: &'a str,
        user_id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Subscription> {
        self.subscriptions.iter().filter(move |subscription| {
            subscription.status == ENABLED
                && subscription.kind == kind
                && user_id.is_none_or(|id| subscription.condition.names(id))
        })
    }
}
