//! Properties of assignments: for any history of hosts, messages and leaders, each piece of work has one live host and
//! moves as little as possible.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::assign::{Assignment, Fitness, Fits, ShardWork, Work, assign};
use super::assigner::{Assigner, Step};
use super::lease::{Answer, Holder, Moment};
use super::presence::{ASSIGN, HostValue, Hosts};
use super::sessions::SocketsValue;
use crate::model::cluster::{Assigned, HostRequest};
use crate::model::sink::SinkName;
use crate::model::time::Timestamp;

fn name(index: usize) -> Arc<str> {
    format!("web-{index}").into()
}

fn work(shards: u32, sinks: &[Option<usize>]) -> Work {
    let sink = |(index, pin): (usize, &Option<usize>)| (SinkName::new(format!("s{index}")), pin.map(name));
    Work {
        shards: Some(ShardWork {
            conduit_id: "c".into(),
            numbers: (0..shards).collect(),
            lost: BTreeSet::new(),
        }),
        sinks: sinks.iter().enumerate().map(sink).collect(),
    }
}

fn fitness() -> impl Strategy<Value = Fitness> {
    prop_oneof![
        3 => Just(Fitness::Stable),
        1 => Just(Fitness::Fresh),
        1 => Just(Fitness::Draining),
        1 => Just(Fitness::Blind),
        1 => Just(Fitness::Leaving),
    ]
}

fn fits() -> impl Strategy<Value = Fits> {
    prop::collection::btree_map((0_usize..5).prop_map(name), fitness(), 0..5)
}

fn any_work() -> impl Strategy<Value = Work> {
    let sinks = prop::collection::vec(prop::option::weighted(0.3, 0_usize..5), 0..6);
    (0_u32..12, sinks).prop_map(|(shards, sinks)| work(shards, &sinks))
}

/// The hosts that get everything that has no host.
fn takers(fits: &Fits) -> BTreeSet<Arc<str>> {
    let kind = |fitness: &Fitness| match fitness {
        Fitness::Stable | Fitness::Fresh => 0,
        Fitness::Draining => 1,
        Fitness::Blind => 2,
        Fitness::Leaving => 3,
    };
    let best = fits.values().map(kind).min();
    fits.iter().filter(|(_, fitness)| Some(kind(fitness)) == best).map(|(name, _)| Arc::clone(name)).collect()
}

fn counts<'a>(of: impl Iterator<Item = &'a Arc<str>>, hosts: &BTreeSet<Arc<str>>) -> Vec<usize> {
    let of: Vec<_> = of.collect();
    hosts.iter().map(|host| of.iter().filter(|other| **other == host).count()).collect()
}

/// One live host for each piece of work, or none for what is pinned elsewhere.
fn check_whole(new: &Assignment, fits: &Fits, work: &Work) -> Result<(), TestCaseError> {
    let takers = takers(fits);
    let numbers = &work.shards.as_ref().unwrap().numbers;
    prop_assert_eq!(new.shards.keys().copied().collect::<BTreeSet<_>>(), numbers.clone());
    prop_assert!(new.shards.values().all(|host| takers.contains(host)), "{:?}", new.shards);
    for (sink, pin) in &work.sinks {
        match pin {
            Some(pin) => {
                prop_assert_eq!(new.sinks.get(sink), Some(pin).filter(|pin| fits.contains_key(*pin)));
            }
            None => prop_assert!(new.sinks.get(sink).is_some_and(|host| takers.contains(host))),
        }
    }
    prop_assert!(new.sinks.keys().all(|sink| work.sinks.contains_key(sink)));
    Ok(())
}

proptest! {
    #[test]
    fn every_piece_of_work_has_one_live_host(
        steps in prop::collection::vec((fits(), any_work()), 1..8)
    ) {
        let mut last = Assignment::default();
        for (fits, work) in steps {
            let new = assign(&fits, &work, &last);
            if fits.is_empty() {
                prop_assert_eq!(&new, &last);
                continue;
            }
            check_whole(&new, &fits, &work)?;
            prop_assert_eq!(&assign(&fits, &work, &new), &new, "a second time nothing moves");
            last = new;
        }
    }

    /// Work leaves a host that may keep it only to make hosts differ by one at most, never for a host that has just come.
    #[test]
    fn as_little_as_possible_moves(before in fits(), after in fits(), work in any_work()) {
        let last = assign(&before, &work, &Assignment::default());
        let new = assign(&after, &work, &last);
        let takers = takers(&after);
        let moved: Vec<_> = last.shards.iter().filter(|(shard, host)| {
            takers.contains(*host) && new.shards.get(shard) != Some(*host)
        }).collect();
        for (shard, _) in &moved {
            prop_assert_eq!(after.get(&new.shards[shard]), Some(&Fitness::Stable));
        }
        let kept = counts(new.shards.values(), &takers);
        let stable: BTreeSet<_> =
            after.iter().filter(|(_, fitness)| **fitness == Fitness::Stable).map(|(name, _)| Arc::clone(name)).collect();
        if let (Some(most), Some(least)) =
            (kept.iter().max(), counts(new.shards.values(), &stable).iter().min())
        {
            prop_assert!(most - least <= 1, "{:?} {:?}", after, new.shards);
        }
        // No host of those that give something has less than any that has got something.
        for (_, from) in &moved {
            let of = |host: &Arc<str>| new.shards.values().filter(|other| *other == host).count();
            let all: Vec<_> = stable.iter().map(of).collect();
            prop_assert!(all.iter().all(|count| of(from) + 1 >= *count), "{:?}", new.shards);
        }
    }

    /// A host that ends and comes back moves its own work only.
    #[test]
    fn the_others_keep_their_work_when_a_host_ends(hosts in 2_usize..5, shards in 0_u32..12, ended in 0_usize..5) {
        let work = work(shards, &[None, None, Some(0)]);
        let mut fits: Fits = (0..hosts).map(|index| (name(index), Fitness::Stable)).collect();
        let last = assign(&fits, &work, &Assignment::default());
        fits.remove(&name(ended));
        let new = assign(&fits, &work, &last);
        for (shard, host) in &*last.shards {
            prop_assert!(*host == name(ended) || new.shards[shard] == *host);
        }
        fits.insert(name(ended), Fitness::Fresh);
        let back = assign(&fits, &work, &new);
        prop_assert_eq!(&back.shards, &new.shards, "nothing moves to a host that has just come");
    }
}

#[test]
fn the_next_host_of_equals_is_the_one_with_less_of_everything() {
    let fits: Fits = (0..3).map(|index| (name(index), Fitness::Stable)).collect();
    let new = assign(&fits, &work(2, &[None]), &Assignment::default());
    assert_eq!(new.sinks[&SinkName::new("s0")], name(2), "the other two have a shard");
    assert_eq!(new.conduit_id.as_deref(), Some("c"));
    // A leader that does not know the shards yet leaves them where they are.
    let unknown = Work { shards: None, ..work(2, &[None]) };
    assert_eq!(assign(&fits, &unknown, &new), new);
}

/// A change of a key in the bucket.
#[derive(Clone, Debug)]
enum Change {
    Host(usize, HostValue),
    Assignment(Assignment),
}

struct SimHost {
    hosts: Hosts,
    assigner: Assigner,
    /// Changes that the watch has delivered.
    read: usize,
    is_up: bool,
    run: u64,
    /// The lease that it believes to hold.
    epoch: Option<u64>,
    obeyed: Assigned,
}

/// A bucket, the hosts on it, and the time.
struct World {
    log: Vec<(u64, Change)>,
    revision: u64,
    now: Moment,
    hosts: Vec<SimHost>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Sign(usize),
    /// The watch delivers so many changes.
    Deliver(usize, usize),
    /// The watch begins anew: so many changes come again.
    Repeat(usize, usize),
    Lead(usize),
    /// A leader carries out its next step: (request arrives, answer arrives).
    Step(usize, bool, bool),
    Kill(usize),
    Start(usize),
    Pass(u64),
}

const HOSTS: usize = 3;

fn op() -> impl Strategy<Value = Op> {
    let host = 0..HOSTS;
    prop_oneof![
        6 => host.clone().prop_map(Op::Sign),
        6 => (host.clone(), 1_usize..20).prop_map(|(host, count)| Op::Deliver(host, count)),
        1 => (host.clone(), 1_usize..20).prop_map(|(host, count)| Op::Repeat(host, count)),
        2 => host.clone().prop_map(Op::Lead),
        6 => (host.clone(), any::<bool>(), any::<bool>()).prop_map(|(host, there, back)| Op::Step(host, there, back)),
        1 => host.clone().prop_map(Op::Kill),
        1 => host.prop_map(Op::Start),
        4 => (0_u64..5_000).prop_map(Op::Pass),
    ]
}

impl World {
    fn new(work: &Work) -> Self {
        let host = |_| {
            let mut assigner = Assigner::default();
            assigner.handle_work(work.clone());
            SimHost {
                hosts: Hosts::default(),
                assigner,
                read: 0,
                is_up: true,
                run: 0,
                epoch: None,
                obeyed: Assigned::default(),
            }
        };
        let hosts = (0..HOSTS).map(host).collect();
        Self { log: Vec::new(), revision: 0, now: Duration::from_secs(100), hosts }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_millis(1_000)
    }

    fn write(&mut self, change: Change) -> u64 {
        self.revision += 1;
        self.log.push((self.revision, change));
        self.revision
    }

    /// The assignment in the bucket.
    fn assignment(&self) -> (u64, Option<Assignment>) {
        let last = self.log.iter().rev().find_map(|(revision, change)| match change {
            Change::Assignment(value) => Some((*revision, Some(value.clone()))),
            Change::Host(..) => None,
        });
        last.unwrap_or((0, None))
    }

    fn sign(&mut self, index: usize) {
        let host = &self.hosts[index];
        if !host.is_up {
            return;
        }
        let value = HostValue {
            holder: Holder { instance: index.to_string(), run: host.run.to_string() },
            version: "1".to_owned(),
            fingerprint: String::new(),
            since: self.wall(),
            leaving: false,
            blind: false,
            shards: Vec::new(),
            sinks: Vec::new(),
            forward_lag: 0,
            sockets: SocketsValue::default(),
            handed_over: Vec::new(),
            formats: vec![ASSIGN.to_owned()],
        };
        self.write(Change::Host(index, value));
    }

    fn deliver(&mut self, index: usize, count: usize) {
        let (now, wall) = (self.now, self.wall());
        let host = &mut self.hosts[index];
        if !host.is_up {
            return;
        }
        for (revision, change) in self.log.iter().skip(host.read).take(count) {
            host.read += 1;
            match change {
                Change::Host(of, value) => {
                    let is_own = *of == index && value.holder.run == host.run.to_string();
                    host.hosts.handle_value(&name(*of), *revision, value.clone(), is_own, (now, wall));
                }
                Change::Assignment(value) => host.assigner.handle_change((*revision, Some(value.clone()))),
            }
        }
    }

    /// A step of a host that believes to lead.
    fn step(&mut self, index: usize, arrives: bool, is_answered: bool) {
        let (now, wall) = (self.now, self.wall());
        let current = self.assignment();
        let host = &mut self.hosts[index];
        let Some(epoch) = host.epoch.filter(|_| host.is_up) else { return };
        match host.assigner.poll(epoch, &host.hosts, (now, wall)) {
            Some(Step::Write { expected, value }) => {
                let may = arrives && expected == current.0;
                let written = may.then(|| self.write(Change::Assignment(value)));
                let answer = match written {
                    _ if !arrives || !is_answered => Answer::Unknown,
                    Some(revision) => Answer::Done(revision),
                    None => Answer::Refused,
                };
                self.hosts[index].assigner.handle_answer(answer, now);
            }
            Some(Step::Read) => {
                host.assigner.handle_read((arrives && is_answered).then_some(current), epoch);
            }
            None => {}
        }
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Sign(index) => self.sign(index),
            Op::Deliver(index, count) => self.deliver(index, count),
            Op::Repeat(index, count) => {
                let host = &mut self.hosts[index];
                host.read = host.read.saturating_sub(count);
            }
            // The one before may go on in the belief that it leads.
            Op::Lead(index) => {
                self.revision += 1;
                self.hosts[index].epoch = Some(self.revision);
            }
            Op::Step(index, arrives, is_answered) => self.step(index, arrives, is_answered),
            Op::Kill(index) => self.hosts[index].is_up = false,
            Op::Start(index) => {
                let host = &mut self.hosts[index];
                host.is_up = true;
                host.run += 1;
                host.epoch = None;
            }
            Op::Pass(millis) => self.now += Duration::from_millis(millis),
        }
    }

    /// Half a second in which everything works.
    fn round(&mut self, leader: usize) {
        self.now += Duration::from_millis(500);
        (0..HOSTS).for_each(|index| self.sign(index));
        (0..HOSTS).for_each(|index| self.deliver(index, usize::MAX));
        for _ in 0..3 {
            self.step(leader, true, true);
        }
        (0..HOSTS).for_each(|index| self.deliver(index, usize::MAX));
    }

    /// A host never goes back, and never obeys a leader after a later one.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let new = host.assigner.assigned(&host.hosts, None);
            prop_assert!(
                new.revision >= host.obeyed.revision && new.epoch >= host.obeyed.epoch,
                "host {}",
                index
            );
            host.obeyed = new;
        }
        let mut epochs = self.log.iter().filter_map(|(_, change)| match change {
            Change::Assignment(value) => Some(value.epoch),
            Change::Host(..) => None,
        });
        let mut last = 0;
        prop_assert!(
            epochs.all(|epoch| std::mem::replace(&mut last, epoch) <= epoch),
            "an earlier leader has written"
        );
        Ok(())
    }
}

proptest! {
    /// Leaders that do not know of each other, hosts that end and come, writes and answers that get lost, changes that
    /// come late or again.
    #[test]
    fn all_hosts_come_to_agree_on_an_assignment_to_live_hosts(
        ops in prop::collection::vec(op(), 0..120),
        leader in 0..HOSTS,
        down in prop::option::of(0..HOSTS),
    ) {
        let work = work(5, &[None, None, Some(1), Some(2)]);
        let mut world = World::new(&work);
        for op in ops {
            world.carry_out(op);
            world.check()?;
        }
        for index in 0..HOSTS {
            let is_down = down == Some(index) && index != leader;
            world.carry_out(if is_down { Op::Kill(index) } else { Op::Start(index) });
        }
        world.carry_out(Op::Lead(leader));
        for _ in 0..10 {
            world.round(leader);
            world.check()?;
        }
        let up: Fits = (0..HOSTS).filter(|i| world.hosts[*i].is_up).map(|i| (name(i), Fitness::Fresh)).collect();
        let (revision, value) = world.assignment();
        check_whole(&value.unwrap(), &up, &work)?;
        for host in world.hosts.iter().filter(|host| host.is_up) {
            prop_assert_eq!(host.obeyed.revision, revision);
        }
        // Once all have been up for a while they have equal shares, and nothing is written any more.
        for _ in 0..70 {
            world.round(leader);
        }
        let (revision, value) = world.assignment();
        let value = value.unwrap();
        check_whole(&value, &up, &work)?;
        let shares = counts(value.shards.values(), &up.keys().cloned().collect());
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{:?}", shares);
        for _ in 0..20 {
            world.round(leader);
        }
        prop_assert_eq!(world.assignment().0, revision, "an idle cluster writes no assignment");
    }
}

#[test]
fn a_host_that_comes_back_at_once_keeps_its_work() {
    let mut world = World::new(&work(6, &[]));
    world.carry_out(Op::Lead(0));
    (0..80).for_each(|_| world.round(0));
    let before = world.assignment();
    world.carry_out(Op::Kill(1));
    (0..4).for_each(|_| world.round(0));
    world.carry_out(Op::Start(1));
    (0..80).for_each(|_| world.round(0));
    let shards = |found: (u64, Option<Assignment>)| found.1.unwrap().shards;
    assert_eq!(shards(world.assignment()), shards(before));
}

#[test]
fn a_host_counts_for_the_number_of_shards_from_ten_minutes_on_until_it_is_forgotten() {
    let mut world = World::new(&work(3, &[]));
    world.carry_out(Op::Lead(0));
    let count = |world: &World, host: usize| world.hosts[host].assigner.host_count();
    (0..1_190).for_each(|_| world.round(0));
    assert_eq!(count(&world, 0), 0);
    (0..20).for_each(|_| world.round(0));
    assert_eq!((count(&world, 0), count(&world, 1)), (3, 3));
    // Neither its end nor another leader changes that.
    world.carry_out(Op::Kill(2));
    world.carry_out(Op::Lead(1));
    (0..20).for_each(|_| world.round(1));
    assert_eq!(count(&world, 1), 3);
    let host = &mut world.hosts[1];
    let forgotten = HostRequest::Forget { host: name(2).to_string() };
    assert!(host.assigner.edit(&forgotten, &host.hosts, world.now).is_ok());
    world.round(1);
    assert_eq!((count(&world, 1), count(&world, 0)), (2, 2));
}

#[test]
fn a_bucket_that_goes_back_in_time_is_written_until_all_hosts_obey_again() {
    let mut world = World::new(&work(4, &[]));
    world.carry_out(Op::Lead(0));
    (0..80).for_each(|_| world.round(0));
    let obeyed = world.hosts[1].assigner.assigned(&world.hosts[1].hosts, None).revision;
    // The data of the servers is restored: the assignment is one of long ago, and revisions are lower.
    let first = world.log.iter().position(|(_, change)| matches!(change, Change::Assignment(_))).unwrap();
    world.log.truncate(first + 1);
    world.revision = world.log[first].0;
    for host in &mut world.hosts {
        host.read = 0;
    }
    world.carry_out(Op::Kill(2));
    // The old lease is gone, and a new one has a lower number.
    world.carry_out(Op::Lead(0));
    for _ in 0..400 {
        world.round(0);
    }
    let assigned = world.hosts[1].assigner.assigned(&world.hosts[1].hosts, None);
    assert!(assigned.revision > obeyed);
    assert!(assigned.shards.values().all(|host| **host != *name(2)), "{:?}", assigned.shards);
}

#[test]
fn a_person_drains_and_forgets_hosts() {
    let mut world = World::new(&work(3, &[None, Some(1)]));
    world.carry_out(Op::Lead(0));
    (0..80).for_each(|_| world.round(0));
    let ask = |world: &mut World, request: HostRequest| {
        let now = world.now;
        let host = &mut world.hosts[0];
        let outcome = host.assigner.edit(&request, &host.hosts, now);
        world.round(0);
        (outcome, world.hosts[0].assigner.take_edited(), world.assignment().1.unwrap())
    };
    let host = |index| name(index).to_string();
    let has = |value: &Assignment, index| {
        value.shards.values().chain(value.sinks.values()).filter(|host| **host == name(index)).count()
    };

    let (outcome, edited, value) = ask(&mut world, HostRequest::Drain { host: host(1) });
    assert!(
        outcome.is_ok_and(|said| said.starts_with("web-1 hands its shards, its sinks and the lead over"))
    );
    assert_eq!((edited, has(&value, 1)), (1, 1), "the sink that is pinned to it stays: {value:?}");
    // The last host that is not drained has all; then nothing moves any more.
    let (_, _, value) = ask(&mut world, HostRequest::Drain { host: host(2) });
    assert_eq!((has(&value, 0), has(&value, 2)), (4, 0));
    let (outcome, _, all) = ask(&mut world, HostRequest::Drain { host: host(0) });
    assert!(outcome.is_ok_and(|said| said.contains("no other host can have them now")));
    assert_eq!(all.shards, value.shards);
    let (outcome, edited, value) = ask(&mut world, HostRequest::Undrain { host: host(2) });
    assert!(outcome.is_ok() && edited == 1 && has(&value, 2) == 4, "{value:?}");
    let (outcome, edited, _) = ask(&mut world, HostRequest::Undrain { host: host(2) });
    assert_eq!((outcome, edited), (Err("web-2 is not drained".to_owned()), 0));

    // A restart ends it.
    world.carry_out(Op::Start(1));
    world.round(0);
    assert!(!world.assignment().1.unwrap().draining.contains_key(&name(1)));

    let (outcome, _, _) = ask(&mut world, HostRequest::Forget { host: host(1) });
    assert!(outcome.is_err_and(|why| why.contains("web-1 is up")));
    world.carry_out(Op::Kill(1));
    (0..10).for_each(|_| world.round(0));
    assert!(world.assignment().1.unwrap().members[&name(1)].down_since.is_some());
    let (outcome, _, value) = ask(&mut world, HostRequest::Forget { host: host(1) });
    assert!(outcome.is_ok() && !value.members.contains_key(&name(1)));
    (0..10).for_each(|_| world.round(0));
    let statuses = world.hosts[0].hosts.statuses("", None, Some(&world.assignment().1.unwrap()), world.now);
    // No end of its key was told here, so it counts as down only after a while.
    world.now += Duration::from_secs(20);
    let later = world.hosts[0].hosts.statuses("", None, Some(&world.assignment().1.unwrap()), world.now);
    assert_eq!((statuses.len(), later.len()), (3, 2));
    let (outcome, _, _) = ask(&mut world, HostRequest::Drain { host: "web-9".to_owned() });
    assert!(outcome.is_err_and(|why| why.contains("no host is called web-9")));
}

#[test]
fn in_a_new_bucket_the_work_stays_where_it_is() {
    let mut world = World::new(&work(4, &[None]));
    world.carry_out(Op::Lead(0));
    (0..80).for_each(|_| world.round(0));
    let (_, before) = world.assignment();
    world.log.clear();
    world.revision += 1_000_000;
    for host in &mut world.hosts {
        (host.read, host.hosts, host.epoch) = (0, Hosts::default(), None);
        host.assigner.handle_new_bucket();
    }
    world.carry_out(Op::Lead(1));
    for index in 0..HOSTS {
        world.sign(index);
    }
    world.round(1);
    let (revision, after) = world.assignment();
    assert_eq!(after.unwrap().shards, before.unwrap().shards);
    let assigned = world.hosts[2].assigner.assigned(&world.hosts[2].hosts, None);
    assert_eq!(assigned.revision, revision, "all obey it");
}

#[test]
fn hosts_of_an_old_release_get_nothing_and_all_are_told() {
    let mut world = World::new(&work(2, &[None]));
    world.carry_out(Op::Lead(0));
    world.sign(1);
    world.sign(2);
    if let Some((_, Change::Host(_, value))) = world.log.last_mut() {
        value.formats.clear();
    }
    for _ in 0..4 {
        world.now += Duration::from_millis(500);
        world.sign(0);
        (0..HOSTS).for_each(|index| world.deliver(index, usize::MAX));
        world.step(0, true, true);
    }
    (0..HOSTS).for_each(|index| world.deliver(index, usize::MAX));
    let host = &world.hosts[1];
    let assigned = host.assigner.assigned(&host.hosts, Some("web-0"));
    assert!(assigned.has_old_hosts && assigned.shards.values().all(|host| **host != *name(2)));
    assert_eq!(assigned.shards.len(), 2);
    // An old host that leads has all the work.
    let assigned = host.assigner.assigned(&host.hosts, Some("web-2"));
    assert!(assigned.has_old_hosts && assigned.shards.is_empty() && assigned.sinks.is_empty());
}
