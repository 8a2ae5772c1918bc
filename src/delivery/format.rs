//! The text of an event for those who read lines.

use crate::model::event::Event;

/// Appends Twitch's own notification message, as its WebSocket sends it, on one line with its line
/// break. The payload stays as it came, byte for byte; only line breaks between its tokens go.
pub fn eventsub_line(event: &Event, out: &mut Vec<u8>) {
    out.reserve(event.payload.len() + 256);
    out.extend_from_slice(b"{\"metadata\":{\"message_id\":");
    text(event.message_id.as_str(), out);
    out.extend_from_slice(b",\"message_type\":\"notification\",\"message_timestamp\":");
    text(&event.message_timestamp, out);
    out.extend_from_slice(b",\"subscription_type\":");
    text(&event.subscription_type, out);
    out.extend_from_slice(b",\"subscription_version\":");
    text(&event.subscription_version, out);
    out.extend_from_slice(b"},\"payload\":");
    // JSON texts hold no raw line breaks, so every one that is there is between tokens.
    if event.payload.contains(&b'\n') || event.payload.contains(&b'\r') {
        out.extend(event.payload.iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
    } else {
        out.extend_from_slice(&event.payload);
    }
    out.extend_from_slice(b"}\n");
}

fn text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text always becomes JSON in memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::model::event::MessageId;

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
