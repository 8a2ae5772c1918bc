//! A full disk on one host.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventsubd::sandbox::Sandbox;

use super::FILE;
use super::common::quick;
use super::host::Host;
use super::servers::{NEWEST, Servers};
use super::whole::{Before, trickle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_one_host_loses_nothing_and_moves_nothing_at_twitch() {
    let servers = Servers::start(NEWEST, 1);
    let sandbox = Arc::new(Sandbox::start(quick()).await.unwrap());
    let mut first = Host::new(&sandbox, &servers.urls(), "web-1", FILE);
    first.has_small_disk = true;
    first.start();
    first.leads().await;
    let mut second = Host::new(&sandbox, &servers.urls(), "web-2", FILE);
    second.start();
    second.stands_by().await;
    let before = Before::new(&sandbox);
    let stop = trickle(&sandbox);
    let path = first.state().join("filler");
    let mut filler = File::create(&path).unwrap();
    for _ in 0..3 {
        let full = loop {
            if let Err(error) = filler.write_all(&[1; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let status = first.until("its disk is full", |status| status.store.problem.is_some()).await;
        assert!(status.problems.iter().any(|problem| problem.part == "store"), "{:?}", status.problems);
        tokio::time::sleep(Duration::from_secs(4)).await;
        filler.set_len(0).unwrap();
        filler = File::create(&path).unwrap();
        first.until("it stores again", |status| status.store.problem.is_none()).await;
    }
    stop.store(true, Ordering::Relaxed);
    before.holds(&sandbox, &servers, &[("web-1", &first), ("web-2", &second)]).await;
}
