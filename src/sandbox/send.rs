//! Messages on their way: which callback, which shard, which socket (Twitch: "Handling Conduit Events").

use std::sync::Arc;

use tokio::sync::mpsc;

use super::state::{Shared, State, World, uuid};
use super::subscriptions::session_of;
use super::webhook::{self, Owner};
use crate::platform::{self, Content, Endpoint, Kind, Message, Order, Subscription, Transport};

/// The receiver of a message.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Session(String),
    Callback(Owner, Arc<Endpoint>),
}

/// A message with what takes it to its receiver.
pub(super) struct Outgoing {
    pub(super) message: Message,
    route: Route,
}

enum Route {
    /// The sockets of a session; none if it swallows messages.
    Sockets(Vec<mpsc::Sender<Order>>),
    Callback(Owner, Arc<Endpoint>),
}

/// Chooses the receiver of a subscription's messages: its session or callback, or the shard of its channel, or another
/// shard if that one is disabled.
pub(super) fn choose(state: &State, subscription: &Subscription) -> Option<Address> {
    let id = match &subscription.transport {
        Transport::Conduit(id) => id,
        Transport::Webhook(endpoint) => {
            let owner = Owner::Subscription(subscription.id.clone());
            return Some(Address::Callback(owner, Arc::clone(endpoint)));
        }
        Transport::Websocket { .. } => {
            return session_of(subscription).map(|id| Address::Session(id.to_owned()));
        }
    };
    let (number, shard) = state.conduits.get(id)?.route(subscription.channel())?;
    match shard.endpoint() {
        Some(endpoint) => {
            let owner = Owner::Shard { conduit: id.clone(), shard: number };
            Some(Address::Callback(owner, Arc::clone(endpoint)))
        }
        None => shard.session().map(|id| Address::Session(id.to_owned())),
    }
}

/// Addresses a message, and remembers it for sending again.
pub(super) fn address(
    world: &World,
    state: &mut State,
    subscription: &Subscription,
    content: Content,
) -> Option<Outgoing> {
    let Some(address) = choose(state, subscription) else {
        world.count(|stats| stats.undeliverable += 1);
        return None;
    };
    let id = match address {
        Address::Session(_) => uuid(),
        Address::Callback(..) => webhook::message_id(),
    };
    let message = Message { id, content };
    state.history.keep(message.clone(), address.clone());
    route(state, message, address)
}

/// For a message that was addressed before.
pub(super) fn route(state: &State, message: Message, address: Address) -> Option<Outgoing> {
    let route = match address {
        Address::Callback(owner, endpoint) => Route::Callback(owner, endpoint),
        Address::Session(id) => {
            let sockets = state.sessions.orders(&id);
            if sockets.is_empty() {
                return None;
            }
            Route::Sockets(if state.sessions.is_silent(&id) { Vec::new() } else { sockets })
        }
    };
    Some(Outgoing { message, route })
}

/// Hands a message to its socket or to the sender of webhooks; false when the socket is gone. A silent
/// socket swallows it.
pub(super) async fn send(world: &Shared, outgoing: Outgoing) -> bool {
    send_all(world, vec![outgoing]).await
}

/// The same for messages of one subscription.
pub(super) async fn send_all(world: &Shared, outgoing: Vec<Outgoing>) -> bool {
    let mut sockets = Vec::new();
    let mut frames = Vec::new();
    for Outgoing { message, route } in outgoing {
        match route {
            Route::Callback(owner, endpoint) => webhook::deliver(world, message, owner, endpoint).await,
            Route::Sockets(to) if to.is_empty() => world.count(|stats| stats.undeliverable += 1),
            Route::Sockets(to) => {
                let frame = message.frame();
                frames.push((message.id, frame.into()));
                sockets = to;
            }
        }
    }
    let mut sockets = sockets.into_iter();
    let Some(current) = sockets.next() else { return true };
    for former in sockets {
        // During a handover the new socket has the messages that the old one no longer takes.
        let _ = former.try_send(Order::Events(frames.clone()));
    }
    current.send(Order::Events(frames)).await.is_ok()
}

/// The end of a subscription, addressed. Twitch sends it once.
pub(super) fn revocation(world: &World, state: &mut State, subscription: &Subscription) -> Option<Outgoing> {
    let content = Content::revocation(std::time::SystemTime::now(), subscription);
    debug_assert_eq!(content.kind, Kind::Revocation);
    address(world, state, subscription, content)
}

/// Hands an order to a session's current socket.
pub(super) fn order(world: &Shared, id: &str, order: platform::Order) {
    let Some(orders) = world.lock().sessions.orders(id).into_iter().next() else { return };
    if let Err(mpsc::error::TrySendError::Full(order)) = orders.try_send(order) {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            tokio::select! {
                () = world.stop.cancelled() => {}
                _ = orders.send(order) => {}
            }
        });
    }
}
