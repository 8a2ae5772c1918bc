//! Where everything is to be: the conduit with its shards, or the callback; and the places that are left.
//!
//! Nothing is made that was not remembered before, so that a crash leaves nothing behind that is not known to be ours.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::engine::Engine;
use super::look::is_unused;
use super::{Stop, stop};
use crate::helix::Conduit;
use crate::model::shard::ShardTarget;
use crate::model::status::ConduitStatus;
use crate::model::subscription::{SubscriptionRow, TransportTarget};
use crate::model::text::chain;
use crate::reconcile::api::{Api, Failure};
use crate::reconcile::clock::wall;
use crate::reconcile::decide::conduit::{self, Choice};
use crate::reconcile::decide::place::{Place, Places};
use crate::reconcile::memory::{Intent, conduit_name, intent_name, urls_name, urls_value};
use crate::reconcile::{Desired, Method};

impl<A: Api> Engine<A> {
    /// Where subscriptions are to be, and where they may be.
    pub(in crate::reconcile) async fn settle(&mut self, desired: &Desired) -> Result<Places, Stop> {
        if desired.method == Method::Conduit {
            let conduit = self.settle_conduit(desired).await?;
            let current = Place::Conduit(conduit.id.into());
            return Ok(Places { current, conduit: None, urls: self.urls.clone() });
        }
        let Some(webhook) = &desired.webhook else {
            return Err(Stop("there is no callback; set `transport.webhook.callback`".to_owned()));
        };
        if !self.urls.contains(&webhook.url) {
            let mut urls = self.urls.clone();
            urls.insert(webhook.url.clone());
            self.remember_urls(urls).await?;
        }
        Ok(Places {
            current: Place::webhook(&webhook.url, webhook.keys.current()),
            conduit: desired.conduit_id.as_deref().or(self.remembered.as_deref()).map(Into::into),
            urls: self.urls.clone(),
        })
    }

    /// Nothing is made with a URL before it is remembered: what points to it is ours from then on.
    async fn remember_urls(&mut self, urls: BTreeSet<Arc<str>>) -> Result<(), Stop> {
        let value = urls_value(&urls);
        let change = (urls_name(&self.options.client_id), (!urls.is_empty()).then_some(value));
        self.memory
            .save(vec![change])
            .await
            .map_err(|error| Stop(format!("the callback's URL cannot be remembered: {}", chain(&error))))?;
        self.urls = urls;
        Ok(())
    }

    /// Looks after the places that we leave: a conduit with live subscriptions keeps its shards, a URL that
    /// nothing points to any more is forgotten.
    pub(in crate::reconcile) async fn tend_old_places(
        &mut self,
        desired: &Desired,
        places: &Places,
        rows: &[SubscriptionRow],
    ) -> Result<(), Stop> {
        let url = desired.webhook.as_ref().filter(|_| desired.method == Method::Webhook);
        let deserted = places.deserted(rows, url.map(|webhook| &webhook.url));
        if !deserted.is_empty() {
            let urls = self.urls.iter().filter(|url| !deserted.contains(url)).cloned().collect();
            self.remember_urls(urls).await?;
        }
        if desired.method == Method::Conduit {
            return Ok(());
        }
        let old = places.conduit.as_ref().filter(|id| {
            let on_it = |row: &SubscriptionRow| {
                matches!(&row.target, TransportTarget::Conduit { conduit_id } if conduit_id == *id)
            };
            rows.iter().any(|row| row.status.is_live() && on_it(row))
        });
        let told = self.target.borrow().as_ref().map(|target| target.conduit_id.clone());
        match old {
            Some(id) if told.as_ref() != Some(id) => {
                let conduits = self.api.conduits().await;
                let conduits =
                    conduits.map_err(|failure| stop("the conduits could not be listed", &failure))?;
                if let Some(conduit) = conduits.into_iter().find(|conduit| *conduit.id == **id) {
                    self.publish_target(desired, &conduit.id, conduit.shard_count);
                    self.publisher.status.conduit =
                        Some(ConduitStatus { id: conduit.id, shard_count: conduit.shard_count });
                }
            }
            Some(_) => {}
            None => {
                // First it is told that there is no conduit: shards that go then are no loss.
                self.publisher.status.conduit = None;
                self.publisher.flush();
                self.target.send_if_modified(|target| target.take().is_some());
            }
        }
        Ok(())
    }

    /// Our conduit, with the right number of shards, and the shards told of it.
    async fn settle_conduit(&mut self, desired: &Desired) -> Result<Conduit, Stop> {
        let existing = self
            .api
            .conduits()
            .await
            .map_err(|failure| stop("the conduits could not be listed", &failure))?;
        let configured = desired.conduit_id.as_deref();
        let choice =
            conduit::choose(configured, self.remembered.as_deref(), self.intent.as_ref(), &existing, wall());
        let mut shards = conduit::shard_count(desired.shards);
        if desired.shards_call && self.report.borrow().wants_stand_in {
            shards = shards.max(2);
        }
        let conduit = match choice {
            Choice::Use(conduit) => conduit,
            Choice::Missing { id } => {
                return Err(Stop(format!(
                    "the conduit {id} of `transport.conduit.id` does not exist; there are: {}; correct the id, or \
                     take it out to have a conduit made",
                    or_none(&conduit::list(&existing))
                )));
            }
            Choice::Recover(conduit) if is_unused(&self.api, &conduit.id).await? => {
                tracing::info!(
                    conduit_id = conduit.id,
                    "found the conduit that was made before the last end"
                );
                self.remember_conduit(&conduit).await?;
                conduit
            }
            Choice::Recover(_) => self.make_conduit(shards, &existing).await?,
            Choice::Make { gone } => {
                if let Some(gone) = gone {
                    tracing::warn!(
                        conduit_id = gone,
                        "our conduit is gone (deleted, or no shard was bound for 72 hours); making another, and all \
                         subscriptions again"
                    );
                }
                self.make_conduit(shards, &existing).await?
            }
        };
        let conduit = self.resize(desired, conduit, shards).await?;
        self.publish_target(desired, &conduit.id, conduit.shard_count.min(shards));
        if self.publisher.status.conduit.as_ref().is_some_and(|known| known.id != conduit.id) {
            // A new one has no subscriptions yet, whatever the last run has found.
            self.publisher.status.converged = false;
        }
        self.publisher.status.conduit =
            Some(ConduitStatus { id: conduit.id.clone(), shard_count: conduit.shard_count });
        Ok(conduit)
    }

    async fn make_conduit(&mut self, shards: u32, existing: &[Conduit]) -> Result<Conduit, Stop> {
        let client = self.options.client_id.clone();
        let before = existing.iter().map(|conduit| conduit.id.clone()).collect();
        let intent = Intent { at: wall(), before };
        let unsaved = |error| Stop(format!("the conduit cannot be remembered: {}", chain(&error)));
        self.memory.save(vec![(intent_name(&client), Some(intent.to_value()))]).await.map_err(unsaved)?;
        self.intent = Some(intent);
        match self.api.create_conduit(shards).await {
            Ok(conduit) => {
                tracing::info!(conduit_id = conduit.id, shards, "made a conduit");
                self.remember_conduit(&conduit).await?;
                Ok(conduit)
            }
            // It may have been made: the intent stays.
            Err(failure @ Failure::Passing { .. }) => Err(stop("no conduit could be made", &failure)),
            Err(failure) => {
                self.intent = None;
                self.memory.save(vec![(intent_name(&client), None)]).await.map_err(unsaved)?;
                Err(match failure {
                    Failure::Quota { message } => Stop(format!(
                        "Twitch allows no more conduits (429: {message}); there are: {}; set `transport.conduit.id` \
                         to adopt one of them, or delete one",
                        or_none(&conduit::list(existing))
                    )),
                    failure => stop("no conduit could be made", &failure),
                })
            }
        }
    }

    /// Nothing is done with a conduit before it is remembered.
    async fn remember_conduit(&mut self, conduit: &Conduit) -> Result<(), Stop> {
        let client = &self.options.client_id;
        let changes = vec![(conduit_name(client), Some(conduit.id.clone())), (intent_name(client), None)];
        self.memory
            .save(changes)
            .await
            .map_err(|error| Stop(format!("the conduit cannot be remembered: {}", chain(&error))))?;
        self.remembered = Some(conduit.id.clone());
        self.intent = None;
        Ok(())
    }

    async fn resize(&mut self, desired: &Desired, conduit: Conduit, shards: u32) -> Result<Conduit, Stop> {
        if conduit.shard_count == shards {
            return Ok(conduit);
        }
        if shards < conduit.shard_count {
            // First the sockets close, so that none of them reads a shard that is no more.
            self.publish_target(desired, &conduit.id, shards);
        }
        match self.api.resize_conduit(&conduit.id, shards).await {
            Ok(resized) => {
                tracing::info!(
                    conduit_id = conduit.id,
                    from = conduit.shard_count,
                    to = shards,
                    "resized the conduit"
                );
                Ok(Conduit { shard_count: resized.shard_count.min(shards).max(1), ..conduit })
            }
            Err(
                failure @ (Failure::Credentials { .. } | Failure::Passing { .. } | Failure::NotFound { .. }),
            ) => Err(stop("the conduit could not be resized", &failure)),
            Err(failure) => {
                self.warnings.push(format!(
                    "Twitch does not resize the conduit from {} to {shards} shards: {failure}; set \
                     `transport.conduit.shards` to what Twitch allows",
                    conduit.shard_count
                ));
                Ok(conduit)
            }
        }
    }

    /// While shards are moved from sockets to a callback, the sockets stay.
    fn publish_target(&mut self, desired: &Desired, conduit_id: &str, shards: u32) {
        let webhook = desired.webhook.as_ref().filter(|_| desired.shards_call);
        let all_call = self.report.borrow().all_call;
        let sockets = match (webhook, &*self.target.borrow()) {
            (None, _) => shards,
            (Some(_), Some(before)) if *before.conduit_id == *conduit_id && !all_call => {
                before.sockets.min(shards)
            }
            (Some(_), _) => 0,
        };
        let new = ShardTarget { conduit_id: conduit_id.into(), shards, sockets, webhook: webhook.cloned() };
        let now = Instant::now();
        let since = &mut self.target_at;
        self.target.send_if_modified(|target| {
            let changed = target.as_ref() != Some(&new);
            if changed {
                *target = Some(new);
                *since = now;
            }
            changed
        });
    }
}

fn or_none(list: &str) -> &str {
    if list.is_empty() { "none" } else { list }
}
