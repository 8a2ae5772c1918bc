//! `eventsubd gaps`: when events may have been missed, as the store has it, whether the daemon runs or not.

use std::io::{self, Write};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::args::{Args, GapsArgs};
use super::events::time;
use super::target::open_store;
use super::term::{Failure, masked};
use crate::model::event::{Seq, StoredEvent};
use crate::model::status::GapReason;
use crate::model::text::{counted, duration};
use crate::model::time::Timestamp;
use crate::store::StoreError;

/// Gaps that are read at once.
const BATCH: usize = 500;

/// A gap as it was told, and as `--json` prints it. Unknown members of a newer release are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Gap {
    /// The number of its event.
    #[serde(default)]
    seq: Seq,
    from: Timestamp,
    to: Timestamp,
    /// A reason of a newer release stays as it is.
    reason: String,
    scope: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shards: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sink: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events_lost: Option<u64>,
    subscriptions_total: u64,
}

#[derive(Serialize)]
struct Document {
    gaps: Vec<Gap>,
}

#[derive(Deserialize)]
struct Payload {
    event: Gap,
}

/// `eventsubd gaps`
pub(super) fn run(args: &Args, flags: &GapsArgs) -> Result<u8, Failure> {
    let time =
        flags.since.as_deref().map(|text| time("--since", text, Timestamp(SystemTime::now()))).transpose()?;
    let reader = open_store(args, false)?;
    let broken = |error: StoreError| Failure::new("cannot read the event store").caused_by(&error);
    let mut cursor = time.map_or(Ok(Seq(0)), |time| reader.before(time)).map_err(broken)?;
    let mut gaps = Vec::new();
    loop {
        let events = reader.gaps_after(cursor, BATCH).map_err(broken)?;
        let Some(last) = events.last() else { break };
        cursor = last.seq;
        gaps.extend(events.iter().filter_map(read));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if flags.json {
        let json = serde_json::to_string_pretty(&Document { gaps });
        writeln!(out, "{}", json.map_err(|error| Failure::new("cannot print the gaps").caused_by(&error))?)
    } else {
        out.write_all(lines(&gaps).as_bytes())
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::new("cannot write to stdout").caused_by(&error));
        }
        _ => {}
    }
    if !flags.json && cursor == Seq(0) {
        args.say("no gap is stored");
    }
    Ok(0)
}

fn read(stored: &StoredEvent) -> Option<Gap> {
    let payload: Payload = serde_json::from_slice(&stored.event.payload).ok()?;
    Some(Gap { seq: stored.seq, ..payload.event })
}

/// A gap a line: from, to, how long, why, and what is concerned.
fn lines(gaps: &[Gap]) -> String {
    gaps.iter().map(line).collect()
}

fn line(gap: &Gap) -> String {
    let reason = GapReason::ALL.iter().find(|reason| reason.name() == gap.reason);
    let reason = reason.map_or(gap.reason.as_str(), |reason| reason.sentence());
    let concerned = match (&gap.sink, gap.events_lost) {
        (Some(sink), Some(events)) => format!("{} lost to sink {sink}", counted(events, "event")),
        _ => counted(gap.subscriptions_total, "subscription"),
    };
    let shards: Vec<String> = gap.shards.iter().take(10).map(ToString::to_string).collect();
    let shards = match (&shards[..], gap.shards.len()) {
        ([], _) => String::new(),
        ([one], _) => format!(" (shard {one})"),
        (some, all) if all > some.len() => format!(" (shards {}, … {all} in all)", some.join(", ")),
        (some, _) => format!(" (shards {})", some.join(", ")),
    };
    let long = duration(gap.to.since(gap.from));
    format!("{}  {}  {long:>12}  {}\n", gap.from, gap.to, masked(&format!("{reason}{shards}: {concerned}")))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn each_gap_is_a_line_that_says_why() {
        let gap = |reason: &str| Gap {
            seq: Seq(7),
            from: Timestamp::from_unix_millis(1_000),
            to: Timestamp::from_unix_millis(76_500),
            reason: reason.to_owned(),
            scope: "conduit".to_owned(),
            shards: vec![1],
            sink: None,
            events_lost: None,
            subscriptions_total: 2,
        };
        let lost = Gap {
            shards: Vec::new(),
            sink: Some("log".to_owned()),
            events_lost: Some(3),
            scope: "sink".to_owned(),
            ..gap("retention")
        };
        let many = Gap { shards: (0..40).collect(), ..gap("connection_lost") };
        expect![[r#"
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  a shard was bound to another session (shard 1): 2 subscriptions
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  the connection to Twitch was lost (shards 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 40 in all): 2 subscriptions
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  the store removed events before a sink had them: 3 events lost to sink log
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  a_reason_of_tomorrow (shard 1): 2 subscriptions
        "#]]
        .assert_eq(&lines(&[gap("shard_taken"), many, lost, gap("a_reason_of_tomorrow")]));
    }
}
