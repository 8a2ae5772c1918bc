//! Sending requests: the token, the pace, the second attempt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::HeaderMap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::error::HelixError;
use super::pacer::{Decision, Headers, Pacer, PacerOptions, Permit, Priority};
use super::request::{Call, Request, Verb};
use super::status::{NO_ANSWER, classify, status_label, without_token};
use super::{HelixOptions, MaySend};
use crate::auth::{AccessToken, BodyError, Outward, Rejected, Tokens, read_bounded, read_start};
use crate::model::pulse::Pulse;
use crate::model::status::ApiStatus;
use crate::model::text::duration;
use crate::telemetry::LogLimit;

/// Largest answer that is read; a page of 100 subscriptions has about 60 KiB.
const MAX_ANSWER: usize = 1 << 20;
/// Number of bytes of a refusal that are read. Masking the token in its words takes time for each way to read them.
const MAX_REFUSAL: usize = 16 << 10;
/// Largest answer to an update of 100 shards, which quotes Twitch's words for each shard.
const MAX_SHARD_ANSWER: usize = 256 << 10;
/// How often a request is sent again after a 429 that the pacer has waited for.
const RATE_LIMIT_TRIES: u32 = 3;
/// Pause before the one repetition after a 503.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two looks at whether a background request may go.
const BACKGROUND_LOOK: Duration = Duration::from_secs(1);
/// Time after which a background request goes as an ordinary one: another program may keep the bucket below half
/// for good, and the list must come to its end all the same.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(30);

/// Marks requests as background work until it is over. Clones share the mark.
#[derive(Clone, Debug, Default)]
pub struct Background(Arc<AtomicBool>);

impl Background {
    /// Makes the requests ordinary ones from now on: somebody waits for them.
    pub fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The part of the client that each of its users has for itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// Beats as requests move.
    pub(super) pulse: Pulse,
    /// `None` for ordinary requests.
    pub(super) background: Option<Background>,
    /// Asked right before each request, in place of the one in the options.
    pub(super) may_send: Option<MaySend>,
}

/// Shared by all clones of the client. The lock is held for arithmetic only, never over an await.
#[derive(Debug)]
pub(super) struct Sender {
    http: Outward,
    options: HelixOptions,
    tokens: Tokens,
    pacer: Mutex<Pacer>,
    changed: Notify,
    status: watch::Sender<ApiStatus>,
    log: LogLimit,
}

/// Gives the permit back however the request ends.
struct Flight<'a> {
    sender: &'a Sender,
    permit: Option<Permit>,
}

impl Flight<'_> {
    fn answered(mut self, headers: Headers) {
        if let Some(permit) = self.permit.take() {
            self.sender.pacer().answered(permit, headers, Instant::now().into_std());
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.sender.pacer().abandoned(permit);
        }
        self.sender.changed.notify_waiters();
    }
}

struct Answer {
    status: u16,
    headers: Headers,
    /// Time until the bucket is full.
    reset_in: Option<Duration>,
    body: Vec<u8>,
}

impl Sender {
    pub(super) fn new(http: Outward, options: HelixOptions, tokens: Tokens) -> Arc<Self> {
        let pacing = PacerOptions {
            in_flight: u32::try_from(options.in_flight).unwrap_or(u32::MAX),
            most_in_flight: u32::try_from(options.most_in_flight).unwrap_or(u32::MAX),
            reserve: options.reserve,
            refill_window: options.refill_window,
        };
        Arc::new(Self {
            http,
            tokens,
            pacer: Mutex::new(Pacer::new(pacing, Instant::now().into_std())),
            changed: Notify::new(),
            status: watch::Sender::default(),
            log: LogLimit::default(),
            options,
        })
    }

    pub(super) fn status(&self) -> watch::Receiver<ApiStatus> {
        self.status.subscribe()
    }

    /// Names verb and URL where the answer is not one that Twitch gives: the URL may lead elsewhere.
    fn with_url(&self, request: &Request, error: HelixError) -> HelixError {
        match error {
            HelixError::Garbled { message } => {
                let route = request.route();
                let (verb, path) = route.split_once(' ').unwrap_or(("", &route));
                HelixError::Garbled {
                    message: format!("{message} ({verb} {}{path})", self.options.api_url).into(),
                }
            }
            error => error,
        }
    }

    /// Logs the first of the rows that could not be read.
    pub(super) fn log_unread(&self, call: Call, unread: &[Box<str>]) {
        let Some(first) = unread.first() else { return };
        if let Some(left_out) = self.log.permit(call.name(), Instant::now().into_std()) {
            warn!(
                call = call.name(),
                rows = unread.len(),
                first,
                left_out,
                "rows of Twitch's answer cannot be read; the others are used"
            );
        }
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        self.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of requests that may be in flight now.
    pub(super) fn window(&self) -> usize {
        usize::try_from(self.pacer().window()).unwrap_or(usize::MAX)
    }

    /// The body of a good answer. The pulse beats while this moves.
    pub(super) async fn send(&self, request: &Request, caller: &Caller) -> Result<Vec<u8>, HelixError> {
        let outcome = self.attempts(request, caller).await.map_err(|error| self.with_url(request, error));
        caller.pulse.beat();
        if matches!(outcome, Err(HelixError::StandingBy)) {
            return outcome;
        }
        let problem = outcome.as_ref().err().filter(|error| error.is_outage()).map(ToString::to_string);
        if problem.is_some() || outcome.is_ok() {
            self.status.send_if_modified(|status| {
                let changed = status.problem != problem;
                status.problem = problem;
                changed
            });
        }
        outcome
    }

    async fn attempts(&self, request: &Request, caller: &Caller) -> Result<Vec<u8>, HelixError> {
        let mut token = self.tokens.get().await.map_err(HelixError::Token)?;
        let (mut renewed, mut repeated, mut limited) = (false, false, 0);
        loop {
            match self.attempt(request, &token, caller).await {
                Err(HelixError::Unauthorized { message }) if !renewed => {
                    renewed = true;
                    match self.tokens.reject(&token).await.map_err(HelixError::Token)? {
                        Rejected::Renewed(other) => token = other,
                        Rejected::StillValid => return Err(HelixError::Unauthorized { message }),
                    }
                }
                Err(HelixError::RateLimited) if limited < RATE_LIMIT_TRIES => limited += 1,
                Err(HelixError::Outage { status: 503, .. }) if !repeated => {
                    repeated = true;
                    tokio::time::sleep(OUTAGE_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        token: &AccessToken,
        caller: &Caller,
    ) -> Result<Vec<u8>, HelixError> {
        let flight = self.pace(request.call, &caller.pulse, caller.background.as_ref()).await;
        // After all waiting: a process that was stopped meanwhile must not send what another host does by now.
        let may_send = caller.may_send.as_ref().or(self.options.may_send.as_ref());
        if may_send.is_some_and(|may_send| !(may_send.0)()) {
            return Err(HelixError::StandingBy);
        }
        let answer = tokio::time::timeout(self.options.timeout, self.exchange(request, token)).await;
        let answer = answer.unwrap_or_else(|_| {
            let message =
                format!("{}: no answer in {}", request.call.name(), duration(self.options.timeout)).into();
            Err(HelixError::Unreachable { message })
        });
        let answer = answer.inspect_err(|error| {
            debug!(call = request.call.name(), %error, "request failed");
            self.status.send_modify(|status| count(status, request, NO_ANSWER));
        })?;
        flight.answered(answer.headers);
        let limited = answer.status == 429;
        self.status.send_modify(|status| {
            count(status, request, status_label(answer.status));
            status.limit = answer.headers.limit.or(status.limit);
            status.remaining = answer.headers.remaining.or(status.remaining);
            status.rate_limited += u64::from(limited);
        });
        debug!(
            call = request.call.name(),
            status = answer.status,
            remaining = answer.headers.remaining,
            "answer"
        );
        let is_good = (200..300).contains(&answer.status);
        // Lists are long and hold no words of Twitch's, but the reasons why shards were refused.
        let body = match is_good && request.call != Call::UpdateShards {
            true => answer.body,
            false => without_token(&answer.body, token.secret()),
        };
        if is_good {
            return Ok(body);
        }
        let error = classify(request.call, answer.status, answer.headers.remaining, &body);
        if matches!(error, HelixError::RateLimited) {
            let seconds = answer.reset_in.map(|left| left.as_secs());
            warn!(reset_in_seconds = seconds, "Twitch's rate limit is reached; waiting");
            self.pacer().limited(answer.reset_in, fastrand::f64(), Instant::now().into_std());
        }
        Err(error)
    }

    async fn pace(&self, call: Call, pulse: &Pulse, background: Option<&Background>) -> Flight<'_> {
        let asked = Instant::now();
        loop {
            pulse.beat();
            let priority = match background {
                _ if call.is_urgent() => Priority::Urgent,
                Some(background) if !background.is_over() && asked.elapsed() < BACKGROUND_PATIENCE => {
                    Priority::Background
                }
                _ => Priority::Ordinary,
            };
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let decision = self.pacer().ask(priority, Instant::now().into_std());
            let at = match decision {
                Decision::Go(permit) => return Flight { sender: self, permit: Some(permit) },
                Decision::At(at) => Some(Instant::from_std(at)),
                Decision::Later => None,
            };
            // A background request may become an ordinary one meanwhile.
            let look = (priority == Priority::Background).then(|| Instant::now() + BACKGROUND_LOOK);
            match [at, look].into_iter().flatten().min() {
                Some(at) => drop(tokio::time::timeout_at(at, changed).await),
                None => changed.await,
            }
        }
    }

    async fn exchange(&self, request: &Request, token: &AccessToken) -> Result<Answer, HelixError> {
        let name = request.call.name();
        let url = format!("{}{}", self.options.api_url, request.path);
        let method = match request.verb {
            Verb::Get => reqwest::Method::GET,
            Verb::Post => reqwest::Method::POST,
            Verb::Patch => reqwest::Method::PATCH,
            Verb::Delete => reqwest::Method::DELETE,
        };
        let mut builder = self
            .http
            .client()
            .request(method, url)
            .query(&request.query)
            .bearer_auth(token.secret().expose())
            .header("Client-Id", token.client_id());
        if !request.body.is_empty() {
            builder = builder.header("Content-Type", "application/json").body(request.body.clone());
        }
        self.status.send_modify(|status| status.requests += 1);
        let unreachable = |error: reqwest::Error| HelixError::Unreachable {
            message: format!("{} ({name})", self.http.explain(&error)).into(),
        };
        let response = builder.send().await.map_err(unreachable)?;
        let (headers, reset_in) = rate_headers(response.headers());
        let status = response.status().as_u16();
        if !response.status().is_success() {
            let body = read_start(response, MAX_REFUSAL).await.map_err(unreachable)?;
            return Ok(Answer { status, headers, reset_in, body });
        }
        let limit = if request.call == Call::UpdateShards { MAX_SHARD_ANSWER } else { MAX_ANSWER };
        let body = read_bounded(response, limit).await.map_err(|error| match error {
            BodyError::Broken(error) => unreachable(error),
            error @ BodyError::TooLarge { .. } => {
                HelixError::Garbled { message: format!("{name}: {error}").into() }
            }
        })?;
        Ok(Answer { status, headers, reset_in, body })
    }
}

/// Adds one to the answers of a route.
fn count(status: &mut ApiStatus, request: &Request, answer: &str) {
    let answers = status.answers.entry(request.route()).or_default();
    *answers.entry(answer.to_owned()).or_default() += 1;
}

fn rate_headers(headers: &HeaderMap) -> (Headers, Option<Duration>) {
    fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
        headers.get(name)?.to_str().ok()?.trim().parse().ok()
    }
    let reset: Option<u64> = number(headers, "Ratelimit-Reset");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reset_in = reset.map(|at| Duration::from_secs(at).saturating_sub(now));
    let limits = Headers {
        limit: number(headers, "Ratelimit-Limit"),
        remaining: number(headers, "Ratelimit-Remaining"),
    };
    (limits, reset_in)
}
