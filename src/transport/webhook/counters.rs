//! What the listener counts, and what it says of itself.
//!
//! A request adds to numbers in memory; they are published together, some times a second at most.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;

use crate::admission::Peer;
use crate::model::shard::ShardId;
use crate::model::status::{IntakeStatus, WebhookStatus};
use crate::telemetry::LogLimit;

/// A clock is wrong that differs by more than this from Twitch's, in milliseconds.
const SKEW: i64 = 300_000;
/// Over at least this time the best skew is looked at: a message that was late says nothing about a clock.
const SKEW_WINDOW: Duration = Duration::from_secs(300);
/// No message yet.
const NONE: i64 = i64::MIN;
/// Twitch's largest number of shards, so that a query cannot fill the memory.
const SHARDS: usize = 20_000;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Headers,
    Signature,
    Unreadable,
    Method,
    Path,
    Size,
    Slow,
    Broken,
    /// Strangers' bodies took too many bytes.
    Crowded,
}

const REASONS: [(Reason, &str); 9] = [
    (Reason::Headers, "headers"),
    (Reason::Signature, "signature"),
    (Reason::Unreadable, "unreadable"),
    (Reason::Method, "method"),
    (Reason::Path, "path"),
    (Reason::Size, "size"),
    (Reason::Slow, "slow"),
    (Reason::Broken, "broken"),
    (Reason::Crowded, "crowded"),
];

impl Reason {
    fn name(self) -> &'static str {
        REASONS[self as usize].1
    }
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) requests: Counter,
    pub(super) challenges: Counter,
    pub(super) stale: Counter,
    pub(super) unavailable: Counter,
    pub(super) received: Counter,
    pub(super) unknown: Counter,
    pub(super) revocations: Counter,
    rejected: [Counter; REASONS.len()],
    shards: Mutex<BTreeMap<ShardId, u64>>,
    skew: Skew,
    log: LogLimit,
    dirty: AtomicBool,
    /// Notified when something is to be published.
    pub(super) changed: Notify,
}

/// The newest skew, and the largest of this window and of the one before.
#[derive(Debug)]
struct Skew {
    last: AtomicI64,
    best: [AtomicI64; 2],
    since: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Counters {
    fn default() -> Self {
        let none = || AtomicI64::new(NONE);
        Self {
            requests: Counter::default(),
            challenges: Counter::default(),
            stale: Counter::default(),
            unavailable: Counter::default(),
            received: Counter::default(),
            unknown: Counter::default(),
            revocations: Counter::default(),
            rejected: Default::default(),
            shards: Mutex::default(),
            skew: Skew { last: none(), best: [none(), none()], since: Mutex::new(None) },
            log: LogLimit::default(),
            dirty: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }
}

impl Counters {
    /// Something is different from what was published.
    pub(super) fn touch(&self) {
        if !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel) {
            self.changed.notify_one();
        }
    }

    pub(super) fn reject(&self, reason: Reason, many: u64) {
        self.rejected[reason as usize].add(many);
        self.touch();
    }

    pub(super) fn event_of_shard(&self, shard: ShardId) {
        let mut shards = lock(&self.shards);
        if let Some(events) = shards.get_mut(&shard) {
            *events += 1;
        } else if shards.len() < SHARDS {
            shards.insert(shard, 1);
        }
    }

    pub(super) fn skew(&self, millis: i64) {
        self.skew.last.store(millis, Ordering::Relaxed);
        self.skew.best[0].fetch_max(millis, Ordering::Relaxed);
    }

    /// Logs a refusal, once a minute for each reason.
    pub(super) fn log(&self, reason: Reason, error: &dyn std::fmt::Display, peer: Peer, now: Instant) {
        let Some(left_out) = self.log.permit(reason.name(), now) else { return };
        warn!(reason = reason.name(), %error, %peer, left_out, "a webhook request was refused");
    }

    /// Logs that the system gives us no connection, once a minute.
    pub(super) fn log_accept(&self, error: &std::io::Error, now: Instant) {
        let Some(left_out) = self.log.permit("accept", now) else { return };
        warn!(%error, left_out, "no webhook connection can be accepted for a moment");
    }

    /// Marks everything as published, then reads it.
    pub(super) fn read(&self) -> (IntakeStatus, BTreeMap<ShardId, u64>) {
        self.dirty.store(false, Ordering::Release);
        let intake = IntakeStatus {
            received: self.received.get(),
            malformed: self.rejected[Reason::Unreadable as usize].get(),
            unknown: self.unknown.get(),
            revocations: self.revocations.get(),
            ..IntakeStatus::default()
        };
        (intake, lock(&self.shards).clone())
    }

    /// Fills in what is counted here.
    pub(super) fn fill(&self, status: &mut WebhookStatus, now: Instant) {
        status.requests = self.requests.get();
        status.challenges = self.challenges.get();
        status.stale = self.stale.get();
        status.unavailable = self.unavailable.get();
        status.rejected = REASONS
            .iter()
            .map(|(reason, name)| ((*name).to_owned(), self.rejected[*reason as usize].get()))
            .filter(|(_, many)| *many > 0)
            .collect();
        let last = self.skew.last.load(Ordering::Relaxed);
        status.clock_skew_seconds = (last != NONE).then_some(last / 1_000);
        if let Some(problem) = self.clock_problem(now) {
            status.problem = Some(problem);
        }
    }

    fn clock_problem(&self, now: Instant) -> Option<String> {
        let [current, before] = &self.skew.best;
        let mut since = lock(&self.skew.since);
        let begun = *since.get_or_insert(now);
        let (newest, older) = (current.load(Ordering::Relaxed), before.load(Ordering::Relaxed));
        if newest != NONE && now.duration_since(begun) >= SKEW_WINDOW {
            *since = Some(now);
            before.store(current.swap(NONE, Ordering::Relaxed), Ordering::Relaxed);
        }
        let best = newest.max(older);
        if best == NONE || best.saturating_abs() <= SKEW {
            return None;
        }
        let minutes = best.saturating_abs().saturating_add(30_000) / 60_000;
        let direction = if best < 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the clock of this machine is about {minutes} minutes {direction} Twitch's: set it (`timedatectl set-ntp \
             true`); events are passed over while they differ by more than 10 minutes"
        ))
    }
}
