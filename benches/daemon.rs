//! Speed and size of the whole daemon, against the stand-in, on this machine. Run by hand:
//!
//! ```sh
//! cargo bench                  # everything, some minutes
//! cargo bench -- intake        # one part: create, restart, intake, memory, latency
//! ```
//!
//! Each part prints figures and a ratio within the same run; nothing is asserted about time.
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

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Home, Running, quick};
use eventsubd::daemon::{Daemon, DaemonOptions, Tuning};
use eventsubd::sandbox::SandboxOptions;
use eventsubd::store::Reader;
use measure::{Account, part};
use tokio_util::sync::CancellationToken;

const SUBSCRIPTIONS: usize = 10_000;
/// How much faster than Twitch's the rate limit of the stand-in refills, and the daemon believes it does.
const SCALE: u32 = 60;
const EVENTS: usize = 200_000;
const EVENT_SIZE: usize = 1_000;

fn main() {
    let wants = measure::wanted_parts();
    let runtime = measure::runtime();
    runtime.block_on(async {
        if wants("create") || wants("restart") {
            create_and_restart(Duration::ZERO).await;
            // Twitch is never as near as this machine: with its distance, what is not paging weighs less.
            create_and_restart(Duration::from_millis(20)).await;
        }
        if wants("intake") {
            intake().await;
        }
        if wants("memory") {
            memory().await;
        }
        if wants("latency") {
            Box::pin(latency()).await;
        }
    });
    runtime.shutdown_background();
}

fn scaled() -> SandboxOptions {
    SandboxOptions { refill_per_minute: 800 * SCALE, max_total_cost: 20_000, ..quick() }
}

fn configuration(home: &Home, count: usize, sink: &str) {
    let logins: String = (0..count).map(|n| format!("channel_{n}\n")).collect();
    fs::write(home.path("channels.txt"), logins).unwrap();
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n\n[sink.out]\ntype = \"stdout\"\n{sink}"
    ));
}

async fn create_and_restart(latency: Duration) {
    println!("create, restart: answers take {latency:?}");
    let home = Home::new(SandboxOptions { latency, ..scaled() }).await;
    configuration(&home, SUBSCRIPTIONS, "");
    let tuning = || Tuning {
        helix: Some(|helix| helix.refill_window = Duration::from_secs(60) / SCALE),
        ..Tuning::default()
    };
    let begun = Instant::now();
    let daemon = Running::start(home.load(), tuning()).await;
    let wait = async |daemon: &Running| {
        while !daemon.status().converged {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(&daemon).await;
    let took = begun.elapsed().as_secs_f64();
    let stats = home.sandbox.stats();
    let requests = stats.creates + stats.users + stats.lists + stats.conduits + stats.binds + stats.shards;
    // Points that are needed, and the time in which the bucket gives them.
    let allowed = (requests as f64 - 800.0) / (800.0 * f64::from(SCALE) / 60.0);
    println!(
        "create: {SUBSCRIPTIONS} subscriptions in {took:.2} s, the bucket allows {allowed:.2} s: ratio {:.3}",
        took / allowed
    );
    println!("create: {stats:?}");
    println!("create: 429 answers {}, requests {requests}", stats.rate_limited);
    daemon.end().await;

    // The bucket is full again, and paging alone is timed against the same stand-in.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = home.sandbox.stats();
    let begun = Instant::now();
    let daemon = Running::start(home.load(), tuning()).await;
    wait(&daemon).await;
    let restart = begun.elapsed().as_secs_f64();
    let after = home.sandbox.stats();
    daemon.end().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let pages = page_through(&home).await;
    let paging = begun.elapsed().as_secs_f64();
    println!(
        "restart: {restart:.3} s, paging alone ({pages} pages) {paging:.3} s: ratio {:.2}; created {}, deleted {}, users asked {}",
        restart / paging,
        after.creates - before.creates,
        after.deletes - before.deletes,
        after.users - before.users
    );
}

/// Reads the list as the daemon has to, with a client that does nothing else.
async fn page_through(home: &Home) -> usize {
    let http = eventsubd::daemon::connections().unwrap().client();
    let form = format!(
        "client_id={}&client_secret={}&grant_type=client_credentials",
        home.sandbox.client_id(),
        home.sandbox.client_secret()
    );
    let token = http
        .post(format!("{}/token", home.sandbox.auth_url()))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form);
    let token: serde_json::Value = token.send().await.unwrap().json().await.unwrap();
    let (mut pages, mut after) = (0, String::new());
    loop {
        let url = format!(
            "{}/eventsub/subscriptions?conduit_id={}&after={after}",
            home.sandbox.api_url(),
            home.conduit()
        );
        let url = if after.is_empty() { url.replace("&after=", "") } else { url };
        let page = http
            .get(url)
            .bearer_auth(token["access_token"].as_str().unwrap())
            .header("Client-Id", home.sandbox.client_id());
        let page: serde_json::Value = page.send().await.unwrap().json().await.unwrap();
        pages += 1;
        match page["pagination"]["cursor"].as_str() {
            Some(cursor) => cursor.clone_into(&mut after),
            None => return pages,
        }
    }
}

/// The program itself, so that its memory and its processor time are its own.
struct Program(Child);

impl Program {
    async fn start(home: &Home) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_eventsubd"))
            .args(["run", "--config"])
            .arg(home.path("config.toml"))
            .arg("--state-dir")
            .arg(home.path("state"))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self(child);
        while !program.is_converged(home).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        program
    }

    async fn is_converged(&self, home: &Home) -> bool {
        let mut status = Command::new(env!("CARGO_BIN_EXE_eventsubd"));
        status.args(["status", "--wait", "--timeout", "10m", "--config"]).arg(home.path("config.toml"));
        status.arg("--state-dir").arg(home.path("state")).stdout(Stdio::null()).stderr(Stdio::null());
        tokio::task::spawn_blocking(move || status.status().unwrap().success()).await.unwrap()
    }

    fn account(&self) -> Account {
        Account::of(&self.0)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn intake() {
    let home = Home::new(scaled()).await;
    // A sink that wants none of it: only the way to the store is measured.
    configuration(&home, 1, "types = [\"channel.follow\"]\n");
    let program = Program::start(&home).await;
    let reader = Reader::open(&home.path("state/events.db")).unwrap();
    let subscription = home.subscription("stream.online");
    let processor = program.account().processor_seconds();
    let begun = Instant::now();
    let sandbox = home.sandbox.clone();
    let flood = tokio::spawn(async move { sandbox.flood(&subscription, EVENTS, EVENT_SIZE).await.len() });
    while reader.newest().unwrap().0 < EVENTS as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let processor = program.account().processor_seconds() - processor;
    assert_eq!(flood.await.unwrap(), EVENTS);
    drop(program);
    let rate = EVENTS as f64 / took;
    let bare = bare_loop();
    println!(
        "intake: {rate:.0} events/s of {EVENT_SIZE} bytes from a socket to the synced store (the sender is on the same machine)"
    );
    println!("intake: a loop that only inserts the same rows: {bare:.0} events/s: ratio {:.2}", rate / bare);
    println!("intake: {:.1} processor seconds a million events", processor / EVENTS as f64 * 1e6);
}

/// Inserts rows of the same size into a table of the same form, 1,000 a transaction, synced.
fn bare_loop() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection
        .execute_batch(
            "CREATE TABLE events (seq INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, message_timestamp TEXT NOT NULL,
             type TEXT NOT NULL, version TEXT NOT NULL, subscription_id TEXT NOT NULL, stored_at INTEGER NOT NULL, payload BLOB) STRICT",
        )
        .unwrap();
    let payload = vec![b'x'; EVENT_SIZE - 250];
    let begun = Instant::now();
    for batch in 0..EVENTS / 1_000 {
        let transaction = connection.transaction().unwrap();
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO events (message_id, message_timestamp, type, version, subscription_id, stored_at, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
                .unwrap();
            for nth in 0..1_000 {
                let id = format!("{batch:08x}-{nth:04x}-4000-8000-{:012x}", batch * 1_000 + nth);
                let row = (
                    id,
                    "2026-11-02T09:00:01.512Z",
                    "stream.online",
                    "1",
                    "8a40b7de-0000-4000-8000-12ce99310007",
                    batch as i64,
                    &payload,
                );
                insert.execute(row).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    EVENTS as f64 / begun.elapsed().as_secs_f64()
}

async fn memory() {
    for (count, limit) in [(1, 25), (SUBSCRIPTIONS, 60)] {
        let home = Home::new(SandboxOptions { refill_per_minute: 800 * 600, ..scaled() }).await;
        configuration(&home, count, "");
        let program = Program::start(&home).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!(
            "memory: {:.1} MiB resident with {count} subscriptions (wanted: at most {limit})",
            program.account().resident_mib()
        );
    }
}

/// Standard output that notes when each line came.
#[derive(Clone, Default)]
struct Stamps(Arc<Mutex<Vec<Stamp>>>);

type Stamp = (Instant, Vec<u8>);

impl Write for Stamps {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push((Instant::now(), bytes.to_vec()));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn latency() {
    let home = Home::new(scaled()).await;
    configuration(&home, 1, "");
    let stamps = Stamps::default();
    let out = stamps.clone();
    let mut options = DaemonOptions::new(home.load());
    options.stdout = Some(Arc::new(move || Box::new(out.clone())));
    let daemon = Daemon::build(options).await.unwrap();
    let handle = daemon.handle();
    let stop = CancellationToken::new();
    let task = tokio::spawn(daemon.run(stop.clone(), CancellationToken::new()));
    while !eventsubd::admin::Control::status(&handle).converged {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let subscription = home.subscription("stream.online");
    let event = format!("{{\"filler\":\"{}\"}}", "x".repeat(500));
    let mut sent: HashMap<String, Instant> = HashMap::new();
    let mut timer = tokio::time::interval(Duration::from_millis(1));
    for _ in 0..10_000 {
        timer.tick().await;
        let at = Instant::now();
        sent.insert(home.sandbox.send_event(&subscription, &event).await.unwrap(), at);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    task.await.unwrap();
    let mut times: Vec<f64> = Vec::new();
    for (at, bytes) in stamps.0.lock().unwrap().iter() {
        for id in common::ids(bytes) {
            times.push(at.duration_since(sent[&id]).as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "latency: {} events at 1,000 a second, from the stand-in to the sink: median {:.2} ms, 99th percentile {:.2} ms, worst {:.2} ms",
        times.len(),
        part(&times, 0.5),
        part(&times, 0.99),
        part(&times, 1.0)
    );
}
