//! Foreign text that would command a terminal or forge a line, through the real program: its log, `events` and
//! `dead-letters`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Home, Process, WAIT, command, converged, output, quick, text};
use eventsubd::model::event::{Event, MessageId};
use eventsubd::store::{Store, StoreOptions};
use rustix::process::Signal;

/// Clears the screen, forges a line and turns the direction of writing round.
const HOSTILE: &str = "\u{1b}[2J\nERROR forged\r\u{9b}1m\u{202e}";

fn assert_harmless(shown: &str) {
    assert!(!shown.contains(['\u{1b}', '\r', '\u{9b}', '\u{202e}']), "{shown}");
    assert!(!shown.lines().any(|line| line.starts_with("ERROR forged")), "{shown}");
    assert!(shown.contains("forged"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_text_commands_no_terminal_and_forges_no_line() {
    let home = Home::new(quick()).await;
    let program = home.path("hook");
    fs::write(&program, format!("#!/bin/sh\nprintf '%s' '{HOSTILE}' >&2\nexit 1\n")).unwrap();
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.hook]\ntype = \"command\"\n\
         command = [\"/bin/sh\", \"{}\"]\nretry_max = \"1s\"\ngive_up_after = \"1s\"\n",
        program.display()
    ));
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    let begun = Instant::now();
    while common::status(&home).await.sinks[0].dead_letters == 0 {
        assert!(begun.elapsed() < WAIT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert_harmless(&fs::read_to_string(home.path("stderr.log")).unwrap());
    assert_harmless(&text(&output(command(&home, &["dead-letters", "list"])).await.stdout));

    let options =
        StoreOptions::new(home.path("state/events.db"), Duration::from_secs(86_400), 1 << 30, 64, 1 << 20);
    let store = Store::open(options).unwrap();
    let event = Event {
        message_id: MessageId::new("hostile").unwrap(),
        message_timestamp: HOSTILE.into(),
        subscription_type: HOSTILE.into(),
        subscription_version: HOSTILE.into(),
        subscription_id: HOSTILE.into(),
        payload: "{\"subscription\":{},\"event\":{\"text\":\"\u{9b}1m\u{202e}\"}}".as_bytes().into(),
    };
    store.append(event).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let shown = output(command(&home, &["events"])).await;
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert_harmless(&text(&shown.stdout));
    assert_eq!(text(&shown.stdout).lines().count(), 2, "a line for each event");
}

/// A program in a terminal of its own, which `script` gives it; ended when it is dropped.
struct Terminal {
    folder: tempfile::TempDir,
    script: std::process::Child,
}

impl Terminal {
    /// Runs the program with these arguments and the files of the folder.
    fn start(folder: tempfile::TempDir, arguments: &str) -> Self {
        let at = folder.path().display();
        let command = format!("cd {at}; echo $$ > pid; exec {} {arguments}", common::EXE);
        let script = std::process::Command::new("script")
            .args(["-qfec", &command, "/dev/null"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", folder.path())
            .env("TERM", "xterm")
            .stdin(std::process::Stdio::null())
            .stdout(fs::File::create(folder.path().join("shown")).unwrap())
            .spawn()
            .expect("script of util-linux");
        Self { folder, script }
    }

    fn shown(&self) -> String {
        text(&fs::read(self.folder.path().join("shown")).unwrap())
    }

    async fn until(&self, what: &str, like: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !like(&self.shown()) {
            assert!(begun.elapsed() < WAIT, "never {what}: {}", self.shown());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[tokio::test]
async fn the_first_sync_shows_a_bar_that_fills() {
    let folder = tempfile::tempdir().unwrap();
    // More than a minute of Twitch's rate limit has room for, so that it takes a while.
    let logins: String = (0..1_500).map(|number| format!("channel_{number}\n")).collect();
    fs::write(folder.path().join("channels.txt"), logins).unwrap();
    let file = "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n";
    fs::write(folder.path().join("config.toml"), file).unwrap();
    let terminal = Terminal::start(folder, "run --sandbox --config config.toml --state-dir state");
    let bar = |shown: &str| {
        let line = shown.rsplit("\r\u{1b}[K").find(|line| line.contains(" changes made"));
        line.map(|line| line.chars().filter(|sign| *sign == '█').count())
    };
    terminal.until("a bar", |shown| bar(shown).is_some()).await;
    let first = bar(&terminal.shown()).unwrap();
    terminal.until("a fuller bar", |shown| bar(shown).is_some_and(|full| full > first.max(1))).await;
    let shown = terminal.shown();
    assert!(shown.contains('░') && shown.contains("of 150"), "{shown}");
}
