//! The first minutes with the program: `init`, the sandbox without a file, and hints that can be typed as they stand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{EXE, Process, WAIT, output, text};
use rustix::process::Signal;

/// A machine on which nothing of ours is installed: a user's home with an empty folder to work in.
struct Fresh {
    folder: tempfile::TempDir,
}

impl Fresh {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(EXE);
        command
            .args(line.split(' '))
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    async fn say(&self, line: &str) -> Output {
        output(self.command(line)).await
    }

    async fn start(&self, line: &str) -> Process {
        let file = |name: &str| fs::File::create(self.path(name)).unwrap();
        let mut command = self.command(line);
        command.stdout(file("stdout.log")).stderr(file("stderr.log"));
        Process { child: command.spawn().unwrap() }
    }

    /// Runs a command until it succeeds.
    async fn until(&self, line: &str) -> Output {
        let begun = Instant::now();
        loop {
            let answer = self.say(line).await;
            if answer.status.success() {
                return answer;
            }
            let said = text(&answer.stderr);
            assert!(begun.elapsed() < WAIT, "{line}: {said}\n{}", self.read("stderr.log"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn init_writes_a_file_to_begin_with_and_overwrites_nothing() {
    let fresh = Fresh::new();
    let none = fresh.say("check").await;
    assert_eq!(none.status.code(), Some(78));
    assert!(text(&none.stdout).contains("`eventsubd init` writes one"), "{}", text(&none.stdout));

    let first = fresh.say("init").await;
    let said = text(&first.stderr);
    assert!(first.status.success() && first.stdout.is_empty(), "{said}");
    assert!(said.contains("wrote eventsubd.toml and client_secret") && !said.contains("--config"), "{said}");
    let secret = fs::metadata(fresh.path("client_secret")).unwrap();
    assert_eq!((secret.len(), secret.permissions().mode() & 0o777), (0, 0o600));
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);

    let again = fresh.say("init").await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("eventsubd.toml exists already"), "{}", text(&again.stderr));

    // Only the credentials are missing, and the checks say so.
    let check = fresh.say("check").await;
    assert_eq!(check.status.code(), Some(78));
    let shown = text(&check.stdout);
    assert!(shown.contains("`twitch.client_id` is missing") && shown.contains("2 errors"), "{shown}");
    let filled = fresh.read("eventsubd.toml").replace("# client_id", "client_id");
    fs::write(fresh.path("eventsubd.toml"), filled).unwrap();
    fs::write(fresh.path("client_secret"), "abcdefghijklmnopqrstuvwxyz0123").unwrap();
    let check = fresh.say("check").await;
    assert!(check.status.success(), "{}", text(&check.stdout));
    assert!(!text(&check.stdout).contains("✓ grants"), "{}", text(&check.stdout));
    let more = "[[subscription]]\ntype = \"channel.follow\"\nbroadcaster = \"ann\"\n";
    fs::write(fresh.path("eventsubd.toml"), fresh.read("eventsubd.toml") + more).unwrap();
    let check = text(&fresh.say("check").await.stdout);
    let needed = "1 user has to allow something: ann (moderator:read:followers); `eventsubd check --online`";
    assert!(check.contains(needed), "{check}");

    let other = fresh.say("init bot.toml").await;
    let said = text(&other.stderr);
    assert!(other.status.success() && said.contains("stays as it is"), "{said}");
    assert!(said.contains("`eventsubd run --config bot.toml`"), "{said}");
    assert!(fresh.say("init -c third.toml").await.status.success());
    assert!(fresh.path("third.toml").exists());
    assert_eq!(fresh.say("init a.toml -c b.toml").await.status.code(), Some(2));
}

#[tokio::test]
async fn the_sandbox_needs_no_file_and_every_command_finds_it() {
    let fresh = Fresh::new();
    let mut daemon = fresh.start("run --sandbox").await;
    let status = fresh.until("status --wait --timeout 30s").await;
    let shown = text(&status.stdout);
    assert!(shown.contains("built-in.toml") && shown.contains("all is well"), "{shown}");
    assert!(fresh.read("stderr.log").contains("`eventsubd init` writes one of your own"));
    let triggered = fresh.say("sandbox trigger stream.online --broadcaster bob").await;
    assert!(triggered.status.success(), "{}", text(&triggered.stderr));
    let id = text(&triggered.stdout).trim().to_owned();
    let begun = Instant::now();
    while !fresh.read("stdout.log").contains(&id) {
        assert!(begun.elapsed() < WAIT, "{}", fresh.read("stderr.log"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fresh.say("reload").await.status.success());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let events = fresh.say("events --json").await;
    assert!(text(&events.stdout).contains(&id), "{}", text(&events.stderr));
    // A daemon without the sandbox needs a file of its own.
    for line in ["run", "check", "plan"] {
        assert_eq!(fresh.say(line).await.status.code(), Some(78), "{line}");
    }
}

#[tokio::test]
async fn a_file_without_its_flag_is_pointed_out() {
    let fresh = Fresh::new();
    assert!(fresh.say("init my.toml").await.status.success());
    for (line, hint) in [
        ("check my.toml", "eventsubd check --config my.toml"),
        ("status my.toml --json", "eventsubd status --config my.toml --json"),
        ("my.toml", "eventsubd check --config my.toml"),
    ] {
        let answer = fresh.say(line).await;
        assert_eq!(answer.status.code(), Some(2), "{line}");
        let said = text(&answer.stderr);
        assert!(said.contains(&format!("hint: name the file with --config: {hint}\n")), "{said}");
    }
    let help = fresh.say("--help").await;
    assert!(help.status.success() && text(&help.stdout).contains("eventsubd run --sandbox"));
}

/// The commands between backticks in a text.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|part| part.starts_with("eventsubd ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_hint_carries_the_flags_that_were_given() {
    let fresh = Fresh::new();
    assert!(fresh.say("init my.toml").await.status.success());
    let flags = "-c my.toml --state-dir mine";
    let mut daemon = fresh.start(&format!("run --sandbox {flags}")).await;
    fresh.until(&format!("status --wait --timeout 30s {flags}")).await;
    let mut found = 0;
    for line in [
        "status",
        "reload",
        "apply",
        "check",
        "sink retry nobody",
        "sink retry out",
        "replay --sink nobody --since 1h",
        "replay --sink out --since 1h",
        "dead-letters replay",
        "dead-letters drop",
        "dead-letters list",
        "rotate-secret",
        "sandbox trigger channel.nothing",
        "events --since nonsense",
    ] {
        let answer = fresh.say(&format!("{line} {flags}")).await;
        for command in commands(&(text(&answer.stdout) + &text(&answer.stderr))) {
            found += 1;
            let flagless = ["eventsubd types", "eventsubd init", "eventsubd man"];
            assert!(
                flagless.iter().any(|start| command.starts_with(start))
                    || (command.contains(" --config my.toml") && command.contains(" --state-dir mine")),
                "{line}: {command}"
            );
        }
    }
    assert!(found >= 5, "only {found} commands were found");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    for command in commands(&fresh.read("stderr.log")) {
        assert!(command.contains(" --config ") && command.contains("my.toml"), "{command}");
    }
}
