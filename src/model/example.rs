//! A status without empty fields, for tests. A new field of [`Status`] shows up in their golden texts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{ClusterStatus, ForwardStatus, HostState, HostStatus, Role};
use super::event::Seq;
use super::obstacle::Obstacle;
use super::rate::Rate;
use super::route::SinkName;
use super::shard::{SessionId, ShardId};
use super::status::*;
use super::subscription::{Condition, SubscriptionKey};
use super::subscriptions::{LoginNames, SubscriptionCounts, Subscriptions};
use super::tally::{Durations, ReconnectCause};
use super::time::Timestamp;

fn counts<const N: usize>(of: [(&str, u64); N]) -> BTreeMap<String, u64> {
    of.map(|(name, count)| (name.to_owned(), count)).into()
}

/// Returns the time of the example.
pub(crate) fn now() -> Timestamp {
    Timestamp::parse("2026-11-02T08:15:27Z").expect("a time")
}

/// Returns the time this many seconds before the example.
pub(crate) fn before(secs: u64) -> Timestamp {
    Timestamp(now().0 - Duration::from_secs(secs))
}

/// Returns the time this many seconds after the example.
pub(crate) fn after(secs: u64) -> Timestamp {
    Timestamp(now().0 + Duration::from_secs(secs))
}

/// The reason of the example's parked subscription.
const REASON: &str =
    "needs grant: ann must allow moderator:read:followers: run `eventsubd authorize --user ann`";

/// Returns a subscription with all optional fields.
pub(crate) fn entry(id: &str, state: SubscriptionState) -> SubscriptionEntry {
    let parked = state == SubscriptionState::Parked;
    SubscriptionEntry {
        key: SubscriptionKey::new(
            "channel.follow",
            "2",
            Condition::from_pairs([("broadcaster_user_id", id), ("moderator_user_id", id)]),
        ),
        state,
        id: (!parked).then(|| format!("26b1c993-bfcf-44d9-b876-37965249{id:0>4}").into()),
        reason: parked.then(|| REASON.into()),
        obstacle: parked.then_some(Obstacle::Grant),
        retry_at: parked.then(|| after(300)),
        cost: (state == SubscriptionState::Enabled).then_some(0),
        own: false,
        logins: if id == "2" { LoginNames::One("ann".into()) } else { LoginNames::None },
    }
}

/// Returns the status of a daemon that has run for a day, with all fields set.
pub(crate) fn status() -> Status {
    let mut own = entry("3", SubscriptionState::Enabled);
    own.own = true;
    own.key = SubscriptionKey::new("user.authorization.grant", "2", own.key.condition.clone());
    let mut commits = Durations::default();
    for micros in [400, 700, 900, 3_000, 40_000] {
        commits.add(Duration::from_micros(micros));
    }
    let answers = [
        ("GET /eventsub/subscriptions", counts([("200", 49), ("none", 1)])),
        ("POST /eventsub/subscriptions", counts([("202", 2), ("403", 1)])),
    ];
    let mut status = Status {
        version: "0.1.0".to_owned(),
        pid: 4711,
        started_at: before(93_784),
        now: now(),
        ready: false,
        not_ready: vec!["no shard delivers events".to_owned()],
        converged: true,
        problems: vec![Problem {
            part: "subscriptions".to_owned(),
            message: "1 of 2 subscriptions cannot be created".to_owned(),
            hint: format!("channel.follow ann: {REASON}"),
        }],
        config: ConfigStatus {
            state_directory: "/var/lib/eventsubd".to_owned(),
            sandbox: true,
            flags: " --config /etc/eventsubd/config.toml".to_owned(),
            path: "/etc/eventsubd/config.toml".to_owned(),
            generation: 2,
            loaded_at: before(600),
            refused: Some(RefusedReload {
                at: before(60),
                errors: vec!["error: unknown key `brodcaster`\n --> config.toml:7:1".to_owned()],
            }),
            reloads_refused: 1,
        },
        token: TokenStatus {
            state: TokenState::Valid,
            expires_at: Some(after(4_000_000)),
            validated_at: Some(before(1_200)),
            mints: 1,
            validations: 26,
            problem: Some("the token endpoint cannot be reached: no answer in time".to_owned()),
            mints_refused: 0,
            mints_failed: 2,
            validations_dead: 0,
            validations_failed: 1,
        },
        api: ApiStatus {
            limit: Some(800),
            remaining: Some(799),
            requests: 53,
            rate_limited: 0,
            problem: Some("Twitch has an outage (503): ".to_owned()),
            answers: answers.map(|(route, answers)| (route.to_owned(), answers)).into(),
        },
        reconcile: ReconcileStatus {
            generation: 2,
            converged: true,
            progress: Some(Progress { done: 1, total: 2 }),
            finished_at: Some(before(500)),
            remembered: Some(before(4_000)),
            conduit: Some(ConduitStatus { id: "5b1f2c7a".to_owned(), shard_count: 2 }),
            total_cost: Some(1),
            max_total_cost: Some(10_000),
            deletes_held: Some(HeldDeletes { deletes: 12, ours: 14 }),
            moving: 1,
            problem: Some("the conduits could not be listed".to_owned()),
            problem_kind: Some(ProblemKind::Outage),
            planned: 2,
            answered: 3,
            warnings: vec!["a shard was bound to another session: stop the other process".to_owned()],
            grants: vec![GrantStatus {
                user_id: "2".into(),
                login: Some("ann".into()),
                granted: ["bits:read".into()].into(),
                missing: ["moderator:read:followers".into()].into(),
            }],
        },
        subscription_counts: SubscriptionCounts::default(),
        parked: Vec::new(),
        subscriptions: Subscriptions::default(),
        shards: vec![
            ShardStatus {
                shard: ShardId(0),
                state: ShardState::Bound,
                since: before(7_260),
                session_id: Some(SessionId::new("AgoQHR3s6Mb4T8GFB1l3DlPfiRIGY2VsbC1h")),
                losses: 0,
                reconnects: 1,
                events: 12,
                problem: None,
            },
            ShardStatus {
                shard: ShardId(1),
                state: ShardState::Waiting,
                since: before(20),
                session_id: None,
                losses: 2,
                reconnects: 0,
                events: 1,
                problem: Some("the connection fell silent".to_owned()),
            },
        ],
        intake: IntakeStatus {
            received: 13,
            duplicates: 1,
            doubles: 3,
            malformed: 1,
            unknown: 2,
            revocations: 1,
            stored: 12,
            per_minute: Arc::from([0, 3, 9]),
            reconnects: [(ReconnectCause::Requested, 1), (ReconnectCause::Keepalive, 2)].into(),
        },
        gaps: GapsStatus {
            told: [(GapReason::ConnectionLost, 2), (GapReason::DaemonStopped, 1)].into(),
            recent: vec![ToldGap {
                id: "gap-2f6f0c1e-0000-4000-8000-70a1c2de0101".into(),
                from: before(3_700),
                to: before(3_600),
                reason: GapReason::ConnectionLost,
                mended: Some(4),
            }],
            open: Some(OpenGap { since: before(60), reason: GapReason::ConnectionLost }),
            catch_up: Some(CatchUpStatus {
                since: before(20),
                gaps: 1,
                look: 1,
                channels: 300,
                asked: 200,
                found: [("stream.offline".to_owned(), 2), ("stream.online".to_owned(), 5)].into(),
                next_look: None,
                problem: None,
            }),
            mended: 11,
        },
        webhook: Some(WebhookStatus {
            callback: "https://example.org/eventsub".to_owned(),
            listen: "127.0.0.1:8080".to_owned(),
            tls: false,
            keys: 1,
            connections: 3,
            places: 1_024,
            unproved: 1,
            evicted: 0,
            requests: 14,
            challenges: 1,
            stale: 1,
            rejected: counts([("method", 1), ("signature", 4)]),
            unavailable: 0,
            clock_skew_seconds: Some(-2),
            problem: Some("the certificate could not be read again: no such file".to_owned()),
        }),
        store: StoreStatus {
            problem: Some("no space left on the disk of /var/lib/eventsubd/events.db".to_owned()),
            last_seq: Seq(12),
            first_seq: Seq(1),
            events: 12,
            size: 40_960,
            max_size: 2 << 30,
            removed: 0,
            clock_set: Some(ClockSet { at: before(120), by_seconds: 259_200 }),
            commits,
            commit_failures: 1,
        },
        sinks: vec![SinkStatus {
            name: SinkName::new("log"),
            kind: "file".to_owned(),
            receiver: "/var/log/eventsubd/events.jsonl".into(),
            types: Arc::from(["stream.*".to_owned(), "channel.raid".to_owned()]),
            state: SinkState::Retrying,
            cursor: Seq(11),
            lag_events: 1,
            lag_seconds: 400,
            in_flight: 0,
            delivered: 11,
            per_minute: 2,
            rate: Rate::default(),
            last_success: Some(before(25)),
            retries: 3,
            dead_letters: 1,
            lost: 5,
            problem: Some("no space left on device".to_owned()),
            next_try: Some(after(12)),
        }],
        cluster: Some(cluster(after(0))),
        admin: Some(AdminStatus {
            listen: "127.0.0.1:9464".to_owned(),
            token: true,
            connections: 2,
            places: 128,
            unproved: 1,
            evicted: 0,
            problem: None,
        }),
        authorize: Some(InviteStatus {
            redirect_uri: "https://example.org/authorize".to_owned(),
            listen: Some("127.0.0.1:8081".to_owned()),
            visits: 2,
            unfinished: 3,
            granted: 12,
            declined: 1,
            refused: 4,
            limited: 5,
            failed: 1,
            connections: 6,
            places: 256,
            unproved: 2,
            evicted: 7,
            problem: None,
        }),
    };
    let subscriptions =
        vec![entry("1", SubscriptionState::Enabled), entry("2", SubscriptionState::Parked), own];
    status.set_subscriptions(subscriptions.into());
    status
}

/// Returns a cluster of three hosts, of which one is down and one has another file.
fn cluster(now: Timestamp) -> ClusterStatus {
    let host = |name: &str, state, since: u64| HostStatus {
        name: name.to_owned(),
        state,
        leader: false,
        version: "0.1.0".to_owned(),
        since: Timestamp::from_unix_millis(now.unix_millis() - since * 1_000),
        shards: vec![0, 1],
        sinks: vec!["log".to_owned()],
        draining: false,
        file_differs: false,
        forward_lag: 0,
    };
    let leader = HostStatus { leader: true, ..host("web-1", HostState::Up, 93_600) };
    let other = HostStatus { file_differs: true, ..host("web-2", HostState::Up, 3_600) };
    let down = HostStatus { forward_lag: 12, ..host("web-3", HostState::Down, 60) };
    let forward = ForwardStatus {
        lag_events: 3,
        lag_seconds: 1,
        forwarded: 5_000,
        too_large: 1,
        lost: 2,
        tail_lost: Some(Timestamp::from_unix_millis(now.unix_millis() - 600_000)),
        problem: Some("NATS did not acknowledge the event: no answer in time".to_owned()),
    };
    ClusterStatus {
        name: "eventsubd".to_owned(),
        host: "web-1".to_owned(),
        role: Role::Leader,
        leader: Some("web-1".to_owned()),
        connected: true,
        nats_version: Some("2.12.8".to_owned()),
        takeovers: 1,
        hosts: vec![leader, other, down],
        forward,
        no_deletes: Some("the file of web-2 is another one than here".to_owned()),
        problem: Some("cannot connect to NATS at n1:4222: connection refused".to_owned()),
        hint: Some("it connects by itself once NATS is there".to_owned()),
    }
}

/// Returns the status of the same daemon without problems.
pub(crate) fn healthy() -> Status {
    let mut status = status();
    status.problems.clear();
    (status.config.refused, status.config.sandbox) = (None, false);
    (status.token.problem, status.api.problem, status.store.problem) = (None, None, None);
    status.store.clock_set = None;
    status.reconcile = ReconcileStatus {
        progress: None,
        deletes_held: None,
        moving: 0,
        problem: None,
        problem_kind: None,
        warnings: vec![],
        grants: vec![],
        ..status.reconcile
    };
    let subscriptions = status.subscriptions.iter().filter(|s| s.obstacle.is_none()).cloned().collect();
    status.set_subscriptions(subscriptions);
    for shard in &mut status.shards {
        (shard.state, shard.problem) = (ShardState::Bound, None);
    }
    (status.webhook, status.cluster, status.authorize) = (None, None, None);
    for sink in &mut status.sinks {
        (sink.state, sink.problem, sink.cursor) = (SinkState::Idle, None, Seq(12));
        sink.next_try = None;
        (sink.lag_events, sink.lag_seconds, sink.dead_letters, sink.lost) = (0, 0, 0, 0);
    }
    status
}
