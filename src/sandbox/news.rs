//! Messages that the mock makes by itself: events, grants and their end, disabled shards, revocations.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::mpsc;

use super::send::{self, Outgoing};
use super::state::{Report, Shared, State, World};
use super::webhook::Owner;
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;
use crate::model::{catalog, hint};
use crate::platform::{
    Content, ENABLED, FAILURES_EXCEEDED, MODERATOR_REMOVED, Moment, Subscription, Transport, lacks_moderator,
};
use crate::samples::{self, Happening, SampleRequest, SampleUser};

/// An event could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// There is no such type.
    #[error("there is no subscription type {0}; `eventsubd types` lists them")]
    UnknownType(String),
    /// There is no subscription that fits.
    #[error("no enabled subscription fits; `eventsubd status` shows what is subscribed to")]
    NoSubscription,
    /// There is one, and only enabled ones get events.
    #[error("the subscription is not enabled: {0}")]
    NotEnabled(String),
    /// There is one, and no shard that takes it.
    #[error("no shard of the conduit is connected, so the event is lost, as at Twitch")]
    NoShard,
}

/// Sends an event to an enabled subscription; returns the message's id.
pub(super) async fn notify(
    world: &Shared,
    subscription: &Subscription,
    event: &str,
) -> Result<String, TriggerError> {
    // The channel changes whether or not anybody is subscribed.
    world.lock().channels.record(&subscription.kind, event, Instant::now());
    if subscription.status != ENABLED {
        return Err(TriggerError::NotEnabled(subscription.status.clone()));
    }
    let outgoing = {
        let content = Content::notification(SystemTime::now(), subscription, event);
        send::address(world, &mut world.lock(), subscription, content)
    };
    let outgoing = outgoing.ok_or(TriggerError::NoShard)?;
    let id = outgoing.message.id.clone();
    if send::send(world, outgoing).await { Ok(id) } else { Err(TriggerError::NoShard) }
}

/// Happening of a sample, independent of its receivers.
struct Occasion {
    serial: u64,
    now: SystemTime,
    /// By condition: subscriptions that differ in version or transport alone get the same.
    happenings: HashMap<Condition, Option<Happening>>,
}

impl Occasion {
    fn new(world: &World) -> Self {
        Self { serial: world.next_serial(), now: SystemTime::now(), happenings: HashMap::new() }
    }

    /// The sample event for a subscription.
    fn sample(&mut self, state: &mut State, subscription: &Subscription) -> String {
        let condition = subscription.condition.to_condition();
        let now = Timestamp(self.now);
        let begin = || state.happenings.record(&subscription.kind, &condition, now);
        let happening = *self.happenings.entry(condition.clone()).or_insert_with(begin);
        let user = |id: &str| {
            let login = state.users.login_of(id).unwrap_or_else(|| format!("user_{id}"));
            SampleUser { id: id.to_owned(), name: login.clone(), login }
        };
        samples::event(&SampleRequest {
            subscription_type: &subscription.kind,
            version: &subscription.version,
            condition: &condition,
            user: &user,
            now,
            serial: self.serial,
            happening,
        })
    }
}

/// The enabled subscriptions of a type, for this login if given, each with a sample of the same happening.
pub(super) fn samples_for(
    world: &Shared,
    kind: &str,
    broadcaster: Option<&str>,
) -> Result<Vec<(Subscription, String)>, TriggerError> {
    if catalog::versions(kind).next().is_none() {
        return Err(TriggerError::UnknownType(kind.to_owned()));
    }
    let mut occasion = Occasion::new(world);
    let mut state = world.lock();
    let id = broadcaster.map(|login| state.users.id_of(login).unwrap_or_default());
    let found: Vec<_> = state.fitting(kind, id.as_deref()).cloned().collect();
    if found.is_empty() {
        return Err(TriggerError::NoSubscription);
    }
    let with_sample = |subscription: Subscription| {
        let event = occasion.sample(&mut state, &subscription);
        (subscription, event)
    };
    Ok(found.into_iter().map(with_sample).collect())
}

/// Gives a subscription another status and sends the revocation that goes with it; false if there is no such one.
pub(super) async fn revoke(world: &Shared, id: &str, status: &str) -> bool {
    let outgoing = {
        let mut state = world.lock();
        let Some(subscription) = state.subscriptions.end(id, status).cloned() else { return false };
        send::revocation(world, &mut state, &subscription)
    };
    send_each(world, outgoing).await;
    true
}

async fn send_each(world: &Shared, outgoing: impl IntoIterator<Item = Outgoing>) {
    for outgoing in outgoing {
        send::send(world, outgoing).await;
    }
}

/// A user grants scopes; what names that user costs nothing any more.
pub(super) async fn granted(world: &Shared, user_id: &str, scopes: &[String]) {
    {
        let mut state = world.lock();
        state.grants.add(user_id, scopes);
        recount(world, &mut state, user_id);
    }
    tell_of_grants(world, hint::GRANT, user_id).await;
}

/// A user disconnects the application: subscriptions that needed the user's grant end, and others cost something again.
pub(super) async fn disconnected(world: &Shared, user_id: &str) {
    let outgoing: Vec<_> = {
        let mut state = world.lock();
        state.grants.remove(user_id);
        state.tokens.disconnect(user_id);
        let needs = |subscription: &Subscription| {
            let row = catalog::lookup(&subscription.kind, &subscription.version);
            let field = row.and_then(|row| row.scope_granted_by.as_deref());
            field.and_then(|field| subscription.condition.get(field)) == Some(user_id)
                || subscription.user.as_deref() == Some(user_id)
        };
        let ended = state.subscriptions.revoke(needs);
        recount(world, &mut state, user_id);
        ended.iter().filter_map(|subscription| send::revocation(world, &mut state, subscription)).collect()
    };
    send_each(world, outgoing).await;
    tell_of_grants(world, hint::REVOKE, user_id).await;
}

/// A user is no moderator of a channel any more: subscriptions that needed it end. False if the user was none.
pub(super) async fn moderator_removed(world: &Shared, channel: &str, user_id: &str) -> bool {
    let ended: Vec<String> = {
        let mut state = world.lock();
        if !state.grants.remove_moderator(channel, user_id) {
            return false;
        }
        let grants = &state.grants;
        let lacks = |subscription: &&Subscription| {
            let row = catalog::lookup(&subscription.kind, &subscription.version);
            let is_moderator = |channel: &str, user: &str| grants.is_moderator(channel, user);
            let names = |field: &str, id: &str| subscription.condition.get(field) == Some(id);
            subscription.is_live()
                && names("broadcaster_user_id", channel)
                && names("moderator_user_id", user_id)
                && row.is_some_and(|row| lacks_moderator(row, &subscription.condition, is_moderator))
        };
        state.subscriptions.iter().filter(lacks).map(|subscription| subscription.id.clone()).collect()
    };
    for id in ended {
        revoke(world, &id, MODERATOR_REMOVED).await;
    }
    true
}

fn recount(world: &Shared, state: &mut State, user_id: &str) {
    let stranger = world.options.cost_of_strangers;
    let costs: std::collections::HashMap<String, u64> = state
        .subscriptions
        .iter()
        .filter(|subscription| subscription.condition.names(user_id))
        .map(|subscription| (subscription.id.clone(), state.cost(subscription, stranger)))
        .collect();
    state.subscriptions.recount(user_id, |s| costs.get(&s.id).copied().unwrap_or(s.cost));
}

/// Tells those who subscribed to that, over another shard, that a shard is disabled.
pub(super) async fn shard_disabled(world: &Shared, conduit_id: &str, number: u32) {
    /// Every member is there, whatever the method.
    #[derive(Serialize)]
    struct TransportInfo<'a> {
        method: &'a str,
        callback: Option<&'a str>,
        session_id: Option<&'a str>,
        connected_at: Option<Moment>,
        disconnected_at: Option<Moment>,
    }
    #[derive(Serialize)]
    struct Event<'a> {
        conduit_id: &'a str,
        shard_id: String,
        status: &'a str,
        transport: TransportInfo<'a>,
    }
    let (owner, event) = {
        let state = world.lock();
        let Some(conduit) = state.conduits.get(conduit_id) else { return };
        let Some(shard) = conduit.shard(number) else { return };
        let transport = match shard.transport() {
            Transport::Websocket { session_id, connected_at, disconnected_at } => TransportInfo {
                method: "websocket",
                callback: None,
                session_id: Some(session_id),
                connected_at: Some(*connected_at),
                disconnected_at: *disconnected_at,
            },
            _ => TransportInfo {
                method: "webhook",
                callback: shard.endpoint().map(|endpoint| endpoint.callback.as_str()),
                session_id: None,
                connected_at: None,
                disconnected_at: None,
            },
        };
        let event = Event { conduit_id, shard_id: number.to_string(), status: shard.status(), transport };
        let event = serde_json::to_string(&event).expect("an event has string keys");
        (conduit.client_id().to_owned(), event)
    };
    let concerns = |subscription: &Subscription| {
        subscription.client_id == owner
            && subscription.condition.get("conduit_id").is_none_or(|id| id == conduit_id)
    };
    tell(world, hint::SHARD_DISABLED, concerns, |_| event.clone()).await;
}

async fn tell_of_grants(world: &Shared, kind: &str, user_id: &str) {
    #[derive(Serialize)]
    struct Event<'a> {
        client_id: &'a str,
        user_id: &'a str,
        user_login: &'a str,
        user_name: &'a str,
    }
    let login = world.lock().users.login_of(user_id).unwrap_or_default();
    let event = |subscription: &Subscription| {
        let client_id = &subscription.client_id;
        let event = Event { client_id, user_id, user_login: &login, user_name: &login };
        serde_json::to_string(&event).expect("an event has string keys")
    };
    tell(world, kind, |_| true, event).await;
}

/// Sends an event to the enabled subscriptions of a type. Without a shard nobody hears of it, as at Twitch.
async fn tell(
    world: &Shared,
    kind: &str,
    concerns: impl Fn(&Subscription) -> bool,
    event: impl Fn(&Subscription) -> String,
) {
    let subscriptions: Vec<_> = world.lock().fitting(kind, None).filter(|s| concerns(s)).cloned().collect();
    for subscription in subscriptions {
        let _ = notify(world, &subscription, &event(&subscription)).await;
    }
}

/// Tells the client of what happened while messages were delivered, until the stand-in stops.
pub(super) async fn listen(world: Shared, mut reports: mpsc::Receiver<Report>) {
    loop {
        let report = tokio::select! {
            () = world.stop.cancelled() => return,
            report = reports.recv() => report,
        };
        match report {
            Some(Report::Disabled(Owner::Subscription(id))) => {
                revoke(&world, &id, FAILURES_EXCEEDED).await;
            }
            Some(Report::Disabled(Owner::Shard { conduit, shard })) => {
                shard_disabled(&world, &conduit, shard).await;
            }
            None => return,
        }
    }
}

/// Sends sample events round all subscriptions, one each `pace`.
pub(super) async fn feed(world: Shared, pace: Duration) {
    let mut timer = tokio::time::interval(pace);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = 0;
    loop {
        tokio::select! {
            () = world.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let outgoing = next_sample(&world, &mut last);
        send_each(&world, outgoing).await;
    }
}

fn next_sample(world: &Shared, last: &mut u64) -> Option<Outgoing> {
    let mut state = world.lock();
    let bound = |subscription: &Subscription| {
        // Messages about grants and shards come from the mock itself, when they are true.
        subscription.status == ENABLED
            && !hint::TYPES.contains(&subscription.kind.as_str())
            && send::choose(&state, subscription).is_some()
    };
    let subscription = {
        let mut round = state.subscriptions.after(*last).chain(state.subscriptions.after(0));
        let (serial, subscription) = round.find(|(_, subscription)| bound(subscription))?;
        *last = serial;
        // A poll's end is not sent before its begin, in whatever order they were subscribed to.
        let same_channel = |kind: &str| {
            let mut all = state.subscriptions.iter();
            all.find(|other| other.kind == kind && other.channel() == subscription.channel() && bound(other))
        };
        let condition = subscription.condition.to_condition();
        let kind = subscription.kind.as_str();
        let next = state.happenings.next(kind, &condition, |kind| same_channel(kind).is_some());
        if next == kind { subscription } else { same_channel(next).unwrap_or(subscription) }.clone()
    };
    let mut occasion = Occasion::new(world);
    let event = occasion.sample(&mut state, &subscription);
    state.channels.record(&subscription.kind, &event, Instant::now());
    let content = Content::notification(occasion.now, &subscription, &event);
    send::address(world, &mut state, &subscription, content)
}
