//! Events on their way: which callback, which shard, which socket (Twitch: "Handling Conduit Events").

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::message::Message;
use super::state::{Inner, Order, Shared, State, Subscription, Target};
use super::webhook::{Endpoint, Owner, sender};
use crate::model::hint;
use crate::model::time::Timestamp;
use crate::samples::{self, SampleRequest, SampleUser};

/// The receiver of a message.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Session(String),
    Callback(Owner, Arc<Endpoint>),
}

/// A message, and what takes it there.
pub(super) struct Letter {
    pub(super) message: Message,
    way: Way,
}

enum Way {
    Socket { orders: mpsc::Sender<Order>, silent: bool },
    Post(Owner, Arc<Endpoint>),
}

/// Chooses the receiver of a subscription's messages: its callback, or the shard of its channel, or another shard if
/// that one is disabled.
pub(super) fn choose(state: &State, subscription: &Subscription) -> Option<Address> {
    let id = match &subscription.target {
        Target::Conduit(id) => id,
        Target::Webhook(endpoint) => {
            let owner = Owner::Subscription(subscription.id.clone());
            return Some(Address::Callback(owner, Arc::clone(endpoint)));
        }
    };
    let conduit = state.conduits.iter().find(|conduit| conduit.id == *id)?;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in subscription.channel().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let count = u64::from(conduit.shard_count.max(1));
    let of_shard = |nth: u64| {
        let number = u32::try_from(nth % count).ok()?;
        let shard = conduit.shards.get(&number).filter(|shard| shard.status == "enabled")?;
        match &shard.webhook {
            Some(endpoint) => {
                let owner = Owner::Shard { conduit: id.clone(), shard: number };
                Some(Address::Callback(owner, Arc::clone(endpoint)))
            }
            None => shard.session.clone().map(Address::Session),
        }
    };
    of_shard(hash % count).or_else(|| of_shard(hash.wrapping_add(1)))
}

/// Addresses a message, and remembers it for sending again.
pub(super) fn address(
    inner: &Inner,
    state: &mut State,
    subscription: &Subscription,
    message: Message,
) -> Option<Letter> {
    let Some(address) = choose(state, subscription) else {
        inner.count(|stats| stats.undeliverable += 1);
        return None;
    };
    state.keep_message(message.clone(), address.clone());
    letter(state, message, address)
}

/// For a message that was addressed before.
pub(super) fn letter(state: &State, message: Message, address: Address) -> Option<Letter> {
    let way = match address {
        Address::Callback(owner, endpoint) => Way::Post(owner, endpoint),
        Address::Session(id) => {
            let to = state.sessions.get(&id)?;
            Way::Socket { orders: to.orders.clone(), silent: to.silent }
        }
    };
    Some(Letter { message, way })
}

/// Hands a message to its socket or to the sender of webhooks; false when the socket is gone. A silent
/// socket swallows it.
pub(super) async fn post(inner: &Shared, letter: Letter) -> bool {
    post_all(inner, vec![letter]).await
}

/// The same for messages of one subscription.
pub(super) async fn post_all(inner: &Shared, letters: Vec<Letter>) -> bool {
    let mut socket = None;
    let mut frames = Vec::new();
    for Letter { message, way } in letters {
        match way {
            Way::Post(owner, endpoint) => sender::post(inner, message, owner, endpoint).await,
            Way::Socket { silent: true, .. } => inner.count(|stats| stats.undeliverable += 1),
            Way::Socket { orders, silent: false } => {
                let frame = message.frame();
                frames.push((message.id, frame));
                socket = Some(orders);
            }
        }
    }
    match socket {
        Some(orders) => orders.send(Order::Events(frames)).await.is_ok(),
        None => true,
    }
}

/// Gives a subscription another status and sends the revocation that goes with it.
pub(super) async fn revoke(inner: &Shared, id: &str, status: &str) {
    let letter = {
        let mut state = inner.lock();
        let Some(subscription) = state.subscription_mut(id) else { return };
        status.clone_into(&mut subscription.status);
        subscription.cost = 0;
        let subscription = subscription.clone();
        let message = Message::revocation(inner.uuid(&mut state), &subscription);
        address(inner, &mut state, &subscription, message)
    };
    if let Some(letter) = letter {
        post(inner, letter).await;
    }
}

/// The next sample event for a subscription.
pub(super) fn sample(inner: &Inner, state: &mut State, subscription: &Subscription) -> String {
    let (condition, now) = (subscription.condition(), Timestamp(SystemTime::now()));
    state.serial += 1;
    let happening = state.happenings.record(&subscription.kind, &condition, now);
    let (state, serial) = (&*state, state.serial);
    let user = |id: &str| {
        let login = inner.login_of(state, id).unwrap_or_else(|| format!("user_{id}"));
        SampleUser { id: id.to_owned(), name: login.clone(), login }
    };
    samples::event(&SampleRequest {
        subscription_type: &subscription.kind,
        version: &subscription.version,
        condition: &condition,
        user: &user,
        now,
        serial,
        happening,
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
        // Messages about grants and shards come from the mock itself, when they are true.
        subscription.status == "enabled"
            && !hint::TYPES.contains(&subscription.kind.as_str())
            && choose(&state, subscription).is_some()
    };
    let mut after = state.subscriptions.range(*last + 1..).chain(state.subscriptions.range(..=*last));
    let (serial, subscription) = after.find(|(_, subscription)| bound(subscription))?;
    *last = *serial;
    // A poll's end is not sent before its begin, in whatever order they were subscribed to.
    let same_channel = |kind: &str| {
        let of_kind = state.subscriptions.values().filter(|other| other.kind == kind);
        of_kind.filter(|other| other.channel() == subscription.channel()).find(|other| bound(other))
    };
    let (kind, condition) = (subscription.kind.as_str(), subscription.condition());
    let next = state.happenings.next(kind, &condition, |kind| same_channel(kind).is_some());
    let subscription =
        if next == kind { subscription } else { same_channel(next).unwrap_or(subscription) }.clone();
    let event = sample(inner, &mut state, &subscription);
    let message = Message::notification(inner.uuid(&mut state), &subscription, &event);
    address(inner, &mut state, &subscription, message)
}
