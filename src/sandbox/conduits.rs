//! Conduits and their shards (Twitch: "Handling Conduit Events" and the reference).

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};

use super::server::{Answer, Call};
use super::state::{Conduit, Shard, Shared, State};
use super::subscriptions::{TransportBody, check_webhook};
use super::webhook::PENDING;
use super::webhook::challenge::Challenge;
use crate::model::time::Timestamp;

/// Shards of one conduit.
const MAX_SHARDS: u32 = 20_000;
/// Shards in one update.
const MAX_UPDATES: usize = 100;
/// Rows on one page of shards.
const PAGE: usize = 100;

fn row(conduit: &Conduit) -> Value {
    json!({"id": conduit.id, "shard_count": conduit.shard_count})
}

pub(super) fn list(inner: &Shared, client_id: &str) -> Answer {
    inner.count(|stats| stats.conduits += 1);
    let state = inner.lock();
    let rows: Vec<_> = state.conduits.iter().filter(|c| c.client_id == client_id).map(row).collect();
    Answer::json(200, &json!({"data": rows}))
}

#[derive(Deserialize)]
struct ConduitBody {
    #[serde(default)]
    id: Option<String>,
    shard_count: u32,
}

fn body(call: &Call) -> Result<ConduitBody, Answer> {
    let body: Result<ConduitBody, _> = serde_json::from_slice(&call.body);
    let body = body.map_err(|_| Answer::error(400, "invalid shard count"))?;
    if !(1..=MAX_SHARDS).contains(&body.shard_count) {
        return Err(Answer::error(400, "invalid shard count"));
    }
    Ok(body)
}

pub(super) fn create(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.conduits += 1);
    let body = match body(call) {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let mut state = inner.lock();
    let mine = state.conduits.iter().filter(|conduit| conduit.client_id == client_id).count();
    if mine >= inner.options.max_conduits {
        return Answer::error(429, "conduit limit reached");
    }
    let id = inner.uuid(&mut state);
    let conduit = Conduit {
        id,
        client_id: client_id.to_owned(),
        shard_count: body.shard_count,
        shards: std::collections::BTreeMap::new(),
    };
    let row = row(&conduit);
    state.conduits.push(conduit);
    Answer::json(200, &json!({"data": [row]}))
}

pub(super) fn resize(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.conduits += 1);
    let body = match body(call) {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let mut state = inner.lock();
    let Some(conduit) = state.conduit_mut(client_id, body.id.as_deref().unwrap_or_default()) else {
        return Answer::error(404, "conduit not found");
    };
    conduit.shard_count = body.shard_count;
    conduit.shards.retain(|id, _| *id < body.shard_count);
    Answer::json(200, &json!({"data": [row(conduit)]}))
}

pub(super) fn delete(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.conduits += 1);
    let Some(id) = call.query("id") else {
        return Answer::error(400, "The id query parameter is required");
    };
    let mut state = inner.lock();
    if state.conduit_mut(client_id, id).is_none() {
        return Answer::error(404, "conduit not found");
    }
    state.delete_conduit(id);
    Answer::text(204, String::new())
}

fn shard_row(id: u32, shard: &Shard) -> Value {
    let mut transport = match &shard.webhook {
        Some(endpoint) => json!({"method": "webhook", "callback": endpoint.callback}),
        None => {
            json!({"method": "websocket", "session_id": shard.session, "connected_at": shard.connected_at})
        }
    };
    if let Some(at) = shard.disconnected_at {
        transport["disconnected_at"] = json!(at);
    }
    json!({"id": id.to_string(), "status": shard.status, "transport": transport})
}

pub(super) fn shards(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.shards += 1);
    let Some(id) = call.query("conduit_id") else {
        return Answer::error(400, "The conduit_id query parameter is required");
    };
    let after: u32 = match call.query("after").map(str::parse) {
        None => 0,
        Some(Ok(after)) => after,
        Some(Err(_)) => return Answer::error(400, "invalid cursor"),
    };
    let mut state = inner.lock();
    let Some(conduit) = state.conduit_mut(client_id, id) else {
        return Answer::error(404, "conduit not found");
    };
    let status = call.query("status");
    let mut rows: Vec<(u32, Value)> = conduit
        .shards
        .range(after..)
        .filter(|(_, shard)| status.is_none_or(|status| shard.status == status))
        .map(|(id, shard)| (*id, shard_row(*id, shard)))
        .take(PAGE + 1)
        .collect();
    let next = if rows.len() > PAGE { rows.pop().map(|(id, _)| id.to_string()) } else { None };
    let pagination = next.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    Answer::json(200, &json!({"data": rows, "pagination": pagination}))
}

#[derive(Deserialize)]
struct BindBody {
    conduit_id: String,
    shards: Vec<BindShard>,
}

#[derive(Deserialize)]
struct BindShard {
    id: String,
    transport: TransportBody,
}

pub(super) fn bind(inner: &Shared, client_id: &str, call: &Call) -> Answer {
    inner.count(|stats| stats.binds += 1);
    let Ok(body) = serde_json::from_slice::<BindBody>(&call.body) else {
        return Answer::error(400, "conduit_id and shards are required");
    };
    if body.shards.is_empty() || body.shards.len() > MAX_UPDATES {
        return Answer::error(400, "the number of shards must be between 1 and 100");
    }
    let mut state = inner.lock();
    if state.conduit_mut(client_id, &body.conduit_id).is_none() {
        return Answer::error(404, "conduit not found");
    }
    let (mut data, mut errors, mut challenges) = (Vec::new(), Vec::new(), Vec::new());
    for shard in &body.shards {
        match bind_one(inner, &mut state, client_id, &body.conduit_id, shard) {
            Ok((row, challenge)) => {
                data.push(row);
                challenges.extend(challenge);
            }
            Err(message) => {
                errors.push(json!({"id": shard.id, "message": message, "code": "invalid_parameter"}));
            }
        }
    }
    let mut answer = Answer::json(202, &json!({"data": data, "errors": errors}));
    answer.challenges = challenges;
    answer
}

fn bind_one(
    inner: &Shared,
    state: &mut State,
    client_id: &str,
    conduit_id: &str,
    wanted: &BindShard,
) -> Result<(Value, Option<Challenge>), &'static str> {
    let mut bound = Shard {
        status: "enabled".to_owned(),
        session: None,
        webhook: None,
        connected_at: Timestamp(SystemTime::now()),
        disconnected_at: None,
    };
    match wanted.transport.method.as_str() {
        "websocket" => {
            let session = wanted.transport.session_id.as_deref().filter(|id| !id.is_empty());
            let session = session.ok_or("The session_id is missing")?;
            let live = state.sessions.get(session).ok_or("The websocket session is not connected")?;
            bound.connected_at = live.connected_at;
            bound.session = Some(session.to_owned());
        }
        "webhook" => {
            bound.webhook = Some(check_webhook(inner, state, &wanted.transport)?);
            PENDING.clone_into(&mut bound.status);
        }
        _ => return Err("The transport method is invalid"),
    }
    let conduit = state.conduit_mut(client_id, conduit_id).ok_or("The conduit is gone")?;
    let id: Option<u32> = wanted.id.parse().ok().filter(|id| *id < conduit.shard_count);
    let id = id.ok_or("The shard id is outside the conduit's range")?;
    let row = shard_row(id, &bound);
    let endpoint = bound.webhook.clone();
    conduit.shards.insert(id, bound);
    let challenge = endpoint.map(|endpoint| Challenge::of_shard(inner, state, (conduit_id, id), &endpoint));
    Ok((row, challenge))
}
