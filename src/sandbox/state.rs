//! Everything that the stand-in knows. One lock, held for bookkeeping only, never over an await.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::auth::refusal;
use super::authorize::Codes;
use super::bucket::Bucket;
use super::dispatch::Address;
use super::fault::Planned;
use super::message::Message;
use super::server::Answer;
use super::stats::Stats;
use super::tokens::Tokens;
use super::webhook::sender::Slots;
use super::webhook::{Endpoint, WebhookOptions};
use super::{SandboxOptions, Users};
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;
use crate::samples::Happenings;

/// Messages that are kept for sending again.
const KEPT_MESSAGES: usize = 1_000;
/// Message ids that are kept.
const KEPT_IDS: usize = 200_000;

/// Rate limit and latency of the API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) bucket: u32,
    pub(super) refill_per_minute: u32,
    pub(super) latency: Duration,
}

/// A device that waits for somebody's leave (Twitch: "Device code grant flow").
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) client_id: String,
    pub(super) user_code: String,
    pub(super) scopes: Vec<String>,
    pub(super) until: Instant,
    pub(super) answer: DeviceAnswer,
}

/// State of a device code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeviceAnswer {
    Waiting,
    /// By this user id.
    Allowed(String),
    Refused,
}

/// The transport of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Conduit(String),
    Webhook(Arc<Endpoint>),
}

#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) status: String,
    pub(super) kind: String,
    pub(super) version: String,
    /// Every field of the type, in the catalogue's order; empty when omitted.
    pub(super) condition: Vec<(String, String)>,
    pub(super) target: Target,
    pub(super) cost: u64,
    pub(super) created_at: Timestamp,
}

impl Subscription {
    pub(super) fn is_live(&self) -> bool {
        self.status == "enabled" || self.status == "webhook_callback_verification_pending"
    }

    /// Equal subscriptions have equal keys, whatever their transport.
    pub(super) fn key(&self) -> String {
        key(&self.client_id, &self.kind, &self.version, &self.condition)
    }

    pub(super) fn condition(&self) -> Condition {
        Condition::from_pairs(self.condition.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }

    /// The user whose channel decides on the shard.
    pub(super) fn channel(&self) -> &str {
        let field = |name: &str| {
            self.condition.iter().find(|(k, v)| k == name && !v.is_empty()).map(|(_, v)| v.as_str())
        };
        [
            "broadcaster_user_id",
            "broadcaster_id",
            "to_broadcaster_user_id",
            "from_broadcaster_user_id",
            "user_id",
        ]
        .into_iter()
        .find_map(field)
        .unwrap_or_default()
    }
}

pub(super) fn key(client_id: &str, kind: &str, version: &str, condition: &[(String, String)]) -> String {
    let mut text = format!("{client_id}\n{kind}\n{version}");
    for (name, value) in condition {
        text.push('\n');
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}

/// A shard that has, or had, a transport.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) status: String,
    pub(super) session: Option<String>,
    pub(super) webhook: Option<Arc<Endpoint>>,
    pub(super) connected_at: Timestamp,
    pub(super) disconnected_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Conduit {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) shard_count: u32,
    pub(super) shards: BTreeMap<u32, Shard>,
}

/// Orders to a session's task.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// A message of the session itself.
    Text(Utf8Bytes),
    /// Events, with their ids, which are counted once they are written.
    Events(Vec<(String, Utf8Bytes)>),
    Ping,
    Close(u16),
    /// End the connection without a close frame.
    Kill,
    /// Send and read nothing any more, and keep the connection.
    Silence,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The current socket; an old one may live beside it for a while.
    pub(super) socket: u64,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) silent: bool,
    pub(super) connected_at: Timestamp,
    /// The reconnect that was asked for.
    pub(super) challenge: Option<String>,
}

/// The mock's mutable state.
pub(super) struct State {
    pub(super) secret: String,
    pub(super) tokens: Tokens,
    pub(super) codes: Codes,
    /// By device code.
    pub(super) devices: HashMap<String, Device>,
    pub(super) buckets: HashMap<String, Bucket>,
    pub(super) pace: Pace,
    pub(super) faults: Vec<Planned>,
    pub(super) conduits: Vec<Conduit>,
    /// By order of creation.
    pub(super) subscriptions: BTreeMap<u64, Subscription>,
    pub(super) by_id: HashMap<String, u64>,
    pub(super) by_key: HashMap<String, Vec<u64>>,
    pub(super) sessions: HashMap<String, Session>,
    /// Login by id.
    pub(super) logins: HashMap<String, String>,
    /// Scopes by user id.
    pub(super) grants: BTreeMap<String, BTreeSet<String>>,
    pub(super) messages: VecDeque<(Message, Address)>,
    pub(super) sent: VecDeque<String>,
    pub(super) webhook: WebhookOptions,
    /// Answers of callbacks to notifications and revocations by status; none stands for no answer.
    pub(super) answers: BTreeMap<Option<u16>, u64>,
    /// Ids of messages that a callback answered with 2xx.
    pub(super) accepted: VecDeque<String>,
    pub(super) serial: u64,
    /// What the samples sent so far have begun.
    pub(super) happenings: Happenings,
}

/// Shared by all tasks of the mock.
pub(super) struct Inner {
    pub(super) options: SandboxOptions,
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) stats: watch::Sender<Stats>,
    pub(super) slots: Slots,
    state: Mutex<State>,
    /// Makes the ids of one run differ from those of another.
    run: u32,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(options: SandboxOptions, address: SocketAddr, stop: CancellationToken) -> Self {
        let logins = match &options.users {
            Users::Any => HashMap::new(),
            Users::Listed(users) => users.iter().cloned().collect(),
        };
        let state = State {
            secret: options.client_secret.clone(),
            tokens: Tokens::default(),
            codes: Codes::default(),
            devices: HashMap::new(),
            buckets: HashMap::new(),
            pace: Pace {
                bucket: options.bucket,
                refill_per_minute: options.refill_per_minute,
                latency: options.latency,
            },
            faults: Vec::new(),
            conduits: Vec::new(),
            subscriptions: BTreeMap::new(),
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            sessions: HashMap::new(),
            logins,
            grants: BTreeMap::new(),
            messages: VecDeque::new(),
            sent: VecDeque::new(),
            webhook: options.webhook.clone(),
            answers: BTreeMap::new(),
            accepted: VecDeque::new(),
            serial: 0,
            happenings: Happenings::default(),
        };
        Self {
            options,
            address,
            stop,
            stats: watch::Sender::default(),
            slots: Slots::default(),
            state: Mutex::new(state),
            run: fastrand::u32(..),
        }
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

    /// Checks the client id and the secret of a token request.
    pub(super) fn check_client(&self, client_id: &str, secret: Option<&str>) -> Result<(), Answer> {
        let secret = secret.ok_or_else(|| refusal(400, "missing client secret"))?;
        if !self.is_client(client_id) {
            return Err(refusal(400, "invalid client"));
        }
        if client_id == self.options.client_id && secret != self.lock().secret {
            return Err(refusal(403, "invalid client secret"));
        }
        Ok(())
    }

    /// An id in the form of a UUID.
    pub(super) fn uuid(&self, state: &mut State) -> String {
        state.serial += 1;
        let (high, low) = ((state.serial >> 16) & 0xffff, state.serial & 0xffff);
        format!(
            "{:08x}-{high:04x}-4{:03x}-8000-{:08x}{low:04x}",
            self.run,
            low & 0xfff,
            self.run.rotate_left(7)
        )
    }

    /// A text of this many letters and digits that nobody can guess.
    pub(super) fn random_text(length: usize) -> String {
        std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
    }

    /// The id of a login, if there is such a user.
    pub(super) fn id_of(&self, state: &mut State, login: &str) -> Option<String> {
        let login = login.to_ascii_lowercase();
        match &self.options.users {
            Users::Listed(users) => users.iter().find(|(_, l)| *l == login).map(|(id, _)| id.clone()),
            Users::Any if login.starts_with("missing_") || login.is_empty() => None,
            Users::Any => {
                let mut hash = 0xcbf2_9ce4_8422_2325_u64;
                for byte in login.bytes() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                let id = (100_000_000 + hash % 900_000_000_000).to_string();
                state.logins.insert(id.clone(), login);
                Some(id)
            }
        }
    }

    /// The login of an id, if there is such a user.
    pub(super) fn login_of(&self, state: &State, id: &str) -> Option<String> {
        let known = state.logins.get(id).cloned();
        match &self.options.users {
            Users::Listed(_) => known,
            Users::Any if id.bytes().all(|b| b.is_ascii_digit()) && !id.is_empty() => {
                Some(known.unwrap_or_else(|| format!("user_{id}")))
            }
            Users::Any => None,
        }
    }
}

impl State {
    pub(super) fn add(&mut self, subscription: Subscription) {
        self.serial += 1;
        self.by_id.insert(subscription.id.clone(), self.serial);
        self.by_key.entry(subscription.key()).or_default().push(self.serial);
        self.subscriptions.insert(self.serial, subscription);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Subscription> {
        let serial = self.by_id.remove(id)?;
        let subscription = self.subscriptions.remove(&serial)?;
        let key = subscription.key();
        if let Some(equal) = self.by_key.get_mut(&key) {
            equal.retain(|other| *other != serial);
            if equal.is_empty() {
                self.by_key.remove(&key);
            }
        }
        Some(subscription)
    }

    pub(super) fn subscription(&self, id: &str) -> Option<&Subscription> {
        self.subscriptions.get(self.by_id.get(id)?)
    }

    pub(super) fn subscription_mut(&mut self, id: &str) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(self.by_id.get(id)?)
    }

    pub(super) fn conduit_mut(&mut self, client_id: &str, id: &str) -> Option<&mut Conduit> {
        self.conduits.iter_mut().find(|conduit| conduit.id == id && conduit.client_id == client_id)
    }

    pub(super) fn total_cost(&self, client_id: &str) -> u64 {
        let mine = self.subscriptions.values().filter(|s| s.client_id == client_id && s.is_live());
        mine.map(|subscription| subscription.cost).sum()
    }

    /// Takes a conduit away; what pointed to it is dead.
    pub(super) fn delete_conduit(&mut self, id: &str) -> bool {
        let before = self.conduits.len();
        self.conduits.retain(|conduit| conduit.id != id);
        for subscription in self.subscriptions.values_mut() {
            if matches!(&subscription.target, Target::Conduit(of) if of == id) && subscription.is_live() {
                "conduit_deleted".clone_into(&mut subscription.status);
            }
        }
        self.conduits.len() < before
    }

    /// A session has ended: its shards are disabled. Tells which: by conduit and number.
    pub(super) fn end_session(&mut self, id: &str, status: &str) -> Vec<(String, u32)> {
        self.sessions.remove(id);
        let mut disabled = Vec::new();
        for conduit in &mut self.conduits {
            for (number, shard) in &mut conduit.shards {
                if shard.session.as_deref() == Some(id) {
                    status.clone_into(&mut shard.status);
                    shard.disconnected_at = Some(Timestamp(SystemTime::now()));
                    disabled.push((conduit.id.clone(), *number));
                }
            }
        }
        disabled
    }

    pub(super) fn is_bound(&self, session: &str) -> bool {
        let mut shards = self.conduits.iter().flat_map(|conduit| conduit.shards.values());
        shards.any(|shard| shard.session.as_deref() == Some(session))
    }

    pub(super) fn keep_message(&mut self, message: Message, address: Address) {
        if self.messages.len() == KEPT_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back((message, address));
    }

    pub(super) fn note_sent(&mut self, id: String) {
        keep_id(&mut self.sent, id);
    }

    /// Counts a callback's answer to a message.
    pub(super) fn note_answer(&mut self, id: &str, status: Option<u16>) {
        *self.answers.entry(status).or_default() += 1;
        if status.is_some_and(|status| (200..300).contains(&status)) {
            keep_id(&mut self.accepted, id.to_owned());
        }
    }
}

fn keep_id(kept: &mut VecDeque<String>, id: String) {
    if kept.len() == KEPT_IDS {
        kept.pop_front();
    }
    kept.push_back(id);
}

pub(super) type Shared = Arc<Inner>;
