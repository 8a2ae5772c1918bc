//! Creating, listing and deleting subscriptions (Twitch: "Create EventSub Subscription" and its
//! neighbours).

use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::server::{Answer, Call};
use super::state::{Inner, Shared, State, Subscription, Target, key};
use super::webhook::challenge::Challenge;
use super::webhook::{self, Endpoint, PENDING};
use crate::model::catalog::{self, Auth, TypeVersion};
use crate::model::time::Timestamp;

/// Equal subscriptions over all transports.
const MOST_EQUAL: usize = 3;

#[derive(Deserialize)]
struct CreateBody {
    #[serde(rename = "type")]
    kind: String,
    version: String,
    condition: Map<String, Value>,
    transport: TransportBody,
    #[serde(default)]
    is_batching_enabled: bool,
}

#[derive(Deserialize)]
pub(super) struct TransportBody {
    #[serde(default)]
    pub(super) method: String,
    #[serde(default)]
    pub(super) conduit_id: Option<String>,
    #[serde(default)]
    pub(super) callback: Option<String>,
    #[serde(default)]
    pub(super) session_id: Option<String>,
    #[serde(default)]
    pub(super) secret: Option<String>,
}

/// A row of the list. Notifications have the same, in another order.
pub(super) fn row(subscription: &Subscription) -> Value {
    json!({
        "id": subscription.id, "status": subscription.status, "type": subscription.kind,
        "version": subscription.version, "condition": condition(subscription),
        "created_at": subscription.created_at, "transport": transport(subscription), "cost": subscription.cost,
    })
}

pub(super) fn condition(subscription: &Subscription) -> Value {
    subscription.condition.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

pub(super) fn transport(subscription: &Subscription) -> Value {
    match &subscription.target {
        Target::Conduit(id) => json!({"method": "conduit", "conduit_id": id}),
        Target::Webhook(endpoint) => json!({"method": "webhook", "callback": endpoint.callback}),
    }
}

pub(super) fn create(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.creates += 1);
    match try_create(inner, client_id, call) {
        Ok(answer) => {
            inner.count(|stats| stats.created += 1);
            answer
        }
        Err(refused) => refused,
    }
}

fn try_create(inner: &Shared, client_id: &str, call: &Call) -> Result<Answer, Answer> {
    let bad = |message: &str| Answer::error(400, message);
    let body: CreateBody =
        serde_json::from_slice(&call.body).map_err(|e| bad(&format!("invalid body: {e}")))?;
    let row_of_type = catalog::lookup(&body.kind, &body.version)
        .ok_or_else(|| bad("invalid subscription type and version"))?;
    if row_of_type.removed {
        return Err(Answer::error(410, "subscription type and version have been removed"));
    }
    let mut state = inner.lock();
    let condition = check_condition(inner, &state, client_id, row_of_type, &body.condition)?;
    if row_of_type.batched && !body.is_batching_enabled {
        return Err(bad("is_batching_enabled must be true for drop.entitlement.grant subscriptions"));
    }
    let target = check_transport(inner, &mut state, client_id, &body.transport)?;
    let granted = check_grants(inner, &state, row_of_type, &condition)?;
    let same = key(client_id, &body.kind, &body.version, &condition);
    let equal: Vec<&Subscription> = state
        .by_key
        .get(&same)
        .into_iter()
        .flatten()
        .filter_map(|serial| state.subscriptions.get(serial))
        .filter(|subscription| subscription.is_live())
        .collect();
    if let Some(there) = equal.iter().find(|subscription| subscription.target == target) {
        return Err(Answer::error(409, &format!("subscription already exists; id={}", there.id)));
    }
    if equal.len() >= MOST_EQUAL {
        return Err(Answer::error(429, "maximum subscriptions with type and condition exceeded"));
    }
    let cost = if granted { 0 } else { inner.options.cost_of_strangers };
    let total = state.total_cost(client_id);
    if total + cost > inner.options.max_total_cost {
        return Err(Answer::error(429, "subscriptions total cost exceeded"));
    }
    let subscription = Subscription {
        id: inner.uuid(&mut state),
        client_id: client_id.to_owned(),
        status: match target {
            Target::Conduit(_) => "enabled".to_owned(),
            Target::Webhook(_) => PENDING.to_owned(),
        },
        kind: body.kind,
        version: body.version,
        condition,
        target,
        cost,
        created_at: Timestamp(SystemTime::now()),
    };
    let row = row(&subscription);
    let challenge = match &subscription.target {
        Target::Conduit(_) => None,
        Target::Webhook(endpoint) => {
            Some(Challenge::of_subscription(inner, &mut state, &subscription, endpoint))
        }
    };
    state.add(subscription);
    let mut answer = Answer::json(
        202,
        &json!({
            "data": [row], "total": state.subscriptions.len(),
            "total_cost": total + cost, "max_total_cost": inner.options.max_total_cost,
        }),
    );
    answer.challenges.extend(challenge);
    Ok(answer)
}

/// Every field of the type, empty when omitted.
fn check_condition(
    inner: &Inner,
    state: &State,
    client_id: &str,
    row: &TypeVersion,
    given: &Map<String, Value>,
) -> Result<Vec<(String, String)>, Answer> {
    let bad = |message: String| Err(Answer::error(400, &message));
    for name in given.keys() {
        if !row.condition.contains_key(name) {
            return bad(format!("unknown condition field: {name}"));
        }
    }
    let mut condition = Vec::new();
    for (name, field) in &row.condition {
        let value = match given.get(name) {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text,
            Some(_) => return bad(format!("condition field {name} must be a string")),
        };
        if field.required && value.is_empty() {
            return bad(format!("missing or unparseable subscription condition: {name}"));
        }
        if field.kind == "user_id" && !value.is_empty() && inner.login_of(state, value).is_none() {
            return bad(format!("user in the condition does not exist: {name}"));
        }
        if field.kind == "client_id" && !value.is_empty() && value != client_id {
            return bad("client_id in the condition must be that of the token".to_owned());
        }
        condition.push((name.clone(), value.to_owned()));
    }
    if !condition.is_empty() && condition.iter().all(|(_, value)| value.is_empty()) {
        return bad("missing or unparseable subscription condition".to_owned());
    }
    Ok(condition)
}

fn check_transport(
    inner: &Inner,
    state: &mut State,
    client_id: &str,
    transport: &TransportBody,
) -> Result<Target, Answer> {
    let bad = |message: &str| Err(Answer::error(400, message));
    match transport.method.as_str() {
        "conduit" => {
            let Some(id) = transport.conduit_id.as_deref().filter(|id| !id.is_empty()) else {
                return bad("conduit_id is required for the conduit transport");
            };
            match state.conduit_mut(client_id, id) {
                Some(_) => Ok(Target::Conduit(id.to_owned())),
                None => bad("conduit does not exist"),
            }
        }
        "webhook" => {
            let endpoint = check_webhook(inner, state, transport);
            endpoint.map(Target::Webhook).map_err(|message| Answer::error(400, message))
        }
        "websocket" => bad("invalid transport and auth combination"),
        _ => bad("unsupported transport method"),
    }
}

pub(super) fn check_webhook(
    inner: &Inner,
    state: &State,
    transport: &TransportBody,
) -> Result<Arc<Endpoint>, &'static str> {
    if inner.options.http.is_none() {
        return Err("this sandbox was started without an HTTP client, and cannot call webhooks");
    }
    webhook::check(&state.webhook, transport.callback.as_deref(), transport.secret.as_deref())
}

/// Whether a user of the condition has granted anything, which makes the subscription free.
fn check_grants(
    inner: &Inner,
    state: &State,
    row: &TypeVersion,
    condition: &[(String, String)],
) -> Result<bool, Answer> {
    let scopes_of = |field: &str| {
        let id = condition.iter().find(|(name, _)| name == field).map(|(_, id)| id);
        id.and_then(|id| state.grants.get(id))
    };
    if inner.options.require_grants && !row.scopes.is_empty() {
        let granted = row.scope_granted_by.as_deref().and_then(scopes_of);
        let has_one = |group: &Vec<String>| {
            granted.is_some_and(|granted| group.iter().any(|scope| granted.contains(scope)))
        };
        if !row.scopes.iter().all(has_one) {
            return Err(Answer::error(403, "subscription missing proper authorization"));
        }
    }
    let authorized = row.auth != Auth::None || !row.scopes.is_empty();
    Ok(authorized || condition.iter().any(|(_, id)| state.grants.contains_key(id)))
}

pub(super) fn list(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.lists += 1);
    const FILTERS: [&str; 5] = ["status", "type", "user_id", "subscription_id", "conduit_id"];
    let given: Vec<_> = call.query.iter().filter(|(key, _)| FILTERS.contains(&key.as_str())).collect();
    if given.len() > 1 {
        return Answer::error(400, "only one filter may be specified");
    }
    let after = match call.query("after").map(|cursor| cursor.strip_prefix("cursor-").map(str::parse)) {
        None => 0_u64,
        Some(Some(Ok(serial))) => serial,
        Some(_) => return Answer::error(400, "invalid cursor"),
    };
    let state = inner.lock();
    let fits = |subscription: &Subscription| {
        subscription.client_id == client_id
            && given.first().is_none_or(|(name, value)| match name.as_str() {
                "status" => subscription.status == *value,
                "type" => subscription.kind == *value,
                "subscription_id" => subscription.id == *value,
                "conduit_id" => subscription.target == Target::Conduit(value.clone()),
                _ => {
                    subscription.condition.iter().any(|(field, id)| field.ends_with("user_id") && id == value)
                }
            })
    };
    let mut rows = Vec::new();
    let mut cursor = None;
    let mut last = after;
    for (serial, subscription) in state.subscriptions.range(after + 1..) {
        if !fits(subscription) {
            continue;
        }
        if rows.len() == inner.options.page_size {
            cursor = Some(format!("cursor-{last}"));
            break;
        }
        rows.push(row(subscription));
        last = *serial;
    }
    let pagination = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
    Answer::json(
        200,
        &json!({
            "total": state.subscriptions.len(), "data": rows, "pagination": pagination,
            "total_cost": state.total_cost(client_id), "max_total_cost": inner.options.max_total_cost,
        }),
    )
}

pub(super) fn delete(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.deletes += 1);
    let Some(id) = call.query("id").filter(|id| !id.is_empty()) else {
        return Answer::error(400, "The id query parameter is required");
    };
    let mut state = inner.lock();
    if state.subscription(id).is_none_or(|subscription| subscription.client_id != client_id) {
        return Answer::error(404, "subscription not found");
    }
    state.remove(id);
    Answer::text(204, String::new())
}
