//! Owner of our places during runs: the conduit with its shards, or the callback, and the places that are being left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::out::Out;
use crate::helix::{Conduit, HelixError, HelixErrorKind};
use crate::model::cluster::Leadership;
use crate::model::shard::{ShardId, ShardSet, ShardTarget, WebhookTarget, first_shards};
use crate::model::status::ConduitStatus;
use crate::model::subscription::{SubscriptionRow, TransportTarget};
use crate::model::webhook::KeyId;
use crate::reconcile::api::Api;
use crate::reconcile::bind::binder::ShardReport;
use crate::reconcile::bind::reach::{Prover, Reach};
use crate::reconcile::decide::conduit;
use crate::reconcile::decide::place::Places;
use crate::reconcile::error::RunError;
use crate::reconcile::memory::{MemoryError, MemoryHandle};
use crate::reconcile::remembered::{Found, RememberedPlaces};
use crate::reconcile::{Desired, InUse, Method, ReconcileOptions};
use crate::telemetry::Publish;

/// Our places, ready to be used, with what there is to show of them.
#[derive(Debug)]
pub(in crate::reconcile) struct PreparedPlaces {
    pub(in crate::reconcile) places: Places,
    /// The conduit that subscriptions are created on.
    pub(in crate::reconcile) conduit: Option<ConduitStatus>,
    /// Warnings about the conduit, for people.
    pub(in crate::reconcile) warning: Option<String>,
}

/// Our places, and the shards' share in them: what is remembered, which shards there shall be, how they are.
#[derive(Debug)]
pub(in crate::reconcile) struct PlaceRegistry {
    memory: MemoryHandle,
    client_id: String,
    remembered: RememberedPlaces,
    target: watch::Sender<Option<ShardTarget>>,
    /// When the target last changed.
    target_at: Instant,
    report: watch::Receiver<ShardReport>,
    prover: Prover,
    /// Time that creates wait for new shards to be bound.
    bind_wait: Duration,
    /// The orders of the cluster, which say how many hosts there are.
    leadership: Option<watch::Receiver<Leadership>>,
}

impl PlaceRegistry {
    pub(in crate::reconcile) fn new(
        memory: MemoryHandle,
        reach: Arc<dyn Reach>,
        target: watch::Sender<Option<ShardTarget>>,
        report: watch::Receiver<ShardReport>,
        options: &ReconcileOptions,
    ) -> Self {
        Self {
            remembered: RememberedPlaces::new(memory.clone(), options.client_id.clone()),
            memory,
            client_id: options.client_id.clone(),
            target,
            target_at: Instant::now(),
            report,
            prover: Prover::new(reach, options.reach_life),
            bind_wait: options.bind_wait,
            leadership: options.leadership.clone(),
        }
    }

    pub(in crate::reconcile) async fn recall(&mut self) -> Result<(), MemoryError> {
        self.remembered.recall().await
    }

    /// Forgets what is remembered, so that it is read again.
    pub(in crate::reconcile) fn forget(&mut self) {
        self.remembered = RememberedPlaces::new(self.memory.clone(), self.client_id.clone());
    }

    /// Has all sockets closed: another host has its own.
    pub(in crate::reconcile) fn close_sockets(&mut self) {
        self.target.send_if_modified(|target| target.take().is_some());
    }

    /// Forgets earlier proofs that the callback can be reached.
    pub(in crate::reconcile) fn forget_proofs(&mut self) {
        self.prover.forget();
    }

    /// Makes sure that subscriptions have a place to be created on, and returns all places of ours.
    pub(in crate::reconcile) async fn prepare<A: Api>(
        &mut self,
        api: &A,
        desired: &Desired,
    ) -> Result<PreparedPlaces, RunError> {
        if desired.method == Method::Conduit {
            let (conduit, warning) = self.prepare_conduit(api, desired).await?;
            let places = self.remembered.on_conduit(&conduit.id);
            return Ok(PreparedPlaces { places, conduit: Some(status_of(&conduit)), warning });
        }
        let places = self.remembered.on_callback(desired)?;
        // Remembered before anything is made with the URL: what points to it counts as ours from then on.
        self.remembered.remember_urls(places.urls.clone()).await?;
        Ok(PreparedPlaces { places, conduit: None, warning: None })
    }

    /// Looks after the places that we leave: a conduit with live subscriptions keeps its shards, a URL without
    /// subscriptions is forgotten.
    pub(in crate::reconcile) async fn tend_old<A: Api>(
        &mut self,
        api: &A,
        desired: &Desired,
        places: &Places,
        rows: &[SubscriptionRow],
        out: &mut Out,
    ) -> Result<(), RunError> {
        let url = desired.webhook.as_ref().filter(|_| desired.method == Method::Webhook);
        let deserted = places.deserted(rows, url.map(|webhook| &webhook.url));
        let deserted: BTreeSet<Arc<str>> = deserted.into_iter().cloned().collect();
        self.remembered.forget_urls(&deserted).await?;
        if desired.method == Method::Conduit {
            return Ok(());
        }
        let old = places.conduit.as_ref().filter(|id| {
            let is_on_it = |row: &SubscriptionRow| {
                matches!(&row.target, TransportTarget::Conduit { conduit_id } if conduit_id == *id)
            };
            rows.iter().any(|row| row.status.is_live() && is_on_it(row))
        });
        let published = self.target.borrow().as_ref().map(|target| target.conduit_id.clone());
        match old {
            Some(id) if published.as_ref() != Some(id) => {
                let conduits = api.conduits().await;
                let conduits =
                    conduits.map_err(|failure| RunError::api("the conduits could not be listed", failure))?;
                if let Some(conduit) = conduits.into_iter().find(|conduit| *conduit.id == **id) {
                    self.publish_target(desired, &conduit.id, conduit.shard_count);
                    out.show_conduit(Some(status_of(&conduit)));
                }
            }
            Some(_) => {}
            None => {
                // The status goes first: sockets that close then are no longer expected to deliver.
                out.show_conduit(None);
                out.flush();
                self.target.publish(None);
            }
        }
        Ok(())
    }

    /// Why the callback cannot be reached from outside; `None` if it can.
    pub(in crate::reconcile) async fn unreachable(&mut self, webhook: &WebhookTarget) -> Option<String> {
        self.prover.prove(&webhook.url, webhook.keys.current()).await.err()
    }

    /// Waits for shards that were published a moment ago: new subscriptions deliver at once, and events that no
    /// shard takes are lost.
    pub(in crate::reconcile) async fn await_shards(&self) {
        let Some(target) = self.target.borrow().clone() else { return };
        let all = |bound: u32| bound >= target.shards;
        let mut report = self.report.clone();
        let bound = report
            .wait_for(|report| report.conduit_id.as_ref() == Some(&target.conduit_id) && all(report.bound));
        let waited = timeout_at(self.target_at + self.bind_wait, bound).await.is_ok();
        let bound = self.report.borrow().bound;
        if !waited && !all(bound) {
            tracing::warn!(
                bound,
                shards = target.shards,
                "creating subscriptions before all shards are bound: their first events may be lost"
            );
        }
    }

    /// Whether all shards of the file call us, as it wants.
    pub(in crate::reconcile) fn shards_are_as_wanted(&self, desired: &Desired) -> bool {
        !desired.shards_call || self.report.borrow().all_call
    }

    /// Secrets and callbacks in use, given the secrets of the subscriptions that call us. The list of shards adds
    /// theirs; before it was read, shards may have any secret.
    pub(in crate::reconcile) fn in_use(
        &self,
        desired: &Desired,
        places: &Places,
        mut keys: BTreeSet<KeyId>,
    ) -> InUse {
        let subscriptions = !keys.is_empty() || places.current.is_webhook();
        let webhook = desired.webhook.as_ref();
        if self.target.borrow().is_some() {
            match (&self.report.borrow().keys, webhook) {
                (Some(of_shards), _) => keys.extend(of_shards),
                (None, Some(webhook)) => keys.extend(webhook.keys.all().iter().map(|key| key.id)),
                (None, None) => {}
            }
        }
        let calls = !keys.is_empty() || desired.shards_call || places.current.is_webhook();
        keys.extend(webhook.map(|webhook| webhook.keys.current().id).filter(|_| calls));
        InUse { keys, calls, subscriptions }
    }

    /// Our conduit with the right number of shards, published to the shards.
    async fn prepare_conduit<A: Api>(
        &mut self,
        api: &A,
        desired: &Desired,
    ) -> Result<(Conduit, Option<String>), RunError> {
        let (found, existing) = self.remembered.find_conduit(api, desired).await?;
        let hosts = self.leadership.as_ref().map_or(1, |leadership| leadership.borrow().hosts);
        let mut shards = desired.shards.for_hosts(hosts);
        if desired.shards_call && self.report.borrow().wants_stand_in {
            shards = shards.max(2);
        }
        let conduit = match found {
            Found::Ours(conduit) => conduit,
            Found::Recovered(conduit) => {
                tracing::info!(
                    conduit_id = conduit.id,
                    "found the conduit that was created before the last stop"
                );
                self.remembered.remember_conduit(&conduit.id).await?;
                conduit
            }
            Found::Missing { gone } => {
                if let Some(gone) = gone {
                    tracing::warn!(
                        conduit_id = gone,
                        "our conduit is gone (deleted, or no shard was bound for 72 hours); making another, and all \
                         subscriptions again"
                    );
                }
                self.make_conduit(api, shards, &existing).await?
            }
        };
        let (conduit, warning) = self.resize(api, desired, conduit, shards).await?;
        self.publish_target(desired, &conduit.id, conduit.shard_count.min(shards));
        Ok((conduit, warning))
    }

    async fn make_conduit<A: Api>(
        &mut self,
        api: &A,
        shards: u32,
        existing: &[Conduit],
    ) -> Result<Conduit, RunError> {
        const FAILED: &str = "no conduit could be made";
        self.remembered.intend_conduit(existing).await?;
        match api.create_conduit(shards).await {
            Ok(conduit) => {
                tracing::info!(conduit_id = conduit.id, shards, "created a conduit");
                self.remembered.remember_conduit(&conduit.id).await?;
                Ok(conduit)
            }
            // Twitch may have made it: the intent stays.
            Err(failure) if failure.kind() == HelixErrorKind::Unavailable => {
                Err(RunError::api(FAILED, failure))
            }
            Err(failure) => {
                self.remembered.drop_intent().await?;
                Err(match failure {
                    HelixError::Quota { message } => RunError::Refused(format!(
                        "Twitch allows no more conduits (429: {message}); there are: {}; set `transport.conduit.id` \
                         to adopt one of them, or delete one",
                        conduit::list(existing)
                    )),
                    failure => RunError::api(FAILED, failure),
                })
            }
        }
    }

    async fn resize<A: Api>(
        &mut self,
        api: &A,
        desired: &Desired,
        conduit: Conduit,
        shards: u32,
    ) -> Result<(Conduit, Option<String>), RunError> {
        if conduit.shard_count == shards {
            return Ok((conduit, None));
        }
        if shards < conduit.shard_count {
            // The sockets close first, so that none of them reads a shard that no longer exists.
            self.publish_target(desired, &conduit.id, shards);
        }
        match api.resize_conduit(&conduit.id, shards).await {
            Ok(resized) => {
                tracing::info!(
                    conduit_id = conduit.id,
                    from = conduit.shard_count,
                    to = shards,
                    "resized the conduit"
                );
                let shard_count = resized.shard_count.min(shards).max(1);
                Ok((Conduit { shard_count, ..conduit }, None))
            }
            Err(failure) if failure.is_outage() || matches!(failure, HelixError::NotFound { .. }) => {
                Err(RunError::api("the conduit could not be resized", failure))
            }
            Err(failure) => {
                let warning = format!(
                    "Twitch does not resize the conduit from {} to {shards} shards: {failure}; set \
                     `transport.conduit.shards` to what Twitch allows",
                    conduit.shard_count
                );
                Ok((conduit, Some(warning)))
            }
        }
    }

    /// Publishes which shards there shall be. While shards move from sockets to a callback, the sockets stay.
    fn publish_target(&mut self, desired: &Desired, conduit_id: &str, shards: u32) {
        let webhook = desired.webhook.as_ref().filter(|_| desired.shards_call);
        let all_call = self.report.borrow().all_call;
        let sockets = match (webhook, &*self.target.borrow()) {
            (None, _) => first_shards(shards),
            (Some(_), Some(before)) if *before.conduit_id == *conduit_id && !all_call => {
                Arc::new(before.sockets.range(..ShardId(shards)).copied().collect())
            }
            (Some(_), _) => ShardSet::default(),
        };
        let new = ShardTarget { conduit_id: conduit_id.into(), shards, sockets, webhook: webhook.cloned() };
        if self.target.publish(Some(new)) {
            self.target_at = Instant::now();
        }
    }
}

fn status_of(conduit: &Conduit) -> ConduitStatus {
    ConduitStatus { id: conduit.id.clone(), shard_count: conduit.shard_count }
}
