//! The newest events of channels in the shared log.

use tracing::warn;

use super::batches::{self, ReadError, Request};
use super::events::{SharedLog, stream_name};
use super::message;
use crate::model::event::Event;

impl SharedLog {
    /// Reads the newest event of each of these types for each of these broadcasters, in the order of the log. A request may
    /// have up to 1,024 pairs of both.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn latest(&self, types: &[&str], broadcasters: &[Box<str>]) -> Result<Vec<Event>, ReadError> {
        let name = &self.options().name;
        let of_broadcaster = |id| types.iter().map(move |kind| message::subject_of(name, kind, id));
        let subjects = broadcasters.iter().flat_map(|id| of_broadcaster(&**id)).collect();
        let connection = self.connection().await.map_err(|error| ReadError::Refused(error.to_string()))?;
        let batch =
            batches::ask(connection, &stream_name(self.options()), &Request::last_of(subjects)).await?;
        let mut events = Vec::with_capacity(batch.messages.len());
        for (position, found) in batch.messages {
            let headers = found.headers.unwrap_or_default();
            let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
            match message::read(position.0, message::MESSAGE_ID, header, found.payload) {
                Ok(stored) => events.push(stored.event),
                Err(error) => warn!(position = position.0, %error, "a message of the shared log is no event"),
            }
        }
        Ok(events)
    }
}
