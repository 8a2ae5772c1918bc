//! Starting the parts, and watching over them until it is time to stop.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::handle::DaemonHandle;
use super::shutdown::Stopping;
use super::tasks::{self, Tasks};
use super::{Daemon, Exit, minutes, orphans, systemd};
use crate::admin::{self, Control, ControlSocket};
use crate::model::status::{TokenState, TokenStatus};
use crate::store::Store;

impl Daemon {
    /// Runs until `stop`, or until something essential ends. `at_once` cuts stopping short.
    pub async fn run(self, stop: CancellationToken, at_once: CancellationToken) -> Exit {
        let intake = CancellationToken::new();
        let api = CancellationToken::new();
        let rest = CancellationToken::new();
        let handle = self.handle.clone();

        let (cluster_end, mut cluster_tasks) = (CancellationToken::new(), Tasks::default());
        let cluster = self.cluster.map(|(task, link, sources)| {
            let control: Arc<dyn Control> = Arc::new(handle.clone());
            cluster_tasks.spawn("cluster", task.run(sources, control, cluster_end.clone()));
            link
        });
        let mut intake_tasks = Tasks::default();
        let mut api_tasks = Tasks::default();
        let mut rest_tasks = Tasks::default();
        intake_tasks.spawn("WebSocket shards", self.pool.run(intake.clone()));
        intake_tasks.spawn("webhook listener", self.webhook.run(intake.clone()));
        api_tasks.spawn("token keeper", self.keeper.run(api.clone()));
        api_tasks.spawn("reconciler", self.reconciler.run(api.clone()));
        if let Some(alone) = self.alone {
            api_tasks.spawn("binder without a leader", alone.run(api.clone()));
        }
        rest_tasks.spawn("delivery", self.delivery.run(rest.clone()));
        if let Some(forwarder) = self.forwarder {
            rest_tasks.spawn("forwarder", forwarder.run(rest.clone()));
        }
        rest_tasks.spawn("gap watcher", self.gaps.run(rest.clone()));
        rest_tasks.spawn("reaper of orphans", orphans::reap(self.children, rest.clone()));
        let counts = self.store.intake_counts();
        rest_tasks.spawn("counter", minutes::count(counts, self.minutes, rest.clone()));
        rest_tasks.spawn("reloader", self.reloader.run(self.reload_requests, rest.clone()));
        rest_tasks
            .spawn("control socket", serve(self.socket, handle.clone(), self.store.clone(), rest.clone()));
        let control: Arc<dyn Control> = Arc::new(handle.clone());
        rest_tasks.spawn("admin endpoint", self.endpoint.run(control, self.store.clone(), rest.clone()));
        rest_tasks.spawn("page for invited users", self.invites.run(rest.clone()));
        let notifying = systemd::notify_until_cancelled(
            self.notifier.clone(),
            self.counters,
            handle.sources.clone(),
            self.hanging,
            rest.clone(),
        );
        rest_tasks.spawn("systemd", notifying);

        let mut exit = tokio::select! {
            () = stop.cancelled() => Exit::Stopped,
            message = refused_at_start(handle.sources.token.clone()) => Exit::Refused(message),
            error = self.store.failed() => Exit::Failed(format!("the event store ended: {error}")),
            ended = intake_tasks.ended() => failed(ended),
            ended = api_tasks.ended() => failed(ended),
            ended = cluster_tasks.ended() => failed(ended),
            ended = rest_tasks.ended() => failed(ended),
        };
        if let Exit::Failed(what) = &exit {
            error!(error = what, "an essential part ended by itself; the daemon stops");
        }
        self.notifier.stopping();

        let stopping = Stopping {
            intake,
            intake_tasks,
            api,
            api_tasks,
            cluster,
            gaps: self.gaps_handle,
            cluster_end,
            cluster_tasks,
            rest,
            rest_tasks,
            store: self.store,
        };
        if !stopping.stop(at_once).await && exit == Exit::Stopped {
            exit = Exit::Failed("stopped at once on a second signal".to_owned());
        }
        exit
    }
}

fn failed(ended: tasks::Ended) -> Exit {
    let how = if ended.panicked { "panicked" } else { "ended by itself" };
    Exit::Failed(format!("the {} {how}", ended.name))
}

async fn serve(socket: ControlSocket, handle: DaemonHandle, store: Store, cancel: CancellationToken) {
    if let Err(error) = admin::serve(socket, Arc::new(handle), store, cancel).await {
        error!(%error, "the control socket failed");
    }
}

/// Resolves when the credentials are refused before there was ever a token.
async fn refused_at_start(mut token: watch::Receiver<TokenStatus>) -> String {
    let refused = match token.wait_for(|t| t.mints > 0 || t.state == TokenState::Refused).await {
        Ok(status) if status.state == TokenState::Refused && status.mints == 0 => {
            Some(status.problem.clone().unwrap_or_else(|| "no reason given".to_owned()))
        }
        _ => None,
    };
    // The guard of the value is gone by here: it would lock the keeper out.
    match refused {
        Some(message) => message,
        None => std::future::pending().await,
    }
}
