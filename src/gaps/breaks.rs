//! Breaks of ways that are over, until they make gaps. ◆
//!
//! Each break waits for a while: news of its beginning may come late, and breaks with the same cause make one gap together.

use std::time::Instant;

use super::gap::{Gap, Scope};
use super::timeline::Moment;
use super::view::{Stretch, Way};
use crate::model::status::GapReason;

/// From the end of a break to its gap, so that what is learned late of its beginning still counts.
pub(super) const SETTLE: u64 = 2_000;
/// Time for which a break waits for the proof that nothing was missed: a replaced socket is read for two seconds more.
pub(super) const PROOF: u64 = 8_000;
/// The longest wait for other ways with the same cause, which make one gap together.
pub(super) const PATIENCE: u64 = 60_000;

/// A proof that may yet show that nothing was missed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    /// The stretch that ended the break.
    pub(super) next: Instant,
    /// Until when the proof is waited for.
    pub(super) until: Moment,
}

/// A break that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    pub(super) way: Way,
    /// The stretch that it ended. `None` if the stretch went on, or if there was none.
    pub(super) name: Option<Instant>,
    pub(super) open: Option<Proof>,
    pub(super) from: Moment,
    pub(super) to: Moment,
    pub(super) reason: GapReason,
}

/// The breaks that are not told yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaks(Vec<Break>);

impl Breaks {
    pub(super) fn add(&mut self, over: Break) {
        self.0.push(over);
    }

    /// The beginning of the earliest break of such ways.
    pub(super) fn since(&self, of: impl Fn(Way) -> bool) -> Option<Moment> {
        self.0.iter().filter(|over| of(over.way)).map(|over| over.from).min()
    }

    /// Takes a look at the stretch before a break that comes in after the next stretch has begun.
    pub(super) fn handle_known(&mut self, way: Way, past: Stretch) {
        for over in self.0.iter_mut().filter(|over| over.way == way && over.name == Some(past.name)) {
            over.from = over.from.max(past.known.min(over.to));
        }
    }

    /// Takes the proof that nothing was missed before the stretch `next`.
    pub(super) fn handle_proof(&mut self, way: Way, next: Instant) {
        self.0.retain(|over| over.way != way || over.open.is_none_or(|proof| proof.next != next));
    }

    /// Forgets the breaks of shards, as the gap of their conduit tells of them.
    pub(super) fn forget_shards(&mut self) {
        self.0.retain(|over| over.way == Way::Callback);
    }

    /// Makes gaps of the breaks for which nothing more is to be learned. `is_waited_for` tells whether another way is down
    /// for this reason, and was before that moment.
    pub(super) fn close(
        &mut self,
        now: Moment,
        settle: u64,
        is_waited_for: impl Fn(GapReason, Moment) -> bool,
    ) -> Vec<Gap> {
        let waits = |over: &Break| settle > 0 && over.open.is_some_and(|proof| now < proof.until);
        let (open, closed): (Vec<Break>, Vec<Break>) =
            std::mem::take(&mut self.0).into_iter().partition(waits);
        let mut told = Vec::new();
        for group in grouped(closed) {
            let from = group.iter().map(|over| over.from).min().unwrap_or(now);
            let to = group.iter().map(|over| over.to).max().unwrap_or(now);
            let first = group.iter().map(|over| over.to).min().unwrap_or(now);
            let reason = group[0].reason;
            let has_settled = now >= to.saturating_add(settle) && !is_waited_for(reason, to);
            if has_settled || now >= first.saturating_add(PATIENCE) {
                told.push(Gap { from, to, reason, scope: scope(&group) });
            } else {
                self.0.extend(group);
            }
        }
        self.0.extend(open);
        told
    }
}

/// The breaks that make one gap together: those that overlap, with one reason.
fn grouped(mut breaks: Vec<Break>) -> Vec<Vec<Break>> {
    breaks.sort_by_key(|over| (over.reason, over.from));
    let mut groups: Vec<Vec<Break>> = Vec::new();
    for over in breaks {
        match groups.last_mut() {
            Some(group)
                if group[0].reason == over.reason && group.iter().any(|other| other.to >= over.from) =>
            {
                group.push(over);
            }
            _ => groups.push(vec![over]),
        }
    }
    groups
}

fn scope(group: &[Break]) -> Scope {
    let mut shards: Vec<u32> = Vec::new();
    let mut calls = false;
    for over in group {
        match over.way {
            Way::Shard(shard) => shards.push(shard),
            Way::Callback => calls = true,
        }
    }
    shards.sort_unstable();
    shards.dedup();
    match (shards.is_empty(), calls) {
        (true, _) => Scope::Callback,
        (false, false) => Scope::Shards(shards),
        (false, true) => Scope::All,
    }
}
