//! The limits that a run meets while it creates, applied to a plan. ◆

use crate::reconcile::decide::action::{Action, Blocked, Plan};
use crate::reconcile::decide::park::Obstacle;
use crate::reconcile::decide::reason;

/// Blocks what has no room left under the cost limit, in the order in which a run creates and deletes. Costs are
/// taken at their worst: Twitch says the true ones only once it has created.
pub(super) fn apply_cost_limit(plan: &mut Plan, total: u64, max: u64) {
    if max == 0 {
        return;
    }
    let mut room = max.saturating_sub(total);
    let mut fits = Vec::with_capacity(plan.actions.len());
    for action in std::mem::take(&mut plan.actions) {
        match &action {
            Action::Delete { cost, .. } => room = room.saturating_add(*cost),
            Action::Create { key, worst_cost, .. } if *worst_cost > room => {
                plan.blocked.push(Blocked {
                    key: key.clone(),
                    obstacle: Obstacle::Cost,
                    reason: reason::cost_limit(),
                    retry_in: None,
                    delivers: false,
                });
                continue;
            }
            Action::Create { worst_cost, .. } => room -= *worst_cost,
        }
        fits.push(action);
    }
    plan.actions = fits;
    plan.blocked.sort_unstable_by(|a, b| a.key.cmp(&b.key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subscription::{Condition, SubscriptionKey};
    use crate::reconcile::decide::action::DeleteReason;

    fn key(number: usize) -> SubscriptionKey {
        let id = format!("{number:05}");
        SubscriptionKey::new(
            "stream.online",
            "1",
            Condition::from_pairs([("broadcaster_user_id", id.as_str())]),
        )
    }

    fn create(number: usize, worst_cost: u64) -> Action {
        Action::Create { key: key(number), worst_cost, exact: true, batching: false, moves: false }
    }

    #[test]
    fn what_has_no_room_is_blocked_and_what_costs_nothing_goes_on() {
        let actions = (0..10_300).map(|number| create(number, 1)).chain([create(20_000, 0)]);
        let mut plan = Plan { actions: actions.collect(), ..Plan::default() };
        apply_cost_limit(&mut plan, 100, 10_000);
        assert_eq!((plan.actions.len(), plan.blocked.len()), (9_901, 400));
        assert!(plan.blocked.iter().all(|blocked| blocked.obstacle == Obstacle::Cost));

        let delete = Action::Delete { id: "s".into(), key: key(1), cost: 2, reason: DeleteReason::Unwanted };
        let actions = vec![create(1, 1), delete, create(2, 1), create(3, u64::MAX)];
        let mut plan = Plan { actions, ..Plan::default() };
        apply_cost_limit(&mut plan, u64::MAX, 10);
        assert_eq!((plan.actions.len(), plan.blocked.len()), (2, 2), "a delete makes room");

        let mut plan = Plan { actions: vec![create(1, 1)], ..Plan::default() };
        apply_cost_limit(&mut plan, 0, 0);
        assert_eq!(plan.blocked.len(), 0, "without a known limit nothing is blocked");
    }
}
