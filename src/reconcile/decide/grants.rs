//! Table of grants: what users have granted, as far as Twitch was asked, and what is missing. ◆
//!
//! Kept in memory only, and believed for a while: an event that tells of a change makes it forgotten sooner.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::helix::UserGrants;
use crate::model::grants::{self, Scopes};
use crate::model::status::GrantStatus;
use crate::model::subscription::SubscriptionKey;

/// Lifetime of an answer: less than the first pause of a subscription that waits for a grant.
const LIFE: Duration = Duration::from_secs(240);

#[derive(Clone, Debug)]
struct Known {
    scopes: Scopes,
    /// `None` if Twitch does not say.
    has_authorized: Option<bool>,
    until: Instant,
}

/// The table of them.
#[derive(Clone, Debug, Default)]
pub(in crate::reconcile) struct Grants {
    known: HashMap<Box<str>, Known>,
    /// Logins by id, of those that Twitch was asked about.
    logins: HashMap<Box<str>, Box<str>>,
}

impl Grants {
    /// Forgets one user: the grants have changed.
    pub(in crate::reconcile) fn forget(&mut self, user_id: &str) {
        self.known.remove(user_id);
    }

    pub(in crate::reconcile) fn forget_all(&mut self) {
        self.known.clear();
    }

    /// The users whose grants these subscriptions need, and that are not known.
    pub(in crate::reconcile) fn unknown<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a SubscriptionKey>,
        now: Instant,
    ) -> Vec<Box<str>> {
        let mut users = BTreeSet::new();
        for key in keys {
            users.extend(grants::needs(key).into_iter().filter(|need| need.certain).map(|need| need.user_id));
        }
        let stale = |id: &&str| self.known.get(*id).is_none_or(|known| known.until <= now);
        users.into_iter().filter(stale).map(Into::into).collect()
    }

    /// Takes an answer. Users who are not in a `whole` one have granted nothing; if rows of it could not be
    /// read, nothing is known of them.
    pub(in crate::reconcile) fn answered(
        &mut self,
        asked: &[Box<str>],
        rows: Vec<UserGrants>,
        whole: bool,
        now: Instant,
    ) {
        let mut rows: HashMap<Box<str>, (Scopes, Option<bool>)> = rows
            .into_iter()
            .map(|row| {
                if !row.user.login.is_empty() {
                    self.logins.insert(row.user.id.clone(), row.user.login);
                }
                let scopes = if row.has_authorized == Some(false) { Scopes::new() } else { row.scopes };
                let has_authorized = row.has_authorized.or((!scopes.is_empty()).then_some(true));
                (row.user.id, (scopes, has_authorized))
            })
            .collect();
        for id in asked {
            let (scopes, has_authorized) = match rows.remove(id) {
                Some(known) => known,
                None if whole => (Scopes::new(), None),
                None => continue,
            };
            self.known.insert(id.clone(), Known { scopes, has_authorized, until: now + LIFE });
        }
    }

    /// The users that Twitch was not asked about, or long ago.
    pub(in crate::reconcile) fn unasked(
        &self,
        users: impl Iterator<Item = Box<str>>,
        now: Instant,
    ) -> Vec<Box<str>> {
        users.filter(|id| self.known.get(id).is_none_or(|known| known.until <= now)).collect()
    }

    /// Whether one of the users has authorized the application, as far as Twitch has said.
    pub(in crate::reconcile) fn has_authorized<'a>(
        &self,
        users: impl IntoIterator<Item = &'a str>,
    ) -> Option<bool> {
        let mut answer = Some(false);
        for user in users {
            match self.known.get(user).and_then(|known| known.has_authorized) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => answer = None,
            }
        }
        answer
    }

    /// Users whose logins nobody has said.
    pub(in crate::reconcile) fn nameless<'a>(
        &'a self,
        users: impl Iterator<Item = &'a str>,
        by_id: &HashMap<&str, &str>,
    ) -> Vec<Box<str>> {
        let named = |id: &&str| self.logins.contains_key(*id) || by_id.contains_key(*id);
        users.filter(|id| !named(id)).map(Into::into).collect()
    }

    /// Records logins by id.
    pub(in crate::reconcile) fn name(&mut self, users: impl IntoIterator<Item = (Box<str>, Box<str>)>) {
        self.logins.extend(users);
    }

    fn login<'a>(&'a self, id: &'a str, by_id: &HashMap<&str, &'a str>) -> Option<&'a str> {
        by_id.get(id).copied().or_else(|| self.logins.get(id).map(|login| &**login))
    }

    /// The users of whom these subscriptions miss something for certain: each with the groups that are missing.
    pub(in crate::reconcile) fn wanting<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a SubscriptionKey>,
    ) -> BTreeMap<&'a str, BTreeSet<&'static [String]>> {
        let mut wanting: BTreeMap<&str, BTreeSet<&'static [String]>> = BTreeMap::new();
        for key in keys {
            for need in grants::needs(key).into_iter().filter(|need| need.certain) {
                let Some(known) = self.known.get(need.user_id) else { continue };
                let missing = need.missing(&known.scopes);
                if !missing.is_empty() {
                    wanting.entry(need.user_id).or_default().extend(missing);
                }
            }
        }
        wanting
    }

    /// Why each of these subscriptions would be refused for certain.
    pub(in crate::reconcile) fn refusals<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a SubscriptionKey>,
        by_id: &HashMap<&str, &str>,
    ) -> HashMap<SubscriptionKey, String> {
        let mut refusals = HashMap::new();
        for key in keys {
            let wanting = self.wanting([key]);
            if wanting.is_empty() {
                continue;
            }
            let reasons: Vec<String> = wanting
                .into_iter()
                .map(|(user, groups)| {
                    let groups: Vec<&[String]> = groups.into_iter().collect();
                    let words = grants::words(&groups);
                    match self.login(user, by_id) {
                        Some(login) => {
                            format!("{login} must allow {words}: run `eventsubd authorize --user {login}`")
                        }
                        None => format!("the user {user} must allow {words}"),
                    }
                })
                .collect();
            refusals.insert(key.clone(), format!("needs grant: {}", reasons.join("; ")));
        }
        refusals
    }

    /// The known grants of the users that these subscriptions need, sorted by login.
    pub(in crate::reconcile) fn status<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a SubscriptionKey> + Clone,
        by_id: &HashMap<&str, &str>,
    ) -> Vec<GrantStatus> {
        let mut wanting = self.wanting(keys.clone());
        let mut users = BTreeSet::new();
        for key in keys {
            users.extend(grants::needs(key).into_iter().filter(|need| need.certain).map(|need| need.user_id));
        }
        let mut status: Vec<GrantStatus> = users
            .into_iter()
            .filter_map(|id| {
                let known = self.known.get(id)?;
                let missing: Vec<&[String]> = wanting.remove(id).unwrap_or_default().into_iter().collect();
                Some(GrantStatus {
                    user_id: id.into(),
                    login: self.login(id, by_id).map(Into::into),
                    granted: known.scopes.clone(),
                    missing: grants::smallest(missing.iter().copied(), &known.scopes),
                })
            })
            .collect();
        status.sort_unstable_by(|a, b| (&a.login, &a.user_id).cmp(&(&b.login, &b.user_id)));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helix::User;
    use crate::model::subscription::Condition;

    fn follow(broadcaster: &str, moderator: &str) -> SubscriptionKey {
        SubscriptionKey::new(
            "channel.follow",
            "2",
            Condition::from_pairs([("broadcaster_user_id", broadcaster), ("moderator_user_id", moderator)]),
        )
    }

    fn row(id: &str, scopes: &[&str]) -> UserGrants {
        let scopes = scopes.iter().map(|&scope| scope.into()).collect();
        let user = User { id: id.into(), login: format!("user{id}").into() };
        UserGrants { user, scopes, has_authorized: None }
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let (mut table, now) = (Grants::default(), Instant::now());
        let keys = [follow("1", "1"), follow("1", "2"), follow("1", "3")];
        let asked = table.unknown(&keys, now);
        assert_eq!(asked, ["1", "2", "3"].map(Box::from));
        assert!(table.refusals(&keys, &HashMap::new()).is_empty(), "what is not known is tried");
        let rows = vec![row("1", &["moderator:read:followers"]), row("2", &["user:bot"])];
        table.answered(&asked, rows, true, now);
        assert!(table.unknown(&keys, now).is_empty());
        let refusals = table.refusals(&keys, &HashMap::from([("3", "helper")]));
        assert_eq!(refusals.len(), 2);
        assert_eq!(
            refusals[&keys[1]],
            "needs grant: user2 must allow moderator:read:followers: run `eventsubd authorize --user user2`"
        );
        assert!(refusals[&keys[2]].contains("--user helper"));
        let status = table.status(&keys, &HashMap::new());
        assert_eq!(status.iter().map(|user| user.missing.len()).collect::<Vec<_>>(), [1, 0, 1]);

        table.forget("2");
        assert_eq!(table.unknown(&keys, now), ["2".into()]);
        assert_eq!(table.unknown(&keys, now + LIFE).len(), 3, "answers grow old");
    }

    #[test]
    fn an_authorization_is_believed_only_if_twitch_says_so() {
        let (mut table, now) = (Grants::default(), Instant::now());
        let asked: Vec<Box<str>> = ["1", "2", "3", "4", "5"].map(Box::from).into();
        let says = |id: &str, says| UserGrants { has_authorized: says, ..row(id, &[]) };
        let rows =
            vec![says("1", Some(true)), says("2", Some(false)), says("3", None), row("4", &["bits:read"])];
        table.answered(&asked, rows, true, now);
        for (users, answer) in [
            (&["1"][..], Some(true)),
            (&["2"], Some(false)),
            (&["3"], None),
            (&["4"], Some(true)),
            (&["5"], None),
            (&["6"], None),
            (&["2", "1"], Some(true)),
            (&["3", "1"], Some(true)),
            (&["2", "3"], None),
        ] {
            assert_eq!(table.has_authorized(users.iter().copied()), answer, "{users:?}");
        }
        assert_eq!(table.unasked(["1".into(), "7".into()].into_iter(), now), ["7".into()]);
    }

    #[test]
    fn whoever_could_not_be_read_is_not_refused() {
        let (mut table, now) = (Grants::default(), Instant::now());
        let keys = [follow("1", "1"), follow("1", "2"), follow("1", "3")];
        let asked = table.unknown(&keys, now);
        let withdrawn = UserGrants { has_authorized: Some(false), ..row("2", &["moderator:read:followers"]) };
        table.answered(&asked, vec![row("1", &["moderator:read:followers"]), withdrawn], false, now);
        assert_eq!(table.unknown(&keys, now), ["3".into()], "the row of 3 could not be read");
        let refusals = table.refusals(&keys, &HashMap::new());
        assert_eq!(
            refusals.keys().collect::<Vec<_>>(),
            [&keys[1]],
            "scopes without an authorization are void"
        );
    }
}
