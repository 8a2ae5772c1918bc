//! Attacks of strangers on the webhook listener and the admin endpoint on this machine. Run by hand:
//!
//! ```sh
//! cargo bench --bench strangers                # everything, ten minutes
//! cargo bench --bench strangers -- places      # one part: places, probes, bytes
//! ```
//!
//! Strangers and the client that signs are processes of their own, on the same processors. Strangers come again a
//! second after they had to go. Nothing is asserted about time.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a report for people"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod measure;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::certificate::certificate;
use common::strangers::{Kind, Listener, Twitch, address, stranger, unfinished};
use common::{Home, quick};
use eventsubd::admission::raise_descriptor_limit;
use measure::{Account, Helper, part};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOCKETS: usize = 2_000;
/// How long each attack is measured.
const SECONDS: u64 = 20;
/// Signed requests a second.
const RATE: u32 = 5;
/// How long the signed requests start after the strangers.
const HEAD_START: Duration = Duration::from_millis(200);

fn main() {
    raise_descriptor_limit();
    let arguments = measure::arguments();
    let runtime = measure::runtime();
    runtime.block_on(async {
        match arguments.first().map(String::as_str) {
            Some("hold") => return hold(&arguments[1..]).await,
            Some("fill") => return fill(&arguments[1..]).await,
            Some("ask") => return ask(&arguments[1..]).await,
            _ => {}
        }
        let wants = measure::wanted_parts();
        if wants("places") {
            for kind in Kind::ALL {
                for addresses in [1, 200] {
                    places(kind, addresses).await;
                }
            }
        }
        if wants("probes") {
            probes().await;
        }
        if wants("bytes") {
            for (what, mib, size) in [("1 MiB", 1, 1 << 20), ("the largest that is accepted", 0, 500 << 10)] {
                bytes(what, mib == 1, size).await;
            }
        }
    });
    runtime.shutdown_background();
}

/// Holds sockets until it is killed.
async fn hold(arguments: &[String]) {
    let to: SocketAddr = arguments[0].parse().unwrap();
    let kind = Kind::ALL[arguments[1].parse::<usize>().unwrap()];
    let addresses: usize = arguments[2].parse().unwrap();
    let bytes = kind.bytes();
    for nth in 0..SOCKETS {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let mut read = [0; 4_096];
            loop {
                if let Ok(mut stream) = stranger(address(nth, addresses), to, &bytes).await {
                    while stream.read(&mut read).await.is_ok_and(|read| read > 0) {}
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    std::future::pending::<()>().await;
}

/// Asks at the rate; prints how many were asked and answered, then the times in milliseconds, sorted.
async fn ask(arguments: &[String]) {
    let to: SocketAddr = arguments[0].parse().unwrap();
    let seconds: u64 = arguments[1].parse().unwrap();
    let certificate = arguments.get(2).map(PathBuf::from);
    let twitch = Twitch::new(to, certificate.as_deref());
    let begun = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    let requests = u32::try_from(seconds).unwrap() * RATE;
    for nth in 0..requests {
        tokio::time::sleep_until((begun + Duration::from_secs(1) * nth / RATE).into()).await;
        let twitch = twitch.clone();
        asking.spawn(async move {
            let begun = Instant::now();
            let answer = tokio::time::timeout(Duration::from_secs(10), twitch.ask(&format!("m-{nth}"))).await;
            matches!(answer, Ok(Ok(204))).then(|| begun.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut times: Vec<f64> = asking.join_all().await.into_iter().flatten().collect();
    times.sort_by(f64::total_cmp);
    let times: Vec<String> = times.iter().map(ToString::to_string).collect();
    println!("{requests} {}", times.join(" "));
}

fn report(what: &str, asked: f64, times: &[f64]) {
    println!(
        "{what}: {} of {asked} answered; median {:.1} ms, 99th percentile {:.1} ms, worst {:.1} ms (wanted: all, below 250)",
        times.len(),
        part(times, 0.5),
        part(times, 0.99),
        part(times, 1.0)
    );
}

async fn places(kind: Kind, addresses: usize) {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let tls = kind.needs_tls().then(|| folder.path().to_owned());
    let listener = Listener::start(tls.as_deref());
    let index = Kind::ALL.iter().position(|other| *other == kind).unwrap();
    let to = listener.address.to_string();
    let strangers = Helper::start(["hold".into(), to.clone(), index.to_string(), addresses.to_string()]);
    tokio::time::sleep(HEAD_START).await;
    let mut arguments = vec!["ask".into(), to, SECONDS.to_string()];
    arguments.extend(tls.map(|folder| folder.join("cert.pem").display().to_string()));
    let numbers = Helper::start(&arguments).output().await;
    let status = listener.status();
    drop(strangers);
    report(&format!("{kind:?}, {SOCKETS} sockets of {addresses} addresses"), numbers[0], &numbers[1..]);
    println!(
        "    {} connections, {} unproved, {} evicted, refused {:?}",
        status.connections, status.unproved, status.evicted, status.rejected
    );
    listener.end().await;
}

/// `/livez` of a real daemon under half heads.
async fn probes() {
    let home = Home::new(quick()).await;
    home.configure("[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ninja\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = home.start().await;
    daemon.converged().await;
    let to: SocketAddr = daemon.status().admin.unwrap().listen.parse().unwrap();
    let head = Kind::ALL.iter().position(|kind| *kind == Kind::Head).unwrap();
    for addresses in [1, 200] {
        let strangers =
            Helper::start(["hold".into(), to.to_string(), head.to_string(), addresses.to_string()]);
        tokio::time::sleep(HEAD_START).await;
        let (mut times, asked) = (Vec::new(), SECONDS as usize * RATE as usize);
        for _ in 0..asked {
            let begun = Instant::now();
            if tokio::time::timeout(Duration::from_secs(10), livez(to)).await.is_ok_and(|live| live) {
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(Duration::from_secs(1) / RATE).await;
        }
        drop(strangers);
        times.sort_by(f64::total_cmp);
        report(&format!("/livez under {SOCKETS} half heads of {addresses} addresses"), asked as f64, &times);
    }
    daemon.end().await;
}

async fn livez(to: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(to).await else { return false };
    let request = format!("GET /livez HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// Sends bodies of which the last byte is missing, and holds them; ends after some seconds.
async fn fill(arguments: &[String]) {
    let to: SocketAddr = arguments[0].parse().unwrap();
    let size: usize = arguments[1].parse().unwrap();
    let mut body = unfinished(size);
    if arguments[2] == "chunked" {
        body = chunked(size);
    }
    let body = std::sync::Arc::new(body);
    let mut filling = tokio::task::JoinSet::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    for nth in 0..512 {
        let body = std::sync::Arc::clone(&body);
        filling.spawn(async move {
            while tokio::time::Instant::now() < until {
                if let Ok(mut stream) = stranger(address(nth, 200), to, &body).await {
                    let mut read = [0; 256];
                    let _ = tokio::time::timeout_at(until, stream.read(&mut read)).await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    filling.join_all().await;
}

fn chunked(size: usize) -> Vec<u8> {
    let mut bytes = unfinished(100);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    bytes.truncate(end);
    let text = String::from_utf8(bytes).unwrap().replace("Content-Length: 100", "Transfer-Encoding: chunked");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(format!("\r\n\r\n{size:x}\r\n").as_bytes());
    bytes.resize(bytes.len() + size, b' ');
    bytes
}

async fn bytes(what: &str, chunked: bool, size: usize) {
    let listener = Listener::start(None);
    let twitch = Twitch::new(listener.address, None);
    assert_eq!(twitch.ask("first").await.unwrap(), 204);
    let before = Account::own().resident_mib();
    let encoding = if chunked { "chunked" } else { "announced" };
    let mut filling =
        Helper::start(&["fill".into(), listener.address.to_string(), size.to_string(), encoding.into()]);
    let (mut peak, mut answered, mut asked) = (before, 0, 0);
    while filling.0.try_wait().unwrap().is_none() {
        asked += 1;
        let answer = tokio::time::timeout(Duration::from_secs(5), twitch.ask(&format!("b-{asked}"))).await;
        answered += u64::from(matches!(answer, Ok(Ok(204))));
        peak = peak.max(Account::own().resident_mib());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let after = Account::own().resident_mib();
    let status = listener.status();
    println!(
        "bytes: 512 bodies of {what} ({encoding}) for 10 s: {before:.1} MiB before, {:.1} MiB more at the peak (wanted: 80), \
         {:.1} MiB more 20 s after it (wanted: 15); {answered} of {asked} signed requests answered meanwhile; {} evicted, \
         refused {:?}",
        peak - before,
        after - before,
        status.evicted,
        status.rejected
    );
    listener.end().await;
}
