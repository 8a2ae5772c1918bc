//! Reading the shared log.

use std::sync::Arc;

use async_nats::jetstream::stream::Stream;

use super::super::nats::{ClusterError, Connection};
use super::batches::{self, ReadError, Request};
use super::events::stream_name;
use super::message::{self, Unreadable};
use crate::model::cluster::ClusterOptions;
use crate::model::event::{Seq, StoredEvent};
use crate::model::text::chain;
use crate::model::time::Timestamp;

/// Events of the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// Oldest first; their numbers are those of the log.
    pub events: Vec<StoredEvent>,
    /// The last message that was read, whether it is an event or not.
    pub read: Option<Seq>,
    /// Messages that are no events.
    pub unreadable: Vec<(Seq, Unreadable)>,
}

/// The shared log, for reading.
#[derive(Debug)]
pub struct LogReader {
    connection: Connection,
    stream: Stream,
    name: String,
}

impl LogReader {
    /// Connects once; makes nothing.
    ///
    /// # Errors
    /// No server answers, it is too old, or there is no log.
    pub async fn open(options: &ClusterOptions, tls: rustls::ClientConfig) -> Result<Self, ClusterError> {
        let connection = Connection::connect(options, tls, Arc::default(), |options| options).await?;
        connection.check_version()?;
        Self::over(connection, options).await
    }

    /// Reads over a connection that exists.
    pub(super) async fn over(connection: Connection, options: &ClusterOptions) -> Result<Self, ClusterError> {
        let name = stream_name(options);
        let stream = connection.context().get_stream(&name).await.map_err(|error| ClusterError::Stream {
            stream: name.clone(),
            why: connection.said(&chain(&error)),
        })?;
        Ok(Self { connection, stream, name })
    }

    /// The number of the newest event.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn newest(&self) -> Result<Seq, ReadError> {
        let info = self.stream.get_info().await;
        info.map(|info| Seq(info.state.last_sequence))
            .map_err(|error| batches::refused(&self.connection, &chain(&error)))
    }

    /// The events after this one, at most `limit`.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn read_after(&self, after: Seq, limit: usize) -> Result<LogBatch, ReadError> {
        let mut batch = LogBatch::default();
        for (position, message) in self.ask(&Request::after(after, ">", limit)).await? {
            let headers = message.headers.unwrap_or_default();
            let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
            batch.read = Some(position);
            match message::read(position.0, message::MESSAGE_ID, header, message.payload) {
                Ok(event) => batch.events.push(event),
                Err(error) => batch.unreadable.push((position, error)),
            }
        }
        Ok(batch)
    }

    /// The number of the last event that came before this time.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn before(&self, time: Timestamp) -> Result<Seq, ReadError> {
        match self.ask(&Request::since(time)).await?.first() {
            Some((first, _)) => Ok(Seq(first.0.saturating_sub(1))),
            None => self.newest().await,
        }
    }

    async fn ask(&self, request: &Request) -> Result<Vec<(Seq, async_nats::Message)>, ReadError> {
        Ok(batches::ask(&self.connection, &self.name, request).await?.messages)
    }
}
