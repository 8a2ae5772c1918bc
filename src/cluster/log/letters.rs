//! The dead letters that all hosts share, in a stream: writing, reading, marking and removing them.
//!
//! A letter is one message, whose subject names the sink and the event; the newest message of a subject counts. A change is
//! written on top of the known one, so two hosts cannot undo each other. The stream keeps letters until a person or a worker
//! removes them; one that is full takes no further ones, and their workers wait.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::error;

use super::events::{LogError, SharedLog};
use super::letter;
use super::letter_stream::{Choice, End, LetterStream, LettersError, Pages, Written, position};
use crate::model::event::StoredEvent;
use crate::model::sink::SinkName;
use crate::model::text::chain;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, DeadLetterFilter, GivenUp, LetterPage};

/// Attempts to write on top of what other hosts write meanwhile.
const TRIES: usize = 10;
/// Letters that are remembered in case the stream loses its newest messages, their size, and for how long. Servers sync every
/// two minutes.
const RECENT: (usize, usize, Duration) = (1_000, 8 << 20, Duration::from_secs(10 * 60));

/// The dead letters of all hosts; cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedLetters {
    log: SharedLog,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The stream, with the number of the connection over which it was opened.
    opened: tokio::sync::Mutex<Option<(u64, Arc<LetterStream>)>>,
    end: Arc<End>,
    recent: Mutex<Recent>,
}

/// Letters that this host has written of late.
#[derive(Debug, Default)]
struct Recent {
    letters: VecDeque<(Instant, DeadLetter)>,
    bytes: usize,
}

impl Recent {
    fn add(&mut self, letter: DeadLetter) {
        self.bytes += letter.event.event.payload.len();
        self.letters.push_back((Instant::now(), letter));
        let (most, most_bytes, age) = RECENT;
        while self.letters.len() > most
            || self.bytes > most_bytes
            || self.letters.front().is_some_and(|(at, _)| at.elapsed() > age)
        {
            let Some((_, old)) = self.letters.pop_front() else { break };
            self.bytes -= old.event.event.payload.len();
        }
    }

    fn take(&mut self) -> Vec<DeadLetter> {
        std::mem::take(self).letters.into_iter().map(|(_, letter)| letter).collect()
    }
}

impl SharedLetters {
    /// Uses the connection of the log.
    pub fn new(log: SharedLog) -> Self {
        Self { log, inner: Arc::default() }
    }

    /// Writes down that a sink has given an event up. A letter about it that exists gets the new failure.
    ///
    /// # Errors
    /// The letter is not there, or nobody knows.
    pub async fn put(&self, sink: &SinkName, event: &StoredEvent, why: &GivenUp) -> Result<(), LettersError> {
        let now = Timestamp(SystemTime::now());
        let new = letter::new(sink, event.clone(), why, now);
        let change =
            |known: DeadLetter| (!letter::tells(&known, why)).then(|| letter::failed_again(known, why, now));
        self.write(new.clone(), change).await?;
        self.recent().add(new);
        Ok(())
    }

    /// Has a sink get an event again: as a letter that waits to be sent.
    ///
    /// # Errors
    /// The letter is not there, or nobody knows.
    pub async fn put_for_replay(&self, sink: &SinkName, event: &StoredEvent) -> Result<(), LettersError> {
        let now = Timestamp(SystemTime::now());
        let fresh = letter::new(sink, event.clone(), &GivenUp::from("not sent again yet"), now);
        let marked = |letter: DeadLetter| DeadLetter { replay: true, replays: letter.replays + 1, ..letter };
        self.write(marked(fresh), |known| (!known.replay).then(|| marked(known))).await
    }

    /// The letters of a filter with numbers after `after`, oldest first, at most `limit`, and as many as a bounded search
    /// finds.
    ///
    /// # Errors
    /// NATS does not answer, or the pattern of types is none.
    pub async fn page(
        &self,
        filter: &DeadLetterFilter,
        after: i64,
        limit: usize,
    ) -> Result<LetterPage, LettersError> {
        let stream = self.open().await?;
        let to = stream.last(filter.sink.as_ref()).await?;
        stream.page(&Choice::new(filter)?, after, to, limit).await
    }

    /// The letters of a sink with numbers below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn newest(
        &self,
        sink: &SinkName,
        before: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LettersError> {
        let filter = DeadLetterFilter { sink: Some(sink.clone()), ..DeadLetterFilter::default() };
        let (stream, choice) = (self.open().await?, Choice::new(&filter)?);
        let first = stream.first(sink).await?.saturating_sub(1);
        let mut to = stream.last(Some(sink)).await?.min(before.saturating_sub(1));
        let (mut found, mut width) = (Vec::new(), 200);
        while to > first && found.len() < limit {
            let after = to.saturating_sub(width).max(first);
            let page = stream.page(&choice, after, to, usize::MAX).await?;
            if page.next.is_some() && width > 1 {
                // Too much for one page: the end of it would be missing.
                width /= 2;
                continue;
            }
            found.extend(page.letters.into_iter().rev());
            (to, width) = (after, width.saturating_mul(4));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The letters of a sink that wait to be sent again, with numbers after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn to_replay(
        &self,
        sink: &SinkName,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LettersError> {
        let filter = DeadLetterFilter { sink: Some(sink.clone()), ..DeadLetterFilter::default() };
        let (stream, choice) = (self.open().await?, Choice::new(&filter)?);
        let to = stream.last(Some(sink)).await?;
        let (mut found, mut next) = (Vec::new(), Some(after));
        while let (Some(after), true) = (next, found.len() < limit) {
            let page = stream.page(&choice, after, to, usize::MAX).await?;
            next = page.next;
            found.extend(page.letters.into_iter().filter(|letter| letter.replay));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Number of letters of a sink.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn count(&self, sink: &SinkName) -> Result<u64, LettersError> {
        let stream = self.open().await?;
        let batch = stream.batch(Some(sink), 0, 1).await?;
        Ok(batch.left + batch.messages.len() as u64)
    }

    /// Stores the outcome of sending a letter again.
    ///
    /// # Errors
    /// Fails unless the outcome is known to be stored.
    pub async fn resent(
        &self,
        sink: &SinkName,
        id: i64,
        outcome: Result<(), GivenUp>,
    ) -> Result<(), LettersError> {
        let stream = self.open().await?;
        let Err(why) = outcome else { return stream.delete(id).await.map(|_| ()) };
        // One that is gone was dropped; one of a newer number is to be sent once more.
        let Some(Ok(letter)) = stream.read(id).await? else { return Ok(()) };
        if letter.sink == *sink {
            let letter = letter::failed_again(letter, &why, Timestamp(SystemTime::now()));
            stream.publish(&letter, position(id)).await?;
        }
        Ok(())
    }

    /// Marks letters to be sent again. Returns their number, and their sinks, whose workers have to look again.
    ///
    /// # Errors
    /// Not all of them are known to be marked.
    pub async fn mark(&self, filter: &DeadLetterFilter) -> Result<(u64, BTreeSet<SinkName>), LettersError> {
        let (mut count, mut sinks) = (0, BTreeSet::new());
        let stream = self.open().await?;
        let mut pages = Pages::new(&stream, filter).await?;
        while let Some(letters) = pages.next().await? {
            for letter in letters {
                // One that was marked before may have been missed by a worker that was being stopped.
                sinks.insert(letter.sink.clone());
                if letter.replay {
                    continue;
                }
                let id = letter.id;
                let letter = DeadLetter { replay: true, replays: letter.replays.saturating_add(1), ..letter };
                count += u64::from(matches!(stream.publish(&letter, position(id)).await?, Written::Done));
            }
        }
        Ok((count, sinks))
    }

    /// Removes letters for good. Returns their number.
    ///
    /// # Errors
    /// Not all of them are known to be removed.
    pub async fn drop_letters(&self, filter: &DeadLetterFilter) -> Result<u64, LettersError> {
        let mut count = 0;
        let stream = self.open().await?;
        let mut pages = Pages::new(&stream, filter).await?;
        while let Some(letters) = pages.next().await? {
            for letter in letters {
                count += u64::from(stream.delete(letter.id).await?);
            }
        }
        Ok(count)
    }

    /// Writes a letter; `change` makes the one to be written of one that is there, or `None` if nothing has to be.
    async fn write(
        &self,
        new: DeadLetter,
        change: impl Fn(DeadLetter) -> Option<DeadLetter>,
    ) -> Result<(), LettersError> {
        let stream = self.open().await?;
        let (mut expected, mut letter) = (0, new.clone());
        for _ in 0..TRIES {
            if let Written::Done = stream.publish(&letter, expected).await? {
                return Ok(());
            }
            (expected, letter) = match stream.of_event(&letter).await? {
                None => (0, new.clone()),
                Some((position, Err(_))) => (position, new.clone()),
                Some((position, Ok(known))) => match change(known) {
                    Some(letter) => (position, letter),
                    None => return Ok(()),
                },
            };
        }
        Err(LogError::NotAcknowledged("other hosts write the same dead letter".to_owned()).into())
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.inner.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the stream, or makes it, once for each connection.
    async fn open(&self) -> Result<Arc<LetterStream>, LettersError> {
        let connection = self.log.connection().await?;
        if let Some(away) = connection.problem() {
            return Err(away.into());
        }
        let generation = connection.generation();
        let stream = {
            let mut opened = self.inner.opened.lock().await;
            let known =
                opened.as_ref().filter(|(known, _)| *known == generation && !self.inner.end.is_gone());
            match known {
                Some((_, stream)) => Arc::clone(stream),
                None => {
                    let end = Arc::clone(&self.inner.end);
                    let (options, limits) = (self.log.options(), self.log.limits());
                    let stream = Arc::new(LetterStream::open(connection, options, limits, end).await?);
                    *opened = Some((generation, Arc::clone(&stream)));
                    stream
                }
            }
        };
        if self.inner.end.take_loss() {
            self.restore(&stream).await;
        }
        Ok(stream)
    }

    /// Writes again what this host has written of late, as the stream has lost its newest messages. A letter that was delivered or
    /// dropped meanwhile is there again.
    async fn restore(&self, stream: &LetterStream) {
        let recent = self.recent().take();
        error!(
            letters = recent.len(),
            "the dead letters that the hosts share have lost the newest ones; those that this host remembers are written \
             again"
        );
        for letter in recent {
            match stream.publish(&letter, 0).await {
                Ok(_) => self.recent().add(letter),
                Err(error) => {
                    let (sink, message_id) = (&letter.sink, &letter.event.event.message_id);
                    error!(%sink, %message_id, error = chain(&error), "a dead letter is lost");
                }
            }
        }
    }
}
