//! WebSocket sessions (Twitch: "Handling WebSocket Events").

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tracing::debug;

use super::server::{Body, empty};
use super::state::{Inner, Order, Session, Shared};
use super::tell;
use crate::model::time::Timestamp;

/// Orders that wait for a slow socket.
const ORDERS: usize = 64;
/// Time that a client may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(2);
/// Seconds between two pings.
const PING: u32 = 30;

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// Answers the request to open a WebSocket.
pub(super) fn accept(inner: Shared, mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("Sec-WebSocket-Key").map(|key| derive_accept_key(key.as_bytes()));
    let Some(key) = key else {
        let mut response = Response::new(empty());
        *response.status_mut() = hyper::StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let query: Vec<(String, String)> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        inner.count(|stats| stats.connects += 1);
        let stop = inner.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = run(&inner, stream, &query) => {}
        }
        inner.count(|stats| stats.disconnects += 1);
    });
    let response = Response::builder()
        .status(101)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Accept", key)
        .body(empty());
    response.unwrap_or_else(|_| Response::new(empty()))
}

/// A message of the session itself.
fn message(inner: &Inner, kind: &str, payload: &serde_json::Value) -> Utf8Bytes {
    let id = inner.uuid(&mut inner.lock());
    let now = Timestamp(SystemTime::now());
    json!({"metadata": {"message_id": id, "message_type": kind, "message_timestamp": now}, "payload": payload})
        .to_string()
        .into()
}

/// The message that asks for a reconnect.
pub(super) fn reconnect_message(
    inner: &Inner,
    id: &str,
    challenge: &str,
    connected_at: Timestamp,
) -> Utf8Bytes {
    let url = format!("ws://{}/ws?challenge={challenge}&id={id}", inner.address);
    let session = json!({
        "id": id, "status": "reconnecting", "connected_at": connected_at,
        "keepalive_timeout_seconds": null, "reconnect_url": url,
    });
    message(inner, "session_reconnect", &json!({"session": session}))
}

/// The status of the shards of a session that ended with this code.
fn status_of(code: u16) -> &'static str {
    match code {
        4000 => "websocket_internal_error",
        4001 => "websocket_received_inbound_traffic",
        4002 => "websocket_failed_ping_pong",
        4003 => "websocket_connection_unused",
        4004 => "websocket_failed_to_reconnect",
        4005 => "websocket_network_timeout",
        4006 => "websocket_network_error",
        _ => "websocket_disconnected",
    }
}

/// The text that goes with a code.
fn reason_of(code: u16) -> &'static str {
    match code {
        4000 => "internal server error",
        4001 => "sent inbound traffic",
        4002 => "failed ping pong",
        4003 => "connection unused",
        4004 => "client reconnect grace time expired",
        4005 => "network timeout",
        4006 => "network error",
        4007 => "invalid reconnect attempt",
        _ => "",
    }
}

/// One socket of a session.
struct Socket<'a> {
    inner: &'a Shared,
    stream: Stream,
    id: String,
    number: u64,
    orders: mpsc::Receiver<Order>,
    keepalive: Duration,
    /// When the client has to have done something, or is closed with this code.
    unused: Option<Instant>,
    ping_at: Instant,
    pong_until: Option<Instant>,
    spoken: Instant,
}

async fn run(inner: &Shared, mut stream: Stream, query: &[(String, String)]) {
    let field = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (orders_in, orders) = mpsc::channel(ORDERS);
    let joined = match field("challenge") {
        None => Ok(None),
        Some(challenge) => take_over(inner, field("id").unwrap_or_default(), challenge, &orders_in).map(Some),
    };
    let Ok(joined) = joined else {
        close(&mut stream, 4007).await;
        return;
    };
    let seconds = field("keepalive_timeout_seconds").and_then(|text| text.parse().ok()).unwrap_or(10_u32);
    let seconds = seconds.clamp(10, 600);
    let unit = inner.options.keepalive_unit;
    let fresh = joined.is_none();
    let (id, number, connected_at) = joined.unwrap_or_else(|| open(inner, &orders_in));
    let session = json!({
        "id": id, "status": "connected", "connected_at": connected_at,
        "keepalive_timeout_seconds": seconds, "reconnect_url": null, "recovery_url": null,
    });
    let welcome = message(inner, "session_welcome", &json!({"session": session}));
    let now = Instant::now();
    let mut socket = Socket {
        inner,
        stream,
        id,
        number,
        orders,
        keepalive: unit * seconds,
        unused: fresh.then(|| now + inner.options.unused_timeout),
        ping_at: now + unit * PING,
        pong_until: None,
        spoken: now,
    };
    drop(orders_in);
    let ended = match socket.stream.send(Message::Text(welcome)).await {
        Ok(()) => socket.live().await,
        Err(_) => 1006,
    };
    debug!(session = socket.id, code = ended, "sandbox session ended");
    let disabled = {
        let mut state = inner.lock();
        // The session goes on if a successor socket has taken over.
        let own = state.sessions.get(&socket.id).is_some_and(|session| session.socket == socket.number);
        if own { state.end_session(&socket.id, status_of(ended)) } else { vec![] }
    };
    for (conduit, shard) in disabled {
        tell::shard_disabled(inner, &conduit, shard, status_of(ended)).await;
    }
}

fn open(inner: &Shared, orders: &mpsc::Sender<Order>) -> (String, u64, Timestamp) {
    let mut state = inner.lock();
    state.serial += 1;
    let number = state.serial;
    let id = format!("Ago{}", Inner::random_text(25));
    let connected_at = Timestamp(SystemTime::now());
    let session =
        Session { socket: number, orders: orders.clone(), silent: false, connected_at, challenge: None };
    state.sessions.insert(id.clone(), session);
    (id, number, connected_at)
}

/// Gives a session to the socket that came over its reconnect URL.
fn take_over(
    inner: &Shared,
    id: &str,
    challenge: &str,
    orders: &mpsc::Sender<Order>,
) -> Result<(String, u64, Timestamp), ()> {
    {
        let mut state = inner.lock();
        let session = state.sessions.get_mut(id).ok_or(())?;
        if session.challenge.as_deref() != Some(challenge) {
            return Err(());
        }
        session.challenge = None;
        if !inner.options.reconnect_changes_id {
            state.serial += 1;
            let number = state.serial;
            let session = state.sessions.get_mut(id).ok_or(())?;
            session.socket = number;
            session.orders = orders.clone();
            return Ok((id.to_owned(), number, session.connected_at));
        }
    }
    Ok(open(inner, orders))
}

impl Socket<'_> {
    /// Until the end; returns the code of it.
    async fn live(&mut self) -> u16 {
        loop {
            let deadline = self.deadline();
            let order = tokio::select! {
                biased;
                frame = self.stream.next() => {
                    match frame {
                        Some(Ok(Message::Pong(_))) => self.pong_until = None,
                        Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                        Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                            self.inner.count(|stats| stats.inbound_traffic += 1);
                            close(&mut self.stream, 4001).await;
                            return 4001;
                        }
                        Some(Ok(Message::Close(frame))) => return frame.map_or(1005, |frame| frame.code.into()),
                        Some(Err(_)) | None => return 1006,
                    }
                    continue;
                }
                order = self.orders.recv() => order,
                () = tokio::time::sleep_until(deadline) => {
                    if let Some(code) = self.tick().await {
                        close(&mut self.stream, code).await;
                        return code;
                    }
                    continue;
                }
            };
            match order {
                Some(Order::Text(text)) => {
                    self.spoken = Instant::now();
                    if self.stream.send(Message::Text(text)).await.is_err() {
                        return 1006;
                    }
                }
                Some(Order::Events(events)) => {
                    self.spoken = Instant::now();
                    if self.write(events).await.is_err() {
                        return 1006;
                    }
                }
                Some(Order::Ping) => {
                    self.pong_until = Some(Instant::now() + self.inner.options.pong_timeout);
                    if self.stream.send(Message::Ping(bytes::Bytes::from_static(b"sandbox"))).await.is_err() {
                        return 1006;
                    }
                }
                Some(Order::Close(code)) => {
                    close(&mut self.stream, code).await;
                    return code;
                }
                Some(Order::Kill) => return 1006,
                Some(Order::Silence) => self.silence().await,
                // The session has another socket: this one stays until the client closes it.
                None => return self.wait_for_client().await,
            }
        }
    }

    async fn write(
        &mut self,
        events: Vec<(String, Utf8Bytes)>,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let mut ids = Vec::with_capacity(events.len());
        for (id, text) in events {
            self.stream.feed(Message::Text(text)).await?;
            ids.push(id);
        }
        self.stream.flush().await?;
        self.inner.count(|stats| stats.sent += ids.len() as u64);
        let mut state = self.inner.lock();
        for id in ids {
            state.note_sent(id);
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let times = [Some(self.spoken + self.keepalive), self.unused, Some(self.ping_at), self.pong_until];
        times.into_iter().flatten().min().unwrap_or(self.ping_at)
    }

    /// Something is due; a code when that is the end.
    async fn tick(&mut self) -> Option<u16> {
        let now = Instant::now();
        if self.pong_until.is_some_and(|until| now >= until) {
            return Some(4002);
        }
        if self.unused.is_some_and(|until| now >= until) {
            self.unused = None;
            if !self.inner.lock().is_bound(&self.id) {
                return Some(4003);
            }
        }
        if now >= self.ping_at {
            self.ping_at = now + self.inner.options.keepalive_unit * PING;
            self.pong_until = Some(now + self.inner.options.pong_timeout);
            if self.stream.send(Message::Ping(bytes::Bytes::from_static(b"sandbox"))).await.is_err() {
                return Some(1006);
            }
        }
        if now >= self.spoken + self.keepalive {
            self.spoken = now;
            let keepalive = message(self.inner, "session_keepalive", &json!({}));
            if self.stream.send(Message::Text(keepalive)).await.is_err() {
                return Some(1006);
            }
        }
        None
    }

    /// As a host that has gone: the connection stays, and nothing comes.
    async fn silence(&mut self) {
        if let Some(session) = self.inner.lock().sessions.get_mut(&self.id) {
            session.silent = true;
        }
        self.inner.stop.cancelled().await;
    }

    async fn wait_for_client(&mut self) -> u16 {
        let until = Instant::now() + self.inner.options.reconnect_grace;
        loop {
            match tokio::time::timeout_at(until, self.stream.next()).await {
                Err(_) => {
                    close(&mut self.stream, 4004).await;
                    return 4004;
                }
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return 1000,
                Ok(Some(Ok(_))) => {}
            }
        }
    }
}

async fn close(stream: &mut Stream, code: u16) {
    let frame = CloseFrame { code: code.into(), reason: reason_of(code).into() };
    let closing = async {
        if stream.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = timeout(CLOSING, closing).await;
}

/// Asks for a reconnect, and ends the socket with 4004 when none comes.
pub(super) async fn ask_reconnect(inner: Shared, id: String) {
    let asked = {
        let mut state = inner.lock();
        let challenge = Inner::random_text(20);
        state.sessions.get_mut(&id).map(|session| {
            session.challenge = Some(challenge.clone());
            (session.orders.clone(), session.socket, session.connected_at, challenge)
        })
    };
    let Some((orders, socket, connected_at, challenge)) = asked else { return };
    let text = reconnect_message(&inner, &id, &challenge, connected_at);
    let grace = Instant::now() + inner.options.reconnect_grace;
    if orders.send(Order::Text(text)).await.is_err() {
        return;
    }
    tokio::time::sleep_until(grace).await;
    let waiting = {
        let state = inner.lock();
        state.sessions.get(&id).is_some_and(|session| {
            session.socket == socket && session.challenge.as_deref() == Some(challenge.as_str())
        })
    };
    if waiting {
        let _ = orders.send(Order::Close(4004)).await;
    }
}

/// Hands an order of a test to a session.
pub(super) fn order(inner: &Shared, id: &str, order: Order) {
    let session = inner.lock().sessions.get(id).map(|session| session.orders.clone());
    let Some(orders) = session else { return };
    if let Err(mpsc::error::TrySendError::Full(order)) = orders.try_send(order) {
        let stop = Arc::clone(inner);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.stop.cancelled() => {}
                _ = orders.send(order) => {}
            }
        });
    }
}
