//! Self-test of the callback: a signed challenge to its public name, as Twitch would send it.
//!
//! The request takes the way of any client's, which tests names, routes, proxies and certificates, and the response
//! must be what Twitch expects: the challenge itself. Such a request cannot be made without the secret.

use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use serde_json::json;

use crate::auth::{self, BodyError, Outward};
use crate::model::time::Timestamp;
use crate::model::webhook::{Callback, WebhookKey};
use crate::reconcile::Reach;

/// Time limit; Twitch waits for some seconds only.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest response that is read, in bytes; a challenge is shorter.
const MAX_ANSWER: usize = 4096;

/// Sends the challenge.
#[derive(Clone, Debug)]
pub struct Caller {
    http: Outward,
}

impl Caller {
    /// Uses this client, which follows no redirects.
    pub fn new(http: Outward) -> Self {
        Self { http }
    }

    async fn call(&self, callback: &Callback, key: &WebhookKey) -> Result<(), String> {
        let challenge = uuid::Uuid::new_v4().to_string();
        let id = uuid::Uuid::new_v4().to_string();
        let timestamp = Timestamp(SystemTime::now()).to_string();
        // Names no subscription: another receiver must not take it for Twitch's.
        let body = json!({ "challenge": challenge }).to_string();
        let signature = key.signer.sign(id.as_bytes(), timestamp.as_bytes(), body.as_bytes());
        let request = self
            .http
            .client()
            .post(callback.to_string())
            .timeout(LIMIT)
            .header("content-type", "application/json")
            .header("twitch-eventsub-message-id", &id)
            .header("twitch-eventsub-message-retry", "0")
            .header("twitch-eventsub-message-type", "webhook_callback_verification")
            .header("twitch-eventsub-message-signature", signature)
            .header("twitch-eventsub-message-timestamp", &timestamp)
            .header("twitch-eventsub-subscription-type", "stream.online")
            .header("twitch-eventsub-subscription-version", "1")
            .body(body);
        let answer = request.send().await.map_err(|error| no_response(&error, &self.http.explain(&error)))?;
        let status = answer.status();
        let plain = answer
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
        let length = answer.content_length();
        let said = auth::read_bounded(answer, MAX_ANSWER).await.map_err(|error| match error {
            BodyError::TooLarge { .. } => unexpected_response(status),
            BodyError::Broken(_) => "the answer broke off; look at the proxy in front".to_owned(),
        })?;
        if status.is_redirection() {
            return Err(format!(
                "it answers {status}, and Twitch follows no redirects: set `transport.webhook.callback` to where it leads"
            ));
        }
        if status != reqwest::StatusCode::OK || said != challenge.as_bytes() {
            return Err(unexpected_response(status));
        }
        if !plain || length != Some(challenge.len() as u64) {
            return Err("a proxy in front changes the answer's headers: Twitch wants `text/plain` and a `Content-Length`; \
                        have it pass answers on as they are"
                .to_owned());
        }
        Ok(())
    }
}

impl Reach for Caller {
    fn prove<'a>(&'a self, callback: &'a Callback, key: &'a WebhookKey) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(
            async move { self.call(callback, key).await.map_err(|why| format!("{}: {why}", callback.url)) },
        )
    }
}

/// Message for a response that is not this daemon's.
fn unexpected_response(status: reqwest::StatusCode) -> String {
    let who = match status.as_u16() {
        403 => {
            "the signature is refused there: another daemon, or a proxy that changes requests, or one that asks for a login"
        }
        404 | 405 => {
            "nothing answers at that path: have the proxy pass it on to `transport.webhook.listen`, with its whole path"
        }
        413 => "the proxy in front takes no body of this size: allow 1 MiB",
        502..=504 => {
            "the proxy in front does not reach the daemon: compare its target with `transport.webhook.listen`"
        }
        _ => "another server answers there: point the proxy, or the name, to this daemon",
    };
    format!("it answers {status} and not the challenge; {who}")
}

/// Message for a request without a response.
fn no_response(error: &reqwest::Error, text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let hint = if error.is_timeout() {
        "it does not answer in time: is the port open to the outside?"
    } else if lower.contains("dns") || lower.contains("lookup") || lower.contains("resolve") {
        "its name cannot be looked up: check its DNS record; Twitch needs an IPv4 address"
    } else if lower.contains("certificate") {
        "its certificate is not trusted: it has to be valid for this name, with its whole chain, by a public authority"
    } else {
        "nothing answers there: is the proxy running, and port 443 open to the outside?"
    };
    format!("{hint} ({text})")
}
