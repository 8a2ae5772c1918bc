//! Makes of what the parts publish how long each way is known to have delivered. ◆

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::memory::Memory;
use super::timeline::{Moment, Timeline};
use super::view::{Between, Sight, Stretch, UNANSWERED, View, Way};
use super::watcher::Watcher;
use crate::model::shard::{
    HandedOver, Life, Lives, SessionId, ShardBinding, ShardBindings, ShardId, Tenure, Unbound,
};
use crate::model::signs::{CallbackSigns, Signs};
use crate::model::status::GapReason;

/// Moments are so much later than the machine's time since boot: what was known before a boot has a place, too.
pub(super) const BEFORE_BOOT: Moment = 1 << 42;
/// Times of signed requests that are remembered, a second apart at least.
const SIGNED: usize = 4_096;
/// Times of signed requests that a restart goes on from: up to about an hour old.
const KEPT: u32 = 12;
/// Sessions that are remembered for the next leader: as many as fit into a value of the cluster many times.
const SESSIONS: usize = 1_000;

/// Evidence that the parts publish.
#[derive(Clone, Debug)]
pub(super) struct Published<'a> {
    /// Shards that there shall be; `None` while the conduit is not known.
    pub(super) shards: Option<u32>,
    pub(super) lives: &'a Lives,
    pub(super) bindings: &'a ShardBindings,
    /// Replaced sessions that were read to their end.
    pub(super) handed_over: &'a HandedOver,
    pub(super) signs: &'a CallbackSigns,
    /// Whether connections to the callback are accepted.
    pub(super) listens: bool,
    /// Whether subscriptions call by themselves; `None` before that is known.
    pub(super) called: Option<bool>,
    pub(super) conduit: Option<String>,
    pub(super) matched_at: Option<Moment>,
}

/// The last times of a session, over all its sockets.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    heard: Moment,
    event: Moment,
}

impl Last {
    fn with(self, signs: &Signs) -> Self {
        Self { heard: self.heard.max(placed(signs.heard())), event: self.event.max(placed(signs.event())) }
    }
}

/// A time since boot as a moment; 0 stays, as it stands for none.
fn placed(since_boot: u64) -> Moment {
    if since_boot == 0 { 0 } else { since_boot.saturating_add(BEFORE_BOOT) }
}

#[derive(Clone, Debug)]
struct Followed {
    session: SessionId,
    signs: Signs,
    /// Of the sockets before this one.
    last: Last,
}

impl Followed {
    fn last(&self) -> Last {
        self.last.with(&self.signs)
    }
}

/// The sessions of one shard.
#[derive(Clone, Debug, Default)]
struct Shard {
    present: Option<Followed>,
    past: Option<(SessionId, Last)>,
    /// The last state of the binding while it was in force.
    in_force: Option<(Instant, Last)>,
    /// The session that Twitch delivers to.
    bound: Option<SessionId>,
}

impl Shard {
    fn follow(&mut self, life: Option<&Life>) {
        let Some(life) = life else { return };
        match &mut self.present {
            Some(followed) if followed.session == life.session_id => {
                if followed.signs != life.signs {
                    followed.last = followed.last();
                    followed.signs = life.signs.clone();
                }
            }
            present => {
                let new = Followed {
                    session: life.session_id.clone(),
                    signs: life.signs.clone(),
                    last: Last::default(),
                };
                if let Some(old) = present.replace(new) {
                    self.past = Some((old.session.clone(), old.last()));
                }
            }
        }
    }

    fn last_of(&self, session: &SessionId) -> Last {
        match (&self.present, &self.past) {
            (Some(present), _) if present.session == *session => present.last(),
            (_, Some((past, last))) if past == session => *last,
            _ => Last::default(),
        }
    }
}

/// The driver's memory of what it has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Sights {
    shards: BTreeMap<u32, Shard>,
    count: u32,
    /// Since when the listener accepts requests.
    accepts: Option<Instant>,
    /// The time before that in which it did.
    accepted: Option<Stretch>,
    /// When the callback of plain subscriptions began to serve.
    callback: Option<Instant>,
    /// When it served last, and since when that was.
    callback_before: Option<Stretch>,
    /// The beginning of the listener, and signed requests since.
    signed: VecDeque<Moment>,
    /// The sessions of shards that delivered when the memory was made that this process goes on from.
    recalled: BTreeMap<u32, SessionId>,
}

impl Sights {
    /// Goes on from what another process knew: the signed requests, in order, and the sessions of shards.
    pub(super) fn new(memory: &Memory) -> Self {
        let signed = memory.signed.iter().copied().collect();
        Self { signed, recalled: memory.sessions.iter().cloned().collect(), ..Self::default() }
    }

    /// The memory that the next process goes on from; `None` before anything has ever delivered.
    pub(super) fn memory(&self, watcher: &Watcher) -> Option<Memory> {
        let steady = self.shards.iter().filter(|(shard, _)| watcher.is_steady(**shard));
        let sessions = steady.filter_map(|(shard, known)| Some((*shard, known.bound.clone()?)));
        let sessions = sessions.take(SESSIONS).collect();
        Some(Memory { signed: self.signed_to_keep(), sessions, ..watcher.memory()? })
    }

    /// Knowledge of the time before the present stretch of a shard.
    fn between(
        &self,
        shard: u32,
        binding: &ShardBinding,
        tenure: &Tenure,
        handed_over: &HandedOver,
    ) -> Between {
        let proof = |is_there| if is_there { Between::Whole } else { Between::Open };
        match (&binding.past, &tenure.succeeds) {
            // The old session had the shard until the new one got it, and was read to its end.
            (Some(past), Some(old)) if past.session_id.as_ref() == Some(old) && binding.unbound.is_none() => {
                proof(handed_over.contains(old))
            }
            // An earlier leader knew the session, and it still has the shard.
            (None, _) if tenure.is_adopted && tenure.session_id.as_ref() == self.recalled.get(&shard) => {
                proof(tenure.seen_at.is_some())
            }
            _ => Between::Unknown,
        }
    }

    /// The signed requests that the next process is to know, in order: the last one, and older ones that are ever further
    /// apart.
    pub(super) fn signed_to_keep(&self) -> Vec<Moment> {
        let Some(last) = self.signed.back() else { return Vec::new() };
        let mut kept: Vec<Moment> = (0..KEPT)
            .filter_map(|n| {
                let to = last.saturating_sub((1_000 << n) - 1_000);
                self.signed.iter().rev().find(|signed| **signed <= to)
            })
            .copied()
            .collect();
        kept.dedup();
        kept.reverse();
        kept
    }

    /// How things are now.
    pub(super) fn view(
        &mut self,
        published: &Published<'_>,
        line: &Timeline,
        here: Instant,
        now: Moment,
    ) -> View {
        self.record_signed(placed(published.signs.last()));
        let refused = Some(placed(published.signs.refused())).filter(|refused| *refused > 0);
        let accepted_until = self.note_listener(published.listens, refused, here, now);
        let mut ways = BTreeMap::new();
        let called = published.called.unwrap_or(self.callback.is_some());
        match published.shards {
            Some(count) => self.count = count,
            // Without a conduit nothing comes by it: it is gone, or everything calls.
            None if called => self.count = 0,
            None => {}
        }
        self.shards.retain(|shard, _| *shard < self.count);
        for shard in 0..self.count {
            let id = ShardId(shard);
            let sight = self.shard(
                shard,
                published.lives.get(&id),
                published.bindings.get(&id),
                published.signs.of(id),
                published.handed_over,
                line,
            );
            ways.insert(Way::Shard(shard), sight);
        }
        if called || self.callback.is_some() {
            let (sight, is_there) = self.callback(called, here, accepted_until);
            if is_there {
                ways.insert(Way::Callback, sight);
            }
        }
        let accepted_until = self.accepts.map(|_| accepted_until);
        View { ways, accepted_until, conduit: published.conduit.clone(), matched_at: published.matched_at }
    }

    /// Takes note of whether the listener accepts requests. Returns up to when it did. Refusals of a few seconds are made
    /// up for by Twitch, which sends again.
    fn note_listener(
        &mut self,
        listens: bool,
        refused: Option<Moment>,
        here: Instant,
        now: Moment,
    ) -> Moment {
        let until = refused.map_or(now, |refused| refused.min(now));
        if listens && now < until.saturating_add(UNANSWERED) {
            self.accepts.get_or_insert(here);
            if self.signed.is_empty() {
                // Nothing is known of the time from here to the first request; the next process has to know that, too.
                self.signed.push_back(now);
            }
        } else if let Some(name) = self.accepts.take() {
            self.accepted = Some(Stretch { name, known: until });
        }
        until
    }

    fn shard(
        &mut self,
        shard: u32,
        life: Option<&Life>,
        binding: Option<&ShardBinding>,
        signed: u64,
        handed_over: &HandedOver,
        line: &Timeline,
    ) -> Sight {
        let known = self.shards.entry(shard).or_default();
        known.follow(life);
        known.bound = None;
        let Some(binding) = binding else {
            let reason = GapReason::ConnectionLost;
            return Sight {
                present: None,
                past: None,
                reason,
                between: Between::Unknown,
                calls: false,
                found: false,
            };
        };
        let signed = placed(signed);
        let past = |known: &Shard, tenure: &Tenure, unbound: Option<Unbound>| {
            let last = match (&tenure.session_id, known.in_force) {
                // The session went on after the binding was lost.
                (Some(_), Some((name, last))) if unbound.is_some() && name == tenure.bound_at => last,
                (Some(_), _) if unbound.is_some() => Last::default(),
                (Some(session), _) => known.last_of(session),
                (None, Some((name, last))) if name == tenure.bound_at => last,
                (None, _) => Last::default(),
            };
            stretch(tenure, last, unbound != Some(Unbound::Disabled), line)
        };
        let (accepts, accepted) = (self.accepts, self.accepted);
        let reason = match binding.unbound {
            Some(Unbound::Taken) => GapReason::ShardTaken,
            Some(Unbound::Disabled) => GapReason::ShardDisabled,
            None => GapReason::ConnectionLost,
        };
        let before = binding.past.as_ref().map(|tenure| past(known, tenure, binding.unbound));
        let Some(tenure) = &binding.present else {
            return Sight {
                present: None,
                past: before,
                reason,
                between: Between::Unknown,
                calls: false,
                found: false,
            };
        };
        let calls = tenure.session_id.is_none();
        if let Some(session) = &tenure.session_id
            && life.is_none_or(|life| life.session_id != *session)
        {
            // The socket is gone; the binder has not taken note yet.
            let ended = Some(past(known, tenure, None));
            let reason = GapReason::ConnectionLost;
            return Sight {
                present: None,
                past: ended,
                between: Between::Unknown,
                reason,
                calls,
                found: false,
            };
        }
        let last = match &tenure.session_id {
            Some(session) => known.last_of(session),
            None => Last { heard: signed, event: signed },
        };
        known.in_force = Some((tenure.bound_at, last));
        known.bound.clone_from(&tenure.session_id);
        // A look at a callback says that it is ours, not that it answers.
        let present = stretch(tenure, last, !calls, line);
        let found = tenure.found;
        if !calls {
            let between = self.between(shard, binding, tenure, handed_over);
            return Sight { present: Some(present), past: before, between, reason, calls, found };
        }
        let between = Between::Unknown;
        let named = |since: Instant| Stretch { name: present.name.max(since), ..present };
        match (accepts, accepted) {
            (Some(since), _) => {
                Sight { present: Some(named(since)), past: before, between, reason, calls, found }
            }
            // Until then the listener answered, and Twitch has not given the callback up.
            (None, Some(until)) => {
                let known = present.known.max(until.known);
                let ended = Some(Stretch { known, ..named(until.name) });
                Sight { present: None, past: ended, between, reason, calls, found }
            }
            (None, None) => Sight { present: None, past: before, between, reason, calls, found },
        }
    }

    /// The callback of plain subscriptions, and whether there is one.
    fn callback(&mut self, called: bool, here: Instant, until: Moment) -> (Sight, bool) {
        let reason = GapReason::ConnectionLost;
        let serves = self.accepts.is_some() && called;
        if serves {
            self.callback.get_or_insert(here);
        }
        let present = self.callback.map(|name| Stretch { name, known: until });
        let between = Between::Unknown;
        let sight = |present, past| Sight { present, past, between, reason, calls: true, found: true };
        if serves {
            return (sight(present, self.callback_before), true);
        }
        self.callback_before = present.or(self.callback_before);
        self.callback = None;
        (sight(None, self.callback_before), called)
    }

    fn record_signed(&mut self, last: Moment) {
        if last > 0 && self.signed.back().is_none_or(|known| last >= known.saturating_add(1_000)) {
            self.signed.push_back(last);
            if self.signed.len() > SIGNED {
                self.signed.pop_front();
            }
        }
    }

    /// The last signed request up to a moment. A subscription whose callback does not answer stays enabled for a
    /// while, so that a list which shows it says nothing of the deliveries since.
    ///
    /// Before the first one, only the beginning of the listener is known.
    pub(super) fn signed_before(&self, moment: Moment) -> Moment {
        let before = self.signed.iter().rev().find(|signed| **signed <= moment);
        before.copied().unwrap_or(moment)
    }
}

/// Returns up to when a tenure is known to have delivered. An event proves it; another message does so only if a look has
/// shown the tenure since. Whether a look counts by itself depends on who ended the tenure.
fn stretch(tenure: &Tenure, last: Last, looks_count: bool, line: &Timeline) -> Stretch {
    // A session that an earlier leader bound may have had a silent socket since.
    let bound = if tenure.is_adopted { 0 } else { line.of(tenure.bound_at) };
    let seen = tenure.seen_at.map_or(0, |seen| line.of(seen));
    let confirmed = match (&tenure.session_id, looks_count) {
        (Some(_), _) => last.heard.min(seen),
        (None, true) => seen,
        (None, false) => 0,
    };
    Stretch { name: tenure.bound_at, known: bound.max(last.event).max(confirmed) }
}

#[cfg(test)]
#[path = "sights_tests.rs"]
mod tests;
