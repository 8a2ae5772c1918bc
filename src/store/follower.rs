//! A sink's worker as the store sees it: which events it wants, and how far it has read.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::model::event::Seq;

/// Whether a sink gets an event with this type, version and payload.
type Wants = dyn Fn(&str, &str, &[u8]) -> bool + Send + Sync;

/// The worker of a sink; cheap to clone.
#[derive(Clone)]
pub struct Follower {
    wants: Arc<Wants>,
    /// Locked by each read for the worker, and by retention while it removes events. So each event is either with the worker or
    /// lost.
    turn: Arc<Mutex<()>>,
    /// Up to here the worker has read.
    read: Arc<AtomicU64>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("read", &self.read).finish_non_exhaustive()
    }
}

impl Follower {
    /// A worker that has read nothing yet. `wants` is asked for the type, the version and the payload of an event, on the
    /// store's threads.
    pub fn new(wants: impl Fn(&str, &str, &[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self { wants: Arc::new(wants), turn: Arc::default(), read: Arc::default() }
    }

    /// A worker whose events are delivered from elsewhere: retention takes none from it.
    pub fn nothing() -> Self {
        Self::new(|_, _, _| false)
    }

    pub(super) fn wants(&self, subscription_type: &str, version: &str, payload: &[u8]) -> bool {
        (self.wants)(subscription_type, version, payload)
    }

    /// Waits until no other thread reads for the worker or removes events, and keeps them from it.
    pub(super) fn read(&self) -> Position<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Position { _turn: turn, read: &self.read }
    }

    /// Like [`Self::read`], without waiting. `None` means that another thread has the turn.
    pub(super) fn try_read(&self) -> Option<Position<'_>> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Position { _turn: turn, read: &self.read })
    }

    /// A view of how far the worker has read.
    pub(super) fn reading(&self) -> Reading {
        Reading(Arc::downgrade(&self.read))
    }
}

/// The last event that a worker has read. The worker cannot read on while this exists.
pub(super) struct Position<'a> {
    _turn: MutexGuard<'a, ()>,
    read: &'a AtomicU64,
}

impl Position<'_> {
    pub(super) fn get(&self) -> Seq {
        Seq(self.read.load(Ordering::Acquire))
    }

    pub(super) fn set(&mut self, seq: Seq) {
        self.read.store(seq.0, Ordering::Release);
    }
}

/// The last event that a worker has read, as long as the worker exists.
#[derive(Clone, Debug)]
pub(super) struct Reading(Weak<AtomicU64>);

impl Reading {
    pub(super) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(super) fn position(&self) -> Seq {
        Seq(self.0.upgrade().map_or(0, |read| read.load(Ordering::Acquire)))
    }
}

/// The workers that run, by the name of their sink.
pub(super) type Followers = HashMap<String, Follower>;
