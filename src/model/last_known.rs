//! Last known state of a channel: whether it is live and with which stream, its title, category, language and labels.
//!
//! Follows from the events of three types. Twitch's times are only compared with each other, never with the clock of this
//! machine.

use std::borrow::Cow;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::event::Event;
use super::json_text::JsonText;
use super::payload::Payload;
use super::time::Timestamp;

pub const ONLINE: &str = "stream.online";
pub const OFFLINE: &str = "stream.offline";
pub const CHANNEL: &str = "channel.update";

/// The state of a channel. `None` stands for what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastKnown {
    pub stream: Option<StreamState>,
    pub channel: Option<ChannelState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    pub is_live: bool,
    /// The present stream, or the last one.
    pub id: Option<Box<str>>,
    /// When that began, in milliseconds; 0 if it is not known.
    pub started: u64,
    /// Twitch's time of the newest event about it, in milliseconds.
    pub since: u64,
    /// When this was stored, by the store's clock, in milliseconds.
    pub at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    pub digest: ChannelDigest,
    /// Twitch's time of the newest event about it, in milliseconds.
    pub since: u64,
    /// When this was stored, by the store's clock, in milliseconds.
    pub at: u64,
    /// Whether an event of a catch-up told it, and Twitch's own may still come.
    pub is_caught_up: bool,
}

/// A fingerprint of what `channel.update` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDigest(pub u64);

impl ChannelDigest {
    /// The name of the category is left out: its id says the same. Labels are in no order.
    pub fn of(title: &str, language: &str, category_id: &str, labels: &[impl AsRef<str>]) -> Self {
        let mut labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        labels.sort_unstable();
        labels.dedup();
        let mut hash = Sha256::new();
        for part in [title, language, category_id].into_iter().chain(labels) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let [a, b, c, d, e, f, g, h, ..] = hash.finalize().0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The origin of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An event of Twitch.
    Twitch,
    /// An event that a catch-up made.
    CatchUp,
    /// An answer of Twitch that nobody is told of.
    Answer,
}

/// News of a channel from an event or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub broadcaster: Box<str>,
    pub change: Change,
    pub source: Source,
}

/// Times are Twitch's, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Online {
        id: Box<str>,
        started: u64,
        /// Twitch's time of the event, or the beginning if there is none.
        since: u64,
    },
    Offline {
        /// `None` in events of before June 2026.
        id: Option<Box<str>>,
        since: u64,
    },
    Channel {
        digest: ChannelDigest,
        since: u64,
    },
}

/// The outcome of applying [`News`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The new state.
    Changed(LastKnown),
    /// The news is older than what is known, or says the same.
    Unchanged,
    /// An event has told this already. Has the state to store, if it changes.
    Told(Option<LastKnown>),
}

impl LastKnown {
    /// Applies what is stored at the time `at` of the store's clock.
    pub fn apply(&self, news: &News, at: u64) -> Applied {
        let stream = match &news.change {
            Change::Channel { digest, since } => {
                return self.apply_channel(*digest, *since, at, news.source);
            }
            Change::Online { id, started, since } => {
                let known = self.stream.as_ref();
                let changes = known.is_none_or(|known| match news.source {
                    Source::Twitch => known.since <= *since,
                    _ => known.id.as_ref() != Some(id) && known.started < *started,
                });
                changes.then(|| StreamState {
                    is_live: true,
                    id: Some(id.clone()),
                    started: *started,
                    since: known.map_or(*since, |known| known.since.max(*since)),
                    at,
                })
            }
            Change::Offline { id, since } => {
                let changes = match (&self.stream, news.source) {
                    (None, _) => news.source != Source::CatchUp,
                    (Some(known), Source::Twitch) => known.since <= *since,
                    (Some(known), _) => known.is_live && known.id == *id,
                };
                let known = self.stream.as_ref();
                changes.then(|| StreamState {
                    is_live: false,
                    id: id.clone().or_else(|| known.and_then(|known| known.id.clone())),
                    started: known.map_or(0, |known| known.started),
                    since: known.map_or(*since, |known| known.since.max(*since)),
                    at,
                })
            }
        };
        match (stream, news.source) {
            (Some(stream), _) => Applied::Changed(Self { stream: Some(stream), channel: self.channel }),
            (None, Source::CatchUp) => Applied::Told(None),
            (None, _) => Applied::Unchanged,
        }
    }

    fn apply_channel(&self, digest: ChannelDigest, since: u64, at: u64, source: Source) -> Applied {
        let with = |channel| Self { stream: self.stream.clone(), channel: Some(channel) };
        let new = ChannelState { digest, since, at, is_caught_up: source == Source::CatchUp };
        let Some(known) = self.channel else {
            return match source {
                Source::CatchUp => Applied::Told(None),
                _ => Applied::Changed(with(new)),
            };
        };
        let is_same = known.digest == digest;
        match source {
            // Nothing in the event of a catch-up has Twitch's time of the change, so one such event is believed to be it.
            Source::Twitch if is_same && known.is_caught_up => Applied::Told(Some(with(ChannelState {
                since: known.since.max(since),
                is_caught_up: false,
                ..known
            }))),
            Source::Twitch if since < known.since => Applied::Unchanged,
            Source::CatchUp if is_same => Applied::Told(None),
            Source::Answer if is_same => Applied::Unchanged,
            _ => Applied::Changed(with(ChannelState { since: known.since.max(since), ..new })),
        }
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    broadcaster_user_id: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    started_at: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    title: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    language: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    category_id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    content_classification_labels: Option<Vec<JsonText<'a>>>,
}

/// Returns what an event says of its channel; `None` for all other types, and for events that lack a part of it.
pub fn news(event: &Event) -> Option<News> {
    news_in(event, &Payload::read(&event.payload).ok()?)
}

/// As [`news`], with the payload of the event, which was read already.
pub fn news_in(event: &Event, payload: &Payload<'_>) -> Option<News> {
    let kind = &*event.subscription_type;
    if !matches!(kind, ONLINE | OFFLINE | CHANNEL) {
        return None;
    }
    let members: Members<'_> = serde_json::from_str(payload.about()?.get()).ok()?;
    let is_caught_up = event.is_caught_up();
    let sent = Timestamp::parse(&event.message_timestamp).map(Timestamp::unix_millis);
    let id = members.id.as_deref().filter(|id| !id.is_empty());
    // The message's time is ours then, and must not be compared with Twitch's.
    let since = if is_caught_up { Some(0) } else { sent };
    let change = match kind {
        ONLINE => {
            let started =
                members.started_at.as_deref().and_then(Timestamp::parse).map(Timestamp::unix_millis);
            let since = if is_caught_up { started } else { sent };
            Change::Online { id: id?.into(), started: started.or(sent)?, since: since? }
        }
        OFFLINE => Change::Offline { id: id.map(Into::into), since: since? },
        _ => {
            let labels = members.content_classification_labels.unwrap_or_default();
            let [title, language, category] =
                [members.title, members.language, members.category_id].map(Option::unwrap_or_default);
            Change::Channel {
                digest: ChannelDigest::of(&title, &language, &category, &labels),
                since: since?,
            }
        }
    };
    let source = if is_caught_up { Source::CatchUp } else { Source::Twitch };
    Some(News { broadcaster: members.broadcaster_user_id.as_ref().into(), change, source })
}

#[cfg(test)]
#[path = "last_known_tests.rs"]
mod tests;
