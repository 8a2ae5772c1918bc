//! The part of the API client that the reconciler needs, and what its errors mean here.
//!
//! It is a trait so that the loop can be tested against a fake in memory. Nothing else in this room
//! names an error of the API client.

use std::future::Future;

use crate::helix::{
    Conduit, Created, Filter, Helix, HelixError, Rows, ShardRefused, ShardRow, SubscriptionList, Transport,
    User, UserGrants,
};
use crate::model::pulse::Pulse;
use crate::model::shard::ShardId;
use crate::model::subscription::SubscriptionKey;
use crate::model::text::chain;

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

/// Failures of a request, by what the reconciler does about them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("twitch has an equal one already")]
    Conflict { id: Option<Box<str>> },
    #[error("twitch refuses it as invalid (400): {message}")]
    Invalid { message: Box<str> },
    #[error("twitch refuses it for want of a grant (403): {message}")]
    Forbidden { message: Box<str> },
    #[error("Twitch does not know it (404): {message}")]
    NotFound { message: Box<str> },
    #[error("twitch has removed it (410): {message}")]
    Gone { message: Box<str> },
    #[error("a limit of twitch is reached (429): {message}")]
    Quota { message: Box<str> },
    /// Nothing works before a person acts or the token is renewed.
    #[error("twitch does not accept our credentials: {message}")]
    Credentials { message: Box<str> },
    /// May work the next time; what was asked for may have been done.
    #[error("{message}")]
    Passing { message: Box<str> },
}

impl From<HelixError> for Failure {
    fn from(error: HelixError) -> Self {
        match error {
            HelixError::Conflict { id, .. } => Self::Conflict { id },
            HelixError::Invalid { message, .. } => Self::Invalid { message },
            HelixError::Forbidden { message, .. } => Self::Forbidden { message },
            HelixError::NotFound { message, .. } => Self::NotFound { message },
            HelixError::Gone { message, .. } => Self::Gone { message },
            HelixError::Quota { message, .. } => Self::Quota { message },
            error @ (HelixError::Unauthorized { .. } | HelixError::Token(_)) => {
                Self::Credentials { message: chain(&error).into() }
            }
            error => Self::Passing { message: chain(&error).into() },
        }
    }
}

/// See [`Helix`] for what each call does.
pub(super) trait Api: Clone + Send + Sync + 'static {
    /// The same, for somebody whose pulse beats as requests move.
    #[must_use]
    fn with_pulse(&self, pulse: &Pulse) -> Self;
    fn users_by_login(&self, logins: &[&str]) -> impl Future<Output = Result<Vec<User>, Failure>> + Send;
    fn users_by_id(&self, ids: &[&str]) -> impl Future<Output = Result<Vec<User>, Failure>> + Send;
    fn grants(&self, ids: &[&str]) -> impl Future<Output = Result<Rows<UserGrants>, Failure>> + Send;
    fn subscriptions(
        &self,
        filter: &Filter,
    ) -> impl Future<Output = Result<SubscriptionList, Failure>> + Send;
    /// Sum and limit of the costs of all subscriptions of the client.
    fn costs(&self) -> impl Future<Output = Result<(u64, u64), Failure>> + Send;
    fn create_subscription(
        &self,
        key: &SubscriptionKey,
        transport: &Transport,
        batching: bool,
    ) -> impl Future<Output = Result<Created, Failure>> + Send;
    fn delete_subscription(&self, id: &str) -> impl Future<Output = Result<(), Failure>> + Send;
    fn conduits(&self) -> impl Future<Output = Result<Vec<Conduit>, Failure>> + Send;
    fn create_conduit(&self, shards: u32) -> impl Future<Output = Result<Conduit, Failure>> + Send;
    fn resize_conduit(&self, id: &str, shards: u32) -> impl Future<Output = Result<Conduit, Failure>> + Send;
    fn shards(&self, conduit_id: &str) -> impl Future<Output = Result<Rows<ShardRow>, Failure>> + Send;
    fn bind_shards(
        &self,
        conduit_id: &str,
        shards: &[(ShardId, Transport)],
    ) -> impl Future<Output = Result<BindAnswers, Failure>> + Send;
}

impl Api for Helix {
    fn with_pulse(&self, pulse: &Pulse) -> Self {
        self.with_pulse(pulse.clone())
    }

    async fn users_by_login(&self, logins: &[&str]) -> Result<Vec<User>, Failure> {
        Ok(self.users_by_login(logins).await?.rows)
    }

    async fn users_by_id(&self, ids: &[&str]) -> Result<Vec<User>, Failure> {
        let users = self.users_by_id(ids).await?;
        match users.unread.into_iter().next() {
            // An unreadable row does not mean that the user is gone.
            Some(message) => Err(Failure::Passing { message }),
            None => Ok(users.rows),
        }
    }

    async fn grants(&self, ids: &[&str]) -> Result<Rows<UserGrants>, Failure> {
        Ok(self.grants(ids).await?)
    }

    async fn subscriptions(&self, filter: &Filter) -> Result<SubscriptionList, Failure> {
        Ok(self.subscriptions(filter).await?)
    }

    async fn costs(&self) -> Result<(u64, u64), Failure> {
        Ok(self.costs().await?)
    }

    async fn create_subscription(
        &self,
        key: &SubscriptionKey,
        transport: &Transport,
        batching: bool,
    ) -> Result<Created, Failure> {
        Ok(self.create_subscription(key, transport, batching).await?)
    }

    async fn delete_subscription(&self, id: &str) -> Result<(), Failure> {
        Ok(self.delete_subscription(id).await?)
    }

    async fn conduits(&self) -> Result<Vec<Conduit>, Failure> {
        Ok(self.conduits().await?)
    }

    async fn create_conduit(&self, shards: u32) -> Result<Conduit, Failure> {
        Ok(self.create_conduit(shards).await?)
    }

    async fn resize_conduit(&self, id: &str, shards: u32) -> Result<Conduit, Failure> {
        Ok(self.resize_conduit(id, shards).await?)
    }

    async fn shards(&self, conduit_id: &str) -> Result<Rows<ShardRow>, Failure> {
        Ok(self.shards(conduit_id).await?)
    }

    async fn bind_shards(
        &self,
        conduit_id: &str,
        shards: &[(ShardId, Transport)],
    ) -> Result<BindAnswers, Failure> {
        let answers = self.bind_shards(conduit_id, shards).await?;
        Ok(answers.into_iter().map(|(shard, answer)| (shard, answer.map_err(Refused::from))).collect())
    }
}
