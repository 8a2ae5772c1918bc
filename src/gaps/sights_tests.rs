use std::sync::Arc;
use std::time::Duration;

use super::*;

const NOW: Moment = BEFORE_BOOT;

fn memory_with(signed: Vec<Moment>) -> Memory {
    let conduit = Some("c".to_owned());
    Memory { known: NOW, alive: NOW, accepted: NOW, signed, sessions: Vec::new(), conduit }
}

struct Bench {
    start: Instant,
    sights: Sights,
    lives: BTreeMap<ShardId, Life>,
    bindings: BTreeMap<ShardId, ShardBinding>,
    signs: CallbackSigns,
    handed_over: HandedOver,
}

impl Bench {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            sights: Sights::default(),
            lives: BTreeMap::new(),
            bindings: BTreeMap::new(),
            signs: CallbackSigns::default(),
            handed_over: HandedOver::default(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn live(&mut self, session: &str) -> Signs {
        let signs = Signs::default();
        let life = Life { session_id: SessionId::new(session), signs: signs.clone() };
        self.lives.insert(ShardId(0), life);
        signs
    }

    fn tenure(&self, session: Option<&str>, bound: u64, seen: Option<u64>) -> Tenure {
        Tenure {
            session_id: session.map(SessionId::new),
            bound_at: self.at(bound),
            seen_at: seen.map(|seen| self.at(seen)),
            found: false,
            is_adopted: false,
            succeeds: None,
        }
    }

    fn bind(&mut self, present: Option<Tenure>, past: Option<Tenure>, unbound: Option<Unbound>) {
        self.bindings.insert(ShardId(0), ShardBinding { present, past, unbound });
    }

    /// Up to when the present and the past stretch are known to have delivered, relative to the beginning.
    fn look(&mut self, now: u64) -> (Option<u64>, Option<u64>, GapReason) {
        let (lives, bindings) = (Arc::new(self.lives.clone()), Arc::new(self.bindings.clone()));
        let published = Published {
            shards: Some(1),
            lives: &lives,
            bindings: &bindings,
            handed_over: &self.handed_over,
            signs: &self.signs,
            listens: true,
            called: Some(false),
            conduit: Some("c".to_owned()),
            matched_at: None,
        };
        let line = Timeline::new(self.start, NOW);
        let view = self.sights.view(&published, &line, self.at(now), NOW + now);
        let sight = view.ways[&Way::Shard(0)];
        let known = |stretch: Option<Stretch>| stretch.map(|stretch| stretch.known - NOW);
        (known(sight.present), known(sight.past), sight.reason)
    }
}

#[test]
fn frames_count_up_to_the_last_look_and_events_at_once() {
    let mut bench = Bench::new();
    let signs = bench.live("a");
    bench.bind(Some(bench.tenure(Some("a"), 1_000, None)), None, None);
    signs.record_heard(9_000);
    assert_eq!(bench.look(9_500).0, Some(1_000), "no look has shown that the shard is still ours");
    bench.bind(Some(bench.tenure(Some("a"), 1_000, Some(8_000))), None, None);
    assert_eq!(bench.look(9_600).0, Some(8_000));
    bench.bind(Some(bench.tenure(Some("a"), 1_000, Some(20_000))), None, None);
    assert_eq!(bench.look(20_100).0, Some(9_000), "a look says nothing of a socket that is silent");
    signs.record_event(21_000);
    assert_eq!(bench.look(21_100).0, Some(21_000));
}

#[test]
fn a_stolen_shard_delivered_up_to_the_last_proof_though_its_socket_lives_on() {
    let mut bench = Bench::new();
    let signs = bench.live("a");
    bench.bind(Some(bench.tenure(Some("a"), 1_000, Some(5_000))), None, None);
    signs.record_event(3_000);
    signs.record_heard(9_000);
    bench.look(9_000);
    // Another process takes the shard. It is bound again to the same session, which gets an event.
    let past = bench.tenure(Some("a"), 1_000, Some(5_000));
    bench.bind(None, Some(past.clone()), Some(Unbound::Taken));
    signs.record_heard(60_000);
    assert_eq!(bench.look(60_000), (None, Some(5_000), GapReason::ShardTaken));
    bench.bind(Some(bench.tenure(Some("a"), 61_000, None)), Some(past), Some(Unbound::Taken));
    signs.record_event(62_000);
    assert_eq!(bench.look(62_100), (Some(62_000), Some(5_000), GapReason::ShardTaken));
}

#[test]
fn a_lost_socket_delivered_up_to_its_last_frame_once_a_look_has_shown_whose_the_shard_was() {
    let mut bench = Bench::new();
    let signs = bench.live("a");
    bench.bind(Some(bench.tenure(Some("a"), 1_000, Some(5_000))), None, None);
    signs.record_heard(30_000);
    bench.look(30_000);
    bench.lives.clear();
    assert_eq!(bench.look(31_000), (None, Some(5_000), GapReason::ConnectionLost));
    bench.bind(None, Some(bench.tenure(Some("a"), 1_000, Some(31_200))), None);
    assert_eq!(bench.look(31_300), (None, Some(30_000), GapReason::ConnectionLost));
    bench.live("b");
    bench.bind(
        Some(bench.tenure(Some("b"), 32_000, None)),
        Some(bench.tenure(Some("a"), 1_000, Some(31_200))),
        None,
    );
    assert_eq!(bench.look(32_100), (Some(32_000), Some(30_000), GapReason::ConnectionLost));
}

#[test]
fn both_sockets_of_a_handover_count() {
    let mut bench = Bench::new();
    let old = bench.live("a");
    old.record_event(3_000);
    bench.bind(Some(bench.tenure(Some("a"), 1_000, None)), None, None);
    bench.look(4_000);
    let new = bench.live("a");
    assert_eq!(bench.look(4_100).0, Some(3_000));
    new.record_event(5_000);
    assert_eq!(bench.look(5_100).0, Some(5_000));
}

#[test]
fn a_callback_that_failed_delivered_up_to_its_last_signed_request() {
    let mut bench = Bench::new();
    bench.signs.record(Some(ShardId(0)), 4_000);
    bench.bind(Some(bench.tenure(None, 1_000, Some(60_000))), None, None);
    assert_eq!(bench.look(61_000).0, Some(4_000));
    let past = bench.tenure(None, 1_000, Some(60_000));
    bench.bind(None, Some(past.clone()), Some(Unbound::Disabled));
    assert_eq!(bench.look(70_000), (None, Some(4_000), GapReason::ShardDisabled));
    bench.bind(None, Some(past), Some(Unbound::Taken));
    assert_eq!(bench.look(70_000), (None, Some(60_000), GapReason::ShardTaken));
    assert_eq!(bench.sights.signed_before(NOW + 5_000), NOW + 4_000);
    assert_eq!(bench.sights.signed_before(NOW + 3_000), NOW + 3_000, "nothing older is known");
}

#[test]
fn a_restart_knows_signed_requests_of_the_last_hour_ever_further_apart() {
    let mut bench = Bench::new();
    for seconds in 1..5_000 {
        bench.signs.record(None, seconds * 1_000);
        bench.look(seconds * 1_000);
    }
    let kept = bench.sights.signed_to_keep();
    assert!(kept.is_sorted() && kept.len() <= 12, "{kept:?}");
    let next = Sights::new(&memory_with(kept));
    let last = NOW + 4_999_000;
    assert_eq!(next.signed_before(last), last);
    for age in [1_000, 10_000, 100_000, 1_000_000] {
        let known = next.signed_before(last - age);
        assert!(known <= last - age && known + age >= last - age, "{age}: {}", last - known);
    }
}
