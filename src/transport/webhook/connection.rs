//! Connections that are open: what each is doing, and since when.
//!
//! Time limits cost a request nothing but a store to memory: each connection notes its phase, and one look at
//! all of them now and then finds those that take too long.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::Limits;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Waiting for a request.
    Idle,
    /// TLS is being agreed on.
    Handshake,
    /// A head is on its way.
    Head,
    /// A body is on its way.
    Body,
    /// The request is whole, and has no answer yet.
    Answer,
}

/// What a connection shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// End after the request in hand.
    Drain,
    /// End.
    Cut,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    phase: AtomicU8,
    since: AtomicU32,
    order: AtomicU8,
    waker: AtomicWaker,
    ticks: Arc<AtomicU32>,
}

impl Connection {
    pub(super) fn enter(&self, phase: Phase) {
        self.since.store(self.ticks.load(Ordering::Relaxed), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    fn ordered(&self, order: Order) -> bool {
        self.order.load(Ordering::Acquire) >= order as u8
    }

    /// Resolves once it is told to do at least this. Only one may wait at a time.
    pub(super) async fn told(&self, order: Order) {
        poll_fn(|context| {
            if self.ordered(order) {
                return Poll::Ready(());
            }
            self.waker.register(context.waker());
            if self.ordered(order) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<(u64, HashMap<u64, Arc<Connection>>)>,
    ticks: Arc<AtomicU32>,
    /// Notified when one has ended.
    pub(super) ended: Notify,
}

/// Keeps a connection on the list while it lives.
pub(super) struct Entry {
    number: u64,
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.lock().1.remove(&self.number);
        self.connections.ended.notify_one();
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Connection>>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, phase: Phase) -> Entry {
        let connection = Arc::new(Connection {
            phase: AtomicU8::new(phase as u8),
            since: AtomicU32::new(self.ticks.load(Ordering::Relaxed)),
            order: AtomicU8::new(Order::Serve as u8),
            waker: AtomicWaker::new(),
            ticks: Arc::clone(&self.ticks),
        });
        let mut open = self.lock();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Arc::clone(&connection));
        Entry { number, connections: Arc::clone(self), connection }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().1.len()
    }

    pub(super) fn order_all(&self, order: Order) {
        for connection in self.lock().1.values() {
            connection.order(order);
        }
    }

    /// Whether [`Self::end_idle`] would find one.
    pub(super) fn has_idle(&self) -> bool {
        self.lock().1.values().any(|c| c.is(Phase::Idle) && !c.ordered(Order::Drain))
    }

    /// Ends the connection that has been idle for longest, to make room.
    pub(super) fn end_idle(&self) {
        let open = self.lock();
        let idle = open.1.iter().filter(|(_, c)| c.is(Phase::Idle) && !c.ordered(Order::Drain));
        let now = self.ticks.load(Ordering::Relaxed);
        let oldest = idle.max_by_key(|(number, connection)| {
            (now.wrapping_sub(connection.since.load(Ordering::Relaxed)), u64::MAX - **number)
        });
        if let Some((_, connection)) = oldest {
            connection.order(Order::Drain);
        }
    }

    /// Lets one tick pass, and ends those that take too long; says how many were in the middle of something.
    pub(super) fn tick(&self, limits: &Limits) -> u64 {
        let now = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let tick = tick(limits);
        let ticks =
            |limit: Duration| u32::try_from(limit.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u32::MAX);
        let mut cut = 0;
        for connection in self.lock().1.values() {
            let phase = connection.phase.load(Ordering::Relaxed);
            let (limit, order) = match phase {
                // It has had its chance to end by itself.
                p if p == Phase::Idle as u8 && connection.ordered(Order::Drain) => (limits.head, Order::Cut),
                p if p == Phase::Idle as u8 => (limits.idle, Order::Drain),
                p if p == Phase::Handshake as u8 => (limits.handshake, Order::Cut),
                p if p == Phase::Head as u8 => (limits.head, Order::Cut),
                p if p == Phase::Body as u8 => (limits.body, Order::Cut),
                _ => continue,
            };
            let waited = now.wrapping_sub(connection.since.load(Ordering::Relaxed));
            if waited > ticks(limit) && !connection.ordered(order) {
                connection.order(order);
                cut += u64::from(phase != Phase::Idle as u8);
            }
        }
        cut
    }
}

/// How often to call [`Connections::tick`].
pub(super) fn tick(limits: &Limits) -> Duration {
    let shortest = limits.head.min(limits.body).min(limits.idle).min(limits.handshake);
    (shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

/// A stream that notes the beginning of a request.
pub(super) struct Watched<T> {
    pub(super) stream: T,
    pub(super) connection: Arc<Connection>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() && buffer.filled().len() > before && self.connection.is(Phase::Idle) {
            self.connection.enter(Phase::Head);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
