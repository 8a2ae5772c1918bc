//! A Twitch that has gone mad: floods of pings and garbage, and lists without end. Memory and log stay bounded.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Home, Process, quick, text};
use eventsubd::auth::{Credentials, Keeper, Outward, Proxies, TokenOptions, tls_config};
use eventsubd::helix::{Filter, Helix, HelixOptions};
use eventsubd::model::secret::Secret;
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(60);
/// Memory that a flood may add to the process, in KiB.
const GROWTH: usize = 32 << 10;

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A server that greets each WebSocket and then sends these bytes until the connection breaks, without reading.
/// Returns its address and the number of connections that it has flooded to their end.
async fn flooder(frame: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (frame, count) = (frame.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                let welcome = r#"{"metadata":{"message_id":"m","message_type":"session_welcome","message_timestamp":"t"},"payload":{"session":{"id":"mad"}}}"#;
                let _ = socket.send(Message::text(welcome)).await;
                let mut stream = socket.into_inner();
                let many = frame.repeat(200);
                for _ in 0..2_000 {
                    if stream.write_all(&many).await.is_err() {
                        break;
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (url, ended)
}

/// Runs the daemon against a flood until some connections were flooded; its log, and how much its memory grew.
async fn flooded(frame: Vec<u8>, until: usize) -> (String, usize) {
    let (url, ended) = flooder(frame).await;
    let home = Home::new(quick()).await;
    home.configure("[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n");
    let path = home.path("config.toml");
    let file = std::fs::read_to_string(&path).unwrap();
    let file: Vec<String> = file
        .lines()
        .map(|line| {
            if line.starts_with("eventsub_url") {
                format!("eventsub_url = \"{url}\"")
            } else {
                line.to_owned()
            }
        })
        .collect();
    std::fs::write(&path, file.join("\n")).unwrap();
    let daemon = Process::start(&home, "info");
    let pid = daemon.child.id();
    let begun = std::time::Instant::now();
    let mut first = None;
    while ended.load(Ordering::SeqCst) < until {
        assert!(begun.elapsed() < WAIT, "the flood never ends: {} connections", ended.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let log = std::fs::read_to_string(home.path("stderr.log")).unwrap_or_default();
        if log.contains("created a conduit") {
            first.get_or_insert_with(|| resident(pid));
        }
    }
    let growth = resident(pid).saturating_sub(first.expect("a conduit before the first socket"));
    drop(daemon);
    (text(&std::fs::read(home.path("stderr.log")).unwrap()), growth)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_ends_the_connection_and_costs_no_memory() {
    let ping = [&[0x89, 0x7d][..], &[b'x'; 125]].concat();
    let (log, growth) = flooded(ping, 2).await;
    assert!(log.contains("more than 100 pings in a second"), "{log}");
    assert!(growth < GROWTH, "{growth} KiB");
    assert!(log.len() < 64 << 10, "{} bytes of log", log.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_one_line_of_log() {
    let (log, growth) = flooded([&[0x81, 0x10][..], b"{\"metadata\":0}  "].concat(), 1).await;
    assert_eq!(log.matches("a message of Twitch cannot be read").count(), 1, "400,000 frames: {log}");
    assert!(growth < GROWTH, "{growth} KiB");
}

/// An API that answers every list with a page and another cursor.
async fn endless(row: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pages = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (row, pages) = (row.clone(), Arc::clone(&pages));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let body = if head.starts_with(b"POST /oauth2/token") {
                    r#"{"access_token":"abc","expires_in":3600}"#.to_owned()
                } else {
                    let page = pages.fetch_add(1, Ordering::SeqCst);
                    format!(r#"{{"data":[{row}],"pagination":{{"cursor":"{page}"}}}}"#)
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    url
}

async fn list(row: String) -> String {
    let url = endless(row).await;
    let outward = Outward::new("test", tls_config().unwrap(), Proxies::default()).unwrap();
    let options =
        TokenOptions { auth_url: format!("{url}/oauth2"), validate_interval: Duration::from_secs(3600) };
    let (_options, options) = watch::channel(options);
    let credentials = Credentials { client_id: "id".to_owned(), client_secret: Secret::new("secret") };
    let (_credentials, credentials) = watch::channel(credentials);
    let (keeper, tokens) = Keeper::new(outward.clone(), options, credentials);
    let cancel = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(cancel.clone()));
    let helix = Helix::new(outward, HelixOptions::new(format!("{url}/helix")), tokens);
    let outcome = tokio::time::timeout(WAIT, helix.subscriptions(&Filter::All, |_| {})).await.unwrap();
    cancel.cancel();
    keeper.await.unwrap();
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let error = list(String::new()).await;
    assert!(error.contains("21 pages without a row"), "{error}");
    // A row of a megabyte that is thrown away: the bytes count that had to be read.
    let error = list(format!(r#"{{"id":"s","junk":"{}"}}"#, "x".repeat(1_000_000))).await;
    assert!(error.contains("the list does not end: ") && error.contains("128 MiB"), "{error}");
}
