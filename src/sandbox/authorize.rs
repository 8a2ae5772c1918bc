//! The authorization code grant and the implicit grant: the page that asks a user for consent, and the exchange of
//! codes (Twitch: "Getting OAuth Access Tokens"). Anybody may say to be any user: this is a stand-in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::Url;
use serde_json::json;

use super::auth::{check_client, fields, refusal};
use super::news;
use super::pages::{escaped, html};
use super::state::{Shared, World, random_text};
use super::tokens::{ClientKind, USER_TOKEN, UserScopes, UserTokens};
use crate::platform::{Answer, Call};

/// Time until a code expires.
const CODE_LIFE: Duration = Duration::from_secs(600);

/// A code that has not been exchanged yet.
#[derive(Clone, Debug)]
struct Code {
    client_id: String,
    redirect_uri: String,
    user: UserScopes,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Codes(HashMap<String, Code>);

impl Codes {
    fn issue(&mut self, code: Code) -> String {
        let text = random_text(30).to_ascii_lowercase();
        self.0.insert(text.clone(), code);
        text
    }

    /// Uses up a code.
    fn redeem(
        &mut self,
        text: &str,
        client_id: &str,
        redirect_uri: &str,
        now: Instant,
    ) -> Option<UserScopes> {
        let code = self.0.get(text)?;
        if code.client_id != client_id || code.redirect_uri != redirect_uri {
            return None;
        }
        self.0.remove(text).filter(|code| code.until > now).map(|code| code.user)
    }
}

/// Permissions that an application asks a user for.
#[derive(Clone, Debug)]
struct Request {
    client_id: String,
    redirect: Url,
    /// As it was given.
    redirect_uri: String,
    /// Whether the token is to stand in the fragment, instead of a code in the query.
    is_implicit: bool,
    scopes: Vec<String>,
    state: Option<String>,
}

impl Request {
    fn read(world: &World, form: &HashMap<String, String>) -> Result<Self, Answer> {
        let field = |name: &str| form.get(name).filter(|value| !value.is_empty());
        let client_id = field("client_id").ok_or_else(|| refusal(400, "missing client id"))?;
        if !world.is_client(client_id) {
            return Err(refusal(400, "invalid client"));
        }
        let redirect_uri = field("redirect_uri").ok_or_else(|| refusal(400, "missing redirect uri"))?;
        let registered = &world.options.redirect_uris;
        let is_registered = registered.is_empty() || registered.contains(redirect_uri);
        // Never send a browser to an address that the application did not register.
        let redirect = Url::parse(redirect_uri).ok().filter(|url| is_registered && url.fragment().is_none());
        let mismatch = || refusal(400, "Parameter redirect_uri does not match registered URI");
        let is_implicit = match field("response_type").map(String::as_str) {
            Some("code") => false,
            Some("token") => true,
            _ => return Err(refusal(400, "invalid response type")),
        };
        Ok(Self {
            client_id: client_id.clone(),
            redirect: redirect.ok_or_else(mismatch)?,
            redirect_uri: redirect_uri.clone(),
            is_implicit,
            scopes: scopes(field("scope")),
            state: field("state").cloned(),
        })
    }

    /// Sends the browser back to the application.
    fn send_back(&self, pairs: &[(&str, &str)]) -> Answer {
        let mut url = self.redirect.clone();
        let state = self.state.as_deref().map(|state| ("state", state));
        let pairs = pairs.iter().copied().chain(state);
        if self.is_implicit {
            let fragment = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            url.set_fragment(Some(&fragment));
        } else {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let mut answer = Answer::empty(302);
        answer.headers.push(("Location", url.to_string()));
        answer
    }
}

fn scopes(text: Option<&String>) -> Vec<String> {
    text.map_or("", String::as_str).split_whitespace().map(str::to_owned).collect()
}

/// `/oauth2/authorize`: `GET` shows the page, `POST` is the user's answer to it.
pub(super) async fn page(world: &Shared, call: &Call) -> Answer {
    let form = fields(call);
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let is_answer = call.method == hyper::Method::POST;
    if is_answer && field("grant_type") == "user_token" {
        return mock_user_token(world, &form).await;
    }
    let request = match Request::read(world, &form) {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    if !is_answer {
        return consent(&request, "", 200);
    }
    if field("answer") != "allow" {
        let description = "The user denied you access";
        return request.send_back(&[("error", "access_denied"), ("error_description", description)]);
    }
    let login = field("login");
    let Some(id) = world.id_of(login) else {
        return consent(&request, "<p role=\"alert\">There is no such user.</p>", 400);
    };
    news::granted(world, &id, &request.scopes).await;
    let user = UserScopes { id, scopes: request.scopes.clone() };
    let scope = request.scopes.join(" ");
    let now = Instant::now();
    if request.is_implicit {
        let tokens = world.lock().tokens.issue_user(&request.client_id, user, ClientKind::Public, now);
        let access = ("access_token", tokens.access.as_str());
        return request.send_back(&[access, ("scope", &scope), ("token_type", "bearer")]);
    }
    let code = world.lock().codes.issue(Code {
        client_id: request.client_id.clone(),
        redirect_uri: request.redirect_uri.clone(),
        user,
        until: now + CODE_LIFE,
    });
    request.send_back(&[("code", &code), ("scope", &scope)])
}

fn consent(request: &Request, note: &str, status: u16) -> Answer {
    let scopes: String = request.scopes.iter().map(|scope| format!("<li>{}</li>", escaped(scope))).collect();
    let hidden = |name: &str, value: &str| {
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escaped(value))
    };
    let mut fields = hidden("client_id", &request.client_id);
    fields += &hidden("redirect_uri", &request.redirect_uri);
    fields += &hidden("response_type", if request.is_implicit { "token" } else { "code" });
    fields += &hidden("scope", &request.scopes.join(" "));
    if let Some(state) = &request.state {
        fields += &hidden("state", state);
    }
    html(
        status,
        &format!(
            "<h1>The stand-in for Twitch asks</h1><p>The application <code>{}</code> wants access to your \
             account:</p><ul>{scopes}</ul>{note}\
             <form method=\"post\">{fields}\
             <label>Your login <input name=\"login\" required autofocus></label> \
             <button name=\"answer\" value=\"allow\">Authorize</button> \
             <button name=\"answer\" value=\"refuse\" formnovalidate>Cancel</button></form>",
            escaped(&request.client_id)
        ),
    )
}

/// A token without a page, as the mock server of Twitch's own CLI hands it out.
async fn mock_user_token(world: &Shared, form: &HashMap<String, String>) -> Answer {
    let field = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let (Some(client_id), Some(user_id)) = (field("client_id"), field("user_id")) else {
        return refusal(400, "client_id, client_secret, user_id and scope are needed");
    };
    if let Err(refused) = check_client(world, client_id, field("client_secret").map(String::as_str)) {
        return refused;
    }
    if !world.lock().users.exists(user_id) {
        return refusal(400, "user does not exist");
    }
    let user = UserScopes { id: user_id.clone(), scopes: scopes(field("scope")) };
    news::granted(world, &user.id, &user.scopes).await;
    let tokens = world.lock().tokens.issue_user(client_id, user, ClientKind::Confidential, Instant::now());
    user_answer(&tokens)
}

/// `grant_type=authorization_code`
pub(super) fn exchange(
    world: &World,
    client_id: &str,
    form: &HashMap<String, String>,
) -> Result<Answer, Answer> {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let mut state = world.lock();
    let user = state.codes.redeem(field("code"), client_id, field("redirect_uri"), Instant::now());
    let user = user.ok_or_else(|| refusal(400, "Invalid authorization code"))?;
    Ok(user_answer(&state.tokens.issue_user(client_id, user, ClientKind::Confidential, Instant::now())))
}

/// `grant_type=refresh_token`
pub(super) fn refresh(
    world: &World,
    client_id: &str,
    kind: ClientKind,
    refresh_token: &str,
) -> Result<Answer, Answer> {
    let tokens = world.lock().tokens.refresh(client_id, refresh_token, kind, Instant::now());
    tokens.map(|tokens| user_answer(&tokens)).ok_or_else(|| refusal(400, "Invalid refresh token"))
}

/// The token endpoint's answer with a user's tokens.
pub(super) fn user_answer(tokens: &UserTokens) -> Answer {
    Answer::json(
        200,
        &json!({
            "access_token": tokens.access, "expires_in": USER_TOKEN.as_secs(), "refresh_token": tokens.refresh,
            "scope": tokens.scopes, "token_type": "bearer",
        }),
    )
}
