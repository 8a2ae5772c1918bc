//! The table of subscriptions: search, filter by state, pages. ◆
//!
//! A page has at most [`ROWS`] rows for any number of subscriptions.

use serde::Serialize;

use crate::admin::search::{Filter, Search};
use crate::model::route::SinkName;
use crate::model::status::{Status, SubscriptionEntry, SubscriptionState};
use crate::model::subscription::SubscriptionKey;
use crate::model::text::{count, counted, left};
use crate::store::Activity;

/// Rows per page.
pub(super) const ROWS: usize = 100;
/// The view that the page's query asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Words that all have to match.
    pub(super) search: Search,
    pub(super) filter: Filter,
    /// Pages before the one that is shown.
    pub(super) before: usize,
}

/// The filters, with their labels.
const FILTERS: [(Filter, &str); 5] = [
    (Filter::All, "All"),
    (Filter::State(SubscriptionState::Parked), "Parked"),
    (Filter::State(SubscriptionState::Pending), "Pending"),
    (Filter::State(SubscriptionState::Enabled), "Enabled"),
    (Filter::Own, "The daemon’s own"),
];

impl Query {
    /// Parses a query; unknown parts are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "q" => query.search = Search::new(&value),
                "state" => query.filter = Filter::named(&value).unwrap_or_default(),
                "page" => query.before = value.parse::<usize>().map_or(0, |page| page.saturating_sub(1)),
                _ => {}
            }
        }
        query
    }

    /// Returns the link to another view of the table.
    fn link(&self, filter: Filter, before: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.search.text().is_empty() {
            query.append_pair("q", self.search.text());
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
    id: Option<String>,
    cost: Option<u8>,
    /// Sinks that get its events.
    sinks: String,
    events: Option<Events>,
    #[serde(skip)]
    key: &'a SubscriptionKey,
}

/// The events of a subscription.
#[derive(Clone, Debug, Serialize)]
struct Events {
    count: String,
    last: u64,
    last_at: String,
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

impl Table<'_> {
    /// Returns the ids of the rows that have one, in their order.
    pub(super) fn ids(&self) -> Vec<Box<str>> {
        self.rows.iter().filter_map(|row| row.id.as_deref().map(Box::from)).collect()
    }

    /// Adds the events of the subscriptions that [`Self::ids`] returned.
    pub(super) fn add_activity(&mut self, activity: &[Option<Activity>]) {
        let with_id = self.rows.iter_mut().filter(|row| row.id.is_some());
        for (row, of) in with_id.zip(activity) {
            row.events = of.map(|of| Events {
                count: counted(of.events, "event"),
                last: of.last.0,
                last_at: of.last_at.to_string(),
            });
        }
    }

    pub(super) fn add_sinks(&mut self, sinks_of: impl Fn(&SubscriptionKey) -> Vec<SinkName>) {
        for row in &mut self.rows {
            let names = sinks_of(row.key);
            row.sinks = names.iter().map(SinkName::as_str).collect::<Vec<_>>().join(", ");
        }
    }
}

/// Returns the requested part of the table; subscriptions with a problem come first.
pub(super) fn table<'a>(status: &'a Status, query: &Query) -> Table<'a> {
    let mut search = query.search.clone();
    let found: Vec<&SubscriptionEntry> =
        status.subscriptions.iter().filter(|entry| search.matches(entry)).collect();
    let of = |filter: Filter| found.iter().filter(move |entry| filter.takes(entry));

    let choices = FILTERS
        .into_iter()
        .map(|(filter, label)| {
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
        search: query.search.text().to_owned(),
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
        logins: entry.logins.as_slice().join(", "),
        condition: entry.key.condition.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        reason: entry.reason.as_deref(),
        retry: entry.retry_at.map(|at| left(status.now, at)),
        id: entry.id.as_ref().map(ToString::to_string),
        cost: entry.cost,
        sinks: String::new(),
        events: None,
        key: &entry.key,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::page::view::tests::{entry, well};
    use crate::model::event::Seq;
    use crate::model::subscriptions::LoginNames;

    fn with(count: usize) -> Status {
        let mut status = well();
        let entries = (0..count).map(|number| match number % 10 {
            0 => entry(&number.to_string(), SubscriptionState::Parked, Some("needs grant: Ann must allow x")),
            1 => entry(&number.to_string(), SubscriptionState::Pending, None),
            _ => entry(&number.to_string(), SubscriptionState::Enabled, None),
        });
        let mut own = entry("own", SubscriptionState::Enabled, None);
        own.own = true;
        let entries: Vec<_> = entries.chain([own]).collect();
        status.set_subscriptions(entries.into());
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
        named.logins = LoginNames::One("ninja".into());
        named.id = Some("f1c2a387".into());
        let entries: Vec<_> = status.subscriptions.iter().cloned().chain([named]).collect();
        status.set_subscriptions(entries.into());
        for search in ["q=ninja", "q=NINJA", "q=f1c2", "q=77777", "q=follow+ninja++v2", "q=user_id%3D77777"] {
            assert_eq!(look(&status, search).1, "1 subscription", "{search}");
        }
        assert_eq!(look(&status, "q=ann+must").1, "20 subscriptions");
        assert_eq!(look(&status, "q=ann+must&state=enabled").1, "No subscription");
        let query = Query::parse("q=a%26b&state=parked&page=2");
        assert_eq!(query.link(query.filter, 2), "/?q=a%26b&state=parked&page=3#subscriptions");
    }

    #[test]
    fn rows_have_their_events_and_sinks() {
        let mut status = with(0);
        let mut silent = entry("7", SubscriptionState::Enabled, None);
        silent.id = Some("s7".into());
        let mut lively = entry("8", SubscriptionState::Enabled, None);
        lively.id = Some("s8".into());
        let parked = entry("9", SubscriptionState::Parked, None);
        status.set_subscriptions(vec![silent, lively, parked].into());
        let mut table = table(&status, &Query::default());
        assert_eq!(table.ids(), ["s7".into(), "s8".into()]);
        let of = Activity { events: 3, last: Seq(40), last_at: status.now };
        table.add_activity(&[None, Some(of)]);
        table.add_sinks(|_| vec![SinkName::new("log"), SinkName::new("bot")]);
        let seen: Vec<_> =
            table.rows.iter().map(|row| row.events.as_ref().map(|of| of.count.as_str())).collect();
        assert_eq!(seen, [None, None, Some("3 events")], "the parked one comes first");
        assert!(table.rows.iter().all(|row| row.sinks == "log, bot"));
    }

    proptest! {
        #[test]
        fn any_query_renders_a_table(text in "\\PC{0,400}", page in any::<u64>()) {
            let status = with(3);
            table(&status, &Query::parse(&text));
            let query = Query::parse(&format!("page={page}&q={text}"));
            prop_assert!(query.search.text().chars().count() <= 200);
            table(&status, &query);
        }
    }
}
