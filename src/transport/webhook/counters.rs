//! Counters and status of the listener.
//!
//! A request only adds to numbers in memory. All of them are published together, a few times per second at
//! most.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;
use tracing::warn;

use super::clock::{ClockJudge, Verdict};
use crate::admission::Peer;
use crate::model::shard::ShardId;
use crate::model::signs::CallbackSigns;
use crate::model::status::{IntakeStatus, WebhookStatus};
use crate::store::since_boot;
use crate::telemetry::LogLimit;

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
    /// Bodies of unproved clients took too many bytes.
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
    signs: CallbackSigns,
    clock: Mutex<ClockJudge>,
    clock_log: LogLimit,
    log: LogLimit,
    dirty: AtomicBool,
    /// Notified when something is to be published.
    pub(super) changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Counters {
    fn default() -> Self {
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
            signs: CallbackSigns::default(),
            clock: Mutex::default(),
            clock_log: LogLimit::default(),
            log: LogLimit::default(),
            dirty: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }
}

impl Counters {
    /// Marks the counters as changed since they were published.
    pub(super) fn touch(&self) {
        if !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel) {
            self.changed.notify_one();
        }
    }

    pub(super) fn reject(&self, reason: Reason, many: u64) {
        self.rejected[reason as usize].add(many);
        self.touch();
    }

    /// When signed requests came; a clone that goes on with this one.
    pub(super) fn signs(&self) -> CallbackSigns {
        self.signs.clone()
    }

    /// Records a signed request that Twitch is to send again.
    pub(super) fn record_refused(&self) {
        self.signs.record_refused(since_boot());
    }

    /// Records a signed request that was accepted, for this shard if its address names one.
    pub(super) fn record_signed(&self, shard: Option<ShardId>) {
        self.signs.record(shard, since_boot());
    }

    pub(super) fn event_of_shard(&self, shard: ShardId) {
        let mut shards = lock(&self.shards);
        if let Some(events) = shards.get_mut(&shard) {
            *events += 1;
        } else if shards.len() < SHARDS {
            shards.insert(shard, 1);
        }
    }

    /// A signed message came on time: Twitch's clock less ours, in milliseconds.
    pub(super) fn on_time(&self, skew: i64, now: Instant, wall: SystemTime) {
        lock(&self.clock).on_time(skew, now, wall);
    }

    /// A signed message seems too old, or from the future. Counts and logs it. Returns `true` if it is
    /// dropped, `false` if Twitch is to send it again.
    pub(super) fn off_time(&self, skew: i64, now: Instant, wall: SystemTime) -> bool {
        let verdict = lock(&self.clock).off_time(skew, now, wall);
        let skew_seconds = skew / 1_000;
        match verdict {
            Verdict::TooOld => {
                self.stale.add(1);
                if let Some(left_out) = self.clock_log.permit("too old", now) {
                    warn!(
                        skew_seconds,
                        left_out, "a signed message is dropped: its timestamp is more than 10 minutes off"
                    );
                }
            }
            Verdict::Doubtful => {
                self.unavailable.add(1);
                if let Some(left_out) = self.clock_log.permit("doubtful", now) {
                    warn!(
                        skew_seconds,
                        left_out,
                        "signed messages seem too old or from the future: the clock of this machine may be wrong; Twitch \
                         is asked to send them again"
                    );
                }
            }
        }
        verdict == Verdict::TooOld
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

    /// Fills in the counters.
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
        let mut clock = lock(&self.clock);
        status.clock_skew_seconds = clock.last().map(|skew| skew / 1_000);
        if let Some(problem) = clock.problem(now) {
            status.problem = Some(problem);
        }
    }
}
