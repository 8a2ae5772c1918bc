//! HTTP sinks against receivers of every temper.

use std::collections::BTreeMap;

use super::receiver::{Answer, Receiver};
use super::*;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;

fn http(receiver: &Receiver, concurrency: usize) -> SinkOptions {
    let options = HttpOptions {
        url: Secret::new(format!("http://{}/hook", receiver.address)),
        method: ::http::Method::POST,
        headers: vec![],
        body: HttpBody::Eventsub(None),
        timeout: Duration::from_secs(10),
        concurrency,
    };
    sink("web", SinkKind::Http(options))
}

fn with_body(options: SinkOptions, body: HttpBody) -> SinkOptions {
    let SinkKind::Http(http) = options.kind else { panic!() };
    SinkOptions { kind: SinkKind::Http(HttpOptions { body, ..http }), ..options }
}

#[tokio::test]
async fn with_concurrency_order_is_kept_for_each_broadcaster() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Hang], Duration::from_millis(1)).await;
    let SinkOptions { kind: SinkKind::Http(patient), .. } = http(&receiver, 8) else { panic!() };
    let web = sink("web", SinkKind::Http(HttpOptions { timeout: Duration::from_secs(2), ..patient }));
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    bench.push(0..500, "stream.online").await;
    let status = bench.caught_up("web").await;
    assert_eq!((status.delivered, status.in_flight, status.retries), (500, 0, 1));
    let requests = receiver.requests.lock().unwrap().clone();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut overtaken = false;
    let mut highest = 0;
    for request in requests.iter().filter(|request| request.answered) {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let n = body["event"]["n"].as_u64().unwrap();
        let channel = body["subscription"]["condition"]["broadcaster_user_id"].as_str().unwrap();
        assert!(last.insert(channel.to_owned(), n).is_none_or(|before| before < n), "out of order");
        overtaken |= n < highest;
        highest = highest.max(n);
    }
    assert_eq!(requests.len(), 501);
    assert!(overtaken, "channels do not wait for each other");
    assert_eq!(requests[0].line, "POST /hook HTTP/1.1");
    bench.end().await;
}

#[tokio::test]
async fn receivers_of_every_temper_get_everything_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let script = [
        Answer::Status(500, ""),
        Answer::Hang,
        Answer::Reset,
        Answer::Garbage,
        Answer::Status(503, "retry-after: 0\r\n"),
        Answer::Status(408, ""),
        Answer::Status(425, ""),
        Answer::Status(302, "location: http://127.0.0.1:1/\r\n"),
        Answer::Endless,
    ];
    let receiver = Receiver::start(&script, Duration::ZERO).await;
    let SinkOptions { kind: SinkKind::Http(patient), .. } = http(&receiver, 1) else { panic!() };
    let web = sink("web", SinkKind::Http(HttpOptions { timeout: Duration::from_secs(1), ..patient }));
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    bench.push(0..20, "stream.online").await;
    let status = bench.caught_up("web").await;
    assert_eq!((status.retries, status.dead_letters, status.problem), (8, 0, None));
    assert_eq!(receiver.ids(), numbers(0..20), "in order, each once");
    let retries: Vec<String> = receiver.requests.lock().unwrap()[..9]
        .iter()
        .map(|request| request.header("twitch-eventsub-message-retry").to_owned())
        .collect();
    assert_eq!(retries, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    bench.end().await;
}

#[tokio::test]
async fn the_pause_that_is_asked_for_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(429, "retry-after: 1\r\n")], Duration::ZERO).await;
    let web = SinkOptions { retry_max: Duration::from_secs(5), ..http(&receiver, 1) };
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    let begun = std::time::Instant::now();
    bench.push(0..1, "stream.online").await;
    let status = bench.status("web", |status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("429"));
    bench.caught_up("web").await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    bench.end().await;
}

#[tokio::test]
async fn what_is_refused_for_good_is_a_dead_letter_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(422, "")], Duration::ZERO).await;
    let bench = Bench::start(open(folder.path()), &[http(&receiver, 1)], options()).await;
    bench.push(0..3, "stream.online").await;
    let status = bench.caught_up("web").await;
    assert_eq!((status.dead_letters, status.delivered, status.retries), (1, 2, 0));
    let store = bench.end().await;
    let reader = crate::store::Reader::open(&folder.path().join("events.db")).unwrap();
    let letters = reader.dead_letters(None, 0, 10).unwrap();
    assert_eq!(letters[0].event.event.message_id.as_str(), "m0");
    assert!(letters[0].last.error.contains("answered 422 Unprocessable Entity; "), "{:?}", letters[0].last);
    assert_eq!((letters[0].last.said.as_deref(), &letters[0].first), (Some("said"), &None));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_neither_others_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Hang; 50], Duration::ZERO).await;
    let SinkOptions { kind: SinkKind::Http(slow), .. } = http(&receiver, 4) else { panic!() };
    let web = sink("web", SinkKind::Http(HttpOptions { timeout: Duration::from_secs(60), ..slow }));
    let tap = Tap::default();
    let bench = Bench::start(open(folder.path()), &[web, sink("out", SinkKind::Stdout)], tap.options()).await;
    bench.push(0..10, "stream.online").await;
    bench.caught_up("out").await;
    let status = bench.status("web", |status| status.in_flight == 4).await;
    assert_eq!((status.cursor, status.lag_events), (Seq(0), 10));
    let begun = std::time::Instant::now();
    let store = bench.end().await;
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(store.sink(&SinkName::new("web"), StartAt::Present).await.unwrap().cursor, Seq(0));
}

#[tokio::test]
async fn other_formats_are_sent_as_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[], Duration::ZERO).await;
    let cloud =
        SinkOptions { name: SinkName::new("cloud"), ..with_body(http(&receiver, 1), HttpBody::Cloudevents) };
    let template = r#"{"content": {{ ("n is " ~ event.n) | tojson }}}"#;
    let own = with_body(http(&receiver, 1), HttpBody::Template(template.into()));
    let bench = Bench::start(open(folder.path()), &[cloud, own], options()).await;
    bench.push(0..1, "stream.online").await;
    bench.caught_up("cloud").await;
    bench.caught_up("web").await;
    let requests = receiver.requests.lock().unwrap().clone();
    let find = |kind: &str| {
        let found = requests.iter().find(|request| request.header("content-type").starts_with(kind)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&found.body).unwrap()
    };
    assert_eq!(find("application/cloudevents+json")["type"], "tv.twitch.eventsub.stream.online");
    assert_eq!(find("application/json"), serde_json::json!({"content": "n is 0"}));
    bench.end().await;
}

#[tokio::test]
async fn a_pause_stops_every_event_of_all_sinks_with_the_same_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(429, "retry-after: 1.5\r\n")], Duration::ZERO).await;
    let other =
        SinkOptions { name: SinkName::new("other"), types: vec!["channel.*".into()], ..http(&receiver, 4) };
    let web = SinkOptions {
        types: vec!["stream.*".into()],
        retry_max: Duration::from_millis(50),
        ..http(&receiver, 4)
    };
    let bench = Bench::start(open(folder.path()), &[web, other], options()).await;
    bench.push(0..1, "stream.online").await;
    let status = bench.status("web", |status| status.state == SinkState::Paused).await;
    let until = status.next_try.expect("it says until when");
    assert!(status.problem.unwrap().ends_with("answered 429 Too Many Requests"));
    // The other one has failed at nothing, and waits as well.
    bench.push(1..10, "channel.follow").await;
    let paused = bench.status("other", |status| status.state == SinkState::Paused).await;
    assert_eq!((paused.problem, paused.delivered), (None, 0));
    assert!(paused.next_try.is_some_and(|at| at.since(until).max(until.since(at)) < Duration::from_secs(1)));
    bench.push(10..30, "stream.online").await;
    bench.caught_up("web").await;
    bench.caught_up("other").await;
    let (asked, requests) = (receiver.paused_at(), receiver.requests.lock().unwrap().clone());
    assert_eq!(requests.len(), 31);
    for request in &requests[1..] {
        assert!(request.at.duration_since(asked) >= Duration::from_millis(1_500), "sent during the pause");
    }
    bench.end().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_work_gets_one_event_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(401, ""); 9], Duration::ZERO).await;
    let bench = Bench::start(open(folder.path()), &[http(&receiver, 8)], options()).await;
    bench.push(0..50, "stream.online").await;
    let status = bench.caught_up("web").await;
    assert_eq!((status.delivered, status.dead_letters, status.problem, status.next_try), (50, 0, None, None));
    let requests = receiver.requests.lock().unwrap().clone();
    // Up to seven are out at once when it fails first, one for each channel; after that it is tried with one of them.
    let failed = requests.iter().filter(|request| !request.answered).count();
    assert_eq!((failed, requests.len()), (9, 59));
    let probes: Vec<_> = requests[7..10].iter().map(|r| r.header("twitch-eventsub-message-id")).collect();
    assert!(probes.iter().all(|id| *id == probes[0]), "{probes:?}");
    bench.end().await;
}

#[tokio::test]
async fn a_person_has_a_sink_try_now_or_go_on_without_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(429, "retry-after: 3000\r\n")], Duration::ZERO).await;
    let web = SinkOptions { retry_max: Duration::from_secs(3_000), ..http(&receiver, 4) };
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    let name = SinkName::new("web");
    let nothing = bench.handle.skip(&name).await;
    assert!(matches!(nothing, Err(ResendError::NothingFailed(_))), "{nothing:?}");
    bench.push(0..1, "stream.online").await;
    bench.status("web", |status| status.state == SinkState::Paused).await;
    // A reload is no reason to send during a pause; a person is.
    bench.handle.reopen();
    bench.push(1..3, "stream.online").await;
    assert_eq!(receiver.requests.lock().unwrap().len(), 1);
    bench.handle.retry_now(&name).await.unwrap();
    bench.caught_up("web").await;
    assert_eq!(receiver.ids(), numbers(0..3));

    receiver.script.lock().unwrap().extend([Answer::Status(500, ""); 200]);
    bench.push(3..8, "stream.online").await;
    bench.status("web", |status| status.retries >= 4).await;
    receiver.script.lock().unwrap().clear();
    let skipped = bench.handle.skip(&name).await;
    // The event may have been delivered a moment before.
    let dead = usize::from(skipped.is_ok());
    let status = bench.caught_up("web").await;
    assert_eq!((status.dead_letters, status.delivered), (dead as u64, 8 - dead as u64));
    let unknown = bench.handle.retry_now(&SinkName::new("x")).await;
    assert!(matches!(unknown, Err(ResendError::Unknown(_))));
    bench.end().await;
}

#[tokio::test]
async fn an_event_that_is_skipped_is_a_dead_letter_with_its_first_failure() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(500, ""), Answer::Hang], Duration::ZERO).await;
    let SinkOptions { kind: SinkKind::Http(patient), .. } = http(&receiver, 1) else { panic!() };
    let web = sink("web", SinkKind::Http(HttpOptions { timeout: Duration::from_secs(600), ..patient }));
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    bench.push(0..3, "stream.online").await;
    // The event is with the receiver, which does not answer.
    bench.status("web", |status| status.retries == 1 && status.in_flight == 1).await;
    let skipped = bench.handle.skip(&SinkName::new("web")).await.unwrap();
    assert_eq!((skipped.seq, skipped.subscription_type.as_str()), (Seq(1), "stream.online"));
    let status = bench.caught_up("web").await;
    assert_eq!((status.dead_letters, status.delivered, status.problem), (1, 2, None));
    let store = bench.end().await;
    let reader = crate::store::Reader::open(&folder.path().join("events.db")).unwrap();
    let letter = reader.dead_letters(None, 0, 10).unwrap().remove(0);
    assert!(letter.last.error.starts_with("skipped with `eventsubd sink skip`"), "{}", letter.last.error);
    assert!(letter.first.unwrap().error.ends_with("answered 500 Internal Server Error"));
    store.close().await.unwrap();
}

#[tokio::test]
async fn late_events_are_signed_with_a_fresh_timestamp_and_replayed_ones_have_a_new_id() {
    const SECRET: &str = "a secret of 20 chars";
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Status(422, "")], Duration::ZERO).await;
    let web = with_body(http(&receiver, 1), HttpBody::Eventsub(Some(Secret::new(SECRET))));
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    let fresh = Event { message_timestamp: now().to_string().into(), ..event(1, "stream.online") };
    bench.push(0..1, "stream.online").await;
    bench.store.append(fresh.clone()).await.unwrap();
    bench.caught_up("web").await;
    let name = SinkName::new("web");
    assert_eq!(bench.handle.resend(crate::store::DeadLetterFilter::default()).await.unwrap().count, 1);
    bench.status("web", |status| status.delivered == 2).await;
    bench.handle.replay(&name, crate::model::event::Since::Seq(Seq(1))).await.unwrap();
    bench.push(2..3, "stream.online").await;
    bench.status("web", |status| status.delivered == 5).await;
    bench.end().await;

    let requests = receiver.requests.lock().unwrap().clone();
    let signer = crate::model::signature::Signer::new(&Secret::new(SECRET));
    for request in &requests {
        let header =
            |name: &str| request.header(&format!("twitch-eventsub-message-{name}")).as_bytes().to_vec();
        let (id, timestamp, signature) = (header("id"), header("timestamp"), header("signature"));
        assert!(signer.verify(&id, &timestamp, &request.body, &signature), "{request:?}");
        let timestamp = Timestamp::parse(std::str::from_utf8(&timestamp).unwrap()).unwrap();
        assert!(now().since(timestamp) < Duration::from_secs(300));
    }
    let ids = |name: &str| requests.iter().map(|request| request.header(name).to_owned()).collect::<Vec<_>>();
    let made = "2026-11-02T09:00:01Z";
    assert_eq!(ids("eventsubd-original-timestamp"), [made, "", made, made, "", made]);
    assert_eq!(ids("eventsubd-original-message-id"), ["", "", "m0", "m0", "m1", ""]);
    let ids = ids("twitch-eventsub-message-id");
    assert_eq!([&ids[0], &ids[1], &ids[5]], ["m0", "m1", "m2"]);
    assert!(ids[2] != ids[3] && ids[2..5].iter().all(|id| id.len() == 36), "{ids:?}");
}

fn now() -> Timestamp {
    Timestamp(std::time::SystemTime::now())
}

#[tokio::test]
async fn what_a_receiver_repeats_of_its_secrets_is_in_no_message() {
    const TOKEN: &str = "q7w8e9r0-t1y2u3i4";
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Answer::Repeats(500), Answer::Repeats(422)], Duration::ZERO).await;
    let SinkOptions { kind: SinkKind::Http(plain), .. } = http(&receiver, 1) else { panic!() };
    let web = sink(
        "web",
        SinkKind::Http(HttpOptions {
            url: Secret::new(format!(
                "http://somebody:pa55w0rd@{}/hook/{TOKEN}?key={TOKEN}",
                receiver.address
            )),
            headers: vec![("x-token".parse().unwrap(), Secret::new(format!("Bearer {TOKEN}")))],
            ..plain
        }),
    );
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    bench.push(0..1, "stream.online").await;
    let failing = bench.status("web", |status| status.retries == 1).await;
    assert!(!failing.problem.unwrap_or_default().contains(TOKEN));
    bench.status("web", |status| status.dead_letters == 1).await;
    let store = bench.end().await;
    let reader = crate::store::Reader::open(&folder.path().join("events.db")).unwrap();
    let letter = reader.dead_letters(None, 0, 10).unwrap().remove(0);
    let first = letter.first.expect("two failures");
    for record in [&first, &letter.last] {
        let said = record.said.as_deref().expect("the receiver said something");
        assert!(said.contains("[secret]"), "{said}");
        let shown = format!("{} {said}", record.error);
        for secret in [TOKEN, "pa55w0rd", "somebody", "c29tZWJvZHk6cGE1NXcwcmQ"] {
            for part in secret.as_bytes().windows(8) {
                let part = std::str::from_utf8(part).unwrap();
                assert!(!shown.contains(part), "{part}: {shown}");
            }
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_event_that_a_sink_cannot_stand_is_a_dead_letter_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[], Duration::ZERO).await;
    let web = with_body(http(&receiver, 1), HttpBody::Template("{{ event.n + 1 }}".into()));
    let bench = Bench::start(open(folder.path()), &[web], options()).await;
    bench.push(0..1, "stream.online").await;
    for (id, payload) in [(1, "{"), (2, r#"{"subscription":{},"event":{"n":"\ud83d"}}"#), (3, "\u{0}")] {
        bench
            .store
            .append(Event { payload: payload.as_bytes().into(), ..event(id, "stream.online") })
            .await
            .unwrap();
    }
    bench.push(4..5, "stream.online").await;
    let status = bench.caught_up("web").await;
    assert_eq!((status.delivered, status.dead_letters, status.retries), (2, 3, 0));
    bench.end().await;
}
