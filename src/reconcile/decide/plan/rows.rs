//! Our rows in Twitch's list, by what becomes of each. ◆

use std::collections::HashMap;

use super::super::park::Obstacle;
use super::super::place::Side;
use super::super::reason;
use super::types::{Input, Live, Planned};
use crate::model::subscription::{
    Condition, SubscriptionId, SubscriptionKey, SubscriptionRow, SubscriptionStatus,
};
use crate::reconcile::Policy;

/// The rows of one wanted key.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) live: Option<&'a SubscriptionRow>,
    /// Live rows on places that we leave.
    pub(super) old: Vec<&'a SubscriptionRow>,
    /// The worst obstacle that its dead rows tell of.
    pub(super) dead: Option<(Obstacle, String)>,
}

impl Found<'_> {
    /// The row that delivers, else the one that will.
    pub(super) fn standing(&self) -> Option<Live> {
        let current = self.live.map(|row| (row, true));
        let old = self.old.iter().map(|row| (*row, false));
        let best = current.into_iter().chain(old).min_by_key(|(row, current)| (rank(row).0, !current))?;
        let (row, current) = best;
        Some(Live { id: row.id.clone(), cost: row.cost, enabled: is_enabled(row), current })
    }
}

/// Our rows by what becomes of them.
pub(super) struct Sorted<'a> {
    /// For each wanted key.
    pub(super) found: Vec<Found<'a>>,
    pub(super) dead: Vec<&'a SubscriptionRow>,
    pub(super) duplicates: Vec<&'a SubscriptionRow>,
    pub(super) unwanted: Vec<&'a SubscriptionRow>,
    /// The daemon's own rows that are no longer wanted. A hold is never about them.
    pub(super) unwanted_own: Vec<&'a SubscriptionRow>,
    /// Live rows of anybody with this type and condition, of those that are to be moved.
    pub(super) equal: HashMap<(&'a str, &'a Condition), usize>,
}

pub(super) fn sort_out<'a>(input: &Input<'a>, out: &mut Planned) -> Sorted<'a> {
    let index: HashMap<&SubscriptionKey, usize> =
        input.wanted.iter().enumerate().map(|(at, key)| (key, at)).collect();
    let mut sorted = Sorted {
        found: input.wanted.iter().map(|_| Found::default()).collect(),
        dead: Vec::new(),
        duplicates: Vec::new(),
        unwanted: Vec::new(),
        unwanted_own: Vec::new(),
        equal: HashMap::new(),
    };
    for row in input.rows {
        let side = input.places.side(&row.target);
        if side == Side::Foreign {
            continue;
        }
        let slot = index.get(&row.key).map(|at| &mut sorted.found[*at]);
        let told =
            reason::of_status(&row.status).or_else(|| input.overdue.contains(&row.id).then(reason::overdue));
        if let Some(told) = told {
            sorted.dead.push(row);
            if let Some(slot) = slot {
                slot.dead = slot.dead.take().max(Some(told));
            }
            continue;
        }
        let is_own = input.own.contains(&row.key);
        out.ours += u64::from(!is_own);
        let Some(slot) = slot else {
            let unwanted = if is_own { &mut sorted.unwanted_own } else { &mut sorted.unwanted };
            unwanted.push(row);
            continue;
        };
        if side == Side::Old {
            slot.old.push(row);
            sorted.equal.insert((&row.key.subscription_type, &row.key.condition), 0);
            continue;
        }
        match slot.live {
            None => slot.live = Some(row),
            Some(other) => {
                let (keep, spare) = if rank(row) < rank(other) { (row, other) } else { (other, row) };
                slot.live = Some(keep);
                sorted.duplicates.push(spare);
            }
        }
    }
    let live = input.rows.iter().filter(|row| row.status.is_live());
    for row in live.take(if sorted.equal.is_empty() { 0 } else { usize::MAX }) {
        if let Some(count) = sorted.equal.get_mut(&(&*row.key.subscription_type, &row.key.condition)) {
            *count += 1;
        }
    }
    // Moved rows go under either policy, since their events would come twice. Beyond that `keep` deletes only dead
    // rows.
    if input.policy == Policy::Keep {
        sorted.duplicates.clear();
        sorted.unwanted.clear();
        sorted.unwanted_own.clear();
    }
    sorted
}

/// Of equal live rows the first by this is kept: one that delivers before one that does not, then
/// any, as long as it is always the same.
pub(super) fn rank(row: &SubscriptionRow) -> (bool, &SubscriptionId) {
    (!is_enabled(row), &row.id)
}

pub(super) fn is_enabled(row: &SubscriptionRow) -> bool {
    row.status == SubscriptionStatus::Enabled
}
