//! The events that tell of a gap, and of what was mended. ◆

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::gap::Scope;
use crate::model::event::{CAUGHT_UP, Event, GAP, MessageId};
use crate::model::route::SinkName;
use crate::model::status::GapReason;
use crate::model::subscription::SubscriptionKey;
use crate::model::subscriptions::Subscriptions;
use crate::model::time::Timestamp;

/// Subscriptions, and shards, that one event lists; it counts the others.
const LISTED: usize = 1_000;

/// A gap as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) reason: GapReason,
    pub(super) scope: ToldScope,
}

/// The scope of a gap as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToldScope {
    Ways(Scope),
    /// Events that retention removed before this sink had them, and their number.
    Sink(SinkName, u64),
}

/// The members of `event`.
#[derive(Serialize)]
struct Members<'a> {
    from: Timestamp,
    to: Timestamp,
    reason: GapReason,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<&'a SinkName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_lost: Option<u64>,
    subscriptions: Vec<&'a SubscriptionKey>,
    subscriptions_total: usize,
}

/// Builds the event. `entries` are the subscriptions of the file; `None` cannot happen with ids of ours.
pub(super) fn event(told: &Told, id: &str, conduit: Option<&str>, entries: &Subscriptions) -> Option<Event> {
    let theirs = || entries.iter().filter(|entry| !entry.own).map(|entry| &entry.key);
    let all = |scope, shards| Members {
        from: told.from,
        to: told.to,
        reason: told.reason,
        scope,
        shards,
        sink: None,
        events_lost: None,
        subscriptions: theirs().take(LISTED).collect(),
        subscriptions_total: theirs().count(),
    };
    let members = match &told.scope {
        ToldScope::Ways(Scope::Shards(shards)) => {
            all("conduit", Some(shards.get(..shards.len().min(LISTED)).unwrap_or_default()))
        }
        ToldScope::Ways(Scope::Callback) => all("callback", None),
        ToldScope::Ways(Scope::All) => all("all", None),
        ToldScope::Ways(Scope::Subscriptions(keys)) => Members {
            subscriptions: keys.iter().take(LISTED).collect(),
            subscriptions_total: keys.len(),
            ..all("subscriptions", None)
        },
        ToldScope::Sink(sink, events) => {
            Members { sink: Some(sink), events_lost: Some(*events), ..all("sink", None) }
        }
    };
    let event = serde_json::value::to_raw_value(&members).ok()?;
    wrap(GAP, id, told.to, conduit, &event)
}

/// A catch-up that is over, as it is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CatchUp<'a> {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// The message ids of the events of the gaps that it mended.
    pub(super) gaps: &'a [Box<str>],
    /// Channels that Twitch was asked about.
    pub(super) channels: u64,
    /// Events that were stored for it.
    pub(super) events: u64,
    /// The same by type.
    pub(super) found: &'a BTreeMap<&'static str, u64>,
}

/// Builds the event of a catch-up that is over.
pub(super) fn caught_up(made: &CatchUp<'_>, id: &str) -> Option<Event> {
    wrap(CAUGHT_UP, id, made.to, None, &serde_json::value::to_raw_value(made).ok()?)
}

/// Like a notification of Twitch's, so that whoever reads those can read this.
fn wrap(
    kind: &'static str,
    id: &str,
    at: Timestamp,
    conduit: Option<&str>,
    event: &RawValue,
) -> Option<Event> {
    const SUBSCRIPTION: &str = "eventsubd";
    const VERSION: &str = "1";
    let subscription = serde_json::json!({
        "id": SUBSCRIPTION,
        "status": "enabled",
        "type": kind,
        "version": VERSION,
        "cost": 0,
        "condition": {},
        "transport": { "method": "conduit", "conduit_id": conduit.unwrap_or_default() },
        "created_at": at,
    });
    Some(Event {
        message_id: MessageId::new(id).ok()?,
        message_timestamp: at.to_string().into(),
        subscription_type: kind.into(),
        subscription_version: VERSION.into(),
        subscription_id: SUBSCRIPTION.into(),
        payload: format!(r#"{{"subscription":{subscription},"event":{}}}"#, event.get()).into_bytes().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::{SubscriptionEntry, SubscriptionState};
    use crate::model::subscription::Condition;
    use crate::model::subscriptions::LoginNames;

    fn entry(id: &str) -> SubscriptionEntry {
        SubscriptionEntry {
            key: SubscriptionKey::new(
                "stream.online",
                "1",
                Condition::from_pairs([("broadcaster_user_id", id)]),
            ),
            state: SubscriptionState::Enabled,
            id: None,
            reason: None,
            cost: None,
            obstacle: None,
            retry_at: None,
            own: false,
            logins: LoginNames::None,
        }
    }

    fn payload(told: &Told, entries: &[SubscriptionEntry]) -> serde_json::Value {
        let event = event(told, "gap-1", Some("c"), &entries.to_vec().into()).expect("an event");
        assert_eq!(event.message_id.as_str(), "gap-1");
        serde_json::from_slice(&event.payload).expect("JSON")
    }

    #[test]
    fn the_event_reads_like_one_of_twitch() {
        let mut entries = vec![entry("1"); LISTED + 5];
        entries.push(SubscriptionEntry { own: true, ..entry("2") });
        let told = Told {
            from: Timestamp::from_unix_millis(1_000),
            to: Timestamp::from_unix_millis(2_000),
            reason: GapReason::Retention,
            scope: ToldScope::Sink(SinkName::new("log"), 7),
        };
        let payload = payload(&told, &entries);
        assert_eq!(payload["subscription"]["type"], GAP);
        let event = &payload["event"];
        assert_eq!((&event["reason"], &event["scope"]), (&"retention".into(), &"sink".into()));
        assert_eq!(event["from"], "1970-01-01T00:00:01.000Z");
        assert_eq!((&event["sink"], &event["events_lost"]), (&"log".into(), &7.into()));
        assert_eq!(event["subscriptions"].as_array().expect("a list").len(), LISTED);
        assert_eq!(event["subscriptions"][0]["type"], "stream.online");
        assert_eq!(event["subscriptions_total"], LISTED + 5);
    }

    #[test]
    fn what_was_mended_names_its_gaps() {
        let at = Timestamp::from_unix_millis(1_000);
        let (gaps, found) = ([Box::from("gap-1")], [("stream.online", 2), ("stream.offline", 1)].into());
        let made = CatchUp { from: at, to: at, gaps: &gaps, channels: 300, events: 3, found: &found };
        let event = caught_up(&made, "caught-up-1").expect("an event");
        assert_eq!(&*event.subscription_type, CAUGHT_UP);
        assert!(!event.is_caught_up(), "it is not made from what Twitch shows");
        let payload: serde_json::Value = serde_json::from_slice(&event.payload).expect("JSON");
        assert_eq!(payload["event"]["gaps"][0], "gap-1");
        assert_eq!(payload["event"]["found"]["stream.online"], 2);
    }

    #[test]
    fn a_dead_shard_concerns_the_whole_conduit_and_gone_subscriptions_themselves() {
        let entries = [entry("1"), entry("2")];
        let told = |scope| Told {
            from: Timestamp::from_unix_millis(1_000),
            to: Timestamp::from_unix_millis(2_000),
            reason: GapReason::ShardTaken,
            scope: ToldScope::Ways(scope),
        };
        let event = &payload(&told(Scope::Shards(vec![1])), &entries)["event"];
        assert_eq!((&event["scope"], &event["shards"][0]), (&"conduit".into(), &1.into()));
        assert_eq!(event["subscriptions_total"], 2);
        let event = &payload(&told(Scope::Subscriptions(vec![entries[1].key.clone()])), &entries)["event"];
        assert_eq!((&event["scope"], &event["subscriptions_total"]), (&"subscriptions".into(), &1.into()));
        assert_eq!(event["subscriptions"][0]["condition"]["broadcaster_user_id"], "2");
        assert!(event["shards"].is_null());
    }
}
