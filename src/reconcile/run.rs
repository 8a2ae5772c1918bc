//! One run: conduit, logins, list, plan, execution. Nothing is planned before all of it was read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::api::{Api, Failure};
use super::conduit::{self, Choice};
use super::engine::Engine;
use super::execute::{Costs, End, Job, Outcome, execute};
use super::grants::Grants;
use super::logins::USERS_PER_CALL;
use super::memory::{Intent, conduit_name, hold_name, intent_name, urls_name};
use super::park::Obstacle;
use super::place::{Place, Places, Side};
use super::plan::{Input, Planned, plan};
use super::publish::{Change, wall};
use super::wanted::{self, Wanted};
use super::{Action, DeleteReason, Desired, InUse, Method, Requests, reason};
use crate::helix::{Conduit, Filter, MAX_GRANTS, SubscriptionList, User};
use crate::model::shard::ShardTarget;
use crate::model::status::{ConduitStatus, HeldDeletes, Progress};
use crate::model::subscription::{SubscriptionKey, SubscriptionRow, SubscriptionStatus, TransportTarget};
use crate::model::text::chain;
use crate::model::webhook::KeyId;

/// Calls of Get Users in hand at most.
const LOOKUPS: usize = 8;

/// Parked subscriptions that are logged one by one in a run; the others are counted.
const LOGGED: usize = 10;

/// Rows on a page of the list.
const PAGE: usize = 100;

/// Why a run ended early, for a person.
#[derive(Debug)]
pub(super) struct Stop(pub(super) String);

/// How it ended otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    Complete,
    /// Something newer is wanted.
    Cut,
    Cancelled,
}

/// Read and planned.
struct Prepared {
    places: Places,
    planned: Planned,
    costs: Costs,
    /// What calls us with which secrets.
    keys: BTreeSet<KeyId>,
}

/// What a run did.
#[derive(Default)]
struct Tally {
    created: u64,
    adopted: u64,
    deleted: u64,
    parked: usize,
    left: u64,
}

fn stop(what: &str, failure: &Failure) -> Stop {
    Stop(format!("{what}: {failure}"))
}

impl<A: Api> Engine<A> {
    pub(super) async fn run_once(&mut self, cancel: &CancellationToken) -> Result<RunEnd, Stop> {
        let desired = self.desired.borrow_and_update().clone();
        let requests = *self.requests.borrow_and_update();
        self.begin(&desired, requests);

        // Not cut by an edit: what it makes must be remembered first.
        let places = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            places = self.settle(&desired) => places?,
        };
        let newer = newer(self.desired.clone(), self.requests.clone(), requests.applies);
        tokio::pin!(newer);
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            () = &mut newer => return Ok(RunEnd::Cut),
            prepared = self.prepare(&desired, places) => prepared?,
        };
        let end = {
            let stopped = async {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = &mut newer => {}
                }
            };
            self.carry_out(&desired, prepared, stopped).await?
        };
        match end {
            RunEnd::Cut if cancel.is_cancelled() => Ok(RunEnd::Cancelled),
            end => Ok(end),
        }
    }

    /// Takes in what is asked, and shows the new subscriptions.
    fn begin(&mut self, desired: &Desired, requests: Requests) {
        let now = Instant::now().into_std();
        let (generation, before) = self.seen;
        if generation != desired.generation || before.applies != requests.applies {
            self.parked.release(now);
            self.logins.release(now);
            self.grants.forget_all();
            self.prover.forget();
        }
        if before.allows != requests.allows {
            self.allowed = Some(desired.generation);
        }
        self.seen = (desired.generation, requests);
        self.warnings.clear();
        self.logins.retain(&wanted::logins(&desired.specs));
        self.show(desired);
    }

    /// Resolves what can be resolved, and publishes it.
    fn show(&mut self, desired: &Desired) -> Wanted {
        let wanted = wanted::of(desired, &self.logins, &self.options.client_id);
        self.publish_routes(&wanted);
        self.publisher.rebase(&wanted);
        for (key, login) in &wanted.unresolved {
            if let Some(retry_at) = self.logins.not_found(login) {
                let reason = login_not_found(login).into();
                let obstacle = Obstacle::Login;
                self.publisher.set(key, Change::Parked { obstacle, reason, retry_at });
            }
        }
        self.publisher.tick();
        wanted
    }

    /// Where subscriptions are to be, and where they may be.
    async fn settle(&mut self, desired: &Desired) -> Result<Places, Stop> {
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
        let value = serde_json::to_string(&urls).expect("texts always make JSON");
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
    async fn tend_old_places(
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

    async fn prepare(&mut self, desired: &Desired, places: Places) -> Result<Prepared, Stop> {
        self.find_logins(desired).await?;
        let wanted = self.show(desired);
        let list = list(&self.api, &places.filter()).await?;
        let now = Instant::now();
        let pages = u32::try_from(list.rows.len() / PAGE).unwrap_or(u32::MAX).saturating_add(1);
        self.listed = Some((now, pages));
        self.tend_old_places(desired, &places, &list.rows).await?;
        let overdue = self.track_challenges(&places, &list.rows, now);
        let now = now.into_std();
        self.parked.retain(|key| wanted.keys.binary_search(key).is_ok(), now);
        let input = Input {
            places: &places,
            wanted: &wanted.keys,
            rows: &list.rows,
            parked: &self.parked,
            overdue: &overdue,
            unreachable: None,
            ungranted: &HashMap::new(),
            now,
            policy: desired.policy,
            max_delete: desired.max_delete,
            allow_deletes: self.allowed == Some(desired.generation),
            held_of: self.held_of,
            total_cost: list.total_cost,
            max_total_cost: list.max_total_cost,
        };
        let mut planned = plan(&input);
        let creates = || planned.plan.actions.iter().filter(|action| action.is_create()).map(Action::key);
        let by_id = self.logins.by_id();
        look_at_grants(&self.api, &mut self.grants, creates(), &by_id, now).await;
        let ungranted = self.grants.refusals(creates(), &by_id);
        let unreachable = match desired.webhook.as_ref().filter(|_| places.current.is_webhook()) {
            Some(webhook) if creates().next().is_some() => {
                self.prover.prove(&webhook.url, webhook.keys.current()).await.err()
            }
            _ => None,
        };
        if !ungranted.is_empty() || unreachable.is_some() {
            planned = plan(&Input { ungranted: &ungranted, unreachable: unreachable.as_deref(), ..input });
        }
        if let Some(why) = unreachable {
            tracing::warn!(error = why, "the callback cannot be reached; nothing is created");
            self.warnings.push(format!("the callback cannot be reached, so nothing is created: {why}"));
        }
        let absent = wanted.keys.iter().zip(&planned.live).filter(|(_, live)| live.is_none());
        self.publisher.status.grants = self.grants.status(absent.map(|(key, _)| key), &by_id);
        self.take_plan(&wanted, &planned);
        let costs = Costs::new(list.total_cost, list.max_total_cost);
        self.show_costs(&costs);
        self.remember_hold(&planned).await?;
        let progress = Progress { done: 0, total: planned.plan.actions.len() as u64 };
        self.publisher.status.progress = Some(progress);
        self.publisher.flush();
        if planned.plan.actions.iter().any(Action::is_create) && !places.current.is_webhook() {
            self.await_shards().await;
        }
        let keys = places.keys(&list.rows);
        Ok(Prepared { places, planned, costs, keys })
    }

    /// Which subscriptions have waited too long for their challenge.
    fn track_challenges(
        &mut self,
        places: &Places,
        rows: &[SubscriptionRow],
        now: Instant,
    ) -> HashSet<Box<str>> {
        let waits = |row: &&SubscriptionRow| {
            row.status == SubscriptionStatus::WebhookCallbackVerificationPending
                && places.side(&row.target) != Side::Foreign
        };
        let mut unverified = HashMap::new();
        for row in rows.iter().filter(waits) {
            let since = self.unverified.get(&row.id).copied().unwrap_or(now);
            unverified.insert(row.id.clone(), since);
        }
        self.unverified = unverified;
        let challenge = self.options.challenge;
        self.unverified
            .iter()
            .filter(|(_, since)| now >= **since + challenge)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Asks for the ids of logins that are not known.
    async fn find_logins(&mut self, desired: &Desired) -> Result<(), Stop> {
        let logins = desired.specs.iter().flat_map(super::SubscriptionSpec::logins);
        let missing = self.logins.missing(logins, Instant::now().into_std());
        if missing.is_empty() {
            return Ok(());
        }
        tracing::debug!(logins = missing.len(), "looking up logins");
        let api = self.api.clone();
        let calls: Vec<_> = missing.chunks(USERS_PER_CALL).map(<[_]>::to_vec).collect();
        let mut answers = futures_util::stream::iter(calls)
            .map(|asked: Vec<Arc<str>>| {
                let api = api.clone();
                async move {
                    let users = look_up(&api, &asked).await;
                    (asked, users)
                }
            })
            .buffer_unordered(LOOKUPS);
        let mut unknown = 0;
        while let Some((asked, users)) = answers.next().await {
            let users = users.map_err(|failure| stop("logins could not be looked up", &failure))?;
            let changes = self.logins.answered(&asked, &users, Instant::now().into_std(), wall());
            unknown += asked.len() - changes.len().min(asked.len());
            self.remember_logins(changes).await;
        }
        if unknown > 0 {
            tracing::warn!(
                logins = unknown,
                "twitch does not know some logins; their subscriptions are parked"
            );
        }
        Ok(())
    }

    /// Puts what the plan says into the tables and the status.
    fn take_plan(&mut self, wanted: &Wanted, planned: &Planned) {
        let now = Instant::now().into_std();
        for (key, live) in wanted.keys.iter().zip(&planned.live) {
            match live {
                Some(live) if live.enabled => {
                    // One that delivers from an older place may be parked for its new one.
                    if live.current {
                        self.parked.settled(key, now);
                    }
                    self.publisher.set(key, Change::Enabled(live.id.clone()));
                }
                Some(live) => self.publisher.set(key, Change::Pending(Some(live.id.clone()))),
                None => self.publisher.set(key, Change::Pending(None)),
            }
        }
        for (nth, (key, obstacle, reason)) in planned.park.iter().enumerate() {
            log_parked(nth, key, reason);
            self.parked.park(key, *obstacle, reason, now);
        }
        for (key, reason) in &planned.at_once {
            self.parked.try_at_once(key, reason, now);
        }
        for blocked in &planned.plan.blocked {
            if blocked.obstacle == Obstacle::Cost && blocked.retry_in.is_none() {
                self.parked.forget(&blocked.key);
            }
            if blocked.delivers {
                continue;
            }
            let change = Change::Parked {
                obstacle: blocked.obstacle,
                reason: blocked.reason.as_str().into(),
                retry_at: blocked.retry_in.map(|pause| now + pause),
            };
            self.publisher.set(&blocked.key, change);
        }
        let held =
            planned.plan.held_of.map(|ours| HeldDeletes { deletes: planned.plan.held.len() as u64, ours });
        if let Some(held) = held.filter(|held| self.publisher.status.deletes_held != Some(*held)) {
            tracing::warn!(
                deletes = held.deletes,
                ours = held.ours,
                "too large a part of our subscriptions would be deleted: waiting for `eventsubd apply --allow-deletes`"
            );
        }
        self.publisher.status.deletes_held = held;
    }

    /// A hold outlives a restart: what was created meanwhile must not make it slip.
    async fn remember_hold(&mut self, planned: &Planned) -> Result<(), Stop> {
        let held_of = planned.plan.held_of;
        if held_of != self.held_of {
            let change = (hold_name(&self.options.client_id), held_of.map(|of| of.to_string()));
            self.memory.save(vec![change]).await.map_err(|error| {
                Stop(format!("the hold on deletes cannot be remembered: {}", chain(&error)))
            })?;
            self.held_of = held_of;
        }
        Ok(())
    }

    fn show_costs(&mut self, costs: &Costs) {
        let status = &mut self.publisher.status;
        status.total_cost = Some(costs.total());
        status.max_total_cost = (costs.max > 0).then_some(costs.max);
    }

    /// New subscriptions deliver at once, and what no shard takes is lost: wait for the shards when
    /// they have just been told of.
    async fn await_shards(&mut self) {
        let Some(target) = self.target.borrow().clone() else { return };
        let all = |bound: u32| bound >= target.shards;
        let deadline = self.target_at + self.options.bind_wait;
        let mut report = self.report.clone();
        let waited = timeout_at(
            deadline,
            report.wait_for(|report| {
                report.conduit_id.as_ref() == Some(&target.conduit_id) && all(report.bound)
            }),
        )
        .await
        .is_ok();
        let bound = self.report.borrow().bound;
        if !waited && !all(bound) {
            tracing::warn!(
                bound,
                shards = target.shards,
                "creating subscriptions before all shards are bound: their first events may be lost"
            );
        }
    }

    async fn carry_out(
        &mut self,
        desired: &Desired,
        prepared: Prepared,
        stopped: impl Future<Output = ()>,
    ) -> Result<RunEnd, Stop> {
        let Prepared { places, planned, mut costs, keys } = prepared;
        let job = Job {
            api: &self.api,
            place: &places.current,
            concurrency: self.options.concurrency,
            drain: self.options.drain,
        };
        let mut tally = Tally::default();
        let mut by_id = None;
        let (logins, parked, publisher, warnings, unverified) =
            (&self.logins, &mut self.parked, &mut self.publisher, &mut self.warnings, &mut self.unverified);
        let end = execute(&job, &planned.plan.actions, &mut costs, stopped, |action, outcome, costs| {
            let now = Instant::now().into_std();
            let key = action.key();
            let refused = match outcome {
                Outcome::There { id, adopted, enabled } => {
                    tracing::debug!(subscription_id = &*id, subscription = %key, adopted, "subscription is there");
                    tally.adopted += u64::from(adopted);
                    tally.created += u64::from(!adopted);
                    parked.settled(key, now);
                    if enabled {
                        publisher.set(key, Change::Enabled(id));
                    } else {
                        unverified.insert(id.clone(), Instant::now());
                        publisher.begun(key, id);
                    }
                    None
                }
                Outcome::Deleted => {
                    tracing::debug!(subscription = %key, "subscription is deleted");
                    tally.deleted += 1;
                    None
                }
                Outcome::Failed => {
                    tally.left += 1;
                    None
                }
                Outcome::Refused(failure) if !action.is_create() => {
                    tally.left += 1;
                    warnings.push(format!("{key} could not be deleted: {failure}"));
                    warnings.truncate(20);
                    None
                }
                Outcome::Refused(failure) => {
                    let names = by_id.get_or_insert_with(|| logins.by_id());
                    reason::of_failure(key, &failure, |id| names.get(id).copied())
                }
                Outcome::Conflicted(reason) => Some((Obstacle::Ended, reason)),
                Outcome::NoRoom => Some((Obstacle::Cost, reason::cost_limit())),
            };
            if let Some((obstacle, reason)) = refused {
                log_parked(tally.parked, key, &reason);
                tally.parked += 1;
                let retry_at = parked.park(key, obstacle, &reason, now);
                if !publisher.delivers(key) {
                    publisher.set(key, Change::Parked { obstacle, reason: reason.into(), retry_at });
                }
            }
            if let Some(progress) = &mut publisher.status.progress {
                progress.done += 1;
            }
            publisher.status.total_cost = Some(costs.total());
            publisher.tick();
        })
        .await;
        self.show_costs(&costs);
        if !planned.plan.actions.is_empty() {
            tracing::info!(
                created = tally.created,
                adopted = tally.adopted,
                deleted = tally.deleted,
                parked = tally.parked,
                kept = planned.plan.keep,
                planned = planned.plan.actions.len(),
                "reconciled"
            );
        }
        match end {
            End::Stopped => Ok(RunEnd::Cut),
            End::ConduitGone => Err(Stop("the conduit is gone; another one is made".to_owned())),
            End::Failed(failure) => Err(stop("some subscriptions could not be created or deleted", &failure)),
            End::Complete => {
                self.complete(desired, &planned, &costs, tally.left);
                self.publish_use(desired, &places, keys);
                Ok(RunEnd::Complete)
            }
        }
    }

    /// Says what calls us, and with which secrets. While shards call, or did, their list tells as well; before it
    /// was read, they may have any secret.
    fn publish_use(&self, desired: &Desired, places: &Places, mut keys: BTreeSet<KeyId>) {
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
        let new = Some(InUse { keys, calls, subscriptions });
        self.in_use.send_if_modified(|told| {
            let changed = *told != new;
            *told = new;
            changed
        });
    }

    fn complete(&mut self, desired: &Desired, planned: &Planned, costs: &Costs, left: u64) {
        if costs.max > 0 && costs.total().saturating_mul(5) >= costs.max.saturating_mul(4) {
            self.warnings.push(format!(
                "the subscriptions cost {} of {}; beyond it Twitch creates none: have broadcasters authorize the \
                 application, or take subscriptions out of the file",
                costs.total(),
                costs.max
            ));
        }
        self.allowed = None;
        let pending = self.publisher.pending();
        let status = &mut self.publisher.status;
        status.moving = planned.moving;
        status.generation = desired.generation;
        // What was just left is looked at once more, so that its shards and its secret can go.
        let left_behind =
            |action: &Action| matches!(action, Action::Delete { reason: DeleteReason::Moved, .. });
        self.unsettled =
            planned.moving > 0 || !self.unverified.is_empty() || planned.plan.actions.iter().any(left_behind);
        status.converged = planned.plan.held_of.is_none()
            && left == 0
            && pending == 0
            && planned.moving == 0
            && (!desired.shards_call || self.report.borrow().all_call);
        status.finished_at = Some(wall());
        status.problem = None;
    }
}

/// Returns once another configuration or an `apply` is there.
async fn newer(
    mut desired: watch::Receiver<Arc<Desired>>,
    mut requests: watch::Receiver<Requests>,
    applies: u64,
) {
    let applied = async { requests.wait_for(|requests| requests.applies != applies).await.map(|_| ()) };
    tokio::select! {
        Ok(()) = desired.changed() => {}
        Ok(()) = applied => {}
        else => std::future::pending().await,
    }
}

fn log_parked(nth: usize, key: &SubscriptionKey, reason: &str) {
    if nth < LOGGED {
        tracing::warn!(subscription = %key, reason, "subscription is parked");
    } else {
        tracing::debug!(subscription = %key, reason, "subscription is parked");
    }
}

fn or_none(list: &str) -> &str {
    if list.is_empty() { "none" } else { list }
}

/// What a person reads of a login without a user.
pub(super) fn login_not_found(login: &str) -> String {
    format!(
        "Twitch knows no user with the login {login}: misspelt, renamed, banned or deleted; correct the file"
    )
}

/// Whether neither a shard nor a subscription was ever put on it.
pub(super) async fn is_unused<A: Api>(api: &A, conduit_id: &str) -> Result<bool, Stop> {
    let failed = |failure: Failure| stop("a conduit that may be ours could not be looked at", &failure);
    Ok(api.shards(conduit_id).await.map_err(failed)?.is_empty()
        && api.subscriptions(&Filter::Conduit(conduit_id.to_owned())).await.map_err(failed)?.rows.is_empty())
}

/// Asks what users have granted whose grants these subscriptions need. What Twitch does not say is not known:
/// then creating is what tells.
pub(super) async fn look_at_grants<'a, A: Api>(
    api: &A,
    grants: &mut Grants,
    keys: impl Iterator<Item = &'a SubscriptionKey>,
    by_id: &HashMap<&str, &str>,
    now: std::time::Instant,
) {
    let unknown = grants.unknown(keys, now);
    if unknown.is_empty() {
        return;
    }
    tracing::debug!(users = unknown.len(), "looking at what users have granted");
    let calls: Vec<Vec<Box<str>>> = unknown.chunks(MAX_GRANTS).map(<[_]>::to_vec).collect();
    let mut answers = futures_util::stream::iter(calls)
        .map(|asked| {
            let api = api.clone();
            async move {
                let ids: Vec<&str> = asked.iter().map(|id| &**id).collect();
                let rows = api.grants(&ids).await;
                (asked, rows)
            }
        })
        .buffer_unordered(LOOKUPS);
    let mut failure = None;
    while let Some((asked, rows)) = answers.next().await {
        match rows {
            Ok(rows) => grants.answered(&asked, rows, now),
            Err(failed) => failure = Some(failed),
        }
    }
    if let Some(failure) = failure {
        tracing::info!(error = %failure, "twitch does not say what some users have granted; it is tried without");
    }
    let nameless = grants.nameless(unknown.iter().map(|id| &**id), by_id);
    for asked in nameless.chunks(USERS_PER_CALL) {
        let ids: Vec<&str> = asked.iter().map(|id| &**id).collect();
        if let Ok(users) = api.users_by_id(&ids).await {
            grants.name(users.into_iter().map(|user| (user.id, user.login)));
        }
    }
}

async fn list<A: Api>(api: &A, filter: &Filter) -> Result<SubscriptionList, Stop> {
    api.subscriptions(filter).await.map_err(|failure| stop("the subscriptions could not be listed", &failure))
}

/// The users of these logins. One login that Twitch refuses fails its whole call: the call is halved
/// until that login is alone, and counts as not found.
pub(super) async fn look_up<A: Api>(api: &A, logins: &[Arc<str>]) -> Result<Vec<User>, Failure> {
    let mut users = Vec::new();
    let mut calls = vec![logins];
    while let Some(logins) = calls.pop() {
        let names: Vec<&str> = logins.iter().map(|login| &**login).collect();
        match api.users_by_login(&names).await {
            Ok(found) => users.extend(found),
            Err(Failure::Invalid { .. }) if logins.len() == 1 => {}
            Err(Failure::Invalid { .. }) => {
                let (left, right) = logins.split_at(logins.len() / 2);
                calls.extend([left, right]);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(users)
}
