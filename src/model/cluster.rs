//! Several hosts with one file: settings, and which of them leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::sink::SinkName;
use super::time::Timestamp;

/// Settings of `[cluster]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Addresses of the NATS servers, separated by commas; may hold a login.
    pub nats: Secret,
    /// Text of a NATS credentials file.
    pub credentials: Option<Secret>,
    /// Name of the bucket: several clusters can share one NATS.
    pub name: String,
    /// Name of this host.
    pub host: String,
    /// Copies of the bucket. `None` means 3 with three servers or more, else 1.
    pub replicas: Option<usize>,
}

/// The part that this host plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Another host leads, or none: this one writes nothing to Twitch.
    #[default]
    Standby,
    /// This host alone talks to Twitch.
    Leader,
    /// This host has led, cannot reach NATS, and does not know of a successor. It keeps its sockets and changes nothing at
    /// Twitch.
    CutOff,
}

/// Orders for the parts that only the leader runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub role: Role,
    /// Number of the term: another one if another host may have led in between.
    pub term: u64,
    /// Why nothing may be deleted at Twitch; `None` if deletes are allowed.
    pub no_deletes: Option<Box<str>>,
    /// Count of changes of the remembered values by other hosts.
    pub known: u64,
    /// Fingerprint of the file of this host that `no_deletes` was worked out for.
    pub fingerprint: Box<str>,
    /// Hosts that count for the number of shards: each from ten minutes after it came until it is forgotten.
    pub hosts: u32,
}

/// The work of the cluster, as its leader has divided it between the hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// The lease under which the leader has written it; 0 until one is known.
    pub epoch: u64,
    /// The revision in the bucket: a newer one replaces an older one.
    pub revision: u64,
    pub conduit_id: Option<Arc<str>>,
    /// The host of each shard that has a WebSocket.
    pub shards: Arc<BTreeMap<u32, Arc<str>>>,
    /// The host of each sink. A sink that is pinned to a host which is down has none.
    pub sinks: Arc<BTreeMap<SinkName, Arc<str>>>,
    /// Whether a host whose release knows no assignment is up. Such a host works all its sinks by itself, so all hosts
    /// have to; if it leads, it binds all shards to itself, and nothing is assigned.
    pub has_old_hosts: bool,
}

impl Assigned {
    /// Numbers of the shards of a host, in order.
    pub fn shards_of(&self, host: &str) -> impl Iterator<Item = u32> {
        self.shards.iter().filter(move |(_, of)| &***of == host).map(|(shard, _)| *shard)
    }

    /// Whether the sink is assigned to this host.
    pub fn has_sink(&self, host: &str, name: &SinkName) -> bool {
        self.sinks.get(name).is_some_and(|of| &**of == host)
    }
}

/// A request to the leader of the cluster, or to the host that works a sink, from any host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaderRequest {
    Host(HostRequest),
    Daemon(DaemonRequest),
}

impl LeaderRequest {
    /// The sink whose host the request is for. `None` means that it is for the leader.
    pub fn sink(&self) -> Option<&SinkName> {
        match self {
            Self::Daemon(DaemonRequest::Sink(request)) => Some(request.sink()),
            Self::Daemon(DaemonRequest::Apply { .. } | DaemonRequest::Status) | Self::Host(_) => None,
        }
    }
}

/// A request about one host, which the leader writes down for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRequest {
    /// Has the host hand over its work; it stays up.
    Drain { host: String },
    /// Ends that.
    Undrain { host: String },
    /// Removes a host that is down from the list of hosts.
    Forget { host: String },
}

/// A request that the daemon of the leader carries out, or that of the host which works a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonRequest {
    /// Compares the file with Twitch now.
    Apply {
        allow_deletes: bool,
    },
    /// Returns the status.
    Status,
    Sink(SinkRequest),
}

/// A request to the worker of a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkRequest {
    /// Moves the event that holds up the sink to its dead letters.
    Skip { sink: SinkName },
    /// Retries the waiting events now.
    Retry { sink: SinkName },
    /// Has the worker look for dead letters that are to be sent again.
    Resend { sink: SinkName },
}

impl SinkRequest {
    pub fn sink(&self) -> &SinkName {
        match self {
            Self::Skip { sink } | Self::Retry { sink } | Self::Resend { sink } => sink,
        }
    }
}

/// State of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Writes its presence in time.
    Up,
    /// Has announced that it is stopping.
    Leaving,
    /// Has not written its presence for a while.
    Down,
}

impl HostState {
    pub const ALL: [Self; 3] = [Self::Up, Self::Leaving, Self::Down];

    /// Name in lists and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Leaving => "leaving",
            Self::Down => "down",
        }
    }
}

/// Work of the forwarder, which copies the events of this host to the shared log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// Events that this host has stored, and that the shared log does not have yet.
    pub lag_events: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: u64,
    /// Events acknowledged since the start.
    pub forwarded: u64,
    /// Events that are too large for NATS; they are kept in this host's store.
    pub too_large: u64,
    /// Events that retention removed before the shared log had them, ever.
    pub lost: u64,
    /// When the shared log was found without the newest of its events, and got them again, since the start.
    pub tail_lost: Option<Timestamp>,
    /// The last failure, until an attempt succeeds.
    pub problem: Option<String>,
}

/// A host of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    pub name: String,
    pub state: HostState,
    pub leader: bool,
    /// Version of the daemon.
    pub version: String,
    /// Start of the daemon; for a host that is down, the time of its last sign of life.
    pub since: Timestamp,
    /// Numbers of the shards whose sockets it has.
    pub shards: Vec<u32>,
    /// Names of the sinks that it works.
    pub sinks: Vec<String>,
    /// Whether it hands its work over, or has done so, because a person wants it to.
    #[serde(default)]
    pub draining: bool,
    /// Whether its file is another one than that of the host which says so.
    pub file_differs: bool,
    /// Events that it has stored, and that the shared log did not have at its last sign of life.
    #[serde(default)]
    pub forward_lag: u64,
}

impl HostStatus {
    /// Returns what the host does, in a word or two.
    pub fn standing(&self) -> &'static str {
        match (self.state, self.leader) {
            (HostState::Up, true) => "leads",
            (HostState::Up, false) if self.draining => "drained",
            (HostState::Up, false) => "stands by",
            (state, _) => state.name(),
        }
    }

    /// The numbers of its shards, the first few if there are many; empty if it has none.
    pub fn shards_in_words(&self) -> String {
        let shards: Vec<String> = self.shards.iter().take(5).map(u32::to_string).collect();
        let more = if self.shards.len() > shards.len() { ", …" } else { "" };
        format!("{}{more}", shards.join(", "))
    }
}

/// State of the cluster, as this host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// `cluster.name`.
    pub name: String,
    /// Name of this host.
    pub host: String,
    pub role: Role,
    /// Name of the leader, if one is known.
    pub leader: Option<String>,
    /// Whether NATS answers.
    pub connected: bool,
    /// Version of the NATS server.
    pub nats_version: Option<String>,
    /// Times that this host became the leader.
    pub takeovers: u64,
    /// Every host that was seen since the start, by name.
    pub hosts: Vec<HostStatus>,
    /// The forwarder of this host.
    #[serde(default)]
    pub forward: ForwardStatus,
    /// Why nothing is deleted at Twitch; `None` if deletes are allowed.
    pub no_deletes: Option<String>,
    /// Current problem.
    pub problem: Option<String>,
    /// Advice about `problem`.
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_work_that_names_it() {
        let assigned = Assigned {
            shards: Arc::new([(0, "a".into()), (1, "b".into()), (4, "a".into())].into()),
            sinks: Arc::new([(SinkName::new("log"), "b".into())].into()),
            ..Assigned::default()
        };
        assert_eq!(assigned.shards_of("a").collect::<Vec<_>>(), [0, 4]);
        assert_eq!(assigned.shards_of("c").count(), 0);
        assert!(
            assigned.has_sink("b", &SinkName::new("log")) && !assigned.has_sink("a", &SinkName::new("log"))
        );
        assert!(!assigned.has_sink("b", &SinkName::new("other")));
    }
}
