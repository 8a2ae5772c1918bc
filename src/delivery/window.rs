//! The open events of a sink that takes one event at a time: which may go next, and the sink's place.
//!
//! Events of one lane go one after another, in the order in which they were added. Lanes run in parallel up to the sink's
//! concurrency. An event that fails by itself holds up its lane only; a receiver that does not work, or asks for a pause,
//! holds up all lanes. ◆

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::gate::{Admission, Gate, Round};
use super::retry::{Allowance, Decision, RetryLimits, backoff, decide, respected};
use crate::model::event::Seq;

/// The place of a sink: everything up to the cursor is done, and some events after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last event up to which all are done, or not for this sink.
    pub cursor: Seq,
    /// Events after the cursor that are done as well, ascending.
    pub done: Vec<Seq>,
}

impl From<Seq> for Place {
    fn from(cursor: Seq) -> Self {
        Self { cursor, done: Vec::new() }
    }
}

/// The event of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// An event of the store.
    Stored(Seq),
    /// A dead letter that is sent again.
    DeadLetter(i64),
}

/// Names an item of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Item {
    origin: Origin,
    lane: u64,
    failures: u32,
    /// Time of the first failure.
    failing_since: Option<Duration>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Ready, or behind another item of its lane.
    Queued,
    /// With the sink, or about to become a dead letter.
    Out(Round),
    /// Failed, and due again at this time.
    Waiting(Duration),
}

/// Subject of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Event,
    Receiver,
    /// The receiver asks for a pause of this length.
    Wish(Duration),
}

/// The events that are read and not done. Times are since any fixed moment.
#[derive(Debug)]
pub struct Window {
    concurrency: usize,
    next: u64,
    items: BTreeMap<Ticket, Item>,
    /// In each lane, first the item that may go, then those behind it.
    lanes: HashMap<u64, VecDeque<Ticket>>,
    ready: BTreeSet<Ticket>,
    waiting: BTreeSet<(Duration, Ticket)>,
    gate: Gate,
    /// The item that shows whether a receiver works again: the one that failed last.
    probe: Option<Ticket>,
    out: usize,
    /// Number of items that have failed at least once.
    failing: usize,
    /// Stored events that are not done.
    open: BTreeSet<Seq>,
    /// Stored events after the first open one that are done.
    done: BTreeSet<Seq>,
    read: Seq,
}

impl Window {
    /// Creates the window of a sink that takes `concurrency` events at once, at least 1. A sink that takes one has one lane,
    /// and gets all events in the order of storing.
    pub fn new(concurrency: usize, start: Seq) -> Self {
        Self {
            concurrency: concurrency.max(1),
            next: 0,
            items: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            gate: Gate::default(),
            probe: None,
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

    /// Adds an event that was done before a restart.
    pub fn add_done(&mut self, seq: Seq) {
        self.done.insert(seq);
        self.read = self.read.max(seq);
        self.advance();
    }

    /// Records that everything up to here was read. Events that were not added are not for this sink.
    pub fn read_to(&mut self, seq: Seq) {
        self.read = self.read.max(seq);
    }

    /// The last event that was read.
    pub fn read(&self) -> Seq {
        self.read
    }

    /// The next item to send, which then counts as out. `None` while as many are out as the sink takes, or the
    /// receiver takes nothing.
    pub fn poll_next(&mut self, now: Duration) -> Option<Ticket> {
        while let Some(&(due, ticket)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            self.queue(ticket);
        }
        if self.out >= self.concurrency {
            return None;
        }
        let ticket = match self.gate.admission(now, self.out) {
            Admission::None => return None,
            Admission::One => {
                let probe = self.probe.filter(|ticket| self.ready.contains(ticket));
                probe.or_else(|| self.ready.first().copied())?
            }
            Admission::Any => *self.ready.first()?,
        };
        self.ready.remove(&ticket);
        self.items.get_mut(&ticket)?.state = State::Out(self.gate.sent(now));
        self.out += 1;
        Some(ticket)
    }

    fn queue(&mut self, ticket: Ticket) {
        if let Some(item) = self.items.get_mut(&ticket) {
            item.state = State::Queued;
            self.ready.insert(ticket);
        }
    }

    /// The event of an item.
    pub fn origin(&self, ticket: Ticket) -> Option<Origin> {
        self.items.get(&ticket).map(|item| item.origin)
    }

    /// Number of failures of an item.
    pub fn failures(&self, ticket: Ticket) -> u32 {
        self.items.get(&ticket).map_or(0, |item| item.failures)
    }

    /// Records that the receiver works: it has taken this event, or refused it for good.
    pub fn handle_proof(&mut self, ticket: Ticket) {
        if let Some(State::Out(round)) = self.items.get(&ticket).map(|item| &item.state) {
            self.gate.proved(*round);
        }
    }

    /// Records how many more requests the receiver takes.
    pub fn handle_allowance(&mut self, allowance: Allowance, now: Duration) {
        self.gate.allowed(allowance, now, self.out.saturating_sub(1));
    }

    /// Removes an item that the sink has, or that is a dead letter now.
    pub fn handle_done(&mut self, ticket: Ticket) {
        let Some(item) = self.items.remove(&ticket) else { return };
        self.failing -= usize::from(item.failures > 0);
        self.probe = self.probe.filter(|probe| *probe != ticket);
        match item.state {
            State::Out(round) => {
                self.out -= 1;
                self.gate.ended(round);
            }
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
            self.advance();
        }
    }

    /// Handles a failed attempt. An item that is to be given up stays out until it is [`Self::handle_done`].
    pub fn handle_failure(
        &mut self,
        ticket: Ticket,
        cause: Cause,
        now: Duration,
        limits: RetryLimits,
        jitter: f64,
    ) -> Decision {
        let Some(item) = self.items.get_mut(&ticket) else { return Decision::GiveUp };
        let State::Out(round) = item.state else { return Decision::GiveUp };
        self.failing += usize::from(item.failures == 0);
        item.failures = item.failures.saturating_add(1);
        let failing_for = now.saturating_sub(*item.failing_since.get_or_insert(now));
        let failures = match cause {
            Cause::Event => item.failures,
            Cause::Receiver => self.gate.failures_with(round),
            Cause::Wish(_) => 1,
        };
        let decision = decide(failures, failing_for, limits, jitter);
        match cause {
            Cause::Event => self.gate.proved(round),
            Cause::Receiver => {
                let pause = match decision {
                    Decision::Wait(pause) => pause,
                    Decision::GiveUp => backoff(failures, limits.retry_max, jitter),
                };
                if self.gate.failed(round, now + pause) {
                    self.probe = Some(ticket);
                }
            }
            Cause::Wish(wait) => drop(self.gate.throttled(round, now, wait)),
        }
        match (decision, cause) {
            (Decision::GiveUp, _) => return Decision::GiveUp,
            (Decision::Wait(pause), Cause::Event) => {
                let due = now + pause;
                if let Some(item) = self.items.get_mut(&ticket) {
                    item.state = State::Waiting(due);
                }
                self.waiting.insert((due, ticket));
            }
            (Decision::Wait(_), Cause::Receiver | Cause::Wish(_)) => self.queue(ticket),
        }
        self.out -= 1;
        match cause {
            Cause::Wish(wait) => Decision::Wait(respected(wait)),
            Cause::Event | Cause::Receiver => decision,
        }
    }

    /// Sends nothing until then: the receiver has asked another sink for this pause.
    pub fn pause_until(&mut self, until: Duration) {
        self.gate.pause_until(until);
    }

    /// The end of the pause that the receiver asked for, if it is not over.
    pub fn asked_until(&self, now: Duration) -> Option<Duration> {
        self.gate.asked_until(now)
    }

    /// Whether the receiver wants no requests now.
    pub fn is_paused(&self, now: Duration) -> bool {
        self.gate.is_paused(now)
    }

    /// Makes all failed items due. With `wishes` it also ends the pauses that the receiver asked for.
    pub fn retry_now(&mut self, wishes: bool) {
        self.gate.open(wishes);
        for (_, ticket) in std::mem::take(&mut self.waiting) {
            self.queue(ticket);
        }
    }

    /// Returns the time at which the next item may go, if it waits for time only.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        match self.gate.closed_until(now) {
            Some(until) if !self.ready.is_empty() => Some(until),
            Some(until) => waiting.map(|due| due.max(until)),
            None => waiting,
        }
    }

    /// Returns the time of the next attempt, if something has failed or the receiver wants a pause.
    pub fn next_try(&self, now: Duration) -> Option<Duration> {
        let waits = self.failing() || self.is_paused(now);
        let due = self.poll_timeout(now).or_else(|| self.gate.closed_until(now));
        due.filter(|due| waits && *due > now)
    }

    /// Returns the failed item that holds up others.
    pub fn held_up_by(&self) -> Option<Ticket> {
        let failing = || self.items.iter().find(|(_, item)| item.failures > 0).map(|(ticket, _)| *ticket);
        self.probe.or_else(failing)
    }

    /// Items that are with the sink.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Whether some item has failed and is not done.
    pub fn failing(&self) -> bool {
        self.failing > 0
    }

    /// Number of items that are not done, and of done ones after the first open one.
    pub fn len(&self) -> usize {
        self.items.len() + self.done.len()
    }

    /// Stored events that are not done.
    pub fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The event up to which everything is done.
    pub fn cursor(&self) -> Seq {
        self.open.first().map_or(self.read, |first| Seq(first.0 - 1))
    }

    /// The place of the sink.
    pub fn place(&self) -> Place {
        Place { cursor: self.cursor(), done: self.done.iter().copied().collect() }
    }

    /// Forgets done events that the cursor has passed.
    fn advance(&mut self) {
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
        assert_eq!(window.poll_next(Duration::ZERO), Some(first));
        assert_eq!(window.poll_next(Duration::ZERO), None);
        assert!(matches!(
            window.handle_failure(first, Cause::Event, Duration::ZERO, LIMITS, 1.0),
            Decision::Wait(_)
        ));
        assert_eq!(window.poll_next(Duration::ZERO), None, "nobody overtakes");
        let due = window.poll_timeout(Duration::ZERO).unwrap();
        assert_eq!(window.poll_next(due), Some(first));
        window.handle_done(first);
        assert_eq!(window.place(), Place::from(Seq(1)));
    }

    #[test]
    fn a_failing_lane_holds_up_itself_only_and_the_place_says_so() {
        let mut window = Window::new(4, Seq(10));
        let bad = window.add(Origin::Stored(Seq(11)), 1);
        let good = window.add(Origin::Stored(Seq(12)), 2);
        window.add(Origin::Stored(Seq(13)), 1);
        assert_eq!(window.poll_next(Duration::ZERO), Some(bad));
        assert_eq!(window.poll_next(Duration::ZERO), Some(good));
        assert_eq!(window.poll_next(Duration::ZERO), None, "13 is behind 11");
        window.handle_done(good);
        window.handle_failure(bad, Cause::Event, Duration::ZERO, LIMITS, 1.0);
        assert_eq!(window.place(), Place { cursor: Seq(10), done: vec![Seq(12)] });
        window.retry_now(false);
        assert_eq!(window.poll_next(Duration::ZERO), Some(bad));
        window.handle_done(bad);
        assert_eq!(window.place(), Place::from(Seq(12)));
    }

    #[test]
    fn what_was_done_before_a_restart_is_known() {
        let mut window = Window::new(2, Seq(5));
        let open = window.add(Origin::Stored(Seq(6)), 1);
        window.add_done(Seq(7));
        assert_eq!(window.place(), Place { cursor: Seq(5), done: vec![Seq(7)] });
        window.poll_next(Duration::ZERO);
        window.handle_done(open);
        assert_eq!(window.place(), Place::from(Seq(7)));
    }

    #[test]
    fn a_receiver_that_does_not_work_holds_up_every_lane_and_is_tried_with_the_event_that_failed() {
        let mut window = Window::new(4, Seq(0));
        let [first, second, third] = [1, 2, 3].map(|seq| window.add(Origin::Stored(Seq(seq)), seq));
        let now = Duration::ZERO;
        for ticket in [first, second] {
            assert_eq!(window.poll_next(now), Some(ticket));
        }
        let failed = window.handle_failure(second, Cause::Receiver, now, LIMITS, 1.0);
        assert_eq!(failed, Decision::Wait(Duration::from_millis(500)));
        window.handle_proof(first);
        window.handle_done(first);
        assert_eq!(window.poll_next(now), None, "the third waits as well");
        let due = window.poll_timeout(now).unwrap();
        assert_eq!(window.next_try(now), Some(due));
        assert_eq!(window.poll_next(due), Some(second));
        assert_eq!(
            (window.poll_next(due), window.poll_timeout(due)),
            (None, None),
            "one event shows how it is"
        );
        window.handle_failure(second, Cause::Receiver, due, LIMITS, 1.0);
        assert_eq!(window.poll_timeout(due), Some(due + Duration::from_secs(1)), "pauses grow");
        window.retry_now(false);
        assert_eq!(window.poll_next(due), Some(second));
        window.handle_proof(second);
        window.handle_done(second);
        assert_eq!(window.poll_next(due), Some(third));
        assert!(!window.failing());
    }

    #[test]
    fn a_receiver_that_never_works_gets_the_events_one_by_one_until_each_is_given_up() {
        let mut window = Window::new(4, Seq(0));
        for seq in 1..=3 {
            window.add(Origin::Stored(Seq(seq)), seq);
        }
        let (mut now, mut given_up, mut attempts) = (Duration::ZERO, 0, 0);
        while !window.is_empty() {
            attempts += 1;
            assert!(attempts < 500, "it ends");
            let Some(ticket) = window.poll_next(now) else {
                now = window.poll_timeout(now).expect("time helps");
                continue;
            };
            if window.handle_failure(ticket, Cause::Receiver, now, LIMITS, 1.0) == Decision::GiveUp {
                window.handle_done(ticket);
                given_up += 1;
            }
        }
        assert_eq!((given_up, window.place()), (3, Place::from(Seq(3))));
        assert!(now >= 3 * LIMITS.give_up_after, "each has its time");
    }

    #[test]
    fn what_is_skipped_is_what_holds_up_the_others() {
        let mut window = Window::new(4, Seq(0));
        let [first, second] = [1, 2].map(|seq| window.add(Origin::Stored(Seq(seq)), seq));
        for ticket in [first, second] {
            assert_eq!(window.poll_next(Duration::ZERO), Some(ticket));
        }
        assert_eq!(window.held_up_by(), None, "nothing has failed");
        window.handle_failure(second, Cause::Receiver, Duration::ZERO, LIMITS, 1.0);
        assert_eq!(window.held_up_by(), Some(second));
        window.handle_done(second);
        assert_eq!(window.held_up_by(), None);
    }

    /// Outcome of an event that is out.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Done,
        Refused,
        Fails(Cause),
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            4 => Just(Fate::Done),
            1 => Just(Fate::Refused),
            2 => Just(Fate::Fails(Cause::Event)),
            2 => Just(Fate::Fails(Cause::Receiver)),
            1 => (0..20_000_u64).prop_map(|wait| Fate::Fails(Cause::Wish(Duration::from_millis(wait)))),
        ]
    }

    proptest! {
        /// For all sequences of failures: every event is done once, in the order of its lane; the place never claims what is not
        /// done, and never goes back; no event goes during a pause; after the receiver has failed, one goes at a time
        /// until it works.
        #[test]
        fn nothing_is_lost_or_overtaken_or_sent_during_a_pause(
            concurrency in 1_usize..6,
            lanes in prop::collection::vec(0_u64..5, 1..60),
            moves in prop::collection::vec((fate(), any::<prop::sample::Index>(), 0.0..1.0_f64, 0..10_u8), 0..400),
        ) {
            let mut window = Window::new(concurrency, Seq(0));
            let mut tickets = HashMap::new();
            for (index, lane) in lanes.iter().enumerate() {
                let seq = Seq(index as u64 + 1);
                tickets.insert(window.add(Origin::Stored(seq), *lane), seq);
            }
            let mut now = Duration::ZERO;
            let mut out: Vec<(Ticket, u32)> = Vec::new();
            let mut done: Vec<Seq> = Vec::new();
            let mut claimed = Seq(0);
            // The receiver's state: the end of the pause it asked for, and how often it was found not to work.
            let (mut paused_until, mut round, mut is_suspect) = (Duration::ZERO, 0, false);
            let end = std::iter::repeat_n((Fate::Done, None, 0.0, 9), lanes.len() * 3);
            for (fate, which, jitter, extra) in
                moves.into_iter().map(|(f, i, j, e)| (f, Some(i), j, e)).chain(end)
            {
                match extra {
                    0 => window.retry_now(false),
                    1 => {
                        window.pause_until(now + Duration::from_secs(3));
                        paused_until = paused_until.max(now + Duration::from_secs(3));
                    }
                    _ => {}
                }
                while let Some(ticket) = window.poll_next(now) {
                    let lane = lanes[tickets[&ticket].0 as usize - 1];
                    let others: HashSet<u64> = out.iter().map(|(t, _)| lanes[tickets[t].0 as usize - 1]).collect();
                    prop_assert!(!others.contains(&lane), "two of a lane are out");
                    prop_assert!(now >= paused_until, "{now:?} is before {paused_until:?}");
                    prop_assert!(!is_suspect || out.iter().all(|(_, sent)| *sent < round), "two show how it is");
                    out.push((ticket, round));
                }
                prop_assert!(out.len() <= concurrency);
                prop_assert_eq!(out.len(), window.out());
                if out.is_empty() {
                    let Some(due) = window.poll_timeout(now) else { break };
                    prop_assert!(due > now);
                    now = due;
                    continue;
                }
                let at = which.map_or(0, |index| index.index(out.len()));
                let (ticket, sent) = out.remove(at);
                is_suspect &= sent != round || matches!(fate, Fate::Fails(Cause::Receiver));
                let is_done = match fate {
                    Fate::Done | Fate::Refused => {
                        window.handle_proof(ticket);
                        true
                    }
                    Fate::Fails(cause) => {
                        match cause {
                            Cause::Receiver if sent == round => (round, is_suspect) = (round + 1, true),
                            Cause::Wish(wait) => paused_until = paused_until.max(now + respected(wait)),
                            Cause::Event | Cause::Receiver => {}
                        }
                        window.handle_failure(ticket, cause, now, LIMITS, jitter) == Decision::GiveUp
                    }
                };
                if is_done {
                    window.handle_done(ticket);
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
            prop_assert_eq!(done.len(), lanes.len(), "every event is done in the end");
            let mut last = HashMap::new();
            for seq in &done {
                let lane = if concurrency == 1 { 0 } else { lanes[seq.0 as usize - 1] };
                prop_assert!(last.insert(lane, *seq).is_none_or(|before| before < *seq));
            }
        }
    }

    /// Discord's limit for a webhook, as its documentation and its answers have it: 5 requests in each 2 seconds.
    #[derive(Debug)]
    struct Discord {
        tells_allowance: bool,
        period: Option<Duration>,
        left: u32,
        taken: u32,
        refused: u32,
    }

    impl Discord {
        const LIMIT: u32 = 5;
        const PERIOD: Duration = Duration::from_secs(2);

        /// The status, the headers and the body of an answer.
        fn answer(&mut self, now: Duration) -> (u16, http::HeaderMap, String) {
            if self.period.is_none_or(|begun| now >= begun + Self::PERIOD) {
                (self.period, self.left) = (Some(now), Self::LIMIT);
            }
            let reset = (self.period.unwrap_or_default() + Self::PERIOD - now).as_secs_f64();
            let mut headers = http::HeaderMap::new();
            let mut set =
                |name: &'static str, value: String| drop(headers.insert(name, value.parse().unwrap()));
            if self.left == 0 {
                self.refused += 1;
                set("retry-after", format!("{reset:.3}"));
                let body = format!(r#"{{"message":"You are being rate limited.","retry_after":{reset:.3}}}"#);
                return (429, headers, body);
            }
            self.left -= 1;
            self.taken += 1;
            if self.tells_allowance {
                set("x-ratelimit-limit", Self::LIMIT.to_string());
                set("x-ratelimit-remaining", self.left.to_string());
                set("x-ratelimit-reset-after", format!("{reset:.3}"));
            }
            (204, headers, String::new())
        }
    }

    /// Sends 200 events, each request 30 ms on its way. Returns how long it takes.
    fn send_to(discord: &mut Discord, concurrency: usize) -> Duration {
        use super::super::verdict::{Verdict, allowance, classify, wish};
        const LATENCY: Duration = Duration::from_millis(30);
        let mut window = Window::new(concurrency, Seq(0));
        for seq in 1..=200 {
            window.add(Origin::Stored(Seq(seq)), seq % 40);
        }
        let mut now = Duration::ZERO;
        let mut sent: BTreeSet<(Duration, Ticket)> = BTreeSet::new();
        let mut paused_until = Duration::ZERO;
        for _ in 0..10_000 {
            while let Some(ticket) = window.poll_next(now) {
                assert!(now >= paused_until, "sent at {now:?}, asked not to before {paused_until:?}");
                sent.insert((now + LATENCY, ticket));
            }
            let answer = sent.first().map(|(at, _)| *at);
            let Some(next) = answer.into_iter().chain(window.poll_timeout(now)).min() else { return now };
            now = next;
            while let Some((at, ticket)) = sent.first().copied()
                && at <= now
            {
                sent.pop_first();
                let (status, headers, body) = discord.answer(now);
                if classify(status) == Verdict::Accepted {
                    window.handle_proof(ticket);
                    if let Some(allowance) = allowance(&headers) {
                        window.handle_allowance(allowance, now);
                    }
                    window.handle_done(ticket);
                    continue;
                }
                let wait =
                    wish(&headers, body.as_bytes(), std::time::UNIX_EPOCH).expect("it asks for a pause");
                paused_until = paused_until.max(now + wait);
                window.handle_failure(ticket, Cause::Wish(wait), now, LIMITS, 0.5);
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn discord_gets_200_events_as_fast_as_its_limit_allows_and_no_request_more() {
        // 40 periods of 5 requests, of which the last one is over at once.
        let best = 39 * Discord::PERIOD;
        for (tells_allowance, concurrency) in [(true, 1), (true, 4), (true, 16), (false, 1), (false, 4)] {
            let mut discord = Discord { tells_allowance, period: None, left: 0, taken: 0, refused: 0 };
            let took = send_to(&mut discord, concurrency);
            let case = format!("{tells_allowance} {concurrency}: {took:?}, {discord:?}");
            assert_eq!(discord.taken, 200, "{case}");
            assert!(took <= best.mul_f64(1.1), "{case}");
            // Before the first answer nothing is known of the limit. Without headers each period costs the requests
            // that are under way when it is used up.
            let most = match (tells_allowance, concurrency) {
                (true, 1..=5) => 0,
                (true, _) => 11,
                (false, concurrency) => 39 * concurrency as u32,
            };
            assert!(discord.refused <= most, "{case}");
        }
    }
}
