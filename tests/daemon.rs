//! The whole daemon against the stand-in: what a person would see.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use common::{Home, Running, WAIT, quick, tuning};
use eventsubd::admin::Control;
use eventsubd::daemon::Exit;
use eventsubd::model::status::{ShardState, SubscriptionState, TokenState};
use eventsubd::sandbox::{Fault, Route, SandboxOptions, Users};

const ONLINE: &str = r#"
[[subscription]]
type = "stream.online"
broadcaster = ["ann", "bob"]

[sink.out]
type = "stdout"
"#;

fn file_sink(home: &Home) -> String {
    format!("{ONLINE}\n[sink.file]\ntype = \"file\"\npath = \"{}\"\n", home.path("events.jsonl").display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_file_to_events_and_again_after_a_restart() {
    let home = Home::new(quick()).await;
    home.configure(&file_sink(&home));
    let daemon = home.start().await;
    let status = daemon.converged().await;
    assert_eq!(status.problems, []);
    assert!(status.ready && status.shards.iter().all(|shard| shard.state == ShardState::Bound));
    assert_eq!((home.live(), home.sandbox.conduits().len()), (2, 1));
    let mut sent = vec![
        home.sandbox.trigger("stream.online", Some("ann")).await.unwrap(),
        home.sandbox.trigger("stream.online", Some("bob")).await.unwrap(),
    ];
    home.sandbox.resend(&sent[0]).await.unwrap();
    let known =
        |status: &eventsubd::model::status::Status| status.intake.duplicates == 1 && status.store.events > 1;
    let status = daemon.until("the copy is known", known).await;
    assert_eq!((status.store.events, status.intake.received), (2, 3));
    daemon.delivered(2).await;
    let mut got = daemon.stdout.ids();
    got.sort();
    sent.sort();
    assert_eq!(got, sent);
    assert_eq!(daemon.end().await, Exit::Stopped);
    assert_eq!((home.live(), home.sandbox.conduits().len()), (2, 1), "stopping deletes nothing");

    let before = home.sandbox.stats();
    let daemon = home.start().await;
    daemon.converged().await;
    let after = home.sandbox.stats();
    assert_eq!((after.creates, after.deletes, after.users), (before.creates, before.deletes, before.users));
    let id = home.sandbox.trigger("stream.online", Some("bob")).await.unwrap();
    daemon.delivered(4).await;
    let mut got = daemon.stdout.ids();
    got.retain(|id| !id.starts_with("gap-"));
    assert_eq!(got, [id]);
    let file = common::ids(&fs::read(home.path("events.jsonl")).unwrap());
    assert_eq!(file.len(), 4, "and one that tells of the time between");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_followed_and_a_broken_one_changes_nothing() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;

    home.configure(&ONLINE.replace("stream.online", "stream.onlin"));
    let refused = daemon.handle.reload().await.unwrap_err();
    assert!(refused.errors[0].contains("stream.online"), "{:?}", refused.errors);
    let status = daemon.status();
    assert_eq!(status.config.generation, 1);
    assert!(status.config.refused.is_some() && !status.problems.is_empty());
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon.delivered(1).await;

    home.configure(&ONLINE.replace("\"bob\"", "\"cat\", \"dan\""));
    let accepted = daemon.handle.reload().await.unwrap();
    assert_eq!(accepted.generation, 2);
    let status = daemon.until("converged", |s| s.converged && s.reconcile.generation == 2).await;
    assert!(status.config.refused.is_none());
    assert_eq!(status.subscriptions.len(), 3);
    let users: BTreeSet<_> =
        home.sandbox.subscriptions().into_iter().map(|s| s.condition[0].1.clone()).collect();
    let expected = ["ann", "cat", "dan"].map(|login| home.sandbox.user_id(login).unwrap());
    assert_eq!(users, expected.into_iter().collect());
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_revoked_under_load_cost_one_mint() {
    let mut options = quick();
    options.latency = Duration::from_millis(3);
    let home = Home::new(options).await;
    let logins: Vec<String> = (0..400).map(|n| format!("\"user{n}\"")).collect();
    home.configure(&ONLINE.replace("\"ann\", \"bob\"", &logins.join(", ")));
    let daemon = home.start().await;
    assert!(home.sandbox.wait_for(WAIT, |sandbox| sandbox.stats().created > 100).await);
    let before = home.sandbox.stats();
    home.sandbox.revoke_all_tokens();
    daemon.converged().await;
    let after = home.sandbox.stats();
    assert!(after.unauthorized > before.unauthorized, "the dead token was used");
    assert_eq!(after.mints - before.mints, 1, "however many requests met it");
    assert!(after.validations - before.validations <= 2, "{before:?} {after:?}");
    assert_eq!((after.created, home.live(), after.rate_limited), (400, 400, 0));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conduit_that_was_deleted_is_made_again_with_everything() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    let old = home.conduit();
    home.sandbox.delete_conduit(&old);
    daemon.handle.apply(false);
    let status = daemon
        .until("another conduit", |status| {
            status.converged && status.reconcile.conduit.as_ref().is_some_and(|conduit| conduit.id != old)
        })
        .await;
    assert!(status.subscriptions.iter().all(|entry| entry.state == SubscriptionState::Enabled));
    assert_eq!(home.live(), 2);
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon.delivered(1).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_under_load_loses_nothing() {
    for changes_id in [false, true] {
        let home = Home::new(SandboxOptions { reconnect_changes_id: changes_id, ..quick() }).await;
        home.configure(ONLINE);
        let daemon = home.start().await;
        daemon.converged().await;
        let subscription = home.subscription("stream.online");
        let sandbox = home.sandbox.clone();
        let flood = tokio::spawn(async move { sandbox.flood(&subscription, 4_000, 800).await });
        assert!(home.sandbox.wait_for(WAIT, |sandbox| sandbox.stats().sent > 200).await);
        for session in home.sandbox.sessions() {
            home.sandbox.ask_reconnect(&session);
        }
        let sent: BTreeSet<String> = flood.await.unwrap().into_iter().collect();
        assert_eq!(sent.len(), 4_000);
        let status = daemon.until("all are stored", |status| status.store.events >= 4_000).await;
        assert!(status.shards.iter().any(|shard| shard.reconnects > 0), "changes_id: {changes_id}");
        assert!(status.shards.iter().all(|shard| shard.losses == 0), "{:?}", status.shards);
        daemon.delivered(4_000).await;
        let got: BTreeSet<String> = daemon.stdout.ids().into_iter().collect();
        assert_eq!(got, sent);
        let creates = home.sandbox.stats().creates;
        assert_eq!(creates, 2, "nothing is subscribed to again");
        daemon.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_sockets_of_every_kind_are_replaced() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    let kinds = ["half-open", "killed", "closed with 4000", "stolen shard"];
    for (nth, kind) in kinds.into_iter().enumerate() {
        let losses = |status: &eventsubd::model::status::Status| {
            status.shards.iter().map(|shard| shard.losses).sum::<u64>()
        };
        let before = losses(&daemon.status());
        for session in home.sandbox.sessions() {
            match nth {
                0 => home.sandbox.silence_session(&session),
                1 => home.sandbox.kill_session(&session),
                2 => home.sandbox.close_session(&session, 4000),
                _ => {}
            }
        }
        if nth == 3 {
            home.sandbox.seize_shard(&home.conduit(), 0);
            let taken_back = |sandbox: &eventsubd::sandbox::Sandbox| {
                let shards = sandbox.shards(&home.conduit());
                shards.iter().all(|(_, status, session)| {
                    status == "enabled" && session.as_deref() != Some("AgoSomebodyElse")
                })
            };
            assert!(home.sandbox.wait_for(WAIT, taken_back).await, "{kind}");
        } else {
            daemon.until(kind, |status| losses(status) >= before + 2).await;
        }
        daemon.converged().await;
        let id = home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
        daemon.until(kind, |_| daemon.stdout.ids().contains(&id)).await;
    }
    assert_eq!(home.sandbox.stats().inbound_traffic, 0, "we never sent anything");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_subscriptions_are_parked_with_their_reason_or_come_back() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    let revoked = home.subscription("stream.online");
    home.sandbox.revoke_subscription(&revoked, "authorization_revoked").await;
    let status = daemon
        .until("parked", |status| {
            status.subscriptions.iter().any(|entry| entry.state == SubscriptionState::Parked)
        })
        .await;
    let parked = status.subscriptions.iter().find(|e| e.state == SubscriptionState::Parked).unwrap();
    assert!(parked.reason.as_deref().unwrap().contains("authoriz"), "{parked:?}");
    assert_eq!(status.intake.revocations, 1);
    home.sandbox.remove_subscription(&home.subscription("stream.online"));
    daemon.handle.apply(false);
    daemon
        .until("all again", |status| {
            status.subscriptions.iter().all(|entry| entry.state == SubscriptionState::Enabled)
        })
        .await;
    assert_eq!(home.live(), 2);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_end_the_start_and_nothing_later() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    home.set_secret("another-secret-of-30-characters");
    let daemon = home.start().await;
    let Exit::Refused(message) = daemon.ended().await else { panic!("refused") };
    assert!(message.contains("invalid client secret"), "{message}");

    home.set_secret(common::SECRET);
    let daemon = home.start().await;
    daemon.converged().await;
    home.sandbox.set_secret("rotated-secret-of-30-characters");
    home.sandbox.revoke_all_tokens();
    daemon.handle.apply(false);
    let status = daemon.until("refused", |status| status.token.state == TokenState::Refused).await;
    assert!(status.problems.iter().any(|problem| problem.part == "token"), "{:?}", status.problems);
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon.delivered(1).await;
    home.set_secret("rotated-secret-of-30-characters");
    daemon.handle.reload().await.unwrap();
    daemon.until("valid again", |status| status.token.state == TokenState::Valid && status.converged).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_twitch_is_lived_through() {
    for fault in [
        Fault::Status(500, String::new()),
        Fault::Status(503, String::new()),
        Fault::Reset,
        Fault::Garbage,
        Fault::Truncate,
        Fault::LoseAnswer,
        Fault::RateLimited,
        Fault::Unauthorized,
    ] {
        let home = Home::new(quick()).await;
        home.configure(ONLINE);
        for route in [
            Route::Token,
            Route::Conduits,
            Route::Users,
            Route::List,
            Route::Create,
            Route::Bind,
            Route::Connect,
        ] {
            // 401 there means that the credentials are bad, and that ends the start.
            if route == Route::Token && matches!(fault, Fault::Unauthorized | Fault::RateLimited) {
                continue;
            }
            home.sandbox.fault(route, fault.clone(), 1);
        }
        let daemon = home.start().await;
        let status = daemon.converged().await;
        assert_eq!(home.live(), 2, "{fault:?}: {status:#?} {:#?}", home.sandbox.subscriptions());
        assert_eq!(home.sandbox.conduits().len(), 1, "{fault:?}");
        daemon.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_logins_and_foreign_rows_are_left_to_people() {
    let mut options = quick();
    let listed = ["ann", "cat"].iter().zip(["11", "12"]).map(|(l, id)| (id.to_owned(), (*l).to_owned()));
    options.users = Users::Listed(listed.collect());
    let home = Home::new(options).await;
    let foreign = home.sandbox.add_subscription("stream.online", "1", &[("broadcaster_user_id", "11")], None);
    let other = home.sandbox.create_conduit(1);
    home.configure(ONLINE);
    let daemon = home.start().await;
    let status = daemon.converged().await;
    let parked: Vec<_> =
        status.subscriptions.iter().filter(|e| e.state == SubscriptionState::Parked).collect();
    assert_eq!(parked.len(), 1);
    assert!(parked[0].reason.as_deref().unwrap().contains("bob"), "{parked:?}");
    assert!(home.sandbox.subscriptions().iter().any(|s| s.id == foreign && s.status == "enabled"));
    assert!(home.sandbox.conduits().iter().any(|(id, _)| *id == other));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_live_in_one_process() {
    let (one, two) = (Home::new(quick()).await, Home::new(quick()).await);
    one.configure(ONLINE);
    two.configure(&ONLINE.replace("stream.online", "stream.offline"));
    let (first, second) = (one.start().await, two.start().await);
    first.converged().await;
    second.converged().await;
    let a = one.sandbox.trigger("stream.online", None).await.unwrap();
    let b = two.sandbox.trigger("stream.offline", None).await.unwrap();
    first.delivered(1).await;
    second.delivered(1).await;
    assert_eq!((first.stdout.ids(), second.stdout.ids()), (vec![a], vec![b]));
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_file_empties_nothing_until_it_is_allowed() {
    let home = Home::new(quick()).await;
    let logins: Vec<String> = (0..40).map(|n| format!("\"user{n}\"")).collect();
    home.configure(&ONLINE.replace("\"ann\", \"bob\"", &logins.join(", ")));
    let daemon = home.start().await;
    daemon.converged().await;
    home.configure(&ONLINE.replace("\"ann\", \"bob\"", "\"user0\""));
    daemon.handle.reload().await.unwrap();
    let status = daemon.until("held", |status| status.reconcile.deletes_held.is_some()).await;
    assert!(!status.converged && home.live() == 40);
    daemon.handle.apply(true);
    daemon.until("deleted", |status| status.converged).await;
    assert_eq!(home.live(), 1);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_is_never_overrun() {
    let mut options = quick();
    (options.bucket, options.refill_per_minute) = (60, 60 * 60);
    let home = Home::new(options).await;
    let logins: Vec<String> = (0..300).map(|n| format!("\"user{n}\"")).collect();
    home.configure(&ONLINE.replace("\"ann\", \"bob\"", &logins.join(", ")));
    let daemon = Running::start(home.load(), tuning()).await;
    daemon.converged().await;
    let stats = home.sandbox.stats();
    assert_eq!((stats.rate_limited, stats.created), (0, 300));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_messages_are_counted_and_passed_over() {
    let home = Home::new(SandboxOptions { pong_timeout: Duration::from_secs(1), ..quick() }).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    let session = home.sandbox.sessions()[0].clone();
    for text in [
        r#"{"metadata":{"message_id":"1","message_type":"session_novelty","message_timestamp":"x"},"payload":{}}"#,
        r#"{"metadata":{"message_id":"2","message_type":"notification","message_timestamp":"x"},"payload":{}}"#,
        "no JSON",
        "{}",
    ] {
        home.sandbox.send_raw(&session, text);
    }
    home.sandbox.ping(&session);
    let status = daemon.until("all were seen", |s| s.intake.unknown == 1 && s.intake.malformed == 3).await;
    assert_eq!((status.intake.received, status.store.events), (0, 0));
    // A pong that does not come ends the session within this time.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(home.sandbox.sessions().contains(&session), "it was answered");
    home.sandbox.send_raw(&session, &"x".repeat(2 << 20));
    let lost = |s: &eventsubd::model::status::Status| s.shards.iter().any(|shard| shard.losses == 1);
    daemon.until("too large a message ends the connection", lost).await;
    daemon.converged().await;
    assert_eq!(home.sandbox.stats().inbound_traffic, 0);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_grow_and_shrink_with_the_file() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    for shards in [5, 1] {
        let text = fs::read_to_string(home.path("config.toml")).unwrap();
        let old = text.lines().find(|line| line.starts_with("shards = ")).unwrap().to_owned();
        fs::write(home.path("config.toml"), text.replace(&old, &format!("shards = {shards}"))).unwrap();
        let generation = daemon.handle.reload().await.unwrap().generation;
        let status = daemon
            .until("resized", |s| {
                s.converged && s.config.generation == generation && s.shards.len() == shards
            })
            .await;
        assert!(status.shards.iter().all(|shard| shard.state == ShardState::Bound));
        assert_eq!(home.sandbox.conduits()[0].1 as usize, shards);
        home.sandbox.trigger("stream.online", Some("bob")).await.unwrap();
    }
    daemon.delivered(2).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_that_is_removed_ends_the_daemon_with_the_reason() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    fs::rename(home.path("state"), home.path("aside")).unwrap();
    let removed = |status: &eventsubd::model::status::Status| {
        status.problems.iter().any(|p| p.part == "store" && p.message.contains("events.db was removed"))
    };
    daemon.until("it is missed", removed).await;
    // Nothing that comes now is lost once it is back.
    let id = home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    fs::rename(home.path("aside"), home.path("state")).unwrap();
    daemon.until("stored", |status| status.store.problem.is_none() && status.store.events == 1).await;
    daemon.delivered(1).await;
    assert_eq!(daemon.stdout.ids(), [id]);
    fs::remove_dir_all(home.path("state")).unwrap();
    let Exit::Failed(why) = daemon.ended().await else { panic!("it goes on without a store") };
    assert!(why.contains(&home.path("state/events.db").display().to_string()), "{why}");
    assert!(why.contains("was removed or replaced while the daemon ran"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_socket_that_is_removed_is_made_again() {
    let home = Home::new(quick()).await;
    home.configure(ONLINE);
    let daemon = home.start().await;
    daemon.converged().await;
    fs::remove_file(home.path("state/control.sock")).unwrap();
    daemon.until("there again", |_| home.path("state/control.sock").exists()).await;
    let status = common::status(&home).await;
    assert!(status.converged);
    daemon.end().await;
    assert!(!home.path("state/control.sock").exists());
}
