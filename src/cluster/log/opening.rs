//! Opening a stream, or making it.

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{self, Stream};
use tracing::info;

use super::super::nats::{ClusterError, Connection};
use crate::model::text::chain;

/// Opens a stream, or makes it. Age and size of one that exists become the wanted ones.
pub(super) async fn open_stream(
    connection: &Connection,
    context: &Context,
    wanted: stream::Config,
) -> Result<Stream, ClusterError> {
    let name = wanted.name.clone();
    let failed = |why: &str| ClusterError::Stream { stream: name.clone(), why: connection.said(why) };
    let Ok(found) = context.get_stream(&name).await else {
        let made = context.create_stream(wanted).await.map_err(|error| failed(&chain(&error)))?;
        info!(stream = name, "a stream that the hosts share is made");
        return Ok(made);
    };
    let config = &found.cached_info().config;
    let per_subject = |config: &stream::Config| config.max_messages_per_subject.max(0);
    if config.subjects != wanted.subjects || per_subject(config) != per_subject(&wanted) {
        return Err(failed("it was made by another program; choose another `cluster.name`"));
    }
    if (config.max_age, config.max_bytes) != (wanted.max_age, wanted.max_bytes) {
        let changed = stream::Config {
            max_age: wanted.max_age,
            max_bytes: wanted.max_bytes,
            duplicate_window: wanted.duplicate_window,
            ..config.clone()
        };
        context.update_stream(changed).await.map_err(|error| failed(&chain(&error)))?;
    }
    Ok(found)
}
