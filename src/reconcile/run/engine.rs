//! What is kept between runs, and how it hangs together with the binder and the handle.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::publish::Publisher;
use crate::model::pulse::Pulse;
use crate::model::route::{Routes, SinkName};
use crate::model::shard::{Sessions, ShardTarget};
use crate::model::status::{ReconcileStatus, SubscriptionEntry};
use crate::model::subscription::SubscriptionKey;
use crate::reconcile::api::Api;
use crate::reconcile::bind::binder::{Binder, ShardReport};
use crate::reconcile::bind::reach::{Prover, Reach};
use crate::reconcile::clock::wall;
use crate::reconcile::decide::grants::Grants;
use crate::reconcile::decide::logins::Logins;
use crate::reconcile::decide::park::ParkTable;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::memory::{
    Intent, LOGIN_PREFIX, Memory, MemoryError, conduit_name, hold_name, intent_name, parse_urls, recall_one,
    urls_name,
};
use crate::reconcile::{Desired, Hints, InUse, ReconcileHandle, ReconcileOptions, Requests};

/// Everything that lives as long as the reconciler.
#[derive(Debug)]
pub(in crate::reconcile) struct Engine<A> {
    pub(in crate::reconcile) api: A,
    pub(in crate::reconcile) memory: MemoryHandle,
    pub(in crate::reconcile) options: ReconcileOptions,
    pub(in crate::reconcile) desired: watch::Receiver<Arc<Desired>>,
    pub(in crate::reconcile) requests: watch::Receiver<Requests>,
    pub(in crate::reconcile) report: watch::Receiver<ShardReport>,
    pub(in crate::reconcile) target: watch::Sender<Option<ShardTarget>>,
    /// When the target last changed.
    pub(in crate::reconcile) target_at: Instant,
    pub(in crate::reconcile) publisher: Publisher,
    /// Of the last run.
    pub(in crate::reconcile) warnings: Vec<String>,
    pub(in crate::reconcile) logins: Logins,
    pub(in crate::reconcile) parked: ParkTable,
    pub(in crate::reconcile) grants: Grants,
    /// The conduit that we made, and the intent to make one.
    pub(in crate::reconcile) remembered: Option<String>,
    pub(in crate::reconcile) intent: Option<Intent>,
    /// The public URLs that subscriptions of ours may point to.
    pub(in crate::reconcile) urls: BTreeSet<Arc<str>>,
    pub(in crate::reconcile) prover: Prover,
    /// Since when subscriptions, by id, have waited for their challenge.
    pub(in crate::reconcile) unverified: HashMap<Box<str>, Instant>,
    /// Whether the last run left something that another one has to look after soon.
    pub(in crate::reconcile) unsettled: bool,
    pub(in crate::reconcile) in_use: watch::Sender<Option<InUse>>,
    /// While deletes are held: of how many.
    pub(in crate::reconcile) held_of: Option<u64>,
    /// The generation for which held deletes are allowed.
    pub(in crate::reconcile) allowed: Option<u64>,
    /// What the last run that began had seen.
    pub(in crate::reconcile) seen: (u64, Requests),
    /// When the list was last asked for, and how many pages it had.
    pub(in crate::reconcile) listed: Option<(Instant, u32)>,
    routes_out: watch::Sender<Option<Arc<Routes>>>,
    /// Also of subscriptions that were taken out of the file, until the process ends: their events
    /// may still be on their way to the sinks.
    routes: HashMap<SubscriptionKey, Arc<[SinkName]>>,
    pub(in crate::reconcile) answered: watch::Sender<u64>,
    pub(in crate::reconcile) revoked: Arc<Notify>,
    pub(in crate::reconcile) hints: Arc<Hints>,
    pub(in crate::reconcile) trouble: Arc<Notify>,
    pub(in crate::reconcile) binder: Option<Binder<A>>,
    pub(in crate::reconcile) next_refresh: Instant,
    pub(in crate::reconcile) pulse: Pulse,
}

/// [`Memory`] with a name in `Debug` texts.
#[derive(Clone)]
pub(in crate::reconcile) struct MemoryHandle(Arc<dyn Memory>);

impl std::ops::Deref for MemoryHandle {
    type Target = dyn Memory;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Debug for MemoryHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

/// Builds it, with its binder and the handle.
pub(in crate::reconcile) fn build<A: Api>(
    api: &A,
    memory: Arc<dyn Memory>,
    reach: Arc<dyn Reach>,
    desired: watch::Receiver<Arc<Desired>>,
    sessions: watch::Receiver<Sessions>,
    options: ReconcileOptions,
) -> (Engine<A>, ReconcileHandle) {
    let (target, target_out) = watch::channel(None);
    let (bindings, bindings_out) = watch::channel(Arc::default());
    let (report_in, report) = watch::channel(ShardReport::default());
    let (hooks_in, hooks) = watch::channel(Default::default());
    let (in_use, in_use_out) = watch::channel(None);
    let (routes_out, routes) = watch::channel(None);
    let (status_out, status) = watch::channel(ReconcileStatus::default());
    let (entries_out, subscriptions) = watch::channel::<Arc<[SubscriptionEntry]>>(Arc::new([]));
    let (requests_in, requests) = watch::channel(Requests::default());
    let (answered, answered_out) = watch::channel(0);
    let (revoked, trouble) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hints = Arc::new(Hints::default());
    let now = Instant::now();
    let (pulse, binder_pulse) = (Pulse::default(), Pulse::default());
    let handle = ReconcileHandle {
        target: target_out.clone(),
        bindings: bindings_out,
        hooks,
        in_use: in_use_out,
        routes,
        status,
        subscriptions,
        requests: Arc::new(requests_in),
        answered: answered_out,
        revoked: revoked.clone(),
        hints: hints.clone(),
        pulse: pulse.clone(),
        binder_pulse: binder_pulse.clone(),
    };
    let binder = Binder {
        api: api.with_pulse(&binder_pulse),
        pulse: binder_pulse,
        options: options.clone(),
        target: target_out,
        sessions,
        bindings,
        hooks: hooks_in,
        prover: Prover::new(reach.clone(), options.reach_life),
        report: report_in,
        trouble: trouble.clone(),
        hints: hints.clone(),
    };
    let engine = Engine {
        api: api.with_pulse(&pulse),
        memory: MemoryHandle(memory),
        desired,
        requests,
        report,
        target,
        target_at: now,
        publisher: Publisher::new(options.publish_pause, status_out, entries_out),
        warnings: Vec::new(),
        logins: Logins::new(options.login_refresh, options.retry),
        parked: ParkTable::new(options.retry),
        grants: Grants::default(),
        remembered: None,
        intent: None,
        urls: BTreeSet::new(),
        prover: Prover::new(reach, options.reach_life),
        unverified: HashMap::new(),
        unsettled: false,
        in_use,
        held_of: None,
        allowed: None,
        seen: (0, Requests::default()),
        listed: None,
        routes_out,
        routes: HashMap::new(),
        answered,
        revoked,
        hints,
        trouble,
        binder: Some(binder),
        next_refresh: now + options.login_refresh_pause,
        options,
        pulse,
    };
    (engine, handle)
}

impl<A: Api> Engine<A> {
    /// Reads what is remembered over restarts.
    pub(in crate::reconcile) async fn recall(&mut self) -> Result<(), MemoryError> {
        let client = self.options.client_id.clone();
        let logins = self.memory.load(LOGIN_PREFIX).await?;
        self.remembered = recall_one(&*self.memory, &conduit_name(&client)).await?;
        self.intent =
            recall_one(&*self.memory, &intent_name(&client)).await?.as_deref().and_then(Intent::parse);
        self.held_of =
            recall_one(&*self.memory, &hold_name(&client)).await?.and_then(|text| text.parse().ok());
        let urls = recall_one(&*self.memory, &urls_name(&client)).await?;
        self.urls = parse_urls(urls.as_deref());
        self.logins.remember(&logins, Instant::now().into_std(), wall());
        Ok(())
    }

    /// Publishes where events go, when that has changed.
    pub(in crate::reconcile) fn publish_routes(&mut self, wanted: &Wanted) {
        let mut changed = self.routes_out.borrow().is_none();
        for key in &wanted.keys {
            match wanted.restricted.get(key) {
                Some(sinks) if self.routes.get(key) != Some(sinks) => {
                    self.routes.insert(key.clone(), sinks.clone());
                    changed = true;
                }
                Some(_) => {}
                None => changed |= self.routes.remove(key).is_some(),
            }
        }
        if changed {
            self.routes_out.send_replace(Some(Arc::new(Routes::new(self.routes.clone()))));
        }
    }

    /// Puts the warnings of all parts together.
    pub(in crate::reconcile) fn compose_warnings(&mut self) {
        let mut warnings = self.report.borrow_and_update().warnings.clone();
        warnings.extend(self.warnings.iter().cloned());
        warnings.extend(self.logins.warnings());
        self.publisher.status.warnings = warnings;
    }
}
