//! When events may have been missed, told from how long each way by which they come is known to have delivered. ◆
//!
//! A way is a shard, or the callback of plain subscriptions. While it delivers without a break, its *stretch* grows.
//! A gap is the time from the end of what is known of one stretch to the beginning of the next: never from when the
//! break was noticed, which may be much later.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::model::shard::SessionId;
use crate::model::status::GapReason;
use crate::model::subscription::SubscriptionKey;

/// Milliseconds of a clock that goes on while the machine sleeps and cannot be set.
pub(super) type Moment = u64;

/// From one look at everything to the next there is no more than a second: so much more means that the process, or
/// the machine, stood still.
const PAUSE: u64 = 5_000;
/// Time for which a callback may not answer before Twitch counts a delivery as failed for good (it tries again for a
/// while, and does not say for how long).
pub(super) const UNANSWERED: u64 = 10_000;
/// From the end of a break to its gap, so that what is learned late of its beginning still counts.
const SETTLE: u64 = 2_000;
/// Time for which a break waits for the proof that nothing was missed: a replaced socket is read for two seconds more.
const PROOF: u64 = 8_000;
/// The longest wait for other ways with the same cause, which make one gap together.
const PATIENCE: u64 = 60_000;

/// A way by which events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    Shard(u32),
    /// The callback that plain subscriptions call.
    Callback,
}

/// A time in which a way delivers without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Beginning by the process's clock, which names the stretch: no two of a way begin at the same instant.
    pub(super) name: Instant,
    /// Everything that Twitch sent up to here came in.
    pub(super) known: Moment,
}

/// Knowledge about the time from one stretch to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Between {
    /// Events may have been missed.
    #[default]
    Unknown,
    /// A proof may yet show that no event was missed.
    Open,
    /// Everything that Twitch sent came in: Twitch went from one to the other without a break, and both were read.
    Whole,
}

/// Knowledge about a way at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) present: Option<Stretch>,
    /// The stretch before it.
    pub(super) past: Option<Stretch>,
    /// The time from that one to the present one.
    pub(super) between: Between,
    /// Why that one ended.
    pub(super) reason: GapReason,
    /// Whether Twitch calls us, instead of being read.
    pub(super) calls: bool,
    /// Whether Twitch had the way all the while, so that only our own absence counts.
    pub(super) found: bool,
}

/// How things are at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Every way that there shall be.
    pub(super) ways: BTreeMap<Way, Sight>,
    /// Up to when the listener accepted requests. `None` while it does not.
    pub(super) accepted_until: Option<Moment>,
    pub(super) conduit: Option<String>,
    /// When Twitch was last found to match the file.
    pub(super) matched_at: Option<Moment>,
}

/// State that the next start continues from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Everything that Twitch sent up to here came in, and is told if not.
    pub(super) known: Moment,
    /// Last moment at which the process was known to be alive.
    pub(super) alive: Moment,
    /// The listener accepted requests up to here, and every gap of what calls is told.
    #[serde(default)]
    pub(super) accepted: Moment,
    /// Some of the signed requests, in order.
    #[serde(default)]
    pub(super) signed: Vec<Moment>,
    /// The sessions of shards that delivered without a break that is not told. Only other hosts' sockets outlive a process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<(u32, SessionId)>,
    pub(super) conduit: Option<String>,
}

/// The subscriptions that a gap concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All subscriptions on the conduit: Twitch does not say which channel comes over which shard.
    Shards(Vec<u32>),
    /// Subscriptions that deliver to a callback.
    Callback,
    /// All subscriptions.
    All,
    Subscriptions(Vec<SubscriptionKey>),
}

/// Some time in which events may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: Moment,
    pub(super) to: Moment,
    pub(super) reason: GapReason,
    pub(super) scope: Scope,
}

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

/// A break that is over.
#[derive(Clone, Copy, Debug)]
struct Break {
    way: Way,
    /// The stretch that it ended. `None` if the stretch went on, or if there was none.
    name: Option<Instant>,
    /// The stretch that ended it, while it may turn out that nothing was missed, and until when that is waited for.
    open: Option<(Instant, Moment)>,
    from: Moment,
    to: Moment,
    reason: GapReason,
}

/// A conduit that was gone, and its subscriptions with it.
#[derive(Clone, Copy, Debug)]
struct Replaced {
    from: Moment,
    noticed: Moment,
}

/// The whole of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watcher {
    ways: BTreeMap<Way, State>,
    /// From a start on, until every way is up: what the process before it left behind.
    stopped: Option<Memory>,
    first_up: Option<Moment>,
    conduit: Option<String>,
    replaced: Option<Replaced>,
    breaks: Vec<Break>,
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

    /// Takes note of how things are. To be called at every change, and at least once a second.
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
        self.group(now, SETTLE);
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
        self.group(now.saturating_add(PATIENCE), 0);
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
        let untold = self.breaks.iter().map(|over| over.from);
        let replaced = self.replaced.map(|replaced| replaced.from);
        let stopped = self.stopped.as_ref().map(|memory| memory.known);
        let known = known.chain(untold).chain(replaced).chain(stopped).min()?;
        let (alive, accepted) = match (&self.stopped, self.observed) {
            (Some(memory), _) => (memory.alive, memory.accepted),
            (None, observed) => (observed.unwrap_or(known), self.accepted),
        };
        let calls = |way: &Way| self.ways.get(way).is_none_or(|state| state.calls);
        let untold = self.breaks.iter().filter(|over| calls(&over.way)).map(|over| over.from);
        let accepted = untold.fold(accepted, Moment::min);
        let (signed, sessions) = (Vec::new(), Vec::new());
        Some(Memory { known, alive, accepted, signed, sessions, conduit: self.conduit.clone() })
    }

    /// Whether a shard delivers, and every break of it is told.
    pub(super) fn is_steady(&self, shard: u32) -> bool {
        let way = Way::Shard(shard);
        self.replaced.is_none()
            && self.ways.get(&way).is_some_and(|state| state.is_up)
            && !self.breaks.iter().any(|over| over.way == way)
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
        let Some(before) = self.observed.filter(|before| now.saturating_sub(*before) >= PAUSE) else {
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
            let untold = self.breaks.iter().filter(|over| over.way != Way::Callback).map(|over| over.from);
            let before = self.replaced.map(|replaced| replaced.from);
            let stopped = self.stopped.as_ref().map(|memory| memory.known);
            let from = known.chain(untold).chain(before).chain(stopped).min().unwrap_or(now);
            self.replaced = Some(Replaced { from, noticed: now });
            self.breaks.retain(|over| over.way == Way::Callback);
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
            for over in self.breaks.iter_mut().filter(|over| over.way == way && over.name == Some(past.name))
            {
                over.from = over.from.max(past.known.min(over.to));
            }
        }
        match sight.present {
            Some(present) if state.is_up && state.name == Some(present.name) => {
                state.known = state.known.max(Some(present.known));
                if sight.between == Between::Whole {
                    let is_of = |over: &Break| over.open.is_some_and(|(next, _)| next == present.name);
                    self.breaks.retain(|over| over.way != way || !is_of(over));
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
                    let open = is_open.then_some((present.name, now.saturating_add(PROOF)));
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
            _ => self.breaks.push(over),
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
    fn group(&mut self, now: Moment, settle: u64) {
        let waits = |over: &Break| settle > 0 && over.open.is_some_and(|(_, until)| now < until);
        let (open, over) = std::mem::take(&mut self.breaks).into_iter().partition(waits);
        self.breaks = over;
        self.group_closed(now, settle);
        self.breaks.extend::<Vec<Break>>(open);
    }

    fn group_closed(&mut self, now: Moment, settle: u64) {
        if self.breaks.is_empty() {
            return;
        }
        self.breaks.sort_by_key(|over| (over.reason, over.from));
        let mut groups: Vec<Vec<Break>> = Vec::new();
        for over in std::mem::take(&mut self.breaks) {
            match groups.last_mut() {
                Some(group)
                    if group[0].reason == over.reason && group.iter().any(|other| other.to >= over.from) =>
                {
                    group.push(over);
                }
                _ => groups.push(vec![over]),
            }
        }
        for group in groups {
            let from = group.iter().map(|over| over.from).min().unwrap_or(now);
            let to = group.iter().map(|over| over.to).max().unwrap_or(now);
            let first = group.iter().map(|over| over.to).min().unwrap_or(now);
            let reason = group[0].reason;
            let others = self.ways.values().any(|state| {
                !state.is_up && state.reason == reason && state.known.is_some_and(|known| known <= to)
            });
            let is_due = now >= to.saturating_add(settle) && !others || now >= first.saturating_add(PATIENCE);
            if is_due {
                self.told.push(Gap { from, to, reason, scope: scope(&group) });
            } else {
                self.breaks.extend(group);
            }
        }
    }
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

#[cfg(test)]
#[path = "callback_tests.rs"]
mod callback_tests;

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
