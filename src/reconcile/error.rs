//! Why a run, or a preview of one, ends early.

use super::memory::MemoryError;
use crate::helix::{HelixError, HelixErrorKind};

/// Ends a run. The cause is in the chain of sources; [`Self::kind`] classifies it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A request to Twitch failed.
    #[error("{what}")]
    Api {
        /// The step that failed, as a clause.
        what: &'static str,
        #[source]
        /// Twitch's answer, or why there is none.
        source: HelixError,
    },
    /// The remembered state could not be read or written.
    #[error("{what}")]
    Memory {
        /// The step that failed, as a clause.
        what: &'static str,
        #[source]
        source: MemoryError,
    },
    /// A person has to change something first; the text says what.
    #[error("{0}")]
    Refused(String),
}

/// Classes of [`RunError`], by what has to happen before another try can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The client id or the client secret has to be corrected.
    Credentials,
    /// Twitch has to answer again; nobody has to act.
    Unavailable,
    /// The remembered state has to be readable and writable.
    State,
    /// A person has to change the file, or something at Twitch.
    Refused,
}

impl RunError {
    pub(super) fn api(what: &'static str, source: HelixError) -> Self {
        Self::Api { what, source }
    }

    /// Classifies the error by what it takes to get past it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Memory { .. } => ErrorKind::State,
            Self::Refused(_) => ErrorKind::Refused,
            Self::Api { source, .. } => match source.kind() {
                HelixErrorKind::Credentials => ErrorKind::Credentials,
                HelixErrorKind::Unavailable => ErrorKind::Unavailable,
                HelixErrorKind::Refused => ErrorKind::Refused,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::chain;

    #[test]
    fn the_cause_is_printed_once_and_decides_the_kind() {
        for (cause, kind) in [
            (HelixError::Unauthorized { message: "x".into() }, ErrorKind::Credentials),
            (HelixError::RateLimited, ErrorKind::Unavailable),
            (HelixError::Outage { status: 503, message: "x".into() }, ErrorKind::Unavailable),
            (HelixError::Unreachable { message: "x".into() }, ErrorKind::Unavailable),
            (HelixError::Garbled { message: "x".into() }, ErrorKind::Unavailable),
            (HelixError::Quota { message: "x".into() }, ErrorKind::Refused),
            (HelixError::Conflict { id: None }, ErrorKind::Refused),
        ] {
            let error = RunError::api("a step failed", cause.clone());
            assert_eq!(error.kind(), kind, "{cause}");
            assert_eq!(chain(&error), format!("a step failed: {cause}"));
        }
    }
}
