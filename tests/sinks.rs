//! Sinks as people use them: what the README shows, crashes, sending again, gaps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::nats::NatsServer;
use common::{Home, Process, Receiver, WAIT, caught_up, command, converged, ids, output, quick, status};
use rustix::process::Signal;

const README: &str = include_str!("../README.md");

const ONLINE: &str =
    "[[subscription]]\ntype = [\"stream.online\", \"stream.offline\"]\nbroadcaster = [\"ann\", \"bob\"]\n";

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The TOML that the README shows for a sink.
fn shown(sink: &str) -> String {
    let header = format!("[sink.{sink}]");
    let mut blocks = README.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.find(|block| block.starts_with(&header));
    block.unwrap_or_else(|| panic!("the README shows {header}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_readme_shows_works() {
    let home = Home::new(quick()).await;
    let receiver = Receiver::start().await;
    private(&home.path("homeassistant_headers"), "Authorization: Bearer a-long-lived-token\n");
    let mut text = ONLINE.to_owned();
    for (sink, host) in [
        ("discord", "https://discord.com"),
        ("slack", "https://hooks.slack.com"),
        ("ntfy", "https://ntfy.sh"),
        ("homeassistant", "http://homeassistant.local:8123"),
    ] {
        let block = shown(sink);
        assert!(block.contains(host), "{block}");
        text.push_str(&block.replace(host, &format!("http://{}", receiver.address)));
    }
    home.configure(&text);
    let daemon = home.start().await;
    daemon.converged().await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    home.sandbox.trigger("stream.offline", Some("bob")).await.unwrap();
    let status = daemon.delivered(2).await;
    assert!(
        status.sinks.iter().all(|sink| sink.dead_letters == 0 && sink.retries == 0),
        "{:?}",
        status.sinks
    );
    let requests = receiver.requests();
    let to = |path: &str| -> Vec<_> { requests.iter().filter(|r| r.path.starts_with(path)).collect() };
    let discord = to("/api/webhooks/");
    assert_eq!(discord.len(), 1);
    assert_eq!(discord[0].header("content-type"), "application/json");
    assert_eq!(discord[0].json()["content"], "ann is live: https://twitch.tv/ann");
    let mut slack: Vec<String> =
        to("/services/").iter().map(|r| r.json()["text"].as_str().unwrap().into()).collect();
    slack.sort();
    assert_eq!(slack, ["ann is live", "bob has stopped"]);
    let ntfy = to("/your-topic");
    assert_eq!(
        (ntfy.len(), ntfy[0].header("title"), ntfy[0].header("click")),
        (1, "ann is live", "https://twitch.tv/ann")
    );
    assert!(ntfy[0].body.starts_with(b"Since 20"));
    let home_assistant = to("/api/events/twitch");
    assert_eq!(home_assistant.len(), 2);
    assert_eq!(home_assistant[0].header("authorization"), "Bearer a-long-lived-token");
    assert!(home_assistant.iter().any(|r| r.json()["event"]["broadcaster_user_login"] == "ann"));
    daemon.end().await;
}

#[test]
fn the_other_examples_of_the_readme_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("on-twitch-event");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let alert = shown("alert").replace("/usr/local/bin/on-twitch-event", program.to_str().unwrap());
    let text = format!("[twitch]\nclient_id = \"abc\"\n{}\n{alert}\n{}", ONLINE, shown("bus"));
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let options = eventsubd::config::LoadOptions {
        path,
        state_dir: Some(folder.path().to_owned()),
        env: eventsubd::config::Environment::default(),
        sandbox: false,
        secrets: eventsubd::config::Secrets::Optional,
    };
    match eventsubd::config::load(&options) {
        Ok(loaded) => assert!(loaded.warnings.is_empty() && loaded.config.sinks.len() == 2),
        Err(errors) => panic!("{errors}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_does_not_fit_is_refused_at_the_start_and_on_reload() {
    let home = Home::new(quick()).await;
    let sink = |body: &str| {
        format!("{ONLINE}\n[sink.a]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/\"\nbody = '{body}'\n")
    };
    home.configure(&sink("{{ event.titel }}"));
    let answer = output(command(&home, &["check"])).await;
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert_eq!(answer.status.code(), Some(78), "{said}");
    assert!(
        said.contains("sink a") && said.contains("stream.offline") && said.contains("undefined"),
        "{said}"
    );
    home.configure(&sink("{{ event.broadcaster_user_name }}"));
    let daemon = home.start().await;
    daemon.converged().await;
    home.configure(&sink("{{ event.titel }}"));
    let refused = eventsubd::admin::Control::reload(&daemon.handle).await.unwrap_err();
    assert!(refused.errors[0].contains("undefined"), "{refused:?}");
    assert_eq!(daemon.status().sinks.len(), 1, "the old one goes on");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_are_told_to_the_sinks() {
    let home = Home::new(quick()).await;
    home.configure(&format!("{ONLINE}\n[sink.out]\ntype = \"stdout\"\n"));
    let daemon = home.start().await;
    daemon.converged().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(daemon.status().store.events, 0, "a first start has missed nothing");
    daemon.end().await;

    let daemon = home.start().await;
    daemon.converged().await;
    daemon.delivered(1).await;
    let id = daemon.stdout.ids().remove(0);
    assert!(id.starts_with("gap-"), "{id}");
    // The conduit goes, and with it all subscriptions.
    home.sandbox.delete_conduit(&home.conduit());
    eventsubd::admin::Control::apply(&daemon.handle, false);
    daemon.until("a second gap", |status| status.store.events >= 2).await;
    daemon.delivered(2).await;
    daemon.end().await;
    let answer = output(command(&home, &["events", "--json", "--type", "eventsubd.gap"])).await;
    let lines: Vec<serde_json::Value> = String::from_utf8(answer.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let event = |n: usize| &lines[n]["payload"]["event"];
    assert_eq!(
        (&event(0)["reason"], &event(0)["subscriptions_total"]),
        (&"no_shard_bound".into(), &4.into())
    );
    assert!(event(0)["from"].as_str() < event(0)["to"].as_str());
    assert!(lines.iter().any(|line| line["payload"]["event"]["reason"] == "conduit_replaced"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_and_replays_by_command() {
    let home = Home::new(quick()).await;
    let flag = home.path("works");
    let out = home.path("out");
    home.configure(&format!(
        "{ONLINE}\n[sink.run]\ntype = \"command\"\ngive_up_after = \"1s\"\nretry_max = \"1s\"\n\
         command = [\"/bin/sh\", \"-c\", \"test -e {} && echo $EVENTSUB_MESSAGE_ID >> {}\"]\n",
        flag.display(),
        out.display()
    ));
    let daemon = home.start().await;
    daemon.converged().await;
    let id = home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    let status = daemon.until("a dead letter", |status| status.sinks[0].dead_letters == 1).await;
    assert!(status.problems.iter().any(|problem| problem.hint.contains("dead-letters list --sink run")));
    let run = async |arguments: &[&str]| {
        let answer = output(command(&home, arguments)).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (answer.status.code(), text(&answer.stdout), text(&answer.stderr))
    };
    let (code, list, _) = run(&["dead-letters", "list"]).await;
    assert!(
        code == Some(0) && list.contains("run stream.online") && list.contains("exit status: 1"),
        "{list}"
    );
    let (_, list, _) = run(&["dead-letters", "list", "--json", "--sink", "run"]).await;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["message"]["metadata"]["message_id"], id.as_str());
    let (_, list, _) = run(&["dead-letters", "list", "--json", "--sink", "other"]).await;
    assert_eq!(list, "[]\n");

    fs::write(&flag, "").unwrap();
    let (code, _, said) = run(&["dead-letters", "replay", "--sink", "run"]).await;
    assert!(code == Some(0) && said.contains("1 dead letter is sent again"), "{said}");
    daemon.until("it is gone", |status| status.sinks[0].dead_letters == 0).await;
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{id}\n"));

    let (code, _, said) = run(&["replay", "--sink", "run", "--since", "1h"]).await;
    assert!(code == Some(0) && said.contains("1 event "), "{said}");
    daemon.until("again", |status| status.sinks[0].delivered == 2).await;
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{id}\n{id}\n"));
    let (code, _, said) = run(&["replay", "--sink", "nobody", "--since", "1"]).await;
    assert!(code == Some(1) && said.contains("there is no sink nobody"), "{said}");
    assert_eq!(run(&["replay", "--sink", "run", "--since", "yesterday"]).await.0, Some(2));
    let (code, _, said) = run(&["dead-letters", "drop"]).await;
    assert!(code == Some(0) && said.contains("no such dead letters"), "{said}");
    daemon.end().await;
    let (code, list, said) = run(&["dead-letters", "list"]).await;
    assert_eq!((code, list.as_str()), (Some(0), ""), "without a daemon too");
    assert!(said.contains("no dead letters"));
    assert_eq!(run(&["dead-letters", "replay"]).await.0, Some(1), "that takes a daemon");
}

/// Kill -9 while every kind of sink is busy: nothing is lost, and only what was in flight comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_during_delivery_loses_nothing_at_any_sink() {
    const KILLS: usize = 3;
    const CONCURRENCY: usize = 4;
    let home = Home::new(quick()).await;
    let receiver = Receiver::start().await;
    let nats = NatsServer::start(home.folder.path(), 0);
    let path = |name: &str| home.path(name).display().to_string();
    home.configure(&format!(
        "{ONLINE}
[sink.file]
type = \"file\"
path = \"{}\"

[sink.web]
type = \"http\"
url = \"http://{}/hook\"
concurrency = {CONCURRENCY}

[sink.run]
type = \"command\"
command = [\"/bin/sh\", \"-c\", \"echo $EVENTSUB_MESSAGE_ID >> {}\"]
concurrency = {CONCURRENCY}

[sink.bus]
type = \"nats\"
url = \"{}\"
stream = \"EVENTS\"
",
        path("events.jsonl"),
        receiver.address,
        path("ran"),
        nats.url(),
    ));
    for _ in 0..KILLS {
        let mut daemon = Process::start(&home, "info");
        converged(&home).await;
        let before = status(&home).await;
        let done = |status: &eventsubd::model::status::Status| -> u64 {
            status.sinks.iter().map(|sink| sink.cursor.0).min().unwrap()
        };
        let sandbox = home.sandbox.clone();
        let subscription = home.subscription("stream.online");
        let flood = tokio::spawn(async move { sandbox.flood(&subscription, 400, 600).await });
        let begun = Instant::now();
        // In the middle of what the slowest sink has to do.
        while done(&status(&home).await) < done(&before) + 20 {
            assert!(begun.elapsed() < WAIT);
        }
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        flood.abort();
        let _ = flood.await;
    }
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    let status = caught_up(&home, WAIT).await;
    assert!(status.sinks.iter().all(|sink| sink.dead_letters + sink.lost == 0), "{:?}", status.sinks);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));

    let stored: BTreeSet<String> =
        ids(&output(command(&home, &["events", "--json"])).await.stdout).into_iter().collect();
    assert!(stored.len() > 20 * KILLS);
    let web = receiver.requests().iter().map(|r| r.header("twitch-eventsub-message-id").to_owned()).collect();
    let ran = fs::read_to_string(home.path("ran")).unwrap().lines().map(str::to_owned).collect();
    for (sink, got, in_flight) in [("web", web, CONCURRENCY), ("run", ran, CONCURRENCY)] {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let all: Vec<String> = got;
        for id in all {
            *counts.entry(id).or_default() += 1;
        }
        assert!(counts.keys().eq(stored.iter()), "{sink}: {} of {}", counts.len(), stored.len());
        let twice: usize = counts.values().map(|count| count - 1).sum();
        println!("{sink}: {} events, {twice} twice after {KILLS} kills", counts.len());
        // The place is stored behind the back of delivery, so a little more than is in flight may come again.
        assert!(twice <= KILLS * (in_flight + 100), "{sink}: {twice} twice");
    }
    let file: BTreeSet<String> = ids(&fs::read(home.path("events.jsonl")).unwrap()).into_iter().collect();
    assert_eq!(file, stored);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut stream = async_nats::jetstream::new(client).get_stream("EVENTS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, stored.len() as u64, "each once in the stream");
}
