use proptest::prelude::*;

use super::super::samples::{row, sessions};
use super::*;
use crate::model::shard::first_shards;

fn own(shards: &[u32]) -> OwnShards {
    OwnShards { conduit_id: "c".into(), shards: Arc::new(shards.iter().copied().map(ShardId).collect()) }
}

#[test]
fn a_session_is_bound_if_twitch_lists_its_shard_as_not_enabled() {
    let (mut core, now, none) = (AloneShards::default(), Instant::now(), Bindings::default());
    let opened = first_shards(3);
    let live = sessions(&[(0, "a"), (1, "b"), (2, "c")], now);
    core.handle_state(None, &live, &none);
    assert_eq!(core.poll_look(&opened, now), None, "somebody may lead");
    let bound = Binding { session_id: SessionId::new("c"), outcome: BindOutcome::Bound };
    let bindings: Bindings = Arc::new([(ShardId(2), bound)].into());
    core.handle_state(Some(&own(&[0, 1, 2])), &live, &bindings);
    assert_eq!(core.poll_look(&opened, now).as_deref(), Some("c"));
    assert_eq!(core.poll_look(&opened, now), None, "one look at a time");
    let rows = [row(0, "websocket_disconnected", Some("x")), row(1, "enabled", Some("another's"))];
    let due = core.handle_list("c", Some(&rows), true, now);
    assert_eq!(due, [(ShardId(0), SessionId::new("a"))]);
    core.handle_answer(ShardId(0), SessionId::new("a"), Some(&Ok(())));
    assert_eq!(core.bindings()[&ShardId(0)].outcome, BindOutcome::Bound);
    let later = now + Duration::from_secs(60);
    assert_eq!(
        core.poll_look(&opened, later),
        None,
        "the other shard is enabled, and its session was looked for"
    );
    // The session ends, and the socket is opened anew.
    core.handle_state(
        Some(&own(&[0, 1, 2])),
        &sessions(&[(0, "a"), (1, "b2"), (2, "c")], Instant::now()),
        &bindings,
    );
    assert!(core.poll_look(&opened, later).is_some());
}

#[test]
fn a_host_that_starts_opens_sockets_for_free_shards_only() {
    let (mut core, now, none) = (AloneShards::default(), Instant::now(), Bindings::default());
    let nothing = ShardSet::default();
    core.handle_state(Some(&own(&[1, 2, 3])), &Sessions::default(), &none);
    assert!(core.poll_look(&nothing, now).is_some());
    assert!(core.handle_list("c", None, true, now).is_empty(), "no answer");
    assert!(core.free().is_empty());
    assert_eq!(core.poll_timeout(&nothing, now), Some(now + PATIENCE));
    let later = now + PATIENCE;
    assert!(core.poll_look(&nothing, later).is_some());
    let hook = ShardRow {
        callback: Some("https://x".into()),
        ..row(3, "webhook_callback_verification_pending", None)
    };
    let rows = [row(1, "enabled", Some("another's")), hook];
    assert!(core.clone().handle_list("other", Some(&rows), true, later).is_empty());
    assert!(core.clone().free().is_empty());
    let mut unread = core.clone();
    unread.handle_list("c", Some(&rows), false, later);
    assert!(unread.free().is_empty(), "the row that cannot be read may be of shard 2");
    assert!(core.handle_list("c", Some(&rows), true, later).is_empty(), "there are no sessions yet");
    assert_eq!(*core.free(), [ShardId(2)].into());
    core.handle_state(Some(&own(&[1, 2, 3])), &sessions(&[(2, "s")], Instant::now()), &none);
    let soon = later + PAUSE;
    assert!(core.poll_look(&core.free(), later).is_none() && core.poll_look(&core.free(), soon).is_some());
    assert_eq!(core.handle_list("c", Some(&rows), true, soon), [(ShardId(2), SessionId::new("s"))]);
    // Without an answer it is looked for again.
    core.handle_answer(ShardId(2), SessionId::new("s"), None);
    assert!(core.poll_look(&core.free(), soon + PAUSE).is_some());
}

/// Something that happens in the world.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The socket of a shard breaks, and another one is opened.
    Breaks(u32),
    /// Another host binds a shard.
    Takes(u32),
    /// Whether this host is alone, so that no host can lead.
    Alone(bool),
    /// Twitch answers the list, or not.
    Lists(bool),
    Passes(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        (0_u32..4).prop_map(Happening::Breaks),
        (0_u32..4).prop_map(Happening::Takes),
        any::<bool>().prop_map(Happening::Alone),
        prop::bool::weighted(0.8).prop_map(Happening::Lists),
        (0_u64..3_000).prop_map(Happening::Passes),
    ];
    prop::collection::vec(one, 1..80)
}

proptest! {
    /// For any failures and any bindings by others: a shard is bound only while this host is alone, only its own, and only if the list
    /// right before shows it as not enabled. Once all is quiet, every shard that is free has a session that is bound.
    #[test]
    fn nobody_is_robbed_and_nothing_stays_dark(happenings in happenings()) {
        let (mut core, mut now, mut serial) = (AloneShards::default(), Instant::now(), 4_u32);
        let mine = own(&[0, 1, 2]);
        let opened = first_shards(4);
        let mut live: BTreeMap<u32, String> = (0..4).map(|shard| (shard, format!("s{shard}"))).collect();
        // Session at Twitch and whether it is enabled.
        let mut twitch: BTreeMap<u32, (String, bool)> =
            live.iter().map(|(shard, id)| (*shard, (id.clone(), true))).collect();
        let mut bound: BTreeMap<u32, String> = live.clone();
        let (mut is_alone, mut looks) = (false, None);
        let quiet = [Happening::Alone(true)].into_iter()
            .chain((0..12).flat_map(|_| [Happening::Lists(true), Happening::Passes(2_000)]));
        for happening in happenings.into_iter().chain(quiet) {
            match happening {
                Happening::Breaks(shard) => {
                    serial += 1;
                    let entry = twitch.get_mut(&shard).unwrap();
                    if entry.0 == live[&shard] {
                        entry.1 = false;
                    }
                    live.insert(shard, format!("s{serial}"));
                }
                Happening::Takes(shard) => drop(twitch.insert(shard, ("another's".into(), true))),
                Happening::Alone(alone) => is_alone = alone,
                Happening::Passes(millis) => now += Duration::from_millis(millis),
                Happening::Lists(answers) => {
                    if let Some(conduit) = Option::<Arc<str>>::take(&mut looks) {
                        let rows: Vec<ShardRow> = twitch.iter()
                            .map(|(shard, (id, enabled))| row(*shard, if *enabled { "enabled" } else { "gone" }, Some(id)))
                            .collect();
                        for (shard, session) in core.handle_list(&conduit, answers.then_some(&*rows), true, now) {
                            prop_assert!(is_alone && mine.shards.contains(&shard));
                            prop_assert!(answers && !twitch[&shard.0].1, "{shard:?} is robbed");
                            prop_assert_eq!(&live[&shard.0], session.as_str());
                            twitch.insert(shard.0, (session.to_string(), true));
                            bound.insert(shard.0, session.to_string());
                            core.handle_answer(shard, session, Some(&Ok(())));
                        }
                    }
                }
            }
            let pairs: Vec<(u32, &str)> = live.iter().map(|(shard, id)| (*shard, id.as_str())).collect();
            let binding = |id: &String| Binding { session_id: SessionId::new(id.as_str()), outcome: BindOutcome::Bound };
            let known: Bindings = Arc::new(bound.iter().map(|(shard, id)| (ShardId(*shard), binding(id))).collect());
            core.handle_state(Some(&mine).filter(|_| is_alone), &sessions(&pairs, now), &known);
            if let Some(conduit) = core.poll_look(&opened, now) {
                prop_assert!(is_alone);
                looks = Some(conduit);
            }
        }
        for shard in 0..3 {
            let (session, enabled) = &twitch[&shard];
            prop_assert!(*enabled, "{shard} stays dark: {session}");
        }
    }
}
