//! The device code grant, for one command: a person allows the application something, and the token that comes
//! of it is looked at and dropped. What a user has granted holds without it.

use tokio::time::{Instant, sleep};

use super::Outward;
use super::exchange;
use super::oauth::{self, DeviceCode, DeviceOutcome, TokenUser};
use crate::model::secret::Secret;

/// Why there is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Twitch does not want to.
    #[error("Twitch refuses: {0}")]
    Refused(String),
    /// Twitch cannot be reached, or fails.
    #[error("Twitch cannot be asked: {0}")]
    Unavailable(String),
    /// Nobody has allowed it in time.
    #[error("nobody has allowed it in time, or it was refused")]
    Over,
}

/// Asks Twitch, for one application.
#[derive(Clone, Debug)]
pub struct DeviceGrant<'a> {
    pub http: &'a Outward,
    /// `https://id.twitch.tv/oauth2`, without a slash at the end.
    pub auth_url: &'a str,
    pub client_id: &'a str,
    /// Requested scopes, with spaces between.
    pub scopes: &'a str,
}

impl DeviceGrant<'_> {
    /// Begins: gets the code that a person answers.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn begin(&self) -> Result<DeviceCode, DeviceError> {
        let form = oauth::device_form(self.client_id, self.scopes);
        let (status, body) = self.post("device", &form).await?;
        oauth::parse_device(status, &body).map_err(|message| match status {
            500.. | 429 => DeviceError::Unavailable(message),
            _ => DeviceError::Refused(message),
        })
    }

    /// Waits until somebody has answered; tells who, and what is allowed.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn wait(&self, code: &DeviceCode) -> Result<TokenUser, DeviceError> {
        let end = Instant::now() + code.expires_in;
        let mut pause = code.interval;
        while Instant::now() + pause < end {
            sleep(pause).await;
            let form = oauth::device_token_form(self.client_id, self.scopes, &code.device_code);
            let outcome = match self.post("token", &form).await {
                Ok((status, body)) => oauth::parse_device_token(status, &body, &code.device_code),
                Err(error) => DeviceOutcome::Temporary(error.to_string()),
            };
            match outcome {
                DeviceOutcome::Pending => {}
                DeviceOutcome::SlowDown => pause += code.interval,
                DeviceOutcome::Temporary(message) => {
                    tracing::debug!(error = message, "asking after a device code failed; trying again");
                }
                DeviceOutcome::Granted(token) => return self.whose(&token).await,
                DeviceOutcome::Over(_) => return Err(DeviceError::Over),
            }
        }
        Err(DeviceError::Over)
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<(u16, Vec<u8>), DeviceError> {
        let url = format!("{}/{path}", self.auth_url);
        exchange::post_form(self.http, &url, form).await.map_err(DeviceError::Unavailable)
    }

    async fn whose(&self, token: &Secret) -> Result<TokenUser, DeviceError> {
        let user = exchange::user_of(self.http, self.auth_url, token).await;
        let user = user.map_err(DeviceError::Unavailable)?;
        if *user.client_id != *self.client_id {
            return Err(DeviceError::Refused("its token belongs to another application".to_owned()));
        }
        Ok(user)
    }
}
