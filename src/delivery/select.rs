//! Selection of the events for a sink. ◆

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;

use crate::model::event::{Event, OWN, REVOCATION, is_revocation};
use crate::model::route::{Routes, SinkName, Unasked};
use crate::model::subscription::{Condition, SubscriptionKey};

/// Decides which events are for a sink.
#[derive(Clone, Debug)]
pub struct Selector {
    name: SinkName,
    /// `None` for every type.
    types: Option<GlobSet>,
    /// The globs that name types: all but `*`.
    named: GlobSet,
    unasked: Unasked,
    /// Whether it takes whatever is stored.
    is_everything: bool,
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
    /// `types` are globs over subscription types. A type, `revocation` or `eventsubd.gap` that one of them matches other
    /// than by `*` counts as asked for.
    ///
    /// # Errors
    /// One of them is no glob.
    pub fn new(name: SinkName, types: &[String], unasked: Unasked) -> Result<Self, globset::Error> {
        let (mut set, mut all) = (GlobSetBuilder::new(), false);
        for glob in types {
            if glob == "*" || glob == "**" {
                all = true;
            } else {
                set.add(Glob::new(glob)?);
            }
        }
        let named = set.build()?;
        Ok(Self { name, types: (!all).then(|| named.clone()), named, unasked, is_everything: false })
    }

    /// Takes every event, whatever the routes are.
    pub fn everything(name: SinkName) -> Self {
        Self { name, types: None, named: GlobSet::empty(), unasked: Unasked::All, is_everything: true }
    }

    /// Whether the event is for the sink. An event that cannot be read is delivered, rather than lost.
    pub fn wants(&self, event: &Event, routes: &Routes) -> bool {
        self.wants_parts(&event.subscription_type, &event.subscription_version, &event.payload, routes)
    }

    /// Returns whether events of this subscription are for the sink.
    pub fn takes(&self, key: &SubscriptionKey, routes: &Routes) -> bool {
        let kind = &*key.subscription_type;
        let named = self.named.is_match(kind);
        (named || (self.types.is_none() && routes.lists(kind))) && routes.allows(key, &self.name)
    }

    /// Like [`Self::wants`], for an event with this type, version and payload.
    pub fn wants_parts(&self, kind: &str, version: &str, payload: &[u8], routes: &Routes) -> bool {
        if self.is_everything {
            return true;
        }
        if kind.starts_with(OWN) {
            return self.named.is_match(kind) || (self.unasked == Unasked::All && self.types.is_none());
        }
        let named = if is_revocation(payload) {
            let asked = self.named.is_match(REVOCATION);
            if !asked && self.unasked == Unasked::Nothing {
                return false;
            }
            asked || self.named.is_match(kind)
        } else {
            self.named.is_match(kind)
        };
        if !named && (self.types.is_some() || !routes.lists(kind)) {
            return false;
        }
        if routes.is_open(kind) {
            return true;
        }
        let Ok(payload) = serde_json::from_slice::<Payload>(payload) else { return true };
        let key = SubscriptionKey::new(kind, version, payload.subscription.condition);
        routes.allows(&key, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
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
        Selector::new(SinkName::new(name), &types, Unasked::All).unwrap()
    }

    #[test]
    fn everything_is_taken_whatever_the_file_says() {
        let selector = Selector::everything(SinkName::new("all"));
        for kind in ["stream.online", "unlisted.type", "eventsubd.gap"] {
            for payload in [r#"{"subscription":{},"event":{}}"#, r#"{"subscription":{}}"#, "garbage"] {
                assert!(selector.wants(&event(kind, payload), &Routes::default()), "{kind} {payload}");
            }
        }
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
    fn own_events_and_revocations_go_to_sinks_that_ask_for_them() {
        const REVOKED: &str = r#"{"subscription":{"status":"user_removed"}}"#;
        let wants = |types: &[&str], unasked, kind: &str, payload: &str| {
            let types: Vec<String> = types.iter().map(|&t| t.to_owned()).collect();
            let selector = Selector::new(SinkName::new("a"), &types, unasked).unwrap();
            selector.wants(&event(kind, payload), &Routes::default())
        };
        for (types, unasked, gap, revocation) in [
            (&["*"][..], Unasked::All, true, true),
            (&["*"], Unasked::Revocations, false, true),
            (&["*"], Unasked::Nothing, false, false),
            (&["*", "eventsubd.gap"], Unasked::Nothing, true, false),
            (&["*", "revocation"], Unasked::Nothing, false, true),
            (&["revocation"], Unasked::All, false, true),
            (&["stream.*"], Unasked::All, false, true),
            (&["stream.*"], Unasked::Nothing, false, false),
            (&["channel.*"], Unasked::All, false, false),
            (&["eventsubd.*"], Unasked::Revocations, true, false),
        ] {
            assert_eq!(
                wants(types, unasked, "eventsubd.gap", r#"{"event":{}}"#),
                gap,
                "{types:?} {unasked:?}"
            );
            assert_eq!(wants(types, unasked, "stream.online", REVOKED), revocation, "{types:?} {unasked:?}");
        }
        assert!(!wants(&["revocation"], Unasked::All, "stream.online", r#"{"event":{}}"#));
    }

    #[test]
    fn a_type_that_the_file_does_not_list_goes_to_the_sinks_that_name_it() {
        let routes = Routes::new(HashMap::new(), Arc::new(BTreeSet::from(["stream.online".into()])));
        let wants = |types: &[&str], kind: &str| selector("a", types).wants(&event(kind, "{}"), &routes);
        assert!(wants(&["*"], "stream.online") && !wants(&["*"], "channel.raid"));
        assert!(wants(&["*", "channel.raid"], "channel.raid") && wants(&["channel.*"], "channel.raid"));
        assert!(wants(&["*"], "eventsubd.gap"), "the daemon's own events are no subscriptions");
    }

    #[test]
    fn a_subscription_that_names_its_sinks_goes_there_only() {
        let key =
            SubscriptionKey::new("stream.online", "1", Condition::from_pairs([("broadcaster_user_id", "1")]));
        let listed = Arc::new(BTreeSet::from(["stream.online".into()]));
        let routes = Routes::new(HashMap::from([(key, Arc::from([SinkName::new("a")]))]), listed);
        let of = |id: &str| {
            event(
                "stream.online",
                &format!(
                    r#"{{"subscription":{{"condition":{{"broadcaster_user_id":"{id}"}}}},"event":{{}}}}"#
                ),
            )
        };
        let (a, b) = (selector("a", &["*"]), selector("b", &["*"]));
        let key = |id: &str| {
            SubscriptionKey::new("stream.online", "1", Condition::from_pairs([("broadcaster_user_id", id)]))
        };
        assert_eq!([a.takes(&key("1"), &routes), b.takes(&key("1"), &routes)], [true, false]);
        assert!(b.takes(&key("2"), &routes) && !selector("b", &["channel.*"]).takes(&key("2"), &routes));
        assert_eq!([a.wants(&of("1"), &routes), b.wants(&of("1"), &routes)], [true, false]);
        assert_eq!([a.wants(&of("2"), &routes), b.wants(&of("2"), &routes)], [true, true]);
        assert!(b.wants(&event("stream.online", "garbage"), &routes), "rather once too often than lost");
    }
}
