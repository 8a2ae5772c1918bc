//! The worker of a sink that takes events one by one, several at a time: read after the cursor, keep a
//! window of events open, send what may go, store how far everything is.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::format::Broadcaster;
use super::retry::{Decision, Outcome};
use super::sink::Single;
use super::sleep_until;
use super::window::{Origin, Place, Ticket, Window};
use super::worker::{LETTERS, Worker, age};
use crate::model::event::{Seq, StoredEvent};
use crate::model::status::SinkState;

/// Events that are open at once, at the most.
const WINDOW: usize = 1_024;
/// Bytes of payload that are open at once, about.
const WINDOW_BYTES: usize = 4 << 20;
/// Events that are read at once.
const READ: usize = 256;
/// How long sending may go on after the daemon was told to stop.
const LAST_SEND: Duration = Duration::from_secs(4);
/// How often the lag is shown while nothing happens.
const SHOW: Duration = Duration::from_secs(1);

/// The worker.
pub(super) struct SingleWorker {
    pub(super) worker: Worker,
    pub(super) sink: Arc<dyn Single>,
}

/// What is open, and what is out.
struct Run {
    window: Window,
    events: BTreeMap<Ticket, Arc<StoredEvent>>,
    bytes: usize,
    sending: FuturesUnordered<futures_util::future::BoxFuture<'static, (Ticket, Outcome)>>,
    /// Events after the cursor that were done before this start.
    already: BTreeSet<Seq>,
    /// The last dead letter that was taken up, and whether there may be more.
    letters: (i64, bool),
    begun: Instant,
    failed_before: bool,
}

impl SingleWorker {
    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        let Some(record) = self.worker.start().await else { return };
        let place = Place { cursor: record.cursor, done: record.done };
        let (moved, keeper) = self.worker.keep_place(place.clone());
        let mut run = Run {
            window: Window::new(self.sink.concurrency(), place.cursor),
            events: BTreeMap::new(),
            bytes: 0,
            sending: FuturesUnordered::new(),
            already: place.done.into_iter().collect(),
            letters: (0, true),
            begun: Instant::now(),
            failed_before: false,
        };
        let mut publish = |place: Place| {
            moved.send_if_modified(|old| {
                let changed = *old != place;
                *old = place;
                changed
            });
        };
        if self.work(&mut run, &mut publish).await.is_some() && !run.sending.is_empty() {
            let stop = self.worker.stop.clone();
            if stop.finish(self.finish(&mut run, &mut publish), LAST_SEND).await.is_none() {
                warn!(
                    sink = %self.worker.name(), events = run.sending.len(),
                    "stopped while events were being sent; they are sent again at the next start"
                );
            }
        }
        drop(run);
        drop(moved);
        let _ = keeper.await;
    }

    /// Sends until told to stop; none when the store has gone.
    async fn work(&mut self, run: &mut Run, publish: &mut impl FnMut(Place)) -> Option<()> {
        let mut newest = self.worker.store.last_seq();
        let mut reopen = self.worker.reopen.clone();
        let stop = self.worker.stop.clone();
        let mut shown = Instant::now();
        loop {
            if stop.soon.is_cancelled() {
                return Some(());
            }
            let to = *newest.borrow_and_update();
            self.refill(run, to).await?;
            self.send(run);
            self.show(run);
            publish(run.window.place());
            let due = run.window.next_due().map(|due| run.begun + due);
            tokio::select! {
                biased;
                () = stop.soon.cancelled() => return Some(()),
                Some((ticket, outcome)) = run.sending.next(), if !run.sending.is_empty() => {
                    self.settle(run, ticket, outcome).await?;
                    // Whatever else has ended meanwhile goes with it.
                    while let Some(Some((ticket, outcome))) = run.sending.next().now_or_never() {
                        self.settle(run, ticket, outcome).await?;
                    }
                }
                Ok(()) = reopen.changed() => run.window.hurry(),
                () = sleep_until(due) => {}
                changed = newest.changed(), if run.window.len() < WINDOW => changed.ok()?,
                () = tokio::time::sleep_until(shown + SHOW), if !run.window.is_empty() => shown = Instant::now(),
            }
        }
    }

    /// Waits for what is out.
    async fn finish(&self, run: &mut Run, publish: &mut impl FnMut(Place)) -> Option<()> {
        while let Some((ticket, outcome)) = run.sending.next().await {
            self.settle(run, ticket, outcome).await?;
            publish(run.window.place());
        }
        self.show(run);
        Some(())
    }

    /// Opens further events while there is room: what a person asked for first.
    async fn refill(&self, run: &mut Run, newest: Seq) -> Option<()> {
        if run.letters.1 && run.window.len() + LETTERS <= WINDOW {
            let letters = self.worker.letters(run.letters.0).await?;
            run.letters = (letters.last().map_or(run.letters.0, |last| last.id), letters.len() == LETTERS);
            for letter in letters {
                run.open(Origin::Letter(letter.id), letter.event);
            }
        }
        while run.window.read() < newest && run.window.len() + READ <= WINDOW && run.bytes < WINDOW_BYTES {
            let after = run.window.read();
            let events = self
                .worker
                .insist("reading events", || self.worker.store.read_after(after, READ, WINDOW_BYTES / 4))
                .await?;
            let Some(last) = events.last().map(|event| event.seq) else {
                // Retention was quicker: there is nothing up to the newest that was seen.
                run.window.read_to(newest);
                break;
            };
            let routes = self.worker.routes.borrow().clone().unwrap_or_default();
            for event in events {
                if run.already.remove(&event.seq) {
                    run.window.add_done(event.seq);
                } else if self.worker.selector.wants(&event.event, &routes) {
                    run.open(Origin::Stored(event.seq), event);
                }
            }
            run.window.read_to(last);
        }
        Some(())
    }

    fn send(&self, run: &mut Run) {
        while let Some(ticket) = run.window.next(run.begun.elapsed()) {
            let Some(event) = run.events.get(&ticket) else { continue };
            let work = Arc::clone(&self.sink).send(Arc::clone(event), run.window.failures(ticket));
            run.sending.push(work.map(move |outcome| (ticket, outcome)).boxed());
        }
    }

    /// What a try came to.
    async fn settle(&self, run: &mut Run, ticket: Ticket, outcome: Outcome) -> Option<()> {
        let Some(origin) = run.window.origin(ticket) else { return Some(()) };
        let event = run.events.get(&ticket).cloned()?;
        let id = &event.event.message_id;
        let sink = self.worker.name();
        let given_up = match outcome {
            Outcome::Done => None,
            Outcome::Failed { error, after } => {
                let attempt = run.window.failures(ticket) + 1;
                if run.failed_before {
                    debug!(%sink, error, message_id = %id, attempt, "sink failed again");
                } else {
                    warn!(%sink, error, message_id = %id, "sink failed; trying again");
                }
                run.failed_before = true;
                let now = run.begun.elapsed();
                let decision = run.window.failed(ticket, now, self.worker.limits(), after, fastrand::f64());
                self.worker.show(
                    |status| {
                        status.retries += 1;
                        status.problem = Some(error.clone());
                    },
                    Seq(0),
                );
                if matches!(decision, Decision::Wait(_)) {
                    return Some(());
                }
                error!(
                    %sink, error, message_id = %id, seq = event.seq.0,
                    "gave up on an event after give_up_after; it is in the sink's dead letters"
                );
                Some(error)
            }
            Outcome::Rejected(error) => {
                error!(
                    %sink, error, message_id = %id, seq = event.seq.0,
                    "the event was refused for good; it is in the sink's dead letters"
                );
                Some(error)
            }
        };
        match (origin, &given_up) {
            (Origin::Stored(_), None) => {}
            (Origin::Stored(_), Some(error)) => self.worker.bury(&event, error).await?,
            (Origin::Letter(id), None) => self.worker.resent(id, Ok(())).await?,
            (Origin::Letter(id), Some(error)) => self.worker.resent(id, Err(error)).await?,
        }
        run.window.done(ticket);
        run.close(ticket);
        let works_again = run.failed_before && !run.window.failing();
        let delivered = u64::from(given_up.is_none());
        if works_again {
            run.failed_before = false;
            if delivered > 0 {
                info!(%sink, "sink works again");
            }
        }
        self.worker.show(
            |status| {
                status.delivered += delivered;
                if works_again {
                    status.problem = None;
                }
            },
            Seq(0),
        );
        Some(())
    }

    fn show(&self, run: &Run) {
        let oldest = run.events.first_key_value().map(|(_, event)| age(event));
        let state = match () {
            () if run.window.is_empty() => SinkState::Idle,
            () if run.window.failing() && run.window.out() == 0 => SinkState::Retrying,
            () => SinkState::Delivering,
        };
        self.worker.show(
            |status| {
                status.state = state;
                status.in_flight = run.window.out() as u64;
                status.lag_seconds = oldest.unwrap_or(0);
            },
            run.window.place().cursor,
        );
    }
}

impl Run {
    fn open(&mut self, origin: Origin, event: StoredEvent) {
        let mut hasher = DefaultHasher::new();
        Broadcaster::of(&event.event.payload).id.hash(&mut hasher);
        let ticket = self.window.add(origin, hasher.finish());
        self.bytes += event.event.payload.len();
        self.events.insert(ticket, Arc::new(event));
    }

    fn close(&mut self, ticket: Ticket) {
        if let Some(event) = self.events.remove(&ticket) {
            self.bytes -= event.event.payload.len();
        }
    }
}
