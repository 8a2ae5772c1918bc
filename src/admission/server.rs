//! Serving HTTP on an address: accepting, admitting, and ending connections.
//!
//! Everything about a connection is bounded: their number, the time for a request, and the size of its head.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error_span, info, warn};

use super::activity::Phase;
use super::connection::{Connection, Connections, Watched};
use super::peer::Peer;
use super::places::{Counts, Limits};

/// Connections that the system queues before they are accepted.
const BACKLOG: i32 = 4_096;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Least time between two log lines about failed accepts, and about closed connections.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// Time limit for unacknowledged data, in milliseconds.
const UNREAD_LIMIT: u32 = 30_000;
/// The largest head of a request, and the most headers.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Time limit for requests in progress when serving ends.
const END_LIMIT: Duration = Duration::from_secs(1);

/// An address that is bound. Two are equal if they are the same socket.
#[derive(Clone, Debug)]
pub struct BoundAddress(Arc<std::net::TcpListener>);

impl PartialEq for BoundAddress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl BoundAddress {
    /// Binds the address. Connections wait in the system's queue until [`serve`] accepts them.
    ///
    /// # Errors
    /// The address is taken, or does not belong to this machine.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self(Arc::new(listener)))
    }

    /// Returns the bound address, with the port that the system has picked for 0.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }
}

/// How an address is served.
#[derive(Clone, Debug)]
pub struct Serving<'a> {
    /// Name of the listener in log lines.
    pub name: &'static str,
    pub limits: Limits,
    /// Paths that may use the places in reserve.
    pub probes: &'static [&'static str],
    /// Where the counts of connections are published. `None` is published when serving has ended.
    pub counts: &'a watch::Sender<Option<Counts>>,
}

/// Serves the address that `listener` finds in the options, and moves when they name another one. Returns once cancelled.
pub async fn serve_configured<O>(
    options: &mut watch::Receiver<O>,
    listener: impl Fn(&O) -> Option<BoundAddress>,
    router: &Router,
    serving: Serving<'_>,
    cancel: &CancellationToken,
) {
    while !cancel.is_cancelled() {
        let bound = listener(&options.borrow_and_update());
        let stop = cancel.child_token();
        let server = async {
            match &bound {
                Some(bound) => serve(bound, router, serving.clone(), stop.clone()).await,
                None => stop.cancelled().await,
            }
        };
        tokio::pin!(server);
        let moved = options.wait_for(|options| listener(options) != bound);
        let moved = tokio::select! {
            () = &mut server => return,
            moved = moved => moved.is_ok(),
        };
        // The sender is gone only when the daemon is stopping.
        if moved {
            stop.cancel();
        }
        server.await;
    }
}

/// Serves an address until cancelled. Each request carries its [`ClientConnection`].
pub async fn serve(
    listener: &BoundAddress,
    router: &Router,
    serving: Serving<'_>,
    cancel: CancellationToken,
) {
    let Serving { name, limits, probes, counts } = serving;
    let Some(address) = listener.address() else { return cancel.cancelled().await };
    let listener = match listener.0.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%address, %error, "the {name} cannot be served");
            return cancel.cancelled().await;
        }
    };
    info!(%address, "the {name} is open");
    let connections = Connections::new(limits);
    let mut tasks = JoinSet::new();
    let mut tick_at = None;
    let mut pause_until = None;
    let mut logged_at: Option<Instant> = None;
    let (mut evicted, mut evicted_at) = (0, None);
    // Polled again when a connection has ended, and at each tick.
    let poll_accept = |context: &mut Context<'_>| match connections.has_room() {
        true => listener.poll_accept(context),
        false => Poll::Pending,
    };
    loop {
        match connections.tick_every() {
            None => tick_at = None,
            Some(every) => tick_at = tick_at.or(Some(Instant::now() + every)),
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = at(tick_at) => {
                tick_at = None;
                connections.tick();
                let now = connections.counts();
                if now.evicted > evicted && evicted_at.is_none_or(|at: Instant| at.elapsed() > LOG_PAUSE) {
                    evicted_at = Some(Instant::now());
                    let closed = now.evicted - std::mem::replace(&mut evicted, now.evicted);
                    warn!(closed, open = now.open, unproved = now.unproved, "the {name} closed connections to make room");
                }
                counts.send_replace(Some(now));
            }
            () = at(pause_until) => pause_until = None,
            () = connections.ended() => while tasks.try_join_next().is_some() {},
            accepted = poll_fn(poll_accept), if pause_until.is_none() => match accepted {
                Ok((stream, peer)) => {
                    let connection = Arc::new(connections.enter(Peer::of(peer.ip()), Phase::Idle));
                    let via = ClientConnection { peer: peer.ip(), connection };
                    let span = error_span!("connection", peer = %peer.ip());
                    tasks.spawn(serve_connection(stream, via, router.clone(), probes, name).instrument(span));
                }
                Err(error) => {
                    // Usually for lack of file descriptors.
                    connections.make_room();
                    if logged_at.is_none_or(|at| at.elapsed() > LOG_PAUSE) {
                        logged_at = Some(Instant::now());
                        warn!(%error, "the {name} cannot accept connections for a moment");
                    }
                    pause_until = Some(Instant::now() + ACCEPT_PAUSE);
                }
            },
        }
    }
    drop(listener);
    counts.send_replace(None);
    connections.drain();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(END_LIMIT, ended).await.is_err() {
        debug!("connections of the {name} were cut off");
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The connection of a request.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    pub peer: IpAddr,
    pub connection: Arc<Connection>,
}

async fn serve_connection(
    stream: TcpStream,
    via: ClientConnection,
    router: Router,
    probes: &'static [&'static str],
    name: &'static str,
) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_LIMIT);
    let connection = Arc::clone(&via.connection);
    let stream = Watched { stream, connection: Arc::clone(&connection) };
    let service = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(async |mut request: Request<Incoming>| {
        let via = via.clone();
        let guard = ResponseGuard(Arc::clone(&via.connection));
        let phase = if request.body().is_end_stream() { Phase::Answer } else { Phase::Body };
        via.connection.enter(phase);
        if via.connection.is_reserved() && !probes.contains(&request.uri().path()) {
            let close = [(header::CONNECTION, "close")];
            let full =
                (StatusCode::SERVICE_UNAVAILABLE, close, "all connections are taken\n").into_response();
            return Ok::<_, Infallible>(full.map(|body| Tracked { body, _guard: guard }));
        }
        request.extensions_mut().insert(via);
        let response = hyper::service::Service::call(&service, request).await?;
        Ok(response.map(|body| Tracked { body, _guard: guard }))
    });
    let serving = http1::Builder::new()
        // `Connections` enforces the time limits.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.attend(serving).await {
        debug!(%error, "a connection to the {name} broke");
    }
}

/// Marks the connection idle when dropped.
struct ResponseGuard(Arc<Connection>);

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Body of a response. Dropping it marks the response as sent.
struct Tracked {
    body: Body,
    _guard: ResponseGuard,
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
