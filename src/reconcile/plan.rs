//! From what is wanted and what is there to what must be done, and what cannot be done and why. ◆
//!
//! The one place that decides about creating and deleting; execution makes no choices, and
//! `eventsubd plan` prints what this returns. It never touches a row that is not on our conduit, and
//! never deletes a live row that is wanted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::park::{Obstacle, ParkTable, Standing};
use super::{Policy, reason};
use crate::model::catalog::{self, Auth};
use crate::model::subscription::{SubscriptionKey, SubscriptionRow, SubscriptionStatus, TransportTarget};

/// Deletes up to this number are never held.
pub(super) const FREE_DELETES: u64 = 10;

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    /// Rows that point elsewhere are not ours.
    pub(super) conduit_id: &'a str,
    /// Each key once.
    pub(super) wanted: &'a [SubscriptionKey],
    /// Twitch's whole list; more rows than ours do no harm.
    pub(super) rows: &'a [SubscriptionRow],
    pub(super) parked: &'a ParkTable,
    /// What would be refused for want of a grant, and why.
    pub(super) ungranted: &'a HashMap<SubscriptionKey, String>,
    pub(super) now: Instant,
    pub(super) policy: Policy,
    /// Part of ours, 0 to 1.
    pub(super) max_delete: f64,
    /// A person has allowed what would be held.
    pub(super) allow_deletes: bool,
    /// While deletes are held: how many were ours when they were first held. What is created
    /// meanwhile must not make the hold slip.
    pub(super) held_of: Option<u64>,
    pub(super) total_cost: u64,
    /// 0 when it is not known.
    pub(super) max_total_cost: u64,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Create a subscription on our conduit.
    Create {
        /// Type, version and condition.
        #[serde(flatten)]
        key: SubscriptionKey,
        /// Whether its type is batched, so that Twitch wants `is_batching_enabled`.
        #[serde(skip)]
        batching: bool,
        /// What it costs at most.
        worst_cost: u64,
    },
    /// Delete a subscription on our conduit.
    Delete {
        /// Twitch's id.
        id: Box<str>,
        /// Type, version and condition.
        #[serde(flatten)]
        key: SubscriptionKey,
        /// Why.
        reason: DeleteReason,
        /// What it costs, and will cost no more.
        cost: u64,
    },
}

impl Action {
    /// Whether it creates.
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// Type, version and condition.
    pub fn key(&self) -> &SubscriptionKey {
        match self {
            Self::Create { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// Why a row is deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteReason {
    /// Its status, which is not alive: it delivers nothing, and nothing brings it back.
    Dead(Box<str>),
    /// An equal one is alive and kept.
    Duplicate,
    /// The file does not have it.
    Unwanted,
}

/// A wanted subscription that is not created now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// Type, version and condition; logins that are not known stand as `@login`.
    #[serde(flatten)]
    pub key: SubscriptionKey,
    /// What kind of obstacle it is.
    pub obstacle: Obstacle,
    /// Why, and what to do.
    pub reason: String,
    /// When it is tried again; `None`: when the file changes, on `apply`, or when there is room.
    #[serde(rename = "retry_in_seconds", serialize_with = "seconds")]
    pub retry_in: Option<Duration>,
}

#[allow(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn seconds<S: serde::Serializer>(pause: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    pause.map(|pause| pause.as_secs()).serialize(serializer)
}

/// What to do, in this order, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In order. Where deletes and creates take turns, one group ends before the next begins.
    pub actions: Vec<Action>,
    /// How many stay as they are.
    pub keep: u64,
    /// Wanted, and not created now.
    pub blocked: Vec<Blocked>,
    /// Deletes that wait for `eventsubd apply --allow-deletes`.
    pub held: Vec<Action>,
    /// Of how many live subscriptions of ours the held ones are too large a part.
    pub held_of: Option<u64>,
}

/// A plan, and what follows from it for our own tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// The live row of each wanted key, in the order of the input.
    pub(super) live: Vec<Option<Live>>,
    /// Found dead: park these (they are in `plan.blocked`).
    pub(super) park: Vec<(SubscriptionKey, Obstacle, String)>,
    /// Found dead, and created again at once.
    pub(super) at_once: Vec<(SubscriptionKey, String)>,
    /// Live rows of ours.
    pub(super) ours: u64,
}

/// A live row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) id: Box<str>,
    pub(super) enabled: bool,
}

#[derive(Default)]
struct Found<'a> {
    live: Option<&'a SubscriptionRow>,
    /// The worst obstacle that its dead rows tell of.
    dead: Option<(Obstacle, String)>,
}

/// Makes the plan.
pub(super) fn plan(input: &Input<'_>) -> Planned {
    let mut out = Planned::default();
    let sorted = sort_out(input, &mut out);

    // A part that is not a number allows nothing.
    let part = if input.max_delete.is_nan() { 0.0 } else { input.max_delete };
    let of = input.held_of.map_or(out.ours, |before| before.min(out.ours));
    let many = sorted.unwanted.len() as u64;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let held = !input.allow_deletes && many > FREE_DELETES && many as f64 > part * of as f64;

    let room = (input.max_total_cost > 0).then(|| input.max_total_cost.saturating_sub(input.total_cost));
    let mut freed: u64 = sorted.duplicates.iter().map(|row| row.cost).sum();
    if !held {
        freed += sorted.unwanted.iter().map(|row| row.cost).sum::<u64>();
    }
    let mut clear = deletes(sorted.dead, |row| DeleteReason::Dead(row.status.as_str().into()));
    clear.extend(deletes(sorted.duplicates, |_| DeleteReason::Duplicate));
    let mut last = deletes(sorted.unwanted, |_| DeleteReason::Unwanted);
    if held {
        out.plan.held = std::mem::take(&mut last);
        out.plan.held_of = Some(of);
    }

    let mut creates = Vec::new();
    let full = room.is_some_and(|room| room.saturating_add(freed) == 0);
    for (key, found) in input.wanted.iter().zip(sorted.found) {
        out.live.push(
            found
                .live
                .map(|row| Live { id: row.id.clone(), enabled: row.status == SubscriptionStatus::Enabled }),
        );
        if found.live.is_some() {
            out.plan.keep += 1;
        } else {
            decide(input, key, found.dead, full, &mut creates, &mut out);
        }
    }
    creates.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    out.plan.blocked.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    out.park.sort_unstable();
    out.at_once.sort_unstable();

    let costly =
        creates.iter().filter(|action| matches!(action, Action::Create { worst_cost: 1.., .. })).count();
    let short = room.is_some_and(|room| costly as u64 > room);
    let (then, finally) = if short { (last, creates) } else { (creates, last) };
    out.plan.actions = clear;
    out.plan.actions.extend(then);
    out.plan.actions.extend(finally);
    out
}

/// Our rows by what becomes of them.
struct Sorted<'a> {
    /// For each wanted key.
    found: Vec<Found<'a>>,
    dead: Vec<&'a SubscriptionRow>,
    duplicates: Vec<&'a SubscriptionRow>,
    unwanted: Vec<&'a SubscriptionRow>,
}

fn sort_out<'a>(input: &Input<'a>, out: &mut Planned) -> Sorted<'a> {
    let index: HashMap<&SubscriptionKey, usize> =
        input.wanted.iter().enumerate().map(|(at, key)| (key, at)).collect();
    let mut sorted = Sorted {
        found: input.wanted.iter().map(|_| Found::default()).collect(),
        dead: Vec::new(),
        duplicates: Vec::new(),
        unwanted: Vec::new(),
    };
    let ours = |row: &&SubscriptionRow| matches!(&row.target, TransportTarget::Conduit { conduit_id } if **conduit_id == *input.conduit_id);
    for row in input.rows.iter().filter(ours) {
        let slot = index.get(&row.key).map(|at| &mut sorted.found[*at]);
        if let Some(told) = reason::of_status(&row.status) {
            sorted.dead.push(row);
            if let Some(slot) = slot {
                slot.dead = slot.dead.take().max(Some(told));
            }
            continue;
        }
        out.ours += 1;
        let Some(slot) = slot else {
            sorted.unwanted.push(row);
            continue;
        };
        match slot.live {
            None => slot.live = Some(row),
            Some(other) => {
                let (keep, spare) = if rank(row) < rank(other) { (row, other) } else { (other, row) };
                slot.live = Some(keep);
                sorted.duplicates.push(spare);
            }
        }
    }
    // `keep` creates what is missing and deletes nothing that lives. Dead rows deliver nothing and
    // are cleared all the same.
    if input.policy == Policy::Keep {
        sorted.duplicates.clear();
        sorted.unwanted.clear();
    }
    sorted
}

/// Of equal live rows the first by this is kept: one that delivers before one that does not, then
/// any, as long as it is always the same.
fn rank(row: &SubscriptionRow) -> (bool, &str) {
    (row.status != SubscriptionStatus::Enabled, &row.id)
}

/// What becomes of a wanted key without a live row.
fn decide(
    input: &Input<'_>,
    key: &SubscriptionKey,
    dead: Option<(Obstacle, String)>,
    full: bool,
    creates: &mut Vec<Action>,
    out: &mut Planned,
) {
    let mut block = |obstacle, reason: String, retry_in| {
        out.plan.blocked.push(Blocked { key: key.clone(), obstacle, reason, retry_in });
    };
    let standing = input.parked.standing(key, input.now);
    if let Standing::Waiting { obstacle, reason, retry_at } = standing {
        let retry_in = retry_at.map(|at| at.saturating_duration_since(input.now));
        block(obstacle, reason.to_owned(), retry_in);
        return;
    }
    if let Some(reason) = input.ungranted.get(key) {
        let retry_in = input.parked.next_pause(key, Obstacle::Grant, input.now);
        block(Obstacle::Grant, reason.clone(), retry_in);
        out.park.push((key.clone(), Obstacle::Grant, reason.clone()));
        return;
    }
    // What is due is tried, whatever its dead row says: that is what it is due for.
    if standing != Standing::Due
        && let Some((obstacle, reason)) = &dead
        && (*obstacle != Obstacle::Ended || standing == Standing::Trial)
    {
        let retry_in = input.parked.next_pause(key, *obstacle, input.now);
        block(*obstacle, reason.clone(), retry_in);
        out.park.push((key.clone(), *obstacle, reason.clone()));
        return;
    }
    let (worst_cost, batching) = catalog::lookup(&key.subscription_type, &key.version)
        .map_or((1, false), |row| (worst_cost(row.auth), row.batched));
    if full && worst_cost > 0 {
        block(Obstacle::Cost, reason::cost_limit(), None);
        return;
    }
    if standing == Standing::Free
        && let Some((_, reason)) = dead
    {
        out.at_once.push((key.clone(), reason));
    }
    creates.push(Action::Create { key: key.clone(), batching, worst_cost });
}

/// Types that need a user's grant cost nothing; the others cost 1 unless the user has authorized
/// the application (Twitch: "Managing Event Subscriptions", subscription limits).
fn worst_cost(auth: Auth) -> u64 {
    match auth {
        Auth::Broadcaster | Auth::Moderator | Auth::Bot | Auth::User => 0,
        Auth::None | Auth::App => 1,
    }
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
