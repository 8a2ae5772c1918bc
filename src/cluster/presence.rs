//! The hosts of the cluster, from their keys in the bucket. ◆

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::assign::{Assignment, Fitness, Fits};
use super::lease::{Holder, Moment};
use super::sessions::SocketsValue;
use crate::model::cluster::{HostState, HostStatus};
use crate::model::shard::SessionId;
use crate::model::time::Timestamp;

/// Time without a sign of life after which a host counts as down even if the end of its key was not seen.
const SILENT: Duration = Duration::from_secs(15);
/// Hosts that are remembered at most.
const MAX_HOSTS: usize = 1_000;
/// A host is dead after so many signs of life of this host without one of its own: three seconds. Signs are counted as the
/// servers have them in order, so a time without NATS, or in which this process was stopped, kills nobody.
const MISSES: u64 = 6;
/// Misses after which a host is dead if Twitch has lost one of its shards as well.
const MISSES_IF_LOST: u64 = 2;
/// Least age of the last sign of life of such a host.
const SILENT_IF_LOST: Duration = Duration::from_millis(1_200);
/// Signs of this host that come closer together are one: it gives more of them when something changes.
const SPACING: Duration = Duration::from_millis(400);
/// Time for which a host has to be up before work of others is moved to it. A daemon that fails soon after its start is
/// started every five seconds by systemd; one that has run for so long has bound its shards.
const STABLE: Duration = Duration::from_secs(30);
/// Time for which a host has to be up before it counts for the number of shards: each change of that number moves channels
/// between shards.
const SETTLED: Duration = Duration::from_secs(600);

/// The format of a release that obeys assignments.
pub(super) const ASSIGN: &str = "assign";

/// Value of the key of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostValue {
    #[serde(flatten)]
    pub(super) holder: Holder,
    pub(super) version: String,
    /// Fingerprint of its file, without what belongs to one host.
    pub(super) fingerprint: String,
    /// Start of its process.
    pub(super) since: Timestamp,
    pub(super) leaving: bool,
    /// Whether it has led or had shards, and could not reach Twitch.
    #[serde(default)]
    pub(super) blind: bool,
    pub(super) shards: Vec<u32>,
    pub(super) sinks: Vec<String>,
    /// The sockets that it reads.
    #[serde(default)]
    pub(super) sockets: SocketsValue,
    /// Sessions that were replaced by others' and that it has read to their end, for half a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) handed_over: Vec<SessionId>,
    /// Formats of the bucket that its release knows; the first release named none.
    #[serde(default)]
    pub(super) formats: Vec<String>,
    #[serde(default)]
    pub(super) forward_lag: u64,
}

impl HostValue {
    pub(super) fn knows_assignments(&self) -> bool {
        self.formats.iter().any(|format| format == ASSIGN)
    }
}

#[derive(Clone, Debug)]
struct Known {
    value: HostValue,
    revision: u64,
    /// When its last sign of life came here, by both clocks.
    heard: (Moment, Timestamp),
    is_gone: bool,
    /// Count of signs of this host at its last one.
    tick: u64,
    /// Since when it has been alive without a pause.
    alive_since: Moment,
}

impl Known {
    fn state(&self, now: Moment) -> HostState {
        match self.value.leaving {
            _ if self.is_gone || now.saturating_sub(self.heard.0) > SILENT => HostState::Down,
            true => HostState::Leaving,
            false => HostState::Up,
        }
    }

    /// Whether it has stopped giving signs of life.
    fn is_dead(&self, ticks: u64) -> bool {
        ticks - self.tick >= MISSES
    }

    /// Whether it is dead, given that Twitch has lost a shard of it.
    fn is_lost(&self, ticks: u64, now: Moment) -> bool {
        let is_silent = now.saturating_sub(self.heard.0) >= SILENT_IF_LOST;
        ticks - self.tick >= MISSES_IF_LOST && is_silent
    }

    fn fitness(&self, now: Moment, draining: Option<&String>) -> Fitness {
        match draining {
            _ if self.value.leaving => Fitness::Leaving,
            _ if self.value.blind => Fitness::Blind,
            Some(run) if *run == self.value.holder.run => Fitness::Draining,
            _ if now.saturating_sub(self.alive_since) >= STABLE => Fitness::Stable,
            _ => Fitness::Fresh,
        }
    }
}

/// Every host that was seen since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    known: BTreeMap<Arc<str>, Known>,
    /// Count of signs of this host.
    ticks: u64,
    /// When the last of them was counted.
    ticked: Option<Moment>,
}

impl Hosts {
    /// Takes the value of a host's key, which comes with each sign of life. `is_own`: this process has written it.
    pub(super) fn handle_value(
        &mut self,
        name: &str,
        revision: u64,
        value: HostValue,
        is_own: bool,
        (now, wall): (Moment, Timestamp),
    ) {
        if self.known.get(name).is_some_and(|known| known.revision >= revision) {
            return;
        }
        if self.known.len() >= MAX_HOSTS && !self.known.contains_key(name) {
            let ticks = self.ticks;
            self.known.retain(|_, known| !known.is_dead(ticks));
            if self.known.len() >= MAX_HOSTS {
                return;
            }
        }
        if is_own {
            self.count(now);
        }
        let goes_on =
            |known: &&Known| known.value.holder.run == value.holder.run && !known.is_dead(self.ticks);
        let before = self.known.get(name).filter(goes_on);
        let alive_since = before.map_or(now, |known| known.alive_since);
        let (heard, tick) = ((now, wall), self.ticks);
        let known = Known { value, revision, heard, is_gone: false, tick, alive_since };
        self.known.insert(name.into(), known);
    }

    /// Counts a sign of life of this host itself. They come in the order in which the servers have the signs of all.
    fn count(&mut self, now: Moment) {
        if self.ticked.is_none_or(|before| now.saturating_sub(before) >= SPACING) {
            self.ticks += 1;
            self.ticked = Some(now);
        }
    }

    /// The live hosts that can be given work. `draining` has hosts with the process that hands over; `have_lost` those
    /// whose shard Twitch has lost.
    pub(super) fn fits(
        &self,
        draining: &BTreeMap<Arc<str>, String>,
        have_lost: &BTreeSet<Arc<str>>,
        now: Moment,
    ) -> Fits {
        let mut fits = Fits::new();
        for name in self.alive() {
            let known = &self.known[name];
            let is_lost = have_lost.contains(name) && known.is_lost(self.ticks, now);
            if known.value.knows_assignments() && !is_lost {
                fits.insert(Arc::clone(name), known.fitness(now, draining.get(name)));
            }
        }
        fits
    }

    /// Names of the hosts that have been up for long enough to count for the number of shards.
    pub(super) fn settled(&self, now: Moment) -> impl Iterator<Item = &Arc<str>> {
        self.alive().filter(move |name| {
            let known = &self.known[*name];
            known.value.knows_assignments() && now.saturating_sub(known.alive_since) >= SETTLED
        })
    }

    /// Names of the hosts that are alive.
    pub(super) fn alive(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.iter().filter(|(_, known)| !known.is_dead(self.ticks)).map(|(name, _)| name)
    }

    /// The last value of a host that is alive.
    pub(super) fn alive_value(&self, name: &str) -> Option<&HostValue> {
        self.known.get(name).filter(|known| !known.is_dead(self.ticks)).map(|known| &known.value)
    }

    /// The last sign of life of a host.
    pub(super) fn last_heard(&self, name: &str) -> Option<Timestamp> {
        self.known.get(name).map(|known| known.heard.1)
    }

    /// Whether a host is alive whose release knows no assignments.
    pub(super) fn has_old(&self) -> bool {
        self.alive().any(|name| !self.known[name].value.knows_assignments())
    }

    /// Whether every host that is alive knows this format of the bucket.
    pub(super) fn all_know(&self, format: &str) -> bool {
        self.alive().all(|name| self.known[name].value.formats.iter().any(|known| known == format))
    }

    /// Takes the end of a host's key.
    pub(super) fn handle_end(&mut self, name: &str, revision: u64) {
        if let Some(known) = self.known.get_mut(name)
            && revision > known.revision
        {
            known.revision = revision;
            known.is_gone = true;
        }
    }

    /// The name of the host of this instance.
    pub(super) fn name_of(&self, holder: &Holder) -> Option<&str> {
        let is_of = |known: &&Known| known.value.holder.instance == holder.instance;
        self.known.iter().find(|(_, known)| is_of(known)).map(|(name, _)| &**name)
    }

    /// Names of the hosts that live and have another file.
    pub(super) fn differing(&self, fingerprint: &str, now: Moment) -> Vec<&str> {
        let differs =
            |known: &Known| known.state(now) != HostState::Down && known.value.fingerprint != fingerprint;
        self.known.iter().filter(|(_, known)| differs(known)).map(|(name, _)| &**name).collect()
    }

    /// Whether another host than this one is up and may reach Twitch.
    pub(super) fn another_may_lead(&self, host: &str, now: Moment) -> bool {
        self.known
            .iter()
            .any(|(name, known)| **name != *host && known.state(now) == HostState::Up && !known.value.blind)
    }

    /// Every host, by name, with those that were members before this daemon was started. A host that is down and no member
    /// was forgotten.
    pub(super) fn statuses(
        &self,
        fingerprint: &str,
        leader: Option<&str>,
        assignment: Option<&Assignment>,
        now: Moment,
    ) -> Vec<HostStatus> {
        let is_listed = |(name, known): &(&Arc<str>, &Known)| {
            let is_member = assignment.is_none_or(|assignment| assignment.members.contains_key(*name));
            is_member || known.state(now) != HostState::Down
        };
        let status = |(name, known): (&Arc<str>, &Known)| {
            let state = known.state(now);
            let is_down = state == HostState::Down;
            let draining = assignment.and_then(|assignment| assignment.draining.get(name));
            HostStatus {
                name: name.to_string(),
                state,
                leader: leader == Some(&**name) && !is_down,
                version: known.value.version.clone(),
                since: if is_down { known.heard.1 } else { known.value.since },
                shards: if is_down { Vec::new() } else { known.value.shards.clone() },
                sinks: if is_down { Vec::new() } else { known.value.sinks.clone() },
                draining: !is_down && draining == Some(&known.value.holder.run),
                file_differs: known.value.fingerprint != fingerprint,
                forward_lag: known.value.forward_lag,
            }
        };
        let mut statuses: Vec<HostStatus> = self.known.iter().filter(is_listed).map(status).collect();
        let members = assignment.into_iter().flat_map(|assignment| &assignment.members);
        for (name, member) in members.filter(|(name, _)| !self.known.contains_key(*name)) {
            // A member that is alive is known within half a second.
            let Some(since) = member.down_since else { continue };
            statuses.push(HostStatus {
                name: name.to_string(),
                state: HostState::Down,
                leader: false,
                version: member.version.clone(),
                since,
                shards: Vec::new(),
                sinks: Vec::new(),
                forward_lag: 0,
                draining: false,
                file_differs: false,
            });
        }
        statuses.sort_by(|one, other| one.name.cmp(&other.name));
        statuses
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(instance: &str, fingerprint: &str, leaving: bool) -> HostValue {
        HostValue {
            holder: Holder { instance: instance.into(), run: "p".into() },
            version: "1".into(),
            fingerprint: fingerprint.into(),
            since: Timestamp::from_unix_millis(1_000),
            leaving,
            blind: false,
            shards: vec![0],
            sinks: vec!["log".into()],
            formats: vec![ASSIGN.into()],
            forward_lag: 0,
            sockets: SocketsValue::default(),
            handed_over: Vec::new(),
        }
    }

    fn at(seconds: u64) -> (Moment, Timestamp) {
        (Duration::from_secs(seconds), Timestamp::from_unix_millis(seconds * 1_000))
    }

    #[test]
    fn a_host_is_up_until_its_key_ends_or_it_is_silent() {
        let mut hosts = Hosts::default();
        hosts.handle_value("a", 1, value("1", "same", false), true, at(10));
        hosts.handle_value("b", 2, value("2", "other", true), false, at(10));
        let states = |hosts: &Hosts, seconds| -> Vec<_> {
            let all = hosts.statuses("same", Some("a"), None, at(seconds).0);
            all.into_iter().map(|host| (host.state, host.leader, host.file_differs)).collect()
        };
        let up = (HostState::Up, true, false);
        assert_eq!(states(&hosts, 11), [up, (HostState::Leaving, false, true)]);
        assert_eq!(hosts.differing("same", at(11).0), ["b"]);
        hosts.handle_end("b", 3);
        assert_eq!(states(&hosts, 11), [up, (HostState::Down, false, true)]);
        assert!(hosts.differing("same", at(11).0).is_empty(), "a host that is down changes nothing");
        assert_eq!(states(&hosts, 30), [(HostState::Down, false, false), (HostState::Down, false, true)]);
        assert_eq!(hosts.statuses("same", None, None, at(30).0)[0].since, at(10).1);
    }

    /// Writes the keys of both hosts each half second; `a` is this host.
    fn signs(hosts: &mut Hosts, revision: &mut u64, now: &mut Moment, rounds: u64, is_b_there: bool) {
        for _ in 0..rounds {
            *now += Duration::from_millis(500);
            let at = (*now, Timestamp::from_unix_millis(0));
            for (name, is_own) in [("a", true), ("b", false)] {
                if is_own || is_b_there {
                    *revision += 1;
                    hosts.handle_value(name, *revision, value(name, "f", false), is_own, at);
                }
            }
        }
    }

    #[test]
    fn a_host_is_dead_after_six_signs_of_this_one_and_not_by_time_alone() {
        let (mut hosts, mut revision, mut now) = (Hosts::default(), 0, Duration::from_secs(1));
        let fits = |hosts: &Hosts, lost: &[&str], now| {
            let lost = lost.iter().map(|name| Arc::from(*name)).collect();
            hosts.fits(&BTreeMap::new(), &lost, now).len()
        };
        signs(&mut hosts, &mut revision, &mut now, 3, true);
        signs(&mut hosts, &mut revision, &mut now, 2, false);
        assert_eq!(fits(&hosts, &["b"], now), 2, "the last sign is a second old");
        assert_eq!(fits(&hosts, &["b"], now + Duration::from_millis(200)), 1, "Twitch has lost its shard");
        // A minute without NATS, or in which this process was stopped.
        now += Duration::from_secs(60);
        assert_eq!(fits(&hosts, &[], now), 2);
        signs(&mut hosts, &mut revision, &mut now, 3, false);
        assert_eq!(fits(&hosts, &[], now), 2);
        signs(&mut hosts, &mut revision, &mut now, 1, false);
        assert_eq!((fits(&hosts, &[], now), hosts.has_old()), (1, false));
        assert!(hosts.alive_value("b").is_none() && hosts.alive_value("a").is_some());
        // The host is back, and has to be up for a while before more is moved to it.
        signs(&mut hosts, &mut revision, &mut now, 1, true);
        assert_eq!(hosts.fits(&BTreeMap::new(), &BTreeSet::new(), now)["b"], Fitness::Fresh);
        signs(&mut hosts, &mut revision, &mut now, 60, true);
        assert_eq!(hosts.fits(&BTreeMap::new(), &BTreeSet::new(), now)["b"], Fitness::Stable);
        let draining = [("b".into(), "p".to_owned()), ("a".into(), "an earlier process".to_owned())].into();
        let fits = hosts.fits(&draining, &BTreeSet::new(), now);
        assert_eq!((fits["a"], fits["b"]), (Fitness::Stable, Fitness::Draining));
    }

    #[test]
    fn signs_of_this_host_that_come_at_once_count_as_one() {
        let (mut hosts, mut revision, mut now) = (Hosts::default(), 0, Duration::from_secs(1));
        signs(&mut hosts, &mut revision, &mut now, 1, true);
        // The watch was stopped for a while, or many facts have changed.
        for _ in 0..20 {
            revision += 1;
            hosts.handle_value(
                "a",
                revision,
                value("a", "f", false),
                true,
                (now, Timestamp::from_unix_millis(0)),
            );
        }
        assert!(hosts.alive_value("b").is_some());
    }

    #[test]
    fn a_host_makes_room_only_for_one_that_may_reach_twitch() {
        let mut hosts = Hosts::default();
        hosts.handle_value("a", 1, value("1", "same", false), true, at(10));
        assert!(!hosts.another_may_lead("a", at(10).0), "it is alone");
        hosts.handle_value("b", 2, HostValue { blind: true, ..value("2", "same", false) }, false, at(10));
        hosts.handle_value("c", 3, value("3", "same", true), false, at(10));
        assert!(!hosts.another_may_lead("a", at(10).0), "one is blind, one is leaving");
        hosts.handle_value("d", 4, value("4", "same", false), false, at(10));
        assert!(hosts.another_may_lead("a", at(10).0));
        hosts.handle_end("d", 5);
        assert!(!hosts.another_may_lead("a", at(10).0));
    }

    proptest! {
        /// Messages that come late or twice change nothing: the newest revision counts.
        #[test]
        fn only_the_newest_revision_counts(order in Just((1_u64..12).collect::<Vec<_>>()).prop_shuffle()) {
            let mut hosts = Hosts::default();
            hosts.handle_value("a", 0, value("1", "0", false), false, at(1));
            for revision in order {
                if revision % 3 == 0 {
                    hosts.handle_end("a", revision);
                } else {
                    hosts.handle_value("a", revision, value("1", &revision.to_string(), false), false, at(1));
                }
            }
            let last = &hosts.statuses("11", None, None, at(1).0)[0];
            prop_assert_eq!((last.state, last.file_differs), (HostState::Up, false));
        }
    }
}
