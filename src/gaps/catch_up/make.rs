//! The events of a catch-up, in Twitch's own shape. ◆

use serde::Serialize;

use crate::helix::{Channel, User};
use crate::model::event::{CATCH_UP_ID, Event, MessageId};
use crate::model::last_known::{CHANNEL, OFFLINE, ONLINE};
use crate::model::subscription::{Condition, SubscriptionKey};
use crate::model::time::Timestamp;

/// The types that a catch-up tells of, with the version that it can write.
pub(super) const TYPES: [(&str, &str); 3] = [(ONLINE, "1"), (OFFLINE, "1"), (CHANNEL, "2")];

/// The key of a channel's subscription.
pub(super) fn key(kind: &str, broadcaster: &str) -> SubscriptionKey {
    let version = TYPES.iter().find(|(known, _)| *known == kind).map_or("1", |(_, version)| version);
    SubscriptionKey::new(kind, version, Condition::from_pairs([("broadcaster_user_id", broadcaster)]))
}

/// The place where the subscriptions deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub(super) enum Transport {
    Conduit { conduit_id: String },
    Webhook { callback: String },
}

/// The subject of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happened<'a> {
    Online {
        stream: &'a str,
        started_at: Timestamp,
    },
    Offline {
        stream: Option<&'a str>,
    },
    /// The title, the category and the like. `before` tells it from the same change at another time.
    Channel {
        channel: &'a Channel,
        digest: u64,
        before: u64,
    },
}

impl Happened<'_> {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Online { .. } => ONLINE,
            Self::Offline { .. } => OFFLINE,
            Self::Channel { .. } => CHANNEL,
        }
    }

    /// The part of the message id after the type and the channel: the same whenever the same is told.
    fn id(&self) -> String {
        match self {
            Self::Online { stream, .. } => (*stream).to_owned(),
            Self::Offline { stream } => stream.unwrap_or_default().to_owned(),
            Self::Channel { digest, before, .. } => format!("{digest:016x}-{before}"),
        }
    }
}

#[derive(Serialize)]
struct Subscription<'a> {
    id: &'a str,
    status: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    version: &'a str,
    condition: &'a Condition,
    transport: &'a Transport,
    created_at: Timestamp,
    cost: u64,
}

#[derive(Default, Serialize)]
struct Members<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    broadcaster_user_id: &'a str,
    broadcaster_user_login: &'a str,
    broadcaster_user_name: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelMembers<'a>>,
}

#[derive(Serialize)]
struct ChannelMembers<'a> {
    title: &'a str,
    language: &'a str,
    category_id: &'a str,
    category_name: &'a str,
    content_classification_labels: &'a [Box<str>],
}

#[derive(Serialize)]
struct Payload<'a> {
    subscription: Subscription<'a>,
    event: Members<'a>,
}

/// Builds the event of one happening. `None` means that an id of Twitch cannot be part of a message id.
pub(super) fn event(
    happened: &Happened<'_>,
    user: &User,
    user_name: &str,
    subscription_id: &str,
    transport: &Transport,
    now: Timestamp,
) -> Option<Event> {
    let key = key(happened.kind(), &user.id);
    let common = Members {
        broadcaster_user_id: &user.id,
        broadcaster_user_login: &user.login,
        broadcaster_user_name: user_name,
        ..Members::default()
    };
    let members = match happened {
        Happened::Online { stream, started_at } => {
            Members { id: Some(stream), kind: Some("live"), started_at: Some(*started_at), ..common }
        }
        Happened::Offline { stream } => Members { id: *stream, ..common },
        Happened::Channel { channel, .. } => Members {
            channel: Some(ChannelMembers {
                title: &channel.title,
                language: &channel.language,
                category_id: &channel.category_id,
                category_name: &channel.category_name,
                content_classification_labels: &channel.labels,
            }),
            ..common
        },
    };
    let payload = Payload {
        subscription: Subscription {
            id: subscription_id,
            status: "enabled",
            kind: &key.subscription_type,
            version: &key.version,
            condition: &key.condition,
            transport,
            created_at: now,
            cost: 0,
        },
        event: members,
    };
    let id = format!("{CATCH_UP_ID}{}-{}-{}", happened.kind(), user.id, happened.id());
    Some(Event {
        message_id: MessageId::new(&id).ok()?,
        message_timestamp: now.to_string().into(),
        subscription_type: happened.kind().into(),
        subscription_version: key.version.as_ref().into(),
        subscription_id: subscription_id.into(),
        payload: serde_json::to_vec(&payload).ok()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::happening;
    use crate::model::last_known::{Change, ChannelDigest, Source, news};

    fn make(happened: &Happened<'_>) -> Event {
        let user = User { id: "7".into(), login: "ann".into() };
        let transport = Transport::Conduit { conduit_id: "c".to_owned() };
        event(happened, &user, "Ann", "s-1", &transport, Timestamp::from_unix_millis(9_000))
            .expect("an event")
    }

    #[test]
    fn events_read_like_those_of_twitch_and_have_their_identity() {
        let online =
            make(&Happened::Online { stream: "9001", started_at: Timestamp::from_unix_millis(5_000) });
        assert_eq!(online.message_id.as_str(), "catch-up-stream.online-7-9001");
        assert_eq!(
            std::str::from_utf8(&online.payload).expect("text"),
            concat!(
                r#"{"subscription":{"id":"s-1","status":"enabled","type":"stream.online","version":"1","#,
                r#""condition":{"broadcaster_user_id":"7"},"transport":{"method":"conduit","conduit_id":"c"},"#,
                r#""created_at":"1970-01-01T00:00:09.000Z","cost":0},"event":{"id":"9001","broadcaster_user_id":"7","#,
                r#""broadcaster_user_login":"ann","broadcaster_user_name":"Ann","type":"live","#,
                r#""started_at":"1970-01-01T00:00:05.000Z"}}"#
            )
        );
        let of_twitch = |event: &Event| {
            let payload = r#"{"subscription":{"id":"s-2","condition":{"broadcaster_user_id":"7"}},
                              "event":{"broadcaster_user_id":"7","id":"9001","x":1}}"#;
            Event { payload: payload.as_bytes().into(), ..event.clone() }
        };
        let has_identity_of_twitch = |event: &Event| {
            let identity = happening::identity(event).expect("an identity");
            happening::identity(&of_twitch(event)) == Some(identity)
        };
        assert!(has_identity_of_twitch(&online));
        let said = news(&online).expect("news");
        assert_eq!(
            (said.change, said.source),
            (Change::Online { id: "9001".into(), started: 5_000, since: 5_000 }, Source::CatchUp)
        );
        let offline = make(&Happened::Offline { stream: Some("9001") });
        assert_eq!(offline.message_id.as_str(), "catch-up-stream.offline-7-9001");
        assert!(has_identity_of_twitch(&offline));
    }

    #[test]
    fn an_update_has_the_fingerprint_of_what_twitch_shows() {
        let channel = Channel {
            broadcaster: User { id: "7".into(), login: "ann".into() },
            broadcaster_name: "Ann".into(),
            title: "t".into(),
            language: "en".into(),
            category_id: "5".into(),
            category_name: "Chess".into(),
            labels: vec!["Gambling".into()],
        };
        let digest = ChannelDigest::of("t", "en", "5", &["Gambling"]);
        let update = make(&Happened::Channel { channel: &channel, digest: digest.0, before: 3 });
        assert_eq!((&*update.subscription_type, &*update.subscription_version), ("channel.update", "2"));
        let said = news(&update).expect("news");
        assert_eq!((said.change, said.source), (Change::Channel { digest, since: 0 }, Source::CatchUp));
        let payload: serde_json::Value = serde_json::from_slice(&update.payload).expect("JSON");
        assert_eq!(payload["event"]["category_name"], "Chess");
        assert_eq!(payload["event"]["content_classification_labels"][0], "Gambling");
        assert!(payload["event"]["id"].is_null());
    }
}
