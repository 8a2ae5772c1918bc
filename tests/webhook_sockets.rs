//! Sockets that systemd passes: a process is started as systemd starts it, and serves on them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventsubd::model::secret::Secret;
use eventsubd::model::time::Timestamp;
use eventsubd::model::webhook::{WebhookKey, WebhookKeys};
use eventsubd::store::{Store, StoreOptions};
use eventsubd::transport::HintCallback;
use eventsubd::transport::webhook::{Listen, ListenError, Sockets, WebhookOptions, webhook};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(30);

fn key() -> WebhookKey {
    WebhookKey::new(Secret::new("a-secret-of-the-tests")).unwrap()
}

/// Starts one of the children below with these as descriptors 3 and 4.
fn start(child: &str, state: &Path, first: OwnedFd, second: OwnedFd) -> std::process::Child {
    Command::new("sh")
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\" 3<&0 4<&1 0</dev/null 1>&2", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", child])
        .env("STATE", state)
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .spawn()
        .unwrap()
}

fn ended(mut child: std::process::Child) -> ExitStatus {
    let begun = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > WAIT {
            let _ = child.kill();
            panic!("the child does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn post(mut stream: impl Read + Write, id: &str) -> String {
    let body = r#"{"subscription":{"id":"s","type":"stream.online","version":"1"},"event":{}}"#;
    let time = Timestamp(SystemTime::now()).to_string();
    let signature = key().signer.sign(id.as_bytes(), time.as_bytes(), body.as_bytes());
    let request = format!(
        "POST /hook HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\nContent-Length: {}\r\n\
         Twitch-Eventsub-Message-Id: {id}\r\nTwitch-Eventsub-Message-Type: notification\r\n\
         Twitch-Eventsub-Message-Timestamp: {time}\r\nTwitch-Eventsub-Message-Signature: {signature}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_process_serves_on_the_sockets_that_it_is_passed() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = tcp.local_addr().unwrap();
    let path = folder.path().join("hook.sock");
    let unix = UnixListener::bind(&path).unwrap();
    // Connections wait in the socket until the process is there, as with systemd.
    let over_tcp = TcpStream::connect(address).unwrap();
    let over_unix = UnixStream::connect(&path).unwrap();
    over_tcp.set_read_timeout(Some(WAIT)).unwrap();
    over_unix.set_read_timeout(Some(WAIT)).unwrap();
    let child = start("child_serves", folder.path(), tcp.into(), unix.into());
    let answers = [post(over_tcp, "m-1"), post(over_unix, "m-2")];
    let status = ended(child);
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 204")), "{answers:?}");
    assert!(status.success(), "{status}");
    let reader = eventsubd::store::Reader::open(&folder.path().join("events.db")).unwrap();
    assert_eq!(reader.newest().unwrap().0, 2);
}

#[test]
fn what_is_no_stream_socket_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    assert!(ended(start("child_refuses", folder.path(), tcp.into(), udp.into())).success());
}

#[tokio::test]
#[ignore = "started by a_process_serves_on_the_sockets_that_it_is_passed"]
async fn child_serves() {
    let sockets = Sockets::from_env();
    let listener = sockets.bind(&Listen::Systemd).unwrap();
    assert!(Arc::ptr_eq(&listener, &sockets.bind(&Listen::Systemd).unwrap()), "after a reload too");
    let path = Path::new(&std::env::var_os("STATE").unwrap()).join("events.db");
    let store =
        Store::open(StoreOptions::new(path, Duration::from_secs(86_400), 1 << 30, 64, 1 << 20)).unwrap();
    let keys = WebhookKeys::new(key(), []);
    let options = WebhookOptions::new("https://example.org/hook", listener, None, keys);
    let (_options, receiver) = watch::channel(Some(options));
    let (webhook, handle) = webhook(receiver, store.clone(), HintCallback(Arc::new(|_| {})), None);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(webhook.run(cancel.clone()));
    let mut status = handle.status.clone();
    let answered = status.wait_for(|status| status.as_ref().is_some_and(|status| status.requests == 2));
    let status = tokio::time::timeout(WAIT, answered).await.expect("in time").unwrap().clone().unwrap();
    assert_eq!(status.listen, "systemd");
    cancel.cancel();
    task.await.unwrap();
    store.close().await.unwrap();
}

#[test]
#[ignore = "started by what_is_no_stream_socket_is_refused"]
fn child_refuses() {
    let error = Sockets::from_env().bind(&Listen::Systemd).unwrap_err();
    assert!(matches!(error, ListenError::NoStream { number: 2 }), "{error}");
    assert!(error.to_string().contains("ListenStream="));
}
