//! What a sink that takes one event at a time may be given next, and how far it has come.
//!
//! Events of one lane go one after another, in the order in which they were added; lanes run beside each
//! other up to the sink's concurrency. A failing event holds up its lane, never another one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::retry::{Decision, RetryLimits, decide};
use crate::model::event::Seq;

/// How far a sink is: everything up to the cursor is done, and some events after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Everything up to here is done, or was not for this sink.
    pub cursor: Seq,
    /// Events after the cursor that are done as well, ascending.
    pub done: Vec<Seq>,
}

impl From<Seq> for Place {
    fn from(cursor: Seq) -> Self {
        Self { cursor, done: Vec::new() }
    }
}

/// What an item stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// An event of the store.
    Stored(Seq),
    /// A dead letter that is sent again.
    Letter(i64),
}

/// Names an item of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Item {
    origin: Origin,
    lane: u64,
    failures: u32,
    /// When it first failed.
    failing_since: Option<Duration>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Behind another one of its lane, or ready.
    Queued,
    /// With the sink, or on its way to the dead letters.
    Out,
    /// Failed; due at this time.
    Waiting(Duration),
}

/// The events that are read and not done. Times are since any fixed moment.
#[derive(Debug)]
pub struct Window {
    concurrency: usize,
    next: u64,
    items: BTreeMap<Ticket, Item>,
    /// First the one that may go, then those behind it.
    lanes: HashMap<u64, VecDeque<Ticket>>,
    ready: BTreeSet<Ticket>,
    waiting: BTreeSet<(Duration, Ticket)>,
    out: usize,
    /// Items that have failed at least once.
    failing: usize,
    /// Stored events that are not done.
    open: BTreeSet<Seq>,
    /// Stored events after the first open one that are done.
    done: BTreeSet<Seq>,
    read: Seq,
}

impl Window {
    /// For a sink that takes so many events at once, from 1. A sink that takes one gets all of them in
    /// the order of storing: it has one lane.
    pub fn new(concurrency: usize, start: Seq) -> Self {
        Self {
            concurrency: concurrency.max(1),
            next: 0,
            items: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            out: 0,
            failing: 0,
            open: BTreeSet::new(),
            done: BTreeSet::new(),
            read: start,
        }
    }

    /// Adds an item behind the others of its lane.
    pub fn add(&mut self, origin: Origin, lane: u64) -> Ticket {
        let lane = if self.concurrency == 1 { 0 } else { lane };
        let ticket = Ticket(self.next);
        self.next += 1;
        self.items
            .insert(ticket, Item { origin, lane, failures: 0, failing_since: None, state: State::Queued });
        let queue = self.lanes.entry(lane).or_default();
        queue.push_back(ticket);
        if queue.len() == 1 {
            self.ready.insert(ticket);
        }
        if let Origin::Stored(seq) = origin {
            self.open.insert(seq);
            self.read = self.read.max(seq);
        }
        ticket
    }

    /// An event that was done before a restart.
    pub fn add_done(&mut self, seq: Seq) {
        self.done.insert(seq);
        self.read = self.read.max(seq);
        self.settle();
    }

    /// Everything up to here was read; what was not added is not for this sink.
    pub fn read_to(&mut self, seq: Seq) {
        self.read = self.read.max(seq);
    }

    /// Up to where events were read.
    pub fn read(&self) -> Seq {
        self.read
    }

    /// The next item to send, which then counts as out; none while as many are out as the sink takes.
    pub fn next(&mut self, now: Duration) -> Option<Ticket> {
        while let Some(&(due, ticket)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            self.ready.insert(ticket);
        }
        if self.out >= self.concurrency {
            return None;
        }
        let ticket = self.ready.pop_first()?;
        self.items.get_mut(&ticket)?.state = State::Out;
        self.out += 1;
        Some(ticket)
    }

    /// What a ticket stands for.
    pub fn origin(&self, ticket: Ticket) -> Option<Origin> {
        self.items.get(&ticket).map(|item| item.origin)
    }

    /// How often it has failed.
    pub fn failures(&self, ticket: Ticket) -> u32 {
        self.items.get(&ticket).map_or(0, |item| item.failures)
    }

    /// The sink has it, or it is in the dead letters.
    pub fn done(&mut self, ticket: Ticket) {
        let Some(item) = self.items.remove(&ticket) else { return };
        self.failing -= usize::from(item.failures > 0);
        match item.state {
            State::Out => self.out -= 1,
            State::Waiting(due) => drop(self.waiting.remove(&(due, ticket))),
            State::Queued => drop(self.ready.remove(&ticket)),
        }
        if let Some(queue) = self.lanes.get_mut(&item.lane) {
            let was_first = queue.front() == Some(&ticket);
            queue.retain(|other| *other != ticket);
            match queue.front() {
                Some(first) if was_first => drop(self.ready.insert(*first)),
                Some(_) => {}
                None => drop(self.lanes.remove(&item.lane)),
            }
        }
        if let Origin::Stored(seq) = item.origin {
            self.open.remove(&seq);
            self.done.insert(seq);
            self.settle();
        }
    }

    /// A try failed. When it is to be given up, it stays out until it is [`Self::done`].
    /// `at_least` is the pause that the receiver asks for.
    pub fn failed(
        &mut self,
        ticket: Ticket,
        now: Duration,
        limits: RetryLimits,
        at_least: Option<Duration>,
        jitter: f64,
    ) -> Decision {
        let Some(item) = self.items.get_mut(&ticket) else { return Decision::GiveUp };
        self.failing += usize::from(item.failures == 0);
        item.failures = item.failures.saturating_add(1);
        let since = *item.failing_since.get_or_insert(now);
        let decision = decide(item.failures, now.saturating_sub(since), limits, at_least, jitter);
        if let Decision::Wait(pause) = decision {
            let due = now + pause;
            item.state = State::Waiting(due);
            self.waiting.insert((due, ticket));
            self.out -= 1;
        }
        decision
    }

    /// Whoever waits is due now: a person has just mended something.
    pub fn hurry(&mut self) {
        for (_, ticket) in std::mem::take(&mut self.waiting) {
            if let Some(item) = self.items.get_mut(&ticket) {
                item.state = State::Queued;
            }
            self.ready.insert(ticket);
        }
    }

    /// When the first waiting item is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Items that are with the sink.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Whether some item has failed and is not done.
    pub fn failing(&self) -> bool {
        self.failing > 0
    }

    /// Items that are not done, and done ones behind the first open one: what a place would have to name.
    pub fn len(&self) -> usize {
        self.items.len() + self.done.len()
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How far it is.
    pub fn place(&self) -> Place {
        let cursor = self.open.first().map_or(self.read, |first| Seq(first.0 - 1));
        Place { cursor, done: self.done.iter().copied().collect() }
    }

    /// Forgets what the cursor has passed.
    fn settle(&mut self) {
        match self.open.first() {
            Some(first) => self.done = self.done.split_off(first),
            None => self.done.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: RetryLimits =
        RetryLimits { retry_max: Duration::from_secs(60), give_up_after: Duration::from_secs(600) };

    #[test]
    fn one_at_a_time_is_the_order_of_storing() {
        let mut window = Window::new(1, Seq(0));
        let first = window.add(Origin::Stored(Seq(1)), 7);
        window.add(Origin::Stored(Seq(2)), 8);
        assert_eq!(window.next(Duration::ZERO), Some(first));
        assert_eq!(window.next(Duration::ZERO), None);
        assert!(matches!(window.failed(first, Duration::ZERO, LIMITS, None, 1.0), Decision::Wait(_)));
        assert_eq!(window.next(Duration::ZERO), None, "nobody overtakes");
        let due = window.next_due().unwrap();
        assert_eq!(window.next(due), Some(first));
        window.done(first);
        assert_eq!(window.place(), Place::from(Seq(1)));
    }

    #[test]
    fn a_failing_lane_holds_up_itself_only_and_the_place_says_so() {
        let mut window = Window::new(4, Seq(10));
        let bad = window.add(Origin::Stored(Seq(11)), 1);
        let good = window.add(Origin::Stored(Seq(12)), 2);
        window.add(Origin::Stored(Seq(13)), 1);
        assert_eq!(window.next(Duration::ZERO), Some(bad));
        assert_eq!(window.next(Duration::ZERO), Some(good));
        assert_eq!(window.next(Duration::ZERO), None, "13 is behind 11");
        window.done(good);
        window.failed(bad, Duration::ZERO, LIMITS, None, 1.0);
        assert_eq!(window.place(), Place { cursor: Seq(10), done: vec![Seq(12)] });
        window.hurry();
        assert_eq!(window.next(Duration::ZERO), Some(bad));
        window.done(bad);
        assert_eq!(window.place(), Place::from(Seq(12)));
    }

    #[test]
    fn what_was_done_before_a_restart_is_known() {
        let mut window = Window::new(2, Seq(5));
        let open = window.add(Origin::Stored(Seq(6)), 1);
        window.add_done(Seq(7));
        assert_eq!(window.place(), Place { cursor: Seq(5), done: vec![Seq(7)] });
        window.next(Duration::ZERO);
        window.done(open);
        assert_eq!(window.place(), Place::from(Seq(7)));
    }

    proptest! {
        /// Whatever fails when: every event is done once, in the order of its lane; the place never
        /// claims what is not done, and never goes back.
        #[test]
        fn nothing_is_lost_or_overtaken(
            concurrency in 1_usize..6,
            lanes in prop::collection::vec(0_u64..5, 1..60),
            moves in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 0.0..1.0_f64), 0..400),
        ) {
            let mut window = Window::new(concurrency, Seq(0));
            let mut tickets = HashMap::new();
            for (index, lane) in lanes.iter().enumerate() {
                let seq = Seq(index as u64 + 1);
                tickets.insert(window.add(Origin::Stored(seq), *lane), seq);
            }
            let mut now = Duration::ZERO;
            let mut out: Vec<Ticket> = Vec::new();
            let mut done: Vec<Seq> = Vec::new();
            let mut claimed = Seq(0);
            let end = std::iter::repeat_n((true, None, 0.0), lanes.len() * 2);
            for (succeeds, which, jitter) in
                moves.into_iter().map(|(s, i, j)| (s, Some(i), j)).chain(end)
            {
                while let Some(ticket) = window.next(now) {
                    let lane = lanes[tickets[&ticket].0 as usize - 1];
                    let others: HashSet<u64> = out.iter().map(|t| lanes[tickets[t].0 as usize - 1]).collect();
                    prop_assert!(!others.contains(&lane), "two of a lane are out");
                    out.push(ticket);
                }
                prop_assert!(out.len() <= concurrency);
                prop_assert_eq!(out.len(), window.out());
                if out.is_empty() {
                    let Some(due) = window.next_due() else { break };
                    now = due;
                    continue;
                }
                let at = which.map_or(0, |index| index.index(out.len()));
                let ticket = out.remove(at);
                if succeeds || window.failed(ticket, now, LIMITS, None, jitter) == Decision::GiveUp {
                    window.done(ticket);
                    done.push(tickets[&ticket]);
                }
                let place = window.place();
                prop_assert!(place.cursor >= claimed);
                claimed = place.cursor;
                let known: HashSet<Seq> = done.iter().copied().collect();
                prop_assert!((1..=claimed.0).all(|seq| known.contains(&Seq(seq))));
                prop_assert!(place.done.iter().all(|seq| known.contains(seq) && *seq > claimed));
                prop_assert_eq!(claimed.0 as usize + place.done.len(), done.len());
            }
            let mut last = HashMap::new();
            for seq in &done {
                let lane = if concurrency == 1 { 0 } else { lanes[seq.0 as usize - 1] };
                prop_assert!(last.insert(lane, *seq).is_none_or(|before| before < *seq));
            }
        }
    }
}
