//! The values of the keys of this host: its presence, and the further keys with its sockets. ◆

use std::sync::Arc;
use std::time::Instant;

use super::lease::{Holder, Moment};
use super::parts::{self, PARTED, PartWriter};
use super::presence::{ASSIGN, HostValue};
use super::sessions::{HostSockets, PartValue, SocketsValue};
use crate::model::shard::HandedOver;
use crate::model::time::Timestamp;

/// Facts about this host that the others are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Fingerprint of the file, without what belongs to one host.
    pub fingerprint: String,
    /// Shards whose sockets are open here.
    pub shards: Vec<u32>,
    /// Sinks that are worked here.
    pub sinks: Vec<String>,
    /// Events that are stored here, and that the shared log does not have.
    pub forward_lag: u64,
    /// The sockets that are read here.
    pub sockets: Arc<HostSockets>,
    /// Sessions that were replaced by others' and that were read to their end here.
    pub handed_over: HandedOver,
    /// Whether no shard delivers here, and Twitch cannot be reached for it.
    pub is_failing: bool,
}

/// Condition of this host, as its key has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    pub(super) is_leaving: bool,
    pub(super) is_blind: bool,
    /// Whether every host that is alive reads further keys with sockets.
    pub(super) all_read_parts: bool,
}

/// The moment of a call, by the clock of leases and by that of the sockets.
pub(super) type Times = (Moment, Instant);

/// The keys of one process.
#[derive(Debug)]
pub(super) struct OwnKeys {
    holder: Holder,
    version: String,
    /// Start of the process.
    since: Timestamp,
    parts: PartWriter,
}

impl OwnKeys {
    pub(super) fn new(holder: Holder, version: &str, since: Timestamp) -> Self {
        Self { holder, version: version.to_owned(), since, parts: PartWriter::default() }
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The value of the key of this host. Its write counts as begun.
    pub(super) fn host_value(&mut self, facts: &HostFacts, condition: Condition, times: Times) -> HostValue {
        // A host of an earlier release knows one key for each host.
        let named = if condition.all_read_parts { parts::parts(&facts.sockets) } else { Default::default() };
        let sockets = match named.is_empty() {
            true => SocketsValue::of(&facts.sockets, times),
            false => SocketsValue::of(&parts::share(&facts.sockets, 0), times).with_parts(named.clone()),
        };
        self.parts.handle_naming(named);
        HostValue {
            holder: self.holder.clone(),
            version: self.version.clone(),
            fingerprint: facts.fingerprint.clone(),
            since: self.since,
            leaving: condition.is_leaving,
            blind: condition.is_blind,
            shards: facts.shards.clone(),
            sinks: facts.sinks.clone(),
            formats: [ASSIGN, PARTED].map(str::to_owned).into(),
            forward_lag: facts.forward_lag,
            sockets,
            handed_over: facts.handed_over.iter().cloned().collect(),
        }
    }

    /// Records that the key of this host is written.
    pub(super) fn handle_written(&mut self) {
        self.parts.handle_named();
    }

    /// The number and the value of the next further key, if one is due. Its write counts as begun.
    pub(super) fn poll_part(&mut self, facts: &HostFacts, times: Times) -> Option<(u32, PartValue)> {
        let part = self.parts.poll(&facts.sockets, times.0)?;
        let sockets = SocketsValue::of(&parts::share(&facts.sockets, part), times);
        Some((part, PartValue { run: self.holder.run.clone(), sockets }))
    }

    /// Takes the end of the write of a further key.
    pub(super) fn handle_part_written(&mut self, is_written: bool, now: Moment) {
        self.parts.handle_answer(is_written, now);
    }

    /// Begins anew in another bucket.
    pub(super) fn handle_new_bucket(&mut self) {
        self.parts.handle_new_bucket();
    }
}
