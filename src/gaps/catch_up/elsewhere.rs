//! News of channels that other hosts have stored. ◆

use std::collections::BTreeMap;

use super::decide::is_young;
use crate::model::event::Event;
use crate::model::last_known::{Applied, Change, LastKnown, News, Source, news};

/// Returns the news in these events, oldest first, that are newer than what is known. `now` and `cache` are as in
/// [`super::decide::stream`].
pub(super) fn newer(
    known: &BTreeMap<Box<str>, LastKnown>,
    events: &[Event],
    now: u64,
    cache: u64,
) -> Vec<News> {
    let mut known = known.clone();
    let is_newer = |news: &News| {
        let Some(state) = known.get_mut(&news.broadcaster).filter(|state| says_more(state, news, now, cache))
        else {
            return false;
        };
        match state.apply(news, now) {
            Applied::Changed(new) => {
                *state = new;
                true
            }
            Applied::Unchanged | Applied::Told(_) => false,
        }
    };
    events.iter().filter_map(news).filter(is_newer).collect()
}

/// The same event may be read at every look, and must not count as new each time.
fn says_more(known: &LastKnown, news: &News, now: u64, cache: u64) -> bool {
    match (&news.change, news.source) {
        (Change::Online { since, .. } | Change::Offline { since, .. }, Source::Twitch) => {
            known.stream.as_ref().is_none_or(|stream| stream.since < *since)
        }
        (Change::Channel { since, .. }, Source::Twitch) => {
            known.channel.is_none_or(|channel| channel.since < *since)
        }
        // Nothing in such an event tells whether it is newer than one that this host has stored a moment ago.
        (Change::Channel { digest, .. }, _) => {
            known.channel.is_some_and(|known| known.digest != *digest && !is_young(known.at, now, cache))
        }
        (Change::Online { .. } | Change::Offline { .. }, _) => true,
    }
}

#[cfg(test)]
#[path = "elsewhere_tests.rs"]
mod tests;
