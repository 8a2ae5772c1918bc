//! Whether this host reaches Twitch, from what it met with while it led or had shards. ◆
//!
//! A host that does neither has no evidence: it counts as reaching Twitch until it has tried in vain, and again some
//! time after that.

use std::time::Duration;

use super::lease::Moment;

/// Time without a shard that delivers after which a host makes room for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which a host may try again.
const AGAIN: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    failing_since: Option<Moment>,
    /// When it last tried in vain for long.
    blind_at: Option<Moment>,
}

impl Sight {
    /// Takes note of how things are: `None` if this host neither leads nor has shards, else whether Twitch is out of
    /// reach. Returns whether
    /// it counts as out of reach.
    pub(super) fn update(&mut self, is_failing: Option<bool>, now: Moment) -> bool {
        match is_failing {
            Some(false) => *self = Self::default(),
            Some(true) => {
                let since = *self.failing_since.get_or_insert(now);
                if now.saturating_sub(since) >= PATIENCE {
                    self.blind_at = Some(now);
                }
            }
            None => self.failing_since = None,
        }
        self.blind_at = self.blind_at.filter(|at| now.saturating_sub(*at) < AGAIN);
        self.blind_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_without_twitch_is_blind_after_a_while_and_may_try_again_later() {
        let at = Duration::from_secs;
        let mut sight = Sight::default();
        assert!(!sight.update(Some(true), at(100)));
        assert!(!sight.update(Some(true), at(109)));
        assert!(sight.update(Some(true), at(110)));
        // Another host leads.
        assert!(sight.update(None, at(111)) && sight.update(None, at(409)));
        assert!(!sight.update(None, at(410)));
        // This host leads again, and needs its time.
        assert!(!sight.update(Some(true), at(500)) && sight.update(Some(true), at(510)));
        assert!(!sight.update(Some(false), at(511)), "a shard delivers");
    }

    #[test]
    fn a_short_outage_is_nothing() {
        let at = Duration::from_secs;
        let mut sight = Sight::default();
        for round in 0..10 {
            assert!(!sight.update(Some(true), at(round * 20)));
            assert!(!sight.update(Some(true), at(round * 20 + 9)));
            assert!(!sight.update(Some(false), at(round * 20 + 10)));
        }
    }
}
