//! `eventsubd dead-letters` and `eventsubd replay`: undelivered events, and sending events again.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use globset::Glob;
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{Args, Consent, LettersArgs, LettersCommand, LettersFilter, LettersListArgs, ReplayArgs};
use super::control::{Connection, block_on, parse};
use super::events::time;
use super::shared_letters::{Place, Wish, query, visit};
use super::source::{Source, is_in_cluster, open_log};
use super::target::open_store;
use super::term::{self, Failure, masked};
use crate::admin::{Count, Refused};
use crate::delivery::format::eventsub_line;
use crate::model::event::{Seq, Since, StoredEvent};
use crate::model::readable::readable;
use crate::model::route::SinkName;
use crate::model::text::counted;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, DeadLetterFilter, FailureRecord};

pub(super) fn run(args: &Args, command: &LettersCommand) -> Result<u8, Failure> {
    let now = Timestamp(SystemTime::now());
    match command {
        LettersCommand::List(flags) => list(args, flags, &filter(&flags.which, now)?),
        LettersCommand::Replay(flags) => {
            let filter = filter(&flags.which, now)?;
            if !is_agreed(args, flags, &filter, "send again")? {
                return Ok(0);
            }
            let count = ask(args, &format!("/dead-letters/replay?{}", query(&filter)))?;
            let done = format!("{}; `eventsubd status` shows how it goes", sentence(count, "sent again"));
            args.say(&done);
            Ok(0)
        }
        LettersCommand::Drop(flags) => {
            let filter = filter(&flags.which, now)?;
            if !is_agreed(args, flags, &filter, "remove for good")? {
                return Ok(0);
            }
            let count = ask(args, &format!("/dead-letters/drop?{}", query(&filter)))?;
            args.say(&sentence(count, "dropped"));
            Ok(0)
        }
    }
}

/// The dead letters that are meant.
fn filter(flags: &LettersFilter, now: Timestamp) -> Result<DeadLetterFilter, Failure> {
    Ok(DeadLetterFilter {
        sink: flags.sink.as_deref().map(SinkName::new),
        id: flags.id,
        types: flags.types.clone(),
        until: flags.until.as_deref().map(|text| time("--until", text, now)).transpose()?,
    })
}

/// Whether to go on: shows what is meant to whoever wants to see it first, and asks on a terminal.
fn is_agreed(
    args: &Args,
    flags: &LettersArgs,
    filter: &DeadLetterFilter,
    what: &str,
) -> Result<bool, Failure> {
    let Consent { yes, dry_run } = flags.consent;
    if yes || !(dry_run || io::stdin().is_terminal()) {
        return Ok(true);
    }
    let mut count = 0_u64;
    visit(args, filter, false, |letters, place| {
        count += letters.len() as u64;
        for letter in letters.iter().filter(|_| dry_run) {
            args.print(&lines(letter, place, false))?;
        }
        Ok(Wish::More)
    })?;
    let these = counted(count, "dead letter");
    if dry_run {
        args.say(&format!("dry run: would {what} {these}"));
        return Ok(false);
    }
    Ok(is_confirmed(args, &format!("{what} {these}?")))
}

fn is_confirmed(args: &Args, question: &str) -> bool {
    let agrees = term::agrees(question);
    if !agrees {
        args.say("nothing was done");
    }
    agrees
}

pub(super) fn replay(args: &Args, flags: &ReplayArgs) -> Result<u8, Failure> {
    let now = Timestamp(SystemTime::now());
    let since = match flags.since.parse::<u64>() {
        Ok(seq) => Since::Seq(Seq(seq)),
        Err(_) => Since::Time(time("--since", &flags.since, now)?),
    };
    let until = flags.until.as_deref().map(|text| time("--until", text, now)).transpose()?;
    let Consent { yes, dry_run } = flags.consent;
    if dry_run || (!yes && io::stdin().is_terminal()) {
        check_sink(args, &flags.sink)?;
        let events = meant(args, since, until, flags.types.as_deref())?;
        if dry_run {
            args.say(&format!("dry run: {events}; sink {} would get those of its types again", flags.sink));
            return Ok(0);
        }
        if !is_confirmed(args, &format!("{events}: send those of its types to sink {} again?", flags.sink)) {
            return Ok(0);
        }
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("sink", &flags.sink);
    match since {
        Since::Seq(seq) => query.append_pair("seq", &seq.to_string()),
        Since::Time(time) => query.append_pair("time", &time.to_string()),
    };
    if let Some(until) = until {
        query.append_pair("until", &until.to_string());
    }
    if let Some(types) = &flags.types {
        query.append_pair("type", types);
    }
    let count = ask(args, &format!("/replay?{}", query.finish()))?;
    let done = if until.is_some() || flags.types.is_some() {
        format!("sink {} gets {} again", flags.sink, counted(count, "event"))
    } else {
        let events = counted(count, "event");
        format!("{events} stored since then: sink {} gets those of its types again", flags.sink)
    };
    args.say(&format!("{done}; `eventsubd status` shows how it goes"));
    Ok(0)
}

/// Refuses a sink that the running daemon does not have. Without a daemon any name is accepted.
fn check_sink(args: &Args, name: &str) -> Result<(), Failure> {
    let status = block_on(async { Connection::reopen(args).await?.status().await });
    match status {
        // A host of a cluster shows the sinks that it works.
        Ok(status)
            if status.cluster.is_none() && status.sinks.iter().all(|sink| sink.name.as_str() != name) =>
        {
            Err(no_such_sink(format!("there is no sink {name} in the configuration")))
        }
        _ => Ok(()),
    }
}

fn no_such_sink(message: String) -> Failure {
    Failure::new(message).hint("`eventsubd sink list` lists the sinks")
}

/// The stored events that a replay means, counted, with the time of the first and the last.
fn meant(
    args: &Args,
    since: Since,
    until: Option<Timestamp>,
    types: Option<&str>,
) -> Result<String, Failure> {
    let source = if is_in_cluster(args) { open_log(args)? } else { Source::Store(open_store(args, false)?) };
    let glob = types.unwrap_or("*");
    let glob = Glob::new(glob)
        .map_err(|error| Failure::new("--type is not a valid glob").caused_by(&error).code(2))?
        .compile_matcher();
    let mut cursor = match since {
        Since::Seq(seq) => Seq(seq.0.saturating_sub(1)),
        Since::Time(time) => source.before(time)?,
    };
    let end = until.map_or_else(|| source.newest(), |time| source.before(time))?;
    let (mut count, mut first, mut last) = (0_u64, None, None);
    while cursor < end {
        let (events, read) = source.read_after(cursor)?;
        let Some(newest) = read else { break };
        cursor = newest;
        let is_meant =
            |stored: &&StoredEvent| stored.seq <= end && glob.is_match(&*stored.event.subscription_type);
        for stored in events.iter().filter(is_meant) {
            count += 1;
            first.get_or_insert(stored.stored_at);
            last = Some(stored.stored_at);
        }
    }
    Ok(match (first, last) {
        (Some(first), Some(last)) => format!("{}, stored from {first} to {last}", counted(count, "event")),
        _ => "no stored events".to_owned(),
    })
}

fn sentence(count: u64, what: &str) -> String {
    match count {
        0 => "there are no such dead letters".to_owned(),
        1 => format!("1 dead letter is {what}"),
        _ => format!("{count} dead letters are {what}"),
    }
}

fn ask(args: &Args, path: &str) -> Result<u64, Failure> {
    let (status, body) = block_on(async { Connection::open(args).await?.post(path).await })?;
    if status.is_success() {
        let Count { count, note } = parse(&body)?;
        if let Some(note) = note {
            args.say(&format!("warning: {note}"));
        }
        return Ok(count);
    }
    let refused: Refused = parse(&body)?;
    Err(no_such_sink(refused.error))
}

/// One dead letter in the output of `--json`.
#[derive(Serialize)]
struct LetterJson<'a> {
    id: i64,
    sink: &'a SinkName,
    /// The host of a cluster whose store has it; absent for one that all hosts share.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
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

fn list(args: &Args, flags: &LettersListArgs, filter: &DeadLetterFilter) -> Result<u8, Failure> {
    let LettersListArgs { json, verbose, .. } = *flags;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let invocation = args.invocation();
    let (mut count, mut has_words, mut is_open) = (0_u64, false, true);
    let mut write =
        |text: &str, is_open: &mut bool| match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // The reader of the pipe has closed it, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                *is_open = false;
                Ok(Wish::Enough)
            }
            Err(error) => Err(Failure::new("cannot write to stdout").caused_by(&error)),
            Ok(()) => Ok(Wish::More),
        };
    let visited = visit(args, filter, json, |letters, place| {
        let mut text = String::new();
        for letter in letters {
            has_words |= letter.last.said.is_some();
            if json {
                text.push_str(if count == 0 { "[\n" } else { ",\n" });
                text.push_str(&shown(letter, place, verbose)?);
            } else {
                text.push_str(&invocation.complete(&lines(letter, place, verbose)));
            }
            count += 1;
        }
        write(&text, &mut is_open)
    });
    if json && is_open {
        write(if count == 0 { "[]\n" } else { "\n]\n" }, &mut is_open)?;
    }
    visited?;
    if count == 0 && !json {
        args.say("there are no dead letters");
    }
    if has_words && !json && !verbose {
        args.say("`--verbose` shows what the receivers answered");
    }
    Ok(0)
}

fn shown(letter: &DeadLetter, place: Place<'_>, verbose: bool) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::new("a dead letter cannot be shown").caused_by(&error);
    let mut message = Vec::new();
    eventsub_line(&letter.event.event, &mut message);
    let shown = LetterJson {
        id: letter.id,
        sink: &letter.sink,
        host: place.host(),
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
fn lines(letter: &DeadLetter, place: Place<'_>, verbose: bool) -> String {
    let mut text = String::new();
    let again = if letter.replay { ", about to be sent again" } else { "" };
    let of = place.host().map(|host| format!(" in the store of {host}")).unwrap_or_default();
    let FailureRecord { at, error, .. } = &letter.last;
    let _ = writeln!(
        text,
        "{} {at} {} {} (event {}{of}{again}): {}",
        letter.id,
        letter.sink,
        masked(&letter.event.event.subscription_type),
        letter.event.seq,
        masked(error)
    );
    let said = |said: &Option<String>| {
        said.as_ref()
            .filter(|_| verbose)
            .map(|words| format!("    answer: {}\n", masked(words)))
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
        .assert_eq(&lines(&letter(), Place::Store, false));
        let once = DeadLetter { first: None, ..letter() };
        assert_eq!(lines(&once, Place::Shared, false).lines().count(), 1);
    }

    #[test]
    fn the_words_of_the_receiver_are_shown_only_with_verbose() {
        let (quiet, verbose) =
            (shown(&letter(), Place::Store, false).unwrap(), shown(&letter(), Place::Store, true).unwrap());
        assert!(!quiet.contains("oops") && !quiet.contains("no such field"), "{quiet}");
        let json: serde_json::Value = serde_json::from_str(&verbose).unwrap();
        assert_eq!((&json["said"], &json["first_said"]), (&"no such field".into(), &"oops".into()));
        assert_eq!(json["first_error"], "host answered 500 Internal Server Error");
        let text = lines(&letter(), Place::Store, true);
        assert!(text.contains("answer: no such field") && text.contains("answer: oops"), "{text}");
    }
}
