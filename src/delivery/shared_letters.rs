//! The dead letters of a cluster, for what people ask of them.
//!
//! All hosts share one stream of them. A host may have older ones in its store, from before it joined; it sends those itself.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::stream;
use globset::Glob;

use super::SinkOptions;
use super::assignment::Part;
use super::log_failure::LogFailure;
use super::shared::SharedWork;
use super::sink_letters::SinkLetters;
use crate::cluster::{LettersError, is_shared};
use crate::model::broadcaster::Broadcaster;
use crate::model::event::{Event, Seq, Since, StoredEvent};
use crate::model::route::SinkName;
use crate::store::{DeadLetter, DeadLetterFilter, LetterPage, Store};

/// Events of one read when a part of the log is sent again, and channels that are written at once.
const READ: usize = 1_000;
const CHANNELS: usize = 64;

/// Whether the filter can mean letters that all hosts share.
fn means_shared(filter: &DeadLetterFilter) -> bool {
    filter.id.is_none_or(is_shared)
}

/// Whether the filter can mean letters in the store of a host.
pub(super) fn means_local(filter: &DeadLetterFilter) -> bool {
    filter.id.is_none_or(|id| !is_shared(id))
}

impl SharedWork {
    /// Marks dead letters to be sent again. Returns their number and their sinks.
    pub(super) async fn mark_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<(u64, BTreeSet<SinkName>), LogFailure> {
        if !means_shared(filter) {
            return Ok((0, BTreeSet::new()));
        }
        Ok(self.letters.mark(filter).await?)
    }

    /// Removes dead letters for good. Returns their number.
    pub(super) async fn drop_letters(&self, filter: &DeadLetterFilter) -> Result<u64, LogFailure> {
        if !means_shared(filter) {
            return Ok(0);
        }
        Ok(self.letters.drop_letters(filter).await?)
    }

    /// The number of dead letters of a sink; `None` if NATS does not answer.
    pub(super) async fn count_letters(&self, sink: &SinkOptions, store: &Store) -> Option<u64> {
        SinkLetters::new(self.letters.clone(), store.clone(), sink.clone()).count().await.ok()
    }

    /// A page of dead letters, oldest first.
    pub(super) async fn letters(
        &self,
        filter: &DeadLetterFilter,
        after: i64,
        limit: usize,
    ) -> Result<LetterPage, LogFailure> {
        if !means_shared(filter) {
            return Ok(LetterPage::default());
        }
        Ok(self.letters.page(filter, after, limit).await?)
    }

    /// The newest dead letters of a sink before a number.
    pub(super) async fn newest_letters(
        &self,
        sink: &SinkName,
        before: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogFailure> {
        if !is_shared(before.saturating_sub(1)) {
            return Ok(Vec::new());
        }
        Ok(self.letters.newest(sink, before, limit).await?)
    }

    /// Has a sink get a part of the shared log again, as dead letters that wait to be sent. Its place stays. Returns the
    /// number of events.
    pub(super) async fn replay_part(&self, part: Part<impl Fn(&Event) -> bool>) -> Result<u64, LogFailure> {
        let state = self.reached().await.map_err(LogFailure::Shared)?;
        let reader = &state.reader;
        let mut position = match part.since {
            Since::Seq(seq) => Seq(seq.0.saturating_sub(1)),
            Since::Time(time) => reader.before(time).await?,
        };
        let last = match part.until {
            Some(until) => reader.before(until).await?,
            None => reader.bounds().await?.1,
        };
        let types = part.types.as_deref().map(|types| {
            let glob = Glob::new(types).map_err(|_| LettersError::Pattern(types.to_owned()));
            glob.map(|glob| glob.compile_matcher())
        });
        let types = types.transpose()?;
        let mut count = 0;
        while position < last {
            let batch = reader.read_after(position, READ).await?;
            let Some(read) = batch.read else { break };
            position = read;
            let events = batch.events.into_iter().filter(|event| {
                let is_type =
                    types.as_ref().is_none_or(|types| types.is_match(&*event.event.subscription_type));
                event.seq <= last && is_type && (part.wants)(&event.event)
            });
            count += self.mark_events(&part.sink, events).await?;
        }
        Ok(count)
    }

    /// Writes events as letters that wait to be sent: those of a channel one after the other.
    async fn mark_events(
        &self,
        sink: &SinkName,
        events: impl Iterator<Item = StoredEvent>,
    ) -> Result<u64, LogFailure> {
        let mut channels: BTreeMap<Box<str>, Vec<StoredEvent>> = BTreeMap::new();
        for event in events {
            let channel = Broadcaster::of(&event.event.payload).id.as_ref().into();
            channels.entry(channel).or_default().push(event);
        }
        let writes = channels.into_values().map(|events| async move {
            for event in &events {
                self.letters.put_for_replay(sink, event).await?;
            }
            Ok::<_, LettersError>(events.len() as u64)
        });
        let mut writes = stream::iter(writes).buffer_unordered(CHANNELS);
        let mut count = 0;
        while let Some(written) = writes.next().await {
            count += written?;
        }
        Ok(count)
    }
}
