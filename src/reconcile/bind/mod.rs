//! Binding shards: to the sessions that we have, or to our callback.

mod alone;
pub(super) mod alone_binder;
pub(super) mod binder;
pub(super) mod hooks;
pub(super) mod reach;
#[cfg(test)]
mod samples;
pub(super) mod schedule;
pub(super) mod shards;
