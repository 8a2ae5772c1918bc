//! Causes with plain webhooks, where Twitch calls for each subscription.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use eventsubd::admin::Control;
use eventsubd::model::status::SubscriptionState;
use eventsubd::sandbox::SandboxOptions;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::common::{
    Home, Process, Running, WAIT, command, converged, output, port, quick, status, subscriptions, text,
};
use crate::ledger::{CHANNELS, KEEP, Ledger, file, gaps_of, gaps_of_program};

/// Twitch tries a message once, and gives a subscription up at the first one that fails.
fn strict() -> SandboxOptions {
    let mut options = quick();
    (options.webhook.retries, options.webhook.most_failures) = (Vec::new(), 1);
    options
}

/// The file for a callback at the one port and a listener at the other.
fn webhooks(public: u16, inside: u16) -> String {
    format!(
        "[transport]\nmethod = \"webhook\"\n\n[transport.webhook]\n\
         callback = \"http://127.0.0.1:{public}/eventsub\"\nlisten = \"127.0.0.1:{inside}\"\n\n{}",
        file()
    )
}

/// A proxy in front of the callback.
struct Proxy(JoinHandle<()>);

impl Proxy {
    async fn start(public: u16, inside: u16) -> Self {
        let begun = Instant::now();
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", public)).await {
                Ok(listener) => break listener,
                Err(error) => assert!(begun.elapsed() < WAIT, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Self(tokio::spawn(async move {
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((mut outer, _)) = listener.accept().await {
                passing.spawn(async move {
                    if let Ok(mut inner) = TcpStream::connect(("127.0.0.1", inside)).await {
                        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                    }
                });
            }
        }))
    }

    /// Goes away, with every connection.
    async fn end(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

async fn start(home: &Home) -> (Running, Ledger) {
    let daemon = home.start().await;
    daemon.converged().await;
    let mut ledger = Ledger::default();
    ledger.send(home).await;
    daemon.delivered(CHANNELS.len() as u64).await;
    (daemon, ledger)
}

/// Has Twitch's list read.
async fn compare(daemon: &Running) {
    let before = daemon.status().reconcile.finished_at;
    daemon.handle.apply(false);
    daemon.until("compared", |status| status.reconcile.finished_at != before).await;
}

fn all_enabled(daemon: &Running) -> bool {
    daemon.status().subscriptions.iter().all(|s| s.state == SubscriptionState::Enabled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_cannot_be_reached_has_missed_events_since_its_last_request() {
    let home = Home::new(strict()).await;
    let (public, inside) = (port(), port());
    home.configure(&webhooks(public, inside));
    let proxy = Proxy::start(public, inside).await;
    let (daemon, mut ledger) = start(&home).await;
    // The last list that shows them is from here.
    let from = SystemTime::now();
    ledger.send(&home).await;
    daemon.delivered(2 * CHANNELS.len() as u64).await;
    compare(&daemon).await;
    proxy.end().await;
    ledger.send_until(&home, "Twitch gives all up", || home.live() == 0).await;
    daemon.handle.apply(false);
    let parked = || daemon.status().subscriptions.iter().all(|s| s.state == SubscriptionState::Parked);
    ledger.send_until(&home, "it is noticed", parked).await;
    let _proxy = Proxy::start(public, inside).await;
    daemon.handle.apply(false);
    ledger.send_until(&home, "they are back", || home.live() == CHANNELS.len() && all_enabled(&daemon)).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    assert!(ledger.check(&arrived, &gaps, from, to) >= CHANNELS.len());
    let event = &gaps[0].event;
    assert_eq!((&event["reason"], &event["scope"]), (&"subscription_gone".into(), &"subscriptions".into()));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_twitch_revoked_tell_a_gap_of_their_own() {
    let home = Home::new(strict()).await;
    let port = port();
    home.configure(&webhooks(port, port));
    let (daemon, mut ledger) = start(&home).await;
    let from = SystemTime::now();
    ledger.send(&home).await;
    daemon.delivered(2 * CHANNELS.len() as u64).await;
    compare(&daemon).await;
    let revoked: Vec<_> = home.sandbox.subscriptions().into_iter().take(2).map(|s| s.id).collect();
    for id in &revoked {
        home.sandbox.revoke_subscription(id, "notification_failures_exceeded").await;
    }
    let is_back = || home.live() == CHANNELS.len() && all_enabled(&daemon);
    ledger.send_until(&home, "they are there again", is_back).await;
    let to = SystemTime::now();
    let (gaps, arrived) = gaps_of(&daemon, &ledger, 1).await;
    ledger.check(&arrived, &gaps, from, to);
    let total: u64 = gaps.iter().map(|gap| gap.event["subscriptions_total"].as_u64().unwrap()).sum();
    assert!(gaps.iter().all(|gap| gap.event["reason"] == "subscription_gone"), "{gaps:#?}");
    assert_eq!(total, 2, "{gaps:#?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_is_no_gap() {
    let home = Home::new(strict()).await;
    let port = port();
    home.configure(&webhooks(port, port));
    let (daemon, _) = start(&home).await;
    let mut rounds: Vec<Vec<String>> = Vec::new();
    let key = || daemon.status().webhook.map_or(0, |webhook| webhook.keys);
    daemon.handle.rotate_secret().await.expect("a new secret");
    let begun = Instant::now();
    let is_moved =
        |daemon: &Running| key() == 1 && daemon.status().converged && home.live() == CHANNELS.len();
    while !is_moved(&daemon) || rounds.len() < 10 {
        assert!(begun.elapsed() < WAIT, "{:#?}", daemon.status());
        for channel in CHANNELS {
            // Each place that is enabled gets the event under an id of its own: one of them has to arrive.
            let sent = home.sandbox.broadcast("stream.online", Some(channel), None).await;
            rounds.push(sent.into_iter().filter_map(|(_, id)| id.ok()).collect());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon
        .until("every event is there", |_| {
            let arrived = daemon.stdout.ids();
            rounds.iter().all(|ids| ids.iter().any(|id| arrived.contains(id)))
        })
        .await;
    assert!(rounds.iter().any(|ids| ids.len() > 1), "some had two places");
    assert_eq!(daemon.status().gaps.told.values().sum::<u64>(), 0);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lasts_from_the_end_of_the_listener_until_the_callback_serves_again() {
    let home = Home::new(strict()).await;
    let port = port();
    // A receiver that does not answer keeps the daemon from stopping for some seconds.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap();
    home.configure(&format!(
        "{}\n[sink.deaf]\ntype = \"http\"\nurl = \"http://{address}/\"\n",
        webhooks(port, port)
    ));
    let mut program = Process::start(&home, "info");
    converged(&home).await;
    let mut ledger = Ledger::default();
    ledger.send(&home).await;
    let (mut waiting, _) = deaf.accept().await.unwrap();
    tokio::io::AsyncReadExt::read(&mut waiting, &mut [0; 1024]).await.unwrap();
    let from = SystemTime::now();
    program.signal(Signal::TERM);
    let mut ended = false;
    let begun = Instant::now();
    while !ended {
        assert!(begun.elapsed() < WAIT, "it does not end");
        ledger.send(&home).await;
        ended = program.child.try_wait().unwrap().is_some();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let stopping = begun.elapsed();
    ledger.send(&home).await;
    let _program = Process::start(&home, "info");
    converged(&home).await;
    let to = SystemTime::now();
    ledger.send(&home).await;
    // Twitch has given the subscriptions up meanwhile, which is a gap of its own.
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 2).await;
    let lost = ledger.check(&arrived, &gaps, from, to);
    assert!(lost > CHANNELS.len(), "{lost} after {stopping:?}");
    let stopped = gaps.iter().find(|gap| gap.event["reason"] == "daemon_stopped").expect("a stop");
    assert!(
        stopped.from < from + stopping / 2,
        "from the end of the listener, not of the process: {gaps:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_which_the_callback_stays_away_tells_of_every_subscription_that_twitch_gave_up() {
    let home = Home::new(strict()).await;
    let (public, inside) = (port(), port());
    home.configure(&webhooks(public, inside));
    let proxy = Proxy::start(public, inside).await;
    let mut program = Process::start(&home, "info");
    converged(&home).await;
    let mut ledger = Ledger::default();
    let begun = Instant::now();
    ledger.send_until(&home, "something is stored", || begun.elapsed() > KEEP).await;
    let from = SystemTime::now();
    program.signal(Signal::KILL);
    program.ended().await;
    proxy.end().await;
    ledger.send(&home).await;
    assert_eq!(home.live(), 0, "Twitch has given all up");
    let _program = Process::start(&home, "info");
    let begun = Instant::now();
    let is_parked = async || {
        let all = subscriptions(&home).await;
        !all.is_empty() && all.iter().all(|s| s.state == SubscriptionState::Parked)
    };
    answers(&home).await;
    while !is_parked().await {
        assert!(begun.elapsed() < WAIT, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
        ledger.send(&home).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The daemon runs and listens, and its gap is over; the subscriptions are still missing.
    let begun = Instant::now();
    ledger.send_until(&home, "a while", || begun.elapsed() > Duration::from_secs(4)).await;
    let _proxy = Proxy::start(public, inside).await;
    let applied = output(command(&home, &["apply"])).await;
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    converged(&home).await;
    assert_eq!(home.live(), CHANNELS.len());
    let to = SystemTime::now();
    ledger.send(&home).await;
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 2).await;
    // A crash forgets what was learned since the last time was stored, and the last list is from the start.
    let listed = from.checked_sub(KEEP * 3).unwrap();
    assert!(ledger.check(&arrived, &gaps, listed, to) >= 2 * CHANNELS.len());
    let reasons: Vec<_> = gaps.iter().map(|gap| gap.event["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"daemon_stopped") && reasons.contains(&"subscription_gone"), "{gaps:#?}");
}

/// Waits until the daemon answers.
async fn answers(home: &Home) {
    let begun = Instant::now();
    while !output(command(home, &["status", "--json"])).await.status.success() {
        assert!(begun.elapsed() < WAIT, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_still_has_missed_what_waited_too_long() {
    let mut options = strict();
    options.webhook.most_failures = u32::MAX;
    let home = Home::new(options).await;
    let port = port();
    home.configure(&webhooks(port, port));
    let program = Process::start(&home, "info");
    converged(&home).await;
    let mut ledger = Ledger::default();
    ledger.send(&home).await;
    let from = SystemTime::now();
    program.signal(Signal::STOP);
    // Requests wait in the system's backlog, until Twitch gives them up after ten seconds.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(13) {
        ledger.send(&home).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    program.signal(Signal::CONT);
    converged(&home).await;
    let to = SystemTime::now();
    ledger.send(&home).await;
    let (gaps, arrived) = gaps_of_program(&home, &ledger, 1).await;
    ledger.check(&arrived, &gaps, from, to);
    assert_eq!((gaps.len(), &gaps[0].event["reason"]), (1, &"daemon_paused".into()), "{gaps:#?}");
    assert_eq!(gaps[0].event["scope"], "callback");
    assert_eq!(status(&home).await.gaps.told.values().sum::<u64>(), 1);
}
