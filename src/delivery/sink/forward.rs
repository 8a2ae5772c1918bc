//! The shared log of a cluster: one message an event, acknowledged by the stream.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::super::outgoing::Attempt;
use super::super::retry::Outcome;
use super::Single;
use crate::cluster::{LogError, SharedLog};
use crate::model::event::StoredEvent;

/// Events that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 256;

/// The sink of the forwarder. An event has its own message id each time, as the log shall have it once.
pub(in crate::delivery) struct Forward(pub(in crate::delivery) SharedLog);

impl Single for Forward {
    fn concurrency(&self) -> usize {
        IN_FLIGHT
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, _attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move {
            match self.0.publish(&event).await {
                Ok(()) => Outcome::Done,
                Err(error @ LogError::TooLarge) => Outcome::rejected(error.to_string()),
                Err(error) => Outcome::unavailable(error.to_string()),
            }
        }
        .boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        Ok(self.0.subject(event))
    }
}
