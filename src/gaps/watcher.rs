//! When events may have been missed, told from how long each way by which they come is known to have delivered. ◆
//!
//! A way is a shard, or the callback of plain subscriptions. While it delivers without a break, its *stretch* grows.
//! A gap is the time from the end of what is known of one stretch to the beginning of the next: never from when the
//! break was noticed, which may be much later.

use std::collections::BTreeMap;
use std::time::Instant;

use super::breaks::{Break, Breaks, PATIENCE, PROOF, Proof, SETTLE};
use super::gap::{Gap, Scope};
use super::memory::Memory;
use super::timeline::Moment;
use super::view::{Between, Sight, UNANSWERED, View, Way};
use crate::model::rhythm::BEAT;
use crate::model::status::GapReason;
use crate::model::subscription::SubscriptionKey;

/// The period of looks while something is under way, while Twitch calls us, and while it is only read. Everything that a
/// socket brings is dated by itself; only a process that stands still is seen by nothing but looks.
const BUSY: u64 = BEAT / 4;
const CALLED: u64 = BEAT / 2;
const READING: u64 = BEAT;
/// The least time between two looks that means that the process, or the machine, stood still, and by how much more than
/// the period it is.
const PAUSE: u64 = 5_000;
const LATE: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
struct State {
    /// The stretch that is followed, or was last.
    name: Option<Instant>,
    is_up: bool,
    /// `None` before the way has ever delivered.
    known: Option<Moment>,
    reason: GapReason,
    calls: bool,
}

/// A conduit that was gone, and its subscriptions with it.
#[derive(Clone, Copy, Debug)]
struct Replaced {
    from: Moment,
    noticed: Moment,
}

/// The state of all ways, and the gaps that they make.
#[derive(Clone, Debug, Default)]
pub(super) struct Watcher {
    ways: BTreeMap<Way, State>,
    /// From a start on, until every way is up: what the process before it left behind.
    stopped: Option<Memory>,
    first_up: Option<Moment>,
    conduit: Option<String>,
    replaced: Option<Replaced>,
    breaks: Breaks,
    /// Gaps that wait to be taken.
    told: Vec<Gap>,
    observed: Option<Moment>,
    /// Up to when the listener accepted requests.
    accepted: Moment,
    /// The last time that the process stood still.
    pause: Option<(Moment, Moment)>,
}

impl Watcher {
    pub(super) fn new(memory: Option<Memory>) -> Self {
        let conduit = memory.as_ref().and_then(|memory| memory.conduit.clone());
        Self { stopped: memory, conduit, ..Self::default() }
    }

    /// The longest time from one look to the next, in milliseconds.
    pub(super) fn period(&self) -> u64 {
        let is_waiting =
            self.stopped.is_some() || self.replaced.is_some() || self.breaks.since(|_| true).is_some();
        if is_waiting || self.ways.values().any(|state| !state.is_up) {
            BUSY
        } else if self.is_called() {
            CALLED
        } else {
            READING
        }
    }

    /// Takes note of how things are. To be called at every change, and after [`Self::period`].
    pub(super) fn observe(&mut self, view: &View, now: Moment) {
        self.note_pause(now);
        self.note_conduit(view, now);
        let gone: Vec<Way> = self.ways.keys().filter(|way| !view.ways.contains_key(way)).copied().collect();
        for way in gone {
            // From here on, the channels of this way come by others.
            if let Some(state) = self.ways.remove(&way)
                && !state.is_up
                && let Some(from) = state.known
            {
                let (name, reason) = (state.name, state.reason);
                self.add_break(Break { way, name, open: None, from, to: now, reason });
            }
        }
        for (way, sight) in &view.ways {
            self.note_way(*way, sight, now);
        }
        self.end_start(now);
        if let Some(replaced) = self.replaced
            && view.matched_at.is_some_and(|at| at >= replaced.noticed)
            && self.ways.values().any(|state| state.is_up)
        {
            self.replaced = None;
            let shards = self.shards();
            let reason = GapReason::ConduitReplaced;
            self.told.push(Gap { from: replaced.from, to: now, reason, scope: Scope::Shards(shards) });
        }
        self.close_breaks(now, SETTLE);
        self.observed = Some(now);
        self.accepted = self.accepted.max(view.accepted_until.unwrap_or(0));
    }

    /// Takes note of subscriptions that were not there for a while, each with the first and the last moment of that.
    pub(super) fn observe_lapses(&mut self, mut lapses: Vec<(SubscriptionKey, Moment, Moment)>) {
        // The gap of their conduit tells of those.
        lapses.retain(|(_, _, to)| self.replaced.is_none_or(|replaced| *to < replaced.noticed));
        let from = lapses.iter().map(|(_, from, _)| *from).min();
        let to = lapses.iter().map(|(_, _, to)| *to).max();
        if let (Some(from), Some(to)) = (from, to) {
            let keys = lapses.into_iter().map(|(key, _, _)| key).collect();
            let reason = GapReason::SubscriptionGone;
            self.told.push(Gap { from, to, reason, scope: Scope::Subscriptions(keys) });
        }
    }

    /// The gaps that are over and complete.
    pub(super) fn take(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.told)
    }

    /// The same at the end of the process, without waiting for anything.
    pub(super) fn finish(&mut self, now: Moment) -> Vec<Gap> {
        self.close_breaks(now.saturating_add(PATIENCE), 0);
        self.take()
    }

    /// Since when events may be missed at present, and why.
    pub(super) fn open(&self) -> Option<(Moment, GapReason)> {
        let down = self.ways.values().filter(|state| !state.is_up);
        let down = down.filter_map(|state| Some((state.known?, state.reason)));
        let stopped = self.stopped.as_ref().map(|memory| (memory.known, GapReason::DaemonStopped));
        let replaced = self.replaced.map(|replaced| (replaced.from, GapReason::ConduitReplaced));
        let unseen = stopped.filter(|_| self.ways.is_empty());
        down.chain(unseen).chain(replaced).min_by_key(|(from, _)| *from)
    }

    /// Returns the state that the next start continues from; `None` before anything has ever delivered.
    pub(super) fn memory(&self) -> Option<Memory> {
        let known = self.ways.values().filter_map(|state| state.known);
        let untold = self.breaks.since(|_| true);
        let replaced = self.replaced.map(|replaced| replaced.from);
        let stopped = self.stopped.as_ref().map(|memory| memory.known);
        let known = known.chain(untold).chain(replaced).chain(stopped).min()?;
        let (alive, accepted) = match (&self.stopped, self.observed) {
            (Some(memory), _) => (memory.alive, memory.accepted),
            (None, observed) => (observed.unwrap_or(known), self.accepted),
        };
        let calls = |way: &Way| self.ways.get(way).is_none_or(|state| state.calls);
        let accepted = self.breaks.since(|way| calls(&way)).map_or(accepted, |untold| untold.min(accepted));
        let (signed, sessions) = (Vec::new(), Vec::new());
        Some(Memory { known, alive, accepted, signed, sessions, conduit: self.conduit.clone() })
    }

    /// Whether a shard delivers, and every break of it is told.
    pub(super) fn is_steady(&self, shard: u32) -> bool {
        let way = Way::Shard(shard);
        self.replaced.is_none()
            && self.ways.get(&way).is_some_and(|state| state.is_up)
            && self.breaks.since(|of| of == way).is_none()
    }

    /// Whether Twitch calls us by any way.
    pub(super) fn is_called(&self) -> bool {
        self.ways.values().any(|state| state.calls)
    }

    fn shards(&self) -> Vec<u32> {
        let shard = |way: &Way| if let Way::Shard(shard) = way { Some(*shard) } else { None };
        self.ways.keys().filter_map(shard).collect()
    }

    fn note_pause(&mut self, now: Moment) {
        let least = PAUSE.max(self.period() + LATE);
        let Some(before) = self.observed.filter(|before| now.saturating_sub(*before) >= least) else {
            return;
        };
        self.pause = Some((before, now));
        if now - before < UNANSWERED {
            return;
        }
        let calling = self.ways.iter().filter(|(_, state)| state.is_up && state.calls);
        let breaks: Vec<Break> = calling
            .map(|(way, _)| Break {
                way: *way,
                // The stretch goes on: that it delivers later says nothing of the pause.
                name: None,
                open: None,
                from: before,
                to: now,
                reason: GapReason::DaemonPaused,
            })
            .collect();
        breaks.into_iter().for_each(|over| self.add_break(over));
    }

    fn note_conduit(&mut self, view: &View, now: Moment) {
        let is_new = self.conduit.is_some() && view.conduit.is_some() && self.conduit != view.conduit;
        if is_new {
            let shards = self.ways.iter().filter(|(way, _)| **way != Way::Callback);
            let known = shards.filter_map(|(_, state)| state.known);
            let untold = self.breaks.since(|way| way != Way::Callback);
            let before = self.replaced.map(|replaced| replaced.from);
            let stopped = self.stopped.as_ref().map(|memory| memory.known);
            let from = known.chain(untold).chain(before).chain(stopped).min().unwrap_or(now);
            self.replaced = Some(Replaced { from, noticed: now });
            self.breaks.forget_shards();
        }
        let calls = view.ways.get(&Way::Callback).is_some_and(|sight| sight.present.is_some());
        if view.conduit.is_some() || calls {
            self.conduit.clone_from(&view.conduit);
        }
    }

    fn note_way(&mut self, way: Way, sight: &Sight, now: Moment) {
        let stopped = self.stopped.as_ref();
        let mut state = *self.ways.entry(way).or_insert_with(|| State {
            name: None,
            is_up: false,
            known: stopped.map(|memory| memory.known),
            reason: GapReason::DaemonStopped,
            calls: sight.calls,
        });
        if let Some(past) = sight.past {
            if state.name == Some(past.name) {
                state.known = state.known.max(Some(past.known));
            }
            // A look that comes in after the next stretch has begun.
            self.breaks.handle_known(way, past);
        }
        match sight.present {
            Some(present) if state.is_up && state.name == Some(present.name) => {
                state.known = state.known.max(Some(present.known));
                if sight.between == Between::Whole {
                    self.breaks.handle_proof(way, present.name);
                }
            }
            Some(present) => {
                // A shard that is moved between a socket and a callback delivers all the while.
                let is_moved = state.is_up && state.calls != sight.calls || sight.between == Between::Whole;
                if let Some(known) = state.known.filter(|_| !is_moved) {
                    let accepted = stopped.filter(|_| sight.found).map_or(0, |memory| memory.accepted);
                    let from = known.max(accepted).min(now);
                    let is_first = state.reason == GapReason::DaemonStopped && !state.is_up;
                    let reason = if is_first { GapReason::DaemonStopped } else { sight.reason };
                    let is_open = sight.between == Between::Open;
                    let open =
                        is_open.then_some(Proof { next: present.name, until: now.saturating_add(PROOF) });
                    self.add_break(Break { way, name: state.name, open, from, to: now, reason });
                }
                state.known = state.known.max(Some(present.known));
                state.name = Some(present.name);
                state.is_up = true;
                state.calls = sight.calls;
                state.reason = sight.reason;
                self.first_up.get_or_insert(now);
            }
            None => {
                if state.is_up || state.reason != GapReason::DaemonStopped {
                    state.reason = sight.reason;
                }
                state.is_up = false;
            }
        }
        self.ways.insert(way, state);
    }

    fn add_break(&mut self, mut over: Break) {
        let stood_still = self.pause.is_some_and(|(from, to)| from <= over.to && to >= over.from);
        if over.reason == GapReason::ConnectionLost && stood_still {
            over.reason = GapReason::DaemonPaused;
        }
        match &mut self.replaced {
            Some(replaced) if over.way != Way::Callback => replaced.from = replaced.from.min(over.from),
            _ => self.breaks.add(over),
        }
    }

    /// Forgets the memory of the previous process once all ways are up, or after [`PATIENCE`]: it concerns only the ways that
    /// come up at the start.
    fn end_start(&mut self, now: Moment) {
        let all_up = !self.ways.is_empty() && self.ways.values().all(|state| state.is_up);
        let is_over = self.first_up.is_some_and(|first| all_up || now >= first.saturating_add(PATIENCE));
        if is_over {
            self.stopped = None;
        }
    }

    /// Makes gaps of the breaks for which nothing more is to be learned.
    fn close_breaks(&mut self, now: Moment, settle: u64) {
        let ways = &self.ways;
        let is_waited_for = |reason: GapReason, to: Moment| {
            ways.values().any(|state| {
                !state.is_up && state.reason == reason && state.known.is_some_and(|known| known <= to)
            })
        };
        self.told.extend(self.breaks.close(now, settle, is_waited_for));
    }
}

#[cfg(test)]
#[path = "callback_tests.rs"]
mod callback_tests;

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
