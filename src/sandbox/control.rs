//! Control by tests: requests, faults and the state of the mock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::conduits::Shard;
use super::faults::{Fault, Route};
use super::news::{self, TriggerError};
use super::send::{self, Address};
use super::sessions::SOMEBODY_ELSE;
use super::state::{now, random_text, uuid};
use super::stats::Stats;
use super::webhook::{self, Challenge, Owner, WebhookOptions};
use super::{Sandbox, device, socket};
use crate::model::webhook::KeyId;
use crate::platform::{ConditionFields, Content, ENABLED, Endpoint, Order, PENDING, Subscription, Transport};

/// Events that a flood hands to a socket at once.
const FLOOD_BATCH: usize = 16;

/// A subscription as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionInfo {
    pub id: String,
    pub status: String,
    pub kind: String,
    pub version: String,
    /// Every field of its condition; empty when omitted.
    pub condition: Vec<(String, String)>,
    /// `None` for webhooks.
    pub conduit_id: Option<String>,
    /// `None` for conduits.
    pub callback: Option<String>,
    pub cost: u64,
}

/// A shard as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    pub number: u32,
    pub status: String,
    /// `None` for webhooks.
    pub session: Option<String>,
    /// `None` for WebSockets.
    pub callback: Option<String>,
}

impl Sandbox {
    /// Makes every token invalid, as when Twitch revokes them.
    pub fn revoke_all_tokens(&self) {
        self.world.lock().tokens.clear();
    }

    /// The tokens that are valid, for tests that look for them where they must not be.
    pub fn tokens(&self) -> Vec<String> {
        self.world.lock().tokens.texts()
    }

    /// Changes the secret; tokens stay.
    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.world.lock().secret);
    }

    /// Has requests fail; `u32::MAX` times is until [`Self::clear_faults`].
    pub fn fault(&self, route: Route, fault: Fault, times: u32) {
        self.world.lock().faults.plan(route, fault, times);
    }

    /// Ends all faults that are still to come.
    pub fn clear_faults(&self) {
        self.world.lock().faults.clear();
    }

    /// Has a user grant scopes to the application, which is told.
    pub async fn grant(&self, login: &str, scopes: &[&str]) {
        if let Some(id) = self.user_id(login) {
            let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            news::granted(&self.world, &id, &scopes).await;
        }
    }

    /// Has a user disconnect the application. Subscriptions that needed the user's grant end, and the application
    /// is told.
    pub async fn revoke_grants(&self, login: &str) {
        if let Some(id) = self.user_id(login) {
            news::disconnected(&self.world, &id).await;
        }
    }

    /// Makes a user a moderator of a channel.
    pub fn set_moderator(&self, channel: &str, login: &str) {
        if let (Some(channel), Some(user)) = (self.user_id(channel), self.user_id(login)) {
            self.world.lock().grants.set_moderator(&channel, &user);
        }
    }

    /// Ends that again. Subscriptions that needed it end with `moderator_removed`.
    pub async fn remove_moderator(&self, channel: &str, login: &str) {
        if let (Some(channel), Some(user)) = (self.user_id(channel), self.user_id(login)) {
            news::moderator_removed(&self.world, &channel, &user).await;
        }
    }

    /// Answers the newest device code: allowed by this user, or refused. False while nobody asks.
    pub async fn answer_device(&self, login: Option<&str>) -> bool {
        let code = self.world.lock().devices.newest();
        match code {
            Some(code) => device::answer(&self.world, &code, login).await,
            None => false,
        }
    }

    /// The id of a login, if there is such a user.
    pub fn user_id(&self, login: &str) -> Option<String> {
        self.world.id_of(login)
    }

    /// The conduits: id and number of shards.
    pub fn conduits(&self) -> Vec<(String, u32)> {
        self.world.lock().conduits.iter().map(|c| (c.id().to_owned(), c.shard_count())).collect()
    }

    /// Makes a conduit, as somebody else with the same application.
    pub fn create_conduit(&self, shards: u32) -> String {
        let id = uuid();
        self.world.lock().conduits.add(&id, &self.world.options.client_id, shards);
        id
    }

    /// Changes the rate limit, which is full again, and the latency of the API.
    pub fn set_pace(&self, bucket: u32, refill_per_minute: u32, latency: Duration) {
        let mut state = self.world.lock();
        state.buckets.reset(bucket, refill_per_minute);
        state.latency = latency;
    }

    /// Returns the fewest points that the rate limit of the application has had since the last call.
    pub fn lowest_points(&self) -> f64 {
        self.world.lock().buckets.reset_lowest(&self.world.options.client_id)
    }

    /// Sets the age of what Get Streams and Get Channel Information show.
    pub fn set_stream_delay(&self, delay: Duration) {
        self.world.lock().channels.set_delay(delay);
    }

    /// Deletes a conduit, as Twitch does after 72 hours without a shard.
    pub fn delete_conduit(&self, id: &str) {
        self.world.lock().delete_conduit(id);
    }

    /// Every subscription, oldest first.
    pub fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let state = self.world.lock();
        let info = |subscription: &Subscription| SubscriptionInfo {
            id: subscription.id.clone(),
            status: subscription.status.clone(),
            kind: subscription.kind.clone(),
            version: subscription.version.clone(),
            condition: subscription.condition.0.clone(),
            conduit_id: match &subscription.transport {
                Transport::Conduit(id) => Some(id.clone()),
                _ => None,
            },
            callback: match &subscription.transport {
                Transport::Webhook(endpoint) => Some(endpoint.callback.clone()),
                _ => None,
            },
            cost: subscription.cost,
        };
        state.subscriptions.iter().map(info).collect()
    }

    /// The number of subscriptions.
    pub fn subscription_count(&self) -> usize {
        self.world.lock().subscriptions.len()
    }

    /// Adds a subscription, as somebody else with the same application: on this conduit, or with a
    /// webhook.
    pub fn add_subscription(
        &self,
        kind: &str,
        version: &str,
        condition: &[(&str, &str)],
        conduit: Option<&str>,
    ) -> String {
        match conduit {
            Some(id) => self.add(kind, version, condition, Transport::Conduit(id.to_owned())),
            None => {
                let elsewhere = "https://elsewhere.example/callback";
                self.add_webhook(kind, version, condition, elsewhere, &random_text(40))
            }
        }
    }

    /// Adds an enabled subscription with this callback and secret, without a challenge.
    pub fn add_webhook(
        &self,
        kind: &str,
        version: &str,
        condition: &[(&str, &str)],
        callback: &str,
        secret: &str,
    ) -> String {
        self.add(kind, version, condition, Transport::Webhook(Endpoint::new(callback, secret)))
    }

    fn add(&self, kind: &str, version: &str, condition: &[(&str, &str)], transport: Transport) -> String {
        let id = uuid();
        let condition = condition.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        self.world.lock().subscriptions.add(Subscription {
            id: id.clone(),
            client_id: self.world.options.client_id.clone(),
            status: ENABLED.to_owned(),
            kind: kind.to_owned(),
            version: version.to_owned(),
            condition: ConditionFields(condition),
            transport,
            cost: 0,
            created_at: now(),
            user: None,
        });
        id
    }

    /// Gives a subscription another status and sends the revocation that goes with it.
    pub async fn revoke_subscription(&self, id: &str, status: &str) {
        news::revoke(&self.world, id, status).await;
    }

    /// Gives a subscription another status without a word, as when the revocation was missed.
    pub fn set_status(&self, id: &str, status: &str) {
        self.world.lock().subscriptions.set_status(id, status);
    }

    /// Takes a subscription away without a word.
    pub fn remove_subscription(&self, id: &str) {
        self.world.lock().subscriptions.remove(id);
    }

    /// The shards of a conduit: number, status, session.
    pub fn shards(&self, conduit: &str) -> Vec<(u32, String, Option<String>)> {
        let state = self.world.lock();
        let conduit = state.conduits.get(conduit);
        let shards = conduit.into_iter().flat_map(|conduit| conduit.shards());
        let row = |(number, shard): (u32, &Shard)| {
            (number, shard.status().to_owned(), shard.session().map(str::to_owned))
        };
        shards.map(row).collect()
    }

    /// Binds a shard to a session that is not ours, as another process would.
    pub fn seize_shard(&self, conduit: &str, shard: u32) {
        let mut state = self.world.lock();
        state.sessions.open_elsewhere(now());
        let session_id = SOMEBODY_ELSE.to_owned();
        let transport = Transport::Websocket { session_id, connected_at: now(), disconnected_at: None };
        state.conduits.assign(conduit, shard, Shard::new(ENABLED, transport));
    }

    /// The ids of the live sessions.
    pub fn sessions(&self) -> Vec<String> {
        self.world.lock().sessions.ids()
    }

    /// Closes a session with this code.
    pub fn close_session(&self, id: &str, code: u16) {
        send::order(&self.world, id, Order::Close(code));
    }

    /// Breaks a session's connection without a close frame.
    pub fn kill_session(&self, id: &str) {
        send::order(&self.world, id, Order::Kill);
    }

    /// Makes a session half-open: the connection stays, and nothing comes any more.
    pub fn silence_session(&self, id: &str) {
        send::order(&self.world, id, Order::Silence);
    }

    /// Asks a session to reconnect; its old socket is ended with 4004 when it does not.
    pub fn ask_reconnect(&self, id: &str) {
        tokio::spawn(socket::ask_reconnect(Arc::clone(&self.world), id.to_owned()));
    }

    /// Sends any text to a session.
    pub fn send_raw(&self, id: &str, text: &str) {
        send::order(&self.world, id, Order::Text(text.into()));
    }

    /// Pings a session; without a pong it is closed with 4002.
    pub fn ping(&self, id: &str) {
        send::order(&self.world, id, Order::Ping);
    }

    /// Sends a sample event to an enabled subscription of this type, for this broadcaster if given.
    ///
    /// # Errors
    /// There is none, or no shard takes it.
    pub async fn trigger(&self, kind: &str, broadcaster: Option<&str>) -> Result<String, TriggerError> {
        let found = news::samples_for(&self.world, kind, broadcaster)?;
        let (subscription, event) = found.into_iter().next().ok_or(TriggerError::NoSubscription)?;
        news::notify(&self.world, &subscription, &event).await
    }

    /// Sends an event with this JSON to a subscription.
    ///
    /// # Errors
    /// There is no such subscription, or no shard takes it.
    pub async fn send_event(&self, subscription: &str, event: &str) -> Result<String, TriggerError> {
        let subscription = self.world.lock().subscriptions.get(subscription).cloned();
        news::notify(&self.world, &subscription.ok_or(TriggerError::NoSubscription)?, event).await
    }

    /// Sends a message again, under the same id.
    ///
    /// # Errors
    /// The message is not remembered any more, or its session is gone.
    pub async fn resend(&self, message_id: &str) -> Result<(), TriggerError> {
        let outgoing = {
            let state = self.world.lock();
            let (message, address) = state.history.find(message_id).ok_or(TriggerError::NoSubscription)?;
            send::route(&state, message, address).ok_or(TriggerError::NoShard)?
        };
        if send::send(&self.world, outgoing).await { Ok(()) } else { Err(TriggerError::NoShard) }
    }

    /// Sends `count` events of about `size` bytes each as fast as the socket takes them; returns the
    /// ids of those that were handed over.
    pub async fn flood(&self, subscription: &str, count: usize, size: usize) -> Vec<String> {
        let Some(found) = self.world.lock().subscriptions.get(subscription).cloned() else {
            return Vec::new();
        };
        let event = |filler: &str| format!("{{\"filler\":\"{filler}\"}}");
        let content = |filler: &str| Content::notification(SystemTime::now(), &found, &event(filler));
        let envelope = crate::platform::Message { id: uuid(), content: content("") }.frame().len();
        let template = content(&"x".repeat(size.saturating_sub(envelope)));
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let mut batch = Vec::new();
            {
                let mut state = self.world.lock();
                for _ in 0..FLOOD_BATCH.min(count - ids.len()) {
                    let content = Content { made_at: SystemTime::now(), ..template.clone() };
                    batch.extend(send::address(&self.world, &mut state, &found, content));
                }
            }
            if batch.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if self.world.stop.is_cancelled() {
                    break;
                }
                continue;
            }
            let handed: Vec<String> = batch.iter().map(|outgoing| outgoing.message.id.clone()).collect();
            if send::send_all(&self.world, batch).await {
                ids.extend(handed);
            }
        }
        ids
    }

    /// The ids of the messages that were written to a socket, oldest first; the last 200,000.
    pub fn sent(&self) -> Vec<String> {
        self.world.lock().history.sent()
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        *self.world.stats.borrow()
    }

    /// The same, as it changes.
    pub fn watch_stats(&self) -> watch::Receiver<Stats> {
        self.world.stats.subscribe()
    }

    /// Waits until the stand-in is like this; it looks again after every request and message. False
    /// when the time is over.
    pub async fn wait_for(&self, limit: Duration, mut like: impl FnMut(&Self) -> bool) -> bool {
        let mut stats = self.watch_stats();
        let waiting = async {
            while !like(self) {
                // Tasks change state without counting it, so check from time to time as well.
                let _ = tokio::time::timeout(Duration::from_millis(20), stats.changed()).await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// Changes how callbacks are called from now on.
    pub fn set_webhooks(&self, change: impl FnOnce(&mut WebhookOptions)) {
        change(&mut self.world.lock().webhook);
    }

    /// Sends a new challenge to every callback whose owner is pending, and waits for the outcomes.
    pub async fn send_challenges(&self) {
        let challenges = {
            let state = self.world.lock();
            let of_subscriptions =
                state.subscriptions.iter().filter(|s| s.status == PENDING).filter_map(|s| {
                    match &s.transport {
                        Transport::Webhook(endpoint) => Some(Challenge::of_subscription(s, endpoint)),
                        _ => None,
                    }
                });
            let of_shards = state.conduits.iter().flat_map(|conduit| {
                let pending = conduit.shards().filter(|(_, shard)| shard.status() == PENDING);
                pending.filter_map(|(number, shard)| {
                    Some(Challenge::of_shard(conduit.id(), number, shard.endpoint()?))
                })
            });
            of_subscriptions.chain(of_shards).collect()
        };
        webhook::challenge_now(&self.world, challenges).await;
    }

    /// Sends an event to every enabled subscription of this type, whatever its transport, for this broadcaster
    /// if given: this JSON, or a sample. Tells the subscriptions and the ids of their messages; each has its
    /// own, as at Twitch.
    pub async fn broadcast(
        &self,
        kind: &str,
        broadcaster: Option<&str>,
        event: Option<&str>,
    ) -> Vec<(String, Result<String, TriggerError>)> {
        let found = news::samples_for(&self.world, kind, broadcaster).unwrap_or_default();
        let mut sent = Vec::with_capacity(found.len());
        for (subscription, sample) in found {
            let outcome = news::notify(&self.world, &subscription, event.unwrap_or(&sample)).await;
            sent.push((subscription.id, outcome));
        }
        sent
    }

    /// Sends a message that went to a callback again, this many times at once, under its id. Returns the
    /// status of each answer; `None` stands for no answer.
    ///
    /// # Errors
    /// The message is not remembered any more, or went to no callback.
    pub async fn resend_in_parallel(
        &self,
        message_id: &str,
        times: usize,
    ) -> Result<Vec<Option<u16>>, TriggerError> {
        let kept = self.world.lock().history.find(message_id);
        let Some((message, Address::Callback(_, endpoint))) = kept else {
            return Err(TriggerError::NoSubscription);
        };
        let attempts = (1..=times).map(|retry| webhook::attempt(&self.world, &endpoint, &message, retry));
        Ok(futures_util::future::join_all(attempts).await)
    }

    /// Answers of callbacks to notifications and revocations, counted by status. `None` stands for no answer in time.
    pub fn answers(&self) -> BTreeMap<Option<u16>, u64> {
        self.world.lock().history.answers()
    }

    /// The ids of the messages that a callback answered with 2xx, in that order, each as often as it was; the
    /// last 200,000.
    pub fn accepted(&self) -> Vec<String> {
        self.world.lock().history.accepted()
    }

    /// The shards of a conduit that have, or had, a transport.
    pub fn shard_infos(&self, conduit: &str) -> Vec<ShardInfo> {
        let state = self.world.lock();
        let shards = state.conduits.get(conduit).into_iter().flat_map(|conduit| conduit.shards());
        let info = |(number, shard): (u32, &Shard)| ShardInfo {
            number,
            status: shard.status().to_owned(),
            session: shard.session().map(str::to_owned),
            callback: shard.endpoint().map(|endpoint| endpoint.callback.clone()),
        };
        shards.map(info).collect()
    }

    /// Whether messages of this subscription are signed with this secret.
    pub fn lives_with(&self, subscription: &str, secret: &str) -> bool {
        let owner = Owner::Subscription(subscription.to_owned());
        self.endpoint(&owner).is_some_and(|endpoint| endpoint.has_secret(secret))
    }

    /// The fingerprint of the secret of a subscription; `None` without a callback.
    pub fn key_of(&self, subscription: &str) -> Option<KeyId> {
        self.endpoint(&Owner::Subscription(subscription.to_owned()))?.key()
    }

    /// The fingerprint of the secret of a shard; `None` without a callback.
    pub fn key_of_shard(&self, conduit: &str, shard: u32) -> Option<KeyId> {
        self.endpoint(&Owner::Shard { conduit: conduit.to_owned(), shard })?.key()
    }

    fn endpoint(&self, owner: &Owner) -> Option<Arc<Endpoint>> {
        self.world.lock().endpoint(owner).map(|(endpoint, _)| endpoint)
    }
}
