//! Twitch's answers about the sessions of all hosts, as the shared values have them: one name for each shard, and one for
//! the conduit. ◆

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::shard::{BindOutcome, Binding, Bindings, SessionId, ShardId};
use crate::model::text::one_line;

/// How the names begin.
pub(super) const PREFIX: &str = "bound.";
/// The name of the conduit's id.
const CONDUIT: &str = "bound.conduit";
/// The longest reason of a failure.
const LONGEST: usize = 200;

/// Twitch's answers about the sessions of all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// The conduit that they are about; `None` before there are any.
    pub(super) conduit_id: Option<Arc<str>>,
    pub(super) bindings: Bindings,
}

impl Bound {
    /// Reads the shared values. What cannot be read is left out: a session without an answer waits for one.
    pub(super) fn read(values: &[(String, String)]) -> Self {
        let conduit_id = values.iter().find(|(name, _)| name == CONDUIT).map(|(_, id)| id.as_str().into());
        let bindings = values.iter().filter_map(|(name, value)| {
            let shard = name.strip_prefix(PREFIX)?.parse().ok()?;
            Some((ShardId(shard), read(value)?))
        });
        Self { conduit_id, bindings: Arc::new(bindings.collect()) }
    }

    /// The session that Twitch delivers to, of each shard that has one.
    pub(super) fn sessions(&self) -> BTreeMap<ShardId, SessionId> {
        let bound = self.bindings.iter().filter(|(_, binding)| binding.outcome == BindOutcome::Bound);
        bound.map(|(shard, binding)| (*shard, binding.session_id.clone())).collect()
    }

    /// Adds newer answers for a conduit of so many shards. Answers about shards that the newer ones leave out stay.
    pub(super) fn with(&self, conduit_id: &Arc<str>, shards: u32, newer: &Bindings) -> Self {
        let is_same = self.conduit_id.as_ref() == Some(conduit_id);
        let old = self.bindings.range(..ShardId(shards)).filter(|_| is_same);
        let new = newer.range(..ShardId(shards));
        let bindings = old.chain(new).map(|(shard, binding)| (*shard, binding.clone())).collect();
        Self { conduit_id: Some(Arc::clone(conduit_id)), bindings: Arc::new(bindings) }
    }

    /// The changes of the shared values that lead from the answers before to these.
    pub(super) fn changes_from(&self, before: &Self) -> Vec<(String, Option<String>)> {
        let mut changes = Vec::new();
        if self.conduit_id != before.conduit_id {
            changes.push((CONDUIT.to_owned(), self.conduit_id.as_deref().map(str::to_owned)));
        }
        let name = |shard: &ShardId| format!("{PREFIX}{shard}");
        for (shard, binding) in &*self.bindings {
            if before.bindings.get(shard) != Some(binding) {
                changes.push((name(shard), Some(written(binding))));
            }
        }
        let gone = before.bindings.keys().filter(|shard| !self.bindings.contains_key(shard));
        changes.extend(gone.map(|shard| (name(shard), None)));
        changes
    }
}

fn written(Binding { session_id, outcome }: &Binding) -> String {
    match outcome {
        BindOutcome::Bound => format!("bound {session_id}"),
        BindOutcome::SessionGone => format!("gone {session_id}"),
        BindOutcome::Failed(why) => format!("failed {session_id} {}", one_line(why, LONGEST)),
    }
}

fn read(text: &str) -> Option<Binding> {
    let (word, rest) = text.split_once(' ')?;
    let (id, why) = rest.split_once(' ').unwrap_or((rest, ""));
    let outcome = match word {
        "bound" => BindOutcome::Bound,
        "gone" => BindOutcome::SessionGone,
        "failed" => BindOutcome::Failed(one_line(why, LONGEST).into()),
        _ => return None,
    };
    (!id.is_empty()).then(|| Binding { session_id: SessionId::new(id), outcome })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome() -> impl Strategy<Value = BindOutcome> {
        prop_oneof![
            Just(BindOutcome::Bound),
            Just(BindOutcome::SessionGone),
            "[a-z]{1,9}( [a-z]{1,9})?".prop_map(|why: String| BindOutcome::Failed(why.into())),
        ]
    }

    fn answers() -> impl Strategy<Value = Bound> {
        let binding = ("[a-zA-Z0-9_-]{1,9}", outcome());
        let bindings = prop::collection::btree_map(0_u32..9, binding, 0..9);
        ("[a-c]", bindings).prop_map(|(conduit, bindings)| Bound {
            conduit_id: Some(conduit.into()),
            bindings: Arc::new(
                bindings
                    .into_iter()
                    .map(|(shard, (id, outcome))| {
                        (ShardId(shard), Binding { session_id: SessionId::new(id), outcome })
                    })
                    .collect(),
            ),
        })
    }

    proptest! {
        #[test]
        fn changes_lead_from_any_answers_to_any_others(before in answers(), after in answers()) {
            let mut values: BTreeMap<String, String> = BTreeMap::new();
            for step in [before.changes_from(&Bound::default()), after.changes_from(&before)] {
                for (name, value) in step {
                    match value {
                        Some(value) => drop(values.insert(name, value)),
                        None => drop(values.remove(&name)),
                    }
                }
            }
            let values: Vec<_> = values.into_iter().collect();
            prop_assert_eq!(Bound::read(&values), after);
        }

        /// Whatever stands there is read without a panic.
        #[test]
        fn anything_can_be_read(values in prop::collection::vec(("bound\\.\\PC{0,6}", "\\PC{0,12}"), 0..9)) {
            let read = Bound::read(&values);
            prop_assert!(read.bindings.len() <= values.len());
        }

        #[test]
        fn answers_about_another_conduit_do_not_stay(before in answers(), newer in answers(), shards in 0_u32..9) {
            let conduit: Arc<str> = "a".into();
            let found = before.with(&conduit, shards, &newer.bindings);
            for (shard, binding) in &*found.bindings {
                let is_new = newer.bindings.get(shard) == Some(binding);
                let is_old = before.conduit_id.as_ref() == Some(&conduit) && before.bindings.get(shard) == Some(binding);
                prop_assert!(shard.0 < shards && (is_new || is_old));
            }
        }
    }
}
