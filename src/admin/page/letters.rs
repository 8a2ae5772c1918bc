//! The dead letters of one sink on the page.

use serde::Serialize;

use crate::model::text::{ago, count};
use crate::model::time::Timestamp;
use crate::store::DeadLetter;

/// Rows per page.
pub(super) const SHOWN: usize = 50;

#[derive(Clone, Debug, Serialize)]
struct Row {
    id: i64,
    seq: u64,
    kind: String,
    failed: String,
    error: String,
    said: Option<String>,
    /// The first failure, if it was another one.
    first: Option<String>,
    /// Whether it is about to be sent again.
    replay: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Letters {
    sink: String,
    rows: Vec<Row>,
    summary: String,
    older: Option<String>,
}

/// Computes the list. `all` is the number of dead letters of the sink; `letters` may have one more than [`SHOWN`].
pub(super) fn letters(sink: &str, all: u64, letters: &[DeadLetter], now: Timestamp) -> Letters {
    let shown = &letters[..letters.len().min(SHOWN)];
    let older = (letters.len() > SHOWN).then(|| shown.last().map(|letter| letter.id)).flatten();
    let older = older.map(|id| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("letters", sink).append_pair("letters_before", &id.to_string());
        format!("/?{}#letters", query.finish())
    });
    Letters {
        sink: sink.to_owned(),
        rows: shown.iter().map(|letter| row(letter, now)).collect(),
        summary: match all {
            0 => "No dead letter.".to_owned(),
            1 => "1 dead letter.".to_owned(),
            all => format!("{} dead letters, the newest first.", count(all)),
        },
        older,
    }
}

fn row(letter: &DeadLetter, now: Timestamp) -> Row {
    let first = letter.first.as_ref().filter(|first| first.error != letter.last.error);
    Row {
        id: letter.id,
        seq: letter.event.seq.0,
        kind: letter.event.event.subscription_type.to_string(),
        failed: ago(now, letter.last.at),
        error: letter.last.error.clone(),
        said: letter.last.said.clone(),
        first: first.map(|first| format!("{}, {}", first.error, ago(now, first.at))),
        replay: letter.replay,
    }
}
