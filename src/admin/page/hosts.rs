//! The hosts of the cluster, as the page shows them. ◆

use serde::Serialize;

use super::level::Level;
use crate::model::cluster::{ClusterStatus, HostState, HostStatus, Role};
use crate::model::text::{count, duration};
use crate::model::time::Timestamp;

/// Hosts listed one by one; the rest is counted.
const LISTED: usize = 50;

/// The section "Hosts".
#[derive(Clone, Debug, Serialize)]
pub(super) struct Hosts {
    /// Which host this is, and which leads.
    summary: String,
    problem: Option<String>,
    hint: Option<String>,
    rows: Vec<Host>,
    more: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Host {
    name: String,
    /// Whether it is the host whose page this is.
    here: bool,
    state: &'static str,
    level: Level,
    version: String,
    since: String,
    shards: String,
    sinks: String,
    file_differs: bool,
}

/// Computes the section.
pub(super) fn hosts(cluster: &ClusterStatus, now: Timestamp) -> Hosts {
    let leader = match &cluster.leader {
        Some(leader) if *leader == cluster.host => "it leads".to_owned(),
        Some(leader) => format!("{leader} leads"),
        None if cluster.role == Role::CutOff => "it has led, and cannot reach NATS".to_owned(),
        None => "no leader is known".to_owned(),
    };
    let mut all: Vec<&HostStatus> = cluster.hosts.iter().collect();
    all.sort_by_key(|host| (!host.leader, host.state == HostState::Down));
    let more = (all.len() > LISTED).then(|| count((all.len() - LISTED) as u64));
    all.truncate(LISTED);
    Hosts {
        summary: format!("This is {}; {leader}.", cluster.host),
        problem: cluster.problem.clone(),
        hint: cluster.hint.clone(),
        rows: all.into_iter().map(|host| row(host, cluster, now)).collect(),
        more,
    }
}

fn row(host: &HostStatus, cluster: &ClusterStatus, now: Timestamp) -> Host {
    let or_dash = |text: String| if text.is_empty() { "–".to_owned() } else { text };
    Host {
        name: host.name.clone(),
        here: host.name == cluster.host,
        state: host.standing(),
        level: match host.state {
            HostState::Up => Level::Good,
            HostState::Leaving => Level::Warn,
            HostState::Down => Level::Bad,
        },
        version: host.version.clone(),
        since: duration(now.since(host.since)),
        shards: or_dash(host.shards_in_words()),
        sinks: or_dash(host.sinks.join(", ")),
        file_differs: host.file_differs && host.state != HostState::Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;

    #[test]
    fn the_leader_comes_first_and_hosts_that_are_down_last() {
        let status = example::status();
        let mut cluster = status.cluster.expect("the example has one");
        cluster.hosts.reverse();
        let section = hosts(&cluster, status.now);
        assert_eq!(section.summary, "This is web-1; it leads.");
        assert_eq!(section.problem, cluster.problem);
        let rows: Vec<_> = section
            .rows
            .iter()
            .map(|host| (&*host.name, host.here, host.state, host.level, host.file_differs))
            .collect();
        assert_eq!(
            rows,
            [
                ("web-1", true, "leads", Level::Good, false),
                ("web-2", false, "stands by", Level::Good, true),
                ("web-3", false, "down", Level::Bad, false),
            ]
        );
        assert_eq!((&*section.rows[0].shards, &*section.rows[0].since), ("0, 1", "1 day 2 h"));
    }

    #[test]
    fn the_summary_says_who_leads() {
        let now = example::now();
        let summary = |role, leader: Option<&str>| {
            let (host, leader) = ("a".to_owned(), leader.map(str::to_owned));
            hosts(&ClusterStatus { host, role, leader, ..ClusterStatus::default() }, now).summary
        };
        assert_eq!(summary(Role::Standby, Some("b")), "This is a; b leads.");
        assert_eq!(summary(Role::Standby, None), "This is a; no leader is known.");
        assert_eq!(summary(Role::CutOff, None), "This is a; it has led, and cannot reach NATS.");
    }

    #[test]
    fn many_hosts_are_counted() {
        let status = example::status();
        let mut cluster = status.cluster.expect("the example has one");
        let host = cluster.hosts[1].clone();
        cluster.hosts = vec![host; LISTED + 1_000];
        let section = hosts(&cluster, status.now);
        assert_eq!((section.rows.len(), section.more.as_deref()), (LISTED, Some("1,000")));
    }
}
