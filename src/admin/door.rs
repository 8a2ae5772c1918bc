//! Who may read: with a token configured, whoever has it or a cookie that it has bought.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::client::Client;
use super::endpoint::Visit;
use super::page;
use super::reading::{Stranger, Until};
use super::throttle::Throttle;
use super::token::{EndedSessions, Keeper, SESSION, Session, bearer, cookies};
use crate::admission::{Peer, Phase};
use crate::model::secret::Secret;
use crate::store::Store;
use crate::telemetry::LogLimit;

/// What everybody may ask: whether the daemon lives and is ready, and what the form looks like.
const OPEN: [&str; 5] = ["/livez", "/readyz", "/login", "/page.css", "/icon.svg"];
/// The setting of the store that holds the sessions which were ended early.
const ENDED_SESSIONS: &str = "admin.ended_sessions";

/// Lets people in. With it goes what it has let in and would never end.
#[derive(Debug)]
pub(super) struct Door {
    keeper: Option<Keeper>,
    listen: Option<SocketAddr>,
    /// Cookies are for a host and all its ports: another daemon must not take this one's away.
    cookie: String,
    trusted_proxies: Arc<[IpNet]>,
    failures: Mutex<Throttle<Peer>>,
    closed: CancellationToken,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// What somebody has shown.
enum Shown {
    /// The token, or nothing where none is needed.
    Right,
    /// A cookie that a right token has bought.
    Cookie,
    /// A wrong token; the answer has to wait.
    Wrong(Duration),
    Nothing,
}

/// State that outlives a token: sessions that were ended, and limits of log lines.
#[derive(Debug)]
pub(super) struct Sessions {
    store: Store,
    ended: Mutex<EndedSessions>,
    /// Ends what cookies have begun and would never end.
    tails: Mutex<CancellationToken>,
    log: LogLimit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Reads which sessions were ended before the last restart.
    pub(super) async fn load(store: Store) -> Self {
        let ended = match store.settings(ENDED_SESSIONS).await {
            Ok(found) => {
                found.first().and_then(|(_, text)| serde_json::from_str(text).ok()).unwrap_or_default()
            }
            Err(error) => {
                warn!(%error, "cannot read which sessions of the page were ended");
                EndedSessions::default()
            }
        };
        Self { store, ended: Mutex::new(ended), tails: Mutex::default(), log: LogLimit::default() }
    }

    fn has_ended(&self, session: Session<'_>) -> bool {
        lock(&self.ended).has(session)
    }

    fn tails(&self) -> CancellationToken {
        lock(&self.tails).clone()
    }

    /// Ends a session for good. Clients that follow events with a cookie have to come again, and only this one is
    /// refused then.
    async fn end(&self, session: Session<'_>) {
        let text = {
            let mut ended = lock(&self.ended);
            ended.end(session, seconds());
            serde_json::to_string(&*ended).ok()
        };
        std::mem::take(&mut *lock(&self.tails)).cancel();
        if let Err(error) = self.store.set_settings(vec![(ENDED_SESSIONS.to_owned(), text)]).await
            && let Some(left_out) = self.log.permit("logout", Instant::now())
        {
            warn!(%error, left_out, "a session of the page has ended, but a restart would forget that");
        }
    }
}

impl Door {
    pub(super) fn new(
        token: Option<&Secret>,
        listen: Option<SocketAddr>,
        trusted_proxies: Arc<[IpNet]>,
    ) -> Self {
        Self {
            keeper: token.map(Keeper::new),
            listen,
            cookie: format!("eventsubd-{}", listen.map_or(0, |listen| listen.port())),
            trusted_proxies,
            failures: Mutex::new(Throttle::new()),
            closed: CancellationToken::new(),
        }
    }

    /// The address that stands open to whoever reaches it, when there is no token.
    pub(super) fn open_at(&self) -> Option<IpAddr> {
        self.listen.filter(|_| self.keeper.is_none()).map(|listen| listen.ip())
    }

    pub(super) fn trusted_proxies(&self) -> &Arc<[IpNet]> {
        &self.trusted_proxies
    }

    fn client(&self, visit: &Visit, headers: &HeaderMap) -> Client {
        Client::of(visit.peer, headers, &self.trusted_proxies)
    }

    fn try_token(&self, keeper: &Keeper, token: &[u8], client: Client, sessions: &Sessions) -> Shown {
        if keeper.opens(token) {
            return Shown::Right;
        }
        let now = Instant::now();
        let pause = lock(&self.failures).failed(Peer::of(client.address), now);
        if let Some(left_out) = sessions.log.permit("token", now) {
            warn!(client = %client.address, left_out, "a wrong token for the admin endpoint");
        }
        Shown::Wrong(pause)
    }

    fn look(&self, headers: &HeaderMap, client: Client, sessions: &Sessions) -> Shown {
        let Some(keeper) = &self.keeper else { return Shown::Right };
        if self.session(keeper, headers, sessions).is_some() {
            return Shown::Cookie;
        }
        match headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) {
            Some(token) => self.try_token(keeper, token, client, sessions),
            None => Shown::Nothing,
        }
    }

    /// The session of a cookie, if it goes on.
    fn session<'a>(
        &'a self,
        keeper: &Keeper,
        headers: &'a HeaderMap,
        sessions: &Sessions,
    ) -> Option<Session<'a>> {
        let now = seconds();
        let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        sent.flat_map(|value| cookies(value, &self.cookie))
            .filter_map(|value| keeper.remembers(value, now))
            .find(|session| !sessions.has_ended(*session))
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Lets a request in, or asks for the token.
pub(super) async fn ask(
    Extension(door): Extension<Arc<Door>>,
    Extension(sessions): Extension<Arc<Sessions>>,
    Extension(visit): Extension<Visit>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = door.client(&visit, request.headers());
    let shown = door.look(request.headers(), client, &sessions);
    let mut ends = vec![door.closed.clone()];
    match shown {
        Shown::Right => visit.connection.prove(),
        Shown::Cookie => {
            visit.connection.prove();
            ends.push(sessions.tails());
        }
        Shown::Wrong(pause) => tokio::time::sleep(pause).await,
        Shown::Nothing => {}
    }
    if matches!(shown, Shown::Wrong(_) | Shown::Nothing) {
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
    request.extensions_mut().insert(Until(ends));
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
    Extension(sessions): Extension<Arc<Sessions>>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(keeper) = &door.keeper else { return Redirect::to("/").into_response() };
    visit.connection.enter(Phase::Answer);
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    let token = token.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let client = door.client(&visit, &headers);
    match door.try_token(keeper, token.trim().as_bytes(), client, &sessions) {
        Shown::Right | Shown::Cookie => {
            visit.connection.prove();
            let id = uuid::Uuid::new_v4().simple().to_string();
            let value = keeper.cookie(&id, seconds());
            (door.set_cookie(&headers, client, &value, SESSION.as_secs()), Redirect::to("/")).into_response()
        }
        Shown::Wrong(pause) => {
            tokio::time::sleep(pause).await;
            (StatusCode::UNAUTHORIZED, page::login(true)).into_response()
        }
        Shown::Nothing => (StatusCode::UNAUTHORIZED, page::login(true)).into_response(),
    }
}

async fn logout(
    Extension(door): Extension<Arc<Door>>,
    Extension(sessions): Extension<Arc<Sessions>>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
) -> Response {
    let session = door.keeper.as_ref().and_then(|keeper| door.session(keeper, &headers, &sessions));
    if let Some(session) = session {
        sessions.end(session).await;
    }
    let client = door.client(&visit, &headers);
    (door.set_cookie(&headers, client, "", 0), Redirect::to("/")).into_response()
}

impl Door {
    /// Nothing that a cookie opens changes anything, so links from elsewhere may use it (`Lax`).
    fn set_cookie(
        &self,
        headers: &HeaderMap,
        client: Client,
        value: &str,
        age: u64,
    ) -> [(header::HeaderName, String); 1] {
        // Without a word of a trusted proxy, the origin that browsers send with a form tells of TLS.
        let is_tls = client.is_tls.unwrap_or_else(|| {
            headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https:"))
        });
        let secure = if is_tls { "; Secure" } else { "" };
        let name = &self.cookie;
        let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
        [(header::SET_COOKIE, text)]
    }
}
