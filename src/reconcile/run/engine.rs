//! The loop, and the owners of its state.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::lists::Lists;
use super::out::{Out, Senders};
use super::places::PlaceRegistry;
use super::tables::Tables;
use super::wakeups::{Sources, Wake, WakeUps};
use crate::model::lapse::Lapses;
use crate::model::pulse::Pulse;
use crate::model::shard::Sessions;
use crate::model::status::ReconcileStatus;
use crate::model::subscriptions::Subscriptions;
use crate::model::text::chain;
use crate::reconcile::api::Api;
use crate::reconcile::bind::binder::{Binder, ShardReport};
use crate::reconcile::bind::reach::{Prover, Reach};
use crate::reconcile::error::ErrorKind;
use crate::reconcile::handle::Requests;
use crate::reconcile::hints::Hints;
use crate::reconcile::memory::{Memory, MemoryError, MemoryHandle};
use crate::reconcile::{Desired, ReconcileHandle, ReconcileOptions};

/// The end of a run that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum RunEnd {
    /// Every action was carried out or refused. A run that is not settled leaves work that another one has to look
    /// after soon.
    Complete {
        is_settled: bool,
    },
    /// Something newer is wanted.
    Cut,
    Cancelled,
}

/// The reconciler's task. Each part of its state has an owner with private fields.
#[derive(Debug)]
pub(in crate::reconcile) struct Engine<A> {
    pub(super) api: A,
    pub(super) options: ReconcileOptions,
    pub(super) places: PlaceRegistry,
    pub(super) tables: Tables,
    pub(super) lists: Lists,
    pub(super) wake_ups: WakeUps,
    pub(super) out: Out,
    pub(super) memory: MemoryHandle,
    pub(super) pulse: Pulse,
    binder: Option<Binder<A>>,
}

/// Builds the engine with its binder, and the handle to both.
pub(in crate::reconcile) fn build<A: Api>(
    api: &A,
    memory: Arc<dyn Memory>,
    reach: Arc<dyn Reach>,
    desired: watch::Receiver<Arc<Desired>>,
    sessions: watch::Receiver<Sessions>,
    options: ReconcileOptions,
) -> (Engine<A>, ReconcileHandle) {
    let (target, target_out) = watch::channel(None);
    let (bindings, bindings_out) = watch::channel(Arc::default());
    let (report_in, report) = watch::channel(ShardReport::default());
    let (hooks_in, hooks) = watch::channel(Default::default());
    let (tenures_in, tenures) = watch::channel(Default::default());
    let (in_use, in_use_out) = watch::channel(None);
    let (routes_in, routes) = watch::channel(None);
    let (status_in, status) = watch::channel(ReconcileStatus::default());
    let (entries, subscriptions) = watch::channel(Subscriptions::default());
    let (requests_in, requests) = watch::channel(Requests::default());
    let (answered, answered_out) = watch::channel(0);
    let trouble = Arc::new(Notify::new());
    let hints = Arc::new(Hints::default());
    let lapses = Lapses::default();
    let (pulse, binder_pulse) = (Pulse::default(), Pulse::default());
    let handle = ReconcileHandle {
        target: target_out.clone(),
        bindings: bindings_out,
        hooks,
        tenures,
        lapses: lapses.clone(),
        in_use: in_use_out,
        routes,
        status,
        subscriptions,
        requests: Arc::new(requests_in),
        answered: answered_out,
        hints: hints.clone(),
        pulse: pulse.clone(),
        binder_pulse: binder_pulse.clone(),
    };
    let binder = Binder {
        api: api.with_pulse(&binder_pulse),
        pulse: binder_pulse,
        options: options.clone(),
        target: target_out,
        sessions,
        bindings,
        hooks: hooks_in,
        tenures: tenures_in,
        prover: Prover::new(reach.clone(), options.reach_life),
        report: report_in,
        trouble: trouble.clone(),
        hints: hints.clone(),
    };
    let memory = MemoryHandle::new(memory);
    let senders = Senders { status: status_in, entries, routes: routes_in, in_use, answered, lapses };
    let engine = Engine {
        api: api.with_pulse(&pulse),
        places: PlaceRegistry::new(memory.clone(), reach, target, report.clone(), &options),
        tables: Tables::new(memory.clone(), &options),
        memory,
        wake_ups: WakeUps::new(Sources { desired, requests, report, hints, trouble }, &options),
        lists: Lists::default(),
        out: Out::new(options.publish_pause, options.invocation.clone(), senders),
        options,
        pulse,
        binder: Some(binder),
    };
    (engine, handle)
}

impl<A: Api> Engine<A> {
    /// Runs until cancelled.
    pub(in crate::reconcile) async fn run(mut self, cancel: CancellationToken) {
        let Some(binder) = self.binder.take() else { return };
        // Shards stay watched until the last request of a stopped run is answered.
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut binder = tokio::spawn(binder.run(stop));
        tokio::select! {
            () = self.take_turns(&cancel) => {}
            ended = &mut binder => {
                let error = ended.err().map(|error| error.to_string());
                tracing::error!(error, "the task that binds shards ended");
                return;
            }
        }
        drop(guard);
        if let Err(error) = binder.await {
            tracing::error!(%error, "the task that binds shards failed");
        }
    }

    pub(super) async fn main(&mut self, cancel: &CancellationToken) {
        while let Err(error) = self.recall().await {
            self.pulse.beat();
            let pause = self.wake_ups.record_failure();
            tracing::warn!(error = chain(&error), "what is remembered could not be read");
            self.out.fail_run(chain(&error), ErrorKind::State);
            self.out.flush();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
        self.wake_ups.reset_failures();
        loop {
            self.pulse.beat();
            let span = tracing::error_span!("run", generation = self.wake_ups.desired().generation);
            let end = Box::pin(self.run_once(cancel).instrument(span.clone())).await;
            self.out.end_run();
            match &end {
                Ok(RunEnd::Cancelled) => {
                    self.out.flush();
                    return;
                }
                Ok(RunEnd::Cut) => {}
                Ok(RunEnd::Complete { is_settled }) => {
                    self.wake_ups.record_short(self.lists.is_short(self.options.small_list));
                    self.wake_ups.record_success(self.tables.next_due(), *is_settled);
                }
                Err(error) => {
                    let pause = self.wake_ups.record_failure();
                    let text = chain(error);
                    span.in_scope(|| {
                        tracing::warn!(
                            error = text,
                            retry_in_ms = pause.as_millis(),
                            "reconciling ended early"
                        );
                    });
                    self.out.fail_run(text, error.kind());
                }
            }
            self.publish_warnings();
            if !matches!(end, Ok(RunEnd::Cut)) {
                self.out.publish_answered(self.wake_ups.asked());
                if !self.idle(cancel).await {
                    return;
                }
            }
        }
    }

    /// Reads what the shards need. The rest, which may be long, is read once the conduit is known.
    async fn recall(&mut self) -> Result<(), MemoryError> {
        self.places.recall().await
    }

    /// Waits until a run is due, doing small things meanwhile; false when cancelled.
    async fn idle(&mut self, cancel: &CancellationToken) -> bool {
        loop {
            self.pulse.beat();
            let wake = tokio::select! {
                wake = self.wake_ups.wait(cancel, self.tables.has_unverified(), self.tables.stale_at()) => wake,
                read = self.lists.read_ahead() => {
                    match read {
                        Ok(()) => {
                            self.wake_ups.record_list(self.lists.pages());
                            return true;
                        }
                        Err(error) => {
                            let pause = self.wake_ups.record_failed_list();
                            let text = chain(&error);
                            tracing::warn!(error = text, retry_in_ms = pause.as_millis(), "comparing with Twitch failed; trying again");
                            self.out.fail_run(text, error.kind());
                            self.out.flush();
                        }
                    }
                    continue;
                }
            };
            match wake {
                Wake::Cancelled => return false,
                Wake::Run => return true,
                Wake::Compare => {
                    self.wake_ups.record_list(self.lists.pages());
                    if !self.lists.read_again(&self.api, self.options.small_list) {
                        self.lists.require_comparison();
                        return true;
                    }
                }
                Wake::Grants(users) => self.tables.release_users(users.as_ref()),
                Wake::Shards => self.publish_warnings(),
                Wake::RefreshLogins => {
                    let specs = self.wake_ups.desired().specs.clone();
                    let refreshed = tokio::select! {
                        () = cancel.cancelled() => return false,
                        refreshed = self.tables.refresh_logins(&self.api, &specs) => refreshed,
                    };
                    self.wake_ups.record_refresh(refreshed.is_ok());
                    match refreshed {
                        Ok(true) => self.publish_warnings(),
                        Ok(false) => {}
                        Err(failure) => {
                            tracing::debug!(error = %failure, "logins could not be looked at again");
                        }
                    }
                }
            }
        }
    }

    fn publish_warnings(&mut self) {
        self.out.show_warnings(&self.wake_ups.shard_warnings(), self.tables.warnings());
        self.out.flush();
    }
}
