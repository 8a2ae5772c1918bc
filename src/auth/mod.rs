//! The app access token: one for everybody, minted, validated and renewed by one task.
#![allow(missing_docs, clippy::unused_async, clippy::needless_pass_by_value, reason = "skeleton")]

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::secret::Secret;
use crate::model::status::TokenStatus;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: Secret,
}

#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// `https://id.twitch.tv/oauth2`, without a slash at the end.
    pub auth_url: String,
    pub validate_interval: Duration,
}

/// A token that was valid when it was handed out.
#[derive(Clone, Debug)]
pub struct AccessToken {}

impl AccessToken {
    pub fn secret(&self) -> &Secret {
        todo!()
    }
    pub fn client_id(&self) -> &str {
        todo!()
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    #[error("skeleton")]
    Skeleton,
}

/// What came of telling the keeper that Twitch answered 401.
#[derive(Clone, Debug)]
pub enum Rejected {
    /// There is another token now: send again, once.
    Renewed(AccessToken),
    /// Twitch confirms the token: the 401 means something else.
    StillValid,
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {}

impl Tokens {
    /// The token; waits while one is being minted. Err at once while the credentials are refused.
    pub async fn get(&self) -> Result<AccessToken, TokenError> {
        todo!()
    }
    /// A request with this token was answered 401.
    pub async fn reject(&self, _token: &AccessToken) -> Result<Rejected, TokenError> {
        todo!()
    }
    pub fn status(&self) -> watch::Receiver<TokenStatus> {
        todo!()
    }
}

#[derive(Debug)]
pub struct Keeper {}

impl Keeper {
    /// `credentials` and `options` change on reload.
    pub fn new(
        _http: reqwest::Client,
        _options: watch::Receiver<TokenOptions>,
        _credentials: watch::Receiver<Credentials>,
    ) -> (Self, Tokens) {
        todo!()
    }
    /// Runs until cancelled; no failure ends it.
    pub async fn run(self, _cancel: CancellationToken) {
        todo!()
    }
}
