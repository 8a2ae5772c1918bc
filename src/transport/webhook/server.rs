//! The listener: accepting connections, serving them, stopping.
//!
//! Connections are limited in number. When there are too many, the one that has been idle for longest makes
//! room for a new one; when none is idle, new ones wait in the system's backlog.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::answer::answer;
use super::connection::{Connections, Entry, Order, Phase, Watched, tick};
use super::counters::{Counters, Reason};
use super::listen::{Listener, Socket};
use super::tls::Tls;
use super::{Limits, WebhookOptions};
use crate::model::shard::ShardId;
use crate::model::status::{IntakeStatus, WebhookStatus};
use crate::store::Store;
use crate::transport::Hear;

/// How often the status is published, at most.
const PUBLISH: Duration = Duration::from_millis(100);
/// How often the files of TLS are looked at.
const REFRESH: Duration = Duration::from_secs(5);
/// The pause after the system refused to give us a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After that, requests in hand are cut off at the end.
const DRAIN: Duration = Duration::from_secs(3);
/// Headers of a request, at most. Twitch sends about a dozen, proxies add some.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 32 << 10;

/// What requests need of the options.
pub(super) struct Live {
    pub(super) options: WebhookOptions,
    /// The path of the callback.
    pub(super) path: Box<str>,
}

/// What all requests share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) revoked: Arc<Notify>,
    pub(super) hear: Hear,
    pub(super) counters: Counters,
    live: RwLock<Option<Arc<Live>>>,
    /// Types of messages that were told of as unknown.
    told: Mutex<BTreeSet<Box<str>>>,
}

impl Shared {
    pub(super) fn new(store: Store, revoked: Arc<Notify>, hear: Hear) -> Self {
        Self {
            store,
            revoked,
            hear,
            counters: Counters::default(),
            live: RwLock::new(None),
            told: Mutex::default(),
        }
    }

    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether to tell of this type of message: once each, and not of too many.
    pub(super) fn is_new(&self, message_type: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < 16 && told.insert(message_type.into())
    }
}

/// The task; see [`super::webhook`].
pub struct Webhook {
    pub(super) options: watch::Receiver<Option<WebhookOptions>>,
    pub(super) shared: Arc<Shared>,
    pub(super) status: watch::Sender<Option<WebhookStatus>>,
    pub(super) intake: watch::Sender<IntakeStatus>,
    pub(super) shards: watch::Sender<BTreeMap<ShardId, u64>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A listener in use.
struct Listening {
    listener: Arc<Listener>,
    sockets: Vec<Accepting>,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listening {
    fn new(listener: &Arc<Listener>) -> io::Result<Self> {
        let sockets = listener.sockets.iter().map(|socket| match socket {
            Socket::Tcp(tcp) => tcp.try_clone().and_then(TcpListener::from_std).map(Accepting::Tcp),
            Socket::Unix(unix) => unix.try_clone().and_then(UnixListener::from_std).map(Accepting::Unix),
        });
        Ok(Self { listener: Arc::clone(listener), sockets: sockets.collect::<io::Result<_>>()? })
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        for socket in &self.sockets {
            let polled = match socket {
                Accepting::Tcp(tcp) => tcp.poll_accept(context).map_ok(|(stream, _)| Accepted::Tcp(stream)),
                Accepting::Unix(unix) => unix.poll_accept(context).map_ok(|(s, _)| Accepted::Unix(s)),
            };
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    }
}

async fn accept(listening: Option<&Listening>) -> io::Result<Accepted> {
    match listening {
        Some(listening) => poll_fn(|context| listening.poll_accept(context)).await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What the task itself keeps.
struct Running {
    connections: Arc<Connections>,
    tasks: TaskTracker,
    listening: Option<Listening>,
    /// Why there is none though there should be.
    problem: Option<String>,
    publish_at: Option<Instant>,
    tick_at: Option<Instant>,
    refresh_at: Option<Instant>,
    pause_until: Option<Instant>,
}

impl Webhook {
    /// Runs until cancelled; then finishes the requests in hand.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut running = Running {
            connections: Arc::default(),
            tasks: TaskTracker::new(),
            listening: None,
            problem: None,
            publish_at: None,
            tick_at: None,
            refresh_at: None,
            pause_until: None,
        };
        self.options.mark_changed();
        let connections = Arc::clone(&running.connections);
        let shared = Arc::clone(&self.shared);
        loop {
            let limits = self.shared.live().map_or_else(Limits::default, |live| live.options.limits.clone());
            let open = connections.count();
            if open == 0 {
                running.tick_at = None;
            } else if running.tick_at.is_none() {
                running.tick_at = Some(Instant::now() + tick(&limits));
            }
            let may_accept =
                running.pause_until.is_none() && (open < limits.connections || connections.has_idle());
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Ok(()) = self.options.changed() => self.reconfigure(&mut running),
                () = shared.counters.changed.notified(), if running.publish_at.is_none() => {
                    running.publish_at = Some(Instant::now() + PUBLISH);
                }
                () = at(running.publish_at) => {
                    running.publish_at = None;
                    self.publish(&running);
                }
                () = at(running.tick_at) => {
                    running.tick_at = None;
                    match connections.tick(&limits) {
                        0 => {}
                        slow => shared.counters.reject(Reason::Slow, slow),
                    }
                }
                () = at(running.refresh_at) => self.refresh(&mut running),
                () = at(running.pause_until) => running.pause_until = None,
                () = connections.ended.notified() => shared.counters.touch(),
                accepted = accept(running.listening.as_ref()), if may_accept => match accepted {
                    Ok(stream) => {
                        if open >= limits.connections {
                            connections.end_idle();
                        }
                        self.serve(&running, stream);
                    }
                    Err(error) => {
                        warn!(%error, "no webhook connection can be accepted for a moment");
                        running.pause_until = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
            }
        }
        running.listening = None;
        self.drain(&running).await;
        self.publish(&running);
    }

    /// Puts new options in force. Connections go on, whatever socket they came over.
    fn reconfigure(&self, running: &mut Running) {
        let options = self.options.borrow().clone();
        let live = options.map(|options| {
            let uri = options.callback.parse::<http::Uri>().ok();
            let path = uri.as_ref().map_or("/", http::Uri::path).into();
            Arc::new(Live { options, path })
        });
        *self.shared.live.write().unwrap_or_else(PoisonError::into_inner) = live.clone();
        self.shared.counters.touch();
        running.problem = None;
        running.refresh_at = None;
        let Some(live) = live else {
            if running.listening.take().is_some() {
                info!("webhooks are not listened for any more");
            }
            running.connections.order_all(Order::Drain);
            return;
        };
        if live.options.tls.is_some() {
            running.refresh_at = Some(Instant::now());
        }
        let listener = &live.options.listener;
        if running.listening.as_ref().is_some_and(|used| Arc::ptr_eq(&used.listener, listener)) {
            return;
        }
        match Listening::new(listener) {
            Ok(listening) => {
                let address = listener.local_addr().map(|address| address.to_string());
                info!(listen = %listener.listen(), address, "listening for webhooks");
                let old = running.listening.replace(listening);
                self.empty(running, old.as_ref());
            }
            Err(problem) => {
                error!(error = %problem, "webhooks cannot be listened for");
                running.problem = Some(format!("cannot listen on {}: {problem}", listener.listen()));
                running.listening = None;
            }
        }
    }

    /// Takes the connections that wait at a socket which is given up.
    fn empty(&self, running: &Running, old: Option<&Listening>) {
        let Some(old) = old else { return };
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Ok(stream)) = old.poll_accept(&mut context) {
            self.serve(running, stream);
        }
    }

    fn refresh(&self, running: &mut Running) {
        running.refresh_at = None;
        let Some(tls) = self.shared.live().and_then(|live| live.options.tls.clone()) else { return };
        running.refresh_at = Some(Instant::now() + REFRESH);
        let shared = Arc::clone(&self.shared);
        // A slow disk must not keep requests waiting.
        tokio::task::spawn_blocking(move || {
            if tls.refresh() {
                shared.counters.touch();
            }
        });
    }

    fn serve(&self, running: &Running, stream: Accepted) {
        let Some(live) = self.shared.live() else { return };
        let tls = live.options.tls.clone();
        let entry = running.connections.enter(if tls.is_some() { Phase::Handshake } else { Phase::Idle });
        self.shared.counters.touch();
        let shared = Arc::clone(&self.shared);
        match stream {
            Accepted::Tcp(tcp) => {
                // Answers are small and must not wait.
                let _ = tcp.set_nodelay(true);
                running.tasks.spawn(connection(shared, entry, tcp, tls));
            }
            Accepted::Unix(unix) => drop(running.tasks.spawn(connection(shared, entry, unix, tls))),
        }
    }

    async fn drain(&self, running: &Running) {
        running.tasks.close();
        running.connections.order_all(Order::Drain);
        if tokio::time::timeout(DRAIN, running.tasks.wait()).await.is_err() {
            warn!(connections = running.connections.count(), "webhook requests in hand are cut off");
            running.connections.order_all(Order::Cut);
            running.tasks.wait().await;
        }
    }

    fn publish(&self, running: &Running) {
        let (intake, shards) = self.shared.counters.read();
        let status = self.shared.live().map(|live| {
            let mut status = WebhookStatus {
                callback: live.options.callback.to_string(),
                listen: live.options.listener.listen().to_string(),
                tls: live.options.tls.is_some(),
                keys: live.options.keys.all().len() as u64,
                connections: running.connections.count() as u64,
                problem: live.options.tls.as_ref().and_then(Tls::problem),
                ..WebhookStatus::default()
            };
            self.shared.counters.fill(&mut status, std::time::Instant::now());
            if running.problem.is_some() {
                status.problem.clone_from(&running.problem);
            }
            status
        });
        set(&self.status, status);
        set(&self.intake, intake);
        set(&self.shards, shards);
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|published| {
        let changed = *published != value;
        *published = value;
        changed
    });
}

/// Serves one connection to its end.
async fn connection<T>(shared: Arc<Shared>, entry: Entry, stream: T, tls: Option<Tls>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(tls) = tls else { return http(shared, &entry, stream).await };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = tokio::select! {
        biased;
        () = entry.connection.told(Order::Drain) => return,
        stream = handshake => stream,
    };
    match stream {
        Ok(stream) => {
            entry.connection.enter(Phase::Idle);
            http(shared, &entry, stream).await;
        }
        Err(error) => debug!(%error, "a TLS handshake failed"),
    }
}

async fn http<T>(shared: Arc<Shared>, entry: &Entry, stream: T)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = &entry.connection;
    let stream = Watched { stream, connection: Arc::clone(connection) };
    let service = service_fn(|request| answer(Arc::clone(&shared), Arc::clone(connection), request));
    let mut serving = pin!(
        http1::Builder::new()
            // `Connections::tick` keeps the time.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        biased;
        () = connection.told(Order::Drain) => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = connection.told(Order::Cut) => return,
                ended = serving => ended,
            }
        }
        ended = &mut serving => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "a webhook connection ended");
    }
}
