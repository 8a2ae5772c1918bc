use proptest::prelude::*;

use super::*;

fn limits(places: usize, per_address: usize, reserve: usize) -> Limits {
    Limits {
        places,
        per_address,
        reserve,
        bodies: 1_000,
        head: Duration::from_secs(10),
        body: Duration::from_secs(10),
        handshake: Duration::from_secs(10),
        idle: Duration::from_secs(180),
        scarce: Duration::from_secs(3),
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Places<u32> {
    /// A connection that is proved and idle.
    fn enter_proved(&mut self, peer: u32, now: Duration) -> u64 {
        let number = self.enter(peer, Phase::Idle, now).number;
        self.prove(number);
        number
    }

    fn phase(&self, number: u64, phase: Phase, now: Duration) {
        self.open[&number].activity.enter(phase, millis(now));
    }
}

use crate::admission::activity::millis;

#[test]
fn the_connection_that_is_unproved_for_longest_makes_room() {
    let mut places = Places::new(limits(3, 3, 0));
    let proved = places.enter_proved(1, at(0));
    let first = places.enter(2, Phase::Handshake, at(1)).number;
    let second = places.enter(3, Phase::Head, at(2)).number;
    assert_eq!(places.enter(4, Phase::Idle, at(3)).orders, [(first, Order::Cut)]);
    assert_eq!(places.enter(5, Phase::Idle, at(4)).orders, [(second, Order::Cut)]);
    assert!(places.open.contains_key(&proved), "whoever is proved stays");
    assert_eq!(places.counts(at(4)).evicted, 2);
}

#[test]
fn a_proved_address_is_proved_for_its_other_connections_too() {
    let mut places = Places::new(limits(3, 2, 0));
    let waiting = places.enter(1, Phase::Handshake, at(0)).number;
    let number = places.enter(1, Phase::Idle, at(0)).number;
    places.prove(number);
    let stranger = places.enter(2, Phase::Handshake, at(1)).number;
    // The address of the first one has proved itself meanwhile, so the younger stranger goes before it.
    assert_eq!(places.enter(3, Phase::Idle, at(2)).orders, [(stranger, Order::Cut)]);
    let mut places = Places::new(limits(10, 2, 0));
    places.enter_proved(1, at(0));
    for _ in 0..5 {
        assert_eq!(places.enter(1, Phase::Idle, at(1)).orders, [], "no limit for a proxy that is proved");
    }
    assert!(waiting < number);
}

#[test]
fn an_unproved_address_has_a_part_of_the_places_only() {
    let mut places = Places::new(limits(10, 2, 0));
    let first = places.enter(1, Phase::Idle, at(0)).number;
    assert_eq!(places.enter(1, Phase::Idle, at(0)).orders, []);
    assert_eq!(places.enter(1, Phase::Idle, at(0)).orders, [(first, Order::Cut)], "its own oldest goes");
    assert_eq!(places.enter(2, Phase::Idle, at(0)).orders, []);
    let crowd = places.counts(at(1)).crowd.expect("one had to go");
    assert_eq!((crowd.address.as_deref(), crowd.connections), (Some("1"), 2));
    assert_eq!(places.counts(at(61)).crowd, None);
}

#[test]
fn proved_connections_make_room_only_while_idle_or_slow() {
    let mut places = Places::new(limits(2, 2, 0));
    let [one, two] = [1, 2].map(|peer| places.enter_proved(peer, at(0)));
    places.phase(one, Phase::Answer, at(1));
    places.phase(two, Phase::Body, at(1));
    assert!(!places.has_room(at(2)), "both are in the middle of a request");
    assert!(places.has_room(at(3)), "the body takes long");
    assert_eq!(places.enter(3, Phase::Idle, at(3)).orders, [(two, Order::Cut)]);
    places.phase(one, Phase::Idle, at(3));
    places.prove(3);
    assert_eq!(
        places.enter(4, Phase::Idle, at(4)).orders,
        [(one, Order::Drain)],
        "a request may be on its way"
    );
}

#[test]
fn probes_find_a_place_among_proved_connections() {
    let mut places = Places::new(limits(2, 2, 1));
    for peer in [1, 2] {
        let number = places.enter_proved(peer, at(0));
        places.phase(number, Phase::Answer, at(0));
    }
    let probe = places.enter(3, Phase::Idle, at(1));
    assert!(probe.is_reserved && probe.orders.is_empty());
    let next = places.enter(4, Phase::Idle, at(2));
    assert!(next.is_reserved);
    assert_eq!(next.orders, [(probe.number, Order::Cut)]);
    places.leave(1);
    assert!(!places.enter(5, Phase::Idle, at(3)).is_reserved);
}

#[test]
fn slow_connections_end_and_sooner_while_places_are_scarce() {
    let mut places = Places::new(limits(8, 8, 0));
    let proved = places.enter_proved(1, at(0));
    let slow = places.enter(2, Phase::Head, at(0)).number;
    assert_eq!(places.tick(at(10)), (vec![], 0));
    assert_eq!(places.tick(at(11)), (vec![(slow, Order::Cut)], 1));
    places.leave(slow);
    for _ in 0..5 {
        places.enter(2, Phase::Handshake, at(20));
    }
    let (orders, cut) = places.tick(at(24));
    assert_eq!((orders.len(), cut), (5, 5));
    assert!(places.open.contains_key(&proved), "a proved connection may be idle");
    let (orders, cut) = places.tick(at(181));
    assert_eq!((orders[0], cut), ((proved, Order::Drain), 0));
    assert!(places.tick(at(185)).0.contains(&(proved, Order::Cut)), "it did not end by itself");
}

#[test]
fn the_oldest_unproved_body_goes_when_bodies_take_too_much() {
    let mut places = Places::new(limits(8, 8, 0));
    let proved = places.enter_proved(1, at(0));
    let [without, first, second] = [2, 3, 4].map(|peer| places.enter(peer, Phase::Body, at(0)).number);
    for number in [proved, first, second] {
        places.open[&number].activity.hold(100);
    }
    assert_eq!(places.evict_holder(at(1)), Some((first, Order::Cut, 100)));
    assert_eq!(places.evict_holder(at(1)), Some((second, Order::Cut, 100)));
    assert_eq!(places.evict_holder(at(1)), Some((proved, Order::Cut, 100)));
    assert_eq!(places.evict_holder(at(1)), None);
    assert!(places.open.contains_key(&without));
}

#[test]
fn proved_addresses_are_bounded() {
    let mut places = Places::new(limits(2, 2, 0));
    for peer in 0..5_000 {
        let number = places.enter_proved(peer, at(0));
        places.leave(number);
    }
    assert_eq!(places.proved.len(), PROVED_ADDRESSES);
    assert!(places.proved.contains_key(&4_999) && !places.proved.contains_key(&0));
    assert!(places.by_peer.is_empty() && places.open.is_empty() && places.leaving.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Enter(u32),
    Prove(usize),
    Phase(usize, usize),
    Leave(usize),
    Hold(usize, usize),
    Shrink,
    Tick,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u32).prop_map(Step::Enter),
        2 => any::<usize>().prop_map(Step::Prove),
        3 => (any::<usize>(), 0..5_usize).prop_map(|(nth, phase)| Step::Phase(nth, phase)),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => (any::<usize>(), 1..500_usize).prop_map(|(nth, bytes)| Step::Hold(nth, bytes)),
        1 => Just(Step::Shrink),
        1 => Just(Step::Tick),
        1 => (0..20_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn strangers_never_keep_anybody_out(
        steps in prop::collection::vec(step(), 1..200),
        size in 1..8_usize, per_address in 1..8_usize, reserve in 0..3_usize,
    ) {
        let mut places = Places::<u32>::new(limits(size, per_address, reserve));
        let mut now = Duration::ZERO;
        // Which connections live, and which of them are proved.
        let mut live = BTreeMap::<u64, bool>::new();
        let nth = |live: &BTreeMap<u64, bool>, nth: usize| live.keys().nth(nth % live.len().max(1)).copied();
        for step in steps {
            match step {
                Step::Enter(peer) => {
                    let unproved: Vec<u64> =
                        places.open.iter().filter(|(_, place)| !place.is_proved).map(|(n, _)| *n).collect();
                    let room = places.has_room(now);
                    prop_assert!(room || unproved.is_empty() || places.leaving.len() >= size + reserve);
                    if room {
                        let entered = places.enter(peer, Phase::Idle, now);
                        prop_assert!(places.open.contains_key(&entered.number));
                        for (gone, _) in &entered.orders {
                            prop_assert!(!places.open.contains_key(gone));
                            // No proved connection goes while a stranger could, except to keep the reserve.
                            prop_assert!(!live[gone] || unproved.is_empty() || reserve > 0);
                        }
                        live.insert(entered.number, false);
                    }
                }
                Step::Prove(n) => if let Some(number) = nth(&live, n).filter(|n| places.open.contains_key(n)) {
                    places.prove(number);
                    live.insert(number, true);
                },
                Step::Phase(n, phase) => if let Some(number) = nth(&live, n).filter(|n| places.open.contains_key(n)) {
                    let phases = [Phase::Idle, Phase::Handshake, Phase::Head, Phase::Body, Phase::Answer];
                    places.phase(number, phases[phase], now);
                },
                Step::Leave(n) => if let Some(number) = nth(&live, n) {
                    places.leave(number);
                    live.remove(&number);
                },
                Step::Hold(n, bytes) => if let Some(place) = nth(&live, n).and_then(|n| places.open.get(&n)) {
                    place.activity.hold(bytes);
                },
                Step::Shrink => {
                    let held: usize = places.open.values().map(|place| place.activity.held()).sum();
                    let gone = places.evict_holder(now);
                    prop_assert_eq!(gone.is_none(), held == 0);
                    let left: usize = places.open.values().map(|place| place.activity.held()).sum();
                    prop_assert_eq!(gone.map_or(0, |(_, _, bytes)| bytes), held - left);
                }
                Step::Tick => {
                    for (number, _) in places.tick(now).0 {
                        prop_assert!(places.leaving.contains_key(&number));
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            // Every connection is on one list, and the lists are bounded.
            prop_assert!(places.open.len() <= size + reserve);
            prop_assert!(places.leaving.len() <= 2 * (size + reserve) + 2);
            let listed = places.open.len() + places.leaving.len();
            prop_assert_eq!(listed, live.len());
            let by_peer: usize = places.by_peer.values().map(BTreeSet::len).sum();
            prop_assert_eq!(by_peer, places.strangers.len());
            prop_assert!(places.by_peer.values().all(|of_peer| of_peer.len() <= per_address && !of_peer.is_empty()));
            prop_assert!(places.strangers.is_disjoint(&places.guests));
            for (number, place) in &places.open {
                let is_listed = places.strangers.contains(number) || places.guests.contains(number);
                prop_assert_eq!(is_listed, !place.is_proved);
            }
        }
        places.drain(now);
        prop_assert!(places.open.is_empty());
        for number in live.into_keys() {
            places.leave(number);
        }
        prop_assert!(places.leaving.is_empty());
    }
}
