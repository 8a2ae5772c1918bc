//! The API: who asks, the rate limit, users, streams, channels (Twitch: "Twitch API Concepts", "Get Users", "Get
//! Authorization By User", "Get Streams", "Get Channel Information").

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
    Streams,
    Channels,
    Authorizations,
    Unknown,
}

impl Helix {
    /// Which faults concern it.
    pub(super) fn route(self) -> Option<Route> {
        Some(match self {
            Self::Users => Route::Users,
            Self::Streams => Route::Streams,
            Self::Channels => Route::Channels,
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
        Helix::Streams => streams(world, call),
        Helix::Channels => channels(world, call),
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

/// Returns the owner of the bucket that a call draws from, even if its token is not valid.
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
struct StreamRow<'a> {
    id: &'a str,
    user_id: &'a str,
    user_login: &'a str,
    user_name: &'a str,
    game_id: &'a str,
    game_name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    tags: [&'a str; 0],
    viewer_count: u32,
    started_at: &'a str,
    language: &'a str,
    thumbnail_url: &'a str,
    tag_ids: [&'a str; 0],
    is_mature: bool,
}

#[derive(Serialize)]
struct PageOf<T> {
    data: Vec<T>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Pagination {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// The values of a query parameter.
fn values<'a>(call: &'a Call, name: &'a str) -> impl Iterator<Item = &'a str> {
    call.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn streams(world: &Shared, call: &Call) -> Answer {
    world.count(|stats| stats.streams += 1);
    let mut state = world.lock();
    let mut asked: Vec<String> = values(call, "user_id").map(str::to_owned).collect();
    let logins = values(call, "user_login").filter_map(|login| state.users.id_of(login));
    asked.extend(logins.collect::<Vec<_>>());
    if asked.len() > 100 {
        return Answer::error(
            400,
            "The number of user_id and user_login query parameters must be at most 100",
        );
    }
    let first = values(call, "first").next().map_or(Ok(20), str::parse::<usize>);
    let Some(first) = first.ok().filter(|first| (1..=100).contains(first)) else {
        return Answer::error(400, "The parameter \"first\" was malformed: the value must be from 1 to 100");
    };
    let Ok(after) = values(call, "after").next().map_or(Ok(0), str::parse::<usize>) else {
        return Answer::error(400, "Invalid cursor");
    };
    let now = Instant::now();
    if asked.is_empty() {
        asked = state.channels.live(now);
    }
    let live: Vec<_> = asked
        .into_iter()
        .filter_map(|id| {
            let shown = state.channels.shown(&id, now);
            let live = shown.live.clone()?;
            Some((state.users.login_of(&id)?, id, shown, live))
        })
        .collect();
    let page = live.iter().skip(after).take(first).map(|(login, id, shown, live)| StreamRow {
        id: &live.id,
        user_id: id,
        user_login: login,
        user_name: login,
        game_id: &shown.category_id,
        game_name: &shown.category_name,
        kind: "live",
        title: &shown.title,
        tags: [],
        viewer_count: 1,
        started_at: &live.started_at,
        language: &shown.language,
        thumbnail_url: "",
        tag_ids: [],
        is_mature: false,
    });
    let cursor = (after + first < live.len()).then(|| (after + first).to_string());
    Answer::json(200, &PageOf { data: page.collect(), pagination: Pagination { cursor } })
}

#[derive(Serialize)]
struct ChannelRow {
    broadcaster_id: String,
    broadcaster_login: String,
    broadcaster_name: String,
    broadcaster_language: String,
    game_id: String,
    game_name: String,
    title: String,
    delay: u32,
    tags: [String; 0],
    content_classification_labels: Vec<String>,
    is_branded_content: bool,
}

fn channels(world: &Shared, call: &Call) -> Answer {
    world.count(|stats| stats.channels += 1);
    let asked: Vec<&str> = values(call, "broadcaster_id").collect();
    if asked.is_empty() || asked.len() > 100 {
        return Answer::error(400, "The number of broadcaster_id query parameters must be between 1 and 100");
    }
    let (state, now) = (world.lock(), Instant::now());
    let row = |id: &str| {
        let login = state.users.login_of(id)?;
        let shown = state.channels.shown(id, now);
        Some(ChannelRow {
            broadcaster_id: id.to_owned(),
            broadcaster_name: login.clone(),
            broadcaster_login: login,
            broadcaster_language: shown.language,
            game_id: shown.category_id,
            game_name: shown.category_name,
            title: shown.title,
            delay: 0,
            tags: [],
            content_classification_labels: shown.labels,
            is_branded_content: false,
        })
    };
    Answer::json(200, &Data { data: asked.into_iter().filter_map(row).collect() })
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
