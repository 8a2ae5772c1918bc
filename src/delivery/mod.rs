//! Bringing events out: one worker a sink, each at its own pace.
//!
//! Owns the sinks and their places in the store. A sink gets every event that it wants at least once,
//! in the order of storing, or the event ends in its dead letters; a slow or failing sink holds up
//! nobody else. After a crash each sink goes on where its stored place is, so that what was in hand
//! comes again.

pub mod format;
pub mod retry;
pub mod select;
mod sink;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::select::Selector;
use self::sink::{File, Lines, Stdout};
pub use self::sink::{FileOptions, OpenStdout};
use self::worker::{Statuses, Worker};
use crate::model::route::{Routes, SinkName};
use crate::model::status::{SinkState, SinkStatus};
use crate::store::Store;

/// Pause before a worker that failed is started again.
const RESTART: Duration = Duration::from_secs(5);

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkOptions {
    /// Its name, which its place in the store goes by.
    pub name: SinkName,
    /// Globs of the types that it gets.
    pub types: Vec<String>,
    /// The longest pause between tries.
    pub retry_max: Duration,
    /// How long a batch is tried before it goes to the dead letters.
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
}

impl SinkKind {
    /// Its `type` in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File(_) => "file",
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
}

/// Finds what would keep sinks from working, without touching anything.
pub fn check_sinks(sinks: &[SinkOptions]) -> Vec<SinkError> {
    sinks.iter().filter_map(|sink| check(sink).err()).collect()
}

fn check(sink: &SinkOptions) -> Result<(), SinkError> {
    selector(sink)?;
    let SinkKind::File(FileOptions { path, .. }) = &sink.kind else { return Ok(()) };
    let name = sink.name.clone();
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(SinkError::NoFolder { name, folder: folder.to_owned() });
    }
    if path.is_dir() {
        return Err(SinkError::IsFolder { name, path: path.clone() });
    }
    Ok(())
}

fn selector(sink: &SinkOptions) -> Result<Selector, SinkError> {
    Selector::new(sink.name.clone(), &sink.types)
        .map_err(|error| SinkError::Glob { name: sink.name.clone(), message: error.to_string() })
}

/// Settings that are no sink's.
#[derive(Clone)]
pub struct DeliveryOptions {
    /// What stdout sinks write to; tests take their own.
    pub stdout: OpenStdout,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self { stdout: Arc::new(|| Box::new(std::io::stdout())) }
    }
}

impl std::fmt::Debug for DeliveryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeliveryOptions")
    }
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeliveryHandle {
    /// Every sink.
    pub status: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    reopen: Arc<watch::Sender<u64>>,
}

impl DeliveryHandle {
    /// Has files opened anew before the next write, and whoever waits to try again try at once.
    pub fn reopen(&self) {
        self.reopen.send_modify(|count| *count += 1);
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
    let handle = DeliveryHandle { status, reopen: Arc::new(reopen_in) };
    (Delivery { store, routes, sinks, options, reopen, statuses: Arc::new(statuses) }, handle)
}

struct Running {
    options: SinkOptions,
    stop: CancellationToken,
    task: Id,
}

impl Delivery {
    /// Runs until cancelled; then ends once the batches in hand are written.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut running: BTreeMap<SinkName, Running> = BTreeMap::new();
        // A sink that was changed starts again only once its old worker has ended.
        let mut ending: HashMap<Id, SinkName> = HashMap::new();
        let mut failed: BTreeMap<SinkName, Instant> = BTreeMap::new();
        loop {
            let sinks = Arc::clone(&self.sinks.borrow_and_update());
            running.retain(|name, worker| {
                let same = sinks.iter().any(|sink| sink == &worker.options);
                if !same {
                    worker.stop.cancel();
                    ending.insert(worker.task, name.clone());
                }
                same
            });
            failed.retain(|name, at| sinks.iter().any(|sink| &sink.name == name) && *at > Instant::now());
            for sink in sinks.iter() {
                let busy = running.contains_key(&sink.name)
                    || failed.contains_key(&sink.name)
                    || ending.values().any(|name| name == &sink.name);
                if busy {
                    continue;
                }
                let Some(worker) = self.worker(sink) else { continue };
                info!(sink = %sink.name, kind = sink.kind.name(), "sink started");
                let stop = cancel.child_token();
                let task = tasks.spawn(worker.run(stop.clone())).id();
                running.insert(sink.name.clone(), Running { options: sink.clone(), stop, task });
            }
            let restart = failed.values().min().copied();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Ok(()) = self.sinks.changed() => {}
                () = async { match restart { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {}
                Some(ended) = tasks.join_next_with_id() => {
                    let (id, problem) = match ended {
                        Ok((id, ())) => (id, "the worker ended by itself".to_owned()),
                        Err(error) => (error.id(), error.to_string()),
                    };
                    if let Some(name) = ending.remove(&id) {
                        self.ended(&name);
                    } else if let Some(name) = running.iter().find(|(_, r)| r.task == id).map(|(n, _)| n.clone()) {
                        running.remove(&name);
                        self.broke(&name, &problem);
                        failed.insert(name, Instant::now() + RESTART);
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn worker(&self, sink: &SinkOptions) -> Option<Worker> {
        let selector = match selector(sink) {
            Ok(selector) => selector,
            Err(error) => {
                error!(%error, "sink cannot start");
                return None;
            }
        };
        let lines: Box<dyn Lines> = match &sink.kind {
            SinkKind::Stdout => Box::new(Stdout::new(&self.options.stdout)),
            SinkKind::File(options) => Box::new(File::new(options.clone())),
        };
        Some(Worker {
            options: sink.clone(),
            selector,
            lines,
            store: self.store.clone(),
            routes: self.routes.clone(),
            reopen: self.reopen.clone(),
            statuses: Arc::clone(&self.statuses),
        })
    }

    /// A sink that is not in the configuration any more is not shown either; its place stays stored.
    fn ended(&self, name: &SinkName) {
        if !self.sinks.borrow().iter().any(|sink| &sink.name == name) {
            info!(sink = %name, "sink removed; its place in the store is kept");
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
