//! The whole status, put together from what each part publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::admin::EndpointOptions;
use crate::model::route::SinkName;
use crate::model::shard::ShardId;
use crate::model::status::{
    AdminStatus, ApiStatus, ConfigStatus, IntakeStatus, Problem, ReconcileStatus, ShardStatus, SinkState,
    SinkStatus, Status, StoreStatus, SubscriptionEntry, SubscriptionState, TokenState, TokenStatus,
};
use crate::model::time::Timestamp;
use crate::store::IntakeCounts;
use crate::transport::webhook::WebhookHandle;

/// A sink that lags longer than this is a problem.
const LAG_ALARM: Duration = Duration::from_secs(300);

/// The receiving ends of everything that is published.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) started_at: Timestamp,
    pub(super) config: watch::Receiver<ConfigStatus>,
    pub(super) token: watch::Receiver<TokenStatus>,
    pub(super) api: watch::Receiver<ApiStatus>,
    pub(super) reconcile: watch::Receiver<ReconcileStatus>,
    pub(super) subscriptions: watch::Receiver<Arc<[SubscriptionEntry]>>,
    pub(super) shards: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    /// The shards that call.
    pub(super) hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) intake: watch::Receiver<IntakeStatus>,
    pub(super) webhook: WebhookHandle,
    pub(super) counts: watch::Receiver<IntakeCounts>,
    pub(super) store: watch::Receiver<StoreStatus>,
    pub(super) sinks: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    pub(super) admin: watch::Receiver<Option<EndpointOptions>>,
}

impl Sources {
    /// How things are now.
    pub(super) fn snapshot(&self) -> Status {
        let mut intake = copy(&self.intake);
        let called = copy(&self.webhook.intake);
        intake.received += called.received;
        intake.malformed += called.malformed;
        intake.unknown += called.unknown;
        intake.revocations += called.revocations;
        intake.duplicates = self.counts.borrow().duplicates;
        // While a shard is moved from its socket to the callback, both know of it.
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
            subscriptions: copy(&self.subscriptions),
            shards: shards.into_values().collect(),
            intake,
            webhook: copy(&self.webhook.status),
            store: copy(&self.store),
            sinks: copy(&self.sinks).into_values().collect(),
            admin: copy(&self.admin).and_then(|admin| {
                let listen = admin.listener.address()?.to_string();
                Some(AdminStatus { listen, token: admin.token.is_some() })
            }),
        };
        judge(&mut status);
        status
    }
}

/// The value, with its lock released at once: several held together could lock each other out.
fn copy<T: Clone>(value: &watch::Receiver<T>) -> T {
    value.borrow().clone()
}

/// Fills in `ready`, `converged` and `problems` from the rest.
fn judge(status: &mut Status) {
    status.not_ready = not_ready(status);
    status.ready = status.not_ready.is_empty();
    let target = status.reconcile.conduit.as_ref().map_or(0, |c| c.shard_count as usize);
    let bound_shards = status.shards.iter().filter(|shard| shard.state.delivers()).count();
    let reconciled = status.reconcile.generation == status.config.generation;
    status.converged = status.ready && reconciled && status.reconcile.converged && bound_shards >= target;
    status.problems = problems(status);
}

/// What keeps it from being ready, a sentence each.
fn not_ready(status: &Status) -> Vec<String> {
    let mut found = Vec::new();
    if !matches!(status.token.state, TokenState::Valid | TokenState::Renewing) {
        found.push("there is no valid token".to_owned());
    }
    // Without a conduit the subscriptions call by themselves.
    let called = status.reconcile.conduit.is_none() && status.webhook.is_some();
    if !called && !status.shards.iter().any(|shard| shard.state.delivers()) {
        found.push("no shard delivers events".to_owned());
    }
    if status.reconcile.generation == 0 {
        found.push("the first comparison with Twitch is not done".to_owned());
    }
    found
}

fn problems(status: &Status) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |part: &str, message: &str, hint: &str| {
        found.push(Problem { part: part.to_owned(), message: message.to_owned(), hint: hint.to_owned() });
    };
    if let Some(problem) = &status.store.problem {
        add(
            "store",
            problem,
            "events wait in the sockets until the store can be written again; it tries by itself",
        );
    }
    if let Some(problem) = status.webhook.as_ref().and_then(|webhook| webhook.problem.as_ref()) {
        add("webhook", problem, "");
    }
    if let Some(problem) = &status.token.problem {
        let hint = match status.token.state {
            TokenState::Refused => {
                "compare twitch.client_id and the secret with the application's page at https://dev.twitch.tv/console/apps, \
                 then run `eventsubd reload`"
            }
            _ => "it tries again by itself; check the network if this lasts",
        };
        add("token", problem, hint);
    }
    if let Some(refused) = &status.config.refused {
        let message = format!(
            "the reload of {} was refused, {} problems; the old configuration stays",
            refused.at,
            refused.errors.len()
        );
        add("configuration", &message, "run `eventsubd check`, mend the file, then `eventsubd reload`");
    }
    if let Some(problem) = &status.reconcile.problem {
        add("reconcile", problem, "it tries again by itself");
    }
    if let Some(problem) = &status.api.problem {
        add("api", problem, "it tries again by itself");
    }
    if let Some(held) = status.reconcile.deletes_held {
        let message = format!(
            "{} of {} subscriptions would be deleted, more than reconcile.max_delete allows",
            held.deletes, held.ours
        );
        add(
            "reconcile",
            &message,
            "look at `eventsubd plan`; if it is right, run `eventsubd apply --allow-deletes`",
        );
    }
    for shard in &status.shards {
        if let (Some(problem), false) = (&shard.problem, shard.state.delivers()) {
            add(
                &format!("shard {}", shard.shard),
                problem,
                "it reconnects by itself; events of its channels may be missed meanwhile",
            );
        }
    }
    for sink in &status.sinks {
        let part = format!("sink {}", sink.name);
        if let Some(problem) = &sink.problem {
            add(&part, problem, "events stay in the store and are tried again");
        } else if sink.lag_seconds > LAG_ALARM.as_secs() && sink.state != SinkState::Idle {
            let message = format!("{} events behind, the oldest {} s", sink.lag_events, sink.lag_seconds);
            add(&part, &message, "the receiver is slower than the events come");
        }
        if sink.dead_letters > 0 {
            let message =
                format!("{} events could not be delivered, and are in its dead letters", sink.dead_letters);
            let hint = format!(
                "see why with `eventsubd dead-letters list --sink {0}`; once it is mended, `eventsubd dead-letters replay \
                 --sink {0}`",
                sink.name
            );
            add(&part, &message, &hint);
        }
        if sink.lost > 0 {
            let message = format!("{} events were removed by retention before this sink had them", sink.lost);
            add(&part, &message, "raise store.retain or store.max_size, or mend the sink");
        }
    }
    for warning in &status.reconcile.warnings {
        add("reconcile", warning, "");
    }
    let (own, theirs): (Vec<_>, Vec<_>) = status.subscriptions.iter().partition(|entry| entry.own);
    let parked = |entries: &[&SubscriptionEntry]| {
        entries.iter().filter(|entry| entry.state == SubscriptionState::Parked).count()
    };
    if parked(&own) > 0 {
        add(
            "grants",
            "some of the daemon's own subscriptions cannot be created; it hears of grants later",
            "each says why in `eventsubd status`; `twitch.watch_grants = false` does without them",
        );
    }
    if parked(&theirs) > 0 {
        let message = format!("{} of {} subscriptions cannot be created", parked(&theirs), theirs.len());
        add("subscriptions", &message, "each says why in `eventsubd status`");
    }
    found
}
