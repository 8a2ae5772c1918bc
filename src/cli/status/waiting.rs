//! Reasons why a daemon has not converged yet.

use crate::model::status::{Status, TokenState};
use crate::model::text::counted;

/// Number of subscriptions still to be created or verified.
pub(in crate::cli) fn pending(status: &Status) -> u64 {
    status.subscription_counts.pending
}

/// Why Twitch does not match the file yet, the cause before its consequences; empty when it does.
pub(in crate::cli) fn reasons(status: &Status) -> Vec<String> {
    let mut found = Vec::new();
    if status.converged {
        return found;
    }
    match status.token.state {
        TokenState::Valid | TokenState::Renewing => {}
        TokenState::Minting => found.push("there is no token yet".to_owned()),
        TokenState::Refused => found.push("Twitch refuses the client id or the secret".to_owned()),
        TokenState::Unavailable => found.push("there is no token: Twitch did not issue one".to_owned()),
    }
    match &status.reconcile.conduit {
        Some(conduit) if !status.shards.is_empty() || status.cluster.is_some() => {
            let bound = status.delivering_shards();
            if bound < conduit.shard_count as usize {
                found.push(format!("{bound} of {} deliver", counted(conduit.shard_count.into(), "shard")));
            }
        }
        None if status.webhook.is_none() => found.push("there is no conduit yet".to_owned()),
        _ => {}
    }
    let reconcile = &status.reconcile;
    if let Some(problem) = &reconcile.problem {
        found.push(format!("the last run ended early: {problem}"));
    }
    if let Some(progress) = reconcile.progress {
        found.push(format!("{} of {} changes made", progress.done, progress.total));
    } else if reconcile.generation == 0
        && let Some(at) = reconcile.remembered
    {
        found.push(match status.cluster {
            Some(_) => format!(
                "a host found at {at} that Twitch matches the file; the list is compared again once \
                 `reconcile.interval` is over, or by `eventsubd apply`"
            ),
            None => "Twitch's list is being read, to be compared with the file".to_owned(),
        });
    } else if reconcile.generation < status.config.generation {
        found.push(match status.config.generation {
            0 | 1 => "the first sync with Twitch has not finished".to_owned(),
            newer => format!("configuration {newer} has not been applied yet"),
        });
    }
    if reconcile.moving > 0 {
        let moving = counted(reconcile.moving, "subscription");
        found.push(format!("{moving} being moved to another method, callback or secret"));
    }
    let pending = pending(status);
    if pending > 0 {
        found.push(format!("{} to be created or verified", counted(pending, "subscription")));
    }
    if let Some(held) = reconcile.deletes_held {
        let deletes = counted(held.deletes, "delete");
        found.push(format!(
            "{deletes} held back: see `eventsubd plan`, then run `eventsubd apply --allow-deletes`"
        ));
    }
    if found.is_empty() {
        found.push("the next run has something left to do".to_owned());
    }
    found
}
