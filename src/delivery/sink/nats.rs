//! NATS JetStream: one message an event, acknowledged by the stream.
//!
//! The message id is the event's, so that the stream knows what it has when an event comes again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::stream;
use async_nats::{ClientError, ConnectOptions, Event, HeaderMap, ServerError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use super::super::format::Format;
use super::super::outgoing::{Attempt, Envelope};
use super::super::retry::Outcome;
use super::{Single, printable};
use crate::auth::{NatsServers, NatsServersError, explain_nats, nats_masking};
use crate::model::connect::{reason, silent};
use crate::model::event::StoredEvent;
use crate::model::masking::Masking;
use crate::model::route::SinkName;
use crate::model::sink::NatsOptions;
use crate::model::template::{EventContext, Makes, Template, TemplateError};
use crate::telemetry::LogLimit;

/// Messages that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 256;
/// Time limit of an acknowledgement.
const ACK_LIMIT: Duration = Duration::from_secs(10);
/// The longest subject, in bytes. Servers close the connection when a line of their protocol is longer than 4 KiB.
const SUBJECT: usize = 2_000;
/// The library's words for every failure below the protocol.
const IO_ERROR: &str = "io error";
/// Time limit of connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time for which a stream that we create knows message ids: longer than most outages of a server.
const DUPLICATES: Duration = Duration::from_secs(3600);
/// Age of the oldest message in a stream that the sink creates.
const STREAM_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Size of a stream that the sink creates, in bytes; the server removes the oldest messages beyond it.
const STREAM_BYTES: i64 = 1 << 30;

pub(in crate::delivery) struct Nats {
    options: NatsOptions,
    format: Format,
    subject: Template,
    servers: NatsServers,
    tls: rustls::ClientConfig,
    link: Arc<Link>,
    context: OnceCell<Context>,
}

/// State of the connection. The library reports each attempt; each cause is logged once.
struct Link {
    sink: SinkName,
    /// The servers, without user and password.
    servers: String,
    /// Hosts and ports of the servers.
    targets: Vec<(String, u16)>,
    masking: Masking,
    /// The reason for which there is no connection.
    problem: Mutex<Option<String>>,
    log: LogLimit,
}

impl Link {
    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the cause of a failed attempt that the library calls an I/O error and nothing more.
    async fn cause(&self, event: &Event) -> Option<String> {
        let Event::ClientError(ClientError::Other(text)) = event else { return None };
        if !text.eq_ignore_ascii_case(IO_ERROR) {
            return None;
        }
        for (host, port) in &self.targets {
            let connecting = TcpStream::connect((host.as_str(), *port));
            match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Some(reason(&error)),
                Err(_) => return Some("no answer in time".to_owned()),
            }
        }
        None
    }

    fn handle(&self, event: &Event, cause: Option<String>) {
        let now = Instant::now();
        let permit = |kind| self.log.permit(kind, now);
        let sink = &self.sink;
        let problem = match event {
            Event::Connected => {
                *self.problem() = None;
                if let Some(left_out) = permit("connected") {
                    info!(%sink, servers = self.servers, left_out, "connected to NATS");
                }
                return;
            }
            Event::Disconnected => format!("the connection to {} is lost", self.servers),
            Event::ServerError(ServerError::AuthorizationViolation) => {
                format!("{} refuses the user, the password or the credentials file", self.servers)
            }
            Event::ServerError(ServerError::SlowConsumer(_)) | Event::SlowConsumer(_) => return,
            Event::ServerError(ServerError::Other(text)) => {
                format!("{} reports an error: {}", self.servers, self.said(text))
            }
            Event::ClientError(ClientError::Other(text)) => {
                let cause = cause.unwrap_or_else(|| self.said(&explain_nats(text)));
                format!("cannot connect to {}: {cause}", self.servers)
            }
            Event::LameDuckMode => format!("{} is about to stop", self.servers),
            Event::ClientError(_) | Event::Draining | Event::Closed => {
                format!("the connection to {} is closed", self.servers)
            }
        };
        let new = self.problem().replace(problem.clone()).as_ref() != Some(&problem);
        if new && let Some(left_out) = permit("problem") {
            warn!(%sink, error = problem, left_out, "lost the connection to NATS; reconnecting");
        }
    }

    /// A server's words, fit for a log line. A server may repeat what it was sent.
    fn said(&self, text: &str) -> String {
        printable(&self.masking.hide(text))
    }
}

/// The reason for which the sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::delivery) enum NatsError {
    #[error("`url` is {}", NatsServersError::Url)]
    Url,
    #[error("`credentials` is {}", NatsServersError::Credentials)]
    Credentials,
    #[error("`subject` is a template with an error: {0}")]
    Subject(TemplateError),
}

impl NatsError {
    fn of_servers(error: NatsServersError) -> Self {
        match error {
            NatsServersError::Url => Self::Url,
            NatsServersError::Credentials => Self::Credentials,
        }
    }
}

impl Nats {
    pub(in crate::delivery) fn new(
        name: SinkName,
        options: NatsOptions,
        format: Format,
        tls: rustls::ClientConfig,
    ) -> Result<Self, NatsError> {
        let servers =
            NatsServers::new(&options.url, options.credentials.as_ref()).map_err(NatsError::of_servers)?;
        let subject = Template::new(&options.subject, Makes::Text).map_err(NatsError::Subject)?;
        let targets = servers.addresses().iter();
        let link = Arc::new(Link {
            sink: name,
            servers: servers.names(),
            targets: targets.map(|server| (server.host().to_owned(), server.port())).collect(),
            masking: nats_masking(&options.url, options.credentials.as_ref()),
            problem: Mutex::default(),
            log: LogLimit::default(),
        });
        let context = OnceCell::new();
        Ok(Self { options, format, subject, servers, tls, link, context })
    }

    /// Connects once, logs nothing and sends nothing; the servers' addresses.
    pub(in crate::delivery) async fn try_connect(&self) -> Result<String, String> {
        let options = self.connect_options().map_err(|error| error.to_string())?;
        let options = options.event_callback(|_| async {});
        let servers = &self.link.servers;
        let connected =
            tokio::time::timeout(CONNECT_LIMIT, options.connect(self.servers.addresses().to_vec())).await;
        match connected {
            Ok(Ok(_client)) => Ok(servers.clone()),
            Ok(Err(error)) => Err(format!(
                "cannot connect to {servers}: {}",
                self.link.said(&explain_nats(&error.to_string()))
            )),
            Err(_) => Err(silent(servers, CONNECT_LIMIT)),
        }
    }

    fn connect_options(&self) -> Result<ConnectOptions, NatsError> {
        let link = Arc::clone(&self.link);
        let options = ConnectOptions::new()
            .name("eventsubd")
            .connection_timeout(CONNECT_LIMIT)
            .tls_client_config(self.tls.clone())
            .event_callback(move |event| {
                let link = Arc::clone(&link);
                async move {
                    let cause = link.cause(&event).await;
                    link.handle(&event, cause);
                }
            });
        let options = if self.options.discover { options } else { options.ignore_discovered_servers() };
        self.servers.open(options).map_err(NatsError::of_servers)
    }

    /// The subject of an event, made of what a subject may have.
    pub(in crate::delivery) fn subject(&self, event: &crate::model::event::Event) -> Result<String, String> {
        let context = EventContext::new(event).map_err(|error| error.message)?;
        let text = self.subject.render(&context).map_err(|error| format!("`subject`: {error}"))?;
        match valid_subject(&text) {
            subject if subject.len() <= SUBJECT => Ok(subject),
            subject => Err(format!("`subject` has {} bytes, and a server takes {SUBJECT}", subject.len())),
        }
    }

    /// The connection; it is made once, and keeps itself up.
    async fn context(&self) -> Result<&Context, String> {
        self.context
            .get_or_try_init(|| async {
                let options = self.connect_options().map_err(|error| error.to_string())?;
                let client = options
                    .retry_on_initial_connect()
                    .connect(self.servers.addresses().to_vec())
                    .await
                    .map_err(|error| {
                        format!(
                            "cannot connect to {}: {}",
                            self.link.servers,
                            self.link.said(&explain_nats(&error.to_string()))
                        )
                    })?;
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
            let problem = self.link.problem().clone();
            return Outcome::unavailable(problem.unwrap_or_else(|| {
                let limit = ACK_LIMIT.as_secs();
                format!(
                    "{} did not acknowledge the event in {limit} seconds; is JetStream on?",
                    self.link.servers
                )
            }));
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
            // Without a connection, the reason for that is the real one.
            kind => {
                let problem = self.link.problem().clone();
                Outcome::unavailable(
                    problem
                        .unwrap_or_else(|| format!("{} did not take the event: {kind}", self.link.servers)),
                )
            }
        }
    }

    /// Makes the stream that is missing; the event is tried again after that.
    async fn make_stream(&self, context: &Context, name: &str) -> Outcome {
        let subjects = vec![subject_filter(&self.options.subject)];
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.clone(),
            duplicate_window: DUPLICATES,
            max_age: STREAM_AGE,
            max_bytes: STREAM_BYTES,
            ..stream::Config::default()
        };
        match context.get_or_create_stream(config).await {
            Ok(_) => {
                info!(stream = name, subjects = subjects.join(", "), "created the stream");
                Outcome::unavailable("the stream was missing; created it, and the event is tried again")
            }
            Err(error) => Outcome::unavailable(format!(
                "the stream {name} cannot be made: {}",
                self.link.said(&error.to_string())
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
    use crate::model::secret::Secret;

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
    fn a_server_that_repeats_a_secret_is_not_quoted_and_a_cause_is_kept_once() {
        let options = NatsOptions {
            url: Secret::new("nats://me:p%40ssword-9-of-the-bus@n1:4222,nats://n2"),
            subject: "x".into(),
            stream: None,
            credentials: None,
            discover: false,
        };
        let tls = crate::delivery::tests::tls();
        let sink = Nats::new(SinkName::new("bus"), options, Format::Eventsub, tls).unwrap();
        let link = &sink.link;
        let other = |text: &str| Event::ServerError(ServerError::Other(text.to_owned()));
        let problem = || link.problem().clone().unwrap_or_default();
        for text in ["bad login me:p@ssword-9-of-the-bus", "no: P@SSWORD-9", "\u{1b}[31mword-9-of\n"] {
            link.handle(&other(text), None);
            let said = problem().to_ascii_lowercase();
            assert!(said.contains("[secret]") && !said.contains("word-9"), "{said}");
            assert!(!said.contains(char::is_control), "{said:?}");
        }
        link.handle(&other("maximum \u{1b}[31mconnections\nexceeded"), None);
        assert!(!problem().contains(char::is_control), "{:?}", problem());
        let refused = "IO error: Connection refused (os error 111)".to_owned();
        link.handle(&Event::ClientError(ClientError::Other(refused)), None);
        assert_eq!(problem(), "cannot connect to n1:4222, n2:4222: connection refused");
        link.handle(&Event::Connected, None);
        assert_eq!(problem(), "");
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
