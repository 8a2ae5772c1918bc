//! From the lease to the part that this host plays. ◆
//!
//! A lease alone does not make a leader: first the key of the shared values is written under it, so that every later
//! write of an earlier leader fails. If that key is still as this host left it, nobody led in between, and the term goes
//! on.

use std::time::Duration;

use super::lease::Moment;
use crate::model::cluster::Role;

/// Time after a change of leader in which nothing is deleted if the leader before had another file: a host that
/// restarts with a new file must not have the old one carried out meanwhile.
pub(super) const CAUTION: Duration = Duration::from_secs(600);

/// The role of this host, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    role: Role,
    term: u64,
    /// The lease under which the shared values were last claimed.
    claimed: Option<u64>,
    takeovers: u64,
    /// Until when nothing may be deleted, since the leader before had another file.
    cautious_until: Option<Moment>,
}

impl Terms {
    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers
    }

    /// Whether the shared values have to be written under this lease before this host leads.
    pub(super) fn must_claim(&self, epoch: Option<u64>) -> bool {
        epoch.is_some() && epoch != self.claimed
    }

    /// Whether this host leads, and has claimed the values under this lease.
    pub(super) fn leads(&self, epoch: Option<u64>) -> bool {
        epoch.is_some() && epoch == self.claimed
    }

    /// Records that the values were written under the lease `epoch`. `before` is the lease under which they were written
    /// last, with whether that leader had the same file; `None` if there were none.
    pub(super) fn handle_claim(&mut self, epoch: u64, before: Option<(u64, bool)>, now: Moment) {
        let goes_on = self.term > 0 && before.map(|(before, _)| before) == self.claimed;
        if !goes_on {
            self.term += 1;
            self.takeovers += 1;
            self.cautious_until = before.filter(|(_, same)| !same).map(|_| now + CAUTION);
        }
        self.claimed = Some(epoch);
    }

    /// Forgets that the leader before had another file: a person has loaded this one here.
    pub(super) fn handle_new_file(&mut self) {
        self.cautious_until = None;
    }

    /// The time until which nothing may be deleted, since the leader before had another file.
    pub(super) fn cautious_until(&self, now: Moment) -> Option<Moment> {
        self.cautious_until.filter(|until| now < *until)
    }

    /// Works out the role. `is_taken`: another process is known to hold the lease. `is_leaving`: this host gives it up.
    /// Returns whether the role has changed.
    pub(super) fn update(&mut self, epoch: Option<u64>, is_taken: bool, is_leaving: bool) -> bool {
        let role = if self.leads(epoch) {
            Role::Leader
        } else if is_taken || is_leaving || self.role == Role::Standby {
            Role::Standby
        } else {
            Role::CutOff
        };
        let changed = role != self.role;
        self.role = role;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Duration::from_secs(100);

    #[test]
    fn a_lease_makes_a_leader_once_the_values_are_claimed() {
        let mut terms = Terms::default();
        assert!(!terms.update(Some(5), false, false) && terms.role() == Role::Standby);
        assert!(terms.must_claim(Some(5)));
        terms.handle_claim(5, Some((3, true)), NOW);
        assert!(terms.update(Some(5), false, false) && terms.role() == Role::Leader);
        assert_eq!((terms.term(), terms.takeovers()), (1, 1));
        assert!(!terms.must_claim(Some(5)));
    }

    #[test]
    fn a_host_without_nats_stays_cut_off_until_it_knows_a_successor() {
        let mut terms = Terms::default();
        terms.handle_claim(5, None, NOW);
        terms.update(Some(5), false, false);
        assert!(terms.update(None, false, false) && terms.role() == Role::CutOff);
        // The same host gets the lease again, and nobody has led meanwhile.
        assert!(terms.must_claim(Some(9)));
        assert!(!terms.update(Some(9), false, false));
        terms.handle_claim(9, Some((5, true)), NOW);
        assert!(terms.update(Some(9), false, false) && terms.role() == Role::Leader);
        assert_eq!((terms.term(), terms.takeovers()), (1, 1), "the term goes on");

        terms.update(None, false, false);
        assert!(terms.update(None, true, false) && terms.role() == Role::Standby);
        terms.handle_claim(20, Some((15, true)), NOW);
        terms.update(Some(20), false, false);
        assert_eq!((terms.term(), terms.takeovers()), (2, 2), "somebody else has led");
    }

    #[test]
    fn a_leader_with_another_file_than_the_one_before_is_cautious_for_a_while() {
        let mut terms = Terms::default();
        terms.handle_claim(5, Some((3, false)), NOW);
        assert_eq!(terms.cautious_until(NOW), Some(NOW + CAUTION));
        assert_eq!(terms.cautious_until(NOW + CAUTION), None);
        terms.handle_new_file();
        assert_eq!(terms.cautious_until(NOW), None);
    }
}
