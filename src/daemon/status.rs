//! The whole status, put together from what each part publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::pinned;
use super::watchdog::Hanging;
use crate::admin::EndpointOptions;
use crate::admission::Counts;
use crate::delivery::SinkOptions;
use crate::invite::Invites;
use crate::model::cluster::{ClusterStatus, ForwardStatus, Role};
use crate::model::route::SinkName;
use crate::model::shard::ShardId;
use crate::model::status::{
    AdminStatus, ApiStatus, ClockSet, ConfigStatus, GapsStatus, IntakeStatus, InviteStatus, Problem,
    ReconcileStatus, ShardStatus, SinkState, SinkStatus, Status, StoreStatus, TokenState, TokenStatus,
};
use crate::model::subscriptions::{SubscriptionCounts, Subscriptions};
use crate::model::text::{counted, duration, left};
use crate::model::time::Timestamp;
use crate::reconcile::InUse;
use crate::store::IntakeCounts;
use crate::transport::webhook::WebhookHandle;

const NO_TOKEN: &str = "there is no valid token";

/// Lag from which a sink is a problem.
const LAG_ALARM: Duration = Duration::from_secs(300);

/// Number of shards that are problems of their own; more are one problem.
const LISTED_SHARDS: usize = 4;
/// Age of what waits for the shared log from which that is a problem.
const FORWARD_ALARM: Duration = Duration::from_secs(10);
/// Time for which it is shown that the shared log had lost events.
const TAIL_ALARM: Duration = Duration::from_secs(3600);

/// Receivers of all published values.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) started_at: Timestamp,
    pub(super) config: watch::Receiver<ConfigStatus>,
    pub(super) token: watch::Receiver<TokenStatus>,
    pub(super) api: watch::Receiver<ApiStatus>,
    pub(super) reconcile: watch::Receiver<ReconcileStatus>,
    pub(super) subscriptions: watch::Receiver<Subscriptions>,
    pub(super) shards: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    /// Shards with a callback.
    pub(super) hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) intake: watch::Receiver<IntakeStatus>,
    pub(super) webhook: WebhookHandle,
    /// Callbacks and secrets in use.
    pub(super) in_use: watch::Receiver<Option<InUse>>,
    pub(super) gaps: watch::Receiver<GapsStatus>,
    pub(super) counts: watch::Receiver<IntakeCounts>,
    pub(super) minutes: watch::Receiver<Arc<[u64]>>,
    pub(super) store: watch::Receiver<StoreStatus>,
    pub(super) sinks: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    pub(super) sink_options: watch::Receiver<Arc<[SinkOptions]>>,
    pub(super) admin: watch::Receiver<Option<EndpointOptions>>,
    pub(super) admin_counts: watch::Receiver<Option<Counts>>,
    pub(super) invites: Invites,
    pub(super) invite_counts: watch::Receiver<Option<Counts>>,
    pub(super) hanging: watch::Receiver<Hanging>,
    /// The cluster, if there is one.
    pub(super) cluster: Option<watch::Receiver<ClusterStatus>>,
    /// Status of the forwarder to the cluster's log.
    pub(super) forward: Option<watch::Receiver<ForwardStatus>>,
}

impl Sources {
    /// Returns the current status.
    pub(super) fn snapshot(&self) -> Status {
        let mut intake = copy(&self.intake);
        let called = copy(&self.webhook.intake);
        intake.received += called.received;
        intake.malformed += called.malformed;
        intake.unknown += called.unknown;
        intake.revocations += called.revocations;
        let counts = *self.counts.borrow();
        (intake.stored, intake.duplicates) = (counts.stored, counts.duplicates);
        intake.doubles = counts.doubles;
        intake.per_minute = copy(&self.minutes);
        // While a shard moves from its socket to the callback, both have an entry.
        let mut shards = copy(&self.shards);
        shards.extend(copy(&self.hooks));
        for (shard, events) in copy(&self.webhook.shards) {
            if let Some(status) = shards.get_mut(&shard) {
                status.events += events;
            }
        }
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            now: Timestamp(SystemTime::now()),
            ready: false,
            not_ready: Vec::new(),
            converged: false,
            problems: Vec::new(),
            config: copy(&self.config),
            token: copy(&self.token),
            api: copy(&self.api),
            reconcile: copy(&self.reconcile),
            subscription_counts: SubscriptionCounts::default(),
            parked: Vec::new(),
            subscriptions: Subscriptions::default(),
            shards: shards.into_values().collect(),
            intake,
            gaps: copy(&self.gaps),
            webhook: copy(&self.webhook.status),
            store: copy(&self.store),
            sinks: sinks(copy(&self.sinks)),
            cluster: self.cluster.as_ref().map(|cluster| ClusterStatus {
                forward: self.forward.as_ref().map(copy).unwrap_or_default(),
                ..copy(cluster)
            }),
            admin: copy(&self.admin).and_then(|admin| {
                let listen = admin.listener().address()?.to_string();
                let status = AdminStatus { listen, token: admin.has_token(), ..AdminStatus::default() };
                let Some(counts) = copy(&self.admin_counts) else { return Some(status) };
                Some(AdminStatus {
                    connections: counts.open,
                    places: counts.places,
                    unproved: counts.unproved,
                    evicted: counts.evicted,
                    problem: counts.problem(if status.token { "the token" } else { "a request" }),
                    ..status
                })
            }),
            authorize: self.invites.status().map(|status| match copy(&self.invite_counts) {
                None => status,
                Some(counts) => InviteStatus {
                    connections: counts.open,
                    places: counts.places,
                    unproved: counts.unproved,
                    evicted: counts.evicted,
                    problem: counts.problem("an invite"),
                    ..status
                },
            }),
        };
        status.set_subscriptions(copy(&self.subscriptions));
        let called = self.in_use.borrow().as_ref().is_some_and(|in_use| in_use.subscriptions);
        judge(&mut status, called, &copy(&self.hanging));
        if let Some(cluster) = &status.cluster {
            let sinks = copy(&self.sink_options);
            let pins = sinks.iter().filter_map(|sink| Some((&sink.name, sink.host.as_deref()?)));
            status.problems.extend(pinned::problems(pins, cluster));
        }
        status
    }
}

/// Fills in the rates.
fn sinks(published: BTreeMap<SinkName, SinkStatus>) -> Vec<SinkStatus> {
    let now = Instant::now();
    let with_rate = |sink: SinkStatus| SinkStatus { per_minute: sink.rate.per_minute(now), ..sink };
    published.into_values().map(with_rate).collect()
}

/// Copies a value and releases its lock at once: several locks held together could deadlock.
fn copy<T: Clone>(value: &watch::Receiver<T>) -> T {
    value.borrow().clone()
}

/// Fills in `ready`, `converged` and `problems` from the other fields. `called` is whether webhook subscriptions
/// exist.
fn judge(status: &mut Status, called: bool, hanging: &Hanging) {
    let stands_by = status.stands_by();
    status.not_ready = match &status.cluster {
        Some(cluster) if cluster.role == Role::Standby => not_ready_to_stand_by(status, cluster),
        _ => not_ready(status, called && status.webhook.is_some()),
    };
    status.ready = status.not_ready.is_empty();
    let target = status.reconcile.conduit.as_ref().map_or(0, |c| c.shard_count as usize);
    let bound_shards = status.delivering_shards();
    let reconciled = status.reconcile.generation == status.config.generation;
    let matches = reconciled && status.reconcile.converged && bound_shards >= target;
    // Whether Twitch matches the file is the leader's to tell.
    status.converged = status.ready && (stands_by || matches);
    status.problems = problems(status, hanging);
}

/// Returns the reasons for not being ready on a host that stands by: it stores what webhooks bring.
fn not_ready_to_stand_by(status: &Status, cluster: &ClusterStatus) -> Vec<String> {
    let mut found = Vec::new();
    if !has_token(status) {
        found.push(NO_TOKEN.to_owned());
    }
    if cluster.leader.is_none()
        && status.webhook.is_none()
        && !status.shards.iter().any(|shard| shard.state.delivers())
    {
        found.push("no host leads the cluster".to_owned());
    }
    found
}

/// Returns what is wrong with the shared log, and what to do about it.
fn forward_problems(cluster: &ClusterStatus, now: Timestamp) -> Vec<(String, &'static str)> {
    let ForwardStatus { lag_events, lag_seconds, too_large, lost, tail_lost, problem, .. } = &cluster.forward;
    let mut found = Vec::new();
    let lag = Duration::from_secs(*lag_seconds);
    // Another problem tells already that NATS is away.
    if let Some(problem) = problem.as_ref().filter(|_| cluster.connected && lag >= FORWARD_ALARM) {
        let what = format!(
            "{} not in the shared log yet, the oldest for {}: {problem}",
            counted(*lag_events, "event"),
            duration(lag)
        );
        found.push((what, "they are kept on this host and tried again; docs/several-hosts.md lists what the user in NATS must be \
                           allowed"));
    }
    if let Some(at) = tail_lost.filter(|at| now.since(*at) < TAIL_ALARM) {
        found.push((
            format!("the shared log had lost its newest events; this host sent those of the last half hour again at {at}"),
            "a NATS server lost its disk, its power or its data: look at its log; `sync_interval: always` in its `jetstream` \
             section keeps it from losing what it has acknowledged",
        ));
    }
    if *too_large > 0 {
        found.push((
            format!("{} not in the shared log: too large for the NATS servers", counted(*too_large, "event")),
            "raise `max_payload` in the configuration of the NATS servers to 2 MB and restart eventsubd: it sends them again",
        ));
    }
    if *lost > 0 {
        found.push((
            format!("retention removed {} before the shared log had them", counted(*lost, "event")),
            "raise `store.retain` or `store.max_size`, so that they outlast the times in which NATS is away",
        ));
    }
    found
}

fn has_token(status: &Status) -> bool {
    matches!(status.token.state, TokenState::Valid | TokenState::Renewing)
}

/// Returns the reasons for not being ready.
fn not_ready(status: &Status, called: bool) -> Vec<String> {
    let mut found = Vec::new();
    if !has_token(status) {
        found.push(NO_TOKEN.to_owned());
    }
    if !called && status.delivering_shards() == 0 {
        found.push("no shard delivers events".to_owned());
    }
    if status.reconcile.generation == 0 && status.reconcile.remembered.is_none() {
        found.push("the first comparison with Twitch is not done".to_owned());
    }
    found
}

fn problems(status: &Status, hanging: &Hanging) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |part: &str, message: &str, hint: &str| {
        found.push(Problem { part: part.to_owned(), message: message.to_owned(), hint: hint.to_owned() });
    };
    for (part, still) in hanging.iter() {
        let message = format!("{} hangs: it has not moved for {} s", part.name(), still.as_secs());
        add(
            "daemon",
            &message,
            "only a restart helps: systemd does it by itself, else `systemctl restart eventsubd`",
        );
    }
    if let Some(problem) = &status.store.problem {
        add(
            "store",
            problem,
            "events wait in the sockets until the store can be written again; it tries by itself",
        );
    }
    if let Some(ClockSet { at, by_seconds }) = status.store.clock_set {
        let direction = if by_seconds < 0 { "back" } else { "ahead" };
        let far = duration(Duration::from_secs(by_seconds.unsigned_abs()));
        let message = format!("the clock of this machine was set {direction} by {far} at {at}");
        add(
            "clock",
            &message,
            "events keep their age, and none is removed for it; if nobody has set it, look at `timedatectl`",
        );
    }
    if let Some(cluster) = &status.cluster {
        if let (Some(problem), Some(hint)) = (&cluster.problem, &cluster.hint) {
            add("cluster", problem, hint);
        }
        if cluster.role == Role::CutOff {
            add(
                "cluster",
                "this host has led, and cannot renew its lease: it keeps its sockets, and changes nothing at Twitch",
                "it goes on once NATS answers; events are stored and delivered meanwhile",
            );
        }
        if let Some(why) = &cluster.no_deletes {
            let hint = "make the file the same on all hosts, and run `eventsubd reload` on each";
            add("cluster", &format!("nothing is deleted at Twitch: {why}"), hint);
        }
        for (problem, hint) in forward_problems(cluster, status.now) {
            add("cluster", &problem, hint);
        }
    }
    if let Some(problem) = status.webhook.as_ref().and_then(|webhook| webhook.problem.as_ref()) {
        add("webhook", problem, "");
    }
    if let Some(problem) = status.admin.as_ref().and_then(|admin| admin.problem.as_ref()) {
        add("admin", problem, "");
    }
    if let Some(problem) = status.authorize.as_ref().and_then(|page| page.problem.as_ref()) {
        add("authorize", problem, "");
    }
    if let Some(problem) = &status.token.problem {
        let hint = match status.token.state {
            TokenState::Refused => {
                "compare twitch.client_id and the secret with the application's page at https://dev.twitch.tv/console/apps, \
                 then `systemctl restart eventsubd` (`eventsubd reload` is enough with `client_secret_file`)"
            }
            _ => "it tries again by itself; check the network if this lasts",
        };
        add("token", problem, hint);
    }
    let down = status.shards.iter().filter(|shard| !shard.state.delivers());
    let down: Vec<_> = down.filter_map(|shard| Some((shard.shard, shard.problem.as_deref()?))).collect();
    let all = status.shards.len();
    match &down[..] {
        [] => {}
        [(_, problem), ..] if down.len() == all => {
            let (whose, hint) = if status.cluster.is_some() {
                (
                    " of this host",
                    "it reconnects by itself; after 10 seconds its shards go to another host that reaches Twitch, if there is one",
                )
            } else {
                (
                    "",
                    "it reconnects by itself; no event comes in meanwhile, and after 72 hours Twitch deletes the conduit \
                     with all subscriptions",
                )
            };
            add("shards", &format!("none of {all}{whose} is connected: {problem}"), hint);
        }
        [(first, problem), ..] if down.len() > LISTED_SHARDS => {
            let message = format!("{} of {all} are not connected; shard {first}: {problem}", down.len());
            add(
                "shards",
                &message,
                "they reconnect by themselves; events of their channels may be missed meanwhile",
            );
        }
        few => {
            for (shard, problem) in few {
                let hint = "it reconnects by itself; events of its channels may be missed meanwhile";
                add(&format!("shard {shard}"), problem, hint);
            }
        }
    }
    if let Some(refused) = &status.config.refused {
        let message = format!(
            "the reload of {} was refused, the old configuration stays: {}",
            refused.at,
            first_of(&refused.errors)
        );
        add("configuration", &message, "run `eventsubd check`, fix the file, then `eventsubd reload`");
    }
    if let Some(problem) = &status.reconcile.problem {
        add("reconcile", problem, "it tries again by itself");
    }
    if let Some(problem) = &status.api.problem {
        add("api", problem, "it tries again by itself");
    }
    if let Some(held) = status.reconcile.deletes_held {
        add(
            "reconcile",
            &held.sentence(),
            "look at `eventsubd plan`; if it is right, run `eventsubd apply --allow-deletes`",
        );
    }
    for sink in &status.sinks {
        let part = format!("sink {}", sink.name);
        if let Some(problem) = &sink.problem {
            let hint = format!(
                "events wait in the store and are tried again{when}; `eventsubd sink retry {name}` tries now, `eventsubd sink skip \
                 {name}` goes on without the event that failed",
                name = sink.name,
                when = sink.next_try.map_or_else(String::new, |at| format!(" in {}", left(status.now, at))),
            );
            add(&part, problem, &hint);
        } else if sink.lag_seconds > LAG_ALARM.as_secs() && sink.state != SinkState::Idle {
            let events = counted(sink.lag_events, "event");
            let age = duration(Duration::from_secs(sink.lag_seconds));
            let message = format!("{events} behind, the oldest is {age} old");
            add(&part, &message, "the receiver is slower than the events come");
        }
        if sink.dead_letters > 0 {
            let events = counted(sink.dead_letters, "event");
            let message = format!("{events} could not be delivered, now in its dead letters");
            let hint = format!(
                "see why with `eventsubd dead-letters list --sink {0}`; once it is fixed, `eventsubd dead-letters replay \
                 --sink {0}`",
                sink.name
            );
            add(&part, &message, &hint);
        }
        if sink.lost > 0 {
            let events = counted(sink.lost, "event");
            let message = format!("{events} removed by retention before this sink had them");
            add(&part, &message, "raise store.retain or store.max_size, or fix the sink");
        }
    }
    for warning in &status.reconcile.warnings {
        add("reconcile", warning, "");
    }
    let counts = &status.subscription_counts;
    if counts.own_parked > 0 {
        add(
            "grants",
            "some of the daemon's own subscriptions cannot be created: new permissions are noticed late (up to 30 minutes)",
            &format!("{}; `twitch.watch_grants = false` does without them", obstacle_of(status, true)),
        );
    }
    if counts.parked > 0 {
        let message = format!("{} of {} subscriptions cannot be created", counts.parked, counts.total);
        add("subscriptions", &message, &obstacle_of(status, false));
    }
    found
}

/// The first parked subscription of the daemon's own or of the file, with its reason.
fn obstacle_of(status: &Status, own: bool) -> String {
    let Some(first) = status.parked.iter().find(|entry| entry.own == own) else {
        return "`eventsubd status --subscriptions` lists them".to_owned();
    };
    let reason = first.reason.as_deref().unwrap_or("Twitch gave no reason");
    let whom = first.logins.as_slice().join(", ");
    let blank = if whom.is_empty() { "" } else { " " };
    format!("{}{blank}{whom}: {reason}", first.key.subscription_type)
}

/// Returns the message and the place of the first error, from its first two lines, and how many more there are.
fn first_of(errors: &[String]) -> String {
    let mut lines = errors.first().map_or("", String::as_str).lines().map(str::trim);
    let mut text = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    if let Some(place) = lines.next().and_then(|line| line.strip_prefix("--> ")) {
        text = format!("{text} ({place})");
    }
    match errors.len() {
        0 | 1 => text,
        more => format!("{text}, and {}", counted(more as u64 - 1, "more problem")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::daemon::watchdog::Part;
    use crate::model::example;

    fn text(status: &Status) -> String {
        let line = |p: &Problem| format!("{}: {}\n  {}\n", p.part, p.message, p.hint).replace("\n  \n", "\n");
        problems(status, &Hanging::default()).iter().map(line).collect()
    }

    #[test]
    fn each_problem_has_a_hint_and_the_worst_comes_first() {
        expect![[r#"
            store: no space left on the disk of /var/lib/eventsubd/events.db
              events wait in the sockets until the store can be written again; it tries by itself
            clock: the clock of this machine was set ahead by 3 days at 2026-11-02T08:13:27.000Z
              events keep their age, and none is removed for it; if nobody has set it, look at `timedatectl`
            cluster: cannot connect to NATS at n1:4222: connection refused
              it connects by itself once NATS is there
            cluster: nothing is deleted at Twitch: the file of web-2 is another one than here
              make the file the same on all hosts, and run `eventsubd reload` on each
            cluster: the shared log had lost its newest events; this host sent those of the last half hour again at 2026-11-02T08:05:27.000Z
              a NATS server lost its disk, its power or its data: look at its log; `sync_interval: always` in its `jetstream` section keeps it from losing what it has acknowledged
            cluster: 1 event not in the shared log: too large for the NATS servers
              raise `max_payload` in the configuration of the NATS servers to 2 MB and restart eventsubd: it sends them again
            cluster: retention removed 2 events before the shared log had them
              raise `store.retain` or `store.max_size`, so that they outlast the times in which NATS is away
            webhook: the certificate could not be read again: no such file
            token: the token endpoint cannot be reached: no answer in time
              it tries again by itself; check the network if this lasts
            shard 1: the connection fell silent
              it reconnects by itself; events of its channels may be missed meanwhile
            configuration: the reload of 2026-11-02T08:14:27.000Z was refused, the old configuration stays: unknown key `brodcaster` (config.toml:7:1)
              run `eventsubd check`, fix the file, then `eventsubd reload`
            reconcile: the conduits could not be listed
              it tries again by itself
            api: Twitch has an outage (503): 
              it tries again by itself
            reconcile: 12 of 14 subscriptions would be deleted, more than reconcile.max_delete allows
              look at `eventsubd plan`; if it is right, run `eventsubd apply --allow-deletes`
            sink log: no space left on device
              events wait in the store and are tried again in 12 s; `eventsubd sink retry log` tries now, `eventsubd sink skip log` goes on without the event that failed
            sink log: 1 event could not be delivered, now in its dead letters
              see why with `eventsubd dead-letters list --sink log`; once it is fixed, `eventsubd dead-letters replay --sink log`
            sink log: 5 events removed by retention before this sink had them
              raise store.retain or store.max_size, or fix the sink
            reconcile: a shard was bound to another session: stop the other process
            subscriptions: 1 of 2 subscriptions cannot be created
              channel.follow ann: needs grant: ann must allow moderator:read:followers: run `eventsubd authorize --user ann`
        "#]].assert_eq(&text(&example::status()));
        assert_eq!(text(&example::healthy()), "");
    }

    #[test]
    fn many_unconnected_shards_are_one_problem() {
        let mut status = example::healthy();
        let broken = example::status().shards[1].clone();
        status.shards = (0..50).map(|n| ShardStatus { shard: ShardId(n), ..broken.clone() }).collect();
        expect![[r#"
            shards: none of 50 is connected: the connection fell silent
              it reconnects by itself; no event comes in meanwhile, and after 72 hours Twitch deletes the conduit with all subscriptions
        "#]].assert_eq(&text(&status));
        status.shards[0] = example::healthy().shards[0].clone();
        expect![[r#"
            shards: 49 of 50 are not connected; shard 1: the connection fell silent
              they reconnect by themselves; events of their channels may be missed meanwhile
        "#]]
        .assert_eq(&text(&status));
        status.shards.truncate(3);
        assert_eq!(problems(&status, &Hanging::default()).len(), 2);
    }

    #[test]
    fn a_part_that_hangs_is_the_first_problem() {
        let hanging: Hanging = [(Part::Reconciler, Duration::from_secs(301))].into();
        let found = problems(&example::status(), &hanging);
        assert_eq!(found[0].message, "the reconciler hangs: it has not moved for 301 s");
        assert!(found[0].hint.contains("restart"), "{}", found[0].hint);
    }
}
