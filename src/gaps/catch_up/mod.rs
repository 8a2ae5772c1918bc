//! Catch-up: after a gap, asks Twitch for the state of channels, and stores what has changed as events.
//!
//! Owns the looks at Twitch; what is known of channels lies in the store, a row each, and changes with the event that
//! tells of it. So a crash at any point loses nothing but the look: the next start tells a gap of its own, and looks at
//! everything again. Every request waits behind those that keep events coming.

mod ask;
mod decide;
mod elsewhere;
mod findings;
mod latest;
mod list;
mod make;
mod options;
mod progress;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::ask::{Asked, Asker, Names};
use self::decide::Conclusion;
use self::findings::Findings;
pub use self::latest::LatestEvents;
use self::list::Target;
use self::make::{Happened, TYPES, Transport};
pub use self::options::{CatchUpOptions, CatchUpTimings};
use self::progress::Progress;
pub(super) use self::progress::Published;
use self::schedule::{Channels, Look, Schedule};
use super::event::{CatchUp as CaughtUp, caught_up};
use super::gap::Scope;
use super::timeline::Moment;
use crate::helix::{Background, Channel, Helix, Stream, User};
use crate::model::event::Event;
use crate::model::last_known::{Change, ChannelDigest, LastKnown, News};
use crate::model::status::{CatchUpStatus, ReconcileStatus, WebhookStatus};
use crate::model::subscriptions::Subscriptions;
use crate::model::time::Timestamp;
use crate::model::webhook::InUse;
use crate::store::{Appended, Store, StoreError};

/// A gap that was told, and is to be mended.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// The message id of its event.
    gap: Box<str>,
    channels: Channels,
}

impl Due {
    pub(super) fn new(gap: &str, scope: &Scope) -> Self {
        let channels = match scope {
            Scope::Shards(_) | Scope::Callback | Scope::All => Channels::All,
            Scope::Subscriptions(keys) => {
                let ids = keys.iter().filter_map(|key| key.condition.get("broadcaster_user_id"));
                Channels::These(ids.map(Box::from).collect())
            }
        };
        Self { gap: gap.into(), channels }
    }
}

/// Pause between two removals of what is known of channels that are not subscribed to.
const FORGET_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Channels that are removed in one transaction.
const FORGET_AT_ONCE: usize = 1_000;

/// Attempts to read what other hosts have stored.
const READS: usize = 3;

/// Difference up to which the time of the next look is the same.
const WAVER: Duration = Duration::from_millis(100);

/// The values of other parts that a catch-up reads.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) options: watch::Receiver<CatchUpOptions>,
    pub(super) reconcile: watch::Receiver<ReconcileStatus>,
    pub(super) webhook: watch::Receiver<Option<WebhookStatus>>,
    pub(super) in_use: watch::Receiver<Option<InUse>>,
    pub(super) subscriptions: watch::Receiver<Subscriptions>,
}

/// The task that mends gaps.
#[derive(Debug)]
pub(super) struct CatchUp {
    store: Store,
    asker: Asker,
    sources: Sources,
    /// The events of all hosts; `None` if there is only this one.
    latest: Option<Arc<dyn LatestEvents>>,
    due: mpsc::Receiver<Due>,
    progress: Progress,
    schedule: Schedule,
    cache: u64,
    started: Instant,
    /// The last complete run that was seen, and the channels that there were.
    list: (Option<Timestamp>, u64),
    forget_after: Duration,
    /// When channels that are not subscribed to were last removed.
    forgot_at: Option<Instant>,
    /// Events that were stored for the gaps under way, by type.
    found: BTreeMap<&'static str, u64>,
}

/// The last known state of some channels.
struct Known {
    channels: BTreeMap<Box<str>, LastKnown>,
    /// The time by the store's clock.
    now: u64,
}

/// The store was closed.
struct Closed;

type Outcome<T = ()> = Result<T, Closed>;

impl CatchUp {
    pub(super) fn new(
        store: Store,
        helix: &Helix,
        sources: Sources,
        latest: Option<Arc<dyn LatestEvents>>,
        due: mpsc::Receiver<Due>,
        timings: CatchUpTimings,
    ) -> (Self, watch::Receiver<Published>) {
        let progress = Progress::default();
        let receiver = progress.subscribe();
        let catch_up = Self {
            store,
            asker: Asker::new(helix.in_background(&Background::default())),
            sources,
            latest,
            due,
            progress,
            schedule: Schedule::new(timings.looks.map(millis)),
            cache: millis(timings.cache),
            started: Instant::now(),
            list: (None, 0),
            forget_after: timings.forget_after,
            forgot_at: None,
            found: BTreeMap::new(),
        };
        (catch_up, receiver)
    }

    /// Runs until cancelled, or until the store is closed.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = self.work() => {}
        }
    }

    fn now(&self) -> Moment {
        millis(self.started.elapsed())
    }

    async fn work(&mut self) -> Outcome {
        loop {
            self.observe();
            self.publish();
            if self.forgot_at.is_none_or(|at| at.elapsed() >= FORGET_EVERY) && self.is_list_certain() {
                self.forgot_at = Some(Instant::now());
                self.forget().await?;
            }
            // Before the first complete run it is not known what is subscribed to.
            let next = self.list.0.and_then(|_| self.schedule.next());
            if next.is_some_and(|next| next <= self.now()) {
                self.look().await?;
                continue;
            }
            let wake = next.map(|next| self.started + Duration::from_millis(next));
            let sources = &mut self.sources;
            tokio::select! {
                due = self.due.recv() => self.add(due.ok_or(Closed)?),
                Ok(()) = sources.options.changed() => {}
                Ok(()) = sources.reconcile.changed() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn add(&mut self, due: Due) {
        if self.options().kinds().next().is_none() {
            return;
        }
        if self.schedule.gaps() == 0 {
            self.found.clear();
            self.progress.set_under_way(Some(begun()));
        }
        self.schedule.add(&due.gap, due.channels, self.now());
    }

    fn options(&self) -> CatchUpOptions {
        *self.sources.options.borrow()
    }

    /// Takes note of a new list of channels.
    fn observe(&mut self) {
        if self.sources.options.borrow_and_update().kinds().next().is_none() {
            self.schedule.clear();
            self.progress.set_under_way(None);
        }
        let finished = {
            let reconcile = self.sources.reconcile.borrow_and_update();
            reconcile.finished_at.filter(|_| reconcile.problem.is_none())
        };
        if finished.is_none() || finished == self.list.0 {
            return;
        }
        let mut hash = DefaultHasher::new();
        self.list().ids().for_each(|id| id.hash(&mut hash));
        let hash = hash.finish();
        if hash != self.list.1 {
            self.schedule.list_changed();
        }
        self.list = (finished, hash);
    }

    /// Whether Twitch matches the list, so that nothing is missing in it by mistake.
    fn is_list_certain(&self) -> bool {
        let reconcile = self.sources.reconcile.borrow();
        let is_settled = reconcile.problem.is_none() && reconcile.deletes_held.is_none();
        self.list.0.is_some() && reconcile.converged && is_settled
    }

    /// Removes what is known of channels that are not subscribed to. After an error it is tried again the next day.
    async fn forget(&mut self) -> Outcome {
        let kinds = TYPES.iter().map(|(kind, _)| *kind).collect();
        let list = list::List::new(self.sources.subscriptions.borrow().clone(), kinds);
        let mut after = Box::from("");
        let mut removed = 0;
        loop {
            let quiet = match self.store.quiet_channels(&after, self.forget_after, FORGET_AT_ONCE).await {
                Ok(quiet) => quiet,
                Err(StoreError::Closed) => return Err(Closed),
                Err(_) => break,
            };
            let Some(last) = quiet.last() else { break };
            after = last.clone();
            let gone: Vec<Box<str>> = quiet.into_iter().filter(|id| !list.has(id)).collect();
            let count = gone.len();
            if !gone.is_empty() && self.store.forget_channels(Some(gone)).await.is_err() {
                break;
            }
            removed += count;
        }
        if removed > 0 {
            info!(channels = removed, "removed what was known of channels that are not in the file any more");
        }
        Ok(())
    }

    fn list(&self) -> list::List {
        list::List::new(self.sources.subscriptions.borrow().clone(), self.options().kinds().collect())
    }

    fn publish(&mut self) {
        let (gaps, now) = (self.schedule.gaps() as u64, self.now());
        let wait = self.schedule.next_look().and_then(|at| at.checked_sub(now)).filter(|wait| *wait > 0);
        let at = wait.map(|wait| Timestamp(SystemTime::now() + Duration::from_millis(wait)));
        let found = self.found.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        self.progress.update(|status| {
            status.gaps = gaps;
            status.found = found;
            // Computed anew each time it would waver.
            status.next_look = match (status.next_look, at) {
                (Some(old), Some(new)) if old.since(new).max(new.since(old)) < WAVER => Some(old),
                (_, new) => new,
            };
        });
    }

    async fn look(&mut self) -> Outcome {
        let total = self.list().ids().count() as u64;
        let Some(look) = self.schedule.begin(self.now(), total) else { return Ok(()) };
        let mut doubtful = BTreeSet::new();
        let mut cursor = Box::from("");
        if look.number > 0 && total == 0 {
            self.schedule.clear();
            self.progress.set_under_way(None);
            return Ok(());
        }
        self.show(look.number, total, 0);
        let mut asked = 0;
        loop {
            while let Ok(due) = self.due.try_recv() {
                self.add(due);
            }
            let part = self.list().after(&cursor, &look.channels);
            let Some(last) = part.last else { break };
            cursor = last;
            asked += part.targets.len() as u64;
            self.look_at(part.targets, &look, &mut doubtful).await?;
            self.show(look.number, total, asked);
        }
        let mended = self.schedule.end(doubtful, self.now());
        self.show(look.number, total, asked);
        if look.number == 0 && self.schedule.gaps() == 0 {
            self.progress.set_under_way(None);
        }
        if mended.is_empty() { Ok(()) } else { self.finish(mended, total).await }
    }

    fn show(&mut self, look: usize, channels: u64, asked: u64) {
        if self.progress.under_way().is_none() {
            self.progress.set_under_way(Some(begun()));
        }
        self.progress.update(|status| {
            (status.look, status.channels, status.asked) = (look as u64, channels, asked);
        });
        self.publish();
    }

    async fn look_at(
        &mut self,
        mut targets: Vec<Target>,
        look: &Look,
        doubtful: &mut BTreeSet<Box<str>>,
    ) -> Outcome {
        let ids = targets.iter().map(|target| target.id.clone()).collect();
        let mut known = self.known(ids).await?;
        self.learn_elsewhere(&mut known).await?;
        let options = self.options();
        if look.number == 0 {
            // A first look is for channels of which something is unknown.
            let is_unknown = |target: &Target| {
                let known = &known.channels[&target.id];
                target.has_streams(options) && known.stream.is_none()
                    || target.has_channels(options) && known.channel.is_none()
            };
            let unknown: BTreeSet<_> =
                targets.iter().filter(|target| is_unknown(target)).map(|target| target.id.clone()).collect();
            targets.retain(|target| unknown.contains(&target.id));
            known.channels.retain(|id, _| unknown.contains(id));
        }
        let is_first = look.number == 0;
        self.look_at_streams(&targets, &known, is_first, doubtful).await?;
        self.look_at_channels(&targets, &known, is_first, doubtful).await
    }

    async fn look_at_streams(
        &mut self,
        targets: &[Target],
        known: &Known,
        is_first: bool,
        doubtful: &mut BTreeSet<Box<str>>,
    ) -> Outcome {
        let options = self.options();
        let targets: Vec<&Target> = targets.iter().filter(|target| target.has_streams(options)).collect();
        let ids = targets.iter().map(|target| &*target.id).collect();
        let shown: Asked<Stream> = self.asker.streams(ids, &mut self.progress).await;
        let now = Timestamp(SystemTime::now());
        let mut findings = Findings::new(is_first, doubtful);
        for target in targets {
            let stream = shown.rows.get(&target.id).map(|stream| decide::Shown {
                id: stream.id.clone(),
                started_at: stream.started_at.unix_millis(),
            });
            let before = known.channels[&target.id].stream.as_ref();
            let conclusion = match shown.unsure.contains(&target.id) {
                true => Conclusion::Doubtful,
                false => decide::stream(before, stream.as_ref(), known.now, self.cache),
            };
            findings.record(target, conclusion);
        }
        let (told, news) = findings.finish();
        let ended: Vec<&str> = told
            .iter()
            .filter(|(target, _)| !shown.rows.contains_key(&target.id))
            .map(|(target, _)| &*target.id)
            .collect();
        // Get Streams leaves out channels that are not live, so their names are asked for separately.
        let names: Names = self.asker.names(ended, &mut self.progress).await;
        let transport = self.transport();
        let events = told.iter().filter_map(|(target, change)| {
            let stream = shown.rows.get(&target.id);
            let (user, name) = match stream {
                Some(stream) => (&stream.user, &*stream.user_name),
                None => names.of(target),
            };
            let happened = match (change, stream) {
                (Change::Online { id, .. }, Some(stream)) => {
                    Happened::Online { stream: id, started_at: stream.started_at }
                }
                (Change::Offline { id, .. }, _) => Happened::Offline { stream: id.as_deref() },
                _ => return None,
            };
            event(&happened, target, user, name, &transport, now)
        });
        let events = events.collect();
        self.store(events, news).await
    }

    async fn look_at_channels(
        &mut self,
        targets: &[Target],
        known: &Known,
        is_first: bool,
        doubtful: &mut BTreeSet<Box<str>>,
    ) -> Outcome {
        let options = self.options();
        let targets: Vec<&Target> = targets.iter().filter(|target| target.has_channels(options)).collect();
        let ids = targets.iter().map(|target| &*target.id).collect();
        let shown: Asked<Channel> = self.asker.channels(ids, &mut self.progress).await;
        let now = Timestamp(SystemTime::now());
        let mut findings = Findings::new(is_first, doubtful);
        for target in targets {
            let before = known.channels[&target.id].channel;
            let conclusion = match shown.rows.get(&target.id) {
                Some(channel) => decide::channel(before.as_ref(), digest_of(channel), known.now, self.cache),
                None if shown.unsure.contains(&target.id) => Conclusion::Doubtful,
                // Twitch leaves out channels that do not exist any more.
                None => Conclusion::Unchanged,
            };
            findings.record(target, conclusion);
        }
        let (told, news) = findings.finish();
        let transport = self.transport();
        let events = told.iter().filter_map(|(target, change)| {
            let (channel, Change::Channel { digest, .. }) = (shown.rows.get(&target.id)?, change) else {
                return None;
            };
            let before = known.channels[&target.id].channel.map_or(0, |before| before.at);
            let happened = Happened::Channel { channel, digest: digest.0, before };
            event(&happened, target, &channel.broadcaster, &channel.broadcaster_name, &transport, now)
        });
        let events = events.collect();
        self.store(events, news).await
    }

    /// The place where subscriptions deliver.
    fn transport(&self) -> Transport {
        let calls = self.sources.in_use.borrow().as_ref().is_some_and(|in_use| in_use.subscriptions);
        let callback = self.sources.webhook.borrow().as_ref().map(|webhook| webhook.callback.clone());
        match callback.filter(|_| calls) {
            Some(callback) => Transport::Webhook { callback },
            None => {
                let reconcile = self.sources.reconcile.borrow();
                let conduit = reconcile.conduit.as_ref().map(|conduit| conduit.id.clone());
                Transport::Conduit { conduit_id: conduit.unwrap_or_default() }
            }
        }
    }

    /// Stores events, and what nobody is told of.
    async fn store(&mut self, events: Vec<(&'static str, Event)>, news: Vec<News>) -> Outcome {
        let mut receipts = Vec::with_capacity(events.len());
        for (kind, event) in events {
            receipts.push((kind, self.store.push(event).await.map_err(|_| Closed)?));
        }
        for (kind, receipt) in receipts {
            if let Appended::Stored(_) = receipt.stored().await.map_err(|_| Closed)? {
                *self.found.entry(kind).or_default() += 1;
                self.progress.count_event();
            }
        }
        if news.is_empty() { Ok(()) } else { self.learn(news).await }
    }

    async fn learn(&self, news: Vec<News>) -> Outcome {
        loop {
            match self.store.learn(news.clone()).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Closed) => return Err(Closed),
                Err(_) => tokio::time::sleep(ask::PAUSE.first).await,
            }
        }
    }

    /// Learns what other hosts have stored of these channels, so that nothing is told which they have told.
    async fn learn_elsewhere(&self, known: &mut Known) -> Outcome {
        let Some(latest) = &self.latest else { return Ok(()) };
        let ids: Vec<Box<str>> = known.channels.keys().cloned().collect();
        for attempt in 1..=READS {
            match latest.read(ids.clone()).await {
                Ok(events) => {
                    let news = elsewhere::newer(&known.channels, &events, known.now, self.cache);
                    if !news.is_empty() {
                        self.learn(news).await?;
                        *known = self.known(ids).await?;
                    }
                    return Ok(());
                }
                Err(error) if attempt == READS => {
                    warn!(
                        error,
                        "what other hosts have told of channels cannot be read, and may be told again"
                    );
                }
                Err(_) => tokio::time::sleep(ask::PAUSE.first).await,
            }
        }
        Ok(())
    }

    async fn known(&self, ids: Vec<Box<str>>) -> Outcome<Known> {
        loop {
            match self.store.last_known(ids.clone()).await {
                Ok((channels, now)) => {
                    let channels = ids.into_iter().zip(channels).collect();
                    return Ok(Known { channels, now });
                }
                Err(StoreError::Closed) => return Err(Closed),
                Err(error) => {
                    warn!(%error, "what is known of channels cannot be read; trying again");
                    tokio::time::sleep(ask::PAUSE.first).await;
                }
            }
        }
    }

    /// Says that gaps are mended as far as that goes.
    async fn finish(&mut self, gaps: Vec<Box<str>>, channels: u64) -> Outcome {
        let found = std::mem::take(&mut self.found);
        let events = found.values().sum();
        let since = self.progress.under_way().map(|status| status.since);
        let now = Timestamp(SystemTime::now());
        info!(gaps = gaps.len(), channels, events, "caught up after a gap");
        let made =
            CaughtUp { from: since.unwrap_or(now), to: now, gaps: &gaps, channels, events, found: &found };
        let id = format!("caught-up-{}", uuid::Uuid::new_v4());
        if let Some(event) = caught_up(&made, &id) {
            let receipt = self.store.push(event).await.map_err(|_| Closed)?;
            receipt.stored().await.map_err(|_| Closed)?;
        }
        self.progress.end(gaps, events);
        Ok(())
    }
}

fn begun() -> CatchUpStatus {
    CatchUpStatus { since: Timestamp(SystemTime::now()), ..CatchUpStatus::default() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn digest_of(channel: &Channel) -> ChannelDigest {
    ChannelDigest::of(&channel.title, &channel.language, &channel.category_id, &channel.labels)
}

fn event(
    happened: &Happened<'_>,
    target: &Target,
    user: &User,
    name: &str,
    transport: &Transport,
    now: Timestamp,
) -> Option<(&'static str, Event)> {
    let kind = happened.kind();
    let subscription = target.subscription(kind)?;
    Some((kind, make::event(happened, user, name, subscription, transport, now)?))
}
