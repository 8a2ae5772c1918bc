//! The last complete run, as it is remembered over a restart. ◆
//!
//! A daemon whose file and places are the same since is ready without reading Twitch's list first; the list follows.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::place::{Place, Places};
use super::plan::sum_of_keys;
use super::wanted::Wanted;
use crate::model::time::Timestamp;
use crate::reconcile::Policy;

/// Time for which a complete run is remembered.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The last run after which Twitch matched the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Compared {
    /// Time of the comparison.
    pub(in crate::reconcile) at: Timestamp,
    /// Fingerprint of what was wanted, and where.
    pub(in crate::reconcile) of: u64,
    /// Rows of Twitch's list.
    pub(in crate::reconcile) rows: u64,
}

impl Compared {
    /// From the text that [`fmt::Display`] makes.
    pub(in crate::reconcile) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (millis, of, rows) = (next().filter(|millis| *millis < 1 << 48)?, next()?, next()?);
        Some(Self { at: Timestamp::from_unix_millis(millis), of, rows })
    }

    /// Whether it still counts. A time in the future is a clock that was wrong.
    pub(in crate::reconcile) fn holds(&self, of: u64, now: Timestamp) -> bool {
        self.of == of && self.at <= now && now.since(self.at) < LIFE
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at.unix_millis(), self.of, self.rows)
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

    #[test]
    fn it_is_remembered_for_a_day_and_only_for_the_same() {
        let at = Timestamp::from_unix_millis(1_700_000_000_123);
        let compared = Compared { at, of: u64::MAX, rows: 7 };
        assert_eq!(Compared::parse(&compared.to_string()), Some(compared));
        for damaged in ["", "1", "1 2", "1 2 x", "999999999999999 1 1"] {
            assert_eq!(Compared::parse(damaged), None, "{damaged:?}");
        }
        let later = |hours: u64| Timestamp::from_unix_millis(at.unix_millis() + hours * 3_600_000);
        assert!(compared.holds(u64::MAX, later(23)));
        assert!(!compared.holds(1, later(23)), "another file");
        assert!(!compared.holds(u64::MAX, later(25)));
        assert!(!compared.holds(u64::MAX, Timestamp::from_unix_millis(5)), "the clock was wrong");
    }
}
