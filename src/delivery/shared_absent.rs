//! A build without NATS has no shared log, and no value of these types.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SinkOptions;
use super::assignment::Assignment;
use super::log::Log;
use super::worker::{End, Stop};
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;

#[derive(Clone, Debug)]
pub enum SharedWork {}

pub(super) enum WorkChanges {}

impl WorkChanges {
    pub(super) async fn next(&mut self) {
        match *self {}
    }
}

#[derive(Debug, Default)]
pub(super) struct Returns(());

impl Returns {
    pub(super) async fn next(&mut self, _shared: Option<&SharedWork>) -> ReturnNews {
        std::future::pending().await
    }
}

pub(super) struct ReturnNews {
    pub(super) cursors: Vec<(SinkName, Seq)>,
    pub(super) behind: Option<Vec<SinkName>>,
}

impl SharedWork {
    pub(super) fn joined(&self) -> Seq {
        match *self {}
    }

    pub(super) fn is_assigned(&self, _sink: &SinkName) -> bool {
        match *self {}
    }

    pub(super) fn changes(&self) -> WorkChanges {
        match *self {}
    }

    pub(super) async fn found_places(
        &self,
        _sinks: watch::Receiver<Arc<[SinkOptions]>>,
        _stop: &CancellationToken,
    ) {
        match *self {}
    }

    pub(super) async fn work(
        self,
        _work: Assignment,
        _stop: Stop,
        _show_letters: impl Fn(u64),
        _build: impl FnOnce(Log) -> BoxFuture<'static, End>,
    ) -> End {
        match self {}
    }

    pub(super) async fn replay(&self, _sink: &SinkName, _since: Since) -> Result<u64, String> {
        match *self {}
    }
}
