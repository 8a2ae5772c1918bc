//! Creating, listing and deleting subscriptions, conduits and shards (Twitch: "Create EventSub Subscription" and its
//! neighbours in the reference).

use std::sync::Arc;

use serde::Serialize;

use super::conduits::{Conduit, Shard};
use super::state::{Shared, State, World, now, uuid};
use super::subscriptions::session_of;
use super::webhook::{self, Challenge};
use crate::platform::{
    Answer, Asker, Call, ConduitRequest, CreateRequest, ENABLED, Endpoint, Filter, Limits, ListRequest,
    Operation, PENDING, ShardListRequest, ShardRow, ShardUpdate, ShardUpdates, Subscription, Transport,
    TransportRequest, check_condition, check_type, cursor, lacks_moderator, missing_scopes,
};

const LIMITS: Limits = Limits::TWITCH;

/// An answer, and the challenges that the request leads to.
type Outcome = Result<(Answer, Vec<Challenge>), Answer>;

fn without_challenge(answer: Result<Answer, Answer>) -> Outcome {
    answer.map(|answer| (answer, Vec::new()))
}

pub(super) async fn answer(world: &Shared, operation: Operation, asker: &Asker, call: &Call) -> Answer {
    count(world, operation);
    let is_conduits = !matches!(
        operation,
        Operation::ListSubscriptions | Operation::CreateSubscription | Operation::DeleteSubscription
    );
    if is_conduits && asker.user.is_some() {
        return Answer::error(401, "an app access token is needed");
    }
    let client_id = asker.client_id.as_str();
    let outcome = match operation {
        Operation::ListSubscriptions => without_challenge(list(world, asker, call)),
        Operation::CreateSubscription => create(world, asker, call),
        Operation::DeleteSubscription => without_challenge(delete(world, asker, call)),
        Operation::ListConduits => without_challenge(Ok(list_conduits(world, client_id))),
        Operation::CreateConduit => without_challenge(create_conduit(world, client_id, call)),
        Operation::ResizeConduit => without_challenge(resize_conduit(world, client_id, call)),
        Operation::DeleteConduit => without_challenge(delete_conduit(world, client_id, call)),
        Operation::ListShards => without_challenge(list_shards(world, client_id, call)),
        Operation::UpdateShards => update_shards(world, client_id, call),
    };
    match outcome {
        Ok((answer, challenges)) => {
            webhook::challenge(world, challenges).await;
            answer
        }
        Err(refused) => refused,
    }
}

fn count(world: &World, operation: Operation) {
    world.count(|stats| {
        *match operation {
            Operation::ListSubscriptions => &mut stats.lists,
            Operation::CreateSubscription => &mut stats.creates,
            Operation::DeleteSubscription => &mut stats.deletes,
            Operation::ListShards => &mut stats.shards,
            Operation::UpdateShards => &mut stats.binds,
            Operation::ListConduits
            | Operation::CreateConduit
            | Operation::ResizeConduit
            | Operation::DeleteConduit => &mut stats.conduits,
        } += 1;
    });
}

#[derive(Serialize)]
struct Created<'a> {
    data: [&'a Subscription; 1],
    total: usize,
    max_total_cost: u64,
    total_cost: u64,
}

fn create(world: &Shared, asker: &Asker, call: &Call) -> Outcome {
    let request = CreateRequest::parse(call)?;
    let row = check_type(&request)?;
    let mut state = world.lock();
    let client_id = asker.client_id.as_str();
    let user_exists = |id: &str| state.users.exists(id);
    let condition = check_condition(row, client_id, &request.condition, user_exists)?;
    let transport = check_transport(world, &state, asker, &row.transports, &request.transport)?;
    let mut subscription = Subscription {
        id: uuid(),
        client_id: client_id.to_owned(),
        status: if matches!(transport, Transport::Webhook(_)) { PENDING } else { ENABLED }.to_owned(),
        kind: request.kind,
        version: request.version,
        condition,
        transport,
        cost: 0,
        created_at: now(),
        user: asker.user.as_ref().map(|(id, _)| id.clone()),
    };
    let key = subscription.key();
    let is_missing = || {
        let granted = |id: &str| state.grants.scopes(id);
        let is_moderator = |channel: &str, user: &str| state.grants.is_moderator(channel, user);
        missing_scopes(&key, asker, granted, is_moderator)
            || lacks_moderator(row, &subscription.condition, is_moderator)
    };
    if world.options.require_grants && is_missing() {
        return Err(Answer::error(403, "subscription missing proper authorization"));
    }
    let equal = state.subscriptions.equal(client_id, &key);
    if let Some(there) = equal.iter().find(|there| there.transport.is_same(&subscription.transport)) {
        return Err(Answer::error(409, &format!("subscription already exists; id={}", there.id)));
    }
    if equal.len() >= LIMITS.equal {
        return Err(Answer::error(429, "maximum subscriptions with type and condition exceeded"));
    }
    subscription.cost = state.cost(&subscription, world.options.cost_of_strangers);
    let user_id = subscription.user.as_deref();
    let total_cost = state.subscriptions.total_cost(client_id, user_id) + subscription.cost;
    let max_total_cost = max_total_cost(world, asker);
    match session_of(&subscription) {
        Some(session) => check_websocket_limits(&state, &subscription, session)?,
        None if total_cost > max_total_cost => {
            return Err(Answer::error(429, "subscriptions total cost exceeded"));
        }
        None => {}
    }
    if total_cost > max_total_cost {
        return Err(Answer::error(429, "websocket transport subscriptions total cost exceeded"));
    }
    if let (Some(session), Some(user_id)) = (session_of(&subscription), user_id) {
        state.sessions.set_user(session, user_id);
    }
    let total = state.subscriptions.live_of(client_id, user_id).count() + 1;
    let answer = Answer::json(202, &Created { data: [&subscription], total, max_total_cost, total_cost });
    let challenge = match &subscription.transport {
        Transport::Webhook(endpoint) => Some(Challenge::of_subscription(&subscription, endpoint)),
        _ => None,
    };
    state.subscriptions.add(subscription);
    world.count(|stats| stats.created += 1);
    Ok((answer, challenge.into_iter().collect()))
}

fn max_total_cost(world: &World, asker: &Asker) -> u64 {
    if asker.user.is_some() { LIMITS.websocket_cost } else { world.options.max_total_cost }
}

/// The limits of one user's WebSockets.
fn check_websocket_limits(state: &State, new: &Subscription, session: &str) -> Result<(), Answer> {
    let of_user = || state.subscriptions.live_of(&new.client_id, new.user.as_deref());
    let mut sessions: Vec<_> = of_user().filter_map(session_of).collect();
    let here = sessions.iter().filter(|id| **id == session).count();
    sessions.sort_unstable();
    sessions.dedup();
    if here == 0 && sessions.len() >= LIMITS.websocket_sessions {
        return Err(Answer::error(429, "number of websocket transports limit exceeded"));
    }
    if here >= LIMITS.session_subscriptions {
        return Err(Answer::error(429, "number of subscriptions per websocket transport limit exceeded"));
    }
    Ok(())
}

fn check_transport(
    world: &World,
    state: &State,
    asker: &Asker,
    transports: &[String],
    transport: &TransportRequest,
) -> Result<Transport, Answer> {
    let bad = |message: &str| Err(Answer::error(400, message));
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let method = transport.method.as_str();
    if !["webhook", "conduit", "websocket"].contains(&method) {
        return bad("unsupported transport method");
    }
    match (method, asker.user.is_some()) {
        ("webhook", true) => return bad("auth must use app access token to create webhook subscription"),
        ("conduit", true) | ("websocket", false) => return bad("invalid transport and auth combination"),
        _ if !transports.iter().any(|known| known == method) => {
            return bad("the subscription type does not have this transport");
        }
        _ => {}
    }
    match method {
        "conduit" => {
            let Some(id) = given(&transport.conduit_id) else {
                return bad("conduit_id is required for the conduit transport");
            };
            match state.conduits.of(&asker.client_id, &id) {
                Some(_) => Ok(Transport::Conduit(id)),
                None => bad("conduit does not exist"),
            }
        }
        "webhook" => {
            let endpoint = check_webhook(world, state, transport);
            endpoint.map(Transport::Webhook).map_err(|message| Answer::error(400, message))
        }
        _ => {
            let Some(session_id) = given(&transport.session_id) else {
                return bad("session_id is required for the websocket transport");
            };
            let Some(connected_at) = state.sessions.connected_at(&session_id) else {
                return bad("websocket transport session does not exist or has already disconnected");
            };
            let user = asker.user.as_ref().map(|(id, _)| id.as_str());
            if state.sessions.user(&session_id).is_some_and(|known| Some(known) != user) {
                return bad("websocket transport cannot have subscriptions created by different users");
            }
            Ok(Transport::Websocket { session_id, connected_at, disconnected_at: None })
        }
    }
}

fn check_webhook(
    world: &World,
    state: &State,
    transport: &TransportRequest,
) -> Result<Arc<Endpoint>, &'static str> {
    if world.options.http.is_none() {
        return Err("this sandbox was started without an HTTP client, and cannot call webhooks");
    }
    Endpoint::check(state.webhook.strict, transport.callback.as_deref(), transport.secret.as_deref())
}

#[derive(Serialize)]
struct Pagination {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Listed<'a> {
    total: usize,
    data: Vec<&'a Subscription>,
    total_cost: u64,
    max_total_cost: u64,
    pagination: Pagination,
}

/// Whether a subscription was made with this kind of token.
fn is_of(subscription: &Subscription, asker: &Asker) -> bool {
    let user = asker.user.as_ref().map(|(id, _)| id.as_str());
    subscription.client_id == asker.client_id && subscription.user.as_deref() == user
}

fn list(world: &Shared, asker: &Asker, call: &Call) -> Result<Answer, Answer> {
    let request = ListRequest::parse(call)?;
    let state = world.lock();
    let fits = |subscription: &Subscription| match &request.filter {
        None => true,
        Some(Filter::Status(status)) => subscription.status == *status,
        Some(Filter::Type(kind)) => subscription.kind == *kind,
        Some(Filter::Subscription(id)) => subscription.id == *id,
        Some(Filter::Conduit(id)) => matches!(&subscription.transport, Transport::Conduit(of) if of == id),
        Some(Filter::User(id)) => subscription.condition.users().any(|user| user == id),
    };
    let mut data = Vec::new();
    let (mut last, mut more) = (request.after, None);
    for (serial, subscription) in state.subscriptions.after(request.after) {
        if !is_of(subscription, asker) || !fits(subscription) {
            continue;
        }
        if data.len() == world.options.page_size {
            more = Some(cursor(last));
            break;
        }
        data.push(subscription);
        last = serial;
    }
    let user_id = asker.user.as_ref().map(|(id, _)| id.as_str());
    Ok(Answer::json(
        200,
        &Listed {
            total: state.subscriptions.iter().filter(|subscription| is_of(subscription, asker)).count(),
            data,
            total_cost: state.subscriptions.total_cost(&asker.client_id, user_id),
            max_total_cost: max_total_cost(world, asker),
            pagination: Pagination { cursor: more },
        },
    ))
}

fn delete(world: &Shared, asker: &Asker, call: &Call) -> Result<Answer, Answer> {
    let id = call.query("id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Answer::error(400, "The id query parameter is required"))?;
    let mut state = world.lock();
    if !state.subscriptions.get(id).is_some_and(|subscription| is_of(subscription, asker)) {
        return Err(Answer::error(404, "subscription not found"));
    }
    state.subscriptions.remove(id);
    Ok(Answer::empty(204))
}

#[derive(Serialize)]
struct ConduitRow<'a> {
    id: &'a str,
    shard_count: u32,
}

#[derive(Serialize)]
struct Data<T> {
    data: Vec<T>,
}

fn conduit_row(conduit: &Conduit) -> ConduitRow<'_> {
    ConduitRow { id: conduit.id(), shard_count: conduit.shard_count() }
}

fn list_conduits(world: &Shared, client_id: &str) -> Answer {
    let state = world.lock();
    let mine = state.conduits.iter().filter(|conduit| conduit.client_id() == client_id);
    Answer::json(200, &Data { data: mine.map(conduit_row).collect() })
}

fn create_conduit(world: &Shared, client_id: &str, call: &Call) -> Result<Answer, Answer> {
    let request = ConduitRequest::parse(call)?;
    let mut state = world.lock();
    let mine = state.conduits.iter().filter(|conduit| conduit.client_id() == client_id).count();
    if mine >= world.options.max_conduits {
        return Err(Answer::error(429, "conduit limit reached"));
    }
    let id = uuid();
    state.conduits.add(&id, client_id, request.shard_count);
    Ok(Answer::json(200, &Data { data: vec![ConduitRow { id: &id, shard_count: request.shard_count }] }))
}

fn not_found() -> Answer {
    Answer::error(404, "conduit not found")
}

fn resize_conduit(world: &Shared, client_id: &str, call: &Call) -> Result<Answer, Answer> {
    let request = ConduitRequest::parse(call)?;
    let id = request.id.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Answer::error(400, "The id is required"))?;
    let mut state = world.lock();
    state.conduits.of(client_id, &id).ok_or_else(not_found)?;
    state.conduits.resize(&id, request.shard_count);
    Ok(Answer::json(200, &Data { data: vec![ConduitRow { id: &id, shard_count: request.shard_count }] }))
}

fn delete_conduit(world: &Shared, client_id: &str, call: &Call) -> Result<Answer, Answer> {
    let id = call.query("id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Answer::error(400, "The id query parameter is required"))?;
    let mut state = world.lock();
    state.conduits.of(client_id, id).ok_or_else(not_found)?;
    state.delete_conduit(id);
    Ok(Answer::empty(204))
}

#[derive(Serialize)]
struct ShardList<'a> {
    data: Vec<ShardRow<'a>>,
    pagination: Pagination,
}

fn list_shards(world: &Shared, client_id: &str, call: &Call) -> Result<Answer, Answer> {
    let request = ShardListRequest::parse(call)?;
    let state = world.lock();
    let conduit = state.conduits.of(client_id, &request.conduit_id).ok_or_else(not_found)?;
    let mut rows = conduit.shards().filter(|(number, shard)| {
        *number >= request.from && request.status.as_deref().is_none_or(|status| shard.status() == status)
    });
    let data = rows.by_ref().take(LIMITS.shard_page).map(|(number, shard)| shard.row(number)).collect();
    let next = rows.next().map(|(number, _)| cursor(number.into()));
    Ok(Answer::json(200, &ShardList { data, pagination: Pagination { cursor: next } }))
}

#[derive(Serialize)]
struct ShardError<'a> {
    id: &'a str,
    message: &'a str,
    code: &'a str,
}

#[derive(Serialize)]
struct Updated<'a> {
    data: Vec<ShardRow<'a>>,
    errors: Vec<ShardError<'a>>,
}

fn update_shards(world: &Shared, client_id: &str, call: &Call) -> Outcome {
    let request = ShardUpdates::parse(call)?;
    let conduit_id = request.conduit_id.as_str();
    let mut state = world.lock();
    let shard_count = state.conduits.of(client_id, conduit_id).ok_or_else(not_found)?.shard_count();
    let (mut updated, mut errors, mut challenges) = (Vec::new(), Vec::new(), Vec::new());
    for wanted in &request.shards {
        match check_shard(world, &state, shard_count, wanted) {
            Ok((number, shard)) => {
                challenges.extend(
                    shard.endpoint().map(|endpoint| Challenge::of_shard(conduit_id, number, endpoint)),
                );
                state.conduits.assign(conduit_id, number, shard.clone());
                updated.push((number, shard));
            }
            Err(message) => errors.push(ShardError { id: &wanted.id, message, code: "invalid_parameter" }),
        }
    }
    let data = updated.iter().map(|(number, shard)| shard.row(*number)).collect();
    Ok((Answer::json(202, &Updated { data, errors }), challenges))
}

fn check_shard(
    world: &World,
    state: &State,
    shard_count: u32,
    wanted: &ShardUpdate,
) -> Result<(u32, Shard), &'static str> {
    let shard = match wanted.transport.method.as_str() {
        "websocket" => {
            let session = wanted.transport.session_id.clone().filter(|id| !id.is_empty());
            let session_id = session.ok_or("The session_id is missing")?;
            let connected_at =
                state.sessions.connected_at(&session_id).ok_or("The websocket session is not connected")?;
            Shard::new(ENABLED, Transport::Websocket { session_id, connected_at, disconnected_at: None })
        }
        "webhook" => Shard::new(PENDING, Transport::Webhook(check_webhook(world, state, &wanted.transport)?)),
        _ => return Err("The transport method is invalid"),
    };
    let number: Option<u32> = wanted.id.parse().ok().filter(|number| *number < shard_count);
    Ok((number.ok_or("The shard id is outside the conduit's range")?, shard))
}
