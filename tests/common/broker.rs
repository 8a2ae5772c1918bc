//! Brokers for a test: real servers on a loopback port that is free.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a start takes, unless it fails.
const START: Duration = Duration::from_secs(30);

/// A server; it is killed when this goes, as `kill -9` does.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    pub port: u16,
}

impl Broker {
    /// Starts `mosquitto` with these further lines in its configuration. Its files are in a folder, where it finds again
    /// what an earlier one stored. Port 0 takes a free one.
    pub fn mosquitto(folder: &Path, port: u16, more: &str) -> Self {
        Self::start(port, |port| {
            let file = folder.join("mosquitto.conf");
            let text = format!(
                "user root\nlistener {port} 127.0.0.1\n{more}\npersistence true\npersistence_location {}/\n\
                 autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n",
                folder.display()
            );
            std::fs::write(&file, text).expect("a file");
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(file);
            command
        })
    }

    /// Starts `redis-server`, which syncs everything that it answers, with these further arguments.
    pub fn redis(folder: &Path, port: u16, more: &[&str]) -> Self {
        Self::start(port, |port| {
            let mut command = Command::new("redis-server");
            let port = port.to_string();
            let tls = more.contains(&"--tls-cert-file");
            command.args(if tls {
                ["--port", "0", "--tls-port", &port]
            } else {
                ["--port", &port, "--tls-port", "0"]
            });
            command.args([
                "--bind",
                "127.0.0.1",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
                "--dir",
            ]);
            command.arg(folder).args(more);
            command
        })
    }

    fn start(port: u16, command: impl Fn(u16) -> Command) -> Self {
        let begun = Instant::now();
        loop {
            let port = if port == 0 { super::port::port() } else { port };
            let mut child = command(port)
                .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the server is installed by tests/run");
            while child.try_wait().expect("a child").is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port };
                }
                assert!(begun.elapsed() < START, "the server does not start");
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(begun.elapsed() < START, "the server ends at once");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
