//! Previews of what a sink gets: printed instead of sent, or one event sent to try the sink out.

use std::sync::Arc;
use std::time::SystemTime;

use super::SinkOptions;
use super::make::{Made, SinkError, make};
use super::options::DeliveryOptions;
use super::outgoing::Attempt;
use super::retry::Outcome;
use crate::model::event::StoredEvent;

/// Describes what a sink would get for an event, without secrets.
///
/// # Errors
/// The sink cannot be made, or the event does not fit its templates.
pub fn preview(sink: &SinkOptions, options: &DeliveryOptions, event: &StoredEvent) -> Result<String, String> {
    match make(sink, options).map_err(|error: SinkError| error.to_string())? {
        Made::Single(single) => single.preview(event),
        Made::Lines(_) => {
            let mut line = Vec::new();
            sink.format.line(&event.event, &mut line);
            Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
        }
    }
}

/// Sends a sink one event, once.
///
/// # Errors
/// The reason for which the sink did not take the event.
pub async fn try_out(
    sink: &SinkOptions,
    options: &DeliveryOptions,
    event: StoredEvent,
) -> Result<(), String> {
    match make(sink, options).map_err(|error: SinkError| error.to_string())? {
        Made::Single(single) => {
            let outcome = single.send(Arc::new(event), Attempt::first(SystemTime::now())).await;
            let failure = match outcome {
                Outcome::Done | Outcome::DoneWithin(_) => return Ok(()),
                Outcome::Rejected(failure) | Outcome::Failed(failure) | Outcome::Unavailable(failure) => {
                    failure
                }
                Outcome::Throttled { failure, .. } => failure,
            };
            Err(match failure.said {
                Some(said) => format!("{}: {said}", failure.message),
                None => failure.message,
            })
        }
        Made::Lines(mut lines) => {
            let mut line = Vec::new();
            sink.format.line(&event.event, &mut line);
            let written = tokio::task::spawn_blocking(move || lines.write(&line)).await;
            written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
    }
}
