//! One shard: the machine of [`super::session`] and the sockets that it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use http::Uri;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};

use super::options::PoolOptions;
use super::session::{Event, Output, Session, SocketId, Timings};
use super::socket::{News, Shared, Socket};
use crate::model::shard::{Bindings, Closed, Life, Lives, Sessions, ShardId, ShardTarget};
use crate::model::signs::Signs;
use crate::model::status::{ShardState, ShardStatus};
use crate::model::time::Timestamp;

/// The state of every shard, by its number.
pub(super) type Statuses = BTreeMap<ShardId, ShardStatus>;

/// One shard's task.
pub(super) struct Shard {
    pub(super) id: ShardId,
    pub(super) base: Uri,
    /// Read anew for each connection.
    pub(super) options: watch::Receiver<PoolOptions>,
    pub(super) timings: Timings,
    pub(super) shared: Shared,
    pub(super) connects: Arc<Semaphore>,
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) bindings: watch::Receiver<Bindings>,
    pub(super) sessions: Arc<watch::Sender<Sessions>>,
    pub(super) statuses: Arc<watch::Sender<Statuses>>,
    pub(super) lives: Arc<watch::Sender<Lives>>,
    pub(super) closed: Arc<watch::Sender<Closed>>,
}

struct Running {
    session: Session,
    /// The token that closes each socket, and the socket's signs of life.
    sockets: BTreeMap<SocketId, (CancellationToken, Signs)>,
    tasks: JoinSet<()>,
    permit: Option<OwnedSemaphorePermit>,
    events: u64,
    conduit: Option<Arc<str>>,
    shown: Option<(ShardState, Timestamp)>,
}

impl Shard {
    /// Runs until cancelled; then closes its sockets and stores what they still deliver.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let (news_in, mut news) = mpsc::channel(64);
        let mut running = Running {
            session: Session::new(self.base.clone(), self.timings.clone(), now()),
            sockets: BTreeMap::new(),
            tasks: JoinSet::new(),
            permit: None,
            events: 0,
            conduit: self.target.borrow().as_ref().map(|target| target.conduit_id.clone()),
            shown: None,
        };
        loop {
            if !running.session.is_opening() {
                running.permit = None;
            }
            self.show(&mut running);
            let wants = running.session.wants_connection(now());
            let timeout = running.session.poll_timeout().map(Instant::from_std);
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some((socket, news)) = news.recv() => Some(self.read(&mut running, socket, news)),
                Ok(()) = self.bindings.changed() => {
                    Some(Event::Binding(self.bindings.borrow_and_update().get(&self.id).cloned()))
                }
                Ok(()) = self.target.changed() => {
                    let conduit = self.target.borrow_and_update().as_ref().map(|t| t.conduit_id.clone());
                    if conduit.is_none() || conduit == running.conduit {
                        continue;
                    }
                    running.conduit = conduit;
                    Some(Event::Unbound)
                }
                Ok(permit) = Arc::clone(&self.connects).acquire_owned(), if wants => {
                    running.permit = Some(permit);
                    Some(Event::MayConnect)
                }
                () = sleep_until(timeout), if !wants => None,
            };
            match event {
                Some(event) => running.session.handle_event(event, now(), fastrand::f64()),
                None => running.session.handle_timeout(now(), fastrand::f64()),
            }
            while let Some(output) = running.session.poll_output() {
                self.perform(&mut running, output, &news_in);
            }
            while let Some(cause) = running.session.poll_cause() {
                self.shared.intake.send_modify(|intake| *intake.reconnects.entry(cause).or_default() += 1);
            }
        }
        self.close(&mut running, news).await;
        publish_entry(&self.sessions, self.id, None);
        publish_entry(&self.lives, self.id, None);
        self.statuses.send_modify(|statuses| drop(statuses.remove(&self.id)));
    }

    /// Closes all sockets, which store what they still read, and says whether everything that Twitch sent was read.
    async fn close(&self, running: &mut Running, mut news: mpsc::Receiver<(SocketId, News)>) {
        while running.tasks.try_join_next().is_some() {}
        // A socket on the way to its welcome, or one that is closed already, may miss something.
        let is_settled = !running.session.is_switching() && running.tasks.len() == running.sockets.len();
        let session = running.session.session().cloned().filter(|_| is_settled);
        for (close, _) in running.sockets.values() {
            close.cancel();
        }
        let mut whole = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                Some((socket, news)) = news.recv() => {
                    if let News::Ended { is_whole: true, .. } = news {
                        whole.insert(socket);
                    }
                }
                ended = running.tasks.join_next() => if ended.is_none() { break },
            }
        }
        let is_whole =
            !running.sockets.is_empty() && running.sockets.keys().all(|socket| whole.contains(socket));
        if let Some(session) = session.filter(|_| is_whole) {
            publish_entry(&self.closed, self.id, Some(session));
        }
    }

    fn read(&self, running: &mut Running, socket: SocketId, news: News) -> Event {
        match news {
            News::Welcome { session_id, keepalive } => Event::Welcome { socket, session_id, keepalive },
            News::Received(events) => {
                running.events += events;
                Event::Received(socket)
            }
            News::Reconnect(url) => {
                if let Some(left_out) = self.shared.log.permit("reconnect", now()) {
                    info!(left_out, "Twitch asks for a reconnect");
                }
                Event::Reconnect { socket, url }
            }
            News::Ended { events, cause, why, .. } => {
                running.events += events;
                let expected = running.sockets.remove(&socket).is_none();
                if !expected {
                    warn!(error = %why, "connection ended");
                }
                Event::Ended { socket, cause, why }
            }
        }
    }

    fn perform(&self, running: &mut Running, output: Output, news: &mpsc::Sender<(SocketId, News)>) {
        match output {
            Output::Connect { socket: id, url } => {
                // The machine has parsed the address; the configured one stands in otherwise.
                let uri = url
                    .and_then(|url| url.parse().ok())
                    .unwrap_or_else(|| self.options.borrow().uri().unwrap_or_else(|| self.base.clone()));
                let (close, signs) = (CancellationToken::new(), Signs::default());
                let socket = Socket {
                    id,
                    uri,
                    shared: self.shared.clone(),
                    news: news.clone(),
                    drain: self.timings.drain,
                    signs: signs.clone(),
                };
                running.sockets.insert(id, (close.clone(), signs));
                running.tasks.spawn(socket.run(close).in_current_span());
                while running.tasks.try_join_next().is_some() {}
            }
            Output::Close(socket) => {
                if let Some((close, _)) = running.sockets.remove(&socket) {
                    close.cancel();
                }
            }
            Output::Announce(live) => publish_entry(&self.sessions, self.id, live),
            Output::Warn { kind, text } => {
                if let Some(left_out) = self.shared.log.permit(kind, now()) {
                    warn!(left_out, "{text}");
                }
            }
        }
    }

    fn show(&self, running: &mut Running) {
        let current = running.session.current();
        publish_entry(
            &self.lives,
            self.id,
            current.and_then(|(socket, session_id)| {
                let (_, signs) = running.sockets.get(&socket)?;
                Some(Life { session_id: session_id.clone(), signs: signs.clone() })
            }),
        );
        let mut state = running.session.shard_state();
        if running.session.wants_connection(now()) {
            state = ShardState::Connecting;
        }
        let since = match running.shown {
            Some((shown, since)) if shown == state => since,
            _ => Timestamp(SystemTime::now()),
        };
        running.shown = Some((state, since));
        let (losses, reconnects) = running.session.counts();
        let status = ShardStatus {
            shard: self.id,
            state,
            since,
            session_id: running.session.session().cloned(),
            losses,
            reconnects,
            events: running.events,
            problem: running.session.problem().map(str::to_owned),
        };
        self.statuses.send_if_modified(|statuses| {
            let changed = statuses.get(&self.id) != Some(&status);
            if changed {
                statuses.insert(self.id, status);
            }
            changed
        });
    }
}

/// Publishes the value of a shard in a map of all shards; `None` removes it.
fn publish_entry<T: PartialEq + Clone>(
    sender: &watch::Sender<Arc<BTreeMap<ShardId, T>>>,
    shard: ShardId,
    value: Option<T>,
) {
    sender.send_if_modified(|published| {
        if published.get(&shard) == value.as_ref() {
            return false;
        }
        let published = Arc::make_mut(published);
        match value {
            Some(value) => drop(published.insert(shard, value)),
            None => drop(published.remove(&shard)),
        }
        true
    });
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
