//! The watch over a callback that plain subscriptions call, against a model of Twitch that tries again and gives up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::gaps::sights::{BEFORE_BOOT, Published, Sights};
use crate::gaps::timeline::Timeline;
use crate::model::signs::CallbackSigns;
use crate::model::subscription::Condition;

/// Pauses before a message is tried again. After the last one it is lost, and the subscription is disabled.
const RETRIES: [u64; 3] = [1_000, 5_000, 9_000];
/// How often the memory is stored.
const KEEP: u64 = 4_096;
/// As in the driver.
const ALLOWANCE: u64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Event,
    /// A proxy in front of the callback goes, and comes back.
    Proxy(bool),
    /// The store takes events, or does not.
    Store(bool),
    /// Twitch's list is read, and what is missing is created.
    Compare,
    Remove,
    /// The process, or the machine, stands still.
    Pause {
        millis: u64,
        clock_stands: bool,
    },
    Crash(u64),
    /// Takes so long to stop after the listener has closed, and is away for a while.
    Stop {
        closing: u64,
        away: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..20_000).prop_map(Step::Pass),
        8 => Just(Step::Event),
        3 => any::<bool>().prop_map(Step::Proxy),
        3 => any::<bool>().prop_map(Step::Store),
        4 => Just(Step::Compare),
        1 => Just(Step::Remove),
        2 => (1_u64..60_000, any::<bool>())
            .prop_map(|(millis, clock_stands)| Step::Pause { millis, clock_stands }),
        1 => (1_u64..60_000).prop_map(Step::Crash),
        2 => (1_u64..8_000, 1_u64..60_000).prop_map(|(closing, away)| Step::Stop { closing, away }),
    ]
}

struct Message {
    at: u64,
    tries: usize,
    due: u64,
}

struct Process {
    sights: Sights,
    watcher: Watcher,
    line: Timeline,
    signs: CallbackSigns,
    listens: bool,
    /// Whether the first comparison is done.
    called: bool,
    listed_at: Option<Instant>,
}

struct World {
    start: Instant,
    now: u64,
    slept: u64,
    readings: u64,
    is_enabled: bool,
    proxy: bool,
    store: bool,
    messages: Vec<Message>,
    process: Option<Process>,
    saved: Option<(u64, Memory)>,
    /// The last list that showed the subscription, as it is remembered over a restart.
    compared: Option<u64>,
    gaps: Vec<Gap>,
    lost: Vec<u64>,
    bad_since: Option<u64>,
    truth: Vec<(u64, u64)>,
    /// Accepted requests.
    proofs: Vec<u64>,
    /// Lists that showed the subscription.
    lists: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            start: Instant::now(),
            now: 100_000,
            slept: 0,
            readings: 0,
            is_enabled: true,
            proxy: true,
            store: true,
            messages: Vec::new(),
            process: None,
            saved: None,
            compared: None,
            gaps: Vec::new(),
            lost: Vec::new(),
            bad_since: None,
            truth: Vec::new(),
            proofs: Vec::new(),
            lists: Vec::new(),
        };
        world.launch();
        world.pass(1_000);
        world.event(None);
        world
    }

    fn instant(&mut self) -> Instant {
        self.readings += 1;
        self.start + Duration::from_millis(self.now - self.slept) + Duration::from_nanos(self.readings)
    }

    fn launch(&mut self) {
        let memory = self.saved.as_ref().map(|(_, memory)| memory.clone());
        let here = self.instant();
        self.process = Some(Process {
            sights: memory.as_ref().map_or_else(Sights::default, Sights::new),
            watcher: Watcher::new(memory),
            line: Timeline::new(here, BEFORE_BOOT + self.now),
            signs: CallbackSigns::default(),
            listens: true,
            called: false,
            listed_at: None,
        });
        self.observe();
        self.pass(700);
        self.compare();
    }

    fn answers(&self) -> bool {
        self.proxy && self.store && self.process.as_ref().is_some_and(|process| process.listens)
    }

    fn record(&mut self) {
        let is_good = self.answers() && self.is_enabled;
        match self.bad_since {
            None if !is_good => self.bad_since = Some(self.now),
            Some(since) if is_good => {
                self.truth.push((since, self.now));
                self.bad_since = None;
            }
            _ => {}
        }
    }

    fn event(&mut self, stands_still_until: Option<u64>) {
        if self.is_enabled {
            self.messages.push(Message { at: self.now, tries: 0, due: self.now });
            self.deliver(stands_still_until);
        } else {
            self.lost.push(self.now);
        }
    }

    /// Twitch's tries that are due.
    fn deliver(&mut self, stands_still_until: Option<u64>) {
        for mut message in std::mem::take(&mut self.messages) {
            // A request waits in the system's backlog for a while.
            let waits = stands_still_until.is_some_and(|end| end < self.now + UNANSWERED);
            if message.due > self.now || waits && self.answers() {
                self.messages.push(message);
                continue;
            }
            let stands_still = stands_still_until.is_some();
            if self.answers() && !stands_still {
                let process = self.process.as_ref().expect("it answers");
                process.signs.record(None, self.now);
                self.proofs.push(self.now);
                continue;
            }
            if let Some(process) = self.process.as_ref().filter(|process| process.listens && !stands_still)
                && self.proxy
            {
                process.signs.record_refused(self.now);
            }
            match RETRIES.get(message.tries) {
                Some(pause) if self.is_enabled => {
                    (message.tries, message.due) = (message.tries + 1, self.now + pause);
                    self.messages.push(message);
                }
                _ => {
                    // Nobody can know of a message whose tries fail in several short outages.
                    if !self.proofs.iter().any(|at| (message.at..self.now).contains(at)) {
                        self.lost.push(message.at);
                    }
                    self.is_enabled = false;
                }
            }
        }
    }

    fn observe(&mut self) {
        let here = self.instant();
        let Some(process) = &mut self.process else { return };
        let moment = BEFORE_BOOT + self.now;
        process.line.note(here, moment);
        let published = Published {
            shards: None,
            lives: &BTreeMap::new().into(),
            bindings: &BTreeMap::new().into(),
            handed_over: &Default::default(),
            signs: &process.signs,
            listens: process.listens,
            called: process.called.then_some(true),
            conduit: None,
            matched_at: None,
        };
        let view = process.sights.view(&published, &process.line, here, moment);
        process.watcher.observe(&view, moment);
        self.gaps.extend(process.watcher.take());
        let is_due = self.saved.as_ref().is_none_or(|(at, _)| self.now >= at + KEEP);
        if is_due {
            self.save();
        }
    }

    fn save(&mut self) {
        let Some(process) = &self.process else { return };
        let signed = process.sights.signed_to_keep();
        if let Some(memory) = process.watcher.memory() {
            self.saved = Some((self.now, Memory { signed, ..memory }));
        }
    }

    /// Reads the list, and creates what is missing if the callback can be reached.
    fn compare(&mut self) {
        let here = self.instant();
        let answers = self.answers();
        let Some(process) = &mut self.process else { return };
        process.called = true;
        if self.is_enabled || answers {
            self.lists.push(self.now);
        }
        if self.is_enabled {
            process.listed_at = Some(here);
            self.compared = Some(self.now);
        } else if answers {
            self.is_enabled = true;
            let from = match (process.listed_at, self.compared) {
                (Some(listed), _) => process.line.of(listed),
                (None, Some(compared)) => BEFORE_BOOT + compared,
                (None, None) => return,
            };
            let key = SubscriptionKey::new(
                "stream.online",
                "1",
                Condition::from_pairs([("broadcaster_user_id", "1")]),
            );
            let from = process.sights.signed_before(from);
            process.watcher.observe_lapses(vec![(key, from, process.line.latest(here))]);
            process.listed_at = Some(here);
            self.compared = Some(self.now);
        }
        self.record();
        self.observe();
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 250).min(end);
            self.deliver(None);
            self.observe();
            self.record();
        }
    }

    fn pause(&mut self, millis: u64, clock_stands: bool) {
        let (begun, end) = (self.now, self.now + millis);
        while self.now < end {
            let pace = 250.min(end - self.now);
            self.now += pace;
            self.slept += if clock_stands { pace } else { 0 };
            if self.now.is_multiple_of(7) {
                self.event(Some(end));
            }
            self.deliver(Some(end));
        }
        self.truth.push((begun, end));
        self.deliver(None);
        self.observe();
        self.record();
    }

    fn end_process(&mut self, closing: Option<u64>) {
        if let Some(closing) = closing {
            if let Some(process) = &mut self.process {
                process.listens = false;
            }
            self.observe();
            self.record();
            self.event(None);
            self.pass(closing);
            let now = BEFORE_BOOT + self.now;
            if let Some(process) = &mut self.process {
                self.gaps.extend(process.watcher.finish(now));
            }
            self.save();
        }
        self.process = None;
        self.record();
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => self.pass(millis),
            Step::Event => self.event(None),
            Step::Proxy(is_up) => self.proxy = is_up,
            Step::Store(takes) => self.store = takes,
            Step::Compare => self.compare(),
            Step::Remove => self.is_enabled = false,
            Step::Pause { millis, clock_stands } => self.pause(millis, clock_stands),
            Step::Crash(away) => {
                self.end_process(None);
                self.pass(away);
                self.launch();
            }
            Step::Stop { closing, away } => {
                self.end_process(Some(closing));
                self.event(None);
                self.pass(away);
                self.launch();
            }
        }
        self.record();
    }
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for step in steps {
        world.apply(step);
    }
    // Everything is well again, and the list tells of what Twitch has given up.
    (world.proxy, world.store) = (true, true);
    world.record();
    world.pass(20_000);
    world.compare();
    world.event(None);
    world.pass(150_000);
    prop_assert!(world.messages.is_empty());
    let span = |gap: &Gap| ((gap.from - BEFORE_BOOT).saturating_sub(ALLOWANCE), gap.to - BEFORE_BOOT);
    let gaps: Vec<(u64, u64)> = world.gaps.iter().map(span).collect();
    for lost in &world.lost {
        prop_assert!(
            gaps.iter().any(|(from, to)| from <= lost && lost <= to),
            "the event at {lost} lies in none of {gaps:?}"
        );
    }
    for gap in &world.gaps {
        let (from, to) = &span(gap);
        prop_assert!(from <= to);
        let inside: Vec<_> =
            world.truth.iter().filter(|(begun, ended)| begun <= to && ended >= from).collect();
        prop_assert!(!inside.is_empty(), "nothing was missed from {from} to {to}: {:?}", world.truth);
        let begun = inside.iter().map(|(begun, _)| *begun).min().unwrap_or(0);
        let ended = inside.iter().map(|(_, ended)| *ended).max().unwrap_or(0);
        let last = |times: &[u64], to: u64| times.iter().filter(|at| **at <= to).max().copied().unwrap_or(0);
        // Requests prove nothing of a subscription that no list shows any more, and a restart knows few of them.
        let begun = match gap.reason {
            GapReason::SubscriptionGone => {
                let listed = last(&world.lists, begun - 1);
                listed.saturating_sub(to - listed)
            }
            _ => begun,
        };
        // The last accepted request before anything went wrong, if a crash has not forgotten it.
        let proved = last(&world.proofs, begun.saturating_sub(KEEP + 500));
        prop_assert!(
            from + ALLOWANCE + 1_000 >= proved,
            "{from} is long before {proved}, the last proof before {begun}"
        );
        // A refusal is over once a request is accepted, which takes until Twitch sends one.
        let accepted = world.proofs.iter().filter(|at| **at >= ended).min().copied().unwrap_or(ended);
        prop_assert!(*to <= ended.max(accepted) + 1_000, "{to} is long after {ended}");
    }
    Ok(())
}

proptest! {
    /// For any interleaving of outages, pauses, comparisons and restarts: every event that Twitch has given up lies within
    /// a gap, and no gap begins before the last proof of what went wrong.
    #[test]
    fn no_event_that_was_given_up_lies_outside_a_gap(steps in prop::collection::vec(step(), 1..60)) {
        check(&steps)?;
    }
}

/// Checks cases that the property test found once.
#[test]
fn without_any_signed_request_a_gap_goes_back_to_the_beginning_of_the_listener() {
    let pause = |millis| Step::Pause { millis, clock_stands: false };
    let (away, is_listed) = (Step::Proxy(false), Step::Compare);
    let cases = [
        vec![Step::Crash(1), away.clone(), pause(2_501), is_listed.clone(), pause(14_000)],
        vec![
            Step::Crash(1),
            away,
            Step::Pass(1),
            Step::Event,
            Step::Pass(1_001),
            is_listed,
            Step::Pass(2_297),
            Step::Crash(11_050),
        ],
    ];
    for steps in cases {
        if let Err(error) = check(&steps) {
            panic!("{error}\nsteps: {steps:?}");
        }
    }
}

/// Checks a case that the property test found once.
#[test]
fn a_gap_that_ends_right_after_a_short_sleep_holds_the_last_lost_event() {
    let sleep = Step::Pause { millis: 17, clock_stands: true };
    let steps =
        [Step::Proxy(false), sleep, Step::Pass(15_000), Step::Event, Step::Proxy(true), Step::Compare];
    if let Err(error) = check(&steps) {
        panic!("{error}");
    }
}
