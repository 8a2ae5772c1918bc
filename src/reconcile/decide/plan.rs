//! From what is wanted and what is there to what must be done, and what cannot be done and why. ◆
//!
//! The one place that decides about creating and deleting; execution makes no choices, and
//! `eventsubd plan` prints what this returns. It never touches a row that is not on a place of ours, and
//! never deletes a live row that is wanted before another one delivers in its stead. There are two
//! exceptions: Twitch allows three equal rows of a client, and `max_total_cost` may leave no room for a second
//! one; then the old row goes first.

mod hold;
mod rows;
mod types;

use std::collections::HashMap;

#[cfg(test)]
pub(in crate::reconcile) use self::hold::FREE_DELETES;
use self::hold::{Deletes, hold, is_near_a_hold};
pub(in crate::reconcile) use self::hold::{Hold, sum_of_keys};
use self::rows::{is_enabled, rank, sort_out};
pub(in crate::reconcile) use self::types::{Input, Planned};
use super::action::{Action, Blocked, DeleteReason};
use super::park::{Obstacle, Standing};
use super::reason;
use crate::model::catalog;
use crate::model::subscription::{Condition, SubscriptionKey, SubscriptionRow};

/// Live rows of a client with the same type and condition (Twitch: "Managing Event Subscriptions").
const EQUAL_ROWS: usize = 3;

/// Subscriptions that one run moves to another place, at most: while one is moved its events come twice, and
/// a run of all takes as long as the rate limit wants.
pub(in crate::reconcile) const MOVES: usize = 1_000;

/// Moves of one run that delete the old row first because the cost has no room for both. Each has a gap.
const MOVES_WITHOUT_ROOM: usize = 100;

/// Plans; see the module's head for the rules.
pub(in crate::reconcile) fn plan(input: &Input<'_>) -> Planned {
    let mut out = Planned::default();
    let mut sorted = sort_out(input, &mut out);

    let many = Deletes { many: sorted.unwanted.len() as u64, ours: out.ours, part: input.max_delete };
    if !input.is_fresh {
        sorted.duplicates.clear();
        let is_moving = sorted.found.iter().any(|found| !found.old.is_empty());
        out.needs_fresh = is_moving || input.hold.is_some() || is_near_a_hold(many);
    }
    out.hold = hold(many, input.hold, input.wanted, input.own).filter(|_| !input.allow_deletes);

    let mut clear = deletes(sorted.dead, |row| DeleteReason::Dead(row.status.as_str().into()));
    let mut spare = deletes(sorted.duplicates, |_| DeleteReason::Duplicate);
    let superseded = sorted.found.iter_mut().filter(|found| found.live.is_some_and(is_enabled));
    spare
        .extend(deletes(superseded.flat_map(|found| found.old.drain(..)).collect(), |_| DeleteReason::Moved));
    let mut last = deletes(sorted.unwanted, |_| DeleteReason::Unwanted);
    if let Some(hold) = out.hold {
        out.plan.held = std::mem::take(&mut last);
        out.plan.held_of = Some(hold.of);
    }
    last.extend(deletes(sorted.unwanted_own, |_| DeleteReason::Unwanted));

    let room = (input.max_total_cost > 0).then(|| input.max_total_cost.saturating_sub(input.total_cost));
    let freed = cost_of(&spare).saturating_add(cost_of(&last));
    clear.extend(spare);
    let mut creates = Vec::new();
    let mut moves = Vec::new();
    let full = room.is_some_and(|room| room.saturating_add(freed) == 0);
    for (key, found) in input.wanted.iter().zip(sorted.found) {
        out.live.push(found.standing());
        if found.live.is_some() {
            out.plan.keep += 1;
            out.moving += u64::from(!found.old.is_empty());
        } else if found.old.is_empty() {
            creates.extend(decide(input, key, found.dead, full, false, &mut out));
        } else if let Some(mut create) = decide(input, key, found.dead, false, true, &mut out) {
            // A successor costs what its predecessor does.
            if let Action::Create { worst_cost, .. } = &mut create {
                *worst_cost = found.old.iter().map(|row| row.cost).max().unwrap_or(*worst_cost);
            }
            moves.push((create, found.old));
        } else {
            out.plan.keep += 1;
        }
    }
    creates.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    out.plan.blocked.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    out.park.sort_unstable();
    out.at_once.sort_unstable();

    let costly = creates.iter().filter(|action| is_costly(action)).count() as u64;
    let short = room.is_some_and(|room| costly > room);
    let space = room.map(|room| room.saturating_add(freed).saturating_sub(costly));
    let (first, moved) = pick_moves(moves, space, full, &sorted.equal, &mut out);
    clear.extend(first);
    creates.extend(moved);
    let (then, finally) = if short { (last, creates) } else { (creates, last) };
    out.plan.actions = clear;
    out.plan.actions.extend(then);
    out.plan.actions.extend(finally);
    out
}

/// The moves of this run: what must be deleted before, and what is made. The others wait for the next run.
fn pick_moves<'a>(
    mut moves: Vec<(Action, Vec<&'a SubscriptionRow>)>,
    space: Option<u64>,
    full: bool,
    equal: &HashMap<(&'a str, &'a Condition), usize>,
    out: &mut Planned,
) -> (Vec<Action>, Vec<Action>) {
    moves.sort_unstable_by(|(a, _), (b, _)| a.key().cmp(b.key()));
    let mut space = space.unwrap_or(u64::MAX);
    let (mut first, mut moved) = (Vec::new(), Vec::new());
    for (create, mut old) in moves {
        let costly = is_costly(&create);
        let fits = !costly || space > 0 || (full && moved.len() < MOVES_WITHOUT_ROOM);
        if moved.len() >= MOVES || !fits {
            out.plan.deferred += 1;
            out.moving += 1;
            continue;
        }
        old.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)));
        let there = old.first().and_then(|row| equal.get(&(&*row.key.subscription_type, &row.key.condition)));
        let mut early = there.map_or(0, |there| (there + 1).saturating_sub(EQUAL_ROWS));
        if costly && space == 0 {
            early = old.len();
        }
        let early = old.split_off(old.len().saturating_sub(early));
        first.extend(deletes(early, |_| DeleteReason::Moved));
        space = space.saturating_sub(u64::from(costly));
        out.moving += 1;
        moved.push(create);
    }
    (first, moved)
}

fn cost_of(deletes: &[Action]) -> u64 {
    let costs = deletes.iter().map(|action| if let Action::Delete { cost, .. } = action { *cost } else { 0 });
    costs.fold(0, u64::saturating_add)
}

fn is_costly(action: &Action) -> bool {
    matches!(action, Action::Create { worst_cost: 1.., .. })
}

/// The action that creates a wanted key without a live row, unless an obstacle is in the way.
fn decide(
    input: &Input<'_>,
    key: &SubscriptionKey,
    dead: Option<(Obstacle, String)>,
    full: bool,
    delivers: bool,
    out: &mut Planned,
) -> Option<Action> {
    let mut block = |obstacle, reason: String, retry_in| {
        out.plan.blocked.push(Blocked { key: key.clone(), obstacle, reason, retry_in, delivers });
    };
    let standing = input.parked.standing(key, input.now);
    if let Standing::Waiting { obstacle, reason, retry_at } = standing {
        block(obstacle, reason.to_owned(), Some(retry_at.saturating_duration_since(input.now)));
        return None;
    }
    if let Some(reason) = input.ungranted.get(key) {
        let retry_in = input.parked.next_pause(key, Obstacle::Grant, input.now);
        block(Obstacle::Grant, reason.clone(), Some(retry_in));
        out.park.push((key.clone(), Obstacle::Grant, reason.clone()));
        return None;
    }
    if let Some(reason) = input.unreachable.filter(|_| input.places.current.is_webhook()) {
        let retry_in = input.parked.next_pause(key, Obstacle::Callback, input.now);
        block(Obstacle::Callback, reason.to_owned(), Some(retry_in));
        out.park.push((key.clone(), Obstacle::Callback, reason.to_owned()));
        return None;
    }
    // A due key is tried whatever its dead row says: that is what being due means.
    if standing != Standing::Due
        && let Some((obstacle, reason)) = &dead
        && (*obstacle != Obstacle::Ended || standing == Standing::Trial)
    {
        let retry_in = input.parked.next_pause(key, *obstacle, input.now);
        block(*obstacle, reason.clone(), Some(retry_in));
        out.park.push((key.clone(), *obstacle, reason.clone()));
        return None;
    }
    let (worst_cost, batching) = catalog::lookup(&key.subscription_type, &key.version)
        .map_or((1, false), |row| (row.cost().worst(), row.batched));
    if full && worst_cost > 0 {
        block(Obstacle::Cost, reason::cost_limit(), None);
        return None;
    }
    if standing == Standing::Free
        && let Some((_, reason)) = dead
    {
        out.at_once.push((key.clone(), reason));
    }
    Some(Action::Create { key: key.clone(), batching, worst_cost, exact: is_exact(key), moves: delivers })
}

/// Whether the catalogue alone tells the cost.
fn is_exact(key: &SubscriptionKey) -> bool {
    let row = catalog::lookup(&key.subscription_type, &key.version);
    row.is_some_and(|row| row.cost().fixed().is_some())
}

/// In an order that does not depend on the input's.
fn deletes(
    mut rows: Vec<&SubscriptionRow>,
    reason: impl Fn(&SubscriptionRow) -> DeleteReason,
) -> Vec<Action> {
    rows.sort_unstable_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
    rows.into_iter()
        .map(|row| Action::Delete {
            id: row.id.clone(),
            key: row.key.clone(),
            reason: reason(row),
            cost: row.cost,
        })
        .collect()
}
