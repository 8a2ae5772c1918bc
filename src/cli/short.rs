//! Events as short lines on a terminal, in place of the JSON that a `stdout` sink writes.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::brief::Brief;
use super::moment;
use super::term::fit_to;
use crate::model::text::LONGEST_LINE;
use crate::model::time::Timestamp;

/// Twitch's message, and the parts of a CloudEvent that say the same.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    message_timestamp: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    subscription_type: std::borrow::Cow<'a, str>,
}

/// Layout of short lines.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Columns of the terminal; `None` cuts no line.
    pub(super) width: Option<usize>,
    pub(super) colour: bool,
    pub(super) zone: TimeZone,
}

impl Look {
    /// `TIME  TYPE  WHO  WHAT` on one line with its line break.
    pub(super) fn line(&self, time: &str, kind: &str, payload: &[u8]) -> String {
        let Brief { who, what } = Brief::of(payload);
        let text = format!("{time}  {kind:<26} {who:<16} {what}");
        let line = fit_to(text.trim_end(), self.width.unwrap_or(LONGEST_LINE));
        match line.split_once(kind).filter(|_| self.colour && !kind.is_empty()) {
            Some((before, after)) => format!("{before}\x1b[1m{kind}\x1b[0m{after}\n"),
            None => format!("{line}\n"),
        }
    }
}

/// Turns each line of JSON into a short one. Lines that are no event pass unchanged.
pub(super) struct ShortLines<W> {
    out: W,
    look: Look,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl<W: Write> ShortLines<W> {
    pub(super) fn new(out: W, look: Look) -> Self {
        Self { out, look, begun: Vec::new() }
    }
}

impl<W: Write> Write for ShortLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(end) = memchr::memrchr(b'\n', bytes) else {
            self.begun.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        let mut lines = std::mem::take(&mut self.begun);
        lines.extend_from_slice(&bytes[..end]);
        let mut text = Vec::new();
        for line in lines.split(|byte| *byte == b'\n') {
            match short(line, &self.look) {
                Some(line) => text.extend_from_slice(line.as_bytes()),
                None => {
                    text.extend_from_slice(line);
                    text.push(b'\n');
                }
            }
        }
        self.out.write_all(&text)?;
        self.begun.extend_from_slice(&bytes[end + 1..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn short(line: &[u8], look: &Look) -> Option<String> {
    let Message { metadata, payload, kind, time, data } = serde_json::from_slice(line).ok()?;
    let (kind, time) = match metadata {
        Some(metadata) => (metadata.subscription_type, metadata.message_timestamp),
        None => (kind?, time?),
    };
    let time = Timestamp::parse(&time).map(|time| moment::clock(time, &look.zone)).unwrap_or_default();
    let kind = kind.strip_prefix("tv.twitch.eventsub.").unwrap_or(&kind);
    Some(look.line(&time, kind, payload.or(data)?.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::format::Format;
    use crate::model::event::{Event, MessageId};

    fn look() -> Look {
        Look { width: Some(70), colour: false, zone: TimeZone::UTC }
    }

    fn event() -> Event {
        Event {
            message_id: MessageId::new("m1").unwrap(),
            message_timestamp: "2026-11-02T09:00:01.5Z".into(),
            subscription_type: "channel.chat.message".into(),
            subscription_version: "1".into(),
            subscription_id: "s".into(),
            payload: r#"{"subscription":{},"event":{"broadcaster_user_login":"ann","chatter_user_login":"bob","message":{"text":"a text that is longer than the line"}}}"#
                .as_bytes()
                .into(),
        }
    }

    #[test]
    fn both_formats_become_the_same_short_line() {
        for format in [Format::Eventsub, Format::Cloudevents] {
            let mut json = Vec::new();
            format.line(&event(), &mut json);
            let mut out = Vec::new();
            // A line may come in pieces.
            let mut writer = ShortLines::new(&mut out, look());
            for part in json.chunks(50) {
                writer.write_all(part).unwrap();
            }
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "09:00:01  channel.chat.message       ann              bob, \"a text th…\n",
                "{format:?}"
            );
        }
    }

    #[test]
    fn what_is_no_event_passes_unchanged() {
        let mut out = Vec::new();
        ShortLines::new(&mut out, look()).write_all(b"sink web would get:\n    POST /\n\n").unwrap();
        assert_eq!(out, b"sink web would get:\n    POST /\n\n");
    }

    #[test]
    fn colour_is_not_counted_as_width() {
        let colour = Look { colour: true, ..look() };
        let line = colour.line("09:00:01", "stream.online", b"{}");
        assert_eq!(line, "09:00:01  \u{1b}[1mstream.online\u{1b}[0m\n");
    }
}
