//! Visits in progress: browsers that were sent to Twitch and have not come back. ◆
//!
//! A visit is known by its `state`, which travels through Twitch, and belongs to the browser that has its cookie. It is
//! used up by the first return of that browser, and expires after a while. There is a bounded number of them: when a new
//! one needs room, the oldest goes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::bucket::Bucket;
use super::invitation::InvitedUser;
use crate::model::grants::Scopes;
use crate::model::hex;
use crate::model::secret::Secret;

/// Time that a user has at Twitch, with a login and a second factor.
pub(super) const LIFE: Duration = Duration::from_secs(15 * 60);
/// Visits in progress at once.
const MAX_OPEN: usize = 1_024;
/// Visits that may begin at once, and the time for one more.
const BURST: u32 = 60;
const EVERY: Duration = Duration::from_millis(500);
/// Random bytes of a state, and of a cookie.
const STATE_BYTES: usize = 16;
const COOKIE_BYTES: usize = 32;
/// Random bytes that a visit needs.
pub(super) const DICE: usize = STATE_BYTES + COOKIE_BYTES;

/// The reason why a browser is sent to Twitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn who the visitor is; nothing is asked for.
    Identify,
    /// To have this user grant these scopes.
    Grant { user: InvitedUser, scopes: Scopes },
}

/// A visit that has not come back from Twitch yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) purpose: Purpose,
    /// Globs of types of its invite.
    pub(super) types: Vec<String>,
}

/// A visit that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) state: String,
    pub(super) cookie: Secret,
    /// Whether the oldest visit had to make room.
    pub(super) has_displaced: bool,
}

/// Too many visits begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Reason why a return belongs to no visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The state is made up, was used before, or has expired.
    Unknown,
    /// The visit began in another browser.
    OtherBrowser,
}

#[derive(Debug)]
struct Open {
    number: u64,
    cookie: [u8; 32],
    until: Duration,
    visit: Visit,
}

/// All visits in progress. Times are those since the table was made.
#[derive(Debug)]
pub(super) struct Visits {
    open: HashMap<String, Open>,
    /// The states by age.
    by_age: BTreeMap<u64, String>,
    last: u64,
    pace: Bucket,
    unfinished: u64,
}

impl Visits {
    pub(super) fn new() -> Self {
        Self {
            open: HashMap::new(),
            by_age: BTreeMap::new(),
            last: 0,
            pace: Bucket::new(BURST, EVERY),
            unfinished: 0,
        }
    }

    /// Begins a visit. `dice` are random bytes.
    pub(super) fn begin(&mut self, visit: Visit, dice: &[u8; DICE], now: Duration) -> Result<Begun, TooMany> {
        self.expire(now);
        if !self.pace.take(now) {
            return Err(TooMany);
        }
        let has_displaced = self.open.len() >= MAX_OPEN;
        while self.open.len() >= MAX_OPEN
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.open.remove(&oldest);
            self.unfinished += 1;
        }
        let (state, cookie) = dice.split_at(STATE_BYTES);
        let (state, cookie) = (hex::encode(state), hex::encode(cookie));
        self.last += 1;
        let open = Open { number: self.last, cookie: digest(&cookie), until: now + LIFE, visit };
        if let Some(same) = self.open.insert(state.clone(), open) {
            self.by_age.remove(&same.number);
        }
        self.by_age.insert(self.last, state.clone());
        Ok(Begun { state, cookie: Secret::new(cookie), has_displaced })
    }

    /// Number of visits in progress.
    pub(super) fn open(&mut self, now: Duration) -> usize {
        self.expire(now);
        self.open.len()
    }

    /// Visits that have expired or made room for others.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// Ends the visit of a browser that has come back from Twitch.
    pub(super) fn end(&mut self, state: &str, cookie: Option<&str>, now: Duration) -> Result<Visit, Refused> {
        self.expire(now);
        let open = self.open.get(state).ok_or(Refused::Unknown)?;
        // Digests are compared, so that the time of a comparison tells nothing of the cookie.
        if cookie.is_none_or(|cookie| digest(cookie) != open.cookie) {
            return Err(Refused::OtherBrowser);
        }
        let open = self.open.remove(state).ok_or(Refused::Unknown)?;
        self.by_age.remove(&open.number);
        Ok(open.visit)
    }

    fn expire(&mut self, now: Duration) {
        while let Some((number, state)) = self.by_age.first_key_value()
            && self.open.get(state).is_none_or(|open| open.until <= now)
        {
            let number = *number;
            if let Some(state) = self.by_age.remove(&number) {
                self.open.remove(&state);
                self.unfinished += 1;
            }
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Whether a text could be a state.
pub(super) fn is_state(text: &str) -> bool {
    hex::decode::<STATE_BYTES>(text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visit(n: usize) -> Visit {
        Visit { purpose: Purpose::Identify, types: vec![n.to_string()] }
    }

    fn dice(n: usize) -> [u8; DICE] {
        let mut dice = [0; DICE];
        dice[..8].copy_from_slice(&(n as u64).to_le_bytes());
        dice[STATE_BYTES..STATE_BYTES + 8].copy_from_slice(&(n as u64).to_le_bytes());
        dice
    }

    #[test]
    fn a_visit_ends_once_in_its_own_browser_and_in_time() {
        let mut visits = Visits::new();
        let second = Duration::from_secs;
        let first = visits.begin(visit(1), &dice(1), second(0)).unwrap();
        assert!(
            is_state(&first.state)
                && !is_state("")
                && !is_state(&first.state.to_uppercase().replace('0', "G"))
        );
        let other = visits.begin(visit(2), &dice(2), second(1)).unwrap();
        for cookie in [None, Some(""), Some(other.cookie.expose())] {
            assert_eq!(visits.end(&first.state, cookie, second(2)), Err(Refused::OtherBrowser));
        }
        assert_eq!(visits.end("made up", Some(first.cookie.expose()), second(2)), Err(Refused::Unknown));
        assert_eq!(visits.end(&first.state, Some(first.cookie.expose()), second(2)), Ok(visit(1)));
        assert_eq!(visits.end(&first.state, Some(first.cookie.expose()), second(3)), Err(Refused::Unknown));
        let late = second(1) + LIFE;
        assert_eq!(visits.end(&other.state, Some(other.cookie.expose()), late), Err(Refused::Unknown));
        assert!(visits.open.is_empty() && visits.by_age.is_empty());
    }

    #[test]
    fn visits_begin_at_a_limited_rate() {
        let mut visits = Visits::new();
        let begun = (0..200).filter(|n| visits.begin(visit(*n), &dice(*n), Duration::ZERO).is_ok()).count();
        assert_eq!(begun, BURST as usize);
        assert!(visits.begin(visit(1), &dice(999), EVERY).is_ok());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        /// Ends the visit with this number, with the cookie of that one.
        End(usize, usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            4 => (0_usize..40, 0_usize..40).prop_map(|(state, cookie)| Step::End(state, cookie)),
            4 => (0_usize..40).prop_map(|both| Step::End(both, both)),
            1 => (0_u64..600).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn in_any_order_a_visit_ends_at_most_once_with_its_cookie_and_in_time(
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let mut visits = Visits::new();
            let mut now = Duration::ZERO;
            let mut begun: Vec<(Begun, Duration, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Begin => {
                        let n = begun.len();
                        if let Ok(new) = visits.begin(visit(n), &dice(n), now) {
                            begun.push((new, now, false));
                        }
                    }
                    Step::End(state, cookie) => {
                        if state.max(cookie) >= begun.len() { continue }
                        let secret = begun[cookie].0.cookie.expose().to_owned();
                        let (known, since, is_used) = &mut begun[state];
                        let ended = visits.end(&known.state, Some(&secret), now);
                        let is_open = !*is_used && now - *since < LIFE;
                        let expected = match (is_open, state == cookie) {
                            (false, _) => Err(Refused::Unknown),
                            (true, false) => Err(Refused::OtherBrowser),
                            (true, true) => Ok(visit(state)),
                        };
                        *is_used |= ended.is_ok();
                        prop_assert_eq!(ended, expected);
                    }
                }
                prop_assert!(visits.open.len() <= MAX_OPEN && visits.open.len() == visits.by_age.len());
            }
        }

        #[test]
        fn there_are_never_too_many(pause in 0_u64..2_000, count in 0_usize..3_000) {
            let mut visits = Visits::new();
            for n in 0..count {
                let _ = visits.begin(visit(n), &dice(n), Duration::from_millis(pause * n as u64));
                prop_assert!(visits.open.len() <= MAX_OPEN && visits.open.len() == visits.by_age.len());
            }
        }
    }
}
