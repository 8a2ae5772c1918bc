//! Sinks that wait, since they are pinned to a host that is not there. ◆

use crate::model::cluster::{ClusterStatus, HostState};
use crate::model::sink::SinkName;
use crate::model::status::Problem;

/// Returns what is wrong with these sinks and the hosts that they are pinned to. Says nothing while the other hosts may
/// not be known.
pub(super) fn problems<'a>(
    pins: impl Iterator<Item = (&'a SinkName, &'a str)>,
    cluster: &ClusterStatus,
) -> Vec<Problem> {
    if !cluster.connected || cluster.leader.is_none() {
        return Vec::new();
    }
    let problem = |(name, host): (&SinkName, &str)| {
        let (why, hint) = match cluster.hosts.iter().find(|known| known.name == host) {
            Some(known) if known.state == HostState::Down => (
                "which is down",
                format!("start eventsubd on {host}, or set `host` in `[sink.{name}]` to another host"),
            ),
            Some(_) => return None,
            None => (
                "and no host has that name",
                format!(
                    "set `host` in `[sink.{name}]` to a host that `eventsubd hosts` lists, or start {host}"
                ),
            ),
        };
        Some(Problem {
            part: format!("sink {name}"),
            message: format!("it is pinned to {host}, {why}: its events wait for that host"),
            hint,
        })
    };
    pins.filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::model::example;

    fn text(pins: &[(&str, &str)], cluster: &ClusterStatus) -> String {
        let names: Vec<SinkName> = pins.iter().map(|(name, _)| SinkName::new(*name)).collect();
        let found = problems(names.iter().zip(pins).map(|(name, (_, host))| (name, *host)), cluster);
        found.iter().map(|found| format!("{}: {}\n  {}\n", found.part, found.message, found.hint)).collect()
    }

    #[test]
    fn a_sink_whose_host_is_not_there_is_a_problem() {
        let mut cluster = example::status().cluster.expect("a cluster");
        let pins = [("up", "web-1"), ("log", "web-3"), ("out", "web-9")];
        expect![[r#"
            sink log: it is pinned to web-3, which is down: its events wait for that host
              start eventsubd on web-3, or set `host` in `[sink.log]` to another host
            sink out: it is pinned to web-9, and no host has that name: its events wait for that host
              set `host` in `[sink.out]` to a host that `eventsubd hosts` lists, or start web-9
        "#]]
        .assert_eq(&text(&pins, &cluster));
        cluster.leader = None;
        assert_eq!(text(&pins, &cluster), "", "the other hosts may not be known yet");
    }
}
