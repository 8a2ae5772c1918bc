//! Token, validate, revoke (Twitch: "Getting OAuth Access Tokens", "Validating Tokens", "Revoke Access
//! Tokens"). Errors have no `error` field here.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::state::{Shared, World};
use super::tokens::ClientKind;
use super::{authorize, device};
use crate::platform::{Answer, Call};

/// An error in the form of the token endpoints.
pub(super) fn refusal(status: u16, message: &str) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        status: u16,
        message: &'a str,
    }
    Answer::json(status, &Body { status, message })
}

/// Checks the client id and the secret of a token request.
pub(super) fn check_client(world: &World, client_id: &str, secret: Option<&str>) -> Result<(), Answer> {
    let secret = secret.ok_or_else(|| refusal(400, "missing client secret"))?;
    if !world.is_client(client_id) {
        return Err(refusal(400, "invalid client"));
    }
    if client_id == world.options.client_id && secret != world.lock().secret {
        return Err(refusal(403, "invalid client secret"));
    }
    Ok(())
}

/// Fields of the form; those of the query count as well.
pub(super) fn fields(call: &Call) -> HashMap<String, String> {
    let mut fields: HashMap<_, _> = call.query.iter().cloned().collect();
    fields.extend(form_urlencoded::parse(&call.body).into_owned());
    fields
}

/// `POST /oauth2/token`
pub(super) fn token(world: &Shared, call: &Call) -> Answer {
    let answer = try_token(world, call);
    world.count(|stats| match &answer {
        Ok(_) => stats.mints += 1,
        Err(_) => stats.mints_refused += 1,
    });
    answer.unwrap_or_else(|refused| refused)
}

fn try_token(world: &Shared, call: &Call) -> Result<Answer, Answer> {
    let fields = fields(call);
    let field = |name: &str| fields.get(name).filter(|value| !value.is_empty());
    let client_id = field("client_id").ok_or_else(|| refusal(400, "missing client id"))?;
    let secret = field("client_secret").map(String::as_str);
    let grant = field("grant_type").map_or("", String::as_str);
    // A client without a secret may use these two.
    let may_be_public = [device::GRANT_TYPE, "refresh_token"].contains(&grant);
    let kind = if secret.is_none() && may_be_public { ClientKind::Public } else { ClientKind::Confidential };
    if kind == ClientKind::Confidential {
        check_client(world, client_id, secret)?;
    }
    match grant {
        device::GRANT_TYPE => {
            return device::token(world, client_id, kind, field("device_code").map_or("", String::as_str));
        }
        "refresh_token" => {
            let text = field("refresh_token").ok_or_else(|| refusal(400, "missing refresh token"))?;
            return authorize::refresh(world, client_id, kind, text);
        }
        "authorization_code" => return authorize::exchange(world, client_id, &fields),
        "client_credentials" => {}
        _ => return Err(refusal(400, "invalid grant type")),
    }
    let life = world.options.token_life;
    let text = world.lock().tokens.issue_app(client_id, life, Instant::now());
    let expires_in = life.as_secs();
    Ok(Answer::json(200, &json!({"access_token": text, "expires_in": expires_in, "token_type": "bearer"})))
}

/// The answer about a token that is valid.
#[derive(Serialize)]
struct Valid<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    scopes: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    expires_in: u64,
}

/// `GET /oauth2/validate`
pub(super) fn validate(world: &Shared, call: &Call) -> Answer {
    world.count(|stats| stats.validations += 1);
    let text = call.authorization.as_deref().unwrap_or_default();
    let text = text.strip_prefix("OAuth ").or_else(|| text.strip_prefix("Bearer ")).unwrap_or_default();
    let state = world.lock();
    match state.tokens.get(text, Instant::now()) {
        Some(token) => {
            let user = token.user.as_ref();
            let login = user.and_then(|user| state.users.login_of(&user.id));
            Answer::json(
                200,
                &Valid {
                    client_id: &token.client_id,
                    login: login.as_deref(),
                    scopes: user.map(|user| user.scopes.as_slice()),
                    user_id: user.map(|user| user.id.as_str()),
                    expires_in: (token.until - Instant::now()).as_secs(),
                },
            )
        }
        None => refusal(401, "invalid access token"),
    }
}

/// `POST /oauth2/revoke`
pub(super) fn revoke(world: &Shared, call: &Call) -> Answer {
    let fields = fields(call);
    let (Some(client_id), Some(token)) = (fields.get("client_id"), fields.get("token")) else {
        let missing =
            if fields.contains_key("client_id") { "missing oauth token" } else { "missing client id" };
        return refusal(400, missing);
    };
    if !world.is_client(client_id) {
        return refusal(404, "client does not exist");
    }
    match world.lock().tokens.revoke(client_id, token) {
        true => Answer::empty(200),
        false => refusal(400, "Invalid token"),
    }
}
