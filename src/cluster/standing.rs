//! The standing of this host in the cluster: whether its name is its own, and whether it leads. ◆
//!
//! Two leases make it: that on the key of this host, and that of the leader, for which only a host contends whose name is
//! its own. A host that is leaving, hands its work over, or cannot reach Twitch while another one may, gives the latter up.

use super::lease::{Answer, Holder, Lease, Moment, Seen, Times, Write};
use super::saving::Claimed;
use super::sight::Sight;
use super::term::Terms;
use crate::model::cluster::Role;

/// One of the two leases of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Host,
    Leader,
}

/// Reasons for which a host does not contend for the lead, and when it may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidacy {
    /// Whether its work goes to another host, which can take it.
    pub(super) hands_over: bool,
    /// Whether another host is up that may reach Twitch.
    pub(super) another_may_lead: bool,
    /// Earliest moment at which anybody may contend.
    pub(super) lead_after: Moment,
}

/// The leases of this host, with the role that they make.
#[derive(Debug)]
pub(super) struct Standing {
    host: Lease,
    leader: Lease,
    terms: Terms,
    sight: Sight,
    /// Whether Twitch counts as out of reach from here.
    is_blind: bool,
    is_leaving: bool,
}

impl Standing {
    pub(super) fn new(holder: Holder, now: Moment) -> Self {
        let host = Lease::new(holder.clone(), Times::DEFAULT, now);
        let mut leader = Lease::new(holder, Times::DEFAULT, now);
        // Only a host whose name is its own may lead.
        leader.resign(now);
        let (terms, sight) = (Terms::default(), Sight::default());
        Self { host, leader, terms, sight, is_blind: false, is_leaving: false }
    }

    fn lease(&mut self, which: Which) -> &mut Lease {
        match which {
            Which::Host => &mut self.host,
            Which::Leader => &mut self.leader,
        }
    }

    /// The lease of the leader, if this host has it. It leads once it has claimed the shared values as well.
    pub(super) fn epoch(&self, now: Moment) -> Option<u64> {
        self.leader.epoch(now)
    }

    /// The lease under which this host leads, if it does.
    pub(super) fn leads(&self, now: Moment) -> Option<u64> {
        self.epoch(now).filter(|epoch| self.terms.leads(Some(*epoch)))
    }

    /// The lease under which this host has to claim the shared values before it leads.
    pub(super) fn must_claim(&self, now: Moment) -> Option<u64> {
        self.epoch(now).filter(|epoch| self.terms.must_claim(Some(*epoch)))
    }

    pub(super) fn role(&self) -> Role {
        self.terms.role()
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn is_blind(&self) -> bool {
        self.is_blind
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Whether this host has its key.
    pub(super) fn has_name(&self, now: Moment) -> bool {
        self.host.epoch(now).is_some()
    }

    /// Whether another process has the key of this host.
    pub(super) fn is_name_taken(&self) -> bool {
        self.host.is_taken()
    }

    /// Whether another process uses a copy of the state directory.
    pub(super) fn is_doubled(&self) -> bool {
        self.host.is_doubled() || self.leader.is_doubled()
    }

    /// The other process that leads, as far as is known.
    pub(super) fn other_leader(&self) -> Option<&Holder> {
        self.leader.holder().filter(|_| self.leader.is_taken())
    }

    /// The end of the time for which this host leads for sure.
    pub(super) fn leads_until(&self) -> Option<Moment> {
        self.leader.good_until().filter(|_| self.role() == Role::Leader)
    }

    /// The end of the time for which the other hosts count this one as alive for sure.
    pub(super) fn present_until(&self) -> Option<Moment> {
        self.host.good_until().filter(|_| !self.is_name_taken())
    }

    /// Whether this host is leaving, and has given up the lease of the leader.
    pub(super) fn has_resigned(&self) -> bool {
        self.is_leaving && self.leader.is_given_up()
    }

    /// Takes whether Twitch is out of reach for the parts of this host that need it. Returns whether
    /// [`Self::is_blind`] has changed.
    pub(super) fn update_sight(&mut self, is_failing: bool, has_shards: bool, now: Moment) -> bool {
        // Without a leader nobody binds a socket, and it closes: that is no fault of the way to Twitch.
        let is_led = self.has_name(now) && self.leader.is_taken();
        let is_needed = self.role() == Role::Leader || (is_led && has_shards);
        let is_blind = self.sight.update(is_needed.then_some(is_failing), now);
        let has_changed = is_blind != self.is_blind;
        self.is_blind = is_blind;
        if has_changed {
            self.renew_now(now);
        }
        has_changed
    }

    /// Contends for the lease of the leader, or gives it up.
    pub(super) fn update_candidacy(&mut self, candidacy: Candidacy, now: Moment) {
        let yields = self.is_blind && candidacy.another_may_lead;
        if !self.is_leaving && (candidacy.hands_over || yields || self.is_name_taken()) {
            self.leader.resign(now);
        } else if self.has_name(now) && !self.is_leaving && now >= candidacy.lead_after {
            self.leader.contend(now);
        }
    }

    /// Works out the role. Returns the one before if it has changed.
    pub(super) fn update_role(&mut self, now: Moment) -> Option<Role> {
        let before = self.role();
        let (epoch, is_taken) = (self.epoch(now), self.leader.is_taken());
        self.terms.update(epoch, is_taken, self.is_leaving).then_some(before)
    }

    /// The next write of a lease, if one is due. It counts as sent now.
    pub(super) fn poll(&mut self, which: Which, now: Moment) -> Option<Write> {
        self.lease(which).poll(now)
    }

    /// When [`Self::poll`] may have something to do, or the lead ends; `None` while an answer or a change is waited for.
    pub(super) fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let end = self.leader.good_until().filter(|end| *end > now);
        [self.host.next_poll(), self.leader.next_poll(), end].into_iter().flatten().min()
    }

    /// Takes the answer to a write. After [`Answer::Refused`] the key has to be read.
    pub(super) fn handle_answer(&mut self, which: Which, answer: Answer, now: Moment) {
        self.lease(which).handle_answer(answer, now);
    }

    /// Takes a key as it was read after a refused write.
    pub(super) fn handle_read(&mut self, which: Which, seen: Seen, now: Moment) {
        self.lease(which).handle_read(seen, now);
    }

    /// Takes a key as the watch has told it.
    pub(super) fn handle_watch(&mut self, which: Which, seen: Seen, now: Moment) {
        self.lease(which).handle_watch(seen, now);
    }

    pub(super) fn handle_claim(&mut self, Claimed { epoch, before }: Claimed, now: Moment) {
        self.terms.handle_claim(epoch, before, now);
    }

    /// Takes a file that a person has loaded here.
    pub(super) fn handle_new_file(&mut self) {
        self.terms.handle_new_file();
    }

    /// Begins anew in another bucket.
    pub(super) fn handle_new_bucket(&mut self, now: Moment) {
        (self.host, self.leader) = (self.host.anew(now), self.leader.anew(now));
        self.leader.resign(now);
    }

    /// Has the key of this host written as soon as possible, because its value has changed.
    pub(super) fn renew_now(&mut self, now: Moment) {
        self.host.renew_now(now);
    }

    /// Records that this host is leaving. It goes on leading if it leads.
    pub(super) fn leave(&mut self, now: Moment) {
        self.is_leaving = true;
        self.renew_now(now);
        if self.epoch(now).is_none() {
            self.leader.resign(now);
        }
    }

    /// Records that this host is leaving, and gives the lease of the leader up.
    pub(super) fn resign(&mut self, now: Moment) {
        self.leave(now);
        self.leader.resign(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const FREE: Candidacy =
        Candidacy { hands_over: false, another_may_lead: false, lead_after: Duration::ZERO };

    const BOTH: [Which; 2] = [Which::Host, Which::Leader];

    fn holder(run: &str) -> Holder {
        Holder { instance: run.to_owned(), run: run.to_owned() }
    }

    fn at(millis: u64) -> Moment {
        Duration::from_secs(100) + Duration::from_millis(millis)
    }

    /// Carries out what is due, as a NATS that always answers.
    fn turn(standing: &mut Standing, candidacy: Candidacy, revision: &mut u64, now: Moment) {
        for which in BOTH {
            standing.update_candidacy(candidacy, now);
            if standing.poll(which, now).is_some() {
                *revision += 1;
                standing.handle_answer(which, Answer::Done(*revision), now);
            }
        }
        if let Some(epoch) = standing.must_claim(now) {
            standing.handle_claim(Claimed { epoch, before: None }, now);
        }
        standing.update_role(now);
    }

    fn leader(now: Moment) -> (Standing, u64) {
        let (mut standing, mut revision) = (Standing::new(holder("a"), now), 0);
        turn(&mut standing, FREE, &mut revision, now);
        assert_eq!(standing.role(), Role::Leader);
        (standing, revision)
    }

    #[test]
    fn a_host_contends_once_its_name_is_its_own() {
        let mut standing = Standing::new(holder("a"), at(0));
        standing.update_candidacy(FREE, at(0));
        assert_eq!(standing.poll(Which::Leader, at(0)), None);
        assert_eq!(standing.poll(Which::Host, at(0)), Some(Write::Put { expected: 0 }));
        standing.handle_answer(Which::Host, Answer::Refused, at(0));
        standing.handle_read(Which::Host, Seen { revision: 3, holder: Some(holder("b")) }, at(0));
        standing.update_candidacy(FREE, at(0));
        assert_eq!(standing.poll(Which::Leader, at(0)), None, "another host has that name");
        assert!(standing.is_name_taken() && !standing.is_doubled() && standing.present_until().is_none());

        let mut standing = Standing::new(holder("a"), at(0));
        let mut revision = 0;
        turn(&mut standing, Candidacy { lead_after: at(5), ..FREE }, &mut revision, at(0));
        assert_eq!((standing.role(), standing.has_name(at(0))), (Role::Standby, true), "too early");
        turn(&mut standing, Candidacy { lead_after: at(5), ..FREE }, &mut revision, at(5));
        assert_eq!((standing.role(), standing.leads(at(5)).is_some()), (Role::Leader, true));
    }

    #[test]
    fn a_leader_that_leaves_leads_until_it_resigns() {
        let (mut standing, mut revision) = leader(at(0));
        standing.leave(at(10));
        turn(&mut standing, FREE, &mut revision, at(600));
        assert!(standing.role() == Role::Leader && !standing.has_resigned());
        standing.resign(at(700));
        turn(&mut standing, FREE, &mut revision, at(1_200));
        assert!(standing.role() == Role::Standby && standing.has_resigned());
        turn(&mut standing, FREE, &mut revision, at(9_000));
        assert_eq!(standing.epoch(at(9_000)), None, "it does not come back");
    }

    #[test]
    fn a_leader_that_cannot_reach_twitch_makes_room_if_another_host_may_lead() {
        let (mut standing, mut revision) = leader(at(0));
        let mut now = at(0);
        for _ in 0..30 {
            now += Duration::from_millis(500);
            standing.update_sight(true, false, now);
            turn(&mut standing, FREE, &mut revision, now);
        }
        assert!(standing.is_blind() && standing.role() == Role::Leader, "there is no other host");
        turn(
            &mut standing,
            Candidacy { another_may_lead: true, ..FREE },
            &mut revision,
            now + Duration::from_millis(500),
        );
        assert_eq!(standing.epoch(now + Duration::from_millis(500)), None);
    }

    proptest! {
        /// For any answers and reads, at any time: a host that leads has the lease and has claimed the values, contends
        /// only with its own name, and never after it has resigned.
        #[test]
        fn leading_needs_everything(steps in prop::collection::vec((0_u8..9, 0_u64..1_500), 1..120)) {
            let (mut standing, mut revision, mut now) = (Standing::new(holder("a"), at(0)), 0_u64, at(0));
            let mut has_resigned = false;
            for (step, pause) in steps {
                now += Duration::from_millis(pause);
                revision += 1;
                let which = BOTH[usize::from(step % 2)];
                match step {
                    0 | 1 => standing.handle_answer(which, Answer::Refused, now),
                    2 | 3 => standing.handle_watch(which, Seen { revision, holder: Some(holder("b")) }, now),
                    4 | 5 => standing.handle_watch(which, Seen { revision, holder: None }, now),
                    6 if pause < 20 => {
                        standing.resign(now);
                        has_resigned = true;
                    }
                    7 if pause < 300 => standing.handle_new_bucket(now),
                    _ => {
                        if !standing.has_name(now) {
                            let before = standing.epoch(now);
                            standing.update_candidacy(FREE, now);
                            prop_assert_eq!(standing.epoch(now), before);
                        }
                        turn(&mut standing, FREE, &mut revision, now);
                    }
                }
                standing.update_role(now);
                if let Some(epoch) = standing.leads(now) {
                    prop_assert_eq!((Some(epoch), standing.role()), (standing.epoch(now), Role::Leader));
                    prop_assert!(standing.must_claim(now).is_none());
                    prop_assert!(standing.leads_until().is_some_and(|until| until > now));
                } else {
                    prop_assert!(standing.role() != Role::Leader && standing.leads_until().is_none());
                }
                if has_resigned && standing.has_resigned() {
                    prop_assert_eq!(standing.epoch(now), None);
                }
                if let Some(next) = standing.poll_timeout(now) {
                    prop_assert!(next < now + Duration::from_secs(60));
                }
            }
        }
    }
}
