//! The shared log: how soon an event is in it, and how many it takes.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use eventsubd::model::time::Timestamp;
use eventsubd::sandbox::Sandbox;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::common::{WAIT, quick};
use super::host::Host;
use super::measure::{self, Account};
use super::servers::{OLDEST, Servers};

/// Channels whose events are sent; each is a lane of its own.
const CHANNELS: usize = 100;
/// Size of an event.
const SIZE: usize = 1_000;
/// Pause between two bursts of events.
const BEAT: Duration = Duration::from_millis(10);

/// A stream with three copies, as the forwarder makes it.
async fn stream(servers: &Servers) -> jetstream::stream::Stream {
    let urls = servers.urls();
    let urls: Vec<&str> = urls.split(',').collect();
    let client = async_nats::connect(urls).await.unwrap();
    let context = jetstream::new(client);
    let begun = Instant::now();
    loop {
        if let Ok(stream) = context.get_stream("eventsubd-events").await {
            assert_eq!(stream.cached_info().config.num_replicas, 3);
            return stream;
        }
        assert!(begun.elapsed() < WAIT, "the forwarder makes no stream");
        tokio::time::sleep(BEAT).await;
    }
}

/// Reads the log from its end; returns the milliseconds between the storing of each event and its arrival here.
async fn read(stream: &jetstream::stream::Stream, count: usize) -> JoinHandle<Vec<f64>> {
    let config = pull::OrderedConfig {
        deliver_policy: jetstream::consumer::DeliverPolicy::New,
        ..pull::OrderedConfig::default()
    };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    tokio::spawn(async move {
        let mut lags = Vec::with_capacity(count);
        while lags.len() < count
            && let Ok(Some(Ok(message))) = tokio::time::timeout(WAIT, messages.next()).await
        {
            let headers = message.headers.as_ref().expect("headers");
            let stored = headers.get("Eventsubd-Stored-At").expect("a header").as_str();
            let stored = Timestamp::parse(stored).expect("a time");
            let lag = SystemTime::now().duration_since(stored.0).unwrap_or_default();
            lags.push(lag.as_secs_f64() * 1_000.0);
        }
        lags
    })
}

/// Sends so many events a second, in turn for all subscriptions; returns how many.
async fn send(sandbox: &Sandbox, rate: usize, time: Duration) -> usize {
    let subscriptions: Vec<String> = sandbox.subscriptions().into_iter().map(|row| row.id).collect();
    let mut next = subscriptions.iter().cycle();
    let (begun, mut beat, mut sent) = (Instant::now(), tokio::time::interval(BEAT), 0);
    while begun.elapsed() < time {
        beat.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as usize;
        // Few for each subscription, so that the lanes are even.
        while sent < due {
            let part = (due - sent).min(10);
            sent += sandbox.flood(next.next().expect("a subscription"), part, SIZE).await.len();
        }
    }
    sent
}

/// Forward lag at a thousand events a second.
pub(super) async fn lag() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let hosts = super::hosts(&sandbox, &servers.urls(), CHANNELS, None).await;
    send(&sandbox, 100, Duration::from_secs(2)).await;
    let stream = stream(&servers).await;
    // The connections and the stream are warm, and everything before is through.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for rate in [100, 1_000] {
        let time = Duration::from_secs(20);
        let reading = read(&stream, rate * time.as_secs() as usize).await;
        let sent = send(&sandbox, rate, time).await;
        let mut lags = reading.await.unwrap();
        lags.sort_by(f64::total_cmp);
        println!(
            "\n{sent} events, {rate} a second to three copies: in the log {:.1} ms after storing (median), {:.1} ms (99 of \
             100), {:.1} ms at most",
            measure::part(&lags, 0.5),
            measure::part(&lags, 0.99),
            measure::part(&lags, 1.0)
        );
    }
    drop(hosts);
}

async fn in_the_log(stream: &jetstream::stream::Stream) -> u64 {
    stream.get_info().await.unwrap().state.last_sequence
}

/// Processor seconds of every process of a run, in the order of the names.
struct Work {
    accounts: Vec<(String, Account)>,
    before: Vec<f64>,
}

impl Work {
    fn begin(servers: &Servers, hosts: &[Host]) -> Self {
        let own = ("stand-in".to_owned(), Account::own());
        let hosts = hosts.iter().enumerate().map(|(nth, host)| {
            let name =
                if nth == 0 { "daemon that leads".to_owned() } else { "daemon that stands by".to_owned() };
            (name, Account::of(host.child.as_ref().expect("it runs")))
        });
        let servers =
            (0..servers.count()).map(|nth| (format!("NATS {nth}"), Account::of(servers.child(nth))));
        let accounts: Vec<_> = hosts.chain(servers).chain([own]).collect();
        let before = accounts.iter().map(|(_, account)| account.processor_seconds()).collect();
        Self { accounts, before }
    }

    /// The seconds of each since then.
    fn report(&self) -> String {
        let one = |((name, account), before): (&(String, Account), &f64)| {
            format!("{name} {:.1} s", account.processor_seconds() - before)
        };
        self.accounts.iter().zip(&self.before).map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Twenty thousand events a second, for as long as the forwarder may keep up.
pub(super) async fn sustained() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let hosts = super::hosts(&sandbox, &servers.urls(), CHANNELS, None).await;
    send(&sandbox, 100, Duration::from_secs(2)).await;
    let stream = stream(&servers).await;
    let work = Work::begin(&servers, &hosts);
    let (before, begun) = (in_the_log(&stream).await, Instant::now());
    let sent = send(&sandbox, 20_000, Duration::from_secs(15)).await as u64;
    let (took, known) = (begun.elapsed().as_secs_f64(), in_the_log(&stream).await - before);
    println!(
        "\n20,000 events a second offered for 15 s: {:.0} a second sent, {:.0} a second in the log",
        sent as f64 / took,
        known as f64 / took
    );
    let mut last = (Instant::now(), known);
    while last.1 < sent && last.0.elapsed() < WAIT {
        tokio::time::sleep(BEAT).await;
        let known = in_the_log(&stream).await - before;
        if known > last.1 {
            last = (Instant::now(), known);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "all {} in the log after {took:.1} s, {:.0} a second; work of the processors: {}",
        last.1,
        last.1 as f64 / took,
        work.report()
    );
}
