//! Sinks that are worked from the shared log of a cluster, each by one host at a time.
//!
//! A worker gets hold of the sink's place in the bucket first, and ends as soon as anybody else writes it. What it has delivered
//! and not written down by then comes again from the next worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::SinkOptions;
use super::assignment::Assignment;
use super::log::Log;
use super::log_failure::LogFailure;
use super::returning::{Forwarded, Returning};
use super::shared_sink::SharedSink;
use super::sink_letters::SinkLetters;
use super::worker::{End, Stop};
use crate::cluster::{Feed, FeedState, PlaceValue, Places, ReadError, SharedLetters};
use crate::model::cluster::Assigned;
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;
use crate::store::StartAt;

/// Period of noting how much of the store the log has.
const NOTE: Duration = Duration::from_secs(1);
/// Looks after which a sink that is behind counts as being behind.
const LASTING: u32 = 3;
/// Pause after a failure of NATS.
const RETRY: Duration = Duration::from_millis(500);
/// A new sink begins so much before it was added: the servers have to agree on the time to half a second.
const SLACK: Duration = Duration::from_secs(1);

/// The shared log, for the delivery of one host; cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedWork {
    pub places: Places,
    pub feed: Feed,
    pub letters: SharedLetters,
    /// The last event that this host had stored when it joined the cluster: its sinks deliver those up to here by themselves.
    pub joined: Seq,
    /// How much of the store the shared log has.
    pub forwarded: watch::Receiver<Forwarded>,
}

/// Changes when other sinks may be worked here.
pub(super) struct WorkChanges {
    assigned: watch::Receiver<Assigned>,
    presence: watch::Receiver<bool>,
}

impl WorkChanges {
    pub(super) async fn next(&mut self) {
        tokio::select! {
            Ok(()) = self.assigned.changed() => {}
            Ok(()) = self.presence.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// The places in the store of this host where sinks would go on without the cluster.
#[derive(Debug, Default)]
pub(super) struct Returns {
    notes: Returning,
    kept: BTreeMap<SinkName, Seq>,
    /// Sinks that are behind, as they were found last, with the count of looks that found the same.
    behind: (Vec<SinkName>, u32),
    /// The sinks that were told last.
    told: Option<Vec<SinkName>>,
}

/// News for the store of this host about the shared log.
#[derive(Debug, Default)]
pub(super) struct ReturnNews {
    /// Places that have moved.
    pub(super) cursors: Vec<(SinkName, Seq)>,
    /// Sinks that have not had everything in the shared log for a while, if they are others than before.
    pub(super) behind: Option<Vec<SinkName>>,
}

impl Returns {
    /// Waits for a while, and returns what has changed.
    pub(super) async fn next(&mut self, shared: Option<&SharedWork>) -> ReturnNews {
        let Some(shared) = shared else { return std::future::pending().await };
        tokio::time::sleep(NOTE).await;
        let forwarded = *shared.forwarded.borrow();
        self.notes.note(forwarded);
        let places = shared.places.cursors();
        let newest = forwarded.position.max(*shared.feed.newest().borrow());
        let behind = places.iter().filter(|(_, cursor)| **cursor < newest);
        let behind = self.behind(behind.map(|(sink, _)| sink.clone()).collect(), places.is_empty());
        let mut moved = Vec::new();
        for (sink, cursor) in &places {
            let local = self.notes.local_cursor(*cursor);
            if let Some(local) = local.filter(|local| self.kept.get(sink) != Some(local)) {
                self.kept.insert(sink.clone(), local);
                moved.push((sink.clone(), local));
            }
        }
        if let Some(slowest) = places.values().min() {
            self.notes.forget(*slowest);
        }
        ReturnNews { cursors: moved, behind }
    }

    /// Returns the sinks that are behind, once that has lasted: under load some always are for a moment.
    fn behind(&mut self, found: Vec<SinkName>, is_unknown: bool) -> Option<Vec<SinkName>> {
        if is_unknown {
            return None;
        }
        if self.behind.0 == found {
            self.behind.1 += 1;
        } else {
            self.behind = (found, 0);
        }
        let (found, looks) = &self.behind;
        let is_due = (found.is_empty() || *looks >= LASTING) && self.told.as_ref() != Some(found);
        is_due.then(|| self.told.insert(found.clone()).clone())
    }
}

impl SharedWork {
    /// See the field.
    pub(super) fn joined(&self) -> Seq {
        self.joined
    }

    /// Whether this host has to work the sink, and may.
    pub(super) fn is_assigned(&self, sink: &SinkName) -> bool {
        self.places.is_assigned(sink) && *self.places.presence().borrow()
    }

    pub(super) fn changes(&self) -> WorkChanges {
        WorkChanges { assigned: self.places.assigned(), presence: self.places.presence() }
    }

    /// The place of a sink that never had one.
    async fn first(
        &self,
        state: &FeedState,
        start: StartAt,
        since: Instant,
    ) -> Result<PlaceValue, ReadError> {
        let (first, _) = state.reader.bounds().await?;
        let oldest = Seq(first.0.saturating_sub(1));
        let cursor = match start {
            StartAt::Beginning => oldest,
            StartAt::Present => oldest.max(state.reader.before_age(since.elapsed() + SLACK).await?),
        };
        Ok(PlaceValue { cursor, stream: state.made, ..PlaceValue::default() })
    }

    /// Waits until the log was opened; `None` if `stop` comes first.
    async fn opened(&self, stop: &CancellationToken) -> Option<FeedState> {
        let mut state = self.feed.state();
        tokio::select! {
            () = stop.cancelled() => None,
            state = state.wait_for(Option::is_some) => state.ok()?.clone(),
        }
    }

    /// Gives every sink a place that has none, so that it begins where it was added, whoever works it later.
    pub(super) async fn found_places(
        &self,
        mut sinks: watch::Receiver<Arc<[SinkOptions]>>,
        stop: &CancellationToken,
    ) {
        let mut since: BTreeMap<SinkName, Instant> = BTreeMap::new();
        while !stop.is_cancelled() {
            let all = Arc::clone(&sinks.borrow_and_update());
            let now = Instant::now();
            for sink in all.iter() {
                since.entry(sink.name.clone()).or_insert(now);
            }
            since.retain(|name, _| all.iter().any(|sink| sink.name == *name));
            let mut is_done = true;
            for sink in all.iter() {
                let since = since.get(&sink.name).copied().unwrap_or(now);
                is_done &= self.places.known(&sink.name).is_some() || self.found(sink, since, stop).await;
            }
            let pause = if is_done { Duration::MAX } else { RETRY };
            tokio::select! {
                () = stop.cancelled() => {}
                Ok(()) = sinks.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn found(&self, sink: &SinkOptions, since: Instant, stop: &CancellationToken) -> bool {
        let _following = self.feed.follow();
        let Some(state) = self.opened(stop).await else { return false };
        match self.first(&state, sink.start, since).await {
            Ok(place) => self.places.found(&sink.name, &place).await,
            Err(_) => false,
        }
    }

    /// Works a sink until it is stopped, or until another host has its place.
    pub(super) async fn work(
        self,
        work: Assignment,
        stop: Stop,
        show_letters: impl Fn(u64),
        build: impl FnOnce(Log) -> BoxFuture<'static, End>,
    ) -> End {
        let following = self.feed.follow();
        let Some(state) = self.opened(&stop.soon).await else { return End::Stopped };
        let mut keeper = self.places.keeper(&work.options.name);
        let first = || async { self.first(&state, work.options.start, work.since).await.ok() };
        let begun = match keeper.claim(&stop.soon, first).await {
            Some(claimed) => settle(&state, claimed, &stop.soon).await,
            None => None,
        };
        let Some(begun) = begun else {
            keeper.release().await;
            return End::Stopped;
        };
        info!(cursor = begun.cursor.0, "the sink is worked here");
        let era = state.era;
        let shared = (self.places.clone(), self.feed.clone());
        let letters = SinkLetters::new(self.letters.clone(), work.store.clone(), work.options.clone());
        let (log, progress) = SharedSink::new(&work, (shared, letters.clone()), (state, following), begun);
        let ended = CancellationToken::new();
        let worker = build(Log::Shared(Box::new(log)));
        let work = async {
            worker.await;
            ended.cancel();
        };
        let keep = async {
            keeper.keep(progress, &ended).await;
            if !ended.is_cancelled() {
                info!("the sink's place was moved, or is another host's by now; this worker ends");
                stop.end_now();
            }
        };
        let count = async {
            tokio::select! {
                () = ended.cancelled() => {}
                () = letters.watch_count(show_letters) => {}
            }
        };
        tokio::join!(work, keep, count, self.watch_log(era, &stop, &ended));
        keeper.release().await;
        End::Again
    }

    /// Ends a worker whose events may have other numbers by now.
    async fn watch_log(&self, era: u64, stop: &Stop, ended: &CancellationToken) {
        let mut states = self.feed.state();
        let is_other = |state: &Option<FeedState>| state.as_ref().is_some_and(|state| state.era != era);
        tokio::select! {
            () = ended.cancelled() => {}
            _ = states.wait_for(is_other) => stop.end_now(),
        }
    }

    /// The shared log, or why it cannot be read.
    pub(super) async fn reached(&self) -> Result<FeedState, String> {
        let _following = self.feed.follow();
        let limit = CancellationToken::new();
        let opened = tokio::time::timeout(Duration::from_secs(5), self.opened(&limit)).await;
        let away = "this host does not reach the shared log: see `eventsubd status`";
        Ok(opened.ok().flatten().ok_or(away)?)
    }

    /// Has a sink get the events since then again. Returns their number, of all types.
    pub(super) async fn replay(&self, sink: &SinkName, since: Since) -> Result<u64, String> {
        let state = self.reached().await?;
        let failed = |error: ReadError| LogFailure::from(error).to_string();
        let after = match since {
            Since::Seq(seq) => Seq(seq.0.saturating_sub(1)),
            Since::Time(time) => state.reader.before(time).await.map_err(failed)?,
        };
        let (first, last) = state.reader.bounds().await.map_err(failed)?;
        let after = after.max(Seq(first.0.saturating_sub(1)));
        self.places.set_back(sink, after).await?;
        Ok(last.0.saturating_sub(after.0))
    }
}

/// Brings a place in line with the log as it is now: the log may be another one, or have lost its tail.
async fn settle(state: &FeedState, place: PlaceValue, stop: &CancellationToken) -> Option<PlaceValue> {
    if place.stream != state.made {
        let is_new = place.stream == 0;
        if !is_new {
            warn!("the shared log is another one than before; the sink begins at its first event");
        }
        let cursor = if is_new { place.cursor } else { Seq(0) };
        return Some(PlaceValue { stream: state.made, cursor, done: Vec::new(), read: None, ..place });
    }
    let Some(read) = place.read.clone() else { return Some(place) };
    loop {
        match state.lost_since(&read).await {
            Ok(None) => return Some(place),
            Ok(Some(to)) => {
                warn!(
                    position = to.0,
                    "the shared log has lost events that the sink had; it gets again what came after"
                );
                let cursor = place.cursor.min(to);
                return Some(PlaceValue { cursor, done: Vec::new(), read: None, ..place });
            }
            Err(_) => tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            },
        }
    }
}
