//! The loop, its runs and the binder against a Twitch in memory, in virtual time.

#![allow(
    clippy::await_holding_lock,
    reason = "the guard of the fake is only looked at before the bench ends"
)]

use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use tokio::time::Instant;

use super::fake::{Bench, Fake, Notes, desired, fake, literal, spec};
use super::needs::needs_of;
use super::preview::preview_with;
use super::{ErrorKind, Policy};
use crate::helix::{Conduit, HelixError, Transport};
use crate::model::cluster::{Leadership, Role};
use crate::model::hint::Hint;
use crate::model::mode::ShardCount;
use crate::model::route::SinkName;
use crate::model::shard::{BindOutcome, SessionId, ShardId};
use crate::model::status::SubscriptionState;
use crate::model::subscription::{
    FieldValue, SubscriptionKey, SubscriptionRow, SubscriptionSpec, TransportTarget,
};

/// The daemon spawns it.
#[allow(dead_code, reason = "it is enough that it compiles")]
fn it_can_be_spawned(reconciler: super::Reconciler) -> impl Future<Output = ()> + Send {
    reconciler.run(tokio_util::sync::CancellationToken::new())
}

fn passing() -> HelixError {
    HelixError::Unreachable { message: "no network".into() }
}

fn three() -> [SubscriptionSpec; 3] {
    [spec("stream.online", "ann"), spec("stream.online", "bob"), spec("channel.follow", "cat")]
}

/// With the moderator that the grant of follows is asked of.
fn moderated() -> [SubscriptionSpec; 3] {
    let [ann, bob, cat] = three();
    let field = |name: &'static str| (name.into(), FieldValue::Login("cat".into()));
    let condition = Box::new([field("broadcaster_user_id"), field("moderator_user_id")]);
    [ann, bob, SubscriptionSpec { condition, ..cat }]
}

fn many(count: usize) -> Vec<SubscriptionSpec> {
    (0..count).map(|n| literal("stream.online", &format!("{}", 1000 + n))).collect()
}

async fn settled(specs: &[SubscriptionSpec]) -> Bench {
    let bench = Bench::start(&fake(), &Arc::default(), desired(specs));
    bench.converged().await;
    bench
}

#[tokio::test(start_paused = true)]
async fn from_nothing_to_everything_in_the_right_order() {
    let bench = Bench::start(&fake(), &Arc::default(), desired(&three()));
    let status = bench.converged().await;
    let entries =
        bench.entries(|entries| entries.iter().all(|e| e.state == SubscriptionState::Enabled)).await;
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|entry| entry.id.is_some() && entry.reason.is_none()));
    assert_eq!((status.total_cost, status.max_total_cost), (Some(2), Some(10_000)));
    assert_eq!(status.conduit.as_ref().map(|conduit| conduit.shard_count), Some(2));
    {
        let world = bench.fake.world();
        assert_eq!(world.live().len(), 3);
        let at = |call: &str| world.calls.iter().position(|made| made.starts_with(call)).unwrap();
        assert!(at("make conduit 2") < at("bind"));
        assert!(at("bind") < at("create"), "the first events would be lost");
        assert_eq!(world.count("users"), 1);
    }
    let remembered = bench.notes.pairs.lock().unwrap().clone();
    assert_eq!(remembered["conduit_id:client"], status.conduit.unwrap().id);
    assert!(remembered["login:ann"].starts_with("1 "));
    assert!(!remembered.contains_key("conduit_intent:client"));
    assert!(bench.handle.routes.borrow().as_ref().is_some_and(|routes| routes.is_open("stream.online")));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_start_changes_nothing_and_ending_deletes_nothing() {
    let bench = settled(&three()).await;
    let (fake, notes) = (bench.fake.clone(), bench.notes.clone());
    bench.end().await;
    let before = fake.world().live();
    assert_eq!(before.len(), 3);
    fake.world().calls.clear();
    let bench = Bench::start(&fake, &notes, desired(&three()));
    bench.converged().await;
    let world = fake.world();
    assert_eq!(world.live(), before);
    for call in ["create", "delete", "users", "make", "resize"] {
        assert_eq!(world.count(call), 0, "{call}: {:?}", world.calls);
    }
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn routes_are_there_before_any_network_and_stay_after_a_reload() {
    let notes = Arc::new(Notes::default());
    notes.pairs.lock().unwrap().insert("login:ann".into(), "1 0".into());
    let fake = fake();
    fake.fault("conduits", usize::MAX, passing(), false);
    let mut only = spec("stream.online", "ann");
    only.sinks = Some([SinkName::new("log")].into());
    let other = literal("channel.follow", "1");
    let bench = Bench::start(&fake, &notes, desired(&[only, other.clone()]));
    let mut routes = bench.handle.routes.clone();
    let routes = routes.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(!routes.is_open("stream.online"));
    bench.status(|status| status.problem.is_some()).await;
    fake.clear_faults();
    bench.converged().await;
    bench.reload(&[spec("stream.online", "bob"), other.clone()], |_| {});
    bench.converged().await;
    assert_eq!(bench.handle.routes.borrow().as_deref(), Some(&*routes), "its last events are on their way");
    assert!(routes.lists("stream.online") && !routes.lists("channel.raid"));
    bench.reload(&[spec("channel.raid", "nobody"), other.clone()], |_| {});
    bench.converged().await;
    let both = bench.handle.routes.borrow().clone().unwrap();
    assert!(both.lists("stream.online") && both.lists("channel.raid") && !both.lists("channel.subscribe"));
    bench.reload(&[spec("stream.online", "ann"), other], |_| {});
    bench.converged().await;
    assert!(bench.handle.routes.borrow().as_ref().is_some_and(|routes| routes.is_open("stream.online")));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_what_is_remembered_was_read() {
    let (fake, notes) = (fake(), Arc::new(Notes::default()));
    *notes.broken.lock().unwrap() = true;
    let bench = Bench::start(&fake, &notes, desired(&three()));
    let status = bench.status(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("disk full"));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(fake.world().calls.is_empty());
    assert!(bench.handle.routes.borrow().is_none());
    *notes.broken.lock().unwrap() = false;
    bench.converged().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_ends_the_run_and_runs_back_off() {
    let fake = fake();
    fake.fault("list", 8, passing(), false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    let start = Instant::now();
    let status = bench.status(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("could not be listed: Twitch cannot be reached: no network"));
    bench.converged().await;
    let took = start.elapsed().as_secs();
    // 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 seconds, a quarter more or less.
    assert!((130..240).contains(&took), "{took}");
    assert_eq!(fake.world().count("create"), 3);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_costs_no_second_subscription() {
    let fake = fake();
    fake.fault("create", 2, passing(), true);
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    bench.converged().await;
    let world = fake.world();
    assert_eq!((world.rows.len(), world.count("create")), (3, 3));
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_equal_one_is_adopted_and_a_dead_one_cleared() {
    for (id, listed) in [(Some("sub-1"), "Id"), (None, "User")] {
        let bench = settled(&three()[..1]).await;
        // The list does not have it at first.
        let row = {
            let mut world = bench.fake.world();
            world.rows.remove(0)
        };
        let id = id.map(|_| row.id.to_string().into());
        bench.fake.fault("create", 1, HelixError::Conflict { id }, false);
        let fake = bench.fake.clone();
        let put_back = async {
            let before = fake.world().count("create");
            while fake.world().count("create") == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            fake.world().rows.push(row.clone());
        };
        tokio::join!(bench.apply(false), put_back);
        bench.entries(|entries| entries[0].id == Some(row.id.clone())).await;
        assert_eq!(bench.fake.world().count(&format!("list {listed}")), 1);
        bench.end().await;
    }
    let bench = settled(&three()[..1]).await;
    bench.fake.world().rows.clear();
    bench.fake.fault("create", 1, HelixError::Conflict { id: Some("nowhere".into()) }, false);
    bench.apply(false).await;
    let entries = bench.entries(|entries| entries[0].state == SubscriptionState::Parked).await;
    assert!(entries[0].reason.as_deref().unwrap().contains("nowhere"));
    bench.entries(|entries| entries[0].state == SubscriptionState::Enabled).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_parks_one_and_the_others_go_on() {
    let fake = fake();
    let refused = HelixError::Forbidden { message: "subscription missing proper authorization".into() };
    fake.fault("create channel.follow", 2, refused, false);
    let start = Instant::now();
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    bench.converged().await;
    let entries = bench.entries(|entries| entries.iter().any(|e| e.state == SubscriptionState::Parked)).await;
    assert_eq!(entries.iter().filter(|e| e.state == SubscriptionState::Enabled).count(), 2);
    let parked = entries.iter().find(|e| e.state == SubscriptionState::Parked).unwrap();
    assert!(parked.reason.as_deref().unwrap().contains("moderator:read:followers"), "{parked:?}");
    assert!(parked.retry_at.is_some());
    // After 5 minutes it is refused again, after 10 more it is not.
    bench.entries(|entries| entries.iter().all(|e| e.state == SubscriptionState::Enabled)).await;
    let took = start.elapsed().as_secs();
    assert!((900..1000).contains(&took), "{took}");
    assert_eq!(fake.world().count("create channel.follow"), 3);
    assert_eq!(fake.world().count("create stream.online"), 2);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_user_or_version_that_is_gone_is_tried_again_slowly_and_on_apply_and_on_reload() {
    let fake = fake();
    fake.fault("create channel.follow", 4, HelixError::Gone { message: "removed".into() }, false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    bench.converged().await;
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    assert_eq!(fake.world().count("create channel.follow"), 1);
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(fake.world().count("create channel.follow"), 3, "after 1 and 2 more hours");
    bench.apply(false).await;
    assert_eq!(fake.world().count("create channel.follow"), 4);
    bench.reload(&three(), |_| {});
    bench.entries(|entries| entries.iter().all(|e| e.state == SubscriptionState::Enabled)).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_refused_end_the_run_at_once() {
    let fake = fake();
    fake.fault("create", 1, HelixError::Unauthorized { message: "invalid client secret".into() }, false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(50)));
    let status = bench.status(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("invalid client secret"));
    assert!(fake.world().count("create") <= 32);
    bench.converged().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_conduit_that_vanishes_is_made_again_with_everything() {
    let bench = settled(&three()).await;
    let old = bench.handle.target.borrow().clone().unwrap();
    {
        let mut world = bench.fake.world();
        world.conduits.clear();
        world.rows.clear();
        world.shards.clear();
    }
    // The next look at the shards finds out.
    let start = Instant::now();
    let mut target = bench.handle.target.clone();
    let new = target.wait_for(|target| target.as_ref() != Some(&old)).await.unwrap().clone().unwrap();
    assert!(start.elapsed() <= Duration::from_secs(125), "{:?}", start.elapsed());
    bench.world(|world| world.live().len() == 3).await;
    let world = bench.fake.world();
    assert!(world.shards.keys().all(|(conduit, _)| **conduit == *new.conduit_id));
    assert_eq!(world.shards.len(), 2);
    drop(world);
    assert_eq!(bench.notes.pairs.lock().unwrap()["conduit_id:client"], *new.conduit_id);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_conduit_that_vanishes_during_creates_ends_the_run() {
    let fake = fake();
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(200)));
    bench.world(|world| world.count("create") > 50).await;
    {
        let mut world = fake.world();
        world.conduits.clear();
        world.rows.clear();
        world.shards.clear();
    }
    bench.converged().await;
    assert_eq!(fake.world().live().len(), 200);
    assert_eq!(fake.world().count("make conduit"), 2);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_configured_conduit_is_adopted_or_missed_but_never_made() {
    let fake = fake();
    fake.world().conduits.push(Conduit { id: "theirs".into(), shard_count: 2 });
    let wanted = |id: &str| super::Desired { conduit_id: Some(id.into()), ..desired(&three()) };
    let bench = Bench::start(&fake, &Arc::default(), wanted("x"));
    let problem = bench.status(|status| status.problem.is_some()).await.problem.unwrap();
    assert!(problem.contains("conduit x") && problem.contains("theirs (2 shards)"), "{problem}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(fake.world().count("make"), 0);
    assert!(bench.handle.target.borrow().is_none());
    bench.reload(&three(), |desired| desired.conduit_id = Some("theirs".into()));
    bench.converged().await;
    assert_eq!(fake.world().count("make"), 0);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn foreign_conduits_are_left_alone_and_named_when_there_is_no_room() {
    let fake = fake();
    for n in 0..5 {
        fake.world().conduits.push(Conduit { id: format!("foreign-{n}"), shard_count: 1 });
    }
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    let problem = bench.status(|status| status.problem.is_some()).await.problem.unwrap();
    assert!(problem.contains("foreign-4") && problem.contains("transport.conduit.id"), "{problem}");
    assert!(!bench.notes.pairs.lock().unwrap().contains_key("conduit_intent:client"));
    fake.world().conduits.pop();
    bench.converged().await;
    assert_eq!(fake.world().conduits.len(), 5);
    assert_eq!(fake.world().count("resize"), 0);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_conduit_whose_answer_was_lost_is_found_again() {
    let fake = fake();
    fake.world().conduits.push(Conduit { id: "foreign".into(), shard_count: 1 });
    fake.fault("make conduit", 1, passing(), true);
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    bench.converged().await;
    assert_eq!(fake.world().count("make conduit"), 1);
    assert_eq!(fake.world().conduits.len(), 2);
    assert_ne!(&*bench.handle.target.borrow().clone().unwrap().conduit_id, "foreign");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn shards_grow_and_shrink_with_the_file() {
    let bench = settled(&three()).await;
    bench.reload(&three(), |desired| desired.shards = ShardCount::Fixed(5));
    bench.world(|world| world.shards.len() == 5).await;
    bench.converged().await;
    assert_eq!(bench.handle.bindings.borrow().len(), 5);
    bench.reload(&three(), |desired| desired.shards = ShardCount::Fixed(1));
    let mut sessions = bench.sessions.subscribe();
    sessions.wait_for(|sessions| sessions.len() == 1).await.unwrap();
    bench.world(|world| world.conduits[0].shard_count == 1).await;
    bench.converged().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn shards_follow_the_number_of_hosts() {
    let fake = fake();
    let order = Leadership { role: Role::Leader, term: 1, ..Leadership::default() };
    let (orders, leadership) = tokio::sync::watch::channel(order);
    let wanted = super::Desired { shards: ShardCount::Auto, ..desired(&three()) };
    let bench = Bench::start_with_orders(&fake, &Arc::default(), wanted, leadership);
    bench.converged().await;
    for (hosts, shards) in [(1, 2), (3, 3), (4, 4), (3, 3)] {
        orders.send_modify(|orders| orders.hosts = hosts);
        bench.world(|world| world.conduits[0].shard_count == shards).await;
        bench.converged().await;
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn sessions_are_bound_within_a_second_even_in_the_midst_of_creates() {
    let fake = fake();
    fake.world().latency = Duration::from_millis(500);
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(500)));
    bench.world(|world| world.count("create") > 30).await;
    let first = bench.sessions.borrow()[&ShardId(0)].session_id.clone();
    fake.world().over.insert(first.clone());
    fake.world()
        .shards
        .insert(("conduit-1".into(), ShardId(0)), (Transport::Session(first), "websocket_disconnected"));
    let mut bindings = bench.handle.bindings.clone();
    let second = SessionId::new("session-3");
    let bound = bindings.wait_for(|bindings| {
        bindings.get(&ShardId(0)).is_some_and(|b| b.session_id == second && b.outcome == BindOutcome::Bound)
    });
    // By a look at the shards, 60 to 120 seconds later, or by the pool.
    let pool = async {
        let mut next = std::collections::BTreeMap::clone(&bench.sessions.borrow());
        next.get_mut(&ShardId(0)).unwrap().session_id = second.clone();
        bench.sessions.send_replace(Arc::new(next));
    };
    let start = Instant::now();
    let (bound, ()) = tokio::join!(bound, pool);
    bound.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(fake.world().live().len() < 500);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stolen_shard_is_taken_back_and_told_of() {
    let bench = settled(&three()).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    bench
        .fake
        .world()
        .shards
        .insert(("conduit-1".into(), ShardId(1)), (Transport::Session(SessionId::new("thief")), "enabled"));
    let status = bench.status(|status| !status.warnings.is_empty()).await;
    assert!(status.warnings[0].contains("shard 1 was bound to another session"), "{:?}", status.warnings);
    bench
        .world(|world| {
            world.shards.values().all(|(session, _)| *session != Transport::Session(SessionId::new("thief")))
        })
        .await;
    bench.status(|status| status.warnings.is_empty()).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_replaced() {
    let bench = settled(&three()).await;
    let old = bench.sessions.borrow()[&ShardId(0)].session_id.clone();
    bench.fake.world().over.insert(old.clone());
    bench.fake.world().shards.insert(
        ("conduit-1".into(), ShardId(0)),
        (Transport::Session(old.clone()), "websocket_disconnected"),
    );
    let mut bindings = bench.handle.bindings.clone();
    bindings
        .wait_for(|bindings| {
            bindings.get(&ShardId(0)).is_some_and(|b| b.session_id != old && b.outcome == BindOutcome::Bound)
        })
        .await
        .unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn binding_is_repeated_each_second_while_it_can_help() {
    let fake = fake();
    fake.world().latency = Duration::from_millis(10);
    fake.fault("bind", 5, passing(), false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    let start = Instant::now();
    bench.converged().await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(
        bench.handle.bindings.borrow().values().filter(|b| b.outcome == BindOutcome::Bound).count(),
        2
    );
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_shards_it_waits_a_little_goes_on_and_warns() {
    let bench = Bench::without_pool(&fake(), &Arc::default(), desired(&three()));
    let start = Instant::now();
    bench.converged().await;
    assert!((15..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let status = bench.status(|status| !status.warnings.is_empty()).await;
    assert!(status.warnings[0].contains("72 hours"), "{:?}", status.warnings);
    bench.end().await;
}

/// A host that is cut off from the others binds its shards in another way, or another host does.
#[tokio::test(start_paused = true)]
async fn a_host_that_may_send_nothing_does_not_warn_of_unbound_shards() {
    let fake = fake();
    for call in ["bind", "shards"] {
        fake.fault(call, usize::MAX, HelixError::StandingBy, false);
    }
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    bench.converged().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(bench.handle.status.borrow().warnings, [""; 0]);
    assert!(fake.world().count("bind") > 5);
    fake.clear_faults();
    let mut bindings = bench.handle.bindings.clone();
    let all_bound = bindings.wait_for(|bindings| bindings.values().all(|b| b.outcome == BindOutcome::Bound));
    all_bound.await.unwrap();
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_emptied_file_deletes_nothing_until_it_is_allowed() {
    let bench = settled(&many(30)).await;
    bench.reload(&[], |_| {});
    let held = bench.status(|status| status.deletes_held.is_some()).await;
    assert_eq!(held.deletes_held.map(|held| (held.deletes, held.ours)), Some((30, 30)));
    bench.status(|status| status.generation == 2 && !status.converged).await;
    // Neither runs, nor a restart, nor new subscriptions let it slip.
    bench.apply(false).await;
    bench.reload(&many(100)[30..], |_| {});
    bench.status(|status| status.generation == 3).await;
    assert_eq!(bench.fake.world().live().len(), 100);
    let (fake, notes) = (bench.fake.clone(), bench.notes.clone());
    bench.end().await;
    let bench = Bench::start(&fake, &notes, desired(&many(100)[30..]));
    bench.status(|status| status.deletes_held.is_some()).await;
    assert_eq!(fake.world().count("delete"), 0);
    // The allowance outlives a run that fails.
    fake.fault("delete", 1, passing(), false);
    bench.apply(true).await;
    bench.converged().await;
    assert_eq!(fake.world().live().len(), 70);
    assert!(!notes.pairs.lock().unwrap().contains_key("deletes_held:client"));
    // And is used up by then.
    bench.reload(&[], |_| {});
    bench.status(|status| status.deletes_held.is_some()).await;
    assert_eq!(fake.world().live().len(), 70);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_file_drops_is_deleted_and_foreign_rows_stay() {
    let bench = settled(&three()).await;
    {
        let mut world = bench.fake.world();
        let row = world.rows[0].clone();
        for (id, target) in [
            ("theirs-1", TransportTarget::Conduit { conduit_id: "theirs".into() }),
            ("theirs-2", TransportTarget::Webhook { callback: "https://x".into() }),
        ] {
            world.rows.push(SubscriptionRow { id: id.into(), target, ..row.clone() });
        }
    }
    bench.reload(&three()[..1], |desired| desired.policy = Policy::Keep);
    bench.converged().await;
    assert_eq!(bench.fake.world().rows.len(), 5);
    bench.reload(&three()[..1], |desired| desired.policy = Policy::Sync);
    bench.converged().await;
    let ids: Vec<String> = bench.fake.world().rows.iter().map(|row| row.id.to_string()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().any(|id| id == "theirs-1") && ids.iter().any(|id| id == "theirs-2"));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_cuts_a_long_run_short() {
    let fake = fake();
    fake.world().latency = Duration::from_secs(1);
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(2000)));
    bench.world(|world| world.count("create") > 100).await;
    bench.reload(&many(2000)[..40], |desired| desired.max_delete = 1.0);
    let start = Instant::now();
    bench.converged().await;
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(fake.world().live().len(), 40);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_finishes_what_is_in_hand_and_no_more() {
    let fake = fake();
    fake.world().latency = Duration::from_secs(1);
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(500)));
    bench.world(|world| world.count("create") > 100).await;
    let start = Instant::now();
    bench.end().await;
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    let world = fake.world();
    assert_eq!(world.count("create"), world.live().len(), "each that was sent was awaited");
}

#[tokio::test(start_paused = true)]
async fn costs_are_filled_to_the_limit_and_never_beyond() {
    let fake = fake();
    fake.world().max_cost = 40;
    let mut specs = many(60);
    specs.extend((0..10).map(|n| literal("channel.follow", &n.to_string())));
    let bench = Bench::start(&fake, &Arc::default(), desired(&specs));
    let status = bench.converged().await;
    assert_eq!((status.total_cost, status.max_total_cost), (Some(40), Some(40)));
    assert!(status.warnings.iter().any(|text| text.contains("cost 40 of 40")), "{:?}", status.warnings);
    {
        let world = fake.world();
        assert_eq!((world.live().len(), world.count("create")), (50, 50), "none was sent in vain");
        assert!(world.most_in_flight >= 10, "{}", world.most_in_flight);
    }
    let entries = bench.entries(|entries| entries.iter().any(|e| e.state == SubscriptionState::Parked)).await;
    assert_eq!(entries.iter().filter(|e| e.state == SubscriptionState::Parked).count(), 20);
    // Room appears: the file swaps some, and all of the new ones fit.
    let swapped: Vec<_> = specs[30..].to_vec();
    bench.reload(&swapped, |desired| desired.max_delete = 1.0);
    bench
        .entries(|entries| {
            entries.len() == 40 && entries.iter().all(|e| e.state == SubscriptionState::Enabled)
        })
        .await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_login_parks_its_subscription_until_it_is_known() {
    let specs = [spec("stream.online", "ann"), spec("stream.online", "dan")];
    let bench = Bench::start(&fake(), &Arc::default(), desired(&specs));
    bench.converged().await;
    let entries = bench.entries(|entries| entries.iter().any(|e| e.state == SubscriptionState::Parked)).await;
    let parked = entries.iter().find(|e| e.state == SubscriptionState::Parked).unwrap();
    assert_eq!(parked.key.to_string(), "stream.online v1 broadcaster_user_id=@dan");
    assert!(parked.reason.as_deref().unwrap().contains("no user with the login dan"));
    assert!(parked.retry_at.is_some());
    bench.fake.world().users.insert("dan".into(), "44".into());
    let entries =
        bench.entries(|entries| entries.iter().all(|e| e.state == SubscriptionState::Enabled)).await;
    assert_eq!(entries.len(), 2);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_renamed_user_keeps_the_subscription_and_is_told_of() {
    let bench = settled(&three()).await;
    {
        let mut world = bench.fake.world();
        world.users.remove("ann");
        world.users.insert("anna".into(), "1".into());
        world.users.insert("ann".into(), "99".into());
    }
    let start = Instant::now();
    let status = bench.status(|status| !status.warnings.is_empty()).await;
    assert!(start.elapsed() > Duration::from_secs(86_000));
    assert!(status.warnings[0].contains("called anna now"), "{:?}", status.warnings);
    bench.apply(false).await;
    assert_eq!(bench.fake.world().count("create"), 3);
    assert_eq!(bench.fake.world().count("delete"), 0);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_looked_at_soon() {
    let bench = settled(&three()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.fake.world().revoke("broadcaster_user_id=1", "notification_failures_exceeded");
    bench.fake.world().revoke("channel.follow", "authorization_revoked");
    let start = Instant::now();
    bench.hear_of_an_end();
    let entries = bench.entries(|entries| entries.iter().any(|e| e.state == SubscriptionState::Parked)).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let parked = entries.iter().find(|e| e.state == SubscriptionState::Parked).unwrap();
    assert!(parked.reason.as_deref().unwrap().contains("authorization_revoked"), "{parked:?}");
    bench.world(|world| world.live().len() == 2 && world.rows.len() == 2).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_no_convergence_until_it_is_there_again() {
    let bench = settled(&three()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.fake.world().latency = Duration::from_secs(1);
    bench.fake.world().revoke("broadcaster_user_id=1", "notification_failures_exceeded");
    bench.hear_of_an_end();
    let creates = bench.fake.world().count("create");
    bench.world(|world| world.count("create") > creates).await;
    assert!(!bench.handle.status.borrow().converged);
    let status = bench.converged().await;
    assert_eq!((bench.fake.world().live().len(), status.problem), (3, None));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_would_be_refused_is_not_sent_and_a_grant_is_acted_on_at_once() {
    let fake = fake();
    fake.world().grants = Some(std::collections::BTreeMap::new());
    let bench = Bench::start(&fake, &Arc::default(), desired(&moderated()));
    let status = bench.converged().await;
    let entries = bench.entries(|entries| entries.iter().any(|e| e.state == SubscriptionState::Parked)).await;
    let parked = entries.iter().find(|e| e.state == SubscriptionState::Parked).unwrap();
    assert_eq!(
        parked.reason.as_deref(),
        Some("needs grant: cat must allow moderator:read:followers: run `eventsubd authorize --user cat`")
    );
    assert_eq!((status.grants.len(), &*status.grants[0].user_id), (1, "3"));
    assert_eq!(fake.world().count("create channel.follow"), 0);
    assert_eq!(fake.world().count("grants"), 1);

    // Somebody else's grant changes nothing, and is no reason to ask about cat again at once.
    tokio::time::sleep(Duration::from_secs(30)).await;
    bench.handle.hint(Hint::Grants { user_id: "1".into() });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fake.world().count("grants"), 1);
    let granted = vec!["moderator:read:followers".to_owned()];
    fake.world().grants = Some([("3".to_owned(), granted)].into());
    let start = Instant::now();
    bench.handle.hint(Hint::Grants { user_id: "3".into() });
    bench.entries(|entries| entries.iter().all(|e| e.state == SubscriptionState::Enabled)).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let status = bench.converged().await;
    assert!(status.grants.iter().all(|user| user.missing.is_empty()), "{:?}", status.grants);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_twitch_does_not_say_is_tried() {
    let fake = fake();
    fake.world().grants = Some(std::collections::BTreeMap::new());
    fake.fault("grants", usize::MAX, passing(), false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&moderated()));
    bench.converged().await;
    assert_eq!(fake.world().live().len(), 3);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_about_a_shard_leads_to_a_look_at_once() {
    let bench = settled(&three()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = bench.fake.world().count("shards");
    bench.handle.hint(Hint::Shards);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.fake.world().count("shards"), before + 1);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_daemons_own_subscriptions_go_to_no_sink_unless_the_file_has_them() {
    let own = crate::model::hint::subscriptions("client");
    let bench = settled(&three()).await;
    bench.reload(&three(), |desired| desired.watch_grants = true);
    bench.converged().await;
    let entries = bench.entries(|entries| entries.len() == 6).await;
    assert_eq!(entries.iter().filter(|entry| entry.own).count(), 3);
    let sink = SinkName::new("a");
    let allowed = |key| bench.handle.routes.borrow().as_ref().unwrap().allows(key, &sink);
    assert!(own.iter().all(|key| !allowed(key)));
    let asked = SubscriptionSpec {
        subscription_type: own[0].subscription_type.as_ref().into(),
        version: "1".into(),
        condition: Box::new([("client_id".into(), FieldValue::Literal("client".into()))]),
        sinks: None,
    };
    bench.reload(&[&three()[..], &[asked]].concat(), |_| {});
    bench.converged().await;
    let entries = bench.entries(|entries| entries.iter().filter(|entry| entry.own).count() == 2).await;
    assert_eq!(entries.len(), 6);
    assert!(allowed(&own[0]) && !allowed(&own[1]));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_again_and_again_is_no_tight_loop() {
    let bench = settled(&three()).await;
    let until = Instant::now() + Duration::from_secs(3600);
    while Instant::now() < until {
        let again = bench.fake.world().live().len() == 3;
        if again {
            bench.fake.world().revoke("channel.follow", "notification_failures_exceeded");
            bench.hear_of_an_end();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let creates = bench.fake.world().count("create channel.follow");
    assert!((5..14).contains(&creates), "{creates} in an hour");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn thousands_are_created_with_few_requests_at_a_time_and_few_publications() {
    let fake = fake();
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(3000)));
    let (mut status, mut publications) = (bench.handle.status.clone(), 0);
    let start = Instant::now();
    while !status.borrow_and_update().converged {
        status.changed().await.unwrap();
        publications += 1;
    }
    let seconds = start.elapsed().as_secs() + 1;
    assert!(publications < 2 * seconds + 20, "{publications} in {seconds} s");
    assert_eq!(fake.world().live().len(), 3000);
    // The binder may have one of its own beside them.
    assert!(fake.world().most_in_flight <= 18, "{}", fake.world().most_in_flight);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn many_failures_in_a_row_end_a_run_and_a_few_do_not() {
    let fake = fake();
    fake.fault("create", 3, passing(), false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&many(100)));
    bench.world(|world| world.count("create") >= 100).await;
    bench.converged().await;
    assert_eq!(fake.world().count("list"), 2);
    assert_eq!(fake.world().count("create"), 103);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_login_that_spoils_its_call_is_found_out() {
    let fake = fake();
    fake.fault("users ann bob cat", 1, HelixError::Invalid { message: "bad login".into() }, false);
    fake.fault("users bob cat", 1, HelixError::Invalid { message: "bad login".into() }, false);
    fake.fault("users bob", 1, HelixError::Invalid { message: "bad login".into() }, false);
    let bench = Bench::start(&fake, &Arc::default(), desired(&three()));
    bench.converged().await;
    let entries = bench.entries(|entries| entries.iter().any(|e| e.state == SubscriptionState::Parked)).await;
    assert_eq!(entries.iter().filter(|e| e.state == SubscriptionState::Enabled).count(), 2);
    bench.end().await;
}

async fn render(fake: &Fake, notes: &Arc<Notes>, desired: &super::Desired) -> (String, bool) {
    let preview = preview_with(fake, notes.clone(), "client", desired, &mut Vec::new()).await.unwrap();
    let mut text = Vec::new();
    preview.render(&mut text, false).unwrap();
    let json: serde_json::Value = serde_json::to_value(&preview).unwrap();
    assert_eq!(json["actions"].as_array().unwrap().len(), preview.plan.actions.len());
    let mut colored = Vec::new();
    preview.render(&mut colored, true).unwrap();
    assert_eq!(colored.contains(&0x1b), preview.has_changes() || !preview.plan.blocked.is_empty());
    (String::from_utf8(text).unwrap(), preview.has_changes())
}

#[tokio::test(start_paused = true)]
async fn a_preview_has_the_exact_costs_of_users_whom_twitch_tells_about() {
    let (fake, notes) = (fake(), Arc::<Notes>::default());
    let follows = vec!["moderator:read:followers".to_owned()];
    fake.world().grants = Some([("3".to_owned(), follows)].into());
    fake.world().authorized = Some(vec!["1".to_owned(), "3".to_owned()]);
    let (text, _) = render(&fake, &notes, &desired(&moderated())).await;
    expect![[r#"
        + conduit with 2 shards
        + channel.follow v2 broadcaster cat (3) moderator cat (3)
        + stream.online v1 broadcaster ann (1)
        + stream.online v1 broadcaster bob (2) (costs 1)
          cat has allowed moderator:read:followers
          cost 0 of 10000, and 1 more
        Plan: 3 to create, 0 to delete, 0 to keep, 0 parked.
    "#]]
    .assert_eq(&text);

    // An answer that cannot be read is named, and the plan is there all the same.
    let garbled = || HelixError::Garbled { message: "`data` is text".into() };
    fake.fault("grants", 2, garbled(), false);
    let (text, _) = render(&fake, &notes, &desired(&moderated())).await;
    assert!(text.contains("bob (2) (costs at most 1)") && text.contains("and at most 2 more"), "{text}");
    assert!(
        text.contains("! Twitch does not say what some users have granted: ")
            && text.contains("`data` is text"),
        "{text}"
    );
    assert!(text.contains("Plan: 3 to create"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn one_answer_about_grants_that_cannot_be_read_is_not_the_end_of_the_report() {
    let fake = fake();
    let logins: Vec<String> = (100..112).map(|n| format!("user{n}")).collect();
    fake.world().users.extend(logins.iter().map(|login| (login.clone(), login[4..].to_owned())));
    fake.world().grants = Some(std::collections::BTreeMap::new());
    let specs: Vec<_> = logins.iter().map(|login| spec("channel.ban", login)).collect();
    fake.fault("grants", 1, HelixError::Garbled { message: "`data` is text".into() }, false);
    let found = needs_of(&fake, &desired(&specs), None).await.unwrap();
    assert_eq!(found.users.len(), 12, "all are named");
    assert_eq!(found.users.iter().filter(|user| user.is_known).count(), 2);
    assert!(found.users.iter().all(|user| !user.scopes.is_empty()), "and what they would be asked for");
    assert_eq!(found.remarks.len(), 1);
    assert!(
        found.remarks[0].starts_with("Twitch does not say what 10 users have granted: ")
            && found.remarks[0].contains("`data` is text"),
        "{:?}",
        found.remarks
    );
    fake.fault("grants", 1, HelixError::Unauthorized { message: "refused".into() }, false);
    let error = needs_of(&fake, &desired(&specs), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_preview_meets_the_limits_of_conduits_and_of_costs() {
    let (fake, notes) = (fake(), Arc::<Notes>::default());
    fake.world().conduits = (1..=5).map(|n| Conduit { id: format!("other-{n}"), shard_count: 1 }).collect();
    fake.world().max_cost = 1;
    let preview = preview_with(&fake, notes, "client", &desired(&three()), &mut Vec::new()).await.unwrap();
    let why = preview.stops.clone().expect("five conduits are all that Twitch allows");
    assert!(
        why.contains("other-1") && why.contains("other-5") && why.contains("transport.conduit.id"),
        "{why}"
    );
    assert_eq!((preview.total_cost, preview.max_total_cost), (Some(0), Some(1)));
    assert_eq!((preview.plan.actions.len(), preview.plan.blocked.len()), (2, 1), "room for one that costs");
    let mut text = Vec::new();
    preview.render(&mut text, false).unwrap();
    assert!(String::from_utf8(text).unwrap().starts_with("✗ a run ends before it changes anything"));
}

#[tokio::test(start_paused = true)]
async fn a_preview_says_what_a_run_would_do_and_does_nothing() {
    let (new, notes) = (fake(), Arc::<Notes>::default());
    let (text, changes) = render(&new, &notes, &desired(&three())).await;
    assert!(changes);
    expect![[r#"
        + conduit with 2 shards
        + channel.follow v2 broadcaster cat (3)
        + stream.online v1 broadcaster ann (1) (costs at most 1)
        + stream.online v1 broadcaster bob (2) (costs at most 1)
        ! Twitch does not say what some users have granted: Twitch does not find it (404): not found
          cost 0 of 10000, and at most 2 more
        Plan: 3 to create, 0 to delete, 0 to keep, 0 parked.
    "#]]
    .assert_eq(&text);
    assert!(notes.pairs.lock().unwrap().is_empty());

    let bench = settled(&three()).await;
    let (fake, notes) = (bench.fake.clone(), bench.notes.clone());
    bench.end().await;
    let hostile = {
        let mut row = fake.world().rows[0].clone();
        row.id = "hostile".into();
        let condition = crate::model::subscription::Condition::from_pairs([(
            "broadcaster_user_id",
            "9\u{1b}[2J\n+ forged\u{202e}",
        )]);
        row.key = SubscriptionKey::new(&row.key.subscription_type, &row.key.version, condition);
        row
    };
    fake.world().rows.push(hostile);
    let (text, _) = render(&fake, &notes, &desired(&three())).await;
    assert!(text.contains(r"9\x1b[2J\n+ forged\u{202e} (not in the file)"), "{text}");
    fake.world().rows.pop();
    let (text, changes) = render(&fake, &notes, &desired(&three())).await;
    assert!(!changes);
    expect![[r#"
          keep 3
          cost 2 of 10000, and 0 more
        Plan: 0 to create, 0 to delete, 3 to keep, 0 parked.
    "#]]
    .assert_eq(&text);

    fake.world().revoke("broadcaster_user_id=1", "authorization_revoked");
    let mut specs = vec![three()[0].clone(), three()[2].clone(), spec("stream.online", "nobody")];
    specs.push(spec("stream.offline", "cat"));
    let before = fake.world().rows.clone();
    fake.world().calls.clear();
    let (text, _) =
        render(&fake, &notes, &super::Desired { shards: ShardCount::Fixed(3), ..desired(&specs) }).await;
    expect![[r#"
        ~ conduit conduit-1: 2 shards -> 3
        - stream.online v1 broadcaster ann (1) (dead: authorization_revoked)
        + stream.offline v1 broadcaster cat (3) (costs at most 1)
        - stream.online v1 broadcaster bob (2) (not in the file)
        ! stream.online v1 broadcaster ann (1): a user of the condition disconnected the application or changed the password; have that user authorize the application again (authorization_revoked)
        ! stream.online v1 broadcaster @nobody: Twitch knows no user with the login nobody: misspelt, renamed, banned or deleted; correct the file
        ! Twitch does not say what some users have granted: Twitch does not find it (404): not found
          keep 1
          cost 1 of 10000, and at most 1 more
        Plan: 1 to create, 2 to delete, 1 to keep, 2 parked.
    "#]].assert_eq(&text);
    assert_eq!(fake.world().rows, before);
    for call in ["create", "delete", "make", "resize", "bind"] {
        assert_eq!(fake.world().count(call), 0);
    }

    fake.fault("conduits", 1, HelixError::Unauthorized { message: "refused".into() }, false);
    let error =
        preview_with(&fake, notes.clone(), "client", &desired(&specs), &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
}

#[tokio::test(start_paused = true)]
async fn it_shows_that_it_lives_unless_a_request_never_ends() {
    const MINUTE: Duration = Duration::from_secs(60);
    let bench = settled(&three()).await;
    let counts = || [bench.handle.pulse.count(), bench.handle.binder_pulse.count()];
    for _ in 0..20 {
        let [engine, binder] = counts();
        tokio::time::sleep(2 * MINUTE).await;
        assert!(counts()[0] > engine && counts()[1] > binder, "idle is not dead");
    }
    bench.fake.fault("conduits", 50, passing(), false);
    bench.apply(false).await;
    for _ in 0..10 {
        let [engine, _] = counts();
        tokio::time::sleep(2 * MINUTE).await;
        assert!(counts()[0] > engine, "failing is not dead");
    }
    bench.fake.clear_faults();
    bench.converged().await;

    bench.fake.world().latency = 10_000 * MINUTE;
    bench.handle.apply(false);
    tokio::time::sleep(2 * MINUTE).await;
    let [engine, binder] = counts();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(counts()[0], engine, "it hangs");
    assert!(counts()[1] > binder, "the binder does not wait for the answers that it asked for");
    bench.fake.world().latency = Duration::ZERO;
    bench.end().await;
}
