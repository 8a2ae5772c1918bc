//! Reaping of orphans. As process 1 of a container, or as a subreaper, the daemon becomes the parent of processes
//! that the programs of sinks leave running, and each stays a zombie until its status is read.
//!
//! Must never read the status of a program that a sink waits for.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, child_subreaper, getpid, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::delivery::Children;

/// Pause that collects several ends into one pass.
const PAUSE: Duration = Duration::from_millis(100);

/// Reaps orphans until cancelled, if this process gets any.
pub(super) async fn reap(children: Children, cancel: CancellationToken) {
    let adopts = getpid().is_init() || child_subreaper().is_ok_and(|set| set.is_some());
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) if adopts => ended,
        Ok(_) => return cancel.cancelled().await,
        Err(error) => {
            warn!(%error, "cannot watch for child processes that end; orphans stay zombies");
            return cancel.cancelled().await;
        }
    };
    let mut reported = false;
    loop {
        let children = children.clone();
        match tokio::task::spawn_blocking(move || {
            children.with_waited(|waited| reap_zombies(|id| waited.contains(&id)))
        })
        .await
        {
            Ok(Ok(0)) => {}
            Ok(Ok(orphans)) => debug!(orphans, "reaped"),
            Ok(Err(error)) if !reported => {
                reported = true;
                warn!(%error, "cannot read /proc; orphans stay zombies");
            }
            Ok(Err(_)) => {}
            Err(error) => warn!(%error, "reaping orphans failed"),
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ended.recv() => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Reads the status of each child that has ended and is not `waited` for; returns their number.
fn reap_zombies(waited: impl Fn(u32) -> bool) -> io::Result<usize> {
    let mut reaped = 0;
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that is gone was reaped by another parent.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        if waited(id) || !is_zombie_of(&stat, getpid()) {
            continue;
        }
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        reaped += usize::from(
            pid.is_some_and(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_)))),
        );
    }
    Ok(reaped)
}

/// Returns whether `/proc/PID/stat` describes a zombie with this parent (proc_pid_stat(5)). The name, in parentheses,
/// may contain any character.
fn is_zombie_of(stat: &str, parent: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    fields.next() == Some("Z")
        && fields.next().and_then(|field| field.parse::<i32>().ok()) == Some(parent.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_recognized_by_state_and_parent() {
        let parent = Pid::from_raw(7).unwrap();
        for (stat, expected) in [
            ("12 (sleep) Z 7 12 12 0 -1", true),
            ("12 (a) Z 7 (x) Z 7 12 12", true),
            ("12 (a ) Z 7) S 7 12 12", false),
            ("12 (sleep) Z 1 12 12 0 -1", false),
            ("12 (sleep) S 7 12 12 0 -1", false),
            ("12 (sleep", false),
            ("", false),
        ] {
            assert_eq!(is_zombie_of(stat, parent), expected, "{stat}");
        }
    }
}
