//! Which user a login stands for. ◆
//!
//! Logins change, ids do not: an id that was once found for a login stays its meaning. When the user
//! is renamed, or somebody else takes the login, that is a warning and nothing more: a subscription
//! must never move to a stranger by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::park::{Obstacle, RetryTimes};
use crate::helix::User;
use crate::model::time::Timestamp;
use crate::reconcile::memory::{LOGIN_PREFIX, login_name, login_value, parse_login};

/// Names and values to save.
pub(in crate::reconcile) type Changes = Vec<(String, Option<String>)>;

/// A login and the id that it stands for.
pub(in crate::reconcile) type LoginId = (Arc<str>, Box<str>);

/// Logins or ids in one call (Twitch: "Get Users").
pub(in crate::reconcile) const USERS_PER_CALL: usize = 100;

#[derive(Clone, Debug)]
struct Known {
    id: Box<str>,
    refresh_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Unknown {
    attempts: u32,
    retry_at: Option<Instant>,
}

/// The table of them.
#[derive(Clone, Debug)]
pub(in crate::reconcile) struct Logins {
    known: HashMap<Arc<str>, Known>,
    unknown: HashMap<Arc<str>, Unknown>,
    /// Logins whose user has another login now.
    renamed: BTreeMap<Arc<str>, Box<str>>,
    /// Logins whose user Twitch does not show at present.
    absent: HashSet<Arc<str>>,
    refresh: Duration,
    times: RetryTimes,
    /// Changes with the ids that are known.
    version: u64,
}

impl Logins {
    /// `refresh`: how long an id is believed before it is looked at again.
    pub(in crate::reconcile) fn new(refresh: Duration, times: RetryTimes) -> Self {
        Self {
            known: HashMap::new(),
            unknown: HashMap::new(),
            renamed: BTreeMap::new(),
            absent: HashSet::new(),
            refresh,
            times,
            version: 0,
        }
    }

    /// A number that changes whenever another id is known.
    pub(in crate::reconcile) fn version(&self) -> u64 {
        self.version
    }

    /// Takes what was remembered. `wall` is the same moment as `now`.
    pub(in crate::reconcile) fn remember(
        &mut self,
        pairs: &[(String, String)],
        now: Instant,
        wall: Timestamp,
    ) {
        self.version += 1;
        for (name, value) in pairs {
            let Some(login) = name.strip_prefix(LOGIN_PREFIX) else { continue };
            let Some((id, looked_up)) = parse_login(value) else { continue };
            // A time in the future is a clock that was wrong: look soon.
            let age = if looked_up > wall { self.refresh } else { wall.since(looked_up) };
            let refresh_at = now + self.refresh.saturating_sub(age);
            self.known.insert(login.into(), Known { id: id.into(), refresh_at });
        }
    }

    /// The id of a login.
    pub(in crate::reconcile) fn id_of(&self, login: &str) -> Option<&str> {
        self.known.get(login).map(|known| &*known.id)
    }

    /// The login of one id; reads the whole table.
    pub(in crate::reconcile) fn login_of(&self, id: &str) -> Option<&str> {
        self.known.iter().find(|(_, known)| &*known.id == id).map(|(login, _)| &**login)
    }

    /// The logins of all ids that are known.
    pub(in crate::reconcile) fn by_id(&self) -> HashMap<&str, &str> {
        self.known.iter().map(|(login, known)| (&*known.id, &**login)).collect()
    }

    /// Whether this login was looked up and not found, and when it is asked for again.
    pub(in crate::reconcile) fn not_found(&self, login: &str) -> Option<Option<Instant>> {
        self.unknown.get(login).map(|unknown| unknown.retry_at)
    }

    /// Wanted logins that must be looked up now, each once. Texts that cannot be a login are left out: Twitch would
    /// refuse the whole call.
    pub(in crate::reconcile) fn missing<'a>(
        &mut self,
        wanted: impl Iterator<Item = &'a Arc<str>>,
        now: Instant,
    ) -> Vec<Arc<str>> {
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for login in wanted {
            if self.known.contains_key(login) || !seen.insert(login) {
                continue;
            }
            let due = match self.unknown.get(login) {
                None => true,
                Some(unknown) => unknown.retry_at.is_some_and(|at| at <= now),
            };
            if !due {
                continue;
            }
            if is_login(login) {
                missing.push(login.clone());
            } else {
                self.unknown.insert(login.clone(), Unknown { attempts: 1, retry_at: None });
            }
        }
        missing.sort_unstable();
        missing
    }

    /// Takes the answer to [`Self::missing`]; returns what to save.
    pub(in crate::reconcile) fn answered(
        &mut self,
        asked: &[Arc<str>],
        users: &[User],
        now: Instant,
        wall: Timestamp,
    ) -> Changes {
        let found: HashMap<String, &User> =
            users.iter().map(|user| (user.login.to_ascii_lowercase(), user)).collect();
        let mut changes = Vec::new();
        self.version += 1;
        for login in asked {
            if let Some(user) = found.get(&**login).filter(|user| !user.id.is_empty()) {
                self.unknown.remove(login);
                self.known
                    .insert(login.clone(), Known { id: user.id.clone(), refresh_at: now + self.refresh });
                changes.push((login_name(login), Some(login_value(&user.id, wall))));
            } else {
                let attempts = self.unknown.get(login).map_or(0, |unknown| unknown.attempts) + 1;
                let retry_at = Some(now + self.times.pause(Obstacle::Login, attempts));
                self.unknown.insert(login.clone(), Unknown { attempts, retry_at });
            }
        }
        changes
    }

    /// From when on [`Self::stale`] has anything to return.
    pub(in crate::reconcile) fn stale_at(&self) -> Option<Instant> {
        self.known.values().map(|known| known.refresh_at).min()
    }

    /// Ids that should be looked at again, at most a call's worth, with their logins; logins that
    /// are not wanted any more are forgotten instead (second value: what to save).
    pub(in crate::reconcile) fn stale(
        &mut self,
        wanted: &HashSet<&str>,
        now: Instant,
    ) -> (Vec<LoginId>, Changes) {
        let due: Vec<LoginId> = self
            .known
            .iter()
            .filter(|(_, known)| known.refresh_at <= now)
            .take(USERS_PER_CALL)
            .map(|(login, known)| (login.clone(), known.id.clone()))
            .collect();
        let (ask, drop): (Vec<_>, Vec<_>) = due.into_iter().partition(|(login, _)| wanted.contains(&**login));
        let mut changes = Vec::new();
        for (login, _) in drop {
            self.version += 1;
            self.known.remove(&login);
            self.renamed.remove(&login);
            self.absent.remove(&login);
            changes.push((login_name(&login), None));
        }
        (ask, changes)
    }

    /// Takes the users that Twitch has for those ids; returns what to save, and the logins that
    /// turned out to be another's or nobody's since the last look.
    pub(in crate::reconcile) fn refreshed(
        &mut self,
        asked: &[LoginId],
        users: &[User],
        now: Instant,
        wall: Timestamp,
    ) -> (Changes, Vec<String>) {
        let found: HashMap<&str, &User> = users.iter().map(|user| (&*user.id, user)).collect();
        let mut changes = Vec::new();
        let mut news = Vec::new();
        for (login, id) in asked {
            let Some(known) = self.known.get_mut(login) else { continue };
            known.refresh_at = now + self.refresh;
            match found.get(&**id) {
                None => {
                    self.renamed.remove(login);
                    if self.absent.insert(login.clone()) {
                        news.push(format!(
                            "Twitch does not show user {login} ({id}) any more: banned or deleted"
                        ));
                    }
                }
                Some(user) if user.login.eq_ignore_ascii_case(login) => {
                    self.renamed.remove(login);
                    self.absent.remove(login);
                    changes.push((login_name(login), Some(login_value(id, wall))));
                }
                Some(user) => {
                    self.absent.remove(login);
                    // Not saved as confirmed, so that the warning is back soon after a restart.
                    if self.renamed.insert(login.clone(), user.login.clone()).as_ref() != Some(&user.login) {
                        news.push(renamed(login, id, &user.login));
                    }
                }
            }
        }
        (changes, news)
    }

    /// Tries again what was not found: a person has asked, or has edited the file.
    pub(in crate::reconcile) fn release(&mut self, now: Instant) {
        for unknown in self.unknown.values_mut() {
            *unknown = Unknown { attempts: 0, retry_at: unknown.retry_at.map(|_| now) };
        }
    }

    /// Forgets logins that were not found and are not wanted any more.
    pub(in crate::reconcile) fn retain<'a>(&mut self, wanted: impl FnOnce() -> HashSet<&'a str>) {
        if self.unknown.is_empty() && self.renamed.is_empty() && self.absent.is_empty() {
            return;
        }
        let wanted = wanted();
        self.unknown.retain(|login, _| wanted.contains(&**login));
        self.renamed.retain(|login, _| wanted.contains(&**login));
        self.absent.retain(|login| wanted.contains(&**login));
    }

    /// When a login that was not found is due.
    pub(in crate::reconcile) fn next_due(&self) -> Option<Instant> {
        self.unknown.values().filter_map(|unknown| unknown.retry_at).min()
    }

    /// Warnings for people; the first few logins by name.
    pub(in crate::reconcile) fn warnings(&self) -> Vec<String> {
        const NAMED: usize = 5;
        let mut warnings: Vec<String> = self
            .renamed
            .iter()
            .take(NAMED)
            .map(|(login, now)| renamed(login, self.id_of(login).unwrap_or_default(), now))
            .collect();
        if self.renamed.len() > NAMED {
            warnings.push(format!(
                "{} more logins of the file were changed by their users",
                self.renamed.len() - NAMED
            ));
        }
        warnings
    }
}

fn renamed(login: &str, id: &str, now: &str) -> String {
    format!(
        "the user of login {login} ({id}) is called {now} now; the subscriptions stay with that user: write {now} \
         into the file, or the id of another user into `condition`"
    )
}

/// Whether Twitch can have a login like this: 1 to 25 letters, digits and underscores.
fn is_login(text: &str) -> bool {
    (1..=25).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn logins() -> Logins {
        Logins::new(DAY, RetryTimes::default())
    }

    fn user(id: &str, login: &str) -> User {
        User { id: id.into(), login: login.into() }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    #[test]
    fn logins_are_asked_once_remembered_and_slowly_retried() {
        let mut logins = logins();
        let now = Instant::now();
        let wanted: Vec<Arc<str>> = ["b", "a", "a", "not a login"].map(Arc::from).into();
        let asked = logins.missing(wanted.iter(), now);
        assert_eq!(asked, [Arc::from("a"), Arc::from("b")]);
        let changes = logins.answered(&asked, &[user("1", "A"), user("9", "foreign")], now, at(5));
        assert_eq!(changes, [("login:a".to_owned(), Some("1 5".to_owned()))]);
        assert_eq!(logins.id_of("a"), Some("1"));
        assert_eq!(logins.id_of("foreign"), None);
        assert_eq!(logins.not_found("not a login"), Some(None));
        let due = logins.not_found("b").flatten().expect("retried");
        assert!(logins.missing(wanted.iter(), now).is_empty());
        assert_eq!(logins.missing(wanted.iter(), due), [Arc::from("b")]);
        logins.release(now);
        assert_eq!(logins.missing(wanted.iter(), now), [Arc::from("b")]);
    }

    #[test]
    fn an_id_stays_with_its_user_over_a_rename() {
        let mut logins = logins();
        let now = Instant::now();
        let pairs = [("login:a".to_owned(), "1 0".to_owned()), ("login:gone".to_owned(), "2 0".to_owned())];
        logins.remember(&pairs, now, at(86_400_000));
        let (asked, forgotten) = logins.stale(&HashSet::from(["a"]), now);
        assert_eq!(forgotten, [("login:gone".to_owned(), None)]);
        assert_eq!(asked.len(), 1);
        let (changes, news) = logins.refreshed(&asked, &[user("1", "b")], now, at(86_400_000));
        assert_eq!((changes.len(), news.len()), (0, 1));
        assert_eq!(logins.id_of("a"), Some("1"));
        assert!(logins.warnings()[0].contains("called b now"));
        assert_eq!(logins.stale(&HashSet::from(["a"]), now).0, []);
        let (asked, _) = logins.stale(&HashSet::from(["a"]), now + DAY);
        let (changes, news) = logins.refreshed(&asked, &[user("1", "A")], now, at(7));
        assert_eq!((changes.len(), news.len()), (1, 0));
        assert!(logins.warnings().is_empty());
    }

    #[test]
    fn a_time_in_the_future_is_not_believed() {
        let mut logins = logins();
        let now = Instant::now();
        logins.remember(&[("login:a".to_owned(), "1 900".to_owned())], now, at(5));
        assert_eq!(logins.stale(&HashSet::from(["a"]), now).0.len(), 1);
    }
}
