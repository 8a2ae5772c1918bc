//! Token, validate, revoke (Twitch: "Getting OAuth Access Tokens", "Validating Tokens", "Revoke Access
//! Tokens"). Errors have no `error` field here.

use std::collections::HashMap;
use std::time::Instant;

use hyper::Method;
use serde_json::json;

use super::server::{Answer, Call};
use super::state::Shared;
use super::tokens::ClientKind;
use super::{authorize, device};

pub(super) async fn answer(inner: &Shared, path: &str, call: &Call) -> Answer {
    match (&call.method, path) {
        (&Method::GET | &Method::POST, "/authorize") => authorize::page(inner, call).await,
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
    let secret = field("client_secret").map(String::as_str);
    let grant = field("grant_type").map_or("", String::as_str);
    // A client without a secret may use these two.
    let may_be_public = [device::GRANT_TYPE, "refresh_token"].contains(&grant);
    let kind = if secret.is_none() && may_be_public { ClientKind::Public } else { ClientKind::Confidential };
    if kind == ClientKind::Confidential {
        inner.check_client(client_id, secret)?;
    }
    match grant {
        device::GRANT_TYPE => {
            return device::token(inner, client_id, kind, field("device_code").map_or("", String::as_str));
        }
        "refresh_token" => {
            let text = field("refresh_token").ok_or_else(|| refusal(400, "missing refresh token"))?;
            return authorize::refresh(inner, client_id, kind, text);
        }
        "authorization_code" => return authorize::exchange(inner, client_id, &fields),
        "client_credentials" => {}
        _ => return Err(refusal(400, "invalid grant type")),
    }
    let life = inner.options.token_life;
    let text = inner.lock().tokens.issue_app(client_id, life, Instant::now());
    let expires_in = life.as_secs();
    Ok(Answer::json(200, &json!({"access_token": text, "expires_in": expires_in, "token_type": "bearer"})))
}

fn validate(inner: &Shared, call: &Call) -> Answer {
    inner.count(|stats| stats.validations += 1);
    let text = call.authorization.as_deref().unwrap_or_default();
    let text = text.strip_prefix("OAuth ").or_else(|| text.strip_prefix("Bearer ")).unwrap_or_default();
    let state = inner.lock();
    match state.tokens.get(text, Instant::now()) {
        Some(token) => {
            let left = (token.until - Instant::now()).as_secs();
            let mut answer = json!({"client_id": token.client_id, "scopes": null, "expires_in": left});
            if let Some(user) = &token.user {
                answer["user_id"] = json!(user.id);
                answer["login"] = json!(inner.login_of(&state, &user.id));
                answer["scopes"] = json!(user.scopes);
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
    if !inner.is_client(client_id) {
        return refusal(404, "client does not exist");
    }
    match inner.lock().tokens.revoke(client_id, token) {
        true => Answer::text(200, String::new()),
        false => refusal(400, "Invalid token"),
    }
}
