//! The attempts that a worker has under way.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Names an attempt that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttemptId {
    slot: usize,
    number: u64,
}

/// Attempts that run in the worker's own task: a task for each would be one more hop between threads, and their connections
/// have tasks of their own. Dropping it ends them.
///
/// `FuturesUnordered` wakes the whole task once more after each poll of all its futures, which costs a hop as well.
pub(super) struct Sending<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    count: usize,
    next_number: u64,
    wakeups: Arc<Wakeups>,
    /// Attempts that have ended, and that the worker has not seen.
    ended: VecDeque<T>,
}

struct Slot<T> {
    attempt: Option<(u64, BoxFuture<'static, T>)>,
    signal: Arc<Signal>,
    waker: Waker,
}

/// The slots that can go on, and the waker of the worker's task.
#[derive(Default)]
struct Wakeups(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    slots: VecDeque<usize>,
    task: Option<Waker>,
}

impl Wakeups {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waker of one slot.
struct Signal {
    slot: usize,
    is_queued: AtomicBool,
    wakeups: Arc<Wakeups>,
}

impl Signal {
    /// Queues the slot unless it is queued already, and returns the queue then. Wakes nothing.
    fn queue(&self) -> Option<MutexGuard<'_, Queue>> {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut queue = self.wakeups.lock();
        queue.slots.push_back(self.slot);
        Some(queue)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = self.queue().and_then(|mut queue| queue.task.take());
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<T> fmt::Debug for Sending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Sending<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            count: 0,
            next_number: 0,
            wakeups: Arc::default(),
            ended: VecDeque::new(),
        }
    }

    /// Adds an attempt. It begins when the worker waits for outcomes next: the worker's task runs now, and waking it would
    /// only have it polled once more, by another thread.
    pub(super) fn start(&mut self, attempt: impl Future<Output = T> + Send + 'static) -> AttemptId {
        let number = self.next_number;
        self.next_number += 1;
        let attempt = Some((number, attempt.boxed()));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot].attempt = attempt;
                slot
            }
            None => {
                let slot = self.slots.len();
                let wakeups = Arc::clone(&self.wakeups);
                let signal = Arc::new(Signal { slot, is_queued: AtomicBool::new(false), wakeups });
                let waker = Waker::from(Arc::clone(&signal));
                self.slots.push(Slot { attempt, signal, waker });
                slot
            }
        };
        self.count += 1;
        drop(self.slots[slot].signal.queue());
        AttemptId { slot, number }
    }

    /// Ends an attempt without an outcome.
    pub(super) fn abort(&mut self, id: AttemptId) {
        let is_under_way = self
            .slots
            .get(id.slot)
            .and_then(|slot| slot.attempt.as_ref())
            .is_some_and(|(number, _)| *number == id.number);
        if is_under_way {
            self.end(id.slot);
        }
    }

    fn end(&mut self, slot: usize) {
        self.slots[slot].attempt = None;
        self.free.push(slot);
        self.count -= 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.count + self.ended.len()
    }

    /// Lets the attempts that can go on do so, until one ends.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        {
            let task = &mut self.wakeups.lock().task;
            if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
                *task = Some(context.waker().clone());
            }
        }
        for _ in 0..self.slots.len() {
            let Some(slot) = self.wakeups.lock().slots.pop_front() else { return Poll::Pending };
            let Slot { attempt, signal, waker } = &mut self.slots[slot];
            signal.is_queued.store(false, Ordering::Release);
            // A late wake-up of an attempt that has ended.
            let Some((_, attempt)) = attempt else { continue };
            if let Poll::Ready(outcome) = attempt.as_mut().poll(&mut Context::from_waker(waker)) {
                self.end(slot);
                return Poll::Ready(outcome);
            }
        }
        // Attempts that woke each other or themselves go on once other tasks had their turn.
        if !self.wakeups.lock().slots.is_empty() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The outcome of an attempt that has ended; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        if self.count == 0 {
            return None;
        }
        Some(std::future::poll_fn(|context| self.poll(context)).await)
    }

    /// The outcome of an attempt that has ended already.
    pub(super) fn try_next(&mut self) -> Option<T> {
        self.next().now_or_never().flatten()
    }

    /// Does other work, and lets the attempts go on meanwhile.
    pub(super) async fn during<W>(&mut self, work: impl Future<Output = W>) -> W {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            loop {
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(done);
                }
                if self.count == 0 {
                    return Poll::Pending;
                }
                match self.poll(context) {
                    Poll::Ready(outcome) => self.ended.push_back(outcome),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
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
        assert_eq!((sending.try_next(), sending.try_next(), sending.try_next()), (Some(1), Some(2), None));
        assert_eq!((sending.len(), sending.next().await, begun.elapsed()), (1, Some(3), SECOND * 3));
        assert!(sending.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_attempt_has_no_outcome_and_its_id_means_no_other() {
        let mut sending = Sending::new();
        let first = sending.start(std::future::pending().boxed());
        sending.start(async { 2 });
        sending.abort(first);
        assert_eq!((sending.next().await, sending.next().await), (Some(2), None));
        sending.start(async { 3 });
        sending.start(async { 4 });
        sending.abort(first);
        assert_eq!((sending.next().await, sending.next().await), (Some(3), Some(4)));
    }

    /// Counts how often it is woken.
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_is_woken_only_when_an_attempt_can_go_on() {
        let mut sending = Sending::new();
        let mut senders = VecDeque::new();
        for nth in 0..3 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            senders.push_back(sender);
            sending.start(async move {
                let _ = receiver.await;
                nth
            });
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        assert!(sending.poll(&mut context).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        for nth in 0..3 {
            senders.pop_front().unwrap().send(()).unwrap();
            assert_eq!(count.0.load(Ordering::Relaxed), nth + 1);
            assert_eq!(sending.poll(&mut context), Poll::Ready(nth));
            assert!(sending.is_empty() || sending.poll(&mut context).is_pending());
        }
        sending.start(async { 3 });
        assert_eq!(count.0.load(Ordering::Relaxed), 3, "the task that starts an attempt runs already");
        assert_eq!(sending.poll(&mut context), Poll::Ready(3));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wakeup_is_lost_between_threads() {
        let mut sending = Sending::new();
        let (mut started, mut ended) = (0_u32, 0_u64);
        while started < 20_000 || !sending.is_empty() {
            while started < 20_000 && sending.len() < 16 {
                let nth = u64::from(started);
                started += 1;
                sending.start(async move {
                    let work = tokio::spawn(async move { nth });
                    if nth % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    work.await.unwrap()
                });
            }
            let next = tokio::time::timeout(Duration::from_secs(20), sending.next());
            ended += next.await.expect("an attempt ends").unwrap();
        }
        assert_eq!(ended, (0..20_000_u64).sum::<u64>());
    }
}
