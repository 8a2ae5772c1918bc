use proptest::prelude::*;

use super::*;
use crate::model::last_known::{Applied, LastKnown, News, Source};

const NOW: u64 = 10_000_000;
const CACHE: u64 = 120_000;

fn known(is_live: bool, id: &str, since: u64, age: u64) -> StreamState {
    StreamState { is_live, id: Some(id.into()), started: since, since, at: NOW - age }
}

fn shown(id: &str, started_at: u64) -> Shown {
    Shown { id: id.into(), started_at }
}

fn online(id: &str, since: u64) -> Change {
    Change::Online { id: id.into(), started: since, since }
}

fn offline(id: &str) -> Change {
    Change::Offline { id: Some(id.into()), since: 0 }
}

#[test]
fn each_case_has_its_conclusion() {
    use Conclusion::{Doubtful, First, Happened, Unchanged};
    let old = CACHE;
    for (before, answer, expected) in [
        (None, None, First(Change::Offline { id: None, since: 0 })),
        (None, Some(shown("a", 5)), First(online("a", 5))),
        (Some(known(false, "a", 9, old)), None, Unchanged),
        (Some(known(false, "a", 9, old)), Some(shown("b", 10)), Happened(vec![online("b", 10)])),
        (Some(known(false, "a", 9, old)), Some(shown("b", 9)), Doubtful),
        (Some(known(false, "a", 9, 0)), Some(shown("a", 5)), Doubtful),
        (Some(known(true, "a", 9, old)), None, Happened(vec![offline("a")])),
        (Some(known(true, "a", 9, old - 1)), None, Doubtful),
        (Some(known(true, "a", 9, old)), Some(shown("a", 8)), Unchanged),
        (Some(known(true, "a", 9, 0)), Some(shown("b", 20)), Happened(vec![offline("a"), online("b", 20)])),
        (Some(known(true, "b", 9, 0)), Some(shown("a", 5)), Doubtful),
    ] {
        assert_eq!(stream(before.as_ref(), answer.as_ref(), NOW, CACHE), expected, "{before:?} {answer:?}");
    }
    let future = StreamState { at: NOW + 1_000_000, ..known(true, "a", 9, 0) };
    assert_eq!(stream(Some(&future), None, NOW, CACHE), Doubtful, "the clock was set back");
}

#[test]
fn an_update_is_told_unless_a_newer_one_may_not_be_shown_yet() {
    let state = |digest, age| ChannelState {
        digest: ChannelDigest(digest),
        since: 0,
        at: NOW - age,
        is_caught_up: false,
    };
    let change = |digest| Change::Channel { digest: ChannelDigest(digest), since: 0 };
    let shown = ChannelDigest(2);
    assert_eq!(channel(None, shown, NOW, CACHE), Conclusion::First(change(2)));
    assert_eq!(channel(Some(&state(2, CACHE)), shown, NOW, CACHE), Conclusion::Unchanged);
    assert_eq!(channel(Some(&state(1, CACHE)), shown, NOW, CACHE), Conclusion::Happened(vec![change(2)]));
    assert_eq!(channel(Some(&state(1, 1)), shown, NOW, CACHE), Conclusion::Doubtful);
}

/// A second in the life of a channel.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Begin,
    End,
    GapBegins,
    /// Ends, and the daemon asks after 0, 60 and 180 seconds, each time with an answer of this age.
    GapEnds([u64; 3]),
}

fn step() -> impl Strategy<Value = Step> {
    let age = 0..CACHE / 1_000;
    prop_oneof![
        4 => (1..200_u64).prop_map(Step::Pass),
        3 => Just(Step::Begin),
        3 => Just(Step::End),
        1 => Just(Step::GapBegins),
        2 => [age.clone(), age.clone(), age].prop_map(Step::GapEnds),
    ]
}

/// Twitch and the daemon, in seconds. A stream's id is its number.
struct World {
    now: u64,
    /// When a stream began, and when it ended.
    streams: Vec<(u64, Option<u64>)>,
    is_gap: bool,
    known: LastKnown,
    told: Vec<Change>,
}

impl World {
    fn new() -> Self {
        let known = LastKnown {
            stream: Some(StreamState { is_live: false, id: None, started: 0, since: 0, at: 0 }),
            channel: None,
        };
        Self { now: 1_000, streams: Vec::new(), is_gap: false, known, told: Vec::new() }
    }

    fn is_live(&self) -> bool {
        self.streams.last().is_some_and(|(_, end)| end.is_none())
    }

    fn shown(&self, age: u64) -> Option<Shown> {
        let at = self.now.saturating_sub(age);
        let is_on = |(begin, end): &(u64, Option<u64>)| *begin <= at && end.is_none_or(|end| end > at);
        let number = self.streams.iter().position(is_on)?;
        Some(Shown { id: number.to_string().into(), started_at: self.streams[number].0 * 1_000 })
    }

    fn tell(&mut self, change: Change, source: Source) {
        let news = News { broadcaster: "7".into(), change: change.clone(), source };
        match self.known.apply(&news, self.now * 1_000) {
            Applied::Changed(known) => {
                self.known = known;
                self.told.push(change);
            }
            Applied::Unchanged => self.told.push(change),
            Applied::Told(_) => {}
        }
    }

    fn twitch(&mut self, change: Change) {
        if !self.is_gap {
            self.tell(change, Source::Twitch);
        }
    }

    fn look(&mut self, age: u64) {
        let shown = self.shown(age);
        if let Conclusion::Happened(changes) =
            stream(self.known.stream.as_ref(), shown.as_ref(), self.now * 1_000, CACHE)
        {
            for change in changes {
                self.tell(change, Source::CatchUp);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(seconds) => self.now += seconds,
            Step::Begin if !self.is_live() => {
                self.now += 1;
                self.streams.push((self.now, None));
                let id = (self.streams.len() - 1).to_string().into();
                let at = self.now * 1_000;
                self.twitch(Change::Online { id, started: at, since: at });
            }
            Step::End if self.is_live() => {
                self.now += 1;
                let id = (self.streams.len() - 1).to_string().into();
                if let Some((_, end)) = self.streams.last_mut() {
                    *end = Some(self.now);
                }
                self.twitch(Change::Offline { id: Some(id), since: self.now * 1_000 });
            }
            Step::GapBegins => self.is_gap = true,
            Step::GapEnds(ages) if self.is_gap => {
                self.is_gap = false;
                for (wait, age) in [0, 60, 120].into_iter().zip(ages) {
                    self.now += wait;
                    self.look(age);
                }
            }
            Step::Begin | Step::End | Step::GapEnds(_) => {}
        }
    }
}

fn name(change: &Change) -> String {
    match change {
        Change::Online { id, .. } => format!("online {id}"),
        Change::Offline { id, .. } => format!("offline {}", id.as_deref().unwrap_or_default()),
        Change::Channel { .. } => "channel".to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_told_twice_or_invented_and_the_end_is_known(
        steps in proptest::collection::vec(step(), 1..40),
        quiet in 180..1_000_u64,
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // A gap in which nothing happens any more, long after the last change.
        world.step(Step::GapBegins);
        world.step(Step::Pass(quiet));
        world.step(Step::GapEnds([0; 3]));
        let told: Vec<String> = world.told.iter().map(name).collect();
        let mut once = told.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), told.len(), "twice: {:?}", told);
        for change in &world.told {
            let (id, has_ended) = match change {
                Change::Online { id, .. } => (id.clone(), false),
                Change::Offline { id, .. } => (id.clone().unwrap_or_default(), true),
                Change::Channel { .. } => continue,
            };
            let stream = id.parse::<usize>().ok().and_then(|number| world.streams.get(number));
            prop_assert!(stream.is_some_and(|(_, end)| !has_ended || end.is_some()), "{change:?} is a lie");
        }
        for (number, (_, end)) in world.streams.iter().enumerate() {
            let place = |text: String| told.iter().position(|told| *told == text);
            let (began, ended) = (place(format!("online {number}")), place(format!("offline {number}")));
            prop_assert!(began.is_none() || ended.is_none() || began < ended, "out of order: {told:?}");
            prop_assert!(began.is_none() || end.is_none() || ended.is_some(), "no end: {number} {told:?}");
        }
        if world.is_live() {
            let last = format!("online {}", world.streams.len() - 1);
            prop_assert!(told.contains(&last), "{last} is missing: {told:?}");
        }
    }
}
