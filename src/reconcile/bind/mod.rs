//! Binding shards: to the sessions that we have, or to our callback.

pub(super) mod binder;
pub(super) mod hooks;
pub(super) mod reach;
pub(super) mod schedule;
pub(super) mod shards;
