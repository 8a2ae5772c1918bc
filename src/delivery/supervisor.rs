//! The supervisor: starts a worker for each sink of the configuration, and replaces a worker to restart its sink.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span, info, warn};

use super::assignment::Assignment;
use super::batch::BatchWorker;
use super::handle::{Request, ResendError, Rewind};
use super::log::{LocalLog, Log};
use super::make::{Made, SinkError, make_or_print, selector};
use super::receiver::Receiver;
use super::shared::{ReturnNews, Returns, SharedWork, WorkChanges};
use super::single::SingleWorker;
use super::worker::{Command, End, SharedPause, Statuses, Stop, Waiting, Worker, follower};
use super::{DeliveryOptions, FORWARDER, SinkOptions, sleep_until};
use crate::model::route::{Routes, SinkName};
use crate::model::status::SinkState;
use crate::store::{Follower, Keep, Store};

/// Setting with the names of the sinks that have not had everything in the shared log.
pub const BEHIND: &str = "cluster.behind";
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
    tasks: JoinSet<End>,
    running: BTreeMap<SinkName, Running>,
    /// Workers that are ending. A changed sink starts again once its old worker has ended.
    ending: HashMap<Id, SinkName>,
    failed: BTreeMap<SinkName, Instant>,
    /// Rewinds that wait for the end of a worker.
    rewinds: Vec<Rewind>,
    /// The pauses that receivers have asked for, by receiver.
    pauses: HashMap<Receiver, SharedPause>,
    /// Sinks that have everything which this host stored before it joined the cluster.
    through: BTreeSet<SinkName>,
    /// When each sink was added.
    since: BTreeMap<SinkName, Instant>,
}

/// The events that a worker delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Events of this host's store.
    Local,
    /// Events that this host stored before it joined the cluster.
    Before,
    /// Events of all hosts, from the shared log.
    Shared,
}

struct Running {
    options: SinkOptions,
    source: Source,
    stop: Stop,
    task: Id,
    commands: mpsc::Sender<Command>,
}

/// See [`SharedWork::found_places`]; never returns without a cluster.
async fn found_places(
    shared: Option<&SharedWork>,
    sinks: watch::Receiver<Arc<[SinkOptions]>>,
    cancel: &CancellationToken,
) {
    match shared {
        Some(shared) => shared.found_places(sinks, cancel).await,
        None => std::future::pending().await,
    }
}

/// Waits until other sinks are assigned to this host; for ever without a cluster.
async fn changed(work: &mut Option<WorkChanges>) {
    match work {
        Some(work) => work.next().await,
        None => std::future::pending().await,
    }
}

/// Publishes the number of dead letters of a sink.
fn show_letters(statuses: &watch::Sender<Statuses>, sink: &SinkName, letters: u64) {
    statuses.send_if_modified(|statuses| {
        let Some(status) = statuses.get_mut(sink) else { return false };
        std::mem::replace(&mut status.dead_letters, letters) != letters
    });
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
        let shared = self.options.shared.clone();
        let mut work = shared.as_ref().map(SharedWork::changes);
        let mut returns = Returns::default();
        let mut founding = pin!(found_places(shared.as_ref(), self.sinks.clone(), &cancel));
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
                () = changed(&mut work) => {}
                () = &mut founding => {}
                news = returns.next(shared.as_ref()) => self.keep_returns(news, &workers).await,
                Ok(()) = lost.changed() => self.show_losses(&lost.borrow_and_update()),
                () = sleep_until(restart) => {}
                Some(ended) = workers.tasks.join_next_with_id() => self.ended(ended, &mut workers).await,
                Some(request) = self.requests.recv() => self.handle_request(request, &mut workers).await,
                _ = retire.tick() => {
                    let forwarder = shared.is_some().then(|| SinkName::new(FORWARDER));
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
            .filter(|(name, worker)| {
                let is_moved = worker.source == Source::Shared && !self.is_assigned(name);
                is_moved || !sinks.contains(&worker.options)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in changed {
            workers.end(&name, false);
        }
        let now = Instant::now();
        workers.failed.retain(|name, at| sinks.iter().any(|sink| &sink.name == name) && *at > now);
        for sink in sinks {
            workers.since.entry(sink.name.clone()).or_insert(now);
            if workers.is_busy(&sink.name) {
                continue;
            }
            let Some(source) = self.source(&sink.name, workers) else { continue };
            let stop = Stop { soon: cancel.child_token(), now: cancel.child_token() };
            let (commands, receiver) = mpsc::channel(COMMANDS);
            let worker = match self.worker(sink, source, stop.clone(), receiver, workers) {
                Ok(worker) => worker,
                Err(error) => {
                    error!(%error, "sink cannot start");
                    continue;
                }
            };
            if source == Source::Local {
                info!(sink = %sink.name, kind = sink.kind.name(), "sink started");
            }
            let span = error_span!("sink", sink = %sink.name);
            let task = workers.tasks.spawn(worker.instrument(span)).id();
            let running = Running { options: sink.clone(), source, stop, task, commands };
            workers.running.insert(sink.name.clone(), running);
        }
        workers.since.retain(|name, _| sinks.iter().any(|sink| &sink.name == name));
        if self.options.shared.is_some() {
            // Sinks that other hosts work are shown there.
            self.statuses.send_if_modified(|statuses| {
                let before = statuses.len();
                statuses.retain(|name, _| workers.is_busy(name));
                statuses.len() < before
            });
        }
        // A pause lasts over a change of the sink; without a sink it can be forgotten once it is over.
        workers.pauses.retain(|_, pause| {
            Arc::strong_count(pause) > 1 || pause.borrow().is_some_and(|until| until > now)
        });
    }

    /// The events that a new worker of the sink delivers; `None` if another host works it.
    fn source(&self, name: &SinkName, workers: &Workers) -> Option<Source> {
        match self.options.shared {
            None => Some(Source::Local),
            Some(_) if !workers.through.contains(name) => Some(Source::Before),
            Some(_) => self.is_assigned(name).then_some(Source::Shared),
        }
    }

    fn is_assigned(&self, name: &SinkName) -> bool {
        self.options.shared.as_ref().is_some_and(|shared| shared.is_assigned(name))
    }

    fn worker(
        &self,
        sink: &SinkOptions,
        source: Source,
        stop: Stop,
        commands: mpsc::Receiver<Command>,
        workers: &mut Workers,
    ) -> Result<BoxFuture<'static, End>, SinkError> {
        let made = make_or_print(sink, &self.options)?;
        let pause = match &made {
            Made::Single(single) => single.receiver(),
            Made::Lines(_) => None,
        };
        let pause = match pause {
            Some(receiver) => Arc::clone(workers.pauses.entry(receiver).or_default()),
            None => SharedPause::default(),
        };
        let selector = selector(sink)?;
        let assignment = Assignment {
            options: sink.clone(),
            selector: selector.clone(),
            routes: self.routes.clone(),
            store: self.store.clone(),
            since: workers.since.get(&sink.name).copied().unwrap_or_else(Instant::now),
        };
        let (options, store) = (sink.clone(), self.store.clone());
        let (routes, reopen, statuses) =
            (self.routes.clone(), self.reopen.clone(), Arc::clone(&self.statuses));
        let worker_stop = stop.clone();
        let build = move |log: Log| -> BoxFuture<'static, End> {
            let follower = follower(&selector, &routes);
            let waiting = Waiting::default();
            let worker = Worker {
                options,
                selector,
                log,
                routes,
                reopen,
                statuses,
                stop: worker_stop,
                follower,
                waiting,
                commands,
                pause,
            };
            match made {
                Made::Lines(lines) => Box::pin(BatchWorker { worker, lines }.run()),
                Made::Single(sink) => Box::pin(SingleWorker { worker, sink }.run()),
            }
        };
        let until = self.options.shared.as_ref().map(SharedWork::joined);
        Ok(match (source, self.options.shared.clone()) {
            (Source::Shared, Some(shared)) => {
                let (name, statuses) = (sink.name.clone(), Arc::clone(&self.statuses));
                let show_letters = move |letters| show_letters(&statuses, &name, letters);
                Box::pin(shared.work(assignment, stop, show_letters, build))
            }
            _ => build(Log::Local(LocalLog { store, until })),
        })
    }

    async fn ended(&mut self, ended: Result<(Id, End), tokio::task::JoinError>, workers: &mut Workers) {
        let (id, outcome) = match ended {
            Ok((id, end)) => (id, Ok(end)),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let running = workers.running.iter().find(|(_, running)| running.task == id);
        if let Some(name) = workers.ending.remove(&id) {
            self.forget(&name);
        } else if let Some(name) = running.map(|(name, _)| name.clone()) {
            workers.running.remove(&name);
            let problem = match outcome {
                Ok(End::Through) => self.finish_joining(&name, workers).await,
                Ok(End::Again) => None,
                Ok(End::Stopped) => Some("the worker ended by itself".to_owned()),
                Err(problem) => Some(problem),
            };
            if let Some(problem) = problem {
                self.broke(&name, &problem);
                workers.failed.insert(name, Instant::now() + RESTART);
            }
        }
        self.do_rewinds(workers).await;
    }

    /// Records that a sink has what this host stored before it joined the cluster. What it stores from now on is delivered from
    /// the shared log, so that retention takes nothing from the sink here. Returns the problem if that fails.
    async fn finish_joining(&self, name: &SinkName, workers: &mut Workers) -> Option<String> {
        let start = self.sinks.borrow().iter().find(|sink| sink.name == *name)?.start;
        let error = self.store.start_sink(name, start, &Follower::nothing()).await.err();
        if error.is_none() {
            workers.through.insert(name.clone());
        }
        error.map(|error| error.to_string())
    }

    /// Stores where sinks would go on here if this host left the cluster, and which would miss events.
    async fn keep_returns(&self, ReturnNews { cursors, behind }: ReturnNews, workers: &Workers) {
        for (sink, cursor) in cursors {
            if workers.through.contains(&sink) {
                self.store.keep_place(&sink, cursor, Vec::new(), Keep::Lazily);
            }
        }
        if let Some(behind) = behind {
            let names: Vec<&str> = behind.iter().map(SinkName::as_str).collect();
            let text = (!names.is_empty()).then(|| names.join(", "));
            // A failing disk is reported by the writer.
            let _ = self.store.set_settings(vec![(BEHIND.to_owned(), text)]).await;
        }
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
                    workers.through.remove(sink);
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
            let count = match &self.options.shared {
                Some(shared) => shared.count_letters(sink, &self.store).await,
                None => self.store.sink(&sink.name, sink.start).await.ok().map(|record| record.dead_letters),
            };
            let Some(count) = count else { continue };
            show_letters(&self.statuses, &sink.name, count);
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
