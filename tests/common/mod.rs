//! A daemon in this process, against a stand-in for Twitch in this process.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

pub mod browser;
pub mod certificate;
pub mod nats;
pub mod port;
pub mod strangers;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use eventsubd::admin::Control;
use eventsubd::config::{Environment, LoadOptions, Secrets};
use eventsubd::daemon::{Daemon, DaemonHandle, DaemonOptions, Exit, Tuning, connections};
use eventsubd::model::backoff::Backoff;
use eventsubd::model::status::{Status, SubscriptionEntry};
use eventsubd::sandbox::{Sandbox, SandboxOptions};
use eventsubd::transport::websocket::Timings;
pub use port::port;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, unless it fails.
pub const WAIT: Duration = Duration::from_secs(60);
/// The secret of the stand-in's application.
pub const SECRET: &str = "kGv8x2ExampleSecretOfThisTest0";

/// Output of `stdout` sinks.
#[derive(Clone, Debug, Default)]
pub struct Tap(Arc<Mutex<Vec<u8>>>);

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tap {
    /// Message ids, in order.
    pub fn ids(&self) -> Vec<String> {
        ids(&self.0.lock().unwrap())
    }

    /// The lines that were written.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let text = self.0.lock().unwrap().clone();
        let parse = |line| serde_json::from_slice(line).expect("a line is a JSON object");
        text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect()
    }
}

/// The message ids of lines.
pub fn ids(lines: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(lines).expect("UTF-8");
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is a JSON object");
        line["metadata"]["message_id"].as_str().expect("with an id").to_owned()
    };
    text.lines().map(id).collect()
}

/// A stand-in whose times suit tests.
pub fn quick() -> SandboxOptions {
    SandboxOptions {
        client_secret: SECRET.to_owned(),
        keepalive_unit: Duration::from_millis(100),
        reconnect_grace: Duration::from_secs(5),
        refill_per_minute: 800 * 60,
        http: Some(connections().expect("HTTP connections").client()),
        ..SandboxOptions::default()
    }
}

/// Times that suit tests.
pub fn tuning() -> Tuning {
    Tuning {
        retire_after: Some(Duration::from_millis(500)),
        helix: Some(|helix| helix.refill_window = Duration::from_secs(1)),
        reconcile: Some(|options| {
            options.shard_poll = (Duration::from_millis(300), Duration::from_millis(600));
            options.backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        }),
        catch_up: None,
        timings: Timings {
            keepalive_grace: Duration::from_millis(500),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_millis(500)),
            first: Duration::from_millis(50),
            ..Timings::default()
        },
    }
}

/// A folder with a configuration, a secret and a state directory.
pub struct Home {
    pub folder: tempfile::TempDir,
    pub sandbox: Sandbox,
}

impl Home {
    pub async fn new(options: SandboxOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(options).await.expect("a free port");
        let home = Self { folder, sandbox };
        home.set_secret(SECRET);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn set_secret(&self, secret: &str) {
        fs::write(self.path("secret"), secret).unwrap();
        fs::set_permissions(self.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes the configuration: the part for Twitch, and this.
    pub fn configure(&self, rest: &str) {
        self.configure_with("watch_grants = false\n", rest);
    }

    /// The same with these further keys in the part for Twitch.
    pub fn configure_with(&self, twitch: &str, rest: &str) {
        let mut text = format!("[twitch]\nclient_secret_file = \"secret\"\n{twitch}");
        for line in self.sandbox.twitch_block().lines().skip(1).filter(|line| !line.starts_with('#')) {
            writeln!(text, "{line}").unwrap();
        }
        // The keepalive that is asked for, in the stand-in's own short seconds.
        writeln!(text, "\n[transport.conduit]\nshards = 2\nkeepalive = \"10s\"\n\n{rest}").unwrap();
        fs::write(self.path("config.toml"), text).unwrap();
        // Sinks of tests have headers, which count as secrets.
        fs::set_permissions(self.path("config.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn load(&self) -> LoadOptions {
        LoadOptions {
            path: self.path("config.toml"),
            state_dir: Some(self.path("state")),
            env: Environment::default(),
            sandbox: false,
            secrets: Secrets::Required,
        }
    }

    pub async fn start(&self) -> Running {
        Running::start(self.load(), tuning()).await
    }

    /// The conduit that the daemon made.
    pub fn conduit(&self) -> String {
        self.sandbox.conduits().first().expect("a conduit").0.clone()
    }

    /// The id of the first live subscription of a type.
    pub fn subscription(&self, kind: &str) -> String {
        let all = self.sandbox.subscriptions();
        all.into_iter().find(|s| s.kind == kind && s.status == "enabled").expect("a subscription").id
    }

    pub fn live(&self) -> usize {
        self.sandbox.subscriptions().iter().filter(|s| s.status == "enabled").count()
    }
}

/// A daemon at work.
pub struct Running {
    pub handle: DaemonHandle,
    pub stdout: Tap,
    pub stop: CancellationToken,
    task: JoinHandle<Exit>,
}

impl Running {
    pub async fn start(load: LoadOptions, tuning: Tuning) -> Self {
        let stdout = Tap::default();
        let tap = stdout.clone();
        let mut options = DaemonOptions::new(load);
        options.stdout = Some(Arc::new(move || Box::new(tap.clone())));
        options.tuning = tuning;
        let daemon = Daemon::build(options).await.expect("the daemon can be built");
        let handle = daemon.handle();
        let stop = CancellationToken::new();
        let task = tokio::spawn(daemon.run(stop.clone(), CancellationToken::new()));
        Self { handle, stdout, stop, task }
    }

    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// Waits for a status.
    pub async fn until(&self, what: &str, mut like: impl FnMut(&Status) -> bool) -> Status {
        let begun = std::time::Instant::now();
        loop {
            let status = self.status();
            if like(&status) {
                return status;
            }
            assert!(begun.elapsed() < WAIT, "never: {what}; {status:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn handle_reload(&self) {
        self.handle.reload().await.expect("the file is good");
    }

    pub async fn converged(&self) -> Status {
        self.until("converged", |status| status.converged).await
    }

    /// Waits until every event of the store is with every sink.
    pub async fn delivered(&self, events: u64) -> Status {
        self.until("delivered", |status| {
            status.store.last_seq.0 >= events
                && status.sinks.iter().all(|sink| sink.cursor == status.store.last_seq)
        })
        .await
    }

    pub async fn end(self) -> Exit {
        self.stop.cancel();
        tokio::time::timeout(WAIT, self.task).await.expect("it ends").expect("no panic")
    }

    /// For a daemon that ends by itself.
    pub async fn ended(self) -> Exit {
        tokio::time::timeout(WAIT, self.task).await.expect("it ends").expect("no panic")
    }
}

/// The text of every file below a folder, as far as it can be read.
pub fn all_bytes(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(all_bytes(&path));
        } else if path.is_file() {
            bytes.extend(fs::read(&path).unwrap());
        }
    }
    bytes
}

/// The program.
pub const EXE: &str = env!("CARGO_BIN_EXE_eventsubd");

pub fn command(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(EXE);
    command
        .args(arguments)
        .arg("--config")
        .arg(home.path("config.toml"))
        .arg("--state-dir")
        .arg(home.path("state"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    command
}

pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of the home that is added to.
pub fn log(home: &Home, name: &str) -> fs::File {
    fs::OpenOptions::new().create(true).append(true).open(home.path(name)).expect("a log file")
}

/// `run` in the background; killed when it is dropped.
pub struct Process {
    pub child: std::process::Child,
}

impl Process {
    pub fn start(home: &Home, level: &str) -> Self {
        Self::start_with(home, "RUST_LOG", level)
    }

    /// With this in its environment.
    pub fn start_with(home: &Home, variable: &str, value: impl AsRef<OsStr>) -> Self {
        let mut command = command(home, &["run"]);
        command.env(variable, value).stdout(log(home, "stdout.log")).stderr(log(home, "stderr.log"));
        Self { child: command.spawn().expect("the program runs") }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it lives");
    }

    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < WAIT, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn status(home: &Home) -> Status {
    let answer = output(command(home, &["status", "--json"])).await;
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    serde_json::from_slice(&answer.stdout).expect("one JSON document")
}

/// The list of subscriptions of the program.
pub async fn subscriptions(home: &Home) -> Vec<SubscriptionEntry> {
    #[derive(serde::Deserialize)]
    struct Whole {
        subscriptions: Vec<SubscriptionEntry>,
    }
    let answer = output(command(home, &["status", "--json", "--subscriptions"])).await;
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let whole: Whole = serde_json::from_slice(&answer.stdout).expect("one JSON document");
    whole.subscriptions
}

pub async fn converged(home: &Home) {
    let begun = Instant::now();
    // A daemon that was killed leaves its socket behind.
    while !output(command(home, &["status"])).await.status.success() {
        let log = || fs::read_to_string(home.path("stderr.log")).unwrap();
        assert!(begun.elapsed() < WAIT, "no daemon answers: {}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = output(command(home, &["status", "--wait", "--timeout", "60s"])).await;
    assert!(answer.status.success(), "{}{}", text(&answer.stdout), text(&answer.stderr));
}

/// Waits until every event of the store is with every sink of the program.
pub async fn caught_up(home: &Home, limit: Duration) -> Status {
    let begun = Instant::now();
    loop {
        let status = status(home).await;
        if status.sinks.iter().all(|sink| sink.cursor == status.store.last_seq) {
            return status;
        }
        assert!(begun.elapsed() < limit, "{:?}", status.sinks);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// An HTTP receiver that takes everything.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    pub address: String,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_slow(Duration::ZERO).await
    }

    /// A receiver that answers each request so long after it has got it.
    pub async fn start_slow(delay: Duration) -> Self {
        async fn take(
            State((requests, delay)): State<(Arc<Mutex<Vec<Received>>>, Duration)>,
            method: Method,
            uri: Uri,
            headers: HeaderMap,
            body: Bytes,
        ) {
            let path = uri.path().to_owned();
            requests.lock().unwrap().push(Received { method, path, headers, body });
            tokio::time::sleep(delay).await;
        }
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::default();
        let routes = axum::Router::new().fallback(take).with_state((Arc::clone(&requests), delay));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, requests }
    }

    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }
}
