//! The sockets of a host that do not fit into its key: further keys, one for each thousand shards. ◆
//!
//! NATS carries messages of up to 1 MiB, and the key of a host is written twice a second. So that key has the sockets of the
//! first thousand shards only. Every other thousand has a key of its own, written when its sessions change, and now and then
//! for the signs of life.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lease::Moment;
use super::sessions::{HostSockets, SHARE, part_of};
use crate::model::shard::{SessionId, ShardId};

/// How the keys begin.
pub(super) const PARTS: &str = "sockets.";
/// The format of a release that reads such keys.
pub(super) const PARTED: &str = "parts";
/// Keys of one host at most, beside its own: Twitch allows 20,000 shards.
pub(super) const MOST_PARTS: u32 = 19;
/// Time to live of such a key. A host that ends is known from its own key.
pub(super) const TTL: Duration = Duration::from_secs(60);
/// Pause between two writes of one key whose sessions are the same.
const PAUSE: Duration = Duration::from_secs(5);

/// The shards of one key.
fn shards_of(part: u32) -> std::ops::Range<ShardId> {
    ShardId(part * SHARE)..ShardId(part.saturating_add(1) * SHARE)
}

/// The numbers of the keys that these sockets need beside the host's.
pub(super) fn parts(sockets: &HostSockets) -> BTreeSet<u32> {
    sockets.keys().map(|shard| part_of(*shard)).filter(|part| (1..=MOST_PARTS).contains(part)).collect()
}

/// The sockets of one key.
pub(super) fn share(sockets: &HostSockets, part: u32) -> HostSockets {
    sockets.range(shards_of(part)).map(|(shard, socket)| (*shard, socket.clone())).collect()
}

/// The name of a key.
pub(super) fn key(host: &str, part: u32) -> String {
    format!("{PARTS}{host}.{part}")
}

/// The host and the number of a key.
pub(super) fn read_key(key: &str) -> Option<(&str, u32)> {
    let (host, part) = key.strip_prefix(PARTS)?.rsplit_once('.')?;
    let part = part.parse().ok().filter(|part| (1..=MOST_PARTS).contains(part))?;
    Some((host, part))
}

/// When this host writes its keys.
#[derive(Clone, Debug, Default)]
pub(super) struct PartWriter {
    /// The sessions of each key as they were written, and when.
    written: BTreeMap<u32, (Vec<(ShardId, SessionId)>, Moment)>,
    asked: Option<(u32, Vec<(ShardId, SessionId)>)>,
    /// The keys that the key of the host names, and those that its write in hand does: the others leave out what is not
    /// named there.
    named: BTreeSet<u32>,
    naming: BTreeSet<u32>,
}

impl PartWriter {
    /// Records that the key of the host is written, and names these keys.
    pub(super) fn handle_naming(&mut self, parts: BTreeSet<u32>) {
        self.naming = parts;
    }

    /// Records the end of that write.
    pub(super) fn handle_named(&mut self) {
        self.named.clone_from(&self.naming);
    }

    /// The key to write now, if one is due. It counts as begun.
    pub(super) fn poll(&mut self, sockets: &HostSockets, now: Moment) -> Option<u32> {
        if self.asked.is_some() {
            return None;
        }
        let needed: BTreeSet<u32> = parts(sockets).intersection(&self.named).copied().collect();
        self.written.retain(|part, _| needed.contains(part));
        let sessions = |part: u32| -> Vec<(ShardId, SessionId)> {
            let of = sockets.range(shards_of(part));
            of.map(|(shard, socket)| (*shard, socket.live.session_id.clone())).collect()
        };
        let has_changed =
            |part: &u32| self.written.get(part).is_none_or(|(known, _)| *known != sessions(*part));
        let is_due = |part: &u32| self.written.get(part).is_none_or(|(_, at)| now >= *at + PAUSE);
        let oldest = |part: &u32| self.written.get(part).map(|(_, at)| *at);
        let changed = needed.iter().copied().find(has_changed);
        let part = changed.or_else(|| needed.iter().copied().filter(is_due).min_by_key(oldest))?;
        self.asked = Some((part, sessions(part)));
        Some(part)
    }

    /// Takes the end of the write.
    pub(super) fn handle_answer(&mut self, is_written: bool, now: Moment) {
        if let Some((part, sessions)) = self.asked.take() {
            if is_written {
                self.written.insert(part, (sessions, now));
            } else {
                self.written.remove(&part);
            }
        }
    }

    /// Begins anew in another bucket.
    pub(super) fn handle_new_bucket(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::sessions::{HostSocket, PartValue, RemoteHosts, SocketsValue};
    use super::*;
    use crate::model::shard::LiveSession;
    use crate::model::signs::Signs;

    /// The largest message that NATS carries unless it is set otherwise.
    const MAX_PAYLOAD: usize = 1 << 20;

    fn sockets(shards: impl Iterator<Item = u32>, id: impl Fn(u32) -> String) -> HostSockets {
        let socket = |shard| {
            let signs = Signs::default();
            signs.record_heard(u64::MAX >> 12);
            signs.record_event(u64::MAX >> 12);
            let live = LiveSession::new(SessionId::new(id(shard)), Instant::now());
            (ShardId(shard), HostSocket { live, signs })
        };
        shards.map(socket).collect()
    }

    /// Writes everything that is due, as the other hosts read it.
    fn write(
        writer: &mut PartWriter,
        remote: &mut RemoteHosts,
        all: &HostSockets,
        revision: &mut u64,
        now: Moment,
    ) -> usize {
        let here = (now, Instant::now());
        let mut largest = 0;
        let mut told = |text: Vec<u8>| {
            largest = largest.max(text.len());
            text
        };
        let value = SocketsValue::of(&share(all, 0), here).with_parts(parts(all));
        let text = told(serde_json::to_vec(&value).unwrap());
        *revision += 1;
        writer.handle_naming(parts(all));
        remote.handle_value("b", *revision, "run", &serde_json::from_slice(&text).unwrap(), here);
        writer.handle_named();
        for _ in 0..=MOST_PARTS {
            let Some(part) = writer.poll(all, now) else { break };
            let value = PartValue { run: "run".into(), sockets: SocketsValue::of(&share(all, part), here) };
            let text = told(serde_json::to_vec(&value).unwrap());
            *revision += 1;
            let (host, number) = (key("b", part), part);
            assert_eq!(read_key(&host), Some(("b", number)));
            remote.handle_part("b", part, *revision, &serde_json::from_slice(&text).unwrap(), here);
            writer.handle_answer(true, now);
        }
        largest
    }

    fn part_value() -> PartValue {
        let all = sockets(20_000..20_001, |shard| shard.to_string());
        PartValue {
            run: "run".into(),
            sockets: SocketsValue::of(&all, (Duration::from_secs(1_000), Instant::now())),
        }
    }

    #[test]
    fn twenty_thousand_sockets_of_one_host_fit_into_messages_of_nats() {
        let (mut writer, mut remote, mut revision) = (PartWriter::default(), RemoteHosts::default(), 0);
        let mut all = sockets(0..20_000, |shard| format!("{shard:0>256}"));
        let now = Duration::from_secs(1_000);
        let largest = write(&mut writer, &mut remote, &all, &mut revision, now);
        // As much again for everything else in the key of a host, such as the numbers of its shards.
        assert!(largest < MAX_PAYLOAD / 2, "{largest}");
        let known = Arc::clone(&remote.sockets()["b"]);
        assert_eq!(known.len(), 20_000);
        assert!(all.iter().all(|(shard, socket)| known[shard].live.session_id == socket.live.session_id));
        assert_eq!(writer.poll(&all, now), None, "all is written");
        // One session changes, and one thousand shards go.
        all.extend(sockets(7_000..7_001, |_| "new".to_owned()));
        all.retain(|shard, _| part_of(*shard) != 3);
        assert_eq!(writer.clone().poll(&all, now), Some(7));
        assert!(
            !remote.handle_part("b", 20, 1_000_000, &part_value(), (now, Instant::now())),
            "it is not named"
        );
        write(&mut writer, &mut remote, &all, &mut revision, now);
        let known = Arc::clone(&remote.sockets()["b"]);
        assert_eq!(known[&ShardId(7_000)].live.session_id, SessionId::new("new"));
        assert_eq!(known.len(), 19_000);
        // Signs of life are told now and then, the oldest first.
        assert_eq!(writer.poll(&all, now + PAUSE), Some(1));
    }

    #[test]
    fn a_host_with_few_shards_needs_no_further_key() {
        let all = sockets(0..1_000, |shard| shard.to_string());
        let mut writer = PartWriter::default();
        writer.handle_naming(parts(&all));
        writer.handle_named();
        assert_eq!(writer.poll(&all, Duration::ZERO), None);
        assert_eq!(share(&all, 0).len(), 1_000);
    }

    proptest! {
        /// For any sockets that come and go, and any writes that fail, the other hosts end up with exactly what there is.
        #[test]
        fn the_others_know_all_sockets(
            steps in prop::collection::vec((prop::collection::btree_map(0_u32..6_000, 0_u32..4, 0..9), any::<bool>()), 1..12),
        ) {
            let (mut writer, mut remote, mut revision) = (PartWriter::default(), RemoteHosts::default(), 0);
            let mut now = Duration::from_secs(1_000);
            for (of, fails) in steps {
                let all = sockets(of.keys().copied(), |shard| format!("s{}", of[&shard]));
                now += Duration::from_millis(500);
                if fails && writer.poll(&all, now).is_some() {
                    writer.handle_answer(false, now);
                }
                write(&mut writer, &mut remote, &all, &mut revision, now);
                let known = remote.sockets();
                let ids = |sockets: &HostSockets| -> Vec<(ShardId, SessionId)> {
                    sockets.iter().map(|(shard, socket)| (*shard, socket.live.session_id.clone())).collect()
                };
                prop_assert_eq!(ids(&known["b"]), ids(&all));
            }
        }

        /// A program that may write can leave anything there.
        #[test]
        fn anything_can_be_read(key in "sockets\\.\\PC{0,20}", text in "\\PC{0,60}") {
            prop_assert!(read_key(&key).is_none_or(|(_, part)| (1..=MOST_PARTS).contains(&part)));
            let _ = serde_json::from_str::<PartValue>(&text);
        }
    }
}
