//! A sink that prints what another one would send.

use std::io::Write;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::outgoing::Attempt;
use super::retry::Outcome;
use super::sink::{OpenStdout, Single};
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
