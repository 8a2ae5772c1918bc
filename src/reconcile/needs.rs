//! The grants that the file's subscriptions need, for `eventsubd authorize`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::api::Api;
use super::decide::logins::USERS_PER_CALL;
use super::decide::reason;
use super::error::RunError;
use super::memory::MemoryHandle;
use super::run::tables::Tables;
use super::{Desired, ReconcileOptions};
use crate::helix::{Helix, MAX_GRANTS, UserGrants};
use crate::model::grants::{self, Scopes};

/// The grants of one user: needed, present and missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserNeeds {
    pub user_id: Box<str>,
    /// The login, when Twitch knows it.
    pub login: Option<Box<str>>,
    /// The fewest scopes that serve all subscriptions.
    pub scopes: Scopes,
    pub granted: Scopes,
    /// The fewest scopes that are missing for certain.
    pub missing: Scopes,
}

/// The answer of [`who_must_grant`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Users of whom Twitch's answer could not be read are left out.
    pub users: Vec<UserNeeds>,
    /// Remarks for people about rows that could not be read.
    pub remarks: Vec<String>,
}

/// Looks up the grants that the file's subscriptions need, sorted by login. `only` limits the answer to these logins.
///
/// # Errors
/// Twitch does not say.
pub async fn who_must_grant(
    helix: &Helix,
    desired: &Desired,
    only: Option<&[String]>,
) -> Result<Needs, RunError> {
    let mut tables = Tables::new(MemoryHandle::read_only(Arc::new(())), &ReconcileOptions::new(""));
    tables.find_logins(helix, desired).await?;
    let wanted = tables.wanted_by_file(desired);
    let mut ids: BTreeMap<&str, Vec<grants::Need<'_>>> = BTreeMap::new();
    for need in wanted.keys.iter().flat_map(grants::needs) {
        ids.entry(need.user_id).or_default().push(need);
    }
    let by_id = tables.logins_by_id();
    let nameless: Vec<&str> = ids.keys().copied().filter(|id| !by_id.contains_key(id)).collect();
    let mut names: HashMap<Box<str>, Box<str>> = HashMap::new();
    for asked in nameless.chunks(USERS_PER_CALL) {
        let users = Api::users_by_id(helix, asked).await;
        let users = users.map_err(|failure| RunError::api("logins could not be looked up", failure))?;
        names.extend(users.into_iter().map(|user| (user.id, user.login)));
    }
    let login_of = |id: &str| by_id.get(id).copied().or_else(|| names.get(id).map(|login| &**login));
    if let Some(only) = only {
        ids.retain(|id, _| login_of(id).is_some_and(|login| only.iter().any(|wanted| *wanted == *login)));
    }
    let asked: Vec<&str> = ids.keys().copied().collect();
    let mut granted: HashMap<Box<str>, Scopes> = HashMap::new();
    let (mut unread, mut unknown) = (Vec::new(), BTreeSet::new());
    for part in asked.chunks(MAX_GRANTS) {
        let answer = Api::grants(helix, part).await;
        let answer = answer.map_err(|failure| RunError::api("grants could not be looked up", failure))?;
        let of = |row: UserGrants| {
            let scopes = if row.has_authorized == Some(false) { Scopes::new() } else { row.scopes };
            (row.user.id, scopes)
        };
        granted.extend(answer.rows.into_iter().map(of));
        if !answer.unread.is_empty() {
            unknown.extend(part.iter().copied().filter(|id| !granted.contains_key(*id)));
            unread.extend(answer.unread);
        }
    }
    let mut users: Vec<UserNeeds> = ids
        .into_iter()
        .filter(|(id, _)| !unknown.contains(id))
        .map(|(id, needs)| {
            let granted = granted.remove(id).unwrap_or_default();
            let all = needs.iter().flat_map(|need| need.groups).map(Vec::as_slice);
            let missing = needs.iter().filter(|need| need.certain).flat_map(|need| need.missing(&granted));
            UserNeeds {
                user_id: id.into(),
                login: login_of(id).map(Into::into),
                scopes: grants::smallest(all, &granted),
                missing: grants::smallest(missing, &granted),
                granted,
            }
        })
        .collect();
    users.sort_unstable_by(|a, b| (&a.login, &a.user_id).cmp(&(&b.login, &b.user_id)));
    Ok(Needs { users, remarks: reason::unread_rows("permissions", &unread).into_iter().collect() })
}
