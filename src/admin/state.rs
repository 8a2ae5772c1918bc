//! State of the read-only handlers, and marks that a listener sets on its requests.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::filter::{Filter, Wanted};
use crate::model::route::SinkName;
use crate::store::Store;
use crate::telemetry::LogLimit;

/// Number of clients that may follow events at once.
const TAILS: usize = 16;

/// Marks a request without credentials, which learns only whether the daemon lives and is ready. Set by the endpoint
/// on TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anonymous;

/// Tokens that end a stream when its authorization ends. Set by the endpoint on TCP.
#[derive(Clone, Debug)]
pub(super) struct EndStream(pub(super) Vec<CancellationToken>);

/// State of the read-only handlers.
#[derive(Clone)]
pub(super) struct ReadState {
    pub(super) control: Arc<dyn Control>,
    pub(super) store: Store,
    /// One permit for each client that follows events.
    pub(super) tails: Arc<Semaphore>,
    /// Ends streams when the daemon stops.
    pub(super) cancel: CancellationToken,
    /// Limits the log lines that probes can cause.
    pub(super) log: Arc<LogLimit>,
}

impl ReadState {
    pub(super) fn new(control: Arc<dyn Control>, store: Store, cancel: CancellationToken) -> Self {
        Self { control, store, tails: Arc::new(Semaphore::new(TAILS)), cancel, log: Arc::default() }
    }

    /// Builds the filter for a choice of events.
    ///
    /// # Errors
    /// As [`Wanted::filter`].
    pub(super) fn filter(&self, wanted: Wanted) -> Result<Filter, String> {
        let sink = wanted.sink.as_deref().and_then(|sink| self.control.sink_filter(&SinkName::new(sink)));
        wanted.filter(sink)
    }
}
