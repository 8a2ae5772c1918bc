//! The text of an event, in each form that a sink may ask for. ◆

pub use crate::model::broadcaster::Broadcaster;
use crate::model::event::{Event, MessageId, REVOCATION};
pub use crate::model::sink::Format;

/// Prefix of the type of a CloudEvent: reverse-DNS, as their specification asks.
const TYPE_PREFIX: &str = "tv.twitch.eventsub.";
/// Prefix of the source of a CloudEvent: unique together with the id, as their specification asks.
const SOURCE: &str = "https://api.twitch.tv/helix/eventsub/subscriptions/";

impl Format {
    /// Appends the event on one line with its line break.
    pub fn line(self, event: &Event, out: &mut Vec<u8>) {
        self.line_as(event, None, out);
    }

    /// Appends the event on one line with its line break. `new_id` is the id under which a replayed event goes out; Twitch's
    /// id is `original_message_id` then. CloudEvents keep Twitch's id.
    pub fn line_as(self, event: &Event, new_id: Option<&MessageId>, out: &mut Vec<u8>) {
        match self {
            Self::Eventsub => eventsub_line_as(event, new_id, out),
            Self::Cloudevents => {
                cloudevent(event, out);
                out.push(b'\n');
            }
        }
    }
}

/// Appends the event as CloudEvents 1.0 JSON, structured mode, on one line without a line break
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>). The payload
/// is `data`, as it came.
pub fn cloudevent(event: &Event, out: &mut Vec<u8>) {
    out.reserve(event.payload.len() + 384);
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
    text(event.message_id.as_str(), out);
    out.extend_from_slice(b",\"source\":");
    text(&format!("{SOURCE}{}", uri_part(&event.subscription_id)), out);
    out.extend_from_slice(b",\"type\":");
    // A revocation is no event of its subscription's type, and has no `event`.
    let kind = if event.is_revocation() { REVOCATION } else { &*event.subscription_type };
    text(&format!("{TYPE_PREFIX}{kind}"), out);
    let subject = Broadcaster::of(&event.payload).id;
    if !subject.is_empty() {
        out.extend_from_slice(b",\"subject\":");
        text(&subject, out);
    }
    // The attribute has to be an RFC 3339 time, or not to be there.
    if crate::model::time::Timestamp::parse(&event.message_timestamp).is_some() {
        out.extend_from_slice(b",\"time\":");
        text(&event.message_timestamp, out);
    }
    out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"eventsubversion\":");
    text(&event.subscription_version, out);
    if event.is_caught_up() {
        // The specification allows lower-case letters and digits only.
        out.extend_from_slice(b",\"eventsubdcatchup\":true");
    }
    out.extend_from_slice(b",\"data\":");
    one_line(&event.payload, out);
    out.push(b'}');
}

/// A text as part of a path.
fn uri_part(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Appends Twitch's own message, as its WebSocket sends it, on one line with its line
/// break. The payload stays as it came, byte for byte; only line breaks between its tokens go.
pub fn eventsub_line(event: &Event, out: &mut Vec<u8>) {
    eventsub_line_as(event, None, out);
}

fn eventsub_line_as(event: &Event, new_id: Option<&MessageId>, out: &mut Vec<u8>) {
    out.reserve(event.payload.len() + 256);
    out.extend_from_slice(b"{\"metadata\":{\"message_id\":");
    text(new_id.unwrap_or(&event.message_id).as_str(), out);
    if new_id.is_some() {
        out.extend_from_slice(b",\"original_message_id\":");
        text(event.message_id.as_str(), out);
    }
    out.extend_from_slice(b",\"message_type\":\"");
    out.extend_from_slice(event.message_type().as_bytes());
    out.extend_from_slice(b"\",\"message_timestamp\":");
    text(&event.message_timestamp, out);
    out.extend_from_slice(b",\"subscription_type\":");
    text(&event.subscription_type, out);
    out.extend_from_slice(b",\"subscription_version\":");
    text(&event.subscription_version, out);
    if event.is_caught_up() {
        out.extend_from_slice(b",\"eventsubd\":{\"catch_up\":true}");
    }
    out.extend_from_slice(b"},\"payload\":");
    one_line(&event.payload, out);
    out.extend_from_slice(b"}\n");
}

/// Appends JSON without its line breaks. Its texts hold none, so every one is between tokens.
fn one_line(json: &[u8], out: &mut Vec<u8>) {
    if json.contains(&b'\n') || json.contains(&b'\r') {
        out.extend(json.iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
    } else {
        out.extend_from_slice(json);
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text always becomes JSON in memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn event(timestamp: &str, payload: &str) -> Event {
        Event {
            message_id: MessageId::new("m\"1").unwrap(),
            message_timestamp: timestamp.into(),
            subscription_type: "stream.online".into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: payload.as_bytes().to_vec().into(),
        }
    }

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        eventsub_line(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_is_the_message_that_twitch_sent() {
        assert_eq!(
            line(&event("2026-11-02T09:00:01.512Z", r#"{"subscription":{"z":1.50},"event":{"a":"\n"}}"#)),
            concat!(
                r#"{"metadata":{"message_id":"m\"1","message_type":"notification","message_timestamp":"2026-11-02T09:00:01.512Z","#,
                r#""subscription_type":"stream.online","subscription_version":"1"},"payload":{"subscription":{"z":1.50},"event":{"a":"\n"}}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_event_of_a_catch_up_is_marked() {
        let event = Event { message_id: MessageId::new("catch-up-1").unwrap(), ..event("t", "{}") };
        let line: serde_json::Value = serde_json::from_str(&line(&event)).unwrap();
        assert_eq!(line["metadata"]["eventsubd"]["catch_up"], true);
        let mut out = Vec::new();
        cloudevent(&event, &mut out);
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(out["eventsubdcatchup"], true);
    }

    #[test]
    fn a_replayed_event_names_both_ids() {
        let (event, new_id) = (event("t", "{}"), MessageId::new("new").unwrap());
        let mut line = Vec::new();
        Format::Eventsub.line_as(&event, Some(&new_id), &mut line);
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (&line["metadata"]["message_id"], &line["metadata"]["original_message_id"]),
            (&"new".into(), &"m\"1".into())
        );
        let mut line = Vec::new();
        Format::Cloudevents.line_as(&event, Some(&new_id), &mut line);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&line).unwrap()["id"], "m\"1");
    }

    #[test]
    fn a_revocation_is_the_message_that_twitch_sent() {
        let event = event(
            "2026-11-02T09:00:01.512Z",
            r#"{"subscription":{"id":"s","status":"authorization_revoked","condition":{"broadcaster_user_id":"12"}}}"#,
        );
        assert_eq!(
            line(&event),
            concat!(
                r#"{"metadata":{"message_id":"m\"1","message_type":"revocation","message_timestamp":"2026-11-02T09:00:01.512Z","#,
                r#""subscription_type":"stream.online","subscription_version":"1"},"payload":{"subscription":{"id":"s","#,
                r#""status":"authorization_revoked","condition":{"broadcaster_user_id":"12"}}}}"#,
                "\n"
            )
        );
        let mut out = Vec::new();
        cloudevent(&event, &mut out);
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&out["type"], &out["subject"]), (&"tv.twitch.eventsub.revocation".into(), &"12".into()));
    }

    #[test]
    fn a_cloud_event_has_what_its_specification_asks_for() {
        let payload = r#"{"subscription":{"condition":{"broadcaster_user_id":"12"}},"event":{"n":1.50}}"#;
        let mut out = Vec::new();
        cloudevent(&event("2026-11-02T09:00:01.512Z", payload), &mut out);
        let expected = concat!(
            r#"{"specversion":"1.0","id":"m\"1","source":"https://api.twitch.tv/helix/eventsub/subscriptions/s","#,
            r#""type":"tv.twitch.eventsub.stream.online","subject":"12","time":"2026-11-02T09:00:01.512Z","#,
            r#""datacontenttype":"application/json","eventsubversion":"1","#,
            r#""data":{"subscription":{"condition":{"broadcaster_user_id":"12"}},"event":{"n":1.50}}}"#,
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        cloudevent(&event("yesterday", "{}"), &mut out);
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((out.get("time"), out.get("subject")), (None, None), "neither may be empty");
    }

    #[test]
    fn line_breaks_between_tokens_go_and_nothing_else() {
        let pretty = "{\r\n  \"subscription\": {},\n  \"event\": {\"n\": 1e3}\n}";
        assert!(
            line(&event("t", pretty))
                .ends_with("\"payload\":{  \"subscription\": {},  \"event\": {\"n\": 1e3}}}\n")
        );
    }

    proptest! {
        #[test]
        fn one_line_of_json_whatever_comes(timestamp in ".{0,40}", value in ".{0,80}", pretty in any::<bool>()) {
            let payload = serde_json::json!({"subscription": {"x": value}, "event": [value, 1]});
            let payload = if pretty { serde_json::to_string_pretty(&payload) } else { serde_json::to_string(&payload) };
            let payload = payload.unwrap();
            let line = line(&event(&timestamp, &payload));
            prop_assert_eq!(line.matches('\n').count(), 1);
            let read: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_str(&line).unwrap();
            let out: serde_json::Value = serde_json::from_str(read["payload"].get()).unwrap();
            prop_assert_eq!(out, serde_json::from_str::<serde_json::Value>(&payload).unwrap());
        }
    }
}
