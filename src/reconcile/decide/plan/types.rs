//! Input and outcome of a plan. ◆

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::hold::Hold;
use crate::model::subscription::{SubscriptionId, SubscriptionKey, SubscriptionRow};
use crate::reconcile::Policy;
use crate::reconcile::decide::action::Plan;
use crate::reconcile::decide::park::{Obstacle, ParkTable};
use crate::reconcile::decide::place::Places;

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct Input<'a> {
    /// Rows that point elsewhere are not ours.
    pub(in crate::reconcile) places: &'a Places,
    /// Sorted, each once.
    pub(in crate::reconcile) wanted: &'a [SubscriptionKey],
    /// Twitch's whole list, or the last one with what was done and heard since; more rows than ours do no harm.
    pub(in crate::reconcile) rows: &'a [SubscriptionRow],
    /// Whether the list has just been read. Else a row may be gone, or dead: then nothing is deleted because another
    /// row is there.
    pub(in crate::reconcile) is_fresh: bool,
    pub(in crate::reconcile) parked: &'a ParkTable,
    /// Rows whose challenge Twitch should have sent long ago.
    pub(in crate::reconcile) overdue: &'a HashSet<SubscriptionId>,
    /// Why the callback cannot be reached.
    pub(in crate::reconcile) unreachable: Option<&'a str>,
    /// Subscriptions that Twitch would refuse for want of a grant, with the reason.
    pub(in crate::reconcile) ungranted: &'a HashMap<SubscriptionKey, String>,
    pub(in crate::reconcile) now: Instant,
    pub(in crate::reconcile) policy: Policy,
    /// The daemon's own keys, wanted or not: they count neither as ours nor as deletes when deletes may be held.
    pub(in crate::reconcile) own: &'a HashSet<SubscriptionKey>,
    /// Part of ours, 0 to 1.
    pub(in crate::reconcile) max_delete: f64,
    /// A person has allowed what would be held.
    pub(in crate::reconcile) allow_deletes: bool,
    /// While deletes are held.
    pub(in crate::reconcile) hold: Option<Hold>,
    pub(in crate::reconcile) total_cost: u64,
    /// 0 when it is not known.
    pub(in crate::reconcile) max_total_cost: u64,
}

/// A plan, and what follows from it for our own tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::reconcile) struct Planned {
    pub(in crate::reconcile) plan: Plan,
    /// The live row of each wanted key, in the order of the input.
    pub(in crate::reconcile) live: Vec<Option<Live>>,
    /// Found dead: park these (they are in `plan.blocked`).
    pub(in crate::reconcile) park: Vec<(SubscriptionKey, Obstacle, String)>,
    /// Found dead, and created again at once.
    pub(in crate::reconcile) at_once: Vec<(SubscriptionKey, String)>,
    /// The hold on deletes that is to be remembered; `None` if none are held.
    pub(in crate::reconcile) hold: Option<Hold>,
    /// Live rows of ours, without the daemon's own.
    pub(in crate::reconcile) ours: u64,
    /// Number of moved subscriptions whose old row is still there; a later run deletes it.
    pub(in crate::reconcile) moving: u64,
    /// Only a list that has just been read can decide this; the plan must not be carried out.
    pub(in crate::reconcile) needs_fresh: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Live {
    pub(in crate::reconcile) id: SubscriptionId,
    pub(in crate::reconcile) cost: u64,
    pub(in crate::reconcile) enabled: bool,
    /// Whether it is where it should be.
    pub(in crate::reconcile) current: bool,
}
