//! The table of conduits and their shards (Twitch: "Handling Conduit Events").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::platform::{ENABLED, Endpoint, Moment, ShardRow, Transport, TransportInfo, candidates};

/// A shard that has, or had, a transport.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    status: String,
    transport: Transport,
}

impl Shard {
    pub(super) fn new(status: &str, transport: Transport) -> Self {
        Self { status: status.to_owned(), transport }
    }

    pub(super) fn status(&self) -> &str {
        &self.status
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.transport {
            Transport::Webhook(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    pub(super) fn session(&self) -> Option<&str> {
        match &self.transport {
            Transport::Websocket { session_id, .. } => Some(session_id),
            _ => None,
        }
    }

    /// The row of the list.
    pub(super) fn row(&self, number: u32) -> ShardRow<'_> {
        let transport = TransportInfo { transport: &self.transport, in_message: false };
        ShardRow { id: number.to_string(), status: &self.status, transport }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Conduit {
    id: String,
    client_id: String,
    shard_count: u32,
    shards: BTreeMap<u32, Shard>,
    /// Since when no shard is enabled.
    unbound_since: Option<Instant>,
}

impl Conduit {
    /// To be called when shards have changed.
    fn note_shards(&mut self) {
        let is_bound = self.shards.values().any(|shard| shard.status == ENABLED);
        self.unbound_since =
            if is_bound { None } else { self.unbound_since.or_else(|| Some(Instant::now())) };
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn shard_count(&self) -> u32 {
        self.shard_count
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (u32, &Shard)> {
        self.shards.iter().map(|(number, shard)| (*number, shard))
    }

    pub(super) fn shard(&self, number: u32) -> Option<&Shard> {
        self.shards.get(&number)
    }

    /// The enabled shard that gets the messages of a channel.
    pub(super) fn route(&self, channel: &str) -> Option<(u32, &Shard)> {
        let enabled = |number: u32| self.shards.get(&number).filter(|shard| shard.status == ENABLED);
        candidates(channel, self.shard_count).into_iter().find_map(|number| Some((number, enabled(number)?)))
    }
}

#[derive(Debug, Default)]
pub(super) struct Conduits(Vec<Conduit>);

impl Conduits {
    pub(super) fn add(&mut self, id: &str, client_id: &str, shard_count: u32) {
        let mut conduit = Conduit {
            id: id.to_owned(),
            client_id: client_id.to_owned(),
            shard_count,
            shards: BTreeMap::new(),
            unbound_since: None,
        };
        conduit.note_shards();
        self.0.push(conduit);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Conduit> {
        self.0.iter()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Conduit> {
        self.0.iter().find(|conduit| conduit.id == id)
    }

    /// The conduit of a client.
    pub(super) fn of(&self, client_id: &str, id: &str) -> Option<&Conduit> {
        self.get(id).filter(|conduit| conduit.client_id == client_id)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Conduit> {
        self.0.iter_mut().find(|conduit| conduit.id == id)
    }

    /// False if there is no such conduit.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|conduit| conduit.id != id);
        self.0.len() < before
    }

    /// Changes the number of shards; those beyond it are gone.
    pub(super) fn resize(&mut self, id: &str, shard_count: u32) {
        if let Some(conduit) = self.get_mut(id) {
            conduit.shard_count = shard_count;
            conduit.shards.retain(|number, _| *number < shard_count);
            conduit.note_shards();
        }
    }

    /// Gives a shard another transport, whatever it had.
    pub(super) fn assign(&mut self, id: &str, number: u32, shard: Shard) {
        if let Some(conduit) = self.get_mut(id) {
            conduit.shards.insert(number, shard);
            conduit.note_shards();
        }
    }

    /// Gives a shard another status; false if there is no such shard.
    pub(super) fn set_status(&mut self, id: &str, number: u32, status: &str) -> bool {
        let Some(conduit) = self.get_mut(id) else { return false };
        let Some(shard) = conduit.shards.get_mut(&number) else { return false };
        status.clone_into(&mut shard.status);
        conduit.note_shards();
        true
    }

    /// A session has ended: its shards are disabled. Returns which: by conduit and number.
    pub(super) fn end_session(&mut self, session: &str, status: &str, now: Moment) -> Vec<(String, u32)> {
        let mut disabled = Vec::new();
        for conduit in &mut self.0 {
            for (number, shard) in &mut conduit.shards {
                if let Transport::Websocket { session_id, disconnected_at, .. } = &mut shard.transport
                    && session_id == session
                {
                    *disconnected_at = Some(now);
                    status.clone_into(&mut shard.status);
                    disabled.push((conduit.id.clone(), *number));
                }
            }
            conduit.note_shards();
        }
        disabled
    }

    /// The conduits without an enabled shard for so long.
    pub(super) fn unbound_for(&self, now: Instant, life: Duration) -> Vec<String> {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= life;
        let over = self.0.iter().filter(|conduit| conduit.unbound_since.is_some_and(is_over));
        over.map(|conduit| conduit.id.clone()).collect()
    }

    /// Whether a shard is on this session.
    pub(super) fn uses_session(&self, session: &str) -> bool {
        self.0
            .iter()
            .flat_map(|conduit| conduit.shards.values())
            .any(|shard| shard.session() == Some(session))
    }
}
