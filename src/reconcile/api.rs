//! The part of the API client that the reconciler needs. A trait, for tests of the loop against a fake in memory.

use std::future::Future;

use crate::helix::{
    Background, Conduit, Created, Filter, Helix, HelixError, Rows, ShardRefused, ShardRow, SubscriptionList,
    Transport, User, UserGrants,
};
use crate::model::pulse::Pulse;
use crate::model::shard::ShardId;
use crate::model::subscription::{SubscriptionKey, SubscriptionRow};

/// The answers of Update Conduit Shards, one for each shard.
pub(super) type BindAnswers = Vec<(ShardId, Result<(), Refused>)>;

/// Why a shard was not bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The session is over; binding it again is pointless.
    SessionGone,
    Other(Box<str>),
}

impl Refused {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::SessionGone => "Twitch does not know the session",
            Self::Other(message) => message,
        }
    }
}

impl From<ShardRefused> for Refused {
    fn from(refused: ShardRefused) -> Self {
        if refused.session_gone() { Self::SessionGone } else { Self::Other(refused.message) }
    }
}

/// See [`Helix`] for what each call does.
pub(super) trait Api: Clone + Send + Sync + 'static {
    /// The same, for somebody whose pulse beats as requests move.
    #[must_use]
    fn with_pulse(&self, pulse: &Pulse) -> Self;
    /// The same for background work.
    #[must_use]
    fn in_background(&self, background: &Background) -> Self;
    /// Number of requests that may be in flight now.
    fn window(&self) -> usize;
    fn users_by_login(&self, logins: &[&str]) -> impl Future<Output = Result<Vec<User>, HelixError>> + Send;
    fn users_by_id(&self, ids: &[&str]) -> impl Future<Output = Result<Vec<User>, HelixError>> + Send;
    fn grants(&self, ids: &[&str]) -> impl Future<Output = Result<Rows<UserGrants>, HelixError>> + Send;
    fn subscriptions(
        &self,
        filter: &Filter,
        intern: impl Fn(&mut SubscriptionRow) + Send + Sync,
    ) -> impl Future<Output = Result<SubscriptionList, HelixError>> + Send;
    /// Sum and limit of the costs of all subscriptions of the client.
    fn costs(&self) -> impl Future<Output = Result<(u64, u64), HelixError>> + Send;
    fn create_subscription(
        &self,
        key: &SubscriptionKey,
        transport: &Transport,
        batching: bool,
    ) -> impl Future<Output = Result<Created, HelixError>> + Send;
    fn delete_subscription(&self, id: &str) -> impl Future<Output = Result<(), HelixError>> + Send;
    fn conduits(&self) -> impl Future<Output = Result<Vec<Conduit>, HelixError>> + Send;
    fn create_conduit(&self, shards: u32) -> impl Future<Output = Result<Conduit, HelixError>> + Send;
    fn resize_conduit(
        &self,
        id: &str,
        shards: u32,
    ) -> impl Future<Output = Result<Conduit, HelixError>> + Send;
    fn shards(&self, conduit_id: &str) -> impl Future<Output = Result<Rows<ShardRow>, HelixError>> + Send;
    fn bind_shards(
        &self,
        conduit_id: &str,
        shards: &[(ShardId, Transport)],
    ) -> impl Future<Output = Result<BindAnswers, HelixError>> + Send;
}

impl Api for Helix {
    fn with_pulse(&self, pulse: &Pulse) -> Self {
        self.with_pulse(pulse.clone())
    }

    fn in_background(&self, background: &Background) -> Self {
        self.in_background(background)
    }

    fn window(&self) -> usize {
        self.window()
    }

    async fn users_by_login(&self, logins: &[&str]) -> Result<Vec<User>, HelixError> {
        Ok(self.users_by_login(logins).await?.rows)
    }

    async fn users_by_id(&self, ids: &[&str]) -> Result<Vec<User>, HelixError> {
        let users = self.users_by_id(ids).await?;
        match users.unread.into_iter().next() {
            // An unreadable row does not mean that the user is gone.
            Some(message) => Err(HelixError::Garbled { message }),
            None => Ok(users.rows),
        }
    }

    async fn grants(&self, ids: &[&str]) -> Result<Rows<UserGrants>, HelixError> {
        self.grants(ids).await
    }

    async fn subscriptions(
        &self,
        filter: &Filter,
        intern: impl Fn(&mut SubscriptionRow) + Send + Sync,
    ) -> Result<SubscriptionList, HelixError> {
        self.subscriptions(filter, intern).await
    }

    async fn costs(&self) -> Result<(u64, u64), HelixError> {
        self.costs().await
    }

    async fn create_subscription(
        &self,
        key: &SubscriptionKey,
        transport: &Transport,
        batching: bool,
    ) -> Result<Created, HelixError> {
        self.create_subscription(key, transport, batching).await
    }

    async fn delete_subscription(&self, id: &str) -> Result<(), HelixError> {
        self.delete_subscription(id).await
    }

    async fn conduits(&self) -> Result<Vec<Conduit>, HelixError> {
        self.conduits().await
    }

    async fn create_conduit(&self, shards: u32) -> Result<Conduit, HelixError> {
        self.create_conduit(shards).await
    }

    async fn resize_conduit(&self, id: &str, shards: u32) -> Result<Conduit, HelixError> {
        self.resize_conduit(id, shards).await
    }

    async fn shards(&self, conduit_id: &str) -> Result<Rows<ShardRow>, HelixError> {
        self.shards(conduit_id).await
    }

    async fn bind_shards(
        &self,
        conduit_id: &str,
        shards: &[(ShardId, Transport)],
    ) -> Result<BindAnswers, HelixError> {
        let answers = self.bind_shards(conduit_id, shards).await?;
        Ok(answers.into_iter().map(|(shard, answer)| (shard, answer.map_err(Refused::from))).collect())
    }
}
