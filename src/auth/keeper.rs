//! The token keeper: a task that executes the state machine's commands and publishes the token.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::http::read_bounded;
use super::token::{Command, Machine, MintOutcome, Token, ValidateOutcome, Verdict};
use super::tokens::{
    AccessToken, Credentials, Rejected, Rejection, Serving, TokenError, TokenOptions, Tokens,
};
use super::{Outward, oauth};
use crate::model::pulse::Pulse;
use crate::model::status::{TokenState, TokenStatus};
use crate::model::time::Timestamp;

/// Time limit of one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// The largest response that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Capacity of the queue of rejections.
const REJECTIONS: usize = 64;
/// Interval of comparing the clocks.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

enum Finished {
    Mint(MintOutcome),
    Validate(u64, ValidateOutcome),
}

#[derive(Debug)]
pub struct Keeper {
    http: Outward,
    options: watch::Receiver<TokenOptions>,
    credentials: watch::Receiver<Credentials>,
    rejections: mpsc::Receiver<Rejection>,
    serving: watch::Sender<Serving>,
    status: watch::Sender<TokenStatus>,
    pulse: Pulse,
}

impl Keeper {
    /// Returns a keeper and the handle for its users. `options` and `credentials` may change.
    pub fn new(
        http: Outward,
        options: watch::Receiver<TokenOptions>,
        credentials: watch::Receiver<Credentials>,
    ) -> (Self, Tokens) {
        let (serving, serving_rx) = watch::channel(Serving::Nothing);
        let (status, status_rx) = watch::channel(TokenStatus::default());
        let (rejections_tx, rejections) = mpsc::channel(REJECTIONS);
        let pulse = Pulse::default();
        let tokens = Tokens {
            serving: serving_rx,
            status: status_rx,
            rejections: rejections_tx,
            pulse: pulse.clone(),
        };
        (Self { http, options, credentials, rejections, serving, status, pulse }, tokens)
    }

    /// Runs until cancelled; failures are retried.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut known = self.credentials.borrow_and_update().clone();
        let interval = self.options.borrow_and_update().validate_interval;
        let mut machine = Machine::new(known.client_id.clone(), interval, now());
        let mut requests: JoinSet<Finished> = JoinSet::new();
        let mut waiting: Vec<Rejection> = Vec::new();
        let mut clocks = Clocks::new();
        let (mut reload, mut reconfigure) = (true, true);
        loop {
            self.pulse.beat();
            machine.handle_timeout(now());
            while let Some(command) = machine.poll_command(now()) {
                self.send(command, &machine, &known, &mut requests);
            }
            self.publish(&machine, &mut waiting);
            let wake = machine.poll_timeout().map_or_else(|| Instant::now() + CLOCK_CHECK, Instant::from_std);
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(finished) = requests.join_next() => self.take(finished, &mut machine),
                Some(rejection) = self.rejections.recv() => {
                    machine.handle_rejection(rejection.generation, now());
                    waiting.push(rejection);
                }
                changed = self.credentials.changed(), if reload => {
                    reload = changed.is_ok();
                    let new = self.credentials.borrow_and_update().clone();
                    if new != known {
                        info!("the client secret was changed; asking for a token with it");
                        known = new;
                        machine.handle_new_secret(now());
                    }
                }
                changed = self.options.changed(), if reconfigure => {
                    reconfigure = changed.is_ok();
                    let interval = self.options.borrow_and_update().validate_interval;
                    machine.handle_new_interval(interval, now());
                }
                () = tokio::time::sleep_until(wake.min(Instant::now() + CLOCK_CHECK)) => {}
            }
            if clocks.jumped() {
                info!("the wall clock jumped; validating the token");
                machine.handle_clock_jump(now());
            }
        }
    }

    fn send(
        &self,
        command: Command,
        machine: &Machine,
        credentials: &Credentials,
        requests: &mut JoinSet<Finished>,
    ) {
        let http = self.http.clone();
        let base = self.options.borrow().auth_url.clone();
        match command {
            Command::Mint => {
                let credentials = credentials.clone();
                requests.spawn(async move { Finished::Mint(mint(&http, &base, &credentials).await) });
            }
            Command::Validate { generation } => {
                let Some(token) = machine.token(generation).cloned() else { return };
                requests.spawn(async move {
                    Finished::Validate(generation, validate(&http, &base, &token).await)
                });
            }
        }
    }

    fn take(&self, finished: Result<Finished, tokio::task::JoinError>, machine: &mut Machine) {
        let jitter = fastrand::f64();
        match finished {
            Ok(Finished::Mint(outcome)) => {
                match &outcome {
                    MintOutcome::Minted { expires_in, .. } => {
                        let seconds = expires_in.map(|left| left.as_secs());
                        info!(expires_in_seconds = seconds, "got an app access token");
                        self.status.send_modify(|s| s.mints += 1);
                    }
                    MintOutcome::Refused(message) => {
                        self.status.send_modify(|s| s.mints_refused += 1);
                        warn!(error = message, "Twitch refuses the client id or the client secret");
                    }
                    MintOutcome::Temporary(message) => {
                        self.status.send_modify(|s| s.mints_failed += 1);
                        warn!(error = message, "no token for now; trying again");
                    }
                }
                machine.handle_mint(outcome, now(), jitter);
            }
            Ok(Finished::Validate(generation, outcome)) => {
                match &outcome {
                    ValidateOutcome::Valid { .. } => {
                        debug!(generation, "the token is valid");
                        self.status.send_modify(|s| {
                            s.validations += 1;
                            s.validated_at = Some(Timestamp(SystemTime::now()));
                        });
                    }
                    ValidateOutcome::Dead => {
                        self.status.send_modify(|s| s.validations_dead += 1);
                        info!(generation, "the token is not valid any more; requesting another");
                    }
                    ValidateOutcome::Temporary(message) => {
                        self.status.send_modify(|s| s.validations_failed += 1);
                        debug!(error = message, "the token could not be validated");
                    }
                }
                machine.handle_validate(generation, outcome, now(), jitter);
            }
            // A panic counts as a temporary failure of the request in flight.
            Err(error) => {
                warn!(%error, "a request for the token failed");
                machine.handle_lost_reply(now(), jitter);
            }
        }
    }

    fn publish(&self, machine: &Machine, waiting: &mut Vec<Rejection>) {
        let client_id = self.credentials.borrow().client_id.clone();
        let hand_out = |token: &Token| AccessToken {
            generation: token.generation,
            secret: token.secret.clone(),
            client_id: client_id.as_str().into(),
        };
        self.serving.send_if_modified(|serving| {
            let new = match (machine.serving(), machine.refusal()) {
                (Some(token), _) => Serving::Token(hand_out(token)),
                (None, Some(message)) => Serving::Refused(message.into()),
                (None, None) => Serving::Nothing,
            };
            let changed = match (&*serving, &new) {
                (Serving::Token(old), Serving::Token(new)) => old.generation != new.generation,
                (Serving::Nothing, Serving::Nothing) => false,
                (Serving::Refused(old), Serving::Refused(new)) => old != new,
                _ => true,
            };
            *serving = new;
            changed
        });
        let mut open = Vec::new();
        for rejection in waiting.drain(..) {
            let answer = match machine.verdict(rejection.generation) {
                Verdict::Renewed(token) => Ok(Rejected::Renewed(hand_out(&token))),
                Verdict::StillValid => Ok(Rejected::StillValid),
                Verdict::Refused(message) => Err(TokenError::Refused { message: message.into() }),
                Verdict::Open => {
                    open.push(rejection);
                    continue;
                }
            };
            let _ = rejection.reply.send(answer);
        }
        *waiting = open;

        let state = machine.state();
        let expires_at = machine.expires_at().map(|at| {
            let left = at.saturating_duration_since(now());
            Timestamp(SystemTime::now() + left)
        });
        self.status.send_if_modified(|status| {
            let problem = machine.problem().map(str::to_owned);
            // The wall clock moves between two calls; only a new expiry is a change.
            let moved = match (status.expires_at, expires_at) {
                (Some(old), Some(new)) => old.since(new).max(new.since(old)) > Duration::from_secs(5),
                (old, new) => old != new,
            };
            let changed = status.state != state || status.problem != problem || moved;
            if changed {
                if status.state != TokenState::Valid && state == TokenState::Valid {
                    debug!("the token serves");
                }
                status.state = state;
                status.problem = problem;
                status.expires_at = expires_at;
            }
            changed
        });
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn mint(http: &Outward, base: &str, credentials: &Credentials) -> MintOutcome {
    let secret = &credentials.client_secret;
    let request = http
        .client()
        .post(format!("{base}/token"))
        .timeout(REQUEST_LIMIT)
        .form(&oauth::mint_form(&credentials.client_id, secret))
        .send()
        .await;
    let response = match request {
        Ok(response) => response,
        Err(error) => {
            return MintOutcome::Temporary(http.explain(&error));
        }
    };
    let status = response.status().as_u16();
    match read_bounded(response, MAX_ANSWER).await {
        Ok(body) => match oauth::parse_mint(status, &body, secret) {
            MintOutcome::Temporary(why) => MintOutcome::Temporary(format!("{why} (POST {base}/token)")),
            outcome => outcome,
        },
        Err(error) => MintOutcome::Temporary(format!("the token endpoint: {error}")),
    }
}

async fn validate(http: &Outward, base: &str, token: &Token) -> ValidateOutcome {
    let header = reqwest::header::HeaderValue::from_str(&format!("OAuth {}", token.secret.expose()));
    let Ok(mut header) = header else { return ValidateOutcome::Dead };
    header.set_sensitive(true);
    let request = http
        .client()
        .get(format!("{base}/validate"))
        .timeout(REQUEST_LIMIT)
        .header("authorization", header)
        .send()
        .await;
    let response = match request {
        Ok(response) => response,
        Err(error) => return ValidateOutcome::Temporary(http.explain(&error)),
    };
    let status = response.status().as_u16();
    match read_bounded(response, MAX_ANSWER).await {
        Ok(body) => oauth::parse_validate(status, &body),
        Err(error) => ValidateOutcome::Temporary(error.to_string()),
    }
}

/// Detects that the wall clock has run ahead of the monotonic one, which stops during suspend.
struct Clocks {
    wall: SystemTime,
    monotonic: Instant,
}

impl Clocks {
    fn new() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }

    fn jumped(&mut self) -> bool {
        let now = Self::new();
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        let monotonic = now.monotonic - self.monotonic;
        *self = now;
        wall > monotonic + CLOCK_CHECK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Proxies, tls_config};
    use crate::model::secret::Secret;

    #[tokio::test(start_paused = true)]
    async fn the_keeper_beats_while_twitch_does_not_respond() {
        let http = Outward::new("test", tls_config().unwrap(), Proxies::default()).unwrap();
        // A port without a listener.
        let auth_url = "http://127.0.0.1:1".to_owned();
        let options = TokenOptions { auth_url, validate_interval: Duration::from_secs(3600) };
        let (_options, options) = watch::channel(options);
        let credentials = Credentials { client_id: "id".to_owned(), client_secret: Secret::new("secret") };
        let (_credentials, credentials) = watch::channel(credentials);
        let (keeper, tokens) = Keeper::new(http, options, credentials);
        assert!(tokens.is_awaited());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(keeper.run(cancel.clone()));
        for _ in 0..20 {
            let before = tokens.pulse().count();
            tokio::time::sleep(2 * CLOCK_CHECK).await;
            assert!(tokens.pulse().count() > before);
        }
        assert!(tokens.is_awaited());
        cancel.cancel();
        task.await.unwrap();
    }
}
