//! One socket: opening it, reading it to its end, handing events to the store.
//!
//! A task of its own, so that both sockets of a handover are read at full speed.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use http::Uri;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use super::dating::{Dating, Stamp};
use super::frame::{self, Message};
use super::session::SocketId;
use crate::auth::{Connection, Outward};
use crate::model::arrival::Arrival;
use crate::model::connect::{address, cannot_connect, place, reason};
use crate::model::hint::{self, Hint};
use crate::model::shard::SessionId;
use crate::model::signs::Signs;
use crate::model::status::IntakeStatus;
use crate::model::tally::ReconnectCause;
use crate::model::text::{chain, one_line};
use crate::store::{Store, since_boot};
use crate::telemetry::LogLimit;
use crate::transport::HintCallback;
use crate::transport::notification::Revocation;

/// The largest message that is accepted, in bytes. Twitch's have less than 10 KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes that are read at once. The library fills so many with zeros before each read.
const READ: usize = 16 << 10;
/// Bytes that may wait to be sent: a few hundred pongs.
const MAX_UNSENT: usize = 64 << 10;
/// Pings within one second that are still answered; Twitch sends one in several seconds.
const MAX_PINGS: u32 = 100;
/// The code of an ordinary end (RFC 6455, 7.4.1).
const NORMAL: u16 = 1000;
/// How often a sign of life is reported, at most.
const REPORT: Duration = Duration::from_secs(1);

type Stream = WebSocketStream<MaybeTlsStream<Connection>>;

/// Report of a socket to its shard.
#[derive(Debug)]
pub(super) enum News {
    Welcome {
        session_id: SessionId,
        /// The session's keepalive timeout.
        keepalive: Duration,
    },
    /// Messages came; the number of notifications since the last report.
    Received(u64),
    /// Twitch asks for a reconnect.
    Reconnect(Option<Box<str>>),
    /// The socket is closed.
    Ended {
        /// Number of notifications since the last report.
        events: u64,
        cause: ReconnectCause,
        /// Why, for a person.
        why: Box<str>,
        /// Whether Twitch has answered our close frame: everything that it sent was read.
        is_whole: bool,
    },
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcome { session_id, keepalive } => {
                write!(f, "welcome, session {session_id}, keepalive {} s", keepalive.as_secs())
            }
            Self::Received(events) => write!(f, "alive, events since the last report: {events}"),
            Self::Reconnect(Some(_)) => f.write_str("asked to reconnect"),
            Self::Reconnect(None) => f.write_str("asked to reconnect, without an address"),
            Self::Ended { why, .. } => write!(f, "ended: {why}"),
        }
    }
}

/// Why a socket is over.
type End = (ReconnectCause, Box<str>);

/// Parts that all sockets share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) outward: Outward,
    /// Limits lines that Twitch can cause at will.
    pub(super) log: Arc<LogLimit>,
    pub(super) intake: Arc<watch::Sender<IntakeStatus>>,
    /// Told what events tell the daemon, once they are stored.
    pub(super) on_hint: HintCallback,
}

/// The task of a socket.
pub(super) struct Socket {
    pub(super) id: SocketId,
    pub(super) uri: Uri,
    pub(super) shared: Shared,
    pub(super) news: mpsc::Sender<(SocketId, News)>,
    /// From our close frame to the end.
    pub(super) drain: Duration,
    pub(super) signs: Signs,
}

/// Counts that were not reported yet.
struct Unreported {
    events: u64,
    uncounted: u64,
    /// Time of the last event, not recorded among the signs of life yet.
    last_event: Option<Stamp>,
    dating: Dating,
    next: Instant,
    pause: Duration,
    pings: u32,
    pings_until: Instant,
}

impl Unreported {
    /// Counts a ping. A flood of them costs no memory, but all of a processor.
    fn too_many_pings(&mut self, now: Instant) -> bool {
        if now >= self.pings_until {
            self.pings_until = now + Duration::from_secs(1);
            self.pings = 0;
        }
        self.pings += 1;
        self.pings > MAX_PINGS
    }
}

impl Socket {
    /// Whether a line of this kind may be logged; `Some` has the number of those left out.
    fn permit(&self, kind: &'static str) -> Option<u64> {
        self.shared.log.permit(kind, Instant::now().into_std())
    }

    /// Opens it and reads it to its end. `close` closes it politely; what still comes is stored.
    pub(super) async fn run(self, close: CancellationToken) {
        let mut seen = Unreported {
            events: 0,
            uncounted: 0,
            last_event: None,
            dating: Dating::default(),
            next: Instant::now() + REPORT,
            pause: REPORT,
            pings: 0,
            pings_until: Instant::now(),
        };
        let opened = tokio::select! {
            biased;
            () = close.cancelled() => return,
            opened = self.open() => opened,
        };
        let ((cause, why), is_whole) = match opened {
            Ok(stream) => self.read(stream, &close, &mut seen).await,
            Err(end) => (end, false),
        };
        self.count(&mut seen);
        self.record_events(&mut seen);
        // The shard may be gone already: then nobody needs to know.
        let _ = self.news.send((self.id, News::Ended { events: seen.events, cause, why, is_whole })).await;
    }

    async fn open(&self) -> Result<Stream, End> {
        open(&self.shared.outward, &self.uri).await
    }

    /// Returns why it is over, and whether everything that Twitch sent was read.
    async fn read(
        &self,
        mut stream: Stream,
        close: &CancellationToken,
        seen: &mut Unreported,
    ) -> (End, bool) {
        let mut end = pin!(None::<tokio::time::Sleep>);
        let mut closing = false;
        loop {
            let message = tokio::select! {
                biased;
                () = close.cancelled(), if !closing => {
                    closing = true;
                    end.set(Some(tokio::time::sleep(self.drain)));
                    // A connection that does not take the frame is given up with the drain.
                    let _ = tokio::time::timeout(self.drain, stream.close(None)).await;
                    continue;
                }
                message = next(&mut stream, || self.count(seen)) => message,
                () = async { match end.as_mut().as_pin_mut() { Some(end) => end.await, None => std::future::pending().await } } => {
                    return ((ReconnectCause::OtherClose, "we closed it".into()), false);
                }
            };
            match message {
                Some(Ok(WsMessage::Text(text))) => {
                    if let Err(why) = self.take(&text, seen).await {
                        return ((ReconnectCause::Store, why), false);
                    }
                }
                Some(Ok(WsMessage::Close(frame))) => {
                    let code = frame.as_ref().map_or(0, |frame| u16::from(frame.code));
                    // A close of Twitch's own, with a code that says why, may have crossed ours: then it is no answer.
                    let is_answer = closing && matches!(code, 0 | NORMAL);
                    return (
                        (ReconnectCause::of_close_code(code), describe_close(frame.as_ref())),
                        is_answer,
                    );
                }
                Some(Ok(WsMessage::Binary(bytes))) => {
                    if let Some(left_out) = self.permit("binary") {
                        let bytes = bytes.len();
                        warn!(bytes, left_out, "Twitch sent a binary message; it is ignored");
                    }
                    self.shared.intake.send_modify(|intake| intake.malformed += 1);
                }
                // The library answers pings by itself; Twitch does not count them as a sign of life.
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_))) => {
                    if seen.too_many_pings(Instant::now()) {
                        let why = "the connection was closed: Twitch sent more than 100 pings in a second";
                        return ((ReconnectCause::Broken, why.into()), false);
                    }
                }
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) | None => {
                    let why = "the connection ended without a close frame";
                    return ((ReconnectCause::Broken, why.into()), false);
                }
                Some(Err(error)) => {
                    let why = format!("the connection broke: {}", reason(&error));
                    return ((ReconnectCause::Broken, why.into()), false);
                }
            }
        }
    }

    async fn take(&self, text: &str, seen: &mut Unreported) -> Result<(), Box<str>> {
        trace!(bytes = text.len(), "frame");
        let mut stamp = None;
        let message = frame::parse_dated(text, |sent| stamp = Stamp::new(sent));
        if !matches!(message, Ok(Message::Notification(_))) {
            self.record_heard(seen, stamp);
        }
        match message {
            Ok(Message::Notification(event)) => {
                seen.events += 1;
                seen.uncounted += 1;
                let hint = hint::of(&event);
                self.store(event, seen).await?;
                // Events that are not stored yet would be lost with the process.
                seen.last_event = stamp;
                if let Some(hint) = hint {
                    (self.shared.on_hint.0)(hint);
                }
            }
            Ok(Message::Keepalive) => {}
            Ok(Message::Welcome { session_id, keepalive }) => {
                seen.pause = REPORT.min(keepalive / 10);
                self.tell(News::Welcome { session_id, keepalive }).await;
            }
            Ok(Message::Reconnect { url }) => self.tell(News::Reconnect(url)).await,
            Ok(Message::Revocation(Revocation { subscription_id, subscription_type, status, event })) => {
                if let Some(left_out) = self.permit("revocation") {
                    warn!(%subscription_id, subscription_type, status, left_out, "Twitch has ended a subscription");
                }
                self.shared.intake.send_modify(|intake| intake.revocations += 1);
                (self.shared.on_hint.0)(Hint::Ended { id: (*subscription_id).into(), status });
                if let Some(event) = event {
                    self.store(event.into(), seen).await?;
                }
            }
            Ok(Message::Unknown { message_type }) => {
                self.shared.intake.send_modify(|intake| intake.unknown += 1);
                if let Some(left_out) = self.permit("unknown type") {
                    warn!(message_type, left_out, "Twitch sent a message of an unknown type; it is ignored");
                }
            }
            Err(error) => {
                if let Some(left_out) = self.permit("unreadable") {
                    let error = chain(&error);
                    warn!(error, left_out, "a message of Twitch cannot be read; it is ignored");
                }
                self.shared.intake.send_modify(|intake| intake.malformed += 1);
            }
        }
        let now = Instant::now();
        if now >= seen.next {
            self.report(seen, now).await;
        }
        Ok(())
    }

    /// Hands an event to the store. While the store has no room, the connection is not to blame for the
    /// silence, and the shard hears so.
    async fn store(&self, event: Arrival, seen: &mut Unreported) -> Result<(), Box<str>> {
        let mut push = pin!(self.shared.store.push_detached(event));
        let first = std::future::poll_fn(|context| Poll::Ready(push.as_mut().poll(context))).await;
        let stored = match first {
            Poll::Ready(stored) => stored,
            Poll::Pending => loop {
                tokio::select! {
                    biased;
                    stored = &mut push => break stored,
                    () = tokio::time::sleep(seen.pause) => self.report(seen, Instant::now()).await,
                }
            },
        };
        stored.map_err(|error| format!("the event store takes no more: {error}").into())
    }

    /// Records a message other than an event among the signs of life.
    fn record_heard(&self, seen: &mut Unreported, stamp: Option<Stamp>) {
        if let Some(at) = stamp.and_then(|stamp| seen.dating.date(&stamp, since_boot())) {
            self.signs.record_heard(at);
        }
    }

    /// Records the last event among the signs of life. For each one that would cost more than storing it.
    fn record_events(&self, seen: &mut Unreported) {
        if let Some(at) = seen.last_event.take().and_then(|stamp| seen.dating.date(&stamp, since_boot())) {
            self.signs.record_event(at);
        }
    }

    /// Events that came in a row are counted together.
    fn count(&self, seen: &mut Unreported) {
        let received = std::mem::take(&mut seen.uncounted);
        if received > 0 {
            self.shared.intake.send_modify(|intake| intake.received += received);
        }
    }

    async fn report(&self, seen: &mut Unreported, now: Instant) {
        seen.next = now + seen.pause;
        self.count(seen);
        self.record_events(seen);
        self.tell(News::Received(std::mem::take(&mut seen.events))).await;
    }

    async fn tell(&self, news: News) {
        debug!(socket = self.id.0, %news, "socket");
        // The shard may have ended: then its sockets are being closed.
        let _ = self.news.send((self.id, news)).await;
    }
}

/// Opens a WebSocket. The sentence has the addresses, and what failed.
async fn open(outward: &Outward, uri: &Uri) -> Result<Stream, End> {
    let broken = |why: String| -> End { (ReconnectCause::Broken, why.into()) };
    let stream = outward.connect(uri).await.map_err(broken)?;
    let encrypted = uri.scheme_str() == Some("wss");
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let host = uri.host().unwrap_or_default();
    let to = address(host, port);
    let proxy = outward.proxies().of(uri.scheme_str().unwrap_or("wss"), host).map(ToString::to_string);
    let connector = Connector::Rustls(Arc::clone(outward.tls()));
    let opened = client_async_tls_with_config(uri, stream, Some(limits()), Some(connector)).await;
    opened.map(|(stream, _answer)| stream).map_err(|error| match error {
        WsError::Http(answer) => {
            let place = place(&to, proxy.as_deref());
            (ReconnectCause::Refused, format!("{place} refuses the WebSocket ({})", answer.status()).into())
        }
        error => broken(cannot_connect(&to, proxy.as_deref(), &error)),
    })
}

/// Bounds of a connection. We send pongs and one close frame; a server that does not read them must not make
/// them pile up.
fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(READ)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNSENT)
}

/// Opens a WebSocket, waits for its welcome and closes it again: what `check --online` tries.
///
/// # Errors
/// A sentence that says what failed.
pub async fn try_welcome(outward: &Outward, url: &str, limit: Duration) -> Result<SessionId, String> {
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not an address"))?;
    let welcome = async {
        let mut stream = open(outward, &uri).await.map_err(|(_, why)| why.to_string())?;
        loop {
            let message = match stream.next().await {
                Some(Ok(WsMessage::Text(text))) => {
                    frame::parse(text.as_bytes()).map_err(|error| chain(&error))?
                }
                Some(Ok(WsMessage::Close(close))) => return Err(describe_close(close.as_ref()).into()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(format!("the connection broke: {}", reason(&error))),
                None => return Err("the connection ended before a welcome".to_owned()),
            };
            let Message::Welcome { session_id, .. } = message else {
                return Err("the first message is not a welcome: is this Twitch's EventSub?".to_owned());
            };
            // A peer that does not take the close frame loses the connection.
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.close(None)).await;
            return Ok(session_id);
        }
    };
    tokio::time::timeout(limit, welcome)
        .await
        .unwrap_or_else(|_| Err(format!("no welcome came in {} seconds", limit.as_secs())))
}

/// The next message; `idle` is called when none is there yet.
async fn next(stream: &mut Stream, mut idle: impl FnMut()) -> Option<Result<WsMessage, WsError>> {
    let mut next = stream.next();
    std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut next).poll(context);
        if polled.is_pending() {
            idle();
        }
        polled
    })
    .await
}

fn describe_close(frame: Option<&tokio_tungstenite::tungstenite::protocol::CloseFrame>) -> Box<str> {
    let Some(frame) = frame else { return "Twitch closed the connection without a code".into() };
    let code = u16::from(frame.code);
    let meaning = match code {
        4000 => "an internal error of Twitch",
        4001 => "we sent what we must not, which is a defect of eventsubd: please report it",
        4002 => "no pong in time; is this machine overloaded?",
        4003 => "the session was not bound to its shard in time",
        4004 => "the reconnect that Twitch asked for took too long",
        4005 => "a network time-out at Twitch",
        4006 => "a network error at Twitch",
        4007 => "the address of the reconnect was not valid any more",
        _ => "",
    };
    let reason = one_line(&frame.reason, 100);
    let detail = if meaning.is_empty() { &*reason } else { meaning };
    if detail.is_empty() {
        format!("Twitch closed the connection ({code})").into()
    } else {
        format!("Twitch closed the connection ({code}): {detail}").into()
    }
}
