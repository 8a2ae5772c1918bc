//! `/subscriptions`: the list of subscriptions in pages. ◆

use serde::{Deserialize, Serialize};

use super::search::{Filter, Search};
use crate::model::status::SubscriptionEntry;
use crate::model::subscription::SubscriptionKey;
use crate::model::subscriptions::Subscriptions;

/// Entries of a page, if the request does not say.
const PAGE: usize = 100;
/// Entries of a page, at most.
pub(super) const MAX_PAGE: usize = 1_000;

/// The query of a request.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Query {
    /// `enabled`, `pending`, `parked` or `own`; all if it is left out.
    state: Option<String>,
    /// Words that all have to occur.
    q: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    limit: Option<usize>,
}

/// A page of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionPage {
    /// Sorted by type, version and condition.
    pub subscriptions: Vec<SubscriptionEntry>,
    /// The value of `after` for the next page; `None` on the last one.
    pub next: Option<String>,
}

/// Returns the page that a query asks for. A list that changes between two pages neither repeats nor passes over what
/// stays in it.
///
/// # Errors
/// A text for people: the query is wrong.
pub(super) fn page(subscriptions: &Subscriptions, query: &Query) -> Result<SubscriptionPage, String> {
    let filter = match query.state.as_deref().filter(|state| !state.is_empty()) {
        None => None,
        Some(name) => {
            let names: Vec<&str> = Filter::NAMED.iter().map(|(_, name)| *name).collect();
            let unknown = || format!("`state` is one of {}", names.join(", "));
            Some(Filter::named(name).ok_or_else(unknown)?)
        }
    };
    let mut search = Search::new(query.q.as_deref().unwrap_or_default());
    let first = match query.after.as_deref().filter(|after| !after.is_empty()) {
        None => 0,
        Some(after) => {
            let key: SubscriptionKey = serde_json::from_str(after)
                .map_err(|_| "`after` is not the `next` of an earlier page".to_owned())?;
            subscriptions.position(&key).map_or_else(|at| at, |at| at + 1)
        }
    };
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let is_wanted =
        |entry: &&SubscriptionEntry| filter.is_none_or(|filter| filter.takes(entry)) && search.matches(entry);
    // One more than fits tells whether there is another page.
    let mut found: Vec<SubscriptionEntry> =
        subscriptions.iter_from(first).filter(is_wanted).take(limit + 1).cloned().collect();
    let next = match found.len() > limit {
        true => {
            found.truncate(limit);
            found.last().and_then(|last| serde_json::to_string(&last.key).ok())
        }
        false => None,
    };
    Ok(SubscriptionPage { subscriptions: found, next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::example::entry;
    use crate::model::status::SubscriptionState;

    fn list(count: usize) -> Subscriptions {
        let state = |n: usize| match n % 10 {
            0 => SubscriptionState::Parked,
            1 => SubscriptionState::Pending,
            _ => SubscriptionState::Enabled,
        };
        let mut entries: Vec<_> = (0..count).map(|n| entry(&format!("{n:05}"), state(n))).collect();
        let mut own = entry("own", SubscriptionState::Enabled);
        own.own = true;
        entries.push(own);
        entries.into()
    }

    fn all(list: &Subscriptions, mut query: Query) -> (usize, Vec<String>) {
        let (mut pages, mut found) = (0, Vec::new());
        loop {
            let page = page(list, &query).expect("a page");
            pages += 1;
            found.extend(page.subscriptions.iter().map(|entry| entry.key.to_string()));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return (pages, found),
            }
        }
    }

    #[test]
    fn pages_are_bounded_and_together_they_are_the_list() {
        let list = list(2_500);
        let keys: Vec<String> = list.iter().map(|entry| entry.key.to_string()).collect();
        for (limit, pages) in [(None, 26), (Some(7), 358), (Some(1_000), 3), (Some(usize::MAX), 3)] {
            assert_eq!(all(&list, Query { limit, ..Query::default() }), (pages, keys.clone()));
        }
        let of = |state: &str| all(&list, Query { state: Some(state.into()), ..Query::default() }).1.len();
        assert_eq!(
            [of("parked"), of("pending"), of("enabled"), of("own"), of("")],
            [250, 250, 2_000, 1, 2_501]
        );
        let query = Query { q: Some("02499".into()), ..Query::default() };
        assert_eq!(
            all(&list, query).1,
            ["channel.follow v2 broadcaster_user_id=02499 moderator_user_id=02499"]
        );
        assert_eq!(all(&Subscriptions::default(), Query::default()), (1, vec![]));
    }

    #[test]
    fn a_wrong_query_is_refused_with_a_reason() {
        let refused = |query: Query| page(&list(3), &query).expect_err("it is wrong");
        let state = Query { state: Some("broken".into()), ..Query::default() };
        assert_eq!(refused(state), "`state` is one of parked, pending, enabled, own");
        for after in ["x", "{}", "7"] {
            let query = Query { after: Some(after.into()), ..Query::default() };
            assert_eq!(refused(query), "`after` is not the `next` of an earlier page");
        }
    }

    proptest! {
        #[test]
        fn what_stays_in_a_changing_list_is_shown_once(
            before in prop::collection::btree_set(0..300_u32, 0..200),
            after in prop::collection::btree_set(0..300_u32, 0..200),
            limit in 1..40_usize,
        ) {
            let list = |numbers: &std::collections::BTreeSet<u32>| -> Subscriptions {
                let entry = |n: &u32| entry(&format!("{n:05}"), SubscriptionState::Enabled);
                numbers.iter().map(entry).collect::<Vec<_>>().into()
            };
            let mut query = Query { limit: Some(limit), ..Query::default() };
            let first = page(&list(&before), &query).unwrap();
            let mut shown: Vec<String> =
                first.subscriptions.iter().map(|entry| entry.key.to_string()).collect();
            query.after = first.next;
            if query.after.is_some() {
                shown.extend(all(&list(&after), query).1);
                for n in before.intersection(&after) {
                    let key = entry(&format!("{n:05}"), SubscriptionState::Enabled).key.to_string();
                    prop_assert_eq!(shown.iter().filter(|shown| **shown == key).count(), 1);
                }
            }
        }
    }
}
