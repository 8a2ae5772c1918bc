//! Long lists: planning from what is known, and being ready before the list is read.

#![allow(
    clippy::await_holding_lock,
    reason = "the guard of the fake is only looked at before the bench ends"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fake::{Bench, Fake, Notes, desired, fake, literal};
use crate::model::hint::Hint;
use crate::model::mode::ShardCount;
use crate::model::status::SubscriptionState;
use crate::model::subscription::SubscriptionSpec;

/// More than fit on the pages of a list that is always read.
const MANY: usize = 1_000;

const INTERVAL: Duration = Duration::from_secs(1800);

fn many(count: usize) -> Vec<SubscriptionSpec> {
    (0..count).map(|n| literal("stream.online", &format!("{}", 10_000 + n))).collect()
}

async fn settled(count: usize) -> Bench {
    let bench = Bench::start(&fake(), &Arc::default(), desired(&many(count)));
    bench.converged().await;
    // The looks at the shards after the start are over.
    sleep(Duration::from_secs(1)).await;
    bench.fake.world().calls.clear();
    bench
}

/// The calls other than the looks at the shards, which go on by themselves.
fn calls(fake: &Fake) -> Vec<String> {
    let world = fake.world();
    world.calls.iter().filter(|call| !call.starts_with("shards")).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_one_costs_a_few_requests_and_the_next_comparison_changes_nothing() {
    let bench = settled(MANY).await;
    let start = Instant::now();
    bench.reload(&many(MANY + 1), |_| {});
    bench.converged().await;
    assert_eq!(calls(&bench.fake).len(), 2, "{:?}", calls(&bench.fake));
    assert_eq!(bench.fake.world().live().len(), MANY + 1);
    bench.fake.world().calls.clear();
    bench.reload(&many(MANY), |_| {});
    bench.converged().await;
    assert_eq!(calls(&bench.fake).len(), 2, "{:?}", calls(&bench.fake));
    assert_eq!(bench.fake.world().live().len(), MANY);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    bench.fake.world().calls.clear();
    bench.world(|world| world.count("list") > 0).await;
    sleep(Duration::from_secs(60)).await;
    let world = bench.fake.world();
    assert_eq!((world.count("create"), world.count("delete"), world.count("list")), (0, 0, 1));
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_deletes_much_reads_the_list_first() {
    let bench = settled(MANY).await;
    bench.reload(&many(MANY / 2 + 1), |_| {});
    bench.converged().await;
    assert_eq!(bench.fake.world().count("list"), 1);
    assert_eq!(bench.fake.world().live().len(), MANY / 2 + 1);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_deletion_is_found_by_the_next_comparison_and_by_apply() {
    let bench = settled(MANY).await;
    let (deleted, start) = (bench.fake.world().rows.remove(7).key, Instant::now());
    bench.reload(&many(MANY + 1), |_| {});
    bench.converged().await;
    assert!(!bench.fake.world().live().contains(&deleted.to_string()), "nobody has said so");
    bench.world(|world| world.live().len() == MANY + 1).await;
    assert!(start.elapsed() < INTERVAL + Duration::from_secs(5), "{:?}", start.elapsed());
    bench.fake.world().rows.remove(7);
    bench.apply(false).await;
    assert_eq!(bench.fake.world().live().len(), MANY + 1);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_is_heard_of_is_acted_on_without_a_list() {
    let bench = settled(MANY).await;
    let id = bench.fake.world().rows[3].id.clone();
    bench.fake.world().revoke("broadcaster_user_id=10003", "notification_failures_exceeded");
    bench.handle.hint(Hint::Ended { id, status: "notification_failures_exceeded".into() });
    let start = Instant::now();
    bench.world(|world| world.rows.len() == MANY && world.live().len() == MANY).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(bench.fake.world().count("list"), 0);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn more_ends_than_can_be_remembered_have_the_list_read() {
    let bench = settled(MANY).await;
    let ids: Vec<_> = bench.fake.world().rows.iter().map(|row| row.id.clone()).collect();
    for _ in 0..11 {
        for id in &ids {
            bench.handle.hint(Hint::Ended { id: id.clone(), status: "user_removed".into() });
        }
    }
    bench.world(|world| world.count("list") == 1).await;
    bench.end().await;
}

/// A second process on what the first one left.
async fn restarted(count: usize, change: impl FnOnce(&Fake)) -> (Bench, Arc<Notes>) {
    let bench = settled(MANY).await;
    let (fake, notes) = (bench.fake.clone(), bench.notes.clone());
    bench.end().await;
    fake.world().calls.clear();
    change(&fake);
    (Bench::start(&fake, &notes, desired(&many(count))), notes)
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_the_same_file_is_ready_before_the_list_is_read() {
    let (bench, _) = restarted(MANY, |fake| fake.world().list_latency = Duration::from_secs(80)).await;
    let start = Instant::now();
    let status = bench.status(|status| status.remembered.is_some()).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((status.generation, status.converged), (0, false));
    bench.world(|world| world.count("bind") > 0).await;
    assert!(calls(&bench.fake).len() <= 5, "{:?}", calls(&bench.fake));
    let entries = bench.entries(|entries| entries.len() == MANY).await;
    assert!(entries.iter().all(|entry| entry.state == SubscriptionState::Pending), "not compared yet");
    bench.converged().await;
    assert!(start.elapsed() >= Duration::from_secs(80));
    let world = bench.fake.world();
    assert_eq!((world.count("create"), world.count("delete"), world.count("list")), (0, 0, 1));
    drop(world);
    bench.end().await;
}

/// The next leader on what the one before left some minutes ago.
async fn taken_over() -> Bench {
    let notes = Arc::default();
    let before = Bench::start_leader(&fake(), &notes, desired(&many(MANY)));
    before.converged().await;
    let fake = before.fake.clone();
    before.end().await;
    fake.world().calls.clear();
    let bench = Bench::start_leader(&fake, &notes, desired(&many(MANY)));
    bench.status(|status| status.remembered.is_some()).await;
    sleep(Duration::from_secs(10)).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_change_of_leader_costs_five_requests_and_the_list_follows_when_it_is_due() {
    let bench = taken_over().await;
    let all = bench.fake.world().calls.clone();
    assert!(all.len() <= 5 && all.iter().any(|call| call.starts_with("bind")), "{all:?}");
    assert_eq!(bench.fake.world().count("list"), 0, "{all:?}");
    let start = Instant::now();
    bench.converged().await;
    assert!(start.elapsed() > INTERVAL - Duration::from_secs(60), "{:?}", start.elapsed());
    let world = bench.fake.world();
    assert_eq!((world.count("create"), world.count("delete"), world.count("list")), (0, 0, 1));
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_after_a_change_of_leader_has_the_list_read() {
    let bench = taken_over().await;
    let id = bench.fake.world().rows[3].id.clone();
    bench.fake.world().revoke("broadcaster_user_id=10003", "notification_failures_exceeded");
    bench.handle.hint(Hint::Ended { id, status: "notification_failures_exceeded".into() });
    let start = Instant::now();
    bench.converged().await;
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(bench.fake.world().live().len(), MANY);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_daemon_was_down_is_mended_once_the_list_is_there() {
    let (bench, _) = restarted(MANY, |fake| {
        let mut world = fake.world();
        world.list_latency = Duration::from_secs(80);
        world.rows.remove(11);
        world.revoke("broadcaster_user_id=10005", "notification_failures_exceeded");
    })
    .await;
    bench.converged().await;
    assert_eq!(bench.fake.world().live().len(), MANY);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_another_file_compares_first() {
    let (bench, _) = restarted(MANY + 1, |_| {}).await;
    let status = bench.converged().await;
    assert_eq!(status.remembered, None);
    assert_eq!(bench.fake.world().live().len(), MANY + 1);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_while_the_first_list_is_read_waits_for_that_list() {
    let (bench, _) = restarted(MANY, |fake| fake.world().list_latency = Duration::from_secs(80)).await;
    bench.status(|status| status.remembered.is_some()).await;
    sleep(Duration::from_secs(5)).await;
    bench.reload(&many(MANY + 1), |_| {});
    bench.converged().await;
    let world = bench.fake.world();
    assert_eq!((world.count("create"), world.count("delete"), world.count("list")), (1, 0, 1));
    assert_eq!(world.live().len(), MANY + 1);
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_comparison_in_the_background_are_not_undone() {
    let bench = settled(MANY).await;
    bench.fake.world().list_latency = Duration::from_secs(80);
    bench.world(|world| world.count("list") == 1).await;
    // The list that is on its way shows these or not.
    bench.reload(&many(MANY + 2), |_| {});
    bench.converged().await;
    bench.reload(&many(MANY - 3), |_| {});
    bench.converged().await;
    assert_eq!(bench.fake.world().count("list"), 1, "nobody waits for it");
    bench.fake.world().calls.clear();
    sleep(Duration::from_secs(100)).await;
    let world = bench.fake.world();
    assert_eq!((world.count("create"), world.count("delete"), world.live().len()), (0, 0, MANY - 3));
    drop(world);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_fails_is_shown_and_tried_again() {
    let bench = settled(MANY).await;
    let failure = crate::helix::HelixError::Unreachable { message: "no network".into() };
    bench.fake.fault("list", 2, failure, false);
    let status = bench.status(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("could not be listed"));
    bench.status(|status| status.problem.is_none()).await;
    assert_eq!(bench.fake.world().count("list"), 3);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_bindings_of_many_shards_are_published_together_and_soon() {
    const SHARDS: u32 = 500;
    let start = Instant::now();
    let wanted = crate::reconcile::Desired { shards: ShardCount::Fixed(SHARDS), ..desired(&many(1)) };
    let bench = Bench::start(&fake(), &Arc::default(), wanted);
    let mut bindings = bench.handle.bindings.clone();
    let all = bindings.wait_for(|bindings| bindings.len() == SHARDS as usize).await;
    drop(all.expect("they are bound"));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    bench.converged().await;
    bench.end().await;
}
