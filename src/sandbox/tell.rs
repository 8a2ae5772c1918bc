//! Messages that the mock makes by itself: events, grants and their end, disabled shards.

use serde::Deserialize;
use serde_json::json;

use super::dispatch::{self, post};
use super::message::Message;
use super::server::{Answer, Call};
use super::state::{Shard, Shared, State, Subscription};
use crate::model::{catalog, hint};

/// An event could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// There is no such type.
    #[error("there is no subscription type {0}; `eventsubd types` lists them")]
    UnknownType(String),
    /// There is no subscription that fits.
    #[error("no enabled subscription fits; `eventsubd status` shows what is subscribed to")]
    NoSubscription,
    /// There is one, and only enabled ones get events.
    #[error("the subscription is not enabled: {0}")]
    NotEnabled(String),
    /// There is one, and no shard that takes it.
    #[error("no shard of the conduit is connected, so the event is lost, as at Twitch")]
    NoShard,
}

#[derive(Deserialize)]
struct TriggerBody {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    broadcaster: Option<String>,
}

/// `POST /sandbox/trigger`.
pub(super) async fn trigger_request(inner: &Shared, call: &Call) -> Answer {
    let Ok(body) = serde_json::from_slice::<TriggerBody>(&call.body) else {
        return Answer::error(400, "the body must be {\"type\": …, \"broadcaster\": … or null}");
    };
    match trigger(inner, &body.kind, body.broadcaster.as_deref()).await {
        Ok(id) => Answer::json(200, &json!({"message_id": id})),
        Err(error) => Answer::error(404, &error.to_string()),
    }
}

pub(super) async fn trigger(
    inner: &Shared,
    kind: &str,
    broadcaster: Option<&str>,
) -> Result<String, TriggerError> {
    if crate::model::catalog::versions(kind).next().is_none() {
        return Err(TriggerError::UnknownType(kind.to_owned()));
    }
    let (subscription, event) = {
        let mut state = inner.lock();
        let broadcaster = broadcaster.map(|login| inner.id_of(&mut state, login).unwrap_or_default());
        let found = fitting(&state, kind, broadcaster.as_deref()).next().cloned();
        let found = found.ok_or(TriggerError::NoSubscription)?;
        let event = dispatch::sample(inner, &mut state, &found);
        (found, event)
    };
    send(inner, &subscription, &event).await
}

/// The enabled subscriptions of a type, to this user id if given.
pub(super) fn fitting<'a>(
    state: &'a State,
    kind: &'a str,
    user_id: Option<&'a str>,
) -> impl Iterator<Item = &'a Subscription> {
    state.subscriptions.values().filter(move |subscription| {
        subscription.status == "enabled"
            && subscription.kind == kind
            && user_id.is_none_or(|id| subscription.condition.iter().any(|(_, value)| value == id))
    })
}

/// A user grants scopes; what names that user costs nothing any more.
pub(super) async fn granted(inner: &Shared, user_id: &str, scopes: &[String]) {
    {
        let mut state = inner.lock();
        state.grants.entry(user_id.to_owned()).or_default().extend(scopes.iter().cloned());
        for subscription in state.subscriptions.values_mut() {
            if subscription.condition.iter().any(|(_, id)| id == user_id) {
                subscription.cost = 0;
            }
        }
    }
    tell_of_grants(inner, hint::GRANT, user_id).await;
}

pub(super) async fn grants_revoked(inner: &Shared, user_id: &str) {
    let letters: Vec<_> = {
        let mut state = inner.lock();
        state.grants.remove(user_id);
        state.tokens.disconnect(user_id);
        let needs = |subscription: &Subscription| {
            let row = catalog::lookup(&subscription.kind, &subscription.version);
            let field = row.and_then(|row| row.scope_granted_by.as_deref());
            subscription.status == "enabled"
                && subscription
                    .condition
                    .iter()
                    .any(|(name, id)| Some(name.as_str()) == field && id == user_id)
        };
        let mut ended = Vec::new();
        for subscription in state.subscriptions.values_mut().filter(|subscription| needs(subscription)) {
            "authorization_revoked".clone_into(&mut subscription.status);
            ended.push(subscription.clone());
        }
        let mut letters = Vec::new();
        for subscription in ended {
            let message = Message::revocation(inner.uuid(&mut state), &subscription);
            letters.extend(dispatch::address(inner, &mut state, &subscription, message));
        }
        letters
    };
    for letter in letters {
        post(inner, letter).await;
    }
    tell_of_grants(inner, hint::REVOKE, user_id).await;
}

/// Says that a shard is disabled to those who subscribed to that, over another one.
pub(super) async fn shard_disabled(inner: &Shared, conduit: &str, shard: u32, status: &str) {
    let (owner, transport) = {
        let state = inner.lock();
        let Some(conduit) = state.conduits.iter().find(|known| known.id == conduit) else { return };
        (conduit.client_id.clone(), conduit.shards.get(&shard).map(shard_transport))
    };
    let event = json!({
        "conduit_id": conduit, "shard_id": shard.to_string(), "status": status, "transport": transport,
    });
    let told = |subscription: &Subscription| subscription.client_id == owner;
    tell(inner, hint::SHARD_DISABLED, told, |_| event.to_string()).await;
}

fn shard_transport(shard: &Shard) -> serde_json::Value {
    match &shard.webhook {
        Some(endpoint) => json!({
            "method": "webhook", "callback": endpoint.callback, "session_id": null, "connected_at": null,
            "disconnected_at": null,
        }),
        None => json!({
            "method": "websocket", "callback": null, "session_id": shard.session,
            "connected_at": shard.connected_at, "disconnected_at": shard.disconnected_at,
        }),
    }
}

async fn tell_of_grants(inner: &Shared, kind: &str, user_id: &str) {
    let login = inner.login_of(&inner.lock(), user_id).unwrap_or_default();
    let event = |subscription: &Subscription| {
        json!({
            "client_id": subscription.client_id, "user_id": user_id, "user_login": login, "user_name": login,
        })
        .to_string()
    };
    tell(inner, kind, |_| true, event).await;
}

/// Sends an event to the enabled subscriptions of a type. Without a shard nobody hears of it, as at Twitch.
async fn tell(
    inner: &Shared,
    kind: &str,
    told: impl Fn(&Subscription) -> bool,
    event: impl Fn(&Subscription) -> String,
) {
    let fits = |subscription: &&Subscription| {
        subscription.status == "enabled" && subscription.kind == kind && told(subscription)
    };
    let subscriptions: Vec<_> = inner.lock().subscriptions.values().filter(fits).cloned().collect();
    for subscription in subscriptions {
        let _ = send(inner, &subscription, &event(&subscription)).await;
    }
}

pub(super) async fn send(
    inner: &Shared,
    subscription: &Subscription,
    event: &str,
) -> Result<String, TriggerError> {
    if subscription.status != "enabled" {
        return Err(TriggerError::NotEnabled(subscription.status.clone()));
    }
    let letter = {
        let mut state = inner.lock();
        let message = Message::notification(inner.uuid(&mut state), subscription, event);
        dispatch::address(inner, &mut state, subscription, message)
    };
    let letter = letter.ok_or(TriggerError::NoShard)?;
    let id = letter.message.id.clone();
    if post(inner, letter).await { Ok(id) } else { Err(TriggerError::NoShard) }
}
