//! The process stops, crashes, or stands still.

use std::time::{Duration, Instant, SystemTime};

use eventsubd::sandbox::{Fault, Route};
use rustix::process::Signal;

use crate::common::{Home, Process, command, converged, output, quick, text};
use crate::ledger::{CHANNELS, KEEP, Ledger, file, gaps_of_program};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_vanished_while_the_daemon_was_stopped_have_a_gap_until_they_are_made() {
    let home = Home::new(quick()).await;
    home.configure(&file());
    let mut program = Process::start(&home, "info");
    converged(&home).await;
    let mut ledger = Ledger::default();
    ledger.send(&home).await;
    program.signal(Signal::TERM);
    assert!(program.ended().await.success());
    // The list is not older than the process; a clean stop knows more of the shards.
    let from = SystemTime::now().checked_sub(Duration::from_secs(10)).unwrap();
    for subscription in home.sandbox.subscriptions().into_iter().take(2) {
        home.sandbox.remove_subscription(&subscription.id);
    }
    // The shards are there at once; the subscriptions only after a while.
    home.sandbox.fault(Route::Create, Fault::Status(503, "unavailable".to_owned()), u32::MAX);
    let _program = Process::start(&home, "info");
    let begun = Instant::now();
    let bound = || home.sandbox.sessions().len() == 2;
    ledger
        .send_until(&home, "the shards are bound", || bound() && begun.elapsed() > Duration::from_secs(4))
        .await;
    home.sandbox.clear_faults();
    converged(&home).await;
    assert_eq!(home.live(), CHANNELS.len());
    let to = SystemTime::now();
    ledger.send(&home).await;
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 2).await;
    ledger.check(&arrived, &gaps, from, to);
    let gone: Vec<_> = gaps.iter().filter(|gap| gap.event["reason"] == "subscription_gone").collect();
    assert_eq!((gone.len(), &gone[0].event["subscriptions_total"]), (1, &2.into()), "{gaps:#?}");
}
