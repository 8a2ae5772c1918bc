//! Conclusions about a channel from its last known state and what Twitch shows now. ◆
//!
//! Twitch's answers may be two minutes old. So nothing is concluded from an answer that a newer event may contradict: the
//! channel is *doubtful*, and is asked about again. Nothing is concluded for a channel of which nothing was known: then
//! the answer is what is known from now on.

use crate::model::last_known::{Change, ChannelDigest, ChannelState, StreamState};

/// The stream that Twitch shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) id: Box<str>,
    /// In milliseconds.
    pub(super) started_at: u64,
}

/// The conclusion from one answer about one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    Unchanged,
    /// An older or a newer answer may be right.
    Doubtful,
    /// Nothing was known before. The change is stored, but no event is made of it.
    First(Change),
    /// The changes that happened, in order.
    Happened(Vec<Change>),
}

/// Whether so little time has passed since something was stored that answers may not show it.
pub(super) fn is_young(stored_at: u64, now: u64, cache: u64) -> bool {
    now.saturating_sub(stored_at) < cache
}

/// Concludes what has happened to a channel's stream. `now` is the time by the store's clock, which nobody can set,
/// and `cache` how long Twitch keeps its answers, in milliseconds.
pub(super) fn stream(known: Option<&StreamState>, shown: Option<&Shown>, now: u64, cache: u64) -> Conclusion {
    let online = |shown: &Shown| Change::Online {
        id: shown.id.clone(),
        started: shown.started_at,
        since: shown.started_at,
    };
    let Some(known) = known else {
        return Conclusion::First(shown.map_or(Change::Offline { id: None, since: 0 }, online));
    };
    let offline = || Change::Offline { id: known.id.clone(), since: 0 };
    match (known.is_live, shown) {
        (false, None) => Conclusion::Unchanged,
        (true, None) if is_young(known.at, now, cache) => Conclusion::Doubtful,
        (true, None) => Conclusion::Happened(vec![offline()]),
        (is_live, Some(shown)) if known.id.as_ref() == Some(&shown.id) => {
            if is_live {
                Conclusion::Unchanged
            } else {
                Conclusion::Doubtful
            }
        }
        // A stream of before the one that is known has ended.
        (_, Some(shown)) if shown.started_at <= known.started => Conclusion::Doubtful,
        (false, Some(shown)) => Conclusion::Happened(vec![online(shown)]),
        (true, Some(shown)) => Conclusion::Happened(vec![offline(), online(shown)]),
    }
}

/// The same for title, language, category and labels.
pub(super) fn channel(
    known: Option<&ChannelState>,
    shown: ChannelDigest,
    now: u64,
    cache: u64,
) -> Conclusion {
    let change = Change::Channel { digest: shown, since: 0 };
    match known {
        None => Conclusion::First(change),
        Some(known) if known.digest == shown => Conclusion::Unchanged,
        Some(known) if is_young(known.at, now, cache) => Conclusion::Doubtful,
        Some(_) => Conclusion::Happened(vec![change]),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
