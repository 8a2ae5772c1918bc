//! The shared log: the events of all hosts in one stream of NATS JetStream.
//!
//! Each host publishes what it has stored, and the stream knows the message ids of the last half hour. A copy: the event of
//! which an acknowledgement was lost, or the tail of the stream, is in the store of its host and is published again.

mod batches;
mod events;
mod feed;
mod latest;
mod letter;
mod letter_stream;
mod letters;
mod message;
mod opening;
mod publishing;
mod reading;
mod ring;

pub use self::batches::ReadError;
pub use self::events::{Acknowledged, LogError, LogLimits, SharedLog};
pub use self::feed::{Feed, FeedState, FeedTask, Following, feed};
pub use self::letter_stream::{LettersError, is_shared};
pub use self::letters::SharedLetters;
pub use self::message::Unreadable;
pub use self::reading::{LogBatch, LogReader};
