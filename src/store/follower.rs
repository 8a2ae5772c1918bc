//! The store's knowledge of a sink's worker: which events it wants, and how far it has read.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::event::Seq;

/// Whether a sink gets an event with this type, version and payload.
type Wants = dyn Fn(&str, &str, &[u8]) -> bool + Send + Sync;

/// The worker of a sink; cheap to clone.
#[derive(Clone)]
pub struct Follower {
    wants: Arc<Wants>,
    /// Up to here the worker has read. Held by whoever reads for the worker, and by retention while it removes: so an
    /// event is either with the worker, or was lost.
    read: Arc<Mutex<Seq>>,
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
        Self { wants: Arc::new(wants), read: Arc::default() }
    }

    pub(super) fn wants(&self, subscription_type: &str, version: &str, payload: &[u8]) -> bool {
        (self.wants)(subscription_type, version, payload)
    }

    pub(super) fn read(&self) -> MutexGuard<'_, Seq> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers that run, by the name of their sink.
pub(super) type Followers = HashMap<String, Follower>;
