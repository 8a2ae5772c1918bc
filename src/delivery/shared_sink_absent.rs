//! A build without NATS has no shared log, and no worker of one.

use std::sync::Arc;

use tokio::sync::watch;

use super::log_failure::LogFailure;
use super::window::Place;
use crate::model::event::{Seq, StoredEvent};
use crate::store::{DeadLetter, GivenUp, Keep, SinkRecord};

#[derive(Debug)]
pub(super) enum SharedSink {}

impl SharedSink {
    pub(super) fn changes(&self) -> watch::Receiver<Seq> {
        match *self {}
    }

    pub(super) fn may_send(&self) -> bool {
        match *self {}
    }

    pub(super) fn read_to(&self) -> Seq {
        match *self {}
    }

    pub(super) fn lost(&self) -> u64 {
        match *self {}
    }

    pub(super) async fn record(&self) -> Result<SinkRecord, LogFailure> {
        match *self {}
    }

    pub(super) async fn read(
        &self,
        _after: Seq,
        _limit: usize,
        _max_bytes: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, LogFailure> {
        match *self {}
    }

    pub(super) async fn wanted_after(&self, _after: Seq) -> Result<(Vec<Seq>, Seq), LogFailure> {
        match *self {}
    }

    pub(super) fn keep_place(&self, _place: Place, _keep: Keep) {
        match *self {}
    }

    pub(super) fn letters(&self) -> &SinkLetters {
        match *self {}
    }
}

pub(super) enum SinkLetters {}

impl SinkLetters {
    pub(super) async fn dead_letter(
        &self,
        _event: &StoredEvent,
        _why: &GivenUp,
    ) -> Result<SinkRecord, LogFailure> {
        match *self {}
    }

    pub(super) async fn to_replay(&self, _after: i64, _limit: usize) -> Result<Vec<DeadLetter>, LogFailure> {
        match *self {}
    }

    pub(super) async fn resent(
        &self,
        _id: i64,
        _outcome: Result<(), GivenUp>,
    ) -> Result<SinkRecord, LogFailure> {
        match *self {}
    }
}
