//! Which events a sink gets. ◆

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;

use crate::model::event::{Event, GAP};
use crate::model::route::{Routes, SinkName};
use crate::model::subscription::{Condition, SubscriptionKey};

/// One sink's choice.
#[derive(Clone, Debug)]
pub struct Selector {
    name: SinkName,
    /// None for every type.
    types: Option<GlobSet>,
    /// Whether it gets `eventsubd.gap` only when its types name that.
    gap_when_named: bool,
}

#[derive(Deserialize)]
struct Payload {
    subscription: Subscription,
}

#[derive(Deserialize)]
struct Subscription {
    condition: Condition,
}

impl Selector {
    /// `types` are globs over subscription types. A sink with a template of its own cannot be expected to
    /// take [`GAP`] with the rest: `gap_when_named`.
    ///
    /// # Errors
    /// One of them is no glob.
    pub fn new(name: SinkName, types: &[String], gap_when_named: bool) -> Result<Self, globset::Error> {
        let gap_when_named = gap_when_named && !types.iter().any(|glob| glob.starts_with("eventsubd."));
        if types.iter().any(|glob| glob == "*" || glob == "**") {
            return Ok(Self { name, types: None, gap_when_named });
        }
        let mut set = GlobSetBuilder::new();
        for glob in types {
            set.add(Glob::new(glob)?);
        }
        Ok(Self { name, types: Some(set.build()?), gap_when_named })
    }

    /// Whether the sink gets it. What cannot be told apart is handed on: nothing is kept back by
    /// mistake.
    pub fn wants(&self, event: &Event, routes: &Routes) -> bool {
        self.wants_parts(&event.subscription_type, &event.subscription_version, &event.payload, routes)
    }

    /// The same, of an event with this type, version and payload.
    pub fn wants_parts(&self, kind: &str, version: &str, payload: &[u8], routes: &Routes) -> bool {
        if self.types.as_ref().is_some_and(|types| !types.is_match(kind)) {
            return false;
        }
        if kind == GAP {
            return !self.gap_when_named;
        }
        if routes.is_open(kind) {
            return true;
        }
        let Ok(payload) = serde_json::from_slice::<Payload>(payload) else { return true };
        let key = SubscriptionKey {
            subscription_type: kind.into(),
            version: version.into(),
            condition: payload.subscription.condition,
        };
        routes.allows(&key, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::model::event::MessageId;

    fn event(kind: &str, payload: &str) -> Event {
        Event {
            message_id: MessageId::new("m").unwrap(),
            message_timestamp: "t".into(),
            subscription_type: kind.into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: payload.as_bytes().to_vec().into(),
        }
    }

    fn selector(name: &str, types: &[&str]) -> Selector {
        let types: Vec<String> = types.iter().map(|&t| t.to_owned()).collect();
        Selector::new(SinkName::new(name), &types, false).unwrap()
    }

    #[test]
    fn types_are_globs() {
        for (types, kind, wanted) in [
            (&["*"][..], "stream.online", true),
            (&["stream.*"], "stream.online", true),
            (&["stream.*"], "channel.follow", false),
            (&["channel.chat.*", "channel.follow"], "channel.chat.message", true),
            (&["channel.chat.*", "channel.follow"], "channel.follow", true),
            (&["channel.*"], "channel.chat.message", true),
            (&[], "channel.follow", false),
        ] {
            assert_eq!(
                selector("a", types).wants(&event(kind, "{}"), &Routes::default()),
                wanted,
                "{types:?} {kind}"
            );
        }
    }

    #[test]
    fn gaps_go_to_templates_only_when_they_are_named() {
        let wants = |types: &[&str], template| {
            let types: Vec<String> = types.iter().map(|&t| t.to_owned()).collect();
            let selector = Selector::new(SinkName::new("a"), &types, template).unwrap();
            selector.wants(&event(GAP, "{}"), &Routes::default())
        };
        assert!(wants(&["*"], false) && !wants(&["*"], true) && wants(&["*", "eventsubd.gap"], true));
        assert!(!wants(&["stream.*"], false));
    }

    #[test]
    fn a_subscription_that_names_its_sinks_goes_there_only() {
        let key = SubscriptionKey {
            subscription_type: "stream.online".into(),
            version: "1".into(),
            condition: Condition::from_pairs([("broadcaster_user_id", "1")]),
        };
        let routes = Routes::new(HashMap::from([(key, Arc::from([SinkName::new("a")]))]));
        let of = |id: &str| {
            event(
                "stream.online",
                &format!(
                    r#"{{"subscription":{{"condition":{{"broadcaster_user_id":"{id}"}}}},"event":{{}}}}"#
                ),
            )
        };
        let (a, b) = (selector("a", &["*"]), selector("b", &["*"]));
        assert_eq!([a.wants(&of("1"), &routes), b.wants(&of("1"), &routes)], [true, false]);
        assert_eq!([a.wants(&of("2"), &routes), b.wants(&of("2"), &routes)], [true, true]);
        assert!(b.wants(&event("stream.online", "garbage"), &routes), "rather once too often than lost");
    }
}
