//! The attempts that a worker has under way.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::future::{AbortHandle, Aborted, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

/// Attempts that run in the worker's own task: a task for each would be one more hop between threads, and their connections
/// have tasks of their own. Dropping it ends them.
pub(super) struct Sending<T> {
    under_way: FuturesUnordered<BoxFuture<'static, Result<T, Aborted>>>,
    /// Attempts that have ended, and that the worker has not seen.
    ended: VecDeque<T>,
}

impl<T: Send + 'static> Sending<T> {
    pub(super) fn new() -> Self {
        Self { under_way: FuturesUnordered::new(), ended: VecDeque::new() }
    }

    /// Starts an attempt. One that is aborted has no outcome.
    pub(super) fn start(&mut self, attempt: impl Future<Output = T> + Send + 'static) -> AbortHandle {
        let (attempt, handle) = abortable(attempt);
        self.under_way.push(attempt.boxed());
        handle
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.ended.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len() + self.ended.len()
    }

    /// The outcome of an attempt that has ended; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return Some(ended);
            }
            if let Ok(outcome) = self.under_way.next().await? {
                return Some(outcome);
            }
        }
    }

    /// The outcome of an attempt that has ended already.
    pub(super) fn take(&mut self) -> Option<T> {
        self.next().now_or_never().flatten()
    }

    /// Does other work, and lets the attempts go on meanwhile.
    pub(super) async fn during<W>(&mut self, work: impl Future<Output = W>) -> W {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(sent) = self.under_way.next(), if !self.under_way.is_empty() => self.ended.extend(sent.ok()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn attempts_go_on_while_the_worker_does_something_else() {
        let mut sending = Sending::new();
        assert_eq!((sending.next().await, sending.is_empty()), (None, true));
        for nth in 1..=3 {
            sending.start(async move {
                tokio::time::sleep(SECOND * nth).await;
                nth
            });
        }
        let begun = tokio::time::Instant::now();
        sending.during(tokio::time::sleep(SECOND * 5 / 2)).await;
        assert_eq!((sending.take(), sending.take(), sending.take()), (Some(1), Some(2), None));
        assert_eq!((sending.len(), sending.next().await, begun.elapsed()), (1, Some(3), SECOND * 3));
        assert!(sending.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_attempt_has_no_outcome() {
        let mut sending = Sending::new();
        let first = sending.start(std::future::pending());
        sending.start(async { 2 });
        first.abort();
        assert_eq!((sending.next().await, sending.next().await), (Some(2), None));
    }
}
