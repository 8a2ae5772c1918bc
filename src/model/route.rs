//! Routing of events to sinks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub use super::sink::SinkName;
use super::subscription::SubscriptionKey;

/// Messages other than notifications of Twitch that a kind of sink gets without being asked. A program that was written
/// for Twitch's notifications cannot be expected to take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Revocations and the daemon's own events.
    All,
    /// Revocations, which Twitch sends to programs too.
    Revocations,
    Nothing,
}

/// Subscriptions whose events go to some sinks only. Events of all other subscriptions go to all sinks, and so do
/// events whose subscription is no longer in the file: an accepted event is always delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    restricted: HashMap<SubscriptionKey, Arc<[SinkName]>>,
    /// Types of the restricted subscriptions.
    types: HashSet<Box<str>>,
    /// Types that the file lists; `None` while unknown.
    listed: Option<Arc<BTreeSet<Box<str>>>>,
}

impl Routes {
    /// Builds the routes from the subscriptions that name their sinks, and the types of all subscriptions. A
    /// subscription with an empty list of sinks goes nowhere.
    pub fn new(
        restricted: HashMap<SubscriptionKey, Arc<[SinkName]>>,
        listed: Arc<BTreeSet<Box<str>>>,
    ) -> Self {
        let types = restricted.keys().map(|key| (*key.subscription_type).into()).collect();
        Self { restricted, types, listed: Some(listed) }
    }

    /// Returns whether the file has subscriptions of this type. Events of other types come from subscriptions that
    /// another program made on our conduit, or from the daemon's own.
    pub fn lists(&self, subscription_type: &str) -> bool {
        self.listed.as_ref().is_none_or(|listed| listed.contains(subscription_type))
    }

    /// Whether the file has subscriptions of such a type. True while its types are not known.
    pub fn lists_any(&self, like: impl Fn(&str) -> bool) -> bool {
        self.listed.as_ref().is_none_or(|listed| listed.iter().any(|listed| like(listed)))
    }

    /// Whether every event of this type goes to every sink, so that nobody needs to look at the condition.
    pub fn is_open(&self, subscription_type: &str) -> bool {
        !self.types.contains(subscription_type)
    }

    /// Returns whether events of this subscription go to this sink.
    pub fn allows(&self, key: &SubscriptionKey, sink: &SinkName) -> bool {
        self.restricted.get(key).is_none_or(|sinks| sinks.contains(sink))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subscription::Condition;

    #[test]
    fn only_named_sinks_get_restricted_subscriptions() {
        let key = |id: &str| {
            SubscriptionKey::new("stream.online", "1", Condition::from_pairs([("broadcaster_user_id", id)]))
        };
        let log = SinkName::new("log");
        let other = SinkName::new("other");
        let listed = Arc::new(BTreeSet::from(["stream.online".into(), "stream.offline".into()]));
        let routes = Routes::new(HashMap::from([(key("1"), Arc::from([log.clone()]))]), listed);
        assert!(routes.allows(&key("1"), &log));
        assert!(!routes.allows(&key("1"), &other));
        assert!(routes.allows(&key("2"), &other));
        assert!(!routes.is_open("stream.online") && routes.is_open("stream.offline"));
        assert!(routes.lists("stream.offline") && !routes.lists("channel.follow"));
        assert!(
            routes.lists_any(|kind| kind.ends_with("offline"))
                && !routes.lists_any(|kind| kind == "channel.raid")
        );
        assert!(Routes::default().lists_any(|_| false), "not known yet");
        assert!(Routes::default().is_open("stream.online") && Routes::default().lists("channel.follow"));
    }
}
