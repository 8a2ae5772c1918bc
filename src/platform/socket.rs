//! Drives one WebSocket: the upgrade, frames in and out, and orders of the world behind it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::message::{self, Stamp};
use super::moment::Moment;
use super::session::{Frame, Machine, Opening, Output, SessionRules};
use super::status;

/// Orders that wait for a slow socket.
const ORDERS: usize = 64;
/// Time that a client may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(2);

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// An order to a socket.
#[derive(Clone, Debug)]
pub enum Order {
    /// Send this text.
    Text(Utf8Bytes),
    /// Send these events, with their ids, which are reported once they are written.
    Events(Vec<(String, Utf8Bytes)>),
    /// Send this text, which asks the client to connect elsewhere.
    Reconnect(Utf8Bytes),
    /// Another socket has taken the session over.
    Leave,
    Ping,
    Close(u16),
    /// End the connection without a close frame.
    Kill,
    /// Send and read nothing any more, and keep the connection.
    Silence,
}

/// A socket's place in a session.
#[derive(Clone, Debug)]
pub struct Joined {
    pub session: String,
    /// Tells the sockets of one session apart.
    pub socket: u64,
    pub connected_at: Moment,
}

/// The world behind WebSockets: which sessions there are.
pub trait Sessions: Clone + Send + Sync + 'static {
    fn stopped(&self) -> CancellationToken;
    fn rules(&self) -> SessionRules;
    /// The id and time of a new message.
    fn stamp(&self) -> Stamp;
    /// Opens a session, or takes one over. `None` for a reconnect URL that is not valid.
    fn join(&self, opening: &Opening, orders: mpsc::Sender<Order>) -> Option<Joined>;
    /// Whether the session has a subscription or backs a shard.
    fn is_used(&self, session: &str) -> bool;
    /// Called once the messages with these ids were written.
    fn written(&self, joined: &Joined, ids: Vec<String>);
    /// The socket was told to be silent.
    fn silenced(&self, session: &str);
    /// A socket has ended with this code. `None` for one that never joined.
    fn ended(&self, joined: Option<&Joined>, code: u16) -> impl Future<Output = ()> + Send;
}

/// Answers the request to open a WebSocket.
pub fn upgrade<S: Sessions>(sessions: S, mut request: Request) -> Response {
    let key = request.headers().get("Sec-WebSocket-Key").map(|key| derive_accept_key(key.as_bytes()));
    let Some(key) = key else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let query: Vec<(String, String)> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let opening = Opening::parse(&query);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let stopped = sessions.stopped();
        tokio::select! {
            () = stopped.cancelled() => {}
            () = run(&sessions, stream, &opening) => {}
        }
    });
    let response = Response::builder()
        .status(101)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Accept", key)
        .body(Body::empty());
    response.unwrap_or_else(|_| Response::new(Body::empty()))
}

async fn run<S: Sessions>(sessions: &S, mut stream: Stream, opening: &Opening) {
    let (orders_in, orders) = mpsc::channel(ORDERS);
    let Some(joined) = sessions.join(opening, orders_in) else {
        close(&mut stream, 4007).await;
        return sessions.ended(None, 4007).await;
    };
    let seconds = opening.keepalive_timeout_seconds;
    let welcome = message::welcome(&sessions.stamp(), &joined.session, joined.connected_at, seconds);
    let code = match stream.send(Message::text(welcome)).await {
        Ok(()) => {
            let machine = Machine::new(sessions.rules(), opening, Instant::now().into_std());
            Socket { sessions, stream, joined: &joined, orders, machine }.live().await
        }
        Err(_) => 1006,
    };
    sessions.ended(Some(&joined), code).await;
}

struct Socket<'a, S> {
    sessions: &'a S,
    stream: Stream,
    joined: &'a Joined,
    orders: mpsc::Receiver<Order>,
    machine: Machine,
}

impl<S: Sessions> Socket<'_, S> {
    /// Runs until the end; returns its code.
    async fn live(&mut self) -> u16 {
        loop {
            if self.flush().await.is_err() {
                return 1006;
            }
            if let Some(code) = self.machine.ended() {
                // The answer to a close frame of the client waits to be sent.
                let _ = timeout(CLOSING, self.stream.flush()).await;
                return code;
            }
            let deadline = Instant::from_std(self.machine.poll_timeout());
            tokio::select! {
                biased;
                frame = self.stream.next() => self.machine.handle_frame(match frame {
                    Some(Ok(Message::Pong(_))) => Frame::Pong,
                    Some(Ok(Message::Close(frame))) => Frame::Close(frame.map(|frame| frame.code.into())),
                    Some(Ok(_)) => Frame::Inbound,
                    Some(Err(_)) | None => Frame::Lost,
                }),
                Some(order) = self.orders.recv() => {
                    if self.obey(order).await.is_err() {
                        return 1006;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    let is_used = || self.sessions.is_used(&self.joined.session);
                    self.machine.handle_timeout(Instant::now().into_std(), is_used);
                }
            }
        }
    }

    /// Sends what the machine has to send.
    async fn flush(&mut self) -> Result<(), Error> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Keepalive => {
                    let keepalive = message::keepalive(&self.sessions.stamp());
                    self.stream.send(Message::text(keepalive)).await?;
                }
                Output::Ping => self.stream.send(Message::Ping(bytes::Bytes::new())).await?,
                Output::Close(code) => close(&mut self.stream, code).await,
            }
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), Error> {
        let now = Instant::now().into_std();
        match order {
            Order::Text(text) => {
                self.machine.handle_sent(now);
                self.stream.send(Message::Text(text)).await?;
            }
            Order::Reconnect(text) => {
                self.machine.handle_sent(now);
                self.machine.leave(now);
                self.stream.send(Message::Text(text)).await?;
            }
            Order::Events(events) => {
                self.machine.handle_sent(now);
                self.write(events).await?;
            }
            Order::Leave => self.machine.leave(now),
            Order::Ping => self.machine.ping(now),
            Order::Close(code) => self.machine.close(code),
            Order::Kill => return Err(Error::ConnectionClosed),
            Order::Silence => {
                self.sessions.silenced(&self.joined.session);
                self.sessions.stopped().cancelled().await;
            }
        }
        Ok(())
    }

    async fn write(&mut self, events: Vec<(String, Utf8Bytes)>) -> Result<(), Error> {
        let mut ids = Vec::with_capacity(events.len());
        for (id, text) in events {
            self.stream.feed(Message::Text(text)).await?;
            ids.push(id);
        }
        self.stream.flush().await?;
        self.sessions.written(self.joined, ids);
        Ok(())
    }
}

async fn close(stream: &mut Stream, code: u16) {
    let (_, reason) = status::of_close_code(code);
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    let closing = async {
        if stream.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = timeout(CLOSING, closing).await;
}
