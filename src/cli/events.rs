//! `eventsubd events`: prints events from the store, whether the daemon runs or not, or from the shared log.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::{Args, EventsArgs};
use super::moment;
use super::short::Look;
use super::source::{Source, open_log};
use super::target::open_store;
use super::term::{self, Failure, masked};
use crate::delivery::format::{Broadcaster, eventsub_line};
use crate::delivery::select::Selector;
use crate::model::event::{Seq, StoredEvent};
use crate::model::json;
use crate::model::route::{Routes, SinkName, Unasked};
use crate::model::text::{lines, one_line};
use crate::model::time::Timestamp;

/// Polling interval of `--follow`.
const POLL: Duration = Duration::from_millis(200);
/// The longest line for a pipe, in characters of the event: more than Twitch sends.
const WHOLE: usize = 16 << 20;
/// Columns of an event's number.
const NUMBER: usize = 8;

pub(super) fn run(args: &Args, flags: &EventsArgs) -> Result<u8, Failure> {
    let now = Timestamp(SystemTime::now());
    let filter = Filter::new(flags)?;
    let since = flags.since.as_deref().map(|text| time("--since", text, now)).transpose()?;
    let until = flags.until.as_deref().map(|text| time("--until", text, now)).transpose()?;
    let source =
        if flags.all_hosts { open_log(args)? } else { Source::Store(open_store(args, flags.follow)?) };
    let out = Out::new(flags);
    if let Some(number) = flags.number {
        return one(&source, Seq(number), &out);
    }
    let start = match since {
        Some(time) => source.before(time)?,
        None if flags.follow && flags.last.is_none() => source.newest()?,
        None => Seq(0),
    };
    let end = until.map(|time| source.before(time)).transpose()?;
    let mut cursor = start;
    if let Some(count) = flags.last {
        let newest = source.newest()?;
        cursor = end.unwrap_or(newest).min(newest);
        let events = last(&source, &filter, count, start, cursor)?;
        if out.write(events.iter())? == Reading::Over || !flags.follow {
            return Ok(0);
        }
    }
    loop {
        let (events, read) = source.read_after(cursor)?;
        let Some(newest) = read else {
            if !flags.follow {
                return Ok(0);
            }
            std::thread::sleep(POLL);
            continue;
        };
        cursor = newest;
        let is_wanted =
            |stored: &&StoredEvent| end.is_none_or(|end| stored.seq <= end) && filter.wants(stored);
        let over = out.write(events.iter().filter(is_wanted))? == Reading::Over;
        if over || end.is_some_and(|end| cursor >= end) {
            return Ok(0);
        }
    }
}

/// The last `count` events after `start` and up to `end` that the filter wants, oldest first.
fn last(
    source: &Source,
    filter: &Filter,
    count: usize,
    start: Seq,
    end: Seq,
) -> Result<VecDeque<StoredEvent>, Failure> {
    let mut found = VecDeque::new();
    let mut before = Seq(end.0 + 1);
    while found.len() < count {
        let (events, read) = source.read_before(before)?;
        let Some(oldest) = read else { break };
        before = oldest;
        for stored in events.into_iter().filter(|stored| stored.seq > start && filter.wants(stored)) {
            found.push_front(stored);
            if found.len() == count {
                return Ok(found);
            }
        }
        if oldest <= start {
            break;
        }
    }
    Ok(found)
}

/// Shows one event whole.
fn one(source: &Source, seq: Seq, out: &Out) -> Result<u8, Failure> {
    let (found, _) = source.read_after(Seq(seq.0.saturating_sub(1)))?;
    let Some(stored) = found.into_iter().find(|stored| stored.seq == seq) else {
        let newest = source.newest()?;
        let why = if seq > newest {
            format!("there is no event {seq} yet; the newest is {newest}")
        } else {
            format!("event {seq} is not stored any more")
        };
        return Err(Failure::new(why));
    };
    if out.json {
        out.write([&stored].into_iter())?;
        return Ok(0);
    }
    let event = &stored.event;
    // A line break within a text is no JSON, and would look like a line of its own.
    let payload = String::from_utf8_lossy(&event.payload).replace(['\n', '\r'], "");
    let text = format!(
        "event         {}\nstored        {}\nmessage id    {}\nsent          {}\ntype          {} version {}\nsubscription  {}\n\n{}\n",
        stored.seq,
        moment::stamp(stored.stored_at, &out.look.zone),
        event.message_id,
        masked(&event.message_timestamp),
        masked(&event.subscription_type),
        masked(&event.subscription_version),
        masked(&event.subscription_id),
        lines(&json::pretty(&payload))
    );
    term::write(text.as_bytes())
}

/// Returns the time that a person has typed for a flag, in the time zone of this machine.
pub(super) fn time(flag: &str, text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    moment::parse(text, now, &TimeZone::system()).ok_or_else(|| {
        Failure::new(format!("{flag} {text}: neither a time nor a duration"))
            .hint(
                "for example 15m (a quarter of an hour ago), 10:00, today, yesterday, 2026-11-26, or \
                 2026-11-26T08:15:00Z",
            )
            .code(2)
    })
}

/// Which events are wanted.
struct Filter {
    types: Selector,
    /// A login or an id, in lower case.
    broadcaster: Option<String>,
    subscription: Option<String>,
}

impl Filter {
    fn new(flags: &EventsArgs) -> Result<Self, Failure> {
        let types = if flags.types.is_empty() { vec!["*".to_owned()] } else { flags.types.clone() };
        let types = Selector::new(SinkName::new("events"), &types, Unasked::All).map_err(|error| {
            Failure::new("--type is not a valid glob")
                .caused_by(&error)
                .hint("for example channel.chat.*")
                .code(2)
        })?;
        let broadcaster = flags.broadcaster.as_ref().map(|login| login.to_lowercase());
        Ok(Self { types, broadcaster, subscription: flags.sub.clone() })
    }

    fn wants(&self, stored: &StoredEvent) -> bool {
        let event = &stored.event;
        let is_of = |wanted: &String| {
            let Broadcaster { id, login } = Broadcaster::of(&event.payload);
            id == wanted.as_str() || login.to_lowercase() == *wanted
        };
        self.subscription.as_ref().is_none_or(|id| **id == *event.subscription_id)
            && self.types.wants(event, &Routes::default())
            && self.broadcaster.as_ref().is_none_or(is_of)
    }
}

/// Whether somebody still reads the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    GoesOn,
    Over,
}

/// Standard output, and how events look there.
struct Out {
    json: bool,
    is_terminal: bool,
    look: Look,
}

impl Out {
    fn new(flags: &EventsArgs) -> Self {
        let stdout = io::stdout();
        let width = term::width(&stdout).map(|width| width.saturating_sub(NUMBER + 1).max(20));
        let zone = if flags.local { TimeZone::system() } else { TimeZone::UTC };
        let look = Look { width, colour: term::use_colour(&stdout), zone };
        Self { json: flags.json, is_terminal: stdout.is_terminal(), look }
    }

    fn write<'a>(&self, events: impl Iterator<Item = &'a StoredEvent>) -> Result<Reading, Failure> {
        let mut lines = Vec::new();
        for stored in events {
            if self.json {
                eventsub_line(&stored.event, &mut lines);
            } else {
                lines.extend_from_slice(self.line(stored).as_bytes());
            }
        }
        let mut out = io::stdout().lock();
        match out.write_all(&lines).and_then(|()| out.flush()) {
            // A reader that has gone has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reading::Over),
            Err(error) => Err(Failure::new("cannot write to stdout").caused_by(&error)),
            Ok(()) => Ok(Reading::GoesOn),
        }
    }

    /// One line for people: short on a terminal, with the whole event elsewhere.
    fn line(&self, stored: &StoredEvent) -> String {
        let event = &stored.event;
        let (time, kind) =
            (moment::stamp(stored.stored_at, &self.look.zone), masked(&event.subscription_type));
        if self.is_terminal {
            return format!("{:>NUMBER$} {}", stored.seq.0, self.look.line(&time, &kind, &event.payload));
        }
        format!("{} {time} {kind} {}\n", stored.seq, one_line(body(&event.payload), WHOLE))
    }
}

/// The `event` of a payload, or the `events` of a batch, as they came.
fn body(payload: &[u8]) -> &str {
    #[derive(Deserialize)]
    struct Payload<'a> {
        #[serde(borrow, default)]
        event: Option<&'a RawValue>,
        #[serde(borrow, default)]
        events: Option<&'a RawValue>,
    }
    let payload: Option<Payload<'_>> = serde_json::from_slice(payload).ok();
    payload.and_then(|payload| payload.event.or(payload.events)).map_or("", RawValue::get)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_indented_without_a_change_of_its_tokens() {
        expect_test::expect![[r#"
            {
              "a": 1.50,
              "b": {
                "c": [
                  1,
                  "x, {\"y\": 1}"
                ],
                "d": {},
                "e": []
              }
            }"#]]
        .assert_eq(&json::pretty(r#"{"a":1.50, "b":{"c":[1,"x, {\"y\": 1}"],"d":{ },"e":[]}}"#));
    }

    #[test]
    fn a_flag_without_a_time_says_what_one_looks_like() {
        let failure = time("--until", "soon", Timestamp::from_unix_millis(0)).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.text().starts_with("--until soon") && failure.text().contains("yesterday"));
    }

    proptest! {
        #[test]
        fn any_text_can_be_indented_and_json_keeps_its_tokens(text in "\\PC{0,60}") {
            let _ = json::pretty(&text);
            let json = serde_json::json!({"a": [text, 1, {"b": null}], "c": "\\\""}).to_string();
            let again: serde_json::Value = serde_json::from_str(&json::pretty(&json)).unwrap();
            prop_assert_eq!(again.to_string(), json);
        }
    }
}
