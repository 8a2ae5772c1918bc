use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::event::MessageId;

fn event(kind: &str, version: &str, payload: &str) -> Event {
    Event {
        message_id: MessageId::new("m").expect("an id"),
        message_timestamp: "1970-01-01T00:00:09Z".into(),
        subscription_type: kind.into(),
        subscription_version: version.into(),
        subscription_id: "s".into(),
        payload: payload.as_bytes().to_vec().into(),
    }
}

/// A value as JSON, and the text that it is.
#[derive(Clone, Debug)]
struct Spelled {
    json: String,
    text: Option<String>,
}

fn value() -> impl Strategy<Value = Spelled> {
    let text = |json: &str, text: &str| Just(Spelled { json: json.to_owned(), text: Some(text.to_owned()) });
    let other = prop::sample::select(vec![
        "null",
        "7",
        "-1e999",
        "true",
        "{}",
        "[]",
        r#"{"id":"deep","status":["x",{"condition":null}]}"#,
        r#""\ud800""#,
    ]);
    prop_oneof![
        6 => text(r#""9001""#, "9001"),
        2 => text(r#""9\u0030\u00301""#, "9001"),
        2 => text(r#""a \"b\" \\ é""#, "a \"b\" \\ é"),
        1 => text(r#""""#, ""),
        2 => other.prop_map(|json| Spelled { json: json.to_owned(), text: None }),
    ]
}

/// Members of an object; some names come twice, some are spelled with escapes.
fn members(
    names: &'static [(&'static str, &'static str)],
) -> impl Strategy<Value = Vec<(String, String, Spelled)>> {
    let member = (prop::sample::select(names), value())
        .prop_map(|((name, spelled), value)| (name.to_owned(), spelled.to_owned(), value));
    prop::collection::vec(member, 0..7)
}

fn object(members: &[(String, String, Spelled)], space: &str) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(_, name, value)| format!("{space}\"{name}\"{space}:{space}{}", value.json))
        .collect();
    format!("{{{}{space}}}", members.join(","))
}

const EVENT: &[(&str, &str)] = &[
    ("id", "id"),
    ("id", r"\u0069d"),
    ("status", "status"),
    ("broadcaster_user_id", "broadcaster_user_id"),
    ("started_at", "started_at"),
    ("other", "other"),
    ("", ""),
];

const CONDITION: &[(&str, &str)] = &[("user_id", "user_id"), ("user_id", r"user\u005fid"), ("b", "b")];

/// Parts that the identity should be made of: the first texts of `event`, and the last values of the condition.
fn expected(
    wanted: &[&str],
    event: &[(String, String, Spelled)],
    condition: &[(String, String, Spelled)],
) -> Option<(Vec<String>, BTreeMap<String, String>)> {
    let first = |name: &&str| {
        let texts =
            event.iter().filter(|(known, ..)| known == name).filter_map(|(.., value)| value.text.clone());
        texts.into_iter().find(|text| !text.is_empty())
    };
    let values = wanted.iter().map(first).collect::<Option<Vec<_>>>()?;
    let mut fields = BTreeMap::new();
    for (name, _, value) in condition {
        match (&value.text, &*value.json) {
            (Some(text), _) => fields.insert(name.clone(), text.clone()),
            (None, "null") => fields.insert(name.clone(), String::new()),
            _ => return None,
        };
    }
    fields.retain(|_, text| !text.is_empty());
    Some((values, fields))
}

proptest! {
    #[test]
    fn an_identity_is_what_the_catalogue_names_however_it_is_written(
        kind in 0..3_usize, event_members in members(EVENT), other_members in members(EVENT),
        condition in members(CONDITION), other_condition in members(CONDITION),
        spaces in prop::collection::vec("[ \t\r\n]{0,2}", 3), is_event_first: bool, is_twice: bool,
    ) {
        let (kind, version, wanted) = [
            ("stream.online", "1", &["id"][..]),
            ("channel.channel_points_custom_reward_redemption.update", "1", &["id", "status"]),
            ("channel.raid", "1", &[]),
        ][kind];
        let arrival = |members: &[_], condition: &[_], is_twice: bool| {
            let subscription = format!("\"subscription\":{{\"condition\":{}}}", object(condition, &spaces[0]));
            let about = format!("\"event\":{}", object(members, &spaces[1]));
            let mut parts = [subscription, about.clone()].to_vec();
            if is_event_first {
                parts.reverse();
            }
            parts.extend(is_twice.then_some(about));
            Arrival::from(event(kind, version, &format!("{{{}}}", parts.join(&format!("{},", spaces[2])))))
        };
        let one = arrival(&event_members, &condition, false);
        let expected = |members: &[_], condition: &[_]| {
            expected(wanted, members, condition).filter(|_| !wanted.is_empty())
        };
        let of_one = expected(&event_members, &condition);
        prop_assert_eq!(one.identity.is_some(), of_one.is_some());
        let other = arrival(&other_members, &other_condition, false);
        let of_other = expected(&other_members, &other_condition);
        prop_assert_eq!(one.identity == other.identity, of_one == of_other);
        if is_twice {
            let twice = arrival(&event_members, &condition, true);
            prop_assert!(twice.identity.is_none() && twice.news.is_none(), "nothing is guessed");
        }
    }

    #[test]
    fn nothing_that_arrives_makes_it_panic(
        kind in prop::sample::select(vec!["stream.online", "stream.offline", "channel.update", "channel.poll.end"]),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "[{}\\[\\]\":,\\\\u0-9a-f e]{0,60}".prop_map(String::into_bytes),
            "(\\{\"event\":|\\{\"subscription\":)(\\{\"condition\":|\\{\"id\":|[\\[{]{0,300})[^\"]{0,9}".prop_map(String::into_bytes),
        ],
    ) {
        let mut event = event(kind, "1", "");
        event.payload = bytes.into();
        let arrival = Arrival::from(event);
        prop_assert!(arrival.identity.is_none() && arrival.news.is_none());
    }
}

#[test]
fn identity_and_news_come_from_one_payload() {
    let payload = r#"{"event":{"broadcaster_user_id":"7","id":"9001","started_at":"1970-01-01T00:00:05Z"},
        "subscription":{"id":"s","condition":{"broadcaster_user_id":"7"}}}"#;
    let (event, identity, news) = Arrival::from(event("stream.online", "1", payload)).into_parts();
    assert_eq!((identity.is_some(), news), (true, last_known::news(&event).map(Box::new)));
    assert_eq!(identity, happening::identity(&event));
}
