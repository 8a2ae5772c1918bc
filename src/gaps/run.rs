//! The driver: watches, tells the store, keeps the memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::catch_up::{self, CatchUp, CatchUpTimings, Due, Published};
use super::event::{Told, ToldScope, event};
use super::gap::Gap;
use super::jobs::{Done, Job, Jobs, keep};
use super::memory::{Memory, NAME, Recalled, Row};
use super::sights::{self, BEFORE_BOOT, Sights};
use super::sources::{GapHosts, GapSources};
use super::timeline::{Moment, Timeline};
use super::watcher::Watcher;
use crate::helix::Helix;
use crate::model::cluster::Role;
use crate::model::event::GAP;
use crate::model::rhythm::{beat, to_next};
use crate::model::status::{GapsStatus, OpenGap, ToldGap};
use crate::model::time::Timestamp;
use crate::store::{Store, StoreError, Ticks, since_boot, since_start, ticks};
use crate::telemetry::Publish;

/// Least time between two events about losses by retention, and the time for which the first ones gather: many small ones
/// become one event.
const LOSSES: Duration = Duration::from_secs(60);
const GATHER: Duration = Duration::from_secs(5);

/// The task; see [`gaps`].
#[derive(Debug)]
pub struct Gaps {
    store: Store,
    sources: GapSources,
    status: watch::Sender<GapsStatus>,
    catch_up: CatchUp,
    to_mend: mpsc::Sender<Due>,
    mended: watch::Receiver<Published>,
    requests: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Asks the task.
#[derive(Debug)]
pub struct GapsHandle {
    requests: mpsc::Sender<oneshot::Sender<()>>,
}

impl GapsHandle {
    /// Has everything stored that the next leader goes on from; returns once it is.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(reply).await.is_ok() {
            // An error is the end of the task, which stores it as well.
            let _ = answer.await;
        }
    }
}

/// Builds the task; nothing happens until it is run.
pub fn gaps(
    store: Store,
    helix: &Helix,
    sources: GapSources,
    timings: CatchUpTimings,
) -> (Gaps, GapsHandle, watch::Receiver<GapsStatus>) {
    let (requests_in, requests) = mpsc::channel(1);
    let (status, published) = watch::channel(GapsStatus::default());
    let (to_mend, due) = mpsc::channel(TO_MEND);
    let read = catch_up::Sources {
        options: sources.catch_up.clone(),
        reconcile: sources.reconcile.clone(),
        webhook: sources.webhook.clone(),
        in_use: sources.in_use.clone(),
        subscriptions: sources.subscriptions.clone(),
    };
    let latest = sources.hosts.as_ref().map(|hosts| Arc::clone(&hosts.latest));
    let (catch_up, mended) = CatchUp::new(store.clone(), helix, read, latest, due, timings);
    let gaps = Gaps { store, sources, status, catch_up, to_mend, mended, requests };
    (gaps, GapsHandle { requests: requests_in }, published)
}

impl Gaps {
    /// Runs until cancelled, or until the store is closed.
    pub async fn run(self, cancel: CancellationToken) {
        run(self, cancel).await;
    }
}

/// Gaps that wait for the catch-up to take note of them, which it does at once.
const TO_MEND: usize = 64;

/// Longest time from the making of a shared memory until the other hosts have it; a write that takes longer has failed.
const WRITING: Duration = Duration::from_secs(2);
/// The beginning of a gap is taken so much earlier: for the way of the last message, and for clocks that differ.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// Gaps that the status shows.
const RECENT: usize = 20;

/// Whether this host watches, or another one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Here,
    /// This host leads, and is reading what the previous leader knew.
    Recalling,
    Elsewhere,
}

struct Driver {
    watch: Watch,
    store: Store,
    sources: GapSources,
    watcher: Watcher,
    sights: Sights,
    line: Timeline,
    ticks: Ticks,
    /// The first known moment and its wall-clock time, as the process before this one had them.
    recalled: Option<(Moment, Timestamp)>,
    /// The last complete run, and when it was noticed.
    matched: (Option<Timestamp>, Option<Moment>),
    jobs: Jobs,
    kept: Option<Memory>,
    /// When the memory was last looked at for storing it, in beats; `None` before there was one.
    kept_at: Option<u128>,
    /// When losses are looked for; `None` while there are none.
    losses_at: Option<Instant>,
    /// When losses may be told again.
    next_losses: Instant,
    status: GapsStatus,
    mended: watch::Receiver<Published>,
}

fn moment(since_boot: u64) -> Moment {
    since_boot.saturating_add(BEFORE_BOOT)
}

fn wall() -> u64 {
    Timestamp(SystemTime::now()).unix_millis()
}

fn sights_after(recalled: Option<&Recalled>) -> Sights {
    recalled.map_or_else(Sights::default, |recalled| Sights::new(&recalled.memory))
}

async fn run(gaps: Gaps, cancel: CancellationToken) {
    let Gaps { store, sources, status: publish, catch_up, to_mend, mended, requests } = gaps;
    let catch_up = catch_up.run(cancel.clone());
    tokio::join!(catch_up, watch(store, sources, publish, (to_mend, mended), requests, cancel));
}

async fn watch(
    store: Store,
    sources: GapSources,
    publish: watch::Sender<GapsStatus>,
    (to_mend, mended): (mpsc::Sender<Due>, watch::Receiver<Published>),
    mut requests: mpsc::Receiver<oneshot::Sender<()>>,
    cancel: CancellationToken,
) {
    let recalled = match &sources.hosts {
        Some(_) => None,
        None => match recall(&store, &cancel).await {
            Some(recalled) => recalled,
            None => return,
        },
    };
    let shared = sources.hosts.as_ref().map(|hosts| Arc::clone(&hosts.memory));
    let mut driver = Driver {
        watch: if sources.hosts.is_some() { Watch::Elsewhere } else { Watch::Here },
        watcher: Watcher::new(recalled.as_ref().map(|recalled| recalled.memory.clone())),
        sights: sights_after(recalled.as_ref()),
        recalled: recalled.map(|recalled| (recalled.memory.known, recalled.known_at)),
        line: Timeline::new(Instant::now().into_std(), moment(since_boot())),
        ticks: ticks(),
        matched: (None, None),
        jobs: Jobs::new(store.clone(), shared, to_mend),
        kept: None,
        kept_at: None,
        losses_at: Some(Instant::now()),
        next_losses: Instant::now(),
        status: GapsStatus::default(),
        store,
        sources,
        mended,
    };
    let store = driver.store.clone();
    let mut lost = store.lost();
    loop {
        driver.follow_leadership();
        driver.observe();
        driver.keep_for_next_leader();
        driver.keep_now_and_then();
        driver.publish(&publish);
        let (look, losses_at) = (driver.next_look(), driver.losses_at);
        let sources = &mut driver.sources;
        tokio::select! {
            () = cancel.cancelled() => break,
            done = driver.jobs.next() => {
                if !driver.handle(done) {
                    return;
                }
            }
            Ok(()) = sources.lives.changed() => {}
            Ok(()) = sources.handed_over.changed() => {}
            Ok(()) = sources.bindings.changed() => {}
            Ok(()) = sources.target.changed() => {}
            Ok(()) = sources.listening.changed() => {}
            Ok(()) = sources.in_use.changed() => {}
            Ok(()) = sources.reconcile.changed() => {}
            () = changed(sources.hosts.as_mut()) => {}
            Ok(()) = driver.mended.changed() => {}
            Some(reply) = requests.recv() => {
                driver.observe();
                driver.keep();
                driver.jobs.push(Job::Answer(reply));
            }
            Ok(()) = lost.changed() => driver.handle_loss(),
            () = store.loss_noted() => driver.handle_loss(),
            () = sleep_until(losses_at) => {
                driver.losses_at = None;
                driver.jobs.push(Job::FindLosses);
            }
            () = sleep_until(look) => {}
        }
    }
    if driver.jobs.is_running() {
        let done = driver.jobs.next().await;
        driver.handle(done);
    }
    driver.end().await;
}

/// Resolves when the leadership has changed; never without other hosts.
async fn changed(hosts: Option<&mut GapHosts>) {
    let Some(hosts) = hosts else { return std::future::pending().await };
    if hosts.leadership.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn recall(store: &Store, cancel: &CancellationToken) -> Option<Option<Recalled>> {
    loop {
        match store.settings(NAME).await {
            Ok(found) => {
                let row = found.into_iter().find(|(name, _)| name == NAME);
                let row = row.and_then(|(_, text)| serde_json::from_str::<Row>(&text).ok());
                let boot = ticks()().boot;
                return Some(row.map(|row| row.recall(&boot, moment(since_boot()), wall(), None)));
            }
            Err(StoreError::Closed) => return None,
            Err(error) => {
                warn!(%error, "the time of the last known delivery cannot be read; trying again");
                tokio::select! {
                    () = cancel.cancelled() => return None,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}

impl Driver {
    /// Begins to watch once this host leads, from what the leader before knew; ends when another host does.
    fn follow_leadership(&mut self) {
        let Some(hosts) = &mut self.sources.hosts else { return };
        let leads = hosts.leadership.borrow_and_update().role != Role::Standby;
        match self.watch {
            Watch::Elsewhere if leads => {
                self.watch = Watch::Recalling;
                self.jobs.push_front(Job::Recall);
            }
            Watch::Here | Watch::Recalling if !leads => {
                self.watch = Watch::Elsewhere;
                self.forget(None);
            }
            _ => {}
        }
    }

    /// Has losses looked for, as there are some.
    fn handle_loss(&mut self) {
        let at = self.next_losses.max(Instant::now() + GATHER);
        self.losses_at.get_or_insert(at);
    }

    /// When everything is looked at again; `None` while another host does it.
    fn next_look(&self) -> Option<Instant> {
        let pause = to_next(self.watcher.period(), since_start());
        (self.watch == Watch::Here).then(|| Instant::now() + pause)
    }

    /// Has the memory stored as soon as there is one, as a crash may follow, and then once in a while.
    fn keep_now_and_then(&mut self) {
        let now = beat(since_start());
        if self.kept_at != Some(now) && self.keep() {
            self.kept_at = Some(now);
        }
    }

    fn forget(&mut self, recalled: Option<Recalled>) {
        self.watcher = Watcher::new(recalled.as_ref().map(|recalled| recalled.memory.clone()));
        self.sights = sights_after(recalled.as_ref());
        self.recalled = recalled.map(|recalled| (recalled.memory.known, recalled.known_at));
        self.matched = (None, None);
        self.kept = None;
    }

    fn observe(&mut self) {
        if self.watch != Watch::Here {
            return;
        }
        let (here, now) = (Instant::now().into_std(), moment(since_boot()));
        self.line.note(here, now);
        let (conduit, is_idle, finished) = {
            let reconcile = self.sources.reconcile.borrow_and_update();
            let conduit = reconcile.conduit.as_ref().map(|conduit| conduit.id.clone());
            (
                conduit,
                reconcile.progress.is_none(),
                reconcile.finished_at.filter(|_| reconcile.problem.is_none()),
            )
        };
        if self.matched.0 != finished {
            self.matched = (finished, finished.map(|_| now));
        }
        if is_idle {
            self.observe_lapses();
        }
        let (shards, target) = {
            let target = self.sources.target.borrow_and_update();
            let target = target.as_ref();
            (target.map(|target| target.shards), target.map(|target| target.conduit_id.to_string()))
        };
        let lives = self.sources.lives.borrow_and_update().clone();
        let bindings = self.sources.bindings.borrow_and_update().clone();
        let handed_over = self.sources.handed_over.borrow_and_update().clone();
        let listens = *self.sources.listening.borrow_and_update();
        let called = self.sources.in_use.borrow_and_update().as_ref().map(|in_use| in_use.subscriptions);
        let published = sights::Published {
            shards,
            lives: &lives,
            bindings: &bindings,
            handed_over: &handed_over,
            signs: &self.sources.callback,
            listens,
            called,
            conduit: target.or(conduit),
            matched_at: self.matched.1,
        };
        let view = self.sights.view(&published, &self.line, here, now);
        self.watcher.observe(&view, now);
        for gap in self.watcher.take() {
            self.tell(gap, now);
        }
    }

    fn observe_lapses(&mut self) {
        let lapses = self.sources.lapses.take();
        if lapses.is_empty() {
            return;
        }
        let calls = self.sources.in_use.borrow().as_ref().is_some_and(|in_use| in_use.subscriptions);
        let placed = lapses.into_iter().map(|(key, lapse)| {
            let (from, to) = (self.line.of(lapse.from), self.line.latest(lapse.to));
            let from = if calls { self.sights.signed_before(from) } else { from };
            (key, from, to)
        });
        self.watcher.observe_lapses(placed.collect());
    }

    /// The wall-clock time of a moment, by the clock as it is set now.
    fn date(&self, at: Moment, now: Moment) -> Timestamp {
        let wall = SystemTime::now();
        let ago = Duration::from_millis(now.saturating_sub(at));
        let date = Timestamp(wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
        match self.recalled {
            // The clock may have been behind when this process started.
            Some((known, known_at)) if at <= known => date.min(known_at),
            _ => date,
        }
    }

    fn tell(&mut self, gap: Gap, now: Moment) {
        let from = self.date(gap.from, now);
        let from = Timestamp(from.0.checked_sub(ALLOWANCE).unwrap_or(from.0));
        let to = self.date(gap.to, now).max(from);
        self.tell_event(&Told { from, to, reason: gap.reason, scope: ToldScope::Ways(gap.scope) });
    }

    fn tell_event(&mut self, told: &Told) {
        warn!(
            from = %told.from, to = %told.to, reason = told.reason.name(),
            "events may have been missed: {}; an event of type {GAP} says so to the sinks", told.reason.sentence()
        );
        *self.status.told.entry(told.reason).or_default() += 1;
        self.status.recent.truncate(RECENT - 1);
        let conduit = self.sources.reconcile.borrow().conduit.as_ref().map(|conduit| conduit.id.clone());
        let entries = self.sources.subscriptions.borrow().clone();
        let id = format!("gap-{}", uuid::Uuid::new_v4());
        let (from, to, reason) = (told.from, told.to, told.reason);
        let recent = ToldGap { id: id.as_str().into(), from, to, reason, mended: None };
        self.status.recent.insert(0, recent);
        let due = match &told.scope {
            ToldScope::Ways(scope) => Some(Due::new(&id, scope)),
            // Twitch was heard: what the sink lost was stored.
            ToldScope::Sink(..) => None,
        };
        let event = event(told, &id, conduit.as_deref(), &entries);
        if let Some(event) = event {
            self.jobs.push(Job::Tell(event, due));
        }
    }

    fn memory(&self) -> Option<Memory> {
        self.sights.memory(&self.watcher)
    }

    /// Has the memory stored at once if the next leader, which may have to go on from here at any time, would not know which
    /// shards deliver.
    fn keep_for_next_leader(&mut self) {
        if self.watch != Watch::Here || self.sources.hosts.is_none() {
            return;
        }
        let sessions = self.memory().map(|memory| memory.sessions);
        if self.kept.as_ref().map(|kept| &kept.sessions) != sessions.as_ref() {
            self.keep();
        }
    }

    /// Has the memory stored if it says something new.
    fn keep(&mut self) -> bool {
        if self.watch != Watch::Here {
            return false;
        }
        let Some(memory) = self.memory() else { return false };
        let is_new = self.kept.as_ref().is_none_or(|kept| {
            // Only what calls is taken for delivering as long as we lived.
            let (alive, accepted) = if self.watcher.is_called() {
                (memory.alive, memory.accepted)
            } else {
                (kept.alive, kept.accepted)
            };
            *kept != Memory { alive, accepted, ..memory.clone() }
        });
        if is_new && !self.jobs.has_memory() {
            let row = self.row(memory);
            self.jobs.push(Job::Keep(row));
        }
        true
    }

    fn row(&self, memory: Memory) -> Row {
        let since = moment(since_boot()).saturating_sub(memory.alive);
        Row { boot: (self.ticks)().boot.to_string(), wall: wall().saturating_sub(since), memory }
    }

    /// False once the store has gone.
    fn handle(&mut self, done: Done) -> bool {
        match done {
            Done::Told | Done::NotShared => {}
            Done::Recalled(row) if self.watch == Watch::Recalling => {
                let boot = (self.ticks)().boot;
                let recall = |(row, age): (Row, Option<Duration>)| {
                    let age = age.map(|age| u64::try_from((age + WRITING).as_millis()).unwrap_or(u64::MAX));
                    row.recall(&boot, moment(since_boot()), wall(), age)
                };
                self.forget(row.map(recall));
                self.watch = Watch::Here;
            }
            Done::Recalled(_) => {}
            Done::Kept(Ok(row)) => self.kept = Some(row.memory),
            // The next round tries again; after a crash a gap is told as longer until then.
            Done::Kept(Err(error)) => {
                warn!(%error, "the time of the last known delivery could not be stored");
            }
            Done::NoLosses => self.losses_at = Some(Instant::now() + LOSSES),
            Done::Losses(losses, names) => {
                for told in &losses {
                    self.tell_event(told);
                }
                if !names.is_empty() {
                    self.next_losses = Instant::now() + LOSSES;
                    self.jobs.push(Job::ForgetLosses(names));
                }
            }
            Done::Closed => return false,
        }
        true
    }

    /// Tells what is over, and stores what the next start goes on from.
    async fn end(mut self) {
        if self.watch != Watch::Here {
            return;
        }
        self.observe();
        let now = moment(since_boot());
        for gap in self.watcher.finish(now) {
            self.tell(gap, now);
        }
        while !self.jobs.is_idle() {
            let done = self.jobs.next().await;
            if !self.handle(done) {
                return;
            }
        }
        if let Some(memory) = self.memory()
            && let Err(error) = keep(&self.store, &self.row(memory)).await
        {
            warn!(%error, "the time of the last known delivery could not be stored");
        }
        info!(gaps = self.status.told.values().sum::<u64>(), "the watch over gaps has ended");
    }

    fn publish(&mut self, publish: &watch::Sender<GapsStatus>) {
        {
            let mended = self.mended.borrow_and_update();
            self.status.catch_up.clone_from(&mended.under_way);
            self.status.mended = mended.events;
            for gap in self.status.recent.iter_mut().filter(|gap| gap.mended.is_none()) {
                gap.mended = mended.mended.iter().find(|(id, _)| *id == gap.id).map(|(_, events)| *events);
            }
        }
        let now = moment(since_boot());
        let open = self.watcher.open().map(|(from, reason)| {
            let since = match self.status.open {
                // Computed anew each time it would waver.
                Some(open) if open.reason == reason => open.since.min(self.date(from, now)),
                _ => self.date(from, now),
            };
            OpenGap { since, reason }
        });
        self.status.open = open;
        publish.publish_copy(&self.status);
    }
}
