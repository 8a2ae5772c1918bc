//! A sample event inside the notification that would bring it.

use serde_json::json;

use super::{SampleRequest, SampleUser};
use crate::model::catalog;
use crate::model::event::{Event, GAP, MessageId};
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

const SUBSCRIPTION: &str = "f1c2a387-161a-49f9-a165-0f21d7a4e1c4";
const CONDUIT: &str = "bfcfc993-26b1-b876-44d9-afe75a379dac";

/// A subscription as messages have it.
fn subscription(request: &SampleRequest<'_>, status: &str) -> serde_json::Value {
    let SampleRequest { subscription_type, version, condition, now, .. } = *request;
    json!({
        "id": SUBSCRIPTION,
        "status": status,
        "type": subscription_type,
        "version": version,
        "cost": 0,
        "condition": condition,
        "transport": { "method": "conduit", "conduit_id": CONDUIT },
        "created_at": now.to_string(),
    })
}

fn wrap(request: &SampleRequest<'_>, payload: String) -> Event {
    Event {
        message_id: MessageId::new(&format!("sample-{}", request.serial)).expect("visible ASCII, and short"),
        message_timestamp: request.now.to_string().into(),
        subscription_type: request.subscription_type.into(),
        subscription_version: request.version.into(),
        subscription_id: SUBSCRIPTION.into(),
        payload: payload.into_bytes().into(),
    }
}

/// Twitch's message that the subscription has ended (Twitch: "Handling WebSocket Events").
pub fn revocation(request: &SampleRequest<'_>) -> Event {
    wrap(request, json!({ "subscription": subscription(request, "authorization_revoked") }).to_string())
}

/// An event of the daemon's own that says when events may have been missed.
pub fn gap(now: Timestamp) -> Event {
    let condition = Condition::default();
    let nobody = |id: &str| SampleUser { id: id.to_owned(), login: String::new(), name: String::new() };
    let request = SampleRequest {
        subscription_type: GAP,
        version: "1",
        condition: &condition,
        user: &nobody,
        now,
        serial: 1,
        happening: None,
    };
    let event = json!({
        "from": now.to_string(),
        "to": now.to_string(),
        "reason": "connection_lost",
        "scope": "conduit",
        "shards": [0],
        "subscriptions": [],
        "subscriptions_total": 0,
    });
    message(&request, &event.to_string())
}

/// Wraps `event`, as [`super::event`] returns it, as the payload of a notification over a conduit.
pub fn message(request: &SampleRequest<'_>, event: &str) -> Event {
    let row = catalog::lookup(request.subscription_type, request.version);
    let field = if row.is_some_and(|row| row.batched) { "events" } else { "event" };
    let subscription = subscription(request, "enabled");
    wrap(request, format!(r#"{{"subscription":{subscription},"{field}":{event}}}"#))
}
