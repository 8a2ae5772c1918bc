//! `eventsubd gaps`: when events may have been missed, and what was mended, as the store has it, whether the daemon runs or
//! not.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::args::{Args, GapsArgs};
use super::events::time;
use super::target::open_store;
use super::term::{Failure, masked};
use crate::model::event::{CAUGHT_UP, OWN_TYPES, Seq, StoredEvent};
use crate::model::status::{GapReason, mended};
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mended: Option<Mended>,
}

/// A catch-up that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mended {
    /// End of the catch-up.
    #[serde(rename(deserialize = "to"))]
    at: Timestamp,
    /// Events that were stored for this gap and those that were mended with it.
    events: u64,
    /// The same by type.
    #[serde(default)]
    found: BTreeMap<String, u64>,
    /// The message ids of the gaps.
    #[serde(skip_serializing, default)]
    gaps: Vec<String>,
}

#[derive(Serialize)]
struct Document {
    gaps: Vec<Gap>,
}

#[derive(Deserialize)]
struct Payload<T> {
    event: T,
}

/// The gaps of the store, with the message ids of their events.
#[derive(Debug, Default)]
struct Found {
    gaps: Vec<Gap>,
    places: HashMap<String, usize>,
}

impl Found {
    fn add(&mut self, stored: &StoredEvent) {
        if &*stored.event.subscription_type == CAUGHT_UP {
            let Some(mended) = read::<Mended>(stored) else { return };
            let places: Vec<usize> =
                mended.gaps.iter().filter_map(|gap| self.places.get(gap).copied()).collect();
            for place in places {
                self.gaps[place].mended = Some(mended.clone());
            }
        } else if let Some(gap) = read::<Gap>(stored) {
            self.places.insert(stored.event.message_id.to_string(), self.gaps.len());
            self.gaps.push(Gap { seq: stored.seq, ..gap });
        }
    }
}

pub(super) fn run(args: &Args, flags: &GapsArgs) -> Result<u8, Failure> {
    let time =
        flags.since.as_deref().map(|text| time("--since", text, Timestamp(SystemTime::now()))).transpose()?;
    let reader = open_store(args, false)?;
    let broken = |error: StoreError| Failure::new("cannot read the event store").caused_by(&error);
    let mut cursor = time.map_or(Ok(Seq(0)), |time| reader.before(time)).map_err(broken)?;
    let mut found = Found::default();
    loop {
        let events = reader.of_types_after(OWN_TYPES, cursor, BATCH).map_err(broken)?;
        let Some(last) = events.last() else { break };
        cursor = last.seq;
        events.iter().for_each(|event| found.add(event));
    }
    let gaps = found.gaps;
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

fn read<T: DeserializeOwned>(stored: &StoredEvent) -> Option<T> {
    let payload: Payload<T> = serde_json::from_slice(&stored.event.payload).ok()?;
    Some(payload.event)
}

/// A gap a line: from, to, how long, why, what is concerned, and what was mended.
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
    let end = gap.mended.as_ref().map_or_else(String::new, |made| format!("; {}", mended(made.events)));
    let text = masked(&format!("{reason}{shards}: {concerned}{end}"));
    format!("{}  {}  {long:>12}  {text}\n", gap.from, gap.to)
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
            mended: None,
        };
        let lost = Gap {
            shards: Vec::new(),
            sink: Some("log".to_owned()),
            events_lost: Some(3),
            scope: "sink".to_owned(),
            ..gap("retention")
        };
        let made = |events| {
            let at = Timestamp::from_unix_millis(80_000);
            Some(Mended { at, events, found: BTreeMap::new(), gaps: Vec::new() })
        };
        let many = Gap { shards: (0..40).collect(), mended: made(0), ..gap("connection_lost") };
        let taken = Gap { mended: made(3), ..gap("shard_taken") };
        expect![[r#"
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  a shard was bound to another session (shard 1): 2 subscriptions; caught up with 3 events
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  the connection to Twitch was lost (shards 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 40 in all): 2 subscriptions; caught up: nothing had changed
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  the store removed events before a sink had them: 3 events lost to sink log
            1970-01-01T00:00:01.000Z  1970-01-01T00:01:16.500Z    1 min 15 s  a_reason_of_tomorrow (shard 1): 2 subscriptions
        "#]]
        .assert_eq(&lines(&[taken, many, lost, gap("a_reason_of_tomorrow")]));
    }
}
