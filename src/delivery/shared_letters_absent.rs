//! A build without NATS has no dead letters of a cluster.

use std::collections::BTreeSet;

use super::SinkOptions;
use super::assignment::Part;
use super::log_failure::LogFailure;
use super::shared::SharedWork;
use crate::model::event::Event;
use crate::model::route::SinkName;
use crate::store::{DeadLetter, DeadLetterFilter, LetterPage, Store};

/// Whether the filter can mean letters in the store of a host.
pub(super) fn means_local(_filter: &DeadLetterFilter) -> bool {
    true
}

impl SharedWork {
    pub(super) async fn mark_letters(
        &self,
        _filter: &DeadLetterFilter,
    ) -> Result<(u64, BTreeSet<SinkName>), LogFailure> {
        match *self {}
    }

    pub(super) async fn drop_letters(&self, _filter: &DeadLetterFilter) -> Result<u64, LogFailure> {
        match *self {}
    }

    pub(super) async fn count_letters(&self, _sink: &SinkOptions, _store: &Store) -> Option<u64> {
        match *self {}
    }

    pub(super) async fn letters(
        &self,
        _filter: &DeadLetterFilter,
        _after: i64,
        _limit: usize,
    ) -> Result<LetterPage, LogFailure> {
        match *self {}
    }

    pub(super) async fn newest_letters(
        &self,
        _sink: &SinkName,
        _before: i64,
        _limit: usize,
    ) -> Result<Vec<DeadLetter>, LogFailure> {
        match *self {}
    }

    pub(super) async fn replay_part(&self, _part: Part<impl Fn(&Event) -> bool>) -> Result<u64, LogFailure> {
        match *self {}
    }
}
