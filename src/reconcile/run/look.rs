//! Asking Twitch: what is there, who has granted what, and which ids logins have.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;

use super::{Stop, stop};
use crate::helix::{Filter, MAX_GRANTS, SubscriptionList, User};
use crate::model::subscription::{SubscriptionKey, SubscriptionSpec};
use crate::reconcile::Desired;
use crate::reconcile::api::{Api, Failure};
use crate::reconcile::clock::wall;
use crate::reconcile::decide::grants::Grants;
use crate::reconcile::decide::logins::{Logins, USERS_PER_CALL};

/// Calls in hand at most.
pub(in crate::reconcile) const LOOKUPS: usize = 8;

/// Whether neither a shard nor a subscription was ever put on it.
pub(in crate::reconcile) async fn is_unused<A: Api>(api: &A, conduit_id: &str) -> Result<bool, Stop> {
    let failed = |failure: Failure| stop("a conduit that may be ours could not be looked at", &failure);
    // A row that cannot be read is a row.
    let shards = api.shards(conduit_id).await.map_err(failed)?;
    if !shards.rows.is_empty() || !shards.unread.is_empty() {
        return Ok(false);
    }
    let list = api.subscriptions(&Filter::Conduit(conduit_id.to_owned())).await.map_err(failed)?;
    Ok(list.rows.is_empty() && list.unread.is_empty())
}

/// Asks what users have granted whose grants these subscriptions need. What Twitch does not say is not known:
/// then creating is what tells. Returns what a person should know of the answers.
pub(in crate::reconcile) async fn look_at_grants<'a, A: Api>(
    api: &A,
    grants: &mut Grants,
    keys: impl Iterator<Item = &'a SubscriptionKey>,
    by_id: &HashMap<&str, &str>,
    now: std::time::Instant,
) -> Vec<String> {
    let unknown = grants.unknown(keys, now);
    if unknown.is_empty() {
        return Vec::new();
    }
    tracing::debug!(users = unknown.len(), "looking at what users have granted");
    let calls: Vec<Vec<Box<str>>> = unknown.chunks(MAX_GRANTS).map(<[_]>::to_vec).collect();
    let mut answers = futures_util::stream::iter(calls)
        .map(|asked| {
            let api = api.clone();
            async move {
                let ids: Vec<&str> = asked.iter().map(|id| &**id).collect();
                let rows = api.grants(&ids).await;
                (asked, rows)
            }
        })
        .buffer_unordered(LOOKUPS);
    let (mut failure, mut unread) = (None, Vec::new());
    while let Some((asked, rows)) = answers.next().await {
        match rows {
            Ok(rows) => {
                grants.answered(&asked, rows.rows, rows.unread.is_empty(), now);
                unread.extend(rows.unread);
            }
            Err(failed) => failure = Some(failed),
        }
    }
    let mut remarks = Vec::new();
    if let Some(failure) = failure {
        tracing::info!(error = %failure, "twitch does not say what some users have granted; it is tried without");
        remarks.push(format!("Twitch does not say what some users have granted: {failure}"));
    }
    remarks.extend(unread_remark("permissions", &unread));
    let nameless = grants.nameless(unknown.iter().map(|id| &**id), by_id);
    for asked in nameless.chunks(USERS_PER_CALL) {
        let ids: Vec<&str> = asked.iter().map(|id| &**id).collect();
        if let Ok(users) = api.users_by_id(&ids).await {
            grants.name(users.into_iter().map(|user| (user.id, user.login)));
        }
    }
    remarks
}

/// What to say of rows that could not be read.
pub(in crate::reconcile) fn unread_remark(what: &str, unread: &[Box<str>]) -> Option<String> {
    let first = unread.first()?;
    let more = match unread.len() - 1 {
        0 => String::new(),
        1 => ", and 1 more row".to_owned(),
        more => format!(", and {more} more rows"),
    };
    Some(format!("part of Twitch's answer about {what} cannot be read: {first}{more}"))
}

pub(in crate::reconcile) async fn list<A: Api>(api: &A, filter: &Filter) -> Result<SubscriptionList, Stop> {
    api.subscriptions(filter).await.map_err(|failure| stop("the subscriptions could not be listed", &failure))
}

/// The users of these logins. One login that Twitch refuses fails its whole call: the call is halved
/// until that login is alone, and counts as not found.
pub(in crate::reconcile) async fn look_up<A: Api>(
    api: &A,
    logins: &[Arc<str>],
) -> Result<Vec<User>, Failure> {
    let mut users = Vec::new();
    let mut calls = vec![logins];
    while let Some(logins) = calls.pop() {
        let names: Vec<&str> = logins.iter().map(|login| &**login).collect();
        match api.users_by_login(&names).await {
            Ok(found) => users.extend(found),
            Err(Failure::Invalid { .. }) if logins.len() == 1 => {}
            Err(Failure::Invalid { .. }) => {
                let (left, right) = logins.split_at(logins.len() / 2);
                calls.extend([left, right]);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(users)
}

/// Asks for the ids of the logins that are not known.
pub(in crate::reconcile) async fn find_logins<A: Api>(
    api: &A,
    logins: &mut Logins,
    desired: &Desired,
    now: std::time::Instant,
) -> Result<(), Failure> {
    let missing = logins.missing(desired.specs.iter().flat_map(SubscriptionSpec::logins), now);
    for asked in missing.chunks(USERS_PER_CALL) {
        let users = look_up(api, asked).await?;
        logins.answered(asked, &users, now, wall());
    }
    Ok(())
}
