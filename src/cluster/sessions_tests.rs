use proptest::prelude::*;

use super::*;

fn live(id: &str, welcomed_at: Instant) -> LiveSession {
    LiveSession::new(SessionId::new(id), welcomed_at)
}

fn sockets(of: &[(u32, &str)], welcomed_at: Instant) -> HostSockets {
    let socket = |id: &str| HostSocket { live: live(id, welcomed_at), signs: Signs::default() };
    of.iter().map(|(shard, id)| (ShardId(*shard), socket(id))).collect()
}

fn seconds(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

/// The value as other hosts read it.
fn told(value: &SocketsValue) -> SocketsValue {
    serde_json::from_slice(&serde_json::to_vec(value).expect("a value")).expect("the same")
}

#[test]
fn a_host_tells_its_sockets_and_their_signs_of_life_by_our_clock() {
    let here = Instant::now();
    let own = sockets(&[(3, "x")], here);
    let mut remote = RemoteHosts::default();
    // The other machine has run for an hour less than ours.
    let (theirs, ours) = (|second| seconds(1_000 + second), |second| seconds(4_600 + second));
    for second in 1..=5 {
        let signs = &own[&ShardId(3)].signs;
        signs.record_heard(1_000_000 + second * 1_000 - 300);
        let value = told(&SocketsValue::of(&own, (theirs(second), here + seconds(second))));
        let changed = remote.handle_value("b", second, "run", &value, (ours(second), here + seconds(second)));
        assert_eq!(changed, second == 1, "only the first one brings a socket");
    }
    let known = &remote.sockets()["b"][&ShardId(3)];
    assert_eq!(known.live.session_id, SessionId::new("x"));
    assert_eq!(known.live.welcomed_at, here);
    assert_eq!((known.signs.heard(), known.signs.event()), (4_604_700, 0));
    assert!(
        !remote.handle_value("b", 5, "run", &SocketsValue::default(), (ours(9), here)),
        "an old revision"
    );
}

#[test]
fn a_host_whose_key_has_ended_keeps_its_sockets_for_a_minute() {
    let here = Instant::now();
    let mut remote = RemoteHosts::default();
    let value = SocketsValue::of(&sockets(&[(0, "x")], here), (seconds(5), here));
    remote.handle_value("b", 1, "run", &value, (seconds(5), here));
    remote.handle_end("b", 2, seconds(10));
    assert!(!remote.expire(seconds(69)) && remote.sockets().len() == 1);
    assert!(remote.expire(seconds(70)) && remote.sockets().is_empty());
    // One that comes back in time was never away; a new process has what it tells.
    remote.handle_value("b", 3, "run", &value, (seconds(80), here));
    remote.handle_end("b", 4, seconds(81));
    remote.handle_value("b", 5, "another", &SocketsValue::default(), (seconds(82), here));
    assert!(!remote.expire(seconds(200)) && remote.sockets()["b"].is_empty());
}

#[test]
fn the_host_of_a_shard_counts_and_until_it_has_a_socket_the_one_that_delivers() {
    let here = Instant::now();
    let assigned: BTreeMap<u32, Arc<str>> = [(0, Arc::from("a")), (1, Arc::from("b"))].into();
    let bound: BTreeMap<ShardId, SessionId> =
        [(ShardId(0), SessionId::new("a0")), (ShardId(1), SessionId::new("a1"))].into();
    let local: Sessions = Arc::new([(ShardId(0), live("a0", here)), (ShardId(1), live("a1", here))].into());
    let choose = |remote: &[(u32, &str)]| {
        let remote: RemoteSockets = [(Arc::from("b"), Arc::new(sockets(remote, here)))].into();
        let picture =
            Picture { own: "a", local: &local, remote: &remote, assigned: &assigned, bound: &bound };
        let chosen = picture.choose().into_iter();
        chosen
            .map(|(shard, chosen)| (shard.0, chosen.live.session_id.to_string(), chosen.live.is_bound))
            .collect::<Vec<_>>()
    };
    let bound_here = [(0, "a0".to_owned(), true), (1, "a1".to_owned(), true)];
    assert_eq!(choose(&[]), bound_here);
    assert_eq!(choose(&[(0, "stolen")]), bound_here, "a shard that it was not given");
    assert_eq!(choose(&[(1, "b1")]), [(0, "a0".to_owned(), true), (1, "b1".to_owned(), false)]);
}

proptest! {
    /// A host can say anything: it is read or refused, and bounded.
    #[test]
    fn anything_that_a_host_says_is_bounded(
        rows in prop::collection::vec((any::<u32>(), "\\PC{0,300}", any::<u64>(), any::<u64>(), any::<u64>()), 0..40),
        clock in any::<u64>(),
        now in 0_u64..1_000_000_000,
    ) {
        let text = serde_json::json!({ "clock": clock, "open": rows }).to_string();
        if let Ok(value) = serde_json::from_str::<SocketsValue>(&text) {
            let mut remote = RemoteHosts::default();
            for revision in 1..9 {
                remote.handle_value("b", revision, "run", &value, (Duration::from_millis(now), Instant::now()));
            }
            for (shard, socket) in &*remote.sockets()["b"] {
                prop_assert!((shard.0 as usize) < MOST);
                prop_assert!(socket.live.session_id.as_str().len() <= LONGEST_ID);
                prop_assert!(socket.signs.heard() <= now && socket.signs.event() <= now);
            }
        }
    }

    /// However shards are assigned: each has the socket of its host if there is one, and else only one that is bound.
    #[test]
    fn a_socket_counts_only_for_its_host_or_if_it_is_bound(
        assigned in prop::collection::btree_map(0_u32..5, "[abc]", 0..5),
        ours in prop::collection::btree_set(0_u32..5, 0..5),
        theirs in prop::collection::btree_set(0_u32..5, 0..5),
        bound in prop::collection::btree_map(0_u32..5, "[ab]", 0..5),
    ) {
        let here = Instant::now();
        let assigned: BTreeMap<u32, Arc<str>> =
            assigned.into_iter().map(|(shard, host)| (shard, host.into())).collect();
        let bound: BTreeMap<ShardId, SessionId> = bound
            .into_iter()
            .map(|(shard, host)| (ShardId(shard), SessionId::new(format!("{host}{shard}"))))
            .collect();
        let local: Sessions =
            Arc::new(ours.iter().map(|shard| (ShardId(*shard), live(&format!("a{shard}"), here))).collect());
        let theirs: Vec<(u32, String)> = theirs.into_iter().map(|shard| (shard, format!("b{shard}"))).collect();
        let theirs: Vec<(u32, &str)> = theirs.iter().map(|(shard, id)| (*shard, id.as_str())).collect();
        let remote: RemoteSockets = [(Arc::from("b"), Arc::new(sockets(&theirs, here)))].into();
        let picture =
            Picture { own: "a", local: &local, remote: &remote, assigned: &assigned, bound: &bound };
        let chosen = picture.choose();
        for shard in (0..5).map(ShardId) {
            let host = assigned.get(&shard.0).map(|host| &**host);
            let has = |host: &str| match host {
                "a" => local.contains_key(&shard),
                "b" => remote["b"].contains_key(&shard),
                _ => false,
            };
            let found = chosen.get(&shard);
            match host.filter(|host| has(host)) {
                Some(host) => {
                    let expected = SessionId::new(format!("{host}{shard}"));
                    prop_assert_eq!(found.map(|chosen| &chosen.live.session_id), Some(&expected));
                }
                None => prop_assert!(found.is_none_or(|chosen| chosen.live.is_bound)),
            }
        }
    }
}
