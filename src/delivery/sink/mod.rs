//! The kinds of sinks.

mod command;
mod file;
#[cfg(feature = "nats")]
mod forward;
mod http;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
mod stdout;

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub(super) use self::command::Command;
pub(super) use self::file::{File, not_a_file};
#[cfg(feature = "nats")]
pub(super) use self::forward::Forward;
pub(super) use self::http::Http;
#[cfg(feature = "mqtt")]
pub(super) use self::mqtt::Mqtt;
#[cfg(feature = "nats")]
pub(super) use self::nats::Nats;
#[cfg(feature = "redis")]
pub(super) use self::redis::Redis;
pub use self::stdout::OpenStdout;
pub(super) use self::stdout::Stdout;
use super::outgoing::Attempt;
use super::receiver::Receiver;
use super::retry::Outcome;
use crate::model::event::StoredEvent;
use crate::model::text::one_line;

/// A sink for whole lines. It blocks, so it is only called from threads that may.
pub(super) trait Lines: Send {
    /// Stores all the lines, or fails. After a failure the same lines are written again, and begin on a line of their own.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;

    /// Makes the next write reopen the file.
    fn reopen(&mut self) {}
}

/// A sink for single events.
pub(super) trait Single: Send + Sync {
    /// Most events that the sink takes at once, at least 1.
    fn concurrency(&self) -> usize;

    /// Makes one attempt. A future that is dropped leaves nothing running.
    fn send(self: Arc<Self>, event: Arc<StoredEvent>, attempt: Attempt) -> BoxFuture<'static, Outcome>;

    /// Describes the message for an event for people, without secrets.
    ///
    /// # Errors
    /// The event does not fit a template.
    fn preview(&self, event: &StoredEvent) -> Result<String, String>;

    /// The receiver, if it may ask for pauses. Sinks with the same receiver pause together.
    fn receiver(&self) -> Option<Receiver> {
        None
    }
}

/// Replacement of a secret in texts for people.
const HIDDEN: &str = "[hidden]";

/// A text from outside, fit for a log line: one line, not too long.
fn printable(text: &str) -> String {
    const LONGEST: usize = 300;
    one_line(text.trim(), LONGEST)
}
