//! HTTP: one request an event.
//!
//! The URL, the headers and what the receiver answers may hold secrets: messages name the host only, and
//! what the receiver says is shown without them.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::format::cloudevent;
use super::super::outgoing::{Attempt, CATCH_UP, Envelope, ORIGINAL_MESSAGE_ID, ORIGINAL_TIMESTAMP};
use super::super::receiver::Receiver;
use super::super::retry::{Failure, Outcome};
use super::super::verdict::{Verdict, advice, allowance, classify, wish};
use super::{HIDDEN, Single, printable};
use crate::auth::{Proxies, explain};
use crate::model::event::{Event, StoredEvent};
use crate::model::masking::Masking;
use crate::model::signature::Signer;
use crate::model::sink::{HttpBody, HttpOptions};
use crate::model::template::{
    EventContext, Makes, Template, TemplateError, fixed_base, has_dot_segment, is_json, is_pure, is_template,
};
use crate::model::text::duration;

/// Headers of a message that there is room for at once.
const HEADERS: usize = 16;
/// Most bytes of an answer that are read: enough to name the problem, and to reuse the connection.
const ANSWER: usize = 16 << 10;

pub(in crate::delivery) struct Http {
    options: HttpOptions,
    client: reqwest::Client,
    /// The address, or the fixed beginning of it.
    url: reqwest::Url,
    /// The rest of the address, if it is a template.
    url_template: Option<Template>,
    body: Body,
    /// Headers that are the same for every event.
    fixed: HeaderMap,
    /// Headers that are templates.
    templates: Vec<(HeaderName, Template)>,
    /// Host and port, for messages.
    host: String,
    masking: Masking,
    proxies: Proxies,
}

enum Body {
    Eventsub(Option<Signer>),
    Cloudevents,
    Template(Template),
}

/// The reason for which the sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::delivery) enum HttpError {
    #[error("`url` is not an address for HTTP, with a host that is the same for every event")]
    Url,
    #[error("the value of the header `{0}` has characters that no header may have")]
    Header(HeaderName),
    #[error("`{key}` is a template with an error: {error}")]
    Template { key: String, error: TemplateError },
}

/// A request as it is sent.
pub(in crate::delivery) struct Message {
    pub(in crate::delivery) url: reqwest::Url,
    pub(in crate::delivery) headers: HeaderMap,
    pub(in crate::delivery) body: Bytes,
}

impl Http {
    pub(in crate::delivery) fn new(options: HttpOptions, client: reqwest::Client) -> Result<Self, HttpError> {
        let source = options.url.expose();
        let base = if is_template(source) { fixed_base(source).ok_or(HttpError::Url)? } else { source };
        let url = reqwest::Url::parse(base).map_err(|_| HttpError::Url)?;
        let url_template = match is_template(source) {
            true => Some(
                Template::new(source, Makes::Url)
                    .map_err(|error| HttpError::Template { key: "url".to_owned(), error })?,
            ),
            false => None,
        };
        let mut host = url.host_str().ok_or(HttpError::Url)?.to_owned();
        if let Some(port) = url.port() {
            host = format!("{host}:{port}");
        }
        let template = |key: String, source: &str| {
            Template::new(source, Makes::Text).map_err(|error| HttpError::Template { key, error })
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
        let (masking, proxies) = (masking(&options), Proxies::default());
        Ok(Self { options, client, url, url_template, body, fixed, templates, host, masking, proxies })
    }

    /// The address; of a template, the part that is the same for every event.
    pub(in crate::delivery) fn base(&self) -> &reqwest::Url {
        &self.url
    }

    /// Names the proxies that the client uses in messages.
    pub(in crate::delivery) fn with_proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Builds the request for an event.
    ///
    /// # Errors
    /// The event does not fit the templates.
    pub(in crate::delivery) fn message(
        &self,
        stored: &StoredEvent,
        attempt: &Attempt,
    ) -> Result<Message, String> {
        let event = &stored.event;
        let mut headers = HeaderMap::with_capacity(HEADERS);
        let json = HeaderValue::from_static("application/json");
        let body = match &self.body {
            Body::Eventsub(signer) => {
                headers.insert(header::CONTENT_TYPE, json);
                let mut set = |name: &'static str, text: &str| {
                    headers.insert(HeaderName::from_static(name), any_header_value(text));
                };
                let envelope = Envelope::new(event, attempt);
                set("twitch-eventsub-message-id", envelope.message_id);
                set("twitch-eventsub-message-retry", &attempt.failures.to_string());
                set("twitch-eventsub-message-type", event.message_type());
                set("twitch-eventsub-message-timestamp", &envelope.timestamp);
                set("twitch-eventsub-subscription-type", &event.subscription_type);
                set("twitch-eventsub-subscription-version", &event.subscription_version);
                if let Some(signer) = signer {
                    let (id, timestamp) = (envelope.message_id.as_bytes(), envelope.timestamp.as_bytes());
                    let signature = signer.sign(id, timestamp, &event.payload);
                    set("twitch-eventsub-message-signature", &signature);
                }
                if let Some(original) = envelope.original_message_id {
                    set(ORIGINAL_MESSAGE_ID, original);
                }
                if let Some(original) = envelope.original_timestamp {
                    set(ORIGINAL_TIMESTAMP, original);
                }
                if event.is_caught_up() {
                    set(CATCH_UP, "true");
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
                    headers.insert(name, any_header_value(&value));
                }
                body.into()
            }
        };
        for (name, value) in &self.fixed {
            headers.insert(name, value.clone());
        }
        Ok(Message { url: self.address(event)?, headers, body })
    }

    /// Returns the address for an event.
    fn address(&self, event: &Event) -> Result<reqwest::Url, String> {
        let Some(template) = &self.url_template else { return Ok(self.url.clone()) };
        let context = EventContext::new(event).map_err(|error| error.message)?;
        let text = template.render(&context).map_err(|error| format!("`url`: {error}"))?;
        if has_dot_segment(&text) {
            return Err("`url`: the event would make `.` or `..` a part of the path".to_owned());
        }
        let url = reqwest::Url::parse(&text).map_err(|error| format!("`url`: {error}"))?;
        let place = |url: &reqwest::Url| {
            (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
        };
        if place(&url) == place(&self.url) {
            Ok(url)
        } else {
            Err("`url`: the event would change the host".to_owned())
        }
    }

    async fn request(&self, event: &StoredEvent, attempt: &Attempt) -> Outcome {
        let Message { url, headers, body } = match self.message(event, attempt) {
            Ok(message) => message,
            Err(error) => return Outcome::rejected(error),
        };
        // The builder sends a user and a password in the URL as a header, and takes them out of the URL.
        let request = self
            .client
            .request(self.options.method.clone(), url)
            .headers(headers)
            .body(body)
            .timeout(self.options.timeout);
        match request.send().await {
            Ok(answer) => self.judge(answer, attempt.now).await,
            Err(error) => {
                let why = if error.is_timeout() && !error.is_connect() {
                    format!("{} did not answer within {}", self.host, duration(self.options.timeout))
                } else {
                    explain(&error, &self.proxies)
                };
                Outcome::unavailable(self.hide(&why))
            }
        }
    }

    async fn judge(&self, mut answer: reqwest::Response, now: SystemTime) -> Outcome {
        let status = answer.status();
        let mut said = Vec::new();
        // An answer that is longer, or does not end, costs the connection and nothing else.
        while said.len() < ANSWER
            && let Ok(Some(part)) = answer.chunk().await
        {
            said.extend_from_slice(&part[..part.len().min(ANSWER - said.len())]);
        }
        let verdict = classify(status.as_u16());
        if verdict == Verdict::Accepted {
            return allowance(answer.headers()).map_or(Outcome::Done, Outcome::DoneWithin);
        }
        let mut message = format!("{} answered {}", self.host, status.as_u16());
        if let Some(reason) = status.canonical_reason() {
            message = format!("{message} {reason}");
        }
        if let Some(advice) = advice(status.as_u16()) {
            message = format!("{message}; {advice}");
        }
        let words = self.hide(&String::from_utf8_lossy(&said));
        let failure = Failure { message, said: Some(words).filter(|words| !words.is_empty()) };
        match verdict {
            Verdict::Accepted => Outcome::Done,
            Verdict::Event => Outcome::Rejected(failure),
            Verdict::Receiver | Verdict::Moved => Outcome::Unavailable(failure),
            Verdict::Busy => match wish(answer.headers(), &said, now) {
                Some(wait) if !wait.is_zero() => Outcome::Throttled { failure, wait },
                Some(_) | None => Outcome::Unavailable(failure),
            },
        }
    }

    /// A text fit for a log: without what is secret, even when the receiver repeats it.
    fn hide(&self, text: &str) -> String {
        printable(&self.masking.hide(text))
    }
}

/// Everything in the options that a receiver must not get into a message by repeating it.
fn masking(options: &HttpOptions) -> Masking {
    let mut masking = Masking::default();
    masking.add_url(options.url.expose());
    for (name, value) in &options.headers {
        if ![header::CONTENT_TYPE, header::ACCEPT].contains(name) {
            masking.add_header(value.expose());
        }
    }
    match &options.body {
        HttpBody::Eventsub(Some(secret)) => masking.add_secret(secret.expose()),
        HttpBody::Eventsub(None) | HttpBody::Cloudevents => {}
        HttpBody::Template(source) => masking.add_opaque_words(source),
    }
    masking
}

impl Single for Http {
    fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move { self.request(&event, &attempt).await }.boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        let Message { url, headers, body } = self.message(event, &Attempt::first(SystemTime::now()))?;
        let mut text = format!("{} {}\n", self.options.method, shown_url(url));
        for (name, value) in &headers {
            let own = self.options.headers.iter().find(|(own, _)| own == name);
            let is_secret =
                own.is_some_and(|(_, source)| !is_pure(source.expose())) && *name != header::CONTENT_TYPE;
            let value = if is_secret { HIDDEN.into() } else { String::from_utf8_lossy(value.as_bytes()) };
            text.push_str(&format!("{}: {value}\n", title_case(name)));
        }
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&body));
        Ok(text)
    }

    fn receiver(&self) -> Option<Receiver> {
        let harmless = [header::CONTENT_TYPE, header::ACCEPT, header::USER_AGENT];
        let credentials = self.options.headers.iter().filter(|(name, _)| !harmless.contains(name));
        Some(Receiver::new(&self.url, credentials.map(|(_, value)| value.expose())))
    }
}

/// A URL without its password and without long opaque parts, which may be secrets.
fn shown_url(mut url: reqwest::Url) -> String {
    // A URL with a host always has room for a login.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    let is_opaque = |part: &&str| part.len() >= 16 && part.bytes().any(|byte| byte.is_ascii_digit());
    let mut shown = url.to_string();
    let query = url.query().unwrap_or_default();
    for part in url.path().split('/').chain(query.split(['&', '='])).filter(is_opaque) {
        shown = shown.replace(part, HIDDEN);
    }
    shown
}

/// The name of a header as it goes over the wire: `Content-Type`.
fn title_case(name: &HeaderName) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => format!("{}{rest}", first.to_ascii_uppercase()),
        None => String::new(),
    };
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
}

fn header_value(name: &HeaderName, text: &str) -> Result<HeaderValue, HttpError> {
    // Names of people are not always ASCII; line breaks and other control characters are refused.
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| HttpError::Header(name.clone()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A value made of an event, which may have any character: those that no header may have become blanks.
fn any_header_value(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| {
        let clean: String = text.chars().map(|c| if c.is_ascii_control() { ' ' } else { c }).collect();
        HeaderValue::from_bytes(clean.as_bytes()).expect("there are no control characters left")
    });
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{MessageId, Seq};
    use crate::model::secret::Secret;
    use crate::model::time::Timestamp;
    use http::Method;
    use std::time::Duration;

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
        let soon = Timestamp::parse("2019-11-16T10:12:00Z").unwrap().0;
        let attempt = Attempt { failures: 2, ..Attempt::first(soon) };
        let message = sink.message(&event(), &attempt).unwrap();
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
    fn a_revocation_is_the_request_that_twitch_would_send() {
        let sink = sink(HttpBody::Eventsub(None), &[]).unwrap();
        let mut revocation = event();
        revocation.event.payload = br#"{"subscription":{"status":"user_removed"}}"#.as_slice().into();
        let message = sink.message(&revocation, &Attempt::first(std::time::SystemTime::now())).unwrap();
        assert_eq!(message.headers["twitch-eventsub-message-type"], "revocation");
        assert_eq!(message.body, revocation.event.payload);
    }

    #[test]
    fn templates_fill_body_and_headers() {
        let body = HttpBody::Template(r#"{"content": {{ event.broadcaster_user_name | tojson }}}"#.into());
        let made = sink(body, &[("title", "{{ type }}"), ("content-type", "text/x-own")]).unwrap();
        let attempt = Attempt::first(SystemTime::now());
        let message = made.message(&event(), &attempt).unwrap();
        assert_eq!(message.body, r#"{"content": "Ann"}"#);
        assert_eq!(message.headers["title"], "stream.online");
        assert_eq!(message.headers["content-type"], "text/x-own");
        let wrong = sink(HttpBody::Template("{{ event.nothing }}".into()), &[]).unwrap();
        assert!(wrong.message(&event(), &attempt).err().unwrap().contains("undefined"));
        let broken = sink(HttpBody::Template("{{".into()), &[]).err().unwrap();
        assert!(broken.to_string().contains("`body`"), "{broken}");
        assert!(sink(HttpBody::Cloudevents, &[("a", "b\nc")]).is_err());
    }

    fn with_url(url: &str) -> Result<Http, HttpError> {
        let options = HttpOptions {
            url: Secret::new(url),
            method: Method::POST,
            headers: vec![
                (header::AUTHORIZATION, Secret::new("Bearer hunter2")),
                (HeaderName::from_static("x-type"), Secret::new("{{ type }}")),
            ],
            body: HttpBody::Template("{{ event.broadcaster_user_name }}".into()),
            timeout: Duration::from_secs(1),
            concurrency: 1,
        };
        Http::new(options, crate::delivery::tests::client())
    }

    #[test]
    fn a_url_is_filled_from_the_event_and_its_host_is_fixed() {
        let url = |template: &str, name: &str| {
            let mut event = event();
            let payload = format!(r#"{{"subscription":{{}},"event":{{"broadcaster_user_name":"{name}"}}}}"#);
            event.event.payload = payload.into_bytes().into();
            let message = with_url(template).unwrap().message(&event, &Attempt::first(SystemTime::now()));
            message.map(|message| message.url.to_string())
        };
        let template = "https://h.example/a/{{ event.broadcaster_user_name }}?type={{ type }}";
        assert_eq!(url(template, "Ann"), Ok("https://h.example/a/Ann?type=stream.online".to_owned()));
        assert_eq!(
            url(template, "x/../../b?c#d é"),
            Ok("https://h.example/a/x%2F..%2F..%2Fb%3Fc%23d%20%C3%A9?type=stream.online".to_owned())
        );
        for climbing in [".", ".."] {
            assert!(url(template, climbing).unwrap_err().contains("part of the path"), "{climbing}");
        }
        let raw = "https://h.example/{{ event.broadcaster_user_name | safe }}";
        assert!(url(raw, "a/../b").unwrap_err().contains("part of the path"));
        for wrong in ["https://{{ type }}/", "https://h{{ type }}/x", "{{ type }}"] {
            assert_eq!(with_url(wrong).err(), Some(HttpError::Url), "{wrong}");
        }
    }

    #[test]
    fn a_preview_shows_the_request_without_its_secrets() {
        let sink = with_url("https://me:hunter2@h.example/hooks/0123456789abcdef-token/x").unwrap();
        assert_eq!(
            sink.preview(&event()).unwrap(),
            "POST https://h.example/hooks/[hidden]/x\nContent-Type: text/plain; charset=utf-8\n\
             Authorization: [hidden]\nX-Type: stream.online\n\nAnn"
        );
    }

    #[test]
    fn a_line_break_in_a_header_and_half_a_surrogate_are_no_dead_letters() {
        let made = sink(HttpBody::Template("{{ event.t }}".into()), &[("title", "{{ event.t }}")]).unwrap();
        let mut event = event();
        event.event.payload =
            br#"{"subscription":{"condition":{}},"event":{"t":"a\r\nX: y\u0000\ud83d\u00e9"}}"#.as_slice().into();
        let message = made.message(&event, &Attempt::first(SystemTime::now())).unwrap();
        assert_eq!(message.headers["title"].as_bytes(), "a  X: y \u{fffd}\u{e9}".as_bytes());
        assert_eq!(message.body, "a\r\nX: y\0\u{fffd}\u{e9}");
    }

    #[test]
    fn what_a_receiver_repeats_is_hidden() {
        let sink = sink(HttpBody::Cloudevents, &[("authorization", "Bearer abcdefgh")]).unwrap();
        let said = sink.hide("invalid token abcdefgh at secret-path\nsorry");
        assert_eq!(said, r"invalid token [secret] at [secret]\nsorry");
    }
}
