//! An event on its way to the store, with what the store has to know of its payload.

use std::ops::Deref;

use super::event::Event;
use super::happening::{self, Identity};
use super::last_known::{self, News};
use super::payload::Payload;

/// An event that is not stored yet. The payload is read once: by the transport that received the event, or when an arrival
/// is made of an event alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    event: Event,
    identity: Option<Identity>,
    news: Option<Box<News>>,
}

impl Arrival {
    /// `payload` is the payload of the event.
    pub fn new(event: Event, payload: &Payload<'_>) -> Self {
        let identity = happening::identity_in(&event, payload);
        let news = last_known::news_in(&event, payload).map(Box::new);
        Self { event, identity, news }
    }

    /// Returns the event, the identity of what it is about, and its news of a channel.
    pub fn into_parts(self) -> (Event, Option<Identity>, Option<Box<News>>) {
        (self.event, self.identity, self.news)
    }
}

impl From<Event> for Arrival {
    fn from(event: Event) -> Self {
        let json = event.payload.clone();
        match Payload::read(&json) {
            Ok(payload) => Self::new(event, &payload),
            Err(_) => Self { event, identity: None, news: None },
        }
    }
}

impl Deref for Arrival {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

#[cfg(test)]
#[path = "arrival_tests.rs"]
mod tests;
