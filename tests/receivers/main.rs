//! Programs written for Twitch's webhooks, behind `http` sinks: twurple, TwitchIO, handlers on Express and Flask.
//!
//! Each drops what is older than ten minutes and what it has seen before. So each has to handle every event exactly
//! once: at once, eleven minutes late, and when a person sends it again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/mod.rs"]
mod common;
mod libraries;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Home, Process, WAIT, command, converged, log, output, port, quick, status, text};
use rustix::process::Signal;

const SECRET: &str = "a-secret-of-the-receivers";

/// Later than any of the programs accepts an event with its first timestamp.
const LATE: &str = "+11m";

/// A program, how it is started, and the path that it listens on.
struct Receiver {
    name: &'static str,
    interpreter: &'static str,
    program: &'static str,
    path: String,
    port: u16,
    child: Option<Child>,
    printed: PathBuf,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receivers")
}

impl Receiver {
    fn new(
        home: &Home,
        name: &'static str,
        interpreter: &'static str,
        program: &'static str,
        path: String,
    ) -> Self {
        let printed = home.path(&format!("{name}.out"));
        Self { name, interpreter, program, path, port: port(), child: None, printed }
    }

    /// The sink that delivers to it.
    fn sink(&self) -> String {
        format!(
            "[sink.{}]\ntype = \"http\"\nurl = \"http://127.0.0.1:{}{}\"\nsecret_file = \"receiver_secret\"\n",
            self.name, self.port, self.path
        )
    }

    /// Starts it with its clock moved, and waits until it listens.
    async fn start(&mut self, home: &Home, user: &str, moved: Option<&str>) {
        let mut command = Command::new(self.interpreter);
        let program = folder().join("programs").join(self.program);
        command.arg(program).arg(self.port.to_string()).args([SECRET, user]);
        command.env("PYTHONPATH", folder().join("site-packages")).stdin(Stdio::null());
        command.stdout(log(home, &format!("{}.out", self.name)));
        command.stderr(log(home, &format!("{}.err", self.name)));
        if let Some(moved) = moved {
            move_clock(&mut command, moved);
        }
        self.child = Some(command.spawn().expect("node and python3 are installed by tests/run"));
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let error = || fs::read_to_string(home.path(&format!("{}.err", self.name))).unwrap();
            assert!(begun.elapsed() < WAIT, "{} does not listen: {}", self.name, error());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Number of events that its handler was given.
    fn handled(&self) -> usize {
        let printed = fs::read_to_string(&self.printed).unwrap_or_default();
        printed.lines().filter(|line| line.eq_ignore_ascii_case("ann")).count()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Has a program read a wall clock that is ahead; elapsed time stays true.
fn move_clock(command: &mut Command, by: &str) {
    let libraries = fs::read_dir("/usr/lib").unwrap();
    let find = |entry: fs::DirEntry| {
        Some(entry.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists())
    };
    let library = libraries.flatten().find_map(find).expect("libfaketime is installed by tests/run");
    command.env("LD_PRELOAD", library).env("FAKETIME", by).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

fn make_private(home: &Home, name: &str) {
    fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

async fn all_handled(home: &Home, receivers: &[Receiver], events: usize) {
    let begun = Instant::now();
    while receivers.iter().any(|receiver| receiver.handled() < events) {
        if begun.elapsed() > WAIT {
            let counts: Vec<_> =
                receivers.iter().map(|receiver| (receiver.name, receiver.handled())).collect();
            let log = fs::read_to_string(home.path("stderr.log")).unwrap();
            panic!("handled {counts:?} of {events}: {:?}\n{log}", status(home).await.sinks);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stored(home: &Home, events: u64) {
    let begun = Instant::now();
    while status(home).await.store.last_seq.0 < events {
        assert!(begun.elapsed() < WAIT, "{events} events are never stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_receiver_handles_every_event_once_however_late() {
    const EACH: u64 = 3;
    let home = Home::new(quick()).await;
    let user = home.sandbox.user_id("ann").unwrap();
    fs::write(home.path("receiver_secret"), SECRET).unwrap();
    make_private(&home, "receiver_secret");
    let mut receivers = [
        Receiver::new(&home, "twurple", "node", "twurple.mjs", format!("/event/stream.online.{user}")),
        Receiver::new(&home, "express", "node", "express.mjs", "/".to_owned()),
        Receiver::new(&home, "twitchio", "python3", "twitchio_app.py", "/callback".to_owned()),
        Receiver::new(&home, "flask", "python3", "flask_app.py", "/".to_owned()),
    ];
    let sinks: Vec<String> = receivers.iter().map(Receiver::sink).collect();
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n{}",
        sinks.join("\n")
    ));
    // The URL of twurple's listener looks as if it held a secret.
    make_private(&home, "config.toml");
    for receiver in &mut receivers {
        receiver.start(&home, &user, None).await;
    }

    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    for _ in 0..EACH {
        home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    }
    all_handled(&home, &receivers, 3).await;

    // These are stored while nobody listens, and go out eleven minutes later by every clock.
    receivers.iter_mut().for_each(Receiver::stop);
    for _ in 0..EACH {
        home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    }
    stored(&home, 2 * EACH).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    for receiver in &mut receivers {
        receiver.start(&home, &user, Some(LATE)).await;
    }
    let mut run = command(&home, &["run"]);
    run.stdout(log(&home, "stdout.log")).stderr(log(&home, "stderr.log"));
    move_clock(&mut run, LATE);
    let _daemon = Process { child: run.spawn().unwrap() };
    converged(&home).await;
    all_handled(&home, &receivers, 6).await;

    for receiver in &receivers {
        let answer = output(command(&home, &["replay", "--sink", receiver.name, "--since", "1"])).await;
        assert!(answer.status.success(), "{}", text(&answer.stderr));
    }
    all_handled(&home, &receivers, 12).await;
    let sinks = status(&home).await.sinks;
    assert_eq!(sinks.len(), receivers.len());
    for sink in sinks {
        assert_eq!(sink.dead_letters, 0, "{sink:?}");
    }
    for receiver in &receivers {
        assert_eq!(receiver.handled(), 12, "{} handled something twice", receiver.name);
    }
}
