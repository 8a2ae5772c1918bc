//! Sending again: dead letters, replays, where a sink starts.

use super::*;
use crate::model::event::Since;
use crate::model::time::Timestamp;
use crate::store::DeadLetterFilter;

#[tokio::test]
async fn dead_letters_are_sent_again_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    *tap.broken.lock().unwrap() = true;
    let out = SinkOptions { give_up_after: Duration::from_millis(100), ..sink("out", SinkKind::Stdout) };
    let bench = Bench::start(open(folder.path()), &[out], tap.options()).await;
    bench.push(0..4, "stream.online").await;
    bench.status("out", |status| status.dead_letters == 4).await;

    let reader = crate::store::Reader::open(&folder.path().join("events.db")).unwrap();
    let list = || reader.dead_letters(None, 0, 10).unwrap();
    let first = DeadLetterFilter { id: Some(list()[0].id), ..DeadLetterFilter::default() };
    assert_eq!(bench.handle.drop_dead_letters(first).await.unwrap(), 1);
    bench.status("out", |status| status.dead_letters == 3).await;

    // While the sink still fails they stay.
    assert_eq!(bench.handle.resend(DeadLetterFilter::default()).await.unwrap().count, 3);
    let begun = std::time::Instant::now();
    while list().iter().any(|letter| letter.replay) {
        assert!(begun.elapsed() < WAIT, "they are tried");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(list().len(), 3);

    *tap.broken.lock().unwrap() = false;
    assert_eq!(bench.handle.resend(DeadLetterFilter::default()).await.unwrap().count, 3);
    bench.status("out", |status| status.dead_letters == 0).await;
    assert_eq!(tap.ids(), numbers(1..4));
    assert!(list().is_empty());
    bench.push(4..5, "stream.online").await;
    bench.caught_up("out").await;
    assert_eq!(tap.ids(), numbers(1..5), "and it goes on");
    let nobody = DeadLetterFilter { sink: Some(SinkName::new("nobody")), ..DeadLetterFilter::default() };
    assert!(matches!(bench.handle.resend(nobody).await, Err(ResendError::Unknown(_))));
    bench.end().await;
}

#[tokio::test]
async fn what_is_stored_is_sent_again_from_where_a_person_says() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    let sinks = [sink("out", SinkKind::Stdout), file(&folder, "file")];
    let bench = Bench::start(open(folder.path()), &sinks, tap.options()).await;
    bench.push(0..10, "stream.online").await;
    bench.caught_up("out").await;
    bench.caught_up("file").await;
    let out = SinkName::new("out");
    assert_eq!(bench.handle.replay(&out, Since::Seq(Seq(8))).await.unwrap(), 3);
    bench.push(10..11, "stream.online").await;
    bench.status("out", |status| status.delivered == 14).await;
    assert_eq!(tap.ids(), [numbers(0..10), numbers(7..11)].concat());
    let future = Timestamp(std::time::SystemTime::now() + Duration::from_secs(60));
    assert_eq!(bench.handle.replay(&out, Since::Time(future)).await.unwrap(), 0);
    assert_eq!(bench.handle.replay(&out, Since::Time(Timestamp::from_unix_millis(0))).await.unwrap(), 11);
    bench.status("out", |status| status.delivered == 25).await;
    let SinkKind::File(FileOptions { path, .. }) = &sinks[1].kind else { panic!() };
    bench.caught_up("file").await;
    assert_eq!(ids(&std::fs::read(path).unwrap()), numbers(0..11), "the other one is left alone");
    let unknown = bench.handle.replay(&SinkName::new("x"), Since::Seq(Seq(1))).await;
    assert!(matches!(unknown, Err(ResendError::Unknown(_))));
    bench.end().await;
}

#[tokio::test]
async fn a_new_sink_starts_at_the_present_unless_it_asks_for_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::default();
    let out = sink("out", SinkKind::Stdout);
    let bench = Bench::start(open(folder.path()), std::slice::from_ref(&out), tap.options()).await;
    bench.push(0..5, "stream.online").await;
    bench.caught_up("out").await;
    let (now, all) = (file(&folder, "now"), file(&folder, "all"));
    let all = SinkOptions { start: StartAt::Beginning, ..all };
    bench.sinks.send_replace(Arc::from([out, now.clone(), all.clone()]));
    bench.caught_up("now").await;
    bench.push(5..7, "stream.online").await;
    bench.caught_up("now").await;
    bench.caught_up("all").await;
    let read = |sink: &SinkOptions| {
        let SinkKind::File(FileOptions { path, .. }) = &sink.kind else { panic!() };
        ids(&std::fs::read(path).unwrap())
    };
    assert_eq!((read(&now), read(&all)), (numbers(5..7), numbers(0..7)));
    bench.end().await;
}

#[tokio::test]
async fn a_command_sink_runs_for_every_event_and_failures_end_in_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = format!(
        "cat > /dev/null; [ $EVENTSUB_MESSAGE_ID = m1 ] && exit 1; echo $EVENTSUB_MESSAGE_ID >> {}",
        out.display()
    );
    let command = CommandOptions {
        program: "/bin/sh".into(),
        folder: "/".into(),
        arguments: vec!["-c".to_owned(), script],
        timeout: Duration::from_secs(10),
        concurrency: 1,
    };
    let run =
        SinkOptions { give_up_after: Duration::from_millis(200), ..sink("run", SinkKind::Command(command)) };
    let bench = Bench::start(open(folder.path()), &[run], options()).await;
    bench.push(0..4, "stream.online").await;
    let status = bench.caught_up("run").await;
    assert_eq!((status.delivered, status.dead_letters), (3, 1));
    assert!(status.retries >= 2);
    assert_eq!(std::fs::read_to_string(out).unwrap(), "m0\nm2\nm3\n");
    bench.end().await;
}
