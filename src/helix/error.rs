//! What the API answers instead of what was asked for, and what that means.

use crate::auth::TokenError;

/// Every documented case, by what one has to do about it (Twitch: "Create EventSub Subscription" and
/// the other pages of the reference).
#[derive(Clone, Debug, thiserror::Error)]
pub enum HelixError {
    /// 400: the request will never be accepted as it is.
    #[error("Twitch refuses the request as invalid (400): {message}")]
    Invalid {
        /// What Twitch says.
        message: Box<str>,
    },
    /// 401 though the token is valid, or with a fresh token again.
    #[error("Twitch refuses a valid token (401): {message}; does the secret belong to twitch.client_id?")]
    Unauthorized {
        /// What Twitch says.
        message: Box<str>,
    },
    /// 403: a grant is missing.
    #[error("Twitch misses an authorization (403): {message}")]
    Forbidden {
        /// What Twitch says.
        message: Box<str>,
    },
    /// 404: the thing is not there, or not ours.
    #[error("Twitch does not know it (404): {message}")]
    NotFound {
        /// What Twitch says.
        message: Box<str>,
    },
    /// 409: an equal subscription exists.
    #[error("an equal subscription exists (409)")]
    Conflict {
        /// Its id, when the answer names it.
        id: Option<Box<str>>,
    },
    /// 410: the type and version were removed.
    #[error("Twitch has removed this type and version (410): {message}")]
    Gone {
        /// What Twitch says.
        message: Box<str>,
    },
    /// 429 of the second meaning: too many equal subscriptions, too many conduits, the cost limit.
    /// Waiting a minute does not cure it.
    #[error("a quota of Twitch is used up (429): {message}")]
    Quota {
        /// What Twitch says.
        message: Box<str>,
    },
    /// 429 of the first meaning, again and again though the bucket was waited for.
    #[error("Twitch's rate limit is used up by somebody else with the same client id (429)")]
    RateLimited,
    /// 5xx.
    #[error("Twitch has an outage ({status}): {message}")]
    Outage {
        /// The status.
        status: u16,
        /// What Twitch says; often nothing.
        message: Box<str>,
    },
    /// No answer: no network, a reset, a time-out.
    #[error("Twitch cannot be reached: {message}")]
    Unreachable {
        /// What failed.
        message: Box<str>,
    },
    /// An answer that cannot be understood.
    #[error("Twitch's answer cannot be understood: {message}")]
    Garbled {
        /// What is wrong with it.
        message: Box<str>,
    },
    /// There is no token to be had.
    #[error("there is no token")]
    Token(#[source] TokenError),
}

impl HelixError {
    /// Whether Twitch, or the way to it, is what fails: not an answer to the request itself.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. }
                | Self::RateLimited
                | Self::Outage { .. }
                | Self::Unreachable { .. }
                | Self::Garbled { .. }
                | Self::Token(_)
        )
    }
}
