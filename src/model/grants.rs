//! Required grants of scopes (Twitch: "EventSub Subscription Types"), and the smallest sufficient set.
//!
//! For an app access token, the scopes count that each user has granted to the client id at any time, not a token of
//! that user.

use std::collections::BTreeSet;

use super::catalog;
use super::subscription::SubscriptionKey;

/// Names of scopes.
pub type Scopes = BTreeSet<Box<str>>;

/// Scopes that one user must have granted for one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need<'a> {
    pub user_id: &'a str,
    /// Groups of scopes; one scope of each group is needed.
    pub groups: &'static [Vec<String>],
    /// Whether the grant is indispensable. If false, a fact that the API does not show (being a moderator, for
    /// example) can replace it.
    pub certain: bool,
}

impl Need<'_> {
    /// Returns the groups of which none of these scopes is a member.
    pub fn missing(&self, granted: &Scopes) -> Vec<&'static [String]> {
        let lacks = |group: &&Vec<String>| !group.iter().any(|scope| granted.contains(scope.as_str()));
        self.groups.iter().filter(lacks).map(Vec::as_slice).collect()
    }
}

/// Returns the grants that a subscription needs, if the catalogue knows its type.
pub fn needs(key: &SubscriptionKey) -> Vec<Need<'_>> {
    let Some(row) = catalog::lookup(&key.subscription_type, &key.version) else { return vec![] };
    let user = |field: &str| key.condition.get(field);
    let granting = row.scope_granted_by.as_deref().and_then(user);
    let mut needs = Vec::new();
    if let Some(user_id) = granting.filter(|_| !row.scopes.is_empty()) {
        needs.push(Need { user_id, groups: &row.scopes, certain: true });
    }
    for grant in &row.additional_grants {
        let Some(user_id) = user(&grant.field) else { continue };
        // The owner of a channel needs no permission in it.
        if grant.alternative.is_some() && Some(user_id) == granting {
            continue;
        }
        needs.push(Need { user_id, groups: &grant.scopes, certain: grant.alternative.is_none() });
    }
    needs
}

/// Returns a small set of scopes with one of each group: granted scopes first, then those in most groups, then the
/// first of a group.
pub fn smallest<'a>(groups: impl IntoIterator<Item = &'a [String]>, granted: &Scopes) -> Scopes {
    let mut left: Vec<&[String]> = groups.into_iter().filter(|group| !group.is_empty()).collect();
    let mut chosen = Scopes::new();
    while let Some(first) = left.iter().min_by_key(|group| group.len()).copied() {
        let serves = |scope: &String| left.iter().filter(|group| group.contains(scope)).count();
        let rank = |(place, scope): &(usize, &String)| {
            (granted.contains(scope.as_str()), serves(scope), std::cmp::Reverse(*place))
        };
        let best = first.iter().enumerate().max_by_key(rank);
        let Some((_, best)) = best else { break };
        left.retain(|group| !group.contains(best));
        chosen.insert(best.as_str().into());
    }
    chosen
}

/// Joins scopes with spaces, which is Twitch's format.
pub fn list(scopes: &Scopes) -> String {
    scopes.iter().map(|scope| &**scope).collect::<Vec<_>>().join(" ")
}

/// Describes groups in words; one scope of each is enough.
pub fn words(groups: &[&[String]]) -> String {
    groups.iter().map(|group| group.join(" or ")).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::subscription::Condition;

    fn key(name: &str, version: &str, condition: &[(&str, &str)]) -> SubscriptionKey {
        SubscriptionKey::new(name, version, Condition::from_pairs(condition.iter().copied()))
    }

    fn scopes(names: &[&str]) -> Scopes {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn needed_grants_of_types() {
        let online = key("stream.online", "1", &[("broadcaster_user_id", "1")]);
        assert_eq!(needs(&online), []);
        let follow = key("channel.follow", "2", &[("broadcaster_user_id", "1"), ("moderator_user_id", "2")]);
        let needs_of = needs(&follow);
        assert_eq!((needs_of.len(), needs_of[0].user_id, needs_of[0].certain), (1, "2", true));
        assert_eq!(words(&needs_of[0].missing(&Scopes::new())), "moderator:read:followers");
        assert!(needs_of[0].missing(&scopes(&["moderator:read:followers"])).is_empty());

        let chat = key("channel.chat.message", "1", &[("broadcaster_user_id", "1"), ("user_id", "3")]);
        let needs_of = needs(&chat);
        assert_eq!((needs_of[0].user_id, needs_of[0].certain), ("3", true));
        assert_eq!((needs_of[1].user_id, needs_of[1].certain), ("1", false), "or a moderator");
        assert_eq!(
            words(&needs_of[0].missing(&scopes(&["user:bot"]))),
            "user:read:chat",
            "what is there is not missing"
        );
        let own = key("channel.chat.message", "1", &[("broadcaster_user_id", "3"), ("user_id", "3")]);
        assert_eq!(needs(&own).len(), 1, "the owner of a channel asks nobody");
        assert_eq!(needs(&key("channel.novelty", "1", &[])), []);
    }

    #[test]
    fn the_smallest_set_of_scopes_is_chosen() {
        let groups = [
            vec!["read:a".to_owned(), "manage:a".to_owned()],
            vec!["read:b".to_owned(), "manage:b".to_owned()],
            vec!["manage:b".to_owned()],
        ];
        let groups = || groups.iter().map(Vec::as_slice);
        assert_eq!(smallest(groups(), &Scopes::new()), scopes(&["read:a", "manage:b"]));
        assert_eq!(smallest(groups(), &scopes(&["manage:a"])), scopes(&["manage:a", "manage:b"]));
    }

    proptest! {
        #[test]
        fn the_chosen_scopes_serve_every_group_and_none_is_superfluous(
            groups in prop::collection::vec(prop::collection::vec("[a-e]", 1..4), 0..8),
            granted in prop::collection::vec("[a-e]", 0..3),
        ) {
            let granted: Scopes = granted.into_iter().map(Into::into).collect();
            let chosen = smallest(groups.iter().map(Vec::as_slice), &granted);
            for group in &groups {
                prop_assert!(group.iter().any(|scope| chosen.contains(scope.as_str())));
            }
            prop_assert!(chosen.iter().all(|scope| groups.iter().any(|group| group.iter().any(|s| **s == **scope))));
        }
    }
}
