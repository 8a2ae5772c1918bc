//! Several processes and a server that drops, delays and repeats messages: never two holders.

use std::time::Duration;

use proptest::prelude::*;

use super::lease::{Answer, Holder, Lease, Moment, Seen, Times, Write};

const TIMES: Times = Times::DEFAULT;

fn holder(host: usize, process: u64) -> Holder {
    Holder { instance: format!("host {host}"), run: format!("{host}.{process}") }
}

/// The server's key, with a revision for the whole bucket.
#[derive(Default)]
struct Server {
    revision: u64,
    /// Revision of the last write or marker; 0 if the server has forgotten it.
    last: u64,
    value: Option<(Holder, Duration)>,
}

impl Server {
    fn expire(&mut self, now: Duration, leaves_marker: bool) {
        if self.value.as_ref().is_some_and(|(_, end)| *end <= now) {
            self.value = None;
            self.revision += 1;
            self.last = if leaves_marker { self.revision } else { 0 };
        }
    }

    fn write(&mut self, write: Write, who: &Holder, now: Duration) -> Answer {
        let (Write::Put { expected } | Write::Purge { expected }) = write;
        if expected != self.last {
            return Answer::Refused;
        }
        self.revision += 1;
        self.last = self.revision;
        self.value = matches!(write, Write::Put { .. }).then(|| (who.clone(), now + TIMES.ttl));
        Answer::Done(self.revision)
    }

    fn seen(&self) -> Seen {
        Seen { revision: self.last, holder: self.value.as_ref().map(|(holder, _)| holder.clone()) }
    }
}

/// A message that is under way.
enum Message {
    Write(usize, Write, Holder),
    Answer(usize, Answer, Holder),
    Watch(usize, Seen),
    Read(usize, Seen, Holder),
}

struct Host {
    lease: Lease,
    me: Holder,
    /// The host's clock is ahead of the true time by this much.
    ahead: Duration,
    /// The process is stopped until then.
    stopped_until: Duration,
}

impl Host {
    fn new(index: usize, process: u64, ahead: Duration, now: Duration) -> Self {
        let me = holder(index, process);
        Self { lease: Lease::new(me.clone(), TIMES, now + ahead), me, ahead, stopped_until: Duration::ZERO }
    }

    fn clock(&self, now: Duration) -> Moment {
        now + self.ahead
    }
}

struct World {
    server: Server,
    hosts: Vec<Host>,
    messages: Vec<(Duration, Message)>,
    now: Duration,
    /// Holders that there were, in order.
    holders: Vec<(String, u64)>,
}

/// The fate of the messages of one step.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes, with this delay for each message sent meanwhile; `None` loses it.
    Pass {
        steps: u8,
        delay: Option<u16>,
        repeat: bool,
    },
    Stop {
        host: usize,
        millis: u16,
    },
    /// The process is killed and starts again.
    Restart {
        host: usize,
    },
    Resign {
        host: usize,
    },
    Contend {
        host: usize,
    },
    /// The next end of the key leaves no marker.
    NoMarker,
}

fn event() -> impl Strategy<Value = Event> {
    let delay = prop_oneof![
        8 => (0_u16..80).prop_map(Some),
        2 => (0_u16..4_000).prop_map(Some),
        1 => Just(None),
    ];
    prop_oneof![
        12 => (1_u8..30, delay, prop::bool::weighted(0.1))
            .prop_map(|(steps, delay, repeat)| Event::Pass { steps, delay, repeat }),
        2 => (0_usize..3, 0_u16..8_000).prop_map(|(host, millis)| Event::Stop { host, millis }),
        1 => (0_usize..3).prop_map(|host| Event::Restart { host }),
        1 => (0_usize..3).prop_map(|host| Event::Resign { host }),
        2 => (0_usize..3).prop_map(|host| Event::Contend { host }),
        1 => Just(Event::NoMarker),
    ]
}

impl World {
    fn new(ahead: [u32; 3]) -> Self {
        let hosts = ahead.iter().enumerate();
        let hosts = hosts
            .map(|(index, ahead)| {
                Host::new(index, 0, Duration::from_millis(u64::from(*ahead)), Duration::ZERO)
            })
            .collect();
        Self {
            server: Server::default(),
            hosts,
            messages: Vec::new(),
            now: Duration::ZERO,
            holders: Vec::new(),
        }
    }

    /// One step of 10 ms.
    fn step(&mut self, delay: Option<u16>, repeat: bool, leaves_marker: bool) {
        self.now += Duration::from_millis(10);
        let (now, before) = (self.now, self.server.seen());
        self.server.expire(now, leaves_marker);
        let (due, later) = std::mem::take(&mut self.messages).into_iter().partition(|(at, _)| *at <= now);
        self.messages = later;
        let due: Vec<(Duration, Message)> = due;
        for (_, message) in due {
            self.deliver(message, delay, repeat);
        }
        if self.server.seen() != before && leaves_marker | self.server.value.is_some() {
            for host in 0..self.hosts.len() {
                self.send(Message::Watch(host, self.server.seen()), delay, repeat);
            }
        }
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            if host.stopped_until > now {
                continue;
            }
            if let Some(write) = host.lease.poll(host.clock(now)) {
                let me = host.me.clone();
                match delay {
                    Some(_) => self.send(Message::Write(index, write, me), delay, repeat),
                    None => self.lose(index, me),
                }
            }
        }
        self.check();
    }

    /// The driver waits 2 s for an answer.
    fn lose(&mut self, host: usize, me: Holder) {
        let at = self.now + Duration::from_secs(2);
        self.messages.push((at, Message::Answer(host, Answer::Unknown, me)));
    }

    fn send(&mut self, message: Message, delay: Option<u16>, repeat: bool) {
        let Some(delay) = delay else { return };
        let at = self.now + Duration::from_millis(u64::from(delay));
        if repeat && let Message::Watch(host, seen) = &message {
            self.messages.push((at + Duration::from_secs(1), Message::Watch(*host, seen.clone())));
        }
        self.messages.push((at, message));
    }

    fn deliver(&mut self, message: Message, delay: Option<u16>, repeat: bool) {
        let now = self.now;
        match message {
            Message::Write(host, write, me) => {
                let answer = self.server.write(write, &me, now);
                match delay {
                    Some(delay) if delay < 2_000 => {
                        self.send(Message::Answer(host, answer, me.clone()), Some(delay), false);
                    }
                    _ => self.lose(host, me.clone()),
                }
                if answer == Answer::Refused {
                    self.send(Message::Read(host, self.server.seen(), me), delay, repeat);
                }
            }
            Message::Answer(index, answer, me) => {
                let host = &mut self.hosts[index];
                if host.stopped_until > now {
                    let at = host.stopped_until;
                    self.messages.push((at, Message::Answer(index, answer, me)));
                } else if host.me == me {
                    host.lease.handle_answer(answer, host.clock(now));
                }
            }
            Message::Watch(index, seen) => {
                let host = &mut self.hosts[index];
                if host.stopped_until <= now {
                    host.lease.handle_watch(seen, host.clock(now));
                }
            }
            Message::Read(index, seen, me) => {
                let host = &mut self.hosts[index];
                if host.stopped_until <= now && host.me == me {
                    host.lease.handle_read(seen, host.clock(now));
                }
            }
        }
    }

    fn check(&mut self) {
        let now = self.now;
        let holding = self
            .hosts
            .iter()
            .filter_map(|host| Some((host.me.run.clone(), host.lease.epoch(host.clock(now))?)));
        let holding: Vec<(String, u64)> = holding.collect();
        assert!(holding.len() <= 1, "two holders at {now:?}: {holding:?}");
        if let [one] = &holding[..]
            && self.holders.last() != Some(one)
        {
            let newest = self.holders.last().map_or(0, |(_, epoch)| *epoch);
            assert!(one.1 >= newest, "{one:?} after {:?}", self.holders);
            self.holders.push(one.clone());
        }
    }

    fn play(&mut self, event: &Event) {
        let now = self.now;
        match *event {
            Event::Pass { steps, delay, repeat } => {
                (0..steps).for_each(|_| self.step(delay, repeat, true));
            }
            Event::NoMarker => (0..10).for_each(|_| self.step(Some(1), false, false)),
            Event::Stop { host, millis } => {
                self.hosts[host].stopped_until = now + Duration::from_millis(u64::from(millis));
            }
            Event::Restart { host } => {
                let ahead = self.hosts[host].ahead;
                let process = self.server.revision + u64::try_from(now.as_millis()).unwrap_or(0) + 1;
                self.hosts[host] = Host::new(host, process, ahead, now);
            }
            Event::Resign { host } => {
                let host = &mut self.hosts[host];
                host.lease.resign(host.clock(now));
            }
            Event::Contend { host } => {
                let host = &mut self.hosts[host];
                host.lease.contend(host.clock(now));
            }
        }
    }

    /// Lets time pass without faults until somebody holds the lease; returns how long it took.
    fn settle(&mut self) -> Duration {
        for host in &mut self.hosts {
            host.stopped_until = Duration::ZERO;
            host.lease.contend(host.clock(self.now));
        }
        let begun = self.now;
        while !self.hosts.iter().any(|host| host.lease.epoch(host.clock(self.now)).is_some()) {
            assert!(self.now - begun < Duration::from_secs(30), "nobody ever holds the lease");
            self.step(Some(1), false, true);
        }
        self.now - begun
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// For any order of expiry, pauses, restarts and lost, late and repeated messages, with clocks that differ by hours.
    #[test]
    fn there_are_never_two_holders(
        ahead in prop::array::uniform3(0_u32..20_000_000),
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(ahead);
        for event in &events {
            world.play(event);
        }
        let last = world.settle();
        // Answers that were lost are waited for, and a key whose end left no marker runs out first.
        prop_assert!(last < Duration::from_secs(15), "{last:?}");
    }
}

#[test]
fn a_killed_holder_is_followed_as_soon_as_the_key_ends() {
    let mut world = World::new([0, 5_000, 9_000]);
    world.settle();
    (0..200).for_each(|_| world.step(Some(1), false, true));
    let (first, _) = world.holders.last().cloned().unwrap();
    let index: usize = first[..1].parse().unwrap();
    world.hosts[index].stopped_until = Duration::from_secs(1_000);
    let begun = world.now;
    while world.holders.last().map(|(name, _)| name.clone()) == Some(first.clone()) {
        world.step(Some(1), false, true);
    }
    assert!(world.now - begun < Duration::from_millis(3_200), "{:?}", world.now - begun);
}

#[test]
fn the_next_process_of_an_instance_takes_its_lease_back_at_once() {
    let mut world = World::new([0, 0, 0]);
    world.settle();
    let (first, _) = world.holders.last().cloned().unwrap();
    let index: usize = first[..1].parse().unwrap();
    world.play(&Event::Restart { host: index });
    let begun = world.now;
    while world.hosts[index].lease.epoch(world.now).is_none() {
        world.step(Some(1), false, true);
    }
    assert!(world.now - begun < Duration::from_millis(1_500), "{:?}", world.now - begun);
}

#[test]
fn a_lease_that_is_given_up_is_free_at_once() {
    let mut world = World::new([0, 0, 0]);
    world.settle();
    let (first, _) = world.holders.last().cloned().unwrap();
    let index: usize = first[..1].parse().unwrap();
    world.play(&Event::Resign { host: index });
    let begun = world.now;
    while world.holders.last().map(|(name, _)| name.clone()) == Some(first.clone()) {
        world.step(Some(1), false, true);
    }
    assert!(world.now - begun < Duration::from_millis(1_200), "{:?}", world.now - begun);
    assert!(world.hosts[index].lease.is_given_up());
}

#[test]
fn a_copied_state_directory_is_noticed() {
    let now = Duration::from_secs(10);
    let mut lease = Lease::new(holder(1, 1), TIMES, now);
    assert_eq!(lease.poll(now), Some(Write::Put { expected: 0 }));
    lease.handle_answer(Answer::Done(5), now);
    assert!(!lease.is_doubled());
    lease.handle_watch(Seen { revision: 7, holder: Some(holder(1, 2)) }, now);
    assert_eq!(lease.epoch(now), None);
    assert!(lease.is_doubled() && lease.is_taken());
    assert_eq!(lease.poll(now + TIMES.retry), None, "it is not taken back");
}
