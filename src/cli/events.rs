//! `eventsubd events`: prints events from the store, whether the daemon runs or not.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::{Args, EventsArgs};
use super::target::open_store;
use super::term::{self, Failure, masked};
use crate::delivery::format::eventsub_line;
use crate::delivery::select::Selector;
use crate::model::event::{Seq, StoredEvent};
use crate::model::route::{Routes, SinkName, Unasked};
use crate::model::text::one_line;
use crate::model::time::Timestamp;
use crate::store::StoreError;

/// Number of events read at once.
const BATCH: usize = 500;
/// Polling interval of `--follow`.
const POLL: Duration = Duration::from_millis(200);
/// Maximum length of an event in a line for people, in characters.
const WIDTH: usize = 160;

/// `eventsubd events`
pub(super) fn run(args: &Args, flags: &EventsArgs) -> Result<u8, Failure> {
    let types = if flags.types.is_empty() { vec!["*".to_owned()] } else { flags.types.clone() };
    let selector = Selector::new(SinkName::new("events"), &types, Unasked::All)
        .map_err(|error| Failure::new("--type is not a valid pattern").caused_by(&error).code(2))?;
    let since = flags.since.as_deref().map(|text| since(text, SystemTime::now())).transpose()?;
    let reader = open_store(args, flags.follow)?;
    let broken = |error: StoreError| Failure::new("cannot read the event store").caused_by(&error);

    let mut cursor = match since {
        Some(time) => reader.before(time).map_err(broken)?,
        None if flags.follow => reader.newest().map_err(broken)?,
        None => Seq(0),
    };
    let colour = term::use_colour(&io::stdout());
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut lines = Vec::new();
    loop {
        let events = reader.read_after(cursor, BATCH).map_err(broken)?;
        let Some(last) = events.last() else {
            if !flags.follow {
                return Ok(0);
            }
            std::thread::sleep(POLL);
            continue;
        };
        cursor = last.seq;
        lines.clear();
        for stored in events.iter().filter(|stored| selector.wants(&stored.event, &Routes::default())) {
            if flags.json {
                eventsub_line(&stored.event, &mut lines);
            } else {
                lines.extend_from_slice(line(stored, colour).as_bytes());
            }
        }
        match out.write_all(&lines).and_then(|()| out.flush()) {
            // The reader of the pipe has closed it, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(Failure::new("cannot write to stdout").caused_by(&error)),
            Ok(()) => {}
        }
    }
}

/// Parses a time, or a time span before now.
pub(super) fn since(text: &str, now: SystemTime) -> Result<Timestamp, Failure> {
    if let Some(time) = Timestamp::parse(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| now.checked_sub(ago));
    ago.map(Timestamp).ok_or_else(|| {
        Failure::new(format!("--since {text}: neither a time nor a duration"))
            .hint("for example 2026-11-02T08:15:00Z, or 15m for a quarter of an hour ago")
            .code(2)
    })
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    events: Option<&'a RawValue>,
}

/// Formats an event for people: time, type and the beginning of the payload.
fn line(stored: &StoredEvent, colour: bool) -> String {
    let event = &stored.event;
    let payload: Option<Payload<'_>> = serde_json::from_slice(&event.payload).ok();
    let body = payload.and_then(|p| p.event.or(p.events)).map_or("", RawValue::get);
    let (bold, off) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let (kind, body) = (masked(&event.subscription_type), one_line(body, WIDTH));
    format!("{} {} {bold}{kind}{off} {body}\n", stored.seq, stored.stored_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(since("1970-01-01T00:00:01Z", now).unwrap(), Timestamp::from_unix_millis(1_000));
        assert_eq!(since("15m", now).unwrap(), Timestamp::from_unix_millis((1_000_000 - 900) * 1_000));
        assert!(since("yesterday", now).is_err());
    }
}
