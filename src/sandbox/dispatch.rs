//! Events on their way: which shard, which socket (Twitch: "Handling Conduit Events").

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::samples::{self, SampleRequest, SampleUser};
use super::state::{Inner, Order, Shared, State, Subscription, Target};
use super::subscriptions::{condition, transport};
use crate::model::time::Timestamp;
use crate::model::{catalog, hint};

/// A message's text, its id, and the socket that it goes to.
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) text: Utf8Bytes,
    orders: mpsc::Sender<Order>,
    silent: bool,
}

/// The subscription as notifications show it.
fn shown(subscription: &Subscription) -> String {
    // The order of fields is that of Twitch's notifications, which a map would not keep.
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        r#"{{"id":{},"status":{},"type":{},"version":{},"cost":{},"condition":{},"transport":{},"created_at":{}}}"#,
        text(&subscription.id),
        text(&subscription.status),
        text(&subscription.kind),
        text(&subscription.version),
        subscription.cost,
        condition(subscription),
        transport(subscription),
        json!(subscription.created_at),
    )
}

/// The frame of a notification.
pub(super) fn notification(subscription: &Subscription, id: &str, event: &str) -> String {
    let batched = catalog::lookup(&subscription.kind, &subscription.version).is_some_and(|row| row.batched);
    let field = if batched { "events" } else { "event" };
    let mut text = String::with_capacity(event.len() + 700);
    let now = Timestamp(SystemTime::now());
    let _ = write!(
        text,
        r#"{{"metadata":{{"message_id":"{id}","message_type":"notification","message_timestamp":"{now}","subscription_type":"{}","subscription_version":"{}"}},"payload":{{"subscription":{},"{field}":{event}}}}}"#,
        subscription.kind,
        subscription.version,
        shown(subscription),
    );
    text
}

/// The frame of a revocation.
pub(super) fn revocation(subscription: &Subscription, id: &str) -> String {
    let now = Timestamp(SystemTime::now());
    format!(
        r#"{{"metadata":{{"message_id":"{id}","message_type":"revocation","message_timestamp":"{now}","subscription_type":"{}","subscription_version":"{}"}},"payload":{{"subscription":{}}}}}"#,
        subscription.kind,
        subscription.version,
        shown(subscription),
    )
}

/// The session that gets what concerns a subscription: the shard of its channel, or, when that is
/// disabled, one other.
fn choose<'a>(state: &'a State, subscription: &Subscription) -> Option<&'a str> {
    let Target::Conduit(id) = &subscription.target else { return None };
    let conduit = state.conduits.iter().find(|conduit| conduit.id == *id)?;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in subscription.channel().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let count = u64::from(conduit.shard_count.max(1));
    let session = |nth: u64| {
        let shard = conduit.shards.get(&u32::try_from(nth % count).ok()?)?;
        shard.session.as_deref().filter(|_| shard.status == "enabled")
    };
    session(hash % count).or_else(|| session(hash.wrapping_add(1)))
}

/// Addresses a message, and remembers it for sending again.
pub(super) fn address(
    inner: &Inner,
    state: &mut State,
    subscription: &Subscription,
    id: String,
    text: String,
) -> Option<Letter> {
    let Some(session) = choose(state, subscription).map(str::to_owned) else {
        inner.count(|stats| stats.undeliverable += 1);
        return None;
    };
    let text = Utf8Bytes::from(text);
    state.keep_message(id.clone(), session.clone(), text.clone());
    letter(state, id, &session, text)
}

/// For a message that was addressed before.
pub(super) fn letter(state: &State, id: String, session: &str, text: Utf8Bytes) -> Option<Letter> {
    let to = state.sessions.get(session)?;
    Some(Letter { id, text, orders: to.orders.clone(), silent: to.silent })
}

/// Hands a message to its socket; false when that is gone. A silent socket swallows it.
pub(super) async fn post(inner: &Inner, letter: Letter) -> bool {
    post_all(inner, vec![letter]).await
}

/// The same for messages that go to one socket.
pub(super) async fn post_all(inner: &Inner, letters: Vec<Letter>) -> bool {
    let Some(first) = letters.first() else { return true };
    if first.silent {
        inner.count(|stats| stats.undeliverable += letters.len() as u64);
        return true;
    }
    let orders = first.orders.clone();
    orders.send(Order::Events(letters.into_iter().map(|l| (l.id, l.text)).collect())).await.is_ok()
}

/// A sample event for a subscription.
pub(super) fn sample(inner: &Inner, state: &State, subscription: &Subscription, serial: u64) -> String {
    let user = |id: &str| {
        let login = inner.login_of(state, id).unwrap_or_else(|| format!("user_{id}"));
        SampleUser { id: id.to_owned(), name: login.clone(), login }
    };
    samples::event(&SampleRequest {
        subscription_type: &subscription.kind,
        version: &subscription.version,
        condition: &subscription.condition(),
        user: &user,
        now: Timestamp(SystemTime::now()),
        serial,
    })
}

/// Sends sample events round all subscriptions, one each `pace`.
pub(super) async fn feed(inner: Shared, pace: Duration) {
    let mut timer = tokio::time::interval(pace);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = 0;
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let letter = next_sample(&inner, &mut last);
        if let Some(letter) = letter {
            post(&inner, letter).await;
        }
    }
}

fn next_sample(inner: &Arc<Inner>, last: &mut u64) -> Option<Letter> {
    let mut state = inner.lock();
    let bound = |subscription: &Subscription| {
        // What the stand-in says of grants and shards is said when it is true.
        subscription.status == "enabled"
            && !hint::TYPES.contains(&subscription.kind.as_str())
            && choose(&state, subscription).is_some()
    };
    let mut after = state.subscriptions.range(*last + 1..).chain(state.subscriptions.range(..=*last));
    let (serial, subscription) = after.find(|(_, subscription)| bound(subscription))?;
    *last = *serial;
    let subscription = subscription.clone();
    state.serial += 1;
    let serial = state.serial;
    let event = sample(inner, &state, &subscription, serial);
    let id = inner.uuid(&mut state);
    let text = notification(&subscription, &id, &event);
    address(inner, &mut state, &subscription, id, text)
}
