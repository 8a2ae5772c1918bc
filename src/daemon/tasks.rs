//! All tasks of the daemon, by name.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Tasks that run until cancelled. One that ends earlier is a failure with its name.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits for the next task to end; pending while there is none.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.set.join_next_with_id().await {
            Some(result) => self.take(result),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended, or until the deadline; returns the names of those aborted.
    pub(super) async fn join(&mut self, deadline: Instant) -> Vec<&'static str> {
        while !self.set.is_empty() {
            match tokio::time::timeout_at(deadline, self.set.join_next_with_id()).await {
                Ok(Some(result)) => {
                    self.take(result);
                }
                Ok(None) => break,
                Err(_) => {
                    self.set.abort_all();
                    let mut cut: Vec<_> = self.names.drain().map(|(_, name)| name).collect();
                    cut.sort_unstable();
                    // An aborted task ends at its next await; what it owns must be dropped before the store is.
                    let _ = tokio::time::timeout(Duration::from_millis(200), async {
                        while self.set.join_next().await.is_some() {}
                    })
                    .await;
                    return cut;
                }
            }
        }
        Vec::new()
    }

    fn take(&mut self, result: Result<(Id, ()), JoinError>) -> Ended {
        let (id, panicked) = match result {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        Ended { name: self.names.remove(&id).unwrap_or("a task"), panicked }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) name: &'static str,
    /// Whether the task panicked.
    pub(super) panicked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_are_named_when_they_end_or_are_aborted() {
        let mut tasks = Tasks::default();
        tasks.spawn("quick", async {});
        assert_eq!(tasks.ended().await, Ended { name: "quick", panicked: false });

        tasks.spawn("stuck", std::future::pending());
        tasks.spawn("slow", tokio::time::sleep(Duration::from_secs(1)));
        let cut = tasks.join(Instant::now() + Duration::from_secs(2)).await;
        assert_eq!(cut, ["stuck"]);
        assert!(tasks.join(Instant::now()).await.is_empty());
    }
}
