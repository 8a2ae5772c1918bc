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

use super::common::{EXE, SECRET, WAIT, ids, output};

/// A host: a folder with a file, a state directory, and a daemon while it runs.
pub(super) struct Host {
    folder: tempfile::TempDir,
    pub(super) child: Option<Child>,
    /// More variables of its environment.
    pub(super) environment: Vec<(String, String)>,
}

impl Host {
    /// Writes its file; nothing is started.
    pub(super) fn new(sandbox: &Sandbox, nats: &str, name: &str, file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self { folder, child: None, environment: Vec::new() };
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
            self.path("events.jsonl").display()
        )
        .unwrap();
        fs::write(self.path("config.toml"), config).unwrap();
        fs::write(self.path("secret"), SECRET).unwrap();
        for name in ["config.toml", "secret"] {
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Replaces a part of its file.
    pub(super) fn edit(&self, from: &str, to: &str) {
        let path = self.path("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(EXE);
        command.args(arguments).arg("--config").arg(self.path("config.toml"));
        command.arg("--state-dir").arg(self.path("state")).env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).envs(self.environment.iter().cloned());
        command
    }

    pub(super) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command(&["run"]);
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

    /// The ids of the events that its sink has written.
    pub(super) fn events(&self) -> Vec<String> {
        ids(&fs::read(self.path("events.jsonl")).unwrap_or_default())
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
