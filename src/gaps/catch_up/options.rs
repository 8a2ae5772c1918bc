//! Settings of catch-ups. ◆

use std::time::Duration;

use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};

/// Kinds of changes that a catch-up looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpOptions {
    /// Streams that began or ended.
    pub streams: bool,
    /// Titles, categories, languages and labels that changed.
    pub channels: bool,
}

impl CatchUpOptions {
    /// The types whose events it can tell.
    pub(super) fn kinds(self) -> impl Iterator<Item = &'static str> {
        let streams = [ONLINE, OFFLINE].into_iter().filter(move |_| self.streams);
        streams.chain(Some(CHANNEL).filter(|_| self.channels))
    }
}

/// How long Twitch's answers may be old, and when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpTimings {
    /// Time for which Twitch keeps its answers: a minute or two.
    pub cache: Duration,
    /// Times of the looks after the end of a gap.
    pub looks: [Duration; 3],
    /// Age from which what is known of a channel that is not subscribed to is removed.
    pub forget_after: Duration,
}

impl Default for CatchUpTimings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            cache: seconds(120),
            looks: [seconds(0), seconds(60), seconds(180)],
            forget_after: seconds(7 * 24 * 3600),
        }
    }
}
