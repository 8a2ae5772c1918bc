//! The API: who asks, the rate limit, users (Twitch: "Twitch API Concepts", "Get Users", "Get Authorization By
//! User").

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::eventsub;
use super::faults::Route;
use super::state::Shared;
use crate::platform::{Answer, Asker, Call, Operation, every_scope};

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helix {
    EventSub(Operation),
    Users,
    Authorizations,
    Unknown,
}

impl Helix {
    /// Which faults concern it.
    pub(super) fn route(self) -> Option<Route> {
        Some(match self {
            Self::Users => Route::Users,
            Self::EventSub(operation) => match operation {
                Operation::ListSubscriptions => Route::List,
                Operation::CreateSubscription => Route::Create,
                Operation::DeleteSubscription => Route::Delete,
                Operation::ListConduits
                | Operation::CreateConduit
                | Operation::ResizeConduit
                | Operation::DeleteConduit => Route::Conduits,
                Operation::ListShards => Route::Shards,
                Operation::UpdateShards => Route::Bind,
            },
            Self::Authorizations | Self::Unknown => return None,
        })
    }
}

pub(super) async fn answer(world: &Shared, helix: Helix, call: &Call) -> Answer {
    let asker = match authenticate(world, call) {
        Ok(asker) => asker,
        Err(refused) => {
            world.count(|stats| stats.unauthorized += 1);
            return refused;
        }
    };
    let user_id = asker.user.as_ref().map(|(id, _)| id.as_str());
    let now = Instant::now();
    let has_point = world.lock().buckets.of(&asker.client_id, user_id, now).take(now);
    if !has_point {
        return rate_limited(world, call);
    }
    let answer = match helix {
        Helix::EventSub(operation) => eventsub::answer(world, operation, &asker, call).await,
        Helix::Users => users(world, &asker, call),
        Helix::Authorizations => authorizations(world, &asker, call),
        Helix::Unknown => Answer::error(404, ""),
    };
    with_level(world, call, answer)
}

/// The access token that a request has in its header.
fn bearer(call: &Call) -> &str {
    let text = call.authorization.as_deref().unwrap_or_default();
    let (scheme, text) = text.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") { text } else { "" }
}

fn authenticate(world: &Shared, call: &Call) -> Result<Asker, Answer> {
    let text = bearer(call);
    if text.is_empty() {
        return Err(Answer::error(401, "OAuth token is missing"));
    }
    let client_id = call.client_id.as_deref().ok_or_else(|| Answer::error(401, "Client ID is missing"))?;
    let state = world.lock();
    let token = state.tokens.get(text, Instant::now());
    let token = token.ok_or_else(|| Answer::error(401, "Invalid OAuth token"))?;
    if token.client_id != client_id {
        return Err(Answer::error(401, "Client ID and OAuth token do not match"));
    }
    let user = token.user.as_ref().map(|user| (user.id.clone(), user.scopes.clone()));
    Ok(Asker { client_id: token.client_id.clone(), user })
}

/// Whose bucket a call draws from, whether its token is valid or not.
fn bucket_of(world: &Shared, call: &Call) -> (String, Option<String>) {
    let user = world.lock().tokens.get(bearer(call), Instant::now()).and_then(|token| token.user.clone());
    (call.client_id.clone().unwrap_or_default(), user.map(|user| user.id))
}

/// Adds the headers of the rate limit.
pub(super) fn with_level(world: &Shared, call: &Call, mut answer: Answer) -> Answer {
    let (client_id, user_id) = bucket_of(world, call);
    let level = world.lock().buckets.of(&client_id, user_id.as_deref(), Instant::now()).level();
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
pub(super) fn rate_limited(world: &Shared, call: &Call) -> Answer {
    world.count(|stats| stats.rate_limited += 1);
    let (client_id, user_id) = bucket_of(world, call);
    world.lock().buckets.of(&client_id, user_id.as_deref(), Instant::now()).drain();
    with_level(world, call, Answer::error(429, "Too Many Requests"))
}

#[derive(Serialize)]
struct UserRow<'a> {
    id: &'a str,
    login: &'a str,
    display_name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    broadcaster_type: &'a str,
    description: &'a str,
    profile_image_url: &'a str,
    offline_image_url: &'a str,
    view_count: u32,
    created_at: &'a str,
}

fn users(world: &Shared, asker: &Asker, call: &Call) -> Answer {
    world.count(|stats| stats.users += 1);
    let mut asked: Vec<(&str, &str)> = call
        .query
        .iter()
        .filter(|(key, _)| key == "login" || key == "id")
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    if let Some((id, _)) = asker.user.as_ref().filter(|_| asked.is_empty()) {
        asked.push(("id", id));
    }
    if asked.is_empty() || asked.len() > 100 {
        return Answer::error(400, "The number of id and login query parameters must be between 1 and 100");
    }
    let mut state = world.lock();
    let mut found: Vec<(String, String)> = Vec::new();
    for (key, value) in asked {
        let user = if key == "login" {
            if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Answer::error(400, "Invalid login names, emails or IDs in request");
            }
            state.users.id_of(value).map(|id| (id, value.to_ascii_lowercase()))
        } else {
            state.users.login_of(value).map(|login| (value.to_owned(), login))
        };
        found.extend(user.filter(|(id, _)| found.iter().all(|(known, _)| known != id)));
    }
    let rows: Vec<_> = found
        .iter()
        .map(|(id, login)| UserRow {
            id,
            login,
            display_name: login,
            kind: "",
            broadcaster_type: "",
            description: "",
            profile_image_url: "",
            offline_image_url: "",
            view_count: 0,
            created_at: "2016-12-14T20:32:28Z",
        })
        .collect();
    Answer::json(200, &Data { data: rows })
}

#[derive(Serialize)]
struct AuthorizationRow {
    user_id: String,
    user_name: String,
    user_login: String,
    scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_authorized: Option<bool>,
}

#[derive(Serialize)]
struct Data<T> {
    data: Vec<T>,
}

fn authorizations(world: &Shared, asker: &Asker, call: &Call) -> Answer {
    if asker.user.is_some() {
        return Answer::error(401, "an app access token is needed");
    }
    let asked: Vec<_> = call.query.iter().filter(|(key, _)| key == "user_id").map(|(_, id)| id).collect();
    if asked.is_empty() || asked.len() > 10 {
        return Answer::error(400, "The number of user_id query parameters must be between 1 and 10");
    }
    let state = world.lock();
    let row = |id: &String| {
        let login = state.users.login_of(id)?;
        let granted = state.grants.of(id);
        let (scopes, has_authorized) = match (granted, world.options.require_grants) {
            (Some(scopes), true) => (scopes.clone(), Some(true)),
            (None, true) => (Default::default(), Some(false)),
            // Everybody counts as having granted everything, and only who did so really costs nothing.
            (granted, false) => (every_scope(), granted.map(|_| true)),
        };
        let scopes = scopes.into_iter().collect();
        Some(AuthorizationRow {
            user_id: id.clone(),
            user_name: login.clone(),
            user_login: login,
            scopes,
            has_authorized,
        })
    };
    Answer::json(200, &Data { data: asked.into_iter().filter_map(row).collect() })
}
