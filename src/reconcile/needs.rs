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
use crate::helix::{Helix, HelixError, HelixErrorKind, MAX_GRANTS, UserGrants};
use crate::model::grants::{self, Scopes};
use crate::model::text::chain;

/// The grants of one user: needed, present and missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserNeeds {
    pub user_id: Box<str>,
    /// The login, when Twitch knows it.
    pub login: Option<Box<str>>,
    /// The fewest scopes that serve all subscriptions.
    pub scopes: Scopes,
    pub granted: Scopes,
    /// The fewest scopes that are missing for certain, if nothing else is granted than `granted`.
    pub missing: Scopes,
    /// Whether Twitch has said what is granted.
    pub is_known: bool,
}

/// The answer of [`who_must_grant`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub users: Vec<UserNeeds>,
    /// Remarks for people about answers and rows that could not be read.
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
    needs_of(helix, desired, only).await
}

pub(super) async fn needs_of<A: Api>(
    api: &A,
    desired: &Desired,
    only: Option<&[String]>,
) -> Result<Needs, RunError> {
    let mut tables = Tables::new(MemoryHandle::read_only(Arc::new(())), &ReconcileOptions::new(""));
    tables.find_logins(api, desired).await?;
    let wanted = tables.wanted_by_file(desired);
    let mut ids: BTreeMap<&str, Vec<grants::Need<'_>>> = BTreeMap::new();
    for need in wanted.keys.iter().flat_map(grants::needs) {
        ids.entry(need.user_id).or_default().push(need);
    }
    let by_id = tables.logins_by_id();
    let nameless: Vec<&str> = ids.keys().copied().filter(|id| !by_id.contains_key(id)).collect();
    let mut names: HashMap<Box<str>, Box<str>> = HashMap::new();
    let mut remarks = Vec::new();
    for asked in nameless.chunks(USERS_PER_CALL) {
        match api.users_by_id(asked).await {
            Ok(users) => names.extend(users.into_iter().map(|user| (user.id, user.login))),
            Err(failure) if !is_about_one_answer(&failure) => {
                return Err(RunError::api("logins could not be looked up", failure));
            }
            Err(failure) => {
                remarks.push(format!(
                    "some logins could not be looked up, ids stand for them: {}",
                    chain(&failure)
                ));
            }
        }
    }
    let login_of = |id: &str| by_id.get(id).copied().or_else(|| names.get(id).map(|login| &**login));
    if let Some(only) = only {
        ids.retain(|id, _| login_of(id).is_some_and(|login| only.iter().any(|wanted| *wanted == *login)));
    }
    let asked: Vec<&str> = ids.keys().copied().collect();
    let mut granted: HashMap<Box<str>, Scopes> = HashMap::new();
    let (mut unread, mut unknown) = (Vec::new(), BTreeSet::new());
    for part in asked.chunks(MAX_GRANTS) {
        let answer = match api.grants(part).await {
            Ok(answer) => answer,
            Err(failure) if !is_about_one_answer(&failure) => {
                return Err(RunError::api("grants could not be looked up", failure));
            }
            Err(failure) => {
                unknown.extend(part.iter().copied());
                let users =
                    if part.len() == 1 { "1 user".to_owned() } else { format!("{} users", part.len()) };
                remarks.push(format!("Twitch does not say what {users} have granted: {}", chain(&failure)));
                continue;
            }
        };
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
        .map(|(id, needs)| {
            let granted = granted.remove(id).unwrap_or_default();
            let all = needs.iter().flat_map(|need| need.groups).map(Vec::as_slice);
            let missing = needs.iter().filter(|need| need.certain).flat_map(|need| need.missing(&granted));
            UserNeeds {
                user_id: id.into(),
                login: login_of(id).map(Into::into),
                scopes: grants::smallest(all, &granted),
                missing: grants::smallest(missing, &granted),
                is_known: !unknown.contains(id),
                granted,
            }
        })
        .collect();
    users.sort_unstable_by(|a, b| (&a.login, &a.user_id).cmp(&(&b.login, &b.user_id)));
    remarks.extend(reason::unread_rows("permissions", &unread));
    Ok(Needs { users, remarks })
}

/// Whether other requests may well have better answers.
fn is_about_one_answer(failure: &HelixError) -> bool {
    matches!(failure, HelixError::Garbled { .. }) || failure.kind() == HelixErrorKind::Refused
}
