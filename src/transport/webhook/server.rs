//! The listener task: applies options, admits connections, publishes the status, and stops.
//!
//! `admission` decides which connections there may be; while none can make room, new ones wait in the system's
//! backlog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, warn};

use super::accept::{Accepted, Listening, accept};
use super::counters::Reason;
use super::serve::serve;
use super::shared::{Live, Shared};
use super::tls::Tls;
use super::{Limits, WebhookOptions};
use crate::admission::{Connections, Counts, Peer, Phase};
use crate::model::shard::ShardId;
use crate::model::status::{IntakeStatus, WebhookStatus};
use crate::telemetry::Publish;

/// Least pause between two publications of the status.
const PUBLISH: Duration = Duration::from_millis(100);
/// Pause between two checks of the TLS files.
const REFRESH: Duration = Duration::from_secs(5);
/// The pause after the system refused to give us a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time that requests in hand may take after a stop before they are cut off.
const DRAIN: Duration = Duration::from_secs(3);

/// The task; see [`super::webhook`].
pub struct Webhook {
    pub(super) options: watch::Receiver<Option<WebhookOptions>>,
    pub(super) shared: Arc<Shared>,
    pub(super) status: watch::Sender<Option<WebhookStatus>>,
    pub(super) intake: watch::Sender<IntakeStatus>,
    pub(super) shards: watch::Sender<BTreeMap<ShardId, u64>>,
    pub(super) listening: watch::Sender<bool>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("options", &self.options).finish_non_exhaustive()
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// State of the running task.
struct Running {
    connections: Arc<Connections>,
    tasks: TaskTracker,
    listening: Option<Listening>,
    /// Reason if there is no listener although one is configured.
    problem: Option<String>,
    publish_at: Option<Instant>,
    tick_at: Option<Instant>,
    refresh_at: Option<Instant>,
    pause_until: Option<Instant>,
    /// The published status reports that unproved clients compete for places.
    is_crowded: bool,
}

impl Webhook {
    /// Runs until cancelled; then finishes the requests in hand.
    pub async fn run(self, cancel: CancellationToken) {
        let span = self.shared.span.clone();
        self.listen(cancel).instrument(span).await;
    }

    async fn listen(mut self, cancel: CancellationToken) {
        let mut running = Running {
            connections: Connections::new(Limits::default().connections),
            tasks: TaskTracker::new(),
            listening: None,
            problem: None,
            publish_at: None,
            tick_at: None,
            refresh_at: None,
            pause_until: None,
            is_crowded: false,
        };
        self.options.mark_changed();
        let connections = Arc::clone(&running.connections);
        let shared = Arc::clone(&self.shared);
        loop {
            match connections.tick_every() {
                None => running.tick_at = None,
                Some(every) if running.tick_at.is_none() => running.tick_at = Some(Instant::now() + every),
                Some(_) => {}
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Ok(()) = self.options.changed() => {
                    self.reconfigure(&mut running);
                    self.listening.publish(running.listening.is_some());
                }
                () = shared.counters.changed.notified(), if running.publish_at.is_none() => {
                    running.publish_at = Some(Instant::now() + PUBLISH);
                }
                () = at(running.publish_at) => {
                    running.publish_at = None;
                    self.publish(&mut running);
                }
                () = at(running.tick_at) => {
                    running.tick_at = None;
                    match connections.tick() {
                        0 => {}
                        slow => shared.counters.reject(Reason::Slow, slow),
                    }
                    // A crowd that is over is no problem any more, and nothing else triggers the update.
                    if running.is_crowded {
                        shared.counters.touch();
                    }
                }
                () = at(running.refresh_at) => self.refresh(&mut running),
                () = at(running.pause_until) => running.pause_until = None,
                () = connections.ended() => shared.counters.touch(),
                accepted = accept(running.listening.as_ref(), &connections), if running.pause_until.is_none() => match accepted {
                    Ok((stream, peer)) => self.serve(&running, stream, peer),
                    Err(error) => {
                        // Usually the process has run out of file descriptors.
                        connections.make_room();
                        shared.counters.log_accept(&error, std::time::Instant::now());
                        running.pause_until = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
            }
        }
        running.listening = None;
        self.listening.publish(false);
        self.drain(&running).await;
        self.publish(&mut running);
    }

    /// Applies new options. Open connections stay, whatever socket they came from.
    fn reconfigure(&self, running: &mut Running) {
        let options = self.options.borrow().clone();
        let live = options.map(|options| {
            let uri = options.callback.parse::<http::Uri>().ok();
            let path = uri.as_ref().map_or("/", http::Uri::path).into();
            Arc::new(Live { options, path })
        });
        self.shared.put(live.clone());
        self.shared.counters.touch();
        running.problem = None;
        running.refresh_at = None;
        let Some(live) = live else {
            if running.listening.take().is_some() {
                info!("stopped listening for webhooks");
            }
            running.connections.drain();
            return;
        };
        running.connections.set_limits(live.options.limits.connections.clone());
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
                error!(error = %problem, "cannot listen for webhooks");
                running.problem = Some(format!("cannot listen on {}: {problem}", listener.listen()));
                running.listening = None;
            }
        }
    }

    /// Accepts the connections that wait at a socket which is about to close.
    fn empty(&self, running: &Running, old: Option<&Listening>) {
        let Some(old) = old else { return };
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Ok((stream, peer))) = old.poll_accept(&mut context) {
            self.serve(running, stream, peer);
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

    fn serve(&self, running: &Running, stream: Accepted, peer: Peer) {
        let Some(live) = self.shared.live() else { return };
        let tls = live.options.tls.clone();
        let phase = if tls.is_some() { Phase::Handshake } else { Phase::Idle };
        let connection = Arc::new(running.connections.enter(peer, phase));
        self.shared.counters.touch();
        let shared = Arc::clone(&self.shared);
        match stream {
            Accepted::Tcp(tcp) => {
                // Answers are small and must not wait.
                let _ = tcp.set_nodelay(true);
                running.tasks.spawn(serve(shared, connection, tcp, tls));
            }
            Accepted::Unix(unix) => {
                drop(running.tasks.spawn(serve(shared, connection, unix, tls)));
            }
        }
    }

    async fn drain(&self, running: &Running) {
        running.tasks.close();
        running.connections.drain();
        if tokio::time::timeout(DRAIN, running.tasks.wait()).await.is_err() {
            warn!(connections = running.connections.counts().open, "webhook requests in hand are cut off");
            running.connections.cut();
            running.tasks.wait().await;
        }
    }

    fn publish(&self, running: &mut Running) {
        let counts = running.connections.counts();
        let crowd = counts.problem("a signed request");
        running.is_crowded = crowd.is_some();
        let Counts { open, places, unproved, evicted, .. } = counts;
        let (intake, shards) = self.shared.counters.read();
        let status = self.shared.live().map(|live| {
            let mut status = WebhookStatus {
                callback: live.options.callback.to_string(),
                listen: live.options.listener.listen().to_string(),
                tls: live.options.tls.is_some(),
                keys: live.options.keys.all().len() as u64,
                connections: open,
                places,
                unproved,
                evicted,
                problem: live.options.tls.as_ref().and_then(Tls::problem).or_else(|| crowd.clone()),
                ..WebhookStatus::default()
            };
            self.shared.counters.fill(&mut status, std::time::Instant::now());
            if running.problem.is_some() {
                status.problem.clone_from(&running.problem);
            }
            status
        });
        self.status.publish(status);
        self.intake.publish(intake);
        self.shards.publish(shards);
    }
}
