//! The shared log of a cluster, for one worker.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::warn;

use super::assignment::Assignment;
use super::log_failure::LogFailure;
use super::select::Selector;
use super::sink_letters::SinkLetters;
use super::window::Place;
use crate::cluster::{Feed, FeedState, Following, Mark, PlaceValue, Places, Progress};
use crate::model::event::{Seq, StoredEvent};
use crate::model::route::{Routes, SinkName};
use crate::model::time::Timestamp;
use crate::store::{Keep, Loss, SinkRecord, Store};

/// Most events of one read of the log, and of one count of the backlog.
const READ: usize = 1_000;

/// The part of the log that was read so far.
#[derive(Debug)]
struct Reading {
    mark: Option<Mark>,
    to: Seq,
    /// Events after the cursor that the sink had before the worker started.
    done: BTreeSet<Seq>,
    lost: u64,
}

/// The shared log, for one worker.
#[derive(Debug)]
pub(super) struct SharedSink {
    name: SinkName,
    places: Places,
    feed: Feed,
    state: FeedState,
    _following: Following,
    /// Keeps losses until they are told.
    store: Store,
    letters: SinkLetters,
    selector: Selector,
    routes: watch::Receiver<Option<Arc<Routes>>>,
    begun: PlaceValue,
    reading: Mutex<Reading>,
    progress: watch::Sender<Progress>,
}

impl SharedSink {
    /// A worker of this sink, which has its place. Returns what it writes down as well.
    pub(super) fn new(
        work: &Assignment,
        ((places, feed), letters): ((Places, Feed), SinkLetters),
        (state, following): (FeedState, Following),
        begun: PlaceValue,
    ) -> (Self, watch::Receiver<Progress>) {
        let reading = Reading {
            mark: begun.read.clone(),
            to: begun.cursor,
            done: begun.done.iter().copied().collect(),
            lost: begun.lost,
        };
        let (progress, kept) = watch::channel(Progress {
            stream: begun.stream,
            cursor: begun.cursor,
            done: begun.done.clone(),
            read: begun.read.clone(),
            lost: begun.lost,
            is_urgent: true,
        });
        let sink = Self {
            name: work.options.name.clone(),
            places,
            feed,
            state,
            _following: following,
            store: work.store.clone(),
            letters,
            selector: work.selector.clone(),
            routes: work.routes.clone(),
            begun,
            reading: Mutex::new(reading),
            progress,
        };
        (sink, kept)
    }

    pub(super) fn changes(&self) -> watch::Receiver<Seq> {
        self.feed.newest()
    }

    pub(super) fn may_send(&self) -> bool {
        self.places.may_work()
    }

    pub(super) fn letters(&self) -> &SinkLetters {
        &self.letters
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_to(&self) -> Seq {
        self.reading().to
    }

    pub(super) fn lost(&self) -> u64 {
        self.reading().lost
    }

    /// The place, with the number of dead letters.
    pub(super) async fn record(&self) -> Result<SinkRecord, LogFailure> {
        let dead_letters = Box::pin(self.letters.count()).await?;
        let PlaceValue { cursor, done, replays, replay_until, lost, .. } = self.begun.clone();
        Ok(SinkRecord { cursor, done, dead_letters, replays, replay_until, lost })
    }

    fn note(&self, mark: Option<Mark>) {
        if let Some(mark) = mark {
            let mut reading = self.reading();
            reading.to = mark.seq;
            reading.mark = Some(mark);
        }
    }

    /// See `Log::read_for`.
    pub(super) async fn read(
        &self,
        after: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, LogFailure> {
        let recent = self.feed.recent(after, limit, max_bytes);
        if self.feed.era() != self.state.era {
            return Err(LogFailure::Shared("the shared log is another one, or has lost events".to_owned()));
        }
        if let Some((events, mark)) = recent {
            self.note(mark);
            return Ok(events);
        }
        let mut position = after;
        loop {
            let newest = *self.feed.newest().borrow();
            let batch = self.state.reader.read_after(position, limit.min(READ)).await?;
            for (seq, error) in &batch.unreadable {
                warn!(position = seq.0, %error, "a message of the shared log is no event");
            }
            let Some(last) = batch.read else {
                if position < newest {
                    self.nothing_after(position, newest).await?;
                }
                return Ok(Vec::new());
            };
            let unreadable = batch.unreadable.first().map(|(seq, _)| *seq);
            let first = batch.events.first().map(|event| event.seq).into_iter().chain(unreadable).min();
            self.count_loss(position, first.unwrap_or(last), batch.events.first()).await?;
            if batch.events.is_empty() {
                position = last;
                continue;
            }
            let (mut bytes, mut mark, mut events) = (0, None, Vec::new());
            for (event, published) in batch.events.into_iter().zip(batch.published) {
                if bytes >= max_bytes {
                    break;
                }
                bytes += event.event.payload.len();
                let message_id = event.event.message_id.to_string();
                mark = Some(Mark { seq: event.seq, message_id, published });
                events.push(Arc::new(event));
            }
            self.note(mark);
            return Ok(events);
        }
    }

    /// Makes sure that the log has nothing from here up to the newest event: a server that is behind says so as well.
    async fn nothing_after(&self, position: Seq, newest: Seq) -> Result<(), LogFailure> {
        let (first, _) = self.state.reader.bounds().await?;
        if first <= newest {
            return Err(LogFailure::Shared(format!(
                "the NATS server does not have event {} of the shared log yet",
                newest.0
            )));
        }
        self.count_loss(position, first, None).await
    }

    /// Counts the events after `position` that retention has removed. `first` is the first message that is there.
    async fn count_loss(
        &self,
        position: Seq,
        first: Seq,
        oldest: Option<&StoredEvent>,
    ) -> Result<(), LogFailure> {
        if first.0 <= position.0 + 1 {
            return Ok(());
        }
        let (kept, _) = self.state.reader.bounds().await?;
        let gone = position.0 + 1..kept.min(first).0;
        let now = Timestamp(SystemTime::now());
        let to = oldest.map_or(now, |event| event.stored_at);
        let (events, from) = {
            let mut reading = self.reading();
            let had = reading.done.iter().filter(|seq| gone.contains(&seq.0)).count() as u64;
            let events = gone.end.saturating_sub(gone.start).saturating_sub(had);
            reading.lost += events;
            let from = reading.mark.as_ref().map_or(to, |mark| Timestamp::from_unix_millis(mark.published));
            (events, from.min(to))
        };
        if events > 0 {
            warn!(
                events,
                first = kept.0,
                "the shared log has removed events before the sink had them; raise `store.retain` or `store.max_size`"
            );
            let loss = Loss { sink: self.name.clone(), events, from, to };
            self.store.remember_loss(&loss, kept).await?;
        }
        Ok(())
    }

    /// See `Log::wanted_after`.
    pub(super) async fn wanted_after(&self, after: Seq) -> Result<(Vec<Seq>, Seq), LogFailure> {
        let events = match self.feed.recent(after, usize::MAX, usize::MAX) {
            Some((events, _)) => events,
            None => {
                let batch = self.state.reader.read_after(after, READ).await?;
                batch.events.into_iter().map(Arc::new).collect()
            }
        };
        let looked = events.last().map_or(after, |event| event.seq);
        let routes = self.routes.borrow().clone().unwrap_or_default();
        let wanted = events.iter().filter(|event| self.selector.wants(&event.event, &routes));
        Ok((wanted.map(|event| event.seq).collect(), looked))
    }

    pub(super) fn keep_place(&self, place: Place, keep: Keep) {
        let (read, lost) = {
            let reading = self.reading();
            (reading.mark.clone(), reading.lost)
        };
        self.progress.send_replace(Progress {
            stream: self.state.made,
            cursor: place.cursor,
            done: place.done,
            read,
            lost,
            is_urgent: keep == Keep::Soon,
        });
    }
}
