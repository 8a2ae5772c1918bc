//! Operations of a running daemon, from inside the process and over the control socket.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::cluster::ClusterLink;
use super::reload::Request;
use super::status::Sources;
use crate::admin::{
    Applied, Control, ControlFuture, Count, LogFilter, Refused, ReloadAccepted, ReloadRefused, Retried,
    SecretRotated, SinkFilter, SinksOf, SkippedEvent,
};
use crate::config;
use crate::delivery::{DeliveryHandle, ResendError, Resent, Skipped};
use crate::model::cluster::{DaemonRequest, LeaderRequest, SinkRequest};
use crate::model::event::Since;
use crate::model::hint::Hint;
use crate::model::route::SinkName;
use crate::model::status::{ConfigStatus, Status};
use crate::model::time::Timestamp;
use crate::reconcile::ReconcileHandle;
use crate::store::{DeadLetter, DeadLetterFilter, LetterPage};
use crate::telemetry::{LogError, LogHandle};
use crate::transport::HintCallback;

/// Handle to a daemon, from inside the process.
#[derive(Clone, Debug)]
pub struct DaemonHandle {
    pub(super) sources: Sources,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) reconcile: ReconcileHandle,
    pub(super) on_hint: HintCallback,
    pub(super) delivery: DeliveryHandle,
    pub(super) log: Option<LogHandle>,
    /// The cluster, if there is one.
    pub(super) cluster: Option<ClusterLink>,
}

impl DaemonHandle {
    /// Handles SIGHUP: reads the file again, and reopens the files that sinks write to.
    pub fn hang_up(&self) {
        self.delivery.reopen();
        // A full queue means that a reload is pending anyway.
        let _ = self.requests.try_send(Request::Reload(None));
    }

    /// Has the hosts that work these sinks send what was marked. A host that does not hear of it does so when its worker starts
    /// the next time.
    async fn have_sent(&self, resent: Resent) -> Result<Count, Refused> {
        let mut notes = Vec::new();
        for sink in resent.sinks {
            let Some(cluster) = &self.cluster else { continue };
            if let Err(Refused { error }) =
                ask::<()>(cluster, SinkRequest::Resend { sink: sink.clone() }).await
            {
                notes.push(format!(
                    "those of sink {sink} are sent later, when a host begins to work it ({error})"
                ));
            }
        }
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Count { count: resent.count, note })
    }
}

impl Control for DaemonHandle {
    fn status(&self) -> Status {
        self.sources.snapshot()
    }

    fn hanging(&self) -> Vec<&'static str> {
        self.sources.hanging.borrow().iter().map(|(part, _)| part.name()).collect()
    }

    fn reload(&self) -> ControlFuture<'_, Result<ReloadAccepted, ReloadRefused>> {
        Box::pin(async move {
            let stopping = || ReloadRefused { errors: vec!["the daemon is stopping".to_owned()] };
            self.delivery.reopen();
            let (reply, outcome) = oneshot::channel();
            self.requests.send(Request::Reload(Some(reply))).await.map_err(|_| stopping())?;
            outcome.await.map_err(|_| stopping())?
        })
    }

    fn rotate_secret(&self) -> ControlFuture<'_, Result<SecretRotated, Refused>> {
        Box::pin(async move {
            let stopping = || Refused { error: "the daemon is stopping".to_owned() };
            let (reply, outcome) = oneshot::channel();
            self.requests.send(Request::RotateSecret(reply)).await.map_err(|_| stopping())?;
            outcome.await.map_err(|_| stopping())?
        })
    }

    fn config(&self) -> ConfigStatus {
        self.sources.config.borrow().clone()
    }

    fn apply(&self, allow_deletes: bool) -> Applied {
        Applied { ticket: self.reconcile.apply(allow_deletes), pid: std::process::id() }
    }

    fn ask_leader(&self, request: LeaderRequest) -> ControlFuture<'_, Result<String, Refused>> {
        Box::pin(async move {
            let Some(cluster) = &self.cluster else {
                let error = "this daemon works alone: its configuration has no `[cluster]`".to_owned();
                return Err(Refused { error });
            };
            cluster.ask(request).await.map_err(|error| Refused { error })
        })
    }

    fn grants_changed(&self, user_id: &str) {
        (self.on_hint.0)(Hint::Grants { user_id: user_id.into() });
    }

    fn log_filter(&self) -> Result<LogFilter, Refused> {
        let log = self.log.as_ref().ok_or_else(no_log)?;
        log.filter().map(|filter| LogFilter { filter }).map_err(|error| refused(&error))
    }

    fn set_log_filter(&self, filter: &str) -> Result<LogFilter, Refused> {
        let log = self.log.as_ref().ok_or_else(no_log)?;
        if let Some(problem) = config::filter_problem(filter) {
            return Err(Refused { error: problem });
        }
        log.set_filter(filter).map_err(|error| refused(&error))?;
        info!(filter, "the log filter was changed, until the next reload");
        self.log_filter()
    }

    fn replay(&self, sink: SinkName, since: Since) -> ControlFuture<'_, Result<Count, Refused>> {
        Box::pin(async move { counted(self.delivery.replay(&sink, since).await) })
    }

    fn sink_filter(&self, sink: &SinkName) -> Option<SinkFilter> {
        self.delivery.filter(sink).map(|filter| Arc::new(filter) as SinkFilter)
    }

    fn sinks_of(&self) -> SinksOf {
        Box::new(self.delivery.sinks_of())
    }

    fn lists_type(&self, like: &dyn Fn(&str) -> bool) -> bool {
        self.delivery.lists_type(like)
    }

    fn replay_part(
        &self,
        sink: SinkName,
        since: Since,
        until: Option<Timestamp>,
        types: Option<String>,
    ) -> ControlFuture<'_, Result<Count, Refused>> {
        Box::pin(async move {
            let resent = self.delivery.replay_part(&sink, since, until, types).await;
            self.have_sent(resent.map_err(not_done)?).await
        })
    }

    fn retry_sink(&self, sink: SinkName) -> ControlFuture<'_, Result<Retried, Refused>> {
        Box::pin(async move {
            match &self.cluster {
                Some(cluster) => ask(cluster, SinkRequest::Retry { sink }).await,
                None => self.delivery.retry_now(&sink).await.map(|()| Retried {}).map_err(not_done),
            }
        })
    }

    fn skip_event(&self, sink: SinkName) -> ControlFuture<'_, Result<SkippedEvent, Refused>> {
        Box::pin(async move {
            if let Some(cluster) = &self.cluster {
                return ask(cluster, SinkRequest::Skip { sink }).await;
            }
            let Skipped { seq, subscription_type } = self.delivery.skip(&sink).await.map_err(not_done)?;
            Ok(SkippedEvent { seq, subscription_type })
        })
    }

    fn resend(&self, filter: DeadLetterFilter) -> ControlFuture<'_, Result<Count, Refused>> {
        Box::pin(async move {
            let resent = self.delivery.resend(filter).await;
            self.have_sent(resent.map_err(not_done)?).await
        })
    }

    fn drop_dead_letters(&self, filter: DeadLetterFilter) -> ControlFuture<'_, Result<Count, Refused>> {
        Box::pin(async move { counted(self.delivery.drop_dead_letters(filter).await) })
    }

    fn shared_letters(
        &self,
        filter: DeadLetterFilter,
        after: i64,
        limit: usize,
    ) -> ControlFuture<'_, Result<Option<LetterPage>, Refused>> {
        Box::pin(async move { self.delivery.shared_letters(&filter, after, limit).await.map_err(not_done) })
    }

    fn newest_letters(
        &self,
        sink: SinkName,
        before: i64,
        limit: usize,
    ) -> ControlFuture<'_, Result<Vec<DeadLetter>, Refused>> {
        Box::pin(async move { self.delivery.newest_letters(&sink, before, limit).await.map_err(not_done) })
    }
}

/// Asks the host that works the sink.
async fn ask<T: DeserializeOwned>(cluster: &ClusterLink, request: SinkRequest) -> Result<T, Refused> {
    let request = LeaderRequest::Daemon(DaemonRequest::Sink(request));
    let text = cluster.ask(request).await.map_err(|error| Refused { error })?;
    serde_json::from_str(&text).map_err(|error| Refused { error: error.to_string() })
}

fn no_log() -> Refused {
    Refused { error: "the daemon has no log of its own".to_owned() }
}

fn refused(error: &LogError) -> Refused {
    Refused { error: error.to_string() }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_done(error: ResendError) -> Refused {
    Refused { error: error.to_string() }
}

fn counted(outcome: Result<u64, ResendError>) -> Result<Count, Refused> {
    outcome.map(|count| Count { count, note: None }).map_err(not_done)
}
