//! The API: who asks, the rate limit, users (Twitch: "Twitch API Concepts", "Get Users", "Get
//! Authorization By User").

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hyper::Method;
use serde_json::{Value, json};

use super::bucket::Bucket;
use super::fault::Route;
use super::server::{Answer, Call};
use super::state::{Shared, State};
use super::{conduits, subscriptions};

const SUBSCRIPTIONS: &str = "/eventsub/subscriptions";
const CONDUITS: &str = "/eventsub/conduits";
const SHARDS: &str = "/eventsub/conduits/shards";

/// Which faults concern a request.
pub(super) fn route(method: &Method, path: &str) -> Option<Route> {
    Some(match (method, path) {
        (&Method::GET, "/users") => Route::Users,
        (&Method::GET, SUBSCRIPTIONS) => Route::List,
        (&Method::POST, SUBSCRIPTIONS) => Route::Create,
        (&Method::DELETE, SUBSCRIPTIONS) => Route::Delete,
        (_, CONDUITS) => Route::Conduits,
        (&Method::GET, SHARDS) => Route::Shards,
        (&Method::PATCH, SHARDS) => Route::Bind,
        _ => return None,
    })
}

pub(super) fn answer(inner: &Shared, path: &str, call: &Call) -> Answer {
    let client_id = match authenticate(inner, call) {
        Ok(client_id) => client_id,
        Err(refused) => {
            inner.count(|stats| stats.unauthorized += 1);
            return refused;
        }
    };
    if !bucket(&mut inner.lock(), &client_id).take(Instant::now()) {
        return rate_limited(inner, call);
    }
    let answer = match (&call.method, path) {
        (&Method::GET, "/users") => users(inner, call),
        (&Method::GET, "/authorization/users") => authorizations(inner, call),
        (&Method::GET, SUBSCRIPTIONS) => subscriptions::list(inner, &client_id, call),
        (&Method::POST, SUBSCRIPTIONS) => subscriptions::create(inner, &client_id, call),
        (&Method::DELETE, SUBSCRIPTIONS) => subscriptions::delete(inner, &client_id, call),
        (&Method::GET, CONDUITS) => conduits::list(inner, &client_id),
        (&Method::POST, CONDUITS) => conduits::create(inner, &client_id, call),
        (&Method::PATCH, CONDUITS) => conduits::resize(inner, &client_id, call),
        (&Method::DELETE, CONDUITS) => conduits::delete(inner, &client_id, call),
        (&Method::GET, SHARDS) => conduits::shards(inner, &client_id, call),
        (&Method::PATCH, SHARDS) => conduits::bind(inner, &client_id, call),
        _ => Answer::error(404, ""),
    };
    with_bucket(inner, call, answer)
}

fn authenticate(inner: &Shared, call: &Call) -> Result<String, Answer> {
    let text = call.authorization.as_deref().unwrap_or_default();
    let (scheme, text) = text.split_once(' ').unwrap_or_default();
    if text.is_empty() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Answer::error(401, "OAuth token is missing"));
    }
    let client_id = call.client_id.as_deref().ok_or_else(|| Answer::error(401, "Client ID is missing"))?;
    let state = inner.lock();
    let token = state.tokens.get(text, Instant::now());
    let token = token.ok_or_else(|| Answer::error(401, "Invalid OAuth token"))?;
    if token.client_id != client_id {
        return Err(Answer::error(401, "Client ID and OAuth token do not match"));
    }
    Ok(token.client_id.clone())
}

fn bucket<'a>(state: &'a mut State, client_id: &str) -> &'a mut Bucket {
    let pace = state.pace;
    state
        .buckets
        .entry(client_id.to_owned())
        .or_insert_with(|| Bucket::new(pace.bucket, pace.refill_per_minute, Instant::now()))
}

/// Adds the headers of the rate limit.
pub(super) fn with_bucket(inner: &Shared, call: &Call, mut answer: Answer) -> Answer {
    let client_id = call.client_id.clone().unwrap_or_default();
    let level = bucket(&mut inner.lock(), &client_id).level();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of this century")]
    let reset = (now + level.full_in).ceil() as u64;
    answer.headers.extend([
        ("Ratelimit-Limit", level.limit.to_string()),
        ("Ratelimit-Remaining", level.remaining.to_string()),
        ("Ratelimit-Reset", reset.to_string()),
    ]);
    answer
}

/// Refuses a call for which the bucket has no point left.
pub(super) fn rate_limited(inner: &Shared, call: &Call) -> Answer {
    inner.count(|stats| stats.rate_limited += 1);
    bucket(&mut inner.lock(), call.client_id.as_deref().unwrap_or_default()).drain();
    with_bucket(inner, call, Answer::error(429, "Too Many Requests"))
}

fn users(inner: &Shared, call: &Call) -> Answer {
    inner.count(|stats| stats.users += 1);
    let asked: Vec<_> = call.query.iter().filter(|(key, _)| key == "login" || key == "id").collect();
    if asked.is_empty() || asked.len() > 100 {
        return Answer::error(400, "The number of id and login query parameters must be between 1 and 100");
    }
    let mut state = inner.lock();
    let mut rows: Vec<Value> = Vec::new();
    for (key, value) in asked {
        let found = if key == "login" {
            if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Answer::error(400, "Invalid login names, emails or IDs in request");
            }
            inner.id_of(&mut state, value).map(|id| (id, value.to_ascii_lowercase()))
        } else {
            inner.login_of(&state, value).map(|login| (value.clone(), login))
        };
        let Some((id, login)) = found else { continue };
        if rows.iter().any(|row| row["id"] == id.as_str()) {
            continue;
        }
        rows.push(json!({
            "id": id, "login": login, "display_name": login, "type": "", "broadcaster_type": "",
            "description": "", "profile_image_url": "", "offline_image_url": "", "view_count": 0,
            "created_at": "2016-12-14T20:32:28Z",
        }));
    }
    Answer::json(200, &json!({"data": rows}))
}

/// All scopes of the catalogue.
fn every_scope() -> BTreeSet<String> {
    let rows = crate::model::catalog::all().iter();
    let groups =
        rows.flat_map(|row| row.scopes.iter().chain(row.additional_grants.iter().flat_map(|g| &g.scopes)));
    groups.flatten().cloned().collect()
}

fn authorizations(inner: &Shared, call: &Call) -> Answer {
    let asked: Vec<_> = call.query.iter().filter(|(key, _)| key == "user_id").map(|(_, id)| id).collect();
    if asked.is_empty() || asked.len() > 10 {
        return Answer::error(400, "The number of user_id query parameters must be between 1 and 10");
    }
    let state = inner.lock();
    let row = |id: &String| {
        let scopes = if inner.options.require_grants { state.grants.get(id)?.clone() } else { every_scope() };
        let login = inner.login_of(&state, id)?;
        Some(json!({"user_id": id, "user_name": login, "user_login": login, "scopes": scopes}))
    };
    Answer::json(200, &json!({"data": asked.into_iter().filter_map(row).collect::<Vec<_>>()}))
}
