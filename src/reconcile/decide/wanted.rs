//! The file's subscriptions with ids in place of logins, as far as they are known. ◆

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::logins::Logins;
use crate::model::hint;
use crate::model::route::SinkName;
use crate::model::subscription::{Condition, FieldValue, SubscriptionKey, SubscriptionSpec};
use crate::model::subscriptions::LoginNames;
use crate::reconcile::Desired;

/// The resolved subscriptions.
#[derive(Clone, Debug, Default)]
pub(in crate::reconcile) struct Wanted {
    /// Sorted, each once.
    pub(in crate::reconcile) keys: Vec<SubscriptionKey>,
    /// Subscriptions with a login whose id is not known, which stands as `@login`, and that login. Sorted, each once.
    pub(in crate::reconcile) unresolved: Vec<(SubscriptionKey, Arc<str>)>,
    /// The sinks of those that name some.
    pub(in crate::reconcile) restricted: HashMap<SubscriptionKey, Arc<[SinkName]>>,
    /// The daemon's own subscriptions, which the file does not have and which go to no sink. Empty if the file switches
    /// them off.
    pub(in crate::reconcile) own: HashSet<SubscriptionKey>,
    /// The logins by which the file names the users of each key, in the order of the keys.
    pub(in crate::reconcile) logins: Vec<LoginNames>,
}

impl Wanted {
    /// Has these keys share those that are equal: rows and entries hold them already.
    pub(in crate::reconcile) fn share_keys(&mut self, before: &Self) {
        let mut old = before.keys.iter().peekable();
        for key in &mut self.keys {
            while old.next_if(|old| *old < key).is_some() {}
            if let Some(same) = old.next_if(|old| *old == key) {
                *key = same.clone();
            }
        }
    }

    /// Adds what the daemon wants for itself.
    pub(in crate::reconcile) fn add_own(&mut self, keys: impl IntoIterator<Item = SubscriptionKey>) {
        for key in keys {
            if let Err(at) = self.keys.binary_search(&key) {
                self.keys.insert(at, key.clone());
                self.logins.insert(at, LoginNames::None);
                self.restricted.insert(key.clone(), Arc::new([]));
                self.own.insert(key);
            }
        }
    }
}

/// All wanted subscriptions: the file's and the daemon's own.
pub(in crate::reconcile) fn of(desired: &Desired, logins: &Logins, client_id: &str) -> Wanted {
    let mut wanted = resolve(&desired.specs, logins);
    if desired.watch_grants {
        wanted.add_own(hint::subscriptions(client_id));
    }
    wanted
}

/// Two of the file's subscriptions can turn out to be one, when a login and an id name the same
/// user: it goes to the sinks of both.
pub(in crate::reconcile) fn resolve(specs: &[SubscriptionSpec], logins: &Logins) -> Wanted {
    let mut resolved: Vec<(SubscriptionKey, Option<Arc<[SinkName]>>)> = Vec::with_capacity(specs.len());
    let mut wanted = Wanted::default();
    let mut names: HashMap<&str, &Arc<str>> = HashMap::new();
    for spec in specs {
        for login in spec.logins() {
            if let Some(id) = logins.id_of(login) {
                names.entry(id).or_insert(login);
            }
        }
        match spec.resolve(|login| logins.id_of(login)) {
            Ok(key) => resolved.push((key, spec.sinks.clone())),
            Err(login) => wanted.unresolved.push((shown(spec, logins), login)),
        }
    }
    wanted.unresolved.sort_unstable();
    wanted.unresolved.dedup_by(|a, b| a.0 == b.0);
    resolved.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    resolved.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1 = union(first.1.take(), later.1.take());
        }
        same
    });
    wanted.keys.reserve_exact(resolved.len());
    wanted.logins.reserve_exact(resolved.len());
    for (key, sinks) in resolved {
        if let Some(sinks) = sinks {
            wanted.restricted.insert(key.clone(), sinks);
        }
        let mut of_key: Vec<Arc<str>> =
            key.condition.iter().filter_map(|(_, id)| names.get(id).map(|login| Arc::clone(login))).collect();
        of_key.dedup();
        wanted.logins.push(of_key.into());
        wanted.keys.push(key);
    }
    wanted
}

/// The logins that the subscriptions name.
pub(in crate::reconcile) fn logins(specs: &[SubscriptionSpec]) -> HashSet<&str> {
    specs.iter().flat_map(SubscriptionSpec::logins).map(|login| &**login).collect()
}

/// `None` is all sinks.
fn union(a: Option<Arc<[SinkName]>>, b: Option<Arc<[SinkName]>>) -> Option<Arc<[SinkName]>> {
    let (a, b) = (a?, b?);
    if a == b {
        return Some(a);
    }
    let mut both: Vec<SinkName> = a.iter().chain(b.iter()).cloned().collect();
    both.sort_unstable();
    both.dedup();
    Some(both.into())
}

fn shown(spec: &SubscriptionSpec, logins: &Logins) -> SubscriptionKey {
    let values: Vec<(&str, String)> = spec
        .condition
        .iter()
        .map(|(name, value)| {
            let value = match value {
                FieldValue::Literal(text) => text.to_string(),
                FieldValue::Login(login) => {
                    logins.id_of(login).map_or_else(|| format!("@{login}"), ToOwned::to_owned)
                }
            };
            (name.as_ref(), value)
        })
        .collect();
    SubscriptionKey::new(
        &spec.subscription_type,
        &spec.version,
        Condition::from_pairs(values.iter().map(|(name, value)| (*name, value.as_str()))),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::time::Timestamp;
    use crate::reconcile::RetryTimes;

    fn spec(value: FieldValue, sinks: Option<&[&str]>) -> SubscriptionSpec {
        SubscriptionSpec {
            subscription_type: "stream.online".into(),
            version: "1".into(),
            condition: Box::new([("broadcaster_user_id".into(), value)]),
            sinks: sinks.map(|sinks| sinks.iter().map(|name| SinkName::new(*name)).collect()),
        }
    }

    #[test]
    fn one_subscription_under_two_names_has_the_sinks_of_both() {
        let mut logins = Logins::new(Duration::from_secs(60), RetryTimes::default());
        let now = Timestamp::from_unix_millis(0);
        logins.remember(&[("login:a".into(), "1 0".into())], Instant::now(), now);
        let login = |name: &str| FieldValue::Login(name.into());
        let specs = [
            spec(login("a"), Some(&["x"])),
            spec(FieldValue::Literal("1".into()), Some(&["y"])),
            spec(login("b"), None),
            spec(FieldValue::Literal("2".into()), Some(&["x"])),
            spec(FieldValue::Literal("2".into()), None),
        ];
        let wanted = resolve(&specs, &logins);
        assert_eq!(wanted.keys.len(), 2);
        let names: Vec<&str> = wanted.restricted[&wanted.keys[0]].iter().map(SinkName::as_str).collect();
        assert_eq!(names, ["x", "y"]);
        assert!(!wanted.restricted.contains_key(&wanted.keys[1]));
        assert_eq!(wanted.logins, [LoginNames::One("a".into()), LoginNames::None]);
        assert_eq!(wanted.unresolved.len(), 1);
        assert_eq!(wanted.unresolved[0].0.to_string(), "stream.online v1 broadcaster_user_id=@b");
        assert_eq!(super::logins(&specs), HashSet::from(["a", "b"]));
    }
}
