//! The sockets of all hosts: what each tells of its own, and which of them counts for each shard. ◆
//!
//! The word of another host is taken with care: it is bounded, and a socket for a shard that the host was not given counts
//! only if Twitch is known to deliver to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lease::Moment;
use super::offset::Offset;
use crate::model::shard::{HandedOver, LiveSession, SessionId, Sessions, ShardId};
use crate::model::signs::Signs;

/// Most shards that Twitch allows (Twitch: "Create Conduits"); no more sockets of all hosts are taken.
const MOST: usize = 20_000;
/// The longest id of a session. Twitch's have 36 characters or more.
const LONGEST_ID: usize = 256;
/// Shards of one key.
pub(super) const SHARE: u32 = 1_000;
/// Time for which the sockets of a host whose key has ended are kept: NATS may have lost the key, and the host may live.
const KEPT: Duration = Duration::from_secs(60);

/// A socket that a host reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSocket {
    pub live: LiveSession,
    pub signs: Signs,
}

/// The sockets of one host, by shard.
pub type HostSockets = BTreeMap<ShardId, HostSocket>;

/// The sockets of the other hosts, by name.
pub(super) type RemoteSockets = BTreeMap<Arc<str>, Arc<HostSockets>>;

/// A socket as the key of its host has it. Times are milliseconds of that machine's clock since boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
struct SocketValue {
    shard: ShardId,
    session_id: SessionId,
    welcomed: u64,
    heard: u64,
    event: u64,
}

/// Short, as it is written twice a second: shard, session, welcome, last message, last event.
type Row = (ShardId, SessionId, u64, u64, u64);

impl From<Row> for SocketValue {
    fn from((shard, session_id, welcomed, heard, event): Row) -> Self {
        Self { shard, session_id, welcomed, heard, event }
    }
}

impl From<SocketValue> for Row {
    fn from(value: SocketValue) -> Self {
        (value.shard, value.session_id, value.welcomed, value.heard, value.event)
    }
}

/// The sockets of a host as its key has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SocketsValue {
    /// Time of writing.
    clock: u64,
    open: Vec<SocketValue>,
    /// Numbers of further keys that have sockets as well.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    parts: BTreeSet<u32>,
}

impl SocketsValue {
    pub(super) fn of(sockets: &HostSockets, (now, here): (Moment, Instant)) -> Self {
        let value = |(shard, socket): (&ShardId, &HostSocket)| {
            let age = here.saturating_duration_since(socket.live.welcomed_at);
            SocketValue {
                shard: *shard,
                session_id: socket.live.session_id.clone(),
                welcomed: millis(now.saturating_sub(age)),
                heard: socket.signs.heard(),
                event: socket.signs.event(),
            }
        };
        Self { clock: millis(now), open: sockets.iter().map(value).collect(), parts: BTreeSet::new() }
    }

    /// Says that further keys have sockets as well.
    pub(super) fn with_parts(self, parts: BTreeSet<u32>) -> Self {
        Self { parts, ..self }
    }
}

fn millis(moment: Moment) -> u64 {
    u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)
}

/// The number of the key that has the socket of a shard; 0 is the key of the host.
pub(super) fn part_of(shard: ShardId) -> u32 {
    shard.0 / SHARE
}

/// Value of a further key of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartValue {
    /// Name of the process.
    pub(super) run: String,
    #[serde(flatten)]
    pub(super) sockets: SocketsValue,
}

#[derive(Clone, Debug)]
struct RemoteHost {
    revision: u64,
    /// Name of its process.
    run: String,
    offset: Offset,
    /// Numbers of the further keys that its key names.
    named: BTreeSet<u32>,
    /// The sockets of its key and of further ones, each with the revision, by the number of the key.
    parts: BTreeMap<u32, (u64, HostSockets)>,
    /// All of them that count.
    sockets: Arc<HostSockets>,
    ended: Option<Moment>,
}

impl RemoteHost {
    /// Puts the sockets together. Returns whether there are other ones now.
    fn merge(&mut self) -> bool {
        let named = &self.named;
        self.parts.retain(|part, _| *part == 0 || named.contains(part));
        let all = self.parts.values().flat_map(|(_, sockets)| sockets);
        let all: HostSockets = all.map(|(shard, socket)| (*shard, socket.clone())).collect();
        let changed = *self.sockets != all;
        if changed {
            self.sockets = Arc::new(all);
        }
        changed
    }

    /// The sockets that a value tells of one key, at most so many.
    fn read(
        &self,
        part: u32,
        value: &SocketsValue,
        room: usize,
        (now, here): (Moment, Instant),
    ) -> HostSockets {
        let mut sockets = HostSockets::new();
        // A host of an earlier release has all sockets in its key.
        let is_here = |socket: &&SocketValue| part == 0 || part_of(socket.shard) == part;
        let told = value.open.iter().filter(|socket| is_plausible(socket)).filter(is_here).take(room);
        for socket in told {
            let known = self.parts.get(&part).and_then(|(_, sockets)| sockets.get(&socket.shard));
            let known = known.filter(|known| known.live.session_id == socket.session_id).cloned();
            let socket_here = known.unwrap_or_else(|| HostSocket {
                live: LiveSession::new(
                    socket.session_id.clone(),
                    // Later than true by the way of the value: it only tells how soon a failed binding is tried again.
                    here.checked_sub(Duration::from_millis(value.clock.saturating_sub(socket.welcomed)))
                        .unwrap_or(here),
                ),
                signs: Signs::default(),
            });
            for (at, record) in [
                (socket.heard, Signs::record_heard as fn(&Signs, u64)),
                (socket.event, Signs::record_event as fn(&Signs, u64)),
            ] {
                // 0 stands for none, and nothing was heard after the value was written.
                if let Some(at) = self.offset.here(at.min(value.clock)).filter(|_| at > 0) {
                    record(&socket_here.signs, at.min(millis(now)));
                }
            }
            sockets.insert(socket.shard, socket_here);
        }
        sockets
    }
}

/// The sockets of the other hosts, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(super) struct RemoteHosts {
    hosts: BTreeMap<Arc<str>, RemoteHost>,
    /// Replaced sessions that were read to their end, and when a host told so.
    handed_over: BTreeMap<SessionId, Moment>,
}

impl RemoteHosts {
    /// Sockets that one key of a host may have, beside those of all other keys.
    fn room(&self, name: &str, part: u32) -> usize {
        let parts = self.hosts.iter().flat_map(|(host, known)| {
            let is_other = move |number: &u32| &**host != name || *number != part;
            known.parts.iter().filter(move |(number, _)| is_other(number))
        });
        MOST.saturating_sub(parts.map(|(_, (_, sockets))| sockets.len()).sum())
    }

    /// Takes the value of a host's key. Returns whether it has other sockets now.
    pub(super) fn handle_value(
        &mut self,
        name: &str,
        revision: u64,
        run: &str,
        value: &SocketsValue,
        (now, here): (Moment, Instant),
    ) -> bool {
        let known = self.hosts.get(name);
        if known.is_some_and(|known| known.revision >= revision) {
            return false;
        }
        let (is_new, room) = (known.is_none(), self.room(name, 0));
        let before = self.hosts.remove(name).filter(|known| known.run == run);
        let is_other_run = before.is_none();
        let mut host = before.unwrap_or_else(|| RemoteHost {
            revision,
            run: run.to_owned(),
            offset: Offset::default(),
            named: BTreeSet::new(),
            parts: BTreeMap::new(),
            sockets: Arc::default(),
            ended: None,
        });
        host.offset.handle_value(value.clock, millis(now));
        let sockets = host.read(0, value, room, (now, here));
        host.parts.insert(0, (revision, sockets));
        (host.revision, host.ended) = (revision, None);
        host.named.clone_from(&value.parts);
        let changed = host.merge();
        self.hosts.insert(name.into(), host);
        changed || is_new || is_other_run
    }

    /// Takes the value of a further key of a host, whose own key has to be known. Returns whether it has other sockets now.
    pub(super) fn handle_part(
        &mut self,
        name: &str,
        part: u32,
        revision: u64,
        value: &PartValue,
        at: (Moment, Instant),
    ) -> bool {
        let room = self.room(name, part);
        let is_named = |host: &&mut RemoteHost| host.run == value.run && host.named.contains(&part);
        let Some(host) = self.hosts.get_mut(name).filter(is_named) else { return false };
        if host.parts.get(&part).is_some_and(|(known, _)| *known >= revision) {
            return false;
        }
        let sockets = host.read(part, &value.sockets, room, at);
        host.parts.insert(part, (revision, sockets));
        host.merge()
    }

    /// Takes the replaced sessions that a host has read to their end. Returns whether any is new.
    pub(super) fn handle_handed_over(&mut self, sessions: &[SessionId], now: Moment) -> bool {
        let before = self.handed_over.len();
        for session in sessions.iter().filter(|session| is_plausible_id(session)) {
            if self.handed_over.len() < MOST {
                self.handed_over.entry(session.clone()).or_insert(now);
            }
        }
        self.handed_over.len() != before
    }

    /// The replaced sessions that were read to their end lately.
    pub(super) fn handed_over(&self) -> HandedOver {
        Arc::new(self.handed_over.keys().cloned().collect())
    }

    /// Takes the end of a host's key.
    pub(super) fn handle_end(&mut self, name: &str, revision: u64, now: Moment) {
        if let Some(host) = self.hosts.get_mut(name)
            && revision > host.revision
        {
            host.revision = revision;
            host.ended.get_or_insert(now);
        }
    }

    /// Forgets hosts that have been gone for long. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Moment) -> bool {
        let before = self.hosts.len();
        self.hosts.retain(|_, host| host.ended.is_none_or(|ended| now < ended + KEPT));
        self.handed_over.retain(|_, told| now < *told + KEPT);
        self.hosts.len() != before
    }

    /// The sockets of all of them.
    pub(super) fn sockets(&self) -> RemoteSockets {
        self.hosts.iter().map(|(name, host)| (Arc::clone(name), Arc::clone(&host.sockets))).collect()
    }
}

fn is_plausible(socket: &SocketValue) -> bool {
    (socket.shard.0 as usize) < MOST && is_plausible_id(&socket.session_id)
}

fn is_plausible_id(id: &SessionId) -> bool {
    let id = id.as_str();
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Everything that decides which socket counts for a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture<'a> {
    /// Name of this host.
    pub(super) own: &'a str,
    /// The sessions of this host.
    pub(super) local: &'a Sessions,
    pub(super) remote: &'a RemoteSockets,
    /// The host of each shard.
    pub(super) assigned: &'a BTreeMap<u32, Arc<str>>,
    /// The session that Twitch is known to deliver to, of each shard.
    pub(super) bound: &'a BTreeMap<ShardId, SessionId>,
}

/// The socket that counts for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) live: LiveSession,
    /// Signs of life, if it is another host's.
    pub(super) signs: Option<Signs>,
}

impl Picture<'_> {
    /// Chooses the socket of each shard: that of its host. Until there is one, the socket that Twitch delivers to stays, so
    /// that a shard which moves is not without any.
    pub(super) fn choose(&self) -> BTreeMap<ShardId, Chosen> {
        let mut chosen: BTreeMap<ShardId, (bool, Chosen)> = BTreeMap::new();
        let mut delivered_to: BTreeMap<ShardId, SessionId> = BTreeMap::new();
        let mut offer = |host: &str, shard: ShardId, live: &LiveSession, signs: Option<&Signs>| {
            let is_own = self.assigned.get(&shard.0).is_some_and(|assigned| **assigned == *host);
            let is_bound = self.bound.get(&shard) == Some(&live.session_id);
            if is_bound {
                delivered_to.insert(shard, live.session_id.clone());
            }
            let is_better = chosen.get(&shard).is_none_or(|(other_is_own, _)| is_own && !other_is_own);
            if (is_own || is_bound) && is_better {
                let live = LiveSession { is_bound, ..live.clone() };
                chosen.insert(shard, (is_own, Chosen { live, signs: signs.cloned() }));
            }
        };
        for (shard, live) in &**self.local {
            offer(self.own, *shard, live, None);
        }
        for (host, sockets) in self.remote {
            for (shard, socket) in &**sockets {
                offer(host, *shard, &socket.live, Some(&socket.signs));
            }
        }
        let with_old = |(shard, (_, mut chosen)): (ShardId, (bool, Chosen))| {
            let old = delivered_to.remove(&shard);
            chosen.live.replaces = old.filter(|old| *old != chosen.live.session_id);
            (shard, chosen)
        };
        chosen.into_iter().map(with_old).collect()
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
