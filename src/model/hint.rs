//! Events that tell the daemon about its own state, besides being delivered (Twitch: "EventSub Subscription Types").

use serde::Deserialize;

use super::event::Event;
use super::subscription::{Condition, SubscriptionId, SubscriptionKey};

/// A user has granted scopes to the application.
pub const GRANT: &str = "user.authorization.grant";
/// A user has withdrawn a grant.
pub const REVOKE: &str = "user.authorization.revoke";
/// Twitch has disabled a shard of a conduit.
pub const SHARD_DISABLED: &str = "conduit.shard.disabled";

/// The types of all such events.
pub const TYPES: [&str; 3] = [GRANT, REVOKE, SHARD_DISABLED];

/// The information in such an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The grants of this user have changed.
    Grants {
        /// Twitch's id of the user.
        user_id: Box<str>,
    },
    /// Twitch has ended a subscription.
    Ended {
        id: SubscriptionId,
        /// The status that it has now.
        status: Box<str>,
    },
    /// Some shard is not what it was.
    Shards,
    /// A challenge was answered: a webhook subscription may be enabled now.
    Verified,
}

/// Returns the hint of an event, if there is one. Unreadable events give none, which is safe: hints only speed up
/// what is polled anyway.
pub fn of(event: &Event) -> Option<Hint> {
    #[derive(Deserialize)]
    struct Payload {
        event: User,
    }
    #[derive(Deserialize)]
    struct User {
        user_id: Box<str>,
    }
    match &*event.subscription_type {
        SHARD_DISABLED => Some(Hint::Shards),
        GRANT | REVOKE => {
            let payload: Payload = serde_json::from_slice(&event.payload).ok()?;
            Some(Hint::Grants { user_id: payload.event.user_id })
        }
        _ => None,
    }
}

/// Returns the subscriptions that bring such events, for a client.
pub fn subscriptions(client_id: &str) -> [SubscriptionKey; 3] {
    TYPES.map(|name| SubscriptionKey::new(name, "1", Condition::from_pairs([("client_id", client_id)])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog;
    use crate::model::event::MessageId;

    fn event(name: &str, payload: &str) -> Event {
        Event {
            message_id: MessageId::new("m").unwrap(),
            message_timestamp: "t".into(),
            subscription_type: name.into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: payload.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn only_some_events_give_a_hint() {
        let user = r#"{"event":{"client_id":"c","user_id":"7","user_login":null}}"#;
        let grants = Some(Hint::Grants { user_id: "7".into() });
        assert_eq!(of(&event(GRANT, user)), grants);
        assert_eq!(of(&event(REVOKE, user)), grants);
        assert_eq!(of(&event(SHARD_DISABLED, "{}")), Some(Hint::Shards));
        assert_eq!(of(&event("stream.online", user)), None);
        assert_eq!(of(&event(GRANT, "{\"event\":{\"user_id\":7}}")), None);
    }

    #[test]
    fn subscriptions_for_hints_are_in_the_catalogue() {
        for key in subscriptions("c") {
            let row = catalog::lookup(&key.subscription_type, &key.version).expect("known");
            assert!(row.condition.contains_key("client_id"), "{key}");
        }
    }
}
