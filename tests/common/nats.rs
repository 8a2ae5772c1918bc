//! A real NATS server for a test, on a port that the system picks.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a start takes, unless it fails.
const START: Duration = Duration::from_secs(30);

/// A server with JetStream; it ends with this.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    pub port: u16,
}

impl NatsServer {
    /// Starts it with its files in a folder, where it finds again what an earlier one stored. Port 0 stands for any.
    pub fn start(folder: &Path, port: u16) -> Self {
        Self::with(folder, port, &[])
    }

    /// The same with more arguments.
    pub fn with(folder: &Path, port: u16, arguments: &[&str]) -> Self {
        let ports = folder.join("ports");
        let _ = fs::remove_dir_all(&ports);
        fs::create_dir(&ports).expect("a folder");
        let listen = if port == 0 { super::port::port() } else { port }.to_string();
        let child = Command::new("nats-server")
            .args(["--jetstream", "--addr", "127.0.0.1", "--port", &listen])
            .args(arguments)
            .arg("--store_dir")
            .arg(folder.join("nats"))
            .arg("--ports_file_dir")
            .arg(&ports)
            .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed by tests/run");
        let mut server = Self { child, port };
        let begun = Instant::now();
        loop {
            let file = fs::read_dir(&ports).ok().and_then(|mut files| files.next()?.ok());
            let text = file.and_then(|file| fs::read_to_string(file.path()).ok()).unwrap_or_default();
            let found: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let url = found.as_ref().and_then(|found| found["nats"][0].as_str().or(found["tls"][0].as_str()));
            if let Some(port) = url.and_then(|url| url.rsplit(':').next()?.parse().ok()) {
                server.port = port;
                return server;
            }
            assert!(begun.elapsed() < START, "nats-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of `url` for it.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
