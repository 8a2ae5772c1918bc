//! Which conduit is ours. ◆
//!
//! A conduit has no name and outlives us, so its id is remembered. A conduit that somebody else made
//! is never adopted unless the configuration names it. Nothing here ever deletes one.
//!
//! A crash between making a conduit and remembering its id would leave one behind (there are at most
//! five): the intent that is saved first lets the next run find it, as the one conduit that was not
//! there before.

use std::time::Duration;

use crate::helix::Conduit;
use crate::model::time::Timestamp;
use crate::reconcile::memory::Intent;

/// After this time Twitch has deleted a conduit without any enabled shard (Twitch: "Handling Conduit
/// Events"), and so one that was made and never used.
const INTENT_LIFE: Duration = Duration::from_secs(72 * 3600);

/// Conduits of a client at most (Twitch: "Create Conduits").
pub(in crate::reconcile) const MAX_CONDUITS: usize = 5;

/// The decision about our conduit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Choice {
    /// Use our own conduit.
    Use(Conduit),
    /// Perhaps the one that we made and lost: ours if it has neither shards nor subscriptions,
    /// else make one.
    Recover(Conduit),
    /// Make one; the one that is gone, if there was one.
    Make { gone: Option<String> },
    /// The configured one does not exist. Never make another.
    Missing { id: String },
}

/// Decides, from what is configured, remembered, and there.
pub(in crate::reconcile) fn choose(
    configured: Option<&str>,
    remembered: Option<&str>,
    intent: Option<&Intent>,
    existing: &[Conduit],
    now: Timestamp,
) -> Choice {
    let find = |id: &str| existing.iter().find(|conduit| conduit.id == id).cloned();
    if let Some(id) = configured {
        return find(id).map_or_else(|| Choice::Missing { id: id.to_owned() }, Choice::Use);
    }
    if let Some(conduit) = remembered.and_then(find) {
        return Choice::Use(conduit);
    }
    if let Some(intent) = intent.filter(|intent| now.since(intent.at) < INTENT_LIFE) {
        let mut new = existing.iter().filter(|conduit| !intent.before.contains(&conduit.id));
        if let (Some(conduit), None) = (new.next(), new.next()) {
            return Choice::Recover(conduit.clone());
        }
    }
    Choice::Make { gone: remembered.map(ToOwned::to_owned) }
}

/// The conduits in one line, for a person who must choose.
pub(in crate::reconcile) fn list(existing: &[Conduit]) -> String {
    if existing.is_empty() {
        return "none".to_owned();
    }
    existing
        .iter()
        .map(|conduit| {
            let plural = if conduit.shard_count == 1 { "" } else { "s" };
            format!("{} ({} shard{plural})", conduit.id, conduit.shard_count)
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conduit(id: &str) -> Conduit {
        Conduit { id: id.into(), shard_count: 1 }
    }

    #[test]
    fn the_right_conduit_is_chosen() {
        let now = Timestamp::from_unix_millis(1_000_000_000_000);
        let there = [conduit("a"), conduit("b")];
        let intent = |before: &[&str], age: u64| Intent {
            at: Timestamp::from_unix_millis(now.unix_millis() - age),
            before: before.iter().map(|id| (*id).to_owned()).collect(),
        };
        let gone = |id: &str| Choice::Make { gone: Some(id.to_owned()) };
        let fresh = Choice::Make { gone: None };
        let table = [
            (Some("a"), Some("b"), None, Choice::Use(conduit("a"))),
            (Some("x"), Some("b"), None, Choice::Missing { id: "x".into() }),
            (None, Some("b"), None, Choice::Use(conduit("b"))),
            (None, Some("b"), Some(intent(&["b"], 0)), Choice::Use(conduit("b"))),
            (None, Some("x"), None, gone("x")),
            (None, None, None, fresh.clone()),
            (None, None, Some(intent(&["a"], 0)), Choice::Recover(conduit("b"))),
            (None, Some("x"), Some(intent(&["a"], 0)), Choice::Recover(conduit("b"))),
            (None, None, Some(intent(&["a"], 72 * 3_600_000)), fresh.clone()),
            (None, None, Some(intent(&["a", "b"], 0)), fresh.clone()),
            (None, None, Some(intent(&[], 0)), fresh),
        ];
        for (configured, remembered, intent, expected) in table {
            let chosen = choose(configured, remembered, intent.as_ref(), &there, now);
            assert_eq!(chosen, expected, "{configured:?} {remembered:?} {intent:?}");
        }
    }
}
