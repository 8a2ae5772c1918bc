//! Commands at work: events on a terminal and in a pipe, replays of a part, dead letters that are asked about, and a file
//! made of what another program has at Twitch.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{EXE, Home, Process, WAIT, command, converged, ids, output, quick, status, text};
use rustix::process::Signal;

/// Runs a command on a terminal of 100 columns, with this typed into it; what the terminal shows. `script` makes the
/// terminal, which the Debian package bsdutils has.
async fn on_terminal(line: String, typed: &'static str) -> (String, Option<i32>) {
    let run = move || {
        let mut script = Command::new("script");
        script.args([
            "--quiet",
            "--return",
            "--command",
            &format!("stty cols 100; exec {line}"),
            "/dev/null",
        ]);
        script.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("script is installed");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).unwrap();
        let shown = child.wait_with_output().unwrap();
        drop(stdin);
        (text(&shown.stdout).replace('\r', ""), shown.status.code())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn typed_command(home: &Home, words: &str) -> String {
    let (config, state) = (home.path("config.toml"), home.path("state"));
    format!("{EXE} {words} --config {} --state-dir {}", config.display(), state.display())
}

const TWO: &str =
    "[[subscription]]\ntype = [\"stream.online\", \"channel.update\"]\nbroadcaster = [\"ann\", \"bob\"]\n";

async fn until(home: &Home, what: &str, is: impl Fn(&eventsubd::model::status::Status) -> bool) {
    let begun = Instant::now();
    loop {
        let status = status(home).await;
        if is(&status) {
            return;
        }
        assert!(begun.elapsed() < WAIT, "never: {what}; {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_chosen_by_many_things_and_short_only_on_a_terminal() {
    let home = Home::new(quick()).await;
    home.configure(TWO);
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    for (kind, who) in [
        ("stream.online", "ann"),
        ("channel.update", "ann"),
        ("stream.online", "bob"),
        ("channel.update", "bob"),
    ] {
        home.sandbox.trigger(kind, Some(who)).await.unwrap();
    }
    until(&home, "four events", |status| status.store.events == 4).await;
    let say = async |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let answer = output(command(&home, &words)).await;
        assert!(answer.status.success(), "{words:?}: {}", text(&answer.stderr));
        text(&answer.stdout)
    };
    let numbers = |shown: &str| -> Vec<String> {
        shown.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let all = say("events").await;
    assert_eq!(numbers(&all), ["1", "2", "3", "4"]);
    // A pipe gets the whole event.
    for line in all.lines() {
        let body = &line[line.find('{').unwrap()..];
        serde_json::from_str::<serde_json::Value>(body).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    assert_eq!(numbers(&say("events -n 2").await), ["3", "4"]);
    assert_eq!(numbers(&say("events --broadcaster BOB -n 1").await), ["4"]);
    assert_eq!(numbers(&say("events --broadcaster ann --type stream.*").await), ["1"]);
    assert_eq!(
        numbers(&say("events --since today").await).len() + numbers(&say("events --until today").await).len(),
        4
    );
    assert_eq!(numbers(&say("events --until yesterday").await), Vec::<String>::new());
    let id = home.sandbox.subscriptions().into_iter().find(|row| row.kind == "stream.online").unwrap().id;
    assert_eq!(numbers(&say(&format!("events --sub {id}")).await).len(), 1);
    let second = say("events 2").await;
    assert!(
        second.contains("type          channel.update version 2") && second.contains("\n  \"event\": {\n"),
        "{second}"
    );
    assert_eq!(ids(say("events 2 --json").await.as_bytes()).len(), 1);
    let missing = output(command(&home, &["events", "99"])).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("the newest is 4"), "{}", text(&missing.stderr));

    let (shown, code) = on_terminal(typed_command(&home, "events -n 3"), "").await;
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains("  stream.online") || line.contains("  channel.update"))
        .collect();
    assert_eq!((code, lines.len()), (Some(0), 3), "{shown}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100 && !line.contains('{')), "{shown}");
    assert!(lines[0].contains("channel.update") && lines[0].contains(" ann "), "{shown}");
    daemon.signal(Signal::TERM);
    daemon.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_replayed_and_nothing_is_done_without_consent() {
    let home = Home::new(quick()).await;
    let file = home.path("events.jsonl");
    home.configure(&format!("{TWO}\n[sink.file]\ntype = \"file\"\npath = \"{}\"\n", file.display()));
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    for kind in ["stream.online", "channel.update", "channel.update"] {
        home.sandbox.trigger(kind, Some("ann")).await.unwrap();
    }
    let count = || fs::read_to_string(&file).unwrap_or_default().lines().count();
    let written = async |lines: usize| {
        let begun = Instant::now();
        while count() < lines {
            assert!(begun.elapsed() < WAIT, "{} of {lines} lines", count());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(count(), lines);
    };
    written(3).await;
    let dry = output(command(
        &home,
        &["replay", "--sink", "file", "--since", "1", "--type", "channel.*", "--dry-run"],
    ));
    let dry = dry.await;
    assert!(text(&dry.stderr).contains("dry run: 2 events, stored from "), "{}", text(&dry.stderr));
    let wrong = output(command(&home, &["replay", "--sink", "fil", "--since", "1", "--dry-run"])).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("there is no sink fil in the"), "{}", text(&wrong.stderr));
    let (shown, _) = on_terminal(typed_command(&home, "replay --sink file --since 1"), "n\n").await;
    assert!(shown.contains("3 events, stored from") && shown.contains("nothing was done"), "{shown}");
    assert_eq!(count(), 3);
    let part =
        output(command(&home, &["replay", "--sink", "file", "--since", "1", "--type", "channel.*"])).await;
    assert!(text(&part.stderr).contains("gets 2 events again"), "{}", text(&part.stderr));
    written(5).await;
    until(&home, "no dead letters are left", |status| status.sinks[0].dead_letters == 0).await;
    let (shown, code) = on_terminal(typed_command(&home, "replay --sink file --since 3"), "y\n").await;
    assert_eq!(code, Some(0), "{shown}");
    written(6).await;
    let wrong =
        output(command(&home, &["replay", "--sink", "file", "--since", "1", "--type", "{a,b}"])).await;
    assert_eq!(wrong.status.code(), Some(2));
    daemon.signal(Signal::TERM);
    daemon.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_filtered_and_asked_about() {
    let home = Home::new(quick()).await;
    home.configure(&format!(
        "{TWO}\n[sink.hook]\ntype = \"command\"\ncommand = [\"/bin/false\"]\nretry_max = \"1s\"\ngive_up_after = \"1s\"\n"
    ));
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    for (kind, who) in [("stream.online", "ann"), ("channel.update", "bob")] {
        home.sandbox.trigger(kind, Some(who)).await.unwrap();
    }
    until(&home, "two dead letters", |status| status.sinks[0].dead_letters == 2).await;
    let say = async |words: &[&str]| output(command(&home, words)).await;
    let list = say(&["dead-letters", "list", "--type", "channel.*"]).await;
    assert_eq!(
        text(&list.stdout).lines().filter(|line| line.contains("(event")).count(),
        1,
        "{}",
        text(&list.stdout)
    );
    let dry = say(&["dead-letters", "drop", "--until", "1m", "--dry-run"]).await;
    assert!(text(&dry.stderr).contains("would remove for good 0 dead letters"), "{}", text(&dry.stderr));
    let (shown, _) = on_terminal(typed_command(&home, "dead-letters drop"), "\n").await;
    assert!(
        shown.contains("remove for good 2 dead letters?") && shown.contains("nothing was done"),
        "{shown}"
    );
    let (shown, _) = on_terminal(typed_command(&home, "dead-letters drop --type 'channel.*'"), "y\n").await;
    assert!(shown.contains("1 dead letter is dropped"), "{shown}");
    let (shown, _) = on_terminal(typed_command(&home, "dead-letters drop --yes"), "").await;
    assert!(shown.contains("1 dead letter is dropped"), "{shown}");
    daemon.signal(Signal::TERM);
    daemon.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_on_a_terminal_prints_short_lines_and_json_into_a_pipe() {
    let home = Home::new(quick()).await;
    home.configure(TWO);
    let line = typed_command(&home, "run --sandbox");
    let (shown, _) = on_terminal(format!("timeout --signal=INT 8 {line}"), "").await;
    assert!(shown.contains("events follow, a line each"), "{shown}");
    assert!(!shown.contains('{') && !shown.contains(" INFO "), "{shown}");
    let events = shown.lines().filter(|line| {
        let mut words = line.split_whitespace();
        let time = words.next().is_some_and(|word| word.len() == 8 && word.matches(':').count() == 2);
        time && words.next().is_some_and(|kind| kind.contains('.')) && words.next().is_some()
    });
    assert!(events.count() >= 2, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_program_has_becomes_a_file_whose_plan_changes_nothing() {
    let home = Home::new(quick()).await;
    let conduits: Vec<String> = (0..3).map(|nth| home.sandbox.create_conduit(nth + 1)).collect();
    let types = [
        "stream.online",
        "stream.offline",
        "channel.update",
        "channel.follow",
        "channel.subscribe",
        "channel.cheer",
        "channel.ban",
        "channel.unban",
        "channel.poll.begin",
        "channel.prediction.begin",
        "channel.hype_train.begin",
        "channel.raid",
    ];
    // 12 types for 80 broadcasters on the first conduit, and 40 more elsewhere: 1,000.
    for nth in 0..80 {
        let id = home.sandbox.user_id(&format!("streamer{nth}")).expect("any login exists");
        for kind in types {
            let row = eventsubd::model::catalog::default_version(kind).expect(kind);
            let mut condition = vec![match kind {
                "channel.raid" => ("to_broadcaster_user_id", id.as_str()),
                _ => ("broadcaster_user_id", id.as_str()),
            }];
            if row.condition.contains_key("moderator_user_id") {
                condition.push(("moderator_user_id", &id));
            }
            home.sandbox.add_subscription(kind, &row.version, &condition, Some(&conduits[0]));
        }
        if nth < 10 {
            let condition = [("broadcaster_user_id", id.as_str())];
            for conduit in &conduits[1..] {
                home.sandbox.add_subscription("stream.online", "1", &condition, Some(conduit));
            }
            for callback in ["https://one.example/x", "https://two.example/y"] {
                home.sandbox.add_webhook("channel.update", "2", &condition, callback, "a-secret-of-theirs");
            }
        }
    }
    assert_eq!(home.sandbox.subscription_count(), 1_000);
    home.configure("");
    let file = home.path("taken.toml");
    let init = output({
        let mut init = command(&home, &["init", "--from-twitch"]);
        init.arg(&file);
        init
    })
    .await;
    assert!(init.status.success(), "{}", text(&init.stderr));
    assert!(text(&init.stderr).contains("960 subscriptions"), "{}", text(&init.stderr));
    let written = fs::read_to_string(&file).unwrap();
    for part in
        ["1,000 subscriptions", &conduits[0], &conduits[1], "https://two.example/y", "broadcaster_file = "]
    {
        assert!(written.contains(part), "{part}: {written}");
    }
    fs::write(home.path("client_secret"), common::SECRET).unwrap();
    let plan = |words: &[&str]| {
        let mut plan = Command::new(EXE);
        plan.args(words).arg("--config").arg(&file).arg("--state-dir").arg(home.path("other")).env_clear();
        output(plan)
    };
    let checked = plan(&["check"]).await;
    assert!(checked.status.success(), "{}", text(&checked.stdout));
    let planned = plan(&["plan", "--detailed-exitcode"]).await;
    let shown = text(&planned.stdout) + &text(&planned.stderr);
    assert_eq!(planned.status.code(), Some(0), "{shown}");
    let counted: BTreeSet<&str> = shown.lines().filter(|line| line.contains("to create")).collect();
    assert!(
        counted.iter().all(|line| line.contains("0 to create") && line.contains("0 to delete")),
        "{shown}"
    );
    // A second time nothing is overwritten.
    let again = output({
        let mut init = command(&home, &["init", "--from-twitch"]);
        init.arg(&file);
        init
    })
    .await;
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
}
