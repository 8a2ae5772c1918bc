//! The task of the cluster: keeps the keys of this host, watches those of the others, and writes the shared values.

mod bucket;
mod driver;
mod handle;
mod requests;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::bucket::BucketDriver;
use self::driver::{Driver, Outputs, Sources};
pub use self::handle::ClusterHandle;
use self::requests::Requests;
use super::ask::{self, Asked};
use super::assign::Work;
use super::clock::wall;
use super::gate::Gate;
use super::hints::{HintExchange, hints};
use super::lease::Holder;
use super::nats::Connection;
use super::own_keys::{HostFacts, OwnKeys};
use super::places::places;
use super::saving::Saving;
use super::self_binding::self_binding;
use super::shared::shared;
use crate::model::cluster::{
    Assigned, ClusterOptions, ClusterStatus, DaemonRequest, LeaderRequest, Leadership,
};
use crate::model::hint::Hint;

/// Values that other parts of this host publish for the cluster.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub facts: watch::Receiver<HostFacts>,
    /// The work that this host assigns if it leads.
    pub work: watch::Receiver<Work>,
    /// Takes requests to the daemon that leads.
    pub daemon: mpsc::Sender<Asked<DaemonRequest>>,
}

/// The task; see [`cluster`].
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    tls: rustls::ClientConfig,
    own: OwnKeys,
    sources: Sources,
    outputs: Outputs,
    requests: Requests,
    saving: Saving,
    hints: HintExchange,
    /// Takes the requests of other hosts.
    ask: mpsc::Sender<Asked<LeaderRequest>>,
}

/// Builds the task; nothing happens until it is run.
///
/// `instance` names the state directory. `own_values` are what the first leader of a new cluster gives it. The last value
/// has the hints that other hosts tell.
pub fn cluster(
    options: ClusterOptions,
    tls: rustls::ClientConfig,
    instance: String,
    inputs: Inputs,
    own_values: Vec<(String, String)>,
) -> (Cluster, ClusterHandle, mpsc::Receiver<Hint>) {
    let status =
        ClusterStatus { name: options.name.clone(), host: options.host.clone(), ..ClusterStatus::default() };
    let (status, status_out) = watch::channel(status);
    let (leadership, leadership_out) = watch::channel(Leadership::default());
    let (assigned, assigned_out) = watch::channel(Assigned::default());
    let (requests_in, requests) = mpsc::channel(16);
    let (ask, asked) = mpsc::channel(16);
    let gate = Gate::default();
    let (hints, sender, heard) = hints();
    let (shards, shared) = shared(options.host.clone());
    let (self_binding_in, self_binding) = self_binding();
    let (places_in, places) = places(&options.host, status_out.clone(), assigned_out.clone());
    let handle = ClusterHandle {
        leadership: leadership_out,
        status: status_out,
        assigned: assigned_out,
        gate: gate.clone(),
        places,
        hints: sender,
        shards: shared,
        self_binding,
        requests: requests_in,
        asked: ask.clone(),
    };
    let Inputs { facts, work, daemon } = inputs;
    let holder = Holder { instance, run: uuid::Uuid::new_v4().to_string() };
    let task = Cluster {
        own: OwnKeys::new(holder, env!("CARGO_PKG_VERSION"), wall()),
        requests: Requests::new(&options, daemon),
        saving: Saving::new(own_values),
        sources: Sources { facts, work, requests, asked },
        outputs: Outputs {
            leadership,
            status,
            assigned,
            gate,
            places: places_in,
            shards,
            self_binding: self_binding_in,
        },
        options,
        tls,
        hints,
        ask,
    };
    (task, handle, heard)
}

impl Cluster {
    /// Runs until cancelled. The keys of this host are not removed: see [`ClusterHandle::resign`].
    pub async fn run(self, cancel: CancellationToken) {
        let Self { options, tls, own, sources, outputs, requests, saving, hints, ask } = self;
        let changed = Arc::new(Notify::new());
        let connection = Connection::start(&options, tls, Arc::clone(&changed)).await;
        let (subject, run) = (ask::subject(&options.name, &options.host), own.holder().run.clone());
        let (name, connected) = (options.name.clone(), connection.clone());
        let exchange = async {
            match &connected {
                Ok(connection) => {
                    tokio::join!(
                        hints.run(connection, &name, &run),
                        ask::serve(connection.clone(), subject, ask)
                    );
                }
                // The driver says why.
                Err(_) => std::future::pending().await,
            }
        };
        let bucket = BucketDriver::start(options.clone(), connection);
        let driver = Driver::new(options, sources, outputs, bucket, own, requests, saving);
        tokio::select! {
            () = driver.run(changed, cancel) => {}
            () = exchange => {}
        }
    }
}
