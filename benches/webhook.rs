//! Speed of the webhook listener on this machine, with its sender on the same processors. Run by hand:
//!
//! ```sh
//! cargo bench --bench webhook                  # everything, some minutes
//! cargo bench --bench webhook -- throughput    # one part: throughput, latency, flood
//! ```
//!
//! The sender is a process of its own. What it asks for is compared with a bare handler, asked by the same
//! sender in the same run, that checks the signature and does nothing else. Nothing is asserted about time.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a report for people"
)]

mod measure;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventsubd::model::secret::Secret;
use eventsubd::model::webhook::{WebhookKey, WebhookKeys};
use eventsubd::store::{Store, StoreOptions};
use eventsubd::transport::HintCallback;
use eventsubd::transport::webhook::{Listen, Sockets, WebhookHandle, WebhookOptions, webhook};
use measure::sender::{Order, bare, send};
use measure::{Account, median};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "a-secret-of-the-benchmark";
const PATH: &str = "/twitch/main";
const ROUNDS: usize = 5;

fn main() {
    let arguments = measure::arguments();
    if arguments.first().is_some_and(|first| first == "send") {
        return send(&arguments[1..]);
    }
    let wants = measure::wanted_parts();
    let runtime = measure::runtime();
    runtime.block_on(async {
        if wants("throughput") {
            for connections in [64, 256] {
                throughput(connections).await;
            }
        }
        if wants("latency") {
            latency().await;
        }
        if wants("flood") {
            flood().await;
        }
    });
    runtime.shutdown_background();
}

/// An order for a listener of this process.
fn order(address: SocketAddr, connections: usize, requests: usize, rate: u64, run: u64) -> Order {
    let (path, secret) = (PATH.to_owned(), SECRET.to_owned());
    Order { address, path, secret, connections, requests, rate, forged: false, run }
}

struct Ours {
    address: SocketAddr,
    cancel: CancellationToken,
    store: Store,
    handle: WebhookHandle,
    _options: watch::Sender<Option<WebhookOptions>>,
    _folder: tempfile::TempDir,
}

fn ours() -> Ours {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    // The bounds of the daemon.
    let options = StoreOptions::new(path, Duration::from_secs(7 * 86_400), 2 << 30, 10_000, 32 << 20);
    let store = Store::open(options).unwrap();
    let listener = Sockets::none().bind(&Listen::Address("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = listener.local_addr().unwrap();
    let keys = WebhookKeys::new(WebhookKey::new(Secret::new(SECRET)).unwrap(), []);
    let options = WebhookOptions::new(format!("https://hooks.example.net{PATH}"), listener, None, keys);
    let (sender, receiver) = watch::channel(Some(options));
    let on_hint = HintCallback(Arc::new(|_| {}));
    let (webhook, handle) = webhook(receiver, store.clone(), on_hint, None);
    let cancel = CancellationToken::new();
    tokio::spawn(webhook.run(cancel.clone()));
    Ours { address, cancel, store, handle, _options: sender, _folder: folder }
}

async fn throughput(connections: usize) {
    let requests = 60_000;
    let order = |address, run| order(address, connections, requests, 0, run);
    let timed = async |order: Order| {
        let processor = Account::own().processor_seconds();
        let report = order.run().await;
        let cost = (Account::own().processor_seconds() - processor) / requests as f64 * 1e6;
        (requests as f64 / report.seconds, cost, report.busy)
    };
    let (mut rates, mut bares, mut ratios) = (vec![], vec![], vec![]);
    let (mut costs, mut bare_costs, mut busy, mut bare_busy) = (vec![], vec![], vec![], vec![]);
    let address = bare(PATH, SECRET).await;
    let ours = ours();
    for run in 0..ROUNDS as u64 {
        let bare = timed(order(address, run)).await;
        let own = timed(order(ours.address, run)).await;
        assert_eq!(ours.store.last_seq().borrow().0, (run + 1) * requests as u64, "all of them are stored");
        rates.push(own.0);
        bares.push(bare.0);
        ratios.push(own.0 / bare.0);
        costs.push(own.1);
        bare_costs.push(bare.1);
        busy.push(own.2);
        bare_busy.push(bare.2);
    }
    ours.cancel.cancel();
    ours.store.close().await.unwrap();
    let status = ours.store.status().borrow().clone();
    println!(
        "throughput, {connections} connections: {:.0} notifications/s answered after a synced commit, a bare handler \
         {:.0}/s: ratio {:.2} (rounds: {})",
        median(rates),
        median(bares),
        median(ratios.clone()),
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
    );
    println!(
        "throughput, {connections} connections: {:.1} processor seconds a million, a bare handler {:.1}; rows a \
         commit {:.1}, a commit {:.2} ms; the sender works {:.0} % of the time, and {:.0} % with the bare handler",
        median(costs),
        median(bare_costs),
        status.last_seq.0 as f64 / status.commits.count as f64,
        status.commits.total_micros as f64 / status.commits.count as f64 / 1e3,
        median(busy) * 100.0,
        median(bare_busy) * 100.0,
    );
}

async fn latency() {
    let ours = ours();
    let report = order(ours.address, 64, 20_000, 2_000, 0).run().await;
    ours.cancel.cancel();
    println!(
        "latency at 2,000 a second: median {:.2} ms, 99th percentile {:.2} ms, worst {:.2} ms (wanted: 99th below 20)",
        report.median, report.high, report.worst
    );
}

async fn flood() {
    let ours = ours();
    let forged = Order { forged: true, ..order(ours.address, 64, 50_000, 0, 0) };
    let good = order(ours.address, 8, 50, 100, 1);
    // Connections and threads have their memory before it begins.
    Order { requests: 1_000, ..forged.clone() }.run().await;
    let before = Account::own().resident_mib();
    let begun = Instant::now();
    let flooding = tokio::spawn(async move { forged.run().await });
    let report = good.run().await;
    let in_time = !flooding.is_finished();
    let flood = flooding.await.unwrap();
    let grown = Account::own().resident_mib() - before;
    let mut status = ours.handle.status.clone();
    let status = status.wait_for(|s| s.as_ref().is_some_and(|s| s.requests == 51_050)).await.unwrap().clone();
    ours.cancel.cancel();
    println!(
        "flood: 50,000 forged requests in {:.2} s, memory grew by {grown:.1} MiB; refused: {:?}",
        flood.seconds,
        status.unwrap().rejected
    );
    println!(
        "flood: good requests among them: median {:.2} ms, 99th percentile {:.2} ms, worst {:.2} ms (wanted: below \
         100); the flood lasted longer than they did: {in_time} ({:.2} s)",
        report.median,
        report.high,
        report.worst,
        begun.elapsed().as_secs_f64()
    );
}
