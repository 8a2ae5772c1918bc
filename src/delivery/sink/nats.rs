//! NATS JetStream: one message an event, acknowledged by the stream.
//!
//! The message id is the event's, so that the stream knows what it has when an event comes again.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::stream;
use async_nats::{ConnectOptions, HeaderMap, ServerAddr};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use super::super::format::Format;
use super::super::outgoing::{Attempt, Envelope};
use super::super::retry::Outcome;
use super::{Single, printable};
use crate::model::event::{Event, StoredEvent};
use crate::model::masking::Masking;
use crate::model::route::SinkName;
use crate::model::secret::Secret;
use crate::model::template::{EventContext, Makes, Template, TemplateError};

/// Messages that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 256;
/// How long an acknowledgement may take.
const ACK_LIMIT: Duration = Duration::from_secs(10);
/// The longest subject, in bytes. Servers close the connection when a line of their protocol is longer than 4 KiB.
const SUBJECT: usize = 2_000;
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a stream that we make knows message ids: longer than a server is away as a rule.
const DUPLICATES: Duration = Duration::from_secs(3600);

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsOptions {
    /// The servers, with commas between them; may hold a password.
    pub url: Secret,
    /// A template of the subject.
    pub subject: Arc<str>,
    /// The stream that takes the messages; made when it is missing. Whichever takes them when none.
    pub stream: Option<String>,
    /// The text of a credentials file.
    pub credentials: Option<Secret>,
}

/// The sink.
pub(in crate::delivery) struct Nats {
    name: SinkName,
    options: NatsOptions,
    format: Format,
    subject: Template,
    servers: Vec<ServerAddr>,
    login: Option<Login>,
    tls: rustls::ClientConfig,
    context: OnceCell<Context>,
    masking: Masking,
}

/// Who we are, as the URL has it. The library logs URLs, so it stands in none that the library gets.
struct Login {
    /// A token when there is no password.
    user: Secret,
    password: Option<Secret>,
}

impl Login {
    /// Takes it out of a URL.
    fn take(url: &mut reqwest::Url) -> Option<Self> {
        let decoded = |text: &str| Secret::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
        let login = Self { user: decoded(url.username()), password: url.password().map(decoded) };
        if url.username().is_empty() && login.password.is_none() {
            return None;
        }
        // Only URLs without a host have no room for a login, and this one had it.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        Some(login)
    }
}

/// Why the sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::delivery) enum NatsError {
    #[error("`url` is no address of a NATS server, such as `nats://127.0.0.1:4222`")]
    Url,
    #[error("`credentials` is no credentials file of NATS")]
    Credentials,
    #[error("`subject` is a template with an error: {0}")]
    Subject(TemplateError),
}

impl Nats {
    pub(in crate::delivery) fn new(
        name: SinkName,
        options: NatsOptions,
        format: Format,
        tls: rustls::ClientConfig,
    ) -> Result<Self, NatsError> {
        let (mut servers, mut login) = (Vec::new(), None);
        for text in options.url.expose().split(',') {
            let mut url = reqwest::Url::parse(text.trim()).map_err(|_| NatsError::Url)?;
            let own = Login::take(&mut url);
            login = login.or(own);
            servers.push(ServerAddr::from_url(url).map_err(|_| NatsError::Url)?);
        }
        let subject = Template::new(&options.subject, Makes::Text).map_err(NatsError::Subject)?;
        let mut masking = Masking::default();
        for url in options.url.expose().split(',') {
            masking.add_url(url);
        }
        if let Some(credentials) = &options.credentials {
            masking.add_opaque_words(credentials.expose());
        }
        let context = OnceCell::new();
        let sink = Self { name, options, format, subject, servers, login, tls, context, masking };
        sink.connect_options()?;
        Ok(sink)
    }

    fn connect_options(&self) -> Result<ConnectOptions, NatsError> {
        let name = self.name.clone();
        let options = ConnectOptions::new()
            .name("eventsubd")
            .retry_on_initial_connect()
            .connection_timeout(CONNECT_LIMIT)
            .tls_client_config(self.tls.clone())
            .event_callback(move |event| {
                match event {
                    async_nats::Event::Connected => info!(sink = %name, "connected to NATS"),
                    async_nats::Event::Disconnected => {
                        warn!(sink = %name, "the connection to NATS is lost; connecting again");
                    }
                    other => info!(sink = %name, event = %other, "NATS"),
                }
                async {}
            });
        let options = match &self.login {
            Some(Login { user, password: Some(password) }) => {
                options.user_and_password(user.expose().to_owned(), password.expose().to_owned())
            }
            Some(Login { user: token, password: None }) => options.token(token.expose().to_owned()),
            None => options,
        };
        match &self.options.credentials {
            Some(text) => options.credentials(text.expose()).map_err(|_| NatsError::Credentials),
            None => Ok(options),
        }
    }

    /// The subject of an event, made of what a subject may have.
    pub(in crate::delivery) fn subject(&self, event: &Event) -> Result<String, String> {
        let context = EventContext::new(event).map_err(|error| error.message)?;
        let text = self.subject.render(&context).map_err(|error| format!("`subject`: {error}"))?;
        match valid_subject(&text) {
            subject if subject.len() <= SUBJECT => Ok(subject),
            subject => Err(format!("`subject` has {} bytes, and a server takes {SUBJECT}", subject.len())),
        }
    }

    /// A text of the server, fit for a message: without what is secret, even when the server repeats it.
    fn hide(&self, text: &str) -> String {
        printable(&self.masking.hide(text))
    }

    /// The connection; it is made once, and keeps itself up.
    async fn context(&self) -> Result<&Context, String> {
        self.context
            .get_or_try_init(|| async {
                let options = self.connect_options().map_err(|error| error.to_string())?;
                let client = options
                    .connect(self.servers.clone())
                    .await
                    .map_err(|error| self.hide(&error.to_string()))?;
                let mut context = async_nats::jetstream::new(client);
                context.set_timeout(ACK_LIMIT);
                Ok(context)
            })
            .await
    }

    async fn publish(&self, stored: &StoredEvent, attempt: &Attempt) -> Outcome {
        let event = &stored.event;
        let subject = match self.subject(event) {
            Ok(subject) => subject,
            Err(error) => return Outcome::rejected(error),
        };
        let context = match self.context().await {
            Ok(context) => context,
            Err(error) => return Outcome::unavailable(error),
        };
        let mut body = Vec::new();
        self.format.line(event, &mut body);
        body.pop();
        let mut headers = HeaderMap::new();
        // A replayed event has a new id, as the stream would drop what it has had.
        let Envelope { message_id, original_message_id, .. } = Envelope::new(event, attempt);
        headers.insert(async_nats::header::NATS_MESSAGE_ID, message_id);
        if let Some(original) = original_message_id {
            headers.insert("Eventsubd-Original-Message-Id", original);
        }
        if let Some(stream) = &self.options.stream {
            headers.insert(async_nats::header::NATS_EXPECTED_STREAM, stream.as_str());
        }
        let sent =
            async { context.publish_with_headers(subject.clone(), headers, Bytes::from(body)).await?.await };
        // Behind a server that is away the connection takes no messages after a while, and says nothing.
        let Ok(sent) = tokio::time::timeout(ACK_LIMIT, sent).await else {
            return Outcome::unavailable("NATS did not acknowledge in time; is the server up?");
        };
        let Err(error) = sent else { return Outcome::Done };
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                Outcome::rejected("the event is larger than the server's max_payload")
            }
            PublishErrorKind::StreamNotFound => match &self.options.stream {
                Some(name) => self.make_stream(context, name).await,
                None => Outcome::unavailable(format!(
                    "no stream takes the subject {subject}: make one, or name one with `stream` to have it made"
                )),
            },
            _ => Outcome::unavailable(self.hide(&error.to_string())),
        }
    }

    /// Makes the stream that is missing; the event is tried again after that.
    async fn make_stream(&self, context: &Context, name: &str) -> Outcome {
        let subjects = vec![subject_filter(&self.options.subject)];
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.clone(),
            duplicate_window: DUPLICATES,
            ..stream::Config::default()
        };
        match context.get_or_create_stream(config).await {
            Ok(_) => {
                info!(sink = %self.name, stream = name, subjects = subjects.join(", "), "the stream is there");
                Outcome::unavailable("the stream was missing; it is made, and the event is tried again")
            }
            Err(error) => Outcome::unavailable(format!(
                "the stream {name} cannot be made: {}",
                self.hide(&error.to_string())
            )),
        }
    }
}

impl Single for Nats {
    fn concurrency(&self) -> usize {
        IN_FLIGHT
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move { self.publish(&event, &attempt).await }.boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        let event = &event.event;
        let mut line = Vec::new();
        self.format.line(event, &mut line);
        Ok(format!(
            "subject {}\nNats-Msg-Id: {}\n\n{}",
            self.subject(event)?,
            event.message_id,
            String::from_utf8_lossy(&line).trim_end()
        ))
    }
}

/// A subject without what no subject may have: an empty part is `_`, and so is a wrong character.
fn valid_subject(text: &str) -> String {
    let part = |part: &str| {
        if part.is_empty() {
            return "_".to_owned();
        }
        part.chars()
            .map(|c| if c.is_whitespace() || c.is_control() || matches!(c, '*' | '>') { '_' } else { c })
            .collect()
    };
    text.trim().split('.').map(part).collect::<Vec<String>>().join(".")
}

/// All subjects that a template can make: what stands before its first variable part, and everything
/// below.
fn subject_filter(template: &str) -> String {
    let fixed = template.find(['{', '%']).map_or(template, |at| &template[..at]);
    if fixed.len() == template.len() {
        return valid_subject(fixed);
    }
    match fixed.rfind('.') {
        Some(at) => format!("{}.>", valid_subject(&fixed[..at])),
        None => ">".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_valid_whatever_an_event_holds() {
        for (text, subject) in [
            ("eventsub.stream.online.12", "eventsub.stream.online.12"),
            ("eventsub.user.update.", "eventsub.user.update._"),
            ("a b.*.>", "a_b._._"),
            ("", "_"),
            (" x\n", "x"),
        ] {
            assert_eq!(valid_subject(text), subject);
        }
    }

    #[test]
    fn the_login_leaves_the_address() {
        let take = |text: &str| {
            let mut url = reqwest::Url::parse(text).unwrap();
            let login = Login::take(&mut url).map(|login| {
                (login.user.expose().to_owned(), login.password.map(|password| password.expose().to_owned()))
            });
            (url.to_string(), login)
        };
        let some = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
        assert_eq!(take("nats://me:p%40ss@host:1"), ("nats://host:1".to_owned(), some("me", Some("p@ss"))));
        assert_eq!(take("tls://token@host"), ("tls://host".to_owned(), some("token", None)));
        assert_eq!(take("nats://host:1"), ("nats://host:1".to_owned(), None));
    }

    #[test]
    fn a_stream_takes_what_the_template_can_make() {
        for (template, filter) in [
            ("eventsub.{{type}}.{{broadcaster_id}}", "eventsub.>"),
            ("a.b.c-{{type}}", "a.b.>"),
            ("{{type}}", ">"),
            ("twitch.events", "twitch.events"),
        ] {
            assert_eq!(subject_filter(template), filter);
        }
    }
}
