//! Previews of what a sink gets: printed instead of sent, or one event sent to try the sink out.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::make::{Made, SinkError, make};
use super::outgoing::Attempt;
use super::retry::Outcome;
use super::sink::{OpenStdout, Single};
use super::{DeliveryOptions, SinkOptions};
use crate::model::event::StoredEvent;
use crate::model::route::SinkName;

/// Prints what a sink would send. The first line names the sink; the other lines are indented, so that they do not
/// pass for output of a `stdout` sink.
pub(super) struct Printer {
    name: SinkName,
    sink: Arc<dyn Single>,
    stdout: OpenStdout,
}

impl Printer {
    pub(super) fn new(name: SinkName, sink: Arc<dyn Single>, stdout: OpenStdout) -> Self {
        Self { name, sink, stdout }
    }
}

impl Single for Printer {
    fn concurrency(&self) -> usize {
        1
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, _attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move {
            let preview = match self.preview(&event) {
                Ok(preview) => preview,
                Err(error) => return Outcome::rejected(error),
            };
            let mut text = format!("sink {} would get:\n", self.name);
            for line in preview.lines() {
                text.push_str(if line.is_empty() { "" } else { "    " });
                text.push_str(line);
                text.push('\n');
            }
            let mut out = (self.stdout)();
            match tokio::task::spawn_blocking(move || {
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            })
            .await
            {
                Ok(Ok(())) => Outcome::Done,
                Ok(Err(error)) => Outcome::unavailable(format!("standard output: {error}")),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        .boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        self.sink.preview(event)
    }
}

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
