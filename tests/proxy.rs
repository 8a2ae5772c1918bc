//! The daemon, and its endpoint for people, behind a real nginx and a real Caddy that end TLS, as the documentation has them,
//! and with TLS by itself; the certificate signs itself, and is trusted by the stand-in for Twitch and by the daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::certificate::certificate;
use common::{Home, Process, WAIT, command, converged, log, output, port, quick, status, text};
use eventsubd::auth::http_client;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const WEBHOOKS: &str = include_str!("../docs/webhooks.md");
const GRANTS: &str = include_str!("../docs/grants.md");
const ADMIN: &str = include_str!("../docs/admin-endpoint.md");
/// Paths that are not the callback's.
const ASTRAY: [&str; 3] = ["/", "/other", "/eventsub/"];

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

/// Which page shows the configuration of a proxy.
#[derive(Clone, Copy)]
enum Snippet {
    Webhooks,
    Admin,
    Invites,
}

/// Returns it in the language of a proxy, with the first of each pair replaced by the second.
fn snippet(language: &str, which: Snippet, changes: &[(&str, String)]) -> String {
    let opening = format!("```{language}\n");
    let page = match which {
        Snippet::Webhooks => WEBHOOKS,
        Snippet::Admin => ADMIN,
        Snippet::Invites => GRANTS,
    };
    let shown = page.split(&opening).nth(1).expect("the page has it");
    let shown = shown.split("```").next().unwrap();
    changes.iter().fold(shown.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}: {text}");
        text.replace(old, new)
    })
}

/// The address that the documented proxy forwards to.
fn inner(which: Snippet) -> &'static str {
    match which {
        Snippet::Webhooks => "127.0.0.1:8080",
        Snippet::Admin => "127.0.0.1:9464",
        Snippet::Invites => "127.0.0.1:8081",
    }
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// nginx with the documented configuration, these ports and the certificate of the folder.
fn nginx(folder: &Path, which: Snippet, public: u16, inside: u16) -> Command {
    let inside = format!("127.0.0.1:{inside}");
    let (certificate, key) = (file(folder, "cert.pem"), file(folder, "key.pem"));
    let server = match which {
        Snippet::Webhooks => snippet(
            "nginx",
            which,
            &[
                ("listen 443 ssl;", format!("listen 127.0.0.1:{public} ssl;")),
                ("127.0.0.1:8080", inside),
                ("/etc/ssl/example.org/fullchain.pem", certificate),
                ("/etc/ssl/example.org/key.pem", key),
                ("example.org", "localhost".to_owned()),
            ],
        ),
        Snippet::Admin | Snippet::Invites => format!(
            "server {{\nlisten 127.0.0.1:{public} ssl;\nserver_name localhost;\nssl_certificate {certificate};\n\
             ssl_certificate_key {key};\n{}}}\n",
            snippet("nginx", which, &[(inner(which), inside)])
        ),
    };
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", file(folder, &format!("nginx-{name}"))))
        .concat();
    let all = format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {};\nerror_log stderr warn;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{server}}}\n",
        file(folder, "nginx.pid"),
    );
    fs::write(file(folder, "nginx.conf"), all).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file(folder, "nginx.conf")).arg("-p").arg(folder);
    command
}

/// The same with Caddy, which by itself would ask a CA for a certificate and listen on fixed ports.
fn caddy(folder: &Path, which: Snippet, public: u16, inside: u16) -> Command {
    let name = match which {
        Snippet::Webhooks | Snippet::Invites => "example.org {",
        Snippet::Admin => "eventsubd.example.org {",
    };
    let site = snippet(
        "caddyfile",
        which,
        &[
            (name, format!("localhost {{\n    tls {} {}", file(folder, "cert.pem"), file(folder, "key.pem"))),
            (inner(which), format!("127.0.0.1:{inside}")),
        ],
    );
    // HTTP/3 would need a free UDP port of that number.
    let options = format!(
        "admin off\nauto_https off\ndefault_bind 127.0.0.1\nhttps_port {public}\nservers {{\nprotocols h1 h2\n}}"
    );
    fs::write(file(folder, "Caddyfile"), format!("{{\n{options}\n}}\n{site}")).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file(folder, "Caddyfile"));
    command
}

/// Starts a proxy, and waits until it takes connections.
async fn proxy(home: &Home, mut command: Command, public: u16) -> Process {
    // Caddy writes its state below HOME.
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
        .env("HOME", home.folder.path())
        .stdin(Stdio::null())
        .stdout(log(home, "proxy.log"))
        .stderr(log(home, "proxy.log"));
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    let mut proxy = Process { child };
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", public)).is_err() {
        let ended = proxy.child.try_wait().unwrap();
        let told = || fs::read_to_string(home.path("proxy.log")).unwrap();
        assert!(ended.is_none() && begun.elapsed() < WAIT, "{ended:?}: {}", told());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy
}

fn run(home: &Home) -> Process {
    Process::start_with(home, "SSL_CERT_FILE", home.path("cert.pem"))
}

/// Runs the daemon, which shall have to reject so many requests.
async fn works(home: &Home, public: u16, rejected: u64) {
    let mut daemon = run(home);
    converged(home).await;
    assert_eq!(home.live(), 1, "{}", fs::read_to_string(home.path("stderr.log")).unwrap());
    // A 2xx would tell Twitch that an event has arrived.
    let client = trusting(home.folder.path());
    for path in ASTRAY {
        let request = client.post(format!("https://localhost:{public}{path}")).body("{}").timeout(WAIT);
        let answer = request.send().await.unwrap().status();
        assert!(answer.is_client_error(), "{path}: {answer}");
    }
    // Nearly as large as Twitch's largest, and written as no library would write it again.
    let event = format!(r#"{{"n":1.50, "text":"é\u00E9\/", "filler":"{}"}}"#, "x".repeat(200_000));
    let id = home.sandbox.send_event(&home.subscription("stream.online"), &event).await.unwrap();
    let begun = Instant::now();
    let told = loop {
        let delivered = text(&fs::read(home.path("stdout.log")).unwrap());
        let status = status(home).await;
        // Counts are published together, a little later.
        if delivered.contains(&id) && delivered.contains(&event) && status.intake.received > 0 {
            break status.webhook.expect("a listener");
        }
        assert!(begun.elapsed() < WAIT, "the event does not come: {:?}", status.webhook);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(told.rejected.values().sum::<u64>() == rejected && told.problem.is_none(), "{told:?}");
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

type Proxy = fn(&Path, Snippet, u16, u16) -> Command;

async fn works_behind(command: Proxy) {
    let home = home().await;
    let (public, inside) = (port(), port());
    let _proxy = proxy(&home, command(home.folder.path(), Snippet::Webhooks, public, inside), public).await;
    configure(&home, public, &format!("listen = \"127.0.0.1:{inside}\""));
    works(&home, public, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_an_nginx_that_ends_tls() {
    works_behind(nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_caddy_that_ends_tls() {
    works_behind(caddy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_for_whoever_has_the_token_behind_either_of_them() {
    const TOKEN: &str = "an-admin-token-of-this-test";
    for command in [nginx as Proxy, caddy] {
        let home = home().await;
        let (public, inside) = (port(), port());
        let _proxy = proxy(&home, command(home.folder.path(), Snippet::Admin, public, inside), public).await;
        fs::write(home.path("token"), TOKEN).unwrap();
        fs::set_permissions(home.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
        home.configure(&format!(
            "[admin]\nlisten = \"127.0.0.1:{inside}\"\ntoken_file = \"token\"\ntrusted_proxies = [\"127.0.0.1\"]\n\n\
             [[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n"
        ));
        let mut daemon = run(&home);
        converged(&home).await;

        let client = trusting(home.folder.path());
        let url = format!("https://localhost:{public}");
        let get = |path: &str| client.get(format!("{url}{path}")).timeout(WAIT);
        let form = get("/").send().await.unwrap();
        assert_eq!(form.status(), 401);
        assert!(form.text().await.unwrap().contains("action=\"/login\""));
        let login = |origin: &str| {
            let post = client.post(format!("{url}/login")).timeout(WAIT).header("origin", origin);
            post.body(format!("token={TOKEN}")).send()
        };
        assert_eq!(login("https://example.org").await.unwrap().status(), 403);
        let answer = login(&url).await.unwrap();
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; Secure"), "{cookie}");
        // A client that sends no origin is believed to use TLS since the proxy says so.
        let post = client.post(format!("{url}/login")).timeout(WAIT).body(format!("token={TOKEN}"));
        let other = post.send().await.unwrap().headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(other.ends_with("; Secure") && other != cookie, "{other}");
        let cookie = cookie.split(';').next().unwrap();
        let page = get("/").header("cookie", cookie).send().await.unwrap();
        assert_eq!(page.status(), 200);
        // The live tail comes through at once, and not when there is enough of it.
        let mut tail = get("/events").header("cookie", cookie).send().await.unwrap();
        let mut read = String::new();
        for part in ["retry: ", "\ndata: "] {
            while !read.contains(part) {
                read += &text(&tail.chunk().await.unwrap().expect("it goes on"));
            }
            home.sandbox.trigger("stream.online", None).await.unwrap();
        }
        drop(tail);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invited_users_come_in_behind_either_of_them() {
    for command in [nginx as Proxy, caddy] {
        let home = home().await;
        let (public, inside) = (port(), port());
        let _proxy =
            proxy(&home, command(home.folder.path(), Snippet::Invites, public, inside), public).await;
        let uri = format!("https://localhost:{public}/authorize");
        home.configure(&format!(
            "[authorize]\nredirect_uri = \"{uri}\"\nlisten = \"127.0.0.1:{inside}\"\n\n\
             [[subscription]]\ntype = \"channel.poll.begin\"\nbroadcaster = \"ann\"\n"
        ));
        let mut daemon = run(&home);
        converged(&home).await;
        let link = output(common::command(&home, &["authorize", "--link", "--user", "ann"])).await;
        let link = text(&link.stdout).split_whitespace().last().unwrap().to_owned();
        let client = trusting(home.folder.path());
        let page = client.get(&link).timeout(WAIT).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(page.text().await.unwrap().contains("channel:read:polls"));
        let invite = link.split_once("invite=").unwrap().1;
        let go = |origin: String| {
            let post = client.post(&uri).timeout(WAIT).header("origin", origin);
            post.form(&[("invite", invite)]).send()
        };
        assert_eq!(go("https://example.org".to_owned()).await.unwrap().status(), 400);
        let answer = go(format!("https://localhost:{public}")).await.unwrap();
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        for path in ["/", "/other", "/authorize/"] {
            let astray = client.get(format!("https://localhost:{public}{path}")).timeout(WAIT).send().await;
            assert_eq!(astray.unwrap().status(), 404, "{path}");
        }
        let mut doctor = common::command(&home, &["check", "--online"]);
        doctor.env("SSL_CERT_FILE", home.path("cert.pem"));
        let doctor = output(doctor).await;
        assert!(text(&doctor.stdout).contains(&format!("{uri} is there")), "{}", text(&doctor.stdout));
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended().await.code(), Some(0));
    }
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
    works(&home, public, ASTRAY.len() as u64).await;
}
