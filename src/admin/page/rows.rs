//! The table of subscriptions: search, filter by state, pages. ◆
//!
//! A page has at most [`ROWS`] rows for any number of subscriptions.

use std::fmt::Write as _;

use serde::Serialize;

use crate::model::status::{Status, SubscriptionEntry, SubscriptionState};
use crate::model::text::{count, duration};

/// Rows per page.
pub(super) const ROWS: usize = 100;
/// The longest search, in characters.
const MAX_SEARCH: usize = 200;

/// The view that the page's query asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Words that all have to match.
    pub(super) search: String,
    pub(super) filter: Filter,
    /// Pages before the one that is shown.
    pub(super) before: usize,
}

/// Choice of subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Filter {
    /// Those of the file.
    #[default]
    All,
    /// Those of the file in this state.
    State(SubscriptionState),
    /// The daemon's own.
    Own,
}

impl Filter {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::All, "", "All"),
        (Self::State(SubscriptionState::Parked), "parked", "Parked"),
        (Self::State(SubscriptionState::Pending), "pending", "Pending"),
        (Self::State(SubscriptionState::Enabled), "enabled", "Enabled"),
        (Self::Own, "own", "The daemon’s own"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(filter, ..)| *filter == self).map_or("", |(_, name, _)| name)
    }

    fn takes(self, entry: &SubscriptionEntry) -> bool {
        match self {
            Self::All => !entry.own,
            Self::State(state) => !entry.own && entry.state == state,
            Self::Own => entry.own,
        }
    }
}

impl Query {
    /// Parses a query; unknown parts are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "q" => {
                    let text: String = value.chars().take(MAX_SEARCH).collect();
                    text.trim().clone_into(&mut query.search);
                }
                "state" => {
                    let known = Filter::ALL.iter().find(|(_, name, _)| *name == value);
                    query.filter = known.map_or(Filter::All, |(filter, ..)| *filter);
                }
                "page" => query.before = value.parse::<usize>().map_or(0, |page| page.saturating_sub(1)),
                _ => {}
            }
        }
        query
    }

    /// Returns the link to another view of the table.
    fn link(&self, filter: Filter, before: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.search.is_empty() {
            query.append_pair("q", &self.search);
        }
        if filter != Filter::All {
            query.append_pair("state", filter.name());
        }
        if before > 0 {
            query.append_pair("page", &(before + 1).to_string());
        }
        match query.finish().as_str() {
            "" => "/#subscriptions".to_owned(),
            query => format!("/?{query}#subscriptions"),
        }
    }
}

/// Link to a filter.
#[derive(Clone, Debug, Serialize)]
struct Choice {
    label: &'static str,
    count: String,
    link: String,
    chosen: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Row<'a> {
    state: &'static str,
    kind: &'a str,
    version: &'a str,
    logins: String,
    /// One text per field.
    condition: Vec<String>,
    reason: Option<&'a str>,
    retry: Option<String>,
    id: Option<&'a str>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Table<'a> {
    search: String,
    /// Name of the filter.
    filter: &'static str,
    choices: Vec<Choice>,
    rows: Vec<Row<'a>>,
    /// Number of matches, and the range that is shown.
    found: String,
    previous: Option<String>,
    next: Option<String>,
    /// Whether the configuration lists nothing.
    is_empty: bool,
}

/// Returns whether all words occur in an entry. `text` is a reused buffer.
fn matches(entry: &SubscriptionEntry, words: &[String], text: &mut String) -> bool {
    if words.is_empty() {
        return true;
    }
    text.clear();
    let _ = write!(text, "{}", entry.key);
    let parts = entry.logins.iter().map(|login| &**login);
    for part in parts.chain(entry.id.as_deref()).chain(entry.reason.as_deref()) {
        text.push(' ');
        text.push_str(part);
    }
    text.make_ascii_lowercase();
    words.iter().all(|word| text.contains(word.as_str()))
}

/// Returns the requested part of the table; subscriptions with a problem come first.
pub(super) fn table<'a>(status: &'a Status, query: &Query) -> Table<'a> {
    let search = query.search.to_ascii_lowercase();
    let words: Vec<String> = search.split_whitespace().map(str::to_owned).collect();
    let mut text = String::new();
    let found: Vec<&SubscriptionEntry> =
        status.subscriptions.iter().filter(|entry| matches(entry, &words, &mut text)).collect();
    let of = |filter: Filter| found.iter().filter(move |entry| filter.takes(entry));

    let choices = Filter::ALL
        .into_iter()
        .map(|(filter, _, label)| {
            let link = query.link(filter, 0);
            (
                filter,
                Choice {
                    label,
                    count: count(of(filter).count() as u64),
                    link,
                    chosen: filter == query.filter,
                },
            )
        })
        .filter(|(filter, choice)| *filter != Filter::Own || choice.count != "0" || choice.chosen)
        .map(|(_, choice)| choice)
        .collect();

    let total = of(query.filter).count();
    let pages = total.div_ceil(ROWS).max(1);
    let before = query.before.min(pages - 1);
    let first = before * ROWS;
    let by_need = [SubscriptionState::Parked, SubscriptionState::Pending, SubscriptionState::Enabled];
    let rows: Vec<Row<'a>> = by_need
        .into_iter()
        .flat_map(|state| of(query.filter).filter(move |entry| entry.state == state))
        .skip(first)
        .take(ROWS)
        .map(|entry| row(entry, status))
        .collect();
    let found = match (total, pages) {
        (0, _) => "No subscription".to_owned(),
        (1, _) => "1 subscription".to_owned(),
        (total, 1) => format!("{} subscriptions", count(total as u64)),
        (total, _) => format!(
            "{}–{} of {} subscriptions",
            count(first as u64 + 1),
            count((first + rows.len()) as u64),
            count(total as u64)
        ),
    };
    Table {
        search: query.search.clone(),
        filter: query.filter.name(),
        choices,
        rows,
        found,
        previous: before.checked_sub(1).map(|before| query.link(query.filter, before)),
        is_empty: status.subscriptions.iter().all(|entry| entry.own),
        next: (before + 1 < pages).then(|| query.link(query.filter, before + 1)),
    }
}

fn row<'a>(entry: &'a SubscriptionEntry, status: &Status) -> Row<'a> {
    Row {
        state: match entry.state {
            SubscriptionState::Enabled => "enabled",
            SubscriptionState::Pending => "pending",
            SubscriptionState::Parked => "parked",
        },
        kind: &entry.key.subscription_type,
        version: &entry.key.version,
        logins: entry.logins.join(", "),
        condition: entry.key.condition.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        reason: entry.reason.as_deref(),
        retry: entry.retry_at.map(|at| duration(at.since(status.now))),
        id: entry.id.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::admin::page::view::tests::{entry, well};

    fn with(count: usize) -> Status {
        let mut status = well();
        let entries = (0..count).map(|number| match number % 10 {
            0 => entry(&number.to_string(), SubscriptionState::Parked, Some("needs grant: Ann must allow x")),
            1 => entry(&number.to_string(), SubscriptionState::Pending, None),
            _ => entry(&number.to_string(), SubscriptionState::Enabled, None),
        });
        status.subscriptions = entries.collect();
        let mut own = entry("own", SubscriptionState::Enabled, None);
        own.own = true;
        status.subscriptions = status.subscriptions.iter().cloned().chain([own]).collect::<Vec<_>>().into();
        status
    }

    fn look(status: &Status, query: &str) -> (Vec<String>, String) {
        let table = table(status, &Query::parse(query));
        (
            table.rows.iter().map(|row| format!("{} {}", row.state, row.condition.join(" "))).collect(),
            table.found,
        )
    }

    #[test]
    fn a_page_is_bounded_and_begins_with_problems() {
        let status = with(1_000);
        let (rows, found) = look(&status, "");
        assert_eq!((rows.len(), found.as_str()), (100, "1–100 of 1,000 subscriptions"));
        assert!(rows.iter().all(|row| row.starts_with("parked")));
        let (rows, found) = look(&status, "page=10");
        assert_eq!((rows.len(), found.as_str()), (100, "901–1,000 of 1,000 subscriptions"));
        assert_eq!(look(&status, "page=9999").0, rows, "the last page there is");
        assert_eq!(look(&status, "state=own").1, "1 subscription");
        let table = table(&status, &Query::parse("state=pending&page=1"));
        let counts: Vec<_> =
            table.choices.iter().map(|choice| (choice.label, choice.count.as_str())).collect();
        assert_eq!(
            counts,
            [
                ("All", "1,000"),
                ("Parked", "100"),
                ("Pending", "100"),
                ("Enabled", "800"),
                ("The daemon’s own", "1")
            ]
        );
    }

    #[test]
    fn a_search_covers_all_fields_within_the_filter() {
        let mut status = with(200);
        let mut named = entry("77777", SubscriptionState::Enabled, None);
        named.logins = Box::new([Arc::from("ninja")]);
        named.id = Some("f1c2a387".into());
        status.subscriptions = status.subscriptions.iter().cloned().chain([named]).collect::<Vec<_>>().into();
        for search in ["q=ninja", "q=NINJA", "q=f1c2", "q=77777", "q=follow+ninja++v2", "q=user_id%3D77777"] {
            assert_eq!(look(&status, search).1, "1 subscription", "{search}");
        }
        assert_eq!(look(&status, "q=ann+must").1, "20 subscriptions");
        assert_eq!(look(&status, "q=ann+must&state=enabled").1, "No subscription");
        let query = Query::parse("q=a%26b&state=parked&page=2");
        assert_eq!(query.link(query.filter, 2), "/?q=a%26b&state=parked&page=3#subscriptions");
    }

    proptest! {
        #[test]
        fn any_query_renders_a_table(text in "\\PC{0,400}", page in any::<u64>()) {
            let status = with(3);
            table(&status, &Query::parse(&text));
            let query = Query::parse(&format!("page={page}&q={text}"));
            prop_assert!(query.search.chars().count() <= MAX_SEARCH);
            table(&status, &query);
        }
    }
}
