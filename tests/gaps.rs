//! Gaps told truly: each cause against a ledger of what was sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use common::{Home, Process, Running, WAIT, command, converged, ids, output, port, quick, text, tuning};
use eventsubd::admin::Control;
use eventsubd::model::status::{GapReason, SubscriptionState};
use eventsubd::model::time::Timestamp;
use eventsubd::sandbox::{Fault, Route};
use rustix::process::Signal;
use serde_json::Value;

const CHANNELS: [&str; 6] = ["ann", "bob", "cat", "dan", "eva", "fay"];
/// The keepalive of [`quick`], how often its daemon looks at the shards, the allowance, and a busy machine.
const SLACK: Duration = Duration::from_millis(1_000 + 600 + 1_000 + 1_000);
/// How often the time of the last known delivery is stored.
const KEEP: Duration = Duration::from_secs(5);

fn file() -> String {
    let names: Vec<String> = CHANNELS.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        // The events of a catch-up would take the place of the real ones that come a little later.
        "[catch_up]\nstreams = false\n\n[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [{}]\n\n[sink.out]\ntype = \"stdout\"\n",
        names.join(", ")
    )
}

/// A message that was sent, and when. No shard took it if the id is `None`.
#[derive(Default)]
struct Ledger(Vec<(SystemTime, Option<String>)>);

/// A gap as it was told.
#[derive(Clone, Debug)]
struct Told {
    from: SystemTime,
    to: SystemTime,
    event: Value,
}

impl Ledger {
    /// Sends an event for each channel.
    async fn send(&mut self, home: &Home) {
        for channel in CHANNELS {
            let at = SystemTime::now();
            self.0.push((at, home.sandbox.trigger("stream.online", Some(channel)).await.ok()));
        }
    }

    /// Sends until the daemon is like this, and a little longer.
    async fn send_until(&mut self, home: &Home, what: &str, mut like: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !like() {
            assert!(begun.elapsed() < WAIT, "never: {what}");
            self.send(home).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        self.send(home).await;
    }

    /// The ids of the last events, which must arrive.
    fn last(&self) -> Vec<String> {
        let last = self.0.iter().rev().take(CHANNELS.len());
        last.map(|(_, id)| id.clone().expect("everything is well again")).collect()
    }

    /// Every event that did not arrive lies in a gap; no gap begins before `from` or ends after `to`, but for what is
    /// allowed. Returns how many were lost.
    fn check(&self, arrived: &BTreeSet<String>, gaps: &[Told], from: SystemTime, to: SystemTime) -> usize {
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

fn told(lines: &[Value]) -> Vec<Told> {
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
async fn gaps_of(daemon: &Running, ledger: &Ledger, many: usize) -> (Vec<Told>, BTreeSet<String>) {
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

async fn start(home: &Home) -> (Running, Ledger) {
    home.configure(&file());
    let daemon = home.start().await;
    daemon.converged().await;
    let mut ledger = Ledger::default();
    ledger.send(home).await;
    daemon.delivered(CHANNELS.len() as u64).await;
    (daemon, ledger)
}

fn bound(daemon: &Running) -> usize {
    daemon.status().shards.iter().filter(|shard| shard.state.delivers()).count()
}

fn losses(daemon: &Running) -> u64 {
    daemon.status().shards.iter().map(|shard| shard.losses).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_socket_has_missed_events_since_its_last_frame() {
    let home = Home::new(quick()).await;
    let (daemon, mut ledger) = start(&home).await;
    let from = SystemTime::now();
    for session in home.sandbox.sessions() {
        home.sandbox.silence_session(&session);
    }
    ledger.send_until(&home, "both are back", || losses(&daemon) >= 2 && bound(&daemon) == 2).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) > 0);
    assert_eq!(gaps.len(), 1, "one cause, one gap: {gaps:#?}");
    let event = &gaps[0].event;
    assert_eq!((&event["reason"], &event["scope"]), (&"connection_lost".into(), &"conduit".into()));
    assert_eq!((&event["shards"], &event["subscriptions_total"]), (&serde_json::json!([0, 1]), &6.into()));
    let status = daemon.until("nothing is open", |status| status.gaps.open.is_none()).await;
    assert_eq!(status.gaps.told[&GapReason::ConnectionLost], 1);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_taken_has_missed_events_since_it_was_last_seen() {
    let home = Home::new(quick()).await;
    let (daemon, mut ledger) = start(&home).await;
    // A binding that is younger than ten seconds is not compared with the list.
    let begun = Instant::now();
    ledger.send_until(&home, "settled", || begun.elapsed() > Duration::from_secs(11)).await;
    let from = SystemTime::now();
    home.sandbox.seize_shard(&home.conduit(), 0);
    let taken = || daemon.status().reconcile.warnings.iter().any(|text| text.contains("another session"));
    ledger.send_until(&home, "it is noticed", taken).await;
    let ours = || home.sandbox.shards(&home.conduit())[0].2.as_deref() != Some("AgoSomebodyElse");
    ledger.send_until(&home, "it is ours again", ours).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) > 0);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(
        (&gaps[0].event["reason"], &gaps[0].event["shards"]),
        (&"shard_taken".into(), &serde_json::json!([0]))
    );
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_that_fails_is_a_gap_and_one_that_succeeds_is_none() {
    let mut options = quick();
    options.reconnect_grace = Duration::from_secs(1);
    let home = Home::new(options).await;
    let (daemon, mut ledger) = start(&home).await;
    for session in home.sandbox.sessions() {
        home.sandbox.ask_reconnect(&session);
    }
    let reconnects = || daemon.status().shards.iter().map(|shard| shard.reconnects).sum::<u64>();
    ledger.send_until(&home, "both have moved", || reconnects() == 2 && bound(&daemon) == 2).await;
    let from = SystemTime::now();
    home.sandbox.fault(Route::Connect, Fault::Reset, u32::MAX);
    for session in home.sandbox.sessions() {
        home.sandbox.ask_reconnect(&session);
    }
    ledger.send_until(&home, "both are lost", || losses(&daemon) == 2).await;
    home.sandbox.clear_faults();
    ledger.send_until(&home, "both are back", || bound(&daemon) == 2).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) > 0);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(gaps[0].event["reason"], "connection_lost");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_shard_that_twitch_disabled_has_missed_events_since_its_last_request() {
    let mut options = quick();
    options.webhook.retries = Vec::new();
    options.webhook.most_failures = 2;
    let home = Home::new(options).await;
    let port = port();
    home.configure(&format!(
        "[transport.webhook]\ncallback = \"http://127.0.0.1:{port}/eventsub\"\nlisten = \"127.0.0.1:{port}\"\n{}",
        file()
    ));
    let config = fs::read_to_string(home.path("config.toml")).unwrap();
    let config = config.replace("shards = 2\n", "shards = 2\nshard_transport = \"webhook\"\n");
    fs::write(home.path("config.toml"), config).unwrap();
    let mut tuning = tuning();
    tuning.reconcile = Some(|options| {
        options.shard_poll = (Duration::from_millis(300), Duration::from_millis(600));
        options.retry.soon.first = Duration::from_millis(300);
    });
    let daemon = Running::start(home.load(), tuning).await;
    daemon.converged().await;
    let mut ledger = Ledger::default();
    ledger.send(&home).await;
    daemon.delivered(CHANNELS.len() as u64).await;
    let from = SystemTime::now();
    home.sandbox.set_webhooks(|webhooks| webhooks.answer_limit = Duration::ZERO);
    let disabled = || {
        let shards = home.sandbox.shards(&home.conduit());
        shards.iter().any(|(_, status, _)| status == "notification_failures_exceeded")
    };
    ledger.send_until(&home, "a shard is disabled", disabled).await;
    daemon.until("it is noticed", |status| status.gaps.open.is_some()).await;
    home.sandbox.set_webhooks(|webhooks| webhooks.answer_limit = Duration::from_secs(10));
    ledger
        .send_until(&home, "both call again", || bound(&daemon) == 2 && daemon.status().gaps.open.is_none())
        .await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    ledger.check(&arrived, &gaps, from, to);
    assert!(gaps.iter().all(|gap| gap.event["reason"] == "shard_disabled"), "{gaps:#?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_vanished_tell_a_gap_of_their_own() {
    let home = Home::new(quick()).await;
    let (daemon, mut ledger) = start(&home).await;
    let from = SystemTime::now();
    let gone: Vec<_> = home.sandbox.subscriptions().into_iter().take(2).collect();
    for subscription in &gone {
        home.sandbox.remove_subscription(&subscription.id);
    }
    ledger.send(&home).await;
    daemon.handle.apply(false);
    ledger.send_until(&home, "they are there again", || home.live() == CHANNELS.len()).await;
    daemon
        .until("shown", |status| status.subscriptions.iter().all(|s| s.state == SubscriptionState::Enabled))
        .await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    // The last list that showed them is from the start.
    let listed = from.checked_sub(Duration::from_secs(30)).unwrap();
    assert!(ledger.check(&arrived, &gaps, listed, to) >= 2);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    let event = &gaps[0].event;
    assert_eq!((&event["reason"], &event["subscriptions_total"]), (&"subscription_gone".into(), &2.into()));
    let listed: BTreeSet<_> =
        event["subscriptions"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(listed.len(), 2, "{event}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conduit_that_is_gone_tells_one_gap() {
    let home = Home::new(quick()).await;
    let (daemon, mut ledger) = start(&home).await;
    let (from, old) = (SystemTime::now(), home.conduit());
    home.sandbox.delete_conduit(&old);
    ledger.send(&home).await;
    daemon.handle.apply(false);
    let is_back =
        || home.live() == CHANNELS.len() && bound(&daemon) == 2 && daemon.status().gaps.open.is_none();
    ledger.send_until(&home, "another one serves", is_back).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) > 0);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(
        (&gaps[0].event["reason"], &gaps[0].event["scope"]),
        (&"conduit_replaced".into(), &"conduit".into())
    );
    daemon.end().await;
}

/// Every line that the program's sink got.
fn lines(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(home.path("stdout.log")).unwrap();
    // The last line may be half there.
    let (text, _) = text.rsplit_once('\n').unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn gaps_of_program(home: &Home, ledger: &Ledger, many: usize) -> (Vec<Told>, BTreeSet<String>) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_a_crash_and_a_process_that_stood_still_are_gaps_of_their_true_length() {
    let home = Home::new(quick()).await;
    home.configure(&file());
    let mut program = Process::start(&home, "info");
    converged(&home).await;
    let mut ledger = Ledger::default();
    ledger.send(&home).await;

    // A stop. Its last look tells how long the shards were ours.
    let from = SystemTime::now();
    program.signal(Signal::TERM);
    assert!(program.ended().await.success());
    ledger.send(&home).await;
    let mut program = Process::start(&home, "info");
    converged(&home).await;
    let to = SystemTime::now();
    ledger.send(&home).await;
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) >= CHANNELS.len());
    assert_eq!(gaps[0].event["reason"], "daemon_stopped");

    // A crash forgets what was learned since the last time was stored.
    let mut ledger = Ledger::default();
    let begun = Instant::now();
    ledger.send_until(&home, "something is stored", || begun.elapsed() > KEEP).await;
    let from = SystemTime::now();
    program.signal(Signal::KILL);
    program.ended().await;
    ledger.send(&home).await;
    let program = Process::start(&home, "info");
    converged(&home).await;
    let to = SystemTime::now();
    ledger.send(&home).await;
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 2).await;
    assert!(ledger.check(&arrived, &gaps[1..], from.checked_sub(KEEP * 2).unwrap(), to) >= CHANNELS.len());
    assert_eq!(gaps[1].event["reason"], "daemon_stopped");

    // The process stands still for longer than a callback may, and Twitch gives its sockets up.
    let mut ledger = Ledger::default();
    ledger.send(&home).await;
    let from = SystemTime::now();
    program.signal(Signal::STOP);
    for session in home.sandbox.sessions() {
        home.sandbox.kill_session(&session);
    }
    let begun = Instant::now();
    ledger.send_until(&home, "long enough", || begun.elapsed() > Duration::from_secs(7)).await;
    program.signal(Signal::CONT);
    converged(&home).await;
    let to = SystemTime::now();
    ledger.send(&home).await;
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 3).await;
    assert!(ledger.check(&arrived, &gaps[2..], from, to) >= CHANNELS.len());
    assert_eq!(gaps[2].event["reason"], "daemon_paused");
    let answer = output(command(&home, &["events", "--json", "--type", "eventsubd.gap"])).await;
    assert_eq!(text(&answer.stdout).lines().count(), 3);
}
