//! Which sockets this host has: those that it was given, and those that another host has not replaced yet. ◆
//!
//! A socket whose shard moves is read until two seconds after Twitch delivers to the new one, as what is on its way comes
//! over the old one. If no new one is bound, it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::lease::Moment;
use crate::model::shard::{
    BindOutcome, Bindings, Closed, HandedOver, SessionId, Sessions, ShardId, ShardTarget,
};

/// Time for which a socket is read on once Twitch delivers to its successor.
const LINGER: Duration = Duration::from_secs(2);
/// Time for which the leader is told that a replaced session was read to its end.
const TOLD: Duration = Duration::from_secs(30);
/// Most sessions that it is told of at a time, as they stand in the key of the host. A gap is told for the others.
const MOST_TOLD: usize = 500;

/// The share of this host in the shards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<'a> {
    /// Name of this host.
    pub(super) own: &'a str,
    pub(super) conduit_id: &'a Arc<str>,
    /// The host of each shard.
    pub(super) assigned: &'a BTreeMap<u32, Arc<str>>,
}

/// Sockets of moved shards that are read on.
#[derive(Clone, Debug, Default)]
pub(super) struct Handover {
    /// When Twitch was first known to deliver to another session, and which one of ours it replaces.
    replaced: BTreeMap<ShardId, (SessionId, Moment)>,
    /// The sessions whose sockets were closed after that.
    closing: BTreeMap<ShardId, SessionId>,
    /// The sessions among them that were read to Twitch's answer, and since when that is known.
    done: BTreeMap<SessionId, Moment>,
}

impl Handover {
    /// Returns the sessions that were replaced and read to their end lately. `closed` has the last one of each shard that was.
    pub(super) fn poll_done(&mut self, closed: &Closed, now: Moment) -> HandedOver {
        for (shard, session) in &**closed {
            if self.closing.get(shard) == Some(session) {
                self.closing.remove(shard);
                if self.done.len() < MOST_TOLD {
                    self.done.insert(session.clone(), now);
                }
            }
        }
        self.done.retain(|_, at| now < *at + TOLD);
        Arc::new(self.done.keys().cloned().collect())
    }

    /// Whether a session that was replaced is not read to its end yet.
    pub(super) fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// Returns the sockets to have, and when to ask again.
    pub(super) fn poll(
        &mut self,
        share: Share<'_>,
        opened: Option<&ShardTarget>,
        sessions: &Sessions,
        bound: &Bindings,
        now: Moment,
    ) -> (ShardTarget, Option<Moment>) {
        let is_own = |shard: &ShardId| share.assigned.get(&shard.0).is_some_and(|host| **host == *share.own);
        let own = share.assigned.keys().map(|shard| ShardId(*shard)).filter(is_own);
        let mut sockets: BTreeSet<ShardId> = own.collect();
        let is_same = opened.is_some_and(|opened| opened.conduit_id == *share.conduit_id);
        let others: Vec<(ShardId, &SessionId)> = sessions
            .iter()
            .filter(|(shard, _)| is_same && !is_own(shard) && share.assigned.contains_key(&shard.0))
            .map(|(shard, live)| (*shard, &live.session_id))
            .collect();
        self.replaced.retain(|shard, (session, _)| others.contains(&(*shard, &*session)));
        for (shard, session) in others {
            match bound.get(&shard).filter(|binding| binding.outcome == BindOutcome::Bound) {
                Some(binding) if binding.session_id == *session => {
                    self.replaced.remove(&shard);
                }
                Some(_) => {
                    self.replaced.entry(shard).or_insert_with(|| (session.clone(), now));
                }
                None => {}
            }
            let is_over = self.replaced.get(&shard).is_some_and(|(_, at)| now >= *at + LINGER);
            if is_over {
                self.closing.insert(shard, session.clone());
            } else {
                sockets.insert(shard);
            }
        }
        let next = self.replaced.iter().filter(|(shard, _)| sockets.contains(shard));
        let next = next.map(|(_, (_, at))| *at + LINGER).filter(|at| *at > now).min();
        let target = ShardTarget {
            conduit_id: Arc::clone(share.conduit_id),
            shards: share.assigned.keys().next_back().map_or(0, |last| last + 1),
            sockets: Arc::new(sockets),
            webhook: None,
        };
        (target, next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::model::shard::{Binding, LiveSession};

    fn assigned(hosts: &[(u32, &str)]) -> BTreeMap<u32, Arc<str>> {
        hosts.iter().map(|(shard, host)| (*shard, Arc::from(*host))).collect()
    }

    fn sessions(of: &[(u32, &str)]) -> Sessions {
        let welcomed_at = Instant::now();
        let live = |id: &str| LiveSession::new(SessionId::new(id), welcomed_at);
        Arc::new(of.iter().map(|(shard, id)| (ShardId(*shard), live(id))).collect())
    }

    fn bound(of: &[(u32, &str)]) -> Bindings {
        let binding = |id: &str| Binding { session_id: SessionId::new(id), outcome: BindOutcome::Bound };
        Arc::new(of.iter().map(|(shard, id)| (ShardId(*shard), binding(id))).collect())
    }

    fn numbers(target: &ShardTarget) -> Vec<u32> {
        target.sockets.iter().map(|shard| shard.0).collect()
    }

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_moved_shard_is_read_until_two_seconds_after_its_successor_is_bound() {
        let conduit: Arc<str> = "c".into();
        let before = assigned(&[(0, "a"), (1, "a")]);
        let share = |assigned| Share { own: "a", conduit_id: &conduit, assigned };
        let mut handover = Handover::default();
        let none = Sessions::default();
        let (opened, _) = handover.poll(share(&before), None, &none, &Bindings::default(), at(1));
        assert_eq!((numbers(&opened), opened.shards), (vec![0, 1], 2));

        let after = assigned(&[(0, "a"), (1, "b")]);
        let ours = sessions(&[(0, "x"), (1, "y")]);
        let mut poll = |bound: &Bindings, seconds| {
            let (target, next) = handover.poll(share(&after), Some(&opened), &ours, bound, at(seconds));
            (numbers(&target), next)
        };
        assert_eq!(poll(&bound(&[(0, "x"), (1, "y")]), 9), (vec![0, 1], None));
        assert_eq!(poll(&bound(&[(0, "x"), (1, "z")]), 50), (vec![0, 1], Some(at(52))));
        assert_eq!(poll(&bound(&[(0, "x"), (1, "z")]), 51), (vec![0, 1], Some(at(52))));
        assert_eq!(poll(&bound(&[(0, "x"), (1, "z")]), 52), (vec![0], None));
    }

    #[test]
    fn sockets_of_another_conduit_and_of_shards_that_are_gone_close_at_once() {
        let (old, new): (Arc<str>, Arc<str>) = ("c".into(), "d".into());
        let opened = ShardTarget {
            conduit_id: old.clone(),
            shards: 3,
            sockets: Arc::new([ShardId(0), ShardId(1), ShardId(2)].into()),
            webhook: None,
        };
        let ours = sessions(&[(0, "x"), (1, "y"), (2, "z")]);
        let fewer = assigned(&[(0, "a"), (1, "b")]);
        let poll = |conduit_id: &Arc<str>| {
            let share = Share { own: "a", conduit_id, assigned: &fewer };
            let polled = Handover::default().poll(share, Some(&opened), &ours, &Bindings::default(), at(1));
            numbers(&polled.0)
        };
        assert_eq!(poll(&old), [0, 1], "the second one until it is replaced");
        assert_eq!(poll(&new), [0]);
    }

    proptest! {
        /// Whatever is assigned and bound: every shard of this host has its socket, and a socket that Twitch delivers to is
        /// never closed while its shard exists.
        #[test]
        fn what_is_delivered_to_is_never_closed(
            steps in prop::collection::vec(
                (prop::collection::vec(0_usize..3, 4), prop::collection::vec(0_usize..3, 4), 0_u64..4), 1..30),
        ) {
            let hosts = ["a", "b", "c"];
            let conduit: Arc<str> = "c".into();
            let ours = sessions(&[(0, "a0"), (1, "a1"), (2, "a2"), (3, "a3")]);
            let (mut handover, mut now) = (Handover::default(), 0);
            let mut opened: Option<ShardTarget> = None;
            for (assigned_to, bound_to, pause) in steps {
                now += pause;
                let assigned: BTreeMap<u32, Arc<str>> =
                    (0..4).zip(assigned_to.iter().map(|host| Arc::from(hosts[*host]))).collect();
                let ids: Vec<String> = (0..4).map(|shard| format!("{}{shard}", hosts[bound_to[shard]])).collect();
                let pairs: Vec<(u32, &str)> = (0..4).zip(ids.iter().map(String::as_str)).collect();
                let share = Share { own: "a", conduit_id: &conduit, assigned: &assigned };
                let (target, next) = handover.poll(share, opened.as_ref(), &ours, &bound(&pairs), at(now));
                for shard in 0..4_u32 {
                    let has = target.sockets.contains(&ShardId(shard));
                    let index = shard as usize;
                    prop_assert!(has || assigned_to[index] != 0);
                    prop_assert!(has || opened.is_none() || bound_to[index] != 0);
                }
                prop_assert!(next.is_none_or(|next| next > at(now)));
                opened = Some(target);
            }
        }
    }
}
