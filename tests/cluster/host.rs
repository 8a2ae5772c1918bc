//! A daemon as a program, one host of a cluster.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eventsubd::model::cluster::Role;
use eventsubd::model::status::Status;
use eventsubd::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

use super::common::{EXE, SECRET, WAIT, ids, output, text};

thread_local! {
    /// The file of the sink of all hosts of a test: each test has a thread of its own.
    static SINK: PathBuf = {
        let name = format!("cluster-{}-{:?}.jsonl", std::process::id(), std::thread::current().id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_file(&path);
        path
    };
}

/// A host: a folder with a file, a state directory, and a daemon while it runs.
pub(super) struct Host {
    folder: tempfile::TempDir,
    /// The file that the sink writes, whichever host works it.
    sink: PathBuf,
    pub(super) child: Option<Child>,
    /// More variables of its environment.
    pub(super) environment: Vec<(String, String)>,
    /// Whether its state directory is a file system of its own, of a few megabytes.
    pub(super) has_small_disk: bool,
}

/// Size of a small disk.
const SMALL: &str = "size=24M,mode=700";

impl Host {
    /// Writes its file; nothing is started.
    pub(super) fn new(sandbox: &Sandbox, nats: &str, name: &str, file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sink = SINK.with(Clone::clone);
        let host = Self { folder, sink, child: None, environment: Vec::new(), has_small_disk: false };
        host.configure(sandbox, nats, name, file);
        host
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn configure(&self, sandbox: &Sandbox, nats: &str, name: &str, file: &str) {
        let mut config = "[twitch]\nclient_secret_file = \"secret\"\nwatch_grants = false\n".to_owned();
        for line in sandbox.twitch_block().lines().skip(1).filter(|line| !line.starts_with('#')) {
            writeln!(config, "{line}").unwrap();
        }
        writeln!(
            config,
            "\n[transport.conduit]\nshards = 2\nkeepalive = \"10s\"\n\n[cluster]\nnats = \"{nats}\"\nhost = \"{name}\"\n\n\
             {file}\n[sink.log]\ntype = \"file\"\npath = \"{}\"",
            self.sink.display()
        )
        .unwrap();
        fs::write(self.path("config.toml"), config).unwrap();
        fs::write(self.path("secret"), SECRET).unwrap();
        for name in ["config.toml", "secret"] {
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// The state directory as this process sees it: a small disk is seen by the daemon alone, and from here through it.
    pub(super) fn state(&self) -> PathBuf {
        match self.child.as_ref().filter(|_| self.has_small_disk) {
            Some(child) => {
                PathBuf::from(format!("/proc/{}/root{}", child.id(), self.path("state").display()))
            }
            None => self.path("state"),
        }
    }

    /// Replaces a part of its file.
    pub(super) fn edit(&self, from: &str, to: &str) {
        let path = self.path("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Takes `[cluster]` out of its file. Returns the file as it was.
    pub(super) fn leave_cluster(&self) -> String {
        let path = self.path("config.toml");
        let with = fs::read_to_string(&path).unwrap();
        let (before, rest) = with.split_once("[cluster]").unwrap();
        let (_, after) = rest.split_once("\n\n").unwrap();
        fs::write(path, format!("{before}{after}")).unwrap();
        with
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.child.as_ref().filter(|_| self.has_small_disk) {
            Some(child) => {
                let mut command = Command::new("nsenter");
                let pid = child.id().to_string();
                command.args(["--target", &pid, "--user", "--mount", "--preserve-credentials", EXE]);
                command
            }
            None => Command::new(EXE),
        };
        command.args(arguments).arg("--config").arg(self.path("config.toml"));
        command.arg("--state-dir").arg(self.path("state"));
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).envs(self.environment.iter().cloned());
    }

    /// The command in a namespace of its own, in which the state directory is a small disk.
    fn on_small_disk(&self, daemon: &Command) -> Command {
        fs::create_dir_all(self.path("state")).unwrap();
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o {SMALL} small \"$0\" && exec \"$@\"");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(self.path("state"));
        command.arg(daemon.get_program()).args(daemon.get_args());
        self.set_environment(&mut command);
        command
    }

    pub(super) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command(&["run"]);
        if self.has_small_disk {
            command = self.on_small_disk(&command);
        }
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// `None` while no daemon answers.
    pub(super) async fn status(&self) -> Option<Status> {
        let answer = output(self.command(&["status", "--json"])).await;
        answer.status.success().then(|| serde_json::from_slice(&answer.stdout).expect("a status"))
    }

    /// Runs a command; returns whether it succeeds, and what it says. While no host leads, or none takes it, it is run again: on
    /// a busy machine the lead may change at any time.
    pub(super) async fn says(&self, arguments: &[&str]) -> (bool, String) {
        let begun = Instant::now();
        loop {
            let answer = output(self.command(arguments)).await;
            let (done, said) = (answer.status.success(), text(&answer.stderr) + &text(&answer.stdout));
            let passes = ["no host leads now", "no host works sink", "no answer from", "try again"];
            if done || begun.elapsed() > WAIT || !passes.iter().any(|passes| said.contains(passes)) {
                return (done, said);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The status of a daemon that runs, however long it takes to answer.
    pub(super) async fn answer(&self) -> Status {
        self.until("it answers", |_| true).await
    }

    pub(super) async fn until(&self, what: &str, mut like: impl FnMut(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if let Some(status) = &status
                && like(status)
            {
                return status.clone();
            }
            assert!(begun.elapsed() < WAIT, "never: {what}; {status:#?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn leads(&self) -> Status {
        self.until("it leads, and Twitch matches the file", |status| {
            role(status) == Role::Leader && status.converged
        })
        .await
    }

    /// Waits until all shards are bound to sockets of this host.
    pub(super) async fn has_shards(&self) {
        self.until("it has the shards", |status| {
            status.shards.len() == 2 && status.shards.iter().all(|shard| shard.state.delivers())
        })
        .await;
    }

    pub(super) async fn stands_by(&self) -> Status {
        self.until("it stands by", |status| {
            let has_leader = status.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some());
            role(status) == Role::Standby && has_leader && status.ready
        })
        .await
    }

    /// The lines that the sink has written, on whichever host.
    pub(super) fn lines(&self) -> String {
        let text = fs::read_to_string(&self.sink).unwrap_or_default();
        // A line may be half written.
        text.rfind('\n').map_or_else(String::new, |end| text[..=end].to_owned())
    }

    /// The ids of the events that the sink has written.
    pub(super) fn events(&self) -> Vec<String> {
        ids(self.lines().as_bytes())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn role(status: &Status) -> Role {
    status.cluster.as_ref().expect("a cluster").role
}
