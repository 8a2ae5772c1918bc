//! Stored events on the page: the choice in its query, rows, one event whole. ◆

use serde::Serialize;

use crate::admin::filter::Wanted;
use crate::model::broadcaster::Broadcaster;
use crate::model::event::{Seq, StoredEvent};
use crate::model::json;
use crate::model::text::count;

/// Rows per page.
pub(super) const SHOWN: usize = 50;
/// Events looked through for one page.
pub(super) const SEARCHED: u64 = 20_000;
/// Characters of an event in its row.
const ABSTRACT: usize = 200;
/// Bytes of an event that can be unfolded in its row; the link to the event has all of it.
const UNFOLDED: usize = 16 << 10;

/// The part of the page's query that is about events.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) wanted: Wanted,
    /// Shows events before this one.
    pub(super) before: Option<Seq>,
    /// Shows this event whole.
    pub(super) event: Option<Seq>,
    /// A parameter that cannot be used.
    pub(super) problem: Option<String>,
}

impl Query {
    /// Parses a query; unknown parts are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "before" => query.before = value.parse().ok().map(Seq),
                "event" => query.event = value.parse().ok().map(Seq),
                name => {
                    if let Err(problem) = query.wanted.read(name, &value) {
                        query.problem = Some(problem);
                    }
                }
            }
        }
        query
    }

    fn link(&self, before: Option<Seq>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.wanted.pairs());
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        match query.finish().as_str() {
            "" => "/#events".to_owned(),
            query => format!("/?{query}#events"),
        }
    }
}

/// Events found by a search backwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) events: Vec<StoredEvent>,
    /// Events looked through.
    pub(super) searched: u64,
    /// Where an older page begins; `None` if there is none.
    pub(super) older: Option<Seq>,
    /// Newest event when the search began. Live events continue after it.
    pub(super) newest: Seq,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    seq: u64,
    stored_at: String,
    clock: String,
    kind: String,
    who: String,
    text: String,
    body: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct History {
    kind: String,
    broadcaster: String,
    sink: String,
    subscription: String,
    rows: Vec<Row>,
    summary: String,
    newest: u64,
    problem: Option<String>,
    newer: Option<String>,
    older: Option<String>,
    /// Whether the newest events are shown, so that live ones continue the list.
    is_live: bool,
    /// Link to the list without a choice, if there is one.
    all: Option<String>,
}

/// Computes the list of events.
pub(super) fn history(query: &Query, found: &Found) -> History {
    let wanted = &query.wanted;
    let rows: Vec<Row> = found.events.iter().map(row).collect();
    let searched = count(found.searched);
    let summary = match (rows.len(), found.older, wanted.is_all()) {
        (0, None, true) => "No event is stored yet.".to_owned(),
        (0, None, false) => "No stored event matches.".to_owned(),
        (0, Some(_), _) => format!("None of these {searched} events matches."),
        (rows, None, _) => format!("{} events, and no older one matches.", count(rows as u64)),
        (rows, Some(_), _) => format!("{} events.", count(rows as u64)),
    };
    History {
        kind: wanted.types.join(" "),
        broadcaster: wanted.broadcaster.clone().unwrap_or_default(),
        sink: wanted.sink.clone().unwrap_or_default(),
        subscription: wanted.subscription.clone().unwrap_or_default(),
        rows,
        summary,
        newest: found.newest.0,
        problem: query.problem.clone(),
        newer: query.before.map(|_| query.link(None)),
        older: found.older.map(|seq| query.link(Some(seq))),
        is_live: query.before.is_none() && query.problem.is_none(),
        all: (!wanted.is_all()).then(|| "/#events".to_owned()),
    }
}

fn row(stored: &StoredEvent) -> Row {
    let event = &stored.event;
    let payload = String::from_utf8_lossy(&event.payload);
    let who = Broadcaster::of(&event.payload);
    let who = if who.login.is_empty() { who.id } else { who.login };
    let mut text: String = happening(&payload).chars().take(ABSTRACT + 1).collect();
    if text.chars().count() > ABSTRACT {
        text.pop();
        text.push('…');
    }
    let stored_at = stored.stored_at.to_string();
    Row {
        seq: stored.seq.0,
        clock: stored_at.get(11..19).unwrap_or_default().to_owned(),
        stored_at,
        kind: event.subscription_type.to_string(),
        who: who.chars().take(40).collect(),
        text,
        body: if payload.len() <= UNFOLDED { json::pretty(&payload) } else { String::new() },
    }
}

/// Returns the part of a payload that says what happened.
fn happening(payload: &str) -> &str {
    #[derive(serde::Deserialize)]
    struct Payload<'a> {
        #[serde(borrow)]
        event: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        events: Option<&'a serde_json::value::RawValue>,
    }
    match serde_json::from_str::<Payload<'_>>(payload) {
        Ok(parsed) => parsed.event.or(parsed.events).map_or("", serde_json::value::RawValue::get),
        Err(_) => payload,
    }
}

/// An event with its payload.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Whole {
    seq: u64,
    /// Absent if the event is not stored.
    facts: Vec<(&'static str, String)>,
    body: String,
    /// Sinks that it can be sent to again.
    sinks: Vec<String>,
}

/// Computes the view of one event. `None` means that it is not stored any more, or not yet.
pub(super) fn whole(seq: Seq, stored: Option<&StoredEvent>, sinks: Vec<String>) -> Whole {
    let Some(stored) = stored else {
        return Whole { seq: seq.0, facts: Vec::new(), body: String::new(), sinks };
    };
    let event = &stored.event;
    Whole {
        seq: seq.0,
        facts: vec![
            ("Type", format!("{} v{}", event.subscription_type, event.subscription_version)),
            ("Stored", stored.stored_at.to_string()),
            ("Sent by Twitch", event.message_timestamp.to_string()),
            ("Message id", event.message_id.as_str().to_owned()),
            ("Subscription", event.subscription_id.to_string()),
        ],
        body: json::pretty(&String::from_utf8_lossy(&event.payload)),
        sinks,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::event::{Event, MessageId};
    use crate::model::time::Timestamp;

    fn stored(seq: u64, payload: &str) -> StoredEvent {
        StoredEvent {
            seq: Seq(seq),
            stored_at: Timestamp::from_unix_millis(1_700_000_000_000),
            event: Event {
                message_id: MessageId::new("m").unwrap(),
                message_timestamp: "2026-11-02T08:15:27.441930118Z".into(),
                subscription_type: "stream.online".into(),
                subscription_version: "1".into(),
                subscription_id: "s".into(),
                payload: payload.as_bytes().to_vec().into(),
            },
        }
    }

    #[test]
    fn a_row_shows_what_happened_and_to_whom() {
        let payload = r#"{"subscription":{"condition":{"broadcaster_user_id":"7"}},"event":{"broadcaster_user_login":"ann","title":"x"}}"#;
        let found = Found { events: vec![stored(3, payload)], searched: 1, ..Found::default() };
        let view = history(&Query::default(), &found);
        let row = &view.rows[0];
        assert_eq!((row.who.as_str(), row.clock.as_str()), ("ann", "22:13:20"));
        assert_eq!(row.text, r#"{"broadcaster_user_login":"ann","title":"x"}"#);
        assert!(view.is_live && view.older.is_none() && view.newer.is_none());
        let long = format!(r#"{{"event":{{"t":"{}"}}}}"#, "ü".repeat(500));
        assert_eq!(super::row(&stored(4, &long)).text.chars().count(), ABSTRACT + 1);
    }

    #[test]
    fn links_keep_the_choice() {
        let query = Query::parse("type=stream.*&broadcaster=Ann&sink=a%26b&before=90&q=x&event=x");
        assert_eq!((query.before, query.event), (Some(Seq(90)), None));
        let found = Found { older: Some(Seq(40)), searched: 7, ..Found::default() };
        let view = history(&query, &found);
        assert_eq!(
            view.older.as_deref(),
            Some("/?type=stream.*&broadcaster=ann&sink=a%26b&before=40#events")
        );
        assert_eq!(view.newer.as_deref(), Some("/?type=stream.*&broadcaster=ann&sink=a%26b#events"));
        assert!(!view.is_live);
        assert_eq!(view.summary, "None of these 7 events matches.");
    }

    proptest! {
        #[test]
        fn whatever_is_stored_has_a_row(text in "\\PC{0,300}") {
            row(&stored(1, &text));
        }
    }
}
