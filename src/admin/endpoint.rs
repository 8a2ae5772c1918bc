//! The endpoint on TCP: connections and their limits, and who may ask what.
//!
//! It only reads; what changes things goes through the control socket. Without a token it serves this
//! machine, with one whoever knows it. Everything about a connection is bounded: how many there are, how
//! long a request may take to come in and an answer to be taken, and how large requests are.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::door::{self, Door};
use super::guard;
use super::reading::{Facts, routes};
use super::server::Control;
use crate::model::secret::Secret;
use crate::store::Store;

/// Connections at once; more wait.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take, the pause before the next one included.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// How long the body of a request may take, and its answer to begin.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How long a client may leave what was sent unread, in milliseconds.
const UNREAD_LIMIT: u32 = 30_000;
/// The largest head of a request, and the most headers in it.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The largest body of a request: a form with a token.
const MAX_BODY: usize = 4 << 10;
/// How long requests in hand get when the endpoint ends or moves.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the admin endpoint; is it taken by another program? if so, set another admin.listen"
)]
pub struct EndpointError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// An address that is listened on.
#[derive(Clone, Debug)]
pub struct EndpointListener(Arc<std::net::TcpListener>);

impl EndpointListener {
    /// Listens. Connections wait until somebody serves.
    ///
    /// # Errors
    /// The address is taken, or not ours.
    pub fn bind(address: SocketAddr) -> Result<Self, EndpointError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Self(Arc::new(listener)))
        };
        bind().map_err(|source| EndpointError { address, source })
    }

    /// Where it is, with the port that the system has picked for 0.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }
}

/// The endpoint as it shall be.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    listener: EndpointListener,
    token: Option<Secret>,
    door: Arc<Door>,
}

impl EndpointOptions {
    /// An endpoint there, and what opens it; on loopback it may be open to all.
    pub fn new(listener: EndpointListener, token: Option<Secret>) -> Self {
        let door = Arc::new(Door::new(token.as_ref(), listener.address()));
        Self { listener, token, door }
    }

    /// Where it is.
    pub fn listener(&self) -> &EndpointListener {
        &self.listener
    }

    /// Whether only a token opens it.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn is_at(&self, listener: &EndpointListener) -> bool {
        Arc::ptr_eq(&self.listener.0, &listener.0)
    }
}

impl PartialEq for EndpointOptions {
    fn eq(&self, other: &Self) -> bool {
        self.is_at(&other.listener) && self.token == other.token
    }
}

/// How the endpoint shall be at present; nothing while there shall be none.
type Wanted = watch::Receiver<Option<EndpointOptions>>;

/// The task that serves the endpoint, wherever it is at present.
#[derive(Debug)]
pub struct Endpoint {
    /// Nothing while there shall be none.
    pub options: watch::Receiver<Option<EndpointOptions>>,
}

impl Endpoint {
    /// Serves until cancelled. Every request is held against the options in force at that moment, and an
    /// answer without an end does not outlive what has let it begin.
    pub async fn run(mut self, control: Arc<dyn Control>, store: Store, cancel: CancellationToken) {
        let facts = Facts::new(control, store, cancel.clone());
        let router = router(facts, self.options.clone());
        while !cancel.is_cancelled() {
            let listener = listener(&self.options.borrow_and_update());
            let stop = cancel.child_token();
            let server = async {
                match &listener {
                    Some(listener) => serve(listener, &router, stop.clone()).await,
                    None => stop.cancelled().await,
                }
            };
            tokio::pin!(server);
            let moved = self.options.wait_for(|options| !same(&listener, options));
            let moved = tokio::select! {
                () = &mut server => return,
                moved = moved => moved.is_ok(),
            };
            // Whoever could change it may be gone already; then the daemon ends.
            if moved {
                stop.cancel();
            }
            server.await;
        }
    }
}

fn listener(options: &Option<EndpointOptions>) -> Option<EndpointListener> {
    options.as_ref().map(|options| options.listener.clone())
}

fn same(listener: &Option<EndpointListener>, options: &Option<EndpointOptions>) -> bool {
    match (listener, options) {
        (Some(listener), Some(options)) => options.is_at(listener),
        (None, None) => true,
        _ => false,
    }
}

async fn serve(listener: &EndpointListener, router: &Router, cancel: CancellationToken) {
    let Some(address) = listener.address() else { return cancel.cancelled().await };
    let listener = match listener.0.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%address, %error, "the admin endpoint cannot be served");
            return cancel.cancelled().await;
        }
    };
    info!(%address, "the admin endpoint is open");
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((permit, stream, peer)) = accepted else { continue };
        let (router, cancel) = (router.clone(), cancel.clone());
        connections.spawn(async move {
            connection(stream, peer.ip(), router, cancel).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(END_LIMIT, ended).await.is_err() {
        debug!("connections of the admin endpoint were cut off");
    }
}

type Accepted = (tokio::sync::OwnedSemaphorePermit, TcpStream, SocketAddr);

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((permit, stream, peer)),
        Err(error) => {
            debug!(%error, "a connection to the admin endpoint was not accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

async fn connection(stream: TcpStream, peer: IpAddr, router: Router, cancel: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_LIMIT);
    let service = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        hyper::service::Service::call(&service, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the admin endpoint broke");
    }
}

fn router(facts: Facts, wanted: Wanted) -> Router {
    routes(facts)
        .merge(door::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(door::ask))
        .layer(from_fn_with_state(wanted, check))
        .layer(from_fn(in_time))
        .layer(from_fn(secure))
}

/// Sends away what must not come in, and shows the rest the door.
async fn check(State(wanted): State<Wanted>, request: Request, next: Next) -> Response {
    let door = wanted.borrow().as_ref().map(|options| Arc::clone(&options.door));
    let Some(door) = door else {
        let close = [(header::CONNECTION, "close")];
        return (StatusCode::SERVICE_UNAVAILABLE, close, "the admin endpoint is closed\n").into_response();
    };
    let (mut head, body) = request.into_parts();
    match guard::check(&head, door.open_at()) {
        Ok(()) => {
            head.extensions.insert(door);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refusal) => {
            let code = match refusal {
                guard::Refusal::Malformed => StatusCode::BAD_REQUEST,
                guard::Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
                guard::Refusal::Host | guard::Refusal::Origin => StatusCode::FORBIDDEN,
            };
            debug!(?refusal, "a request to the admin endpoint was refused");
            (code, format!("{}\n", refusal.message())).into_response()
        }
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

/// What a browser may do with the answers: nothing that involves anybody else. Not `no-referrer`, which would
/// have forms sent with the origin `null`.
const HEADERS: [(header::HeaderName, HeaderValue); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (header::HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (
        header::HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

async fn secure(request: Request<Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.extend(HEADERS);
    response
}
