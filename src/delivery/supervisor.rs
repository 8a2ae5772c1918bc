//! The supervisor: starts a worker for each sink of the configuration, and replaces a worker to restart its sink.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span, info, warn};

use super::batch::BatchWorker;
use super::handle::{Request, ResendError, Rewind};
use super::make::{Made, SinkError, make_or_print, selector};
use super::receiver::Receiver;
use super::single::SingleWorker;
use super::worker::{Command, SharedPause, Statuses, Stop, Waiting, Worker, follower};
use super::{DeliveryOptions, FORWARDER, SinkOptions, sleep_until};
use crate::model::route::{Routes, SinkName};
use crate::model::status::SinkState;
use crate::store::Store;

/// Pause before a worker that failed is started again.
const RESTART: Duration = Duration::from_secs(5);
/// Requests that may wait for a worker.
const COMMANDS: usize = 4;
/// Period of storing which sinks there are.
const RETIRE: Duration = Duration::from_secs(6 * 3600);

/// The task; see [`super::delivery`].
#[derive(Debug)]
pub struct Delivery {
    pub(super) store: Store,
    pub(super) routes: watch::Receiver<Option<Arc<Routes>>>,
    pub(super) sinks: watch::Receiver<Arc<[SinkOptions]>>,
    pub(super) options: DeliveryOptions,
    pub(super) reopen: watch::Receiver<u64>,
    pub(super) statuses: Arc<watch::Sender<Statuses>>,
    pub(super) requests: mpsc::Receiver<Request>,
}

/// The workers.
#[derive(Default)]
struct Workers {
    tasks: JoinSet<()>,
    running: BTreeMap<SinkName, Running>,
    /// Workers that are ending. A changed sink starts again once its old worker has ended.
    ending: HashMap<Id, SinkName>,
    failed: BTreeMap<SinkName, Instant>,
    /// Rewinds that wait for the end of a worker.
    rewinds: Vec<Rewind>,
    /// The pauses that receivers have asked for, by receiver.
    pauses: HashMap<Receiver, SharedPause>,
}

struct Running {
    options: SinkOptions,
    stop: Stop,
    task: Id,
    commands: mpsc::Sender<Command>,
}

impl Workers {
    fn is_busy(&self, name: &SinkName) -> bool {
        self.running.contains_key(name)
            || self.failed.contains_key(name)
            || self.ending.values().any(|ending| ending == name)
            || self.rewinds.iter().any(|rewind| &rewind.sink == name)
    }

    /// Stops a worker once its current attempts have ended. With `quickly` they get little time, as everything is sent again
    /// anyway.
    fn end(&mut self, name: &SinkName, quickly: bool) {
        if let Some(worker) = self.running.remove(name) {
            worker.stop.soon.cancel();
            if quickly {
                worker.stop.now.cancel();
            }
            self.ending.insert(worker.task, name.clone());
        }
    }

    /// Takes the rewinds whose workers have ended.
    fn due_rewinds(&mut self) -> Vec<Rewind> {
        let ending: Vec<&SinkName> = self.ending.values().collect();
        let (due, rest) =
            std::mem::take(&mut self.rewinds).into_iter().partition(|rewind| !ending.contains(&&rewind.sink));
        self.rewinds = rest;
        due
    }
}

impl Delivery {
    /// Runs until cancelled, then ends once the current attempts have ended.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut workers = Workers::default();
        let mut retire = tokio::time::interval(RETIRE);
        let mut known: Option<Arc<[SinkOptions]>> = None;
        let mut lost = self.store.lost();
        loop {
            let sinks = Arc::clone(&self.sinks.borrow_and_update());
            if known.as_ref() != Some(&sinks) {
                known = Some(Arc::clone(&sinks));
                retire.reset_immediately();
            }
            self.apply(&sinks, &mut workers, &cancel);
            let restart = workers.failed.values().min().copied();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Ok(()) = self.sinks.changed() => {}
                Ok(()) = lost.changed() => self.show_losses(&lost.borrow_and_update()),
                () = sleep_until(restart) => {}
                Some(ended) = workers.tasks.join_next_with_id() => self.ended(ended, &mut workers).await,
                Some(request) = self.requests.recv() => self.handle_request(request, &mut workers).await,
                _ = retire.tick() => {
                    let forwarder = self.options.forwards.then(|| SinkName::new(FORWARDER));
                    let names = sinks.iter().map(|sink| sink.name.clone()).chain(forwarder).collect();
                    if let Err(error) = self.store.retire_sinks(names).await {
                        warn!(%error, "the names of the sinks could not be stored");
                    }
                }
            }
        }
        while workers.tasks.join_next().await.is_some() {}
    }

    /// Starts and stops workers to match the sinks.
    fn apply(&self, sinks: &[SinkOptions], workers: &mut Workers, cancel: &CancellationToken) {
        let changed: Vec<SinkName> = workers
            .running
            .iter()
            .filter(|(_, worker)| !sinks.contains(&worker.options))
            .map(|(name, _)| name.clone())
            .collect();
        for name in changed {
            workers.end(&name, false);
        }
        let now = Instant::now();
        workers.failed.retain(|name, at| sinks.iter().any(|sink| &sink.name == name) && *at > now);
        for sink in sinks {
            if workers.is_busy(&sink.name) {
                continue;
            }
            let stop = Stop { soon: cancel.child_token(), now: cancel.child_token() };
            let (commands, receiver) = mpsc::channel(COMMANDS);
            let worker = match self.worker(sink, stop.clone(), receiver, &mut workers.pauses) {
                Ok(worker) => worker,
                Err(error) => {
                    error!(%error, "sink cannot start");
                    continue;
                }
            };
            info!(sink = %sink.name, kind = sink.kind.name(), "sink started");
            let span = error_span!("sink", sink = %sink.name);
            let task = workers.tasks.spawn(worker.instrument(span)).id();
            workers
                .running
                .insert(sink.name.clone(), Running { options: sink.clone(), stop, task, commands });
        }
        // A pause lasts over a change of the sink; without a sink it can be forgotten once it is over.
        workers.pauses.retain(|_, pause| {
            Arc::strong_count(pause) > 1 || pause.borrow().is_some_and(|until| until > now)
        });
    }

    fn worker(
        &self,
        sink: &SinkOptions,
        stop: Stop,
        commands: mpsc::Receiver<Command>,
        pauses: &mut HashMap<Receiver, SharedPause>,
    ) -> Result<futures_util::future::BoxFuture<'static, ()>, SinkError> {
        let made = make_or_print(sink, &self.options)?;
        let pause = match &made {
            Made::Single(single) => single.receiver(),
            Made::Lines(_) => None,
        };
        let pause = match pause {
            Some(receiver) => Arc::clone(pauses.entry(receiver).or_default()),
            None => SharedPause::default(),
        };
        let selector = selector(sink)?;
        let worker = Worker {
            options: sink.clone(),
            follower: follower(&selector, &self.routes),
            waiting: Waiting::default(),
            selector,
            store: self.store.clone(),
            routes: self.routes.clone(),
            reopen: self.reopen.clone(),
            statuses: Arc::clone(&self.statuses),
            stop,
            commands,
            pause,
        };
        Ok(match made {
            Made::Lines(lines) => Box::pin(BatchWorker { worker, lines }.run()),
            Made::Single(sink) => Box::pin(SingleWorker { worker, sink }.run()),
        })
    }

    async fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>, workers: &mut Workers) {
        let (id, problem) = match ended {
            Ok((id, ())) => (id, "the worker ended by itself".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        if let Some(name) = workers.ending.remove(&id) {
            self.forget(&name);
        } else if let Some(name) = workers.running.iter().find(|(_, r)| r.task == id).map(|(n, _)| n.clone())
        {
            workers.running.remove(&name);
            self.broke(&name, &problem);
            workers.failed.insert(name, Instant::now() + RESTART);
        }
        self.do_rewinds(workers).await;
    }

    async fn handle_request(&mut self, request: Request, workers: &mut Workers) {
        // A caller that no longer waits is not an error.
        match request {
            Request::Rewind(rewind) => {
                if !self.sinks.borrow().iter().any(|sink| sink.name == rewind.sink) {
                    let _ = rewind.reply.send(Err(ResendError::Unknown(rewind.sink)));
                    return;
                }
                workers.end(&rewind.sink, true);
                workers.failed.remove(&rewind.sink);
                workers.rewinds.push(rewind);
                self.do_rewinds(workers).await;
            }
            Request::Resend { sinks, reply } => {
                for sink in &sinks {
                    // A worker reads its dead letters when it starts.
                    workers.end(sink, false);
                }
                let _ = reply.send(());
            }
            Request::Command { sink, command, reply } => {
                let _ = reply.send(self.command(sink, command, workers));
            }
            Request::Recount { reply } => {
                self.recount().await;
                let _ = reply.send(());
            }
        }
    }

    /// Hands a command to the worker of a sink.
    fn command(&self, sink: SinkName, command: Command, workers: &Workers) -> Result<(), ResendError> {
        if !self.sinks.borrow().iter().any(|options| options.name == sink) {
            return Err(ResendError::Unknown(sink));
        }
        let running = workers.running.get(&sink).map(|running| running.commands.try_send(command));
        match running {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(ResendError::NotRunning(sink)),
        }
    }

    async fn do_rewinds(&self, workers: &mut Workers) {
        for Rewind { sink, to, reply } in workers.due_rewinds() {
            let done = self.store.rewind(&sink, to).await.map(|record| record.cursor);
            if let Ok(cursor) = done {
                // Workers never move the published cursor back.
                self.statuses.send_modify(|statuses| {
                    if let Some(status) = statuses.get_mut(&sink) {
                        status.cursor = cursor;
                    }
                });
            }
            let _ = reply.send(done.map(drop).map_err(ResendError::Store));
        }
    }

    async fn recount(&self) {
        let sinks = Arc::clone(&self.sinks.borrow());
        for sink in sinks.iter() {
            let Ok(record) = self.store.sink(&sink.name, sink.start).await else { continue };
            self.statuses.send_modify(|statuses| {
                if let Some(status) = statuses.get_mut(&sink.name) {
                    status.dead_letters = record.dead_letters;
                }
            });
        }
    }

    /// Publishes events that retention removed before sinks had them.
    fn show_losses(&self, lost: &BTreeMap<SinkName, u64>) {
        self.statuses.send_modify(|statuses| {
            for (sink, lost) in lost {
                if let Some(status) = statuses.get_mut(sink) {
                    status.lost = status.lost.max(*lost);
                }
            }
        });
    }

    /// Removes the status of a sink that is no longer in the configuration. The store keeps its place.
    fn forget(&self, name: &SinkName) {
        if !self.sinks.borrow().iter().any(|sink| &sink.name == name) {
            info!(sink = %name, "sink removed; its place in the store is kept for a week");
            self.statuses.send_modify(|statuses| drop(statuses.remove(name)));
        }
    }

    fn broke(&self, name: &SinkName, problem: &str) {
        error!(sink = %name, error = problem, "the worker of a sink failed; it is started again");
        self.statuses.send_modify(|statuses| {
            if let Some(status) = statuses.get_mut(name) {
                status.state = SinkState::Failed;
                status.problem = Some(problem.to_owned());
            }
        });
    }
}
