//! `eventsubd dead-letters` and `eventsubd replay`: what sinks gave up on, and sending again.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{Args, LettersArgs, LettersCommand, ReplayArgs};
use super::control::{Connection, block_on, parse};
use super::events::{open, since};
use super::term::{self, Failure};
use crate::admin::{Count, Refused};
use crate::delivery::format::eventsub_line;
use crate::model::event::Seq;
use crate::model::route::SinkName;
use crate::model::time::Timestamp;
use crate::store::{DeadLetter, StoreError};

/// Dead letters that are read at once.
const BATCH: usize = 200;

/// `eventsubd dead-letters`
pub(super) fn run(args: &Args, command: &LettersCommand) -> Result<u8, Failure> {
    match command {
        LettersCommand::List(flags) => list(args, flags.sink.as_deref(), flags.json),
        LettersCommand::Replay(flags) => {
            let count = ask(args, &format!("/dead-letters/replay?{}", query(flags)))?;
            term::say(&format!("{}; `eventsubd status` shows how it goes", sentence(count, "sent again")));
            Ok(0)
        }
        LettersCommand::Drop(flags) => {
            let count = ask(args, &format!("/dead-letters/drop?{}", query(flags)))?;
            term::say(&sentence(count, "dropped"));
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
    term::say(&format!(
        "{events} stored since then: sink {} gets those of its types again; `eventsubd status` shows how it goes",
        flags.sink
    ));
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

/// One dead letter as `--json` prints it.
#[derive(Serialize)]
struct Shown<'a> {
    id: i64,
    sink: &'a SinkName,
    seq: Seq,
    stored_at: Timestamp,
    failed_at: Timestamp,
    error: &'a str,
    /// About to be sent again.
    replay: bool,
    message: Box<RawValue>,
}

fn list(args: &Args, sink: Option<&str>, json: bool) -> Result<u8, Failure> {
    let reader = open(args, false)?;
    let sink = sink.map(SinkName::new);
    let broken = |error: StoreError| Failure::new("cannot read the dead letters").because(&error);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut after, mut count) = (0, 0_u64);
    loop {
        let letters = reader.dead_letters(sink.as_ref(), after, BATCH).map_err(broken)?;
        let mut text = String::new();
        for letter in &letters {
            after = letter.id;
            if json {
                text.push_str(if count == 0 { "[\n" } else { ",\n" });
                text.push_str(&shown(letter)?);
            } else {
                text.push_str(&line(letter));
            }
            count += 1;
        }
        let last = letters.len() < BATCH;
        if last && json {
            text.push_str(if count == 0 { "[]\n" } else { "\n]\n" });
        }
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // A reader that has gone has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(Failure::new("cannot write to stdout").because(&error)),
            Ok(()) => {}
        }
        if last {
            break;
        }
    }
    if count == 0 && !json {
        term::say("there are no dead letters");
    }
    Ok(0)
}

fn shown(letter: &DeadLetter) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::new("a dead letter cannot be shown").because(&error);
    let mut message = Vec::new();
    eventsub_line(&letter.event.event, &mut message);
    let shown = Shown {
        id: letter.id,
        sink: &letter.sink,
        seq: letter.event.seq,
        stored_at: letter.event.stored_at,
        failed_at: letter.failed_at,
        error: &letter.error,
        replay: letter.replay,
        message: serde_json::from_slice(&message).map_err(failed)?,
    };
    serde_json::to_string(&shown).map_err(failed)
}

/// A line for people.
fn line(letter: &DeadLetter) -> String {
    let mut text = String::new();
    let again = if letter.replay { ", about to be sent again" } else { "" };
    let _ = writeln!(
        text,
        "{} {} {} {} (event {}{again}): {}",
        letter.id,
        letter.failed_at,
        letter.sink,
        letter.event.event.subscription_type,
        letter.event.seq,
        letter.error
    );
    text
}
