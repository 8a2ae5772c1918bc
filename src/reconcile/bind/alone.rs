//! Shards that a host of a cluster binds itself, as no leader can. ◆
//!
//! No shard is taken from another session: it is bound only right after Twitch's list has shown it as not enabled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::helix::ShardRow;
use crate::model::shard::{
    BindOutcome, Binding, Bindings, OwnShards, SessionId, Sessions, ShardId, ShardSet,
};
use crate::reconcile::api::Refused;

/// Least pause between two looks at the list: sessions that come close together share one.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks for shards that have no socket here.
const PATIENCE: Duration = Duration::from_secs(15);

/// The shards of this host while it is alone.
#[derive(Clone, Debug, Default)]
pub(super) struct AloneShards {
    /// `None` while somebody may lead.
    own: Option<OwnShards>,
    /// Sessions of these shards that Twitch is not known to deliver to.
    unbound: BTreeMap<ShardId, SessionId>,
    /// The session of each shard that a look was made for.
    looked: BTreeMap<ShardId, SessionId>,
    /// Shards that the last list showed as not enabled.
    free: BTreeSet<ShardId>,
    /// Twitch's answers.
    answers: BTreeMap<ShardId, Binding>,
    /// Sessions that there were when the look in hand was begun.
    asked: Option<BTreeMap<ShardId, SessionId>>,
    /// The earliest time of the next look, and that of one for shards without a socket.
    next: Option<(Instant, Instant)>,
}

impl AloneShards {
    /// Takes the shards to look after, the sessions of this host and what is known of their bindings.
    pub(super) fn handle_state(&mut self, own: Option<&OwnShards>, sessions: &Sessions, bindings: &Bindings) {
        let conduit = |own: Option<&OwnShards>| own.map(|own| Arc::clone(&own.conduit_id));
        if conduit(self.own.as_ref()) != conduit(own) {
            self.free.clear();
            self.looked.clear();
        }
        if own.is_none() {
            self.next = None;
        }
        self.own = own.cloned();
        self.answers.retain(|shard, answer| {
            sessions.get(shard).is_some_and(|live| live.session_id == answer.session_id)
        });
        let is_open = |shard: &ShardId, session: &SessionId| {
            let known = [bindings.get(shard), self.answers.get(shard)];
            let is_over = |binding: &Binding| {
                binding.session_id == *session && !matches!(binding.outcome, BindOutcome::Failed(_))
            };
            !known.into_iter().flatten().any(is_over)
        };
        let shards = own.iter().flat_map(|own| own.shards.iter());
        let live = shards.filter_map(|shard| Some((*shard, sessions.get(shard)?.session_id.clone())));
        self.unbound = live.filter(|(shard, session)| is_open(shard, session)).collect();
        self.looked.retain(|shard, session| self.unbound.get(shard) == Some(session));
        self.free.retain(|shard| own.is_some_and(|own| own.shards.contains(shard)));
    }

    /// Shards that have no socket here, as Twitch did not list them as free yet. `opened` are those that have one.
    fn is_waiting(&self, opened: &ShardSet) -> bool {
        let own = self.own.iter().flat_map(|own| own.shards.iter());
        own.into_iter().any(|shard| !opened.contains(shard) && !self.free.contains(shard))
    }

    /// When the next look is due; `None` if there is nothing to look for.
    pub(super) fn poll_timeout(&self, opened: &ShardSet, now: Instant) -> Option<Instant> {
        if self.own.is_none() || self.asked.is_some() {
            return None;
        }
        let (next, later) = self.next.unwrap_or((now, now));
        if self.unbound.iter().any(|(shard, session)| self.looked.get(shard) != Some(session)) {
            return Some(next);
        }
        self.is_waiting(opened).then_some(later)
    }

    /// The conduit to list the shards of, if a look is due. It counts as begun.
    pub(super) fn poll_look(&mut self, opened: &ShardSet, now: Instant) -> Option<Arc<str>> {
        if self.poll_timeout(opened, now)? > now {
            return None;
        }
        self.asked = Some(self.unbound.clone());
        self.own.as_ref().map(|own| Arc::clone(&own.conduit_id))
    }

    /// Takes the list of a conduit's shards; `None` if it could not be read. `is_whole`: every row could be. Returns the
    /// sessions to bind now.
    pub(super) fn handle_list(
        &mut self,
        conduit_id: &str,
        rows: Option<&[ShardRow]>,
        is_whole: bool,
        now: Instant,
    ) -> Vec<(ShardId, SessionId)> {
        self.next = Some((now + PAUSE, now + PATIENCE));
        let (Some(asked), Some(rows)) = (self.asked.take(), rows) else { return Vec::new() };
        let Some(own) = self.own.as_ref().filter(|own| *own.conduit_id == *conduit_id) else {
            return Vec::new();
        };
        let rows: BTreeMap<ShardId, &ShardRow> = rows.iter().map(|row| (row.id, row)).collect();
        let is_free = |shard: &ShardId| match rows.get(shard) {
            Some(row) => &*row.status != "enabled" && row.callback.is_none(),
            // A shard that was never bound has no row.
            None => is_whole,
        };
        self.free = own.shards.iter().copied().filter(is_free).collect();
        self.looked = asked;
        self.looked.retain(|shard, session| self.unbound.get(shard) == Some(session));
        let due = self.looked.iter().filter(|(shard, _)| self.free.contains(*shard));
        due.map(|(shard, session)| (*shard, session.clone())).collect()
    }

    /// Takes Twitch's answer about one session; `None` if there was none.
    pub(super) fn handle_answer(
        &mut self,
        shard: ShardId,
        session_id: SessionId,
        answer: Option<&Result<(), Refused>>,
    ) {
        let outcome = match answer {
            Some(Ok(())) => BindOutcome::Bound,
            Some(Err(Refused::SessionGone)) => BindOutcome::SessionGone,
            // Looked for and tried once more.
            Some(Err(Refused::Other(_))) | None => {
                self.looked.remove(&shard);
                return;
            }
        };
        self.unbound.remove(&shard);
        self.answers.insert(shard, Binding { session_id, outcome });
    }

    /// Twitch's answers about sessions that still live.
    pub(super) fn bindings(&self) -> Bindings {
        Arc::new(self.answers.clone())
    }

    /// Shards that the last list showed as not enabled: a socket for them can be bound.
    pub(super) fn free(&self) -> ShardSet {
        Arc::new(self.free.clone())
    }
}

#[cfg(test)]
#[path = "alone_tests.rs"]
mod tests;
