//! Durable knowledge of our places: the conduit, the intent to make one, and the callback URLs.
//!
//! `run` and `plan` read it alike. Only a run writes, and nothing is made at Twitch before it is remembered, so that
//! a crash leaves nothing behind that is not known to be ours.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Desired;
use super::api::Api;
use super::clock::wall;
use super::decide::conduit::{self, Choice};
use super::decide::place::{Place, Places};
use super::error::RunError;
use super::memory::{
    Intent, MemoryError, MemoryHandle, conduit_name, intent_name, parse_urls, urls_name, urls_value,
};
use crate::helix::{Conduit, Filter};

/// The conduit that subscriptions belong on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Ours(Conduit),
    /// A conduit that we made before a crash, and that nothing was ever put on.
    Recovered(Conduit),
    /// A conduit has to be made; `gone` is the id of the one that we had.
    Missing {
        gone: Option<String>,
    },
}

/// Durable knowledge of our places. One value for each client id.
#[derive(Debug)]
pub(super) struct RememberedPlaces {
    client_id: String,
    memory: MemoryHandle,
    conduit: Option<String>,
    intent: Option<Intent>,
    /// Public URLs that subscriptions of ours may point to.
    urls: BTreeSet<Arc<str>>,
}

impl RememberedPlaces {
    pub(super) fn new(memory: MemoryHandle, client_id: String) -> Self {
        Self { client_id, memory, conduit: None, intent: None, urls: BTreeSet::new() }
    }

    /// Reads what earlier runs remembered.
    pub(super) async fn recall(&mut self) -> Result<(), MemoryError> {
        let client = &self.client_id;
        self.conduit = self.memory.load_one(&conduit_name(client)).await?;
        self.intent = self.memory.load_one(&intent_name(client)).await?.as_deref().and_then(Intent::parse);
        self.urls = parse_urls(self.memory.load_one(&urls_name(client)).await?.as_deref());
        Ok(())
    }

    /// Finds our conduit among those that exist, and returns both.
    pub(super) async fn find_conduit<A: Api>(
        &self,
        api: &A,
        desired: &Desired,
    ) -> Result<(Found, Vec<Conduit>), RunError> {
        let existing = api
            .conduits()
            .await
            .map_err(|failure| RunError::api("the conduits could not be listed", failure))?;
        let configured = desired.conduit_id.as_deref();
        let choice =
            conduit::choose(configured, self.conduit.as_deref(), self.intent.as_ref(), &existing, wall());
        let found = match choice {
            Choice::Use(conduit) => Found::Ours(conduit),
            Choice::Recover(conduit) if is_unused(api, &conduit.id).await? => Found::Recovered(conduit),
            Choice::Recover(_) | Choice::Make { .. } => Found::Missing { gone: self.conduit.clone() },
            Choice::Missing { id } => {
                return Err(RunError::Refused(format!(
                    "the conduit {id} of `transport.conduit.id` does not exist; there are: {}; correct the id, or \
                     take it out to have a conduit made",
                    conduit::list(&existing)
                )));
            }
        };
        Ok((found, existing))
    }

    /// The places of subscriptions on this conduit; an empty id stands for a conduit that is still to be made.
    pub(super) fn on_conduit(&self, id: &str) -> Places {
        Places { current: Place::Conduit(id.into()), conduit: None, urls: self.urls.clone() }
    }

    /// The places of subscriptions that call us themselves.
    pub(super) fn on_callback(&self, desired: &Desired) -> Result<Places, RunError> {
        let Some(webhook) = &desired.webhook else {
            return Err(RunError::Refused(
                "there is no callback; set `transport.webhook.callback`".to_owned(),
            ));
        };
        let mut urls = self.urls.clone();
        urls.insert(webhook.url.clone());
        Ok(Places {
            current: Place::webhook(&webhook.url, webhook.keys.current()),
            conduit: desired.conduit_id.as_deref().or(self.conduit.as_deref()).map(Into::into),
            urls,
        })
    }

    /// Replaces the callback URLs that are ours.
    pub(super) async fn remember_urls(&mut self, urls: BTreeSet<Arc<str>>) -> Result<(), RunError> {
        if urls == self.urls {
            return Ok(());
        }
        let value = (!urls.is_empty()).then(|| urls_value(&urls));
        self.save(vec![(urls_name(&self.client_id), value)], "the callback's URL cannot be remembered")
            .await?;
        self.urls = urls;
        Ok(())
    }

    /// Forgets callback URLs that no subscription points to any more.
    pub(super) async fn forget_urls(&mut self, deserted: &BTreeSet<Arc<str>>) -> Result<(), RunError> {
        let urls = self.urls.difference(deserted).cloned().collect();
        self.remember_urls(urls).await
    }

    /// Remembers that a conduit is about to be made, beside those that exist.
    pub(super) async fn intend_conduit(&mut self, existing: &[Conduit]) -> Result<(), RunError> {
        let before = existing.iter().map(|conduit| conduit.id.clone()).collect();
        let intent = Intent { at: wall(), before };
        let change = (intent_name(&self.client_id), Some(intent.to_value()));
        self.save(vec![change], UNSAVED_CONDUIT).await?;
        self.intent = Some(intent);
        Ok(())
    }

    /// Withdraws [`Self::intend_conduit`]: Twitch has certainly made none.
    pub(super) async fn drop_intent(&mut self) -> Result<(), RunError> {
        self.intent = None;
        self.save(vec![(intent_name(&self.client_id), None)], UNSAVED_CONDUIT).await
    }

    /// Remembers our conduit.
    pub(super) async fn remember_conduit(&mut self, id: &str) -> Result<(), RunError> {
        let client = &self.client_id;
        let changes = vec![(conduit_name(client), Some(id.to_owned())), (intent_name(client), None)];
        self.save(changes, UNSAVED_CONDUIT).await?;
        self.conduit = Some(id.to_owned());
        self.intent = None;
        Ok(())
    }

    async fn save(&self, changes: Vec<(String, Option<String>)>, what: &'static str) -> Result<(), RunError> {
        self.memory.save(changes).await.map_err(|source| RunError::Memory { what, source })
    }
}

const UNSAVED_CONDUIT: &str = "the conduit cannot be remembered";

/// Whether neither a shard nor a subscription was ever put on this conduit.
async fn is_unused<A: Api>(api: &A, conduit_id: &str) -> Result<bool, RunError> {
    let failed = |failure| RunError::api("a conduit that may be ours could not be looked at", failure);
    // A row that cannot be read is a row.
    let shards = api.shards(conduit_id).await.map_err(failed)?;
    if !shards.rows.is_empty() || !shards.unread.is_empty() {
        return Ok(false);
    }
    let list = api.subscriptions(&Filter::Conduit(conduit_id.to_owned()), |_| {}).await.map_err(failed)?;
    Ok(list.rows.is_empty() && list.unread.is_empty())
}
