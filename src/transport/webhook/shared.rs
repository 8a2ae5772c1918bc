//! State shared by all requests: active options, store, receivers of hints, counters.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing::{Span, error_span};

use super::counters::Counters;
use super::{Guest, WebhookOptions};
use crate::store::Store;
use crate::transport::HintCallback;

/// The options as requests use them.
pub(super) struct Live {
    pub(super) options: WebhookOptions,
    pub(super) path: Box<str>,
}

/// State shared by all requests.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) on_hint: HintCallback,
    guest: Option<Guest>,
    pub(super) counters: Counters,
    /// Span of the listener. Connections enter it for their log lines only: entering it with every poll of a connection costs
    /// each event half a microsecond.
    pub(super) span: Span,
    live: RwLock<Option<Arc<Live>>>,
    /// Unknown message types that were logged already.
    told: Mutex<BTreeSet<Box<str>>>,
}

impl Shared {
    pub(super) fn new(store: Store, on_hint: HintCallback, guest: Option<Guest>) -> Self {
        Self {
            store,
            on_hint,
            guest,
            counters: Counters::default(),
            span: error_span!("webhook", transport = "webhook"),
            live: RwLock::new(None),
            told: Mutex::default(),
        }
    }

    /// Replaces the active options.
    pub(super) fn put(&self, live: Option<Arc<Live>>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guest, if this is the path of its page.
    pub(super) fn guest(&self, live: &Live, path: &str) -> Option<&Guest> {
        self.guest.as_ref().filter(|_| live.options.guest_path.as_deref() == Some(path))
    }

    /// Whether to log this message type: once per type, and only a limited number of types.
    pub(super) fn is_new(&self, message_type: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < 16 && told.insert(message_type.into())
    }
}
