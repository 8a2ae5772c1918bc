//! An event in a few words: whom it is about, and what happened. ◆

use serde_json::{Map, Value};

use crate::model::readable::readable;
use crate::model::text::one_line;
use crate::model::time::Timestamp;

/// Details that one line has at most.
const DETAILS: usize = 6;
/// The longest text of one member, in characters.
const LONGEST: usize = 200;
/// Members with the channel of an event, its own first.
const CHANNEL: [&str; 4] = [
    "broadcaster_user_login",
    "to_broadcaster_user_login",
    "broadcaster_login",
    "host_broadcaster_user_login",
];
/// Members with whoever did it, or whom it happened to.
const ACTOR: [&str; 6] = [
    "chatter_user_login",
    "from_broadcaster_user_login",
    "requester_user_login",
    "user_login",
    "sender_user_login",
    "moderator_user_login",
];
/// Members that say most about an event, in the order in which they are shown.
const FIRST: [&str; 14] = [
    "title",
    "message",
    "text",
    "system_message",
    "bits",
    "viewers",
    "total",
    "tier",
    "cumulative_months",
    "reward",
    "user_input",
    "category_name",
    "status",
    "reason",
];
/// Members that tell a person nothing.
const NOISE: [&str; 8] =
    ["id", "type", "color", "message_type", "language", "anonymous", "notice_type", "source_badges"];
/// Members that are a number of something.
const NUMBERS: [&str; 4] = ["bits", "viewers", "votes", "points"];

/// Words about one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Brief {
    /// The login of the channel or of the user; empty if the event names none.
    pub(super) who: String,
    /// Empty if there is nothing else to say.
    pub(super) what: String,
}

impl Brief {
    /// Reads the payload of a message: `{"subscription":{…},"event":{…}}`.
    pub(super) fn of(payload: &[u8]) -> Self {
        let payload: Value = serde_json::from_slice(&readable(payload)).unwrap_or_default();
        if let Some(event) = payload.get("event").and_then(Value::as_object) {
            return Self::of_members(event);
        }
        if let Some(events) = payload.get("events").and_then(Value::as_array) {
            let data = events.first().and_then(|event| event.get("data")).and_then(Value::as_object);
            let mut brief = data.map(Self::of_members).unwrap_or_default();
            if events.len() > 1 {
                brief.what = format!("{} and {} more", brief.what, events.len() - 1);
            }
            return brief;
        }
        let status = payload.pointer("/subscription/status").and_then(Value::as_str);
        let what = status.map_or_else(String::new, |status| format!("subscription ended: {}", words(status)));
        Self { who: String::new(), what }
    }

    fn of_members(event: &Map<String, Value>) -> Self {
        let named = |names: &[&'static str]| {
            names.iter().copied().find_map(|name| {
                let login = event.get(name)?.as_str().filter(|login| !login.is_empty())?;
                Some((name, login))
            })
        };
        let channel = named(&CHANNEL);
        let actor = named(&ACTOR);
        let who = channel.or(actor).map_or("", |(_, login)| login);
        let mut parts = Vec::new();
        if let (Some(_), Some((_, actor))) = (channel, actor)
            && actor != who
        {
            parts.push(actor.to_owned());
        }
        let first = FIRST.iter().filter_map(|name| event.get_key_value(*name));
        let others = event.iter().filter(|(name, _)| !FIRST.contains(&name.as_str()));
        let details = first.chain(others).filter_map(|(name, value)| detail(name, value));
        parts.extend(details.take(DETAILS));
        if parts.is_empty() {
            let mut members = event.iter().filter(|(name, _)| name.ends_with("_at"));
            let time = members.find_map(|(name, value)| Some((name, value.as_str()?)));
            parts.extend(time.map(|(name, text)| format!("{} {}", words(name), moment(text))));
        }
        Self { who: one_line(who, LONGEST), what: parts.join(", ") }
    }
}

/// Words about one member, if it tells a person something.
fn detail(name: &str, value: &Value) -> Option<String> {
    let about_user = ["_id", "_ids", "_login", "_at", "user_name", "broadcaster_name"];
    if NOISE.contains(&name)
        || name.starts_with("source_")
        || about_user.iter().any(|end| name.ends_with(end))
    {
        return None;
    }
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text)
            if ["title", "message", "text", "user_input", "system_message"].contains(&name) =>
        {
            Some(format!("\"{}\"", one_line(text, LONGEST)))
        }
        Value::String(text) => Some(format!("{} {}", words(name), one_line(text, LONGEST))),
        Value::Number(number) if NUMBERS.contains(&name) => Some(format!("{number} {name}")),
        Value::Number(number) if number.as_f64() != Some(0.0) => Some(format!("{} {number}", words(name))),
        Value::Bool(true) => Some(words(name.strip_prefix("is_").unwrap_or(name))),
        Value::Object(members) => {
            let text = ["text", "title", "name"].iter().find_map(|inner| members.get(*inner)?.as_str());
            text.filter(|text| !text.is_empty()).map(|text| format!("\"{}\"", one_line(text, LONGEST)))
        }
        _ => None,
    }
}

/// A time without the parts of a second; other text as it is.
fn moment(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, _)) if Timestamp::parse(text).is_some() => format!("{seconds}Z"),
        _ => one_line(text, LONGEST),
    }
}

fn words(name: &str) -> String {
    one_line(&name.replace('_', " "), LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn brief(event: &str) -> (String, String) {
        let Brief { who, what } =
            Brief::of(format!("{{\"subscription\":{{}},\"event\":{event}}}").as_bytes());
        (who, what)
    }

    #[test]
    fn the_channel_comes_first_then_who_did_what() {
        for (event, who, what) in [
            (
                r#"{"broadcaster_user_id":"1","broadcaster_user_login":"ann","broadcaster_user_name":"Ann",
                    "chatter_user_login":"bob","message":{"text":"hi\nthere","fragments":[]},"color":"","cheer":null}"#,
                "ann",
                "bob, \"hi\\nthere\"",
            ),
            (
                r#"{"broadcaster_user_login":"ann","id":"9","type":"live","started_at":"2026-11-02T09:00:00Z"}"#,
                "ann",
                "started at 2026-11-02T09:00:00Z",
            ),
            (
                r#"{"broadcaster_user_login":"ann","started_at":"2026-11-02T09:00:00.334927449Z"}"#,
                "ann",
                "started at 2026-11-02T09:00:00Z",
            ),
            (r#"{"broadcaster_user_login":"ann","ended_at":"no.\ntime"}"#, "ann", "ended at no.\\ntime"),
            (
                r#"{"from_broadcaster_user_login":"bob","to_broadcaster_user_login":"ann","viewers":9001}"#,
                "ann",
                "bob, 9001 viewers",
            ),
            (
                r#"{"broadcaster_user_login":"ann","user_login":"bob","tier":"1000","is_gift":true}"#,
                "ann",
                "bob, tier 1000, gift",
            ),
            (
                r#"{"broadcaster_user_login":"ann","title":"Chess","category_name":"Board games","language":"en"}"#,
                "ann",
                "\"Chess\", category name Board games",
            ),
            (r#"{"user_login":"bob","user_id":"1","client_id":"c"}"#, "bob", ""),
            ("{}", "", ""),
        ] {
            assert_eq!(brief(event), (who.to_owned(), what.to_owned()), "{event}");
        }
    }

    #[test]
    fn revocations_and_batches_have_words_too() {
        let of = |payload: &str| Brief::of(payload.as_bytes());
        let ended = of(r#"{"subscription":{"status":"authorization_revoked"}}"#);
        assert_eq!(ended.what, "subscription ended: authorization revoked");
        let batch = of(r#"{"subscription":{},"events":[{"data":{"user_login":"bob","status":"new"}},{}]}"#);
        assert_eq!((batch.who.as_str(), batch.what.as_str()), ("bob", "status new and 1 more"));
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let Brief { who, what } = Brief::of(&bytes);
            prop_assert!(!who.contains('\n') && !what.contains('\n'));
        }

        #[test]
        fn any_member_makes_one_line(name in "[a-z_]{0,12}", text in "\\PC{0,8}[\n\r\u{1b}]\\PC{0,8}") {
            let event = serde_json::json!({"subscription": {}, "event": {name: text, "broadcaster_user_login": "a\nb"}});
            let Brief { who, what } = Brief::of(event.to_string().as_bytes());
            prop_assert!(!who.chars().chain(what.chars()).any(char::is_control), "{who} {what}");
        }
    }
}
