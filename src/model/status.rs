//! Status of the running daemon: the values that each part publishes in a `watch`, and all of them as `status --json`
//! prints them.
//!
//! A stable format: fields are added, never renamed. Must not contain secrets.

#![warn(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterStatus, Role};
pub use super::entry::{SubscriptionEntry, SubscriptionState};
use super::event::Seq;
use super::grants::Scopes;
use super::rate::Rate;
use super::route::SinkName;
use super::shard::{SessionId, ShardId};
use super::subscriptions::{SubscriptionCounts, Subscriptions};
use super::tally::{Durations, ReconnectCause};
use super::text::{counted, duration};
use super::time::Timestamp;

/// The whole status, as `status --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Start of the process.
    pub started_at: Timestamp,
    /// Time of this status.
    pub now: Timestamp,
    /// Whether the token is valid, the transport is up, and the first reconcile run is done.
    pub ready: bool,
    /// Reasons for not being ready.
    #[serde(default)]
    pub not_ready: Vec<String>,
    /// Whether Twitch matches the newest configuration, apart from parked subscriptions.
    pub converged: bool,
    /// Problems, worst first, each with what to do.
    pub problems: Vec<Problem>,
    /// The active configuration.
    pub config: ConfigStatus,
    /// State of the app access token.
    pub token: TokenStatus,
    /// State of the API client.
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
    /// Messages received.
    pub intake: IntakeStatus,
    /// When events may have been missed.
    #[serde(default)]
    pub gaps: GapsStatus,
    /// The webhook listener, if there is one.
    #[serde(default)]
    pub webhook: Option<WebhookStatus>,
    /// State of the event store.
    pub store: StoreStatus,
    /// Sinks of the configuration.
    pub sinks: Vec<SinkStatus>,
    /// The hosts that work together, if there is a `[cluster]`.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
    /// The admin endpoint, if there is one.
    #[serde(default)]
    pub admin: Option<AdminStatus>,
    /// The page for invited users, if there is one.
    #[serde(default)]
    pub authorize: Option<InviteStatus>,
}

/// Parked subscriptions in a status; the list of subscriptions has all.
pub const SHOWN_PARKED: usize = 100;

/// How a daemon is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything works, and Twitch matches the file.
    Good,
    /// Events are received, but something needs attention or time.
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

    /// Whether another host of the cluster does the work at Twitch, or shall.
    pub fn stands_by(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.role != Role::Leader)
    }

    /// Number of shards that deliver, here or on another host of the cluster.
    pub fn delivering_shards(&self) -> usize {
        let here = self.shards.iter().filter(|shard| shard.state.delivers()).map(|shard| shard.shard.0);
        let hosts = self.cluster.iter().flat_map(|cluster| &cluster.hosts);
        here.chain(hosts.flat_map(|host| host.shards.iter().copied())).collect::<BTreeSet<u32>>().len()
    }

    /// The verdict on the whole, with a sentence that the command line and the page show.
    pub fn verdict(&self) -> (Health, String) {
        if let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.role == Role::Standby)
            && self.ready
            && self.problems.is_empty()
        {
            let leader = cluster.leader.as_deref().unwrap_or("another host");
            return (Health::Good, format!("standing by: {leader} leads"));
        }
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

/// State of the admin endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminStatus {
    /// Address that it listens on.
    pub listen: String,
    /// Whether it needs a token.
    pub token: bool,
    /// Open connections.
    #[serde(default)]
    pub connections: u64,
    /// Maximum number of connections.
    #[serde(default)]
    pub places: u64,
    /// Open connections whose client has not shown the token; without a token, those without an accepted request.
    #[serde(default)]
    pub unproved: u64,
    /// Connections closed to make room for others since the start.
    #[serde(default)]
    pub evicted: u64,
    /// Current problem.
    #[serde(default)]
    pub problem: Option<String>,
}

/// State of the page for invited users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteStatus {
    /// Public URL of the page.
    pub redirect_uri: String,
    /// Address that it listens on. `None` means that the webhook's listener serves it.
    pub listen: Option<String>,
    /// Users who were sent to Twitch and have not come back.
    pub visits: u64,
    /// Visits that expired, or made room for others, since the start.
    pub unfinished: u64,
    /// Users who have allowed everything that they were asked for since the start.
    pub granted: u64,
    /// Users who have allowed nothing, or a part, since the start.
    pub declined: u64,
    /// Requests refused since the start: without a valid invite, or of no visit.
    pub refused: u64,
    /// Requests turned away since the start, over the limit or before the file was resolved.
    pub limited: u64,
    /// Grants that Twitch did not confirm since the start.
    pub failed: u64,
    /// Open connections; 0 if the webhook's listener serves the page.
    pub connections: u64,
    /// Maximum number of connections.
    pub places: u64,
    /// Open connections that have not shown an invite.
    pub unproved: u64,
    /// Connections closed to make room for others since it listens.
    pub evicted: u64,
    /// Current problem.
    pub problem: Option<String>,
}

/// A problem that people should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Part with the problem: `token`, `store`, `shard 0`, `sink log`, ….
    pub part: String,
    /// The problem, as a sentence.
    pub message: String,
    /// Advice, a command if there is one.
    pub hint: String,
}

/// The active configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Absolute path of the file.
    pub path: String,
    /// Directory of the daemon's state.
    #[serde(default)]
    pub state_directory: String,
    /// Whether the daemon runs with the sandbox inside.
    #[serde(default)]
    pub sandbox: bool,
    /// Flags with which commands address this daemon, each after a blank; empty if they need none.
    #[serde(default)]
    pub flags: String,
    /// 1 for the configuration at the start; one more with each accepted reload.
    pub generation: u64,
    /// Time at which it was accepted.
    pub loaded_at: Timestamp,
    /// The last refused reload, until one is accepted.
    pub refused: Option<RefusedReload>,
    /// Reloads refused since the start.
    #[serde(default)]
    pub reloads_refused: u64,
}

/// A refused reload; the old configuration stays active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// Time of the reload.
    pub at: Timestamp,
    /// All problems of the file, as `check` prints them.
    pub errors: Vec<String>,
}

/// State of the token keeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// No token yet; a request for one is under way.
    #[default]
    Minting,
    /// The token is usable.
    Valid,
    /// The token is usable, and a new one is requested.
    Renewing,
    /// Twitch refuses the client id or the secret.
    Refused,
    /// No token, and Twitch is unreachable or fails.
    Unavailable,
}

/// The app access token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// State of the keeper.
    pub state: TokenState,
    /// Expiry of the token, if Twitch has stated it.
    pub expires_at: Option<Timestamp>,
    /// Time at which Twitch last confirmed it.
    pub validated_at: Option<Timestamp>,
    /// Tokens obtained since the start.
    pub mints: u64,
    /// Validations that confirmed the token since the start.
    pub validations: u64,
    /// Current problem.
    pub problem: Option<String>,
    /// Requests for a token that were refused since the start, because of the client id or the secret.
    #[serde(default)]
    pub mints_refused: u64,
    /// Requests for a token that failed temporarily since the start.
    #[serde(default)]
    pub mints_failed: u64,
    /// Validations since the start that found the token dead.
    #[serde(default)]
    pub validations_dead: u64,
    /// Validations without a usable response since the start.
    #[serde(default)]
    pub validations_failed: u64,
}

/// State of the API client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStatus {
    /// Size of the rate limit bucket, in points.
    pub limit: Option<u32>,
    /// Remaining points, if known.
    pub remaining: Option<u32>,
    /// Requests sent since the start.
    pub requests: u64,
    /// Responses with status 429 since the start, of both meanings.
    pub rate_limited: u64,
    /// The last failure, until a request succeeds.
    pub problem: Option<String>,
    /// Responses since the start, by route (`GET /users`) and status; `none` counts requests without a response.
    #[serde(default)]
    pub answers: BTreeMap<String, BTreeMap<String, u64>>,
}

/// State of the reconciler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReconcileStatus {
    /// Generation of the configuration that the last complete run was made for; 0 before.
    pub generation: u64,
    /// Whether that run left only parked subscriptions to do.
    pub converged: bool,
    /// Progress of the current run.
    pub progress: Option<Progress>,
    /// End of the last complete run.
    pub finished_at: Option<Timestamp>,
    /// When an earlier process last left Twitch as the file is. The daemon is ready with that; its own first comparison
    /// follows. `None` if the file is another one, or that was more than a day ago.
    #[serde(default)]
    pub remembered: Option<Timestamp>,
    /// The conduit.
    pub conduit: Option<ConduitStatus>,
    /// Sum of the costs of all subscriptions of the client.
    pub total_cost: Option<u64>,
    /// Limit of the total cost.
    pub max_total_cost: Option<u64>,
    /// Deletes that wait for `apply --allow-deletes`.
    pub deletes_held: Option<HeldDeletes>,
    /// Subscriptions moving to another method, callback or secret.
    #[serde(default)]
    pub moving: u64,
    /// Reason why the last run ended early, until one is complete.
    pub problem: Option<String>,
    /// Kind of that failure.
    #[serde(default)]
    pub problem_kind: Option<ProblemKind>,
    /// Generation of the configuration that the last plan was made for; 0 before.
    #[serde(default)]
    pub planned: u64,
    /// Ticket of the last answered request to run: a run that began after it has ended.
    #[serde(default)]
    pub answered: u64,
    /// Warnings that need a person but do not stop the run, each with what to do.
    pub warnings: Vec<String>,
    /// Grants of the users that missing subscriptions need.
    #[serde(default)]
    pub grants: Vec<GrantStatus>,
}

/// Kind of a failed run, as far as it decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Twitch refuses the credentials.
    Credentials,
    /// Twitch is unreachable or fails; the next run may succeed.
    Outage,
    /// Any other problem, which needs a person.
    Other,
}

/// Scopes that a user has granted to the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// Twitch's id of the user.
    pub user_id: Box<str>,
    /// Login, if known.
    pub login: Option<Box<str>>,
    /// Scopes that are granted.
    pub granted: Scopes,
    /// The fewest scopes that are missing.
    pub missing: Scopes,
}

/// Progress of a run.
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
    /// Twitch's id of the conduit.
    pub id: String,
    /// Number of its shards.
    pub shard_count: u32,
}

/// A plan with more deletes than `reconcile.max_delete` allows, or that deletes everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDeletes {
    /// Number of planned deletes.
    pub deletes: u64,
    /// Number of our subscriptions, without the daemon's own.
    pub ours: u64,
}

impl HeldDeletes {
    /// Describes the planned deletes.
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

/// State of a WebSocket shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// Opening the connection, or waiting for its turn.
    Connecting,
    /// Connected, without a welcome yet.
    AwaitingWelcome,
    /// Welcomed, but not bound to its shard yet.
    AwaitingBinding,
    /// Delivering.
    Bound,
    /// Twitch asked for a reconnect: the old socket is read until the new one is welcomed.
    HandingOver,
    /// Pausing before the next attempt.
    Waiting,
}

impl ShardState {
    /// Returns whether Twitch delivers to the shard.
    pub fn delivers(self) -> bool {
        matches!(self, Self::Bound | Self::HandingOver)
    }
}

/// State of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Number of the shard within its conduit.
    pub shard: ShardId,
    /// State of the shard.
    pub state: ShardState,
    /// Time of the last change of `state`.
    pub since: Timestamp,
    /// Session that it reads.
    pub session_id: Option<SessionId>,
    /// Connections lost since the start, without reconnects that the server asked for.
    pub losses: u64,
    /// Reconnects since the start that the server asked for.
    pub reconnects: u64,
    /// Notifications received since the start.
    pub events: u64,
    /// Reason why it is not delivering, or its last problem.
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
    /// All reasons.
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

    /// Name in the JSON.
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

/// Times in which events may have been missed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapsStatus {
    /// Gaps told since the start, by reason.
    pub told: BTreeMap<GapReason, u64>,
    /// The last 20 of them, newest first.
    pub recent: Vec<ToldGap>,
    /// A gap that is not over.
    pub open: Option<OpenGap>,
    /// The catch-up that is under way.
    #[serde(default)]
    pub catch_up: Option<CatchUpStatus>,
    /// Events that catch-ups made since the start.
    #[serde(default)]
    pub mended: u64,
}

/// A catch-up: Twitch is asked what has changed on channels while events may have been missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUpStatus {
    /// Start of the catch-up.
    pub since: Timestamp,
    /// Number of gaps that it mends; 0 if it only learns how channels are of which nothing is known.
    pub gaps: u64,
    /// 1 to 3: Twitch is asked three times, since its answers may be two minutes old. 0 as with `gaps`.
    pub look: u64,
    /// Number of channels.
    pub channels: u64,
    /// Channels that this look is done with.
    pub asked: u64,
    /// Events stored so far, by type.
    pub found: BTreeMap<String, u64>,
    /// Time of the next look. `None` while one is under way.
    pub next_look: Option<Timestamp>,
    /// Current problem.
    pub problem: Option<String>,
}

/// The outcome of a catch-up in words.
pub fn mended(events: u64) -> String {
    if events == 0 {
        "caught up: nothing had changed".to_owned()
    } else {
        format!("caught up with {}", counted(events, "event"))
    }
}

impl CatchUpStatus {
    /// The progress in words.
    pub fn in_words(&self, now: Timestamp) -> String {
        let mut text = match (self.gaps, self.next_look) {
            (0, _) => "asking Twitch how new channels are".to_owned(),
            (_, None) => format!("asking Twitch what has changed during a gap, time {} of 3", self.look),
            (_, Some(next)) => {
                let wait = duration(next.since(now));
                format!("Twitch's answers may have been too old; asking again in {wait}")
            }
        };
        let _ = write!(text, "; {} of {} done", self.asked, counted(self.channels, "channel"));
        let found: u64 = self.found.values().sum();
        if found > 0 {
            let _ = write!(text, ", {} so far", counted(found, "event"));
        }
        if let Some(problem) = &self.problem {
            let _ = write!(text, "; waiting: {problem}");
        }
        text
    }
}

impl Default for CatchUpStatus {
    fn default() -> Self {
        Self {
            since: Timestamp::from_unix_millis(0),
            gaps: 0,
            look: 0,
            channels: 0,
            asked: 0,
            found: BTreeMap::new(),
            next_look: None,
            problem: None,
        }
    }
}

/// A gap that was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldGap {
    /// Message id of its event.
    #[serde(default)]
    pub id: Box<str>,
    /// Time from which on events may have been missed.
    pub from: Timestamp,
    /// End of that time.
    pub to: Timestamp,
    /// Why events may have been missed.
    pub reason: GapReason,
    /// Number of events that a catch-up made for it and those around it. `None` means that there was no catch-up, or
    /// that it is not over.
    #[serde(default)]
    pub mended: Option<u64>,
}

/// A time in which events may have been missed, and that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenGap {
    /// Everything that Twitch sent before came in.
    pub since: Timestamp,
    /// Why events may be missed.
    pub reason: GapReason,
}

/// Messages that came in, over all transports.
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
    /// Messages of a type unknown to this release.
    pub unknown: u64,
    /// Revocations received.
    pub revocations: u64,
    /// Events stored since the start.
    #[serde(default)]
    pub stored: u64,
    /// Reconnects of shards since the start by cause, failed attempts included.
    #[serde(default)]
    pub reconnects: BTreeMap<ReconnectCause, u64>,
    /// Events stored in each of the last minutes, up to 60, oldest first; the last minute is not over.
    #[serde(default)]
    pub per_minute: Arc<[u64]>,
}

/// The webhook listener. Its messages count in [`IntakeStatus`] too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// Public URL that Twitch calls.
    pub callback: String,
    /// Address that it listens on, or `systemd`.
    pub listen: String,
    /// Whether it terminates TLS itself.
    pub tls: bool,
    /// Number of accepted secrets; more than one while a secret is replaced.
    pub keys: u64,
    /// Open connections.
    pub connections: u64,
    /// Maximum number of connections.
    #[serde(default)]
    pub places: u64,
    /// Open connections without a signed request.
    #[serde(default)]
    pub unproved: u64,
    /// Connections closed to make room for others since the start.
    #[serde(default)]
    pub evicted: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Challenges answered since the start.
    pub challenges: u64,
    /// Signed messages since the start that were too old, confirmed and dropped.
    pub stale: u64,
    /// Requests refused since the start, by reason (`signature`, `headers`, `method`, `path`, `size`, ...).
    pub rejected: BTreeMap<String, u64>,
    /// Messages answered with 503 since the start: the store could not take them, or the clock of this machine seemed
    /// wrong.
    pub unavailable: u64,
    /// Twitch's clock minus ours at the last signed message, in seconds; its travel time counts as ours being ahead.
    pub clock_skew_seconds: Option<i64>,
    /// Current problem.
    pub problem: Option<String>,
}

/// State of the event store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Reason why nothing can be stored at present: the disk is full, or it fails. Intake waits.
    pub problem: Option<String>,
    /// Number of the newest event.
    pub last_seq: Seq,
    /// Number of the oldest event kept.
    pub first_seq: Seq,
    /// Number of events kept.
    pub events: u64,
    /// Size on disk, in bytes.
    pub size: u64,
    /// Maximum size on disk, in bytes.
    pub max_size: u64,
    /// Events removed by retention since the start.
    pub removed: u64,
    /// The last change of this machine's clock, for one hour. Events keep their age.
    #[serde(default)]
    pub clock_set: Option<ClockSet>,
    /// Durations of transactions since the start, their sync included.
    #[serde(default)]
    pub commits: Durations,
    /// Transactions that failed since the start.
    #[serde(default)]
    pub commit_failures: u64,
}

/// A change of this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// Time of the change, by the new clock.
    pub at: Timestamp,
    /// Seconds that the clock was set forward; negative if backward.
    pub by_seconds: i64,
}

/// State of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// Everything stored is delivered.
    Idle,
    /// Handing events over.
    Delivering,
    /// The last attempt failed; waits for the next.
    Retrying,
    /// The receiver asked for a pause.
    Paused,
    /// The worker failed; it is started again soon.
    Failed,
}

/// State of one sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Name in the configuration.
    pub name: SinkName,
    /// `stdout`, `file`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// Where its events go, without secrets.
    #[serde(default)]
    pub receiver: Arc<str>,
    /// Globs of the types that it gets.
    #[serde(default)]
    pub types: Arc<[String]>,
    /// State of the sink.
    pub state: SinkState,
    /// Number of the last event up to which all are done.
    pub cursor: Seq,
    /// Stored events for this sink that it does not have yet.
    pub lag_events: u64,
    /// Age of the oldest event that it does not have, in seconds.
    pub lag_seconds: u64,
    /// Events sent to the receiver and not acknowledged yet.
    #[serde(default)]
    pub in_flight: u64,
    /// Events acknowledged since the start.
    pub delivered: u64,
    /// Events acknowledged within the last minute.
    #[serde(default)]
    pub per_minute: u64,
    /// From which `per_minute` is made. Only for this process.
    #[serde(skip)]
    pub rate: Rate,
    /// Time of the last acknowledged event since the start.
    #[serde(default)]
    pub last_success: Option<Timestamp>,
    /// Failed attempts since the start.
    pub retries: u64,
    /// Number of its dead letters.
    pub dead_letters: u64,
    /// Events that retention removed before the sink had them, ever.
    pub lost: u64,
    /// The last failure, until an attempt succeeds.
    pub problem: Option<String>,
    /// Time of the next attempt, while the sink waits after a failure or because its receiver asks for a pause.
    #[serde(default)]
    pub next_try: Option<Timestamp>,
}

impl SinkStatus {
    /// Counts events that the receiver has acknowledged now.
    pub fn record_delivered(&mut self, events: u64, at: Timestamp, now: Instant) {
        if events > 0 {
            self.delivered += events;
            self.last_success = Some(at);
            self.rate.add(events, now);
        }
    }
}
