//! Which host opens which shard and works which sink. ◆
//!
//! The leader works it out from the last assignment: what a host has it keeps, as long as it may. What has no host goes to
//! the one with the fewest, and hosts differ by one at most once all of them have been up for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::sink::SinkName;
use crate::model::time::Timestamp;

/// The shards that there are at Twitch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardWork {
    pub conduit_id: Arc<str>,
    /// Numbers of the shards that have a WebSocket.
    pub numbers: BTreeSet<u32>,
    /// Shards that Twitch lists as not connected.
    pub lost: BTreeSet<u32>,
}

/// The work of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// `None` while this host does not know them: they stay as they were assigned.
    pub shards: Option<ShardWork>,
    /// Every sink, with the host that it is pinned to.
    pub sinks: BTreeMap<SinkName, Option<Arc<str>>>,
}

/// A host that belongs to the cluster until a person forgets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Version of the daemon.
    pub(super) version: String,
    /// Last sign of life; `None` while it is alive.
    pub(super) down_since: Option<Timestamp>,
    /// Whether it counts for the number of shards.
    #[serde(default)]
    pub(super) counts: bool,
}

/// The assignment, as it is in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Assignment {
    /// The lease under which it was written.
    pub(super) epoch: u64,
    #[serde(default)]
    pub(super) conduit_id: Option<Arc<str>>,
    #[serde(default)]
    pub(super) shards: Arc<BTreeMap<u32, Arc<str>>>,
    #[serde(default)]
    pub(super) sinks: Arc<BTreeMap<SinkName, Arc<str>>>,
    /// Hosts that hand everything over, with the process that was asked to: a restart ends it.
    #[serde(default)]
    pub(super) draining: BTreeMap<Arc<str>, String>,
    #[serde(default)]
    pub(super) members: BTreeMap<Arc<str>, Member>,
}

/// Fitness of a live host for work. Hosts of a later kind keep their work only while there is none of an earlier kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// Anything.
    Stable,
    /// Work that has no host. Others' work is not moved to it yet, as it may go again.
    Fresh,
    Draining,
    /// The host does not reach Twitch.
    Blind,
    Leaving,
}

impl Fitness {
    fn tier(self) -> Self {
        self.max(Self::Fresh)
    }
}

/// The live hosts that can be given work.
pub(super) type Fits = BTreeMap<Arc<str>, Fitness>;

/// Divides the work between the hosts. If there is none, everything stays as it was.
pub(super) fn assign(fits: &Fits, work: &Work, last: &Assignment) -> Assignment {
    let mut new = last.clone();
    let Some(best) = fits.values().map(|fitness| fitness.tier()).min() else { return new };
    let takers: Takers<'_> = fits
        .iter()
        .filter(|(_, fitness)| fitness.tier() == best)
        .map(|(name, fitness)| (name, *fitness))
        .collect();
    let numbers: BTreeMap<u32, Option<Arc<str>>> = match &work.shards {
        Some(shards) => shards.numbers.iter().map(|number| (*number, None)).collect(),
        None => last.shards.keys().map(|number| (*number, None)).collect(),
    };
    let shards = spread(&numbers, &last.shards, fits, &takers, &BTreeMap::new());
    let loads = loads(shards.values());
    let sinks = spread(&work.sinks, &last.sinks, fits, &takers, &loads);
    if let Some(work) = &work.shards {
        new.conduit_id = Some(Arc::clone(&work.conduit_id));
    }
    new.shards = Arc::new(shards);
    new.sinks = Arc::new(sinks);
    new
}

type Takers<'a> = BTreeMap<&'a Arc<str>, Fitness>;

fn loads<'a>(hosts: impl Iterator<Item = &'a Arc<str>>) -> BTreeMap<Arc<str>, usize> {
    let mut loads = BTreeMap::new();
    for host in hosts {
        *loads.entry(Arc::clone(host)).or_default() += 1;
    }
    loads
}

/// The work of one host.
struct Share<K> {
    movable: Vec<K>,
    pinned: usize,
    /// Count of its work of another kind, which decides between equals.
    other: usize,
    is_stable: bool,
}

impl<K> Share<K> {
    fn weight(&self) -> (usize, usize) {
        (self.movable.len() + self.pinned, self.other)
    }
}

/// The shares of the hosts that may take work.
struct Shares<'a, K>(BTreeMap<&'a Arc<str>, Share<K>>);

impl<K: Ord> Shares<'_, K> {
    /// Gives work that has no host to the one with the fewest.
    fn give(&mut self, key: K) {
        if let Some(share) = self.0.values_mut().min_by_key(|share| share.weight()) {
            share.movable.push(key);
        }
    }

    /// Moves one piece of work from the host with the most to the stable one with the fewest. Returns false once they
    /// differ by one at most.
    fn level(&mut self) -> bool {
        let most = self.0.iter().filter(|(_, share)| !share.movable.is_empty());
        let most = most.max_by_key(|(_, share)| share.weight());
        let least =
            self.0.iter().filter(|(_, share)| share.is_stable).min_by_key(|(_, share)| share.weight());
        let (Some((&most, from)), Some((&least, to))) = (most, least) else { return false };
        if to.weight().0 + 2 > from.weight().0 {
            return false;
        }
        let key = self.0.get_mut(most).and_then(|share| share.movable.pop());
        let to = self.0.get_mut(least);
        to.zip(key).map(|(share, key)| share.movable.push(key)).is_some()
    }
}

/// Divides work of one kind. `wanted` has each piece with the host that it is pinned to.
fn spread<K: Ord + Clone>(
    wanted: &BTreeMap<K, Option<Arc<str>>>,
    last: &BTreeMap<K, Arc<str>>,
    fits: &Fits,
    takers: &Takers<'_>,
    others: &BTreeMap<Arc<str>, usize>,
) -> BTreeMap<K, Arc<str>> {
    let share = |(name, fitness): (&&Arc<str>, &Fitness)| Share {
        movable: Vec::new(),
        pinned: 0,
        other: others.get(*name).copied().unwrap_or(0),
        is_stable: *fitness == Fitness::Stable,
    };
    let mut shares: Shares<'_, K> =
        Shares(takers.iter().map(|(name, fitness)| (*name, share((name, fitness)))).collect());
    let mut result = BTreeMap::new();
    let mut without = Vec::new();
    for (key, pin) in wanted {
        let host = pin.as_ref().or_else(|| last.get(key));
        let share = host.and_then(|host| shares.0.get_mut(host));
        match (pin, share) {
            // Nobody else may have it, so a host that is drained keeps it.
            (Some(pin), share) if fits.contains_key(pin) => {
                share.into_iter().for_each(|share| share.pinned += 1);
                result.insert(key.clone(), Arc::clone(pin));
            }
            (Some(_), _) => {}
            (None, Some(share)) => share.movable.push(key.clone()),
            (None, None) => without.push(key.clone()),
        }
    }
    without.into_iter().for_each(|key| shares.give(key));
    while shares.level() {}
    for (name, share) in shares.0 {
        result.extend(share.movable.into_iter().map(|key| (key, Arc::clone(name))));
    }
    result
}
