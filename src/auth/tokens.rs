//! The token for those who need it, and the settings of its keeper.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::model::pulse::Pulse;
use crate::model::secret::Secret;
use crate::model::status::TokenStatus;

/// Credentials of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: Secret,
}

/// Settings of the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOptions {
    /// `https://id.twitch.tv/oauth2`, without a slash at the end.
    pub auth_url: String,
    /// How often the token is validated; Twitch asks for once an hour at least.
    pub validate_interval: Duration,
}

/// A token that was valid when it was handed out.
#[derive(Clone, Debug)]
pub struct AccessToken {
    pub(super) generation: u64,
    pub(super) secret: Secret,
    pub(super) client_id: Arc<str>,
}

impl AccessToken {
    /// Text of the token, for the `Authorization` header.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The client id that it belongs to, for the `Client-Id` header.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

/// There is no token to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Twitch refuses the credentials.
    #[error("Twitch refuses the credentials ({message}); check twitch.client_id and the client secret")]
    Refused {
        /// Twitch's message.
        message: Arc<str>,
    },
    /// The keeper has ended.
    #[error("the token keeper has ended")]
    Closed,
}

/// Outcome of a report that Twitch answered 401.
#[derive(Clone, Debug)]
pub enum Rejected {
    /// There is another token now: send again, once.
    Renewed(AccessToken),
    /// Twitch confirms the token: the 401 means something else.
    StillValid,
}

/// For those who need the token; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) status: watch::Receiver<TokenStatus>,
    pub(super) rejections: mpsc::Sender<Rejection>,
    pub(super) pulse: Pulse,
}

impl Tokens {
    /// The token; waits while there is none.
    ///
    /// # Errors
    /// At once while the credentials are refused, or when the keeper has ended.
    pub async fn get(&self) -> Result<AccessToken, TokenError> {
        let mut serving = self.serving.clone();
        let settled =
            serving.wait_for(|s| !matches!(s, Serving::Nothing)).await.map_err(|_| TokenError::Closed)?;
        match &*settled {
            Serving::Token(token) => Ok(token.clone()),
            Serving::Refused(message) => Err(TokenError::Refused { message: Arc::clone(message) }),
            Serving::Nothing => Err(TokenError::Closed),
        }
    }

    /// A request with this token was answered 401. Waits until it is clear what that means.
    ///
    /// # Errors
    /// The credentials are refused, or the keeper has ended.
    pub async fn reject(&self, token: &AccessToken) -> Result<Rejected, TokenError> {
        let (reply, answer) = oneshot::channel();
        let rejection = Rejection { generation: token.generation, reply };
        self.rejections.send(rejection).await.map_err(|_| TokenError::Closed)?;
        answer.await.unwrap_or(Err(TokenError::Closed))
    }

    /// Whether [`Self::get`] would wait: there is no token, and nobody knows for how long.
    pub fn is_awaited(&self) -> bool {
        matches!(&*self.serving.borrow(), Serving::Nothing)
    }

    /// The keeper's sign of life: it beats at least once a minute.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// How the token is.
    pub fn status(&self) -> watch::Receiver<TokenStatus> {
        self.status.clone()
    }
}

/// State of the keeper, for [`Tokens::get`].
#[derive(Clone, Debug)]
pub(super) enum Serving {
    Nothing,
    Token(AccessToken),
    Refused(Arc<str>),
}

/// A request that was answered 401, and who waits for what comes of it.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) generation: u64,
    pub(super) reply: oneshot::Sender<Result<Rejected, TokenError>>,
}
