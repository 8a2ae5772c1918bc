//! Sends one signed request to a callback.

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tracing::debug;

use super::endpoint::Endpoint;
use super::message::Message;
use super::webhook::{Reply, headers};

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 1 << 16;

/// Posts a message. `None` when there is no answer in time.
pub async fn post(
    http: &reqwest::Client,
    endpoint: &Endpoint,
    message: &Message,
    retry: usize,
    limit: Duration,
    clock_ahead: i64,
) -> Option<Reply> {
    let mut request = http.post(&endpoint.callback).timeout(limit);
    for (name, value) in headers(endpoint, message, retry, clock_ahead) {
        request = request.header(name, value);
    }
    let exchange = async {
        let mut answer = request.body(message.content.payload.clone()).send().await?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let mut reply = Reply {
            status: answer.status().as_u16(),
            content_type: header(CONTENT_TYPE).unwrap_or_default().to_owned(),
            content_length: header(CONTENT_LENGTH).unwrap_or_default().to_owned(),
            body: None,
        };
        let mut whole = Vec::new();
        while let Some(part) = answer.chunk().await? {
            if whole.len() + part.len() > MAX_ANSWER {
                return Ok(reply);
            }
            whole.extend_from_slice(&part);
        }
        reply.body = Some(whole.into());
        Ok::<_, reqwest::Error>(reply)
    };
    let (message_id, callback) = (&message.id, &endpoint.callback);
    match exchange.await {
        Ok(reply) => {
            debug!(message_id, callback, status = reply.status, "a callback answered");
            Some(reply)
        }
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error.without_url();
            debug!(message_id, callback, error, "a callback did not answer");
            None
        }
    }
}
