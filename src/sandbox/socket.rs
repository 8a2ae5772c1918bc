//! The stand-in's WebSocket sessions: who joins which, and what follows from the end of one.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::news;
use super::state::{Shared, now, random_text, uuid};
use crate::platform::{
    Joined, Opening, Order, SessionRules, Sessions, Stamp, of_close_code, reconnect, session_id,
};

impl Sessions for Shared {
    fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    fn rules(&self) -> SessionRules {
        SessionRules {
            second: self.options.keepalive_unit,
            unused: self.options.unused_timeout,
            pong: self.options.pong_timeout,
            reconnect: self.options.reconnect_grace,
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp { id: uuid(), at: now() }
    }

    fn join(&self, opening: &Opening, orders: mpsc::Sender<Order>) -> Option<Joined> {
        self.count(|stats| stats.connects += 1);
        let mut state = self.lock();
        if let Some((id, challenge)) = &opening.reconnect {
            if !state.sessions.redeem(id, challenge) {
                return None;
            }
            if !self.options.reconnect_changes_id {
                let (socket, connected_at) = state.sessions.take_over(id, orders)?;
                return Some(Joined { session: id.clone(), socket, connected_at });
            }
        }
        let session = session_id(fastrand::u128(..));
        let connected_at = now();
        let socket = state.sessions.open(&session, orders, connected_at);
        Some(Joined { session, socket, connected_at })
    }

    fn is_used(&self, session: &str) -> bool {
        self.lock().is_used(session)
    }

    fn written(&self, joined: &Joined, ids: Vec<String>) {
        let mut state = self.lock();
        // A socket that is being left gets copies.
        if !state.sessions.is_current(&joined.session, joined.socket) {
            return;
        }
        self.count(|stats| stats.sent += ids.len() as u64);
        for id in ids {
            state.history.record_sent(id);
        }
    }

    fn silenced(&self, session: &str) {
        self.lock().sessions.silence(session);
    }

    async fn ended(&self, joined: Option<&Joined>, code: u16) {
        let disabled = joined.map_or_else(Vec::new, |joined| {
            debug!(session = joined.session, code, "sandbox session ended");
            let mut state = self.lock();
            // The session goes on if another socket has taken over.
            match state.sessions.end(&joined.session, joined.socket) {
                true => state.end_session(&joined.session, of_close_code(code).0),
                false => Vec::new(),
            }
        });
        self.count(|stats| {
            stats.disconnects += 1;
            stats.inbound_traffic += u64::from(code == 4001);
        });
        for (conduit, shard) in disabled {
            news::shard_disabled(self, &conduit, shard).await;
        }
    }
}

/// Asks a session to reconnect. Its socket is closed with 4004 if no other one takes over in time.
pub(super) async fn ask_reconnect(world: Shared, id: String) {
    let challenge = random_text(20);
    let Some((orders, connected_at)) = world.lock().sessions.ask_reconnect(&id, &challenge) else { return };
    let url = format!("ws://{}/ws?challenge={challenge}&id={id}", world.address);
    let text = reconnect(&Stamp { id: uuid(), at: now() }, &id, connected_at, &url);
    let stop = Arc::clone(&world);
    tokio::select! {
        () = stop.stop.cancelled() => {}
        _ = orders.send(Order::Reconnect(text.into())) => {}
    }
}
