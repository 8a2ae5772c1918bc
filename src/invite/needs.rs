//! The grants that the file's subscriptions need of one user. ◆

use std::collections::BTreeMap;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::model::grants::{self, Scopes};
use crate::model::subscriptions::Subscriptions;

/// Needs of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The fewest scopes that serve all of these subscriptions.
    pub(super) scopes: Scopes,
    /// Types and versions of the subscriptions, and how many there are.
    pub(super) types: BTreeMap<(Box<str>, Box<str>), u64>,
}

/// Finds what is needed of a user. `globs` limit the types; none means all.
pub(super) fn of_user(subscriptions: &Subscriptions, user_id: &str, globs: &[String]) -> Needs {
    let mut needs = Needs::default();
    let mut groups: Vec<&'static [String]> = Vec::new();
    let set = glob_set(globs);
    let is_wanted = |name: &str| globs.is_empty() || set.is_match(name);
    for entry in subscriptions.iter().filter(|entry| !entry.own) {
        let key = &entry.key;
        let is_named = key.condition.iter().any(|(_, value)| value == user_id);
        if !is_named || !is_wanted(&key.subscription_type) {
            continue;
        }
        let of_user = grants::needs(key).into_iter().filter(|need| need.user_id == user_id);
        let of_user: Vec<_> = of_user.flat_map(|need| need.groups).collect();
        if of_user.is_empty() {
            continue;
        }
        let name = (key.subscription_type.as_ref().into(), key.version.as_ref().into());
        *needs.types.entry(name).or_default() += 1;
        for group in of_user {
            // Many subscriptions of one type have the same groups.
            if !groups.iter().any(|known| std::ptr::eq(*known, group.as_slice())) {
                groups.push(group);
            }
        }
    }
    needs.scopes = grants::smallest(groups, &Scopes::new());
    needs
}

/// A glob that cannot be read matches nothing.
fn glob_set(globs: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs.iter().filter_map(|glob| Glob::new(glob).ok()) {
        set.add(glob);
    }
    set.build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::{SubscriptionEntry, SubscriptionState};
    use crate::model::subscription::{Condition, SubscriptionKey};
    use crate::model::subscriptions::LoginNames;

    fn entry(name: &str, version: &str, condition: &[(&str, &str)], own: bool) -> SubscriptionEntry {
        SubscriptionEntry {
            key: SubscriptionKey::new(name, version, Condition::from_pairs(condition.iter().copied())),
            state: SubscriptionState::Parked,
            id: None,
            reason: None,
            cost: None,
            obstacle: None,
            retry_at: None,
            own,
            logins: LoginNames::None,
        }
    }

    #[test]
    fn only_what_the_file_needs_of_this_user_is_found() {
        let follow = |id: &str| {
            entry("channel.follow", "2", &[("broadcaster_user_id", id), ("moderator_user_id", "7")], false)
        };
        let subscriptions = Subscriptions::from(vec![
            follow("1"),
            follow("7"),
            entry("channel.poll.begin", "1", &[("broadcaster_user_id", "7")], false),
            entry("channel.poll.end", "1", &[("broadcaster_user_id", "8")], false),
            entry("channel.poll.end", "1", &[("broadcaster_user_id", "@7")], false),
            entry("stream.online", "1", &[("broadcaster_user_id", "7")], false),
            entry("channel.cheer", "1", &[("broadcaster_user_id", "7")], true),
        ]);
        let names = |needs: &Needs| {
            let types = needs.types.iter().map(|((name, _), count)| format!("{name} {count}"));
            (grants::list(&needs.scopes), types.collect::<Vec<_>>().join(", "))
        };
        let all = of_user(&subscriptions, "7", &[]);
        let types = "channel.follow 2, channel.poll.begin 1";
        assert_eq!(names(&all), ("channel:read:polls moderator:read:followers".to_owned(), types.to_owned()));
        let polls = of_user(&subscriptions, "7", &["channel.poll.*".to_owned()]);
        assert_eq!(names(&polls), ("channel:read:polls".to_owned(), "channel.poll.begin 1".to_owned()));
        assert_eq!(of_user(&subscriptions, "7", &["nothing".to_owned()]), Needs::default());
        assert_eq!(of_user(&subscriptions, "1", &[]), Needs::default(), "the moderator grants it");
        assert_eq!(of_user(&subscriptions, "", &[]), Needs::default());
    }
}
