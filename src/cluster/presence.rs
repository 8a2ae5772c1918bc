//! The hosts of the cluster, from their keys in the bucket. ◆

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lease::{Holder, Moment};
use crate::model::cluster::{HostState, HostStatus};
use crate::model::time::Timestamp;

/// Time without a sign of life after which a host counts as down even if the end of its key was not seen.
const SILENT: Duration = Duration::from_secs(15);
/// Hosts that are remembered at most.
const MAX_HOSTS: usize = 1_000;

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
    pub(super) shards: Vec<u32>,
    pub(super) sinks: Vec<String>,
}

#[derive(Clone, Debug)]
struct Known {
    value: HostValue,
    revision: u64,
    /// When its last sign of life came here, by both clocks.
    heard: (Moment, Timestamp),
    is_gone: bool,
}

impl Known {
    fn state(&self, now: Moment) -> HostState {
        match self.value.leaving {
            _ if self.is_gone || now.saturating_sub(self.heard.0) > SILENT => HostState::Down,
            true => HostState::Leaving,
            false => HostState::Up,
        }
    }
}

/// Every host that was seen since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    known: BTreeMap<String, Known>,
}

impl Hosts {
    /// Takes the value of a host's key, which comes with each sign of life.
    pub(super) fn handle_value(
        &mut self,
        name: &str,
        revision: u64,
        value: HostValue,
        (now, wall): (Moment, Timestamp),
    ) {
        if self.known.get(name).is_some_and(|known| known.revision >= revision) {
            return;
        }
        if self.known.len() >= MAX_HOSTS && !self.known.contains_key(name) {
            return;
        }
        let known = Known { value, revision, heard: (now, wall), is_gone: false };
        self.known.insert(name.to_owned(), known);
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
        self.known.iter().find(|(_, known)| is_of(known)).map(|(name, _)| name.as_str())
    }

    /// Names of the hosts that live and have another file.
    pub(super) fn differing(&self, fingerprint: &str, now: Moment) -> Vec<&str> {
        let differs =
            |known: &Known| known.state(now) != HostState::Down && known.value.fingerprint != fingerprint;
        self.known.iter().filter(|(_, known)| differs(known)).map(|(name, _)| name.as_str()).collect()
    }

    /// Every host, by name.
    pub(super) fn statuses(&self, fingerprint: &str, leader: Option<&str>, now: Moment) -> Vec<HostStatus> {
        let status = |(name, known): (&String, &Known)| {
            let state = known.state(now);
            let is_down = state == HostState::Down;
            HostStatus {
                name: name.clone(),
                state,
                leader: leader == Some(name) && !is_down,
                version: known.value.version.clone(),
                since: if is_down { known.heard.1 } else { known.value.since },
                shards: if is_down { Vec::new() } else { known.value.shards.clone() },
                sinks: if is_down { Vec::new() } else { known.value.sinks.clone() },
                file_differs: known.value.fingerprint != fingerprint,
            }
        };
        self.known.iter().map(status).collect()
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
            shards: vec![0],
            sinks: vec!["log".into()],
        }
    }

    fn at(seconds: u64) -> (Moment, Timestamp) {
        (Duration::from_secs(seconds), Timestamp::from_unix_millis(seconds * 1_000))
    }

    #[test]
    fn a_host_is_up_until_its_key_ends_or_it_is_silent() {
        let mut hosts = Hosts::default();
        hosts.handle_value("a", 1, value("1", "same", false), at(10));
        hosts.handle_value("b", 2, value("2", "other", true), at(10));
        let states = |hosts: &Hosts, seconds| -> Vec<_> {
            let all = hosts.statuses("same", Some("a"), at(seconds).0);
            all.into_iter().map(|host| (host.state, host.leader, host.file_differs)).collect()
        };
        let up = (HostState::Up, true, false);
        assert_eq!(states(&hosts, 11), [up, (HostState::Leaving, false, true)]);
        assert_eq!(hosts.differing("same", at(11).0), ["b"]);
        hosts.handle_end("b", 3);
        assert_eq!(states(&hosts, 11), [up, (HostState::Down, false, true)]);
        assert!(hosts.differing("same", at(11).0).is_empty(), "a host that is down changes nothing");
        assert_eq!(states(&hosts, 30), [(HostState::Down, false, false), (HostState::Down, false, true)]);
        assert_eq!(hosts.statuses("same", None, at(30).0)[0].since, at(10).1);
    }

    proptest! {
        /// Messages that come late or twice change nothing: the newest revision counts.
        #[test]
        fn only_the_newest_revision_counts(order in Just((1_u64..12).collect::<Vec<_>>()).prop_shuffle()) {
            let mut hosts = Hosts::default();
            hosts.handle_value("a", 0, value("1", "0", false), at(1));
            for revision in order {
                if revision % 3 == 0 {
                    hosts.handle_end("a", revision);
                } else {
                    hosts.handle_value("a", revision, value("1", &revision.to_string(), false), at(1));
                }
            }
            let last = &hosts.statuses("11", None, at(1).0)[0];
            prop_assert_eq!((last.state, last.file_differs), (HostState::Up, false));
        }
    }
}
