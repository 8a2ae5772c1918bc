//! HTTP: one request an event.
//!
//! The URL, the headers and what the receiver answers may hold secrets: messages name the host only, and
//! what the receiver says is shown without them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::super::format::cloudevent;
use super::super::retry::Outcome;
use super::super::template::{EventContext, Template, TemplateError, is_json};
use super::{Single, printable};
use crate::model::event::StoredEvent;
use crate::model::secret::Secret;
use crate::model::signature::Signer;
use crate::model::text::chain;

/// How much of an answer is read: enough to say what is wrong, and to use the connection again.
const ANSWER: usize = 16 << 10;

/// Where requests go, and what they are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The address; may hold secrets.
    pub url: Secret,
    /// The method.
    pub method: Method,
    /// Names and values of headers, which win over those of the format; values may hold secrets. With a
    /// template as body they are templates too.
    pub headers: Vec<(HeaderName, Secret)>,
    /// What the body is.
    pub body: HttpBody,
    /// How long one request may take, answer and all.
    pub timeout: Duration,
    /// How many requests are under way at once.
    pub concurrency: usize,
}

/// What the body of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpBody {
    /// Twitch's own webhook request, signed with this secret when there is one.
    Eventsub(Option<Secret>),
    /// CloudEvents 1.0, structured mode.
    Cloudevents,
    /// A template.
    Template(Arc<str>),
}

/// The sink.
pub(in crate::delivery) struct Http {
    options: HttpOptions,
    client: reqwest::Client,
    url: reqwest::Url,
    body: Body,
    /// Headers that are the same for every event.
    fixed: HeaderMap,
    /// Headers that are templates.
    templates: Vec<(HeaderName, Template)>,
    host: String,
    hidden: Vec<Secret>,
}

enum Body {
    Eventsub(Option<Signer>),
    Cloudevents,
    Template(Template),
}

/// Why the sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::delivery) enum HttpError {
    #[error("`url` is no address for HTTP")]
    Url,
    #[error("the value of the header `{0}` has characters that no header may have")]
    Header(HeaderName),
    #[error("`{key}` is a template with an error: {error}")]
    Template { key: String, error: TemplateError },
}

/// A request, but for where it goes.
pub(in crate::delivery) struct Message {
    pub(in crate::delivery) headers: HeaderMap,
    pub(in crate::delivery) body: Bytes,
}

impl Http {
    pub(in crate::delivery) fn new(options: HttpOptions, client: reqwest::Client) -> Result<Self, HttpError> {
        let url = reqwest::Url::parse(options.url.expose()).map_err(|_| HttpError::Url)?;
        let host = url.host_str().ok_or(HttpError::Url)?.to_owned();
        let template = |key: String, source: &str| {
            Template::new(source).map_err(|error| HttpError::Template { key, error })
        };
        let body = match &options.body {
            HttpBody::Eventsub(secret) => Body::Eventsub(secret.as_ref().map(Signer::new)),
            HttpBody::Cloudevents => Body::Cloudevents,
            HttpBody::Template(source) => Body::Template(template("body".to_owned(), source)?),
        };
        let (mut fixed, mut templates) = (HeaderMap::new(), Vec::new());
        for (name, value) in &options.headers {
            if matches!(body, Body::Template(_)) {
                templates.push((name.clone(), template(format!("headers.{name}"), value.expose())?));
            } else {
                fixed.append(name.clone(), header_value(name, value.expose())?);
            }
        }
        let mut hidden: Vec<Secret> = options.headers.iter().map(|(_, value)| value.clone()).collect();
        hidden.extend([url.path().trim_start_matches('/'), url.query().unwrap_or("")].map(Secret::new));
        hidden.extend(url.password().map(Secret::new));
        if let HttpBody::Eventsub(Some(secret)) = &options.body {
            hidden.push(secret.clone());
        }
        // Short texts stand in many places; hiding them would garble and hide nothing.
        hidden.retain(|secret| secret.expose().len() >= 8);
        Ok(Self { options, client, url, body, fixed, templates, host, hidden })
    }

    /// What is sent for an event.
    ///
    /// # Errors
    /// The event does not fit the templates.
    pub(in crate::delivery) fn message(
        &self,
        stored: &StoredEvent,
        failures: u32,
    ) -> Result<Message, String> {
        let event = &stored.event;
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        let body = match &self.body {
            Body::Eventsub(signer) => {
                headers.insert(header::CONTENT_TYPE, json);
                let mut set = |name: &'static str, text: &str| {
                    let value = HeaderValue::from_str(text)
                        .map_err(|_| format!("the event has a text that no header can hold, for {name}"))?;
                    headers.insert(HeaderName::from_static(name), value);
                    Ok::<_, String>(())
                };
                set("twitch-eventsub-message-id", event.message_id.as_str())?;
                set("twitch-eventsub-message-retry", &failures.to_string())?;
                set("twitch-eventsub-message-type", "notification")?;
                set("twitch-eventsub-message-timestamp", &event.message_timestamp)?;
                set("twitch-eventsub-subscription-type", &event.subscription_type)?;
                set("twitch-eventsub-subscription-version", &event.subscription_version)?;
                if let Some(signer) = signer {
                    let id = event.message_id.as_str().as_bytes();
                    let signature = signer.sign(id, event.message_timestamp.as_bytes(), &event.payload);
                    set("twitch-eventsub-message-signature", &signature)?;
                }
                event.payload.clone()
            }
            Body::Cloudevents => {
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/cloudevents+json; charset=utf-8"),
                );
                let mut body = Vec::new();
                cloudevent(event, &mut body);
                body.into()
            }
            Body::Template(template) => {
                let context = EventContext::new(event).map_err(|error| error.message)?;
                let body = template.render(&context).map_err(|error| format!("`body`: {error}"))?;
                let kind = HeaderValue::from_static("text/plain; charset=utf-8");
                headers.insert(header::CONTENT_TYPE, if is_json(&body) { json } else { kind });
                for (name, template) in &self.templates {
                    let value =
                        template.render(&context).map_err(|error| format!("`headers.{name}`: {error}"))?;
                    headers.insert(name, header_value(name, &value).map_err(|error| error.to_string())?);
                }
                body.into()
            }
        };
        for (name, value) in &self.fixed {
            headers.insert(name, value.clone());
        }
        Ok(Message { headers, body })
    }

    async fn request(&self, event: &StoredEvent, failures: u32) -> Outcome {
        let Message { headers, body } = match self.message(event, failures) {
            Ok(message) => message,
            Err(error) => return Outcome::Rejected(error),
        };
        let request = self
            .client
            .request(self.options.method.clone(), self.url.clone())
            .headers(headers)
            .body(body)
            .timeout(self.options.timeout);
        match request.send().await {
            Ok(answer) => self.judge(answer).await,
            Err(error) => {
                let why = if error.is_timeout() {
                    format!("no answer within {}", humantime::format_duration(self.options.timeout))
                } else {
                    chain(&error.without_url())
                };
                Outcome::failed(format!("{}: {}", self.host, self.hide(&why)))
            }
        }
    }

    async fn judge(&self, mut answer: reqwest::Response) -> Outcome {
        let status = answer.status();
        let after = answer.headers().get(header::RETRY_AFTER).and_then(retry_after);
        let mut said = Vec::new();
        // An answer that is longer, or does not end, costs the connection and nothing else.
        while said.len() < ANSWER
            && let Ok(Some(part)) = answer.chunk().await
        {
            said.extend_from_slice(&part[..part.len().min(ANSWER - said.len())]);
        }
        if status.is_success() {
            return Outcome::Done;
        }
        let said = self.hide(&String::from_utf8_lossy(&said));
        let mut error = format!("{} answered {}", self.host, status.as_u16());
        if let Some(reason) = status.canonical_reason() {
            error = format!("{error} {reason}");
        }
        if !said.is_empty() {
            error = format!("{error}: {said}");
        }
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Outcome::Failed { error, after }
            }
            _ if status.is_client_error() => Outcome::Rejected(error),
            _ if status.is_redirection() => {
                Outcome::failed(format!("{error}; redirects are not followed: set `url` to where it leads"))
            }
            _ => Outcome::Failed { error, after },
        }
    }

    /// A text fit for a log: without what is secret, even when the receiver repeats it.
    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.hidden {
            text = text.replace(secret.expose(), "[secret]");
        }
        printable(&text)
    }
}

impl Single for Http {
    fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, failures: u32) -> BoxFuture<'static, Outcome> {
        async move { self.request(&event, failures).await }.boxed()
    }
}

fn header_value(name: &HeaderName, text: &str) -> Result<HeaderValue, HttpError> {
    // Names of people are not always ASCII; line breaks and other control characters are refused.
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| HttpError::Header(name.clone()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            Some(at.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Event, MessageId, Seq};
    use crate::model::time::Timestamp;

    fn event() -> StoredEvent {
        StoredEvent {
            seq: Seq(1),
            stored_at: Timestamp::from_unix_millis(0),
            event: Event {
                message_id: MessageId::new("e76c6bd4-55c9-4987-8304-da1588d8988b").unwrap(),
                message_timestamp: "2019-11-16T10:11:12.634234626Z".into(),
                subscription_type: "stream.online".into(),
                subscription_version: "1".into(),
                subscription_id: "s".into(),
                payload: br#"{"subscription":{"condition":{}},"event":{"broadcaster_user_name":"Ann"}}"#
                    .as_slice()
                    .into(),
            },
        }
    }

    fn sink(body: HttpBody, headers: &[(&'static str, &str)]) -> Result<Http, HttpError> {
        let options = HttpOptions {
            url: Secret::new("http://hook.example/api/webhooks/1234567890/secret-path"),
            method: Method::POST,
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), Secret::new(*value)))
                .collect(),
            body,
            timeout: Duration::from_secs(1),
            concurrency: 1,
        };
        Http::new(options, crate::delivery::tests::client())
    }

    #[test]
    fn a_webhook_is_the_one_that_twitch_would_send() {
        let sink = sink(HttpBody::Eventsub(Some(Secret::new("s3cre77890ab"))), &[("x-more", "1")]).unwrap();
        let message = sink.message(&event(), 2).unwrap();
        assert_eq!(message.body, event().event.payload);
        let header = |name: &str| message.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("twitch-eventsub-message-id"), "e76c6bd4-55c9-4987-8304-da1588d8988b");
        assert_eq!(header("twitch-eventsub-message-retry"), "2");
        assert_eq!(header("twitch-eventsub-message-timestamp"), "2019-11-16T10:11:12.634234626Z");
        assert_eq!(header("twitch-eventsub-subscription-type"), "stream.online");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("x-more"), "1");
        // Made with Python's hmac over id, timestamp and body.
        assert_eq!(
            header("twitch-eventsub-message-signature"),
            "sha256=f042271a53a298dcc39670ae97b93494a64f004f065dbc2a83e71ac5677678d2"
        );
    }

    #[test]
    fn templates_fill_body_and_headers() {
        let body = HttpBody::Template(r#"{"content": {{ event.broadcaster_user_name | tojson }}}"#.into());
        let made = sink(body, &[("title", "{{ type }}"), ("content-type", "text/x-own")]).unwrap();
        let message = made.message(&event(), 0).unwrap();
        assert_eq!(message.body, r#"{"content": "Ann"}"#);
        assert_eq!(message.headers["title"], "stream.online");
        assert_eq!(message.headers["content-type"], "text/x-own");
        let wrong = sink(HttpBody::Template("{{ event.nothing }}".into()), &[]).unwrap();
        assert!(wrong.message(&event(), 0).err().unwrap().contains("undefined"));
        let broken = sink(HttpBody::Template("{{".into()), &[]).err().unwrap();
        assert!(broken.to_string().contains("`body`"), "{broken}");
        assert!(sink(HttpBody::Cloudevents, &[("a", "b\nc")]).is_err());
    }

    #[test]
    fn what_a_receiver_repeats_is_hidden() {
        let sink = sink(HttpBody::Cloudevents, &[("authorization", "Bearer abcdefgh")]).unwrap();
        let said = sink.hide("no: Bearer abcdefgh at api/webhooks/1234567890/secret-path\nsorry");
        assert_eq!(said, "no: [secret] at [secret] sorry");
    }

    #[test]
    fn pauses_are_read() {
        let read = |text: &'static str| retry_after(&HeaderValue::from_static(text));
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
