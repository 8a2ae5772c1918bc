//! Bytes from Twitch and from people, and their outcome: for fuzz targets and for the test that replays their seeds.

use eventsubd::config;
use eventsubd::helix::request::Call;
use eventsubd::model::event::{Event, MessageId};
use eventsubd::model::template::{EventContext, Makes, Template};
use eventsubd::transport::websocket::frame::{self, FrameError, Message};

/// What becomes of a text frame. The payload of an event is part of its frame.
pub(crate) fn frame(bytes: &[u8]) -> Result<Message, FrameError> {
    let message = frame::parse(bytes);
    if let Ok(Message::Notification(event)) = &message {
        let payload = &event.payload[..];
        let is_part = payload.is_empty() || bytes.windows(payload.len()).any(|part| part == payload);
        assert!(is_part, "the payload is a part of the frame, byte for byte");
    }
    message
}

/// How many rows an answer has. The first line names the call; without such a line the bytes are the answer to
/// every call.
pub(crate) fn helix_answer(bytes: &[u8]) -> Vec<Result<usize, String>> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let named = Call::ALL.into_iter().find(|call| call.name().as_bytes() == &bytes[..end]);
    let (calls, body) = match named {
        Some(call) => (vec![call], &bytes[end + 1..]),
        None => (Call::ALL.to_vec(), bytes),
    };
    calls
        .into_iter()
        .map(|call| eventsubd::helix::rows_in(call, body).map_err(|error| error.to_string()))
        .collect()
}

/// Checks the text of a configuration; an error has all its problems as text.
pub(crate) fn configuration(bytes: &[u8]) -> Result<(), String> {
    match config::check_text(bytes) {
        Ok(loaded) => {
            assert!(!loaded.config.application.client_id.is_empty(), "a valid configuration has a client id");
            Ok(())
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "a refusal has a reason");
            Err(errors.to_string())
        }
    }
}

/// An event for templates: text with quotes, lists, `null`, nested objects.
const EVENT: &str = r#"{"subscription":{"id":"s","type":"channel.update","condition":{"broadcaster_user_id":"12"}},
    "event":{"broadcaster_user_id":"12","broadcaster_user_login":"ann","broadcaster_user_name":"Ann",
    "title":"say \"hi\" <b> \u001b","n":3,"tags":["a","b"],"none":null,"choices":[{"title":"x","votes":1}]}}"#;

/// Renders a template with an event.
pub(crate) fn template(bytes: &[u8]) -> Result<String, String> {
    let event = Event {
        message_id: MessageId::new("m1").expect("valid"),
        message_timestamp: "2026-11-02T09:00:01.512Z".into(),
        subscription_type: "channel.update".into(),
        subscription_version: "2".into(),
        subscription_id: "s".into(),
        payload: EVENT.as_bytes().into(),
    };
    let event = EventContext::new(&event).expect("JSON");
    let template =
        Template::new(&String::from_utf8_lossy(bytes), Makes::Text).map_err(|error| error.to_string())?;
    let text = template.render(&event).map_err(|error| error.to_string())?;
    // No template may make an event too large to be sent.
    assert!(text.len() <= 4 << 20, "{} bytes", text.len());
    Ok(text)
}
