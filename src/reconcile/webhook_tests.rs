//! Webhooks, and moving from one place to another, against a Twitch in memory, in virtual time.

#![allow(
    clippy::await_holding_lock,
    reason = "the guard of the fake is only looked at before the bench ends"
)]

use std::sync::Arc;
use std::time::Duration;

use super::fake::{Bench, Fake, desired, fake, spec};
use super::preview::preview_with;
use super::{Desired, Method};
use crate::helix::Transport;
use crate::model::mode::ShardCount;
use crate::model::secret::Secret;
use crate::model::shard::{ShardId, WebhookTarget};
use crate::model::status::SubscriptionState;
use crate::model::subscription::{SubscriptionRow, SubscriptionSpec, SubscriptionStatus, TransportTarget};
use crate::model::webhook::{WebhookKey, WebhookKeys};

const URL: &str = "https://a.example/e";

fn three() -> [SubscriptionSpec; 3] {
    [spec("stream.online", "ann"), spec("stream.online", "bob"), spec("channel.follow", "cat")]
}

fn keys(secrets: &[&str]) -> WebhookKeys {
    let mut keys = secrets.iter().map(|text| WebhookKey::new(Secret::new(*text)).unwrap());
    WebhookKeys::new(keys.next().unwrap(), keys)
}

fn target(url: &str, secrets: &[&str]) -> Option<WebhookTarget> {
    Some(WebhookTarget { url: url.into(), keys: keys(secrets) })
}

fn webhooks(specs: &[SubscriptionSpec]) -> Desired {
    Desired { method: Method::Webhook, webhook: target(URL, &["first-secret"]), ..desired(specs) }
}

/// A Twitch that calls back, and is answered.
fn answered() -> Fake {
    let fake = fake();
    fake.world().challenge = Some("enabled");
    fake
}

fn callbacks(fake: &Fake) -> Vec<String> {
    let world = fake.world();
    let live = world.rows.iter().filter(|row| row.status.is_live());
    live.map(|row| match &row.target {
        TransportTarget::Webhook { callback } => callback.to_string(),
        other => format!("{other:?}"),
    })
    .collect()
}

fn all_at(fake: &Fake, start: &str) -> bool {
    let callbacks = callbacks(fake);
    callbacks.len() == 3 && callbacks.iter().all(|callback| callback.starts_with(start))
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_made_once_the_callback_is_proved() {
    let fake = answered();
    let bench = Bench::start(&fake, &Arc::default(), webhooks(&three()));
    bench.converged().await;
    let id = keys(&["first-secret"]).current().id;
    assert!(all_at(&fake, &format!("{URL}?key={id}")));
    let world = fake.world();
    let at = |call: &str| world.calls.iter().position(|made| made.starts_with(call)).expect(call);
    assert!(at("prove") < at("create"));
    assert_eq!(world.count("prove"), 1);
    assert_eq!(world.count("make conduit") + world.count("bind"), 0);
    drop(world);
    assert!(bench.handle.target.borrow().is_none());
    let in_use = bench.handle.in_use.clone().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!((in_use.keys, in_use.calls, in_use.subscriptions), ([id].into(), true, true));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_while_the_callback_is_not_there() {
    let fake = answered();
    fake.world().unreachable = Some("nobody answers there");
    let bench = Bench::start(&fake, &Arc::default(), webhooks(&three()));
    let entries =
        bench.entries(|all| all.len() == 3 && all.iter().all(|e| e.state == SubscriptionState::Parked)).await;
    assert!(entries[0].reason.as_deref().unwrap().contains("nobody answers there"), "{entries:?}");
    assert!(entries[0].retry_at.is_some());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(fake.world().count("create"), 0);
    assert!((4..40).contains(&fake.world().count("prove")), "{}", fake.world().count("prove"));
    fake.world().unreachable = None;
    bench.world(|world| world.rows.len() == 3).await;
    assert!(all_at(&fake, URL));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_verified_or_failed_is_made_again_with_growing_pauses() {
    for outcome in
        [None, Some("webhook_callback_verification_failed"), Some("notification_failures_exceeded")]
    {
        let fake = fake();
        fake.world().challenge = outcome;
        let bench = Bench::start(&fake, &Arc::default(), webhooks(&three()[..1]));
        bench.world(|world| world.count("create") == 2).await;
        let begun = tokio::time::Instant::now();
        bench.world(|world| world.count("create") == 7).await;
        // 10, 20, 40, 80, 160 seconds at least.
        assert!(begun.elapsed() > Duration::from_secs(300), "{:?}", begun.elapsed());
        {
            let mut world = fake.world();
            assert!(world.rows.len() <= 1, "{:?}", world.rows);
            world.challenge = Some("enabled");
            world.verify();
        }
        bench.converged().await;
        bench.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_moves_everything_without_a_gap() {
    let fake = answered();
    let bench = Bench::start(&fake, &Arc::default(), webhooks(&three()));
    bench.converged().await;
    let old: Vec<SubscriptionRow> = fake.world().rows.clone();
    fake.world().challenge = None;
    let rotated = Desired::clone(&bench.desired.borrow());
    let rotated = Desired { webhook: target(URL, &["second-secret", "first-secret"]), ..rotated };
    bench.desired.send_replace(Arc::new(rotated));
    bench.world(|world| world.rows.len() == 6).await;
    // Nothing that delivers goes while its successor waits.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(old.iter().all(|row| fake.world().rows.contains(row)));
    let entries = bench.handle.subscriptions.borrow().clone();
    assert!(entries.iter().all(|entry| entry.state == SubscriptionState::Enabled), "the old ones deliver");
    assert!(!bench.handle.status.borrow().converged);
    assert_eq!(bench.handle.in_use.borrow().as_ref().unwrap().keys.len(), 2);
    {
        let mut world = fake.world();
        world.challenge = Some("enabled");
        world.verify();
    }
    bench.handle.hint(crate::model::hint::Hint::Verified);
    bench.converged().await;
    let new = keys(&["second-secret"]).current().id;
    assert!(all_at(&fake, &format!("{URL}?key={new}")));
    assert!(fake.world().most_equal <= 2);
    let mut in_use = bench.handle.in_use.clone();
    in_use.wait_for(|told| told.as_ref().is_some_and(|told| told.keys == [new].into())).await.unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn another_url_and_another_method_move_everything_also_over_a_restart() {
    let (fake, notes) = (answered(), Arc::default());
    let bench = Bench::start(&fake, &notes, desired(&three()));
    bench.converged().await;
    bench.reload(&three(), |desired| {
        desired.method = Method::Webhook;
        desired.webhook = target(URL, &["first-secret"]);
    });
    bench.converged().await;
    assert!(all_at(&fake, URL));
    // No socket without a subscription.
    bench.handle.target.clone().wait_for(Option::is_none).await.unwrap();
    assert_eq!(fake.world().conduits.len(), 1, "a conduit is never deleted");
    bench.end().await;

    // The URL changes while nothing runs.
    let other = Desired { webhook: target("https://b.example/e", &["first-secret"]), ..webhooks(&three()) };
    let plan = preview_with(&fake, notes.clone(), "client", &other, &mut Vec::new()).await.unwrap();
    assert_eq!(plan.plan.actions.iter().filter(|action| action.is_create()).count(), 3);
    assert!(plan.plan.held.is_empty() && plan.plan.actions.len() == 3, "{:?}", plan.plan);
    let bench = Bench::start(&fake, &notes, other);
    bench.converged().await;
    assert!(all_at(&fake, "https://b.example/e"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let urls = notes.pairs.lock().unwrap()["callback_urls:client"].clone();
    assert_eq!(urls, r#"["https://b.example/e"]"#, "the old one is forgotten");
    bench.end().await;

    let bench = Bench::start(&fake, &notes, desired(&three()));
    bench.converged().await;
    assert!(callbacks(&fake).iter().all(|callback| callback.contains("Conduit")));
    assert_eq!(callbacks(&fake).len(), 3);
    assert_eq!(fake.world().conduits.len(), 1, "ours, as before");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!notes.pairs.lock().unwrap().contains_key("callback_urls:client"));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_the_old_conduit_stay_bound_until_it_is_empty() {
    let (fake, notes) = (answered(), Arc::default());
    let bench = Bench::start(&fake, &notes, desired(&three()));
    bench.converged().await;
    bench.end().await;
    fake.world().unreachable = Some("nobody answers there");
    let bench = Bench::start(&fake, &notes, webhooks(&three()));
    bench.world(|world| world.count("prove") > 0).await;
    let mut target = bench.handle.target.clone();
    target.wait_for(|target| target.as_ref().is_some_and(|target| target.sockets.len() == 2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(callbacks(&fake).iter().all(|callback| callback.contains("Conduit")), "they deliver");
    let entries = bench.handle.subscriptions.borrow().clone();
    assert!(entries.iter().all(|entry| entry.state == SubscriptionState::Enabled));
    let status = bench.handle.status.borrow().clone();
    assert!(status.warnings.iter().any(|text| text.contains("nobody answers there")), "{status:?}");
    fake.world().unreachable = None;
    bench
        .world(|world| {
            world.rows.len() == 3
                && !world.rows.iter().any(|row| matches!(row.target, TransportTarget::Conduit { .. }))
        })
        .await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn twitchs_limit_of_three_is_kept_and_strangers_are_left_alone() {
    let fake = answered();
    let bench = Bench::start(&fake, &Arc::default(), webhooks(&three()[..1]));
    bench.converged().await;
    {
        let mut world = fake.world();
        let ours = world.rows[0].clone();
        for name in ["x", "y"] {
            let target = TransportTarget::Webhook { callback: format!("https://{name}.example").into() };
            world.rows.push(SubscriptionRow { id: name.into(), target, ..ours.clone() });
        }
    }
    let rotated = Desired::clone(&bench.desired.borrow());
    let rotated = Desired { webhook: target(URL, &["second-secret", "first-secret"]), ..rotated };
    bench.desired.send_replace(Arc::new(rotated));
    let new = format!("{URL}?key={}", keys(&["second-secret"]).current().id);
    bench
        .world(|world| {
            world.rows.iter().any(|row| {
                row.target == TransportTarget::Webhook { callback: new.as_str().into() }
                    && row.status == SubscriptionStatus::Enabled
            })
        })
        .await;
    bench.converged().await;
    assert_eq!(callbacks(&fake).len(), 3);
    assert!(fake.world().most_equal <= 3);
    let world = fake.world();
    assert_eq!(world.count("delete x") + world.count("delete y"), 0);
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn shards_that_call_are_proved_bound_and_moved_to_a_new_secret() {
    let (fake, notes) = (answered(), Arc::default());
    let calling =
        |secrets: &[&str]| Desired { shards_call: true, webhook: target(URL, secrets), ..desired(&three()) };
    let bench = Bench::start(&fake, &notes, calling(&["first-secret"]));
    bench.converged().await;
    {
        let world = fake.world();
        let at = |call: &str| world.calls.iter().position(|made| made.starts_with(call)).expect(call);
        assert!(at("prove") < at("bind") && at("bind") < at("create"));
        let calls = |shard: u32, secret: &str| {
            let (transport, status) = &world.shards[&("conduit-1".to_owned(), ShardId(shard))];
            let id = keys(&[secret]).current().id;
            let Transport::Webhook { callback, .. } = transport else { panic!("{transport:?}") };
            assert_eq!((&**callback, *status), (&*format!("{URL}?key={id}&shard={shard}"), "enabled"));
        };
        calls(0, "first-secret");
        calls(1, "first-secret");
    }
    assert!(bench.handle.target.borrow().as_ref().unwrap().sockets.is_empty());
    bench.desired.send_replace(Arc::new(calling(&["second-secret", "first-secret"])));
    let new = keys(&["second-secret"]).current().id;
    let mut in_use = bench.handle.in_use.clone();
    in_use.wait_for(|told| told.as_ref().is_some_and(|told| told.keys == [new].into())).await.unwrap();
    bench.converged().await;
    assert_eq!(fake.world().count("create"), 3, "subscriptions stay as they are");

    // And to sockets, and back.
    bench.reload(&three(), |desired| desired.shards_call = false);
    bench.converged().await;
    let sockets = |fake: &Fake| {
        fake.world()
            .shards
            .values()
            .filter(|(transport, _)| matches!(transport, Transport::Session(_)))
            .count()
    };
    bench.world(|world| world.shards.values().all(|(t, _)| matches!(t, Transport::Session(_)))).await;
    bench.reload(&three(), |desired| desired.shards_call = true);
    bench.world(|world| world.shards.values().all(|(t, _)| matches!(t, Transport::Webhook { .. }))).await;
    bench.converged().await;
    assert_eq!(sockets(&fake), 0);
    let mut target = bench.handle.target.clone();
    target.wait_for(|target| target.as_ref().is_some_and(|target| target.sockets.is_empty())).await.unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lonely_shard_is_moved_behind_a_stand_in() {
    let fake = answered();
    let bench =
        Bench::start(&fake, &Arc::default(), Desired { shards: ShardCount::Fixed(1), ..desired(&three()) });
    bench.converged().await;
    fake.world().calls.clear();
    bench.reload(&three(), |desired| {
        desired.shards_call = true;
        desired.webhook = target(URL, &["first-secret"]);
    });
    bench.world(|world| world.count("resize 1") == 1).await;
    bench.converged().await;
    let world = fake.world();
    assert_eq!(world.count("resize 2"), 1, "{:?}", world.calls);
    let (transport, status) = &world.shards[&("conduit-1".to_owned(), ShardId(0))];
    assert!(matches!(transport, Transport::Webhook { .. }) && *status == "enabled");
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_long_list_a_new_callback_is_looked_up_by_its_id() {
    let many = |count: usize| -> Vec<SubscriptionSpec> {
        (0..count).map(|n| super::fake::literal("stream.online", &format!("{}", 10_000 + n))).collect()
    };
    let fake = answered();
    let bench = Bench::start(&fake, &Arc::default(), webhooks(&many(1_000)));
    bench.converged().await;
    fake.world().calls.clear();
    fake.world().challenge = None;
    bench.reload(&many(1_001), |_| {});
    bench.status(|status| status.generation == 2).await;
    assert!(!bench.handle.status.borrow().converged, "the challenge is not answered");
    fake.world().challenge = Some("enabled");
    fake.world().verify();
    bench.handle.hint(crate::model::hint::Hint::Verified);
    bench.converged().await;
    let world = fake.world();
    assert_eq!((world.count("list All"), world.count("create")), (0, 1), "{:?}", world.calls);
    assert!(world.count("list Id") >= 1);
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_moved_with_whole_lists_and_without_a_gap() {
    let many: Vec<SubscriptionSpec> =
        (0..500).map(|n| super::fake::literal("stream.online", &format!("{}", 10_000 + n))).collect();
    let fake = answered();
    let bench = Bench::start(&fake, &Arc::default(), webhooks(&many));
    bench.converged().await;
    bench.reload(&many, |desired| desired.webhook = target("https://b.example/e", &["first-secret"]));
    let moved = async {
        let is_new = |callback: &String| callback.starts_with("https://b.example/e");
        while !callbacks(&fake).iter().all(is_new) || fake.world().rows.len() != 500 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let live: std::collections::BTreeSet<_> = fake.world().live().into_iter().collect();
            assert_eq!(live.len(), 500, "each is delivered from somewhere");
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), moved).await.expect("it is moved");
    bench.converged().await;
    bench.end().await;
}
