//! Sinks as people use them: what the documentation shows, crashes, sending again, gaps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::nats::NatsServer;
use common::{
    Home, Process, Receiver, WAIT, caught_up, command, converged, ids, output, port, quick, status,
};
use rustix::process::Signal;

const PAGE: &str = include_str!("../docs/sinks.md");

const ONLINE: &str =
    "[[subscription]]\ntype = [\"stream.online\", \"stream.offline\"]\nbroadcaster = [\"ann\", \"bob\"]\n";

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Returns the TOML that docs/sinks.md shows for a sink.
fn shown(sink: &str) -> String {
    let header = format!("[sink.{sink}]");
    let mut blocks = PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.find(|block| block.starts_with(&header));
    block.unwrap_or_else(|| panic!("docs/sinks.md shows {header}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_templates_work() {
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
    let discord = to("/api/v10/webhooks/");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_password_in_a_url_are_sent_as_a_header() {
    let home = Home::new(quick()).await;
    let receiver = Receiver::start().await;
    home.configure(&format!(
        "{ONLINE}\n[sink.web]\ntype = \"http\"\nurl = \"http://me:pass-word@{}/hook\"\n",
        receiver.address
    ));
    let daemon = home.start().await;
    daemon.converged().await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon.delivered(1).await;
    assert_eq!(receiver.requests()[0].header("authorization"), "Basic bWU6cGFzcy13b3Jk");
    daemon.end().await;
}

/// Returns the fenced block of README.md in which the text stands.
fn readme(language: &str, with: &str) -> String {
    let page = include_str!("../README.md");
    let opening = format!("```{language}\n");
    let mut blocks = page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(with)).expect("README.md has the program").to_owned()
}

/// A running program of Node; killed when dropped.
struct Node {
    child: Child,
    output: PathBuf,
}

impl Node {
    /// Starts a module; what it prints goes into a file beside it.
    fn start(folder: &Path, name: &str, module: &str) -> Self {
        let path = folder.join(name);
        fs::write(&path, module).unwrap();
        let output = path.with_extension("out");
        let file = fs::File::create(&output).unwrap();
        let child = Command::new("node").arg(&path).stdout(file).spawn();
        Self { child: child.expect("node is installed by tests/run"), output }
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until it succeeds.
async fn until(what: &str, mut attempt: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !attempt().await {
        assert!(started.elapsed() < WAIT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_of_the_readme_work() {
    let home = Home::new(quick()).await;
    let folder = home.path("");
    let python = readme("python", "json.load(sys.stdin)");
    assert!(python.lines().count() <= 10, "{python}");
    let program = home.path("on-event.py");
    fs::write(&program, &python).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    private(&home.path("server_secret"), "a-secret-of-your-own\n");
    let receiver = format!("127.0.0.1:{}", port());
    let server = readme("js", "createServer");
    assert!(server.contains("listen(3000,"));
    let server = server.replace("listen(3000,", &format!("listen({},", receiver.rsplit(':').next().unwrap()));
    let server = Node::start(&folder, "server.mjs", &server);
    let sinks = readme("toml", "on-event.py").replace("127.0.0.1:3000", &receiver);
    home.configure(&format!("{ONLINE}\n{sinks}\n[admin]\nlisten = \"127.0.0.1:0\"\n"));
    let daemon = home.start().await;
    daemon.converged().await;

    // Twitch's stand-in sends until the reader of the live events has connected and got one.
    let admin = daemon.status().admin.expect("an endpoint").listen;
    let live = readme("js", "/events?");
    assert!(live.contains("127.0.0.1:9464"));
    let live = Node::start(&folder, "live.mjs", &live.replace("127.0.0.1:9464", &admin));
    until("a live event", async || {
        home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
        live.printed().contains("\"broadcaster_user_login\":\"ann\"")
    })
    .await;

    let events = daemon.status().store.events;
    let status = daemon.delivered(events).await;
    assert!(status.sinks.len() == 2 && status.sinks.iter().all(|sink| sink.dead_letters == 0), "{status:?}");
    assert!(server.printed().contains("broadcaster_user_login: 'ann'"), "{}", server.printed());
    let forged = eventsubd::auth::http_client("test", eventsubd::auth::tls_config().unwrap()).unwrap();
    let forged = forged.post(format!("http://{receiver}/")).body("{\"event\":{}}").send().await.unwrap();
    assert_eq!(forged.status(), 403);

    let message = output(command(&home, &["events", "--json", "--type", "stream.online"])).await;
    let message = common::text(&message.stdout).lines().next().expect("an event").to_owned();
    private(&home.path("message"), &message);
    let mut run = Command::new(&program);
    run.env("EVENTSUB_TYPE", "stream.online").stdin(fs::File::open(home.path("message")).unwrap());
    let answer = output(run).await;
    assert!(answer.status.success() && answer.stdout.starts_with(b"ann is live since 20"), "{answer:?}");
    daemon.end().await;
}

#[test]
fn the_other_documented_sinks_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("on-twitch-event");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let alert = shown("alert").replace("/usr/local/bin/on-twitch-event", program.to_str().unwrap());
    let more = "[[subscription]]\ntype = [\"channel.follow\", \"channel.cheer\"]\nbroadcaster = \"ann\"\n";
    let text = format!(
        "[twitch]\nclient_id = \"abc\"\n{ONLINE}\n{more}\n{alert}\n{}\n{}",
        shown("bus"),
        shown("archive")
    );
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
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            assert_eq!(loaded.config.sinks.len(), 3);
        }
        Err(errors) => panic!("{errors}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_no_event_has_is_a_warning_and_a_dead_letter_that_names_it() {
    let home = Home::new(quick()).await;
    let sink = |body: &str| {
        format!("{ONLINE}\n[sink.a]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/\"\nbody = '{body}'\n")
    };
    home.configure(&sink("{{ event.titel }}"));
    let answer = output(command(&home, &["check"])).await;
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert_eq!(answer.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: `body` of sink `a`: no sample event has `event.titel`"), "{said}");
    let daemon = home.start().await;
    daemon.converged().await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon.until("a dead letter", |status| status.sinks[0].dead_letters == 1).await;
    let answer = output(command(&home, &["dead-letters", "list"])).await;
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(said.contains("`body`: `event.titel` is undefined"), "{said}");

    home.configure(&sink("{{ event.title | tojsn }}"));
    let refused = eventsubd::admin::Control::reload(&daemon.handle).await.unwrap_err();
    assert!(refused.errors[0].contains("there is no filter `tojsn`"), "{refused:?}");
    assert_eq!(daemon.status().sinks.len(), 1, "the old one goes on");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_reach_the_sinks_as_twitch_sends_them() {
    let home = Home::new(quick()).await;
    let receiver = Receiver::start().await;
    home.configure(&format!(
        "{ONLINE}\n[sink.out]\ntype = \"stdout\"\n\n[sink.bot]\ntype = \"http\"\nurl = \"http://{0}/bot\"\n\n\
         [sink.chat]\ntype = \"http\"\nurl = \"http://{0}/chat\"\nbody = '{{{{ event.broadcaster_user_name }}}}'\n",
        receiver.address
    ));
    let daemon = home.start().await;
    daemon.converged().await;
    let id = home.subscription("stream.offline");
    home.sandbox.revoke_subscription(&id, "authorization_revoked").await;
    daemon
        .until("both sinks have it", |status| {
            let delivered =
                |name: &str| status.sinks.iter().any(|s| s.name.as_str() == name && s.delivered == 1);
            delivered("out") && delivered("bot")
        })
        .await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    daemon
        .until("an event after it", |status| {
            status
                .sinks
                .iter()
                .all(|sink| sink.delivered >= 1 && sink.dead_letters == 0 && sink.lag_events == 0)
        })
        .await;
    let out = daemon.stdout.lines();
    assert_eq!(out[0]["metadata"]["message_type"], "revocation");
    assert_eq!(out[0]["metadata"]["subscription_type"], "stream.offline");
    assert_eq!(out[0]["payload"]["subscription"]["status"], "authorization_revoked");
    assert_eq!(out[1]["metadata"]["message_type"], "notification");
    let requests = receiver.requests();
    let bot: Vec<_> = requests.iter().filter(|r| r.path == "/bot").collect();
    assert_eq!(bot[0].header("twitch-eventsub-message-type"), "revocation");
    assert_eq!(bot[0].json()["subscription"]["id"], id.as_str());
    assert_eq!(bot[1].header("twitch-eventsub-message-type"), "notification");
    let chat: Vec<_> = requests.iter().filter(|r| r.path == "/chat").map(|r| &*r.body).collect();
    assert_eq!(chat, [b"ann"], "a template of one's own cannot be expected to take revocations");
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
        (&"daemon_stopped".into(), &4.into())
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
        code == Some(0) && list.contains("run stream.online") && list.contains("exited with status 1"),
        "{list}"
    );
    assert!(list.contains("first failure "), "{list}");
    let (code, _, said) = run(&["sink", "skip", "run"]).await;
    assert!(code == Some(1) && said.contains("nothing holds up sink run"), "{said}");
    let (code, _, said) = run(&["sink", "retry", "run"]).await;
    assert!(code == Some(0) && said.contains("sink run tries again now"), "{said}");
    let (code, _, said) = run(&["sink", "retry", "nobody"]).await;
    assert!(code == Some(1) && said.contains("there is no sink nobody"), "{said}");
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
    assert_eq!(run(&["replay", "--sink", "run", "--since", "someday"]).await.0, Some(2));
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
    // Slow enough for at most 50 events in the 250 ms in which a place is not stored.
    let receiver = Receiver::start_slow(Duration::from_millis(5)).await;
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
command = [\"/bin/sh\", \"-c\", \"echo $EVENTSUB_MESSAGE_ID >> {}; sleep 0.005\"]
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
    // A gap that is told at the stop reaches sinks after the next start.
    let begun = Instant::now();
    while status(&home).await.gaps.recent.is_empty() {
        assert!(begun.elapsed() < WAIT, "no gap is told after a kill");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = caught_up(&home, WAIT).await;
    assert!(status.sinks.iter().all(|sink| sink.dead_letters + sink.lost == 0), "{:?}", status.sinks);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));

    let stored: BTreeSet<String> =
        ids(&output(command(&home, &["events", "--json"])).await.stdout).into_iter().collect();
    assert!(stored.len() > 20 * KILLS);
    let web = receiver.requests().iter().map(|r| r.header("twitch-eventsub-message-id").to_owned()).collect();
    let ran = fs::read_to_string(home.path("ran")).unwrap().lines().map(str::to_owned).collect();
    // Programs do not get the daemon's own events.
    let for_programs: BTreeSet<&String> = stored.iter().filter(|id| !id.starts_with("gap-")).collect();
    for (sink, got, in_flight) in [("web", web, CONCURRENCY), ("run", ran, CONCURRENCY)] {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let all: Vec<String> = got;
        for id in all {
            *counts.entry(id).or_default() += 1;
        }
        assert!(
            counts.keys().eq(for_programs.iter().copied()),
            "{sink}: {} of {}",
            counts.len(),
            for_programs.len()
        );
        let twice: usize = counts.values().map(|count| count - 1).sum();
        println!("{sink}: {} events, {twice} twice after {KILLS} kills", counts.len());
        // The place is stored behind the back of delivery, so a little more than is in flight may come again; but no process
        // sends an event twice.
        assert!(twice <= KILLS * (in_flight + 100), "{sink}: {twice} twice");
        assert!(counts.values().all(|count| *count <= KILLS + 1), "{sink}: {twice} twice");
    }
    let file: BTreeSet<String> = ids(&fs::read(home.path("events.jsonl")).unwrap()).into_iter().collect();
    assert_eq!(file, stored);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut stream = async_nats::jetstream::new(client).get_stream("EVENTS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, stored.len() as u64, "each once in the stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_can_be_tried_with_a_sample() {
    let home = Home::new(quick()).await;
    let receiver = Receiver::start().await;
    home.configure(&format!(
        "{ONLINE}\n[sink.hook]\ntype = \"http\"\nurl = \"http://{}/to/{{{{ type }}}}\"\n\
         headers = {{ Authorization = \"Bearer hunter2hunter2\" }}\n\
         body = '{{{{ event.broadcaster_user_name }}}}'\n",
        receiver.address
    ));
    fs::set_permissions(home.path("config.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let run = async |arguments: &[&str]| {
        let answer = output(command(&home, &[&["sink", "test"], arguments].concat())).await;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (answer.status.code(), text(&answer.stdout), text(&answer.stderr))
    };
    let (code, out, err) = run(&["hook", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(
        out,
        format!(
            "POST http://{}/to/stream.online\nContent-Type: text/plain; charset=utf-8\n\
             Authorization: [hidden]\n\nUser_12826\n",
            receiver.address
        )
    );
    assert!(receiver.requests().is_empty(), "nothing was sent");
    for (kind, path) in [("stream.offline", "/to/stream.offline"), ("channel.raid", "/to/channel.raid")] {
        let before = receiver.requests().len();
        let (code, _, err) = run(&["hook", "--type", kind]).await;
        let requests = receiver.requests();
        match kind {
            // A raid has no such name, and the message says which.
            "channel.raid" => {
                assert_eq!((code, requests.len()), (Some(1), before));
                assert!(err.contains("`event.broadcaster_user_name` is undefined"), "{err}");
            }
            _ => {
                assert_eq!((code, requests.len()), (Some(0), before + 1), "{err}");
                assert_eq!(requests[before].path, path);
                assert_eq!(requests[before].header("authorization"), "Bearer hunter2hunter2");
            }
        }
    }
    let (code, _, err) = run(&["hok"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("there is no sink hok") && err.contains("hook"), "{err}");
    let (code, _, err) = run(&["hook", "--type", "stream.onlin"]).await;
    assert_eq!(code, Some(2), "{err}");

    let daemon = home.start().await;
    daemon.converged().await;
    let answer = output(command(&home, &["sink", "list"])).await;
    let table = String::from_utf8_lossy(&answer.stdout).into_owned();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["hook", "http", "idle", "0/min", "0", "0", "0"], "{table}");
    assert!(lines[2][0] == "to" && lines[2][1].starts_with("http://127.0.0.1:"), "{table}");
    assert_eq!(lines[3][0], "types", "{table}");
    let answer = output(command(&home, &["sink", "list", "--json"])).await;
    let json: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(json[0]["name"], "hook");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_prints_what_sinks_would_get() {
    let home = Home::new(quick()).await;
    let receiver = Receiver::start().await;
    let touched = home.path("touched");
    home.configure(&format!(
        "{ONLINE}\n[sink.hook]\ntype = \"http\"\nurl = \"http://{}/\"\n\
         [sink.run]\ntype = \"command\"\ncommand = [\"/usr/bin/touch\", \"{}\"]\n",
        receiver.address,
        touched.display()
    ));
    for (arguments, real) in
        [(&["run", "--sandbox"][..], false), (&["run", "--sandbox", "--real-sinks"], true)]
    {
        let mut run = command(&home, arguments);
        let log = fs::File::create(home.path("stderr.log")).unwrap();
        let out = fs::File::create(home.path("stdout.log")).unwrap();
        let mut daemon = Process { child: run.stdout(out).stderr(log).spawn().unwrap() };
        converged(&home).await;
        let answer = output(command(&home, &["sandbox", "trigger", "stream.online"])).await;
        // One for each broadcaster.
        let ids = String::from_utf8_lossy(&answer.stdout).into_owned();
        let id = ids.lines().next().expect("an event").to_owned();
        let begun = Instant::now();
        loop {
            let printed = fs::read_to_string(home.path("stdout.log")).unwrap();
            let sent = receiver.requests().iter().any(|r| r.header("twitch-eventsub-message-id") == id);
            if real && sent && touched.exists() {
                assert_eq!(printed, "");
                break;
            }
            let hook = printed.contains("sink hook would get:\n    POST http://")
                && printed.contains(&format!("Twitch-Eventsub-Message-Id: {id}"));
            if hook
                && printed.contains("sink run would get:\n    /usr/bin/touch")
                && printed.contains(&format!("EVENTSUB_MESSAGE_ID={id}"))
            {
                assert!(!real && !sent && !touched.exists());
                break;
            }
            assert!(
                begun.elapsed() < WAIT,
                "{printed}{}",
                fs::read_to_string(home.path("stderr.log")).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.signal(Signal::INT);
        assert_eq!(daemon.ended().await.code(), Some(0));
    }
}
