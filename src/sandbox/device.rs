//! The device code grant: a person allows, or does not, what a program asks for (Twitch: "Device code grant
//! flow"). Whoever opens the page may be anybody: this is a stand-in.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;

use super::auth::{fields, refusal};
use super::authorize::user_answer;
use super::news;
use super::pages::{escaped, html};
use super::state::{Shared, random_text};
use super::tokens::{ClientKind, UserScopes};
use crate::platform::{Answer, Call};

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A device that waits for somebody's leave.
#[derive(Clone, Debug)]
struct Device {
    client_id: String,
    user_code: String,
    scopes: Vec<String>,
    until: Instant,
    answer: DeviceAnswer,
}

/// State of a device code.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DeviceAnswer {
    Waiting,
    /// By this user id.
    Allowed(String),
    Refused,
}

/// All devices by their code.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<String, Device>);

impl Devices {
    /// The user code of the newest device that waits.
    pub(super) fn newest(&self) -> Option<String> {
        let waiting = self.0.values().filter(|device| device.answer == DeviceAnswer::Waiting);
        waiting.max_by_key(|device| device.until).map(|device| device.user_code.clone())
    }
}

/// `POST /oauth2/device`.
pub(super) fn start(world: &Shared, call: &Call) -> Answer {
    let fields = fields(call);
    let Some(client_id) = fields.get("client_id").filter(|id| !id.is_empty()) else {
        return refusal(400, "missing client id");
    };
    if !world.is_client(client_id) {
        return refusal(400, "invalid client");
    }
    let scopes = fields.get("scopes").map_or("", String::as_str);
    let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
    let device_code = random_text(40);
    let user_code = random_text(8).to_ascii_uppercase();
    let life = world.options.device_life;
    let device = Device {
        client_id: client_id.clone(),
        user_code: user_code.clone(),
        scopes,
        until: Instant::now() + life,
        answer: DeviceAnswer::Waiting,
    };
    world.lock().devices.0.insert(device_code.clone(), device);
    let uri = format!("http://{}/activate?device-code={user_code}", world.address);
    Answer::json(
        200,
        &json!({
            "device_code": device_code, "expires_in": life.as_secs().max(1), "interval": world.options.device_interval,
            "user_code": user_code, "verification_uri": uri,
        }),
    )
}

/// The program asks for its token.
pub(super) fn token(
    world: &Shared,
    client_id: &str,
    kind: ClientKind,
    device_code: &str,
) -> Result<Answer, Answer> {
    let mut state = world.lock();
    let fits = |device: &&Device| device.client_id == client_id && device.until > Instant::now();
    let Some(device) = state.devices.0.get(device_code).filter(fits).cloned() else {
        return Err(refusal(400, "invalid device code"));
    };
    let user = match device.answer {
        DeviceAnswer::Waiting => return Err(refusal(400, "authorization_pending")),
        DeviceAnswer::Refused => {
            state.devices.0.remove(device_code);
            return Err(refusal(400, "invalid device code"));
        }
        DeviceAnswer::Allowed(user) => user,
    };
    state.devices.0.remove(device_code);
    let user = UserScopes { id: user, scopes: device.scopes };
    Ok(user_answer(&state.tokens.issue_user(client_id, user, kind, Instant::now())))
}

/// The page that a person opens: `GET` shows what is asked for, `POST` answers it.
pub(super) async fn page(world: &Shared, call: &Call) -> Answer {
    let form = fields(call);
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let user_code = field("device-code");
    let waiting = |device: &&Device| {
        device.user_code == user_code
            && device.until > Instant::now()
            && device.answer == DeviceAnswer::Waiting
    };
    let found = world.lock().devices.0.values().find(waiting).cloned();
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
    match answer(world, user_code, (field("answer") == "allow").then(|| field("login"))).await {
        true => html(200, "<h1>Done</h1><p>You can close this page.</p>"),
        false => html(400, "<h1>There is no such user</h1>"),
    }
}

/// Answers a device code: allowed by this login, or refused. False if there is no such code or user.
pub(super) async fn answer(world: &Shared, user_code: &str, login: Option<&str>) -> bool {
    let granted = {
        let mut state = world.lock();
        let user = login.map(|login| state.users.id_of(login));
        let Some(device) = state.devices.0.values_mut().find(|device| device.user_code == user_code) else {
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
    news::granted(world, &granted.0, &granted.1).await;
    true
}
