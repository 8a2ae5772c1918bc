//! A build without NATS has no cluster, and no value of its types. The configuration refuses `[cluster]` then.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::Control;
use crate::auth::Outward;
use crate::config::Config;
use crate::delivery::{DeliveryHandle, SharedWork, SinkOptions};
use crate::gaps::GapHosts;
use crate::helix::MaySend;
use crate::model::cluster::{ClusterStatus, ForwardStatus, LeaderRequest, Leadership};
use crate::model::hint::Hint;
use crate::model::route::SinkName;
use crate::model::shard::{
    Bindings, Closed, HandedOver, Lives, OwnShards, Sessions, ShardBindings, ShardId, ShardSet, ShardTarget,
};
use crate::model::status::{ReconcileStatus, ShardStatus, SinkStatus};
use crate::reconcile::Memory;
use crate::store::{Store, StoreError};
use crate::transport::HintCallback;

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "only a cluster reads them")]
pub(super) struct FactSources {
    pub(super) fingerprint: watch::Receiver<String>,
    pub(super) shards: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) sinks: watch::Receiver<BTreeMap<SinkName, SinkStatus>>,
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) bindings: watch::Receiver<ShardBindings>,
    pub(super) sink_options: watch::Receiver<Arc<[SinkOptions]>>,
    pub(super) reconcile: watch::Receiver<ReconcileStatus>,
    pub(super) forward: watch::Receiver<ForwardStatus>,
    pub(super) on_hint: HintCallback,
    pub(super) local: LocalShards,
    pub(super) delivery: DeliveryHandle,
}

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "only a cluster reads them")]
pub(super) struct LocalShards {
    pub(super) sessions: watch::Receiver<Sessions>,
    pub(super) lives: watch::Receiver<Lives>,
    pub(super) closed: watch::Receiver<Closed>,
    pub(super) bindings: watch::Receiver<Bindings>,
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) alone_bindings: watch::Receiver<Bindings>,
    pub(super) alone_free: watch::Receiver<ShardSet>,
}

#[derive(Clone, Debug)]
pub(super) struct ShardEnds {
    pub(super) sessions: watch::Receiver<Sessions>,
    pub(super) lives: watch::Receiver<Lives>,
    pub(super) target: watch::Receiver<Option<ShardTarget>>,
    pub(super) bindings: watch::Receiver<Bindings>,
    pub(super) own: watch::Receiver<Option<OwnShards>>,
    pub(super) handed_over: watch::Receiver<HandedOver>,
}

#[derive(Debug)]
pub(super) enum ForwardTask {}

impl ForwardTask {
    pub(super) async fn run(self, _cancel: CancellationToken) {
        match self {}
    }
}

#[derive(Debug)]
pub(super) enum ClusterTask {}

#[derive(Clone, Debug)]
pub(super) enum ClusterLink {}

pub(super) async fn join(
    _config: &Config,
    _store: &Store,
    _outward: &Outward,
) -> Result<Option<(ClusterTask, ClusterLink)>, StoreError> {
    std::future::ready(Ok(None)).await
}

impl ClusterTask {
    pub(super) async fn run(
        self,
        _sources: FactSources,
        _control: Arc<dyn Control>,
        _cancel: CancellationToken,
    ) {
        match self {}
    }
}

impl ClusterLink {
    pub(super) async fn ask(&self, _request: LeaderRequest) -> Result<String, String> {
        match *self {}
    }

    pub(super) fn leadership(&self) -> watch::Receiver<Leadership> {
        match *self {}
    }

    pub(super) fn status(&self) -> watch::Receiver<ClusterStatus> {
        match *self {}
    }

    pub(super) async fn forwarder(
        &self,
        _store: Store,
    ) -> Result<(ForwardTask, watch::Receiver<ForwardStatus>, SharedWork), StoreError> {
        match *self {}
    }

    pub(super) fn hint(&self, _hint: Hint) {
        match *self {}
    }

    pub(super) fn may_bind_own(&self) -> MaySend {
        match *self {}
    }

    pub(super) fn may_send(&self) -> MaySend {
        match *self {}
    }

    pub(super) fn memory(&self, _store: Store) -> Arc<dyn Memory> {
        match *self {}
    }

    pub(super) fn gap_hosts(&self, _store: Store) -> GapHosts {
        match *self {}
    }

    pub(super) fn shards(&self) -> ShardEnds {
        match *self {}
    }

    pub(super) async fn hand_over(&self) {
        match *self {}
    }

    pub(super) async fn resign(&self) {
        match *self {}
    }
}
