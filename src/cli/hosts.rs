//! `eventsubd hosts`: the hosts of the cluster, as the daemon on this one sees them, and what a person wants of them.

use serde::Serialize;

use super::args::{Args, HostsArgs, HostsCommand};
use super::control::{Connection, block_on, parse};
use super::term::{self, Failure, masked};
use crate::admin::Refused;
use crate::model::cluster::HostStatus;
use crate::model::text::duration;
use crate::model::time::Timestamp;

#[derive(Serialize)]
struct Document<'a> {
    hosts: &'a [HostStatus],
}

/// `eventsubd hosts`
pub(super) fn run(args: &Args, flags: &HostsArgs) -> Result<u8, Failure> {
    match &flags.command {
        None => list(args, flags),
        Some(HostsCommand::Drain { undo: false, name }) => change(args, "drain", name.as_deref()),
        Some(HostsCommand::Drain { undo: true, name }) => change(args, "undrain", name.as_deref()),
        Some(HostsCommand::Forget { name }) => change(args, "forget", Some(name)),
    }
}

/// Asks the leader to change what is known of a host.
fn change(args: &Args, what: &str, host: Option<&str>) -> Result<u8, Failure> {
    let (status, body) = block_on(async {
        let connection = Connection::open(args).await?;
        let cluster = connection.status().await?.cluster.ok_or_else(works_alone)?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("host", host.unwrap_or(&cluster.host));
        connection.post(&format!("/hosts/{what}?{}", query.finish())).await
    })?;
    if !status.is_success() {
        return Err(Failure::new(parse::<Refused>(&body)?.error));
    }
    args.say(&parse::<String>(&body)?);
    Ok(0)
}

fn works_alone() -> Failure {
    Failure::new("this daemon works alone: its configuration has no `[cluster]`")
        .hint("docs/several-hosts.md says how hosts are joined")
}

fn list(args: &Args, flags: &HostsArgs) -> Result<u8, Failure> {
    let status = block_on(async { Connection::open(args).await?.status().await })?;
    let cluster = status.cluster.ok_or_else(works_alone)?;
    if flags.json {
        return term::write_json(&Document { hosts: &cluster.hosts });
    }
    if let Some(problem) = &cluster.problem {
        args.say(&format!("error: {problem}; the hosts are as they were last seen"));
    }
    args.print(&table(&cluster.hosts, status.now))
}

fn table(hosts: &[HostStatus], now: Timestamp) -> String {
    let head = ["HOST", "STATE", "VERSION", "FOR", "SHARDS", "SINKS", "FILE", "LAG"].map(str::to_owned);
    let rows = hosts.iter().map(|host| row(host, now));
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(&masked(cells.join("  ").trim_end()));
        text.push('\n');
    }
    text
}

fn row(host: &HostStatus, now: Timestamp) -> [String; 8] {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [
        host.name.clone(),
        host.standing().to_owned(),
        host.version.clone(),
        duration(now.since(host.since)),
        or_dash(host.shards_in_words()),
        or_dash(host.sinks.join(", ")),
        if host.file_differs { "differs" } else { "same" }.to_owned(),
        host.forward_lag.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::model::example;

    #[test]
    fn hosts_are_a_table() {
        let status = example::status();
        let cluster = status.cluster.expect("the example has one");
        expect![[r#"
            HOST   STATE      VERSION  FOR        SHARDS  SINKS  FILE     LAG
            web-1  leads      0.1.0    1 day 2 h  0, 1    log    same     0
            web-2  stands by  0.1.0    1 h        0, 1    log    differs  0
            web-3  down       0.1.0    1 min      0, 1    log    same     12
        "#]]
        .assert_eq(&table(&cluster.hosts, status.now));
    }
}
