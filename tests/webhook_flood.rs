//! A flood of forged requests, in a process of its own, so that its memory can be looked at.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventsubd::model::secret::Secret;
use eventsubd::model::time::Timestamp;
use eventsubd::model::webhook::{WebhookKey, WebhookKeys};
use eventsubd::store::{Store, StoreOptions};
use eventsubd::transport::HintCallback;
use eventsubd::transport::webhook::{Listen, Sockets, WebhookOptions, webhook};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(300);
const CONNECTIONS: usize = 32;
const FORGED: u64 = 50_000;
/// Forged requests before memory is looked at, so that buffers and threads have theirs.
const WARM: u64 = 5_000;

fn key(secret: &str) -> WebhookKey {
    WebhookKey::new(Secret::new(secret)).unwrap()
}

fn request(secret: &str, id: &str) -> Vec<u8> {
    let body = r#"{"subscription":{"id":"s","type":"t","version":"1"},"event":{}}"#;
    let time = Timestamp(SystemTime::now()).to_string();
    let signature = key(secret).signer.sign(id.as_bytes(), time.as_bytes(), body.as_bytes());
    format!(
        "POST /hook?key=00000000 HTTP/1.1\r\nHost: example.org\r\nContent-Length: {}\r\n\
         Twitch-Eventsub-Message-Id: {id}\r\nTwitch-Eventsub-Message-Type: notification\r\n\
         Twitch-Eventsub-Message-Timestamp: {time}\r\nTwitch-Eventsub-Message-Signature: {signature}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn answered(stream: &mut TcpStream, request: &[u8]) -> u16 {
    stream.write_all(request).await.unwrap();
    let (mut answer, mut length) = ([0; 1_024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut answer[length..]).await.unwrap();
        assert!(read > 0, "the connection ended");
        length += read;
    }
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

async fn flood(address: SocketAddr, requests: u64) {
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let forged = request("somebody-else's", "forged");
            for _ in 0..requests / CONNECTIONS as u64 {
                assert_eq!(answered(&mut stream, &forged).await, 403);
            }
        });
    }
    tasks.join_all().await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_requests_takes_no_memory_and_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let store =
        Store::open(StoreOptions::new(path, Duration::from_secs(86_400), 1 << 30, 64, 1 << 20)).unwrap();
    let listener = Sockets::none().bind(&Listen::Address("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = listener.local_addr().unwrap();
    let keys = WebhookKeys::new(key("a-secret-of-the-tests"), [key("the-one-before-it")]);
    let options = WebhookOptions::new("https://example.org/hook", listener, None, keys);
    let (_options, receiver) = watch::channel(Some(options));
    let (webhook, handle) = webhook(receiver, store.clone(), HintCallback(Arc::new(|_| {})), None);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(webhook.run(cancel.clone()));

    let (resident, good) = tokio::time::timeout(WAIT, async {
        flood(address, WARM).await;
        let resident = resident_kib();
        let flooding = tokio::spawn(flood(address, FORGED));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut good = 0;
        while !flooding.is_finished() || good == 0 {
            good += 1;
            let request = request("a-secret-of-the-tests", &format!("m-{good}"));
            assert_eq!(answered(&mut stream, &request).await, 204);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        flooding.await.unwrap();
        (resident, good)
    })
    .await
    .expect("in time");
    let grown = resident_kib().saturating_sub(resident);
    assert!(grown < 8 << 10, "memory grew by {grown} KiB");
    assert_eq!(store.last_seq().borrow().0, good);
    let refused = |status: &Option<eventsubd::model::status::WebhookStatus>| {
        status.as_ref().and_then(|s| s.rejected.get("signature").copied()).unwrap_or(0)
    };
    let rounded = |requests: u64| requests / CONNECTIONS as u64 * CONNECTIONS as u64;
    let expected = rounded(WARM) + rounded(FORGED);
    let mut status = handle.status.clone();
    let counted = status.wait_for(|status| refused(status) == expected);
    tokio::time::timeout(WAIT, counted).await.expect("in time").unwrap();
    cancel.cancel();
    task.await.unwrap();
}
