//! Which daemon and which store a command means: two files, two daemons, sandboxes, files that cannot be read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{EXE, Home, Process, WAIT, log, output, quick, text};
use rustix::process::Signal;
use serde_json::Value;

const ONLINE: &str =
    "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.out]\ntype = \"stdout\"\n";

/// Every command that talks to a daemon or reads its store.
const CLIENTS: [&[&str]; 14] = [
    &["status"],
    &["status", "--json"],
    &["status", "--wait", "--timeout", "10s"],
    &["apply"],
    &["reload"],
    &["events"],
    &["replay", "--sink", "out", "--since", "1h"],
    &["dead-letters", "list"],
    &["dead-letters", "replay"],
    &["dead-letters", "drop"],
    &["log-level"],
    &["log-level", "debug"],
    &["rotate-secret"],
    &["sandbox", "trigger", "stream.online"],
];

/// A user's files and state, in a folder of their own.
struct User {
    home: Home,
}

impl User {
    async fn new() -> Self {
        Self { home: Home::new(quick()).await }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// Writes a configuration for the stand-in.
    fn write(&self, name: &str, rest: &str) {
        self.home.configure(rest);
        fs::rename(self.path("config.toml"), self.path(name)).unwrap();
    }

    /// The program as it is typed in that folder.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(EXE);
        command
            .args(arguments)
            .current_dir(self.home.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_STATE_HOME", self.path("xdg"))
            .stdin(Stdio::null());
        command
    }

    async fn say(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    /// A daemon in the background, once it is converged.
    async fn start(&self, arguments: &[&str], file: &[&str]) -> Process {
        let mut command = self.command(&[arguments, file].concat());
        command.stdout(log(&self.home, "stdout.log")).stderr(log(&self.home, "stderr.log"));
        let daemon = Process { child: command.spawn().unwrap() };
        let waited = self.say(&[&["status", "--wait", "--timeout", "60s"], file].concat()).await;
        let log = || fs::read_to_string(self.path("stderr.log")).unwrap();
        assert!(waited.status.success(), "{}{}", text(&waited.stderr), log());
        daemon
    }

    /// The file that the daemon of these arguments runs.
    async fn running(&self, file: &[&str]) -> String {
        let answer = self.say(&[&["status", "--json"], file].concat()).await;
        assert!(answer.status.success(), "{}", text(&answer.stderr));
        let status: Value = serde_json::from_slice(&answer.stdout).unwrap();
        status["config"]["path"].as_str().unwrap().to_owned()
    }
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_sends_no_command_to_another_daemon() {
    let user = User::new().await;
    user.write("x.toml", ONLINE);
    user.write("y.toml", &format!("[state]\ndirectory = \"y-state\"\n\n{ONLINE}"));
    let _x = user.start(&["run"], &["-c", "x.toml"]).await;
    let good = fs::read_to_string(user.path("y.toml")).unwrap();
    for (broken, expected) in [
        (good.replace("[state]", "[state"), "y.toml:"),
        (good.replace("directory =", "direcotry ="), "did you mean `directory`?"),
        (good.replace("\"y-state\"", "5"), "`state.directory`"),
    ] {
        fs::write(user.path("y.toml"), broken).unwrap();
        for arguments in
            CLIENTS.iter().chain(&[&["authorize", "--missing"][..], &["plan"], &["check"], &["run"]])
        {
            let answer = user.say(&[arguments, &["-c", "y.toml"][..]].concat()).await;
            let said = text(&answer.stderr) + &text(&answer.stdout);
            assert_eq!(answer.status.code(), Some(78), "{arguments:?}: {said}");
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
    }
    for arguments in CLIENTS {
        for file in ["missing.toml", "xdg"] {
            let answer = user.say(&[arguments, &["-c", file][..]].concat()).await;
            assert_eq!(answer.status.code(), Some(78), "{arguments:?}: {}", text(&answer.stderr));
        }
    }
    // With a mistake elsewhere the daemon of the file is still found.
    fs::write(user.path("y.toml"), &good).unwrap();
    let _y = user.start(&["run"], &["-c", "y.toml"]).await;
    fs::write(user.path("y.toml"), good.replace("broadcaster =", "brodcaster =")).unwrap();
    assert_eq!(user.running(&["-c", "y.toml"]).await, shown(&user.path("y.toml")));
    let reload = user.say(&["reload", "-c", "y.toml"]).await;
    assert_eq!(reload.status.code(), Some(78), "{}", text(&reload.stderr));
    assert!(text(&reload.stderr).contains("did you mean `broadcaster`?"), "{}", text(&reload.stderr));
    assert_eq!(user.running(&["-c", "x.toml"]).await, shown(&user.path("x.toml")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_belongs_to_one_file() {
    let user = User::new().await;
    user.write("x.toml", ONLINE);
    user.write("y.toml", &ONLINE.replace("\"ann\"", "[\"ann\", \"bob\"]"));
    let mut x = user.start(&["run"], &["-c", "x.toml"]).await;
    for arguments in CLIENTS.iter().filter(|arguments| arguments[0] != "sandbox") {
        let answer = user.say(&[arguments, &["-c", "y.toml"][..]].concat()).await;
        let said = text(&answer.stderr);
        assert_eq!((answer.status.code(), answer.stdout.len()), (Some(1), 0), "{arguments:?}: {said}");
        let (theirs, ours) = (shown(&user.path("x.toml")), shown(&user.path("y.toml")));
        assert!(said.contains(&theirs) && said.contains(&ours) && said.contains("hint:"), "{said}");
    }
    for (arguments, code, expected) in [
        (&["run", "-c", "y.toml"][..], 78, "belongs to"),
        (&["run", "--take-over", "-c", "y.toml"], 1, "another daemon uses"),
        (&["run", "-c", "x.toml"], 1, "another daemon uses"),
    ] {
        let answer = user.say(arguments).await;
        assert_eq!(answer.status.code(), Some(code), "{}", text(&answer.stderr));
        assert!(text(&answer.stderr).contains(expected), "{}", text(&answer.stderr));
    }

    // However the file is spelled, it is the same one.
    std::os::unix::fs::symlink("x.toml", user.path("link.toml")).unwrap();
    fs::create_dir(user.path("folder")).unwrap();
    for spelled in ["./x.toml", "folder/../x.toml", "link.toml", &shown(&user.path("x.toml"))] {
        assert_eq!(user.running(&["--config", spelled]).await, shown(&user.path("x.toml")), "{spelled}");
    }
    x.signal(Signal::TERM);
    assert_eq!(x.ended().await.code(), Some(0));

    for arguments in [&["run"][..], &["plan"], &["check"]] {
        let answer = user.say(&[arguments, &["-c", "y.toml"][..]].concat()).await;
        let said = text(&answer.stderr) + &text(&answer.stdout);
        assert_eq!(answer.status.code(), Some(78), "{arguments:?}: {said}");
        assert!(said.contains("belongs to") && said.contains("--take-over"), "{said}");
    }
    let answer = user.say(&["events", "-c", "y.toml"]).await;
    assert_eq!((answer.status.code(), answer.stdout.len()), (Some(1), 0), "{}", text(&answer.stderr));
    assert!(text(&answer.stderr).contains("belongs to"), "{}", text(&answer.stderr));

    let mut y = user.start(&["run", "--take-over"], &["-c", "y.toml"]).await;
    y.signal(Signal::TERM);
    assert_eq!(y.ended().await.code(), Some(0));
    let answer = user.say(&["run", "-c", "x.toml"]).await;
    assert_eq!(answer.status.code(), Some(78), "{}", text(&answer.stderr));

    fs::rename(user.path("y.toml"), user.path("z.toml")).unwrap();
    for arguments in [&["run"][..], &["events"]] {
        let answer = user.say(&[arguments, &["-c", "z.toml"][..]].concat()).await;
        let said = text(&answer.stderr);
        assert!(!answer.status.success() && said.contains("is not there any more"), "{said}");
        assert!(said.contains("moved") && said.contains("--take-over"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_file_has_its_sandbox_and_all_commands_agree_on_it() {
    let user = User::new().await;
    for (name, login) in [("x.toml", "ann"), ("y.toml", "bob")] {
        fs::write(user.path(name), ONLINE.replace("ann", login)).unwrap();
    }
    let (x, y) = (["-c", "x.toml"], ["-c", "y.toml"]);
    let _of_x = user.start(&["run", "--sandbox"], &x).await;
    let nobody = user.say(&["status", "-c", "y.toml"]).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", text(&nobody.stderr));
    assert!(text(&nobody.stderr).contains("no daemon answers"), "{}", text(&nobody.stderr));
    let mut of_y = user.start(&["run", "--sandbox"], &y).await;
    for (file, name) in [(&x, "x.toml"), (&y, "y.toml")] {
        let path = shown(&user.path(name));
        assert_eq!(user.running(file).await, path);
        let sent = user.say(&[&["sandbox", "trigger", "stream.online"], &file[..]].concat()).await;
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        let id = text(&sent.stdout).trim().to_owned();
        let begun = Instant::now();
        loop {
            let events = user.say(&[&["events", "--json"], &file[..]].concat()).await;
            let said = text(&events.stderr);
            assert!(events.status.success(), "{said}");
            assert!(
                said.starts_with("reading ") && said.contains(&format!("the sandbox of {path}")),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
            if text(&events.stdout).contains(&id) {
                break;
            }
            assert!(begun.elapsed() < WAIT, "{}", text(&events.stdout));
        }
        let letters = user.say(&[&["dead-letters", "list"], &file[..]].concat()).await;
        assert!(text(&letters.stderr).contains(&format!("the sandbox of {path}")));
        let status = user.say(&[&["status"], &file[..]].concat()).await;
        assert!(text(&status.stderr).contains(&format!("this is the sandbox of {path}")));
    }
    // Without a daemon its store is still the one that is read, and the other file's sandbox is not.
    of_y.signal(Signal::TERM);
    assert_eq!(of_y.ended().await.code(), Some(0));
    let events = user.say(&["events", "-c", "y.toml"]).await;
    assert!(
        events.status.success() && text(&events.stderr).contains("sandbox of"),
        "{}",
        text(&events.stderr)
    );
    let trigger = user.say(&["sandbox", "trigger", "stream.online", "-c", "y.toml"]).await;
    assert_eq!(trigger.status.code(), Some(1), "{}", text(&trigger.stderr));
    assert!(text(&trigger.stderr).contains("y.toml"), "{}", text(&trigger.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_comes_before_the_sandbox_of_its_file() {
    let user = User::new().await;
    user.write("eventsubd.toml", ONLINE);
    let mut sandbox = user.start(&["run", "--sandbox"], &[]).await;
    let answer = user.say(&["events"]).await;
    assert!(text(&answer.stderr).contains("the sandbox of"), "{}", text(&answer.stderr));
    // The daemon is asked as soon as it runs, though the sandbox goes on.
    let mut command = user.command(&["run"]);
    command.stdout(log(&user.home, "stdout.log")).stderr(log(&user.home, "stderr.log"));
    let mut daemon = Process { child: command.spawn().unwrap() };
    let begun = Instant::now();
    loop {
        let status = user.say(&["status"]).await;
        if !text(&status.stderr).contains("sandbox") && status.status.success() {
            break;
        }
        assert!(begun.elapsed() < WAIT, "{}", text(&status.stderr));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = user.say(&["events"]).await;
    assert!(!text(&answer.stderr).contains("sandbox"), "{}", text(&answer.stderr));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    // With the daemon stopped, all of them mean what runs.
    for arguments in [&["events"][..], &["status"], &["dead-letters", "list"]] {
        let answer = user.say(arguments).await;
        assert!(text(&answer.stderr).contains("the sandbox of"), "{arguments:?}: {}", text(&answer.stderr));
    }
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.ended().await.code(), Some(0));
    let answer = user.say(&["events"]).await;
    assert!(text(&answer.stderr).contains(&shown(&user.path("xdg/eventsubd/events.db"))));
    assert!(!text(&answer.stderr).contains("sandbox"), "{}", text(&answer.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_carry_the_flags_that_were_given() {
    let user = User::new().await;
    user.write("my file.toml", ONLINE);
    let flags = ["--config", "my file.toml", "--state-dir", "s"];
    let _daemon = user.start(&["run"], &flags).await;
    fs::write(user.path("my file.toml"), "[state").unwrap();
    let answer =
        user.say(&[&["sandbox", "trigger", "x", "--address", "127.0.0.1:1"], &flags[..]].concat()).await;
    let expected = "`eventsubd run --sandbox --config 'my file.toml' --state-dir s`";
    assert!(text(&answer.stderr).contains(expected), "{}", text(&answer.stderr));
    user.write("my file.toml", &ONLINE.replace("ann", "bob"));
    let answer = user.say(&[&["reload"], &flags[..]].concat()).await;
    let expected = "`eventsubd apply --allow-deletes --config 'my file.toml' --state-dir s`";
    assert!(text(&answer.stderr).contains(expected), "{}", text(&answer.stderr));
    let answer = user.say(&[&["status"], &flags[..]].concat()).await;
    assert!(text(&answer.stdout).contains(expected), "{}", text(&answer.stdout));
    let answer = user.say(&[&["plan"], &flags[..]].concat()).await;
    assert!(text(&answer.stdout).contains(expected), "{}", text(&answer.stdout));
    let logged = fs::read_to_string(user.path("stderr.log")).unwrap();
    let path = user.path("");
    let absolute = format!("--config '{0}my file.toml' --state-dir {0}s", path.display());
    assert!(logged.contains(&absolute), "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_user_is_told_from_none() {
    let user = User::new().await;
    user.write("x.toml", ONLINE);
    let none = user.say(&["events", "-c", "x.toml"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("there are no events yet"), "{}", text(&none.stderr));
    let mut daemon = user.start(&["run"], &["-c", "x.toml"]).await;
    daemon.signal(Signal::TERM);
    daemon.ended().await;
    let mut command = user.command(&["events", "-c", "x.toml"]);
    if rustix::process::geteuid().is_root() {
        for path in [user.path(""), user.path("xdg"), user.path("x.toml")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        command.uid(65_534);
    } else {
        fs::set_permissions(user.path("xdg/eventsubd"), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let denied = output(command).await;
    fs::set_permissions(user.path("xdg/eventsubd"), fs::Permissions::from_mode(0o700)).unwrap();
    let said = text(&denied.stderr);
    assert_eq!(denied.status.code(), Some(1), "{said}");
    assert!(said.contains("no permission to read") && said.contains("belongs to another user"), "{said}");
    assert!(said.contains(&shown(&user.path("xdg/eventsubd"))), "{said}");
}
