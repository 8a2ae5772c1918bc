//! Control by tests of webhooks and shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::dispatch::{self, Address};
use super::super::state::{Shard, Subscription, Target};
use super::super::{Sandbox, TriggerError, tell};
use super::challenge::{self, Challenge};
use super::{Endpoint, Owner, PENDING, WebhookOptions, sender};
use crate::model::secret::Secret;
use crate::model::webhook::KeyId;

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
    /// Changes how callbacks are called from now on.
    pub fn set_webhooks(&self, change: impl FnOnce(&mut WebhookOptions)) {
        change(&mut self.inner.lock().webhook);
    }

    /// Sends a new challenge to every callback whose owner is pending, and waits for what becomes of them.
    pub async fn send_challenges(&self) {
        let challenges = {
            let mut state = self.inner.lock();
            let pending: Vec<Subscription> =
                state.subscriptions.values().filter(|s| s.status == PENDING).cloned().collect();
            let shards: Vec<(String, u32, Arc<Endpoint>)> = state
                .conduits
                .iter()
                .flat_map(|conduit| {
                    conduit.shards.iter().map(|(number, shard)| (&conduit.id, *number, shard))
                })
                .filter(|(_, _, shard)| shard.status == PENDING)
                .filter_map(|(id, number, shard)| Some((id.clone(), number, shard.webhook.clone()?)))
                .collect();
            let mut challenges = Vec::new();
            for subscription in pending {
                if let Target::Webhook(endpoint) = &subscription.target {
                    let inner = &self.inner;
                    challenges.push(Challenge::of_subscription(inner, &mut state, &subscription, endpoint));
                }
            }
            for (conduit, number, endpoint) in shards {
                let shard = (conduit.as_str(), number);
                challenges.push(Challenge::of_shard(&self.inner, &mut state, shard, &endpoint));
            }
            challenges
        };
        challenge::send_now(&self.inner, challenges).await;
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
        let (found, event) = {
            let mut state = self.inner.lock();
            let id = broadcaster.map(|login| self.inner.id_of(&mut state, login).unwrap_or_default());
            let found: Vec<_> = tell::fitting(&state, kind, id.as_deref()).cloned().collect();
            let mut sample = |subscription| dispatch::sample(&self.inner, &mut state, subscription);
            let event = event.map(str::to_owned).or_else(|| found.first().map(&mut sample));
            (found, event.unwrap_or_default())
        };
        let mut sent = Vec::with_capacity(found.len());
        for subscription in found {
            let outcome = tell::send(&self.inner, &subscription, &event).await;
            sent.push((subscription.id, outcome));
        }
        sent
    }

    /// Sends a message that went to a callback again, this many times at once, under its id. Tells the
    /// status of each answer; none stands for no answer.
    ///
    /// # Errors
    /// It is not remembered any more, or went to no callback.
    pub async fn resend_in_parallel(
        &self,
        message_id: &str,
        times: usize,
    ) -> Result<Vec<Option<u16>>, TriggerError> {
        let kept = {
            let state = self.inner.lock();
            state.messages.iter().find(|(message, _)| message.id == message_id).cloned()
        };
        let Some((message, Address::Callback(_, endpoint))) = kept else {
            return Err(TriggerError::NoSubscription);
        };
        let attempts = (1..=times).map(|retry| sender::attempt(&self.inner, &endpoint, &message, retry));
        Ok(futures_util::future::join_all(attempts).await)
    }

    /// Answers of callbacks to notifications and revocations, counted by status. `None` stands for no answer in time.
    pub fn answers(&self) -> BTreeMap<Option<u16>, u64> {
        self.inner.lock().answers.clone()
    }

    /// The ids of the messages that a callback answered with 2xx, in that order, each as often as it was; the
    /// last 200,000.
    pub fn accepted(&self) -> Vec<String> {
        self.inner.lock().accepted.iter().cloned().collect()
    }

    /// The shards of a conduit that have, or had, a transport.
    pub fn shard_infos(&self, conduit: &str) -> Vec<ShardInfo> {
        let state = self.inner.lock();
        let shards =
            state.conduits.iter().filter(|known| known.id == conduit).flat_map(|known| &known.shards);
        let info = |(number, shard): (&u32, &Shard)| ShardInfo {
            number: *number,
            status: shard.status.clone(),
            session: shard.session.clone(),
            callback: shard.webhook.as_ref().map(|endpoint| endpoint.callback.clone()),
        };
        shards.map(info).collect()
    }

    /// Whether messages of this subscription are signed with this secret.
    pub fn lives_with(&self, subscription: &str, secret: &str) -> bool {
        let owner = Owner::Subscription(subscription.to_owned());
        self.endpoint(&owner).is_some_and(|endpoint| endpoint.secret == Secret::new(secret))
    }

    /// The fingerprint of the secret of a subscription; none without a callback.
    pub fn key_of(&self, subscription: &str) -> Option<KeyId> {
        self.endpoint(&Owner::Subscription(subscription.to_owned()))?.key()
    }

    /// The fingerprint of the secret of a shard; none without a callback.
    pub fn key_of_shard(&self, conduit: &str, shard: u32) -> Option<KeyId> {
        self.endpoint(&Owner::Shard { conduit: conduit.to_owned(), shard })?.key()
    }

    fn endpoint(&self, owner: &Owner) -> Option<Arc<Endpoint>> {
        self.inner.lock().endpoint(owner).map(|(endpoint, _)| endpoint)
    }
}
