//! The shared log: the events of all hosts in one stream of NATS JetStream.
//!
//! Each host publishes what it has stored, and the stream knows the message ids of the last half hour. A copy: the event of
//! which an acknowledgement was lost, or the tail of the stream, is in the store of its host and is published again.

mod events;
mod message;
mod reading;

pub use self::events::{Acknowledged, LogError, LogLimits, SharedLog};
pub use self::message::Unreadable;
pub use self::reading::{LogBatch, LogReader, ReadError};
