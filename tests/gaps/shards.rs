//! Causes with a conduit: sockets, webhook shards, subscriptions, the conduit itself.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use eventsubd::admin::Control;
use eventsubd::model::status::{GapReason, SubscriptionState};
use eventsubd::sandbox::{Fault, Route};

use crate::common::{Home, Running, port, quick, tuning};
use crate::ledger::{CHANNELS, Ledger, file, gaps_of};

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
async fn one_silent_socket_of_two_is_a_gap_too() {
    let home = Home::new(quick()).await;
    let (daemon, mut ledger) = start(&home).await;
    let from = SystemTime::now();
    home.sandbox.silence_session(&home.sandbox.sessions()[0]);
    ledger.send_until(&home, "it is back", || losses(&daemon) >= 1 && bound(&daemon) == 2).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) > 0);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    let event = &gaps[0].event;
    assert_eq!((&event["reason"], &event["scope"]), (&"connection_lost".into(), &"conduit".into()));
    assert_eq!(event["shards"].as_array().map(Vec::len), Some(1), "{event}");
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
