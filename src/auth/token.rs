//! State machine of the app access token, told the time by its caller. ◆
//!
//! none → minting → valid → renewing (the old token still serves). At most one mint and one validation are in flight.
//! A token is not handed out if it is known to be dead or a request was just refused with it. Sources: Twitch,
//! "Getting OAuth Access Tokens" and "Validating requests".

use std::time::{Duration, Instant};

use crate::model::backoff::{Backoff, FULL, QUARTER, spread};
use crate::model::secret::Secret;
use crate::model::status::TokenState;

/// Pauses between failed tries to get a token; each is a random part of these.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Shortest pause after a failed try.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Pause before refused credentials are tried again: they may be corrected at Twitch.
const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// The part of its life after which a token is renewed.
const RENEW_AT: f64 = 0.8;
/// Spread of the moment of renewal around [`RENEW_AT`].
const RENEW_SPREAD: f64 = 0.05;
/// Pause before a validation that failed for a passing reason is tried again.
const VALIDATE_RETRY: Duration = Duration::from_secs(30);

/// Requests that the driver has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Request a new token.
    Mint,
    /// Check whether the token of this generation is alive.
    Validate { generation: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintOutcome {
    Minted {
        secret: Secret,
        /// Lifetime of the token. `None` means that Twitch did not say.
        expires_in: Option<Duration>,
    },
    /// The client id or the secret is wrong.
    Refused(String),
    /// A temporary failure: no network, an outage, 429.
    Temporary(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidateOutcome {
    Valid {
        /// The client id that it belongs to.
        client_id: String,
        /// Remaining lifetime. `None` means that Twitch did not say.
        expires_in: Option<Duration>,
    },
    Dead,
    Temporary(String),
}

/// A token and its generation: 1 for the first one, one more with each mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub generation: u64,
    pub secret: Secret,
}

/// State of a rejected token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a newer token.
    Renewed(Token),
    /// Twitch has confirmed the token since.
    StillValid,
    /// The credentials are refused.
    Refused(String),
    /// Validation has not finished.
    Open,
}

#[derive(Clone, Debug)]
struct Current {
    token: Token,
    expires_at: Option<Instant>,
    renew_at: Option<Instant>,
    validate_at: Instant,
    /// A request with this token was answered 401.
    suspect: bool,
}

/// The state machine. `jitter` is always a fresh random number in `[0, 1)`.
#[derive(Clone, Debug)]
pub struct Machine {
    client_id: String,
    validate_interval: Duration,
    current: Option<Current>,
    generation: u64,
    minting: bool,
    validating: Option<u64>,
    mint_at: Option<Instant>,
    failures: u32,
    refused: Option<String>,
    problem: Option<String>,
    /// The secret changed while a mint with the old one was in flight.
    stale_mint: bool,
}

impl Machine {
    /// Returns a machine that requests its first token at once.
    pub fn new(client_id: String, validate_interval: Duration, now: Instant) -> Self {
        Self {
            client_id,
            validate_interval,
            current: None,
            generation: 0,
            minting: false,
            validating: None,
            mint_at: Some(now),
            failures: 0,
            refused: None,
            problem: None,
            stale_mint: false,
        }
    }

    /// Returns the next command, if any.
    pub fn poll_command(&mut self, now: Instant) -> Option<Command> {
        if !self.minting && self.mint_at.is_some_and(|at| at <= now) {
            self.mint_at = None;
            self.minting = true;
            return Some(Command::Mint);
        }
        let current = self.current.as_ref()?;
        if self.validating.is_none() && current.validate_at <= now {
            let generation = current.token.generation;
            self.validating = Some(generation);
            return Some(Command::Validate { generation });
        }
        None
    }

    /// Returns when [`Self::handle_timeout`] is due. `None` only while a reply is awaited.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mint = self.mint_at.filter(|_| !self.minting);
        let current = self.current.as_ref();
        let validate = current.filter(|_| self.validating.is_none()).map(|c| c.validate_at);
        let renew = current.and_then(|c| c.renew_at);
        let expire = current.and_then(|c| c.expires_at);
        [mint, validate, renew, expire].into_iter().flatten().min()
    }

    /// Handles the passing of time: renewal and expiry.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(current) = &mut self.current else { return };
        if current.renew_at.is_some_and(|at| at <= now) {
            current.renew_at = None;
            self.want_mint(now);
        }
        if self.current.as_ref().is_some_and(|c| c.expires_at.is_some_and(|at| at <= now)) {
            self.current = None;
            self.want_mint(now);
        }
    }

    /// Handles the reply to [`Command::Mint`].
    pub fn handle_mint(&mut self, outcome: MintOutcome, now: Instant, jitter: f64) {
        self.minting = false;
        if std::mem::take(&mut self.stale_mint) && !matches!(outcome, MintOutcome::Minted { .. }) {
            // The outcome belongs to a secret that has been replaced.
            self.mint_at = Some(now);
            return;
        }
        match outcome {
            MintOutcome::Minted { secret, expires_in } => {
                self.generation += 1;
                self.refused = None;
                self.problem = None;
                self.current = Some(Current {
                    token: Token { generation: self.generation, secret },
                    expires_at: expires_in.map(|life| now + life),
                    renew_at: expires_in.map(|life| now + renewal(life, jitter)),
                    validate_at: now,
                    suspect: false,
                });
            }
            MintOutcome::Refused(message) => {
                self.problem = Some(message.clone());
                self.refused = Some(message);
                self.mint_at = Some(now + spread(REFUSED_RETRY, &QUARTER, jitter));
            }
            MintOutcome::Temporary(message) => {
                self.problem = Some(message);
                self.mint_later(now, jitter);
            }
        }
    }

    /// Handles the reply to [`Command::Validate`].
    pub fn handle_validate(&mut self, generation: u64, outcome: ValidateOutcome, now: Instant, jitter: f64) {
        self.validating = None;
        let Some(current) = self.current.as_mut().filter(|c| c.token.generation == generation) else {
            return;
        };
        match outcome {
            ValidateOutcome::Valid { client_id, expires_in } if client_id == self.client_id => {
                current.suspect = false;
                current.validate_at = now + self.validate_interval;
                if let Some(life) = expires_in {
                    current.expires_at = Some(now + life);
                }
                if self.mint_at.is_none() && !self.minting {
                    self.failures = 0;
                    self.problem = None;
                }
            }
            ValidateOutcome::Valid { client_id, .. } => {
                let message = format!(
                    "the token belongs to the client id {client_id}, not to twitch.client_id {}: the secret is another \
                     application's",
                    self.client_id
                );
                self.current = None;
                self.problem = Some(message.clone());
                self.refused = Some(message);
                self.mint_at = Some(now + spread(REFUSED_RETRY, &QUARTER, jitter));
            }
            ValidateOutcome::Dead => self.replace_dead(now, jitter),
            // A request was refused with this token and its validation fails: replacing it costs less.
            ValidateOutcome::Temporary(_) if current.suspect => self.replace_dead(now, jitter),
            ValidateOutcome::Temporary(message) => {
                current.validate_at = now + spread(VALIDATE_RETRY, &(1.0..2.0), jitter);
                self.problem = Some(format!("the token could not be validated: {message}"));
            }
        }
    }

    /// Handles a 401 for the token of this generation.
    pub fn handle_rejection(&mut self, generation: u64, now: Instant) {
        if let Some(current) = &mut self.current
            && current.token.generation == generation
            && !current.suspect
        {
            current.suspect = true;
            current.validate_at = now;
        }
    }

    /// Returns the state of the rejected token of this generation.
    pub fn verdict(&self, generation: u64) -> Verdict {
        match (&self.current, &self.refused) {
            (Some(current), _) if current.suspect => Verdict::Open,
            (Some(current), _) if current.token.generation > generation => {
                Verdict::Renewed(current.token.clone())
            }
            (Some(_), _) => Verdict::StillValid,
            (None, Some(message)) => Verdict::Refused(message.clone()),
            (None, None) => Verdict::Open,
        }
    }

    /// Handles a changed client secret: mints with it at once; the old token serves until then.
    pub fn handle_new_secret(&mut self, now: Instant) {
        self.refused = None;
        self.failures = 0;
        if self.minting {
            self.stale_mint = true;
        } else {
            self.mint_at = Some(now);
        }
    }

    /// Handles a changed interval of validation.
    pub fn handle_new_interval(&mut self, interval: Duration, now: Instant) {
        self.validate_interval = interval;
        if let Some(current) = &mut self.current {
            current.validate_at = current.validate_at.min(now + interval);
        }
    }

    /// Handles a wall clock that ran ahead of the monotonic one (suspend, or a correction): the token's age is
    /// unknown.
    pub fn handle_clock_jump(&mut self, now: Instant) {
        if let Some(current) = &mut self.current {
            current.validate_at = now;
        }
        if self.mint_at.is_some() {
            self.mint_at = Some(now);
        }
    }

    /// Returns the token that requests may use now.
    pub fn serving(&self) -> Option<&Token> {
        self.current.as_ref().filter(|c| !c.suspect).map(|c| &c.token)
    }

    /// Returns the token of this generation if it is still the current one, suspect or not.
    pub fn token(&self, generation: u64) -> Option<&Token> {
        self.current.as_ref().map(|c| &c.token).filter(|token| token.generation == generation)
    }

    /// Handles a reply that will never come: the request in flight has failed.
    pub fn handle_lost_reply(&mut self, now: Instant, jitter: f64) {
        if self.minting {
            self.handle_mint(MintOutcome::Temporary("the request failed".to_owned()), now, jitter);
        }
        if let Some(generation) = self.validating {
            self.handle_validate(
                generation,
                ValidateOutcome::Temporary("the request failed".to_owned()),
                now,
                jitter,
            );
        }
    }

    /// Returns Twitch's message if the credentials are refused and no token is available.
    pub fn refusal(&self) -> Option<&str> {
        self.refused.as_deref().filter(|_| self.current.is_none())
    }

    /// Returns the expiry of the token. `None` without a token, or if Twitch did not state it.
    pub fn expires_at(&self) -> Option<Instant> {
        self.current.as_ref().and_then(|c| c.expires_at)
    }

    pub fn state(&self) -> TokenState {
        let renewing = self.minting || self.mint_at.is_some();
        match (&self.current, &self.refused) {
            (Some(_), _) if renewing => TokenState::Renewing,
            (Some(_), _) => TokenState::Valid,
            (None, Some(_)) => TokenState::Refused,
            (None, None) if self.failures > 0 && self.problem.is_some() => TokenState::Unavailable,
            (None, None) => TokenState::Minting,
        }
    }

    /// Returns the current problem, for the status.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn want_mint(&mut self, now: Instant) {
        if !self.minting {
            self.mint_at = Some(self.mint_at.map_or(now, |at| at.min(now)));
        }
    }

    /// Replaces a dead token: the first time at once, then with growing pauses while tokens keep dying early.
    fn replace_dead(&mut self, now: Instant, jitter: f64) {
        self.current = None;
        if self.minting {
            return;
        }
        if self.failures == 0 {
            self.failures = 1;
            self.problem = None;
            self.mint_at = Some(now);
        } else {
            self.problem = Some("Twitch refuses a token that it has just given".to_owned());
            self.mint_later(now, jitter);
        }
    }

    fn mint_later(&mut self, now: Instant, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let pause = spread(BACKOFF.pause(self.failures), &FULL, jitter);
        self.mint_at = Some(now + pause.max(BACKOFF_MIN));
    }
}

fn renewal(life: Duration, jitter: f64) -> Duration {
    life.mul_f64(RENEW_AT + RENEW_SPREAD * (2.0 * jitter - 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn minted(text: &str) -> MintOutcome {
        MintOutcome::Minted { secret: Secret::new(text), expires_in: Some(1_000 * HOUR) }
    }

    fn valid() -> ValidateOutcome {
        ValidateOutcome::Valid { client_id: "us".to_owned(), expires_in: Some(1_000 * HOUR) }
    }

    /// Returns a machine with a validated token.
    fn settled(now: Instant) -> Machine {
        let mut machine = Machine::new("us".to_owned(), HOUR, now);
        assert_eq!(machine.poll_command(now), Some(Command::Mint));
        machine.handle_mint(minted("t1"), now, 0.5);
        assert_eq!(machine.poll_command(now), Some(Command::Validate { generation: 1 }));
        machine.handle_validate(1, valid(), now, 0.5);
        assert_eq!(machine.poll_command(now), None);
        assert_eq!(machine.state(), TokenState::Valid);
        machine
    }

    #[test]
    fn a_dead_token_is_being_replaced_and_only_a_second_one_in_a_row_is_a_failure() {
        let now = Instant::now();
        let mut machine = settled(now);
        machine.handle_rejection(1, now);
        assert_eq!(machine.poll_command(now), Some(Command::Validate { generation: 1 }));
        machine.handle_validate(1, ValidateOutcome::Dead, now, 0.5);
        assert_eq!((machine.state(), machine.problem()), (TokenState::Minting, None));
        assert_eq!(machine.poll_command(now), Some(Command::Mint));
        machine.handle_mint(minted("t2"), now, 0.5);
        assert_eq!(machine.poll_command(now), Some(Command::Validate { generation: 2 }));
        machine.handle_validate(2, ValidateOutcome::Dead, now, 0.5);
        assert_eq!(machine.state(), TokenState::Unavailable);
        assert_eq!(machine.problem(), Some("Twitch refuses a token that it has just given"));
    }

    #[test]
    fn a_token_is_validated_every_interval_and_renewed_at_four_fifths_of_its_life() {
        let now = Instant::now();
        let mut machine = settled(now);
        assert_eq!(machine.poll_timeout(), Some(now + HOUR));
        assert_eq!(machine.poll_command(now + HOUR), Some(Command::Validate { generation: 1 }));
        machine.handle_validate(1, valid(), now + HOUR, 0.5);
        let renew = now + 800 * HOUR;
        machine.handle_timeout(renew - Duration::from_secs(1));
        assert_eq!(machine.state(), TokenState::Valid);
        machine.handle_timeout(renew);
        assert_eq!(machine.poll_command(renew), Some(Command::Mint));
        assert_eq!(machine.state(), TokenState::Renewing);
        assert_eq!(machine.serving().expect("the old one serves").generation, 1);
        machine.handle_mint(minted("t2"), renew, 0.5);
        assert_eq!(machine.serving().expect("the new one").generation, 2);
    }

    #[test]
    fn a_rejection_validates_first_and_mints_once() {
        let now = Instant::now();
        let mut machine = settled(now);
        machine.handle_rejection(1, now);
        machine.handle_rejection(1, now);
        assert_eq!(machine.serving(), None, "a suspect is not handed out");
        assert_eq!(machine.verdict(1), Verdict::Open);
        assert_eq!(machine.poll_command(now), Some(Command::Validate { generation: 1 }));
        assert_eq!(machine.poll_command(now), None);
        machine.handle_validate(1, ValidateOutcome::Dead, now, 0.5);
        assert_eq!(machine.poll_command(now), Some(Command::Mint));
        machine.handle_mint(minted("t2"), now, 0.5);
        assert!(matches!(machine.verdict(1), Verdict::Renewed(token) if token.generation == 2));
        machine.handle_rejection(1, now);
        assert_eq!(machine.serving().expect("an older rejection does nothing").generation, 2);
    }

    #[test]
    fn a_rejected_token_that_twitch_confirms_stays() {
        let now = Instant::now();
        let mut machine = settled(now);
        machine.handle_rejection(1, now);
        assert!(machine.poll_command(now).is_some());
        machine.handle_validate(1, valid(), now, 0.5);
        assert_eq!(machine.verdict(1), Verdict::StillValid);
        assert_eq!(machine.poll_command(now), None);
    }

    #[test]
    fn refused_credentials_are_retried_slowly_and_at_once_with_a_new_secret() {
        let now = Instant::now();
        let mut machine = Machine::new("us".to_owned(), HOUR, now);
        machine.poll_command(now);
        machine.handle_mint(MintOutcome::Refused("invalid client secret".to_owned()), now, 0.0);
        assert_eq!(machine.state(), TokenState::Refused);
        assert_eq!(machine.refusal(), Some("invalid client secret"));
        assert!(machine.poll_timeout().expect("tried again") >= now + Duration::from_secs(200));
        machine.handle_new_secret(now);
        assert_eq!(machine.poll_command(now), Some(Command::Mint));
    }

    #[test]
    fn the_token_of_another_application_is_a_refusal() {
        let now = Instant::now();
        let mut machine = settled(now);
        machine.poll_command(now + HOUR);
        let other = ValidateOutcome::Valid { client_id: "them".to_owned(), expires_in: None };
        machine.handle_validate(1, other, now + HOUR, 0.5);
        assert_eq!(machine.state(), TokenState::Refused);
        assert!(machine.refusal().expect("a reason").contains("them"));
    }

    #[test]
    fn a_token_without_known_expiry_is_kept() {
        let now = Instant::now();
        let mut machine = Machine::new("us".to_owned(), HOUR, now);
        machine.poll_command(now);
        machine.handle_mint(MintOutcome::Minted { secret: Secret::new("t"), expires_in: None }, now, 0.5);
        machine.poll_command(now);
        machine.handle_validate(
            1,
            ValidateOutcome::Valid { client_id: "us".into(), expires_in: None },
            now,
            0.5,
        );
        machine.handle_timeout(now + 100_000 * HOUR);
        assert!(machine.serving().is_some());
    }

    #[test]
    fn a_clock_jump_validates_at_once() {
        let now = Instant::now();
        let mut machine = settled(now);
        machine.handle_clock_jump(now);
        assert_eq!(machine.poll_command(now), Some(Command::Validate { generation: 1 }));
    }

    #[test]
    fn a_secret_that_changes_during_a_mint_is_tried_next() {
        let now = Instant::now();
        let mut machine = Machine::new("us".to_owned(), HOUR, now);
        machine.poll_command(now);
        machine.handle_new_secret(now);
        machine.handle_mint(MintOutcome::Refused("old".to_owned()), now, 0.5);
        assert_eq!(machine.refusal(), None);
        assert_eq!(machine.poll_command(now), Some(Command::Mint));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reply(u8),
        Reject(u64),
        Pass(u64),
        NewSecret,
        Jump,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8).prop_map(Step::Reply),
            3 => (0..6_u64).prop_map(Step::Reject),
            2 => (0..4_000_000_u64).prop_map(Step::Pass),
            1 => Just(Step::NewSecret),
            1 => Just(Step::Jump),
        ]
    }

    proptest! {
        #[test]
        fn any_order_of_inputs_keeps_the_invariants(steps in prop::collection::vec((step(), 0.0..1.0_f64), 1..120)) {
            let mut now = Instant::now();
            let mut machine = Machine::new("us".to_owned(), HOUR, now);
            let mut flying: Vec<Command> = Vec::new();
            let mut dead = std::collections::HashSet::new();
            let mut mints_since_cause = 0;
            let mut causes = 1;
            for (step, jitter) in steps {
                while let Some(command) = machine.poll_command(now) {
                    let same_kind = flying.iter().any(|f| std::mem::discriminant(f) == std::mem::discriminant(&command));
                    prop_assert!(!same_kind, "two of a kind in flight");
                    mints_since_cause += u32::from(command == Command::Mint);
                    flying.push(command);
                }
                match step {
                    Step::Reply(kind) if !flying.is_empty() => match flying.remove(usize::from(kind) % flying.len()) {
                        Command::Mint => {
                            let outcome = match kind % 3 {
                                0 => MintOutcome::Temporary("outage".to_owned()),
                                1 => MintOutcome::Refused("no".to_owned()),
                                _ => minted("t"),
                            };
                            if !matches!(outcome, MintOutcome::Minted { .. }) { causes += 1; }
                            machine.handle_mint(outcome, now, jitter);
                        }
                        Command::Validate { generation } => {
                            let outcome = match kind % 3 {
                                0 => ValidateOutcome::Temporary("outage".to_owned()),
                                1 => { dead.insert(generation); causes += 1; ValidateOutcome::Dead }
                                _ => valid(),
                            };
                            if kind % 3 == 0 { causes += 1; }
                            machine.handle_validate(generation, outcome, now, jitter);
                        }
                    },
                    Step::Reply(_) => {}
                    Step::Reject(generation) => machine.handle_rejection(generation, now),
                    Step::Pass(seconds) => {
                        now += Duration::from_secs(seconds);
                        machine.handle_timeout(now);
                        causes += 2;
                    }
                    Step::NewSecret => { machine.handle_new_secret(now); causes += 1; }
                    Step::Jump => machine.handle_clock_jump(now),
                }
                if let Some(token) = machine.serving() {
                    prop_assert!(!dead.contains(&token.generation), "a dead token is handed out");
                }
                prop_assert!(
                    machine.poll_timeout().is_some() || !flying.is_empty(),
                    "nothing would ever happen again"
                );
                prop_assert!(mints_since_cause <= causes, "{mints_since_cause} mints for {causes} causes");
            }
        }
    }
}
