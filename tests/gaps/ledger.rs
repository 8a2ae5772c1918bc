//! The ledger of what was sent, and the gaps that it is compared with.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use eventsubd::model::time::Timestamp;
use serde_json::Value;

use crate::common::{Home, Running, WAIT, ids, text};

pub(crate) const CHANNELS: [&str; 6] = ["ann", "bob", "cat", "dan", "eva", "fay"];
/// The keepalive of [`quick`], how often its daemon looks at the shards, the allowance, and a busy machine.
pub(crate) const SLACK: Duration = Duration::from_millis(1_000 + 600 + 1_000 + 1_000);
/// How often the time of the last known delivery is stored.
pub(crate) const KEEP: Duration = Duration::from_millis(4_096);

pub(crate) fn file() -> String {
    let names: Vec<String> = CHANNELS.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        // The events of a catch-up would take the place of the real ones that come a little later.
        "[catch_up]\nstreams = false\n\n[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [{}]\n\n[sink.out]\ntype = \"stdout\"\n",
        names.join(", ")
    )
}

/// A message that was sent, and when. No shard took it if the id is `None`.
#[derive(Default)]
pub(crate) struct Ledger(pub(crate) Vec<(SystemTime, Option<String>)>);

/// A gap as it was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) from: SystemTime,
    pub(crate) to: SystemTime,
    pub(crate) event: Value,
}

impl Ledger {
    /// Sends an event for each channel.
    pub(crate) async fn send(&mut self, home: &Home) {
        for channel in CHANNELS {
            let at = SystemTime::now();
            self.0.push((at, home.sandbox.trigger("stream.online", Some(channel)).await.ok()));
        }
    }

    /// Sends until the daemon is like this, and a little longer.
    pub(crate) async fn send_until(&mut self, home: &Home, what: &str, mut like: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !like() {
            assert!(begun.elapsed() < WAIT, "never: {what}");
            self.send(home).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        self.send(home).await;
    }

    /// The ids of the last events, which must arrive.
    pub(crate) fn last(&self) -> Vec<String> {
        let last = self.0.iter().rev().take(CHANNELS.len());
        last.map(|(_, id)| id.clone().expect("everything is well again")).collect()
    }

    /// Every event that did not arrive lies in a gap; no gap begins before `from` or ends after `to`, but for what is
    /// allowed. Returns how many were lost.
    pub(crate) fn check(
        &self,
        arrived: &BTreeSet<String>,
        gaps: &[Told],
        from: SystemTime,
        to: SystemTime,
    ) -> usize {
        let is_lost = |id: &Option<String>| id.as_ref().is_none_or(|id| !arrived.contains(id));
        let lost: Vec<_> = self.0.iter().filter(|(_, id)| is_lost(id)).map(|(at, _)| *at).collect();
        for at in &lost {
            assert!(
                gaps.iter().any(|gap| gap.from <= *at && *at <= gap.to),
                "an event at {} was lost outside of {gaps:#?}",
                Timestamp(*at)
            );
        }
        for gap in gaps {
            assert!(
                gap.from <= gap.to && gap.from + SLACK >= from,
                "too early for {}: {gap:#?}",
                Timestamp(from)
            );
            assert!(gap.to <= to + SLACK, "too late for {}: {gap:#?}", Timestamp(to));
        }
        lost.len()
    }
}

pub(crate) fn told(lines: &[Value]) -> Vec<Told> {
    let gaps = lines.iter().filter(|line| line["metadata"]["subscription_type"] == "eventsubd.gap");
    let time = |value: &Value| Timestamp::parse(value.as_str().unwrap()).unwrap().0;
    gaps.map(|line| {
        let event = line["payload"]["event"].clone();
        Told { from: time(&event["from"]), to: time(&event["to"]), event }
    })
    .collect()
}

/// Waits until so many gaps, and the events that were sent last, have reached the sink; returns the gaps with the ids of
/// everything that has.
pub(crate) async fn gaps_of(daemon: &Running, ledger: &Ledger, many: usize) -> (Vec<Told>, BTreeSet<String>) {
    daemon.until("the gap is told", |_| told(&daemon.stdout.lines()).len() >= many).await;
    let last = ledger.last();
    daemon
        .until("the last events are there", |_| {
            let arrived = daemon.stdout.ids();
            last.iter().all(|id| arrived.contains(id))
        })
        .await;
    let lines = daemon.stdout.lines();
    (told(&lines), daemon.stdout.ids().into_iter().collect())
}

/// Every line that the program's sink got.
pub(crate) fn lines(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(home.path("stdout.log")).unwrap();
    // The last line may be half there.
    let (text, _) = text.rsplit_once('\n').unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) async fn gaps_of_program(
    home: &Home,
    ledger: &Ledger,
    many: usize,
) -> (Vec<Told>, BTreeSet<String>) {
    let begun = Instant::now();
    let is_there = |id: &String| text(&fs::read(home.path("stdout.log")).unwrap()).contains(id.as_str());
    while told(&lines(home)).len() < many || !ledger.last().iter().all(is_there) {
        let log = fs::read_to_string(home.path("stderr.log")).unwrap();
        assert!(begun.elapsed() < WAIT, "never told: {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let arrived = ids(&fs::read(home.path("stdout.log")).unwrap()).into_iter().collect();
    (told(&lines(home)), arrived)
}
