//! Redis: an entry of a stream, or a message on a channel, for each event.
//!
//! A stream keeps what it has answered for as long as the server's own persistence does. A channel hands a message to
//! whoever listens at that moment, and to nobody else.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisConnectionInfo, RedisError};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tracing::info;

use super::super::format::Format;
use super::super::outgoing::{Attempt, Envelope};
use super::super::retry::Outcome;
use super::{Single, printable};
use crate::model::connect::{broke, cannot_connect, silent};
use crate::model::event::{Event, StoredEvent};
use crate::model::masking::Masking;
use crate::model::sink::{RedisOptions, RedisTarget};
use crate::model::template::{EventContext, Makes, Template, TemplateError};

/// Commands that wait for their answer at once.
const IN_FLIGHT: usize = 256;
/// Time limit of an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 6379;

pub(in crate::delivery) struct Redis {
    options: RedisOptions,
    format: Format,
    target: Template,
    url: reqwest::Url,
    login: RedisConnectionInfo,
    masking: Masking,
    tls: Option<Arc<rustls::ClientConfig>>,
    connection: Mutex<Option<Link>>,
}

/// A connection and the task that drives it.
#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    driver: Arc<Driver>,
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reason for which the sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::delivery) enum RedisSinkError {
    #[error("`url` is not an address of a Redis server, such as `redis://127.0.0.1:6379/0`")]
    Url,
    #[error("`{key}` is a template with an error: {error}")]
    Template { key: &'static str, error: TemplateError },
}

impl Redis {
    pub(in crate::delivery) fn new(
        options: RedisOptions,
        format: Format,
        tls: rustls::ClientConfig,
    ) -> Result<Self, RedisSinkError> {
        let url = reqwest::Url::parse(options.url.expose()).map_err(|_| RedisSinkError::Url)?;
        let tls = match url.scheme() {
            "redis" => None,
            "rediss" => Some(Arc::new(tls)),
            _ => return Err(RedisSinkError::Url),
        };
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(RedisSinkError::Url);
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let database = url.path().trim_matches('/');
        let login = RedisConnectionInfo {
            db: if database.is_empty() { 0 } else { database.parse().map_err(|_| RedisSinkError::Url)? },
            username: Some(decoded(url.username())).filter(|name| !name.is_empty()),
            password: url.password().map(decoded),
            ..RedisConnectionInfo::default()
        };
        let (key, source) = match &options.target {
            RedisTarget::Stream { key, .. } => ("stream", key),
            RedisTarget::Channel(channel) => ("channel", channel),
        };
        let target =
            Template::new(source, Makes::Text).map_err(|error| RedisSinkError::Template { key, error })?;
        let mut masking = Masking::default();
        masking.add_url(options.url.expose());
        Ok(Self { options, format, target, url, login, masking, tls, connection: Mutex::new(None) })
    }

    /// The key or the channel for an event.
    fn target(&self, event: &Event) -> Result<String, String> {
        let key = match &self.options.target {
            RedisTarget::Stream { .. } => "stream",
            RedisTarget::Channel(_) => "channel",
        };
        let context = EventContext::new(event).map_err(|error| error.message)?;
        let text = self.target.render(&context).map_err(|error| format!("`{key}`: {error}"))?;
        let text = text.trim();
        if text.is_empty() { Err(format!("`{key}` is empty for this event")) } else { Ok(text.to_owned()) }
    }

    fn address(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{host}:{}", self.url.port().unwrap_or(DEFAULT_PORT))
    }

    /// The connection; made when there is none.
    async fn link(&self) -> Result<Link, String> {
        let mut slot = self.connection.lock().await;
        if let Some(link) = &*slot {
            return Ok(link.clone());
        }
        let address = self.address();
        let connecting = tokio::time::timeout(CONNECT_LIMIT, self.connect(&address)).await;
        let link = connecting.map_err(|_| silent(&address, CONNECT_LIMIT))??;
        info!(address, "connected to Redis");
        *slot = Some(link.clone());
        Ok(link)
    }

    async fn connect(&self, address: &str) -> Result<Link, String> {
        let failed = |error: std::io::Error| cannot_connect(address, None, &error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        // An event is one small packet; it must not wait for another one.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.log_in(stream).await,
            Some(tls) => {
                let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name =
                    rustls::pki_types::ServerName::try_from(host).map_err(|error| error.to_string())?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
                let stream = connector.connect(name, stream).await.map_err(failed)?;
                self.log_in(stream).await
            }
        }
    }

    async fn log_in<S>(&self, stream: S) -> Result<Link, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let made = MultiplexedConnection::new(&self.login, stream).await;
        let (mut connection, driver) = made.map_err(|error| self.explain(&error))?;
        connection.set_response_timeout(ANSWER_LIMIT);
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Link { connection, driver: Arc::new(Driver(driver)) })
    }

    fn explain(&self, error: &RedisError) -> String {
        let address = self.address();
        // A server or a library may repeat a secret.
        let printable = |text: &str| printable(&self.masking.hide(text));
        let said = printable(error.detail().unwrap_or_default());
        match error.kind() {
            ErrorKind::AuthenticationFailed => {
                format!("{address} refuses the user name or the password in `url`")
            }
            _ if error.code() == Some("NOAUTH") => {
                format!("{address} asks for a password: put it into `url`")
            }
            ErrorKind::IoError => printable(&broke(&address, None, error)),
            _ => match error.code() {
                Some(code) => format!("{address} answered {} {said}", printable(code)),
                None => format!("{address}: {}", printable(&error.to_string())),
            },
        }
    }

    fn command(&self, event: &Event, attempt: &Attempt) -> Result<Cmd, String> {
        let target = self.target(event)?;
        // A channel's message has nothing beside it that a new id could stand in.
        let new_id = match &self.options.target {
            RedisTarget::Channel(_) => attempt.new_id.as_ref(),
            RedisTarget::Stream { .. } => None,
        };
        let mut line = Vec::new();
        self.format.line_as(event, new_id, &mut line);
        line.pop();
        Ok(match &self.options.target {
            RedisTarget::Channel(_) => {
                let mut command = redis::cmd("PUBLISH");
                command.arg(target).arg(line);
                command
            }
            RedisTarget::Stream { max_len, .. } => {
                let mut command = redis::cmd("XADD");
                command.arg(target);
                if let Some(max_len) = max_len {
                    command.arg("MAXLEN").arg("~").arg(*max_len);
                }
                let Envelope { message_id, .. } = Envelope::new(event, attempt);
                command.arg("*").arg("message_id").arg(message_id);
                command.arg("type").arg(&*event.subscription_type).arg("message").arg(line);
                command
            }
        })
    }

    async fn publish(&self, event: &Event, attempt: &Attempt) -> Outcome {
        let command = match self.command(event, attempt) {
            Ok(command) => command,
            Err(error) => return Outcome::rejected(error),
        };
        let mut link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Outcome::unavailable(error),
        };
        match command.query_async::<redis::Value>(&mut link.connection).await {
            Ok(_) => Outcome::Done,
            Err(error) => {
                let message = self.explain(&error);
                if matches!(error.kind(), ErrorKind::IoError | ErrorKind::ParseError) {
                    let mut slot = self.connection.lock().await;
                    // Others may have a new one already.
                    if slot.as_ref().is_some_and(|held| Arc::ptr_eq(&held.driver, &link.driver)) {
                        *slot = None;
                    }
                }
                Outcome::unavailable(message)
            }
        }
    }
}

impl Single for Redis {
    fn concurrency(&self) -> usize {
        IN_FLIGHT
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move { self.publish(&event.event, &attempt).await }.boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        let command = self.command(&event.event, &Attempt::first(std::time::SystemTime::now()))?;
        let part = |part: redis::Arg<&[u8]>| match part {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            redis::Arg::Cursor => String::new(),
        };
        Ok(command.args_iter().map(part).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_login_and_a_database() {
        let make = |url: &str| {
            let target = RedisTarget::Channel("a".into());
            let options = RedisOptions { url: Secret::new(url), target };
            let tls = crate::delivery::tests::options().tls;
            Redis::new(options, Format::Eventsub, tls)
        };
        let sink = make("redis://me:p%40ss@host/3").unwrap();
        assert_eq!((sink.address(), sink.login.db, sink.tls.is_some()), ("host:6379".to_owned(), 3, false));
        assert_eq!(sink.login.username.as_deref(), Some("me"));
        assert_eq!(sink.login.password.as_deref(), Some("p@ss"));
        let sink = make("rediss://host:1").unwrap();
        assert_eq!(
            (sink.address(), sink.login.username.is_none(), sink.tls.is_some()),
            ("host:1".to_owned(), true, true)
        );
        let error = RedisError::from((ErrorKind::ResponseError, "", "no p@ss-p@ss-p@ss here".to_owned()));
        let words = make("redis://me:p%40ss-p%40ss-p%40ss@host").unwrap().explain(&error);
        assert!(words.contains(" here") && !words.contains("p@ss"), "{words}");
        for wrong in ["redis://", "http://host", "redis://host/x", "host"] {
            assert_eq!(make(wrong).err(), Some(RedisSinkError::Url), "{wrong}");
        }
    }
}
