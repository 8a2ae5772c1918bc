//! The place of a sink over any order of lost, late and repeated messages, moves, kills and replays.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const EVENTS: u64 = 30;
const HOSTS: usize = 3;

fn name(host: usize) -> Arc<str> {
    format!("web-{host}").into()
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Pass(u64),
    Poll(usize),
    /// The request of a host reaches the bucket or not, now or later; and so does its answer.
    Resolve(usize, Fate),
    /// A write that was late reaches the bucket.
    Late(usize),
    Deliver(usize),
    Watch(usize),
    Kill(usize),
    Assign(usize),
    Replay(u64),
    NewBucket,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    AnswerLost,
    Lost,
    Late,
}

fn action() -> impl Strategy<Value = Action> {
    let fate = prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Late),
    ];
    prop_oneof![
        6 => (0_u64..1_500).prop_map(Action::Pass),
        10 => (0..HOSTS).prop_map(Action::Poll),
        10 => (0..HOSTS, fate).prop_map(|(host, fate)| Action::Resolve(host, fate)),
        1 => (0_usize..4).prop_map(Action::Late),
        12 => (0..HOSTS).prop_map(Action::Deliver),
        3 => (0..HOSTS).prop_map(Action::Watch),
        1 => (0..HOSTS).prop_map(Action::Kill),
        2 => (0..HOSTS).prop_map(Action::Assign),
        1 => (0..EVENTS).prop_map(Action::Replay),
        1 => Just(Action::NewBucket),
    ]
}

struct Worker {
    core: Ownership,
    asked: Option<PlaceStep>,
    /// The last event that it has delivered, once it has begun.
    at: Option<u64>,
    /// Events that it has delivered since its last write.
    unwritten: u64,
}

#[derive(Default)]
struct World {
    now: Moment,
    revision: u64,
    /// Revision and value of the key.
    key: (u64, Option<PlaceValue>),
    /// The last value that anybody was told of.
    remembered: PlaceValue,
    workers: [Option<Worker>; HOSTS],
    late: Vec<(u64, PlaceValue)>,
    assigned: (usize, u64),
    started: u64,
    /// Every delivery in order.
    delivered: Vec<u64>,
    /// Replays: from which delivery on the events after a number have to come.
    replays: Vec<(usize, u64)>,
    /// Events that were delivered and not written when a worker was killed, lost the place, or was cut off.
    excess: u64,
}

impl World {
    fn write(&mut self, expected: u64, value: PlaceValue) -> Answer {
        if self.key.0 != expected {
            return Answer::Refused;
        }
        let had: BTreeSet<u64> = self.delivered.iter().copied().collect();
        assert!((1..=value.cursor.0).all(|seq| had.contains(&seq)), "{value:?} was not delivered");
        for (from, to) in &self.replays {
            let since: BTreeSet<u64> = self.delivered[*from..].iter().copied().collect();
            assert!((to + 1..=value.cursor.0).all(|seq| since.contains(&seq)), "{value:?} was not replayed");
        }
        self.revision += 1;
        self.key = (self.revision, Some(value.clone()));
        self.remembered = value;
        Answer::Done(self.revision)
    }

    fn poll(&mut self, host: usize) {
        let alive: Vec<bool> = self.workers.iter().map(Option::is_some).collect();
        let (is_assigned, revision) = (self.assigned.0 == host, self.assigned.1);
        if self.workers[host].is_none() && is_assigned {
            self.started += 1;
            let core = Ownership::new(name(host), format!("w{}", self.started), revision);
            self.workers[host] = Some(Worker { core, asked: None, at: None, unwritten: 0 });
        }
        let now = self.now;
        let Some(worker) = &mut self.workers[host] else { return };
        if worker.core.is_over() {
            self.excess += worker.unwritten;
            self.workers[host] = None;
            return;
        }
        if is_assigned {
            worker.core.handle_assigned(revision);
        } else {
            worker.core.end();
        }
        let is_up = |other: &str| (0..HOSTS).any(|host| *name(host) == *other && alive[host]);
        if let Some(step) = worker.core.poll(now, is_up) {
            assert!(worker.asked.is_none(), "one request at a time");
            worker.asked = Some(step);
        }
        if worker.at.is_none()
            && let Some(held) = worker.core.held()
        {
            worker.at = Some(held.cursor.0);
        }
    }

    fn resolve(&mut self, host: usize, fate: Fate) {
        let now = self.now;
        let Some(step) = self.workers[host].as_mut().and_then(|worker| worker.asked.take()) else { return };
        match step {
            PlaceStep::Read => {
                let (revision, value) = self.key.clone();
                let nobody = || {
                    let (host, worker) = (String::new(), String::new());
                    PlaceValue { host, worker, ..self.remembered.clone() }
                };
                let found = (revision, value.unwrap_or_else(nobody));
                let found = matches!(fate, Fate::Done).then_some(found);
                if let Some(worker) = &mut self.workers[host] {
                    worker.core.handle_read(found, now);
                }
            }
            PlaceStep::Write { expected, value } => {
                let answer = match fate {
                    Fate::Done => self.write(expected, value.clone()),
                    Fate::AnswerLost => {
                        self.write(expected, value.clone());
                        Answer::Unknown
                    }
                    Fate::Lost => Answer::Unknown,
                    Fate::Late => {
                        self.late.push((expected, value.clone()));
                        Answer::Unknown
                    }
                };
                if let Some(worker) = &mut self.workers[host] {
                    if let (Answer::Done(_), Some(at)) = (answer, worker.at) {
                        worker.unwritten = at.saturating_sub(value.cursor.0);
                    }
                    worker.core.handle_answer(answer, now);
                }
            }
        }
    }

    fn deliver(&mut self, host: usize) {
        let Some(worker) = &mut self.workers[host] else { return };
        let Some(at) = worker.at.filter(|at| *at < EVENTS && !worker.core.is_over()) else { return };
        worker.at = Some(at + 1);
        worker.unwritten += 1;
        self.delivered.push(at + 1);
        worker.core.record(&Progress { cursor: Seq(at + 1), is_urgent: true, ..Progress::default() });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Pass(millis) => self.now += Duration::from_millis(millis),
            Action::Poll(host) => self.poll(host),
            Action::Resolve(host, fate) => self.resolve(host, fate),
            Action::Late(index) => {
                if index < self.late.len() {
                    let (expected, value) = self.late.remove(index);
                    self.write(expected, value);
                }
            }
            Action::Deliver(host) => self.deliver(host),
            Action::Watch(host) => {
                if let (Some(worker), (revision, Some(value))) = (&mut self.workers[host], &self.key) {
                    worker.core.handle_change(*revision, value, self.now);
                }
            }
            Action::Kill(host) => {
                if let Some(worker) = self.workers[host].take() {
                    self.excess += worker.unwritten;
                }
            }
            Action::Assign(host) => {
                self.revision += 1;
                self.assigned = (host, self.revision);
            }
            Action::Replay(to) => {
                if let (revision, Some(value)) = self.key.clone() {
                    let value = value.set_back(Seq(to));
                    // Events after the present place come anyhow.
                    self.replays.push((self.delivered.len(), value.cursor.0));
                    self.write(revision, value);
                }
            }
            Action::NewBucket => {
                // Another bucket begins above the revisions of this one.
                self.revision += 1_000;
                self.key = (0, None);
                self.workers.iter_mut().flatten().for_each(|worker| worker.core.doubt());
            }
        }
    }

    /// Nothing fails any more.
    fn go_on(&mut self) {
        for _ in 0..4_000 {
            self.now += Duration::from_millis(50);
            for host in 0..HOSTS {
                self.poll(host);
                self.resolve(host, Fate::Done);
                self.act(Action::Watch(host));
                self.deliver(host);
            }
            if self.key.1.as_ref().is_some_and(|value| value.cursor.0 == EVENTS) {
                return;
            }
        }
        panic!("the sink never gets everything: {:?}", self.key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_delivered_before_the_place_passes_it(actions in prop::collection::vec(action(), 0..400)) {
        let mut world = World::default();
        for action in actions {
            world.act(action);
        }
        world.go_on();
        let had: BTreeSet<u64> = world.delivered.iter().copied().collect();
        prop_assert_eq!(had.len() as u64, EVENTS);
        for (from, to) in &world.replays {
            let since: BTreeSet<u64> = world.delivered[*from..].iter().copied().collect();
            prop_assert!((to + 1..=EVENTS).all(|seq| since.contains(&seq)));
        }
    }

    /// Moves alone, with every message delivered, deliver nothing twice.
    #[test]
    fn moves_without_a_fault_deliver_each_event_once(
        moves in prop::collection::vec((0..HOSTS, 0_usize..40), 0..12),
    ) {
        let mut world = World::default();
        for (host, rounds) in moves {
            world.act(Action::Assign(host));
            for _ in 0..rounds {
                world.now += Duration::from_millis(20);
                for host in 0..HOSTS {
                    world.poll(host);
                    world.resolve(host, Fate::Done);
                    // A worker that hands over has finished what it has under way.
                    if world.assigned.0 == host {
                        world.deliver(host);
                    }
                    world.act(Action::Watch(host));
                }
            }
        }
        world.go_on();
        prop_assert_eq!(world.delivered.len() as u64, EVENTS, "{:?}", world.delivered);
    }
}

#[test]
fn a_worker_of_an_older_assignment_waits_for_a_newer_one() {
    let mut core = Ownership::new(name(0), "w".to_owned(), 5);
    let now = Moment::from_secs(100);
    assert_eq!(core.poll(now, |_| true), Some(PlaceStep::Read));
    let place = PlaceValue { assigned: 9, cursor: Seq(3), ..PlaceValue::default() };
    core.handle_read(Some((7, place)), now);
    assert_eq!(core.poll(now, |_| true), None);
    core.handle_assigned(10);
    let later = now + LOOK;
    assert_eq!(core.poll(later, |_| true), Some(PlaceStep::Read));
    core.handle_read(Some((7, PlaceValue { assigned: 9, ..PlaceValue::default() })), later);
    let step = core.poll(later, |_| true);
    assert!(matches!(step, Some(PlaceStep::Write { expected: 7, value }) if value.assigned == 10));
}

#[test]
fn a_worker_waits_for_one_that_finishes_and_not_for_one_that_is_dead() {
    let place = PlaceValue { host: "web-1".to_owned(), worker: "old".to_owned(), ..PlaceValue::default() };
    let now = Moment::from_secs(100);
    let read = |core: &mut Ownership, now| {
        assert_eq!(core.poll(now, |_| true), Some(PlaceStep::Read));
        core.handle_read(Some((7, place.clone())), now);
    };
    let mut core = Ownership::new(name(0), "w".to_owned(), 5);
    read(&mut core, now);
    assert!(matches!(core.poll(now, |_| false), Some(PlaceStep::Write { .. })), "its host is down");
    let mut core = Ownership::new(name(0), "w".to_owned(), 5);
    read(&mut core, now);
    assert_eq!(core.poll(now, |_| true), None);
    read(&mut core, now + PATIENCE);
    assert!(matches!(core.poll(now + PATIENCE, |_| true), Some(PlaceStep::Write { .. })));
}
