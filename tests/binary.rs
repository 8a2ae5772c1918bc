//! The program itself, as a person or systemd runs it: exit codes, signals, output.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{
    Home, Process, SECRET, WAIT, all_bytes, caught_up, command, converged, ids, output, quick, status, text,
};
use eventsubd::sandbox::{Fault, Route};
use rustix::process::Signal;

fn config(home: &Home) -> String {
    format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [\"ann\", \"bob\"]\n\n[sink.file]\ntype = \"file\"\npath = \"{}\"\n",
        home.path("events.jsonl").display()
    )
}

fn lines(path: &Path) -> Vec<String> {
    ids(&fs::read(path).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_under_load_loses_nothing_that_was_stored() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let mut kept = BTreeSet::new();
    for round in 0..3_u64 {
        let mut daemon = Process::start(&home, "info");
        converged(&home).await;
        let before = status(&home).await.store.events;
        let sandbox = home.sandbox.clone();
        let subscription = home.subscription("stream.online");
        let flood = tokio::spawn(async move { sandbox.flood(&subscription, 20_000, 600).await });
        let begun = Instant::now();
        while status(&home).await.store.events < before + 300 {
            assert!(begun.elapsed() < WAIT);
        }
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        flood.abort();
        let _ = flood.await;
        let stored = output(command(&home, &["events", "--json"])).await;
        assert!(stored.status.success(), "{}", text(&stored.stderr));
        let stored = ids(&stored.stdout);
        let unique: BTreeSet<String> = stored.iter().cloned().collect();
        assert_eq!(unique.len(), stored.len(), "none twice in the store, round {round}");
        assert!(kept.is_subset(&unique), "what was stored stays");
        kept = unique;
    }
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    caught_up(&home, WAIT).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for id in lines(&home.path("events.jsonl")) {
        *counts.entry(id).or_default() += 1;
    }
    assert!(kept.len() > 900 && kept.iter().all(|id| counts.contains_key(id)), "each reached the file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_do_what_they_say() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    let begun = Instant::now();
    while lines(&home.path("events.jsonl")).is_empty() {
        assert!(begun.elapsed() < WAIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fs::rename(home.path("events.jsonl"), home.path("events.old")).unwrap();
    home.configure(&config(&home).replace("\"bob\"", "\"cat\""));
    daemon.signal(Signal::HUP);
    while status(&home).await.config.generation < 2 {
        assert!(begun.elapsed() < WAIT);
    }
    converged(&home).await;
    home.sandbox.trigger("stream.online", Some("cat")).await.unwrap();
    while lines(&home.path("events.jsonl")).is_empty() {
        assert!(begun.elapsed() < WAIT, "logrotate's way works");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!home.path("state/control.sock").exists(), "it cleans up");
    assert_eq!(home.live(), 2, "stopping deletes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_for_its_store_asks_for_time_and_ends_on_a_signal() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));

    // As if an older release had written it; and somebody holds it.
    let holder = rusqlite::Connection::open(home.path("state").join("events.db")).unwrap();
    for (table, columns) in [
        ("dead_letters", &["said", "first_failed_at", "first_error", "first_said", "replays"][..]),
        ("sinks", &["replays", "replay_until", "held"]),
        ("events", &["elapsed"]),
    ] {
        for column in columns {
            holder.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).unwrap();
        }
    }
    let newer: Vec<String> = holder
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('events', 'sinks', 'dead_letters', 'settings')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for table in newer {
        holder.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    holder.execute_batch("PRAGMA user_version = 2; BEGIN IMMEDIATE").unwrap();
    let systemd = tokio::net::UnixDatagram::bind(home.path("notify")).unwrap();
    let mut daemon = Process::start_with(&home, "NOTIFY_SOCKET", home.path("notify"));
    let mut told = [0; 1_000];
    let length = tokio::time::timeout(WAIT, systemd.recv(&mut told)).await.expect("it asks").unwrap();
    assert_eq!(text(&told[..length]), "STATUS=opening the event store\nEXTEND_TIMEOUT_USEC=30000000\n");
    let begun = Instant::now();
    while !fs::read_to_string(home.path("stderr.log")).unwrap().contains("upgrading the event store") {
        assert!(begun.elapsed() < WAIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let log = fs::read_to_string(home.path("stderr.log")).unwrap();
    assert!(log.contains("stopped before startup had finished"), "{log}");

    drop(holder);
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

/// The daemon starts itself again with settings of the allocator, and goes on as the same process.
#[cfg(target_env = "gnu")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_allocator_are_for_the_daemon_alone() {
    let home = Home::new(quick()).await;
    let environment = home.path("environment");
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.program]\ntype = \"command\"\n\
         command = [\"sh\", \"-c\", \"env > {0}.new && mv {0}.new {0}\"]\n",
        environment.display()
    ));
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    let pid = status(&home).await.pid;
    assert_eq!(pid, daemon.child.id());
    let own = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(text(&own).contains("MALLOC_ARENA_MAX=1\0"), "{}", text(&own));
    home.sandbox.trigger("stream.online", None).await.unwrap();
    let begun = Instant::now();
    while !environment.exists() {
        assert!(begun.elapsed() < WAIT, "the program of the sink has not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let program = fs::read_to_string(environment).unwrap();
    assert!(program.contains("EVENTSUB_TYPE=stream.online") && !program.contains("MALLOC_"), "{program}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_tells_the_outcome() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let daemon = Process::start(&home, "info");
    converged(&home).await;
    home.configure(&config(&home).replace("broadcaster =", "brodcaster ="));
    let answer = output(command(&home, &["reload"])).await;
    assert_eq!(answer.status.code(), Some(78), "{}", text(&answer.stderr));
    let said = text(&answer.stderr);
    assert!(said.contains("broadcaster") && said.contains("config.toml:"), "{said}");
    assert_eq!(output(command(&home, &["check"])).await.status.code(), Some(78));
    home.configure(&config(&home));
    let answer = output(command(&home, &["reload"])).await;
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_says_that_deletes_wait_for_a_person() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let _daemon = Process::start(&home, "info");
    converged(&home).await;
    let text_of = |answer: &std::process::Output| text(&answer.stdout) + &text(&answer.stderr);
    home.configure("");
    let reload = output(command(&home, &["reload"])).await;
    assert!(reload.status.success(), "{}", text_of(&reload));
    let said = text_of(&reload);
    assert!(
        said.contains("all 2 subscriptions would be deleted") && said.contains("--allow-deletes"),
        "{said}"
    );
    let plan = output(command(&home, &["plan"])).await;
    assert!(text_of(&plan).contains("2 deletes held back"), "{}", text_of(&plan));
    let apply = output(command(&home, &["apply"])).await;
    assert_eq!(apply.status.code(), Some(1), "{}", text_of(&apply));
    assert!(text_of(&apply).contains("all 2 subscriptions would be deleted"), "{}", text_of(&apply));
    assert_eq!(home.live(), 2);
    let apply = output(command(&home, &["apply", "--allow-deletes"])).await;
    assert_eq!((apply.status.code(), home.live()), (Some(0), 0), "{}", text_of(&apply));
    // Nothing is held any more, and nothing is said of it.
    home.configure(&config(&home));
    let reload = output(command(&home, &["reload"])).await;
    assert!(!text_of(&reload).contains("deletes"), "{}", text_of(&reload));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_ends_and_says_why_when_its_run_cannot_succeed() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let _daemon = Process::start(&home, "info");
    converged(&home).await;
    let apply = || output(command(&home, &["apply", "--timeout", "60s"]));
    let done = apply().await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("compares the file with Twitch now"), "{}", text(&done.stderr));

    // Answers that are no JSON, as those of a proxy.
    for route in [Route::Conduits, Route::Users, Route::List] {
        home.sandbox.fault(route, Fault::Garbage, u32::MAX);
    }
    let html = apply().await;
    assert_eq!(html.status.code(), Some(75), "{}", text(&html.stderr));
    assert!(text(&html.stderr).contains("error: the conduits could not be listed"), "{}", text(&html.stderr));

    home.sandbox.clear_faults();
    home.sandbox.set_secret("another-secret-so-this-is-bad0");
    home.sandbox.revoke_all_tokens();
    let refused = apply().await;
    assert_eq!(refused.status.code(), Some(77), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("invalid client secret"), "{}", text(&refused.stderr));
    let waited = output(command(&home, &["status", "--wait", "--timeout", "60s"])).await;
    assert_eq!(waited.status.code(), Some(77), "{}", text(&waited.stderr));
    assert!(text(&waited.stderr).contains("in vain"), "{}", text(&waited.stderr));

    home.sandbox.stop();
    let down = Home::new(quick()).await;
    down.configure(&config(&down));
    let _daemon = Process::start(&down, "info");
    converged(&down).await;
    down.sandbox.stop();
    let unreachable = output(command(&down, &["apply", "--timeout", "60s"])).await;
    assert_eq!(unreachable.status.code(), Some(75), "{}", text(&unreachable.stderr));
    assert!(text(&unreachable.stderr).contains("error: "), "{}", text(&unreachable.stderr));
    let waited = output(command(&down, &["status", "--wait", "--timeout", "1s"])).await;
    assert_eq!(waited.status.code(), Some(75), "{}", text(&waited.stderr));
    assert!(text(&waited.stderr).contains("waiting: "), "{}", text(&waited.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_what_is_wrong() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let plan = output(command(&home, &["plan", "--detailed-exitcode"])).await;
    assert_eq!(plan.status.code(), Some(2), "{}", text(&plan.stderr));
    assert!(text(&plan.stdout).contains("2 to create"), "{}", text(&plan.stdout));
    assert_eq!(home.sandbox.stats().creates, 0, "a plan changes nothing");
    let check = output(command(&home, &["check", "--online"])).await;
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));

    home.set_secret("wrong-secret-of-thirty-letters");
    for arguments in [&["run"][..], &["plan"], &["check", "--online"]] {
        let answer = output(command(&home, arguments)).await;
        assert_eq!(answer.status.code(), Some(77), "{arguments:?}: {}", text(&answer.stderr));
        let said = text(&[answer.stdout, answer.stderr].concat());
        assert!(said.contains("client secret"), "{said}");
    }
    fs::remove_file(home.path("secret")).unwrap();
    let answer = output(command(&home, &["run"])).await;
    assert_eq!(answer.status.code(), Some(78), "{}", text(&answer.stderr));
    home.set_secret(SECRET);
    home.sandbox.stop();
    let answer = output(command(&home, &["plan"])).await;
    assert_eq!(answer.status.code(), Some(75), "{}", text(&answer.stderr));
    let answer = output(command(&home, &["check", "--online"])).await;
    assert_eq!(answer.status.code(), Some(75), "{}", text(&answer.stdout));
    assert!(text(&answer.stdout).contains("could not be checked with Twitch"), "{}", text(&answer.stdout));
    let answer = output(command(&home, &["status"])).await;
    assert_eq!(answer.status.code(), Some(1));
    assert!(text(&answer.stderr).contains("hint:"), "{}", text(&answer.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_token_is_ever_written() {
    const SINKS: [&str; 4] =
        ["pathSecret1pathSecret1pathSecret1", "pass-Secret2", "header-Secret3", "nats-Secret4"];
    let home = Home::new(quick()).await;
    // Nobody listens there: errors have every chance to say what they should not.
    let config = |home: &Home| {
        format!(
            "{}\n[sink.web]\ntype = \"http\"\nurl = \"http://me:{}@127.0.0.1:1/hooks/{}\"\nheaders_file = \"headers\"\n\
             \n[sink.bus]\ntype = \"nats\"\nurl = \"nats://me:{}@127.0.0.1:1\"\n",
            config(home),
            SINKS[1],
            SINKS[0],
            SINKS[3]
        )
    };
    for (name, text) in [("config.toml", ""), ("headers", &format!("Authorization: Bearer {}", SINKS[2]))] {
        fs::write(home.path(name), text).unwrap();
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    home.configure(&config(&home));
    let mut daemon = Process::start(&home, "trace");
    converged(&home).await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    let begun = Instant::now();
    while !["web", "bus"].iter().all(|name| {
        text(&fs::read(home.path("stderr.log")).unwrap())
            .lines()
            .any(|line| line.contains("sink failed") && line.contains(name))
    }) {
        assert!(begun.elapsed() < WAIT, "the sinks fail");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut tokens: BTreeSet<String> = home.sandbox.tokens().into_iter().collect();
    home.sandbox.revoke_all_tokens();
    home.configure(&config(&home).replace("\"bob\"", "\"cat\""));
    let mut all = Vec::new();
    for arguments in [
        &["reload"][..],
        &["status", "--wait"],
        &["status", "--json"],
        &["apply"],
        &["check"],
        &["check", "--json", "--online"],
        &["plan", "--json"],
        &["events", "--json"],
    ] {
        let answer = output(command(&home, arguments)).await;
        // The receivers of two sinks are away.
        let expected = i32::from(arguments.contains(&"--online"));
        assert_eq!(answer.status.code(), Some(expected), "{arguments:?}: {}", text(&answer.stderr));
        all.extend([answer.stdout, answer.stderr].concat());
    }
    tokens.extend(home.sandbox.tokens());
    home.sandbox.set_secret("another-secret-so-this-is-bad0");
    home.sandbox.revoke_all_tokens();
    output(command(&home, &["plan"])).await;
    daemon.signal(Signal::TERM);
    daemon.ended().await;
    for name in ["secret", "headers", "config.toml"] {
        fs::remove_file(home.path(name)).unwrap();
    }
    all.extend(all_bytes(home.folder.path()));
    assert!(all.len() > 10_000, "TRACE says a lot");
    assert!(tokens.len() >= 3, "{}", tokens.len());
    for secret in tokens.iter().map(String::as_str).chain([SECRET]).chain(SINKS) {
        let found = all.windows(secret.len()).position(|part| part == secret.as_bytes());
        if let Some(at) = found {
            panic!("found: {}", text(&all[at.saturating_sub(200)..at]));
        }
    }
}

#[tokio::test]
async fn a_program_beside_a_bare_file_name_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str, mode| {
        fs::write(folder.path().join(name), content).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("secret", SECRET, 0o600);
    write("bot.sh", "#!/bin/sh\n", 0o755);
    let file = "[twitch]\nclient_id = \"abc\"\nclient_secret_file = \"secret\"\n[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ninja\"\n[sink.bot]\ntype = \"command\"\ncommand = [\"./bot.sh\"]\n";
    write("dev.toml", file, 0o600);
    let check = |name: &str| {
        let mut command = std::process::Command::new(common::EXE);
        command.args(["check", "--state-dir", "state", "--config", name]).current_dir(folder.path());
        command.env_clear().env("PATH", "/usr/bin:/bin");
        output(command)
    };
    for name in ["dev.toml", "./dev.toml"] {
        let answer = check(name).await;
        assert_eq!(answer.status.code(), Some(0), "{name}: {}", text(&answer.stdout));
    }
    fs::remove_file(folder.path().join("bot.sh")).unwrap();
    let answer = check("dev.toml").await;
    assert_eq!(answer.status.code(), Some(78), "{}", text(&answer.stdout));
    let path = folder.path().join("bot.sh").display().to_string();
    assert!(
        text(&answer.stdout).contains(&format!("there is no program `{path}`")),
        "{}",
        text(&answer.stdout)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_online_tries_each_part_and_names_what_fails() {
    let home = Home::new(quick()).await;
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sinks = format!(
        "{}\n[sink.there]\ntype = \"http\"\nurl = \"http://{}/x\"\n\n[sink.gone]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/x\"\n",
        config(&home),
        receiver.local_addr().unwrap()
    );
    home.configure(&sinks);
    let check = output(command(&home, &["check", "--online"])).await;
    let said = text(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{said}");
    for part in [
        "✓ credentials",
        "✓ logins",
        "✓ cost",
        "sends its welcome",
        "there connects to 127.0.0.1:",
        "gone: cannot connect to 127.0.0.1:1: connection refused",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(home.sandbox.stats().creates, 0);

    // An API that is none of Twitch's: the token works, and so do the socket and the sinks.
    let file = fs::read_to_string(home.path("config.toml")).unwrap();
    fs::write(home.path("config.toml"), file.replace("/helix\"", "/nowhere\"")).unwrap();
    let check = output(command(&home, &["check", "--online"])).await;
    let said = text(&check.stdout);
    for part in
        ["✓ credentials", "✗ logins", "/nowhere/users)", "api_url", "sends its welcome", "there connects"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let plan = output(command(&home, &["plan"])).await;
    let said = text(&plan.stderr);
    assert!(
        said.contains("✓ credentials accepted") && said.contains("/nowhere/eventsub/conduits)"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ca_certificates_every_command_says_so_at_the_start() {
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let file = fs::read_to_string(home.path("config.toml")).unwrap();
    let file: Vec<&str> = file.lines().filter(|line| !line.starts_with("api_url")).collect();
    fs::write(home.path("config.toml"), format!("{}\n", file.join("\n"))).unwrap();
    fs::write(home.path("none.pem"), "").unwrap();
    for arguments in [&["run"][..], &["plan"], &["check", "--online"]] {
        let mut command = command(&home, arguments);
        command.env("SSL_CERT_FILE", home.path("none.pem"));
        let answer = output(command).await;
        let said = text(&[answer.stdout, answer.stderr].concat());
        assert_eq!(answer.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("no CA certificates: install ca-certificates or set SSL_CERT_FILE"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_need_no_daemon() {
    let home = Home::new(quick()).await;
    let help = [
        (&["types", "channel.follow"][..], "moderator:read:followers"),
        (&["types", "--json"], "\"channel.chat.message\""),
        (&["completions", "bash"], "_eventsubd"),
        (&["man"], ".TH"),
        (&["--help"], "sandbox"),
    ];
    for (arguments, expected) in help {
        let answer = output(command(&home, arguments)).await;
        assert!(answer.status.success(), "{arguments:?}: {}", text(&answer.stderr));
        assert!(text(&answer.stdout).contains(expected), "{arguments:?}");
    }
    // A word that is not a level would silence the log.
    home.configure(&config(&home));
    let mut run = command(&home, &["run"]);
    run.env("RUST_LOG", "warning");
    let answer = output(run).await;
    assert_eq!(answer.status.code(), Some(78), "{}", text(&answer.stderr));
    assert!(
        text(&answer.stderr).contains("RUST_LOG cannot be used: `warning` is not a level"),
        "{}",
        text(&answer.stderr)
    );

    let answer = output(command(&home, &["types", "channel.folow"])).await;
    assert!(text(&answer.stderr).contains("did you mean channel.follow?"), "{}", text(&answer.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_runs_against_the_sandbox_inside() {
    let home = Home::new(quick()).await;
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example"), home.path("config.toml")).unwrap();
    let mut run = command(&home, &["run", "--sandbox"]);
    let log = fs::File::create(home.path("stderr.log")).unwrap();
    let out = fs::File::create(home.path("stdout.log")).unwrap();
    let mut daemon = Process { child: run.stdout(out).stderr(log).spawn().unwrap() };
    converged(&home).await;
    let answer = output(command(&home, &["sandbox", "trigger", "stream.online"])).await;
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let ids: Vec<String> = text(&answer.stdout).lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 2, "one for each broadcaster");
    let begun = Instant::now();
    while !ids.iter().all(|id| lines(&home.path("stdout.log")).contains(id)) {
        assert!(begun.elapsed() < WAIT, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_of_the_sandbox_begins_anew_with_the_same_users() {
    let home = Home::new(quick()).await;
    home.configure("[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ninja\"\n");
    for start in 1..=2 {
        let mut run = command(&home, &["run", "--sandbox"]);
        let out = home.path(&format!("stdout-{start}.log"));
        let log = fs::File::create(home.path("stderr.log")).unwrap();
        let mut daemon =
            Process { child: run.stdout(fs::File::create(&out).unwrap()).stderr(log).spawn().unwrap() };
        converged(&home).await;
        let answer = output(command(&home, &["sandbox", "trigger", "stream.online"])).await;
        assert!(answer.status.success(), "{}", text(&answer.stderr));
        let id = text(&answer.stdout).trim().to_owned();
        let begun = Instant::now();
        while !lines(&out).contains(&id) {
            assert!(begun.elapsed() < WAIT, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let printed = fs::read_to_string(&out).unwrap();
        // The sandbox has forgotten everything, and so has the daemon: there is nothing to complain of.
        assert!(!printed.contains("eventsubd.gap"), "{printed}");
        let log = fs::read_to_string(home.path("stderr.log")).unwrap();
        assert!(!log.contains("conduit is gone") && log.contains("created a conduit"), "{log}");
        assert!(printed.contains("\"broadcaster_user_login\":\"ninja\""), "start {start}: {printed}");
        assert!(!printed.contains("\"broadcaster_user_login\":\"user_"), "start {start}: {printed}");
        daemon.signal(Signal::INT);
        assert_eq!(daemon.ended().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_can_be_followed_while_the_daemon_runs() {
    use tokio::io::AsyncBufReadExt;
    let home = Home::new(quick()).await;
    home.configure(&config(&home));
    let _daemon = Process::start(&home, "info");
    converged(&home).await;
    let mut follow = tokio::process::Command::from(command(
        &home,
        &["events", "--follow", "--json", "--type", "stream.*"],
    ));
    let mut follow = follow.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(follow.stdout.take().unwrap()).lines();
    // `--follow` shows events from its start on, so events are sent until one is shown.
    let begun = Instant::now();
    let shown = loop {
        assert!(begun.elapsed() < WAIT);
        home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(300), lines.next_line()).await {
            break line.unwrap().unwrap();
        }
    };
    let id = ids(shown.as_bytes()).remove(0);
    assert!(home.sandbox.sent().contains(&id));
    let since = output(command(&home, &["events", "--since", "1h"])).await;
    assert!(text(&since.stdout).contains(" stream.online {"), "{}", text(&since.stdout));
}
