//! What a person can ask of the running daemon: the values that each part publishes in a `watch`,
//! and the whole of them as `status --json` prints it.
//!
//! Fields are added, never renamed: programs read this. Nothing in here may hold a secret.

#![warn(missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::Seq;
use super::grants::Scopes;
use super::obstacle::Obstacle;
use super::route::SinkName;
use super::shard::{SessionId, ShardId};
use super::subscription::{SubscriptionId, SubscriptionKey};
use super::subscriptions::{LoginNames, SubscriptionCounts, Subscriptions};
use super::tally::{Durations, ReconnectCause};
use super::text::counted;
use super::time::Timestamp;

/// Everything, as `status --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// When this status was made.
    pub now: Timestamp,
    /// Whether the token is valid, the transport is up, and the first reconcile is done.
    pub ready: bool,
    /// What keeps it from being ready.
    #[serde(default)]
    pub not_ready: Vec<String>,
    /// Whether Twitch matches the newest configuration, as far as it can.
    pub converged: bool,
    /// What is wrong, worst first, each with what to do.
    pub problems: Vec<Problem>,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// The app access token.
    pub token: TokenStatus,
    /// The API client.
    pub api: ApiStatus,
    /// The reconciler, without its subscriptions.
    pub reconcile: ReconcileStatus,
    /// Numbers of subscriptions.
    #[serde(default)]
    pub subscription_counts: SubscriptionCounts,
    /// The first subscriptions that cannot be created now, up to [`SHOWN_PARKED`].
    #[serde(default)]
    pub parked: Vec<SubscriptionEntry>,
    /// Every subscription of the file. Only for this process: `/subscriptions` has them in pages.
    #[serde(skip)]
    pub subscriptions: Subscriptions,
    /// The WebSocket shards.
    pub shards: Vec<ShardStatus>,
    /// What came in.
    pub intake: IntakeStatus,
    /// When events may have been missed.
    #[serde(default)]
    pub gaps: GapsStatus,
    /// The webhook listener, when there is one.
    #[serde(default)]
    pub webhook: Option<WebhookStatus>,
    /// The event store.
    pub store: StoreStatus,
    /// The sinks.
    pub sinks: Vec<SinkStatus>,
    /// The admin endpoint, when there is one.
    #[serde(default)]
    pub admin: Option<AdminStatus>,
}

/// Parked subscriptions in a status; the list of subscriptions has all.
pub const SHOWN_PARKED: usize = 100;

/// How a daemon is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything works, and Twitch matches the file.
    Good,
    /// Events come in, and something needs attention or time.
    Impaired,
    /// The daemon is not ready.
    Bad,
}

impl Status {
    /// Takes these subscriptions, and what follows from them.
    pub fn set_subscriptions(&mut self, subscriptions: Subscriptions) {
        self.subscription_counts = subscriptions.counts().clone();
        let is_parked = |entry: &&SubscriptionEntry| entry.state == SubscriptionState::Parked;
        let parked = self.subscription_counts.parked + self.subscription_counts.own_parked;
        let shown = SHOWN_PARKED.min(usize::try_from(parked).unwrap_or(usize::MAX));
        self.parked = subscriptions.iter().filter(is_parked).take(shown).cloned().collect();
        self.subscriptions = subscriptions;
    }

    /// The verdict on the whole, with a sentence that the command line and the page show.
    pub fn verdict(&self) -> (Health, String) {
        match (self.converged, self.ready, self.problems.len()) {
            (true, _, 0) => (Health::Good, "all is well".to_owned()),
            (true, _, problems) => {
                (Health::Impaired, format!("running, {}", counted(problems as u64, "problem")))
            }
            (false, true, _) => (Health::Impaired, "running, Twitch does not match the file yet".to_owned()),
            (false, false, _) => (Health::Bad, "not ready".to_owned()),
        }
    }
}

/// The admin endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminStatus {
    /// The address that it listens on.
    pub listen: String,
    /// Whether it asks for a token.
    pub token: bool,
    /// Connections that are open.
    #[serde(default)]
    pub connections: u64,
    /// How many connections there may be.
    #[serde(default)]
    pub places: u64,
    /// Open connections whose client has not shown the token; without a token, those without a request that was
    /// let in.
    #[serde(default)]
    pub unproved: u64,
    /// Connections that had to make room for others since the start.
    #[serde(default)]
    pub evicted: u64,
    /// What is wrong with it.
    #[serde(default)]
    pub problem: Option<String>,
}

/// Something that a person should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which part: `token`, `store`, `shard 0`, `sink log`, ….
    pub part: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file, from the root on.
    pub path: String,
    /// Where the daemon keeps its state.
    #[serde(default)]
    pub state_directory: String,
    /// Whether the daemon runs with the sandbox inside.
    #[serde(default)]
    pub sandbox: bool,
    /// The flags with which commands find this daemon, each with a blank before it; empty when they need none.
    #[serde(default)]
    pub flags: String,
    /// 1 for the one that the daemon started with; one more for each reload that was accepted.
    pub generation: u64,
    /// When it was accepted.
    pub loaded_at: Timestamp,
    /// The last reload that was refused, until one is accepted.
    pub refused: Option<RefusedReload>,
    /// Reloads refused since the start.
    #[serde(default)]
    pub reloads_refused: u64,
}

/// A reload that was refused: the old configuration stayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// When.
    pub at: Timestamp,
    /// Every problem of the file, as `check` prints it.
    pub errors: Vec<String>,
}

/// What the token keeper is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// No token yet; one is being asked for.
    #[default]
    Minting,
    /// A token that serves.
    Valid,
    /// A token that serves, while its successor is asked for.
    Renewing,
    /// Twitch refuses the client id or the secret.
    Refused,
    /// No token, and Twitch cannot be reached or fails.
    Unavailable,
}

/// The app access token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// What the keeper is doing.
    pub state: TokenState,
    /// When the token ends, when Twitch has said.
    pub expires_at: Option<Timestamp>,
    /// When Twitch last confirmed it.
    pub validated_at: Option<Timestamp>,
    /// Tokens asked for and got since the start.
    pub mints: u64,
    /// Validations that confirmed the token since the start.
    pub validations: u64,
    /// What is wrong, if anything.
    pub problem: Option<String>,
    /// Tokens asked for and refused since the start, for the client id or the secret.
    #[serde(default)]
    pub mints_refused: u64,
    /// Tokens asked for in vain since the start, for a reason that may pass.
    #[serde(default)]
    pub mints_failed: u64,
    /// Validations that found the token dead since the start.
    #[serde(default)]
    pub validations_dead: u64,
    /// Validations that were not answered since the start.
    #[serde(default)]
    pub validations_failed: u64,
}

/// The API client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStatus {
    /// Size of the rate limit bucket, in points.
    pub limit: Option<u32>,
    /// Points left, as far as known.
    pub remaining: Option<u32>,
    /// Requests sent since the start.
    pub requests: u64,
    /// Answers of 429 since the start, of both meanings.
    pub rate_limited: u64,
    /// The last failure, until a request succeeds.
    pub problem: Option<String>,
    /// Answers since the start, by route (`GET /users`) and status; `none` counts requests without an answer.
    #[serde(default)]
    pub answers: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The reconciler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReconcileStatus {
    /// The generation of the configuration that the last complete run was made for; 0 before.
    pub generation: u64,
    /// Whether that run left nothing to do but what is parked.
    pub converged: bool,
    /// The run in hand.
    pub progress: Option<Progress>,
    /// When the last complete run ended.
    pub finished_at: Option<Timestamp>,
    /// When an earlier process last left Twitch as the file is. The daemon is ready with that; its own first comparison
    /// follows. `None` if the file is another one, or that was more than a day ago.
    #[serde(default)]
    pub remembered: Option<Timestamp>,
    /// The conduit.
    pub conduit: Option<ConduitStatus>,
    /// Sum of the costs of all subscriptions of the client.
    pub total_cost: Option<u64>,
    /// Its limit.
    pub max_total_cost: Option<u64>,
    /// Deletes that wait for `apply --allow-deletes`.
    pub deletes_held: Option<HeldDeletes>,
    /// Subscriptions that are on their way to another method, callback or secret.
    #[serde(default)]
    pub moving: u64,
    /// Why the last run ended early, until one is complete.
    pub problem: Option<String>,
    /// What kind of failure that was.
    #[serde(default)]
    pub problem_kind: Option<ProblemKind>,
    /// The generation of the configuration that the last plan was made for; 0 before.
    #[serde(default)]
    pub planned: u64,
    /// The ticket of the last request to run that was answered: by a run that began after it and has ended.
    #[serde(default)]
    pub answered: u64,
    /// Things that need a person but do not stop the run, each with what to do.
    pub warnings: Vec<String>,
    /// What users have granted whose grants were looked at for subscriptions that are not there yet.
    #[serde(default)]
    pub grants: Vec<GrantStatus>,
}

/// Why a run ended early, as far as it tells what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Twitch refuses the credentials.
    Credentials,
    /// Twitch cannot be reached, or fails; it may work the next time.
    Outage,
    /// Anything else: a person has to act.
    Other,
}

/// What a user has granted to the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// Twitch's id of the user.
    pub user_id: Box<str>,
    /// The login, when it is known.
    pub login: Option<Box<str>>,
    /// The scopes that are granted.
    pub granted: Scopes,
    /// The fewest that are missing.
    pub missing: Scopes,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Actions done.
    pub done: u64,
    /// Actions planned.
    pub total: u64,
}

/// The conduit in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConduitStatus {
    /// Twitch's id.
    pub id: String,
    /// Its number of shards.
    pub shard_count: u32,
}

/// A plan that deletes more than `reconcile.max_delete` allows, or everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDeletes {
    /// How many would be deleted.
    pub deletes: u64,
    /// How many there are of ours, without the daemon's own.
    pub ours: u64,
}

impl HeldDeletes {
    /// What would be deleted, as people read it.
    pub fn sentence(&self) -> String {
        match (self.deletes, self.ours) {
            (1, 1) => "the only subscription would be deleted".to_owned(),
            (deletes, ours) if deletes >= ours => format!("all {deletes} subscriptions would be deleted"),
            (deletes, ours) => format!(
                "{deletes} of {ours} subscriptions would be deleted, more than reconcile.max_delete allows"
            ),
        }
    }
}

/// The state of one subscription of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Twitch delivers.
    Enabled,
    /// Not looked at yet, or to be created in this run or the next.
    Pending,
    /// Cannot be created now; tried again slowly and on reload.
    Parked,
}

/// One subscription of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionEntry {
    /// Type, version and condition; logins that are not resolved stand as `@login`.
    #[serde(flatten)]
    pub key: SubscriptionKey,
    /// Its state.
    pub state: SubscriptionState,
    /// Twitch's id, when there is one.
    pub id: Option<SubscriptionId>,
    /// Why it is not enabled, and what to do.
    pub reason: Option<Box<str>>,
    /// What kind of obstacle that is, while it is parked.
    #[serde(default)]
    pub obstacle: Option<Obstacle>,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// Whether the daemon keeps it for itself, to hear of grants and of shards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// The logins that the file names it by, where the condition has ids.
    #[serde(default, skip_serializing_if = "LoginNames::is_empty")]
    pub logins: LoginNames,
}

/// What a WebSocket shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// Opening the connection, or waiting for its turn.
    Connecting,
    /// Connected, no welcome yet.
    AwaitingWelcome,
    /// Welcomed; waits to be bound to its shard.
    AwaitingBinding,
    /// Delivering.
    Bound,
    /// Twitch asked for a reconnect: the old socket is read until the new one is welcomed.
    HandingOver,
    /// Pausing before the next attempt.
    Waiting,
}

impl ShardState {
    /// Whether Twitch delivers to it.
    pub fn delivers(self) -> bool {
        matches!(self, Self::Bound | Self::HandingOver)
    }
}

/// One WebSocket shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard: ShardId,
    /// What it is doing.
    pub state: ShardState,
    /// Since when.
    pub since: Timestamp,
    /// The session that it reads.
    pub session_id: Option<SessionId>,
    /// Connections lost since the start, server-asked reconnects not counted.
    pub losses: u64,
    /// Server-asked reconnects since the start.
    pub reconnects: u64,
    /// Notifications received since the start.
    pub events: u64,
    /// Why it is not delivering, or what happened last.
    pub problem: Option<String>,
}

/// Why events may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// A shard's connection was lost or fell silent, or nothing listened for webhooks.
    ConnectionLost,
    /// A shard was bound to somebody else.
    ShardTaken,
    /// Twitch had disabled a shard.
    ShardDisabled,
    /// The daemon did not run.
    DaemonStopped,
    /// The process or the machine stood still.
    DaemonPaused,
    /// The conduit was gone, and its subscriptions with it.
    ConduitReplaced,
    /// Subscriptions were gone.
    SubscriptionGone,
    /// The store removed events before a sink had them.
    Retention,
}

impl GapReason {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::ConnectionLost,
        Self::ShardTaken,
        Self::ShardDisabled,
        Self::DaemonStopped,
        Self::DaemonPaused,
        Self::ConduitReplaced,
        Self::SubscriptionGone,
        Self::Retention,
    ];

    /// Its name, as the JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectionLost => "connection_lost",
            Self::ShardTaken => "shard_taken",
            Self::ShardDisabled => "shard_disabled",
            Self::DaemonStopped => "daemon_stopped",
            Self::DaemonPaused => "daemon_paused",
            Self::ConduitReplaced => "conduit_replaced",
            Self::SubscriptionGone => "subscription_gone",
            Self::Retention => "retention",
        }
    }

    /// The reason in words.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::ConnectionLost => "the connection to Twitch was lost",
            Self::ShardTaken => "a shard was bound to another session",
            Self::ShardDisabled => "Twitch had disabled a shard",
            Self::DaemonStopped => "the daemon did not run",
            Self::DaemonPaused => "the process or the machine stood still",
            Self::ConduitReplaced => "the conduit was gone, and its subscriptions with it",
            Self::SubscriptionGone => "subscriptions were gone at Twitch",
            Self::Retention => "the store removed events before a sink had them",
        }
    }
}

/// What is known of times in which events may have been missed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapsStatus {
    /// Gaps told since the start, by reason.
    pub told: BTreeMap<GapReason, u64>,
    /// The last 20 of them, newest first.
    pub recent: Vec<ToldGap>,
    /// A gap that is not over.
    pub open: Option<OpenGap>,
}

/// A gap that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldGap {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// Why events may have been missed.
    pub reason: GapReason,
}

/// A time in which events may have been missed, and that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenGap {
    /// Everything that Twitch sent before came in.
    pub since: Timestamp,
    /// Why events may be missed.
    pub reason: GapReason,
}

/// What came in, over all transports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeStatus {
    /// Notifications received.
    pub received: u64,
    /// Notifications that were stored already.
    pub duplicates: u64,
    /// Notifications of what was stored already under another message id.
    #[serde(default)]
    pub doubles: u64,
    /// Messages that could not be read: not JSON, or without what every message has.
    pub malformed: u64,
    /// Messages of a type that this release does not know.
    pub unknown: u64,
    /// Revocations received.
    pub revocations: u64,
    /// Events stored since the start.
    #[serde(default)]
    pub stored: u64,
    /// Shards' connections that had to be made anew since the start, by cause; attempts that failed count too.
    #[serde(default)]
    pub reconnects: BTreeMap<ReconnectCause, u64>,
    /// Events stored in each of the last minutes, up to 60, oldest first; the last is the one in hand.
    #[serde(default)]
    pub per_minute: Arc<[u64]>,
}

/// The webhook listener. What comes over it counts in [`IntakeStatus`] too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// The public URL.
    pub callback: String,
    /// Where it listens: an address, or `systemd`.
    pub listen: String,
    /// Whether it ends TLS itself.
    pub tls: bool,
    /// Secrets that are accepted: more than one while one is replaced.
    pub keys: u64,
    /// Connections that are open.
    pub connections: u64,
    /// How many connections there may be.
    #[serde(default)]
    pub places: u64,
    /// Open connections that have not carried a signed request.
    #[serde(default)]
    pub unproved: u64,
    /// Connections that had to make room for others since the start.
    #[serde(default)]
    pub evicted: u64,
    /// Requests answered since the start.
    pub requests: u64,
    /// Challenges answered since the start.
    pub challenges: u64,
    /// Signed messages that were too old, answered and dropped, since the start.
    pub stale: u64,
    /// Requests refused since the start, by reason (`signature`, `headers`, `method`, `path`, `size`, ...).
    pub rejected: BTreeMap<String, u64>,
    /// Messages answered with 503 since the start: the store could not take them, or the clock of this machine seemed
    /// wrong.
    pub unavailable: u64,
    /// Twitch's clock less ours when the last signed message came, in seconds; its way here counts as ours
    /// being ahead.
    pub clock_skew_seconds: Option<i64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// The event store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Why nothing can be stored at present: the disk is full, or it fails. Intake waits.
    pub problem: Option<String>,
    /// Number of the newest event.
    pub last_seq: Seq,
    /// Number of the oldest event that is kept.
    pub first_seq: Seq,
    /// Events kept.
    pub events: u64,
    /// Size on disk, in bytes.
    pub size: u64,
    /// Its limit, in bytes.
    pub max_size: u64,
    /// Events removed by retention since the start.
    pub removed: u64,
    /// The last time that the clock of this machine was set, for an hour. Events keep their age.
    #[serde(default)]
    pub clock_set: Option<ClockSet>,
    /// How long transactions took since the start, their sync included.
    #[serde(default)]
    pub commits: Durations,
    /// Transactions that failed since the start.
    #[serde(default)]
    pub commit_failures: u64,
}

/// The clock of this machine was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// When, by the new time.
    pub at: Timestamp,
    /// How far it was set forward, in seconds; backward if negative.
    pub by_seconds: i64,
}

/// What a sink is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// Everything stored has been handed over.
    Idle,
    /// Handing over.
    Delivering,
    /// The last try failed; waits for the next.
    Retrying,
    /// The receiver wants no requests for a while.
    Paused,
    /// Ended by a failure of our own; started again soon.
    Failed,
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: SinkName,
    /// `stdout`, `file`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is doing.
    pub state: SinkState,
    /// The last event that it is done with.
    pub cursor: Seq,
    /// Stored events for this sink that it has not got yet.
    pub lag_events: u64,
    /// Age of the oldest event that it has not got, in seconds.
    pub lag_seconds: u64,
    /// Events that are with the receiver, not acknowledged yet.
    #[serde(default)]
    pub in_flight: u64,
    /// Events acknowledged since the start.
    pub delivered: u64,
    /// Tries that failed since the start.
    pub retries: u64,
    /// Events in its dead letters.
    pub dead_letters: u64,
    /// Events that retention removed before the sink had them, ever.
    pub lost: u64,
    /// The last failure, until a try succeeds.
    pub problem: Option<String>,
    /// When the next try comes, while the sink waits after a failure or because its receiver asks for a pause.
    #[serde(default)]
    pub next_try: Option<Timestamp>,
}
