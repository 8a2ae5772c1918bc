//! The device code grant: a person allows, or does not, what a program asks for (Twitch: "Device code grant
//! flow"). Whoever opens the page may be anybody: this is a stand-in.

use std::time::Instant;

use serde_json::json;

use super::auth::{fields, refusal};
use super::authorize::user_answer;
use super::pages::{escaped, html};
use super::server::{Answer, Call};
use super::state::{Device, DeviceAnswer, Inner, Shared};
use super::tokens::{ClientKind, UserScopes};

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// `POST /oauth2/device`.
pub(super) fn start(inner: &Shared, call: &Call) -> Answer {
    let fields = fields(call);
    let Some(client_id) = fields.get("client_id").filter(|id| !id.is_empty()) else {
        return refusal(400, "missing client id");
    };
    if !inner.is_client(client_id) {
        return refusal(400, "invalid client");
    }
    let scopes = fields.get("scopes").map_or("", String::as_str);
    let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
    let device_code = Inner::random_text(40);
    let user_code = Inner::random_text(8).to_ascii_uppercase();
    let life = inner.options.device_life;
    let device = Device {
        client_id: client_id.clone(),
        user_code: user_code.clone(),
        scopes,
        until: Instant::now() + life,
        answer: DeviceAnswer::Waiting,
    };
    inner.lock().devices.insert(device_code.clone(), device);
    let uri = format!("http://{}/activate?device-code={user_code}", inner.address);
    Answer::json(
        200,
        &json!({
            "device_code": device_code, "expires_in": life.as_secs().max(1), "interval": inner.options.device_interval,
            "user_code": user_code, "verification_uri": uri,
        }),
    )
}

/// The program asks for its token.
pub(super) fn token(
    inner: &Shared,
    client_id: &str,
    kind: ClientKind,
    device_code: &str,
) -> Result<Answer, Answer> {
    let mut state = inner.lock();
    let fits = |device: &&Device| device.client_id == client_id && device.until > Instant::now();
    let Some(device) = state.devices.get(device_code).filter(fits).cloned() else {
        return Err(refusal(400, "invalid device code"));
    };
    let user = match device.answer {
        DeviceAnswer::Waiting => return Err(refusal(400, "authorization_pending")),
        DeviceAnswer::Refused => {
            state.devices.remove(device_code);
            return Err(refusal(400, "invalid device code"));
        }
        DeviceAnswer::Allowed(user) => user,
    };
    state.devices.remove(device_code);
    let user = UserScopes { id: user, scopes: device.scopes };
    Ok(user_answer(&state.tokens.issue_user(client_id, user, kind, Instant::now())))
}

/// The page that a person opens: `GET` shows what is asked for, `POST` answers it.
pub(super) async fn page(inner: &Shared, call: &Call) -> Answer {
    let form = fields(call);
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let user_code = field("device-code");
    let waiting = |device: &&Device| {
        device.user_code == user_code
            && device.until > Instant::now()
            && device.answer == DeviceAnswer::Waiting
    };
    let found = inner.lock().devices.values().find(waiting).cloned();
    let Some(device) = found else {
        return html(404, "<h1>This code is not known, or has been used</h1>");
    };
    if call.method != hyper::Method::POST {
        let scopes: String =
            device.scopes.iter().map(|scope| format!("<li>{}</li>", escaped(scope))).collect();
        return html(
            200,
            &format!(
                "<h1>The stand-in for Twitch asks</h1><p>An application wants leave for:</p><ul>{scopes}</ul>\
                 <form method=\"post\"><input type=\"hidden\" name=\"device-code\" value=\"{}\">\
                 <label>Your login <input name=\"login\" required autofocus></label> \
                 <button name=\"answer\" value=\"allow\">Allow</button> \
                 <button name=\"answer\" value=\"refuse\" formnovalidate>Refuse</button></form>",
                escaped(user_code)
            ),
        );
    }
    match answer(inner, user_code, (field("answer") == "allow").then(|| field("login"))).await {
        true => html(200, "<h1>Done</h1><p>You can close this page.</p>"),
        false => html(400, "<h1>There is no such user</h1>"),
    }
}

/// Answers a device code: allowed by this login, or refused. False if there is no such code or user.
pub(super) async fn answer(inner: &Shared, user_code: &str, login: Option<&str>) -> bool {
    let granted = {
        let mut state = inner.lock();
        let user = login.map(|login| inner.id_of(&mut state, login));
        let Some(device) = state.devices.values_mut().find(|device| device.user_code == user_code) else {
            return false;
        };
        match user {
            None => {
                device.answer = DeviceAnswer::Refused;
                return true;
            }
            Some(None) => return false,
            Some(Some(id)) => {
                device.answer = DeviceAnswer::Allowed(id.clone());
                (id, device.scopes.clone())
            }
        }
    };
    super::tell::granted(inner, &granted.0, &granted.1).await;
    true
}
