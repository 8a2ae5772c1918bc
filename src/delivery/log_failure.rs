//! Failures of the log that a worker delivers.

#[cfg(feature = "nats")]
use crate::cluster::ReadError;
#[cfg(feature = "nats")]
use crate::model::text::chain;
use crate::store::StoreError;

/// A request to the log has failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LogFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shared log does not answer, or not with what it has.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "no log is shared without NATS"))]
    #[error("{0}")]
    Shared(String),
}

impl LogFailure {
    /// Whether no request will ever succeed.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Store(StoreError::Closed))
    }
}

#[cfg(feature = "nats")]
impl From<ReadError> for LogFailure {
    fn from(error: ReadError) -> Self {
        Self::Shared(format!("the shared log cannot be read: {}", chain(&error)))
    }
}
