//! HTML for the pages that a user sees.

use crate::platform::Answer;

/// A whole page around this body.
pub(super) fn html(status: u16, body: &str) -> Answer {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sandbox</title>{body}</html>"
    );
    Answer::html(status, text)
}

/// The text with everything escaped that means something in HTML, within quotes as well.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
