//! Requests to id.twitch.tv for one user: a form to the token endpoint, and whose a token is.

use std::time::Duration;

use super::Outward;
use super::http::read_bounded;
use super::oauth::{self, TokenUser};
use crate::model::secret::Secret;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Time limit for one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Sends a form; returns the status and the body of the answer.
///
/// # Errors
/// The reason for having no answer, for people.
pub(super) async fn post_form(
    http: &Outward,
    url: &str,
    form: &[(&str, &str)],
) -> Result<(u16, Vec<u8>), String> {
    answer(http, http.client().post(url).form(form)).await
}

/// Asks whose a user access token is.
///
/// # Errors
/// The reason for not knowing, for people.
pub(super) async fn user_of(http: &Outward, auth_url: &str, token: &Secret) -> Result<TokenUser, String> {
    let mut value = http::HeaderValue::from_str(&format!("OAuth {}", token.expose()))
        .map_err(|_| "the token cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    let request =
        http.client().get(format!("{auth_url}/validate")).header(http::header::AUTHORIZATION, value);
    let (status, body) = answer(http, request).await?;
    oauth::parse_token_user(status, &body)
}

async fn answer(http: &Outward, request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let answer = request.timeout(REQUEST_LIMIT).send().await.map_err(|error| http.explain(&error))?;
    let status = answer.status().as_u16();
    let body = read_bounded(answer, MAX_ANSWER).await.map_err(|error| error.to_string())?;
    Ok((status, body))
}
