//! The users behind the file's logins: asked for, looked at again now and then, remembered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::engine::Engine;
use super::look::{LOOKUPS, look_up};
use super::{Stop, stop};
use crate::helix::User;
use crate::model::subscription::SubscriptionSpec;
use crate::model::text::chain;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::clock::wall;
use crate::reconcile::decide::logins::USERS_PER_CALL;
use crate::reconcile::decide::wanted;

/// Pause after a look at logins that failed.
const REFRESH_FAILED: Duration = Duration::from_secs(60);

impl<A: Api> Engine<A> {
    /// Asks for the ids of logins that are not known.
    pub(in crate::reconcile) async fn find_logins(&mut self, desired: &Desired) -> Result<(), Stop> {
        let logins = desired.specs.iter().flat_map(SubscriptionSpec::logins);
        let missing = self.logins.missing(logins, Instant::now().into_std());
        if missing.is_empty() {
            return Ok(());
        }
        tracing::debug!(logins = missing.len(), "looking up logins");
        let api = self.api.clone();
        let calls: Vec<_> = missing.chunks(USERS_PER_CALL).map(<[_]>::to_vec).collect();
        let mut answers = futures_util::stream::iter(calls)
            .map(|asked: Vec<Arc<str>>| {
                let api = api.clone();
                async move {
                    let users = look_up(&api, &asked).await;
                    (asked, users)
                }
            })
            .buffer_unordered(LOOKUPS);
        let mut unknown = 0;
        while let Some((asked, users)) = answers.next().await {
            let users = users.map_err(|failure| stop("logins could not be looked up", &failure))?;
            let changes = self.logins.answered(&asked, &users, Instant::now().into_std(), wall());
            unknown += asked.len() - changes.len().min(asked.len());
            self.remember_logins(changes).await;
        }
        if unknown > 0 {
            tracing::warn!(
                logins = unknown,
                "twitch does not know some logins; their subscriptions are parked"
            );
        }
        Ok(())
    }

    /// Looks at some ids that were not looked at for long. Never changes an id.
    pub(in crate::reconcile) async fn refresh_logins(&mut self) {
        let now = Instant::now();
        self.next_refresh = now + self.options.login_refresh_pause;
        if !self.logins.any_stale(now.into_std()) {
            return;
        }
        let specs = self.desired.borrow().specs.clone();
        let (asked, forgotten) = self.logins.stale(&wanted::logins(&specs), now.into_std());
        self.remember_logins(forgotten).await;
        if asked.is_empty() {
            return;
        }
        let ids: Vec<&str> = asked.iter().map(|(_, id)| &**id).collect();
        let users: Vec<User> = match self.api.users_by_id(&ids).await {
            Ok(users) => users,
            Err(failure) => {
                tracing::debug!(error = %failure, "logins could not be looked at again");
                self.next_refresh = now + REFRESH_FAILED.max(self.options.login_refresh_pause);
                return;
            }
        };
        let (changes, news) = self.logins.refreshed(&asked, &users, Instant::now().into_std(), wall());
        for text in news {
            tracing::warn!("{text}");
        }
        self.remember_logins(changes).await;
        self.compose_warnings();
        self.publisher.flush();
    }

    /// What is not remembered is looked up again: a failure is told and does no harm.
    async fn remember_logins(&self, changes: Vec<(String, Option<String>)>) {
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.memory.save(changes).await {
            tracing::warn!(error = chain(&error), "the ids of logins could not be remembered");
        }
    }
}
