//! The daemon under a real systemd: `tests/systemd-root` boots one as PID 1 of namespaces of its own, which takes root.
//! Each test has its own machine, with the units as they are installed and a stand-in for Twitch inside.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything here takes, unless it fails.
const WAIT: Duration = Duration::from_secs(90);
/// The same for one command, in seconds.
const COMMAND: &str = "60";
const SECRET: &str = "kGv8x2ExampleSecretOfThisTest0";
const TWITCH: &str = "127.0.0.1:8790";
const EXE: &str = env!("CARGO_BIN_EXE_eventsubd");
const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

fn script() -> PathBuf {
    Path::new(SOURCES).join("tests/systemd-root")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A machine with systemd; it ends when this is dropped, and with the test's process however that ends.
struct Machine {
    script: Child,
    init: String,
}

impl Machine {
    /// Boots it. The first one builds what it boots from.
    fn boot() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
        let built = Command::new(script()).arg("build").arg(&folder).output().expect("the script runs");
        assert!(built.status.success(), "{}", text(&built.stderr));
        let mut script = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(script())
            .arg("boot")
            .args([folder.as_path(), Path::new(EXE)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv is of util-linux");
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let init = line.trim().strip_prefix("PID ").unwrap_or_default().to_owned();
        let machine = Self { script, init };
        assert!(!machine.init.is_empty(), "the machine did not boot; see above");
        machine.until("booted", || machine.run(&["systemctl", "is-system-running"]).status.success());
        machine
    }

    /// Boots it, with Twitch and a configuration for `eventsubd.service` in which `log` is a file.
    fn ready() -> Self {
        let machine = Self::boot();
        machine.start_twitch(&[]);
        machine.configure("eventsubd", "");
        machine
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", COMMAND, "nsenter", "-t", &self.init])
            .args(["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", "--", "env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_COLORS=0", "LC_ALL=C.UTF-8", "HOME=/root"])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("nsenter is of util-linux")
    }

    /// Returns the output of a command that has to succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn write(&self, path: &str, mode: &str, content: &str) {
        let mut child = self
            .command(&[
                "sh",
                "-c",
                "mkdir -p \"$(dirname \"$1\")\" && cat >\"$1\" && chmod \"$2\" \"$1\"",
                "sh",
                path,
                mode,
            ])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{path}");
    }

    fn edit(&self, path: &str, from: &str, to: &str) {
        let old = self.ok(&["cat", path]);
        assert!(old.contains(from), "{from} is not in {old}");
        self.write(path, "644", &old.replace(from, to));
    }

    /// A drop-in for a unit.
    fn drop_in(&self, unit: &str, content: &str) {
        self.write(&format!("/etc/systemd/system/{unit}.d/test.conf"), "644", content);
        self.ok(&["systemctl", "daemon-reload"]);
    }

    fn until(&self, what: &str, like: impl FnMut() -> bool) {
        self.until_within(WAIT, what, like);
    }

    fn until_within(&self, limit: Duration, what: &str, mut like: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !like() {
            assert!(begun.elapsed() < limit, "never: {what}\n{}", self.journal(&["-n", "60"]));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A property of a unit, as systemd has it.
    fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&["systemctl", "show", unit, "--value", "-p", name]).trim().to_owned()
    }

    fn journal(&self, arguments: &[&str]) -> String {
        self.ok(&[&["journalctl", "--no-pager", "-q"], arguments].concat())
    }

    /// Waits until the log of the daemon has this; the journal takes its time.
    fn logged(&self, part: &str) {
        self.until(part, || self.journal(&["-u", "eventsubd"]).contains(part));
    }

    fn start_twitch(&self, flags: &[&str]) {
        let command =
            ["systemd-run", "--quiet", "--unit=twitch", "-p", "Restart=no", "/usr/bin/eventsubd", "sandbox"];
        self.ok(&[&command[..], &["--listen", TWITCH], flags].concat());
        self.until("Twitch listens", || self.journal(&["-u", "twitch"]).contains("the sandbox listens"));
    }

    /// Writes the configuration of a unit: four subscriptions, the file sink `log`, and this.
    fn configure(&self, unit: &str, rest: &str) {
        let folder = match unit.split_once('@') {
            None => "/etc/eventsubd".to_owned(),
            Some((_, instance)) => format!("/etc/eventsubd/{instance}"),
        };
        let log = unit.replace('@', "-");
        let mut config =
            String::from("[twitch]\nclient_id = \"qwertyuiop0123456789\"\nwatch_grants = false\n");
        writeln!(config, "auth_url = \"http://{TWITCH}/oauth2\"\napi_url = \"http://{TWITCH}/helix\"")
            .unwrap();
        writeln!(config, "eventsub_url = \"ws://{TWITCH}/ws\"\n\n[[subscription]]").unwrap();
        config += "type = [\"stream.online\", \"stream.offline\"]\nbroadcaster = [\"ann\", \"bob\"]\n\n";
        writeln!(config, "[sink.log]\ntype = \"file\"\npath = \"/var/log/{log}/events.jsonl\"\n\n{rest}")
            .unwrap();
        self.write(&format!("{folder}/config.toml"), "644", &config);
        self.write(&format!("{folder}/client_secret"), "600", SECRET);
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["eventsubd", "status", "--json"])).expect("one JSON document")
    }

    /// Waits until every event of the store is with every sink.
    fn caught_up(&self) {
        self.until("caught up", || {
            let status = self.status();
            let sinks = status["sinks"].as_array().unwrap();
            sinks.iter().all(|sink| sink["cursor"] == status["store"]["last_seq"])
        });
    }

    /// The id, outside of the machine, of the only thread with this name that it has.
    fn thread(&self, name: &str) -> String {
        let space = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        let here = space(&Path::new("/proc").join(&self.init)).expect("the machine runs");
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let mut found = Vec::new();
        for process in processes.filter(|process| space(process).as_ref() == Some(&here)) {
            for thread in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
                if fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
                    found.push(thread.file_name().into_string().unwrap());
                }
            }
        }
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found.remove(0)
    }

    /// Waits until systemd has started it again, once.
    fn started_again(&self, unit: &str) {
        self.until("started again", || {
            self.property(unit, "NRestarts") == "1" && self.property(unit, "SubState") == "running"
        });
    }

    /// Waits until the daemon has sent signs of life for as long as `seconds`.
    fn lives_for(&self, unit: &str, seconds: u64) {
        let stamp = || self.property(unit, "WatchdogTimestampMonotonic").parse::<u64>().unwrap();
        let from = stamp();
        self.until("signs of life", || stamp() > from + seconds * 1_000_000);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let ended = kill_process(Pid::from_child(&self.script), Signal::TERM).map(|()| {
            let begun = Instant::now();
            while self.script.try_wait().is_ok_and(|status| status.is_none()) && begun.elapsed() < WAIT {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        if !std::thread::panicking() {
            ended.expect("the script lives");
        }
    }
}

fn ids(lines: &str) -> Vec<String> {
    let id = |line: &str| -> String {
        let line: Value = serde_json::from_str(line).expect("a line is a JSON object");
        line["metadata"]["message_id"].as_str().expect("with an id").to_owned()
    };
    lines.lines().map(id).collect()
}

#[test]
fn the_units_of_one_daemon_and_of_several_are_the_same_but_for_their_paths() {
    let read = |name: &str| fs::read_to_string(Path::new(SOURCES).join("systemd").join(name)).unwrap();
    let settings = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains('=') && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (one, several) = (settings(&read("eventsubd.service")), settings(&read("eventsubd@.service")));
    assert!(one.len() > 40);
    let expected: Vec<String> = one
        .iter()
        .map(|line| match line.split_once('=').unwrap() {
            ("Description", text) => format!("Description={text} %i"),
            ("ExecStart" | "ExecReload", _) => format!("{line} --config /etc/eventsubd/%i/config.toml"),
            ("LoadCredential", _) => line.replace("/etc/eventsubd/", "/etc/eventsubd/%i/"),
            ("ConfigurationDirectory", _) => format!("{line}/%i"),
            ("StateDirectory" | "RuntimeDirectory" | "LogsDirectory", _) => format!("{line}-%i"),
            _ => line.clone(),
        })
        .collect();
    assert_eq!(several, expected);
}

#[test]
fn units_hold_are_hardened_and_nothing_is_left_of_the_machine() {
    let machine = Machine::boot();
    let units = ["eventsubd.service", "eventsubd@one.service", "eventsubd.socket"];
    machine.ok(&[&["systemd-analyze", "verify"][..], &units].concat());
    for name in ["eventsubd.service", "eventsubd@.service"] {
        let path = format!("/usr/lib/systemd/system/{name}");
        // In tenths: 1.5.
        let command =
            ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15", &path];
        assert!(machine.ok(&command).contains("Overall exposure level"), "it was looked at");
    }
    assert!(machine.ok(&["getent", "passwd", "eventsubd"]).contains("/usr/sbin/nologin"));

    let (init, script) = (PathBuf::from(format!("/proc/{}", machine.init)), machine.script.id());
    assert!(init.exists());
    drop(machine);
    assert!(!init.exists(), "its first process is gone");
    let cgroup = format!("eventsubd-test-{script}");
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &cgroup]).output().unwrap();
    assert!(found.status.success() && found.stdout.is_empty(), "{}", text(&found.stdout));
}

#[test]
fn a_first_start_edits_and_what_the_journal_has_of_it() {
    let machine = Machine::ready();
    machine.edit(
        "/etc/eventsubd/config.toml",
        "[sink.log]",
        concat!(
            "[sink.web]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/\"\n\n",
            "[log]\nlevel = \"info,eventsubd=trace\"\n\n[sink.log]"
        ),
    );
    machine.ok(&["systemctl", "start", "eventsubd"]);
    // The start returned once all was made.
    assert_eq!(machine.property("eventsubd", "StatusText"), "4 of 4 subscriptions enabled");
    assert_eq!(machine.property("eventsubd", "SubState"), "running");
    assert!(machine.ok(&["eventsubd", "status"]).contains("all is well"), "found without any flag");

    machine.edit("/etc/eventsubd/config.toml", "\"bob\"]", "\"bob\", \"cat\"]");
    machine.ok(&["systemctl", "reload", "eventsubd"]);
    machine.until("the edit is active", || {
        machine.property("eventsubd", "StatusText") == "6 of 6 subscriptions enabled"
    });
    let generation = || machine.status()["config"]["generation"].as_u64().unwrap();
    assert_eq!(generation(), 2);

    machine.edit("/etc/eventsubd/config.toml", "broadcaster =", "brodcaster =");
    assert!(!machine.run(&["systemctl", "reload", "eventsubd"]).status.success());
    let shown = text(&machine.run(&["systemctl", "status", "--no-pager", "--lines=40", "eventsubd"]).stdout);
    for part in
        ["did you mean `broadcaster`?", "the old configuration stays active", "status=78", "active (running)"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    machine.ok(&["systemctl", "kill", "-s", "HUP", "eventsubd"]);
    machine.until("SIGHUP is refused as well", || {
        machine
            .journal(&["-u", "eventsubd", "PRIORITY=4"])
            .contains("configuration refused, the old one stays")
    });
    assert_eq!((generation(), machine.property("eventsubd", "SubState")), (2, "running".to_owned()));
    assert_eq!(machine.status()["subscription_counts"]["total"], 6, "the old one is active");
    machine.edit("/etc/eventsubd/config.toml", "brodcaster =", "broadcaster =");

    // Which lines are written can be changed until the next reload.
    assert_eq!(machine.ok(&["eventsubd", "log-level"]), "eventsubd=trace,info\n");
    let refused = machine.run(&["eventsubd", "log-level", "debgu"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("did you mean `debug`?"), "{}", text(&refused.stderr));
    machine.ok(&["eventsubd", "log-level", "off"]);
    assert_eq!(machine.ok(&["eventsubd", "log-level"]), "off\n");
    machine.ok(&["systemctl", "reload", "eventsubd"]);
    assert_eq!(
        (generation(), machine.ok(&["eventsubd", "log-level"])),
        (3, "eventsubd=trace,info\n".to_owned())
    );

    // One for each broadcaster.
    let ids = machine.ok(&["eventsubd", "sandbox", "trigger", "stream.online"]);
    let id = ids.lines().next().expect("an event").to_owned();
    machine
        .until("the sink fails", || !machine.journal(&["SINK=web", &format!("MESSAGE_ID={id}")]).is_empty());
    let records = machine.journal(&[
        "-u",
        "eventsubd",
        "-o",
        "json",
        "_TRANSPORT=journal",
        "SYSLOG_IDENTIFIER=eventsubd",
    ]);
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |name: &str| records.iter().find(|record| record[name].is_string());
    for name in ["SUBSCRIPTION_ID", "SHARD", "SINK", "MESSAGE_ID", "CONDUIT_ID", "TARGET", "CODE_FILE"] {
        assert!(with(name).is_some(), "{name} is in none of {} records", records.len());
    }
    let failed = with("MESSAGE_ID").unwrap();
    assert!(failed["MESSAGE"].as_str().unwrap().contains(&id), "the line has it too: {failed}");
    // The id names no message of systemd's catalogue, which must not harm who asks for explanations.
    assert!(machine.journal(&["-x", "-u", "eventsubd", "SINK=web"]).contains("sink failed"));

    let mut everything = machine.journal(&["-o", "export"]);
    assert!(everything.len() > 10_000, "it says a lot");
    everything += &machine.ok(&["systemctl", "show", "eventsubd"]);
    everything += &machine.ok(&["systemctl", "status", "--no-pager", "--full", "eventsubd"]);
    everything +=
        &machine.ok(&["sh", "-c", "cat /proc/$(systemctl show eventsubd --value -p MainPID)/cmdline"]);
    assert!(!everything.contains(SECRET));
}

#[test]
fn a_daemon_that_hangs_is_killed_and_started_again_and_one_that_waits_is_not() {
    let machine = Machine::ready();
    machine.drop_in("eventsubd.service", "[Service]\nWatchdogSec=3s\nRestartSec=100ms\n");
    // A small disk for the events.
    machine.ok(&["mkdir", "-p", "/var/lib/eventsubd"]);
    machine.ok(&["mount", "-t", "tmpfs", "-o", "size=2M", "small", "/var/lib/eventsubd"]);
    machine.ok(&["systemctl", "start", "eventsubd"]);
    machine.lives_for("eventsubd", 7);

    machine.run(&["dd", "if=/dev/zero", "of=/var/lib/eventsubd/fill", "bs=4k"]);
    let problem = || machine.status()["store"]["problem"].is_string();
    machine.until("the disk is full", || {
        machine.ok(&["eventsubd", "sandbox", "trigger", "stream.online"]);
        problem()
    });
    machine.lives_for("eventsubd", 7);
    assert!(problem(), "it waits for room");
    machine.ok(&["rm", "/var/lib/eventsubd/fill"]);
    machine.until("there is room", || !problem());
    machine.caught_up();
    assert_eq!(machine.property("eventsubd", "NRestarts"), "0");

    let first = machine.property("eventsubd", "MainPID");
    machine.ok(&["systemctl", "kill", "--kill-whom=main", "-s", "STOP", "eventsubd"]);
    machine.started_again("eventsubd");
    assert_ne!(machine.property("eventsubd", "MainPID"), first);
    machine.logged("Watchdog timeout");
    machine.lives_for("eventsubd", 4);
}

/// Holds one thread as a debugger does; the others run on. It is let go when this is dropped.
struct Held(Child);

impl Held {
    fn thread(id: &str) -> Self {
        // PTRACE_SEIZE, then PTRACE_INTERRUPT, and the stop is awaited.
        const HOLD: &str = "import ctypes, os, sys\n\
             thread = int(sys.argv[1])\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             for request in (0x4206, 0x4207):\n\
             \x20   if libc.ptrace(request, thread, None, None) != 0: sys.exit(os.strerror(ctypes.get_errno()))\n\
             os.waitpid(thread, 0x40000000)\n\
             print('held', flush=True)\n\
             sys.stdin.read()\n";
        let mut child = Command::new("python3")
            .args(["-c", HOLD, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_store_that_hangs_is_told_of_and_stops_the_signs_of_life() {
    let machine = Machine::boot();
    machine.start_twitch(&[]);
    let token = "an-admin-token-of-this-test";
    machine.write("/etc/eventsubd/admin_token", "600", token);
    machine.ok(&["chown", "eventsubd", "/etc/eventsubd/admin_token"]);
    machine.configure("eventsubd", "[admin]\nlisten = \"127.0.0.1:9464\"\ntoken_file = \"admin_token\"\n");
    machine.drop_in("eventsubd.service", "[Service]\nWatchdogSec=20s\nRestartSec=100ms\n");
    machine.ok(&["systemctl", "start", "eventsubd"]);
    let livez = |header: &str| {
        const ASK: &str = "exec 3<>/dev/tcp/127.0.0.1/9464; \
                           printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n%s\\r\\n\\r\\n' \
                           \"$1\" >&3; cat <&3";
        machine.ok(&["bash", "-c", ASK, "bash", header])
    };
    let (known, stranger) = (format!("Authorization: Bearer {token}"), "Accept: */*");
    assert!(livez(stranger).ends_with("\r\n\r\nok\n"), "{}", livez(stranger));
    let writer = machine.thread("store-writer");
    let held = Held::thread(&writer);
    // After a minute it counts as hanging.
    machine.until_within(2 * WAIT, "it says what hangs", || {
        machine.status()["problems"][0]["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("the writer of the store hangs"))
    });
    for (header, said) in
        [(known.as_str(), "the writer of the store hangs\n"), (stranger, "\r\n\r\nnot alive\n")]
    {
        let answer = livez(header);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(said), "{answer}");
    }
    machine.until_within(2 * WAIT, "the end of systemd's patience", || {
        machine.journal(&["-u", "eventsubd"]).contains("Watchdog timeout")
    });
    // The daemon can be killed only once the debugger lets its thread go.
    drop(held);
    machine.started_again("eventsubd");
    let journal = machine.journal(&["-u", "eventsubd"]);
    assert!(journal.contains("the writer of the store hangs; systemd restarts the daemon"), "{journal}");
    machine.lives_for("eventsubd", 4);
}

#[test]
fn restarts_and_a_kill_under_load_lose_nothing_that_was_stored() {
    let machine = Machine::boot();
    machine.start_twitch(&["--pace", "2ms"]);
    machine.configure("eventsubd", "");
    machine.drop_in("eventsubd.service", "[Service]\nRestartSec=100ms\n");
    machine.ok(&["systemctl", "start", "eventsubd"]);
    let stored = || machine.status()["store"]["last_seq"].as_u64().unwrap();
    let mut seen = 0;
    let mut more_events = || {
        machine.until("events come", || {
            machine.property("eventsubd", "SubState") == "running"
                && machine.run(&["eventsubd", "status"]).status.success()
                && stored() > seen + 200
        });
        seen = stored();
    };
    for _ in 0..2 {
        more_events();
        machine.ok(&["systemctl", "restart", "eventsubd"]);
    }
    more_events();
    machine.ok(&["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "eventsubd"]);
    machine.until("it is started again", || machine.property("eventsubd", "NRestarts") == "1");
    more_events();

    // The daemon stops by itself and in time while events come.
    let begun = Instant::now();
    machine.ok(&["systemctl", "stop", "eventsubd"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "TimeoutStopSec is over");
    assert_eq!(machine.property("eventsubd", "Result"), "success");
    assert_eq!(machine.property("eventsubd", "ExecMainStatus"), "0");

    machine.ok(&["systemctl", "start", "eventsubd"]);
    more_events();
    machine.run(&["systemctl", "stop", "twitch"]);
    machine.caught_up();
    let stored = ids(&machine.ok(&["eventsubd", "events", "--json"]));
    let distinct: HashSet<&String> = stored.iter().collect();
    assert!(stored.len() > 1000 && distinct.len() == stored.len(), "{} of {}", distinct.len(), stored.len());
    let mut written = ids(&machine.ok(&["cat", "/var/log/eventsubd/events.jsonl"]));
    // Lines that were written right before the kill may come twice; apart from that all is in the same order.
    let mut known = HashSet::new();
    written.retain(|id| known.insert(id.clone()));
    assert_eq!(written, stored);
}

#[test]
fn refused_credentials_and_a_bad_file_end_it_for_good_and_no_network_does_not() {
    let machine = Machine::boot();
    machine.configure("eventsubd", "");
    let failed = |code: &str| {
        assert!(!machine.run(&["systemctl", "start", "eventsubd"]).status.success());
        let shown = ["SubState", "Result", "ExecMainStatus", "NRestarts"]
            .map(|name| machine.property("eventsubd", name));
        // One that is about to be started again would be in `auto-restart`.
        assert_eq!(shown, ["failed", "exit-code", code, "0"]);
        machine.ok(&["systemctl", "reset-failed", "eventsubd"]);
    };

    // Somebody takes connections and never answers: the start asks for the time that it takes, is over even so, and
    // says it.
    machine.write("/etc/systemd/system/silent.socket", "644", &format!("[Socket]\nListenStream={TWITCH}\n"));
    machine.write("/etc/systemd/system/silent.service", "644", "[Service]\nExecStart=/bin/sleep infinity\n");
    machine.drop_in("eventsubd.service", "[Service]\nRestartSec=100ms\nTimeoutStartSec=3s\n");
    machine.ok(&["systemctl", "start", "silent.socket"]);
    machine.ok(&["systemctl", "start", "eventsubd"]);
    let text = machine.property("eventsubd", "StatusText");
    assert!(text.starts_with("Twitch cannot be reached, trying again; token: "), "{text}");
    machine.ok(&["systemctl", "stop", "silent.socket", "silent.service"]);
    machine.start_twitch(&[]);
    machine.until("it found Twitch", || {
        machine.property("eventsubd", "StatusText") == "4 of 4 subscriptions enabled"
    });
    machine.ok(&["systemctl", "stop", "eventsubd"]);

    // The stand-in knows the secret of this application, and it is another one.
    machine.edit("/etc/eventsubd/config.toml", "qwertyuiop0123456789", "sandbox");
    failed("77");
    machine.logged("Twitch refused the credentials");
    machine.edit("/etc/eventsubd/config.toml", "broadcaster =", "brodcaster =");
    failed("78");
    machine.logged("did you mean `broadcaster`?");
}

#[test]
fn webhooks_come_through_the_socket_of_systemd_which_also_starts_the_daemon() {
    let machine = Machine::boot();
    machine.start_twitch(&[]);
    let webhook = "[transport]\nmethod = \"webhook\"\n\n[transport.webhook]\nlisten = \"systemd\"\n\
                   callback = \"http://127.0.0.1:443/eventsub\"\n";
    machine.configure("eventsubd", webhook);
    // Without the socket unit there is no port, and the reason is told.
    machine.drop_in("eventsubd.service", "[Service]\nRestart=no\n");
    assert!(!machine.run(&["systemctl", "start", "eventsubd"]).status.success());
    machine.logged("enable the socket unit");
    machine.drop_in("eventsubd.service", "");

    // A port that the daemon itself could not open.
    machine.drop_in("eventsubd.socket", "[Socket]\nListenStream=\nListenStream=127.0.0.1:443\n");
    machine.ok(&["systemctl", "start", "eventsubd.socket"]);
    machine.ok(&["systemctl", "start", "eventsubd"]);
    machine.until("all callbacks are proved", || {
        machine.property("eventsubd", "StatusText") == "4 of 4 subscriptions enabled"
    });
    let mut sent = Vec::new();
    let mut trigger = || {
        let ids = machine.ok(&["eventsubd", "sandbox", "trigger", "stream.online"]);
        sent.extend(ids.lines().map(str::to_owned));
    };
    trigger();
    machine.ok(&["systemctl", "restart", "eventsubd"]);
    trigger();
    let before = machine.property("eventsubd", "MainPID");
    machine.ok(&["systemctl", "stop", "eventsubd.service"]);
    // Nobody but a call can start it now.
    trigger();
    machine.until("a call has started it", || {
        machine.property("eventsubd", "SubState") == "running"
            && machine.property("eventsubd", "MainPID") != before
    });
    machine.until("all are stored", || {
        let stored = ids(&machine.ok(&["eventsubd", "events", "--json"]));
        sent.iter().all(|id| stored.contains(id))
    });
}

#[test]
fn several_daemons_on_one_host_and_their_commands() {
    let machine = Machine::boot();
    machine.start_twitch(&[]);
    for name in ["one", "two"] {
        let script = format!("echo $EVENTSUB_TYPE >>/var/log/eventsubd-{name}/types");
        let command =
            format!("[sink.run]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n");
        machine.configure(&format!("eventsubd@{name}"), &command);
        let path = format!("/etc/eventsubd/{name}/config.toml");
        machine.edit(&path, "qwertyuiop0123456789", &format!("client{name}"));
        machine.edit(&path, "[\"ann\", \"bob\"]", &format!("\"{name}\""));
        machine.ok(&["systemctl", "start", &format!("eventsubd@{name}")]);
    }
    let config = |name: &str| format!("/etc/eventsubd/{name}/config.toml");
    let status = |name: &str| machine.run(&["eventsubd", "status", "--config", &config(name)]);
    for name in ["one", "two"] {
        assert!(text(&status(name).stdout).contains("all is well"), "{name}: {}", text(&status(name).stderr));
        machine.ok(&["systemctl", "reload", &format!("eventsubd@{name}")]);
    }
    for name in ["one", "two"] {
        machine.ok(&["eventsubd", "sandbox", "trigger", "stream.online", "--broadcaster", name]);
        // Output of a sink's command, under the restrictions of the unit.
        machine.until("the command has run", || {
            machine
                .run(&["cat", &format!("/var/log/eventsubd-{name}/types")])
                .stdout
                .starts_with(b"stream.online\n")
        });
        machine.ok(&["eventsubd", "events", "--json", "--config", &config(name)]);
    }
    machine.ok(&["systemctl", "stop", "eventsubd@one"]);
    assert!(!status("one").status.success());
    assert!(status("two").status.success());
}
