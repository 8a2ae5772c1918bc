//! The last complete run, as it is remembered over a restart. ◆
//!
//! A daemon whose file and places are the same since is ready without reading Twitch's list first; the list follows.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::place::{Place, Places};
use super::plan::sum_of_keys;
use super::wanted::Wanted;
use crate::model::subscription::SubscriptionKey;
use crate::model::time::Timestamp;
use crate::reconcile::Policy;

/// Time for which a complete run is remembered.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Absent subscriptions that are remembered; with more of them it is not known which they were.
const ABSENT: usize = 1_000;

/// The last run after which Twitch matched the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Compared {
    /// Time of the comparison.
    pub(in crate::reconcile) at: Timestamp,
    /// Fingerprint of what was wanted, and where.
    pub(in crate::reconcile) of: u64,
    /// Rows of Twitch's list.
    pub(in crate::reconcile) rows: u64,
    /// When the last whole list was asked for; `None` if an older release wrote it.
    pub(in crate::reconcile) listed: Option<Timestamp>,
    /// Subscriptions that did not deliver, such as parked ones. `None` if that is not known.
    pub(in crate::reconcile) absent: Option<Absent>,
}

/// Fingerprints of subscriptions that did not deliver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::reconcile) struct Absent(BTreeSet<u64>);

impl Absent {
    /// Returns `None` for too many of them.
    pub(in crate::reconcile) fn new<'a>(keys: impl Iterator<Item = &'a SubscriptionKey>) -> Option<Self> {
        let all: BTreeSet<u64> = keys.take(ABSENT + 1).map(fingerprint_of_key).collect();
        (all.len() <= ABSENT).then_some(Self(all))
    }

    pub(in crate::reconcile) fn has(&self, key: &SubscriptionKey) -> bool {
        self.0.contains(&fingerprint_of_key(key))
    }

    /// From numbers with a comma after each.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(',').filter(|number| !number.is_empty());
        Some(Self(numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?))
    }
}

fn fingerprint_of_key(key: &SubscriptionKey) -> u64 {
    sum_of_keys(std::iter::once(key))
}

impl Compared {
    /// From the text that [`fmt::Display`] makes.
    pub(in crate::reconcile) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let mut next = || parts.next()?.parse::<u64>().ok();
        let time = |millis: u64| (millis < 1 << 48).then(|| Timestamp::from_unix_millis(millis));
        let (at, of, rows) = (next().and_then(time)?, next()?, next()?);
        let listed = next().and_then(time);
        Some(Self { at, of, rows, listed, absent: parts.next().and_then(Absent::parse) })
    }

    /// Whether it still counts. A time in the future is a clock that was wrong.
    pub(in crate::reconcile) fn holds(&self, of: u64, now: Timestamp) -> bool {
        self.of == of && self.at <= now && now.since(self.at) < LIFE
    }

    /// The same for what another host has written, whose clock may be ahead of ours.
    pub(in crate::reconcile) fn holds_of_host(&self, of: u64, now: Timestamp) -> bool {
        self.of == of && now.since(self.at).max(self.at.since(now)) < LIFE
    }

    /// Time until the next whole list is due, if one is read in each interval; `None` if it is due.
    pub(in crate::reconcile) fn next_list(&self, interval: Duration, now: Timestamp) -> Option<Duration> {
        let left = interval.saturating_sub(now.since(self.listed?));
        (!left.is_zero()).then_some(left)
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at.unix_millis(), self.of, self.rows)?;
        let Some(listed) = self.listed else { return Ok(()) };
        write!(f, " {}", listed.unix_millis())?;
        let Some(absent) = &self.absent else { return Ok(()) };
        // A comma even if there are none.
        f.write_str(" ,")?;
        absent.0.iter().try_for_each(|key| write!(f, "{key},"))
    }
}

/// A fingerprint of these subscriptions in these places, the same in every process.
pub(in crate::reconcile) fn fingerprint(wanted: &Wanted, places: &Places, policy: Policy) -> u64 {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text.as_bytes());
        hash.update([0]);
    };
    match &places.current {
        Place::Conduit(id) => add(id),
        Place::Webhook { callback, .. } => add(callback),
    }
    add(places.conduit.as_deref().unwrap_or_default());
    places.urls.iter().for_each(|url| add(url));
    add(if policy == Policy::Keep { "keep" } else { "sync" });
    let all = wanted.keys.iter().chain(wanted.unresolved.iter().map(|(key, _)| key));
    add(&sum_of_keys(all).to_string());
    let digest = hash.finalize();
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subscription::Condition;

    #[test]
    fn it_is_remembered_with_what_did_not_deliver() {
        let key = |id: &str| {
            SubscriptionKey::new("stream.online", "1", Condition::from_pairs([("broadcaster_user_id", id)]))
        };
        let at = Timestamp::from_unix_millis(1_700_000_000_123);
        let one = Absent::new([&key("1")].into_iter()).expect("not many");
        assert!(one.has(&key("1")) && !one.has(&key("2")));
        for absent in [None, Absent::new([].into_iter()), Some(one)] {
            let compared = Compared { at, of: u64::MAX, rows: 7, listed: Some(at), absent };
            assert_eq!(Compared::parse(&compared.to_string()), Some(compared));
        }
        let many: Vec<_> = (0..=ABSENT).map(|n| key(&n.to_string())).collect();
        assert_eq!(Absent::new(many.iter()), None);
        assert_eq!(Compared::parse("1 2 3 4 5,x").and_then(|compared| compared.absent), None);
    }

    #[test]
    fn it_is_remembered_for_a_day_and_only_for_the_same() {
        let at = Timestamp::from_unix_millis(1_700_000_000_123);
        let listed = Some(Timestamp::from_unix_millis(at.unix_millis() - 60_000));
        let compared = Compared { at, of: u64::MAX, rows: 7, listed, absent: None };
        assert_eq!(Compared::parse(&compared.to_string()), Some(compared.clone()));
        for damaged in ["", "1", "1 2", "1 2 x", "999999999999999 1 1"] {
            assert_eq!(Compared::parse(damaged), None, "{damaged:?}");
        }
        let later = |hours: u64| Timestamp::from_unix_millis(at.unix_millis() + hours * 3_600_000);
        assert!(compared.holds(u64::MAX, later(23)));
        assert!(!compared.holds(1, later(23)), "another file");
        assert!(!compared.holds(u64::MAX, later(25)));
        assert!(!compared.holds(u64::MAX, Timestamp::from_unix_millis(5)), "the clock was wrong");
    }

    #[test]
    fn the_next_list_is_due_an_interval_after_the_last_one_of_any_host() {
        let time = |minutes: u64| Timestamp::from_unix_millis(1_700_000_000_000 + minutes * 60_000);
        let compared = Compared { at: time(100), of: 1, rows: 7, listed: Some(time(90)), absent: None };
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(compared.next_list(minutes(30), time(101)), Some(minutes(19)));
        assert_eq!(compared.next_list(minutes(30), time(120)), None);
        assert_eq!(compared.next_list(minutes(30), time(30)), Some(minutes(30)), "its clock is ahead");
        assert!(compared.holds_of_host(1, time(30)) && !compared.holds(1, time(30)));
        assert!(!compared.holds_of_host(1, time(100 + 24 * 60)) && !compared.holds_of_host(2, time(101)));
        let old = Compared::parse("1700000000000 1 7").expect("what an older release wrote");
        assert_eq!((old.listed, old.next_list(minutes(30), time(1))), (None, None));
    }
}
