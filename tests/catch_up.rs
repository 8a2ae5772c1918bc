//! Catch-up: what happened on channels during a gap is told afterwards, once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use common::{Home, Process, Running, WAIT, command, converged, output, quick, status, text, tuning};
use eventsubd::daemon::Tuning;
use eventsubd::gaps::CatchUpTimings;
use eventsubd::sandbox::{Fault, Route};
use eventsubd::store::{Store, StoreOptions};
use rustix::process::Signal;
use serde_json::Value;

const CHANNELS: usize = 300;
/// Channels on which each of four things happens during the gap.
const CHANGED: usize = 10;
/// Age of what the sandbox shows.
const CACHE: Duration = Duration::from_millis(600);

fn login(number: usize) -> String {
    format!("channel{number:03}")
}

fn file(rest: &str) -> String {
    let names: Vec<String> = (0..CHANNELS).map(|number| format!("\"{}\"", login(number))).collect();
    format!(
        "{rest}[[subscription]]\ntype = [\"stream.online\", \"stream.offline\"]\nbroadcaster = [{}]\n\n\
         [sink.out]\ntype = \"stdout\"\n",
        names.join(", ")
    )
}

fn timings() -> Tuning {
    let looks = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];
    Tuning {
        catch_up: Some(CatchUpTimings { cache: CACHE * 2, looks, ..CatchUpTimings::default() }),
        ..tuning()
    }
}

/// Twitch's own events of a type, as they happen, whether anybody hears of them or not.
async fn happens(home: &Home, kind: &str, number: usize) {
    let _ = home.sandbox.trigger(kind, Some(&login(number))).await;
}

/// Before the gap every second channel is live.
fn is_live_before(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// What happens during the gap. Returns what can be told of it: the types, by channel.
async fn forty_changes(home: &Home) -> BTreeMap<String, Vec<&'static str>> {
    let mut expected = BTreeMap::new();
    let live: Vec<usize> = (0..CHANNELS).filter(|number| is_live_before(*number)).collect();
    let off: Vec<usize> = (0..CHANNELS).filter(|number| !is_live_before(*number)).collect();
    let id = |number: usize| home.sandbox.user_id(&login(number)).unwrap();
    for number in &live[..CHANGED] {
        happens(home, "stream.offline", *number).await;
        expected.insert(id(*number), vec!["stream.offline"]);
    }
    for number in &off[..CHANGED] {
        happens(home, "stream.online", *number).await;
        expected.insert(id(*number), vec!["stream.online"]);
    }
    for number in &live[CHANGED..2 * CHANGED] {
        happens(home, "stream.offline", *number).await;
        happens(home, "stream.online", *number).await;
        expected.insert(id(*number), vec!["stream.offline", "stream.online"]);
    }
    // Begun and ended: Twitch shows nothing of it.
    for number in &off[CHANGED..2 * CHANGED] {
        happens(home, "stream.online", *number).await;
        happens(home, "stream.offline", *number).await;
    }
    expected
}

/// The events that a catch-up made, by channel, in order; each once.
fn made(lines: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ids = Vec::new();
    for line in lines {
        let id = line["metadata"]["message_id"].as_str().unwrap();
        if line["metadata"]["eventsubd"]["catch_up"] != true {
            assert!(!id.starts_with("catch-up-"), "{line}");
            continue;
        }
        assert!(id.starts_with("catch-up-stream."), "{line}");
        let event = &line["payload"]["event"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert!(event["broadcaster_user_login"].as_str().unwrap().starts_with("channel"), "{line}");
        let kind = text(&line["metadata"]["subscription_type"]);
        made.entry(text(&event["broadcaster_user_id"])).or_default().push(kind);
        ids.push(id.to_owned());
    }
    let total = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), total, "something was told twice");
    made
}

/// No stream begins or ends twice, whoever told of it.
fn assert_once(lines: &[Value]) {
    let mut seen = std::collections::BTreeSet::new();
    for line in lines {
        let kind = line["metadata"]["subscription_type"].as_str().unwrap();
        if kind.starts_with("stream.") {
            let event = &line["payload"]["event"];
            let name = format!("{kind} {} {}", event["broadcaster_user_id"], event["id"]);
            assert!(seen.insert(name.clone()), "twice: {name}");
        }
    }
}

/// Waits until so many channels were asked about, and every second one is live.
async fn begin(home: &Home, delivered: impl AsyncFn(usize)) {
    let asked = home.sandbox.wait_for(WAIT, |sandbox| sandbox.stats().streams >= 3).await;
    assert!(asked, "the first look: {:?}", home.sandbox.stats());
    let live = (0..CHANNELS).filter(|number| is_live_before(*number));
    for number in live.clone() {
        home.sandbox.trigger("stream.online", Some(&login(number))).await.expect("delivered");
    }
    delivered(live.count()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_began_and_ended_during_a_gap_are_told_once() {
    let home = Home::new(quick()).await;
    home.configure(&file(""));
    let daemon = Running::start(home.load(), timings()).await;
    daemon.converged().await;
    let none = |status: &eventsubd::model::status::Status| status.gaps.catch_up.is_none();
    begin(&home, async |count| {
        daemon.delivered(count as u64).await;
        daemon.until("the first look is over", none).await;
    })
    .await;
    assert_eq!(made(&daemon.stdout.lines()).len(), 0, "nothing is invented at the first start");
    home.sandbox.set_stream_delay(CACHE);
    tokio::time::sleep(CACHE * 2).await;

    home.sandbox.fault(Route::Connect, Fault::Reset, u32::MAX);
    for session in home.sandbox.sessions() {
        home.sandbox.kill_session(&session);
    }
    assert!(home.sandbox.wait_for(WAIT, |sandbox| sandbox.sessions().is_empty()).await);
    let expected = forty_changes(&home).await;
    home.sandbox.clear_faults();
    daemon.until("it is under way", |status| status.gaps.catch_up.is_some()).await;
    let status =
        daemon.until("it is over", |status| status.gaps.recent.iter().any(|g| g.mended.is_some())).await;
    assert_eq!((status.gaps.recent[0].mended, status.gaps.mended), (Some(40), 40), "{:?}", status.gaps);
    daemon.delivered(status.store.last_seq.0).await;
    let lines = daemon.stdout.lines();
    let told = made(&lines);
    let told: BTreeMap<_, Vec<&str>> =
        told.iter().map(|(id, kinds)| (id.clone(), kinds.iter().map(String::as_str).collect())).collect();
    assert_eq!(told, expected);
    assert_once(&lines);

    // The event that says so names the gap.
    let of = |kind: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["metadata"]["subscription_type"] == kind).collect()
    };
    let (gaps, ends) = (of("eventsubd.gap"), of("eventsubd.catch_up"));
    assert_eq!((gaps.len(), ends.len()), (1, 1));
    let end = &ends[0]["payload"]["event"];
    assert_eq!(end["gaps"][0], gaps[0]["metadata"]["message_id"]);
    assert_eq!((&end["channels"], &end["events"]), (&300.into(), &40.into()));
    assert_eq!(end["found"], serde_json::json!({"stream.offline": 20, "stream.online": 20}));

    // Twitch's own event, when it comes after all, is known.
    let event = lines
        .iter()
        .find(|line| line["metadata"]["message_id"].as_str().unwrap().starts_with("catch-up-stream.online"))
        .unwrap();
    let id = event["payload"]["event"]["broadcaster_user_id"].as_str().unwrap();
    let all = home.sandbox.subscriptions();
    let is_of = |field: &(String, String)| field.1 == id;
    let subscription =
        all.iter().find(|s| s.kind == "stream.online" && s.condition.iter().any(is_of)).unwrap();
    let doubles = daemon.status().intake.doubles;
    home.sandbox.send_event(&subscription.id, &event["payload"]["event"].to_string()).await.unwrap();
    daemon.until("it is a double", |status| status.intake.doubles == doubles + 1).await;

    let answer = output(command(&home, &["gaps"])).await;
    assert!(text(&answer.stdout).contains("caught up with 40 events"), "{}", text(&answer.stdout));
    let answer = output(command(&home, &["gaps", "--json"])).await;
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["gaps"][0]["mended"]["events"], 40, "{answer}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_channels_are_told_when_they_are_asked_for() {
    let home = Home::new(quick()).await;
    home.configure(
        "[catch_up]\nchannels = true\n\n[[subscription]]\ntype = \"channel.update\"\nbroadcaster = [\"ann\", \"bob\"]\n\n\
         [sink.out]\ntype = \"stdout\"\n",
    );
    let daemon = Running::start(home.load(), timings()).await;
    daemon.converged().await;
    assert!(home.sandbox.wait_for(WAIT, |sandbox| sandbox.stats().channels >= 1).await);
    daemon.until("the first look is over", |status| status.gaps.catch_up.is_none()).await;
    home.sandbox.fault(Route::Connect, Fault::Reset, u32::MAX);
    for session in home.sandbox.sessions() {
        home.sandbox.kill_session(&session);
    }
    assert!(home.sandbox.wait_for(WAIT, |sandbox| sandbox.sessions().is_empty()).await);
    assert!(home.sandbox.trigger("channel.update", Some("ann")).await.is_err(), "nobody is connected");
    // The known state is younger than Twitch's answers may be old.
    tokio::time::sleep(CACHE * 2).await;
    home.sandbox.clear_faults();
    daemon.until("it is told", |status| status.gaps.mended == 1).await;
    let lines = daemon.delivered(2).await;
    assert!(lines.gaps.catch_up.is_some());
    let lines = daemon.stdout.lines();
    let update = lines.iter().find(|line| line["metadata"]["subscription_type"] == "channel.update").unwrap();
    assert_eq!(update["metadata"]["eventsubd"]["catch_up"], true);
    assert_eq!(update["payload"]["event"]["broadcaster_user_login"], "ann");
    let title = update["payload"]["event"]["title"].as_str().unwrap();
    assert!(!title.is_empty());
    daemon.end().await;
}

/// The channels of which something is known, once the daemon has ended.
async fn remembered(home: &Home) -> usize {
    let path = home.path("state").join("events.db");
    let store = Store::open(StoreOptions::new(path, WAIT, 1 << 30, 100, 1 << 20)).unwrap();
    let known = store.quiet_channels("", Duration::ZERO, 10 * CHANNELS).await.unwrap().len();
    store.close().await.unwrap();
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_left_the_file_are_forgotten_once_they_have_been_quiet_for_long() {
    let home = Home::new(quick()).await;
    home.configure(&file(""));
    let daemon = Running::start(home.load(), timings()).await;
    daemon.converged().await;
    assert!(home.sandbox.wait_for(WAIT, |sandbox| sandbox.stats().streams >= 3).await);
    daemon.until("the first look is over", |status| status.gaps.catch_up.is_none()).await;
    daemon.end().await;
    assert_eq!(remembered(&home).await, CHANNELS);

    // Two are left in the file. What is known of the others is not old yet.
    let two = "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [\"channel000\", \"channel001\"]\n";
    home.configure(&format!("[reconcile]\nmax_delete = 1.0\n\n{two}"));
    let daemon = Running::start(home.load(), timings()).await;
    daemon.converged().await;
    daemon.end().await;
    assert_eq!(remembered(&home).await, CHANNELS);

    let catch_up = timings().catch_up.map(|timings| CatchUpTimings { forget_after: CACHE, ..timings });
    tokio::time::sleep(CACHE).await;
    let daemon = Running::start(home.load(), Tuning { catch_up, ..tuning() }).await;
    daemon.converged().await;
    let reader = home.path("state").join("events.db");
    daemon
        .until("they are forgotten", |_| {
            let rows =
                rusqlite::Connection::open_with_flags(&reader, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
                    .and_then(|db| {
                        db.query_row("SELECT count(*) FROM last_known", [], |row| row.get::<_, u64>(0))
                    });
            rows.unwrap() == 2
        })
        .await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_catch_up_twitch_is_not_asked() {
    let home = Home::new(quick()).await;
    home.configure(&file("[catch_up]\nstreams = false\n\n"));
    let daemon = Running::start(home.load(), timings()).await;
    daemon.converged().await;
    let losses = || daemon.status().gaps.told.values().sum::<u64>();
    for session in home.sandbox.sessions() {
        home.sandbox.kill_session(&session);
    }
    daemon.until("a gap", |_| losses() == 1).await;
    let status = daemon.delivered(1).await;
    assert_eq!((status.gaps.catch_up, home.sandbox.stats().streams), (None, 0));
    daemon.end().await;
}

fn lines(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(home.path("stdout.log")).unwrap();
    let (text, _) = text.rsplit_once('\n').unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catch_up_that_is_killed_goes_on_and_tells_nothing_twice() {
    let home = Home::new(quick()).await;
    home.configure(&file(""));
    let mut program = Process::start(&home, "info");
    converged(&home).await;
    let live = (0..CHANNELS).filter(|number| is_live_before(*number)).count();
    begin(&home, async |_| {
        let begun = Instant::now();
        while lines(&home).len() < live || status(&home).await.gaps.catch_up.is_some() {
            assert!(begun.elapsed() < WAIT, "{} lines", lines(&home).len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    program.signal(Signal::TERM);
    assert!(program.ended().await.success());
    // What ended right after it was told to be live would be doubtful for two minutes.
    let mut expected = BTreeMap::new();
    for number in (0..CHANNELS).filter(|number| !is_live_before(*number)).take(4 * CHANGED) {
        happens(&home, "stream.online", number).await;
        expected.insert(home.sandbox.user_id(&login(number)).unwrap(), vec!["stream.online"]);
    }
    let events = expected.len();

    // Each part of the look takes so long that the process is killed between two of them.
    home.sandbox.set_pace(800, 800 * 60, Duration::from_millis(400));
    let mut killed_at = 0;
    let mut program = Process::start(&home, "info");
    let begun = Instant::now();
    while killed_at == 0 {
        assert!(begun.elapsed() < WAIT, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
        killed_at = made(&lines(&home)).values().map(Vec::len).sum();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.signal(Signal::KILL);
    program.ended().await;
    let killed_at = killed_at.max(made(&lines(&home)).values().map(Vec::len).sum());
    assert!(killed_at < events, "it was over before it was killed");

    home.sandbox.set_pace(800, 800 * 60, Duration::ZERO);
    let program = Process::start(&home, "info");
    let begun = Instant::now();
    // A sink may get again what it had right before the end.
    let once = || {
        let mut lines = lines(&home);
        lines.sort_by_key(|line| line["metadata"]["message_id"].to_string());
        lines.dedup_by_key(|line| line["metadata"]["message_id"].to_string());
        lines
    };
    let all = || made(&once()).values().map(Vec::len).sum::<usize>();
    while all() < events || status(&home).await.gaps.catch_up.is_none_or(|c| c.next_look.is_none()) {
        assert!(begun.elapsed() < WAIT, "{} of {events}", all());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = made(&once());
    for (id, kinds) in &expected {
        assert_eq!(told[id], *kinds, "{id}");
    }
    assert_eq!(told.len(), expected.len());
    assert_once(&once());
    drop(program);
}
