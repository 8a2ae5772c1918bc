//! What all requests share: the options in force, the store, whom to tell, the counts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;

use super::WebhookOptions;
use super::counters::Counters;
use crate::store::Store;
use crate::transport::Hear;

/// What requests need of the options.
pub(super) struct Live {
    pub(super) options: WebhookOptions,
    /// The path of the callback.
    pub(super) path: Box<str>,
}

/// What all requests share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) revoked: Arc<Notify>,
    pub(super) hear: Hear,
    pub(super) counters: Counters,
    live: RwLock<Option<Arc<Live>>>,
    /// Types of messages that were told of as unknown.
    told: Mutex<BTreeSet<Box<str>>>,
}

impl Shared {
    pub(super) fn new(store: Store, revoked: Arc<Notify>, hear: Hear) -> Self {
        Self {
            store,
            revoked,
            hear,
            counters: Counters::default(),
            live: RwLock::new(None),
            told: Mutex::default(),
        }
    }

    /// Puts others in force.
    pub(super) fn put(&self, live: Option<Arc<Live>>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether to tell of this type of message: once each, and not of too many.
    pub(super) fn is_new(&self, message_type: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < 16 && told.insert(message_type.into())
    }
}
