//! The dead letters that hosts share, in a real stream.

use std::fmt::Display;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use eventsubd::cluster::{LettersError, LogLimits, SharedLetters, SharedLog};
use eventsubd::daemon;
use eventsubd::model::cluster::ClusterOptions;
use eventsubd::model::event::{Event, MessageId, Seq, StoredEvent};
use eventsubd::model::secret::Secret;
use eventsubd::model::sink::SinkName;
use eventsubd::model::time::Timestamp;
use eventsubd::store::{DeadLetter, DeadLetterFilter, GivenUp};

use super::common::WAIT;
use super::servers::{NEWEST, OLDEST, Servers};

/// The log, as a host has it.
pub(super) fn log(servers: &Servers, host: &str, max_size: u64) -> SharedLog {
    let options = ClusterOptions {
        nats: Secret::new(servers.urls()),
        credentials: None,
        name: "eventsubd".to_owned(),
        host: host.to_owned(),
        replicas: None,
    };
    let tls = (**daemon::connections().unwrap().tls()).clone();
    let limits = LogLimits { retain: Duration::from_secs(3600), max_size };
    SharedLog::new(options, tls, limits, None)
}

/// The letters, as a host has them.
fn letters(servers: &Servers, host: &str, max_size: u64) -> SharedLetters {
    SharedLetters::new(log(servers, host, max_size))
}

fn event(seq: u64, kind: &str, size: usize) -> StoredEvent {
    event_with(seq, kind, format!("{{\"event\": {{ \"text\" : \"{}\"}}}}", "x".repeat(size)))
}

/// An event with this payload.
pub(super) fn event_with(seq: u64, kind: &str, payload: String) -> StoredEvent {
    let event = Event {
        message_id: MessageId::new(&format!("m-{seq}")).unwrap(),
        message_timestamp: "2026-11-02T09:00:01Z".into(),
        subscription_type: kind.into(),
        subscription_version: "1".into(),
        subscription_id: "s".into(),
        payload: payload.into_bytes().into(),
    };
    StoredEvent { seq: Seq(seq), stored_at: Timestamp::from_unix_millis(1_000), event }
}

fn of(sink: &str) -> DeadLetterFilter {
    DeadLetterFilter { sink: Some(SinkName::new(sink)), ..DeadLetterFilter::default() }
}

async fn listed(letters: &SharedLetters, filter: &DeadLetterFilter) -> Vec<DeadLetter> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(after) = next {
        let page = until(async || letters.page(filter, after, 7).await).await;
        all.extend(page.letters);
        next = page.next;
    }
    all
}

fn seqs(letters: &[DeadLetter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.event.seq.0).collect()
}

/// Repeats a request until servers answer it: they may have to choose a leader first, or hear of the stream from the one that
/// has made it. Only for requests that may be carried out twice.
pub(super) async fn until<T, E: Display>(work: impl AsyncFn() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < WAIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until two counts are the same: a copy of the stream may be behind.
async fn counts(letters: &SharedLetters, sink: &str, number: u64) {
    let begun = Instant::now();
    loop {
        let count = until(async || letters.count(&SinkName::new(sink)).await).await;
        if count == number {
            return;
        }
        assert!(begun.elapsed() < WAIT, "{count} letters, not {number}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_share_dead_letters_and_cannot_undo_each_other() {
    let servers = Servers::start(OLDEST, 3);
    let [one, other] = ["web-1", "web-2"].map(|host| letters(&servers, host, 64 << 20));
    let (log, odd) = (SinkName::new("log"), SinkName::new("lo.g *"));
    let why = GivenUp { said: Some("nö\n".to_owned()), ..GivenUp::from("host answered 400") };
    until(async || one.put(&log, &event(1, "stream.online", 10), &why).await).await;
    for seq in 2..=20 {
        let kind = if seq % 2 == 0 { "stream.offline" } else { "channel.follow" };
        until(async || one.put(&log, &event(seq, kind, 10), &why).await).await;
        // An acknowledgement was lost.
        until(async || one.put(&log, &event(seq, kind, 10), &why).await).await;
    }
    until(async || other.put(&odd, &event(1, "stream.online", 10), &why).await).await;
    let all = listed(&other, &of("log")).await;
    assert_eq!(seqs(&all), (1..=20).collect::<Vec<_>>());
    assert_eq!(all[0].event, event(1, "stream.online", 10));
    assert_eq!(
        (all[0].last.error.as_str(), &all[0].last.said, &all[0].first),
        ("host answered 400", &why.said, &None)
    );
    assert_eq!(seqs(&listed(&one, &of("lo.g *")).await), [1]);
    assert_eq!(listed(&one, &DeadLetterFilter::default()).await.len(), 21);
    counts(&one, "log", 20).await;
    counts(&one, "lo", 0).await;
    let types = DeadLetterFilter { types: Some("stream.*".to_owned()), ..of("log") };
    assert_eq!(listed(&one, &types).await.len(), 11);
    let old = DeadLetterFilter { until: Some(Timestamp::from_unix_millis(0)), ..of("log") };
    assert_eq!(listed(&one, &old).await, []);
    assert_eq!(seqs(&other.newest(&log, i64::MAX, 3).await.unwrap()), [20, 19, 18]);
    assert_eq!(seqs(&other.newest(&log, all[17].id, 3).await.unwrap()), [17, 16, 15]);

    // Another host marks, and the worker sees it at once.
    let third = DeadLetterFilter { id: Some(all[2].id), ..of("log") };
    assert_eq!(other.mark(&third).await.unwrap(), (1, [log.clone()].into()));
    assert_eq!(other.mark(&types).await.unwrap(), (11, [log.clone()].into()));
    let marked = one.to_replay(&log, 0, 100).await.unwrap();
    assert_eq!(seqs(&marked), [3, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
    assert!(marked.iter().all(|letter| letter.replay && letter.replays == 1));
    assert_eq!(seqs(&one.to_replay(&log, marked[9].id, 1).await.unwrap()), [18]);
    assert_eq!(other.mark(&types).await.unwrap().0, 0, "nothing is marked twice");

    // The letter fails again, and is delivered.
    one.resent(&log, marked[0].id, Err(GivenUp::from("gone"))).await.unwrap();
    for _ in 0..2 {
        until(async || one.resent(&log, marked[1].id, Ok(())).await).await;
    }
    let now = listed(&other, &of("log")).await;
    assert_eq!(now.len(), 19);
    let failed = now.iter().find(|letter| letter.event.seq == Seq(3)).unwrap();
    assert_eq!((failed.last.error.as_str(), failed.replay, failed.replays), ("gone", false, 1));
    assert_eq!(failed.first.as_ref().unwrap().error, "host answered 400");
    // A worker's word on a letter that was marked again meanwhile is too late.
    other.mark(&DeadLetterFilter { id: Some(failed.id), ..of("log") }).await.unwrap();
    one.resent(&log, failed.id, Err(GivenUp::from("late"))).await.unwrap();
    one.resent(&log, failed.id, Ok(())).await.unwrap();
    assert!(one.to_replay(&log, 0, 100).await.unwrap().iter().any(|letter| letter.event.seq == Seq(3)));

    // A part of the log is sent again.
    one.put_for_replay(&log, &event(30, "stream.online", 10)).await.unwrap();
    one.put_for_replay(&log, &event(30, "stream.online", 10)).await.unwrap();
    let thirty = one.to_replay(&log, 0, 100).await.unwrap().pop().unwrap();
    assert_eq!(
        (thirty.event.seq, thirty.replays, thirty.last.error.as_str()),
        (Seq(30), 1, "not sent again yet")
    );

    // Anybody may publish.
    let context =
        jetstream::new(async_nats::connect(servers.urls().split(',').next().unwrap()).await.unwrap());
    until(async || context.publish("eventsubd.dl.log.junk", "{".into()).await?.await).await;
    let page = one.page(&of("log"), 0, 100).await.unwrap();
    assert_eq!((page.letters.len(), page.unreadable, page.next), (20, 1, None));

    assert_eq!(other.drop_letters(&types).await.unwrap(), 11);
    assert_eq!(seqs(&listed(&one, &of("log")).await), [5, 7, 9, 11, 13, 15, 17, 19, 3]);
    assert_eq!(other.drop_letters(&of("log")).await.unwrap(), 9);
    assert_eq!(listed(&one, &DeadLetterFilter::default()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_refuses_letters_and_loses_none() {
    for number in [1, 3] {
        let servers = Servers::start(OLDEST, number);
        // A quarter of this is theirs.
        let letters = letters(&servers, "web-1", 4 * (64 << 10));
        let (log, why) = (SinkName::new("log"), GivenUp::from("refused"));
        until(async || letters.put(&log, &event(1, "stream.online", 5_000), &why).await).await;
        let mut put = 1;
        let put_next =
            async |put: u64| match letters.put(&log, &event(put + 1, "stream.online", 5_000), &why).await {
                Err(error @ LettersError::Full(_)) => Ok(Err(error)),
                outcome => outcome.map(Ok),
            };
        let error = loop {
            match until(async || put_next(put).await).await {
                Ok(()) => put += 1,
                Err(error) => break error,
            }
            assert!(put < 100, "it is never full");
        };
        assert!(put > 5, "{put}: {error}");
        assert!(error.to_string().contains("eventsubd dead-letters drop"), "{error}");
        assert_eq!(listed(&letters, &of("log")).await.len() as u64, put);
        // Letters can be sent again all the same, and make room.
        assert_eq!(letters.mark(&of("log")).await.unwrap().0, put);
        let first = until(async || letters.to_replay(&log, 0, 1).await).await.remove(0);
        assert_eq!(first.event.seq, Seq(1));
        until(async || letters.resent(&log, first.id, Ok(())).await).await;
        until(async || letters.put(&log, &event(put + 1, "stream.online", 5_000), &why).await).await;
        assert_eq!(listed(&letters, &of("log")).await.len() as u64, put);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_the_stream_has_lost_are_written_again() {
    let mut servers = Servers::start(NEWEST, 1);
    let letters = letters(&servers, "web-1", 64 << 20);
    let (log, why) = (SinkName::new("log"), GivenUp::from("refused"));
    until(async || letters.put(&log, &event(1, "stream.online", 10), &why).await).await;
    servers.kill(0);
    let copy = servers.copy_stream(0, "eventsubd-letters");
    servers.run(0);
    for seq in 2..=5 {
        until(async || letters.put(&log, &event(seq, "stream.online", 10), &why).await).await;
    }
    servers.kill(0);
    servers.restore_stream(0, "eventsubd-letters", &copy);
    servers.run(0);
    until(async || letters.page(&of("log"), 0, 10).await).await;
    let restored = listed(&letters, &of("log")).await;
    assert_eq!(seqs(&restored), [1, 2, 3, 4, 5]);

    let context = jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    context.delete_stream("eventsubd-letters").await.unwrap();
    until(async || letters.put(&log, &event(6, "stream.online", 10), &why).await).await;
    let again = listed(&letters, &of("log")).await;
    assert_eq!(seqs(&again), [1, 2, 3, 4, 5, 6]);
    assert!(again[0].id > restored[4].id, "a number is used again");
}
