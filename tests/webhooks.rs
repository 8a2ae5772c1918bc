//! The daemon behind its callback, against a stand-in for Twitch that calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{Home, Process, WAIT, caught_up, command, converged, ids, output, port, quick, text};
use eventsubd::admin::Control;
use eventsubd::model::status::SubscriptionState;
use eventsubd::sandbox::{ChallengeTiming, SandboxOptions};
use rustix::process::Signal;

/// Two subscriptions.
const TWO: &str = "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [\"ann\", \"bob\"]\n";

/// Twitch's tries as fast as a test wants them.
fn calling() -> SandboxOptions {
    let mut options = quick();
    options.webhook.retries = vec![Duration::from_millis(50); 40];
    options
}

fn listener(port: u16) -> String {
    format!(
        "[transport.webhook]\ncallback = \"http://127.0.0.1:{port}/eventsub\"\nlisten = \"127.0.0.1:{port}\"\n"
    )
}

fn webhooks(port: u16) -> String {
    format!("[transport]\nmethod = \"webhook\"\n\n{}\n{TWO}", listener(port))
}

fn conduit(port: u16) -> String {
    format!("{}\n{TWO}", listener(port))
}

/// The callbacks of the live subscriptions; none stands for the conduit.
fn places(home: &Home) -> Vec<Option<String>> {
    let all = home.sandbox.subscriptions();
    all.into_iter().filter(|s| s.status == "enabled").map(|s| s.callback).collect()
}

/// Waits for something at Twitch.
async fn at_twitch(home: &Home, what: &str, mut like: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !like() {
        assert!(begun.elapsed() < WAIT, "never: {what}; {:?}", home.sandbox.subscriptions());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_file_to_events_without_a_conduit() {
    for timing in
        [ChallengeTiming::Soon, ChallengeTiming::First, ChallengeTiming::Later(Duration::from_millis(300))]
    {
        let mut options = calling();
        options.webhook.challenge = timing;
        let home = Home::new(options).await;
        home.configure(&webhooks(port()));
        let daemon = home.start().await;
        let status = daemon.converged().await;
        assert!(status.ready && status.shards.is_empty() && status.problems.is_empty(), "{status:#?}");
        assert!(home.sandbox.conduits().is_empty() && home.sandbox.sessions().is_empty());
        let id = home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
        daemon.delivered(1).await;
        assert_eq!(daemon.stdout.ids(), std::slice::from_ref(&id));
        let answers = home.sandbox.resend_in_parallel(&id, 20).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Some(204)), "{answers:?}");
        let status = daemon.until("counted", |status| status.intake.duplicates == 20).await;
        assert_eq!((status.store.last_seq.0, status.webhook.unwrap().keys), (1, 1));
        daemon.end().await;
        assert_eq!(home.live(), 2, "stopping deletes nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_the_method_and_the_callback_moves_everything_without_a_gap() {
    let home = Home::new(calling()).await;
    let (first, second) = (port(), port());
    home.configure(&conduit(first));
    let daemon = home.start().await;
    daemon.converged().await;
    // Twitch tells every place that is enabled of each event: at least one of them has to receive it.
    let stop = tokio_util::sync::CancellationToken::new();
    let told = tokio::spawn({
        let (sandbox, stop) = (home.sandbox.clone(), stop.clone());
        async move {
            let mut told: Vec<BTreeSet<String>> = Vec::new();
            while !stop.is_cancelled() {
                let sent = sandbox.broadcast("stream.online", Some("ann"), None).await;
                told.push(sent.into_iter().filter_map(|(_, id)| id.ok()).collect());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            told
        }
    });
    let mut twice = 0;
    for (text, callback) in [
        (webhooks(first), Some(first)),
        (webhooks(second), Some(second)),
        (conduit(second), None),
        (webhooks(second), Some(second)),
    ] {
        home.configure(&text);
        daemon.handle_reload().await;
        daemon.converged().await;
        let right = |place: &Option<String>| match (place, callback) {
            (Some(place), Some(port)) => place.starts_with(&format!("http://127.0.0.1:{port}/eventsub?key=")),
            (None, None) => true,
            _ => false,
        };
        at_twitch(&home, "moved", || places(&home).len() == 2 && places(&home).iter().all(right)).await;
        twice += 1;
    }
    assert_eq!(twice, 4);
    daemon.until("no sockets", |_| home.sandbox.sessions().is_empty()).await;
    stop.cancel();
    let told = told.await.unwrap();
    assert!(told.len() > 50 && told.iter().any(|sent| sent.len() > 1), "{} events", told.len());
    let heard = |ids: &BTreeSet<String>, sent: &BTreeSet<String>| sent.iter().any(|id| ids.contains(id));
    let mut got: BTreeSet<String> = BTreeSet::new();
    daemon
        .until("every event heard", |_| {
            got = daemon.stdout.ids().into_iter().collect();
            told.iter().all(|sent| heard(&got, sent))
        })
        .await;
    let gaps = got.iter().filter(|id| id.starts_with("gap-")).count();
    assert_eq!(gaps, 0, "a change of method is no gap");
    assert_eq!(home.sandbox.conduits().len(), 1, "a conduit is never deleted");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_call_and_a_new_secret() {
    let home = Home::new(calling()).await;
    let port = port();
    let shards = format!("{}\n{TWO}", listener(port));
    home.configure(&shards);
    let text = fs::read_to_string(home.path("config.toml")).unwrap();
    let text = text.replace("shards = 2\n", "shards = 2\nshard_transport = \"webhook\"\n");
    fs::write(home.path("config.toml"), text).unwrap();
    let daemon = home.start().await;
    let status = daemon.converged().await;
    assert!(
        status.shards.len() == 2 && status.shards.iter().all(|shard| shard.state.delivers()),
        "{status:#?}"
    );
    assert!(home.sandbox.sessions().is_empty());
    let sent = home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon.delivered(1).await;
    assert_eq!(daemon.stdout.ids(), [sent]);
    daemon.until("counted", |status| status.shards.iter().map(|shard| shard.events).sum::<u64>() == 1).await;

    let conduit = home.conduit();
    let old = home.sandbox.key_of_shard(&conduit, 0).unwrap();
    let rotated = daemon.handle.rotate_secret().await.expect("a new secret");
    assert_eq!(rotated.accepted, 2);
    let moved = |shard: u32| {
        home.sandbox
            .key_of_shard(&conduit, shard)
            .is_some_and(|key| key != old && key.to_string() == rotated.key)
    };
    at_twitch(&home, "moved", || moved(0) && moved(1)).await;
    daemon
        .until("the old one goes", |status| status.webhook.as_ref().is_some_and(|webhook| webhook.keys == 1))
        .await;
    let sent = home.sandbox.trigger("stream.online", Some("bob")).await.unwrap();
    daemon.delivered(2).await;
    assert_eq!(daemon.stdout.ids()[1], sent);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_replaced_under_load_over_a_kill() {
    let home = Home::new(calling()).await;
    // A type whose events have no identity: while a subscription is moved, Twitch sends each event for the old and for the
    // new one, and a happening with an identity would be stored once.
    let webhooks = webhooks(port()).replace("stream.online", "channel.update");
    home.configure(&format!("{}\n[sink.log]\ntype = \"file\"\npath = \"events.jsonl\"\n", webhooks));
    let mut daemon = Process::start(&home, "trace");
    converged(&home).await;
    let old = fs::read_to_string(home.path("state/webhook_secret")).unwrap();
    let key = home.sandbox.key_of(&home.subscription("channel.update"));
    let stop = tokio_util::sync::CancellationToken::new();
    let load = tokio::spawn({
        let (sandbox, stop) = (home.sandbox.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                sandbox.broadcast("channel.update", None, None).await;
            }
        }
    });
    let rotated = output(command(&home, &["rotate-secret"])).await;
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    assert!(text(&rotated.stderr).contains("2 secrets accepted"), "{}", text(&rotated.stderr));
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    let both = fs::read_to_string(home.path("state/webhook_secret")).unwrap();
    assert_eq!(both.lines().collect::<Vec<_>>()[1..], old.lines().collect::<Vec<_>>());
    let mut daemon = Process::start(&home, "trace");
    converged(&home).await;
    let moved = || {
        let all = home.sandbox.subscriptions();
        let live: Vec<_> = all.iter().filter(|s| s.status == "enabled").collect();
        live.len() == 2 && live.iter().all(|s| home.sandbox.key_of(&s.id) != key)
    };
    at_twitch(&home, "moved", moved).await;
    stop.cancel();
    load.await.unwrap();
    let accepted: BTreeSet<String> = home.sandbox.accepted().into_iter().collect();
    assert!(accepted.len() > 100, "{}", accepted.len());
    caught_up(&home, WAIT).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let got: BTreeSet<String> = ids(&fs::read(home.path("events.jsonl")).unwrap()).into_iter().collect();
    let lost: Vec<_> = accepted.difference(&got).collect();
    assert!(lost.is_empty(), "{} of {} answered with 2xx are lost", lost.len(), accepted.len());
    let log = fs::read(home.path("stderr.log")).unwrap();
    assert!(text(&log).contains("TRACE"), "it would be seen");
    for secret in old.lines().chain(both.lines()) {
        assert!(!text(&log).contains(secret), "a secret in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_from_a_backup_or_a_file_moves_everything() {
    let home = Home::new(calling()).await;
    let port = port();
    let config = webhooks(port);
    home.configure(&config);
    let daemon = home.start().await;
    daemon.converged().await;
    daemon.end().await;
    fs::write(home.path("state/webhook_secret"), "restored-from-a-backup\n").unwrap();
    let daemon = home.start().await;
    daemon.converged().await;
    let all_live_with = |secret: &str| {
        let all = home.sandbox.subscriptions();
        all.len() == 2 && all.iter().all(|s| s.status == "enabled" && home.sandbox.lives_with(&s.id, secret))
    };
    at_twitch(&home, "moved", || all_live_with("restored-from-a-backup")).await;

    let secret_file = |secret: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(home.path("hook"), secret).unwrap();
        fs::set_permissions(home.path("hook"), fs::Permissions::from_mode(0o600)).unwrap();
    };
    secret_file("the-secret-of-the-file");
    home.configure(&config.replace("listen =", "secret_file = \"hook\"\nlisten ="));
    daemon.handle_reload().await;
    at_twitch(&home, "moved", || all_live_with("the-secret-of-the-file")).await;
    let refused = daemon.handle.rotate_secret().await.expect_err("it is in a file of somebody else");
    assert!(refused.error.contains("eventsubd reload"), "{}", refused.error);
    secret_file("the-next-one-of-the-file");
    daemon.handle_reload().await;
    at_twitch(&home, "moved", || all_live_with("the-next-one-of-the-file")).await;
    daemon
        .until("the old ones go", |status| status.webhook.as_ref().is_some_and(|webhook| webhook.keys == 1))
        .await;

    // One that is replaced together with the method has nothing to wait for either.
    secret_file("the-last-one-of-the-file");
    home.configure(&conduit(port).replace("listen =", "secret_file = \"hook\"\nlisten ="));
    daemon.handle_reload().await;
    at_twitch(&home, "moved", || places(&home) == [None, None]).await;
    daemon
        .until("the old one goes", |status| {
            status.converged && status.webhook.as_ref().is_some_and(|webhook| webhook.keys == 1)
        })
        .await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_healed_and_a_dead_callback_is_not_told_to_twitch() {
    let mut options = calling();
    options.webhook.challenge = ChallengeTiming::Never;
    let home = Home::new(options).await;
    let (public, inside) = (port(), port());
    // The public port leads nowhere: a proxy that is not there yet.
    let config = webhooks(public)
        .replace(&format!("listen = \"127.0.0.1:{public}\""), &format!("listen = \"127.0.0.1:{inside}\""));
    home.configure(&config);
    let daemon = home.start().await;
    let status = daemon
        .until("parked", |status| {
            status.subscriptions.iter().all(|s| s.state == SubscriptionState::Parked)
                && !status.subscriptions.is_empty()
        })
        .await;
    let reason = status.subscriptions.get(0).unwrap().reason.clone().unwrap();
    assert!(
        reason.contains(&format!("127.0.0.1:{public}")) && reason.contains("nothing answers"),
        "{reason}"
    );
    assert!(home.sandbox.subscriptions().is_empty(), "Twitch was told nothing");
    let doctor = output(command(&home, &["check", "--online"])).await;
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text(&doctor.stdout).contains("nothing answers"), "{}", text(&doctor.stdout));

    // The proxy comes up, and Twitch does not call back at first.
    let proxy = tokio::net::TcpListener::bind(("127.0.0.1", public)).await.unwrap();
    let proxy = tokio::spawn(async move {
        while let Ok((mut outer, _)) = proxy.accept().await {
            tokio::spawn(async move {
                if let Ok(mut inner) = tokio::net::TcpStream::connect(("127.0.0.1", inside)).await {
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
    });
    daemon.handle.apply(false);
    at_twitch(&home, "created", || home.sandbox.subscriptions().len() == 2).await;
    assert!(!daemon.status().converged);
    let doctor = output(command(&home, &["check", "--online"])).await;
    assert_eq!(doctor.status.code(), Some(0), "{}{}", text(&doctor.stdout), text(&doctor.stderr));
    assert!(text(&doctor.stdout).contains("answers the challenge"), "{}", text(&doctor.stdout));
    home.sandbox.set_webhooks(|webhook| webhook.challenge = ChallengeTiming::Soon);
    home.sandbox.send_challenges().await;
    daemon.converged().await;

    // Twitch gives up on one, and says so nowhere.
    let id = home.subscription("stream.online");
    home.sandbox.set_status(&id, "notification_failures_exceeded");
    daemon.handle.apply(false);
    at_twitch(&home, "made again", || {
        home.live() == 2 && home.sandbox.subscriptions().iter().all(|s| s.id != id)
    })
    .await;
    daemon.converged().await;
    proxy.abort();
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_by_an_hour_is_told_of() {
    for (ahead, direction) in [(3_600, "behind"), (-3_600, "ahead of")] {
        let mut options = calling();
        options.webhook.clock_ahead = ahead;
        let home = Home::new(options).await;
        home.configure(&webhooks(port()));
        let daemon = home.start().await;
        // The date of each message is too far from our clock to be accepted, that of challenges too.
        let status = daemon.until("told", |status| status.problems.iter().any(|p| p.part == "webhook")).await;
        let problem = status.problems.iter().find(|problem| problem.part == "webhook").unwrap();
        let expected = format!("the clock of this machine is about 1 h {direction} Twitch's");
        assert!(problem.message.starts_with(&expected), "{problem:?}");
        assert!(problem.message.contains("timedatectl"), "{problem:?}");
        assert!(!status.converged);
        // Twitch is asked to send again, in case the clock is set in time.
        let webhook = status.webhook.as_ref().unwrap();
        assert!(webhook.unavailable > 0 && webhook.stale == 0, "{webhook:?}");
        daemon.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_under_load_loses_nothing_that_was_answered() {
    let home = Home::new(calling()).await;
    home.configure(&format!("{}\n[sink.log]\ntype = \"file\"\npath = \"events.jsonl\"\n", webhooks(port())));
    for round in 0..3_usize {
        let mut daemon = Process::start(&home, "warn");
        converged(&home).await;
        let id = home.subscription("stream.online");
        let before = home.sandbox.accepted().len();
        let load = tokio::spawn({
            let sandbox = home.sandbox.clone();
            async move { sandbox.flood(&id, 3_000, 500).await }
        });
        at_twitch(&home, "under load", || home.sandbox.accepted().len() > before + 300 * (round + 1)).await;
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        load.abort();
    }
    let mut daemon = Process::start(&home, "warn");
    converged(&home).await;
    caught_up(&home, WAIT).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let accepted: BTreeSet<String> = home.sandbox.accepted().into_iter().collect();
    let got: BTreeSet<String> = ids(&fs::read(home.path("events.jsonl")).unwrap()).into_iter().collect();
    let lost: Vec<_> = accepted.difference(&got).collect();
    assert!(lost.is_empty(), "{} of {} answered with 2xx are lost", lost.len(), accepted.len());
    assert!(accepted.len() > 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_online_needs_no_daemon_and_a_refused_listener_is_told() {
    let home = Home::new(calling()).await;
    let port = port();
    home.configure(&webhooks(port));
    let doctor = output(command(&home, &["check", "--online"])).await;
    assert_eq!(doctor.status.code(), Some(0), "{}{}", text(&doctor.stdout), text(&doctor.stderr));
    assert!(text(&doctor.stdout).contains("answers the challenge"), "{}", text(&doctor.stdout));
    let plan = output(command(&home, &["plan"])).await;
    assert!(text(&plan.stdout).contains("2 to create"), "{}{}", text(&plan.stdout), text(&plan.stderr));
    assert!(!home.path("state").exists(), "they change nothing");

    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let refused = output(command(&home, &["run"])).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is taken by another program"), "{}", text(&refused.stderr));
}
