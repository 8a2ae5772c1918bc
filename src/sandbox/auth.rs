//! Token, validate, revoke (Twitch: "Getting OAuth Access Tokens", "Validating Tokens", "Revoke Access
//! Tokens"). Errors have no `error` field here.

use std::collections::HashMap;
use std::time::Instant;

use hyper::Method;
use serde_json::json;

use super::device;
use super::server::{Answer, Call};
use super::state::{Inner, Shared, Token};

pub(super) fn answer(inner: &Shared, path: &str, call: &Call) -> Answer {
    match (&call.method, path) {
        (&Method::POST, "/token") => token(inner, call),
        (&Method::GET, "/validate") => validate(inner, call),
        (&Method::POST, "/revoke") => revoke(inner, call),
        (&Method::POST, "/device") => device::start(inner, call),
        _ => refusal(404, "not found"),
    }
}

pub(super) fn refusal(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"status": status, "message": message}))
}

/// Fields of the form; those of the query count as well.
pub(super) fn fields(call: &Call) -> HashMap<String, String> {
    let mut fields: HashMap<_, _> = call.query.iter().cloned().collect();
    fields.extend(form_urlencoded::parse(&call.body).into_owned());
    fields
}

fn token(inner: &Shared, call: &Call) -> Answer {
    let answer = try_token(inner, call);
    inner.count(|stats| match &answer {
        Ok(_) => stats.mints += 1,
        Err(_) => stats.mints_refused += 1,
    });
    answer.unwrap_or_else(|refused| refused)
}

fn try_token(inner: &Shared, call: &Call) -> Result<Answer, Answer> {
    let fields = fields(call);
    let field = |name: &str| fields.get(name).filter(|value| !value.is_empty());
    let client_id = field("client_id").ok_or_else(|| refusal(400, "missing client id"))?;
    if field("grant_type").map(String::as_str) == Some(device::GRANT_TYPE) {
        return device::token(inner, client_id, field("device_code").map_or("", String::as_str));
    }
    let secret = field("client_secret").ok_or_else(|| refusal(400, "missing client secret"))?;
    if field("grant_type").map(String::as_str) != Some("client_credentials") {
        return Err(refusal(400, "invalid grant type"));
    }
    let mut state = inner.lock();
    if *client_id == inner.options.client_id {
        if *secret != state.secret {
            return Err(refusal(403, "invalid client secret"));
        }
    } else if !inner.options.accept_any_client {
        return Err(refusal(400, "invalid client"));
    }
    let text = Inner::random_text(30).to_ascii_lowercase();
    let until = Instant::now() + inner.options.token_life;
    state.tokens.insert(text.clone(), Token { client_id: client_id.clone(), user: None, until });
    let expires_in = inner.options.token_life.as_secs();
    Ok(Answer::json(200, &json!({"access_token": text, "expires_in": expires_in, "token_type": "bearer"})))
}

fn validate(inner: &Shared, call: &Call) -> Answer {
    inner.count(|stats| stats.validations += 1);
    let text = call.authorization.as_deref().unwrap_or_default();
    let text = text.strip_prefix("OAuth ").or_else(|| text.strip_prefix("Bearer ")).unwrap_or_default();
    let state = inner.lock();
    match state.tokens.get(text).filter(|token| token.until > Instant::now()) {
        Some(token) => {
            let left = (token.until - Instant::now()).as_secs();
            let mut answer = json!({"client_id": token.client_id, "scopes": null, "expires_in": left});
            if let Some((id, scopes)) = &token.user {
                answer["user_id"] = json!(id);
                answer["login"] = json!(inner.login_of(&state, id));
                answer["scopes"] = json!(scopes);
            }
            Answer::json(200, &answer)
        }
        None => refusal(401, "invalid access token"),
    }
}

fn revoke(inner: &Shared, call: &Call) -> Answer {
    let fields = fields(call);
    let (Some(client_id), Some(token)) = (fields.get("client_id"), fields.get("token")) else {
        let missing =
            if fields.contains_key("client_id") { "missing oauth token" } else { "missing client id" };
        return refusal(400, missing);
    };
    if *client_id != inner.options.client_id && !inner.options.accept_any_client {
        return refusal(404, "client does not exist");
    }
    let mut state = inner.lock();
    if state.tokens.get(token).is_some_and(|known| known.client_id == *client_id) {
        state.tokens.remove(token);
        return Answer::text(200, String::new());
    }
    refusal(400, "Invalid token")
}
