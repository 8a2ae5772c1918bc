//! `eventsubd dead-letters` and `eventsubd replay`: undelivered events, and sending events again.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{Args, LettersArgs, LettersCommand, LettersListArgs, ReplayArgs};
use super::control::{Connection, block_on, parse};
use super::events::since;
use super::target::open_store;
use super::term::{Failure, masked};
use crate::admin::{Count, Refused};
use crate::delivery::format::eventsub_line;
use crate::model::event::Seq;
use crate::model::readable::readable;
use crate::model::route::SinkName;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, FailureRecord, StoreError};

/// Number of dead letters read at once.
const BATCH: usize = 200;

/// `eventsubd dead-letters`
pub(super) fn run(args: &Args, command: &LettersCommand) -> Result<u8, Failure> {
    match command {
        LettersCommand::List(flags) => list(args, flags),
        LettersCommand::Replay(flags) => {
            let count = ask(args, &format!("/dead-letters/replay?{}", query(flags)))?;
            let done = format!("{}; `eventsubd status` shows how it goes", sentence(count, "sent again"));
            args.say(&done);
            Ok(0)
        }
        LettersCommand::Drop(flags) => {
            let count = ask(args, &format!("/dead-letters/drop?{}", query(flags)))?;
            args.say(&sentence(count, "dropped"));
            Ok(0)
        }
    }
}

/// `eventsubd replay`
pub(super) fn replay(args: &Args, flags: &ReplayArgs) -> Result<u8, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("sink", &flags.sink);
    match flags.since.parse::<u64>() {
        Ok(seq) => query.append_pair("seq", &seq.to_string()),
        Err(_) => query.append_pair("time", &since(&flags.since, SystemTime::now())?.to_string()),
    };
    let count = ask(args, &format!("/replay?{}", query.finish()))?;
    let events = if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
    let done = format!(
        "{events} stored since then: sink {} gets those of its types again; `eventsubd status` shows how it goes",
        flags.sink
    );
    args.say(&done);
    Ok(0)
}

fn sentence(count: u64, what: &str) -> String {
    match count {
        0 => "there are no such dead letters".to_owned(),
        1 => format!("1 dead letter is {what}"),
        _ => format!("{count} dead letters are {what}"),
    }
}

fn query(flags: &LettersArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(sink) = &flags.sink {
        query.append_pair("sink", sink);
    }
    if let Some(id) = flags.id {
        query.append_pair("id", &id.to_string());
    }
    query.finish()
}

fn ask(args: &Args, path: &str) -> Result<u64, Failure> {
    let (status, body) = block_on(async { Connection::open(args).await?.post(path).await })?;
    if status.is_success() {
        return Ok(parse::<Count>(&body)?.count);
    }
    let refused: Refused = parse(&body)?;
    Err(Failure::new(refused.error).hint("`eventsubd status` lists the sinks"))
}

/// One dead letter in the output of `--json`.
#[derive(Serialize)]
struct LetterJson<'a> {
    id: i64,
    sink: &'a SinkName,
    seq: Seq,
    stored_at: Timestamp,
    failed_at: Timestamp,
    error: &'a str,
    /// The receiver's own words; printed only with `--verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<&'a str>,
    /// Time of the first failure, if there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_said: Option<&'a str>,
    /// Whether it is about to be sent again.
    replay: bool,
    message: Box<RawValue>,
}

fn list(args: &Args, flags: &LettersListArgs) -> Result<u8, Failure> {
    let LettersListArgs { json, verbose, .. } = *flags;
    let reader = open_store(args, false)?;
    let sink = flags.sink.as_deref().map(SinkName::new);
    let broken = |error: StoreError| Failure::new("cannot read the dead letters").caused_by(&error);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let invocation = args.invocation();
    let (mut after, mut count, mut has_words) = (0, 0_u64, false);
    loop {
        let letters = reader.dead_letters(sink.as_ref(), after, BATCH).map_err(broken)?;
        let mut text = String::new();
        for letter in &letters {
            after = letter.id;
            has_words |= letter.last.said.is_some();
            if json {
                text.push_str(if count == 0 { "[\n" } else { ",\n" });
                text.push_str(&shown(letter, verbose)?);
            } else {
                text.push_str(&invocation.complete(&lines(letter, verbose)));
            }
            count += 1;
        }
        let last = letters.len() < BATCH;
        if last && json {
            text.push_str(if count == 0 { "[]\n" } else { "\n]\n" });
        }
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // The reader of the pipe has closed it, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(Failure::new("cannot write to stdout").caused_by(&error)),
            Ok(()) => {}
        }
        if last {
            break;
        }
    }
    if count == 0 && !json {
        args.say("there are no dead letters");
    }
    if has_words && !json && !verbose {
        args.say("`--verbose` shows what the receivers answered");
    }
    Ok(0)
}

fn shown(letter: &DeadLetter, verbose: bool) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::new("a dead letter cannot be shown").caused_by(&error);
    let mut message = Vec::new();
    eventsub_line(&letter.event.event, &mut message);
    let shown = LetterJson {
        id: letter.id,
        sink: &letter.sink,
        seq: letter.event.seq,
        stored_at: letter.event.stored_at,
        failed_at: letter.last.at,
        error: &letter.last.error,
        said: letter.last.said.as_deref().filter(|_| verbose),
        first_failed_at: letter.first.as_ref().map(|first| first.at),
        first_error: letter.first.as_ref().map(|first| first.error.as_str()),
        first_said: letter.first.as_ref().and_then(|first| first.said.as_deref()).filter(|_| verbose),
        replay: letter.replay,
        message: serde_json::from_slice(&readable(&message)).map_err(failed)?,
    };
    serde_json::to_string(&shown).map_err(failed)
}

/// Formats a dead letter for people: a line, then the first failure and the receiver's words.
fn lines(letter: &DeadLetter, verbose: bool) -> String {
    let mut text = String::new();
    let again = if letter.replay { ", about to be sent again" } else { "" };
    let FailureRecord { at, error, .. } = &letter.last;
    let _ = writeln!(
        text,
        "{} {at} {} {} (event {}{again}): {}",
        letter.id,
        letter.sink,
        masked(&letter.event.event.subscription_type),
        letter.event.seq,
        masked(error)
    );
    let said = |said: &Option<String>| {
        said.as_ref()
            .filter(|_| verbose)
            .map(|words| format!("    it answered: {}\n", masked(words)))
            .unwrap_or_default()
    };
    text.push_str(&said(&letter.last.said));
    if let Some(first) = &letter.first {
        let _ = writeln!(text, "    first failure {}: {}", first.at, masked(&first.error));
        text.push_str(&said(&first.said));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Event, MessageId, StoredEvent};

    fn letter() -> DeadLetter {
        let record = |millis, error: &str, said: Option<&str>| FailureRecord {
            at: Timestamp::from_unix_millis(millis),
            error: error.to_owned(),
            said: said.map(str::to_owned),
        };
        DeadLetter {
            id: 7,
            sink: SinkName::new("web"),
            event: StoredEvent {
                seq: Seq(12),
                stored_at: Timestamp::from_unix_millis(0),
                event: Event {
                    message_id: MessageId::new("m1").unwrap(),
                    message_timestamp: "2026-11-02T09:00:01Z".into(),
                    subscription_type: "stream.online".into(),
                    subscription_version: "1".into(),
                    subscription_id: "s".into(),
                    payload: b"{}".as_slice().into(),
                },
            },
            first: Some(record(1_000, "host answered 500 Internal Server Error", Some("oops"))),
            last: record(2_000, "host answered 400 Bad Request", Some("no such field")),
            replay: false,
            replays: 0,
        }
    }

    #[test]
    fn first_and_last_failure_are_shown() {
        expect_test::expect![[r#"
            7 1970-01-01T00:00:02.000Z web stream.online (event 12): host answered 400 Bad Request
                first failure 1970-01-01T00:00:01.000Z: host answered 500 Internal Server Error
        "#]]
        .assert_eq(&lines(&letter(), false));
        let once = DeadLetter { first: None, ..letter() };
        assert_eq!(lines(&once, false).lines().count(), 1);
    }

    #[test]
    fn the_words_of_the_receiver_are_shown_only_with_verbose() {
        let (quiet, verbose) = (shown(&letter(), false).unwrap(), shown(&letter(), true).unwrap());
        assert!(!quiet.contains("oops") && !quiet.contains("no such field"), "{quiet}");
        let json: serde_json::Value = serde_json::from_str(&verbose).unwrap();
        assert_eq!((&json["said"], &json["first_said"]), (&"no such field".into(), &"oops".into()));
        assert_eq!(json["first_error"], "host answered 500 Internal Server Error");
        let text = lines(&letter(), true);
        assert!(text.contains("it answered: no such field") && text.contains("it answered: oops"), "{text}");
    }
}
