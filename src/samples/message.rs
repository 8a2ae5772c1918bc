//! A sample event inside the notification that would bring it.

use serde_json::json;

use super::SampleRequest;
use crate::model::catalog;
use crate::model::event::{Event, MessageId};

const SUBSCRIPTION: &str = "f1c2a387-161a-49f9-a165-0f21d7a4e1c4";
const CONDUIT: &str = "bfcfc993-26b1-b876-44d9-afe75a379dac";

/// Wraps `event`, as [`super::event`] returns it, as the payload of a notification over a conduit.
pub fn message(request: &SampleRequest<'_>, event: &str) -> Event {
    let SampleRequest { subscription_type, version, condition, now, serial, .. } = *request;
    let batched = catalog::lookup(subscription_type, version).is_some_and(|row| row.batched);
    let subscription = json!({
        "id": SUBSCRIPTION,
        "status": "enabled",
        "type": subscription_type,
        "version": version,
        "cost": 0,
        "condition": condition,
        "transport": { "method": "conduit", "conduit_id": CONDUIT },
        "created_at": now.to_string(),
    });
    let field = if batched { "events" } else { "event" };
    Event {
        message_id: MessageId::new(&format!("sample-{serial}")).expect("visible ASCII, and short"),
        message_timestamp: now.to_string().into(),
        subscription_type: subscription_type.into(),
        subscription_version: version.into(),
        subscription_id: SUBSCRIPTION.into(),
        payload: format!(r#"{{"subscription":{subscription},"{field}":{event}}}"#).into_bytes().into(),
    }
}
