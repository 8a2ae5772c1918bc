//! `POST /sandbox/…`: what Twitch would do by itself, on demand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::state::{Shared, World};
use super::{edit, news, send, socket};
use crate::platform::{
    Answer, Call, ENABLED, FAILURES_EXCEEDED, Order, REVOKED, Subscription, every_scope, is_live,
    is_shard_status, is_subscription_status,
};

/// A request that cannot be carried out, in words.
type Refused = Answer;

fn bad(message: &str) -> Refused {
    Answer::error(400, message)
}

fn nothing(message: &str) -> Refused {
    Answer::error(404, message)
}

/// Answers a request to `/sandbox/NAME`.
pub(super) async fn answer(world: &Shared, name: &str, call: &Call) -> Answer {
    let outcome = match name {
        "trigger" => trigger(world, call).await,
        "reconnect" => reconnect(world, call),
        "close" => close(world, call),
        "revoke" => revoke(world, call).await,
        "disable" => disable(world, call).await,
        "grant" => grant(world, call).await,
        "moderator" => moderator(world, call).await,
        _ => Err(nothing("the sandbox has no such command")),
    };
    outcome.unwrap_or_else(|refused| refused)
}

fn body<'a, T: Deserialize<'a>>(call: &'a Call) -> Result<T, Refused> {
    let text: &[u8] = if call.body.is_empty() { b"{}" } else { &call.body };
    serde_json::from_slice(text).map_err(|error| bad(&format!("the body cannot be read: {error}")))
}

/// One line for each thing that was done.
#[derive(Serialize)]
struct Done {
    done: Vec<String>,
}

fn done(done: Vec<String>) -> Answer {
    Answer::json(200, &Done { done })
}

#[derive(Deserialize)]
struct Trigger<'a> {
    #[serde(rename = "type")]
    kind: String,
    broadcaster: Option<String>,
    /// The event in place of a sample.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    set: Vec<(String, &'a RawValue)>,
}

impl Trigger<'_> {
    /// The event for one subscription.
    fn event(&self, subscription: &Subscription, sample: String) -> Result<String, Refused> {
        let root = if subscription.is_batched() { "events" } else { "event" };
        let mut event = match self.data {
            None => sample,
            Some(data) => {
                let (start, form) =
                    if subscription.is_batched() { ('[', "a list") } else { ('{', "an object") };
                if !data.get().starts_with(start) {
                    return Err(bad(&format!("`{root}` of {} must be {form}", self.kind)));
                }
                data.get().to_owned()
            }
        };
        for (path, value) in &self.set {
            let parts: Vec<&str> = path.split('.').collect();
            match parts.split_first() {
                Some((first, rest)) if *first == root && !rest.is_empty() => {
                    event = edit::set(&event, rest, value.get())
                        .map_err(|error| bad(&format!("cannot set `{path}`: {error}")))?;
                }
                _ => return Err(bad(&format!("`{path}`: a path of {} begins with `{root}.`", self.kind))),
            }
        }
        Ok(event)
    }
}

#[derive(Serialize)]
struct Sent {
    subscription_id: String,
    message_id: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Triggered {
    sent: Vec<Sent>,
}

async fn trigger(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let request: Trigger<'_> = body(call)?;
    let found = news::samples_for(world, &request.kind, request.broadcaster.as_deref())
        .map_err(|error| nothing(&error.to_string()))?;
    let events: Result<Vec<_>, Refused> = found
        .into_iter()
        .map(|(subscription, sample)| Ok((request.event(&subscription, sample)?, subscription)))
        .collect();
    let (mut sent, mut last) = (Vec::new(), None);
    for (event, subscription) in events? {
        let outcome = news::notify(world, &subscription, &event).await;
        let error = outcome.as_ref().err().map(ToString::to_string);
        last = error.clone().or(last);
        sent.push(Sent { subscription_id: subscription.id, message_id: outcome.ok(), error });
    }
    match last {
        Some(error) if sent.iter().all(|sent| sent.message_id.is_none()) => Err(nothing(&error)),
        _ => Ok(Answer::json(200, &Triggered { sent })),
    }
}

#[derive(Deserialize)]
struct Close {
    session: Option<String>,
    code: Option<u16>,
}

/// The session that is named, or all.
fn sessions(world: &World, named: Option<String>) -> Result<Vec<String>, Refused> {
    let all = world.lock().sessions.ids();
    let Some(id) = named else {
        let none = "no WebSocket is connected to the sandbox";
        return if all.is_empty() { Err(nothing(none)) } else { Ok(all) };
    };
    if all.contains(&id) { Ok(vec![id]) } else { Err(nothing(&format!("there is no session {id}"))) }
}

fn reconnect(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let request: Close = body(call)?;
    let sessions = sessions(world, request.session)?;
    for id in &sessions {
        tokio::spawn(socket::ask_reconnect(Arc::clone(world), id.clone()));
    }
    Ok(done(sessions.iter().map(|id| format!("asked {id} to reconnect")).collect()))
}

fn close(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let request: Close = body(call)?;
    let code = request.code.unwrap_or(4000);
    let order = match code {
        1006 => Order::Kill,
        1005 | 1015 => return Err(bad(&format!("no close frame can have the code {code}"))),
        1000..=4999 => Order::Close(code),
        _ => return Err(bad(&format!("{code} is not a valid close code"))),
    };
    let sessions = sessions(world, request.session)?;
    for id in &sessions {
        send::order(world, id, order.clone());
    }
    Ok(done(sessions.iter().map(|id| format!("closed {id} with {code}")).collect()))
}

#[derive(Deserialize)]
struct Revoke {
    user: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    broadcaster: Option<String>,
    subscription: Option<String>,
    status: Option<String>,
}

fn user_id(world: &World, login: &str) -> Result<String, Refused> {
    world.id_of(login).ok_or_else(|| nothing(&format!("there is no user {login}")))
}

async fn revoke(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let request: Revoke = body(call)?;
    if let Some(login) = &request.user {
        news::disconnected(world, &user_id(world, login)?).await;
        return Ok(done(vec![format!("{login} has disconnected the application")]));
    }
    let status = request.status.as_deref().unwrap_or(REVOKED);
    if !is_subscription_status(status) || is_live(status) {
        return Err(bad(&format!("`{status}` is not a status that ends a subscription")));
    }
    let broadcaster = request.broadcaster.as_deref().map(|login| user_id(world, login)).transpose()?;
    let fits = |subscription: &&Subscription| {
        subscription.is_live()
            && request.kind.as_ref().is_none_or(|kind| subscription.kind == *kind)
            && request.subscription.as_ref().is_none_or(|id| subscription.id == *id)
            && broadcaster.as_ref().is_none_or(|id| subscription.condition.names(id))
    };
    let found: Vec<_> = world.lock().subscriptions.iter().filter(fits).cloned().collect();
    if found.is_empty() {
        return Err(nothing("no live subscription fits; `eventsubd status` shows what is subscribed to"));
    }
    let mut lines = Vec::new();
    for subscription in found {
        news::revoke(world, &subscription.id, status).await;
        lines.push(format!("ended {} {}: {status}", subscription.kind, subscription.id));
    }
    Ok(done(lines))
}

#[derive(Deserialize)]
struct Disable {
    conduit: Option<String>,
    shard: Option<u32>,
    status: Option<String>,
}

async fn disable(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let request: Disable = body(call)?;
    if let Some(status) =
        request.status.as_deref().filter(|status| !is_shard_status(status) || is_live(status))
    {
        return Err(bad(&format!("`{status}` is not a status that disables a shard")));
    }
    let found: Vec<(String, u32, String)> = {
        let mut state = world.lock();
        let shards: Vec<_> = state
            .conduits
            .iter()
            .filter(|conduit| request.conduit.as_deref().is_none_or(|id| conduit.id() == id))
            .flat_map(|conduit| {
                conduit.shards().map(|(number, shard)| (conduit.id().to_owned(), number, shard))
            })
            .filter(|(_, number, shard)| {
                shard.status() == ENABLED && request.shard.is_none_or(|wanted| wanted == *number)
            })
            .map(|(id, number, shard)| {
                let usual =
                    if shard.endpoint().is_some() { FAILURES_EXCEEDED } else { "websocket_internal_error" };
                (id, number, request.status.clone().unwrap_or_else(|| usual.to_owned()))
            })
            .collect();
        for (conduit, number, status) in &shards {
            state.conduits.set_status(conduit, *number, status);
        }
        shards
    };
    if found.is_empty() {
        return Err(nothing("no enabled shard fits"));
    }
    let mut lines = Vec::new();
    for (conduit, number, status) in found {
        news::shard_disabled(world, &conduit, number).await;
        lines.push(format!("disabled shard {number} of {conduit}: {status}"));
    }
    Ok(done(lines))
}

#[derive(Deserialize)]
struct Grant {
    login: String,
    #[serde(default)]
    scopes: Vec<String>,
}

async fn grant(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let Grant { login, mut scopes } = body(call)?;
    let known = every_scope();
    if let Some(scope) = scopes.iter().find(|scope| !known.contains(*scope)) {
        return Err(bad(&format!("no subscription type needs the scope `{scope}`")));
    }
    if scopes.is_empty() {
        scopes = known.into_iter().collect();
    }
    news::granted(world, &user_id(world, &login)?, &scopes).await;
    Ok(done(vec![format!("{login} has granted {}", scopes.join(" "))]))
}

#[derive(Deserialize)]
struct Moderator {
    login: String,
    channel: String,
    #[serde(default)]
    remove: bool,
}

async fn moderator(world: &Shared, call: &Call) -> Result<Answer, Refused> {
    let Moderator { login, channel, remove } = body(call)?;
    let (channel_id, id) = (user_id(world, &channel)?, user_id(world, &login)?);
    if !remove {
        world.lock().grants.set_moderator(&channel_id, &id);
        return Ok(done(vec![format!("{login} is a moderator of {channel}")]));
    }
    if !news::moderator_removed(world, &channel_id, &id).await {
        return Err(nothing(&format!("{login} is not a moderator of {channel}")));
    }
    Ok(done(vec![format!("{login} is not a moderator of {channel} any more")]))
}
