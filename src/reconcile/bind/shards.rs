//! Which sessions are bound to their shards, which must be, and which were taken away. ◆
//!
//! Twitch closes a session that is not bound within 10 seconds of its welcome (4003), and whoever
//! binds last has the shard: both is watched here. It never decides how many shards there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::helix::ShardRow;
use crate::model::shard::{
    BindOutcome, Binding, Bindings, SessionId, Sessions, ShardBinding, ShardId, ShardTarget, Tenure, Unbound,
};
use crate::reconcile::api::Refused;

/// Longest time that a planned move waits for the look which shows that the old session still had the shard.
const MOVE_WAIT: Duration = Duration::from_secs(1);
/// From that look to the answer about the new binding, at most.
const MOVE_TIME: Duration = Duration::from_secs(5);
/// Shards of a conduit for which a move is looked up first: a list of more takes too long.
const MOST_LOOKED_UP: u32 = 1_000;

/// After a binding Twitch's list may be behind for some seconds.
const LIST_LAG: Duration = Duration::from_secs(10);

/// Pauses between attempts to bind.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct BindTimes {
    /// Time after the welcome that Twitch waits for the binding.
    pub(in crate::reconcile) window: Duration,
    /// Between attempts within the window.
    pub(in crate::reconcile) retry: Duration,
    /// Between attempts after it, for sessions that were bound before.
    pub(in crate::reconcile) late_retry: Duration,
}

#[derive(Clone, Debug)]
struct Slot {
    session: SessionId,
    welcomed_at: Instant,
    /// The session before this one: finding it in Twitch's list is no theft.
    previous: Option<SessionId>,
    state: State,
    /// The last look at Twitch's list that showed the binding.
    seen_at: Option<Instant>,
    /// Whether an earlier leader of the cluster has bound it. Twitch's list is not behind such a binding.
    is_adopted: bool,
    /// The look right before the binding that showed the shard with the previous session.
    succeeds_at: Option<Instant>,
}

impl Slot {
    fn tenure(&self) -> Option<Tenure> {
        let State::Bound { since } = self.state else { return None };
        let (session_id, seen_at) = (Some(self.session.clone()), self.seen_at);
        let succeeds = self.previous.clone().filter(|_| self.succeeds_at.is_some());
        let is_adopted = self.is_adopted;
        Some(Tenure { session_id, bound_at: since, seen_at, found: false, is_adopted, succeeds })
    }
}

/// The last binding of a shard that is over.
#[derive(Clone, Debug)]
struct Past {
    tenure: Tenure,
    unbound: Option<Unbound>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unbound,
    /// Waits for a look, as the session is to replace another one that is still read.
    Moving {
        since: Instant,
    },
    Asked,
    Bound {
        since: Instant,
    },
    Gone,
    Failed {
        why: Box<str>,
        retry_at: Instant,
    },
}

/// A bound shard that Twitch shows otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Mismatch {
    /// Bound to a session or a callback that is not ours; we bind it again.
    Taken(ShardId),
    /// Without a session, or with an older one of ours; we bind it again.
    Lost(ShardId),
    /// Twitch says that our session is over.
    Disconnected(ShardId, Box<str>),
}

/// The changes that new sessions or another target have made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::reconcile) struct Changes {
    /// A session that was bound is over.
    pub(in crate::reconcile) is_lost: bool,
    /// A session counts as bound because an earlier leader has bound it.
    pub(in crate::reconcile) is_adopted: bool,
    /// A session waits for a look.
    pub(in crate::reconcile) is_moving: bool,
}

/// The table of them.
#[derive(Clone, Debug)]
pub(in crate::reconcile) struct Shards {
    target: Option<ShardTarget>,
    slots: BTreeMap<ShardId, Slot>,
    past: BTreeMap<ShardId, Past>,
    times: BindTimes,
}

impl Shards {
    pub(in crate::reconcile) fn new(times: BindTimes) -> Self {
        Self { target: None, slots: BTreeMap::new(), past: BTreeMap::new(), times }
    }

    pub(in crate::reconcile) fn target(&self) -> Option<&ShardTarget> {
        self.target.as_ref()
    }

    /// Handles the newest target and sessions. On another conduit everything is bound anew.
    pub(in crate::reconcile) fn handle_target(
        &mut self,
        target: Option<&ShardTarget>,
        sessions: &Sessions,
        now: Instant,
    ) -> Changes {
        let conduit = |target: Option<&ShardTarget>| target.map(|target| target.conduit_id.clone());
        if conduit(target) != conduit(self.target.as_ref()) {
            for (shard, slot) in &mut self.slots {
                end(&mut self.past, *shard, slot, State::Unbound, None);
            }
        }
        self.target = target.cloned();
        let count = target.map_or(0, |target| target.shards);
        let mut changes = Changes::default();
        let mut moving = BTreeSet::new();
        for (shard, slot) in &mut self.slots {
            let live = sessions.get(shard);
            if live.is_some_and(|live| live.session_id == slot.session) {
                continue;
            }
            let is_read_on = live.is_some_and(|live| live.replaces.as_ref() == Some(&slot.session));
            let was_bound = end(&mut self.past, *shard, slot, State::Gone, None);
            if was_bound && is_read_on && count <= MOST_LOOKED_UP {
                moving.insert(*shard);
            }
            changes.is_lost |= was_bound;
        }
        changes.is_moving = !moving.is_empty();
        self.slots.retain(|shard, _| shard.0 < count && sessions.contains_key(shard));
        self.past.retain(|shard, _| target.is_none() || shard.0 < count);
        for (shard, live) in sessions.range(..ShardId(count)) {
            let previous = match self.slots.get(shard) {
                Some(slot) if slot.session == live.session_id => continue,
                other => other.map(|slot| slot.session.clone()),
            };
            let slot = Slot {
                session: live.session_id.clone(),
                welcomed_at: live.welcomed_at,
                previous,
                state: match live.is_bound {
                    true => State::Bound { since: now },
                    false if moving.contains(shard) => State::Moving { since: now },
                    false => State::Unbound,
                },
                seen_at: None,
                is_adopted: live.is_bound,
                succeeds_at: None,
            };
            changes.is_adopted |= live.is_bound;
            if live.is_bound && !self.slots.contains_key(shard) {
                // Another leader has had the shard since.
                self.past.remove(shard);
            }
            self.slots.insert(*shard, slot);
        }
        changes
    }

    /// Shards that must be bound now; each counts as asked for from here on.
    pub(in crate::reconcile) fn poll_due(&mut self, now: Instant) -> Vec<(ShardId, SessionId)> {
        let mut due = Vec::new();
        for (shard, slot) in &mut self.slots {
            let now_due = match &slot.state {
                State::Unbound => true,
                State::Moving { since } => *since + MOVE_WAIT <= now,
                State::Failed { retry_at, .. } => *retry_at <= now,
                State::Asked | State::Bound { .. } | State::Gone => false,
            };
            if now_due {
                slot.state = State::Asked;
                due.push((*shard, slot.session.clone()));
            }
        }
        due
    }

    /// When the next retry is due, or the next move that has waited long enough.
    pub(in crate::reconcile) fn poll_timeout(&self) -> Option<Instant> {
        self.slots
            .values()
            .filter_map(|slot| match slot.state {
                State::Failed { retry_at, .. } => Some(retry_at),
                State::Moving { since } => Some(since + MOVE_WAIT),
                _ => None,
            })
            .min()
    }

    /// Handles Twitch's answer for one shard. One that is about another conduit or a session that was
    /// replaced meanwhile says nothing.
    pub(in crate::reconcile) fn handle_answer(
        &mut self,
        conduit: &str,
        shard: ShardId,
        session: &SessionId,
        answer: Result<(), &Refused>,
        now: Instant,
    ) {
        let outcome = match answer {
            Ok(()) => State::Bound { since: now },
            Err(Refused::SessionGone) => State::Gone,
            Err(Refused::Other(message)) => self.failed(shard, message, now),
        };
        self.set(conduit, shard, session, outcome);
    }

    fn failed(&self, shard: ShardId, why: &str, now: Instant) -> State {
        let late = self.slots.get(&shard).is_some_and(|slot| now > slot.welcomed_at + self.times.window);
        let pause = if late { self.times.late_retry } else { self.times.retry };
        State::Failed { why: why.into(), retry_at: now + pause }
    }

    fn set(&mut self, conduit: &str, shard: ShardId, session: &SessionId, state: State) {
        let current = self.target.as_ref().is_some_and(|target| *target.conduit_id == *conduit);
        if let Some(slot) = self.slots.get_mut(&shard)
            && current
            && slot.session == *session
            && slot.state == State::Asked
        {
            let bound_at = if let State::Bound { since } = state { Some(since) } else { None };
            slot.succeeds_at =
                slot.succeeds_at.filter(|at| bound_at.is_some_and(|bound_at| bound_at <= *at + MOVE_TIME));
            slot.state = state;
            slot.is_adopted = false;
        }
    }

    /// Handles Twitch's list, which was asked for at `asked_at`. Shards that were bound
    /// shortly before are left out, since the list may be older than the binding.
    pub(in crate::reconcile) fn handle_list(
        &mut self,
        conduit: &str,
        rows: &[ShardRow],
        asked_at: Instant,
    ) -> Vec<Mismatch> {
        if self.target.as_ref().is_none_or(|target| *target.conduit_id != *conduit) {
            return Vec::new();
        }
        let rows: BTreeMap<ShardId, &ShardRow> = rows.iter().map(|row| (row.id, row)).collect();
        // A session that is over, and that nobody took the shard from, had it to its end.
        for (shard, past) in &mut self.past {
            let session = rows.get(shard).and_then(|row| row.session_id.as_ref());
            if session.is_some() && session == past.tenure.session_id.as_ref() && past.unbound.is_none() {
                past.tenure.seen_at = past.tenure.seen_at.max(Some(asked_at));
            }
        }
        let mut found = Vec::new();
        for (shard, slot) in &mut self.slots {
            let row = rows.get(shard);
            let session = row.and_then(|row| row.session_id.as_ref());
            if let State::Moving { since } = slot.state
                && since <= asked_at
            {
                let is_connected = row.is_some_and(|row| &*row.status == "enabled") && session.is_some();
                let is_proved = is_connected && session == slot.previous.as_ref();
                slot.succeeds_at = is_proved.then_some(asked_at);
                slot.state = State::Unbound;
            }
            let State::Bound { since } = slot.state else { continue };
            if session == Some(&slot.session) && since <= asked_at {
                slot.seen_at = Some(asked_at);
            }
            if !slot.is_adopted && since + LIST_LAG > asked_at {
                continue;
            }
            if session == Some(&slot.session) {
                let status = row.map_or("", |row| &row.status);
                if status != "enabled" {
                    end(&mut self.past, *shard, slot, State::Gone, None);
                    found.push(Mismatch::Disconnected(*shard, status.into()));
                }
                continue;
            }
            end(&mut self.past, *shard, slot, State::Unbound, Some(Unbound::Taken));
            let foreign = row.is_some_and(|row| session.is_some() || row.callback.is_some())
                && (session.is_none() || session != slot.previous.as_ref());
            found.push(if foreign { Mismatch::Taken(*shard) } else { Mismatch::Lost(*shard) });
        }
        found
    }

    /// Number of shards that have a session.
    pub(in crate::reconcile) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Number of shards that deliver to our sessions.
    pub(in crate::reconcile) fn bound(&self) -> u32 {
        let bound = self.slots.values().filter(|slot| matches!(slot.state, State::Bound { .. })).count();
        u32::try_from(bound).unwrap_or(u32::MAX)
    }

    /// Returns the known bindings of each shard.
    pub(in crate::reconcile) fn tenures(&self) -> impl Iterator<Item = (ShardId, ShardBinding)> {
        let shards: BTreeSet<ShardId> = self.slots.keys().chain(self.past.keys()).copied().collect();
        shards.into_iter().map(|shard| {
            let past = self.past.get(&shard);
            let binding = ShardBinding {
                present: self.slots.get(&shard).and_then(Slot::tenure),
                past: past.map(|past| past.tenure.clone()),
                unbound: past.and_then(|past| past.unbound),
            };
            (shard, binding)
        })
    }

    /// The bindings, as the shards read them.
    pub(in crate::reconcile) fn bindings(&self) -> Bindings {
        let told = self.slots.iter().filter_map(|(shard, slot)| {
            let outcome = match &slot.state {
                State::Unbound | State::Moving { .. } | State::Asked => return None,
                State::Bound { .. } => BindOutcome::Bound,
                State::Gone => BindOutcome::SessionGone,
                State::Failed { why, .. } => BindOutcome::Failed(why.clone()),
            };
            Some((*shard, Binding { session_id: slot.session.clone(), outcome }))
        });
        Arc::new(told.collect())
    }
}

/// Gives a slot another state; returns whether that ends a binding, which is kept as the last one.
fn end(
    past: &mut BTreeMap<ShardId, Past>,
    shard: ShardId,
    slot: &mut Slot,
    state: State,
    unbound: Option<Unbound>,
) -> bool {
    let tenure = slot.tenure();
    slot.state = state;
    slot.seen_at = None;
    let Some(tenure) = tenure else { return false };
    past.insert(shard, Past { tenure, unbound });
    true
}

#[cfg(test)]
mod tests {
    use super::super::samples::{row, sessions};
    use super::*;
    use crate::model::shard::{LiveSession, first_shards};

    const TIMES: BindTimes = BindTimes {
        window: Duration::from_secs(10),
        retry: Duration::from_secs(1),
        late_retry: Duration::from_secs(5),
    };

    fn target(conduit: &str, shards: u32) -> ShardTarget {
        ShardTarget { conduit_id: conduit.into(), shards, sockets: first_shards(shards), webhook: None }
    }

    fn bound(of: &[(u32, &str)], now: Instant) -> Shards {
        let mut shards = Shards::new(TIMES);
        shards.handle_target(Some(&target("c", 9)), &sessions(of, now), now);
        for (shard, session) in shards.poll_due(now) {
            shards.handle_answer("c", shard, &session, Ok(()), now);
        }
        assert_eq!(shards.bound() as usize, of.len());
        shards
    }

    #[test]
    fn sessions_are_asked_for_once_and_again_after_a_failure() {
        let now = Instant::now();
        let mut shards = Shards::new(TIMES);
        shards.handle_target(None, &sessions(&[(0, "a")], now), now);
        assert!(shards.poll_due(now).is_empty(), "no conduit yet");
        shards.handle_target(Some(&target("c", 1)), &sessions(&[(0, "a"), (1, "beyond")], now), now);
        let asked = shards.poll_due(now);
        assert_eq!(asked, [(ShardId(0), SessionId::new("a"))]);
        assert!(shards.poll_due(now).is_empty());
        let failed = Refused::Other("no network".into());
        shards.handle_answer("c", asked[0].0, &asked[0].1, Err(&failed), now);
        assert!(matches!(shards.bindings()[&ShardId(0)].outcome, BindOutcome::Failed(_)));
        assert_eq!(shards.poll_timeout(), Some(now + TIMES.retry));
        let late = now + Duration::from_secs(11);
        assert_eq!(shards.poll_due(late), asked);
        shards.handle_answer("c", asked[0].0, &asked[0].1, Err(&failed), late);
        assert_eq!(shards.poll_timeout(), Some(late + TIMES.late_retry));
    }

    #[test]
    fn answers_about_the_past_say_nothing() {
        let now = Instant::now();
        let mut shards = Shards::new(TIMES);
        shards.handle_target(Some(&target("c", 1)), &sessions(&[(0, "a")], now), now);
        let asked = shards.poll_due(now);
        shards.handle_target(Some(&target("c", 1)), &sessions(&[(0, "b")], now), now);
        shards.handle_answer("c", ShardId(0), &asked[0].1, Ok(()), now);
        assert_eq!(shards.bound(), 0);
        let asked = shards.poll_due(now);
        shards.handle_target(Some(&target("d", 1)), &sessions(&[(0, "b")], now), now);
        shards.handle_answer("c", ShardId(0), &asked[0].1, Ok(()), now);
        assert_eq!(shards.bound(), 0);
        assert_eq!(shards.poll_due(now).len(), 1, "bound anew on the new conduit");
    }

    #[test]
    fn twitchs_list_shows_thefts_losses_and_ends() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut shards = bound(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")], now);
        let rows = [
            row(0, "enabled", Some("a")),
            row(1, "enabled", Some("foreign")),
            row(2, "websocket_disconnected", Some("c")),
            ShardRow { callback: Some("https://x".into()), ..row(4, "enabled", None) },
            row(7, "enabled", Some("not ours")),
        ];
        assert_eq!(shards.clone().handle_list("c", &rows, now), [], "the list is older than the bindings");
        assert_eq!(shards.clone().handle_list("other", &rows, later), []);
        let found = shards.handle_list("c", &rows, later);
        assert_eq!(
            found,
            [
                Mismatch::Taken(ShardId(1)),
                Mismatch::Disconnected(ShardId(2), "websocket_disconnected".into()),
                Mismatch::Lost(ShardId(3)),
                Mismatch::Taken(ShardId(4)),
            ]
        );
        assert_eq!(shards.bindings()[&ShardId(2)].outcome, BindOutcome::SessionGone);
        let again: Vec<u32> = shards.poll_due(later).iter().map(|(shard, _)| shard.0).collect();
        assert_eq!(again, [1, 3, 4]);
    }

    #[test]
    fn looks_tell_how_long_a_binding_held() {
        let now = Instant::now();
        let (later, end) = (now + Duration::from_secs(60), now + Duration::from_secs(120));
        let mut shards = bound(&[(0, "a"), (1, "b")], now);
        let rows = [row(0, "enabled", Some("a")), row(1, "enabled", Some("b"))];
        shards.handle_list("c", &rows, later);
        let rows = [row(0, "enabled", Some("a")), row(1, "enabled", Some("foreign"))];
        shards.handle_list("c", &rows, end);
        let of =
            |shards: &Shards, shard| shards.tenures().find(|(id, _)| *id == ShardId(shard)).expect("known").1;
        assert_eq!(of(&shards, 0).present.expect("bound").seen_at, Some(end));
        let stolen = of(&shards, 1);
        assert_eq!((stolen.present, stolen.unbound), (None, Some(Unbound::Taken)));
        assert_eq!(stolen.past.expect("it was bound").seen_at, Some(later));

        // The session ends; Twitch still names it, so that the binding was ours to its end.
        assert!(shards.handle_target(Some(&target("c", 2)), &sessions(&[(1, "b")], now), now).is_lost);
        assert!(
            !shards.handle_target(Some(&target("c", 2)), &sessions(&[(0, "n"), (1, "b")], end), end).is_lost
        );
        let over = end + Duration::from_secs(1);
        shards.handle_list("c", &[row(0, "websocket_disconnected", Some("a"))], over);
        let past = of(&shards, 0).past.expect("it was bound");
        assert_eq!((past.session_id, past.seen_at), (Some(SessionId::new("a")), Some(over)));
    }

    #[test]
    fn an_older_session_of_ours_is_no_theft() {
        let now = Instant::now();
        let mut shards = bound(&[(0, "a")], now);
        shards.handle_target(Some(&target("c", 1)), &sessions(&[(0, "b")], now), now);
        for (shard, session) in shards.poll_due(now) {
            shards.handle_answer("c", shard, &session, Ok(()), now);
        }
        let found = shards.handle_list("c", &[row(0, "enabled", Some("a"))], now + Duration::from_secs(60));
        assert_eq!(found, [Mismatch::Lost(ShardId(0))]);
    }

    /// The sessions of one shard, the second of which is to replace the first.
    fn move_one(shards: &mut Shards, now: Instant) -> Changes {
        let mut live = LiveSession::new(SessionId::new("b"), now);
        live.replaces = Some(SessionId::new("a"));
        let sessions: Sessions = Arc::new([(ShardId(0), live)].into());
        shards.handle_target(Some(&target("c", 1)), &sessions, now)
    }

    fn succeeds(shards: &Shards) -> Option<SessionId> {
        shards.tenures().next().expect("known").1.present.expect("bound").succeeds
    }

    #[test]
    fn a_planned_move_is_bound_after_a_look_that_shows_the_old_session() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let bind = |shards: &mut Shards, at: Instant| {
            assert_eq!(shards.poll_due(at), [(ShardId(0), SessionId::new("b"))]);
            shards.handle_answer("c", ShardId(0), &SessionId::new("b"), Ok(()), at);
        };
        let mut shards = bound(&[(0, "a")], now);
        assert!(move_one(&mut shards, later).is_moving);
        assert!(shards.poll_due(later).is_empty(), "it waits for the look");
        shards.handle_list("c", &[row(0, "enabled", Some("a"))], now);
        assert!(shards.poll_due(later).is_empty(), "an older look does not count");
        assert_eq!(shards.poll_timeout(), Some(later + MOVE_WAIT));
        let mut late = shards.clone();
        let taken = shards.clone();
        shards.handle_list("c", &[row(0, "enabled", Some("a"))], later);
        let mut failed = shards.clone();
        bind(&mut shards, later);
        assert_eq!(succeeds(&shards), Some(SessionId::new("a")));
        assert_eq!(shards.tenures().next().expect("known").1.past.expect("before").seen_at, Some(later));

        // Without the look it is bound all the same, without a proof.
        bind(&mut late, later + MOVE_WAIT);
        assert_eq!(succeeds(&late), None);
        for rows in [row(0, "enabled", Some("thief")), row(0, "websocket_disconnected", Some("a"))] {
            let mut taken = taken.clone();
            taken.handle_list("c", &[rows], later);
            bind(&mut taken, later);
            assert_eq!(succeeds(&taken), None);
        }
        // An attempt that failed is too long after the look.
        assert_eq!(failed.poll_due(later).len(), 1);
        let why = Refused::Other("no network".into());
        failed.handle_answer("c", ShardId(0), &SessionId::new("b"), Err(&why), later);
        bind(&mut failed, later + TIMES.retry);
        assert_eq!(succeeds(&failed), None);
        // The successor of a session that has ended is bound at once.
        let mut ended = bound(&[(0, "a")], now);
        let changes = ended.handle_target(Some(&target("c", 1)), &sessions(&[(0, "b")], later), later);
        assert!(!changes.is_moving && changes.is_lost && ended.poll_due(later).len() == 1);
    }

    #[test]
    fn a_session_that_an_earlier_leader_has_bound_is_checked_and_not_bound_again() {
        let now = Instant::now();
        let mut shards = Shards::new(TIMES);
        let mut live = BTreeMap::clone(&sessions(&[(0, "a"), (1, "b"), (2, "c")], now));
        live.values_mut().take(2).for_each(|live| live.is_bound = true);
        let live = Arc::new(live);
        let changes = shards.handle_target(Some(&target("c", 3)), &live, now);
        assert_eq!(changes, Changes { is_adopted: true, ..Changes::default() });
        assert_eq!(shards.bound(), 2);
        assert_eq!(shards.poll_due(now), [(ShardId(2), SessionId::new("c"))]);
        // The list counts at once.
        let rows = [row(0, "enabled", Some("a")), row(1, "enabled", Some("foreign"))];
        assert_eq!(shards.handle_list("c", &rows, now), [Mismatch::Taken(ShardId(1))]);
        assert_eq!(shards.poll_due(now), [(ShardId(1), SessionId::new("b"))]);
        shards.handle_answer("c", ShardId(1), &SessionId::new("b"), Ok(()), now);
        assert_eq!(shards.handle_list("c", &rows, now), [], "the list may be behind this one");
        // On another conduit nothing is bound.
        shards.handle_target(Some(&target("d", 3)), &live, now);
        assert_eq!((shards.bound(), shards.poll_due(now).len()), (0, 3));
    }
}
