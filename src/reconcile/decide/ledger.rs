//! Twitch's list between two comparisons: the last whole list, and what we did and heard since. ◆
//!
//! Planning from it is safe: a create that is there already is answered with 409 and adopted, and a delete names an id
//! that is never used again. What somebody else changes is seen by the next comparison.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::place::{Places, Side};
use crate::helix::{Filter, SubscriptionList};
use crate::model::subscription::{SubscriptionId, SubscriptionRow, SubscriptionStatus};

/// Rows on a page of the list (Twitch: "Get EventSub Subscriptions").
pub(in crate::reconcile) const PAGE: usize = 100;

/// A change of one row that is known without a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Known {
    /// Created, adopted, or looked up by its id.
    There(SubscriptionRow),
    /// Deleted, or not found by its id.
    Gone(SubscriptionId),
    /// Ended by Twitch.
    Ended { id: SubscriptionId, status: SubscriptionStatus },
}

impl Known {
    fn id(&self) -> &SubscriptionId {
        match self {
            Self::There(row) => &row.id,
            Self::Gone(id) | Self::Ended { id, .. } => id,
        }
    }
}

#[derive(Clone, Debug)]
struct Listed {
    filter: Filter,
    /// Start of the reading.
    begun: Instant,
    list: SubscriptionList,
}

/// The last whole list, kept up to date.
#[derive(Clone, Debug, Default)]
pub(in crate::reconcile) struct Ledger {
    listed: Option<Listed>,
    /// Changes that the rows do not show yet.
    changes: Vec<Known>,
    /// Changes since the list that is being read was begun: its pages may show them or not.
    while_reading: Option<Vec<Known>>,
}

impl Ledger {
    pub(in crate::reconcile) fn record(&mut self, change: Known) {
        if let Some(changes) = &mut self.while_reading {
            changes.push(change.clone());
        }
        if self.listed.is_some() {
            self.changes.push(change);
        }
    }

    /// Records the totals of Twitch's newest answer.
    pub(in crate::reconcile) fn record_costs(&mut self, total: u64, max: u64) {
        if let Some(listed) = &mut self.listed {
            (listed.list.total_cost, listed.list.max_total_cost) = (total, max);
        }
    }

    /// Records that a list is being read from now on.
    pub(in crate::reconcile) fn begin_reading(&mut self) {
        self.while_reading = Some(Vec::new());
    }

    /// Records that the list that was being read is given up.
    pub(in crate::reconcile) fn end_reading(&mut self) {
        self.while_reading = None;
    }

    /// Takes a whole list whose reading began with [`Self::begin_reading`].
    pub(in crate::reconcile) fn replace(&mut self, filter: Filter, begun: Instant, list: SubscriptionList) {
        self.changes = self.while_reading.take().unwrap_or_default();
        self.listed = Some(Listed { filter, begun, list });
    }

    /// Whether there is a list with this filter that was begun less than `life` ago.
    pub(in crate::reconcile) fn is_usable(&self, filter: &Filter, life: Duration, now: Instant) -> bool {
        self.listed.as_ref().is_some_and(|listed| {
            listed.filter == *filter && now.saturating_duration_since(listed.begun) < life
        })
    }

    /// The filter of the list that is known.
    pub(in crate::reconcile) fn filter(&self) -> Option<&Filter> {
        self.listed.as_ref().map(|listed| &listed.filter)
    }

    /// When the reading of the list that is known began.
    pub(in crate::reconcile) fn begun(&self) -> Option<Instant> {
        self.listed.as_ref().map(|listed| listed.begun)
    }

    /// Pages of the list that is known; 0 if none is.
    pub(in crate::reconcile) fn pages(&self) -> usize {
        self.listed.as_ref().map_or(0, |listed| listed.list.rows.len() / PAGE + 1)
    }

    /// The list with all changes; `None` before the first one.
    pub(in crate::reconcile) fn list(&mut self) -> Option<&SubscriptionList> {
        let listed = self.listed.as_mut()?;
        if !self.changes.is_empty() {
            apply(&mut listed.list.rows, std::mem::take(&mut self.changes));
        }
        Some(&listed.list)
    }

    /// The rows on places of ours that wait for Twitch's challenge, by id.
    pub(in crate::reconcile) fn unverified(&mut self, places: &Places) -> Vec<SubscriptionId> {
        let is_waiting = |row: &&SubscriptionRow| {
            row.status == SubscriptionStatus::WebhookCallbackVerificationPending
                && places.side(&row.target) != Side::Foreign
        };
        let rows = self.list().map_or(&[][..], |list| &list.rows);
        rows.iter().filter(is_waiting).map(|row| row.id.clone()).collect()
    }
}

/// Result of the changes for one row.
#[derive(Default)]
struct Fate {
    there: Option<SubscriptionRow>,
    gone: bool,
    ended: Option<SubscriptionStatus>,
}

/// A row only moves forward: it waits for its challenge, then it delivers, then it is dead.
fn age(status: &SubscriptionStatus) -> u8 {
    match status {
        SubscriptionStatus::WebhookCallbackVerificationPending => 0,
        SubscriptionStatus::Enabled => 1,
        _ => 2,
    }
}

fn advance(row: &mut SubscriptionRow, status: &SubscriptionStatus) {
    if age(status) > age(&row.status) {
        row.status = status.clone();
    }
}

fn apply(rows: &mut Vec<SubscriptionRow>, changes: Vec<Known>) {
    let mut fates: HashMap<SubscriptionId, Fate> = HashMap::with_capacity(changes.len());
    for change in changes {
        let fate = fates.entry(change.id().clone()).or_default();
        match change {
            Known::There(row) => match &mut fate.there {
                Some(known) => advance(known, &row.status),
                there => *there = Some(row),
            },
            Known::Gone(_) => fate.gone = true,
            Known::Ended { status, .. } => fate.ended = Some(status),
        }
    }
    rows.retain_mut(|row| {
        let Some(fate) = fates.get_mut(&row.id) else { return true };
        if let Some(newer) = fate.there.take() {
            advance(row, &newer.status);
        }
        if let Some(status) = &fate.ended {
            advance(row, status);
        }
        !fate.gone
    });
    let new = fates.into_values().filter(|fate| !fate.gone).filter_map(|fate| {
        let mut row = fate.there?;
        if let Some(status) = &fate.ended {
            advance(&mut row, status);
        }
        Some(row)
    });
    rows.extend(new);
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
