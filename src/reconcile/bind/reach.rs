//! Proof that Twitch can reach the callback, before it is told of it: subscribing again and again with a callback
//! that does not answer may have the client blocked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::model::webhook::{Callback, WebhookKey};

/// Calls our own callback by its public name, as Twitch would.
pub trait Reach: Send + Sync + 'static {
    /// Sends a signed challenge to the callback; why it was not answered, in words for a person, with what to do.
    fn prove<'a>(&'a self, callback: &'a Callback, key: &'a WebhookKey) -> BoxFuture<'a, Result<(), String>>;
}

/// [`Reach`] with what it has found.
#[derive(Clone)]
pub(in crate::reconcile) struct Prover {
    reach: Arc<dyn Reach>,
    life: Duration,
    proved: Option<(Callback, Instant)>,
}

impl std::fmt::Debug for Prover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prover").field("proved", &self.proved).finish_non_exhaustive()
    }
}

impl Prover {
    pub(in crate::reconcile) fn new(reach: Arc<dyn Reach>, life: Duration) -> Self {
        Self { reach, life, proved: None }
    }

    /// Drops the last proof.
    pub(in crate::reconcile) fn forget(&mut self) {
        self.proved = None;
    }

    /// Whether the callback can be reached; a proof is believed for a while.
    pub(in crate::reconcile) async fn prove(
        &mut self,
        url: &Arc<str>,
        key: &WebhookKey,
    ) -> Result<(), String> {
        let callback = Callback { url: url.clone(), key: key.id, shard: None };
        let now = Instant::now();
        if self.proved.as_ref().is_some_and(|(proved, at)| *proved == callback && now < *at + self.life) {
            return Ok(());
        }
        self.proved = None;
        self.reach.prove(&callback, key).await?;
        self.proved = Some((callback, Instant::now()));
        Ok(())
    }
}
