//! The work that a cluster assigns, from what the parts of this host publish.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::{ShardWork, Work};
use crate::delivery::SinkOptions;
use crate::model::shard::{ShardBinding, ShardBindings, ShardTarget, Unbound};
use crate::telemetry::Publish;

/// The values that the work is made of.
#[derive(Clone, Debug)]
pub(super) struct WorkSources {
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) bindings: watch::Receiver<ShardBindings>,
    pub(super) sinks: watch::Receiver<Arc<[SinkOptions]>>,
}

impl WorkSources {
    fn work(&mut self) -> Work {
        let target = self.target.borrow_and_update().clone();
        let bindings = Arc::clone(&self.bindings.borrow_and_update());
        let sinks = Arc::clone(&self.sinks.borrow_and_update());
        let shards = target.map(|target| ShardWork {
            conduit_id: target.conduit_id,
            numbers: target.sockets.iter().map(|shard| shard.0).collect(),
            lost: lost(&bindings).collect(),
        });
        Work { shards, sinks: sinks.iter().map(|sink| (sink.name.clone(), sink.host.clone())).collect() }
    }

    /// Keeps the work up to date.
    pub(super) async fn publish(mut self, work: watch::Sender<Work>) {
        loop {
            work.publish(self.work());
            tokio::select! {
                Ok(()) = self.target.changed() => {}
                Ok(()) = self.bindings.changed() => {}
                Ok(()) = self.sinks.changed() => {}
                else => std::future::pending().await,
            }
        }
    }
}

/// Numbers of the shards that Twitch lists as not connected.
fn lost(bindings: &ShardBindings) -> impl Iterator<Item = u32> {
    let is_lost =
        |binding: &ShardBinding| binding.present.is_none() && binding.unbound == Some(Unbound::Disabled);
    bindings.iter().filter(move |(_, binding)| is_lost(binding)).map(|(shard, _)| shard.0)
}
