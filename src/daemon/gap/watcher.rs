//! When events may have been missed, told from how things are. ◆

use serde::Serialize;

use crate::model::time::Timestamp;

/// Why events may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// No shard of the conduit had a session, or the daemon did not run.
    NoShardBound,
    /// The conduit was gone, and its subscriptions with it.
    ConduitReplaced,
    /// The store removed events before a sink had them.
    Retention,
}

/// Some time in which events may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) reason: Reason,
}

/// How things are at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Some shard has a session that Twitch delivers to.
    pub(super) bound: bool,
    /// Subscriptions call by themselves, and somebody listens.
    pub(super) called: bool,
    pub(super) conduit: Option<String>,
    /// When Twitch was last found to match the file.
    pub(super) matched_at: Option<Timestamp>,
}

impl View {
    fn is_up(&self) -> bool {
        self.bound || self.called
    }
}

/// Tells gaps from how things are. Pure: it is told the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Watcher {
    /// When everything was last well; none before it ever was.
    last_well: Option<Timestamp>,
    /// The conduit of that time.
    conduit: Option<String>,
    broken: Option<Broken>,
}

#[derive(Clone, Debug)]
struct Broken {
    reason: Reason,
    /// When it was seen first.
    since: Timestamp,
}

impl Watcher {
    /// What a daemon that ended left behind: until something is bound, nothing is.
    pub(super) fn new(last_well: Option<Timestamp>, conduit: Option<String>, now: Timestamp) -> Self {
        let broken = last_well.map(|_| Broken { reason: Reason::NoShardBound, since: now });
        Self { last_well, conduit, broken }
    }

    /// Takes note of how things are; a gap is told once it is over.
    pub(super) fn observe(&mut self, view: &View, now: Timestamp) -> Option<Gap> {
        let replaced = self.conduit.is_some() && view.conduit.is_some() && self.conduit != view.conduit;
        if replaced && self.broken.as_ref().is_none_or(|b| b.reason != Reason::ConduitReplaced) {
            let since = self.broken.as_ref().map_or(now, |broken| broken.since);
            self.broken = Some(Broken { reason: Reason::ConduitReplaced, since });
        } else if !view.is_up() && self.broken.is_none() && self.last_well.is_some() {
            // Until this moment it was well.
            self.last_well = Some(now);
            self.broken = Some(Broken { reason: Reason::NoShardBound, since: now });
        }
        if !view.is_up() || (view.conduit.is_none() && !view.called) {
            return None;
        }
        let gap = match &self.broken {
            None => None,
            // A new conduit has no subscriptions before they are made.
            Some(broken)
                if broken.reason == Reason::ConduitReplaced
                    && view.matched_at.is_none_or(|at| at < broken.since) =>
            {
                return None;
            }
            Some(broken) => self.last_well.map(|from| Gap { from, to: now.max(from), reason: broken.reason }),
        };
        self.broken = None;
        self.last_well = Some(now);
        self.conduit.clone_from(&view.conduit);
        gap
    }

    /// When all was well, for the next start.
    pub(super) fn memory(&self) -> (Option<Timestamp>, Option<&str>) {
        (self.last_well, self.conduit.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    fn view(bound: bool, conduit: &str, matched: u64) -> View {
        View { bound, called: false, conduit: Some(conduit.to_owned()), matched_at: Some(at(matched)) }
    }

    #[test]
    fn a_listener_without_a_conduit_is_well_and_a_change_of_method_is_no_gap() {
        let mut watcher = Watcher::new(None, None, at(0));
        assert_eq!(watcher.observe(&view(true, "a", 1), at(2)), None);
        let called = View { called: true, matched_at: Some(at(3)), ..View::default() };
        assert_eq!(watcher.observe(&called, at(3)), None);
        assert_eq!(watcher.observe(&view(true, "b", 4), at(4)), None);
        assert_eq!(watcher.observe(&called, at(5)), None);
        assert_eq!(watcher.observe(&View::default(), at(6)), None);
        let gap = watcher.observe(&called, at(9)).expect("told");
        assert_eq!((gap.from, gap.to, gap.reason), (at(6), at(9), Reason::NoShardBound));
    }

    #[test]
    fn a_first_start_has_missed_nothing() {
        let mut watcher = Watcher::new(None, None, at(0));
        assert_eq!(watcher.observe(&View::default(), at(1)), None);
        assert_eq!(watcher.observe(&view(true, "a", 1), at(2)), None);
        assert_eq!(watcher.memory(), (Some(at(2)), Some("a")));
    }

    #[test]
    fn the_time_without_a_shard_is_told_once_it_is_over() {
        let mut watcher = Watcher::new(None, None, at(0));
        watcher.observe(&view(true, "a", 1), at(10));
        watcher.observe(&view(true, "a", 1), at(20));
        assert_eq!(watcher.observe(&view(false, "a", 1), at(30)), None);
        assert_eq!(watcher.observe(&view(false, "a", 1), at(40)), None);
        let gap = Gap { from: at(30), to: at(50), reason: Reason::NoShardBound };
        assert_eq!(watcher.observe(&view(true, "a", 1), at(50)), Some(gap));
        assert_eq!(watcher.observe(&view(true, "a", 1), at(60)), None);
    }

    #[test]
    fn a_restart_goes_on_from_what_was_stored() {
        let mut watcher = Watcher::new(Some(at(100)), Some("a".to_owned()), at(160));
        assert_eq!(watcher.observe(&view(false, "a", 0), at(161)), None);
        let gap = Gap { from: at(100), to: at(165), reason: Reason::NoShardBound };
        assert_eq!(watcher.observe(&view(true, "a", 0), at(165)), Some(gap));
    }

    #[test]
    fn a_new_conduit_is_well_once_its_subscriptions_are_made() {
        let mut watcher = Watcher::new(None, None, at(0));
        watcher.observe(&view(true, "a", 1), at(10));
        assert_eq!(watcher.observe(&view(true, "b", 1), at(20)), None);
        assert_eq!(watcher.observe(&view(false, "b", 1), at(22)), None);
        assert_eq!(watcher.observe(&view(true, "b", 1), at(25)), None, "not matched since");
        let gap = Gap { from: at(10), to: at(31), reason: Reason::ConduitReplaced };
        assert_eq!(watcher.observe(&view(true, "b", 30), at(31)), Some(gap));
        assert_eq!(watcher.memory().1, Some("b"));
    }

    proptest! {
        /// Whatever happens: gaps do not overlap, none ends before it begins, and every moment without a
        /// shard after the first good one lies in one once it is over.
        #[test]
        fn no_bad_moment_is_forgotten(steps in prop::collection::vec((any::<bool>(), 0_u8..3, 1_u64..50), 1..80)) {
            let mut watcher = Watcher::new(None, None, at(0));
            let (mut now, mut bad, mut gaps, mut was_well) = (0, Vec::new(), Vec::<Gap>::new(), false);
            for (bound, conduit, seconds) in steps {
                now += seconds;
                let view = view(bound, &conduit.to_string(), now);
                if !bound && was_well {
                    bad.push(at(now));
                }
                was_well |= bound;
                if let Some(gap) = watcher.observe(&view, at(now)) {
                    prop_assert!(gap.from <= gap.to);
                    prop_assert!(gaps.last().is_none_or(|last| last.to <= gap.from));
                    gaps.push(gap);
                    bad.retain(|time| *time < gap.from || *time > gap.to);
                }
            }
            prop_assert!(watcher.broken.is_some() || bad.is_empty(), "{:?}", bad);
        }
    }
}
