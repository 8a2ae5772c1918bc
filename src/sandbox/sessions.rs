//! The table of WebSocket sessions and the sockets that belong to them.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::platform::{Moment, Order};

/// The id of a session that nobody reads.
pub(super) const SOMEBODY_ELSE: &str = "AgoSomebodyElse";

#[derive(Clone, Debug)]
struct Session {
    /// The current socket.
    socket: u64,
    orders: mpsc::Sender<Order>,
    /// The socket before a reconnect, which gets messages as well until it ends.
    former: Option<(u64, mpsc::Sender<Order>)>,
    silent: bool,
    connected_at: Moment,
    /// The challenge of the reconnect that was asked for.
    challenge: Option<String>,
    /// The user of its first subscription.
    user: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct SessionTable {
    sessions: HashMap<String, Session>,
    sockets: u64,
}

impl SessionTable {
    /// Opens a session; returns the number of its socket.
    pub(super) fn open(&mut self, id: &str, orders: mpsc::Sender<Order>, connected_at: Moment) -> u64 {
        self.sockets += 1;
        let session = Session {
            socket: self.sockets,
            orders,
            former: None,
            silent: false,
            connected_at,
            challenge: None,
            user: None,
        };
        self.sessions.insert(id.to_owned(), session);
        self.sockets
    }

    /// Adds a session that is connected, and that nobody reads.
    pub(super) fn open_elsewhere(&mut self, now: Moment) {
        let (orders, _nobody) = mpsc::channel(1);
        self.open(SOMEBODY_ELSE, orders, now);
        if let Some(session) = self.sessions.get_mut(SOMEBODY_ELSE) {
            session.silent = true;
        }
    }

    /// Whether this challenge was given to this session. It can be used once.
    pub(super) fn redeem(&mut self, id: &str, challenge: &str) -> bool {
        let session = self.sessions.get_mut(id).filter(|s| s.challenge.as_deref() == Some(challenge));
        session.map(|session| session.challenge = None).is_some()
    }

    /// Gives a session to another socket; returns its number and when the session was opened.
    pub(super) fn take_over(&mut self, id: &str, orders: mpsc::Sender<Order>) -> Option<(u64, Moment)> {
        self.sockets += 1;
        let session = self.sessions.get_mut(id)?;
        let former = (session.socket, std::mem::replace(&mut session.orders, orders));
        // A full channel means that the socket is slow; it ends with the session at the latest.
        let _ = former.1.try_send(Order::Leave);
        session.former = Some(former);
        session.socket = self.sockets;
        Some((session.socket, session.connected_at))
    }

    /// A socket has ended. Returns whether its session has ended with it.
    pub(super) fn end(&mut self, id: &str, socket: u64) -> bool {
        let Some(session) = self.sessions.get_mut(id) else { return false };
        if session.former.as_ref().is_some_and(|(number, _)| *number == socket) {
            session.former = None;
        }
        let is_current = session.socket == socket;
        if is_current {
            self.sessions.remove(id);
        }
        is_current
    }

    /// Asks for a reconnect with this challenge. `None` if there is no such session.
    pub(super) fn ask_reconnect(
        &mut self,
        id: &str,
        challenge: &str,
    ) -> Option<(mpsc::Sender<Order>, Moment)> {
        let session = self.sessions.get_mut(id)?;
        session.challenge = Some(challenge.to_owned());
        Some((session.orders.clone(), session.connected_at))
    }

    pub(super) fn is_current(&self, id: &str, socket: u64) -> bool {
        self.sessions.get(id).is_some_and(|session| session.socket == socket)
    }

    pub(super) fn connected_at(&self, id: &str) -> Option<Moment> {
        self.sessions.get(id).map(|session| session.connected_at)
    }

    pub(super) fn silence(&mut self, id: &str) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.silent = true;
        }
    }

    /// Whether a session swallows what it is sent.
    pub(super) fn is_silent(&self, id: &str) -> bool {
        self.sessions.get(id).is_some_and(|session| session.silent)
    }

    /// The sockets of a session: the current one first.
    pub(super) fn orders(&self, id: &str) -> Vec<mpsc::Sender<Order>> {
        let Some(session) = self.sessions.get(id) else { return Vec::new() };
        let former = session.former.iter().map(|(_, orders)| orders.clone());
        std::iter::once(session.orders.clone()).chain(former).collect()
    }

    /// The user whose subscriptions a session has.
    pub(super) fn user(&self, id: &str) -> Option<&str> {
        self.sessions.get(id)?.user.as_deref()
    }

    pub(super) fn set_user(&mut self, id: &str, user_id: &str) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.user = Some(user_id.to_owned());
        }
    }

    /// The ids of all sessions, sorted.
    pub(super) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.sessions.keys().cloned().collect();
        ids.sort();
        ids
    }
}
