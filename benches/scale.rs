//! Speed and size of the program with as many subscriptions as the largest users have, against the stand-in, on this
//! machine. Run by hand:
//!
//! ```sh
//! cargo bench --bench scale                    # everything, about four minutes
//! cargo bench --bench scale -- large           # one part: tiny, small, large, create, shards
//! ```
//!
//! Each part prints figures; nothing is asserted about time. The stand-in is seeded quickly. What is measured then has
//! Twitch's own rate limit of 800 points a minute and 40 ms an answer, unscaled.
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

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{EXE, Home, port, quick};
use eventsubd::sandbox::SandboxOptions;
use measure::Account;
use rustix::process::{Pid, Signal, kill_process};

/// Types of each channel; a subscription to each costs nothing in the stand-in once it is seeded.
const TYPES: [&str; 2] = ["stream.online", "stream.offline"];
/// Answer time of the API, as from a server in Europe.
const LATENCY: Duration = Duration::from_millis(40);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(240);

fn main() {
    let wants = measure::wanted_parts();
    let runtime = measure::runtime();
    runtime.block_on(async {
        for (part, channels) in [("tiny", 5), ("small", 500), ("large", 65_000)] {
            if wants(part) {
                Scale::new(channels).await.measure().await;
            }
        }
        if wants("create") {
            create().await;
        }
        if wants("shards") {
            shards().await;
        }
    });
    runtime.shutdown_background();
}

/// A stand-in with the subscriptions of many channels, and the program's files.
struct Scale {
    home: Home,
    conduit: String,
    channels: usize,
    admin: u16,
}

impl Scale {
    async fn new(channels: usize) -> Self {
        let home = Home::new(SandboxOptions {
            bucket: 1_000_000,
            refill_per_minute: 1_000_000,
            max_total_cost: 1_000_000,
            keepalive_unit: Duration::from_secs(1),
            ..quick()
        })
        .await;
        let conduit = home.sandbox.create_conduit(2);
        let scale = Self { home, conduit, channels, admin: port() };
        for nth in 0..channels {
            let id = scale.home.sandbox.user_id(&login(nth)).unwrap();
            for name in TYPES {
                let condition = [("broadcaster_user_id", &*id)];
                scale.home.sandbox.add_subscription(name, "1", &condition, Some(&scale.conduit));
            }
        }
        scale.configure(channels);
        scale
    }

    fn configure(&self, channels: usize) {
        let logins: String = (0..channels).map(|nth| format!("{}\n", login(nth))).collect();
        fs::write(self.home.path("channels.txt"), logins).unwrap();
        let rest = format!(
            "[admin]\nlisten = \"127.0.0.1:{}\"\n\n[[subscription]]\ntype = [\"{}\", \"{}\"]\n\
             broadcaster_file = \"channels.txt\"\n\n[sink.out]\ntype = \"stdout\"\n",
            self.admin, TYPES[0], TYPES[1]
        );
        self.home.configure(&rest);
        let text = fs::read_to_string(self.home.path("config.toml")).unwrap();
        let section = format!("[transport.conduit]\nid = \"{}\"\n", self.conduit);
        fs::write(self.home.path("config.toml"), text.replace("[transport.conduit]\n", &section)).unwrap();
    }

    fn as_twitch(&self) {
        self.home.sandbox.set_pace(800, 800, LATENCY);
        self.home.sandbox.lowest_points();
    }

    async fn measure(self) {
        let sandbox = self.home.sandbox.clone();
        let subscriptions = self.channels * TYPES.len();
        println!("\n{subscriptions} subscriptions");
        // The first start looks up the logins.
        let program = Program::start(&self.home);
        until("the first comparison", async || self.is_converged(subscriptions).await).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!(
            "first start: {:.1} MiB resident, peak {:.1}",
            program.account().resident_mib(),
            program.account().peak_mib()
        );
        program.end().await;

        self.as_twitch();
        let before = sandbox.stats();
        let begun = Instant::now();
        let program = Program::start(&self.home);
        until("bound", async || self.bound() == 2).await;
        let bound = begun.elapsed();
        until("ready", async || self.is_ready().await).await;
        let ready = begun.elapsed();
        let requests = sandbox.stats().requests - before.requests;
        until("converged", async || self.is_converged(subscriptions).await).await;
        let converged = begun.elapsed();
        let after = sandbox.stats();
        println!(
            "restart unchanged: shards bound {:.2} s, ready {:.2} s ({requests} requests), compared {:.1} s \
             ({} requests, {} of them pages); the bucket's lowest point {:.0} of 800, 429 answers {}",
            bound.as_secs_f64(),
            ready.as_secs_f64(),
            converged.as_secs_f64(),
            after.requests - before.requests,
            after.lists - before.lists,
            sandbox.lowest_points(),
            after.rate_limited
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!(
            "idle: {:.1} MiB resident, peak {:.1}",
            program.account().resident_mib(),
            program.account().peak_mib()
        );
        self.answers().await;

        // The bucket is full for each.
        self.as_twitch();
        self.reload(self.channels + 1, "one login more").await;
        self.as_twitch();
        self.reload(self.channels, "one login less").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!(
            "after two reloads: {:.1} MiB resident, peak {:.1}; {:.2} processor seconds in all",
            program.account().resident_mib(),
            program.account().peak_mib(),
            program.account().processor_seconds()
        );
        program.end().await;
    }

    async fn reload(&self, channels: usize, what: &str) {
        let sandbox = &self.home.sandbox;
        let before = sandbox.stats();
        self.configure(channels);
        let begun = Instant::now();
        let answer = common::output(common::command(&self.home, &["reload"])).await;
        assert!(answer.status.success(), "{}", common::text(&answer.stderr));
        let command = begun.elapsed();
        let wanted = channels * TYPES.len();
        until(what, async || sandbox.subscription_count() == wanted).await;
        let done = begun.elapsed();
        let after = sandbox.stats();
        println!(
            "{what}: the command {:.2} s, done {:.2} s, {} requests",
            command.as_secs_f64(),
            done.as_secs_f64(),
            after.requests - before.requests
        );
        until("converged", async || self.is_converged(wanted).await).await;
    }

    async fn answers(&self) {
        for path in
            ["/status", "/metrics", "/", "/?q=channel_17", "/subscriptions?state=enabled&q=channel_17"]
        {
            let begun = Instant::now();
            let Some(body) = self.get(path).await else {
                println!("{path}: no such path");
                continue;
            };
            println!("{path}: {} bytes in {:.1} ms", body.len(), begun.elapsed().as_secs_f64() * 1e3);
        }
        for arguments in [&["status"][..], &["status", "--json"], &["status", "--json", "--subscriptions"]] {
            let begun = Instant::now();
            let answer = common::output(common::command(&self.home, arguments)).await;
            println!(
                "{}: {} bytes in {:.0} ms",
                arguments.join(" "),
                answer.stdout.len(),
                begun.elapsed().as_secs_f64() * 1e3
            );
        }
    }

    /// The body of an answer with 200.
    async fn get(&self, path: &str) -> Option<Vec<u8>> {
        let http = eventsubd::daemon::connections().unwrap().client();
        let answer = http.get(format!("http://127.0.0.1:{}{path}", self.admin)).send().await.ok()?;
        let answer = answer.error_for_status().ok()?;
        Some(answer.bytes().await.ok()?.to_vec())
    }

    fn bound(&self) -> usize {
        let shards = self.home.sandbox.shards(&self.conduit);
        let live = self.home.sandbox.sessions();
        let is_live = |session: &Option<String>| session.as_ref().is_some_and(|id| live.contains(id));
        shards.iter().filter(|(_, status, session)| status == "enabled" && is_live(session)).count()
    }

    async fn is_ready(&self) -> bool {
        self.get("/readyz").await.is_some()
    }

    /// Whether the daemon says that so many subscriptions match.
    async fn is_converged(&self, wanted: usize) -> bool {
        let metrics = self.get("/metrics").await.unwrap_or_default();
        let metrics = String::from_utf8_lossy(&metrics);
        let value = |name: &str| -> f64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        value("eventsubd_converged") > 0.5 && value("eventsubd_subscriptions{") as usize >= wanted
    }
}

fn login(nth: usize) -> String {
    format!("channel_{nth}")
}

async fn until(what: &str, mut like: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !like().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The program itself, so that its memory and its processor time are its own.
struct Program(Child);

impl Program {
    fn start(home: &Home) -> Self {
        let mut command = Command::new(EXE);
        command
            .args(["run", "--config"])
            .arg(home.path("config.toml"))
            .arg("--state-dir")
            .arg(home.path("state"));
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    async fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        until("the end", async || self.0.try_wait().unwrap().is_some()).await;
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

/// Creating with a bucket that is no limit: what bounds are the requests in flight.
async fn create() {
    const SUBSCRIPTIONS: usize = 10_000;
    let home = Home::new(SandboxOptions {
        bucket: 1_000_000,
        refill_per_minute: 1_000_000,
        max_total_cost: 1_000_000,
        latency: LATENCY,
        ..quick()
    })
    .await;
    let logins: String = (0..SUBSCRIPTIONS).map(|nth| format!("{}\n", login(nth))).collect();
    fs::write(home.path("channels.txt"), logins).unwrap();
    home.configure(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n\n\
         [sink.out]\ntype = \"stdout\"\n",
    );
    let program = Program::start(&home);
    until("the first create", async || home.sandbox.stats().created > 0).await;
    let begun = Instant::now();
    until("all created", async || home.sandbox.stats().created as usize >= SUBSCRIPTIONS).await;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "\n{SUBSCRIPTIONS} creates, an ample bucket, {LATENCY:?} an answer: {took:.1} s; 429 answers {}",
        home.sandbox.stats().rate_limited
    );
    program.end().await;
}

async fn shards() {
    const SHARDS: usize = 2_000;
    eventsubd::admission::raise_descriptor_limit();
    let home = Home::new(SandboxOptions { keepalive_unit: Duration::from_secs(1), ..quick() }).await;
    let logins: String = (0..100).map(|nth| format!("{}\n", login(nth))).collect();
    fs::write(home.path("channels.txt"), logins).unwrap();
    home.configure(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"channels.txt\"\n\n\
         [sink.out]\ntype = \"stdout\"\n",
    );
    let text = fs::read_to_string(home.path("config.toml")).unwrap();
    fs::write(home.path("config.toml"), text.replace("shards = 2", &format!("shards = {SHARDS}"))).unwrap();
    let begun = Instant::now();
    let program = Program::start(&home);
    let bound = || {
        let conduits = home.sandbox.conduits();
        let shards = conduits.first().map(|(id, _)| home.sandbox.shards(id)).unwrap_or_default();
        shards.iter().filter(|(_, status, _)| status == "enabled").count()
    };
    until("bound", async || bound() == SHARDS).await;
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let processor = program.account().processor_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "\n{SHARDS} shards: bound in {took:.2} s; {:.1} MiB resident; {:.1} % of a processor when idle",
        program.account().resident_mib(),
        (program.account().processor_seconds() - processor) / 5.0 * 100.0
    );
    program.end().await;
}
