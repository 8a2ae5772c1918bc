//! Which connections of a listener get a place, and which give theirs up. ◆
//!
//! There is always room for a new connection while an older one has not proved itself, so strangers who hold
//! connections open keep nobody out. Those go in this order: the connection of an unproved address that is unproved
//! for longest; then the same of proved addresses, since a proxy that forwards for Twitch forwards for strangers
//! too; then the proved connection that is idle for longest; then the proved one that takes longest over a request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::activity::{Activity, Phase};

/// Addresses that are remembered as proved; the one that was proved least recently is forgotten.
const PROVED_ADDRESSES: usize = 1_024;
/// Time limits stay short for this long after a connection had to go.
const SCARCE_FOR: Duration = Duration::from_secs(10);
/// The status mentions that connections had to go for this long.
const CROWDED_FOR: Duration = Duration::from_secs(60);
/// A proved connection in the middle of a request gives up its place only if the request takes longer than this.
const DAWDLING: Duration = Duration::from_secs(1);

/// Bounds for the connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections.
    pub places: usize,
    /// Maximum number of connections of an address that has proved nothing yet.
    pub per_address: usize,
    /// Further places, for probes only, used when proved connections occupy all others.
    pub reserve: usize,
    /// Bytes of unfinished bodies that all connections together may hold.
    pub bodies: usize,
    /// Time limit from the first byte of a request to the last of its head.
    pub head: Duration,
    /// Time limit from the head of a request to the last byte of its body.
    pub body: Duration,
    /// Time limit for negotiating TLS.
    pub handshake: Duration,
    /// Time limit between two requests.
    pub idle: Duration,
    /// Replaces the longer ones of these limits while places are scarce; proved connections may still be idle.
    pub scarce: Duration,
}

/// Order to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    Serve,
    /// End after the request in hand.
    Drain,
    /// End at once, even during a request.
    Cut,
}

/// The outcome of [`Places::enter`].
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) number: u64,
    pub(super) activity: Arc<Activity>,
    /// Holds one of the places that only probes may use.
    pub(super) is_reserved: bool,
    /// The connections that make room for it.
    pub(super) orders: Vec<(u64, Order)>,
}

/// How full a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    pub open: u64,
    pub places: u64,
    /// Open connections that have not proved themselves.
    pub unproved: u64,
    /// Connections that had to make room for others since the start.
    pub evicted: u64,
    /// Present if connections had to make room within the last minute.
    pub crowd: Option<Crowd>,
}

/// Which address has the most unproved connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    pub address: Option<String>,
    pub connections: u64,
}

impl Counts {
    /// Describes the crowd. `proof` completes "connections without …".
    pub fn problem(&self, proof: &str) -> Option<String> {
        let crowd = self.crowd.as_ref()?;
        let most = match &crowd.address {
            Some(address) if crowd.connections > 1 => {
                format!("; {} of them come from {address}", crowd.connections)
            }
            _ => String::new(),
        };
        Some(format!(
            "strangers compete for its {} places: {} open connections are without {proof}{most}; {} had to make room for \
             others so far. Whoever is proved is still served; if this lasts, block these addresses in a firewall",
            self.places, self.unproved, self.evicted
        ))
    }
}

#[derive(Debug)]
struct Place<K> {
    peer: K,
    is_proved: bool,
    activity: Arc<Activity>,
}

/// The places of one listener. Time is that since the table was made.
#[derive(Debug)]
pub(super) struct Places<K> {
    limits: Limits,
    last: u64,
    open: BTreeMap<u64, Place<K>>,
    /// Unproved connections of unproved addresses. Numbers grow, so the first is the oldest, here and below.
    strangers: BTreeSet<u64>,
    /// The same by address.
    by_peer: HashMap<K, BTreeSet<u64>>,
    /// Unproved connections of proved addresses.
    guests: BTreeSet<u64>,
    /// Proved addresses, with a number that grows with each proof.
    proved: HashMap<K, u64>,
    proofs: u64,
    /// Connections that were told to end, since when, and have no place any more.
    leaving: BTreeMap<u64, (Arc<Activity>, Duration)>,
    evicted: u64,
    last_evicted: Option<Duration>,
}

impl<K: Copy + Eq + Hash + ToString> Places<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: 0,
            open: BTreeMap::new(),
            strangers: BTreeSet::new(),
            by_peer: HashMap::new(),
            guests: BTreeSet::new(),
            proved: HashMap::new(),
            proofs: 0,
            leaving: BTreeMap::new(),
            evicted: 0,
            last_evicted: None,
        }
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn all_places(&self) -> usize {
        self.limits.places + self.limits.reserve
    }

    /// Whether a new connection would find or be made room. Connections that were told to end and have not
    /// ended yet may be as many as there are places, no more.
    pub(super) fn has_room(&self, now: Duration) -> bool {
        self.leaving.len() < self.all_places()
            && (self.open.len() < self.all_places() || self.next_to_go(now).is_some())
    }

    /// Gives a new connection a place, whether or not [`Self::has_room`] was asked before.
    pub(super) fn enter(&mut self, peer: K, phase: Phase, now: Duration) -> Entered {
        let mut orders = Vec::new();
        let of_peer = self.by_peer.get(&peer);
        if let Some(of_peer) = of_peer
            && of_peer.len() >= self.limits.per_address
            && let Some(oldest) = of_peer.first().copied()
        {
            orders.extend(self.evict(oldest, now));
        }
        // A connection that could have made room may have become busy since then.
        while self.open.len() >= self.all_places()
            && let Some(number) = self.next_to_go(now)
        {
            orders.extend(self.evict(number, now));
        }
        let mut is_reserved = false;
        if self.limits.reserve > 0 && self.proved_connections() >= self.limits.places {
            match self.longest_idle(now) {
                Some(idle) => orders.extend(self.evict(idle, now)),
                None => is_reserved = true,
            }
        }
        self.last += 1;
        let number = self.last;
        let activity = Arc::new(Activity::new(phase, now));
        if self.proved.contains_key(&peer) {
            self.guests.insert(number);
        } else {
            self.strangers.insert(number);
            self.by_peer.entry(peer).or_default().insert(number);
        }
        self.open.insert(number, Place { peer, is_proved: false, activity: Arc::clone(&activity) });
        Entered { number, activity, is_reserved, orders }
    }

    /// Makes room when the system has no more sockets for us.
    pub(super) fn make_room(&mut self, now: Duration) -> Option<(u64, Order)> {
        let number = self.next_to_go(now)?;
        self.evict(number, now)
    }

    /// The connection has carried a request that a stranger could not have made.
    pub(super) fn prove(&mut self, number: u64) {
        let Some(place) = self.open.get_mut(&number) else { return };
        place.is_proved = true;
        let peer = place.peer;
        self.unlist(number, peer);
        self.proofs += 1;
        self.proved.insert(peer, self.proofs);
        for other in self.by_peer.remove(&peer).into_iter().flatten() {
            self.strangers.remove(&other);
            self.guests.insert(other);
        }
        if self.proved.len() > PROVED_ADDRESSES
            && let Some(oldest) = self.proved.iter().min_by_key(|(_, proof)| **proof).map(|(peer, _)| *peer)
        {
            self.proved.remove(&oldest);
        }
    }

    /// The connection has ended.
    pub(super) fn leave(&mut self, number: u64) {
        if let Some(place) = self.open.remove(&number) {
            self.unlist(number, place.peer);
        }
        self.leaving.remove(&number);
    }

    fn unlist(&mut self, number: u64, peer: K) {
        self.strangers.remove(&number);
        self.guests.remove(&number);
        if let Some(of_peer) = self.by_peer.get_mut(&peer) {
            of_peer.remove(&number);
            if of_peer.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    fn proved_connections(&self) -> usize {
        self.open.len() - self.strangers.len() - self.guests.len()
    }

    fn next_to_go(&self, now: Duration) -> Option<u64> {
        let unproved = self.strangers.first().or_else(|| self.guests.first()).copied();
        unproved.or_else(|| self.longest_idle(now)).or_else(|| self.longest_dawdling(now))
    }

    fn longest(&self, now: Duration, like: impl Fn(&Place<K>) -> bool) -> Option<u64> {
        let found = self.open.iter().filter(|(_, place)| place.is_proved && like(place));
        let key = |number: u64, place: &Place<K>| (place.activity.lasting(now), u64::MAX - number);
        found.max_by_key(|(number, place)| key(**number, place)).map(|(number, _)| *number)
    }

    fn longest_idle(&self, now: Duration) -> Option<u64> {
        self.longest(now, |place| place.activity.phase() == Phase::Idle)
    }

    fn longest_dawdling(&self, now: Duration) -> Option<u64> {
        self.longest(now, |place| {
            matches!(place.activity.phase(), Phase::Head | Phase::Body)
                && place.activity.lasting(now) > DAWDLING
        })
    }

    /// Ends a connection that holds a part of a body; to be called when all hold too much. Returns how many bytes
    /// it held.
    pub(super) fn evict_holder(&mut self, now: Duration) -> Option<(u64, Order, usize)> {
        let holds = |number: &&u64| self.open.get(*number).is_some_and(|place| place.activity.held() > 0);
        let unproved = self.strangers.iter().find(holds).or_else(|| self.guests.iter().find(holds));
        let number = match unproved {
            Some(number) => *number,
            None => self.longest(now, |place| place.activity.held() > 0)?,
        };
        let bytes = self.open.get(&number).map_or(0, |place| place.activity.release());
        self.evict(number, now).map(|(number, _)| (number, Order::Cut, bytes))
    }

    fn evict(&mut self, number: u64, now: Duration) -> Option<(u64, Order)> {
        let place = self.open.remove(&number)?;
        self.unlist(number, place.peer);
        self.evicted += 1;
        self.last_evicted = Some(now);
        // A request that is on its way to a proved connection is still answered.
        let is_idle = place.is_proved && place.activity.phase() == Phase::Idle;
        self.leaving.insert(number, (place.activity, now));
        Some((number, if is_idle { Order::Drain } else { Order::Cut }))
    }

    fn is_scarce(&self, now: Duration) -> bool {
        self.open.len() * 4 >= self.limits.places * 3
            || self.last_evicted.is_some_and(|last| now.saturating_sub(last) < SCARCE_FOR)
    }

    /// Ends what takes too long. Returns the orders, and how many of those connections were in the middle of
    /// something.
    pub(super) fn tick(&mut self, now: Duration) -> (Vec<(u64, Order)>, u64) {
        let is_scarce = self.is_scarce(now);
        let limits = &self.limits;
        let overdue: Vec<(u64, Phase)> = self
            .open
            .iter()
            .filter_map(|(number, place)| {
                let phase = place.activity.phase();
                let limit = match phase {
                    Phase::Idle => limits.idle,
                    Phase::Handshake => limits.handshake,
                    Phase::Head => limits.head,
                    Phase::Body => limits.body,
                    Phase::Answer => return None,
                };
                let may_wait = phase == Phase::Idle && place.is_proved;
                let limit = if is_scarce && !may_wait { limit.min(limits.scarce) } else { limit };
                (place.activity.lasting(now) > limit).then_some((*number, phase))
            })
            .collect();
        let mut orders = Vec::new();
        for (number, phase) in &overdue {
            let Some(place) = self.open.remove(number) else { continue };
            self.unlist(*number, place.peer);
            self.leaving.insert(*number, (place.activity, now));
            orders.push((*number, if *phase == Phase::Idle { Order::Drain } else { Order::Cut }));
        }
        let cut = overdue.iter().filter(|(_, phase)| *phase != Phase::Idle).count() as u64;
        for (number, (activity, since)) in &self.leaving {
            let had_its_time = now.saturating_sub(*since) > self.limits.scarce;
            if had_its_time && activity.phase() != Phase::Answer {
                orders.push((*number, Order::Cut));
            }
        }
        (orders, cut)
    }

    /// Takes the places of all connections, which are told to end after the request in hand.
    pub(super) fn drain(&mut self, now: Duration) {
        for (number, place) in std::mem::take(&mut self.open) {
            self.leaving.insert(number, (place.activity, now));
        }
        self.strangers.clear();
        self.guests.clear();
        self.by_peer.clear();
    }

    /// Whether [`Self::tick`] has something to do, or [`Self::counts`] will change by itself.
    pub(super) fn is_quiet(&self, now: Duration) -> bool {
        self.open.is_empty() && self.leaving.is_empty() && !self.is_crowded(now)
    }

    fn is_crowded(&self, now: Duration) -> bool {
        self.last_evicted.is_some_and(|last| now.saturating_sub(last) < CROWDED_FOR)
    }

    pub(super) fn counts(&self, now: Duration) -> Counts {
        let most = self.by_peer.iter().max_by_key(|(_, of_peer)| of_peer.len());
        let crowd = self.is_crowded(now).then(|| Crowd {
            address: most.map(|(peer, _)| peer.to_string()),
            connections: most.map_or(0, |(_, of_peer)| of_peer.len() as u64),
        });
        Counts {
            open: (self.open.len() + self.leaving.len()) as u64,
            places: self.limits.places as u64,
            unproved: (self.strangers.len() + self.guests.len()) as u64,
            evicted: self.evicted,
            crowd,
        }
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
