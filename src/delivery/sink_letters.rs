//! The dead letters of one sink in a cluster, for its worker.

use std::time::Duration;

use super::SinkOptions;
use super::log_failure::LogFailure;
use crate::cluster::{LettersError, SharedLetters};
use crate::model::event::StoredEvent;
use crate::model::text::chain;
use crate::store::{DeadLetter, GivenUp, SinkRecord, Store};

/// How often the number of dead letters is asked for: other hosts may drop some.
const COUNT: Duration = Duration::from_secs(5);

impl From<LettersError> for LogFailure {
    fn from(error: LettersError) -> Self {
        Self::Shared(chain(&error))
    }
}

/// The dead letters of one sink, for its worker.
#[derive(Clone, Debug)]
pub(super) struct SinkLetters {
    letters: SharedLetters,
    /// May have older ones.
    store: Store,
    sink: SinkOptions,
}

impl SinkLetters {
    pub(super) fn new(letters: SharedLetters, store: Store, sink: SinkOptions) -> Self {
        Self { letters, store, sink }
    }

    /// The number of those of all hosts, and of those in the store of this one.
    pub(super) async fn count(&self) -> Result<u64, LogFailure> {
        let own = self.store.sink(&self.sink.name, self.sink.start).await?.dead_letters;
        Ok(own + self.letters.count(&self.sink.name).await?)
    }

    /// The record of the sink as far as it is about dead letters.
    async fn record(&self) -> Result<SinkRecord, LogFailure> {
        Ok(SinkRecord { dead_letters: self.count().await?, ..SinkRecord::default() })
    }

    pub(super) async fn dead_letter(
        &self,
        event: &StoredEvent,
        why: &GivenUp,
    ) -> Result<SinkRecord, LogFailure> {
        self.letters.put(&self.sink.name, event, why).await?;
        self.record().await
    }

    pub(super) async fn to_replay(&self, after: i64, limit: usize) -> Result<Vec<DeadLetter>, LogFailure> {
        Ok(self.letters.to_replay(&self.sink.name, after, limit).await?)
    }

    pub(super) async fn resent(
        &self,
        id: i64,
        outcome: Result<(), GivenUp>,
    ) -> Result<SinkRecord, LogFailure> {
        self.letters.resent(&self.sink.name, id, outcome).await?;
        self.record().await
    }

    /// Calls `show` with the number, again and again.
    pub(super) async fn watch_count(&self, show: impl Fn(u64)) {
        loop {
            tokio::time::sleep(COUNT).await;
            // While NATS is away the number stays as it was.
            if let Ok(count) = self.count().await {
                show(count);
            }
        }
    }
}
