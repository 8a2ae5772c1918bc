//! The state of the cluster as this host publishes it: for people, and as orders for its own parts. ◆

use super::assigner::Assigner;
use super::lease::Moment;
use super::nats::ClusterError;
use super::presence::Hosts;
use super::standing::Standing;
use crate::model::cluster::{Assigned, ClusterOptions, ClusterStatus, ForwardStatus, Leadership, Role};
use crate::model::text::duration;

/// A problem, and what to do about it.
type Problem = (String, String);

/// Everything that the published values are made of.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) options: &'a ClusterOptions,
    pub(super) standing: &'a Standing,
    pub(super) hosts: &'a Hosts,
    pub(super) assigner: &'a Assigner,
    /// Why NATS, or the bucket, cannot be used.
    pub(super) failure: Option<ClusterError>,
    pub(super) nats_version: Option<String>,
    /// Count of changes of the shared values by others.
    pub(super) known: u64,
    /// Fingerprint of the file in force.
    pub(super) fingerprint: &'a str,
    pub(super) now: Moment,
}

impl Report<'_> {
    /// The host that leads, as far as is known.
    pub(super) fn leader(&self) -> Option<String> {
        if self.standing.role() == Role::Leader {
            return Some(self.options.host.clone());
        }
        let holder = self.standing.other_leader()?;
        self.hosts.name_of(holder).map(str::to_owned)
    }

    pub(super) fn status(&self) -> ClusterStatus {
        let (leader, failure) = (self.leader(), self.failure());
        let connected = failure.is_none();
        let (problem, hint) = failure.or_else(|| self.blindness()).unzip();
        ClusterStatus {
            name: self.options.name.clone(),
            host: self.options.host.clone(),
            role: self.standing.role(),
            connected,
            nats_version: self.nats_version.clone(),
            takeovers: self.standing.terms().takeovers(),
            hosts: self.hosts.statuses(
                self.fingerprint,
                leader.as_deref(),
                self.assigner.applied(),
                self.now,
            ),
            leader,
            forward: ForwardStatus::default(),
            no_deletes: self.no_deletes(),
            problem,
            hint,
        }
    }

    /// The work of this host; `None` while another host has its name, as the work that is assigned to the name is that
    /// host's.
    pub(super) fn assigned(&self) -> Option<Assigned> {
        let has_name = !self.standing.is_name_taken();
        has_name.then(|| self.assigner.assigned(self.hosts, self.leader().as_deref()))
    }

    pub(super) fn leadership(&self) -> Leadership {
        Leadership {
            role: self.standing.role(),
            term: self.standing.terms().term(),
            no_deletes: self.no_deletes().map(Into::into),
            known: self.known,
            fingerprint: self.fingerprint.into(),
            hosts: self.assigner.host_count(),
        }
    }

    fn no_deletes(&self) -> Option<String> {
        let differing = self.hosts.differing(self.fingerprint, self.now);
        if !differing.is_empty() {
            return Some(format!("the file of {} is another one than here", differing.join(", ")));
        }
        let until = self.standing.terms().cautious_until(self.now)?;
        Some(format!(
            "the leader before had another file; for {} nothing is deleted, as it may come back",
            duration(until.saturating_sub(self.now))
        ))
    }

    fn failure(&self) -> Option<Problem> {
        let host = &self.options.host;
        if let Some(failure) = &self.failure {
            return Some((failure.to_string(), failure.hint().to_owned()));
        }
        if self.standing.is_doubled() {
            return Some((
                format!("another daemon runs as {host} with a copy of this state directory"),
                "stop one of them; give each host a state directory of its own, never a copy".to_owned(),
            ));
        }
        if self.standing.is_name_taken() {
            return Some((
                format!("another host is called {host} too, so this one does not take part"),
                "give each host a name of its own: `host` in `[cluster]`, or EVENTSUBD_CLUSTER__HOST"
                    .to_owned(),
            ));
        }
        None
    }

    /// The problem of a host that has made room for another one.
    fn blindness(&self) -> Option<Problem> {
        let text =
            "this host could not reach Twitch, so it leaves the lead and its shards to others for 5 minutes";
        let hint = "see whether this machine reaches api.twitch.tv and eventsub.wss.twitch.tv";
        let has_yielded = self.standing.is_blind() && self.standing.role() != Role::Leader;
        has_yielded.then(|| (text.to_owned(), hint.to_owned()))
    }
}
