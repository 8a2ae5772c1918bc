//! The table of subscriptions.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::model::subscription::SubscriptionKey;
use crate::platform::{CONDUIT_DELETED, Moment, REVOKED, Subscription, Transport};

/// All subscriptions, in the order of their creation.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    rows: BTreeMap<u64, Subscription>,
    serial: u64,
    by_id: HashMap<String, u64>,
    by_key: HashMap<(String, SubscriptionKey), Vec<u64>>,
    /// When the subscriptions ended that are still listed.
    ended: BTreeMap<u64, Instant>,
}

/// Notes whether a subscription has ended.
fn note(ended: &mut BTreeMap<u64, Instant>, serial: u64, subscription: &Subscription) {
    if subscription.is_live() {
        ended.remove(&serial);
    } else {
        ended.entry(serial).or_insert_with(Instant::now);
    }
}

fn key_of(subscription: &Subscription) -> (String, SubscriptionKey) {
    (subscription.client_id.clone(), subscription.key())
}

impl Subscriptions {
    pub(super) fn add(&mut self, subscription: Subscription) {
        self.serial += 1;
        self.by_id.insert(subscription.id.clone(), self.serial);
        self.by_key.entry(key_of(&subscription)).or_default().push(self.serial);
        self.rows.insert(self.serial, subscription);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Subscription> {
        let serial = self.by_id.remove(id)?;
        let subscription = self.rows.remove(&serial)?;
        self.ended.remove(&serial);
        let key = key_of(&subscription);
        if let Some(equal) = self.by_key.get_mut(&key) {
            equal.retain(|other| *other != serial);
            if equal.is_empty() {
                self.by_key.remove(&key);
            }
        }
        Some(subscription)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Subscription> {
        self.rows.get(self.by_id.get(id)?)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.rows.values()
    }

    /// The rows behind this one, with their numbers.
    pub(super) fn after(&self, serial: u64) -> impl Iterator<Item = (u64, &Subscription)> {
        self.rows.range(serial + 1..).map(|(serial, subscription)| (*serial, subscription))
    }

    /// The live subscriptions of a client that equal this one, whatever their transport.
    pub(super) fn equal(&self, client_id: &str, key: &SubscriptionKey) -> Vec<&Subscription> {
        let serials = self.by_key.get(&(client_id.to_owned(), key.clone()));
        let rows = serials.into_iter().flatten().filter_map(|serial| self.rows.get(serial));
        rows.filter(|subscription| subscription.is_live()).collect()
    }

    /// Live subscriptions that app access tokens of this client made, or tokens of this user.
    pub(super) fn live_of<'a>(
        &'a self,
        client_id: &'a str,
        user_id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Subscription> {
        self.rows
            .values()
            .filter(move |s| s.client_id == client_id && s.user.as_deref() == user_id && s.is_live())
    }

    pub(super) fn total_cost(&self, client_id: &str, user_id: Option<&str>) -> u64 {
        self.live_of(client_id, user_id).map(|subscription| subscription.cost).sum()
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Subscription> {
        self.rows.get_mut(self.by_id.get(id)?)
    }

    /// Gives a subscription another status; returns it.
    pub(super) fn set_status(&mut self, id: &str, status: &str) -> Option<&Subscription> {
        let serial = *self.by_id.get(id)?;
        let subscription = self.rows.get_mut(&serial)?;
        status.clone_into(&mut subscription.status);
        note(&mut self.ended, serial, subscription);
        Some(subscription)
    }

    /// Ends a subscription; returns it.
    pub(super) fn end(&mut self, id: &str, status: &str) -> Option<&Subscription> {
        let subscription = self.get_mut(id)?;
        subscription.cost = 0;
        self.set_status(id, status)
    }

    /// Ends the enabled subscriptions for which `needs` holds; returns them.
    pub(super) fn revoke(&mut self, needs: impl Fn(&Subscription) -> bool) -> Vec<Subscription> {
        let mut ended = Vec::new();
        for (serial, subscription) in self.rows.iter_mut().filter(|(_, s)| s.is_live() && needs(s)) {
            REVOKED.clone_into(&mut subscription.status);
            note(&mut self.ended, *serial, subscription);
            ended.push(subscription.clone());
        }
        ended
    }

    /// A conduit is gone, and what pointed to it is dead.
    pub(super) fn end_conduit(&mut self, conduit: &str) {
        let points = |s: &Subscription| matches!(&s.transport, Transport::Conduit(id) if id == conduit);
        for (serial, subscription) in self.rows.iter_mut().filter(|(_, s)| s.is_live() && points(s)) {
            CONDUIT_DELETED.clone_into(&mut subscription.status);
            note(&mut self.ended, *serial, subscription);
        }
    }

    /// A session has ended with this status, and so have its subscriptions.
    pub(super) fn end_session(&mut self, session: &str, status: &str, now: Moment) {
        for (serial, subscription) in self.rows.iter_mut().filter(|(_, s)| s.is_live()) {
            if let Transport::Websocket { session_id, disconnected_at, .. } = &mut subscription.transport
                && session_id == session
            {
                *disconnected_at = Some(now);
                status.clone_into(&mut subscription.status);
                note(&mut self.ended, *serial, subscription);
            }
        }
    }

    /// Takes out of the list what ended so long ago; WebSockets have a time of their own.
    pub(super) fn forget_ended(&mut self, now: Instant, websocket: Duration, others: Duration) {
        let is_over = |(serial, ended): (&u64, &Instant)| {
            let row = self.rows.get(serial)?;
            let life = if session_of(row).is_some() { websocket } else { others };
            (now.saturating_duration_since(*ended) >= life).then(|| row.id.clone())
        };
        let over: Vec<String> = self.ended.iter().filter_map(is_over).collect();
        for id in over {
            self.remove(&id);
        }
    }

    /// Whether a live subscription is on this session.
    pub(super) fn uses_session(&self, session: &str) -> bool {
        self.rows.values().any(|s| s.is_live() && session_of(s) == Some(session))
    }

    /// The cost of each live subscription that names this user is counted anew.
    pub(super) fn recount(&mut self, user_id: &str, cost: impl Fn(&Subscription) -> u64) {
        for subscription in self.rows.values_mut().filter(|s| s.is_live() && s.condition.names(user_id)) {
            subscription.cost = cost(subscription);
        }
    }
}

/// The session that a subscription is on.
pub(super) fn session_of(subscription: &Subscription) -> Option<&str> {
    match &subscription.transport {
        Transport::Websocket { session_id, .. } => Some(session_id),
        _ => None,
    }
}
