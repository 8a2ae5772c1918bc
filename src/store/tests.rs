use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::model::event::{Event, MessageId};
use crate::model::last_known::{Change, ChannelDigest, LastKnown, News, Source};
use crate::model::pulse::Pulse;
use crate::model::status::StoreStatus;
use crate::model::time::Timestamp;

const WAIT: Duration = Duration::from_secs(10);

fn event(id: &str, payload: &[u8]) -> Event {
    Event {
        message_id: MessageId::new(id).unwrap(),
        message_timestamp: "2026-11-02T09:00:01.512Z".into(),
        subscription_type: "stream.online".into(),
        subscription_version: "1".into(),
        subscription_id: "8a40b7de-0000-4000-8000-12ce99310007".into(),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn options(folder: &TempDir) -> StoreOptions {
    StoreOptions::new(folder.path().join("events.db"), Duration::from_secs(7 * 86_400), 1 << 30, 64, 1 << 20)
}

/// Opens again after a drop: the lock is free once the threads have ended.
fn reopen(options: &StoreOptions) -> Store {
    for _ in 0..1_000 {
        match Store::open(options.clone()) {
            Err(StoreError::Locked { .. }) => std::thread::sleep(Duration::from_millis(5)),
            other => return other.unwrap(),
        }
    }
    panic!("the lock was never given free");
}

/// Notes the place of a sink, and asks for its record, which stores the place before.
async fn advance(store: &Store, sink: &SinkName, to: Seq, done: Vec<Seq>) -> Result<SinkRecord, StoreError> {
    store.keep_place(sink, to, done, Keep::Soon);
    store.sink(sink, StartAt::Present).await
}

async fn stored(store: &Store) -> Vec<StoredEvent> {
    store.read_after(Seq(0), usize::MAX, usize::MAX).await.unwrap()
}

#[tokio::test]
async fn an_event_comes_back_byte_for_byte_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let payload = b"{\"subscription\" : {},\r\n \"event\":{\"n\":1.0e0,\"t\":\"\xc3\xa9\"}}";
    assert_eq!(store.append(event("a", payload)).await.unwrap(), Appended::Stored(Seq(1)));
    assert_eq!(store.append(event("a", b"other")).await.unwrap(), Appended::Duplicate);
    let read = stored(&store).await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].event, event("a", payload));
    assert_eq!(*store.last_seq().borrow(), Seq(1));
    let mut counts = store.intake_counts();
    counts.wait_for(|c| *c == IntakeCounts { stored: 1, duplicates: 1, doubles: 0 }).await.unwrap();

    let file = std::fs::metadata(folder.path().join("events.db")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_comes_under_two_ids_is_stored_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let online = |id: &str, user: u32, stream: u32| {
        let payload = format!(
            r#"{{"subscription":{{"id":"{id}","condition":{{"broadcaster_user_id":"{user}"}}}},"event":{{"id":"{stream}"}}}}"#
        );
        event(id, payload.as_bytes())
    };
    let store = Store::open(options.clone()).unwrap();
    assert_eq!(store.append(online("a", 1, 9001)).await.unwrap(), Appended::Stored(Seq(1)));
    assert_eq!(store.append(online("b", 1, 9001)).await.unwrap(), Appended::Double);
    assert_eq!(
        store.append(online("b", 1, 9001)).await.unwrap(),
        Appended::Duplicate,
        "its id is known by now"
    );
    assert_eq!(store.append(online("c", 1, 9002)).await.unwrap(), Appended::Stored(Seq(2)), "another stream");
    assert_eq!(
        store.append(online("d", 2, 9001)).await.unwrap(),
        Appended::Stored(Seq(3)),
        "another subscription"
    );
    let mut counts = store.intake_counts();
    counts.wait_for(|c| *c == IntakeCounts { stored: 3, duplicates: 1, doubles: 1 }).await.unwrap();
    store.close().await.unwrap();

    let store = reopen(&options);
    assert_eq!(store.append(online("e", 1, 9001)).await.unwrap(), Appended::Double);
    assert_eq!(store.append(online("f", 2, 9002)).await.unwrap(), Appended::Stored(Seq(4)));
}

fn of_channel(id: &str, kind: &str, user: u32, members: &str) -> Event {
    let payload = format!(
        r#"{{"subscription":{{"condition":{{"broadcaster_user_id":"{user}"}}}},"event":{{"broadcaster_user_id":"{user}",{members}}}}}"#
    );
    Event { subscription_type: kind.into(), ..event(id, payload.as_bytes()) }
}

#[tokio::test]
async fn what_a_channel_was_last_known_to_be_is_stored_with_its_event() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let store = Store::open(options.clone()).unwrap();
    let ids = || vec![Box::from("1"), Box::from("2")];
    assert_eq!(store.last_known(ids()).await.unwrap().0, [LastKnown::default(), LastKnown::default()]);
    store.append(of_channel("a", "stream.online", 1, r#""id":"9001""#)).await.unwrap();
    let live = |known: &LastKnown| known.stream.as_ref().map(|stream| (stream.is_live, stream.id.clone()));
    let (known, _) = store.last_known(ids()).await.unwrap();
    assert_eq!((live(&known[0]), live(&known[1])), (Some((true, Some("9001".into()))), None));

    // An event that a catch-up makes is stored once; Twitch's own event is then a duplicate, also after a restart.
    let (online, started) = ("stream.online", r#""id":"9002","started_at":"2026-11-02T09:00:00Z""#);
    assert_eq!(
        store.append(of_channel("catch-up-a", online, 2, started)).await.unwrap(),
        Appended::Stored(Seq(2))
    );
    assert_eq!(store.append(of_channel("catch-up-b", online, 2, started)).await.unwrap(), Appended::Double);
    store.close().await.unwrap();
    let store = reopen(&options);
    assert_eq!(store.append(of_channel("b", online, 2, started)).await.unwrap(), Appended::Double);
    let end = r#""id":"9001""#;
    assert_eq!(
        store.append(of_channel("c", "stream.offline", 1, end)).await.unwrap(),
        Appended::Stored(Seq(3))
    );
    assert_eq!(
        store.append(of_channel("catch-up-c", "stream.offline", 1, end)).await.unwrap(),
        Appended::Double
    );
    let (known, _) = store.last_known(ids()).await.unwrap();
    assert_eq!(live(&known[0]), Some((false, Some("9001".into()))));
    assert_eq!(live(&known[1]), Some((true, Some("9002".into()))));
}

#[tokio::test]
async fn an_update_that_a_catch_up_told_is_stored_once_though_the_type_has_no_identity() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let update =
        |id: &str, title: &str| of_channel(id, "channel.update", 1, &format!(r#""title":"{title}""#));
    store.append(update("a", "old")).await.unwrap();
    assert_eq!(store.append(update("catch-up-a", "old")).await.unwrap(), Appended::Double);
    assert_eq!(store.append(update("catch-up-b", "new")).await.unwrap(), Appended::Stored(Seq(2)));
    assert_eq!(store.append(update("b", "new")).await.unwrap(), Appended::Double);
    assert_eq!(store.append(update("c", "new")).await.unwrap(), Appended::Stored(Seq(3)));
}

#[tokio::test]
async fn what_is_known_of_65000_channels_takes_at_most_10_mib() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let before = store.status().borrow().size;
    let ids = (0..65_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000_000).to_string());
    let ids: Vec<Box<str>> = ids.map(Into::into).collect();
    for part in ids.chunks(1_000) {
        let news = part.iter().flat_map(|id| {
            let online = Change::Online {
                id: "52012345678".into(),
                started: 1_790_000_000_000,
                since: 1_790_000_000_000,
            };
            let update = Change::Channel { digest: ChannelDigest(u64::MAX / 3), since: 1_790_000_000_000 };
            [online, update].map(|change| News { broadcaster: id.clone(), change, source: Source::Answer })
        });
        store.learn(news.collect()).await.unwrap();
    }
    store.close().await.unwrap();
    let size = std::fs::metadata(folder.path().join("events.db")).unwrap().len() - before;
    assert!(size <= 10 << 20, "{size}");
    let store = reopen(&options(&folder));
    let (known, _) = store.last_known(vec![ids[64_999].clone()]).await.unwrap();
    assert!(known[0].stream.is_some() && known[0].channel.is_some());
}

#[tokio::test]
async fn ages_of_channels_follow_no_wall_clock_and_quiet_ones_can_be_forgotten() {
    const DAY: u64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let (clock, wall) = clock(1_000 * DAY);
    let passed = Arc::new(Mutex::new(5_000));
    let store = Store::open(StoreOptions { clock, ticks: ticks(&passed), ..options(&folder) }).unwrap();
    store.append(of_channel("a", "stream.online", 1, r#""id":"9001""#)).await.unwrap();
    // The wall clock jumps ahead by a year; a minute passes.
    *wall.lock().unwrap() += 365 * DAY;
    *passed.lock().unwrap() += 60_000;
    store.append(of_channel("b", "stream.online", 2, r#""id":"9002""#)).await.unwrap();
    let ids = || vec![Box::from("1"), Box::from("2")];
    let (known, now) = store.last_known(ids()).await.unwrap();
    let age = |known: &LastKnown| now - known.stream.as_ref().unwrap().at;
    assert_eq!((age(&known[0]), age(&known[1])), (60_000, 0));
    let quiet = async |millis, after: &str| {
        store.quiet_channels(after, Duration::from_millis(millis), 10).await.unwrap()
    };
    assert_eq!(quiet(61_000, "").await, Vec::<Box<str>>::new());
    *passed.lock().unwrap() += 30_000;
    assert_eq!(quiet(61_000, "").await, [Box::from("1")]);
    assert_eq!(quiet(10_000, "").await, [Box::from("1"), Box::from("2")]);
    assert_eq!(quiet(10_000, "1").await, [Box::from("2")]);
    store.forget_channels(Some(vec!["1".into()])).await.unwrap();
    let (known, _) = store.last_known(ids()).await.unwrap();
    assert!(known[0].stream.is_none() && known[1].stream.is_some());
}

#[tokio::test]
async fn what_the_disk_refused_is_not_taken_for_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    store.append(event("first", b"{}")).await.unwrap();
    let filler = "x".repeat(100_000);
    let payload = format!(
        r#"{{"subscription":{{"condition":{{"broadcaster_user_id":"1"}}}},"event":{{"id":"9001","filler":"{filler}"}}}}"#
    );
    store.limit_pages(Some(1)).await.unwrap();
    assert!(store.append(event("a", payload.as_bytes())).await.is_err());
    store.limit_pages(None).await.unwrap();
    let mut stored = store.append(event("b", payload.as_bytes())).await;
    for _ in 0..100 {
        if stored.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stored = store.append(event("b", payload.as_bytes())).await;
    }
    assert_eq!(stored.unwrap(), Appended::Stored(Seq(2)));
}

#[tokio::test]
async fn one_id_from_many_sides_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let store = store.clone();
        tasks.spawn(async move { store.append(event("same", b"{}")).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| **o == Appended::Stored(Seq(1))).count(), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == Appended::Duplicate).count(), 39);
}

#[tokio::test]
async fn reads_are_bounded_by_rows_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    for id in 0..10 {
        store.append(event(&id.to_string(), &[b'x'; 100])).await.unwrap();
    }
    let seqs = |events: Vec<StoredEvent>| events.iter().map(|e| e.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(store.read_after(Seq(3), 2, usize::MAX).await.unwrap()), [4, 5]);
    assert_eq!(seqs(store.read_after(Seq(0), 9, 150).await.unwrap()), [1, 2]);
    assert_eq!(seqs(store.read_after(Seq(9), 9, 1).await.unwrap()), [10], "one at least");
}

#[tokio::test]
async fn sinks_start_at_the_present_and_never_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    store.append(event("a", b"{}")).await.unwrap();
    let log = SinkName::new("log");
    assert_eq!(store.sink(&log, StartAt::Present).await.unwrap().cursor, Seq(1));
    store.append(event("b", b"{}")).await.unwrap();
    assert_eq!(store.sink(&log, StartAt::Present).await.unwrap().cursor, Seq(1), "known now");
    assert_eq!(advance(&store, &log, Seq(2), vec![]).await.unwrap().cursor, Seq(2));
    assert_eq!(advance(&store, &log, Seq(1), vec![]).await.unwrap().cursor, Seq(2));

    let dead = stored(&store).await.remove(1);
    assert_eq!(store.dead_letter(&log, &dead, "gone").await.unwrap().dead_letters, 1);
    assert_eq!(store.dead_letter(&log, &dead, "gone").await.unwrap().dead_letters, 1, "once");
}

#[tokio::test]
async fn settings_are_set_all_or_none_and_read_by_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let set = |n: &str, v: &str| (n.to_owned(), Some(v.to_owned()));
    store.set_settings(vec![set("login:b", "2"), set("login:a", "1"), set("loginx", "3")]).await.unwrap();
    store.set_settings(vec![("login:b".to_owned(), None), set("login:c", "4")]).await.unwrap();
    let found = store.settings("login:").await.unwrap();
    assert_eq!(found, [("login:a".to_owned(), "1".to_owned()), ("login:c".to_owned(), "4".to_owned())]);
}

#[tokio::test]
async fn a_full_disk_refuses_who_can_come_again_holds_the_rest_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    store.append(event("before", b"{}")).await.unwrap();
    store.limit_pages(Some(1)).await.unwrap();

    let big = vec![b'x'; 20_000];
    let receipts =
        [store.push(event("held1", &big)).await.unwrap(), store.push(event("held2", &big)).await.unwrap()];
    let mut status = store.status();
    let problem = tokio::time::timeout(WAIT, status.wait_for(|s| s.problem.is_some()))
        .await
        .expect("the problem shows")
        .unwrap()
        .problem
        .clone()
        .unwrap();
    assert!(problem.contains("no space left for"), "{problem}");
    assert!(matches!(store.append(event("refused", &big)).await, Err(StoreError::Failing(_))));
    assert!(matches!(
        advance(&store, &SinkName::new("log"), Seq(1), vec![]).await,
        Err(StoreError::Failing(_))
    ));

    store.limit_pages(None).await.unwrap();
    for receipt in receipts {
        let outcome = tokio::time::timeout(WAIT, receipt.stored()).await.expect("stored in time").unwrap();
        assert!(matches!(outcome, Appended::Stored(_)));
    }
    tokio::time::timeout(WAIT, status.wait_for(|s| s.problem.is_none())).await.expect("recovers").unwrap();
    store.append(event("refused", &big)).await.unwrap();
    let ids: Vec<_> = stored(&store).await.iter().map(|e| e.event.message_id.to_string()).collect();
    assert_eq!(ids, ["before", "held1", "held2", "refused"]);
    let counted = status.wait_for(|s| s.commits.count >= 3 && s.events == 4);
    let counted = tokio::time::timeout(WAIT, counted).await.expect("it is published").unwrap();
    assert_eq!(counted.commits.buckets.iter().sum::<u64>(), counted.commits.count);
    assert!(counted.commit_failures > 0 && counted.commits.total_micros > 0, "{counted:?}");
}

#[tokio::test]
async fn the_queue_is_bounded_and_pushing_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { queue_bytes: 40_000, ..options(&folder) }).unwrap();
    store.append(event("first", b"{}")).await.unwrap();
    store.limit_pages(Some(1)).await.unwrap();
    let big = vec![b'x'; 30_000];
    store.push_detached(event("fits", &big)).await.unwrap();
    let mut blocked = Box::pin(store.push(event("waits", &big)));
    let mut status = store.status();
    tokio::select! {
        biased;
        _ = &mut blocked => panic!("there is no room for this one"),
        _ = status.wait_for(|s| s.problem.is_some()) => {}
    }
    store.limit_pages(None).await.unwrap();
    let receipt = tokio::time::timeout(WAIT, blocked).await.expect("room again").unwrap();
    tokio::time::timeout(WAIT, receipt.stored()).await.expect("stored").unwrap();
}

#[tokio::test]
async fn two_daemons_cannot_share_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    assert!(matches!(Store::open(options(&folder)), Err(StoreError::Locked { .. })));
    store.close().await.unwrap();
    Store::open(options(&folder)).unwrap();
}

#[tokio::test]
async fn close_keeps_everything_and_later_calls_fail() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    for id in 0..50 {
        store.push_detached(event(&id.to_string(), b"{}")).await.unwrap();
    }
    store.close().await.unwrap();
    assert!(matches!(store.append(event("late", b"{}")).await, Err(StoreError::Closed)));
    store.close().await.unwrap();
    drop(store);
    assert_eq!(stored(&reopen(&options(&folder))).await.len(), 50);
}

#[test]
fn damaged_foreign_and_newer_files_are_reported_and_left_alone() {
    let damage = |name: &str, bytes: Vec<u8>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        std::fs::write(&path, &bytes).unwrap();
        let error = Store::open(options(&folder)).expect_err(name);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}: left as it was");
        error
    };
    let sample = |change: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(change).unwrap();
        drop(connection);
        std::fs::read(&path).unwrap()
    };
    assert!(matches!(damage("garbage", vec![b'x'; 9_000]), StoreError::Damaged { .. }));
    assert!(matches!(damage("foreign", sample("CREATE TABLE t (x)")), StoreError::Foreign { .. }));
    let newer =
        format!("PRAGMA application_id = {}; PRAGMA user_version = 99; CREATE TABLE t (x)", 0x6576_7362);
    assert!(matches!(damage("newer", sample(&newer)), StoreError::Newer { found: 99, .. }));
}

#[tokio::test]
async fn a_hole_in_the_file_is_found_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    for id in 0..200 {
        store.push_detached(event(&id.to_string(), &[b'x'; 500])).await.unwrap();
    }
    store.close().await.unwrap();
    let path = folder.path().join("events.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let error = Store::open(options(&folder)).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("move it"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn dead_letters_are_listed_marked_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let [a, b] = [SinkName::new("a"), SinkName::new("b")];
    for sink in [&a, &b] {
        store.sink(sink, StartAt::Present).await.unwrap();
    }
    for id in 0..3 {
        store.append(event(&id.to_string(), b"{\"n\":1.50}")).await.unwrap();
    }
    for (sink, event) in [(&a, 0), (&a, 1), (&b, 2)] {
        let event = stored(&store).await.remove(event);
        store.dead_letter(sink, &event, "too bad").await.unwrap();
    }
    let reader = Reader::open(&folder.path().join("events.db")).unwrap();
    let list = |sink| reader.dead_letters(sink, 0, 10).unwrap();
    let all = list(None);
    assert_eq!(all.iter().map(|letter| letter.event.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        (all[0].last.error.as_str(), &all[0].event.event.payload[..]),
        ("too bad", &b"{\"n\":1.50}"[..])
    );
    assert_eq!(reader.dead_letters(None, all[0].id, 1).unwrap()[0].id, all[1].id, "in pages");
    assert_eq!(list(Some(&b)).len(), 1);

    let of = |sink: &SinkName| DeadLetterFilter { sink: Some(sink.clone()), ..DeadLetterFilter::default() };
    assert_eq!(store.mark_dead_letters(of(&a)).await.unwrap(), 2);
    assert_eq!(store.mark_dead_letters(of(&a)).await.unwrap(), 0, "they are marked");
    let marked = store.dead_letters_to_replay(&a, 0, 10).await.unwrap();
    assert_eq!(marked.len(), 2);
    assert!(store.dead_letters_to_replay(&b, 0, 10).await.unwrap().is_empty());
    assert_eq!(store.resent(&a, marked[0].id, Ok(())).await.unwrap().dead_letters, 1);
    assert_eq!(store.resent(&a, marked[1].id, Err("worse".into())).await.unwrap().dead_letters, 1);
    assert!(store.dead_letters_to_replay(&a, 0, 10).await.unwrap().is_empty(), "not for ever");
    let again = list(Some(&a)).remove(0);
    assert_eq!((again.last.error.as_str(), again.replays), ("worse", 1));
    assert_eq!(
        again.first.map(|first| (first.at, first.error)),
        Some((all[1].last.at, "too bad".to_owned()))
    );
    assert_eq!(
        store
            .drop_dead_letters(DeadLetterFilter { id: Some(all[2].id), ..DeadLetterFilter::default() })
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.sink(&b, StartAt::Present).await.unwrap().dead_letters, 0);
    assert_eq!(store.drop_dead_letters(DeadLetterFilter::default()).await.unwrap(), 1);
    assert!(list(None).is_empty());
}

#[tokio::test]
async fn dead_letters_keep_their_first_failure_beside_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    store.append(event("a", b"{}")).await.unwrap();
    let (sink, dead) = (SinkName::new("web"), stored(&store).await.remove(0));
    let first = FailureRecord {
        at: Timestamp::from_unix_millis(5),
        error: "answered 400".to_owned(),
        said: Some("no such field".to_owned()),
    };
    let given_up = |error: &str, first: Option<&FailureRecord>| GivenUp {
        first: first.cloned(),
        error: error.to_owned(),
        said: Some(format!("said: {error}")),
    };
    store.dead_letter(&sink, &dead, given_up("answered 500", Some(&first))).await.unwrap();
    let letter = async || store.dead_letters_to_replay(&sink, 0, 10).await.unwrap().remove(0);
    for error in ["answered 501", "answered 502"] {
        assert_eq!(store.mark_dead_letters(DeadLetterFilter::default()).await.unwrap(), 1);
        store.resent(&sink, letter_id(&folder), Err(given_up(error, None))).await.unwrap();
    }
    store.mark_dead_letters(DeadLetterFilter::default()).await.unwrap();
    let letter = letter().await;
    assert_eq!(letter.first, Some(first));
    assert_eq!(letter.last.error, "answered 502");
    assert_eq!(letter.last.said.as_deref(), Some("said: answered 502"));
    assert_eq!(letter.replays, 3);
}

fn letter_id(folder: &TempDir) -> i64 {
    let reader = Reader::open(&folder.path().join("events.db")).unwrap();
    reader.dead_letters(None, 0, 1).unwrap()[0].id
}

#[tokio::test]
async fn a_sink_that_is_put_back_knows_what_it_had_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let sink = SinkName::new("web");
    store.sink(&sink, StartAt::Beginning).await.unwrap();
    for id in 0..9 {
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
    }
    advance(&store, &sink, Seq(4), vec![Seq(6)]).await.unwrap();
    let record = store.rewind(&sink, Seq(1)).await.unwrap();
    assert_eq!((record.cursor, record.replays, record.replay_until), (Seq(1), 1, Seq(6)));
    let record = store.rewind(&sink, Seq(0)).await.unwrap();
    assert_eq!(
        (record.cursor, record.replays, record.replay_until),
        (Seq(0), 2, Seq(6)),
        "it was not there again"
    );
}

#[tokio::test]
async fn a_place_names_what_is_done_after_it_and_can_be_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    for id in 0..9 {
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
    }
    let all = SinkName::new("all");
    assert_eq!(store.sink(&all, StartAt::Beginning).await.unwrap().cursor, Seq(0));
    let record = advance(&store, &all, Seq(3), vec![Seq(5), Seq(8)]).await.unwrap();
    assert_eq!((record.cursor, record.done), (Seq(3), vec![Seq(5), Seq(8)]));
    store.close().await.unwrap();
    drop(store);
    let store = reopen(&options(&folder));
    let record = store.sink(&all, StartAt::Present).await.unwrap();
    assert_eq!((record.cursor, record.done), (Seq(3), vec![Seq(5), Seq(8)]));
    let record = store.rewind(&all, Seq(1)).await.unwrap();
    assert_eq!((record.cursor, record.done), (Seq(1), vec![]));
    assert_eq!(store.rewind(&all, Seq(7)).await.unwrap().cursor, Seq(1), "never forward");
    assert_eq!(store.before(Timestamp::from_unix_millis(0)).await.unwrap(), Seq(0));
}

#[tokio::test]
async fn the_place_of_a_sink_that_is_gone_is_kept_for_a_week() {
    const DAY: u64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let (clock, now) = clock(1_000_000_000_000);
    let (ticks, retain) = (ticks(&now), Duration::from_secs(100 * 86_400));
    let store = Store::open(StoreOptions { clock, ticks, retain, ..options(&folder) }).unwrap();
    let [stays, goes] = [SinkName::new("stays"), SinkName::new("goes")];
    for sink in [&stays, &goes] {
        store.sink(sink, StartAt::Present).await.unwrap();
    }
    store.retire_sinks(vec![stays.clone()]).await.unwrap();
    for id in 0..5 {
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
    }
    *now.lock().unwrap() += 6 * DAY;
    store.retire_sinks(vec![stays.clone()]).await.unwrap();
    assert_eq!(store.sink(&goes, StartAt::Present).await.unwrap().cursor, Seq(0), "it is there");
    // The sink comes back, and is removed once more.
    store.retire_sinks(vec![stays.clone(), goes.clone()]).await.unwrap();
    store.retire_sinks(vec![stays.clone()]).await.unwrap();
    *now.lock().unwrap() += 6 * DAY;
    store.retire_sinks(vec![stays.clone()]).await.unwrap();
    assert_eq!(store.sink(&goes, StartAt::Present).await.unwrap().cursor, Seq(0));
    *now.lock().unwrap() += 2 * DAY;
    store.retire_sinks(vec![stays.clone()]).await.unwrap();
    assert_eq!(store.sink(&goes, StartAt::Present).await.unwrap().cursor, Seq(5), "as if it were new");
    assert_eq!(store.sink(&stays, StartAt::Present).await.unwrap().cursor, Seq(0));
}

/// A clock that a test moves.
fn clock(start: u64) -> (Clock, Arc<Mutex<u64>>) {
    let now = Arc::new(Mutex::new(start));
    let shared = Arc::clone(&now);
    (Arc::new(move || Timestamp::from_unix_millis(*shared.lock().unwrap()).0), now)
}

/// Time since boot as a test moves it.
fn ticks(now: &Arc<Mutex<u64>>) -> Ticks {
    let (now, start) = (Arc::clone(now), *now.lock().unwrap());
    Arc::new(move || Tick { boot: "boot".into(), since_boot: *now.lock().unwrap() - start })
}

#[tokio::test]
async fn old_events_go_and_what_a_sink_lost_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, now) = clock(1_000_000_000_000);
    let (ticks, retain) = (ticks(&now), Duration::from_secs(7_200));
    let store = Store::open(StoreOptions { clock, ticks, retain, ..options(&folder) }).unwrap();
    let [slow, fast] = [SinkName::new("slow"), SinkName::new("fast")];
    store.sink(&slow, StartAt::Present).await.unwrap();
    store.sink(&fast, StartAt::Present).await.unwrap();
    for id in 0..10 {
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
    }
    advance(&store, &fast, Seq(10), vec![]).await.unwrap();
    advance(&store, &slow, Seq(4), vec![]).await.unwrap();
    *now.lock().unwrap() += 7_300_000;
    store.append(event("young", b"{}")).await.unwrap();
    let mut status = store.status();
    tokio::time::timeout(WAIT, status.wait_for(|s| s.events == 1)).await.expect("retention works").unwrap();
    assert_eq!(store.sink(&slow, StartAt::Present).await.unwrap().lost, 6);
    assert_eq!(**store.lost().borrow(), BTreeMap::from([(slow.clone(), 6)]), "without anybody asking");
    assert_eq!(store.sink(&fast, StartAt::Present).await.unwrap().lost, 0);
    let losses = store.losses().await.unwrap();
    assert!(losses.iter().all(|(_, loss)| loss.sink == slow && loss.from == loss.to));
    assert_eq!(losses.iter().map(|(_, loss)| loss.events).sum::<u64>(), 6);
    store.losses_told(losses.into_iter().map(|(name, _)| name).collect()).await.unwrap();
    assert!(store.losses().await.unwrap().is_empty());
    assert_eq!(stored(&store).await.len(), 1);
    let status = status.borrow().clone();
    assert_eq!((status.removed, status.first_seq, status.last_seq), (10, Seq(11), Seq(11)));
}

#[tokio::test]
async fn ids_are_known_after_a_restart_as_long_as_the_window_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, now) = clock(1_000_000_000_000);
    let passed = Arc::new(Mutex::new(0));
    let options = StoreOptions { clock, ticks: ticks(&passed), ..options(&folder) };
    let mut store = Store::open(options.clone()).unwrap();
    for (minutes, id) in [(0, "old"), (2, "young"), (31, "newest")] {
        // The clock is set now and then.
        *now.lock().unwrap() = 1_000_000_000_000 + minutes * 86_400_000;
        *passed.lock().unwrap() = minutes * 60_000;
        store.append(event(id, b"{}")).await.unwrap();
    }
    store.close().await.unwrap();
    store = reopen(&options);
    assert_eq!(store.append(event("newest", b"{}")).await.unwrap(), Appended::Duplicate);
    assert_eq!(store.append(event("young", b"{}")).await.unwrap(), Appended::Duplicate);
    assert_eq!(store.append(event("old", b"{}")).await.unwrap(), Appended::Stored(Seq(4)));
    store.close().await.unwrap();
    *now.lock().unwrap() += 7_200_000;
    store = reopen(&options);
    assert_eq!(store.append(event("newest", b"{}")).await.unwrap(), Appended::Duplicate, "clocks are set");
    store.close().await.unwrap();
    *passed.lock().unwrap() += 1_801_000;
    store = reopen(&options);
    assert_eq!(store.append(event("newest", b"{}")).await.unwrap(), Appended::Stored(Seq(5)));
}

#[tokio::test]
async fn a_clock_that_is_set_is_told_and_removes_nothing() {
    const DAY: u64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let (clock, now) = clock(1_000 * DAY);
    let passed = Arc::new(Mutex::new(0));
    let options = StoreOptions { clock, ticks: ticks(&passed), ..options(&folder) };
    let mut store = Store::open(options.clone()).unwrap();
    let sink = SinkName::new("log");
    store.sink(&sink, StartAt::Present).await.unwrap();
    store.append(event("a", b"{}")).await.unwrap();
    let told = async |store: &Store, days: i64| {
        let like = |s: &StoreStatus| s.clock_set.is_some_and(|set| set.by_seconds == days * 86_400);
        let mut status = store.status();
        tokio::time::timeout(WAIT, status.wait_for(like)).await.expect("it is told").unwrap().events
    };
    for (id, day, jump) in [("b", 1_030, 30), ("c", 1_000, -30), ("d", 1_100, 100)] {
        *now.lock().unwrap() = day * DAY;
        store.append(event(id, b"{}")).await.unwrap();
        assert!(told(&store, jump).await >= 1);
    }
    store.close().await.unwrap();
    *now.lock().unwrap() = 5_000 * DAY;
    store = reopen(&options);
    store.append(event("e", b"{}")).await.unwrap();
    assert_eq!(told(&store, 3_900).await, 5, "over a restart too");
    assert_eq!(stored(&store).await.len(), 5);
    assert_eq!(store.sink(&sink, StartAt::Present).await.unwrap().lost, 0);
    // Time that has really passed counts.
    store.start_sink(&sink, StartAt::Present, &Follower::new(|_, _, _| true)).await.unwrap();
    *passed.lock().unwrap() = 8 * DAY;
    store.append(event("f", b"{}")).await.unwrap();
    let mut status = store.status();
    tokio::time::timeout(WAIT, status.wait_for(|s| s.events == 1)).await.expect("retention works").unwrap();
}

#[tokio::test]
async fn a_worker_is_told_what_waits_and_loses_only_what_it_has_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, now) = clock(1_000_000_000_000);
    let (ticks, retain) = (ticks(&now), Duration::from_secs(7_200));
    let store = Store::open(StoreOptions { clock, ticks, retain, ..options(&folder) }).unwrap();
    let sink = SinkName::new("log");
    let follower = Follower::new(|_, _, payload| payload == b"yes");
    store.start_sink(&sink, StartAt::Beginning, &follower).await.unwrap();
    for id in 0..12 {
        let payload: &[u8] = if id % 3 == 0 { b"yes" } else { b"no" };
        store.append(event(&id.to_string(), payload)).await.unwrap();
    }
    // 1, 4, 7 and 10 are for it.
    assert_eq!(store.wanted_after(&follower, Seq(1), 7).await.unwrap(), (vec![Seq(4), Seq(7)], Seq(8)));
    assert_eq!(store.read_for(&follower, Seq(0), 4, usize::MAX).await.unwrap().len(), 4);
    advance(&store, &sink, Seq(1), vec![]).await.unwrap();
    *now.lock().unwrap() += 7_300_000;
    store.append(event("young", b"no")).await.unwrap();
    let mut status = store.status();
    tokio::time::timeout(WAIT, status.wait_for(|s| s.events == 1)).await.expect("retention works").unwrap();
    assert_eq!(store.sink(&sink, StartAt::Present).await.unwrap().lost, 2, "7 and 10");
    assert_eq!(advance(&store, &sink, Seq(4), vec![]).await.unwrap().lost, 2);
    assert_eq!(store.start_sink(&sink, StartAt::Present, &follower).await.unwrap().lost, 2, "it had 4");
}

#[tokio::test]
async fn the_size_stays_bounded_and_young_ids_are_still_known() {
    let folder = tempfile::tempdir().unwrap();
    let limit = 1_000_000;
    let options = StoreOptions { max_size: limit, ..options(&folder) };
    let store = Store::open(options.clone()).unwrap();
    for id in 0..2_000 {
        store.push_detached(event(&id.to_string(), &[b'x'; 1_000])).await.unwrap();
    }
    let mut status = store.status();
    let settled = |s: &StoreStatus| s.last_seq == Seq(2_000) && s.size <= limit && s.removed > 0;
    tokio::time::timeout(WAIT, status.wait_for(settled)).await.expect("settles below the limit").unwrap();
    let left = stored(&store).await;
    assert!(!left.is_empty() && left.len() < 1_000, "{} events left", left.len());
    assert_eq!(left.last().unwrap().seq, Seq(2_000));
    assert_eq!(store.append(event("0", b"{}")).await.unwrap(), Appended::Duplicate);
    store.close().await.unwrap();
    let store = reopen(&options);
    assert_eq!(store.append(event("0", b"{}")).await.unwrap(), Appended::Duplicate, "its row is there");
}

#[tokio::test]
async fn another_process_reads_while_the_daemon_writes() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(&folder.path().join("events.db")), Err(StoreError::Missing { .. })));
    let (clock, now) = clock(1_000);
    let store = Store::open(StoreOptions { clock, ..options(&folder) }).unwrap();
    let reader = Reader::open(&folder.path().join("events.db")).unwrap();
    for id in 0..20_u64 {
        *now.lock().unwrap() = 1_000 + id * 10;
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
        assert_eq!(reader.newest().unwrap(), Seq(id + 1));
    }
    assert_eq!(reader.read_after(Seq(18), 100).unwrap().len(), 2);
    for (time, seq) in [(0, 0), (1_000, 0), (1_001, 1), (1_095, 10), (1_190, 19), (9_999, 20)] {
        assert_eq!(reader.before(Timestamp::from_unix_millis(time)).unwrap(), Seq(seq), "{time}");
    }
    store.close().await.unwrap();
    drop(store);
    assert_eq!(
        Reader::open(&folder.path().join("events.db")).unwrap().read_after(Seq(0), 100).unwrap().len(),
        20
    );
}

/// Waits until a thread has nothing to do.
async fn rests(pulse: &Pulse) {
    let rests = async {
        while !pulse.is_resting() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(WAIT, rests).await.expect("it has nothing to do");
}

/// Waits until a thread has shown `more` signs of life.
async fn beats(pulse: &Pulse, more: u64) {
    let from = pulse.count();
    let moved = async {
        while pulse.count() < from + more {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, moved).await.expect("it lives");
}

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "the writer hangs at it")]
async fn threads_show_that_they_live_idle_and_failing_but_not_when_they_hang() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, now) = clock(1_000_000);
    let store = Store::open(StoreOptions { clock, ..options(&folder) }).unwrap();
    let (writer, reader) = store.pulses();
    rests(&writer).await;
    rests(&reader).await;

    store.append(event("a", b"{}")).await.unwrap();
    store.limit_pages(Some(1)).await.unwrap();
    store.push_detached(event("b", &[b'x'; 100_000])).await.unwrap();
    let mut status = store.status();
    tokio::time::timeout(WAIT, status.wait_for(|s| s.problem.is_some())).await.expect("full").unwrap();
    beats(&writer, 3).await;
    assert!(!writer.is_resting(), "an event is held");
    store.limit_pages(None).await.unwrap();
    tokio::time::timeout(WAIT, status.wait_for(|s| s.problem.is_none())).await.expect("room").unwrap();
    rests(&writer).await;

    // The writer asks for the time, and gets no answer.
    let held = now.lock().unwrap();
    store.push_detached(event("c", b"{}")).await.unwrap();
    let begun = std::time::Instant::now();
    while writer.is_resting() {
        assert!(begun.elapsed() < WAIT, "it takes the event");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let hanging = writer.count();
    let count = reader.count();
    assert_eq!(stored(&store).await.len(), 2);
    assert!(reader.count() > count, "the reader works meanwhile");
    assert!(!writer.is_resting() && writer.count() == hanging);
    drop(held);
    rests(&writer).await;
}

/// The expected content of the store.
#[derive(Debug, Default)]
struct Model {
    events: Vec<(String, Vec<u8>)>,
    cursors: BTreeMap<String, u64>,
    settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Operation {
    Append(u8, Vec<u8>),
    Push(u8),
    Sink(u8),
    Advance(u8, u64),
    Set(u8, Option<String>),
    Reopen { cleanly: bool },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..30_u8, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(id, p)| Operation::Append(id, p)),
        3 => (0..30_u8).prop_map(Operation::Push),
        1 => (0..3_u8).prop_map(Operation::Sink),
        2 => (0..3_u8, 0..40_u64).prop_map(|(sink, seq)| Operation::Advance(sink, seq)),
        1 => (0..4_u8, prop::option::of("[a-z]{0,4}")).prop_map(|(name, value)| Operation::Set(name, value)),
        1 => any::<bool>().prop_map(|cleanly| Operation::Reopen { cleanly }),
    ]
}

async fn follow(model: &mut Model, store: &mut Store, options: &StoreOptions, operation: Operation) {
    let add = |model: &mut Model, id: &str, payload: &[u8]| {
        if model.events.iter().any(|(known, _)| known == id) {
            return Appended::Duplicate;
        }
        model.events.push((id.to_owned(), payload.to_vec()));
        Appended::Stored(Seq(model.events.len() as u64))
    };
    match operation {
        Operation::Append(id, payload) => {
            let id = format!("id{id}");
            let expected = add(model, &id, &payload);
            assert_eq!(store.append(event(&id, &payload)).await.unwrap(), expected);
        }
        Operation::Push(id) => {
            let id = format!("id{id}");
            let expected = add(model, &id, b"pushed");
            let receipt = store.push(event(&id, b"pushed")).await.unwrap();
            assert_eq!(receipt.stored().await.unwrap(), expected);
        }
        Operation::Sink(sink) => {
            let present = model.events.len() as u64;
            let expected = *model.cursors.entry(format!("s{sink}")).or_insert(present);
            assert_eq!(
                store.sink(&SinkName::new(format!("s{sink}")), StartAt::Present).await.unwrap().cursor,
                Seq(expected)
            );
        }
        Operation::Advance(sink, to) => {
            let cursor = model.cursors.entry(format!("s{sink}")).or_insert(to);
            *cursor = to.max(*cursor);
            let record = advance(store, &SinkName::new(format!("s{sink}")), Seq(to), vec![]).await.unwrap();
            assert_eq!(record.cursor, Seq(*cursor));
        }
        Operation::Set(name, value) => {
            let name = format!("n{name}");
            match value.clone() {
                Some(value) => model.settings.insert(name.clone(), value),
                None => model.settings.remove(&name),
            };
            store.set_settings(vec![(name, value)]).await.unwrap();
        }
        Operation::Reopen { cleanly } => {
            if cleanly {
                store.close().await.unwrap();
            }
            let folder = tempfile::tempdir().unwrap();
            // The handle must be gone before its lock is.
            *store =
                Store::open(StoreOptions { path: folder.path().join("x.db"), ..options.clone() }).unwrap();
            *store = reopen(options);
        }
    }
    let read: Vec<_> = stored(store)
        .await
        .into_iter()
        .map(|e| (e.event.message_id.to_string(), e.event.payload.to_vec()))
        .collect();
    assert_eq!(read, model.events);
    let settings: BTreeMap<_, _> = store.settings("").await.unwrap().into_iter().collect();
    assert_eq!(settings, model.settings);
}

/// Number of events of each type, over all hours.
async fn totals(store: &Store) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for TypeCount { kind, events, .. } in store.hour_counts(0).await.unwrap() {
        *totals.entry(kind.into()).or_default() += events;
    }
    totals
}

#[tokio::test]
async fn events_are_counted_once_over_a_stop_a_crash_and_an_older_format() {
    let (folder, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(options(&folder)).unwrap();
    let of = |id: &str, kind: &str, subscription: &str| Event {
        subscription_type: kind.into(),
        subscription_id: subscription.into(),
        ..event(id, b"{}")
    };
    store.append(of("a", "stream.online", "s1")).await.unwrap();
    store.append(of("b", "stream.online", "s2")).await.unwrap();
    store.append(of("b", "stream.online", "s2")).await.unwrap();
    store.close().await.unwrap();

    let store = reopen(&options(&folder));
    assert!(store.minute_counts().is_empty());
    store.append(of("c", "channel.raid", "s1")).await.unwrap();
    let ids: Vec<Box<str>> = ["s2", "s1", "s3"].map(Box::from).into();
    let all = BTreeMap::from([("channel.raid".to_owned(), 1), ("stream.online".to_owned(), 2)]);
    let seen = |store: &Store| {
        let (store, ids) = (store.clone(), ids.clone());
        async move {
            let of = store.activity(ids).await.unwrap();
            let of: Vec<_> = of.iter().map(|of| of.map(|of| (of.events, of.last))).collect();
            (totals(&store).await, of)
        }
    };
    let expected = (all, vec![Some((1, Seq(2))), Some((2, Seq(3))), None]);
    assert_eq!(seen(&store).await, expected);
    assert_eq!(store.minute_counts().iter().map(|of| &*of.kind).collect::<Vec<_>>(), ["channel.raid"]);

    // A crash: the files as they are while the daemon runs.
    for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
    }
    let copy = Store::open(options(&crashed)).unwrap();
    assert_eq!(seen(&copy).await, expected);
    copy.close().await.unwrap();

    store.close().await.unwrap();
    let database = rusqlite::Connection::open(folder.path().join("events.db")).unwrap();
    database
        .execute_batch("DELETE FROM counts; DELETE FROM activity; DELETE FROM counted;")
        .expect("as an older release leaves it");
    drop(database);
    let store = reopen(&options(&folder));
    assert_eq!(seen(&store).await, expected);
}

proptest! {
    // Each case opens databases on disk and syncs every commit.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does_with_reopen_at_any_step(
        operations in prop::collection::vec(operation(), 1..25)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let options = options(&folder);
            let mut store = Store::open(options.clone()).unwrap();
            let mut model = Model::default();
            for operation in operations {
                follow(&mut model, &mut store, &options, operation).await;
            }
        });
    }
}

/// The stored place of a sink, as another process sees it.
fn stored_place(folder: &TempDir, sink: &SinkName) -> u64 {
    let connection = super::schema::open_read_only(&folder.path().join("events.db")).unwrap();
    super::sinks::get(&connection, sink).unwrap().map_or(0, |record| record.cursor.0)
}

#[tokio::test]
async fn a_place_is_stored_by_itself_with_the_next_event_or_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let (busy, idle) = (SinkName::new("busy"), SinkName::new("idle"));
    for sink in [&busy, &idle] {
        store.sink(sink, StartAt::Beginning).await.unwrap();
    }
    for id in 0..5 {
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
    }
    let until = async |sink: &SinkName, place: u64| {
        let begun = std::time::Instant::now();
        while stored_place(&folder, sink) < place {
            assert!(begun.elapsed() < WAIT, "{sink} is never at {place}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // The first time the writer expects places to move; later it sleeps.
    for place in [1, 2, 3] {
        let commits = store.status().borrow().commits.count;
        store.keep_place(&idle, Seq(place), vec![], Keep::Lazily);
        store.keep_place(&busy, Seq(place), vec![], Keep::Soon);
        until(&busy, place).await;
        assert_eq!(stored_place(&folder, &idle), place, "together");
        let mut status = store.status();
        let published = status.wait_for(|status| status.commits.count > commits);
        tokio::time::timeout(WAIT, published).await.expect("it is published").unwrap();
    }
    store.keep_place(&idle, Seq(4), vec![], Keep::Lazily);
    for id in 10.. {
        store.append(event(&id.to_string(), b"{}")).await.unwrap();
        if stored_place(&folder, &idle) == 4 {
            break;
        }
        assert!(id < 10_000, "it goes with an event");
    }
    store.keep_place(&busy, Seq(4), vec![Seq(6)], Keep::Soon);
    store.close().await.unwrap();
    assert_eq!(stored_place(&folder, &busy), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_get_every_event_in_order_whether_they_keep_up_or_not() {
    const EVENTS: u64 = 1_500;
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { recent_bytes: 20_000, ..options(&folder) };
    let store = Store::open(options.clone()).unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for (nth, limit) in [1_usize, 7, 100].into_iter().enumerate() {
        let store = store.clone();
        workers.spawn(async move {
            let follower = Follower::new(|_, _, _| true);
            let name = SinkName::new(format!("s{nth}"));
            let mut at = store.start_sink(&name, StartAt::Beginning, &follower).await.unwrap().cursor;
            let mut newest = store.last_seq();
            while at.0 < EVENTS {
                newest.wait_for(|newest| *newest > at).await.unwrap();
                for read in store.read_for(&follower, at, limit, 30_000).await.unwrap() {
                    assert_eq!(read.seq.0, at.0 + 1);
                    assert_eq!(read.event.message_id.as_str(), at.0.to_string());
                    at = read.seq;
                }
                if fastrand::u8(..) < 3 {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            }
        });
    }
    for id in 0..EVENTS {
        store.push_detached(event(&id.to_string(), &vec![b'x'; fastrand::usize(..2_000)])).await.unwrap();
    }
    workers.join_all().await;
    // A replay, and one over a restart.
    for restarted in [false, true] {
        let store = if restarted {
            store.close().await.unwrap();
            reopen(&options)
        } else {
            store.clone()
        };
        let follower = Follower::new(|_, _, _| true);
        let name = SinkName::new("s0");
        store.start_sink(&name, StartAt::Present, &follower).await.unwrap();
        let cursor = store.rewind(&name, Seq(10)).await.unwrap().cursor;
        let read = store.read_for(&follower, cursor, usize::MAX, usize::MAX).await.unwrap();
        let from = cursor.0 + 1;
        assert!(read.iter().map(|event| event.seq.0).eq(from..=EVENTS), "from {from}");
    }
}
