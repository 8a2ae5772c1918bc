//! Errors of API calls.

use crate::auth::TokenError;

/// Every documented case, by how the caller has to react (Twitch: "Create EventSub Subscription" and the other
/// pages of the reference).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelixError {
    /// 400: the request will never be accepted as it is.
    #[error("Twitch refuses the request as invalid (400): {message}")]
    Invalid { message: Box<str> },
    /// 401 though the token is valid, or with a fresh token again.
    #[error("Twitch refuses a valid token (401): {message}; does the secret belong to twitch.client_id?")]
    Unauthorized { message: Box<str> },
    /// 403: a grant is missing.
    #[error("an authorization is missing (403): {message}")]
    Forbidden { message: Box<str> },
    /// 404: the object does not exist, or is not ours.
    #[error("Twitch does not find it (404): {message}")]
    NotFound { message: Box<str> },
    /// 409: an equal subscription exists.
    #[error("an equal subscription exists (409)")]
    Conflict {
        /// Id of that subscription. `None` means that the answer does not name it.
        id: Option<Box<str>>,
    },
    /// 410: the type and version were removed.
    #[error("Twitch has removed this type and version (410): {message}")]
    Gone { message: Box<str> },
    /// 429 for a quota: too many equal subscriptions, too many conduits, the cost limit. Waiting a minute does
    /// not help.
    #[error("a quota of Twitch is used up (429): {message}")]
    Quota { message: Box<str> },
    /// 429 for the rate limit, repeatedly, although we waited for the bucket to refill.
    #[error("Twitch's rate limit is used up by somebody else with the same client id (429)")]
    RateLimited,
    #[error("Twitch has an outage ({status}): {message}")]
    Outage {
        status: u16,
        /// Twitch's message; often empty.
        message: Box<str>,
    },
    /// No answer: no network, a reset, a time-out.
    #[error("Twitch cannot be reached: {message}")]
    Unreachable { message: Box<str> },
    /// An answer that cannot be understood.
    #[error("Twitch's answer cannot be understood: {message}")]
    Garbled { message: Box<str> },
    /// Nothing was sent: another host of the cluster may be sending.
    #[error("this host does not lead the cluster now")]
    StandingBy,
    /// No token is available.
    #[error("there is no token")]
    Token(#[source] TokenError),
}

/// Classes of [`HelixError`], by what has to happen before another try can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelixErrorKind {
    /// The client id or the client secret has to be corrected.
    Credentials,
    /// Twitch has to answer again; nobody has to act. The request may have been carried out.
    Unavailable,
    /// Twitch refuses this request; it has to be a different one.
    Refused,
}

impl HelixError {
    /// Classifies the error by what it takes to get past it.
    pub fn kind(&self) -> HelixErrorKind {
        match self {
            Self::Unauthorized { .. } | Self::Token(_) => HelixErrorKind::Credentials,
            Self::RateLimited
            | Self::Outage { .. }
            | Self::Unreachable { .. }
            | Self::Garbled { .. }
            | Self::StandingBy => HelixErrorKind::Unavailable,
            Self::Invalid { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Gone { .. }
            | Self::Quota { .. } => HelixErrorKind::Refused,
        }
    }

    /// Whether every request would fail now, whatever it asks for.
    pub fn is_outage(&self) -> bool {
        self.kind() != HelixErrorKind::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::chain;

    #[test]
    fn refused_credentials_stay_in_the_chain() {
        let error = HelixError::Token(TokenError::Refused { message: "invalid client".into() });
        assert_eq!(error.kind(), HelixErrorKind::Credentials);
        assert!(error.is_outage());
        assert_eq!(
            chain(&error),
            "there is no token: Twitch refuses the credentials (invalid client); check twitch.client_id and the client \
             secret"
        );
    }
}
