//! Channels as the API shows them: live streams, titles, categories. Follows from the events that were triggered, with or
//! without a subscriber, and is late by the time that Twitch caches its answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};

/// Changes of one channel that are remembered for the time of the cache.
const CHANGES: usize = 64;

/// A stream that is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) id: String,
    pub(super) started_at: String,
}

/// Public state of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) live: Option<Live>,
    pub(super) title: String,
    pub(super) language: String,
    pub(super) category_id: String,
    pub(super) category_name: String,
    pub(super) labels: Vec<String>,
}

/// Channels by the id of their user.
#[derive(Debug)]
pub(super) struct Channels {
    delay: Duration,
    changes: BTreeMap<String, VecDeque<(Instant, Shown)>>,
}

/// Members of the events that change a channel.
#[derive(Deserialize)]
struct Members {
    broadcaster_user_id: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    language: String,
    #[serde(default)]
    category_id: String,
    #[serde(default)]
    category_name: String,
    #[serde(default)]
    content_classification_labels: Vec<String>,
}

impl Channels {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, changes: BTreeMap::new() }
    }

    /// Sets the age of what is shown.
    pub(super) fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// Takes over what an event says, if it is of a type that says it.
    pub(super) fn record(&mut self, kind: &str, event: &str, now: Instant) {
        if !matches!(kind, ONLINE | OFFLINE | CHANNEL) {
            return;
        }
        let Ok(members) = serde_json::from_str::<Members>(event) else { return };
        let changes = self.changes.entry(members.broadcaster_user_id).or_default();
        let mut shown = changes.back().map_or_else(Shown::default, |(_, shown)| shown.clone());
        match kind {
            ONLINE => shown.live = Some(Live { id: members.id, started_at: members.started_at }),
            OFFLINE => shown.live = None,
            _ => {
                shown = Shown {
                    live: shown.live,
                    title: members.title,
                    language: members.language,
                    category_id: members.category_id,
                    category_name: members.category_name,
                    labels: members.content_classification_labels,
                }
            }
        }
        // The same event may go to several subscriptions.
        if changes.back().is_none_or(|(_, last)| *last != shown) {
            changes.push_back((now, shown));
        }
        if changes.len() > CHANGES {
            changes.pop_front();
        }
    }

    /// Returns a channel as the API shows it now.
    pub(super) fn shown(&self, user_id: &str, now: Instant) -> Shown {
        let changes = self.changes.get(user_id).into_iter().flatten().rev();
        let mut old = changes.skip_while(|(at, _)| now.saturating_duration_since(*at) < self.delay);
        old.next().map_or_else(Shown::default, |(_, shown)| shown.clone())
    }

    /// The users whose streams the API shows.
    pub(super) fn live(&self, now: Instant) -> Vec<String> {
        self.changes.keys().filter(|id| self.shown(id, now).live.is_some()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_as_old_as_the_cache() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut channels = Channels::new(Duration::from_secs(60));
        channels.record(ONLINE, r#"{"broadcaster_user_id":"1","id":"9","started_at":"t"}"#, at(10));
        channels.record(ONLINE, r#"{"broadcaster_user_id":"1","id":"9","started_at":"t"}"#, at(11));
        channels.record(CHANNEL, r#"{"broadcaster_user_id":"1","title":"a"}"#, at(20));
        channels.record(OFFLINE, r#"{"broadcaster_user_id":"1"}"#, at(30));
        channels.record("channel.follow", r#"{"broadcaster_user_id":"2"}"#, at(30));
        let is_live = |channels: &Channels, seconds| channels.shown("1", at(seconds)).live.is_some();
        assert!(!is_live(&channels, 69) && is_live(&channels, 70) && !is_live(&channels, 90));
        assert_eq!(channels.shown("1", at(79)).title, "");
        assert_eq!(channels.shown("1", at(80)).title, "a");
        assert_eq!((channels.live(at(75)), channels.live(at(95))), (vec!["1".to_owned()], vec![]));
        channels.set_delay(Duration::ZERO);
        assert!(!is_live(&channels, 31));
    }
}
