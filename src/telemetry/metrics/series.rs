//! The values of the metrics.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::encode::{Encoder, Format};
use super::table;
use crate::model::cluster::{ClusterStatus, HostState, HostStatus, Role};
use crate::model::obstacle::Obstacle;
use crate::model::status::{
    GapReason, InviteStatus, ShardState, SinkStatus, Status, SubscriptionState, TokenState, WebhookStatus,
};
use crate::model::tally::ReconnectCause;
use crate::model::time::Timestamp;

/// Number of types that have series of their own; Twitch has about a hundred. The rest is counted together, which
/// bounds the series for a file of any length.
const MAX_TYPES: usize = 250;
/// Number of reasons that have series of their own.
const MAX_REASONS: usize = 32;
/// Label for everything that is counted together.
const OTHER: &str = "other";
/// Reasons for refusing a request that are written from the start, for `increase()` to see the first refusal.
const REASONS: [&str; 8] = ["broken", "headers", "method", "path", "signature", "size", "slow", "stale"];
/// Reason that is counted with the malformed messages of all transports.
const UNREADABLE: &str = "unreadable";

const TOKEN_STATES: [TokenState; 5] = [
    TokenState::Minting,
    TokenState::Valid,
    TokenState::Renewing,
    TokenState::Refused,
    TokenState::Unavailable,
];

const SHARD_STATES: [ShardState; 6] = [
    ShardState::Connecting,
    ShardState::AwaitingWelcome,
    ShardState::AwaitingBinding,
    ShardState::Bound,
    ShardState::HandingOver,
    ShardState::Waiting,
];

/// Writes all metrics of a status.
pub fn render(status: &Status, format: Format) -> String {
    let mut out = Encoder::new(format);
    overview(&mut out, status);
    config(&mut out, status);
    token(&mut out, status);
    api(&mut out, status);
    reconcile(&mut out, status);
    subscriptions(&mut out, status);
    shards(&mut out, status);
    intake(&mut out, status);
    gaps(&mut out, status);
    if let Some(cluster) = &status.cluster {
        self::cluster(&mut out, cluster);
    }
    if let Some(webhook) = &status.webhook {
        self::webhook(&mut out, webhook);
    }
    if let Some(page) = &status.authorize {
        invites(&mut out, page);
    }
    store(&mut out, status);
    sinks(&mut out, &status.sinks);
    out.finish()
}

fn overview(out: &mut Encoder, status: &Status) {
    out.family(&table::BUILD).add(&[&status.version], 1);
    out.one(&table::START, unix_seconds(status.started_at));
    out.one(&table::READY, u8::from(status.ready));
    out.one(&table::CONVERGED, u8::from(status.converged));
    out.one(&table::PROBLEMS, status.problems.len());
}

fn config(out: &mut Encoder, status: &Status) {
    let config = &status.config;
    out.one(&table::GENERATION, config.generation);
    out.one(&table::LOADED, unix_seconds(config.loaded_at));
    out.one(&table::RELOAD_REFUSED, u8::from(config.refused.is_some()));
    let mut reloads = out.family(&table::RELOADS);
    reloads.add(&["accepted"], config.generation.saturating_sub(1));
    reloads.add(&["refused"], config.reloads_refused);
}

fn token(out: &mut Encoder, status: &Status) {
    let token = &status.token;
    let mut states = out.family(&table::TOKEN_STATE);
    for state in TOKEN_STATES {
        let name = match state {
            TokenState::Minting => "minting",
            TokenState::Valid => "valid",
            TokenState::Renewing => "renewing",
            TokenState::Refused => "refused",
            TokenState::Unavailable => "unavailable",
        };
        states.add(&[name], u8::from(token.state == state));
    }
    let left = token.expires_at.map(|at| at.since(status.now).as_secs_f64());
    out.maybe(&table::TOKEN_EXPIRES, left);
    let mut mints = out.family(&table::TOKEN_MINTS);
    mints.add(&["minted"], token.mints);
    mints.add(&["refused"], token.mints_refused);
    mints.add(&["failed"], token.mints_failed);
    let mut validations = out.family(&table::TOKEN_VALIDATIONS);
    validations.add(&["valid"], token.validations);
    validations.add(&["dead"], token.validations_dead);
    validations.add(&["failed"], token.validations_failed);
}

fn api(out: &mut Encoder, status: &Status) {
    let mut requests = out.family(&table::API_REQUESTS);
    for (route, answers) in &status.api.answers {
        for (answer, count) in answers {
            requests.add(&[route, answer], count);
        }
    }
    out.maybe(&table::API_LIMIT, status.api.limit);
    out.maybe(&table::API_REMAINING, status.api.remaining);
}

fn reconcile(out: &mut Encoder, status: &Status) {
    let reconcile = &status.reconcile;
    out.one(&table::RECONCILED_GENERATION, reconcile.generation);
    out.maybe(&table::RECONCILED, reconcile.finished_at.map(unix_seconds));
    out.one(&table::RECONCILE_FAILING, u8::from(reconcile.problem.is_some()));
    out.one(&table::DELETES_HELD, reconcile.deletes_held.map_or(0, |held| held.deletes));
}

fn subscriptions(out: &mut Encoder, status: &Status) {
    let mut by_type: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    let mut parked: BTreeMap<Obstacle, u64> = Obstacle::ALL.into_iter().map(|o| (o, 0)).collect();
    for entry in status.subscriptions.iter() {
        let name = bounded(&by_type, &entry.key.subscription_type, MAX_TYPES);
        let place = match entry.state {
            SubscriptionState::Enabled => 0,
            SubscriptionState::Pending => 1,
            SubscriptionState::Parked => 2,
        };
        by_type.entry(name).or_default()[place] += 1;
        if let (SubscriptionState::Parked, Some(obstacle)) = (entry.state, entry.obstacle) {
            *parked.entry(obstacle).or_default() += 1;
        }
    }
    let mut family = out.family(&table::SUBSCRIPTIONS);
    for (name, counts) in by_type {
        for (state, count) in ["enabled", "pending", "parked"].into_iter().zip(counts) {
            family.add(&[name, state], count);
        }
    }
    let mut family = out.family(&table::PARKED);
    for (obstacle, count) in parked {
        family.add(&[obstacle.name()], count);
    }
    out.maybe(&table::COST, status.reconcile.total_cost);
    out.maybe(&table::COST_LIMIT, status.reconcile.max_total_cost);
    let missing = status.reconcile.grants.iter().filter(|user| !user.missing.is_empty()).count();
    out.one(&table::GRANTS_MISSING, missing);
}

fn shards(out: &mut Encoder, status: &Status) {
    let mut family = out.family(&table::SHARDS);
    for state in SHARD_STATES {
        let name = match state {
            ShardState::Connecting => "connecting",
            ShardState::AwaitingWelcome => "awaiting_welcome",
            ShardState::AwaitingBinding => "awaiting_binding",
            ShardState::Bound => "bound",
            ShardState::HandingOver => "handing_over",
            ShardState::Waiting => "waiting",
        };
        family.add(&[name], status.shards.iter().filter(|shard| shard.state == state).count());
    }
    let wanted = status.reconcile.conduit.as_ref().map_or(0, |conduit| conduit.shard_count);
    out.one(&table::SHARDS_WANTED, wanted);
    let mut family = out.family(&table::RECONNECTS);
    for cause in ReconnectCause::ALL {
        let count = status.intake.reconnects.get(&cause).copied().unwrap_or_default();
        family.add(&[cause.name()], count);
    }
}

fn intake(out: &mut Encoder, status: &Status) {
    let intake = &status.intake;
    out.one(&table::RECEIVED, intake.received);
    out.one(&table::STORED, intake.stored);
    out.one(&table::DUPLICATES, intake.duplicates);
    out.one(&table::DOUBLES, intake.doubles);
    let mut rejected = out.family(&table::REJECTED);
    rejected.add(&["malformed"], intake.malformed);
    rejected.add(&["unknown"], intake.unknown);
    if let Some(webhook) = &status.webhook {
        let mut reasons: BTreeMap<&str, u64> = REASONS.into_iter().map(|reason| (reason, 0)).collect();
        for (reason, count) in webhook.rejected.iter().filter(|(reason, _)| *reason != UNREADABLE) {
            let reason = bounded(&reasons, reason, MAX_REASONS);
            *reasons.entry(reason).or_default() += count;
        }
        *reasons.entry("stale").or_default() += webhook.stale;
        for (reason, count) in reasons {
            rejected.add(&[reason], count);
        }
    }
    out.one(&table::REVOCATIONS, intake.revocations);
}

fn gaps(out: &mut Encoder, status: &Status) {
    let mut gaps = out.family(&table::GAPS);
    for reason in GapReason::ALL {
        gaps.add(&[reason.name()], status.gaps.told.get(&reason).copied().unwrap_or_default());
    }
    let open = status.gaps.open.map_or(0.0, |open| status.now.since(open.since).as_secs_f64());
    out.one(&table::GAP_OPEN, open);
    out.one(&table::CATCH_UP_EVENTS, status.gaps.mended);
}

fn cluster(out: &mut Encoder, cluster: &ClusterStatus) {
    out.one(&table::CLUSTER_LEADER, u8::from(cluster.role == Role::Leader));
    let mut hosts = out.family(&table::CLUSTER_HOSTS);
    for state in HostState::ALL {
        hosts.add(&[state.name()], cluster.hosts.iter().filter(|host| host.state == state).count());
    }
    let differs = |host: &&HostStatus| host.file_differs && host.state != HostState::Down;
    out.one(&table::CLUSTER_OTHER_FILES, cluster.hosts.iter().filter(differs).count());
    out.one(&table::CLUSTER_TAKEOVERS, cluster.takeovers);
    out.one(&table::FORWARD_LAG_EVENTS, cluster.forward.lag_events);
    out.one(&table::FORWARD_LAG_SECONDS, cluster.forward.lag_seconds);
    out.one(&table::FORWARDED, cluster.forward.forwarded);
    out.one(&table::FORWARD_LOST, cluster.forward.lost);
}

fn webhook(out: &mut Encoder, webhook: &WebhookStatus) {
    out.one(&table::WEBHOOK_REQUESTS, webhook.requests);
    out.one(&table::WEBHOOK_CHALLENGES, webhook.challenges);
    out.one(&table::WEBHOOK_UNAVAILABLE, webhook.unavailable);
    out.one(&table::WEBHOOK_CONNECTIONS, webhook.connections);
    out.one(&table::WEBHOOK_EVICTED, webhook.evicted);
    out.one(&table::WEBHOOK_KEYS, webhook.keys);
    out.maybe(&table::WEBHOOK_SKEW, webhook.clock_skew_seconds);
}

fn invites(out: &mut Encoder, page: &InviteStatus) {
    let mut requests = out.family(&table::AUTHORIZE);
    for (outcome, count) in [
        ("granted", page.granted),
        ("declined", page.declined),
        ("refused", page.refused),
        ("limited", page.limited),
        ("failed", page.failed),
    ] {
        requests.add(&[outcome], count);
    }
}

fn store(out: &mut Encoder, status: &Status) {
    let store = &status.store;
    out.one(&table::STORE_EVENTS, store.events);
    out.one(&table::STORE_SIZE, store.size);
    out.one(&table::STORE_LIMIT, store.max_size);
    out.one(&table::STORE_SEQUENCE, store.last_seq);
    out.one(&table::STORE_REMOVED, store.removed);
    out.family(&table::STORE_COMMITS).durations(&store.commits);
    out.one(&table::STORE_COMMIT_FAILURES, store.commit_failures);
    out.one(&table::STORE_FAILING, u8::from(store.problem.is_some()));
}

fn sinks(out: &mut Encoder, sinks: &[SinkStatus]) {
    let mut each = |metric, value: &dyn Fn(&SinkStatus) -> u64| {
        let mut family = out.family(metric);
        for sink in sinks {
            family.add(&[sink.name.as_str()], value(sink));
        }
    };
    each(&table::SINK_DELIVERED, &|sink| sink.delivered);
    each(&table::SINK_RETRIES, &|sink| sink.retries);
    each(&table::SINK_DEAD_LETTERS, &|sink| sink.dead_letters);
    each(&table::SINK_LAG_EVENTS, &|sink| sink.lag_events);
    each(&table::SINK_LAG_SECONDS, &|sink| sink.lag_seconds);
    each(&table::SINK_IN_FLIGHT, &|sink| sink.in_flight);
    each(&table::SINK_LOST, &|sink| sink.lost);
    each(&table::SINK_FAILING, &|sink| u64::from(sink.problem.is_some()));
    let mut next_try = out.family(&table::SINK_NEXT_TRY);
    for (sink, at) in sinks.iter().filter_map(|sink| Some((sink, sink.next_try?))) {
        next_try.add(&[sink.name.as_str()], unix_seconds(at));
    }
}

/// Returns the name itself, or [`OTHER`] if `most` others are known.
fn bounded<'a, T>(known: &BTreeMap<&str, T>, name: &'a str, most: usize) -> &'a str {
    if known.len() < most || known.contains_key(name) { name } else { OTHER }
}

fn unix_seconds(time: Timestamp) -> f64 {
    time.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
