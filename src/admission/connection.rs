//! The connections of a listener, around [`Places`]: clocks, wake-ups, and the stream that notes what comes in.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::activity::{Activity, Phase, millis};
use super::peer::Peer;
use super::places::{Counts, Limits, Order, Places};

/// All connections of a listener.
#[derive(Debug)]
pub struct Connections {
    table: Mutex<Table>,
    started: Instant,
    /// Milliseconds since the start, as of the last connection or tick.
    clock: AtomicU64,
    /// Bytes of unfinished bodies that all connections hold: never less than what their activities say.
    held: AtomicUsize,
    /// See [`Limits::bodies`].
    bodies: AtomicUsize,
    /// Notified when a connection has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Table {
    places: Places<Peer>,
    signals: HashMap<u64, Arc<Signal>>,
}

impl Table {
    fn order(&self, orders: impl IntoIterator<Item = (u64, Order)>) {
        for (number, order) in orders {
            if let Some(signal) = self.signals.get(&number) {
                signal.order(order);
            }
        }
    }
}

/// Carries orders to the task of a connection.
#[derive(Debug, Default)]
struct Signal {
    order: AtomicU8,
    waker: AtomicWaker,
}

impl Signal {
    fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    fn is(&self, order: Order) -> bool {
        self.order.load(Ordering::Acquire) >= order as u8
    }
}

/// One connection, on the table while it lives.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    peer: Peer,
    is_reserved: bool,
    is_proved: AtomicBool,
    activity: Arc<Activity>,
    signal: Arc<Signal>,
    all: Arc<Connections>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.release();
        let mut table = self.all.lock();
        table.places.leave(self.number);
        table.signals.remove(&self.number);
        drop(table);
        self.all.ended.notify_one();
    }
}

impl Connections {
    pub fn new(limits: Limits) -> Arc<Self> {
        let bodies = limits.bodies;
        Arc::new(Self {
            table: Mutex::new(Table { places: Places::new(limits), signals: HashMap::new() }),
            started: Instant::now(),
            clock: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            bodies: AtomicUsize::new(bodies),
            ended: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        let now = self.started.elapsed();
        self.clock.store(millis(now), Ordering::Relaxed);
        now
    }

    pub fn set_limits(&self, limits: Limits) {
        self.bodies.store(limits.bodies, Ordering::Relaxed);
        self.lock().places.set_limits(limits);
    }

    /// Whether a connection should be accepted now.
    pub fn has_room(&self) -> bool {
        self.lock().places.has_room(self.now())
    }

    /// Gives a new connection its place. Others may have to end for it.
    pub fn enter(self: &Arc<Self>, peer: Peer, phase: Phase) -> Connection {
        let signal = Arc::new(Signal::default());
        let mut table = self.lock();
        let entered = table.places.enter(peer, phase, self.now());
        table.signals.insert(entered.number, Arc::clone(&signal));
        table.order(entered.orders);
        drop(table);
        Connection {
            number: entered.number,
            peer,
            is_reserved: entered.is_reserved,
            is_proved: AtomicBool::new(false),
            activity: entered.activity,
            signal,
            all: Arc::clone(self),
        }
    }

    /// Ends a connection when the system has no socket left for another one.
    pub fn make_room(&self) {
        let mut table = self.lock();
        let order = table.places.make_room(self.now());
        table.order(order);
    }

    /// Ends connections that take too long; returns how many of them were in the middle of something.
    pub fn tick(&self) -> u64 {
        let mut table = self.lock();
        let (orders, cut) = table.places.tick(self.now());
        table.order(orders);
        cut
    }

    /// How often to call [`Self::tick`]; never while there is nothing to watch.
    pub fn tick_every(&self) -> Option<Duration> {
        let table = self.lock();
        if table.places.is_quiet(self.now()) {
            return None;
        }
        let limits = table.places.limits();
        let times = [limits.head, limits.body, limits.idle, limits.handshake, limits.scarce];
        let shortest = times.into_iter().min().unwrap_or_default();
        Some((shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)))
    }

    /// Ends all connections after the request in hand.
    pub fn drain(&self) {
        let mut table = self.lock();
        table.places.drain(self.now());
        table.signals.values().for_each(|signal| signal.order(Order::Drain));
    }

    /// Ends all connections now.
    pub fn cut(&self) {
        self.lock().signals.values().for_each(|signal| signal.order(Order::Cut));
    }

    pub fn counts(&self) -> Counts {
        self.lock().places.counts(self.now())
    }

    /// Resolves when a connection has ended since the last call.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Ends connections that hold unfinished bodies until the others hold no more than the limit.
    fn shrink(&self) {
        let mut table = self.lock();
        while self.held.load(Ordering::Relaxed) > self.bodies.load(Ordering::Relaxed) {
            let Some((number, order, bytes)) = table.places.evict_holder(self.now()) else { return };
            table.order([(number, order)]);
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Connection {
    pub fn enter(&self, phase: Phase) {
        self.activity.enter(phase, self.all.clock.load(Ordering::Relaxed));
    }

    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether it has one of the places that only probes may use.
    pub fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Notes that it has carried a request that a stranger could not have made.
    pub fn prove(&self) {
        if !self.is_proved.load(Ordering::Relaxed) && !self.is_proved.swap(true, Ordering::Relaxed) {
            self.all.lock().places.prove(self.number);
        }
    }

    /// Counts bytes of an unfinished body. Returns false if this connection itself has to go, as all connections
    /// hold too many.
    pub fn hold(&self, bytes: usize) -> bool {
        if self.signal.is(Order::Cut) {
            return false;
        }
        let held = self.all.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.activity.hold(bytes);
        if held > self.all.bodies.load(Ordering::Relaxed) {
            self.all.shrink();
        }
        !self.signal.is(Order::Cut)
    }

    /// The body is complete, or given up.
    pub fn release(&self) {
        self.all.held.fetch_sub(self.activity.release(), Ordering::Relaxed);
    }

    /// Resolves once it is told to do at least this. Only one task may wait at a time.
    pub async fn told(&self, order: Order) {
        poll_fn(|context| {
            if self.signal.is(order) {
                return Poll::Ready(());
            }
            self.signal.waker.register(context.waker());
            if self.signal.is(order) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Connection {
    /// Serves HTTP until the connection ends or is told to.
    pub async fn attend<I, B, S>(&self, serving: http1::Connection<I, S>) -> hyper::Result<()>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin,
        S: HttpService<Incoming, ResBody = B>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut serving = pin!(serving);
        tokio::select! {
            biased;
            () = self.told(Order::Drain) => {}
            ended = &mut serving => return ended,
        }
        serving.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            () = self.told(Order::Cut) => Ok(()),
            ended = serving => ended,
        }
    }
}

/// A stream that notes the beginning of a request.
#[derive(Debug)]
pub struct Watched<T> {
    pub stream: T,
    pub connection: Arc<Connection>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_more = polled.is_ready() && buffer.filled().len() > before;
        if is_more && self.connection.activity.phase() == Phase::Idle {
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
