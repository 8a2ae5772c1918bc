//! The sockets of other hosts and the leader's bindings, from the task of the cluster to the other parts.

use std::sync::Arc;

use tokio::sync::watch;

use super::bound::{Bound, PREFIX};
use super::lease::Moment;
use super::presence::HostValue;
use super::sessions::{PartValue, RemoteHosts, RemoteSockets};
use super::values::SharedValues;
use crate::model::shard::HandedOver;

/// The shards of all hosts, as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Name of this host.
    pub(super) host: Arc<str>,
    /// The sockets of the other hosts.
    pub(super) remote: watch::Receiver<Arc<RemoteSockets>>,
    /// Twitch's answers to the leader about the sessions of all hosts.
    pub(super) bound: watch::Receiver<Arc<Bound>>,
    /// Replaced sessions that were read to their end, as the keys of all hosts have them, this one's among them.
    pub(super) handed_over: watch::Receiver<HandedOver>,
}

/// The end of the task.
#[derive(Debug)]
pub(super) struct SharedIn {
    host: Arc<str>,
    hosts: RemoteHosts,
    remote: watch::Sender<Arc<RemoteSockets>>,
    bound: watch::Sender<Arc<Bound>>,
    handed_over: watch::Sender<HandedOver>,
    /// Revision of the key that was last read.
    revision: u64,
}

/// Builds both ends for the host of this name.
pub(super) fn shared(host: String) -> (SharedIn, Shared) {
    let host: Arc<str> = host.into();
    let (remote_in, remote) = watch::channel(Arc::default());
    let (bound_in, bound) = watch::channel(Arc::default());
    let (handed_over_in, handed_over) = watch::channel(HandedOver::default());
    let task = SharedIn {
        host: Arc::clone(&host),
        hosts: RemoteHosts::default(),
        remote: remote_in,
        bound: bound_in,
        handed_over: handed_over_in,
        revision: 0,
    };
    (task, Shared { host, remote, bound, handed_over })
}

impl SharedIn {
    /// Takes the value of a host's key.
    pub(super) fn handle_host(&mut self, name: &str, revision: u64, value: &HostValue, at: Moment) {
        if self.hosts.handle_handed_over(&value.handed_over, at) {
            self.handed_over.send_replace(self.hosts.handed_over());
        }
        let here = std::time::Instant::now();
        if *name != *self.host
            && self.hosts.handle_value(name, revision, &value.holder.run, &value.sockets, (at, here))
        {
            self.remote.send_replace(Arc::new(self.hosts.sockets()));
        }
    }

    /// Takes the value of a further key of a host.
    pub(super) fn handle_part(
        &mut self,
        name: &str,
        part: u32,
        revision: u64,
        value: &PartValue,
        at: Moment,
    ) {
        let here = std::time::Instant::now();
        if *name != *self.host && self.hosts.handle_part(name, part, revision, value, (at, here)) {
            self.remote.send_replace(Arc::new(self.hosts.sockets()));
        }
    }

    /// Takes the end of a host's key.
    pub(super) fn handle_end(&mut self, name: &str, revision: u64, at: Moment) {
        self.hosts.handle_end(name, revision, at);
    }

    /// Publishes what has changed.
    pub(super) fn publish(&mut self, values: &SharedValues, at: Moment) {
        if self.hosts.expire(at) {
            self.remote.send_replace(Arc::new(self.hosts.sockets()));
        }
        let revision = values.bound_revision();
        if revision != self.revision {
            self.revision = revision;
            self.bound.send_replace(Arc::new(Bound::read(&values.load(PREFIX))));
        }
    }
}
