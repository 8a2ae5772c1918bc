//! The daemon behind a real nginx that ends TLS, as the README has it, and with TLS by itself; the certificate
//! signs itself, and is trusted by the stand-in for Twitch and by the daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Home, Process, WAIT, certificate, command, converged, output, port, quick, status, text};
use eventsubd::auth::http_client;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const README: &str = include_str!("../README.md");

/// A client that trusts that certificate and no other.
fn trusting(folder: &Path) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    http_client("stand-in", tls).unwrap()
}

/// nginx; it ends with this.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the README's configuration with these ports and files.
fn nginx(folder: &Path, public: u16, inside: u16) -> Nginx {
    let server = README.split("```nginx\n").nth(1).expect("the README has one").split("```").next().unwrap();
    for part in [
        "listen 443 ssl;",
        "127.0.0.1:8080",
        "/etc/ssl/example.org/fullchain.pem",
        "/etc/ssl/example.org/key.pem",
    ] {
        assert!(server.contains(part), "{part}: {server}");
    }
    let file = |name: &str| folder.join(name).display().to_string();
    let server = server
        .replace("listen 443 ssl;", &format!("listen 127.0.0.1:{public} ssl;"))
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{inside}"))
        .replace("/etc/ssl/example.org/fullchain.pem", &file("cert.pem"))
        .replace("/etc/ssl/example.org/key.pem", &file("key.pem"))
        .replace("example.org", "localhost");
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", file(&format!("nginx-{name}"))))
        .concat();
    let all = format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {};\nerror_log {} warn;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{server}}}\n",
        file("nginx.pid"),
        file("nginx.log"),
    );
    fs::write(folder.join("nginx.conf"), all).unwrap();
    let child = Command::new("nginx")
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-p")
        .arg(folder)
        .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is installed: see tests/run");
    Nginx(child)
}

fn run(home: &Home) -> Process {
    let log = |name: &str| fs::OpenOptions::new().create(true).append(true).open(home.path(name)).unwrap();
    let mut command = command(home, &["run"]);
    command.env("SSL_CERT_FILE", home.path("cert.pem")).stdout(log("stdout.log")).stderr(log("stderr.log"));
    Process { child: command.spawn().expect("the program runs") }
}

async fn works(home: &Home) {
    let mut daemon = run(home);
    converged(home).await;
    assert_eq!(home.live(), 1, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
    let id = home.sandbox.trigger("stream.online", None).await.unwrap();
    let begun = Instant::now();
    while !fs::read_to_string(home.path("stdout.log")).unwrap().contains(&id) {
        assert!(begun.elapsed() < WAIT, "the event does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = status(home).await.webhook.expect("a listener");
    assert!(told.rejected.is_empty() && told.problem.is_none(), "{told:?}");
    let mut doctor = command(home, &["check", "--online"]);
    doctor.env("SSL_CERT_FILE", home.path("cert.pem"));
    let doctor = output(doctor).await;
    assert_eq!(doctor.status.code(), Some(0), "{}{}", text(&doctor.stdout), text(&doctor.stderr));
    // Without trust in the certificate the doctor says what Twitch would.
    let doctor = output(command(home, &["check", "--online"])).await;
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text(&doctor.stdout).contains("its certificate is not trusted"), "{}", text(&doctor.stdout));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

fn configure(home: &Home, public: u16, more: &str) {
    home.configure(&format!(
        "[transport]\nmethod = \"webhook\"\n\n[transport.webhook]\ncallback = \"https://localhost:{public}/eventsub\"\n{more}\n\n\
         [[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n"
    ));
}

async fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let mut options = quick();
    options.http = Some(trusting(folder.path()));
    let home = Home::new(options).await;
    for name in ["cert.pem", "key.pem"] {
        fs::copy(folder.path().join(name), home.path(name)).unwrap();
    }
    home
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_an_nginx_that_ends_tls() {
    let home = home().await;
    let (public, inside) = (port(), port());
    let _nginx = nginx(home.folder.path(), public, inside);
    configure(&home, public, &format!("listen = \"127.0.0.1:{inside}\""));
    works(&home).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_by_itself() {
    let home = home().await;
    let public = port();
    configure(
        &home,
        public,
        &format!("listen = \"127.0.0.1:{public}\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\""),
    );
    works(&home).await;
}
