//! The work behind the page: showing, sending to Twitch, taking back.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use super::bucket::Bucket;
use super::invitation::{Invitation, InvitationKey, InvitedUser, Unusable};
use super::needs::{self, Needs};
use super::outcomes::{Outcome, Outcomes};
use super::page::{self, Asker, View};
use super::request::{self, Answer, Asked, Returned};
use super::visits::{self, Begun, DICE, Purpose, Refused, Visit, Visits};
use crate::admission::BoundAddress;
use crate::auth::oauth::{self, TokenUser};
use crate::auth::{CodeError, CodeGrant, Credentials, Outward};
use crate::model::grants::{self, Scopes};
use crate::model::status::InviteStatus;
use crate::model::subscriptions::Subscriptions;
use crate::telemetry::LogLimit;

/// Codes that are exchanged at once.
const EXCHANGES: usize = 8;
/// Time until the invite on a page, which leads on from it, expires.
const PAGE_LIFE: Duration = Duration::from_secs(3_600);
/// Pages with needs that may be made at once, and the time for one more.
const SHOWN: u32 = 60;
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Settings of the page.
#[derive(Clone, Debug)]
pub struct InviteOptions {
    redirect_uri: Arc<str>,
    origin: Box<str>,
    host: Box<str>,
    path: Box<str>,
    auth_url: Box<str>,
    credentials: Credentials,
    key: InvitationKey,
    listener: Option<BoundAddress>,
}

impl InviteOptions {
    /// `listener` is `None` if somebody else serves the page. The redirect URI was checked when the file was read.
    pub fn new(
        redirect_uri: &str,
        auth_url: &str,
        credentials: Credentials,
        listener: Option<BoundAddress>,
    ) -> Self {
        let url = reqwest::Url::parse(redirect_uri).ok();
        let of = |part: &dyn Fn(&reqwest::Url) -> String| url.as_ref().map(part).unwrap_or_default().into();
        Self {
            redirect_uri: redirect_uri.into(),
            origin: of(&|url| url.origin().ascii_serialization()),
            host: of(&|url| url.host_str().unwrap_or_default().to_owned()),
            path: of(&|url| url.path().to_owned()),
            auth_url: auth_url.into(),
            key: InvitationKey::new(&credentials.client_id, &credentials.client_secret),
            credentials,
            listener,
        }
    }

    /// The path of the page.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn listener(&self) -> Option<&BoundAddress> {
        self.listener.as_ref()
    }

    fn asker(&self) -> Asker<'_> {
        Asker { client_id: &self.credentials.client_id, host: &self.host, auth_url: &self.auth_url }
    }

    /// An invite for a button.
    fn invite(&self, user: Option<InvitedUser>, types: Vec<String>) -> String {
        let expires = now().saturating_add(PAGE_LIFE.as_secs());
        self.key.write(&Invitation { user, types, expires })
    }

    /// The cookie of a visit, or with an empty value the end of it.
    fn cookie(&self, state: &str, value: &str) -> Option<HeaderValue> {
        let name = request::cookie_name(state);
        let life = if value.is_empty() { 0 } else { visits::LIFE.as_secs() };
        let secure = if self.redirect_uri.starts_with("https:") { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; Path={}; Max-Age={life}; HttpOnly; SameSite=Lax{secure}", self.path);
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl PartialEq for InviteOptions {
    fn eq(&self, other: &Self) -> bool {
        self.redirect_uri == other.redirect_uri
            && self.auth_url == other.auth_url
            && self.credentials == other.credentials
            && self.listener == other.listener
    }
}

/// Called with the id of a user who may have granted something.
#[derive(Clone)]
pub struct OnGrant(pub Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for OnGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnGrant")
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The page, for whoever serves it.
#[derive(Clone, Debug)]
pub struct Invites(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: watch::Receiver<Option<InviteOptions>>,
    outward: Outward,
    subscriptions: watch::Receiver<Subscriptions>,
    on_grant: OnGrant,
    state: Mutex<State>,
    started: Instant,
    exchanges: Semaphore,
    log: LogLimit,
}

#[derive(Debug)]
struct State {
    visits: Visits,
    shown: Bucket,
    outcomes: Outcomes,
}

/// Marks an answer to somebody who has an invite, or comes back from a visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Invited;

/// A page, and the visit whose cookie ends with it.
struct Shown {
    view: View,
    ended: Option<String>,
}

impl From<View> for Shown {
    fn from(view: View) -> Self {
        Self { view, ended: None }
    }
}

impl Invites {
    /// `subscriptions` are those of the file, with what they need.
    pub fn new(
        options: watch::Receiver<Option<InviteOptions>>,
        outward: Outward,
        subscriptions: watch::Receiver<Subscriptions>,
        on_grant: OnGrant,
    ) -> Self {
        let shown = Bucket::new(SHOWN, SHOWN_EVERY);
        Self(Arc::new(Inner {
            options,
            outward,
            subscriptions,
            on_grant,
            state: Mutex::new(State { visits: Visits::new(), shown, outcomes: Outcomes::default() }),
            started: Instant::now(),
            exchanges: Semaphore::new(EXCHANGES),
            log: LogLimit::default(),
        }))
    }

    pub(super) fn options(&self) -> watch::Receiver<Option<InviteOptions>> {
        self.0.options.clone()
    }

    /// Returns the status without the connections, which the listener counts. `None` if there is no page.
    pub fn status(&self) -> Option<InviteStatus> {
        let options = self.0.options.borrow().clone()?;
        let mut state = self.0.lock();
        Some(InviteStatus {
            redirect_uri: options.redirect_uri.to_string(),
            listen: options.listener().and_then(BoundAddress::address).map(|address| address.to_string()),
            visits: state.visits.open(self.0.elapsed()) as u64,
            unfinished: state.visits.unfinished(),
            ..state.outcomes.status()
        })
    }

    /// Counts and logs a request that is refused before it is read.
    pub(super) fn refuse(&self, reason: &'static str) {
        self.0.record(Outcome::Refused, reason);
    }

    /// Answers a request for the page's path.
    pub async fn answer(&self, request: &Request<Bytes>) -> Answer {
        let Some(options) = self.0.options.borrow().clone() else {
            let mut closed = Response::new(Bytes::new());
            *closed.status_mut() = StatusCode::NOT_FOUND;
            return closed;
        };
        let inner = &self.0;
        let shown = match request::read(request, &options.origin) {
            None => View::Malformed.into(),
            Some(Asked::Show { invite: None }) => View::NoInvite.into(),
            Some(Asked::Show { invite: Some(invite) }) => inner.show(&options, &invite).into(),
            Some(Asked::Begin { invite }) => match inner.begin(&options, &invite) {
                Ok(mut answer) => {
                    answer.extensions_mut().insert(Invited);
                    return answer;
                }
                Err(view) => (*view).into(),
            },
            Some(Asked::Return(returned)) => inner.come_back(&options, returned).await,
        };
        if let Some((outcome, reason)) = shown.view.outcome() {
            inner.record(outcome, reason);
        }
        let mut answer = page::render(&shown.view, options.asker());
        if shown.view.is_for_invited() {
            answer.extensions_mut().insert(Invited);
        }
        if let Some(cookie) = shown.ended.and_then(|state| options.cookie(&state, "")) {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        answer
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the end of a request, and logs it unless whoever found the reason has logged it.
    fn record(&self, outcome: Outcome, reason: &'static str) {
        self.lock().outcomes.record(outcome);
        if matches!(outcome, Outcome::Granted | Outcome::Failed) {
            return;
        }
        let Some(left_out) = self.log.permit(reason, Instant::now()) else { return };
        match outcome {
            Outcome::Declined => info!(reason, left_out, "an invited user has not allowed what is needed"),
            Outcome::Limited => warn!(reason, left_out, "the page for invited users turned a visitor away"),
            _ => info!(reason, left_out, "a request to the page for invited users was refused"),
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn read(options: &InviteOptions, invite: &str) -> Result<Invitation, View> {
        options.key.read(invite, now()).map_err(|unusable| match unusable {
            Unusable::Unknown => View::UnknownInvite,
            Unusable::Expired => View::ExpiredInvite,
        })
    }

    /// Returns what is needed of a user. The rate is limited because the list may be long.
    fn needs(&self, user_id: &str, types: &[String]) -> Result<Needs, View> {
        let subscriptions = self.subscriptions.borrow().clone();
        if subscriptions.is_empty() {
            return Err(View::Starting);
        }
        if !self.lock().shown.take(self.elapsed()) {
            return Err(View::TooMany);
        }
        Ok(needs::of_user(&subscriptions, user_id, types))
    }

    fn show(&self, options: &InviteOptions, invite: &str) -> View {
        let invitation = match Self::read(options, invite) {
            Ok(invitation) => invitation,
            Err(view) => return view,
        };
        match invitation.user {
            None => View::SignIn { invite: invite.to_owned() },
            Some(user) => self.ask(options, user, invitation.types),
        }
    }

    /// Shows what is asked of a user.
    fn ask(&self, options: &InviteOptions, user: InvitedUser, types: Vec<String>) -> View {
        match self.needs(&user.id, &types) {
            Err(view) => view,
            Ok(needs) if needs.scopes.is_empty() => View::Nothing { login: user.login },
            Ok(needs) => {
                let login = user.login.clone();
                View::Ask { login, needs, invite: options.invite(Some(user), types) }
            }
        }
    }

    /// Sends the browser to Twitch.
    fn begin(&self, options: &InviteOptions, invite: &str) -> Result<Answer, Box<View>> {
        let Invitation { user, types, .. } = Self::read(options, invite)?;
        let purpose = match user {
            None => Purpose::Identify,
            Some(user) => {
                let needs = self.needs(&user.id, &types)?;
                if needs.scopes.is_empty() {
                    return Err(View::Nothing { login: user.login }.into());
                }
                Purpose::Grant { user, scopes: needs.scopes }
            }
        };
        let scopes = match &purpose {
            Purpose::Identify => String::new(),
            Purpose::Grant { scopes, .. } => grants::list(scopes),
        };
        let mut dice = [0; DICE];
        random(&mut dice).map_err(|_| View::Starting)?;
        let begun = self.lock().visits.begin(Visit { purpose, types }, &dice, self.elapsed());
        let Begun { state, cookie, has_displaced } = begun.map_err(|visits::TooMany| View::TooMany)?;
        if has_displaced && let Some(left_out) = self.log.permit("displaced", Instant::now()) {
            warn!(left_out, "too many invited users are at Twitch: the oldest visit was ended for a new one");
        }
        let client_id = &options.credentials.client_id;
        let url = oauth::consent_url(&options.auth_url, client_id, &options.redirect_uri, &scopes, &state);
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::SEE_OTHER;
        let headers = answer.headers_mut();
        headers.insert(LOCATION, HeaderValue::from_str(&url).map_err(|_| View::Malformed)?);
        headers.extend(options.cookie(&state, cookie.expose()).map(|cookie| (SET_COOKIE, cookie)));
        page::secure(&mut answer, options.asker());
        Ok(answer)
    }

    /// Handles a return from Twitch. The visit ends only when there is room to exchange its code, so that the visitor can
    /// load the page again otherwise.
    async fn come_back(&self, options: &InviteOptions, returned: Returned) -> Shown {
        let Ok(_exchange) = self.exchanges.try_acquire() else { return View::TooMany.into() };
        let Returned { state, cookie, code } = returned;
        let visit = self.lock().visits.end(&state, cookie.as_deref(), self.elapsed());
        let visit = match visit {
            Ok(visit) => visit,
            Err(Refused::Unknown) => return View::Stale.into(),
            Err(Refused::OtherBrowser) => return View::OtherBrowser.into(),
        };
        let again = |visit: &Visit| match &visit.purpose {
            Purpose::Identify => options.invite(None, visit.types.clone()),
            Purpose::Grant { user, .. } => options.invite(Some(user.clone()), visit.types.clone()),
        };
        let Some(code) = code else {
            return Shown { view: View::Declined { invite: again(&visit) }, ended: Some(state) };
        };
        let grant = CodeGrant {
            http: &self.outward,
            auth_url: &options.auth_url,
            client_id: &options.credentials.client_id,
            client_secret: &options.credentials.client_secret,
            redirect_uri: &options.redirect_uri,
        };
        let view = match grant.redeem(&code).await {
            Ok(who) => self.take_grant(options, visit, &who),
            Err(CodeError::Code(error)) => {
                if let Some(left_out) = self.log.permit("code", Instant::now()) {
                    warn!(error, left_out, "Twitch did not take the code of an invited user");
                }
                View::Code
            }
            Err(error) => {
                if let Some(left_out) = self.log.permit("exchange", Instant::now()) {
                    warn!(%error, left_out, "the grant of an invited user could not be confirmed");
                }
                match error {
                    CodeError::Client(_) => View::Client,
                    _ => View::TwitchAway { invite: again(&visit) },
                }
            }
        };
        Shown { view, ended: Some(state) }
    }

    /// Compares what was granted with what was asked for. Whoever it was: the daemon looks at that user's grants.
    fn take_grant(&self, options: &InviteOptions, visit: Visit, who: &TokenUser) -> View {
        let Visit { purpose, types } = visit;
        (self.on_grant.0)(&who.user_id);
        let came = InvitedUser { id: who.user_id.clone(), login: who.login.clone() };
        let (user, scopes) = match purpose {
            Purpose::Identify => return self.ask(options, came, types),
            Purpose::Grant { user, scopes } => (user, scopes),
        };
        if came.id != user.id {
            let invited = user.login.clone();
            return View::WrongUser { login: came.login, invited, invite: options.invite(Some(user), types) };
        }
        let missing: Scopes = scopes.difference(&who.scopes).cloned().collect();
        if missing.is_empty() {
            info!(user_id = %came.id, login = %came.login, scopes = grants::list(&scopes), "an invited user has allowed it");
            return View::Done { login: came.login, scopes };
        }
        View::Missing { login: came.login, missing, invite: options.invite(Some(user), types) }
    }
}

/// Fills the buffer from the system's source.
fn random(buffer: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read = rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())?;
        filled += read;
    }
    Ok(())
}
