use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::shard::BindOutcome;

const URL: &str = "wss://eventsub.wss.twitch.tv/ws";

fn session(now: Instant) -> Session {
    Session::new(URL.parse().unwrap(), Timings::default(), now)
}

fn step(session: &mut Session, event: Event, now: Instant, dice: f64) -> Vec<Output> {
    session.handle_event(event, now, dice);
    std::iter::from_fn(|| session.poll_output()).collect()
}

fn timeout(session: &mut Session, now: Instant, dice: f64) -> Vec<Output> {
    session.handle_timeout(now, dice);
    std::iter::from_fn(|| session.poll_output()).collect()
}

fn causes(session: &mut Session) -> Vec<ReconnectCause> {
    std::iter::from_fn(|| session.poll_cause()).collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn welcome(socket: u64, id: &str) -> Event {
    Event::Welcome { socket: SocketId(socket), session_id: SessionId::new(id), keepalive: seconds(30) }
}

fn bound(id: &str) -> Event {
    Event::Binding(Some(Binding { session_id: SessionId::new(id), outcome: BindOutcome::Bound }))
}

fn reconnect(socket: u64, url: &str) -> Event {
    Event::Reconnect { socket: SocketId(socket), url: Some(url.into()) }
}

fn ended(socket: u64) -> Event {
    Event::Ended { socket: SocketId(socket), cause: ReconnectCause::Broken, why: "closed (1006)".into() }
}

fn connect(socket: u64, url: Option<&str>) -> Output {
    Output::Connect { socket: SocketId(socket), url: url.map(Into::into) }
}

fn close(socket: u64) -> Output {
    Output::Close(SocketId(socket))
}

/// A session that is bound on socket 1.
fn delivering(now: Instant) -> Session {
    let mut session = session(now);
    assert!(session.wants_connection(now));
    assert_eq!(step(&mut session, Event::MayConnect, now, 0.5), [connect(1, None)]);
    let announced = step(&mut session, welcome(1, "a"), now, 0.5);
    assert!(matches!(&announced[..], [Output::Announce(Some(live))] if live.session_id.as_str() == "a"));
    assert_eq!(session.shard_state(), ShardState::AwaitingBinding);
    assert_eq!(step(&mut session, bound("a"), now, 0.5), []);
    assert_eq!(session.shard_state(), ShardState::Bound);
    session
}

#[test]
fn a_reconnect_with_the_same_id_hands_over_without_binding_again() {
    let now = Instant::now();
    let mut session = delivering(now);
    let url = "wss://cell-b.eventsub.wss.twitch.tv/ws?challenge=0f3c&id=a";
    assert_eq!(step(&mut session, reconnect(1, url), now, 0.5), [connect(2, Some(url))]);
    assert_eq!(step(&mut session, reconnect(1, url), now, 0.5), [], "asked twice");
    assert_eq!(step(&mut session, welcome(2, "a"), now, 0.5), [], "the old one is read a little longer");
    assert_eq!(session.shard_state(), ShardState::HandingOver);
    assert_eq!(session.poll_timeout().unwrap(), now + seconds(2));
    assert_eq!(timeout(&mut session, now + seconds(2), 0.5), [close(1)]);
    assert_eq!(session.shard_state(), ShardState::Bound);
    assert_eq!(step(&mut session, ended(1), now + seconds(2), 0.5), [], "its end is expected");
    assert_eq!(session.counts(), (0, 1));
    assert_eq!(causes(&mut session), [ReconnectCause::Requested]);
}

#[test]
fn a_new_id_is_bound_before_the_old_socket_is_closed() {
    let now = Instant::now();
    let mut session = delivering(now);
    step(&mut session, reconnect(1, "wss://x.wss.twitch.tv/ws"), now, 0.5);
    let out = step(&mut session, welcome(2, "b"), now, 0.5);
    assert!(matches!(&out[..], [Output::Announce(Some(live))] if live.session_id.as_str() == "b"));
    assert_eq!(step(&mut session, bound("a"), now, 0.5), [], "an old answer");
    assert_eq!(step(&mut session, bound("b"), now, 0.5), []);
    assert_eq!(timeout(&mut session, now + seconds(2), 0.5), [close(1)]);
    assert_eq!(session.shard_state(), ShardState::Bound);
}

#[test]
fn an_address_that_fails_or_is_foreign_leads_to_a_fresh_connection() {
    let now = Instant::now();
    let mut session = delivering(now);
    step(&mut session, reconnect(1, "wss://x.wss.twitch.tv/ws"), now, 0.5);
    assert_eq!(step(&mut session, ended(2), now, 0.5), [connect(3, None)]);
    assert_eq!(step(&mut session, ended(3), now, 0.5), [], "the old one is read to its end");
    assert_eq!(session.shard_state(), ShardState::Bound);

    let mut session = delivering(now);
    let out = step(&mut session, reconnect(1, "wss://evil.example/ws"), now, 0.5);
    assert!(matches!(&out[0], Output::Warn { text, .. } if text.contains("not its own")), "{out:?}");
    assert_eq!(out[1..], [connect(2, None)]);
    assert!(session.problem().unwrap().contains("not its own"));
    let out = step(&mut session, ended(1), now, 0.5);
    assert_eq!(out, [Output::Announce(None)]);
    assert_eq!(session.shard_state(), ShardState::AwaitingWelcome, "the successor goes on alone");
}

#[test]
fn silence_is_death_after_the_grace() {
    let now = Instant::now();
    let mut session = delivering(now);
    step(&mut session, Event::Received(SocketId(1)), now + seconds(20), 0.5);
    assert_eq!(session.poll_timeout().unwrap(), now + seconds(55));
    assert_eq!(timeout(&mut session, now + seconds(54), 0.5), []);
    assert_eq!(timeout(&mut session, now + seconds(55), 0.5), [close(1), Output::Announce(None)]);
    assert_eq!(session.counts().0, 1);
    assert_eq!(causes(&mut session), [ReconnectCause::Keepalive]);
    assert_eq!(causes(&mut session), [], "each is told once");
    assert!(session.problem().unwrap().contains("silent"));
}

#[test]
fn only_a_binding_that_lasts_resets_the_backoff() {
    let mut now = Instant::now();
    let mut session = session(now);
    let mut pauses = Vec::new();
    for socket in 1..=9 {
        assert_eq!(step(&mut session, Event::MayConnect, now, 1.0), [connect(socket, None)]);
        step(&mut session, welcome(socket, "x"), now, 1.0);
        step(&mut session, ended(socket), now, 1.0);
        pauses.push((session.poll_timeout().unwrap() - now).as_secs());
        now = session.poll_timeout().unwrap();
    }
    assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
    step(&mut session, Event::MayConnect, now, 1.0);
    step(&mut session, welcome(10, "y"), now, 1.0);
    step(&mut session, bound("y"), now, 1.0);
    step(&mut session, ended(10), now + seconds(59), 1.0);
    assert_eq!(session.poll_timeout().unwrap(), now + seconds(119), "bound, and dropped too soon");
    now = session.poll_timeout().unwrap();
    step(&mut session, Event::MayConnect, now, 1.0);
    step(&mut session, welcome(11, "z"), now, 1.0);
    step(&mut session, bound("z"), now, 1.0);
    step(&mut session, ended(11), now + seconds(60), 0.0);
    assert_eq!(session.poll_timeout().unwrap(), now + seconds(60), "at once");
}

#[test]
fn reconnects_without_end_are_followed_with_growing_pauses_and_a_warning() {
    let mut now = Instant::now();
    let start = now;
    let mut session = delivering(now);
    let (mut pauses, mut warnings) = (Vec::new(), 0);
    for socket in 1..=12 {
        let asked = now;
        let mut out = step(&mut session, reconnect(socket, "wss://x.wss.twitch.tv/ws"), now, 0.5);
        assert_eq!(
            step(&mut session, reconnect(socket, "wss://y.wss.twitch.tv/ws"), now, 0.5),
            [],
            "asked twice"
        );
        if let [Output::Warn { kind: "reconnect storm", text }] = &out[..] {
            assert!(text.contains(&format!("{socket} times")), "{text}");
            warnings += 1;
            assert!(session.session().is_some(), "the session is read meanwhile");
            step(&mut session, Event::Received(SocketId(socket)), now, 0.5);
            // The end of the last handover may come before the next one.
            for _ in 0..2 {
                now = session.poll_timeout().unwrap();
                out = timeout(&mut session, now, 0.5);
                if out.iter().any(|output| matches!(output, Output::Connect { .. })) {
                    break;
                }
            }
        }
        out.retain(|output| !matches!(output, Output::Close(_)));
        assert_eq!(out, [connect(socket + 1, Some("wss://x.wss.twitch.tv/ws"))]);
        pauses.push((now - asked).as_secs());
        step(&mut session, welcome(socket + 1, "a"), now, 0.5);
    }
    assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 20, 20, 20, 20]);
    assert_eq!(warnings, 9);
    now = start + seconds(3_600);
    step(&mut session, Event::Received(SocketId(13)), now, 0.5);
    timeout(&mut session, now, 0.5);
    let out = step(&mut session, reconnect(13, "wss://x.wss.twitch.tv/ws"), now, 0.5);
    assert_eq!(out, [connect(14, Some("wss://x.wss.twitch.tv/ws"))], "an hour later all is calm");
}

#[test]
fn a_session_that_is_not_bound_is_given_up_and_says_why() {
    let now = Instant::now();
    let mut session = session(now);
    step(&mut session, Event::MayConnect, now, 0.5);
    step(&mut session, welcome(1, "a"), now, 0.5);
    let failed = BindOutcome::Failed("503".into());
    step(
        &mut session,
        Event::Binding(Some(Binding { session_id: SessionId::new("a"), outcome: failed })),
        now,
        0.5,
    );
    assert_eq!(timeout(&mut session, now + seconds(30), 0.5), [close(1), Output::Announce(None)]);
    assert!(session.problem().unwrap().contains("not bound in time: 503"), "{:?}", session.problem());

    step(&mut session, Event::MayConnect, now + seconds(40), 0.5);
    step(&mut session, welcome(2, "b"), now + seconds(40), 0.5);
    let gone = Binding { session_id: SessionId::new("b"), outcome: BindOutcome::SessionGone };
    let out = step(&mut session, Event::Binding(Some(gone)), now + seconds(41), 0.5);
    assert_eq!(out, [close(2), Output::Announce(None)]);
    assert_eq!(session.shard_state(), ShardState::Waiting);
    assert_eq!(causes(&mut session), [ReconnectCause::NotBound, ReconnectCause::SessionGone]);
}

/// Everything that may happen to a session.
#[derive(Clone, Debug)]
enum Act {
    Pass(u64),
    Welcome(usize, u8),
    Heard(usize),
    Reconnect(usize, bool),
    End(usize),
    Bind(u8),
    Unbound,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..50_000_u64).prop_map(Act::Pass),
        4 => (0..3_usize, 0..3_u8).prop_map(|(s, id)| Act::Welcome(s, id)),
        2 => (0..3_usize).prop_map(Act::Heard),
        3 => (0..3_usize, any::<bool>()).prop_map(|(s, good)| Act::Reconnect(s, good)),
        2 => (0..3_usize).prop_map(Act::End),
        4 => (0..9_u8).prop_map(Act::Bind),
        1 => Just(Act::Unbound),
    ]
}

#[derive(Debug, Default)]
struct World {
    /// The sockets that the machine has, and whether each was welcomed.
    open: BTreeMap<u64, bool>,
    announced: Option<SessionId>,
}

impl World {
    fn apply(&mut self, out: Vec<Output>) -> Result<(), TestCaseError> {
        for output in out {
            match output {
                Output::Connect { socket, .. } => {
                    prop_assert!(self.open.insert(socket.0, false).is_none(), "names are used once");
                }
                Output::Close(socket) => {
                    prop_assert!(self.open.remove(&socket.0).is_some(), "closed twice: {socket:?}");
                }
                Output::Announce(live) => self.announced = live.map(|live| live.session_id),
                Output::Warn { .. } => {}
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_happens_on_two_sockets(acts in prop::collection::vec(act(), 1..120), jitter in 0.0..1.0_f64) {
        let mut now = Instant::now();
        let mut session = session(now);
        let mut world = World::default();
        for act in acts {
            let nth = |world: &World, n: usize| world.open.keys().copied().nth(n);
            let input = match act {
                Act::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    world.apply(timeout(&mut session, now, jitter))?;
                    None
                }
                Act::Welcome(n, id) => nth(&world, n).map(|socket| {
                    world.open.insert(socket, true);
                    welcome(socket, &format!("s{id}"))
                }),
                Act::Heard(n) => nth(&world, n).map(|socket| Event::Received(SocketId(socket))),
                Act::Reconnect(n, good) => nth(&world, n).map(|socket| {
                    reconnect(socket, if good { "wss://c.wss.twitch.tv/ws" } else { "wss://evil.example/" })
                }),
                Act::End(n) => nth(&world, n).map(|socket| {
                    world.open.remove(&socket);
                    ended(socket)
                }),
                Act::Bind(n) => {
                    let session_id = world.announced.clone().unwrap_or_else(|| SessionId::new("s0"));
                    let outcome = match n {
                        0 => BindOutcome::SessionGone,
                        1 => BindOutcome::Failed("x".into()),
                        _ => BindOutcome::Bound,
                    };
                    Some(Event::Binding(Some(Binding { session_id, outcome })))
                }
                Act::Unbound => Some(Event::Unbound),
            };
            if let Some(input) = input {
                world.apply(step(&mut session, input, now, jitter))?;
            }
            if session.wants_connection(now) {
                world.apply(step(&mut session, Event::MayConnect, now, jitter))?;
            }
            prop_assert!(world.open.len() <= 2, "{world:?}");
            // The reconciler knows the session that is read.
            prop_assert_eq!(world.announced.as_ref(), session.session());
            if session.shard_state() == ShardState::Bound {
                prop_assert!(world.open.values().any(|welcomed| *welcomed));
            }
            if session.shard_state() == ShardState::Waiting {
                prop_assert!(world.open.is_empty(), "{world:?}");
            }
        }
        // Left alone, it never stands still: within two minutes it tries a new connection.
        let sockets = session.next_socket;
        for _ in 0..20 {
            now = now.max(session.poll_timeout().unwrap());
            world.apply(timeout(&mut session, now, jitter))?;
            if session.wants_connection(now) {
                world.apply(step(&mut session, Event::MayConnect, now, jitter))?;
            }
        }
        prop_assert!(session.next_socket > sockets + 2, "{session:?}");
    }
}
