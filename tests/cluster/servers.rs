//! NATS servers of a cluster, from the packages that `tests/run` installs.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::common::certificate::certificate;
use super::common::{WAIT, port};

/// Longer than servers take to choose a leader, unless something is wrong.
const AGREE: Duration = Duration::from_secs(20);

/// The oldest server that is allowed.
pub(super) const OLDEST: &str = "oldest/site-packages/bin/nats-server";
pub(super) const NEWEST: &str = "newest/site-packages/bin/nats-server";

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The password of users and routes in a configuration.
pub(super) const PASSWORD: &str = "s3cretOfThisTest";

/// Servers that know each other; they are killed when this goes.
pub(super) struct Servers {
    folder: tempfile::TempDir,
    /// The configuration of each, beside what the arguments say.
    pub(super) config: String,
    program: PathBuf,
    ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
}

impl Servers {
    /// So many servers of this release.
    pub(super) fn start(program: &str, number: usize) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(program);
        assert!(program.exists(), "{} is installed by tests/run", program.display());
        Self::start_program(program, number)
    }

    /// So many servers of this release with this configuration. Its address for routes and its folder are replaced, paths in it are
    /// relative to a folder which has a certificate, and the variables of contrib/cluster/nats.conf are set.
    pub(super) fn start_configured(program: &str, number: usize, config: &str) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(program);
        Self::start_with(program, number, config.to_owned())
    }

    /// So many servers of this program.
    pub(super) fn start_program(program: PathBuf, number: usize) -> Self {
        Self::start_with(program, number, String::new())
    }

    fn start_with(program: PathBuf, number: usize, config: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let mut servers = Self { folder, program, ports: Vec::new(), children: Vec::new(), config };
        // Servers that do not find to each other in time are started anew.
        let begun = Instant::now();
        loop {
            servers.ports = (0..number).map(|_| (port(), port())).collect();
            servers.children = (0..number).map(|_| None).collect();
            (0..number).for_each(|index| servers.run(index));
            if (0..number).all(|index| servers.listens(index)) && servers.agree() {
                return servers;
            }
            (0..number).for_each(|index| servers.kill(index));
            let logs: Vec<String> = (0..number).map(|index| servers.log(index)).collect();
            assert!(begun.elapsed() < WAIT, "the NATS servers do not start: {logs:#?}");
            for index in 0..number {
                let _ = fs::remove_dir_all(servers.store(index));
            }
        }
    }

    fn log(&self, index: usize) -> String {
        let bytes = fs::read(self.path(&format!("log-{index}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until each of several servers knows the leader; returns whether they do.
    fn agree(&self) -> bool {
        let begun = Instant::now();
        let know_leader = || (0..self.count()).all(|index| self.log(index).contains("metadata leader"));
        while self.count() > 1 && !know_leader() {
            if begun.elapsed() > AGREE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Starts a server, with what it had stored.
    pub(super) fn run(&mut self, index: usize) {
        let routes: Vec<u16> = self.ports.iter().map(|(_, cluster)| *cluster).collect();
        self.run_with(index, routes[index], &routes);
    }

    /// The same, but it reaches no other server, and none reaches it.
    pub(super) fn run_cut_off(&mut self, index: usize) {
        let (nobody, hidden) = (self.ports[index].1, port());
        self.run_with(index, hidden, &[nobody]);
    }

    /// Starts a server that listens for the others on this port, and connects to these.
    fn run_with(&mut self, index: usize, cluster: u16, routes: &[u16]) {
        let port = self.ports[index].0;
        let file = format!("nats-{index}.conf");
        let config = self.config.replace("0.0.0.0:6222", &format!("127.0.0.1:{cluster}"));
        // The server refuses a folder that is named twice.
        let config = config.replace("store_dir: \"/var/lib/nats\"", "");
        fs::write(self.folder.path().join(&file), config).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["--config", &file])
            .args(["--jetstream", "--addr", "127.0.0.1", "--port", &port.to_string()])
            .args(["--name", &format!("n{index}"), "--store_dir"])
            .arg(self.store(index))
            .current_dir(self.folder.path())
            .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.path().join(format!("log-{index}"))).unwrap());
        command.env("NATS_NAME", format!("n{index}"));
        command.env("NATS_PASSWORD", PASSWORD).env("NATS_ROUTES_PASSWORD", PASSWORD);
        for (nth, route) in routes.iter().enumerate() {
            let route = format!("nats://routes:{PASSWORD}@127.0.0.1:{route}");
            command.env(format!("NATS_ROUTE{}", nth + 1), route);
        }
        if self.ports.len() > 1 && !self.config.contains("routes:") {
            let routes: Vec<String> =
                routes.iter().map(|route| format!("nats://127.0.0.1:{route}")).collect();
            command
                .args(["--cluster_name", "test", "--cluster", &format!("nats://127.0.0.1:{cluster}")])
                .args(["--routes", &routes.join(",")]);
        }
        self.children[index] = Some(command.spawn().expect("the NATS server starts"));
    }

    fn listens(&mut self, index: usize) -> bool {
        let begun = Instant::now();
        loop {
            let ended = self.children[index].as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if ended || begun.elapsed() > WAIT {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.ports[index].0)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.children[index].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn store(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("store-{index}"))
    }

    /// Copies what a server has stored, which must not run.
    pub(super) fn save(&self, index: usize) {
        copy_folder(&self.store(index), &self.folder.path().join("saved"));
    }

    /// Gives a server back what [`Self::save`] has copied.
    pub(super) fn restore(&self, index: usize) {
        fs::remove_dir_all(self.store(index)).unwrap();
        copy_folder(&self.folder.path().join("saved"), &self.store(index));
    }

    pub(super) fn signal(&self, index: usize, signal: Signal) {
        kill_process(Pid::from_child(self.child(index)), signal).unwrap();
    }

    fn stream(&self, index: usize, stream: &str) -> PathBuf {
        self.folder.path().join(format!("store-{index}/jetstream/$G/streams/{stream}"))
    }

    /// A copy of what a server that does not run has of a stream.
    pub(super) fn copy_stream(&self, index: usize, stream: &str) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&self.stream(index, stream), copy.path());
        copy
    }

    /// Gives a stream back to a server that does not run.
    pub(super) fn restore_stream(&self, index: usize, stream: &str, copy: &tempfile::TempDir) {
        let folder = self.stream(index, stream);
        fs::remove_dir_all(&folder).unwrap();
        copy_folder(copy.path(), &folder);
    }

    /// The process of a server that runs.
    pub(super) fn child(&self, index: usize) -> &Child {
        self.children[index].as_ref().expect("it runs")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn port(&self, index: usize) -> u16 {
        self.ports[index].0
    }

    /// The value of `nats` for them.
    pub(super) fn urls(&self) -> String {
        let urls: Vec<String> =
            self.ports.iter().map(|(port, _)| format!("nats://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    pub(super) fn count(&self) -> usize {
        self.ports.len()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.count()).for_each(|index| self.kill(index));
    }
}
