//! The device code grant, for one command: a person allows the application something, and the token that comes
//! of it is looked at and dropped. What a user has granted holds without it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Outward;
use super::http::{BodyError, read_bounded};
use super::oauth::{self, DeviceCode, DeviceOutcome, TokenUser};
use crate::model::secret::Secret;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

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

impl From<BodyError> for DeviceError {
    fn from(error: BodyError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Asks Twitch, for one application.
#[derive(Clone, Debug)]
pub struct DeviceGrant<'a> {
    pub http: &'a Outward,
    /// `https://id.twitch.tv/oauth2`, without a slash at the end.
    pub auth_url: &'a str,
    /// The application.
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

    async fn whose(&self, token: &Secret) -> Result<TokenUser, DeviceError> {
        let mut value = http::HeaderValue::from_str(&format!("OAuth {}", token.expose()))
            .map_err(|_| DeviceError::Refused("its token is none".to_owned()))?;
        value.set_sensitive(true);
        let url = format!("{}/validate", self.auth_url);
        let request =
            self.http.client().get(url).timeout(REQUEST_LIMIT).header(http::header::AUTHORIZATION, value);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        let body = read_bounded(answer, MAX_ANSWER).await?;
        oauth::parse_token_user(status, &body).map_err(DeviceError::Unavailable)
    }

    fn unreachable(&self, error: &reqwest::Error) -> DeviceError {
        DeviceError::Unavailable(self.http.explain(error))
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<(u16, Vec<u8>), DeviceError> {
        let url = format!("{}/{path}", self.auth_url);
        let request = self.http.client().post(url).timeout(REQUEST_LIMIT).form(form);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        Ok((status, read_bounded(answer, MAX_ANSWER).await?))
    }
}
