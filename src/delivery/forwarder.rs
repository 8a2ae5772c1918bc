//! The forwarder: copies every event of the store to the shared log of a cluster.
//!
//! The forwarder is a worker like those of sinks, with a place of its own in the store, and is shown with the cluster. No
//! event is given up; those that NATS will never take are kept as dead letters, and are tried again at each start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span, info, warn};

use super::log::{LocalLog, Log};
use super::returning::Forwarded;
use super::select::Selector;
use super::single::SingleWorker;
use super::sink::Forward;
use super::worker::{Statuses, Stop, Waiting, Worker, follower};
use super::{FORWARDER, SinkKind, SinkOptions};
use crate::cluster::{Acknowledged, SharedLog};
use crate::model::cluster::{ClusterOptions, ForwardStatus};
use crate::model::event::Seq;
use crate::model::route::SinkName;
use crate::model::sink::{Format, NatsOptions};
use crate::model::time::Timestamp;
use crate::store::{DeadLetterFilter, Keep, StartAt, Store, StoreError};
use crate::telemetry::{Lasting, Outage, Publish};

/// Setting that holds the last event that the log has acknowledged.
pub const ACKNOWLEDGED: &str = "cluster.acknowledged";
/// Period of storing that.
const SAVE: Duration = Duration::from_secs(2);
/// Longest pause between two tries.
const RETRY: Duration = Duration::from_secs(1);
/// Time for what is stored and not forwarded when the daemon stops.
const LAST: Duration = Duration::from_secs(2);
/// The part of the log that is sent again when it has lost its tail: what the log knows the ids of.
const BACK: Duration = Duration::from_secs(30 * 60);

/// The task; see [`forwarder`].
#[derive(Debug)]
pub struct Forwarder {
    store: Store,
    log: SharedLog,
    options: SinkOptions,
    statuses: Arc<watch::Sender<Statuses>>,
    status: watch::Sender<ForwardStatus>,
    forwarded: watch::Sender<Forwarded>,
}

/// Builds the task; nothing is forwarded until it is run.
///
/// A store that has no place for it yet is forwarded from now on.
///
/// # Errors
/// The database cannot be written at present.
pub async fn forwarder(
    store: Store,
    log: SharedLog,
    options: &ClusterOptions,
) -> Result<(Forwarder, watch::Receiver<ForwardStatus>), StoreError> {
    let receiver = NatsOptions {
        url: options.nats.clone(),
        subject: "".into(),
        stream: None,
        credentials: None,
        discover: true,
    };
    let options = SinkOptions {
        name: SinkName::new(FORWARDER),
        types: vec!["*".to_owned()],
        format: Format::Eventsub,
        start: StartAt::Present,
        retry_max: RETRY,
        give_up_after: Duration::MAX,
        host: None,
        kind: SinkKind::Nats(receiver),
    };
    store.sink(&options.name, options.start).await?;
    let (status, status_out) = watch::channel(ForwardStatus::default());
    let statuses = Arc::new(watch::Sender::new(Statuses::new()));
    let forwarded = watch::Sender::new(Forwarded::default());
    Ok((Forwarder { store, log, options, statuses, status, forwarded }, status_out))
}

/// Has the forwarder leave out what is stored up to here: the sinks of this host deliver that by themselves.
///
/// # Errors
/// The database cannot be written at present.
pub async fn skip_to(store: &Store, joined: Seq) -> Result<(), StoreError> {
    let name = SinkName::new(FORWARDER);
    store.sink(&name, StartAt::Present).await?;
    store.keep_place(&name, joined, Vec::new(), Keep::Soon);
    // The writer stores the places that it was given before.
    store.sink(&name, StartAt::Present).await.map(drop)
}

impl Forwarder {
    /// How much of the store the log has.
    pub fn forwarded(&self) -> watch::Receiver<Forwarded> {
        self.forwarded.subscribe()
    }

    /// Runs until cancelled; forwards what is stored by then, in little time.
    pub async fn run(self, cancel: CancellationToken) {
        let stop = CancellationToken::new();
        let span = error_span!("forwarder");
        tokio::select! {
            // Ends early only when the store has been closed.
            () = self.insist(&stop).instrument(span) => {}
            () = self.tell() => {}
            () = self.stop(cancel, &stop) => {}
        }
        // A failing disk is reported by the writer.
        let _ = self.save(self.log.acknowledged()).await;
    }

    /// Stops the worker once it has nothing more to do, or has had its time; never returns.
    async fn stop(&self, cancel: CancellationToken, stop: &CancellationToken) {
        cancel.cancelled().await;
        let last = *self.store.last_seq().borrow();
        let is_through = |statuses: &Statuses| {
            statuses.values().all(|status| status.cursor >= last || status.problem.is_some())
        };
        let mut statuses = self.statuses.subscribe();
        let _ = tokio::time::timeout(LAST, statuses.wait_for(is_through)).await;
        stop.cancel();
        std::future::pending::<()>().await;
    }

    /// Forwards until stopped; a store that fails is tried again.
    async fn insist(&self, stop: &CancellationToken) {
        let mut outage = Outage::default();
        loop {
            match self.forward(stop, &mut outage).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => {
                    if let Some(Lasting { failures, .. }) = outage.handle_failure(Instant::now().into_std()) {
                        warn!(%error, failures, "the place of the forwarder cannot be stored; trying again");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn forward(&self, stop: &CancellationToken, outage: &mut Outage) -> Result<(), StoreError> {
        self.doubt().await?;
        let letters = DeadLetterFilter { sink: Some(self.options.name.clone()), ..Default::default() };
        self.store.mark_dead_letters(letters).await?;
        if let Some(Lasting { failures, .. }) = outage.handle_success(Instant::now().into_std()) {
            info!(failures, "the place of the forwarder can be stored again");
        }
        // All subscriptions are the forwarder's; it needs no routes.
        let (_routes, routes) = watch::channel(Some(Arc::default()));
        let (_reopen, reopen) = watch::channel(0);
        while !stop.is_cancelled() {
            let selector = Selector::everything(self.options.name.clone());
            let (_commands, commands) = mpsc::channel(1);
            let end = Stop { soon: stop.child_token(), now: stop.child_token() };
            let worker = Worker {
                options: self.options.clone(),
                follower: follower(&selector, &routes),
                waiting: Waiting::default(),
                selector,
                log: Log::Local(LocalLog { store: self.store.clone(), until: None }),
                routes: routes.clone(),
                reopen: reopen.clone(),
                statuses: Arc::clone(&self.statuses),
                stop: end.clone(),
                commands,
                pause: Arc::default(),
            };
            let sink = Arc::new(Forward(self.log.clone()));
            let mut worker = std::pin::pin!(SingleWorker { worker, sink }.run());
            tokio::select! {
                _ = &mut worker => break,
                last = self.log.lost_tail() => {
                    end.soon.cancel();
                    end.now.cancel();
                    worker.await;
                    self.go_back(&last).await?;
                }
            }
        }
        Ok(())
    }

    /// Goes back to what was stored as acknowledged: of what came after it, nobody could tell whether the log has lost it
    /// since.
    async fn doubt(&self) -> Result<(), StoreError> {
        let record = self.store.sink(&self.options.name, self.options.start).await?;
        match self.log.acknowledged() {
            Some(last) if last.seq < record.cursor => {
                self.store.rewind(&self.options.name, last.seq).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Has the events sent again that the log may have lost.
    async fn go_back(&self, last: &Acknowledged) -> Result<(), StoreError> {
        let since = last.stored_at.0.checked_sub(BACK).map_or(Timestamp::from_unix_millis(0), Timestamp);
        let to = self.store.before(since).await?;
        self.store.rewind(&self.options.name, to).await?;
        self.save(None).await?;
        self.log.went_back();
        warn!(
            position = last.position,
            message_id = last.message_id,
            "the shared log has lost its newest events; those of the last half hour are sent to it again"
        );
        self.status.send_modify(|status| status.tail_lost = Some(Timestamp(SystemTime::now())));
        // Workers never move the published cursor back.
        self.statuses.send_modify(|statuses| statuses.values_mut().for_each(|status| status.cursor = to));
        Ok(())
    }

    async fn save(&self, last: Option<Acknowledged>) -> Result<(), StoreError> {
        let text = last.and_then(|last| serde_json::to_string(&last).ok());
        self.store.set_settings(vec![(ACKNOWLEDGED.to_owned(), text)]).await
    }

    /// Publishes the status, and stores now and then how far the log is; never returns.
    async fn tell(&self) {
        let mut statuses = self.statuses.subscribe();
        let mut lost = self.store.lost();
        // Acknowledgements between this one and a crash are not known.
        let first = self.log.acknowledged();
        let (mut saved, mut saved_at) = (first.clone(), Instant::now());
        loop {
            self.show(&statuses.borrow_and_update(), &lost.borrow_and_update());
            let last = self.log.acknowledged();
            if first != last {
                self.show_forwarded();
            }
            if saved != last && (saved.is_none() || saved_at.elapsed() >= SAVE) {
                // A failing disk is reported by the writer.
                let _ = self.save(last.clone()).await;
                (saved, saved_at) = (last, Instant::now());
            }
            tokio::select! {
                Ok(()) = statuses.changed() => {}
                Ok(()) = lost.changed() => {}
                () = tokio::time::sleep(SAVE) => {}
            }
        }
    }

    /// Publishes how much the log has. The cursor comes first: what it has passed is acknowledged by then.
    fn show_forwarded(&self) {
        let cursor = self.statuses.borrow().get(&self.options.name).map(|status| status.cursor);
        let (Some(cursor), Some(last)) = (cursor, self.log.acknowledged()) else { return };
        self.forwarded.publish(Forwarded { cursor, position: Seq(last.position) });
    }

    fn show(&self, statuses: &Statuses, lost: &BTreeMap<SinkName, u64>) {
        let Some(worker) = statuses.get(&self.options.name) else { return };
        let lost = lost.get(&self.options.name).copied().unwrap_or(0);
        let status = ForwardStatus {
            lag_events: worker.lag_events,
            lag_seconds: worker.lag_seconds,
            forwarded: worker.delivered,
            too_large: worker.dead_letters,
            lost: worker.lost.max(lost),
            tail_lost: self.status.borrow().tail_lost,
            problem: worker.problem.clone(),
        };
        self.status.publish(status);
    }
}
