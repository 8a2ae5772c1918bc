//! Control by tests: requests, faults and the state of the mock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::bucket::Bucket;
use super::dispatch::{self, post};
use super::fault::{Fault, Planned, Route};
use super::message::Message;
use super::state::{Conduit, DeviceAnswer, Inner, Order, Pace, Session, Shard, Subscription, Target};
use super::stats::Stats;
use super::tell::{self, TriggerError};
use super::webhook::Endpoint;
use super::{Sandbox, device, session};
use crate::model::time::Timestamp;

/// Events that a flood hands to a socket at once.
const FLOOD_BATCH: usize = 16;

/// A subscription as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionInfo {
    pub id: String,
    pub status: String,
    /// The subscription type.
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

impl Sandbox {
    /// Makes every token invalid, as when Twitch revokes them.
    pub fn revoke_all_tokens(&self) {
        self.inner.lock().tokens.clear();
    }

    /// The tokens that are valid, for tests that look for them where they must not be.
    pub fn tokens(&self) -> Vec<String> {
        self.inner.lock().tokens.texts()
    }

    /// Changes the secret; tokens stay.
    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.inner.lock().secret);
    }

    /// Has requests fail; `u32::MAX` times is until [`Self::clear_faults`].
    pub fn fault(&self, route: Route, fault: Fault, times: u32) {
        self.inner.lock().faults.push(Planned { route, fault, times });
    }

    /// Ends all faults that are still to come.
    pub fn clear_faults(&self) {
        self.inner.lock().faults.clear();
    }

    /// Has a user grant scopes to the application, which is told.
    pub async fn grant(&self, login: &str, scopes: &[&str]) {
        let id = self.inner.id_of(&mut self.inner.lock(), login);
        if let Some(id) = id {
            let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            tell::granted(&self.inner, &id, &scopes).await;
        }
    }

    /// Has a user take back everything. Subscriptions that needed it end, and the application is told.
    pub async fn revoke_grants(&self, login: &str) {
        let id = self.inner.id_of(&mut self.inner.lock(), login);
        if let Some(id) = id {
            tell::grants_revoked(&self.inner, &id).await;
        }
    }

    /// Answers the newest device code: allowed by this user, or refused. False while nobody asks.
    pub async fn answer_device(&self, login: Option<&str>) -> bool {
        let code = {
            let state = self.inner.lock();
            let waiting = state.devices.values().filter(|d| d.answer == DeviceAnswer::Waiting);
            waiting.max_by_key(|device| device.until).map(|device| device.user_code.clone())
        };
        match code {
            Some(code) => device::answer(&self.inner, &code, login).await,
            None => false,
        }
    }

    /// The id of a login, if there is such a user.
    pub fn user_id(&self, login: &str) -> Option<String> {
        self.inner.id_of(&mut self.inner.lock(), login)
    }

    /// The conduits: id and number of shards.
    pub fn conduits(&self) -> Vec<(String, u32)> {
        self.inner.lock().conduits.iter().map(|c| (c.id.clone(), c.shard_count)).collect()
    }

    /// Makes a conduit, as somebody else with the same application.
    pub fn create_conduit(&self, shards: u32) -> String {
        let mut state = self.inner.lock();
        let id = self.inner.uuid(&mut state);
        let client_id = self.inner.options.client_id.clone();
        let shards_of = std::collections::BTreeMap::new();
        state.conduits.push(Conduit { id: id.clone(), client_id, shard_count: shards, shards: shards_of });
        id
    }

    /// Changes the rate limit, which is full again, and the latency of the API.
    pub fn set_pace(&self, bucket: u32, refill_per_minute: u32, latency: Duration) {
        let mut state = self.inner.lock();
        state.pace = Pace { bucket, refill_per_minute, latency };
        state.buckets.clear();
    }

    /// Returns the fewest points that the rate limit of the application has had since the last call.
    pub fn lowest_points(&self) -> f64 {
        let mut state = self.inner.lock();
        let bucket = state.buckets.get_mut(&self.inner.options.client_id);
        bucket.map_or(f64::INFINITY, Bucket::reset_lowest)
    }

    /// Deletes a conduit, as Twitch does after 72 hours without a shard.
    pub fn delete_conduit(&self, id: &str) {
        self.inner.lock().delete_conduit(id);
    }

    /// Every subscription, oldest first.
    pub fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let state = self.inner.lock();
        let info = |subscription: &Subscription| SubscriptionInfo {
            id: subscription.id.clone(),
            status: subscription.status.clone(),
            kind: subscription.kind.clone(),
            version: subscription.version.clone(),
            condition: subscription.condition.clone(),
            conduit_id: match &subscription.target {
                Target::Conduit(id) => Some(id.clone()),
                Target::Webhook(_) => None,
            },
            callback: match &subscription.target {
                Target::Conduit(_) => None,
                Target::Webhook(endpoint) => Some(endpoint.callback.clone()),
            },
            cost: subscription.cost,
        };
        state.subscriptions.values().map(info).collect()
    }

    /// The number of subscriptions.
    pub fn subscription_count(&self) -> usize {
        self.inner.lock().subscriptions.len()
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
            Some(id) => self.add(kind, version, condition, Target::Conduit(id.to_owned())),
            None => {
                let elsewhere = "https://elsewhere.example/callback";
                self.add_webhook(kind, version, condition, elsewhere, &Inner::random_text(40))
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
        self.add(kind, version, condition, Target::Webhook(Endpoint::new(callback, secret)))
    }

    fn add(&self, kind: &str, version: &str, condition: &[(&str, &str)], target: Target) -> String {
        let mut state = self.inner.lock();
        let id = self.inner.uuid(&mut state);
        state.add(Subscription {
            id: id.clone(),
            client_id: self.inner.options.client_id.clone(),
            status: "enabled".to_owned(),
            kind: kind.to_owned(),
            version: version.to_owned(),
            condition: condition.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            target,
            cost: 0,
            created_at: Timestamp(SystemTime::now()),
        });
        id
    }

    /// Gives a subscription another status and sends the revocation that goes with it.
    pub async fn revoke_subscription(&self, id: &str, status: &str) {
        dispatch::revoke(&self.inner, id, status).await;
    }

    /// Gives a subscription another status without a word, as when the revocation was missed.
    pub fn set_status(&self, id: &str, status: &str) {
        if let Some(subscription) = self.inner.lock().subscription_mut(id) {
            status.clone_into(&mut subscription.status);
        }
    }

    /// Takes a subscription away without a word.
    pub fn remove_subscription(&self, id: &str) {
        self.inner.lock().remove(id);
    }

    /// The shards of a conduit: number, status, session.
    pub fn shards(&self, conduit: &str) -> Vec<(u32, String, Option<String>)> {
        let state = self.inner.lock();
        let conduit = state.conduits.iter().find(|c| c.id == conduit);
        let rows = conduit.into_iter().flat_map(|c| &c.shards);
        rows.map(|(id, shard)| (*id, shard.status.clone(), shard.session.clone())).collect()
    }

    /// Binds a shard to a session that is not ours, as another process would.
    pub fn seize_shard(&self, conduit: &str, shard: u32) {
        let mut state = self.inner.lock();
        let connected_at = Timestamp(SystemTime::now());
        let (orders, _nobody) = tokio::sync::mpsc::channel(1);
        let session = Session { socket: 0, orders, silent: true, connected_at, challenge: None };
        state.sessions.insert("AgoSomebodyElse".to_owned(), session);
        if let Some(conduit) = state.conduits.iter_mut().find(|c| c.id == conduit) {
            conduit.shards.insert(
                shard,
                Shard {
                    status: "enabled".to_owned(),
                    session: Some("AgoSomebodyElse".to_owned()),
                    webhook: None,
                    connected_at,
                    disconnected_at: None,
                },
            );
        }
    }

    /// The ids of the live sessions.
    pub fn sessions(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.inner.lock().sessions.keys().cloned().collect();
        ids.sort();
        ids
    }

    /// Closes a session with this code.
    pub fn close_session(&self, id: &str, code: u16) {
        session::order(&self.inner, id, Order::Close(code));
    }

    /// Breaks a session's connection without a close frame.
    pub fn kill_session(&self, id: &str) {
        session::order(&self.inner, id, Order::Kill);
    }

    /// Makes a session half-open: the connection stays, and nothing comes any more.
    pub fn silence_session(&self, id: &str) {
        session::order(&self.inner, id, Order::Silence);
    }

    /// Asks a session to reconnect; its old socket is ended with 4004 when it does not.
    pub fn ask_reconnect(&self, id: &str) {
        tokio::spawn(session::ask_reconnect(Arc::clone(&self.inner), id.to_owned()));
    }

    /// Sends any text to a session.
    pub fn send_raw(&self, id: &str, text: &str) {
        session::order(&self.inner, id, Order::Text(text.into()));
    }

    /// Pings a session; without a pong it is closed with 4002.
    pub fn ping(&self, id: &str) {
        session::order(&self.inner, id, Order::Ping);
    }

    /// Sends a sample event to an enabled subscription of this type, for this broadcaster if given.
    ///
    /// # Errors
    /// There is none, or no shard takes it.
    pub async fn trigger(&self, kind: &str, broadcaster: Option<&str>) -> Result<String, TriggerError> {
        tell::trigger(&self.inner, kind, broadcaster).await
    }

    /// Sends an event with this JSON to a subscription.
    ///
    /// # Errors
    /// There is no such subscription, or no shard takes it.
    pub async fn send_event(&self, subscription: &str, event: &str) -> Result<String, TriggerError> {
        let subscription = self.inner.lock().subscription(subscription).cloned();
        tell::send(&self.inner, &subscription.ok_or(TriggerError::NoSubscription)?, event).await
    }

    /// Sends a message again, under the same id.
    ///
    /// # Errors
    /// It is not remembered any more, or its session is gone.
    pub async fn resend(&self, message_id: &str) -> Result<(), TriggerError> {
        let letter = {
            let state = self.inner.lock();
            let kept = state.messages.iter().find(|(message, _)| message.id == message_id).cloned();
            let (message, address) = kept.ok_or(TriggerError::NoSubscription)?;
            dispatch::letter(&state, message, address).ok_or(TriggerError::NoShard)?
        };
        if post(&self.inner, letter).await { Ok(()) } else { Err(TriggerError::NoShard) }
    }

    /// Sends `count` events of about `size` bytes each as fast as the socket takes them; returns the
    /// ids of those that were handed over.
    pub async fn flood(&self, subscription: &str, count: usize, size: usize) -> Vec<String> {
        let Some(found) = self.inner.lock().subscription(subscription).cloned() else { return Vec::new() };
        let event = |filler: &str| format!("{{\"filler\":\"{filler}\"}}");
        let empty = self.inner.uuid(&mut self.inner.lock());
        let empty = Message::notification(empty, &found, &event("")).frame().len();
        let event = event(&"x".repeat(size.saturating_sub(empty)));
        let template = Message::notification(String::new(), &found, &event);
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let mut letters = Vec::new();
            {
                let mut state = self.inner.lock();
                for _ in 0..FLOOD_BATCH.min(count - ids.len()) {
                    let message = template.again(self.inner.uuid(&mut state));
                    letters.extend(dispatch::address(&self.inner, &mut state, &found, message));
                }
            }
            if letters.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if self.inner.stop.is_cancelled() {
                    break;
                }
                continue;
            }
            let handed: Vec<String> = letters.iter().map(|letter| letter.message.id.clone()).collect();
            if dispatch::post_all(&self.inner, letters).await {
                ids.extend(handed);
            }
        }
        ids
    }

    /// The ids of the messages that were written to a socket, oldest first; the last 200,000.
    pub fn sent(&self) -> Vec<String> {
        self.inner.lock().sent.iter().cloned().collect()
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        *self.inner.stats.borrow()
    }

    /// The same, as it changes.
    pub fn watch_stats(&self) -> watch::Receiver<Stats> {
        self.inner.stats.subscribe()
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
}
