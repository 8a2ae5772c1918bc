//! Bytes from Twitch, and what becomes of them: for fuzz targets and for the test that replays their seeds.

use bytes::Bytes;
use eventsubd::helix::request::Call;
use eventsubd::transport::websocket::frame::{self, FrameError, Message};

/// What becomes of a text frame. The payload of an event is part of its frame.
pub(crate) fn frame(bytes: &[u8]) -> Result<Message, FrameError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let message = frame::parse(&bytes);
    if let Ok(Message::Notification(event)) = &message {
        assert!(
            bytes.as_ptr_range().contains(&event.payload.as_ptr()),
            "the payload is a slice of the frame"
        );
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
