//! Activity of one connection. ◆
//!
//! The connection itself writes it, and the table reads it now and then: so time limits cost a request nothing
//! but stores to memory.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Activity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for a request.
    Idle,
    /// Negotiating TLS.
    Handshake,
    /// Receiving a head.
    Head,
    /// Receiving a body.
    Body,
    /// The request is complete; its answer is being made or sent.
    Answer,
}

const PHASES: [Phase; 5] = [Phase::Idle, Phase::Handshake, Phase::Head, Phase::Body, Phase::Answer];

/// Phase of a connection, since when, and the bytes of an unfinished body that it holds.
#[derive(Debug)]
pub(super) struct Activity {
    phase: AtomicU8,
    /// In milliseconds of the table's clock.
    since: AtomicU64,
    held: AtomicUsize,
}

impl Activity {
    pub(super) fn new(phase: Phase, now: Duration) -> Self {
        let activity = Self { phase: AtomicU8::new(0), since: AtomicU64::new(0), held: AtomicUsize::new(0) };
        activity.enter(phase, millis(now));
        activity
    }

    pub(super) fn enter(&self, phase: Phase, now_millis: u64) {
        self.since.store(now_millis, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed)) % PHASES.len()]
    }

    /// How long it has been in this phase.
    pub(super) fn lasting(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.since.load(Ordering::Relaxed)))
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns how many bytes were held.
    pub(super) fn release(&self) -> usize {
        self.held.swap(0, Ordering::Relaxed)
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
