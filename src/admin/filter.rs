//! Which events a client wants to see. ◆

use std::sync::Arc;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::model::broadcaster::Broadcaster;
use crate::model::event::Event;

/// Number of types that one client may ask for, and their length.
const MAX_GLOBS: usize = 32;
const MAX_GLOB: usize = 128;
/// The longest login, id or name of a sink, in bytes.
const MAX_NAME: usize = 128;

/// Decides whether a sink gets an event.
pub type SinkFilter = Arc<dyn Fn(&Event) -> bool + Send + Sync>;

/// Parameters of a query that choose events. An empty one counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Globs over subscription types; one of them has to match.
    pub(super) types: Vec<String>,
    /// Login, in lower case, or id of the broadcaster.
    pub(super) broadcaster: Option<String>,
    pub(super) sink: Option<String>,
    /// Twitch's id of the subscription.
    pub(super) subscription: Option<String>,
}

impl Wanted {
    /// Reads a parameter; returns whether it is one of these.
    ///
    /// # Errors
    /// The value is too long, or there are too many types.
    pub(super) fn read(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let value = value.trim();
        if !matches!(name, "type" | "broadcaster" | "sink" | "subscription") {
            return Ok(false);
        }
        if value.is_empty() {
            return Ok(true);
        }
        if name == "type" {
            for glob in value.split_whitespace() {
                if self.types.len() >= MAX_GLOBS || glob.len() > MAX_GLOB {
                    return Err(format!(
                        "too many types, or too long ones; at most {MAX_GLOBS} of {MAX_GLOB} bytes each are accepted"
                    ));
                }
                self.types.push(glob.to_owned());
            }
            return Ok(true);
        }
        if value.len() > MAX_NAME {
            return Err(format!("`{name}` is longer than {MAX_NAME} bytes"));
        }
        match name {
            "broadcaster" => self.broadcaster = Some(value.to_lowercase()),
            "sink" => self.sink = Some(value.to_owned()),
            _ => self.subscription = Some(value.to_owned()),
        }
        Ok(true)
    }

    /// Returns whether nothing is chosen.
    pub(super) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the parameters as pairs.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let types = self.types.iter().map(|glob| ("type", glob.as_str()));
        let sink = self.sink.as_deref().map(|value| ("sink", value));
        let subscription = self.subscription.as_deref().map(|value| ("subscription", value));
        types
            .chain(self.broadcaster.as_deref().map(|value| ("broadcaster", value)))
            .chain(sink)
            .chain(subscription)
    }

    /// Builds the filter. `sink` is the choice of the sink that is named, if there is such a sink.
    ///
    /// # Errors
    /// A type is not a valid pattern, or the sink does not exist.
    pub(super) fn filter(self, sink: Option<SinkFilter>) -> Result<Filter, String> {
        if let Some(name) = &self.sink
            && sink.is_none()
        {
            return Err(format!("there is no sink {name} in the configuration"));
        }
        let mut set = GlobSetBuilder::new();
        for glob in &self.types {
            set.add(Glob::new(glob).map_err(|error| format!("`type` is not a valid pattern: {error}"))?);
        }
        let set = set.build().map_err(|error| error.to_string())?;
        let types = (!self.types.is_empty()).then_some(set);
        Ok(Filter { types, broadcaster: self.broadcaster, subscription: self.subscription, sink })
    }
}

/// Chooses events.
#[derive(Clone)]
pub(super) struct Filter {
    types: Option<GlobSet>,
    broadcaster: Option<String>,
    subscription: Option<String>,
    sink: Option<SinkFilter>,
}

impl Filter {
    /// Returns whether events of this type may match.
    pub(super) fn takes_type(&self, subscription_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.is_match(subscription_type))
    }

    pub(super) fn matches(&self, event: &Event) -> bool {
        self.takes_type(&event.subscription_type)
            && self.subscription.as_deref().is_none_or(|id| *event.subscription_id == *id)
            && self.broadcaster.as_deref().is_none_or(|wanted| {
                let found = Broadcaster::of(&event.payload);
                found.id == wanted || found.login.eq_ignore_ascii_case(wanted)
            })
            && self.sink.as_ref().is_none_or(|takes| takes(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::MessageId;

    fn event(kind: &str, login: &str) -> Event {
        let payload = format!(
            r#"{{"subscription":{{"condition":{{"broadcaster_user_id":"7"}}}},"event":{{"broadcaster_user_login":"{login}"}}}}"#
        );
        Event {
            message_id: MessageId::new("m").unwrap(),
            message_timestamp: "t".into(),
            subscription_type: kind.into(),
            subscription_version: "1".into(),
            subscription_id: "s1".into(),
            payload: payload.into_bytes().into(),
        }
    }

    fn filter(pairs: &[(&str, &str)]) -> Filter {
        let mut wanted = Wanted::default();
        for (name, value) in pairs {
            assert_eq!(wanted.read(name, value), Ok(true));
        }
        wanted.filter(None).expect("a filter")
    }

    #[test]
    fn every_parameter_narrows_the_choice() {
        let online = event("stream.online", "Ann");
        for (pairs, matches) in [
            (&[][..], true),
            (&[("type", "")], true),
            (&[("type", "stream.*")], true),
            (&[("type", "channel.*")], false),
            (&[("type", "channel.*"), ("type", "stream.online")], true),
            (&[("type", "channel.* stream.online")], true),
            (&[("broadcaster", "ANN")], true),
            (&[("broadcaster", "7")], true),
            (&[("broadcaster", "bob")], false),
            (&[("subscription", "s1")], true),
            (&[("subscription", "s2")], false),
            (&[("type", "stream.*"), ("broadcaster", "bob")], false),
        ] {
            assert_eq!(filter(pairs).matches(&online), matches, "{pairs:?}");
        }
        let by_sink = Wanted { sink: Some("log".to_owned()), ..Wanted::default() };
        let takes: SinkFilter = Arc::new(|event| &*event.subscription_type == "channel.raid");
        let by_sink = by_sink.filter(Some(takes)).expect("a filter");
        assert!(by_sink.matches(&event("channel.raid", "ann")) && !by_sink.matches(&online));
    }

    #[test]
    fn mistakes_are_errors_and_everything_is_bounded() {
        let unknown = Wanted { sink: Some("x".to_owned()), ..Wanted::default() };
        assert!(unknown.filter(None).is_err());
        let mut wanted = Wanted::default();
        wanted.read("type", "[").unwrap();
        assert!(wanted.clone().filter(None).is_err());
        assert!(wanted.read("broadcaster", &"x".repeat(MAX_NAME + 1)).is_err());
        assert!(wanted.read("type", &"x".repeat(MAX_GLOB + 1)).is_err());
        for _ in 1..MAX_GLOBS {
            wanted.read("type", "a").unwrap();
        }
        assert!(wanted.read("type", "a").is_err());
        assert_eq!(wanted.read("after", "3"), Ok(false));
    }
}
