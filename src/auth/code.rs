//! The authorization code grant, for one user: the code that a browser brings back is exchanged for a token, which is
//! looked at and dropped. It is not revoked: Twitch does not say whether that would withdraw what the user has just
//! granted, and it expires by itself.

use super::Outward;
use super::exchange;
use super::oauth::{self, CodeOutcome, TokenUser};
use crate::model::secret::Secret;

/// Reason for having no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The code was used before, has expired, or was made up.
    #[error("Twitch does not accept the code: {0}")]
    Code(String),
    /// The application itself is refused.
    #[error("Twitch refuses the application: {0}")]
    Client(String),
    /// Twitch cannot be reached, or fails.
    #[error("Twitch cannot be asked: {0}")]
    Unavailable(String),
}

/// Exchanges codes, for one application.
#[derive(Clone, Debug)]
pub struct CodeGrant<'a> {
    pub http: &'a Outward,
    /// `https://id.twitch.tv/oauth2`, without a slash at the end.
    pub auth_url: &'a str,
    pub client_id: &'a str,
    pub client_secret: &'a Secret,
    /// The address that the code was asked for with.
    pub redirect_uri: &'a str,
}

impl CodeGrant<'_> {
    /// Uses up a code; returns who has granted what.
    ///
    /// # Errors
    /// [`CodeError`].
    pub async fn redeem(&self, code: &Secret) -> Result<TokenUser, CodeError> {
        let form = oauth::code_form(self.client_id, self.client_secret, code, self.redirect_uri);
        let url = format!("{}/token", self.auth_url);
        let answered = exchange::post_form(self.http, &url, &form).await;
        let (status, body) = answered.map_err(CodeError::Unavailable)?;
        let token = match oauth::parse_code(status, &body, code) {
            CodeOutcome::Granted(token) => token,
            CodeOutcome::Code(message) => return Err(CodeError::Code(message)),
            CodeOutcome::Client(message) => return Err(CodeError::Client(message)),
            CodeOutcome::Temporary(message) => return Err(CodeError::Unavailable(message)),
        };
        let user = exchange::user_of(self.http, self.auth_url, &token).await;
        let user = user.map_err(CodeError::Unavailable)?;
        if *user.client_id != *self.client_id {
            return Err(CodeError::Client("its token belongs to another application".to_owned()));
        }
        Ok(user)
    }
}
