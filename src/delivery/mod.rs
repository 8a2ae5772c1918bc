//! Bringing events out: one worker a sink, each at its own pace.
//!
//! Owns the sinks and their places in the store. A sink gets every event that it wants at least once,
//! in the order of storing, or the event ends in its dead letters; a slow or failing sink holds up
//! nobody else. After a crash each sink goes on where its stored place is, so that what was in hand
//! comes again.

mod batch;
pub mod format;
pub mod retry;
pub mod select;
mod single;
mod sink;
pub mod template;
pub mod window;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::batch::BatchWorker;
use self::format::Format;
use self::select::Selector;
use self::single::SingleWorker;
use self::sink::{Command, File, Http, Lines, Nats, Single, Stdout};
pub use self::sink::{CommandOptions, FileOptions, HttpBody, HttpOptions, NatsOptions, OpenStdout};
use self::worker::{Statuses, Stop, Worker};
use crate::model::event::{Event, Seq, Since, StoredEvent};
use crate::model::route::{Routes, SinkName};
use crate::model::status::{SinkState, SinkStatus};
use crate::model::time::Timestamp;
use crate::store::{LetterFilter, StartAt, Store, StoreError};

/// Pause before a worker that failed is started again.
const RESTART: Duration = Duration::from_secs(5);
/// How often the store is told which sinks there are.
const RETIRE: Duration = Duration::from_secs(6 * 3600);

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkOptions {
    /// Its name, which its place in the store goes by.
    pub name: SinkName,
    /// Globs of the types that it gets.
    pub types: Vec<String>,
    /// How events are written. `http` has a body of its own.
    pub format: Format,
    /// Where it starts when the store does not know it.
    pub start: StartAt,
    /// The longest pause between tries.
    pub retry_max: Duration,
    /// How long an event is tried before it goes to the dead letters.
    pub give_up_after: Duration,
    /// What it is.
    pub kind: SinkKind,
}

/// The kinds of sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Standard output.
    Stdout,
    /// A file.
    File(FileOptions),
    /// A program.
    Command(CommandOptions),
    /// HTTP requests.
    Http(HttpOptions),
    /// NATS JetStream.
    Nats(NatsOptions),
}

impl SinkKind {
    /// Its `type` in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File(_) => "file",
            Self::Command(_) => "command",
            Self::Http(_) => "http",
            Self::Nats(_) => "nats",
        }
    }
}

/// Why a sink cannot work as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// A type glob that is none.
    #[error("sink {name}: `types` has a glob that cannot be read: {message}")]
    Glob {
        /// The sink.
        name: SinkName,
        /// What is wrong.
        message: String,
    },
    /// The folder of its file is not there.
    #[error("sink {name}: the folder {} does not exist; make it, or correct `path`", .folder.display())]
    NoFolder {
        /// The sink.
        name: SinkName,
        /// The folder.
        folder: PathBuf,
    },
    /// Its file is a folder.
    #[error("sink {name}: {} is a folder; `path` must be a file", .path.display())]
    IsFolder {
        /// The sink.
        name: SinkName,
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("sink {name}: {message}")]
    Make {
        /// The sink.
        name: SinkName,
        /// What is wrong.
        message: String,
    },
    /// A template that an event cannot fill.
    #[error(
        "sink {name}: an event of type {subscription_type} does not fit: {message}; `| default('')` takes what may be missing"
    )]
    Template {
        /// The sink.
        name: SinkName,
        /// The type of the event.
        subscription_type: String,
        /// What is wrong.
        message: String,
    },
}

/// An event as it may come, to try templates with.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The event.
    pub event: Event,
    /// The sinks that its subscription names; all when none.
    pub sinks: Option<Arc<[SinkName]>>,
}

/// Finds what would keep sinks from working, without touching anything. `samples` are asked for when some
/// sink has a template.
pub fn check_sinks(
    sinks: &[SinkOptions],
    options: &DeliveryOptions,
    samples: impl FnOnce() -> Vec<Sample>,
) -> Vec<SinkError> {
    let mut errors: Vec<SinkError> = sinks.iter().filter_map(|sink| check(sink, options).err()).collect();
    if errors.is_empty() && sinks.iter().any(has_template) {
        let samples = samples();
        for sink in sinks.iter().filter(|sink| has_template(sink)) {
            errors.extend(try_samples(sink, options, &samples));
        }
    }
    errors
}

fn has_template(sink: &SinkOptions) -> bool {
    match &sink.kind {
        SinkKind::Http(http) => matches!(http.body, HttpBody::Template(_)),
        SinkKind::Nats(_) => true,
        _ => false,
    }
}

/// A sink with a template.
enum Templated {
    Http(Box<Http>),
    Nats(Box<Nats>),
}

impl Templated {
    fn new(sink: &SinkOptions, options: &DeliveryOptions) -> Option<Self> {
        match &sink.kind {
            SinkKind::Http(http) => {
                Http::new(http.clone(), options.http.clone()).ok().map(|made| Self::Http(Box::new(made)))
            }
            SinkKind::Nats(nats) => {
                let made = Nats::new(sink.name.clone(), nats.clone(), sink.format, options.tls.clone());
                made.ok().map(|made| Self::Nats(Box::new(made)))
            }
            _ => None,
        }
    }

    fn fill(&self, event: &StoredEvent) -> Result<(), String> {
        match self {
            Self::Http(http) => http.message(event, 0).map(drop),
            Self::Nats(nats) => nats.subject(&event.event).map(drop),
        }
    }
}

/// The first event of each type that does not fit.
fn try_samples(sink: &SinkOptions, options: &DeliveryOptions, samples: &[Sample]) -> Vec<SinkError> {
    let (Ok(selector), Some(templated)) = (selector(sink), Templated::new(sink, options)) else {
        return vec![];
    };
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for sample in samples {
        let routed = sample.sinks.as_ref().is_none_or(|sinks| sinks.contains(&sink.name));
        if !routed || !selector.wants(&sample.event, &Routes::default()) {
            continue;
        }
        let event = StoredEvent {
            seq: Seq(1),
            stored_at: Timestamp::from_unix_millis(0),
            event: sample.event.clone(),
        };
        if let Err(message) = templated.fill(&event) {
            found.entry(sample.event.subscription_type.to_string()).or_insert(message);
        }
    }
    found
        .into_iter()
        .map(|(subscription_type, message)| SinkError::Template {
            name: sink.name.clone(),
            subscription_type,
            message,
        })
        .collect()
}

fn check(sink: &SinkOptions, options: &DeliveryOptions) -> Result<(), SinkError> {
    selector(sink)?;
    let name = sink.name.clone();
    match &sink.kind {
        SinkKind::Stdout => Ok(()),
        SinkKind::File(FileOptions { path, .. }) => {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(SinkError::NoFolder { name, folder: folder.to_owned() });
            }
            if path.is_dir() {
                return Err(SinkError::IsFolder { name, path: path.clone() });
            }
            Ok(())
        }
        SinkKind::Command(_) | SinkKind::Http(_) | SinkKind::Nats(_) => make(sink, options).map(drop),
    }
}

fn selector(sink: &SinkOptions) -> Result<Selector, SinkError> {
    Selector::new(
        sink.name.clone(),
        &sink.types,
        matches!(&sink.kind, SinkKind::Http(http) if matches!(http.body, HttpBody::Template(_))),
    )
    .map_err(|error| SinkError::Glob { name: sink.name.clone(), message: error.to_string() })
}

enum Made {
    Lines(Box<dyn Lines>),
    Single(Arc<dyn Single>),
}

fn make(sink: &SinkOptions, options: &DeliveryOptions) -> Result<Made, SinkError> {
    let failed = |message: String| SinkError::Make { name: sink.name.clone(), message };
    Ok(match &sink.kind {
        SinkKind::Stdout => Made::Lines(Box::new(Stdout::new(&options.stdout))),
        SinkKind::File(file) => Made::Lines(Box::new(File::new(file.clone()))),
        SinkKind::Command(command) => {
            Made::Single(Arc::new(Command::new(sink.name.clone(), command.clone(), sink.format)))
        }
        SinkKind::Http(http) => {
            let made = Http::new(http.clone(), options.http.clone());
            Made::Single(Arc::new(made.map_err(|error| failed(error.to_string()))?))
        }
        SinkKind::Nats(nats) => {
            let made = Nats::new(sink.name.clone(), nats.clone(), sink.format, options.tls.clone());
            Made::Single(Arc::new(made.map_err(|error| failed(error.to_string()))?))
        }
    })
}

/// Settings that are no sink's.
#[derive(Clone)]
pub struct DeliveryOptions {
    /// What stdout sinks write to; tests take their own.
    pub stdout: OpenStdout,
    /// What HTTP sinks send with; it must follow no redirects.
    pub http: reqwest::Client,
    /// What NATS sinks trust.
    pub tls: rustls::ClientConfig,
}

impl DeliveryOptions {
    /// With the process's own standard output.
    pub fn new(http: reqwest::Client, tls: rustls::ClientConfig) -> Self {
        Self { stdout: Arc::new(|| Box::new(std::io::stdout())), http, tls }
    }
}

impl std::fmt::Debug for DeliveryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeliveryOptions")
    }
}

/// Why nothing can be sent again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResendError {
    /// No such sink.
    #[error("there is no sink {0} in the configuration")]
    Unknown(SinkName),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon ends.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Something for the supervisor to do.
#[derive(Debug)]
enum Request {
    /// A worker is to begin anew, from further back.
    Rewind(Rewind),
    /// Workers are to look for dead letters that are to be sent again.
    Resend { sinks: Vec<SinkName>, reply: oneshot::Sender<()> },
    /// The numbers of dead letters have changed.
    Recount { reply: oneshot::Sender<()> },
}

#[derive(Debug)]
struct Rewind {
    sink: SinkName,
    to: Seq,
    reply: oneshot::Sender<Result<(), ResendError>>,
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeliveryHandle {
    /// Every sink.
    pub status: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    reopen: Arc<watch::Sender<u64>>,
    store: Store,
    requests: mpsc::Sender<Request>,
}

impl DeliveryHandle {
    /// Has files opened anew before the next write, and whoever waits to try again try at once.
    pub fn reopen(&self) {
        self.reopen.send_modify(|count| *count += 1);
    }

    /// Sends a sink again what was stored since; tells how many events there are, of all types. Resolves
    /// once that is certain to happen.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn replay(&self, sink: &SinkName, since: Since) -> Result<u64, ResendError> {
        let after = match since {
            Since::Seq(seq) => Seq(seq.0.saturating_sub(1)),
            Since::Time(time) => self.store.before(time).await?,
        };
        let sink = sink.clone();
        self.ask(|reply| Request::Rewind(Rewind { sink, to: after, reply })).await??;
        let (newest, oldest) = (*self.store.last_seq().borrow(), self.store.status().borrow().first_seq);
        Ok(newest.0.saturating_sub(after.0.max(oldest.0.saturating_sub(1))))
    }

    /// Sends dead letters again; tells how many.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn resend(&self, filter: LetterFilter) -> Result<u64, ResendError> {
        let sinks: Vec<SinkName> = match &filter.sink {
            Some(sink) if self.status.borrow().contains_key(sink) => vec![sink.clone()],
            Some(sink) => return Err(ResendError::Unknown(sink.clone())),
            None => {
                let all = self.status.borrow();
                all.values()
                    .filter(|status| status.dead_letters > 0)
                    .map(|status| status.name.clone())
                    .collect()
            }
        };
        let many = self.store.mark_letters(filter).await?;
        if many > 0 {
            self.ask(|reply| Request::Resend { sinks, reply }).await?;
        }
        Ok(many)
    }

    /// Removes dead letters for good; tells how many.
    ///
    /// # Errors
    /// [`ResendError`].
    pub async fn drop_letters(&self, filter: LetterFilter) -> Result<u64, ResendError> {
        let many = self.store.drop_letters(filter).await?;
        self.ask(|reply| Request::Recount { reply }).await?;
        Ok(many)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ResendError> {
        let (reply, outcome) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ResendError::Stopping)?;
        outcome.await.map_err(|_| ResendError::Stopping)
    }
}

/// The task; see [`delivery`].
#[derive(Debug)]
pub struct Delivery {
    store: Store,
    routes: watch::Receiver<Option<Arc<Routes>>>,
    sinks: watch::Receiver<Arc<[SinkOptions]>>,
    options: DeliveryOptions,
    reopen: watch::Receiver<u64>,
    statuses: Arc<watch::Sender<Statuses>>,
    requests: mpsc::Receiver<Request>,
}

/// Builds the delivery; nothing happens until it is run.
///
/// A change of `sinks` starts, changes and ends those sinks only that it concerns.
pub fn delivery(
    store: Store,
    routes: watch::Receiver<Option<Arc<Routes>>>,
    sinks: watch::Receiver<Arc<[SinkOptions]>>,
    options: DeliveryOptions,
) -> (Delivery, DeliveryHandle) {
    let (statuses, status) = watch::channel(Statuses::new());
    let (reopen_in, reopen) = watch::channel(0);
    let (asks, requests) = mpsc::channel(4);
    let handle = DeliveryHandle { status, reopen: Arc::new(reopen_in), store: store.clone(), requests: asks };
    (Delivery { store, routes, sinks, options, reopen, statuses: Arc::new(statuses), requests }, handle)
}

/// The workers.
#[derive(Default)]
struct Workers {
    tasks: JoinSet<()>,
    running: BTreeMap<SinkName, Running>,
    /// A sink that was changed starts again only once its old worker has ended.
    ending: HashMap<Id, SinkName>,
    failed: BTreeMap<SinkName, Instant>,
    /// What is to be done once a worker has ended.
    rewinds: Vec<Rewind>,
}

struct Running {
    options: SinkOptions,
    stop: Stop,
    task: Id,
}

impl Workers {
    fn is_busy(&self, name: &SinkName) -> bool {
        self.running.contains_key(name)
            || self.failed.contains_key(name)
            || self.ending.values().any(|ending| ending == name)
            || self.rewinds.iter().any(|rewind| &rewind.sink == name)
    }

    /// Has a worker finish what it has in hand; when it is all sent again anyway, only as far as that is
    /// quick.
    fn end(&mut self, name: &SinkName, quickly: bool) {
        if let Some(worker) = self.running.remove(name) {
            worker.stop.soon.cancel();
            if quickly {
                worker.stop.now.cancel();
            }
            self.ending.insert(worker.task, name.clone());
        }
    }

    /// What no worker stands in the way of any more.
    fn due_rewinds(&mut self) -> Vec<Rewind> {
        let ending: Vec<&SinkName> = self.ending.values().collect();
        let (due, rest) =
            std::mem::take(&mut self.rewinds).into_iter().partition(|rewind| !ending.contains(&&rewind.sink));
        self.rewinds = rest;
        due
    }
}

impl Delivery {
    /// Runs until cancelled; then ends once the batches in hand are written.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut workers = Workers::default();
        let mut retire = tokio::time::interval(RETIRE);
        let mut known: Option<Arc<[SinkOptions]>> = None;
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
                () = sleep_until(restart) => {}
                Some(ended) = workers.tasks.join_next_with_id() => self.ended(ended, &mut workers).await,
                Some(request) = self.requests.recv() => self.answer(request, &mut workers).await,
                _ = retire.tick() => {
                    let names = sinks.iter().map(|sink| sink.name.clone()).collect();
                    if let Err(error) = self.store.retire_sinks(names).await {
                        warn!(%error, "the store could not be told which sinks there are");
                    }
                }
            }
        }
        while workers.tasks.join_next().await.is_some() {}
    }

    /// Makes the workers those of the sinks.
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
            let worker = match self.worker(sink, stop.clone()) {
                Ok(worker) => worker,
                Err(error) => {
                    error!(%error, "sink cannot start");
                    continue;
                }
            };
            info!(sink = %sink.name, kind = sink.kind.name(), "sink started");
            let task = workers.tasks.spawn(worker).id();
            workers.running.insert(sink.name.clone(), Running { options: sink.clone(), stop, task });
        }
    }

    fn worker(
        &self,
        sink: &SinkOptions,
        stop: Stop,
    ) -> Result<futures_util::future::BoxFuture<'static, ()>, SinkError> {
        let worker = Worker {
            options: sink.clone(),
            selector: selector(sink)?,
            store: self.store.clone(),
            routes: self.routes.clone(),
            reopen: self.reopen.clone(),
            statuses: Arc::clone(&self.statuses),
            stop,
        };
        Ok(match make(sink, &self.options)? {
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

    async fn answer(&mut self, request: Request, workers: &mut Workers) {
        // Somebody who no longer waits for the answer is no failure.
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
                    // A worker looks when it starts.
                    workers.end(sink, false);
                }
                let _ = reply.send(());
            }
            Request::Recount { reply } => {
                self.recount().await;
                let _ = reply.send(());
            }
        }
    }

    async fn do_rewinds(&self, workers: &mut Workers) {
        for Rewind { sink, to, reply } in workers.due_rewinds() {
            let done = self.store.rewind(&sink, to).await.map(|record| record.cursor);
            if let Ok(cursor) = done {
                // What is shown of the cursor never goes back by itself.
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

    /// A sink that is not in the configuration any more is not shown either; its place stays stored.
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

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
