//! Why a request is refused, and with which status.

use http::StatusCode;

use super::counters::Reason;
use super::verify::Rejection;

pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    pub(super) error: Box<dyn std::fmt::Display + Send>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: Reason, error: &'static str) -> Self {
        Self { status, reason, error: Box::new(error) }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let (status, reason) = match rejection {
            Rejection::Headers(_) => (StatusCode::FORBIDDEN, Reason::Headers),
            Rejection::Signature => (StatusCode::FORBIDDEN, Reason::Signature),
            Rejection::Unreadable(_) => (StatusCode::BAD_REQUEST, Reason::Unreadable),
        };
        Self { status, reason, error: Box::new(rejection) }
    }
}
