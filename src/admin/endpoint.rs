//! The admin endpoint on TCP: connections, limits and access.
//!
//! Without a token it serves this machine only, and only reads. With one it serves every client that has it, and such a
//! client may also retry, replay, skip and drop; all other changes go through the control socket. Everything about a connection is bounded: their number, the time for a request and for its
//! response, and the size of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::auth::{self, Authenticator, Sessions};
use super::control::Control;
use super::reading::routes;
use super::state::ReadState;
use super::{changes, guard};
use crate::admission::{BoundAddress, Counts, Limits, Serving, serve_configured};
use crate::model::secret::Secret;
use crate::store::Store;

/// Bounds for connections. The reserve is for probes, because authenticated clients may hold all other places.
const LIMITS: Limits = Limits {
    places: 128,
    per_address: 32,
    reserve: 4,
    bodies: 1 << 20,
    head: Duration::from_secs(15),
    body: Duration::from_secs(15),
    handshake: Duration::from_secs(15),
    idle: Duration::from_secs(15),
    scarce: Duration::from_secs(3),
};
/// Paths that may use the reserved places.
const PROBES: [&str; 2] = ["/livez", "/readyz"];
/// Time limit for the body of a request, and for its response to begin.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The largest body of a request, which is a form with a token.
const MAX_BODY: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the admin endpoint; is it taken by another program? if so, set another admin.listen"
)]
pub struct EndpointError {
    pub address: SocketAddr,
    #[source]
    pub source: std::io::Error,
}

/// Binds the address of an endpoint. Connections wait in the system's queue until [`Endpoint::run`] serves them.
///
/// # Errors
/// The address is taken, or does not belong to this machine.
pub fn bind(address: SocketAddr) -> Result<BoundAddress, EndpointError> {
    BoundAddress::bind(address).map_err(|source| EndpointError { address, source })
}

/// Settings of the endpoint.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    listener: BoundAddress,
    token: Option<Secret>,
    authenticator: Arc<Authenticator>,
}

impl EndpointOptions {
    /// Settings for this listener. Without a token, loopback is open to everyone. Headers from `trusted_proxies` name
    /// the real client.
    pub fn new(listener: BoundAddress, token: Option<Secret>, trusted_proxies: Arc<[IpNet]>) -> Self {
        let authenticator = Arc::new(Authenticator::new(token.as_ref(), listener.address(), trusted_proxies));
        Self { listener, token, authenticator }
    }

    pub fn listener(&self) -> &BoundAddress {
        &self.listener
    }

    /// Returns whether a token is needed.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

impl PartialEq for EndpointOptions {
    fn eq(&self, other: &Self) -> bool {
        self.listener == other.listener
            && self.token == other.token
            && self.authenticator.trusted_proxies() == other.authenticator.trusted_proxies()
    }
}

/// The settings to follow. `None` means that there is no endpoint.
type Wanted = watch::Receiver<Option<EndpointOptions>>;

/// The task that serves the endpoint, and follows it to another address.
#[derive(Debug)]
pub struct Endpoint {
    options: Wanted,
    counts: watch::Sender<Option<Counts>>,
}

impl Endpoint {
    /// Returns the endpoint and its connection counts, which are `None` until it is served.
    pub fn new(options: watch::Receiver<Option<EndpointOptions>>) -> (Self, watch::Receiver<Option<Counts>>) {
        let (counts, receiver) = watch::channel(None);
        (Self { options, counts }, receiver)
    }

    /// Serves until cancelled. Each request is checked against the current settings; a stream ends when the settings
    /// that allowed it are gone.
    pub async fn run(mut self, control: Arc<dyn Control>, store: Store, cancel: CancellationToken) {
        let sessions = Arc::new(Sessions::load(store.clone()).await);
        let state = ReadState::new(control, store, cancel.clone());
        let router = router(state, self.options.clone(), sessions);
        serve_configured(&mut self.options, listener, &router, serving(&self.counts), &cancel).await;
    }
}

fn serving(counts: &watch::Sender<Option<Counts>>) -> Serving<'_> {
    Serving { name: "admin endpoint", limits: LIMITS, probes: &PROBES, counts }
}

fn listener(options: &Option<EndpointOptions>) -> Option<BoundAddress> {
    options.as_ref().map(|options| options.listener.clone())
}

fn router(state: ReadState, wanted: Wanted, sessions: Arc<Sessions>) -> Router {
    let changes = changes::routes(&state.control);
    routes(state)
        .merge(changes)
        .merge(auth::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(auth::authenticate))
        .layer(Extension(sessions))
        .layer(from_fn_with_state(wanted, check))
        .layer(from_fn(limit_time))
        .layer(from_fn(secure))
}

/// Middleware: refuses requests that a browser must not send here.
async fn check(State(wanted): State<Wanted>, request: Request, next: Next) -> Response {
    let authenticator = wanted.borrow().as_ref().map(|options| Arc::clone(&options.authenticator));
    let Some(authenticator) = authenticator else {
        let close = [(header::CONNECTION, "close")];
        return (StatusCode::SERVICE_UNAVAILABLE, close, "the admin endpoint is closed\n").into_response();
    };
    let (mut head, body) = request.into_parts();
    match guard::check(&head, authenticator.open_at()) {
        Ok(()) => {
            head.extensions.insert(authenticator);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refusal) => {
            let code = match refusal {
                guard::Refusal::Malformed => StatusCode::BAD_REQUEST,
                guard::Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
                guard::Refusal::Host | guard::Refusal::Origin => StatusCode::FORBIDDEN,
            };
            debug!(error = refusal.message(), "a request to the admin endpoint was refused");
            (code, format!("{}\n", refusal.message())).into_response()
        }
    }
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

/// Headers of every response. A page may use nothing from other origins. Not `no-referrer`, because forms would then
/// be sent with the origin `null`.
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::admission::ClientConnection;
    use crate::admission::serve;

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn probes_get_a_response_when_authenticated_requests_hold_all_places() {
        let hang = |Extension(via): Extension<ClientConnection>| async move {
            via.connection.prove();
            std::future::pending::<()>().await;
        };
        let router = Router::new()
            .route("/hang", get(hang))
            .route("/livez", get(async || "ok"))
            .route("/other", get(async || "ok"));
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap();
        let (counts, mut seen) = watch::channel(None);
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let server = tokio::spawn(async move {
            let serving = Serving { limits: Limits { places: 2, ..LIMITS }, ..serving(&counts) };
            serve(&listener, &router, serving, stop).await;
        });

        let hanging = [ask(address, "/hang").await, ask(address, "/hang").await];
        let proved =
            |counts: &Option<Counts>| counts.as_ref().is_some_and(|c| (c.open, c.unproved) == (2, 0));
        tokio::time::timeout(ANSWER_LIMIT, seen.wait_for(proved)).await.expect("in time").unwrap();
        assert!(answer(ask(address, "/livez").await).await.starts_with("HTTP/1.1 200"));
        let other = answer(ask(address, "/other").await).await;
        assert!(
            other.starts_with("HTTP/1.1 503") && other.ends_with("all connections are taken\n"),
            "{other}"
        );
        drop(hanging);
        cancel.cancel();
        server.await.unwrap();
    }
}
