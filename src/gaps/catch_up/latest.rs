//! The seam to the log that several hosts share. ◆

use std::fmt::Debug;

use futures_util::future::BoxFuture;

use crate::model::event::Event;

/// The newest events of channels, whichever host has stored them.
pub trait LatestEvents: Debug + Send + Sync {
    /// Reads the newest event of each type that tells of a channel's state, oldest first; the error says why that is not
    /// possible now. There are at most a hundred channels.
    fn read(&self, channels: Vec<Box<str>>) -> BoxFuture<'static, Result<Vec<Event>, String>>;
}
