//! Authentication of requests: by the token, or by the session cookie that a right token was exchanged for.

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
use super::page;
use super::rights::Rights;
use super::state::{Anonymous, EndStream};
use super::throttle::Throttle;
use super::token::{EndedSessions, SESSION_LIFETIME, Session, TokenVerifier, bearer, cookies};
use crate::admission::{ClientConnection, Peer, Phase};
use crate::model::secret::Secret;
use crate::store::Store;
use crate::telemetry::LogLimit;

/// Paths that need no token: probes and the login form.
const OPEN: [&str; 5] = ["/livez", "/readyz", "/login", "/page.css", "/icon.svg"];
/// Setting of the store that holds the sessions that were ended early.
const ENDED_SESSIONS: &str = "admin.ended_sessions";

/// The token of one configuration and its failed attempts. Dropping it ends the streams that it has authorized.
#[derive(Debug)]
pub(super) struct Authenticator {
    verifier: Option<TokenVerifier>,
    listen: Option<SocketAddr>,
    /// Name of the cookie. It has the port in it, because browsers share cookies between the ports of a host: another
    /// daemon's must stay apart.
    cookie: String,
    trusted_proxies: Arc<[IpNet]>,
    failures: Mutex<Throttle<Peer>>,
    closed: CancellationToken,
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// Credentials found in a request.
enum Credentials {
    /// The right token, or none if none is needed.
    Token,
    Session,
    /// A wrong token; the response is delayed by this long.
    WrongToken(Duration),
    None,
}

/// Sessions that were ended, and limits of log lines; kept when the token changes.
#[derive(Debug)]
pub(super) struct Sessions {
    store: Store,
    ended: Mutex<EndedSessions>,
    /// Ends the streams that session cookies have authorized.
    tails: Mutex<CancellationToken>,
    log: LogLimit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Loads the sessions that were ended before the last restart.
    pub(super) async fn load(store: Store) -> Self {
        let ended = match store.settings(ENDED_SESSIONS).await {
            Ok(found) => {
                found.first().and_then(|(_, text)| serde_json::from_str(text).ok()).unwrap_or_default()
            }
            Err(error) => {
                warn!(%error, "cannot load the ended sessions of the page");
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

    /// Ends a session for good. Every client that follows events with a cookie has to connect again, and only this
    /// session is refused.
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
            warn!(%error, left_out, "cannot store that a session of the page was ended; a restart would accept it again");
        }
    }
}

impl Authenticator {
    pub(super) fn new(
        token: Option<&Secret>,
        listen: Option<SocketAddr>,
        trusted_proxies: Arc<[IpNet]>,
    ) -> Self {
        Self {
            verifier: token.map(TokenVerifier::new),
            listen,
            cookie: format!("eventsubd-{}", listen.map_or(0, |listen| listen.port())),
            trusted_proxies,
            failures: Mutex::new(Throttle::new()),
            closed: CancellationToken::new(),
        }
    }

    /// Returns the address that anyone may use without a token, if there is no token.
    pub(super) fn open_at(&self) -> Option<IpAddr> {
        self.listen.filter(|_| self.verifier.is_none()).map(|listen| listen.ip())
    }

    pub(super) fn trusted_proxies(&self) -> &Arc<[IpNet]> {
        &self.trusted_proxies
    }

    fn client(&self, via: &ClientConnection, headers: &HeaderMap) -> Client {
        Client::of(via.peer, headers, &self.trusted_proxies)
    }

    fn try_token(
        &self,
        verifier: &TokenVerifier,
        token: &[u8],
        client: Client,
        sessions: &Sessions,
    ) -> Credentials {
        if verifier.is_token(token) {
            return Credentials::Token;
        }
        let now = Instant::now();
        let pause = lock(&self.failures).failed(Peer::of(client.address), now);
        if let Some(left_out) = sessions.log.permit("token", now) {
            warn!(client = %client.address, left_out, "a client sent a wrong token to the admin endpoint");
        }
        Credentials::WrongToken(pause)
    }

    fn credentials(&self, headers: &HeaderMap, client: Client, sessions: &Sessions) -> Credentials {
        let Some(verifier) = &self.verifier else { return Credentials::Token };
        if self.session(verifier, headers, sessions).is_some() {
            return Credentials::Session;
        }
        match headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) {
            Some(token) => self.try_token(verifier, token, client, sessions),
            None => Credentials::None,
        }
    }

    /// Returns what a client with these credentials may do.
    fn rights(&self, credentials: &Credentials, headers: &HeaderMap, sessions: &Sessions) -> Rights {
        let Some(verifier) = &self.verifier else { return Rights::Read };
        match credentials {
            Credentials::Token => Rights::Change,
            Credentials::Session => match self.session(verifier, headers, sessions) {
                Some(session) => Rights::ChangeWith { form_key: verifier.form_key(session) },
                None => Rights::Read,
            },
            Credentials::WrongToken(_) | Credentials::None => Rights::Read,
        }
    }

    /// Returns the session of a valid cookie that was not ended.
    fn session<'a>(
        &'a self,
        verifier: &TokenVerifier,
        headers: &'a HeaderMap,
        sessions: &Sessions,
    ) -> Option<Session<'a>> {
        let now = seconds();
        let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        sent.flat_map(|value| cookies(value, &self.cookie))
            .filter_map(|value| verifier.verify_session(value, now))
            .find(|session| !sessions.has_ended(*session))
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Middleware: authenticates a request, or responds with 401.
pub(super) async fn authenticate(
    Extension(authenticator): Extension<Arc<Authenticator>>,
    Extension(sessions): Extension<Arc<Sessions>>,
    Extension(via): Extension<ClientConnection>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = authenticator.client(&via, request.headers());
    let credentials = authenticator.credentials(request.headers(), client, &sessions);
    let mut ends = vec![authenticator.closed.clone()];
    match credentials {
        Credentials::Token => via.connection.prove(),
        Credentials::Session => {
            via.connection.prove();
            ends.push(sessions.tails());
        }
        Credentials::WrongToken(pause) => tokio::time::sleep(pause).await,
        Credentials::None => {}
    }
    if matches!(credentials, Credentials::WrongToken(_) | Credentials::None) {
        let path = request.uri().path();
        if !OPEN.contains(&path) {
            if path == "/" && matches!(credentials, Credentials::None) {
                return (StatusCode::UNAUTHORIZED, page::login(false)).into_response();
            }
            let scheme = [(header::WWW_AUTHENTICATE, "Bearer realm=\"eventsubd\"")];
            return (StatusCode::UNAUTHORIZED, scheme, "the token of admin.token_file is needed\n")
                .into_response();
        }
        request.extensions_mut().insert(Anonymous);
    }
    let rights = authenticator.rights(&credentials, request.headers(), &sessions);
    request.extensions_mut().insert(rights);
    request.extensions_mut().insert(EndStream(ends));
    next.run(request).await
}

/// Routes of the login form and of logging out.
pub(super) fn routes() -> Router {
    Router::new().route("/login", get(form).post(login)).route("/logout", post(logout))
}

async fn form(
    Extension(authenticator): Extension<Arc<Authenticator>>,
    anonymous: Option<Extension<Anonymous>>,
) -> Response {
    match (&authenticator.verifier, anonymous) {
        (Some(_), Some(_)) => page::login(false).into_response(),
        _ => Redirect::to("/").into_response(),
    }
}

async fn login(
    Extension(authenticator): Extension<Arc<Authenticator>>,
    Extension(sessions): Extension<Arc<Sessions>>,
    Extension(via): Extension<ClientConnection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(verifier) = &authenticator.verifier else { return Redirect::to("/").into_response() };
    via.connection.enter(Phase::Answer);
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    let token = token.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let client = authenticator.client(&via, &headers);
    match authenticator.try_token(verifier, token.trim().as_bytes(), client, &sessions) {
        Credentials::Token | Credentials::Session => {
            via.connection.prove();
            let id = uuid::Uuid::new_v4().simple().to_string();
            let value = verifier.cookie(&id, seconds());
            (
                authenticator.set_cookie(&headers, client, &value, SESSION_LIFETIME.as_secs()),
                Redirect::to("/"),
            )
                .into_response()
        }
        Credentials::WrongToken(pause) => {
            tokio::time::sleep(pause).await;
            (StatusCode::UNAUTHORIZED, page::login(true)).into_response()
        }
        Credentials::None => (StatusCode::UNAUTHORIZED, page::login(true)).into_response(),
    }
}

async fn logout(
    Extension(authenticator): Extension<Arc<Authenticator>>,
    Extension(sessions): Extension<Arc<Sessions>>,
    Extension(via): Extension<ClientConnection>,
    headers: HeaderMap,
) -> Response {
    let session = authenticator
        .verifier
        .as_ref()
        .and_then(|verifier| authenticator.session(verifier, &headers, &sessions));
    if let Some(session) = session {
        sessions.end(session).await;
    }
    let client = authenticator.client(&via, &headers);
    (authenticator.set_cookie(&headers, client, "", 0), Redirect::to("/")).into_response()
}

impl Authenticator {
    /// `Lax` allows links from elsewhere. What changes something needs the form key too.
    fn set_cookie(
        &self,
        headers: &HeaderMap,
        client: Client,
        value: &str,
        age: u64,
    ) -> [(header::HeaderName, String); 1] {
        // Unless a trusted proxy says so, TLS shows in the origin that browsers send with a form.
        let is_tls = client.is_tls.unwrap_or_else(|| {
            headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https:"))
        });
        let secure = if is_tls { "; Secure" } else { "" };
        let name = &self.cookie;
        let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
        [(header::SET_COOKIE, text)]
    }
}
