//! The key `assign`: what every host makes of it, and when the leader writes it. ◆
//!
//! Each write is on top of the revision that is known, and a new leader writes the key first of all: so a leader that has
//! lost its lease cannot write it any more. A host takes over only a newer revision than the last, as reads may be old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::assign::{Assignment, Fitness, Fits, Member, Work, assign};
use super::lease::{Answer, Moment};
use super::presence::Hosts;
use crate::model::cluster::{Assigned, HostRequest};
use crate::model::time::Timestamp;

/// The key.
pub(super) const ASSIGNMENT: &str = "assign";
/// Pause after a write that was not carried out.
const RETRY: Duration = Duration::from_secs(1);
/// Hosts that are remembered at most.
const MAX_MEMBERS: usize = 1_000;

/// The next step with the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes it on top of this revision; 0 stands for none.
    Write { expected: u64, value: Assignment },
    /// Reads it from the leader of the stream.
    Read,
}

/// A state of the key: its revision, and its value while there is one.
pub(super) type Found = (u64, Option<Assignment>);

/// The moment of a call, by both clocks.
pub(super) type Times = (Moment, Timestamp);

/// Everything that an assignment depends on, apart from the work.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Basis {
    epoch: u64,
    revision: u64,
    fits: Fits,
    /// Every host that is alive, with its process.
    alive: BTreeMap<Arc<str>, String>,
    /// Hosts that have been up for long enough to count for the number of shards.
    settled: BTreeSet<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Asked {
    /// With the count of the edits in it.
    Write(Basis, Assignment, usize),
    Read,
}

/// A change that a person wants.
#[derive(Clone, Debug)]
enum Edit {
    /// With the process of the host.
    Drain(Arc<str>, String),
    Undrain(Arc<str>),
    Forget(Arc<str>),
}

/// One host's view of the assignment.
#[derive(Clone, Debug, Default)]
pub(super) struct Assigner {
    work: Work,
    /// The key as it is known to be in the bucket.
    found: (u64, Assignment),
    /// The assignment that this host obeys.
    applied: (u64, Assignment),
    /// The basis on which the assignment in the bucket is right.
    settled: Option<Basis>,
    asked: Option<Asked>,
    /// Whether the key has to be read before it may be written.
    must_read: bool,
    /// The earliest moment of the next step.
    next: Moment,
    /// Changes that are not in the bucket yet, in order.
    edits: Vec<Edit>,
    /// Count of edits that are in the bucket by now.
    edited: usize,
}

impl Assigner {
    /// Takes the work that there is.
    pub(super) fn handle_work(&mut self, work: Work) {
        self.work = work;
        self.settled = None;
    }

    /// The next step, if this host leads under the lease `epoch`. It counts as begun.
    pub(super) fn poll(&mut self, epoch: u64, hosts: &Hosts, (now, wall): Times) -> Option<Step> {
        if self.asked.is_some() || now < self.next {
            return None;
        }
        // The assignment of a later leader is not overwritten. The watch may have told an older one, or one of a bucket that
        // has gone back in time, so the key itself is asked for.
        if self.must_read || self.found.1.epoch > epoch {
            self.asked = Some(Asked::Read);
            self.next = now + RETRY;
            return Some(Step::Read);
        }
        let basis = self.basis(epoch, hosts, now);
        if self.settled.as_ref() == Some(&basis) && self.edits.is_empty() {
            return None;
        }
        let value = self.work_out(&basis, hosts, (now, wall));
        if value == self.found.1 && self.is_newest() {
            self.settled = Some(basis);
            self.edited += self.edits.drain(..).count();
            return None;
        }
        self.asked = Some(Asked::Write(basis, value.clone(), self.edits.len()));
        Some(Step::Write { expected: self.found.0, value })
    }

    /// Takes a change that a person wants, if it can be made. Returns a sentence for that person, to be told once
    /// [`Self::take_edited`] has counted it.
    pub(super) fn edit(
        &mut self,
        request: &HostRequest,
        hosts: &Hosts,
        now: Moment,
    ) -> Result<String, String> {
        let (HostRequest::Drain { host } | HostRequest::Undrain { host } | HostRequest::Forget { host }) =
            request;
        let last = &self.found.1;
        let is_known = last.members.contains_key(&**host) || hosts.last_heard(host).is_some();
        if !is_known {
            return Err(format!("no host is called {host}: see `eventsubd hosts`"));
        }
        let alive = hosts.alive_value(host);
        let name: Arc<str> = host.as_str().into();
        let (edit, said) = match (request, alive) {
            (HostRequest::Drain { .. }, None) => return Err(format!("{host} is down, and has no work")),
            (HostRequest::Drain { .. }, Some(value)) if !value.knows_assignments() => {
                return Err(format!("{host} runs a release that cannot be drained: stop it there instead"));
            }
            (HostRequest::Drain { .. }, Some(value)) => {
                let fits = hosts.fits(&last.draining, &Default::default(), now);
                let is_other = |(other, fit): (&Arc<str>, &Fitness)| {
                    **other != **host && matches!(fit, Fitness::Stable | Fitness::Fresh)
                };
                let waits = if fits.iter().any(is_other) {
                    ""
                } else {
                    "; no other host can have them now, so it keeps them until one can"
                };
                let said = format!(
                    "{host} hands its shards, its sinks and the lead over, and gets none of them until `eventsubd hosts drain \
                     --undo {host}` or a restart of its daemon{waits}"
                );
                (Edit::Drain(name, value.holder.run.clone()), said)
            }
            (HostRequest::Undrain { .. }, _) if !last.draining.contains_key(&name) => {
                return Err(format!("{host} is not drained"));
            }
            (HostRequest::Undrain { .. }, _) => {
                (Edit::Undrain(name), format!("{host} may have shards and sinks and lead again"))
            }
            (HostRequest::Forget { .. }, Some(_)) => {
                return Err(format!("{host} is up: stop its daemon first, and wait for three seconds"));
            }
            (HostRequest::Forget { .. }, None) => (Edit::Forget(name), format!("{host} is forgotten")),
        };
        self.edits.push(edit);
        Ok(said)
    }

    /// Returns how many edits were written since the last call; the earliest first.
    pub(super) fn take_edited(&mut self) -> usize {
        std::mem::take(&mut self.edited)
    }

    /// Whether a write is under way: its changes may be in the bucket already.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.asked, Some(Asked::Write(..)))
    }

    /// Forgets the changes that are not written, as this host does not lead any more.
    pub(super) fn drop_edits(&mut self) {
        self.edits.clear();
        self.edited = 0;
    }

    fn basis(&self, epoch: u64, hosts: &Hosts, now: Moment) -> Basis {
        let (revision, last) = &self.found;
        let lost = self.work.shards.iter().flat_map(|shards| &shards.lost);
        let have_lost = lost.filter_map(|shard| last.shards.get(shard).cloned()).collect();
        let fits = hosts.fits(&last.draining, &have_lost, now);
        let run = |name: &Arc<str>| hosts.alive_value(name).map(|value| value.holder.run.clone());
        let alive = hosts.alive().filter_map(|name| Some((Arc::clone(name), run(name)?))).collect();
        let settled = hosts.settled(now).cloned().collect();
        Basis { epoch, revision: *revision, fits, alive, settled }
    }

    fn work_out(&self, basis: &Basis, hosts: &Hosts, (now, wall): Times) -> Assignment {
        let mut last = self.found.1.clone();
        for edit in &self.edits {
            match edit {
                Edit::Drain(name, run) => drop(last.draining.insert(Arc::clone(name), run.clone())),
                Edit::Undrain(name) => drop(last.draining.remove(name)),
                Edit::Forget(name) => {
                    last.draining.remove(name);
                    last.members.remove(name);
                }
            }
        }
        let edited;
        let fits = if self.edits.is_empty() {
            &basis.fits
        } else {
            edited = hosts.fits(&last.draining, &Default::default(), now);
            &edited
        };
        let mut new = assign(fits, &self.work, &last);
        new.epoch = basis.epoch;
        new.draining.retain(|name, run| basis.alive.get(name).is_none_or(|now| now == run));
        for name in basis.alive.keys() {
            let version = hosts.alive_value(name).map(|value| value.version.clone()).unwrap_or_default();
            let known = new.members.get(name);
            if new.members.len() < MAX_MEMBERS || known.is_some() {
                let counts = basis.settled.contains(name) || known.is_some_and(|known| known.counts);
                new.members.insert(Arc::clone(name), Member { version, down_since: None, counts });
            }
        }
        for (name, member) in &mut new.members {
            if !basis.alive.contains_key(name) && member.down_since.is_none() {
                member.down_since = Some(hosts.last_heard(name).unwrap_or(wall));
            }
        }
        new
    }

    /// Whether every host that obeys what this one does takes over the key as it is in the bucket. A bucket that has gone
    /// back in time has lower revisions for a while.
    fn is_newest(&self) -> bool {
        self.found.0 >= self.applied.0
    }

    /// Takes the answer to the last write.
    pub(super) fn handle_answer(&mut self, answer: Answer, now: Moment) {
        let Some(Asked::Write(basis, value, edits)) = self.asked.take() else { return };
        match answer {
            Answer::Done(revision) => {
                self.edited += self.edits.drain(..edits.min(self.edits.len())).count();
                self.found = (revision, value);
                if self.is_newest() {
                    self.settled = Some(Basis { revision, ..basis });
                } else {
                    self.next = now + RETRY;
                }
                self.apply();
            }
            Answer::Refused => self.must_read = true,
            Answer::Unknown => {
                self.must_read = true;
                self.next = now + RETRY;
            }
        }
    }

    /// Takes the key as the leader of the stream has it; `None` if there was no answer.
    pub(super) fn handle_read(&mut self, found: Option<Found>, epoch: u64) {
        self.asked = None;
        let Some((revision, value)) = found else { return };
        self.found = (revision, value.unwrap_or_default());
        self.must_read = false;
        if self.found.1.epoch <= epoch {
            self.next = Moment::ZERO;
        }
        self.apply();
    }

    /// Takes a change of the key that the watch has told.
    pub(super) fn handle_change(&mut self, (revision, value): Found) {
        if revision > self.found.0 {
            self.found = (revision, value.unwrap_or_default());
            self.apply();
        }
    }

    /// Begins anew in another bucket, whose revisions are above those of the one before. The work stays where it is.
    pub(super) fn handle_new_bucket(&mut self) {
        self.found = (0, Assignment { epoch: 0, ..self.applied.1.clone() });
        (self.settled, self.asked, self.must_read, self.next) = (None, None, false, Moment::ZERO);
    }

    /// Obeys what was found, if it is newer. The end of the key changes nothing.
    fn apply(&mut self) {
        if self.found.0 > self.applied.0 && self.found.1.epoch > 0 {
            self.applied = self.found.clone();
        }
    }

    /// The assignment that this host obeys; `None` before there is one.
    pub(super) fn applied(&self) -> Option<&Assignment> {
        Some(&self.applied.1).filter(|_| self.applied.0 > 0)
    }

    /// Whether any shard is this host's.
    pub(super) fn has_shards(&self, name: &str) -> bool {
        self.applied.1.shards.values().any(|host| **host == *name)
    }

    /// Number of hosts that count for the number of shards.
    pub(super) fn host_count(&self) -> u32 {
        let count = self.applied.1.members.values().filter(|member| member.counts).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether the host of this process hands over its work, and another one can take it.
    pub(super) fn hands_over(&self, name: &str, hosts: &Hosts, now: Moment) -> bool {
        let draining = &self.applied.1.draining;
        if !draining.contains_key(name) {
            return false;
        }
        let fits = hosts.fits(draining, &Default::default(), now);
        fits.get(name) == Some(&Fitness::Draining)
            && fits.values().any(|fitness| matches!(fitness, Fitness::Stable | Fitness::Fresh))
    }

    /// Returns the part of the assignment that concerns this host. `leader` leads, as far as is known.
    pub(super) fn assigned(&self, hosts: &Hosts, leader: Option<&str>) -> Assigned {
        let (revision, value) = &self.applied;
        let leader = leader.and_then(|leader| hosts.alive_value(leader));
        let known = Assigned {
            epoch: value.epoch,
            revision: *revision,
            has_old_hosts: hosts.has_old(),
            ..Assigned::default()
        };
        if leader.is_some_and(|leader| !leader.knows_assignments()) {
            return known;
        }
        Assigned {
            conduit_id: value.conduit_id.clone(),
            shards: Arc::clone(&value.shards),
            sinks: Arc::clone(&value.sinks),
            ..known
        }
    }
}
