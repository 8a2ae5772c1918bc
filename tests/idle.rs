//! An idle daemon sleeps: it waits for events, not for clocks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use common::{Home, Process, converged, quick};
use eventsubd::sandbox::SandboxOptions;

/// Threads for blocking work are gone after this time, and everything that follows a start is done.
const SETTLE: Duration = Duration::from_secs(15);
const WATCHED: Duration = Duration::from_secs(20);
/// About 20 are usual; a task that looks each second adds 40. A busy machine adds none: it only lets the daemon wait.
const MOST: u64 = 45;

/// How often each thread of a process began to run after a wait.
fn wake_ups(process: u32) -> BTreeMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let count = |folder: &std::path::Path| {
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let id = folder.file_name()?.to_string_lossy();
        Some((format!("{} {id}", name.trim()), count.trim().parse().ok()?))
    };
    threads.filter_map(|thread| count(&thread.unwrap().path())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_with_nothing_to_do_wakes_up_seldom() {
    // Keepalives come as seldom as Twitch's.
    let home = Home::new(SandboxOptions { keepalive_unit: Duration::from_secs(1), ..quick() }).await;
    home.configure(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [\"ann\", \"bob\"]\n\n\
         [sink.log]\ntype = \"file\"\npath = \"events.jsonl\"\n",
    );
    let program = Process::start(&home, "warn");
    converged(&home).await;
    tokio::time::sleep(SETTLE).await;
    let before = wake_ups(program.child.id());
    tokio::time::sleep(WATCHED).await;
    let after = wake_ups(program.child.id());
    let since: BTreeMap<&String, u64> =
        after.iter().map(|(thread, count)| (thread, count - before.get(thread).unwrap_or(&0))).collect();
    assert!(!before.is_empty() && since.values().sum::<u64>() <= MOST, "in 20 s: {since:?}");
}
