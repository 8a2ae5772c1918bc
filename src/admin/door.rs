//! Who may read: with a token configured, whoever has it or a cookie that it has bought.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::endpoint::Peer;
use super::page;
use super::reading::{Stranger, Until};
use super::throttle::Throttle;
use super::token::{Keeper, SESSION, bearer, cookies};
use crate::model::secret::Secret;

/// What everybody may ask: whether the daemon lives and is ready, and what the form looks like.
const OPEN: [&str; 5] = ["/livez", "/readyz", "/login", "/page.css", "/icon.svg"];

/// Lets people in. With it goes what it has let in and would never end.
#[derive(Debug)]
pub(super) struct Door {
    keeper: Option<Keeper>,
    listen: Option<SocketAddr>,
    /// Cookies are for a host and all its ports: another daemon must not take this one's away.
    cookie: String,
    failures: Mutex<Throttle<IpAddr>>,
    closed: CancellationToken,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// What somebody has shown.
enum Shown {
    Right,
    Wrong,
    Nothing,
    /// It was not looked at.
    TooOften(Duration),
}

impl Door {
    pub(super) fn new(token: Option<&Secret>, listen: Option<SocketAddr>) -> Self {
        Self {
            keeper: token.map(Keeper::new),
            listen,
            cookie: format!("eventsubd-{}", listen.map_or(0, |listen| listen.port())),
            failures: Mutex::new(Throttle::new()),
            closed: CancellationToken::new(),
        }
    }

    /// The address that stands open to whoever reaches it, when there is no token.
    pub(super) fn open_at(&self) -> Option<IpAddr> {
        self.listen.filter(|_| self.keeper.is_none()).map(|listen| listen.ip())
    }

    /// Looks at a token.
    fn try_token(&self, keeper: &Keeper, token: &[u8], peer: IpAddr) -> Shown {
        let now = Instant::now();
        let who = network(peer);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wait) = failures.admits(&who, now) {
            return Shown::TooOften(wait);
        }
        if keeper.opens(token) {
            return Shown::Right;
        }
        failures.failed(who, now);
        drop(failures);
        warn!(%peer, "a wrong token for the admin endpoint");
        Shown::Wrong
    }

    fn look(&self, headers: &HeaderMap, peer: IpAddr) -> Shown {
        let Some(keeper) = &self.keeper else { return Shown::Right };
        let now = seconds();
        let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        if sent.flat_map(|value| cookies(value, &self.cookie)).any(|value| keeper.remembers(value, now)) {
            return Shown::Right;
        }
        match headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) {
            Some(token) => self.try_token(keeper, token, peer),
            None => Shown::Nothing,
        }
    }
}

/// Whoever has one address of IPv6 has the 64 bits after it.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn too_often(wait: Duration) -> Response {
    let seconds = (wait.as_secs() + 1).to_string();
    let message = "too many wrong tokens; wait a little\n";
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], message).into_response()
}

/// Lets a request in, or asks for the token.
pub(super) async fn ask(
    Extension(door): Extension<Arc<Door>>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = door.look(request.headers(), peer);
    if let Shown::TooOften(wait) = shown {
        return too_often(wait);
    }
    if !matches!(shown, Shown::Right) {
        let path = request.uri().path();
        if !OPEN.contains(&path) {
            if path == "/" && matches!(shown, Shown::Nothing) {
                return (StatusCode::UNAUTHORIZED, page::login(false)).into_response();
            }
            let scheme = [(header::WWW_AUTHENTICATE, "Bearer realm=\"eventsubd\"")];
            return (StatusCode::UNAUTHORIZED, scheme, "the token of admin.token_file is needed\n")
                .into_response();
        }
        request.extensions_mut().insert(Stranger);
    }
    request.extensions_mut().insert(Until(door.closed.clone()));
    next.run(request).await
}

/// The form for the token, and the way out.
pub(super) fn routes() -> Router {
    Router::new().route("/login", get(form).post(login)).route("/logout", post(logout))
}

async fn form(Extension(door): Extension<Arc<Door>>, stranger: Option<Extension<Stranger>>) -> Response {
    match (&door.keeper, stranger) {
        (Some(_), Some(_)) => page::login(false).into_response(),
        _ => Redirect::to("/").into_response(),
    }
}

async fn login(
    Extension(door): Extension<Arc<Door>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(keeper) = &door.keeper else { return Redirect::to("/").into_response() };
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    let token = token.map(|(_, value)| value.into_owned()).unwrap_or_default();
    match door.try_token(keeper, token.trim().as_bytes(), peer) {
        Shown::Right => {
            let age = SESSION.as_secs();
            let value = keeper.cookie(seconds());
            (door.set_cookie(&headers, &value, age), Redirect::to("/")).into_response()
        }
        Shown::TooOften(wait) => too_often(wait),
        Shown::Wrong | Shown::Nothing => (StatusCode::UNAUTHORIZED, page::login(true)).into_response(),
    }
}

async fn logout(Extension(door): Extension<Arc<Door>>, headers: HeaderMap) -> Response {
    (door.set_cookie(&headers, "", 0), Redirect::to("/")).into_response()
}

impl Door {
    /// Nothing that a cookie opens changes anything, so links from elsewhere may use it (`Lax`).
    fn set_cookie(&self, headers: &HeaderMap, value: &str, age: u64) -> [(header::HeaderName, String); 1] {
        // Browsers send the origin of a form; behind a proxy it is the only thing that tells of TLS.
        let is_tls =
            headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
        let secure = if is_tls { "; Secure" } else { "" };
        let name = &self.cookie;
        let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
        [(header::SET_COOKIE, text)]
    }
}
