//! What else can go wrong: a bucket that is deleted, ways that swallow everything, programs that stand still.

use std::time::{Duration, Instant};

use eventsubd::model::cluster::Role;
use eventsubd::sandbox::Sandbox;

use super::common::{WAIT, quick};
use super::host::{Host, role};
use super::servers::{OLDEST, Servers};
use super::{arrives, hosts, made_and_deleted};

/// Waits until one of these hosts leads and Twitch matches the file; returns which.
async fn leader(hosts: &[&Host]) -> usize {
    let begun = Instant::now();
    loop {
        for (nth, host) in hosts.iter().enumerate() {
            let status = host.status().await;
            if status.is_some_and(|status| role(&status) == Role::Leader && status.converged) {
                return nth;
            }
        }
        let logs: Vec<String> = hosts.iter().map(|host| host.log()).collect();
        assert!(begun.elapsed() < WAIT, "nobody leads: {logs:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_bucket_is_made_again_from_what_the_hosts_remember() {
    let servers = Servers::start(OLDEST, 3);
    let sandbox = Sandbox::start(quick()).await.unwrap();
    let [first, second] = hosts(&sandbox, &servers.urls()).await;
    let before = made_and_deleted(&sandbox);
    let client = async_nats::connect(servers.urls().split(',').next().unwrap()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut revision = 0;
    for _ in 0..2 {
        jetstream.delete_stream("KV_eventsubd").await.unwrap();
        let status = first.until("it is cut off", |status| role(status) == Role::CutOff).await;
        assert!(status.ready, "{:?}", status.not_ready);
        // The host that led has its sockets, so it leads again.
        first.leads().await;
        second.stands_by().await;
        arrives(&sandbox, &[&first]).await;
        let stream = jetstream.get_stream("KV_eventsubd").await.unwrap();
        let state = &stream.cached_info().state;
        assert!(state.first_sequence > revision, "{state:?}");
        revision = state.last_sequence;
    }
    assert_eq!(made_and_deleted(&sandbox), before, "{}", first.log());
    // What a new leader has to know is in the new bucket.
    let mut first = first;
    first.kill();
    assert_eq!(leader(&[&second]).await, 0);
    arrives(&sandbox, &[&second]).await;
    assert_eq!(made_and_deleted(&sandbox), before, "{}", second.log());
}
