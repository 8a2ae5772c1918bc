//! The program as a process: what others of the same user may see of it, and what it does as process 1.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{EXE, Home, Process, WAIT, converged, log, quick, status, text};
use rustix::process::{Pid, Signal, getuid, kill_process};

/// A user that has nothing.
const NOBODY: u32 = 65_534;

/// Ends the process when it is dropped.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, mut like: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !like() {
        assert!(begun.elapsed() < WAIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The program, run by another one.
fn run_by(home: &Home, program: &str, arguments: &[&str], command: &str) -> Command {
    let mut run = Command::new(program);
    run.args(arguments)
        .arg(EXE)
        .arg(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("EVENTSUBD_MARK", "SECRET-OF-THE-ENVIRONMENT")
        .stdin(Stdio::null())
        .stdout(log(home, "stdout.log"))
        .stderr(log(home, "stderr.log"));
    run
}

fn at_home<'a>(home: &Home, run: &'a mut Command) -> &'a mut Command {
    run.arg("--config").arg(home.path("config.toml")).arg("--state-dir").arg(home.path("state"))
}

/// The soft limit of core dumps, in bytes.
fn core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("it is listed");
    line["Max core file size".len()..].split_whitespace().next().unwrap().to_owned()
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sinks_program_cannot_read_the_environment_and_nothing_dumps_core() {
    let home = Home::new(quick()).await;
    let script =
        "cat /proc/$PPID/environ >environ 2>error; ulimit -c unlimited; ulimit -c >limit; touch done";
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.hook]\ntype = \"command\"\n\
         command = [\"/bin/sh\", \"-c\", \"cd {} && {script}\"]\n",
        home.folder.path().display()
    ));
    // Root may read everything: the daemon runs as somebody else then.
    let root = getuid().is_root();
    let user = NOBODY.to_string();
    let mut run = if root {
        give(home.folder.path(), NOBODY);
        run_by(&home, "setpriv", &["--reuid", &user, "--regid", &user, "--clear-groups"], "run")
    } else {
        run_by(&home, "env", &[], "run")
    };
    let daemon = Ends(
        at_home(&home, &mut run)
            .env_remove("EVENTSUBD_MARK")
            .env("MARK", "SECRET-OF-THE-ENVIRONMENT")
            .spawn()
            .unwrap(),
    );
    converged(&home).await;
    assert_eq!(core_limit(daemon.0.id()), "0");
    home.sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    until("the hook has run", || home.path("done").exists()).await;
    assert_eq!(text(&fs::read(home.path("environ")).unwrap()), "");
    assert!(fs::read_to_string(home.path("error")).unwrap().contains("Permission denied"));
    assert_eq!(
        fs::read_to_string(home.path("limit")).unwrap().trim(),
        "unlimited",
        "its own dumps are its business"
    );

    // So it is for every command.
    let mut sandbox = run_by(&home, "env", &[], "sandbox");
    let sandbox =
        Ends(sandbox.env_remove("EVENTSUBD_MARK").args(["--listen", "127.0.0.1:0"]).spawn().unwrap());
    until("the sandbox has begun", || core_limit(sandbox.0.id()) == "0").await;
}

/// The processes below this one, and their states.
fn children(pid: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let state = fields.next().unwrap_or_default().to_owned();
        if fields.next().and_then(|parent| parent.parse().ok()) == Some(pid) {
            found.push((id, state));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_process_1_it_reaps_orphans_and_no_sink_loses_an_exit_status() {
    const EVENTS: u64 = 60;
    let home = Home::new(quick()).await;
    // Each run leaves two processes behind, one of them in a session of its own; both outlive it.
    let script = "(sleep 0.2; echo a >>ends) & setsid sh -c 'sleep 0.1; echo b >>ends' &";
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.hook]\ntype = \"command\"\nconcurrency = 8\n\
         command = [\"/bin/sh\", \"-c\", \"cd {}; {script}\"]\n",
        home.folder.path().display()
    ));
    let mut arguments = vec!["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !getuid().is_root() {
        arguments.extend(["--user", "--map-root-user"]);
    }
    let mut run = run_by(&home, "unshare", &arguments, "run");
    let unshare = Ends(at_home(&home, &mut run).env_remove("EVENTSUBD_MARK").spawn().unwrap());
    converged(&home).await;
    let [(daemon, _)] = &children(unshare.0.id())[..] else { panic!("unshare has one child") };
    let subscription = home.subscription("stream.online");
    home.sandbox.flood(&subscription, usize::try_from(EVENTS).unwrap(), 64).await;
    let ends = || fs::read_to_string(home.path("ends")).unwrap_or_default().lines().count() as u64;
    let begun = Instant::now();
    while ends() < 2 * EVENTS {
        let log = || fs::read_to_string(home.path("stderr.log")).unwrap();
        assert!(begun.elapsed() < WAIT, "{} of {} ended\n{}", ends(), 2 * EVENTS, log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("none is a zombie", || children(*daemon).is_empty()).await;
    let sink = &status(&home).await.sinks[0];
    assert_eq!((sink.delivered, sink.retries, sink.dead_letters), (EVENTS, 0, 0), "{:?}", sink.problem);

    kill_process(Pid::from_raw(i32::try_from(*daemon).unwrap()).unwrap(), Signal::TERM).unwrap();
    let mut unshare = unshare;
    until("it ends", || unshare.0.try_wait().unwrap().is_some()).await;
    assert!(unshare.0.wait().unwrap().success(), "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
}

/// Starts a daemon with an event in a program that does not end.
async fn busy(home: &Home) -> Process {
    home.configure(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.slow]\ntype = \"command\"\n\
         timeout = \"2m\"\ncommand = [\"/bin/sleep\", \"60\"]\n",
    );
    let daemon = Process::start(home, "info");
    converged(home).await;
    home.sandbox.flood(&home.subscription("stream.online"), 1, 1).await;
    until("the program runs", || !children(daemon.child.id()).is_empty()).await;
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_signals_at_once_are_one_request_to_stop() {
    let home = Home::new(quick()).await;
    let mut daemon = busy(&home).await;
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::INT);
    let status = daemon.ended().await;
    let log = fs::read_to_string(home.path("stderr.log")).unwrap();
    assert!(status.success() && !log.contains("second signal; the store"), "{status}\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_daemon_at_once() {
    let home = Home::new(quick()).await;
    let mut daemon = busy(&home).await;
    let log = || fs::read_to_string(home.path("stderr.log")).unwrap();
    daemon.signal(Signal::TERM);
    until("it stops", || log().contains("stopping;")).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    daemon.signal(Signal::TERM);
    let status = daemon.ended().await;
    assert!(!status.success() && log().contains("stopped at once on a second signal"), "{status}\n{}", log());
}
